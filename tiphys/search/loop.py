"""The search: families of policies on a ladder of rungs, batches of trials asked, evaluated and told in order.

The whole search is replayed from its inputs each time it runs; the journal only spares what was done before. So a
search that was killed goes on as if it had not been, and any number of workers gives the same study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiphys.domain.platform import Platform, Policy
from tiphys.domain.slo import Minimised, Slo
from tiphys.errors import InputError
from tiphys.policies.space import Params
from tiphys.search.evaluation import Bench, EvaluationPlan, Outcome, evaluate
from tiphys.search.family import BATCH, Family, existing, filled, first_trials
from tiphys.search.fingerprint import fingerprint
from tiphys.search.halving import ladder, shares
from tiphys.search.joint import SeedsByPool, SpacesByPool, joint_spaces, read_stated, stated
from tiphys.search.shortlist import Candidate, SearchResult, choose_shortlist
from tiphys.search.simplify import one_reverted, several_reverted, simplest
from tiphys.search.workers import Workers

if TYPE_CHECKING:
    from tiphys.search.study import Asked, Entry, Journal

SIMPLIFYING_SHARE = 0.1
"""At most this part of the trials goes into finding which of the winner's numbers can stay as they were."""


@dataclass(frozen=True)
class Progress:
    """How far a search is: trials done and in all, and the best of them (None before the first is told)."""

    done: int
    trials: int
    best: Candidate | None
    stage: str


