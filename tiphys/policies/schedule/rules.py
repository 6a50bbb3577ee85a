"""A schedule in the numbers that the event loop takes, and the two questions that the loop asks it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.policies.schedule.spec import SchedulePolicy


class ScheduleRules(NamedTuple):
    """One entry a change of the plan, in order of time."""

    time_s: NDArray[np.float64]
    """Since the period's start, increasing."""
    replicas: NDArray[np.int64]
    """From that moment on; within the policy's bounds."""
    period_s: float
    """inf: a plan in absolute time."""


def schedule_rules(policy: SchedulePolicy) -> ScheduleRules:
    """The rules of a policy; its bounds are in the counts."""
    return ScheduleRules(
        np.array([entry.at_s for entry in policy.times], dtype=np.float64),
        np.array([policy.bounded(entry.replicas) for entry in policy.times], dtype=np.int64),
        policy.repeats_every_s,
    )


def no_schedule() -> ScheduleRules:
    """Stands where a policy has no schedule: nothing ever changes. Its count is not to be asked for."""
    return ScheduleRules(np.zeros(0), np.zeros(0, np.int64), math.inf)


@jit
def replicas_at(rules: ScheduleRules, clock_s: float) -> int:
    """The replicas that the schedule wants at a time of its clock (seconds since a midnight; not negative)."""
    place = _last_not_after(rules, _period_start_s(rules, clock_s), clock_s)
    return int(rules.replicas[place])  # -1 is the last: before a period's first entry the day before goes on


@jit
def next_change_s(rules: ScheduleRules, clock_s: float) -> float:
    """The first entry after `clock_s` (strictly), on the same clock; inf when there is none."""
    entries = rules.time_s.shape[0]
    if entries == 0:
        return math.inf
    start_s = _period_start_s(rules, clock_s)
    place = _last_not_after(rules, start_s, clock_s) + 1
    if place < entries:
        return float(start_s + rules.time_s[place])
    if math.isinf(rules.period_s):
        return math.inf
    return float(_nth_start_s(rules, start_s, 1) + rules.time_s[0])


@jit
def _period_start_s(rules: ScheduleRules, clock_s: float) -> float:
    """The start of the period that holds a moment, such that entries are found at the very moments that
    `next_change_s` names, however their sums were rounded.
    """
    if math.isinf(rules.period_s):
        return 0.0
    start_s = math.floor(clock_s / rules.period_s) * rules.period_s
    next_s = _nth_start_s(rules, start_s, 1)
    return next_s if next_s + rules.time_s[0] <= clock_s else start_s


@jit
def _nth_start_s(rules: ScheduleRules, start_s: float, periods: int) -> float:
    """The start `periods` later, as a product: sums of periods would drift."""
    return float((round(start_s / rules.period_s) + periods) * rules.period_s)


@jit
def _last_not_after(rules: ScheduleRules, start_s: float, clock_s: float) -> int:
    """The last entry of the period that begins at `start_s` that is not after a moment; -1 before its first."""
    low, high = -1, rules.time_s.shape[0]
    while high - low > 1:
        middle = (low + high) // 2
        if start_s + rules.time_s[middle] <= clock_s:
            low = middle
        else:
            high = middle
    return low
