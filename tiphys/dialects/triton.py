"""Triton with TensorRT-LLM: a built engine (C++ backend, images up to 1.2.1), or the LLM-API model (PyTorch mode).

The first-response histogram is in milliseconds and off unless Triton runs with
`--metrics-config histogram_latencies=true`; it is a TTFT only with decoupled streaming. Its GPU gauges are off with
`--allow-gpu-metrics=false`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.dialects.base import OF_ANY_BACKEND, Dialect
from tiphys.dialects.measures import Histogram, Level, Mean, Measure, Rate, Recorded, Series, Share
from tiphys.domain.signals import Signal

_FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
_DEFAULT_BOUNDS_S = (0.1, 0.5, 2.0, 5.0)
_MICROSECONDS = 1_000_000
# a repository has five models; without a model the ensemble's time would be counted with its parts'
_ENTRY = {"model": "ensemble"}
_ENGINE = {"model": "tensorrt_llm"}

_RUNNING = Series("nv_trt_llm_request_metrics", {"request_type": "active"})
_WAITING = Series("nv_trt_llm_request_metrics", {"request_type": "waiting"})
_OF_GPUS: Mapping[Signal, Measure] = {
    **OF_ANY_BACKEND,
    Signal.GPU_UTILIZATION: Share(Series("nv_gpu_utilization")),
    Signal.GPU_MEMORY: Share(Series("nv_gpu_memory_used_bytes"), whole=(Series("nv_gpu_memory_total_bytes"),)),
}
_LACKING = dict.fromkeys(
    (signal for signal in Signal if signal.latency == "itl"), "Triton does not measure the gaps between tokens"
) | dict.fromkeys(
    (signal for signal in Signal if signal.latency == "e2e"), "Triton's summaries cannot be put together over pods"
)
_HANDS_OVER = "this model hands requests over at once: what Triton counts of its own queue and compute stays near 0"
_NO_GAUGES = "the LLM-API model registers no gauges of the engine"

TRITON = Dialect(
    name="triton",
    measures={
        Signal.RUNNING: Level((_RUNNING,)),
        Signal.WAITING: Level((_WAITING,)),
        Signal.CONCURRENCY: Level((_RUNNING, _WAITING)),
        Signal.KV_USAGE: Level((Series("nv_trt_llm_kv_cache_block_metrics", {"kv_cache_block_type": "fraction"}),)),
        Signal.PENDING: Level((Series("nv_inference_pending_request_count", _ENGINE),)),
        Signal.RPS: Rate(Series("nv_inference_request_success", _ENTRY)),
        Signal.E2E_MEAN: Mean(
            Series("nv_inference_request_duration_us", _ENTRY),
            Series("nv_inference_request_success", _ENTRY),
            _MICROSECONDS,
        ),
        Signal.QUEUE_COMPUTE_RATIO: Recorded(
            "queue_compute_ratio",
            Series("nv_inference_queue_duration_us", _ENGINE),
            Series("nv_inference_compute_infer_duration_us", _ENGINE),
        ),
        **_OF_GPUS,
    },
    histograms={"ttft": Histogram(_FIRST_RESPONSE, _DEFAULT_BOUNDS_S, _ENTRY, per_s=1000)},
    lacking=_LACKING,
)

TRITON_LLMAPI = Dialect(
    name="triton-llmapi",
    measures={Signal.RPS: Rate(Series("nv_inference_request_success", _ENGINE)), **_OF_GPUS},
    histograms={"ttft": Histogram(_FIRST_RESPONSE, _DEFAULT_BOUNDS_S, _ENGINE, per_s=1000)},
    lacking={
        **_LACKING,
        **dict.fromkeys((Signal.RUNNING, Signal.WAITING, Signal.CONCURRENCY, Signal.KV_USAGE), _NO_GAUGES),
        **dict.fromkeys((Signal.PENDING, Signal.QUEUE_COMPUTE_RATIO, Signal.E2E_MEAN), _HANDS_OVER),
    },
)
