"""What a backend is: how a pool is served, as far as policies and the twin need to know."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

from tiphys.dialects import Dialect
from tiphys.domain.service import Target
from tiphys.domain.values import Frozen

Admission = Literal["vllm", "trtllm_no_evict"]
"""`vllm`: admit while there is room, preempt when it runs out. `trtllm_no_evict`: reserve prompt and maximum output."""


class Backend(Frozen):
    """How a pool is served: its metrics' dialect, its engine's admission rule, the workload that is scaled."""

    workload: ClassVar[tuple[str, str]] = ("apps/v1", "Deployment")
    """API version and kind of what a scaler targets where the experiment names no target."""

    @property
    @abstractmethod
    def dialect(self) -> Dialect:
        """How these servers name the signals."""

    @property
    @abstractmethod
    def admission(self) -> Admission:
        """The engine's admission rule."""

    def target(self, name: str) -> Target:
        """The workload of a name that a scaler targets."""
        api_version, kind = self.workload
        return Target(api_version=api_version, kind=kind, name=name)
