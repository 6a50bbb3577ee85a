"""One family under search: what is tried first, what was told, and points of it with every dimension filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tiphys.domain.platform import Policy
from tiphys.policies.space import Dimension, Params, Value
from tiphys.search.joint import JointSpace, SeedsByPool
from tiphys.search.shortlist import Candidate

BATCH = 8
"""Trials that are asked before the first of them is told, in each family. Fixed: it is part of what a study is."""


@dataclass(frozen=True)
class First:
    """A policy that is tried before anything is proposed; `params` is None outside of the space."""

    policy: Policy
    params: Params | None
    origin: str


@dataclass
class Family:
    """One space (or one for each of several pools) and what was told of it; `told` grows, nothing else changes but the
    rung.
    """

    name: str
    space: JointSpace
    first: tuple[First, ...]
    told: list[Candidate] = field(default_factory=list)
    rung: int = 0
    batches: int = 0

    @property
    def has_feasible(self) -> bool:
        """Some trial that was told is feasible."""
        return any(candidate.feasible for candidate in self.told)

    @property
    def rank(self) -> tuple[bool, float, float]:
        """That of its best trial; smaller is better."""
        return min(candidate.outcome.rank for candidate in self.told)

    def wants(self, target: int) -> int:
        """How many trials the next batch has on the way to `target` trials; a point has only its first ones."""
        most = len(self.first) if self.space.is_point else target
        return max(0, min(BATCH, min(target, most) - len(self.told)))


def first_trials(space: JointSpace, seeds: SeedsByPool) -> tuple[First, ...]:
    """The published default, what was handed in, the incumbent where it lies in the space: each policy once."""
    wanted: list[tuple[Policy, str]] = [(default, "published default") for default in space.defaults()]
    wanted += [(seed, "capacity") for seed in space.seeded(seeds)]
    if space.params_of(space.incumbent) is not None:
        wanted.append((space.incumbent, "incumbent"))
    if space.is_point:
        wanted.append((space.policy({}), "sampled"))
    first: list[First] = []
    for policy, origin in wanted:
        if all(policy != other.policy for other in first):
            first.append(First(policy, space.params_of(policy), origin))
    return tuple(first)


def filled(dimensions: Sequence[Dimension], params: Params) -> dict[str, Value]:
    """A value for every dimension: those that do not exist at this point are given their middle."""
    return {d.path: params.get(d.path, d.middle()) for d in dimensions}


def existing(dimensions: Sequence[Dimension], params: Params) -> dict[str, Value]:
    """The values of the dimensions that exist at a point."""
    return {d.path: params[d.path] for d in dimensions if d.exists(params)}
