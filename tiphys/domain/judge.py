"""Incumbent against challengers on traffic that none was tuned on: the rules, the statistics, the verdict.

Everything is fixed before the plays are looked at. Replicates are paired: each is one scenario that every policy was
played on. A replicate belongs to a cluster, named by its traffic: the judged part of the trace under several seeds is
one cluster, every traffic that was drawn from its profile another. Seeds on one traffic repeat its bursts, so they say
little of other traffic; therefore the interval is Student's t over the **cluster means** of the logarithm of the
GPU-seconds ratio. It needs no draws, and holds its level with twenty clusters where a percentile bootstrap is too
narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tiphys.domain.platform import Policy, ScalingPolicy
from tiphys.domain.promises import margins, promises, tightest
from tiphys.domain.scorecard import Scorecard
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.statistics import Blocks, Interval, cluster_means, ratio_interval
from tiphys.domain.trace import Floats
from tiphys.domain.verdict import Contestant, Gain, JudgedOn, JudgeRules, Kept, Promise, Rival, Robustness, Verdict
from tiphys.errors import InputError

Differences = Callable[[ScalingPolicy, ScalingPolicy], Sequence[tuple[str, Any, Any]]]
"""(path, value in the first, value in the second) of each number in which two policies differ."""


@dataclass(frozen=True)
class Replicate:
    """One scenario that every policy is played on.

    `cluster` names its traffic (replicates of one cluster differ in seed alone); `real` is True for the judged part
    itself, False for traffic that was drawn from its profile.
    """

    cluster: str
    real: bool


@dataclass(frozen=True)
class Played:
    """One policy's scorecards: one a replicate, in their order, and those of each perturbation, in their order."""

    policy: Policy
    replicates: tuple[Scorecard, ...]
    perturbed: Mapping[str, tuple[Scorecard, ...]]


def judge(
    incumbent: Played,
    challengers: Sequence[Played],
    replicates: Sequence[Replicate],
    blocks: Blocks,
    slo: Slo,
    differences: Differences,
    rules: JudgeRules | None = None,
    minimised: Minimised | None = None,
) -> Verdict:
    """Promote the best challenger, or keep the incumbent, by rules that were fixed before.

    A policy meets the SLO when for each promise the mean margin over the replicates of the judged part is at least 0,
    and so is the mean over the resampled traffics. A challenger can be promoted when it meets the SLO, saves enough
    (`interval.high < 1 - min_gain`; where the incumbent misses the SLO, meeting it is enough) and in each perturbation
    keeps every promise or misses it by no more than the incumbent. Of those that can be promoted and tie with the
    cheapest (the paired interval of their ratio contains 1), the one that differs least from the incumbent wins. What
    is saved are GPU-seconds, or whatever else is `minimised`.

    Raises InputError for too few replicates, no challenger, or plays that do not pair up.
    """
    rules = rules or JudgeRules()
    _check(incumbent, challengers, replicates, rules)
    bench = _Bench(incumbent, tuple(replicates), slo, differences, rules, len(challengers), minimised or Minimised())
    cases = [bench.case(played) for played in challengers]
    winner = _winner(cases, bench)
    decision, reason = _decide(winner, blocks, bench)
    return _verdict(decision, reason, winner, cases, blocks, bench)


@dataclass(frozen=True)
class _Case:
    """One challenger with what follows from its plays alone."""

    played: Played
    interval: Interval
    kept: tuple[Kept, ...]
    robustness: tuple[Robustness, ...]
    changes: tuple[str, ...]
    promotable: bool

    @property
    def meets(self) -> bool:
        return all(kept.met for kept in self.kept)

    @property
    def shortfall(self) -> float:
        """By how much the SLO is missed on average, over promises; 0 when met."""
        return sum(max(0.0, -min(_known(k.margin_judged_part, k.margin_resampled))) for k in self.kept)


