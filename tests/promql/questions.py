"""What is asked of a recording: which shapes, and at which moments.

The moments hang on the timestamps that Prometheus gave the samples, so that edges are hit to the millisecond.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.promql.script import PODS, TTFT
from tests.promql.shapes import Shape, buckets, quantile, ratio, series

DEFAULT_LOOKBACK_MS = 300_000
SHORT_LOOKBACK_MS = 4_000
ALL_PODS = "|".join(PODS)


@dataclass(frozen=True)
class Rows:
    """The timestamps of one target's rows."""

    times_ms: Sequence[int]
    stale: Sequence[bool]

    @property
    def samples(self) -> list[int]:
        return [time for time, stale in zip(self.times_ms, self.stale, strict=True) if not stale]

    @property
    def markers(self) -> list[int]:
        return [time for time, stale in zip(self.times_ms, self.stale, strict=True) if stale]


@dataclass(frozen=True)
class Question:
    kind: str
    shape: Shape
    at_ms: int
    lookback_ms: int = DEFAULT_LOOKBACK_MS


def questions(rows: Mapping[str, Rows]) -> list[Question]:
    """Every question, in a fixed order."""
    draw = random.Random("questions")
    asked = [
        *_edges(rows),
        *_resets(rows, draw),
        *_few_samples(rows),
        *_fractions(rows),
        *_extrapolation(rows),
        *_staleness(rows),
        *_lookback(rows),
        *_over_time(rows, draw),
        *_aggregates(rows, draw),
        *_ratios(rows, draw),
        *_histograms(rows, draw),
    ]
    unique = {repr(question): question for question in asked}
    return list(unique.values())


