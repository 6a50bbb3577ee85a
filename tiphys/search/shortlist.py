"""What a search found: every trial as a row, and the few policies that are worth judging."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiphys.documents import to_json, write_atomically
from tiphys.domain.platform import Policy, Transition
from tiphys.policies.space import Params
from tiphys.search.evaluation import Outcome
from tiphys.search.joint import stated

SHORTLIST_LENGTH = 5


@dataclass(frozen=True)
class Candidate:
    """One trial with its outcome. `number` counts in its family; `params` is None for a policy outside of the space.

    `space` names the space that the policy is of, with several pools one for each. It is the family's name too, but
    where a family holds more spaces than one.
    """

    space: str
    number: int
    policy: Policy
    params: Params | None
    origin: str
    """sampled, published default, incumbent, capacity, simplified"""
    rung: int
    outcome: Outcome
    family: str

    @property
    def value(self) -> float:
        """Mean of what is minimised over the nominal scenarios."""
        return self.outcome.value

    @property
    def margin(self) -> float:
        """The worst margin of any promise in any scenario."""
        return self.outcome.margin

    @property
    def feasible(self) -> bool:
        """Every promise was kept everywhere."""
        return self.outcome.feasible

    def document(self) -> dict[str, Any]:
        """Its entry in `shortlist.json`."""
        return {
            "space": self.space,
            "trial": self.number,
            "origin": self.origin,
            "value": self.value,
            "feasible": self.feasible,
            "margin": self.margin,
            "margins": dict(self.outcome.margins),
            "params": None if self.params is None else dict(self.params),
            "policy": stated(self.policy),
        }


@dataclass(frozen=True)
class SearchResult:
    """Every trial in the order of telling, the shortlist (best first), and what became of each space."""

    minimised: str
    trials: tuple[Candidate, ...]
    shortlist: tuple[Candidate, ...]
    rungs: Mapping[str, int]
    """The last rung of the ladder that each space was on."""

    @property
    def taken(self) -> Transition:
        """What putting the trials in force took, one after the other; `new_revision` is True where any made one."""
        each = [trial.outcome.transition for trial in self.trials]
        return Transition(
            seconds=sum(one.seconds for one in each),
            gpu_seconds=sum(one.gpu_seconds for one in each),
            surge_gpus=max((one.surge_gpus for one in each), default=0),
            new_revision=any(one.new_revision for one in each),
        )

    @property
    def best(self) -> Candidate:
        """The best feasible trial; the one that misses least where none is feasible."""
        return self.shortlist[0]

    @property
    def feasible(self) -> bool:
        """True when some policy kept every promise."""
        return self.best.feasible


def choose_shortlist(
    trials: Sequence[Candidate], also: Sequence[Candidate] = (), length: int = SHORTLIST_LENGTH
) -> tuple[Candidate, ...]:
    """The best trial, those of `also`, the best of every other space, then the next best; best first.

    Only feasible ones, and no policy twice. Where nothing is feasible it holds the one that misses least.
    """
    ranked = sorted(trials, key=lambda trial: trial.outcome.rank)
    if not ranked[0].feasible:
        return (ranked[0],)
    best_of_spaces = {trial.space: trial for trial in reversed(ranked)}
    wanted = [ranked[0], *also, *sorted(best_of_spaces.values(), key=lambda t: t.outcome.rank), *ranked]
    chosen: list[Candidate] = []
    for candidate in wanted:
        if len(chosen) < length and candidate.feasible and all(candidate.policy != c.policy for c in chosen):
            chosen.append(candidate)
    return tuple(sorted(chosen, key=lambda trial: trial.outcome.rank))


def write_shortlist(path: Path, result: SearchResult) -> None:
    """Write `shortlist.json`: a list of candidates, best first."""
    write_atomically(path, to_json([candidate.document() for candidate in result.shortlist]))


def write_trials(path: Path, result: SearchResult) -> None:
    """Write `trials.csv`: one row a trial, in the order of telling."""
    rows = trial_rows(result)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def trial_rows(result: SearchResult) -> list[dict[str, Any]]:
    """The rows of `trials.csv`; a parameter that a trial has not is empty."""
    paths = list(dict.fromkeys(path for trial in result.trials for path in trial.params or ()))
    return [
        {
            "trial": order,
            "space": trial.space,
            "trial_in_space": trial.number,
            "rung": trial.rung,
            "origin": trial.origin,
            "feasible": trial.feasible,
            result.minimised: trial.value,
            "margin": trial.margin,
            **{f"margin: {promise}": margin for promise, margin in trial.outcome.margins.items()},
            "scenarios_played": trial.outcome.played,
            "shortlist": _place(trial, result.shortlist),
            **{path: (trial.params or {}).get(path, "") for path in paths},
        }
        for order, trial in enumerate(result.trials)
    ]


def _place(trial: Candidate, shortlist: Sequence[Candidate]) -> int | str:
    return next((place for place, chosen in enumerate(shortlist, 1) if chosen is trial), "")
