"""Triton with TensorRT-LLM: a built engine (C++ backend, images up to 1.2.1), or the LLM-API model (PyTorch mode).

The first-response histogram is in milliseconds and off unless Triton runs with
`--metrics-config histogram_latencies=true`; it is a TTFT only with decoupled streaming.
"""

from __future__ import annotations

from tiphys.dialects.base import Dialect, Series
from tiphys.domain.signals import Signal

_FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
_DEFAULT_BOUNDS_S = (0.1, 0.5, 2.0, 5.0)

TRITON = Dialect(
    name="triton",
    levels={
        Signal.RUNNING: Series("nv_trt_llm_request_metrics", {"request_type": "active"}),
        Signal.WAITING: Series("nv_trt_llm_request_metrics", {"request_type": "waiting"}),
        Signal.KV_USAGE: Series("nv_trt_llm_kv_cache_block_metrics", {"kv_cache_block_type": "fraction"}),
    },
    ttft=_FIRST_RESPONSE,
    # a repository has five models; without a model the ensemble's time would be counted with its parts'
    ttft_labels={"model": "ensemble"},
    ttft_bounds_s=_DEFAULT_BOUNDS_S,
    ttft_per_s=1000,
)

# its one model registers no gauges, and hands requests over at once, so that Triton's own queue stays empty
TRITON_LLMAPI = Dialect(
    name="triton-llmapi",
    levels={},
    ttft=_FIRST_RESPONSE,
    ttft_labels={"model": "tensorrt_llm"},
    ttft_bounds_s=_DEFAULT_BOUNDS_S,
    ttft_per_s=1000,
)
