"""vLLM's OpenAI server in a Deployment."""

from __future__ import annotations

from typing import Literal

from tiphys.backends.base import Admission, Backend
from tiphys.dialects import VLLM, Dialect


class VllmBackend(Backend):
    """vLLM, V1 engine: requests are admitted while the KV cache has room and preempted when it has none."""

    kind: Literal["vllm"]

    @property
    def dialect(self) -> Dialect:
        """vLLM's own names."""
        return VLLM

    @property
    def admission(self) -> Admission:
        """Admit and preempt."""
        return "vllm"
