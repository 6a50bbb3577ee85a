"""NVIDIA Dynamo: the component's scaling adapter is what is scaled, the engine's metrics pass through its workers."""

from __future__ import annotations

from typing import ClassVar, Literal

from tiphys.backends.base import Admission, Backend
from tiphys.dialects import TRTLLM_SERVE, VLLM, Dialect


class DynamoBackend(Backend):
    """`framework` is the graph's backendFramework; both name and admission rule are the engine's."""

    workload: ClassVar[tuple[str, str]] = ("nvidia.com/v1beta1", "DynamoGraphDeploymentScalingAdapter")
    kind: Literal["dynamo"]
    framework: Literal["vllm", "trtllm"] = "vllm"

    @property
    def dialect(self) -> Dialect:
        """The engine's."""
        return VLLM if self.framework == "vllm" else TRTLLM_SERVE

    @property
    def admission(self) -> Admission:
        """The engine's."""
        return "vllm" if self.framework == "vllm" else "trtllm_no_evict"
