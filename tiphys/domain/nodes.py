"""The nodes that replicas run on: GPUs, tiers, prices, what a cold start consists of, the offline work beside."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds

Whole = Annotated[int, Field(ge=0)]
Price = Annotated[float, Field(ge=0)]


class Tier(Frozen):
    """Nodes of one sort. Tiers are filled in the order in which they are written."""

    name: str
    gpus: PositiveInt
    """GPUs of one node."""
    nodes: Whole
    """Nodes that are there from the start and stay."""
    max_nodes: Annotated[int, Field(ge=1)] | None = None
    """Up to which the cluster autoscaler provisions more; `nodes` where absent."""
    provision_s: Seconds = 180.0
    """From asking for a node to its being ready."""
    price_per_gpu_hour: Price | None = None
    profiles: dict[str, str] = Field(default_factory=dict)
    """Step-time profile of a pool's replicas here, by pool; the pool's own where absent."""

    @model_validator(mode="after")
    def _can_hold_something(self) -> Self:
        if self.most_nodes < max(self.nodes, 1):
            raise ValueError(f"max_nodes {self.most_nodes} is below nodes {self.nodes}, or no node at all")
        return self

    @property
    def most_nodes(self) -> int:
        """Nodes that there may be."""
        return self.nodes if self.max_nodes is None else self.max_nodes


class Offline(Frozen):
    """Work that may run where no replica does: an unending backlog of equal jobs. What admits it is a `fleet` policy.

    A job holds `gpus_per_job`, does nothing useful in its first `start_s`, then keeps what it did at every
    `checkpoint_s` since it began. Evicted or preempted, it holds its GPUs for `grace_s` more, and what it did since the
    last checkpoint is wasted; with `checkpoint_on_sigterm` nothing of it is.
    """

    gpus_per_job: PositiveInt = 1
    start_s: Seconds = 60.0
    checkpoint_s: PositiveSeconds = 600.0
    grace_s: Seconds = 30.0
    checkpoint_on_sigterm: bool = False


class Nodes(Frozen):
    """The cluster's GPUs. Without this every replica finds a free one at once."""

    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]
    quota_gpus: PositiveInt | None = None
    """GPUs that all serving replicas together may request (ResourceQuota on requests.nvidia.com/gpu)."""
    empty_s: Seconds = 600.0
    """A provisioned node without pods is given back after this (cluster autoscaler: scale-down-unneeded-time)."""
    warm_cache: bool = False
    """The model lies in a cache that every node reads (Fluid); else only a node that has loaded it before is warm."""
    offline: Offline | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            raise ValueError(f"two tiers have one name: {', '.join(names)}")
        return self
