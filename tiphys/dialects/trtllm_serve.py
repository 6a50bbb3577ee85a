"""`trtllm-serve` (TensorRT-LLM's own server), with `return_perf_metrics` and `enable_iter_perf_stats` on.

Its collector was adapted from vLLM's and keeps its bounds (tensorrt_llm/metrics/collector.py). It has no histogram of
the gaps between tokens: what stands for it is each request's mean time per output token.
"""

from __future__ import annotations

from tiphys.dialects.base import (
    OF_ANY_BACKEND,
    SAID_AS_WAITING,
    VLLM_E2E_BOUNDS_S,
    VLLM_ITL_BOUNDS_S,
    VLLM_TTFT_BOUNDS_S,
    Dialect,
)
from tiphys.dialects.measures import Histogram, Level, Rate, Recorded, Series
from tiphys.domain.signals import Signal

_RUNNING = Series("trtllm_num_requests_running")
_WAITING = Series("trtllm_num_requests_waiting")

TRTLLM_SERVE = Dialect(
    name="trtllm-serve",
    measures={
        Signal.RUNNING: Level((_RUNNING,)),
        Signal.WAITING: Level((_WAITING,)),
        Signal.CONCURRENCY: Level((_RUNNING, _WAITING)),
        Signal.KV_USAGE: Level((Series("trtllm_kv_cache_utilization"),)),
        Signal.RPS: Rate(Series("trtllm_request_success_total")),
        # the second of these came after 1.2
        Signal.QUEUE_COMPUTE_RATIO: Recorded(
            "queue_compute_ratio",
            Series("trtllm_request_queue_time_seconds_sum"),
            Series("trtllm_request_inference_time_seconds_sum"),
        ),
        **OF_ANY_BACKEND,
    },
    histograms={
        "ttft": Histogram("trtllm_time_to_first_token_seconds", VLLM_TTFT_BOUNDS_S),
        "itl": Histogram("trtllm_time_per_output_token_seconds", VLLM_ITL_BOUNDS_S),
        "e2e": Histogram("trtllm_e2e_request_latency_seconds", VLLM_E2E_BOUNDS_S),
    },
    lacking={Signal.PENDING: SAID_AS_WAITING},
    # /metrics there is JSON, not Prometheus
    metrics_path="/prometheus/metrics",
)
