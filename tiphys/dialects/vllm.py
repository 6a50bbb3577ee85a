"""vLLM 0.12 and later, and NIM for LLMs 2.x on vLLM, which passes the engine's metrics through unchanged."""

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

_RUNNING = Series("vllm:num_requests_running")
_WAITING = Series("vllm:num_requests_waiting")

VLLM = Dialect(
    name="vllm",
    measures={
        Signal.RUNNING: Level((_RUNNING,)),
        Signal.WAITING: Level((_WAITING,)),
        Signal.CONCURRENCY: Level((_RUNNING, _WAITING)),
        # 0 to 1 in spite of its name; vllm:gpu_cache_usage_perc is gone since 0.12
        Signal.KV_USAGE: Level((Series("vllm:kv_cache_usage_perc"),)),
        # aborted requests are among them, under a finished_reason of their own
        Signal.RPS: Rate(Series("vllm:request_success_total")),
        Signal.QUEUE_COMPUTE_RATIO: Recorded(
            "queue_compute_ratio",
            Series("vllm:request_queue_time_seconds_sum"),
            Series("vllm:request_inference_time_seconds_sum"),
        ),
        **OF_ANY_BACKEND,
    },
    histograms={
        "ttft": Histogram("vllm:time_to_first_token_seconds", VLLM_TTFT_BOUNDS_S),
        "itl": Histogram("vllm:inter_token_latency_seconds", VLLM_ITL_BOUNDS_S, observed="token"),
        "e2e": Histogram("vllm:e2e_request_latency_seconds", VLLM_E2E_BOUNDS_S),
    },
    lacking={Signal.PENDING: SAID_AS_WAITING},
)
