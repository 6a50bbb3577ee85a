"""What a scaler may see."""

from __future__ import annotations

from enum import StrEnum


class Signal(StrEnum):
    """A quantity of a pool that a scaler may see; each dialect says how its backend names it in PromQL."""

    TTFT_P50 = "ttft_p50"
    TTFT_P90 = "ttft_p90"
    TTFT_P95 = "ttft_p95"
    TTFT_P99 = "ttft_p99"
    RUNNING = "running"
    WAITING = "waiting"
    KV_USAGE = "kv_usage"

    @property
    def quantile(self) -> float | None:
        """The quantile of a latency signal (0.9 for `ttft_p90`), None for a level."""
        return _QUANTILES.get(self)

    @property
    def is_level(self) -> bool:
        """True for gauges that are summed over pods under AverageValue: running, waiting, kv_usage."""
        return self.quantile is None


_QUANTILES = {Signal.TTFT_P50: 0.5, Signal.TTFT_P90: 0.9, Signal.TTFT_P95: 0.95, Signal.TTFT_P99: 0.99}
