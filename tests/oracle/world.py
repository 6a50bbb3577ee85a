"""A service under policies while a scenario is played, second implementation: everything on one SimPy clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.oracle.clock import Clock, Order
from tests.oracle.crowd import Crowd
from tests.oracle.fleet import Fleet, OfflineJob
from tests.oracle.hpa import Decision
from tests.oracle.journeys import Journeys
from tests.oracle.keda import Keda, Poll
from tests.oracle.lines import ActivatorLine
from tests.oracle.nodes import Cluster
from tests.oracle.pods import Pod
from tests.oracle.pools import OraclePool, PoolChances, PoolState, gpu_seconds
from tests.oracle.scalers import (
    HpaLoop,
    Knative,
    Metrics,
    Tick,
    generated_hpa,
    hpa_of,
    keda_loop,
    knative_hpa_of,
    rule_windows_s,
    schedule_loop,
    scheduled,
)
from tests.oracle.troubles import Faults
from tests.oracle.work import Asked, Job
from tiphys.domain.nodes import Nodes
from tiphys.domain.route import Hop
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Router
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.fleet import FLEET, FleetPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.schedule.spec import SchedulePolicy

AnyPolicy = HpaPolicy | KedaPolicy | FixedPolicy | KpaPolicy | KnativeHpaPolicy | SchedulePolicy
Policies = Mapping[str, AnyPolicy | FleetPolicy]
"""By pool; under the name of the fleet what governs offline work."""
_LIMIT_S = 1e5
"""A play that lasts longer never ends."""
_HOPS, _USERS = 2**32, 2**36
"""Where among the deliveries of one instant jobs and users begin; trace arrivals come before."""


def unmixed(seed: int, number: int) -> int:
    """Stands in where no choice is left to chance."""
    return seed + number


@dataclass(frozen=True)
class OracleService:
    """Pools, the router before each of them, and the hops of each class of requests."""

    pools: Mapping[str, OraclePool]
    router: Router
    classes: Mapping[str, tuple[Hop, ...]]


@dataclass(frozen=True)
class Chances:
    """What was left to chance, as plain numbers: handed in, so that two implementations share it."""

    pools: Mapping[str, PoolChances]
    think_times_s: Sequence[float] = ()
    """By request number; what a user thinks after its answer."""
    fleet_phase_s: float = 0.0
    mixed: Callable[[int, int], int] = unmixed
    """The twin's mixing of a seed with a number, not negative."""


@dataclass(frozen=True)
class PoolAccount:
    """One pool: jobs by number, pods in order of creation, decisions in order of time."""

    jobs: tuple[Job, ...]
    pods: tuple[Pod, ...]
    decisions: tuple[Decision, ...]
    polls: tuple[Poll, ...]
    ticks: tuple[Tick, ...]

    @property
    def preemptions(self) -> int:
        return sum(pod.batch.preemptions for pod in self.pods)

    @property
    def restarts(self) -> int:
        return sum(pod.restarts for pod in self.pods)

    @property
    def prefilled_tokens(self) -> int:
        """By completed steps, recomputed and lost ones included."""
        return sum(pod.prefilled_tokens for pod in self.pods)

    @property
    def generated_tokens(self) -> int:
        """By completed steps; the first token of a job whose KV cache was fetched is its prefill job's."""
        return sum(pod.generated_tokens for pod in self.pods)

    def gaps_s(self, start_s: float, stop_s: float) -> list[float]:
        """Gaps between tokens that ended in steps begun inside a window."""
        return [gap for pod in self.pods for began_s, gap in pod.gaps if start_s <= began_s <= stop_s]

    def gpu_seconds(self, until_s: float) -> float:
        return gpu_seconds(self.pods, until_s)


@dataclass(frozen=True)
class Account:
    """What was observed. `requests` are those that were asked; times that never came are inf."""

    requests: tuple[Asked, ...]
    pools: Mapping[str, PoolAccount]
    horizon_s: float
    end_s: float
    offline_jobs: tuple[OfflineJob, ...] = ()

    @property
    def preemptions(self) -> int:
        return sum(pool.preemptions for pool in self.pools.values())


