"""What users were promised, and what is minimised subject to it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveSeconds, Ratio, Share


class Objective(Frozen):
    """`ttft at most 2 s for 90 %`: the share of requests (tokens for `itl`) that must be within a limit.

    It judges the whole route, from the request's arrival, of the first traffic class; of another where `request_class`
    names it. With `pool` it judges the jobs of that pool instead, from their arrival there, whatever their class.
    """

    metric: Literal["ttft", "tpot", "e2e", "itl"]
    at_most_s: PositiveSeconds
    share: Share
    pool: str | None = None
    request_class: str | None = None

    @model_validator(mode="after")
    def _judges_one_thing(self) -> Self:
        if self.pool is not None and self.request_class is not None:
            raise ValueError("an objective of a pool judges its jobs of every class: leave out request_class")
        if self.metric == "itl" and self.request_class is not None:
            raise ValueError("token gaps are not told apart by class: leave out request_class, or say pool")
        return self

    @property
    def name(self) -> str:
        """For people: `ttft <= 2 s for 90 %`, `e2e of ingest <= 5 s for 95 %`, `ttft in llm <= 1 s for 90 %`."""
        whose = f" in {self.pool}" if self.pool else f" of {self.request_class}" if self.request_class else ""
        return f"{self.metric}{whose} <= {self.at_most_s:g} s for {self.share * 100:g} %"


class Slo(Frozen):
    """Objectives that must all be met, and the share of requests that may fail."""

    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    failed_at_most: Ratio = 0.001


class Minimised(Frozen):
    """What the search minimises: GPU-seconds, or cost with a price, less credit for harvested offline work.

    `price_per_gpu_hour` is that of GPUs whose tier states none. Each GPU-second of useful offline work counts
    `harvested_credit` GPU-seconds less (under `cost`: that share of its price).
    """

    minimise: Literal["gpu_seconds", "cost"] = "gpu_seconds"
    price_per_gpu_hour: Annotated[float, Field(gt=0)] | None = None
    harvested_credit: Ratio = 0.0
