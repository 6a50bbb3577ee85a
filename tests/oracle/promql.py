"""What Prometheus remembers of its targets, and the queries that scalers ask it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from tests.oracle.exporter import Snapshot
from tests.oracle.prometheus import histogram_quantile

NAN = float("nan")


class QueryError(Exception):
    """Prometheus did not answer."""


def ms(seconds: float) -> int:
    """Prometheus keeps whole milliseconds."""
    return math.floor(seconds * 1000 + 1e-6)


class Series:
    """Everything scraped from one target: snapshots and, as None, stale markers."""

    def __init__(self, pod: int) -> None:
        self.pod = pod
        self.times_ms: list[int] = []
        self.snapshots: list[Snapshot | None] = []

    def write(self, time_s: float, snapshot: Snapshot | None) -> None:
        self.times_ms.append(ms(time_s))
        self.snapshots.append(snapshot)

    def instant(self, now_s: float, lookback_s: float) -> Snapshot | None:
        """The last sample, unless it is too old or followed by a stale marker."""
        if not self.times_ms or self.times_ms[-1] <= ms(now_s) - ms(lookback_s):
            return None
        return self.snapshots[-1]

    def window(self, now_s: float, window_s: float) -> list[tuple[int, Snapshot]]:
        """The samples of a range selector: left-open, markers skipped; times in milliseconds."""
        first = bisect_right(self.times_ms, ms(now_s) - ms(window_s))
        pairs = zip(self.times_ms[first:], self.snapshots[first:], strict=True)
        return [(time_ms, snapshot) for time_ms, snapshot in pairs if snapshot is not None]


def rate(times_ms: Sequence[int], values: Sequence[float], now_s: float, window_s: float) -> float:
    """Per-second increase of a counter over (now - window, now], resets made good, extrapolated to the edges."""
    increase = values[-1] - values[0] + sum(before for before, after in pairwise(values) if after < before)
    span_s = (times_ms[-1] - times_ms[0]) / 1000
    gap_s = span_s / (len(values) - 1)
    before_s = (times_ms[0] - (ms(now_s) - ms(window_s))) / 1000
    after_s = (ms(now_s) - times_ms[-1]) / 1000
    if before_s >= gap_s * 1.1:
        before_s = gap_s / 2
    if increase > 0:
        before_s = min(before_s, span_s * (values[0] / increase))
    if after_s >= gap_s * 1.1:
        after_s = gap_s / 2
    return increase * ((span_s + before_s + after_s) / span_s / window_s)


def levels(targets: Sequence[Series], name: str, now_s: float, lookback_s: float) -> list[tuple[int, float]]:
    """(pod, value) of an instant vector."""
    found = [(target.pod, target.instant(now_s, lookback_s)) for target in targets]
    return [(pod, snapshot.gauges[name]) for pod, snapshot in found if snapshot is not None]


def rates(
    targets: Sequence[Series], read: Callable[[Snapshot], float], now_s: float, window_s: float
) -> list[tuple[int, float]]:
    """(pod, rate) of a counter, where a pod has two samples in the window."""
    found = []
    for target in targets:
        samples = target.window(now_s, window_s)
        if len(samples) >= 2:
            times = [time_ms for time_ms, _ in samples]
            found.append((target.pod, rate(times, [read(snapshot) for _, snapshot in samples], now_s, window_s)))
    return found


def counter_rates(targets: Sequence[Series], name: str, now_s: float, window_s: float) -> list[tuple[int, float]]:
    return rates(targets, lambda snapshot: snapshot.counters[name], now_s, window_s)


def ratio_of_rates(targets: Sequence[Series], over: str, under: str, now_s: float, window_s: float) -> float | None:
    """`sum(rate(over)) / sum(rate(under))`: None without series, NaN for nothing over nothing."""
    above, below = (counter_rates(targets, name, now_s, window_s) for name in (over, under))
    if not above:
        return None
    numerator, denominator = (math.fsum(value for _, value in each) for each in (above, below))
    if denominator == 0:
        return NAN if numerator == 0 else math.copysign(math.inf, numerator)
    return numerator / denominator


def quantile_of_rates(
    targets: Sequence[Series], histogram: str, bounds_s: Sequence[float], quantile: float, now_s: float, window_s: float
) -> float | None:
    """`histogram_quantile(q, sum by (le) (rate(..._bucket[window])))`: None without series."""
    totals: list[float] = []
    for place in range(len(bounds_s) + 1):

        def read(snapshot: Snapshot, place: int = place) -> float:
            return float(snapshot.buckets[histogram][place])

        found = rates(targets, read, now_s, window_s)
        if not found:
            return None
        totals.append(math.fsum(value for _, value in found))
    return histogram_quantile(quantile, bounds_s, totals)
