"""Closed loop: users who wait for their answer before they ask again."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds

Whole = Annotated[int, Field(ge=0)]


class Level(Frozen):
    """So many users from `at_s` on."""

    at_s: Seconds
    users: Whole


class Users(Frozen):
    """How many users there are over time, and how they behave.

    A user asks, waits until the answer is complete (or failed), thinks, asks again. When a level adds users they start
    evenly over `ramp_s`; when it takes some away, those with the highest numbers leave once their present answer is
    complete. With `requests_per_user` a level has no set length: each of its users asks so many times, and the next
    level begins when the last of them is done (`at_s` then only orders the levels).
    """

    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    think_s: Seconds = 0.0
    think: Literal["constant", "exponential"] = "constant"
    ramp_s: Seconds = 0.0
    retry_s: PositiveSeconds = 1.0
    """How long after a failure a user asks again, beside thinking."""
    requests_per_user: PositiveInt | None = None

    @model_validator(mode="after")
    def _levels_follow_one_another(self) -> Self:
        times = [level.at_s for level in self.levels]
        if times[0] != 0:
            raise ValueError(f"the first level begins at {times[0]:g} s, not at 0")
        if any(b <= a for a, b in pairwise(times)):
            raise ValueError("levels must come one after the other: at_s increases")
        if self.requests_per_user is not None and any(level.users == 0 for level in self.levels):
            raise ValueError("a level without users never ends where it lasts until each has asked requests_per_user")
        return self

    @property
    def most(self) -> int:
        """The greatest number of users at one time."""
        return max(level.users for level in self.levels)
