"""Triton with TensorRT-LLM, in PyTorch mode or with a built engine."""

from __future__ import annotations

from typing import Literal

from tiphys.backends.base import Admission, Backend
from tiphys.dialects import TRITON, TRITON_LLMAPI, Dialect


class TritonBackend(Backend):
    """`engine_mode` is `pytorch` (the LLM-API model) or `trt-engine` (images up to TensorRT-LLM 1.2.1)."""

    kind: Literal["triton"]
    engine_mode: Literal["pytorch", "trt-engine"] = "pytorch"

    @property
    def dialect(self) -> Dialect:
        """The gauges exist with a built engine only."""
        return TRITON if self.engine_mode == "trt-engine" else TRITON_LLMAPI

    @property
    def admission(self) -> Admission:
        """TensorRT-LLM's default scheduler policy, GUARANTEED_NO_EVICT."""
        return "trtllm_no_evict"