def search(
    platform: Platform,
    spaces: SpacesByPool,
    plan: EvaluationPlan,
    slo: Slo,
    minimised: Minimised | None = None,
    *,
    trials: int,
    seed: int = 1,
    workers: int = 1,
    folder: Path | None = None,
    seeds: SeedsByPool | None = None,
    about: str = "",
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """The best policies, each space tuned as a study of its own, the budget moved to the better ones.

    `spaces` are by pool and name; pools that are not named keep the incumbent. With several pools each combination of
    spaces is a study; where there are too many for the trials, one study chooses the spaces too. The first trials of a
    study are its published default, `seeds` of its spaces, and the incumbent where it lies in them. With `folder`,
    everything is kept in `study.journal` there: the same call again goes on where it was ended, whatever ended it;
    `about` names the platform (say, the digest of its profile), so that the journal of another one is not continued.
    `workers` changes nothing but the time. `on_progress` is called whenever a trial is done.

    Raises InputError for fewer trials than spaces, or a journal of another search.
    """
    from tiphys.search.study import Journal  # the workers, which import this module, never need Optuna

    if not spaces or not all(spaces.values()):
        raise InputError("there is no space to search", key="search.spaces")
    most = max(len(named) for named in spaces.values())
    if trials < most:
        raise InputError("fewer trials than spaces", key="search.trials", found=trials, allowed=f">= {most}")
    if not plan.nominal:
        raise InputError("there is nothing to play", key="scenarios")
    bench = Bench(platform, plan, slo, minimised or Minimised())
    joint = joint_spaces(spaces, platform.incumbent(), max(trials // (2 * BATCH), 1))
    families = [Family(name, space, first_trials(space, seeds or {})) for name, space in joint.items()]
    named = fingerprint(families, bench, trials, seed, about)
    path = None if folder is None else folder / "study.journal"
    with Journal(path, named) as journal, Workers(_evaluate, bench, workers) as processes:
        return _Search(families, trials, seed, bench, journal, processes, on_progress).run()


@dataclass(frozen=True)
class _Item:
    """What a worker is sent."""

    policy: Policy
    in_full: bool


def _evaluate(bench: Bench, item: _Item) -> Outcome:
    return evaluate(bench, item.policy, item.in_full)


class _Search:
    """One search under way. Its state is what was told; everything else follows from it."""

    def __init__(
        self,
        families: list[Family],
        trials: int,
        seed: int,
        bench: Bench,
        journal: Journal,
        processes: Workers[Bench, _Item, Outcome],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._families, self._pools = families, tuple(bench.platform.incumbent())
        self._trials, self._seed, self._bench = trials, seed, bench
        self._journal, self._processes, self._on_progress = journal, processes, on_progress
        self._told: list[Candidate] = []
        self._done = 0
        self._stage = ""
        self._known: dict[tuple[str, bool], Outcome] = {}

    def run(self) -> SearchResult:
        """Climb the ladder, simplify the winner, choose the shortlist."""
        reserved = self._reserved()
        live = self._families
        steps = ladder(len(live))
        for number, rung in enumerate(steps):
            self._stage = f"rung {number + 1} of {len(steps)}"
            live = sorted(live, key=lambda family: family.rank)[: rung.families] if number else live
            budgets = shares(rung, self._trials - reserved - len(self._told))
            targets = {f.name: len(f.told) + budget for f, budget in zip(live, budgets, strict=True)}
            for family in live:
                family.rung = number + 1
            while batch := [(f, count) for f in live if (count := f.wants(targets[f.name]))]:
                self._round([(family, self._asked(family, count)) for family, count in batch])
        simplified = self._simplify() if reserved else ()
        return SearchResult(
            self._bench.minimised.minimise,
            tuple(self._told),
            choose_shortlist(self._told, simplified),
            {family.name: family.rung for family in self._families},
        )

    def _reserved(self) -> int:
        """Trials kept for simplifying: two for each open number of the largest space, at most a share of all, and only
        what is not needed to try every family once.
        """
        wanted = 2 * max(len(f.space.dimensions) for f in self._families)
        return min(int(self._trials * SIMPLIFYING_SHARE), wanted, self._trials - len(self._families))

    def _asked(self, family: Family, count: int) -> list[Asked]:
        """The next batch of a family: first trials while there are any, then proposals."""
        from tiphys.search.study import Asked, propose

        start, dimensions = len(family.told), family.space.dimensions
        first = family.first[start : start + count]
        stored = self._journal.entries(family.name)[start : start + count]
        if len(stored) == count and all(entry.told for entry in stored):
            return [entry.asked for entry in stored]
        told = [(filled(dimensions, c.params), c.outcome) for c in family.told if c.params is not None]
        known = [filled(dimensions, f.params) for f in first if f.params is not None]
        seed = (self._seed, family.name, family.batches)
        points = propose(dimensions, told, known, count - len(first), seed) if count > len(first) else []
        asked = [Asked(stated(f.policy), f.params and filled(dimensions, f.params), f.origin) for f in first]
        asked += [Asked(stated(family.space.policy(point)), point, "sampled") for point in points]
        _same(stored, asked, family.name)
        return asked

    def _round(self, batches: list[tuple[Family, list[Asked]]]) -> list[Candidate]:
        """Evaluate one batch of each family side by side, then tell every trial in its turn."""
        for family, asked in batches:
            have = len(self._journal.entries(family.name)) - len(family.told)
            self._journal.ask(family.name, family.space.dimensions, asked[have:])
        items = [
            (family, number, _Item(read_stated(trial.policy, self._pools), not family.has_feasible))
            for family, asked in batches
            for number, trial in enumerate(asked, len(family.told))
        ]
        outcomes = self._evaluated(items)
        told = [self._tell(family, asked, outcomes) for family, asked in batches]
        self._journal.sync()
        return [candidate for candidates in told for candidate in candidates]

    def _evaluated(self, items: list[tuple[Family, int, _Item]]) -> dict[tuple[str, int], Outcome]:
        """The outcome of every trial of a round: from the journal, from an equal trial, or played now."""
        outcomes: dict[tuple[str, int], Outcome] = {}
        waiting: dict[tuple[str, bool], list[tuple[str, int]]] = {}
        fresh: list[_Item] = []
        entries = {family.name: self._journal.entries(family.name) for family, _, _ in items}
        for family, number, item in items:
            key = (json.dumps(stated(item.policy), sort_keys=True), item.in_full)
            stored = entries[family.name][number].outcome
            if stored is not None:
                self._learn(key, stored)
            if key in self._known:
                outcomes[family.name, number] = self._known[key]
                self._journal_outcome(family.name, number, self._known[key], stored)
            else:
                if key not in waiting:
                    fresh.append(item)
                waiting.setdefault(key, []).append((family.name, number))
        keys = list(waiting)
        for index, outcome in self._processes.results(fresh):
            self._learn(keys[index], outcome)
            for name, number in waiting[keys[index]]:
                outcomes[name, number] = outcome
                self._journal_outcome(name, number, outcome, None)
        return outcomes

    def _learn(self, key: tuple[str, bool], outcome: Outcome) -> None:
        """Equal policies are played once. What is feasible was played in full, whether that was asked or not."""
        policy, in_full = key
        for known in {in_full, True, False} if outcome.feasible else {in_full}:
            self._known[policy, known] = outcome

    def _journal_outcome(self, family: str, number: int, outcome: Outcome, stored: Outcome | None) -> None:
        if stored is None:
            self._journal.record(family, number, outcome)
        self._done += 1
        if self._on_progress:
            best = min(self._told, key=lambda candidate: candidate.outcome.rank, default=None)
            self._on_progress(Progress(self._done, self._trials, best, self._stage))

    def _tell(self, family: Family, asked: list[Asked], outcomes: Mapping[tuple[str, int], Outcome]) -> list[Candidate]:
        entries = self._journal.entries(family.name)
        candidates = []
        for number, trial in enumerate(asked, len(family.told)):
            outcome = outcomes[family.name, number]
            if not entries[number].told:
                self._journal.tell(family.name, number, outcome)
            params = None if trial.params is None else existing(family.space.dimensions, trial.params)
            policy, space = read_stated(trial.policy, self._pools), family.space.name_at(params)
            rung = max(family.rung, 1)
            candidates.append(Candidate(space, number, policy, params, trial.origin, rung, outcome, family.name))
        family.told += candidates
        family.batches += 1
        self._told += candidates
        return candidates

    def _simplify(self) -> tuple[Candidate, ...]:
        """Which numbers of the best trial can stay as the incumbent (or the family's default) has them."""
        best = min(self._told, key=lambda candidate: candidate.outcome.rank)
        family = next(family for family in self._families if family.name == best.family)
        left = self._trials - len(self._told)
        if not best.feasible or best.params is None:
            return ()
        self._stage = "simplifying"
        single = self._explicit(family, one_reverted(family.space, best.params)[:left])
        left = self._trials - len(self._told)
        several = self._explicit(family, several_reverted(best, single)[-left:] if left else [])
        return simplest(best, [*single, *several])

    def _explicit(self, family: Family, points: Iterable[Params]) -> list[Candidate]:
        from tiphys.search.study import Asked

        dimensions = family.space.dimensions
        whole = [filled(dimensions, point) for point in points]
        asked = [Asked(stated(family.space.policy(point)), point, "simplified") for point in whole]
        if not asked:
            return []
        start = len(family.told)
        _same(self._journal.entries(family.name)[start : start + len(asked)], asked, family.name)
        return self._round([(family, asked)])


def _same(stored: Sequence[Entry], asked: Sequence[Asked], family: str) -> None:
    """Raises InputError when the journal holds other trials than this search asks for."""
    for number, (entry, trial) in enumerate(zip(stored, asked, strict=False)):
        if entry.asked.policy != trial.policy:
            raise InputError(
                f"holds other trials than this search asks for (batch of '{family}', place {number})",
                where="study.journal",
                allowed="the journal of the same version of tiphys and Optuna, or a new run folder",
            )
