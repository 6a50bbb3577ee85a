"""What users were promised, and what is minimised subject to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiphys.domain.values import Frozen, PositiveSeconds, Ratio, Share


class Objective(Frozen):
    """`ttft at most 2 s for 90 %`: the share of requests (tokens for `itl`) that must be within a limit."""

    metric: Literal["ttft", "tpot", "e2e", "itl"]
    at_most_s: PositiveSeconds
    share: Share

    @property
    def name(self) -> str:
        """For people: `ttft <= 2 s for 90 %`."""
        return f"{self.metric} <= {self.at_most_s:g} s for {self.share * 100:g} %"


class Slo(Frozen):
    """Objectives that must all be met, and the share of requests that may fail."""

    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    failed_at_most: Ratio = 0.001


class Minimised(Frozen):
    """What the search minimises: GPU-seconds, or cost with a price."""

    minimise: Literal["gpu_seconds", "cost"] = "gpu_seconds"
    price_per_gpu_hour: Annotated[float, Field(gt=0)] | None = None
