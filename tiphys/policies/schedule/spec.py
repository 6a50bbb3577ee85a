"""A schedule's numbers: what a policy file of kind `schedule` says."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen, PositiveSeconds, Seconds
from tiphys.policies.common import NotEmpty, ReplicaBounds, Replicas, WrittenPolicy

DAY_S = 86_400.0
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


class ScheduledReplicas(Frozen):
    """From this moment on so many replicas: `at_s`, or `at: "HH:MM"` for the same in hours and minutes."""

    at_s: Seconds
    """Seconds since the period began: for a day, since midnight of the clock that the schedule goes by."""
    replicas: Replicas

    @model_validator(mode="before")
    @classmethod
    def _in_seconds(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "at" not in data:
            return data
        if "at_s" in data:
            raise ValueError("at and at_s say the same thing: give one")
        return {"at_s": _clock_s(data["at"]), **{key: value for key, value in data.items() if key != "at"}}


def _clock_s(text: object) -> float:
    match = _CLOCK.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        # unquoted, YAML reads 12:30 as a number in base 60
        raise ValueError(f'at: {text!r} is not a time of day; write it in quotes, such as "06:30"')
    return int(match[1]) * 3600.0 + int(match[2]) * 60.0


class SchedulePolicy(WrittenPolicy):
    """Replicas by the time of day, whatever the load: KEDA's cron triggers and nothing else.

    Each of `times` holds until the next one, the last one through the period's end until the first: before the first
    of a day it is as at the end of the day before. `replicas.min` and `.max` (minReplicaCount, maxReplicaCount) hold
    over every entry. With `period_s: null` the schedule is a plan in absolute time that never repeats; its first entry
    is then at 0.

    Good where traffic keeps its hours. It sees no load at all: a day unlike the others is served as the others were.
    """

    kind: Literal["schedule"] = "schedule"
    replicas: ReplicaBounds
    times: Annotated[tuple[ScheduledReplicas, ...], NotEmpty]
    period_s: PositiveSeconds | None = DAY_S

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        moments = [entry.at_s for entry in self.times]
        if any(after <= before for before, after in pairwise(moments)):
            raise ValueError("times must increase")
        if moments[-1] >= self.repeats_every_s:
            raise ValueError(f"times: {moments[-1]:g} s is not within the period of {self.repeats_every_s:g} s")
        if self.period_s is None and moments[0] > 0:
            raise ValueError("times: a plan that never repeats begins at 0")
        return self

    @property
    def repeats_every_s(self) -> float:
        """The period; inf for a plan in absolute time."""
        return math.inf if self.period_s is None else self.period_s

    @property
    def bounds(self) -> ReplicaBounds:
        """Replicas between which this policy moves."""
        return self.replicas

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Nothing: it looks at the clock alone."""
        return ()

    def bounded(self, replicas: int) -> int:
        """An entry's count within the bounds."""
        return max(self.replicas.min, min(replicas, self.replicas.max))
