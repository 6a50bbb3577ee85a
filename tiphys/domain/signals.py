"""What a scaler may see."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Reading = Literal["quantile", "mean", "level", "ratio", "rate", "lag", "resource"]
Latency = Literal["ttft", "itl", "e2e"]


class Signal(StrEnum):
    """A quantity of a pool that a scaler may see; each dialect says how its backend names it in PromQL."""

    TTFT_P50 = "ttft_p50"
    TTFT_P90 = "ttft_p90"
    TTFT_P95 = "ttft_p95"
    TTFT_P99 = "ttft_p99"
    TTFT_MEAN = "ttft_mean"
    ITL_P50 = "itl_p50"
    ITL_P90 = "itl_p90"
    ITL_P95 = "itl_p95"
    ITL_P99 = "itl_p99"
    ITL_MEAN = "itl_mean"
    E2E_P50 = "e2e_p50"
    E2E_P90 = "e2e_p90"
    E2E_P95 = "e2e_p95"
    E2E_P99 = "e2e_p99"
    E2E_MEAN = "e2e_mean"
    RUNNING = "running"
    WAITING = "waiting"
    KV_USAGE = "kv_usage"
    CONCURRENCY = "concurrency"
    """requests in a replica, running or waiting"""
    PENDING = "pending"
    """Triton's nv_inference_pending_request_count: requests that the engine has not begun"""
    QUEUED = "queued"
    """requests that wait before any replica: in the router's queue, the interceptor, the activator"""
    GPU_UTILIZATION = "gpu_utilization"
    """share of time in which a step ran, 0..1"""
    GPU_MEMORY = "gpu_memory"
    """share of the GPU's memory in use, 0..1: constant where the engine allocates its KV cache at the start"""
    RPS = "rps"
    """requests finished a second"""
    QUEUE_COMPUTE_RATIO = "queue_compute_ratio"
    """Triton's queue time over its compute time, from a recording rule"""
    STREAM_LAG = "stream_lag"
    """messages pending and delivered but not acknowledged at a JetStream consumer"""
    CPU = "cpu"
    """CPU in use, of metrics-server: utilization of the request, or cores"""

    @property
    def quantile(self) -> float | None:
        """The quantile of a latency percentile (0.9 for `ttft_p90`), None for anything else."""
        return _QUANTILES.get(self.value.partition("_")[2]) if self.latency is not None else None

    @property
    def latency(self) -> Latency | None:
        """Which latency this is the percentile or mean of."""
        head, _, tail = self.value.partition("_")
        return head if head in ("ttft", "itl", "e2e") and (tail == "mean" or tail in _QUANTILES) else None  # type: ignore[return-value]

    @property
    def reading(self) -> Reading:
        """How it is asked for: `level` is an instant gauge summed or averaged over pods; `quantile`, `mean`, `ratio`
        and `rate` need a window; `lag` is asked of the queue itself, `resource` of metrics-server.
        """
        if self.latency is not None:
            return "mean" if self.quantile is None else "quantile"
        return _READINGS.get(self, "level")

    @property
    def is_level(self) -> bool:
        """True for gauges that are summed over pods under AverageValue: running, waiting, kv_usage, ..."""
        return self.reading == "level"

    @property
    def has_window(self) -> bool:
        """True for what is computed over a range of time."""
        return self.reading in ("quantile", "mean", "ratio", "rate")


_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_READINGS: dict[Signal, Reading] = {
    Signal.RPS: "rate",
    Signal.QUEUE_COMPUTE_RATIO: "ratio",
    Signal.STREAM_LAG: "lag",
    Signal.CPU: "resource",
}
