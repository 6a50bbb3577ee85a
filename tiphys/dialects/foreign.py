"""Names of releases and servers that no dialect here is written for: read in the manifests of others, never written."""

from __future__ import annotations

from tiphys.dialects.base import Dialect
from tiphys.dialects.measures import Histogram, Level, Series, Share, Total
from tiphys.domain.signals import Signal

_OLD_NAME_OF_KV = "vllm:gpu_cache_usage_perc"

FOREIGN = (
    # vLLM before 0.12, and its time per output token until early 2026
    Dialect(
        "vllm-old",
        {Signal.KV_USAGE: Level((Series(_OLD_NAME_OF_KV),))},
        {"itl": Histogram("vllm:time_per_output_token_seconds", (), observed="token")},
    ),
    Dialect(
        "sglang",
        {
            Signal.RUNNING: Level((Series("sglang:num_running_reqs"),)),
            Signal.WAITING: Level((Series("sglang:num_queue_reqs"),)),
            Signal.KV_USAGE: Level((Series("sglang:token_usage"),)),
        },
        {
            "ttft": Histogram("sglang:time_to_first_token_seconds", ()),
            "itl": Histogram("sglang:inter_token_latency_seconds", (), observed="token"),
            "e2e": Histogram("sglang:e2e_request_latency_seconds", ()),
        },
    ),
    # the retriever NIMs 1.x: Triton inside, GPUs told of under these names
    Dialect(
        "nim-retriever",
        {
            Signal.GPU_UTILIZATION: Share(Series("gpu_utilization")),
            Signal.GPU_MEMORY: Share(Series("gpu_memory_used_bytes"), whole=(Series("gpu_memory_total_bytes"),)),
        },
    ),
    # without the model, whose times are then counted with those of its parts
    Dialect(
        "triton-any",
        {Signal.PENDING: Level((Series("nv_inference_pending_request_count"),))},
        {"ttft": Histogram("nv_inference_first_response_histogram_ms", (), per_s=1000)},
    ),
    Dialect(
        "dynamo-old",
        {
            Signal.RUNNING: Level((Series("dynamo_frontend_inflight_requests"),)),
            Signal.WAITING: Level((Series("dynamo_frontend_queued_requests"),)),
            Signal.KV_USAGE: Level((Series("dynamo_component_kvstats_gpu_cache_usage_percent"),)),
        },
    ),
    # the endpoint picker before it moved to llm-d
    Dialect("endpoint-picker-old", {Signal.QUEUED: Total(Series("inference_extension_flow_control_queue_size"))}),
    Dialect("http-add-on", {Signal.QUEUED: Total(Series("interceptor_pending_request_count"))}),
)
FOREIGN_RATIO = "triton:queue_compute:ratio"
"""What the recording rule of Triton's own autoscaling example is called; its window is a minute."""
