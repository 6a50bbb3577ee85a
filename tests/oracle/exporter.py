"""What a replica's metrics endpoint shows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from tests.oracle.work import Job
from tiphys.domain.signals import Latency


class Snapshot(NamedTuple):
    """One scrape: gauges, counters, and cumulative buckets (+Inf last) of the histograms."""

    gauges: dict[str, float]
    counters: dict[str, float]
    buckets: dict[str, tuple[int, ...]]


@dataclass
class Histogram:
    """Observations by bucket, `le` bounds."""

    bounds_s: Sequence[float]

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds_s) + 1)
        self.sum_s = 0.0
        self.count = 0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds
        self.count += 1


class Exporter:
    """Counters of one life of a container: a crash begins them anew."""

    def __init__(self, bounds_s: Mapping[Latency, Sequence[float]]) -> None:
        self.histograms: dict[str, Histogram] = {name: Histogram(bounds) for name, bounds in bounds_s.items()}
        self.finished = 0
        self.queue_s = self.compute_s = 0.0

    def ended(self, job: Job, now_s: float) -> None:
        self.finished += 1
        self.queue_s += job.admitted_s - job.delivered_s
        self.compute_s += now_s - job.admitted_s
        self.histograms["e2e"].observe(now_s - job.arrival_s)

    def snapshot(self, gauges: dict[str, float]) -> Snapshot:
        counters = {"finished": float(self.finished), "queue_s": self.queue_s, "compute_s": self.compute_s}
        for name, histogram in self.histograms.items():
            counters[f"{name}_sum"], counters[f"{name}_count"] = histogram.sum_s, float(histogram.count)
        buckets = {name: tuple(accumulate(histogram.counts)) for name, histogram in self.histograms.items()}
        return Snapshot(gauges, counters, buckets)