def _edges(rows: Mapping[str, Rows]) -> Iterator[Question]:
    """A sample exactly on the window's left edge, and a millisecond to each side of it."""
    for target, function, name, window_ms in (
        ("steady", "rate", "requests_total", 10_000),
        ("steady", "increase", "tokens_total", 5_000),
        ("crash", "increase", "requests_total", 7_000),
        ("quick", "rate", "tokens_total", 3_000),
        ("slow", "rate", "requests_total", 15_000),
        ("steady", "avg_over_time", "kv_usage", 6_000),
        ("steady", "max_over_time", "running", 4_000),
        ("steady", "delta", "drift", 8_000),
        ("slow", "irate", "requests_total", 5_000),
        ("quick", "deriv", "drift", 4_000),
    ):
        edge_ms = rows[target].samples[len(rows[target].samples) // 3]
        for off_ms in (-1, 0, 1):
            yield Question("left edge", series(function, name, target, window_ms), edge_ms + window_ms + off_ms)
    for target in ("steady", "slow"):
        newest_ms = rows[target].samples[-3]
        for off_ms in (-1, 0, 1):
            yield Question("right edge", series("rate", "requests_total", target, 10_000), newest_ms + off_ms)
            yield Question("right edge", series("level", "running", target), newest_ms + off_ms)


def _resets(rows: Mapping[str, Rows], draw: random.Random) -> Iterator[Question]:
    for target, numbers in (("crash", (8, 9, 10, 11, 12, 13, 25, 26, 40, 41)), ("quick", (50, 52)), ("slow", (13, 14))):
        for number in numbers:
            for window_ms in (4_000, 15_000):
                function = draw.choice(("rate", "increase", "irate"))
                name = draw.choice(("requests_total", "tokens_total"))
                at_ms = rows[target].samples[number] + draw.randint(0, 900)
                yield Question("reset", series(function, name, target, window_ms), at_ms)
    for number in (24, 26, 30):
        at_ms = rows["back"].samples[min(number, len(rows["back"].samples) - 1)] + 10
        yield Question("reset", series("increase", "requests_total", "back", 60_000), at_ms)


def _few_samples(rows: Mapping[str, Rows]) -> Iterator[Question]:
    """Windows of no, one and two samples."""
    third_ms = rows["slow"].samples[3]
    for function, name in (
        ("rate", "requests_total"),
        ("increase", "requests_total"),
        ("delta", "drift"),
        ("irate", "requests_total"),
        ("deriv", "drift"),
        ("avg_over_time", "running"),
        ("max_over_time", "running"),
    ):
        for window_ms in (1_000, 2_000, 4_500):
            yield Question("few samples", series(function, name, "slow", window_ms), third_ms + 1_500)
    first_ms = rows["steady"].samples[0]
    for late_ms in (-500, 0, 500, 1_100):
        yield Question("few samples", series("rate", "requests_total", "steady", 10_000), first_ms + late_ms)
        yield Question("few samples", buckets(TTFT, "steady", 10_000), first_ms + late_ms)
        yield Question("few samples", quantile(0.9, TTFT, "steady", 10_000), first_ms + late_ms)


def _fractions(rows: Mapping[str, Rows]) -> Iterator[Question]:
    """Windows that are no whole number of seconds."""
    at_ms = rows["quick"].samples[60] + 120
    for window_ms in (1_300, 1_700, 2_500, 3_333):
        yield Question("fraction", series("rate", "tokens_total", "quick", window_ms), at_ms)
        yield Question("fraction", quantile(0.5, TTFT, "quick", window_ms), at_ms)


def _extrapolation(rows: Mapping[str, Rows]) -> Iterator[Question]:
    """Near and far from the edges, from the zero point, at either side of 1.1 gaps."""
    first_ms = rows["late"].samples[0]
    for late_ms in (2_050, 5_000, 9_900):
        for window_ms in (10_000, 30_000):
            yield Question("new target", series("rate", "tokens_total", "late", window_ms), first_ms + late_ms)
            yield Question("new target", series("increase", "requests_total", "late", window_ms), first_ms + late_ms)
    last_ms = rows["gone"].samples[-1]
    for late_ms in (500, 1_050, 1_099, 1_100, 1_101, 1_300, 6_000, 9_500):
        yield Question("vanished target", series("rate", "requests_total", "gone", 12_000), last_ms + late_ms)
    samples = rows["zero"].samples
    for number in (6, 7, 9, 14, 20):
        for window_ms in (3_000, 10_000, 60_000):
            yield Question("zero point", series("increase", "requests_total", "zero", window_ms), samples[number] + 300)
            yield Question("zero point", series("rate", "tokens_total", "zero", window_ms), samples[number] + 300)
    for window_ms in (5_000, 60_000):
        yield Question("zero point", series("rate", "idle_total", "zero", window_ms), samples[20] + 300)
    start_ms = rows["steady"].samples[20]
    for off_ms in (1_090, 1_099, 1_100, 1_101, 1_110):
        # the first sample seen is this far from the left edge, when the flaky target has its outage there
        after_ms = rows["flaky"].samples[12]
        yield Question("gap", series("rate", "requests_total", "flaky", 5_000), after_ms - off_ms + 5_000)
        yield Question("gap", series("delta", "drift", "steady", 5_000), start_ms - off_ms + 5_000)


def _staleness(rows: Mapping[str, Rows]) -> Iterator[Question]:
    for target in ("flaky", "gone", "back", "quick"):
        for marker_ms in rows[target].markers:
            for off_ms in (-1, 0, 1, 700):
                yield Question("stale marker", series("level", "running", target), marker_ms + off_ms)
            # a range passes over the marker
            yield Question("stale marker", series("rate", "requests_total", target, 20_000), marker_ms + 100)
            yield Question("stale marker", series("avg_over_time", "kv_usage", target, 6_000), marker_ms + 2_100)
            shape = series("level", "running", ALL_PODS, aggregate="sum")
            yield Question("failed scrapes", shape, marker_ms + 50)
    samples = rows["flaky"].samples
    after = [now for before, now in pairwise(samples) if now - before > 1_500]
    for resumed_ms in after:
        for off_ms in (-1, 0, 1):
            yield Question("failed scrapes", series("level", "kv_usage", "flaky"), resumed_ms + off_ms)
        for window_ms in (3_000, 20_000):
            yield Question("failed scrapes", series("increase", "tokens_total", "flaky", window_ms), resumed_ms + 10)
            yield Question("failed scrapes", series("irate", "tokens_total", "flaky", window_ms), resumed_ms + 10)
            yield Question("failed scrapes", quantile(0.9, TTFT, "flaky", window_ms), resumed_ms + 10)


def _lookback(rows: Mapping[str, Rows]) -> Iterator[Question]:
    for target in ("steady", "slow", "zero"):
        name = "requests_total"
        last_ms = rows[target].samples[-1]
        for off_ms in (-1, 0, 1):
            at_ms = last_ms + DEFAULT_LOOKBACK_MS + off_ms
            yield Question("lookback", series("level", name, target), at_ms)
            at_ms = last_ms + SHORT_LOOKBACK_MS + off_ms
            yield Question("short lookback", series("level", name, target), at_ms, SHORT_LOOKBACK_MS)
    for off_ms in (0, 60_000, 299_000, 300_500, 400_000):
        last_ms = max(rows[pod].samples[-1] for pod in PODS)
        yield Question("lookback", series("level", "running", ALL_PODS, aggregate="sum"), last_ms + off_ms)
    for off_ms in (100, 1_000, 2_000, 3_999, 4_500):
        last_ms = max(rows[pod].samples[-1] for pod in PODS)
        for aggregate in ("sum", "avg"):
            shape = series("level", "kv_usage", ALL_PODS, aggregate=aggregate)
            yield Question("short lookback", shape, last_ms + off_ms, SHORT_LOOKBACK_MS)
    for marker_ms in rows["flaky"].markers:
        shape = series("level", "running", "flaky")
        yield Question("short lookback", shape, marker_ms + 5_500, SHORT_LOOKBACK_MS)
        # a lookback has nothing to say to a range
        shape = series("rate", "requests_total", "flaky", 20_000)
        yield Question("short lookback", shape, marker_ms + 5_500, SHORT_LOOKBACK_MS)
    number = len(rows["slow"].samples) // 2
    for off_ms in (2_499, 3_999, 4_000):
        at_ms = rows["slow"].samples[number] + off_ms
        yield Question("short lookback", series("level", "running", "slow"), at_ms, SHORT_LOOKBACK_MS)


def _moments(rows: Mapping[str, Rows], draw: random.Random, count: int) -> list[int]:
    start_ms, end_ms = rows["steady"].samples[4], rows["steady"].samples[-1]
    return sorted(draw.randint(start_ms, end_ms) for _ in range(count))


def _over_time(rows: Mapping[str, Rows], draw: random.Random) -> Iterator[Question]:
    for function, name in (
        ("avg_over_time", "kv_usage"),
        ("avg_over_time", "drift"),
        ("max_over_time", "drift"),
        ("delta", "drift"),
        ("deriv", "drift"),
        ("deriv", "failures_total"),
        ("irate", "tokens_total"),
    ):
        for at_ms in _moments(rows, draw, 3):
            target = draw.choice(("steady", "flaky", "quick", "slow"))
            window_ms = draw.choice((2_500, 6_000, 20_000))
            yield Question("over time", series(function, name, target, window_ms), at_ms)
    for window_ms in (3_000, 10_000):
        yield Question("over time", series("deriv", "still", "zero", window_ms), rows["zero"].samples[20] + 300)


def _aggregates(rows: Mapping[str, Rows], draw: random.Random) -> Iterator[Question]:
    for aggregate in ("sum", "avg", "max"):
        for function, name in (
            ("level", "running"),
            ("level", "kv_usage"),
            ("rate", "requests_total"),
            ("increase", "tokens_total"),
            ("avg_over_time", "kv_usage"),
            ("max_over_time", "running"),
        ):
            for at_ms in _moments(rows, draw, 3):
                window_ms = 0 if function == "level" else draw.choice((3_000, 10_000, 30_000))
                yield Question("over pods", series(function, name, ALL_PODS, window_ms, aggregate), at_ms)
        before_ms = rows["steady"].samples[0] - 5_000
        yield Question("absent", series("level", "running", ALL_PODS, aggregate=aggregate), before_ms)
        yield Question("absent", series("rate", "requests_total", ALL_PODS, 4_000, aggregate), before_ms)


def _ratios(rows: Mapping[str, Rows], draw: random.Random) -> Iterator[Question]:
    for at_ms in _moments(rows, draw, 6):
        window_ms = draw.choice((3_000, 10_000, 30_000))
        yield Question("ratio", ratio("rate", f"{TTFT}_sum", f"{TTFT}_count", ALL_PODS, window_ms), at_ms)
        yield Question("ratio", ratio("increase", "tokens_total", "requests_total", "crash", window_ms), at_ms)
        yield Question("ratio", ratio("level", "drift", "running", ALL_PODS), at_ms)
    at_ms = rows["steady"].samples[30]
    yield Question("ratio by zero", ratio("rate", "failures_total", "failures_total", ALL_PODS, 10_000), at_ms)
    yield Question("ratio by zero", ratio("rate", "tokens_total", "failures_total", ALL_PODS, 10_000), at_ms)
    yield Question("ratio by zero", ratio("delta", "drift", "failures_total", "steady", 20_000), at_ms)
    yield Question("ratio by zero", ratio("level", "failures_total", "failures_total", ALL_PODS), at_ms)
    yield Question("ratio by zero", ratio("level", "failures_total", "running", ALL_PODS), at_ms)
    for above, below in (("requests_total", "kv_usage"), ("kv_usage", "requests_total")):
        # target zero has no such gauge
        yield Question("absent", ratio("level", above, below, "zero"), at_ms)
    shape = ratio("rate", "tokens_total", "requests_total", "late", 10_000)
    yield Question("absent", shape, rows["late"].samples[0] - 9)


def _histograms(rows: Mapping[str, Rows], draw: random.Random) -> Iterator[Question]:
    for share in (0.0, 0.2, 0.5, 0.9, 0.99, 1.0):
        for at_ms in _moments(rows, draw, 4):
            window_ms = draw.choice((2_000, 5_000, 15_000, 40_000))
            targets = draw.choice((ALL_PODS, ALL_PODS, "crash", "flaky", "steady", "slow"))
            yield Question("quantile", quantile(share, TTFT, targets, window_ms), at_ms)
    for at_ms in _moments(rows, draw, 8):
        window_ms = draw.choice((2_000, 5_000, 15_000, 40_000))
        yield Question("bucket rates", buckets(TTFT, draw.choice((ALL_PODS, "crash", "flaky")), window_ms), at_ms)
    at_ms = rows["steady"].samples[36] + 400
    for share in (-0.1, 1.1, math.nan):
        yield Question("quantile out of range", quantile(share, TTFT, "steady", 10_000), at_ms)
        yield Question("quantile out of range", quantile(share, "silent", "empty", 10_000), at_ms)
        yield Question("quantile out of range", quantile(share, "endless", "empty", 10_000), at_ms)
    for name in ("silent", "above", "endless", "single", "few", "signed", "origin", "below"):
        for share in (0.0, 0.5, 0.9, 1.0):
            yield Question("odd buckets", quantile(share, name, "empty", 10_000), at_ms)
        yield Question("odd buckets", buckets(name, "empty", 10_000), at_ms)
    for name in ("falling", "rounded", "risen"):
        for share in (0.1, 0.3, 0.5, 0.7, 0.95, 1.0):
            yield Question("mended buckets", quantile(share, name, "broken", 10_000), at_ms)
    for share in (0.5, 0.9):
        yield Question("absent", quantile(share, TTFT, "late", 10_000), rows["late"].samples[0] - 1)
        yield Question("absent", quantile(share, TTFT, "gone", 5_000), rows["gone"].samples[-1] + 20_000)
        yield Question("left edge", quantile(share, TTFT, "steady", 8_000), rows["steady"].samples[20] + 8_000)
    yield Question("left edge", buckets(TTFT, "steady", 8_000), rows["steady"].samples[20] + 8_000)
