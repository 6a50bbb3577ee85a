"""NIM for LLMs 1.x: vLLM's names without the prefix, on /v1/metrics. NIM 2.x speaks `vllm`."""

from __future__ import annotations

from tiphys.dialects.base import (
    NO_QUEUE_TIME,
    OF_ANY_BACKEND,
    SAID_AS_WAITING,
    VLLM_ITL_BOUNDS_S,
    VLLM_TTFT_BOUNDS_S,
    Dialect,
)
from tiphys.dialects.measures import Histogram, Level, Rate, Series
from tiphys.domain.signals import Signal

_RUNNING = Series("num_requests_running")
_WAITING = Series("num_requests_waiting")
_E2E_BOUNDS_S = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)

NIM = Dialect(
    name="nim",
    measures={
        Signal.RUNNING: Level((_RUNNING,)),
        Signal.WAITING: Level((_WAITING,)),
        Signal.CONCURRENCY: Level((_RUNNING, _WAITING)),
        Signal.KV_USAGE: Level((Series("gpu_cache_usage_perc"),)),
        Signal.RPS: Rate(Series("request_success_total")),
        **OF_ANY_BACKEND,
    },
    histograms={
        # vLLM's bounds up to 10 s: a 2 s limit lies inside the bucket from 1 to 2.5 s, so the quantile is interpolated
        "ttft": Histogram("time_to_first_token_seconds", VLLM_TTFT_BOUNDS_S[:16]),
        # bounds that no documentation lists: those of the vLLM releases in which TTFT ended at 10 s too
        "itl": Histogram("time_per_output_token_seconds", VLLM_ITL_BOUNDS_S[:13], observed="token"),
        "e2e": Histogram("e2e_request_latency_seconds", _E2E_BOUNDS_S),
    },
    lacking={Signal.PENDING: SAID_AS_WAITING, Signal.QUEUE_COMPUTE_RATIO: NO_QUEUE_TIME},
    metrics_path="/v1/metrics",
)
