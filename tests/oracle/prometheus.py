"""What Prometheus remembers of the pods, and the few queries that a scaler asks it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

NAN = float("nan")
Level = Literal["running", "waiting", "kv_usage"]


def ms(seconds: float) -> int:
    """Prometheus keeps whole milliseconds."""
    return math.floor(seconds * 1000 + 1e-6)


@dataclass(frozen=True)
class Sample:
    """One scrape of one pod; `buckets` are cumulative counts by upper bound, +Inf last."""

    time_s: float
    levels: dict[str, float]
    buckets: tuple[int, ...]


@dataclass
class Target:
    """One pod's series; they end with a stale marker some time after the pod is gone."""

    pod: int
    samples: list[Sample] = field(default_factory=list)
    stale_s: float = math.inf

    def instant(self, now_s: float, lookback_s: float) -> Sample | None:
        """The last sample, unless it is too old or followed by a stale marker."""
        if self.stale_s <= now_s:
            return None
        seen = self.window(now_s, lookback_s)
        return seen[-1] if seen else None

    def window(self, now_s: float, window_s: float) -> list[Sample]:
        """The samples of a range selector: left-open, markers skipped."""
        return [s for s in self.samples if ms(now_s) - ms(window_s) < ms(s.time_s) <= ms(now_s)]


def levels(targets: Sequence[Target], name: str, now_s: float, lookback_s: float) -> list[tuple[int, float]]:
    """(pod, value) of an instant vector."""
    found = [(target.pod, target.instant(now_s, lookback_s)) for target in targets]
    return [(pod, sample.levels[name]) for pod, sample in found if sample is not None]


def rate(times_s: Sequence[float], values: Sequence[float], now_s: float, window_s: float) -> float:
    """Per-second increase of a counter over (now - window, now], extrapolated to the window's edges."""
    increase = values[-1] - values[0]
    first_ms, last_ms = ms(times_s[0]), ms(times_s[-1])
    span_s = (last_ms - first_ms) / 1000
    gap_s = span_s / (len(values) - 1)
    before_s = (first_ms - (ms(now_s) - ms(window_s))) / 1000
    after_s = (ms(now_s) - last_ms) / 1000
    if before_s >= gap_s * 1.1:
        before_s = gap_s / 2
    if increase > 0:
        before_s = min(before_s, span_s * (values[0] / increase))
    if after_s >= gap_s * 1.1:
        after_s = gap_s / 2
    return increase * ((span_s + before_s + after_s) / span_s / window_s)


def bucket_rates(targets: Sequence[Target], now_s: float, window_s: float) -> list[float] | None:
    """`sum by (le) (rate(..._bucket[window]))`; None where no series has two samples in the window."""
    by_pod: list[list[float]] = []
    for target in targets:
        samples = target.window(now_s, window_s)
        if len(samples) < 2:
            continue
        times = [s.time_s for s in samples]
        counts = zip(*(s.buckets for s in samples), strict=True)
        by_pod.append([rate(times, values, now_s, window_s) for values in counts])
    return [math.fsum(of_pods) for of_pods in zip(*by_pod, strict=True)] or None


def histogram_quantile(quantile: float, bounds: Sequence[float], counts: Sequence[float]) -> float:
    """Linear inside the bucket that the rank falls into; the last finite bound above it; NaN without observations."""
    counts = [max(counts[: i + 1]) for i in range(len(counts))]
    if counts[-1] == 0:
        return NAN
    rank = quantile * counts[-1]
    bucket = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(bounds))
    if bucket == len(bounds):
        return bounds[-1]
    below = counts[bucket - 1] if bucket else 0.0
    start = bounds[bucket - 1] if bucket else 0.0
    return start + (bounds[bucket] - start) * ((rank - below) / (counts[bucket] - below))
