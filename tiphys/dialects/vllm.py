"""vLLM 0.12 and later, and NIM for LLMs 2.x on vLLM, which passes the engine's metrics through unchanged."""

from __future__ import annotations

from tiphys.dialects.base import VLLM_TTFT_BOUNDS_S, Dialect, Series
from tiphys.domain.signals import Signal

VLLM = Dialect(
    name="vllm",
    levels={
        Signal.RUNNING: Series("vllm:num_requests_running", {}),
        Signal.WAITING: Series("vllm:num_requests_waiting", {}),
        # 0 to 1 in spite of its name; vllm:gpu_cache_usage_perc is gone since 0.12
        Signal.KV_USAGE: Series("vllm:kv_cache_usage_perc", {}),
    },
    ttft="vllm:time_to_first_token_seconds",
    ttft_bounds_s=VLLM_TTFT_BOUNDS_S,
)