@dataclass(frozen=True)
class _Bench:
    """What all challengers are held against."""

    incumbent: Played
    replicates: tuple[Replicate, ...]
    slo: Slo
    differences: Differences
    rules: JudgeRules
    challengers: int
    minimised: Minimised

    @property
    def unit(self) -> str:
        """What is saved."""
        return "cost" if self.minimised.minimise == "cost" else "GPU-seconds"

    @property
    def incumbent_kept(self) -> tuple[Kept, ...]:
        return _kept(self.incumbent, self.replicates, self.slo)

    @property
    def incumbent_meets(self) -> bool:
        return all(kept.met for kept in self.incumbent_kept)

    def case(self, played: Played) -> _Case:
        interval = self.interval(played, self.incumbent)
        kept = _kept(played, self.replicates, self.slo)
        robustness = _robustness(played, self.incumbent, self.slo, self.minimised)
        saves = interval.high < 1 - self.rules.min_gain or not self.incumbent_meets
        promotable = all(k.met for k in kept) and saves and all(r.passed for r in robustness)
        return _Case(played, interval, kept, robustness, self.paths(played, self.incumbent), promotable)

    def interval(self, a: Played, b: Played) -> Interval:
        level = 1 - (1 - self.rules.confidence) / self.challengers
        clusters = [replicate.cluster for replicate in self.replicates]
        return ratio_interval(_log_ratios(a.replicates, b.replicates, self.minimised), clusters, level)

    def ties(self, a: Played, b: Played) -> bool:
        """True when the paired interval of the ratio of two policies contains 1."""
        interval = self.interval(a, b)
        return interval.low <= 1 <= interval.high

    def paths(self, a: Played, b: Played) -> tuple[str, ...]:
        """Every number in which two policies differ; with its pool's name where there is more than one pool."""
        many = len(self.incumbent.policy) > 1
        return tuple(
            f"{pool}.{path}" if many else path
            for pool in self.incumbent.policy
            for path, _, _ in self.differences(a.policy[pool], b.policy[pool])
        )


def _check(
    incumbent: Played, challengers: Sequence[Played], replicates: Sequence[Replicate], rules: JudgeRules
) -> None:
    if not challengers:
        raise InputError("there is no challenger to judge", key="challengers")
    if len(replicates) < rules.min_replicates:
        raise InputError(
            "too few replicates", key="replicates", found=len(replicates), allowed=f"at least {rules.min_replicates}"
        )
    if not any(replicate.real for replicate in replicates):
        raise InputError("the judged part itself is not among the replicates", key="replicates")
    for played in (incumbent, *challengers):
        if len(played.replicates) != len(replicates):
            raise InputError("plays and replicates differ in number", key="replicates", found=len(played.replicates))
        counts = {name: len(cards) for name, cards in played.perturbed.items()}
        if counts != {name: len(cards) for name, cards in incumbent.perturbed.items()}:
            raise InputError("the policies were played under different perturbations", key="perturbed", found=counts)


def _winner(cases: Sequence[_Case], bench: _Bench) -> _Case:
    """The challenger that is judged: of the promotable the cheapest, or the one tied with it that changes least."""
    promotable = [case for case in cases if case.promotable]
    if not promotable:
        return min(cases, key=lambda case: (not case.meets, case.shortfall, case.interval.ratio, len(case.changes)))
    cheapest = min(promotable, key=lambda case: case.interval.ratio)
    tied = [case for case in promotable if case is cheapest or bench.ties(case.played, cheapest.played)]
    return min(tied, key=lambda case: (len(case.changes), case.interval.ratio))


