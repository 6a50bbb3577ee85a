"""NIM for LLMs: NVIDIA's packaged engines. The NIM Operator and the newer charts make Deployments."""

from __future__ import annotations

from typing import Literal

from tiphys.backends.base import Admission, Backend
from tiphys.dialects import NIM, VLLM, Dialect


class NimBackend(Backend):
    """`release` decides the metrics' names (2.x passes the engine's through), `engine` the admission rule."""

    kind: Literal["nim"]
    release: Literal["1", "2"] = "2"
    """Major release of the NIM image."""
    engine: Literal["vllm", "trtllm"] = "vllm"
    """Engine of the chosen profile; TensorRT-LLM exists in 1.x only."""

    @property
    def dialect(self) -> Dialect:
        """The bare names of 1.x, or the engine's of 2.x."""
        return NIM if self.release == "1" else VLLM

    @property
    def admission(self) -> Admission:
        """The engine's."""
        return "vllm" if self.engine == "vllm" else "trtllm_no_evict"
