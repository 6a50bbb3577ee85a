"""What one trial is worth: the same scenarios for every trial, an objective, and margins that are constraints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tiphys.domain.platform import Platform, Policy, Transition, governed_by
from tiphys.domain.promises import margins, promises, tightest
from tiphys.domain.recording import Recording
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import score, spent
from tiphys.domain.service import PERTURBATIONS, Perturbation
from tiphys.domain.slo import Minimised, Slo
from tiphys.errors import EmptyRecording

_NOTHING_TAKEN = Transition()


@dataclass(frozen=True)
class EvaluationPlan:
    """What every trial is played on (common random numbers): folds of the tuning part under seeds, then perturbed.

    The objective is the mean over `nominal`; feasibility is the worst over all. Nominal scenarios are always played, so
    that the objective means the same for every trial. Perturbed ones are played in their order; where a trial is known
    to be infeasible already, and its family has a feasible trial, the rest are left out: they can no longer make it
    feasible, and no infeasible trial can win. While a family has none, every trial is played in full: the one that
    misses least must be known truly.
    """

    nominal: tuple[Scenario, ...]
    perturbed: tuple[Scenario, ...] = ()

    @classmethod
    def of(
        cls,
        nominal: Sequence[Scenario],
        perturbations: Iterable[Perturbation] = PERTURBATIONS,
        perturbed: Sequence[Scenario] | None = None,
    ) -> EvaluationPlan:
        """A plan that plays `perturbed` (all of `nominal` where absent) under each perturbation, the severest first."""
        severe = sorted(perturbations, key=lambda p: (-p.step_time, -p.cold_start))
        truths = tuple(nominal) if perturbed is None else tuple(perturbed)
        return cls(tuple(nominal), tuple(scenario.under(p) for p in severe for scenario in truths))

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Everything, in the order of playing."""
        return self.nominal + self.perturbed


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    `value` is the mean of what is minimised over the nominal scenarios. `margins` is, for each promise of the SLO, the
    worst margin in any scenario that was played: share of requests, negative for a miss. `played` counts scenarios.
    `transition` is what putting the policy in force took.
    """

    value: float
    margins: Mapping[str, float]
    played: int
    transition: Transition = _NOTHING_TAKEN

    @property
    def margin(self) -> float:
        """The smallest margin of the objectives (of the failures, where too many fail)."""
        return tightest(tuple(self.margins.values()))

    @property
    def feasible(self) -> bool:
        """Every promise is kept in every scenario that was played."""
        return self.margin >= 0

    @property
    def shortfall(self) -> float:
        """By how much promises are missed, summed; 0 when feasible."""
        return sum(-margin for margin in self.margins.values() if margin < 0)

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Smaller is better: feasible before infeasible, then by value, or by shortfall."""
        return (not self.feasible, self.shortfall, self.value)


@dataclass(frozen=True)
class Bench:
    """Everything that a trial's outcome depends on but its policy; sent to each worker once."""

    platform: Platform
    plan: EvaluationPlan
    slo: Slo
    minimised: Minimised


def evaluate(bench: Bench, policy: Policy, in_full: bool = True) -> Outcome:
    """Play `policy` (the incumbent stays in pools that it does not name) on the plan's scenarios.

    With `in_full` False the perturbed scenarios stop once a promise is missed. A play in which nothing finishes misses
    everything; its GPU time still counts.
    """
    values, worst = [], dict.fromkeys(promises(bench.slo), float("inf"))
    played = 0
    with governed_by(bench.platform, {**bench.platform.incumbent(), **policy}) as taken:
        for scenario in bench.plan.scenarios:
            nominal = played < len(bench.plan.nominal)
            if not nominal and not in_full and min(worst.values()) < 0:
                break
            value, kept = _judged(bench.platform.play(scenario), bench.slo, bench.minimised)
            played += 1
            if nominal:
                values.append(value)
            worst = {name: min(worst[name], margin) for name, margin in zip(worst, kept, strict=True)}
    return Outcome(sum(values) / len(values), worst, played, taken)


def _judged(recording: Recording, slo: Slo, minimised: Minimised) -> tuple[float, tuple[float, ...]]:
    try:
        card = score(recording, slo, minimised)
    except EmptyRecording:
        return spent(recording, minimised), (*(-o.share for o in slo.objectives), slo.failed_at_most - 1.0)
    return card.objective_value(minimised), margins(card, slo)
