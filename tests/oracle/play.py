"""The world in SimPy: arrivals, routers, pods, scrapes and controllers on one clock."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from heapq import heappush
from typing import Any

import simpy

from tests.oracle.engine import INFINITY, Admission, Engine, Limits, Request
from tests.oracle.hpa import Answer, Decision, Hpa, Metric, Pod, milli
from tests.oracle.keda import External, Keda, Poll
from tests.oracle.prometheus import Sample, Target, bucket_rates, histogram_quantile, levels
from tiphys.domain.profile import Profile, StepTime
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool, Router
from tiphys.domain.signals import Signal
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger

# What goes first at one instant. SimPy's own events (0 and 1) go before all of these.
STEP_END, LIFECYCLE, ARRIVAL, SCRAPE, KEDA_POLL, HPA_PASS = range(10, 16)
Process = Generator[simpy.Event, Any, None]
AnyPolicy = HpaPolicy | KedaPolicy | FixedPolicy


@dataclass(frozen=True)
class Chances:
    """What was left to chance, by creation number of the pod: handed in, so that two implementations share it."""

    cold_starts_s: Sequence[float]
    scrape_phases_s: Sequence[float]
    hpa_phase_s: float
    keda_phase_s: float


class Clock(simpy.Environment):
    """An environment whose events can be put at an exact time, with an order among those of one instant."""

    def at(self, time_s: float, order: int) -> simpy.Event:
        event = simpy.Event(self)
        event._ok, event._value = True, None
        heappush(self._queue, (time_s, order, next(self._eid), event))  # type: ignore[misc]
        return event


class Replica:
    """One pod with its engine."""

    def __init__(self, world: World, number: int, cold_start_s: float) -> None:
        self.world, self.number, self.clock = world, number, world.clock
        self.created_s, self.cold_start_s = self.clock.now, cold_start_s
        self.ready_s = self.removed_s = self.gone_s = INFINITY
        self.engine = Engine(world.limits, world.step, world.scenario.perturbation.step_time)
        self.ttft_counts = [0] * (len(world.bounds_s) + 1)
        self.target = Target(number)
        self.has_work = self.clock.event()
        self.is_busy = False
        if cold_start_s > 0:
            self.clock.process(self.warm_up())
        else:
            self.become_ready()

    @property
    def is_ready(self) -> bool:
        return self.ready_s <= self.clock.now < self.gone_s

    @property
    def is_wanted(self) -> bool:
        return self.removed_s == INFINITY

    def warm_up(self) -> Process:
        yield self.clock.at(self.created_s + self.cold_start_s, LIFECYCLE)
        if self.gone_s == INFINITY:
            self.become_ready()

    def become_ready(self) -> None:
        self.ready_s = self.clock.now
        self.clock.process(self.serve())
        self.clock.process(self.be_scraped())

    def take(self, request: Request) -> None:
        request.replica = self.number
        self.engine.accept(request)
        if not self.is_busy and not self.has_work.triggered:
            self.has_work.succeed()

    def serve(self) -> Process:
        while True:
            if self.engine.outstanding == 0:
                if not self.is_wanted:
                    self.go()
                    return
                self.is_busy, self.has_work = False, self.clock.event()
                yield self.has_work
                self.is_busy = True
            began_s = self.clock.now
            yield self.clock.at(began_s + self.engine.begin_step(), STEP_END)
            if self.gone_s < INFINITY:
                return
            for request in self.engine.end_step(self.clock.now, began_s):
                self.count_ttft(self.clock.now - request.arrival_s)

    def count_ttft(self, ttft_s: float) -> None:
        for place, bound_s in enumerate((*self.world.bounds_s, INFINITY)):
            if ttft_s <= bound_s:
                self.ttft_counts[place] += 1

    def be_scraped(self) -> Process:
        interval_s = self.world.scenario.settings.scrape.interval_s
        phase_s = self.world.chances.scrape_phases_s[self.number]
        due_s = phase_s + math.ceil((self.ready_s - phase_s) / interval_s) * interval_s
        while True:
            yield self.clock.at(due_s, SCRAPE)
            if self.gone_s < INFINITY:
                # a target that discovery has dropped might come back: its marker is written 1.1 intervals late
                self.target.stale_s = self.clock.now + 1.1 * interval_s
                return
            self.target.samples.append(Sample(self.clock.now, self.levels(), tuple(self.ttft_counts)))
            due_s += interval_s

    def levels(self) -> dict[str, float]:
        return {
            "running": len(self.engine.admitted),
            "waiting": len(self.engine.waiting),
            "kv_usage": self.engine.reserved() / self.world.limits.kv_capacity_tokens,
        }

    def remove(self) -> None:
        self.removed_s = self.clock.now
        if not self.is_ready or self.engine.outstanding == 0:
            self.go()
        else:
            self.clock.process(self.be_killed())

    def be_killed(self) -> Process:
        yield self.clock.at(self.removed_s + self.world.pool.termination_grace_s, LIFECYCLE)
        if self.gone_s == INFINITY:
            self.engine.drop_all()
            self.go()

    def go(self) -> None:
        self.gone_s = self.clock.now

    def seen(self) -> Pod:
        pending_until_s = self.created_s + min(self.world.pool.cold_start.pending_s, self.cold_start_s)
        is_pending = not self.is_ready and self.clock.now < pending_until_s
        return Pod(self.number, "Pending" if is_pending else "Running", self.is_ready, not self.is_wanted)


@dataclass
class World:
    """A service under a policy while a scenario is played."""

    step: StepTime
    limits: Limits
    pool: Pool
    router: Router
    policy: AnyPolicy
    scenario: Scenario
    chances: Chances
    bounds_s: Sequence[float]
    start_replicas: int
    clock: Clock = field(default_factory=Clock)
    replicas: list[Replica] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    last_used: int = -1

    def run(self) -> None:
        for _ in range(self.start_replicas):
            self.create(0.0)
        if isinstance(self.policy, FixedPolicy):
            self.scale_to(self.policy.replicas)
        elif isinstance(self.policy, HpaPolicy):
            self.clock.process(self.hpa_loop(hpa_of(self.policy, self.scenario), None))
        else:
            keda = Keda(self.policy, self.trigger_value)
            self.clock.process(self.keda_loop(keda))
            self.clock.process(self.hpa_loop(generated_hpa(self.policy, self.scenario), keda))
        self.clock.process(self.arrivals())
        self.clock.run(self.scenario.horizon_s + self.scenario.drain_s)

    # --- requests

    def arrivals(self) -> Process:
        trace = self.scenario.trace
        rows = zip(trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
        for number, (arrival_s, inputs, outputs) in enumerate(rows):
            yield self.clock.at(arrival_s, ARRIVAL)
            request = Request(number, arrival_s, inputs, outputs)
            self.requests.append(request)
            replica = self.route() if self.limits.can_ever_hold(request) else None
            if replica is None:
                request.failed = True
            else:
                replica.take(request)

    def route(self) -> Replica | None:
        able = [r for r in self.replicas if r.is_ready and r.is_wanted]
        if not able:
            return None
        if self.router.kind == "round_robin":
            chosen = next((r for r in able if r.number > self.last_used), able[0])
            self.last_used = chosen.number
            return chosen
        assert self.router.kind == "least_outstanding"
        return min(able, key=lambda r: (r.engine.outstanding, r.number))

    # --- pods

    def create(self, cold_start_s: float) -> None:
        self.replicas.append(Replica(self, len(self.replicas), cold_start_s))

    @property
    def wanted(self) -> list[Replica]:
        return [r for r in self.replicas if r.is_wanted]

    @property
    def ready_count(self) -> int:
        return sum(1 for r in self.replicas if r.is_ready)

    def scale_to(self, wish: int) -> None:
        while len(self.wanted) < wish:
            self.create(self.chances.cold_starts_s[len(self.replicas)])
        while len(self.wanted) > wish:
            self.victim().remove()

    def victim(self) -> Replica:
        starting = [r for r in self.wanted if not r.is_ready]
        if starting:
            return max(starting, key=lambda r: (r.created_s, r.number))
        return max(self.wanted, key=lambda r: (r.ready_s, r.number))

    # --- metrics

    def targets(self) -> list[Target]:
        return [r.target for r in self.replicas]

    def signal_value(self, signal: Signal, window_s: float | None, is_sum: bool) -> float | None:
        """What the scaler's expression gives now; None where it is empty."""
        now_s = self.clock.now
        if signal.quantile is not None:
            assert window_s is not None
            rates = bucket_rates(self.targets(), now_s, window_s)
            return None if rates is None else histogram_quantile(signal.quantile, self.bounds_s, rates)
        values = [v for _, v in levels(self.targets(), signal, now_s, self.scenario.settings.scrape.lookback_s)]
        if not values:
            return None
        return math.fsum(values) if is_sum else math.fsum(values) / len(values)

    def trigger_value(self, trigger: External) -> float | None:
        assert isinstance(trigger, PrometheusTrigger)
        return self.signal_value(trigger.signal, trigger.window_s, trigger.metric_type == "AverageValue")

    def adapter_answers(self, policy: HpaPolicy) -> list[Answer]:
        """prometheus-adapter: NaN is 0, otherwise milli-units cut off; no series is an error."""
        answers: list[Answer] = []
        for metric in policy.metrics:
            if metric.source == "pods":
                lookback_s = self.scenario.settings.scrape.lookback_s
                by_pod = levels(self.targets(), metric.signal, self.clock.now, lookback_s)
                answers.append({pod: adapter_milli(value) for pod, value in by_pod} or None)
                continue
            value = self.signal_value(metric.signal, metric.window_s, metric.type == "AverageValue")
            answers.append(None if value is None else adapter_milli(value))
        return answers

    # --- controllers

    def hpa_loop(self, hpa: Hpa, keda: Keda | None) -> Process:
        period_s = self.scenario.settings.hpa.sync_period_s + self.scenario.settings.hpa.pass_s
        yield self.clock.at(self.chances.hpa_phase_s, HPA_PASS)
        while True:
            answers: Sequence[Answer]
            spec = len(self.wanted)
            if keda is None:
                assert isinstance(self.policy, HpaPolicy)
                answers = self.adapter_answers(self.policy)
            elif hpa.minimum <= spec <= hpa.maximum:
                answers = [keda.metric_m(i, spec, self.ready_count) for i in range(len(hpa.metrics))]
            else:
                # the HPA asks for no metric in such a pass, so the metrics server counts no failure either
                answers = [None] * len(hpa.metrics)
            pods = [r.seen() for r in self.replicas if r.gone_s == INFINITY]
            decision = hpa.decide(self.clock.now, spec, spec, pods, answers)
            self.decisions.append(decision)
            self.scale_to(decision.desired)
            yield self.clock.at(self.clock.now + period_s, HPA_PASS)

    def keda_loop(self, keda: Keda) -> Process:
        yield self.clock.at(self.chances.keda_phase_s, KEDA_POLL)
        while True:
            poll = keda.poll(self.clock.now, len(self.wanted), self.ready_count)
            self.polls.append(poll)
            self.scale_to(poll.replicas)
            yield self.clock.at(self.clock.now + keda.policy.polling_interval_s, KEDA_POLL)


