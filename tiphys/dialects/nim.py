"""NIM for LLMs 1.x: vLLM's names without the prefix, on /v1/metrics. NIM 2.x speaks `vllm`."""

from __future__ import annotations

from tiphys.dialects.base import VLLM_TTFT_BOUNDS_S, Dialect, Series
from tiphys.domain.signals import Signal

NIM = Dialect(
    name="nim",
    levels={
        Signal.RUNNING: Series("num_requests_running", {}),
        Signal.WAITING: Series("num_requests_waiting", {}),
        Signal.KV_USAGE: Series("gpu_cache_usage_perc", {}),
    },
    ttft="time_to_first_token_seconds",
    # vLLM's bounds up to 10 s: a 2 s limit lies inside the bucket from 1 to 2.5 s, where the quantile is interpolated
    ttft_bounds_s=VLLM_TTFT_BOUNDS_S[:16],
    metrics_path="/v1/metrics",
)