def _decide(
    winner: _Case, blocks: Blocks, bench: _Bench
) -> tuple[Literal["promote", "keep", "infeasible", "too_short"], str]:
    rules, interval = bench.rules, winner.interval
    if blocks.count < rules.min_blocks:
        return "too_short", (
            f"the judged part holds {blocks.count:.1f} independent blocks of {blocks.block_s:.0f} s, "
            f"fewer than the {rules.min_blocks} that a judgement takes"
        )
    less = "less" if bench.unit == "cost" else "fewer"
    saving = f"{_percent(1 - interval.ratio)} {less} {bench.unit} ({_range(interval)} at {rules.confidence:.0%})"
    if not winner.meets and not bench.incumbent_meets:
        return "infeasible", (
            f"no policy meets the SLO on the judged traffic: the nearest misses {_worst(winner.kept, bench.slo)}, "
            f"the incumbent {_worst(bench.incumbent_kept, bench.slo)}"
        )
    if not winner.meets:
        return "keep", f"the challenger misses the SLO on the judged traffic: {_worst(winner.kept, bench.slo)}"
    failing = next((r for r in winner.robustness if not r.passed), None)
    if failing:
        return "keep", (
            f"under {failing.perturbation} the challenger misses the SLO by {_points(-failing.challenger_margin)}, "
            f"more than the incumbent ({_margin(failing.incumbent_margin)})"
        )
    if not bench.incumbent_meets:
        return "promote", (
            f"the challenger meets the SLO, which the incumbent misses ({_worst(bench.incumbent_kept, bench.slo)}), "
            f"with {interval.ratio:.3f} times its {bench.unit} ({_range(interval)} at {rules.confidence:.0%})"
        )
    if interval.high < 1 - rules.min_gain:
        return "promote", f"{saving} than the incumbent, with the SLO met by {_points(_least(winner.kept))}"
    if interval.high < 1:
        return "keep", (
            f"the challenger takes {saving}, but promotion takes a gain surely above {_percent(rules.min_gain)}"
        )
    verb = "is" if bench.unit == "cost" else "are"
    return "keep", (
        f"the challenger's {bench.unit} {verb} {interval.ratio:.3f} times the incumbent's ({_range(interval)} at "
        f"{rules.confidence:.0%}): no sure saving"
    )


def _verdict(
    decision: Literal["promote", "keep", "infeasible", "too_short"],
    reason: str,
    winner: _Case,
    cases: Sequence[_Case],
    blocks: Blocks,
    bench: _Bench,
) -> Verdict:
    others = [case for case in cases if case is not winner]
    tied = [case for case in others if _equal_worth(case, winner) and bench.ties(case.played, winner.played)]
    inert = [bench.paths(winner.played, case.played) for case in tied if _same_laws(case.played, winner.played)]
    return Verdict(
        decision=decision,
        reason=reason,
        challenger=_contestant(winner.played, bench.replicates),
        incumbent=_contestant(bench.incumbent, bench.replicates),
        gain=_gain(winner, bench),
        slo=tuple(
            Promise(promise=name, challenger=challenger, incumbent=incumbent)
            for name, challenger, incumbent in zip(promises(bench.slo), winner.kept, bench.incumbent_kept, strict=True)
        ),
        robustness=winner.robustness,
        judged_on=_judged_on(bench, blocks),
        changes=winner.changes,
        inert_numbers=min(inert, key=len, default=()),
        rivals=tuple(_rival(case, case in tied) for case in others),
        rules=bench.rules,
    )


def _equal_worth(case: _Case, winner: _Case) -> bool:
    """Only policies that fare alike under the rules can tie: a cheap one that misses the SLO ties with nobody."""
    return case.meets and winner.meets and case.promotable == winner.promotable


def _same_laws(a: Played, b: Played) -> bool:
    return all(a.policy[pool].kind == b.policy[pool].kind for pool in a.policy)


def _contestant(played: Played, replicates: Sequence[Replicate]) -> Contestant:
    first = next(i for i, replicate in enumerate(replicates) if replicate.real)
    policy = {pool: scaling.document() for pool, scaling in played.policy.items()}
    # how long a play took is not part of the verdict: the same seed gives the same file
    return Contestant(policy=policy, scorecard=played.replicates[first].model_copy(update={"wall_s": 0.0}))


def _rival(case: _Case, tied: bool) -> Rival:
    return Rival(
        policy={pool: scaling.document() for pool, scaling in case.played.policy.items()},
        gpu_seconds_ratio=case.interval.ratio,
        interval=(case.interval.low, case.interval.high),
        promotable=case.promotable,
        tied=tied,
        differences=len(case.changes),
    )


def _gain(winner: _Case, bench: _Bench) -> Gain:
    logs = _log_ratios(winner.played.replicates, bench.incumbent.replicates, bench.minimised)
    real = np.array([replicate.real for replicate in bench.replicates])
    return Gain(
        gpu_seconds_ratio=winner.interval.ratio,
        interval=(winner.interval.low, winner.interval.high),
        confidence=bench.rules.confidence,
        on_judged_part=math.exp(logs[real].mean()),
        on_resampled=math.exp(_by_cluster(logs, bench.replicates, ~real).mean()) if (~real).any() else None,
    )


