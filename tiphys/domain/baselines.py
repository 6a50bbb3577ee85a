"""What was possible at all: the measures that policies are held against. `tiphys.baselines` makes them."""

from __future__ import annotations

from typing import Any, Literal

from tiphys.domain.scorecard import Scorecard
from tiphys.domain.values import Frozen


class PoolBound(Frozen):
    """One pool's part of the lower bound, in GPU-seconds within the scored window."""

    gpu_seconds: float
    """No less than this: the larger of what must be done by the horizon and of what the envelope's minimum takes."""
    work_gpu_seconds: float
    """The least that all the scored requests take, whenever it is done."""
    left_over_gpu_seconds: float
    """The most of it that the promises let be lost, or done after the horizon."""
    minimum_gpu_seconds: float
    """The envelope's minimum over the window."""


class LowerBound(Frozen):
    """GPU-seconds that no policy which keeps the promises can go below on this traffic."""

    gpu_seconds: float
    pools: dict[str, PoolBound]

    @property
    def work_gpu_seconds(self) -> float:
        """The least that all the scored requests take on all pools, whenever it is done."""
        return sum(pool.work_gpu_seconds for pool in self.pools.values())


class Reference(Frozen):
    """A plan made with the trace in hand, and what it came to: good, not optimal."""

    policy: dict[str, dict[str, Any]]
    """The plan by pool, as it would stand in a file."""
    feasible: bool
    """False when even the most replicas miss the SLO: the plan is then those."""
    gpu_seconds: float
    """Mean over the scenarios."""
    scorecard: Scorecard
    """On the first scenario."""
    safety_factor: float | None
    """By how much the plan's batches stay below the engines' limits; None for the plan of most replicas."""
    lead_s: float | None
    """How long before it is needed a replica is created."""
    plays: int


class Baselines(Frozen):
    """A lower bound and a reference on one traffic: `baselines.json`."""

    api_version: Literal["tiphys/v1"] = "tiphys/v1"
    traffic: str
    lower_bound: LowerBound
    clairvoyant: Reference | None
    message: str = ""
    """Why there is no reference, or what is to be known of it."""

    def over_reference(self, gpu_seconds: float) -> float | None:
        """A policy's GPU-seconds over the reference's; None where there is none to be compared with."""
        reference = self.clairvoyant
        return gpu_seconds / reference.gpu_seconds if reference and reference.feasible else None

    def over_bound(self, gpu_seconds: float) -> float | None:
        """A policy's GPU-seconds over the lower bound; None where that is 0."""
        return gpu_seconds / self.lower_bound.gpu_seconds if self.lower_bound.gpu_seconds > 0 else None

    def document(self) -> dict[str, Any]:
        """Plain data as it stands in `baselines.json`, nothing left out."""
        return self.model_dump(mode="json")
