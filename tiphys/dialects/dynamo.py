"""NVIDIA Dynamo as its frontend tells of it: the whole graph's requests, whatever the engine.

The engines' own names pass through its workers too, and are what a pool's backend speaks. Bounds are the frontend's
defaults; DYN_METRICS_TTFT_{MIN,MAX,COUNT} and the like change them (lib/llm/src/http/service/metrics.rs).
"""

from __future__ import annotations

from tiphys.dialects.base import DCGM_MEMORY, DCGM_UTILIZATION, NO_QUEUE_TIME, SAID_AS_WAITING, Dialect
from tiphys.dialects.measures import FRONTEND, Histogram, Level, Rate, Series, Total
from tiphys.domain.signals import Signal

# logarithmic between the defaults, rounded to two figures; the first bound, 0, holds nothing and is left out
_TTFT_BOUNDS_S = (
    0.0022, 0.0047, 0.01, 0.022, 0.047, 0.1, 0.22, 0.47, 1.0, 2.2, 4.7, 10.0, 22.0, 48.0, 100.0, 220.0, 480.0,
)  # fmt: skip
_ITL_BOUNDS_S = (0.0019, 0.0035, 0.0067, 0.013, 0.024, 0.045, 0.084, 0.16, 0.3, 0.56, 1.1, 2.0)
_E2E_BOUNDS_S = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 130.0, 260.0, 510.0)

DYNAMO = Dialect(
    name="dynamo",
    measures={
        # counts the waiting ones too
        Signal.RUNNING: Level((Series("dynamo_frontend_active_requests", exporter=FRONTEND),)),
        Signal.WAITING: Level((Series("dynamo_frontend_stage_requests", exporter=FRONTEND),)),
        Signal.KV_USAGE: Level((Series("dynamo_component_gpu_cache_usage_percent"),)),
        # with --router-queue-threshold only
        Signal.QUEUED: Total(Series("dynamo_frontend_router_queue_pending_requests", exporter=FRONTEND)),
        Signal.RPS: Rate(Series("dynamo_frontend_requests_total", exporter=FRONTEND)),
        Signal.GPU_UTILIZATION: DCGM_UTILIZATION,
        Signal.GPU_MEMORY: DCGM_MEMORY,
    },
    histograms={
        "ttft": Histogram("dynamo_frontend_time_to_first_token_seconds", _TTFT_BOUNDS_S, exporter=FRONTEND),
        "itl": Histogram(
            "dynamo_frontend_inter_token_latency_seconds", _ITL_BOUNDS_S, observed="token", exporter=FRONTEND
        ),
        "e2e": Histogram("dynamo_frontend_request_duration_seconds", _E2E_BOUNDS_S, exporter=FRONTEND),
    },
    lacking={
        Signal.PENDING: SAID_AS_WAITING,
        Signal.QUEUE_COMPUTE_RATIO: NO_QUEUE_TIME,
        Signal.CONCURRENCY: "the frontend's `running` counts the waiting ones too",
    },
)