def _judged_on(bench: _Bench, blocks: Blocks) -> JudgedOn:
    first = next(i for i, replicate in enumerate(bench.replicates) if replicate.real)
    on_real = sum(replicate.real for replicate in bench.replicates)
    return JudgedOn(
        replicates=len(bench.replicates),
        on_judged_part=on_real,
        resampled=len(bench.replicates) - on_real,
        clusters=len({replicate.cluster for replicate in bench.replicates}),
        window_s=bench.incumbent.replicates[first].horizon_s,
        requests=bench.incumbent.replicates[first].requests,
        blocks=blocks,
    )


def _kept(played: Played, replicates: Sequence[Replicate], slo: Slo) -> tuple[Kept, ...]:
    table = np.array([margins(card, slo) for card in played.replicates])
    real = np.array([replicate.real for replicate in replicates])
    kept = []
    for column in table.T:
        on_real = float(column[real].mean())
        resampled = float(_by_cluster(column, replicates, ~real).mean()) if (~real).any() else None
        met = all(mean >= 0 for mean in _known(on_real, resampled))
        kept.append(
            Kept(
                met=met,
                margin_judged_part=on_real,
                margin_resampled=resampled,
                margin_worst=float(column.min()),
            )
        )
    return tuple(kept)


def _robustness(challenger: Played, incumbent: Played, slo: Slo, minimised: Minimised) -> tuple[Robustness, ...]:
    rows = []
    for name, cards in challenger.perturbed.items():
        against = incumbent.perturbed[name]
        ours = np.mean([margins(card, slo) for card in cards], axis=0)
        theirs = np.mean([margins(card, slo) for card in against], axis=0)
        rows.append(
            Robustness(
                perturbation=name,
                passed=bool(np.all((ours >= 0) | (ours >= theirs))),
                challenger_margin=tightest(ours.tolist()),
                incumbent_margin=tightest(theirs.tolist()),
                gpu_seconds_ratio=math.exp(_log_ratios(cards, against, minimised).mean()),
            )
        )
    return tuple(rows)


def _log_ratios(challenger: Sequence[Scorecard], incumbent: Sequence[Scorecard], minimised: Minimised) -> Floats:
    ours = np.array([card.objective_value(minimised) for card in challenger], dtype=np.float64)
    theirs = np.array([card.objective_value(minimised) for card in incumbent], dtype=np.float64)
    if (ours <= 0).any() or (theirs <= 0).any():
        if minimised.harvested_credit:
            raise InputError(
                "the credit for offline work is worth more than what the service takes: a ratio has no meaning",
                key="objective.harvested_credit",
                found=minimised.harvested_credit,
                allowed="less",
            )
        raise InputError("a play took no GPU time at all: its ratio to another has no meaning", key=minimised.minimise)
    return np.log(ours / theirs)


def _by_cluster(values: Floats, replicates: Sequence[Replicate], chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    names = [replicate.cluster for replicate, there in zip(replicates, chosen, strict=True) if there]
    return cluster_means(values[chosen], names)


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]


def _least(kept: Sequence[Kept]) -> float:
    return min(min(_known(k.margin_judged_part, k.margin_resampled)) for k in kept)


def _worst(kept: Sequence[Kept], slo: Slo) -> str:
    """The promise that is missed most: `ttft <= 2 s for 90 % by 1.3 points`."""
    least = [min(_known(k.margin_judged_part, k.margin_resampled)) for k in kept]
    index = int(np.argmin(least))
    return f"{promises(slo)[index]} by {_points(-least[index])}"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.1f} %"


def _points(share: float) -> str:
    return f"{share * 100:.2f} points"


def _margin(share: float) -> str:
    return f"meets it by {_points(share)}" if share >= 0 else f"by {_points(-share)}"


def _range(interval: Interval) -> str:
    return f"ratio {interval.low:.3f} to {interval.high:.3f}"