def adapter_milli(value: float) -> int:
    return 0 if math.isnan(value) else math.trunc(value * 1000)


def hpa_of(policy: HpaPolicy, scenario: Scenario) -> Hpa:
    metrics = tuple(Metric("Pods" if m.source == "pods" else m.type, milli(m.target)) for m in policy.metrics)
    return Hpa(policy.replicas.min, policy.replicas.max, metrics, policy.behavior, scenario.settings.hpa)


def generated_hpa(policy: KedaPolicy, scenario: Scenario) -> Hpa:
    """The HPA that KEDA makes for a ScaledObject (3.1)."""
    triggers = [t for t in policy.triggers if isinstance(t, PrometheusTrigger)]
    metrics = tuple(Metric(t.metric_type, milli(t.threshold)) for t in triggers)
    return Hpa(max(policy.replicas.min, 1), policy.replicas.max, metrics, policy.behavior, scenario.settings.hpa)


@dataclass(frozen=True)
class Account:
    """What was observed: requests in order of arrival, pods in order of creation, decisions in order of time."""

    requests: tuple[Request, ...]
    replicas: tuple[Replica, ...]
    decisions: tuple[Decision, ...]
    polls: tuple[Poll, ...]

    @property
    def preemptions(self) -> int:
        return sum(r.preemptions for r in self.requests)

    def gaps_s(self, start_s: float, stop_s: float) -> list[float]:
        """Gaps between tokens that ended in steps begun inside a window."""
        return [gap for r in self.replicas for began_s, gap in r.engine.gaps if start_s <= began_s <= stop_s]

    def wanted_log(self, until_s: float = INFINITY) -> list[tuple[float, int]]:
        """(time, replicas that exist and are not being removed), one entry a change."""
        times = sorted({r.created_s for r in self.replicas} | {r.removed_s for r in self.replicas} | {0.0})
        log: list[tuple[float, int]] = []
        for time_s in times:
            count = sum(1 for r in self.replicas if r.created_s <= time_s < r.removed_s)
            if time_s <= until_s and time_s < INFINITY and (not log or count != log[-1][1]):
                log.append((time_s, count))
        return log


def play(
    profile: Profile,
    pool: Pool,
    router: Router,
    policy: AnyPolicy,
    scenario: Scenario,
    chances: Chances,
    *,
    bounds_s: Sequence[float],
    admission: Admission,
    start_replicas: int,
) -> Account:
    """Everything that happens until the end of the drain."""
    limits = Limits(
        pool.admission or admission,
        pool.max_num_seqs,
        pool.max_batched_tokens or profile.max_batched_tokens,
        pool.kv_capacity_tokens or profile.kv_capacity_tokens,
    )
    world = World(profile.step, limits, pool, router, policy, scenario, chances, bounds_s, start_replicas)
    world.run()
    return Account(tuple(world.requests), tuple(world.replicas), tuple(world.decisions), tuple(world.polls))
