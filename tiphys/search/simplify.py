"""The winner with fewer changes: which of its numbers can stay as they were, at no price.

A sampler moves every number at once; people who apply a policy want to know which changes matter. Each number is put
back alone; those that cost nothing are then put back together, the most harmless first.
"""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.policies.space import Params, Value, policy_path
from tiphys.search.joint import JointSpace
from tiphys.search.shortlist import Candidate

AT_NO_PRICE = 1.005
"""Putting numbers back is harmless when it costs at most this times the winner's value: less than a judge can tell."""


def one_reverted(space: JointSpace, params: Params) -> list[dict[str, Value]]:
    """The point with each number in which it differs from its reference put back alone, where the space allows that."""
    before = space.numbers(space.reference(params))
    reverts = {
        dimension.path: before[policy_path(dimension.path)]
        for dimension in space.dimensions
        if dimension.exists(params) and dimension.contains(before.get(policy_path(dimension.path)))
    }
    return [{**params, path: value} for path, value in reverts.items() if params[path] != value]


def several_reverted(best: Candidate, single: Sequence[Candidate]) -> list[dict[str, Value]]:
    """The point with the two, three, ... most harmless numbers put back together."""
    harmless = sorted((c for c in single if is_harmless(c, best)), key=lambda candidate: candidate.value)
    points: list[dict[str, Value]] = []
    point = dict(best.params or {})
    for candidate in harmless:
        point = {**point, **_changed(best, candidate)}
        points.append(point)
    return points[1:]


def simplest(best: Candidate, simplified: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The harmless simplification that puts most numbers back; none where there is none."""
    harmless = [candidate for candidate in simplified if is_harmless(candidate, best)]
    return tuple(sorted(harmless, key=lambda c: (-len(_changed(best, c)), c.value))[:1])


def is_harmless(candidate: Candidate, best: Candidate) -> bool:
    """True when it keeps every promise at no price."""
    return candidate.feasible and candidate.value <= best.value * AT_NO_PRICE


def _changed(best: Candidate, candidate: Candidate) -> dict[str, Value]:
    before = best.params or {}
    return {path: value for path, value in (candidate.params or {}).items() if before.get(path) != value}
