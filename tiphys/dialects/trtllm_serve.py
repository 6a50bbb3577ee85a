"""`trtllm-serve` (TensorRT-LLM's own server), with `return_perf_metrics` and `enable_iter_perf_stats` on.

Its collector was adapted from vLLM's and keeps its bounds (tensorrt_llm/metrics/collector.py).
"""

from __future__ import annotations

from tiphys.dialects.base import VLLM_TTFT_BOUNDS_S, Dialect, Series
from tiphys.domain.signals import Signal

TRTLLM_SERVE = Dialect(
    name="trtllm-serve",
    levels={
        Signal.RUNNING: Series("trtllm_num_requests_running", {}),
        Signal.WAITING: Series("trtllm_num_requests_waiting", {}),
        Signal.KV_USAGE: Series("trtllm_kv_cache_utilization", {}),
    },
    ttft="trtllm_time_to_first_token_seconds",
    ttft_bounds_s=VLLM_TTFT_BOUNDS_S,
    # /metrics there is JSON, not Prometheus
    metrics_path="/prometheus/metrics",
)
