"""The plays behind a verdict: incumbent and challengers on the same traffic, nominal and perturbed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tiphys.domain.judge import Played, Replicate, judge
from tiphys.domain.platform import Platform, Policy, trial
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import Scorecard
from tiphys.domain.service import PERTURBATIONS, Perturbation
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.statistics import Blocks, independent_blocks
from tiphys.domain.trace import Floats, Trace
from tiphys.domain.verdict import JudgeRules, Verdict
from tiphys.errors import InputError
from tiphys.policies.differences import differences
from tiphys.search.workers import Workers


@dataclass(frozen=True)
class Exam:
    """Traffic that nobody tuned on, the same for every policy.

    `real` is the judged part under several seeds (phases, cold starts, routing), `resampled` is traffic drawn from its
    profile, `perturbed` are scenarios each under its perturbation. Scenarios with one trace are one cluster.
    """

    real: tuple[Scenario, ...]
    resampled: tuple[Scenario, ...]
    perturbed: tuple[Scenario, ...]

    @classmethod
    def of(
        cls,
        real: Sequence[Scenario],
        resampled: Sequence[Scenario],
        perturbations: Iterable[Perturbation] = PERTURBATIONS,
        each: int = 2,
    ) -> Exam:
        """An exam that repeats the first `each` scenarios of both kinds under each perturbation."""
        again = (*real[:each], *resampled[:each])
        return cls(tuple(real), tuple(resampled), tuple(s.under(p) for p in perturbations for s in again))

    @property
    def replicates(self) -> tuple[Scenario, ...]:
        """The unperturbed scenarios, in order."""
        return self.real + self.resampled

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Everything, in order."""
        return self.replicates + self.perturbed


def judge_on(
    platform: Platform,
    challengers: Sequence[Policy],
    exam: Exam,
    slo: Slo,
    *,
    minimised: Minimised | None = None,
    rules: JudgeRules | None = None,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Judge challengers against the platform's incumbent (which stays in pools that they do not name), best first.

    `on_progress` is called with (plays done, plays in all). Raises InputError for an exam that cannot be judged.
    """
    if not exam.real:
        raise InputError("the judged part is empty", key="real")
    rules = rules or JudgeRules()
    incumbent = dict(platform.incumbent())
    policies: list[Policy] = [incumbent, *({**incumbent, **challenger} for challenger in challengers)]
    items = [(policy, index) for index in range(len(exam.scenarios)) for policy in policies]
    cards: list[Scorecard | None] = [None] * len(items)
    shared = _ExamBench(platform, exam.scenarios, slo, minimised)
    with Workers(_play, shared, min(workers, len(items))) as processes:
        for done, (index, card) in enumerate(processes.results(items), 1):
            cards[index] = card
            if on_progress:
                on_progress(done, len(items))
    played = [_played(policy, cards[place :: len(policies)], exam) for place, policy in enumerate(policies)]
    blocks = traffic_blocks(exam.real[0], rules, played[0].replicates[0].horizon_s)
    return judge(played[0], played[1:], _replicates(exam), blocks, slo, differences, rules, minimised)


@dataclass(frozen=True)
class _ExamBench:
    platform: Platform
    scenarios: tuple[Scenario, ...]
    slo: Slo
    minimised: Minimised | None


def _play(bench: _ExamBench, item: tuple[Policy, int]) -> Scorecard:
    policy, index = item
    return trial(bench.platform, policy, bench.scenarios[index], bench.slo, bench.minimised)


def _played(policy: Policy, cards: Sequence[Scorecard | None], exam: Exam) -> Played:
    known = [card for card in cards if card is not None]
    count = len(exam.replicates)
    perturbed: dict[str, tuple[Scorecard, ...]] = {}
    for scenario, card in zip(exam.perturbed, known[count:], strict=True):
        name = scenario.perturbation.name
        perturbed[name] = (*perturbed.get(name, ()), card)
    return Played(policy, tuple(known[:count]), perturbed)


def _replicates(exam: Exam) -> list[Replicate]:
    digests = {id(scenario.trace): scenario.trace.digest() for scenario in exam.replicates}
    return [
        Replicate(cluster=digests[id(scenario.trace)], real=index < len(exam.real))
        for index, scenario in enumerate(exam.replicates)
    ]


def traffic_blocks(scenario: Scenario, rules: JudgeRules, window_s: float) -> Blocks:
    """How many independent blocks the scored window of a scenario (so long, as played) holds, by its arrivals a minute.

    In a closed loop every policy lives through one schedule, and what the requests are is independent.
    """
    if scenario.users is not None:
        return Blocks(block_s=rules.block_at_least_s, count=window_s / rules.block_at_least_s)
    per_minute = arrivals_per_minute(scenario.trace, scenario.warmup_s, scenario.horizon_s)
    return independent_blocks(per_minute, 60.0, rules.block_at_least_s)


def arrivals_per_minute(trace: Trace, start_s: float, stop_s: float) -> Floats:
    """Requests that arrive in each whole minute of a window."""
    edges = start_s + 60.0 * np.arange(int((stop_s - start_s) // 60) + 1)
    return np.diff(np.searchsorted(trace.arrival_s, edges)).astype(np.float64)
