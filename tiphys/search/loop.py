"""The search: families of policies on a ladder of rungs, batches of trials asked, evaluated and told in order.

The whole search is replayed from its inputs each time it runs; the journal only spares what was done before. So a
search that was killed goes on as if it had not been, and any number of workers gives the same study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tiphys.domain.platform import Platform, ScalingPolicy
from tiphys.domain.slo import Minimised, Slo
from tiphys.errors import InputError
from tiphys.policies.any_policy import parse_policy
from tiphys.policies.space import Dimension, Params, PolicySpace, Value
from tiphys.search.evaluation import Bench, EvaluationPlan, Outcome, evaluate
from tiphys.search.halving import ladder, shares
from tiphys.search.shortlist import Candidate, SearchResult, choose_shortlist
from tiphys.search.simplify import one_reverted, several_reverted, simplest
from tiphys.search.workers import Workers

if TYPE_CHECKING:
    from tiphys.search.study import Asked, Entry, Journal

BATCH = 8
"""Trials that are asked before the first of them is told, in each family. Fixed: it is part of what a study is."""
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
    pool: str,
    spaces: Mapping[str, PolicySpace],
    plan: EvaluationPlan,
    slo: Slo,
    minimised: Minimised | None = None,
    *,
    trials: int,
    seed: int = 1,
    workers: int = 1,
    folder: Path | None = None,
    seeds: Mapping[str, Sequence[ScalingPolicy]] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """The best policies for one pool, each space tuned as a study of its own, the budget moved to the better ones.

    The first trials of a space are its published default, `seeds` of that space, and the incumbent where it lies in the
    space. With `folder`, everything is kept in `study.journal` there: the same call again goes on where it was ended,
    whatever ended it. `workers` changes nothing but the time. `on_progress` is called whenever a trial is done.

    Raises InputError for fewer trials than spaces, or a journal of another search.
    """
    from tiphys.search.study import Journal  # the workers, which import this module, never need Optuna

    if not spaces:
        raise InputError("there is no space to search", key="search.spaces")
    if trials < len(spaces):
        raise InputError("fewer trials than spaces", key="search.trials", found=trials, allowed=f">= {len(spaces)}")
    if not plan.nominal:
        raise InputError("there is nothing to play", key="scenarios")
    bench = Bench(platform, pool, plan, slo, minimised or Minimised())
    incumbent = platform.incumbent()[pool]
    families = [
        _Family(name, space, _first(space, (seeds or {}).get(name, ()), incumbent)) for name, space in spaces.items()
    ]
    fingerprint = _fingerprint(families, bench, incumbent, trials, seed)
    path = None if folder is None else folder / "study.journal"
    with Journal(path, fingerprint) as journal, Workers(_evaluate, bench, workers) as processes:
        return _Search(families, incumbent, trials, seed, bench, journal, processes, on_progress).run()


@dataclass(frozen=True)
class _Item:
    """What a worker is sent."""

    policy: ScalingPolicy
    in_full: bool


def _evaluate(bench: Bench, item: _Item) -> Outcome:
    return evaluate(bench, item.policy, item.in_full)


@dataclass(frozen=True)
class _First:
    """A policy that is tried before anything is proposed; `params` is None outside of the space."""

    policy: ScalingPolicy
    params: Params | None
    origin: str


@dataclass
class _Family:
    """One space and what was told of it; `told` grows, nothing else changes but the rung."""

    name: str
    space: PolicySpace
    first: tuple[_First, ...]
    told: list[Candidate] = field(default_factory=list)
    rung: int = 0
    batches: int = 0

    @property
    def has_feasible(self) -> bool:
        return any(candidate.feasible for candidate in self.told)

    @property
    def rank(self) -> tuple[bool, float, float]:
        return min(candidate.outcome.rank for candidate in self.told)

    def wants(self, target: int) -> int:
        """How many trials the next batch has on the way to `target` trials; a point has only its first ones."""
        most = len(self.first) if self.space.is_point else target
        return max(0, min(BATCH, min(target, most) - len(self.told)))


class _Search:
    """One search under way. Its state is what was told; everything else follows from it."""

    def __init__(
        self,
        families: list[_Family],
        incumbent: ScalingPolicy,
        trials: int,
        seed: int,
        bench: Bench,
        journal: Journal,
        processes: Workers[Bench, _Item, Outcome],
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._families, self._incumbent = families, incumbent
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
        """Trials kept for simplifying: two for each open number of the largest space, at most a share of all."""
        return min(int(self._trials * SIMPLIFYING_SHARE), 2 * max(len(f.space.dimensions) for f in self._families))

    def _asked(self, family: _Family, count: int) -> list[Asked]:
        """The next batch of a family: first trials while there are any, then proposals."""
        from tiphys.search.study import Asked, propose

        start, dimensions = len(family.told), family.space.dimensions
        first = family.first[start : start + count]
        stored = self._journal.entries(family.name)[start : start + count]
        if len(stored) == count and all(entry.told for entry in stored):
            return [entry.asked for entry in stored]
        told = [(_filled(dimensions, c.params), c.outcome) for c in family.told if c.params is not None]
        known = [_filled(dimensions, f.params) for f in first if f.params is not None]
        seed = (self._seed, family.name, family.batches)
        points = propose(dimensions, told, known, count - len(first), seed) if count > len(first) else []
        asked = [Asked(f.policy.document(), f.params and _filled(dimensions, f.params), f.origin) for f in first]
        asked += [Asked(family.space.policy(point).document(), point, "sampled") for point in points]
        _same(stored, asked, family.name)
        return asked

    def _round(self, batches: list[tuple[_Family, list[Asked]]]) -> list[Candidate]:
        """Evaluate one batch of each family side by side, then tell every trial in its turn."""
        for family, asked in batches:
            have = len(self._journal.entries(family.name)) - len(family.told)
            self._journal.ask(family.name, family.space.dimensions, asked[have:])
        items = [
            (family, number, _Item(parse_policy(trial.policy), not family.has_feasible))
            for family, asked in batches
            for number, trial in enumerate(asked, len(family.told))
        ]
        outcomes = self._evaluated(items)
        told = [self._tell(family, asked, outcomes) for family, asked in batches]
        self._journal.sync()
        return [candidate for candidates in told for candidate in candidates]

    def _evaluated(self, items: list[tuple[_Family, int, _Item]]) -> dict[tuple[str, int], Outcome]:
        """The outcome of every trial of a round: from the journal, from an equal trial, or played now."""
        outcomes: dict[tuple[str, int], Outcome] = {}
        waiting: dict[tuple[str, bool], list[tuple[str, int]]] = {}
        fresh: list[_Item] = []
        entries = {family.name: self._journal.entries(family.name) for family, _, _ in items}
        for family, number, item in items:
            key = (json.dumps(item.policy.document(), sort_keys=True), item.in_full)
            stored = entries[family.name][number].outcome
            if stored is not None:
                self._known[key] = stored
            if key in self._known:
                outcomes[family.name, number] = self._known[key]
                self._journal_outcome(family.name, number, self._known[key], stored)
            else:
                if key not in waiting:
                    fresh.append(item)
                waiting.setdefault(key, []).append((family.name, number))
        keys = list(waiting)
        for index, outcome in self._processes.results(fresh):
            self._known[keys[index]] = outcome
            for name, number in waiting[keys[index]]:
                outcomes[name, number] = outcome
                self._journal_outcome(name, number, outcome, None)
        return outcomes

    def _journal_outcome(self, family: str, number: int, outcome: Outcome, stored: Outcome | None) -> None:
        if stored is None:
            self._journal.record(family, number, outcome)
        self._done += 1
        if self._on_progress:
            best = min(self._told, key=lambda candidate: candidate.outcome.rank, default=None)
            self._on_progress(Progress(self._done, self._trials, best, self._stage))

    def _tell(
        self, family: _Family, asked: list[Asked], outcomes: Mapping[tuple[str, int], Outcome]
    ) -> list[Candidate]:
        entries = self._journal.entries(family.name)
        candidates = []
        for number, trial in enumerate(asked, len(family.told)):
            outcome = outcomes[family.name, number]
            if not entries[number].told:
                self._journal.tell(family.name, number, outcome)
            params = None if trial.params is None else _existing(family.space.dimensions, trial.params)
            policy = parse_policy(trial.policy)
            candidates.append(
                Candidate(family.name, number, policy, params, trial.origin, max(family.rung, 1), outcome)
            )
        family.told += candidates
        family.batches += 1
        self._told += candidates
        return candidates

    def _simplify(self) -> tuple[Candidate, ...]:
        """Which numbers of the best trial can stay as the incumbent (or the family's default) has them."""
        best = min(self._told, key=lambda candidate: candidate.outcome.rank)
        family = next(family for family in self._families if family.name == best.space)
        reference = self._incumbent if self._incumbent.kind == family.space.kind else family.space.default
        left = self._trials - len(self._told)
        if not best.feasible or best.params is None:
            return ()
        self._stage = "simplifying"
        single = self._explicit(family, one_reverted(family.space, best.params, reference)[:left])
        left = self._trials - len(self._told)
        several = self._explicit(family, several_reverted(best, single)[-left:] if left else [])
        return simplest(best, [*single, *several])

    def _explicit(self, family: _Family, points: Iterable[Params]) -> list[Candidate]:
        from tiphys.search.study import Asked

        dimensions = family.space.dimensions
        filled = [_filled(dimensions, point) for point in points]
        asked = [Asked(family.space.policy(point).document(), point, "simplified") for point in filled]
        if not asked:
            return []
        start = len(family.told)
        _same(self._journal.entries(family.name)[start : start + len(asked)], asked, family.name)
        return self._round([(family, asked)])


def _first(space: PolicySpace, seeds: Sequence[ScalingPolicy], incumbent: ScalingPolicy) -> tuple[_First, ...]:
    """The published default, what was handed in, the incumbent where it lies in the space: each policy once."""
    wanted = [(space.default, "published default"), *((seed, "capacity") for seed in seeds)]
    if space.params_of(incumbent) is not None:
        wanted.append((incumbent, "incumbent"))
    if space.is_point:
        wanted.append((space.policy({}), "sampled"))
    first: list[_First] = []
    for policy, origin in wanted:
        if all(policy != other.policy for other in first):
            first.append(_First(policy, space.params_of(policy), origin))
    return tuple(first)


def _filled(dimensions: Sequence[Dimension], params: Params) -> dict[str, Value]:
    """A value for every dimension: those that do not exist at this point are given their middle."""
    return {d.path: params.get(d.path, d.middle()) for d in dimensions}


def _existing(dimensions: Sequence[Dimension], params: Params) -> dict[str, Value]:
    return {d.path: params[d.path] for d in dimensions if d.exists(params)}


def _same(stored: Sequence[Entry], asked: Sequence[Asked], family: str) -> None:
    """Raises InputError when the journal holds other trials than this search asks for."""
    for number, (entry, trial) in enumerate(zip(stored, asked, strict=False)):
        if entry.asked.policy != trial.policy:
            raise InputError(
                f"holds other trials than this search asks for (batch of '{family}', place {number})",
                where="study.journal",
                allowed="the journal of the same version of tiphys and Optuna, or a new run folder",
            )


def _fingerprint(families: Sequence[_Family], bench: Bench, incumbent: ScalingPolicy, trials: int, seed: int) -> str:
    """16 hex digits that name everything that decides what a search does, but for the platform itself."""
    stated = {
        "spaces": {family.name: family.space.document for family in families},
        "first": {family.name: [first.policy.document() for first in family.first] for family in families},
        "scenarios": [
            [
                s.trace.digest(),
                s.seed,
                s.warmup_s,
                s.drain_s,
                s.start_replicas,
                s.settings.document(),
                str(s.perturbation),
            ]
            for s in bench.plan.scenarios
        ],
        "nominal": len(bench.plan.nominal),
        "slo": bench.slo.model_dump(mode="json"),
        "minimised": bench.minimised.model_dump(mode="json"),
        "incumbent": incumbent.document(),
        "pool": bench.pool,
        "trials": trials,
        "seed": seed,
        "batch": BATCH,
    }
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()[:16]
