"""Successive halving: every family starts with an equal share of the trials, then the better half goes on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder: how many families are on it, and which part of the trials left it may use."""

    families: int
    part_of_rest: Fraction


def ladder(families: int) -> tuple[Rung, ...]:
    """The rungs for so many families, halving down to one.

    Every rung has an equal share of the trials, the first a double one: a family is not judged on little more than the
    sampler's random start.
    """
    counts = [families]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // 2))
    shares = [2 if index == 0 and len(counts) > 1 else 1 for index in range(len(counts))]
    return tuple(Rung(count, Fraction(shares[i], sum(shares[i:]))) for i, count in enumerate(counts))


def shares(rung: Rung, trials_left: int) -> list[int]:
    """Trials for each family on a rung, in the families' order; what does not divide goes to the first.

    Each has at least one while there are any: a family without a trial has no rank.
    """
    total = max(int(trials_left * rung.part_of_rest), min(rung.families, trials_left))
    return [total // rung.families + (index < total % rung.families) for index in range(rung.families)]
