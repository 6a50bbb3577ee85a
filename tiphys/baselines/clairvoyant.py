"""The reference: a plan made with the trace in hand, spared until the SLO is only just met."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tiphys.baselines.bound import lower_bound
from tiphys.baselines.plan import SLOT_S, Counts, full_batch, plan_counts
from tiphys.baselines.work import PoolWork
from tiphys.domain.baselines import Baselines, Reference
from tiphys.domain.platform import Platform, Policy, trial
from tiphys.domain.promises import margins
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import Scorecard
from tiphys.domain.slo import Minimised, Slo
from tiphys.errors import EmptyRecording, InputError
from tiphys.policies import ReplicaBounds, ScheduledReplicas, SchedulePolicy

_STEPS = 6
_LEAST_SAFETY = 1 / 8
_P95 = 1.6448536269514722


def baselines(
    platform: Platform,
    pools: Mapping[str, PoolWork],
    scenarios: Sequence[Scenario],
    slo: Slo,
    minimised: Minimised | None = None,
    on_play: Callable[[int], None] | None = None,
    *,
    held_in_front: bool = False,
) -> Baselines:
    """The lower bound on the first scenario, and the reference on all of them.

    A platform that does not play a schedule is no fault: there is then no reference, and the message says why.
    `held_in_front` as `lower_bound` has it. Raises InputError for a closed loop, whose arrivals follow from the policy.
    """
    first = scenarios[0]
    if first.users is not None:
        raise InputError("a closed loop has no traffic of its own to plan for", key="traffic.source")
    bound = lower_bound(pools, first, slo, held_in_front=held_in_front)
    try:
        reference = clairvoyant(platform, pools, scenarios, slo, minimised, on_play)
    except InputError as error:
        if error.found != SchedulePolicy.model_fields["kind"].default:
            raise
        message = f"there is no clairvoyant reference: {error.message}: {error.found}"
        return Baselines(traffic=first.name, lower_bound=bound, clairvoyant=None, message=message)
    message = "" if reference.feasible else "even the most replicas miss the SLO on this traffic"
    return Baselines(traffic=first.name, lower_bound=bound, clairvoyant=reference, message=message)


def clairvoyant(
    platform: Platform,
    pools: Mapping[str, PoolWork],
    scenarios: Sequence[Scenario],
    slo: Slo,
    minimised: Minimised | None = None,
    on_play: Callable[[int], None] | None = None,
) -> Reference:
    """The cheapest plan found that keeps every promise on the mean over the scenarios, all of one trace.

    A plan has one safety factor, halved and doubled and then bisected; replicas are created a median cold start before
    they are needed, or one of the 95th percentile: both are tried. At most some twenty plans are played. Where even
    the most replicas throughout miss the SLO, those are the answer, marked infeasible. `on_play` hears how many plays
    have been done. The same inputs give the same plan.
    """
    if not scenarios:
        raise InputError("there is no scenario to plan for", key="scenarios")
    bench = _Bench(platform, pools, tuple(scenarios), slo, minimised, on_play)
    most = bench.played(bench.most())
    if not most.keeps:
        return bench.reference(most, feasible=False)
    found = [most, *(each for late in (0.0, _P95) for each in _spared(bench, late))]
    return bench.reference(min((each for each in found if each.keeps), key=lambda each: each.gpu_seconds))


@dataclass(frozen=True)
class _Outcome:
    """A plan as it was played; `keeps` is False where it broke a promise or served nothing at all."""

    policy: Policy
    safety: float | None
    lead_s: float | None
    cards: tuple[Scorecard, ...]
    keeps: bool

    @property
    def gpu_seconds(self) -> float:
        return float(np.mean([card.gpu_seconds for card in self.cards])) if self.cards else math.inf


@dataclass
class _Bench:
    """Where plans are played; what was played once is not played again."""

    platform: Platform
    pools: Mapping[str, PoolWork]
    scenarios: tuple[Scenario, ...]
    slo: Slo
    minimised: Minimised | None
    on_play: Callable[[int], None] | None
    _known: dict[bytes, _Outcome] = field(default_factory=dict)
    _plays: int = 0

    def most(self) -> dict[str, Counts]:
        """As many replicas as may be, throughout."""
        return {name: np.array([work.pool.replicas.max], np.int64) for name, work in self.pools.items()}

    def at(self, safety: float, late: float) -> _Outcome:
        """The plan of a safety factor, played; cold starts are taken to be `late` standard deviations long."""
        first = self.scenarios[0]
        counts = {}
        for name, work in self.pools.items():
            start = first.start_replicas.get(name, work.pool.replicas.at_start)
            counts[name] = plan_counts(work, first, start, safety, _lead_s(work, first, late))
        lead_s = max(_lead_s(work, first, late) for work in self.pools.values())
        return self.played(counts, safety, lead_s)

    def played(
        self, counts: Mapping[str, Counts], safety: float | None = None, lead_s: float | None = None
    ) -> _Outcome:
        key = b"|".join(each.tobytes() for each in counts.values())
        if key not in self._known:
            plans = {name: _plan(each, self.pools[name], self.scenarios[0]) for name, each in counts.items()}
            policy: Policy = {**self.platform.incumbent(), **plans}
            cards = tuple(self._cards(policy))
            keeps = len(cards) == len(self.scenarios) and bool(
                np.all(np.mean([margins(card, self.slo) for card in cards], axis=0) >= 0)
            )
            self._known[key] = _Outcome(policy, safety, lead_s, cards, keeps)
        return self._known[key]

    def _cards(self, policy: Policy) -> Iterator[Scorecard]:
        for scenario in self.scenarios:
            self._plays += 1
            try:
                yield trial(self.platform, policy, scenario, self.slo, self.minimised)
            except EmptyRecording:
                return
            if self.on_play:
                self.on_play(self._plays)

    def reference(self, chosen: _Outcome, *, feasible: bool = True) -> Reference:
        """A plan as the answer. Raises EmptyRecording where even it serves nothing."""
        if not chosen.cards:
            raise EmptyRecording("no request finished with as many replicas as may be")
        return Reference(
            policy={name: chosen.policy[name].document() for name in self.pools},
            feasible=feasible,
            gpu_seconds=chosen.gpu_seconds,
            # how long a play took is not part of the answer: the same inputs give the same file
            scorecard=chosen.cards[0].model_copy(update={"wall_s": 0.0}),
            safety_factor=chosen.safety,
            lead_s=chosen.lead_s,
            plays=self._plays,
        )


def _spared(bench: _Bench, late: float) -> Iterator[_Outcome]:
    """Plans of ever narrower safety factors about the smallest that keeps the promises."""
    highest = max(full_batch(work) for work in bench.pools.values())
    low, high = 0.0, 1.0
    tried = bench.at(high, late)
    yield tried
    while not tried.keeps and high < highest:
        low, high = high, min(2.0 * high, highest)
        tried = bench.at(high, late)
        yield tried
    if not tried.keeps:
        return
    while low == 0.0 and high > _LEAST_SAFETY:
        tried = bench.at(high / 2.0, late)
        yield tried
        low, high = (0.0, high / 2.0) if tried.keeps else (high / 2.0, high)
    for _ in range(_STEPS if low > 0.0 else 0):
        middle = math.sqrt(low * high)
        tried = bench.at(middle, late)
        yield tried
        low, high = (low, middle) if tried.keeps else (middle, high)


def _lead_s(work: PoolWork, scenario: Scenario, late: float) -> float:
    cold = work.pool.cold_start
    return scenario.perturbation.cold_start * cold.median_s * math.exp(late * cold.log_sigma)


def _plan(counts: Counts, work: PoolWork, scenario: Scenario) -> SchedulePolicy:
    """Counts by slot as a schedule in absolute seconds of the scenario's clock; the last count holds for good."""
    changes = [0, *(np.flatnonzero(np.diff(counts)) + 1)]
    # a play may begin at any time of the clock
    times = tuple(
        ScheduledReplicas(at_s=scenario.starts_at_s + SLOT_S * float(slot) if slot else 0.0, replicas=int(counts[slot]))
        for slot in changes
    )
    envelope = work.pool.replicas
    return SchedulePolicy(replicas=ReplicaBounds(min=envelope.min, max=envelope.max), times=times, period_s=None)