class World:
    """Everything that lives on the clock."""

    def __init__(self, service: OracleService, policies: Policies, scenario: Scenario, chances: Chances) -> None:
        self.service, self.scenario, self.chances = service, scenario, chances
        self.policies = {name: policy for name, policy in policies.items() if not isinstance(policy, FleetPolicy)}
        self.router, self.settings, self.scrape = service.router, scenario.settings, scenario.settings.scrape
        self.clock = Clock()
        self.cluster = Cluster(self.clock, scenario.settings.nodes)
        self.pods_created = 0
        self.pools: dict[str, PoolState] = {}
        for name, described in service.pools.items():
            policy = self.policies[name]
            limit = policy.container_concurrency if isinstance(policy, KpaPolicy) else None
            self.pools[name] = PoolState(self, name, described, chances.pools[name], limit)
        self.fleet = self._fleet(policies.get(FLEET), scenario.settings.nodes)
        self.faults = Faults(self)
        self.journeys = Journeys(self)
        self.requests: list[Asked] = []
        self.crowd = None if scenario.users is None else Crowd(self, scenario.users)
        self.hpas: dict[str, HpaLoop] = {}
        self.polls: dict[str, list[Poll]] = {name: [] for name in self.pools}
        self.knatives: dict[str, Knative] = {}
        self.horizon_s = scenario.horizon_s

    def _fleet(self, policy: AnyPolicy | FleetPolicy | None, nodes: Nodes | None) -> Fleet | None:
        if not isinstance(policy, FleetPolicy) or nodes is None or nodes.offline is None:
            return None
        return Fleet(self.clock, self.cluster, nodes.offline, policy, self.chances.fleet_phase_s)

    # --- numbers and places

    def next_pod(self) -> int:
        self.pods_created += 1
        return self.pods_created - 1

    def place_of(self, job: Job) -> int:
        return self.place_of_number(job.number)

    def place_of_number(self, job: int) -> int:
        return _HOPS + job

    def place_of_user(self, user: int) -> int:
        return _USERS + user

    def pool_number(self, name: str) -> int:
        return list(self.pools).index(name)

    # --- requests

    def is_asking_time(self) -> bool:
        assert self.crowd is not None
        return self.crowd.counts_requests or self.clock.now <= self.scenario.horizon_s

    def ask(self, number: int, user: int = -1) -> None:
        """Request `number` of the trace arrives now."""
        trace = self.scenario.trace
        request = Asked(
            number, self.journeys.class_names[number], self.clock.now, int(trace.input_tokens[number]),
            int(trace.output_tokens[number]), user,
        )  # fmt: skip
        self.requests.append(request)
        self.journeys.begin(request)

    def answered(self, request: Asked) -> None:
        """A request has ended or failed."""
        if self.crowd is not None:
            self.crowd.answered(request)

    def _begin_arrivals(self) -> None:
        for number, arrival_s in enumerate(self.scenario.trace.arrival_s.tolist()):
            self.clock.call(arrival_s, Order.DELIVERY, number, lambda number=number: self.ask(number))  # type: ignore[misc]

    # --- the play

    def run(self) -> Account:
        for name, pool in self.pools.items():
            for _ in range(self.scenario.start_replicas.get(name, pool.described.pool.replicas.at_start)):
                pool.create(starts_ready=True)
        for name, pool in self.pools.items():
            self._govern(pool, self.policies[name])
            pool.begin_router_scrapes()
        if self.crowd is None:
            self._begin_arrivals()
        else:
            self.crowd.begin()
        self._play()
        return self._account()

    def _play(self) -> None:
        if self.crowd is not None and self.crowd.counts_requests:
            self.clock.call(_LIMIT_S, Order.STEP_END, 0, self._never_done)
            self.clock.run(self.crowd.done)
            self.horizon_s = self.clock.now
        end_s = self.horizon_s + self.scenario.drain_s
        if end_s > self.clock.now:
            self.clock.run(end_s)

    def _never_done(self) -> None:
        raise RuntimeError(f"users are not done after {_LIMIT_S:g} s")

    def _govern(self, pool: PoolState, policy: AnyPolicy) -> None:
        place = self.pool_number(pool.name)
        metrics = Metrics(pool, rule_windows_s(policy))
        if metrics.recorded:
            self.clock.process(metrics.rule_loop(place))
        if isinstance(policy, FixedPolicy):
            pool.scale_to(policy.replicas)
        elif isinstance(policy, SchedulePolicy):
            pool.scale_to(scheduled(policy, self.scenario.starts_at_s))
            self.clock.process(schedule_loop(pool, policy, place))
        elif isinstance(policy, KpaPolicy):
            assert isinstance(pool.line, ActivatorLine)
            knative = self.knatives[pool.name] = Knative(pool, policy, pool.line)
            knative.begin(place)
        else:
            loop = self._hpa_loop(pool, policy, metrics, place)
            self.hpas[pool.name] = loop
            self.clock.process(loop.run(place))

    def _hpa_loop(
        self, pool: PoolState, policy: HpaPolicy | KedaPolicy | KnativeHpaPolicy, metrics: Metrics, place: int
    ) -> HpaLoop:
        if isinstance(policy, HpaPolicy):
            return hpa_of(pool, policy, metrics)
        if isinstance(policy, KnativeHpaPolicy):
            return knative_hpa_of(pool, policy, metrics)
        keda = Keda(policy, metrics.trigger)
        self.clock.process(keda_loop(pool, keda, self.polls[pool.name], place))
        return generated_hpa(pool, policy, keda, metrics)

    def _account(self) -> Account:
        pools = {}
        for name, pool in self.pools.items():
            decisions = tuple(self.hpas[name].decisions) if name in self.hpas else ()
            ticks = tuple(self.knatives[name].ticks) if name in self.knatives else ()
            jobs = tuple(sorted(pool.jobs, key=lambda job: job.number))
            pools[name] = PoolAccount(jobs, tuple(pool.pods), decisions, tuple(self.polls[name]), ticks)
        offline = () if self.fleet is None else tuple(self.fleet.jobs)
        return Account(tuple(self.requests), pools, self.horizon_s, self.clock.now, offline)


def play(service: OracleService, policies: Policies, scenario: Scenario, chances: Chances) -> Account:
    """Everything that happens until the end of the drain."""
    return World(service, policies, scenario, chances).run()
