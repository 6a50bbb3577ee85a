"""What a dialect is: how one family of servers names the signals in PromQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tiphys.dialects.measures import (
    DCGM_EXPORTER,
    ENDPOINT_PICKER,
    Aggregation,
    Asked,
    Histogram,
    Mean,
    Measure,
    Quantile,
    Recorded,
    RecordingRule,
    Series,
    Share,
    Total,
)
from tiphys.domain.signals import Latency, Signal
from tiphys.errors import InputError

VLLM_TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
"""Upper bounds of vLLM's TTFT histogram, seconds, +Inf left out (vllm/v1/metrics/loggers.py)."""
VLLM_ITL_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
"""The same of the gaps between tokens: the first bucket holds everything that is faster than 100 tokens a second."""
VLLM_E2E_BOUNDS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
"""The same of whole requests."""

_USED = Series("DCGM_FI_DEV_FB_USED", exporter=DCGM_EXPORTER)
_FREE = Series("DCGM_FI_DEV_FB_FREE", exporter=DCGM_EXPORTER)
_RESERVED = Series("DCGM_FI_DEV_FB_RESERVED", exporter=DCGM_EXPORTER)
DCGM_UTILIZATION = Share(Series("DCGM_FI_DEV_GPU_UTIL", exporter=DCGM_EXPORTER), per=100)
DCGM_MEMORY = Share(_USED, whole=(_USED, _FREE, _RESERVED))
OF_ANY_BACKEND: Mapping[Signal, Measure] = {
    Signal.GPU_UTILIZATION: DCGM_UTILIZATION,
    Signal.GPU_MEMORY: DCGM_MEMORY,
    Signal.QUEUED: Total(Series("llm_d_epp_flow_control_queue_size", exporter=ENDPOINT_PICKER)),
}
"""What servers do not say themselves: dcgm-exporter tells of their GPUs, the endpoint picker of its queue (whose
flow-control gate must be on).
"""
NOT_IN_PROMETHEUS: Mapping[Signal, str] = {
    Signal.STREAM_LAG: "NATS itself is asked for it, by a nats-jetstream trigger of KEDA",
    Signal.CPU: "metrics-server is asked for it, by a metric of source resource or KEDA's cpu trigger",
}
SAID_AS_WAITING = "Triton's own count; here `waiting` says it"
NO_QUEUE_TIME = "these servers do not count the time that requests wait"


@dataclass(frozen=True, eq=False)
class Dialect:
    """How one family of servers names the signals.

    `histograms` are those of latencies; the quantiles and means of each follow. `measures` is everything else,
    `lacking` why a signal is absent, `metrics_path` where the servers serve theirs.
    """

    name: str
    measures: Mapping[Signal, Measure]
    histograms: Mapping[Latency, Histogram] = field(default_factory=dict)
    lacking: Mapping[Signal, str] = field(default_factory=dict)
    metrics_path: str = "/metrics"

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that a query of Prometheus can be written for."""
        return tuple(signal for signal in Signal if signal in self._measures)

    @property
    def ttft_bounds_s(self) -> tuple[float, ...]:
        """Finite upper bounds of the TTFT histogram, seconds."""
        return self.bounds_s("ttft")

    def bounds_s(self, latency: Latency) -> tuple[float, ...]:
        """Finite upper bounds of a latency's histogram, seconds, increasing; empty where there is no such histogram."""
        return self.histograms[latency].bounds_s if latency in self.histograms else ()

    @cached_property
    def _measures(self) -> Mapping[Signal, Measure]:
        return {signal: self._of_histogram(signal) for signal in Signal if signal.latency in self.histograms} | dict(
            self.measures
        )

    def _of_histogram(self, signal: Signal) -> Measure:
        histogram = self.histograms[signal.latency]  # type: ignore[index]
        if signal.quantile is not None:
            return Quantile(histogram, signal.quantile)
        return Mean(histogram.series("sum"), histogram.series("count"), histogram.per_s)

    def measure(self, signal: Signal) -> Measure:
        """How a signal is made of series.

        Raises InputError, saying why and listing what there is, for a signal that these servers do not show.
        """
        if signal not in self._measures:
            reason = self.lacking.get(signal) or NOT_IN_PROMETHEUS.get(signal)
            because = f": {reason}" if reason else ""
            raise InputError(
                f"dialect {self.name} does not show this signal{because}",
                found=str(signal),
                allowed=", ".join(self.signals),
            )
        return self._measures[signal]

    def query(
        self,
        signal: Signal,
        selector: Mapping[str, str],
        *,
        window_s: int | None = None,
        aggregation: Aggregation = "sum",
    ) -> str:
        """PromQL for a signal of the pods that a selector's labels pick, in seconds, requests or a share.

        What has a window is a rate in `window_s`; a level and a rate are summed or averaged over pods. Raises
        InputError for a signal that these servers do not show.
        """
        asked = Asked(window_s, aggregation)
        return self.measure(signal).expression(lambda series: series.selected(selector), asked)

    def recording_rules(
        self, signal: Signal, selector: Mapping[str, str], *, window_s: int | None, each_pod: bool = False
    ) -> tuple[RecordingRule, ...]:
        """The rules that a signal's query reads from; none for most signals."""
        measure = self.measure(signal)
        if not isinstance(measure, Recorded):
            return ()
        return (measure.rule(selector, Asked(window_s, each_pod=each_pod)),)
