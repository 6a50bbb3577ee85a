"""Reverse elasticity: when offline work may use the GPUs that no replica needs, and when it makes way."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.signals import Signal
from tiphys.domain.values import PositiveSeconds, Seconds
from tiphys.policies.common import WrittenPolicy

Gpus = Annotated[int, Field(ge=0)]
FLEET = "fleet"
"""Under this name a policy of kind fleet stands among the policies of the pools."""


class FleetPolicy(WrittenPolicy):
    """Thresholds for an offline tier under a lower priority class.

    Every `check_s`: when for `admit_after_s` more GPUs have been idle than `reserve_gpus`, jobs are admitted into what
    is over the reserve, up to the least of `borrowing_limit_gpus` (Kueue: borrowingLimit of the offline ClusterQueue,
    whose own quota is 0) and `quota_gpus` (ResourceQuota on requests.nvidia.com/gpu, scoped to the class). When fewer
    than `evict_below_gpus` are idle or on their way to it, the youngest jobs are told to end until the reserve is whole
    again. Whatever the thresholds say, a replica that finds no GPU preempts jobs: it waits for their grace period.
    """

    kind: Literal["fleet"] = "fleet"
    reserve_gpus: Gpus = 1
    evict_below_gpus: Gpus = 0
    admit_after_s: Seconds = 60.0
    borrowing_limit_gpus: Gpus | None = None
    quota_gpus: Gpus | None = None
    check_s: PositiveSeconds = 15.0

    @model_validator(mode="after")
    def _evicts_no_more_than_it_reserves(self) -> Self:
        if self.evict_below_gpus > self.reserve_gpus:
            raise ValueError(
                f"evict_below_gpus {self.evict_below_gpus} is over reserve_gpus {self.reserve_gpus}: jobs would be "
                "evicted as soon as they are admitted"
            )
        return self

    @property
    def most_gpus(self) -> int:
        """GPUs that offline jobs may hold together."""
        limits = [limit for limit in (self.borrowing_limit_gpus, self.quota_gpus) if limit is not None]
        return min(limits, default=2**31 - 1)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """It looks at GPUs, not at signals."""
        return ()
