"""The control loops of a world: what each sees, and when it decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from tests.oracle.clock import Clock, Order
from tests.oracle.hpa import Answer, CpuUse, Decision, Hpa, Metric, milli
from tests.oracle.keda import External, Keda, Poll, TriggerError
from tests.oracle.kpa import Kpa, Outcome, samples
from tests.oracle.lines import ActivatorLine
from tests.oracle.pods import Pod
from tests.oracle.pools import PoolState
from tests.oracle.promql import QueryError, Series, counter_rates, levels, ms, quantile_of_rates, ratio_of_rates
from tiphys.domain.signals import Signal
from tiphys.policies.hpa.spec import Behavior, HpaMetric, HpaPolicy, ScalingRules
from tiphys.policies.keda.spec import CpuTrigger, KedaPolicy, NatsJetStreamTrigger, PrometheusTrigger
from tiphys.policies.kpa.spec import CpuMetric, KnativeHpaPolicy, KpaPolicy, MemoryMetric
from tiphys.policies.schedule.spec import SchedulePolicy

Process = Generator[simpy.Event, Any, None]


# --- what is asked of Prometheus, of the queue, of metrics-server


class Metrics:
    """The answers of one pool's sources at this moment."""

    def __init__(self, pool: PoolState, rule_windows_s: Sequence[float]) -> None:
        self.pool, self.world = pool, pool.world
        self.recorded: dict[float, list[tuple[float, float | None]]] = {window_s: [] for window_s in rule_windows_s}

    @property
    def now_s(self) -> float:
        return self.world.clock.now

    @property
    def series(self) -> list[Series]:
        return [pod.series for pod in self.pool.pods]

    def _check_prometheus(self) -> None:
        if self.world.faults.prometheus_is_down(self.now_s):
            raise QueryError

    def value(self, signal: Signal, window_s: float | None, is_sum: bool) -> float | None:
        """What the scaler's expression gives now; None where it is empty. Raises QueryError."""
        self._check_prometheus()
        if signal is Signal.QUEUE_COMPUTE_RATIO:
            assert window_s is not None
            return self._newest_recorded(window_s)
        if signal.latency is not None:
            assert window_s is not None
            return self._latency(signal, window_s, self.series)
        values = [value for _, value in self.by_pod(signal, window_s)]
        if not values:
            return None
        return math.fsum(values) if is_sum else math.fsum(values) / len(values)

    def _latency(self, signal: Signal, window_s: float, series: Sequence[Series]) -> float | None:
        assert signal.latency is not None
        name = signal.latency
        if signal.quantile is None:
            return ratio_of_rates(series, f"{name}_sum", f"{name}_count", self.now_s, window_s)
        bounds_s = self.pool.described.bounds_s[name]
        return quantile_of_rates(series, name, bounds_s, signal.quantile, self.now_s, window_s)

    def by_pod(self, signal: Signal, window_s: float | None) -> list[tuple[int, float]]:
        """(pod, value) of a signal that each pod has. Raises QueryError."""
        self._check_prometheus()
        if signal.latency is not None:
            assert window_s is not None
            found = [(series.pod, self._latency(signal, window_s, [series])) for series in self.series]
            return [(pod, value) for pod, value in found if value is not None]
        if signal is Signal.RPS:
            assert window_s is not None
            return counter_rates(self.series, "finished", self.now_s, window_s)
        assert signal.is_level
        series = [self.pool.router_series] if signal is Signal.QUEUED else self.series
        return levels(series, signal, self.now_s, self.world.scrape.lookback_s)

    def rule_loop(self, place: int) -> Process:
        """Evaluates the recording rules."""
        interval_s = self.world.scrape.rule_interval_s
        number = 0
        while True:
            yield self.world.clock.at(self.pool.chances.rule_phase_s + number * interval_s, Order.RULE, place)
            number += 1
            if self.world.faults.prometheus_is_down(self.now_s):
                continue
            for window_s, values in self.recorded.items():
                value = ratio_of_rates(self.series, "queue_s", "compute_s", self.now_s, window_s)
                values.append((self.now_s, value))

    def _newest_recorded(self, window_s: float) -> float | None:
        values = self.recorded[window_s]
        if not values or ms(values[-1][0]) <= ms(self.now_s) - ms(self.world.scrape.lookback_s):
            return None
        # an empty result has left a stale marker
        return values[-1][1]

    def cpu(self) -> CpuUse | None:
        """Of the last resolution window that is over, for the pods whose container ran through it."""
        cpu, resolution_s = self.pool.described.pool.cpu, self.world.scrape.cpu_resolution_s
        phase_s = self.pool.chances.cpu_phase_s
        looks = math.floor((self.now_s - phase_s) / resolution_s)
        start_s, stop_s = phase_s + (looks - 1) * resolution_s, phase_s + looks * resolution_s
        values_m = {}
        for pod in self.pool.alive:
            if looks >= 1 and pod.running_from_s <= start_s:
                share = min(1.0, pod.busy_between(start_s, stop_s) / resolution_s)
                values_m[pod.number] = math.ceil((cpu.idle + cpu.busy * share) * 1000)
        if not values_m:
            return None
        return CpuUse(values_m, stop_s, resolution_s, milli(cpu.request))

    def trigger(self, trigger: External) -> float | None:
        """Of a KEDA trigger. Raises TriggerError."""
        if isinstance(trigger, NatsJetStreamTrigger):
            if self.world.faults.consumer_is_missing(self.pool.name, self.now_s):
                raise TriggerError
            return self.world.faults.answered_lag(self.pool.name, self.now_s)
        try:
            return self.value(trigger.signal, trigger.window_s, trigger.metric_type == "AverageValue")
        except QueryError:
            raise TriggerError from None

    def adapter(self, metric: HpaMetric) -> Answer:
        """prometheus-adapter: NaN is 0, otherwise milli-units cut off; no series is an error."""
        if metric.signal is Signal.CPU:
            return self.cpu()
        try:
            if metric.source == "pods":
                return {pod: cut(value) for pod, value in self.by_pod(metric.signal, metric.window_s)} or None
            value = self.value(metric.signal, metric.window_s, metric.type == "AverageValue")
        except QueryError:
            return None
        return None if value is None else cut(value)


def cut(value: float) -> int:
    return 0 if math.isnan(value) else math.trunc(value * 1000)


def rule_windows_s(policy: object) -> list[float]:
    """Windows of the recording rules that a policy reads."""
    parts: Sequence[object] = ()
    if isinstance(policy, HpaPolicy):
        parts = policy.metrics
    elif isinstance(policy, KedaPolicy):
        parts = policy.triggers
    windowed = [part for part in parts if isinstance(part, HpaMetric | PrometheusTrigger)]
    ratios = [part.window_s for part in windowed if part.signal is Signal.QUEUE_COMPUTE_RATIO]
    return sorted({float(window_s) for window_s in ratios if window_s is not None})


# --- HPA, alone, under KEDA and under Knative


@dataclass
class HpaLoop:
    """An HPA and who answers it."""

    pool: PoolState
    hpa: Hpa
    ask: Callable[[], Sequence[Answer]]
    decisions: list[Decision]

    def run(self, place: int) -> Process:
        pool, clock, settings = self.pool, self.pool.world.clock, self.pool.world.settings.hpa
        yield clock.at(pool.chances.hpa_phase_s, Order.HPA_PASS, place)
        while True:
            self._pass(clock)
            yield clock.at(clock.now + settings.sync_period_s + settings.pass_s, Order.HPA_PASS, place)

    def _pass(self, clock: Clock) -> None:
        spec = len(self.pool.wanted)
        answers: Sequence[Answer] = [None] * len(self.hpa.metrics)
        # a pass that asks for no metric counts no failure at KEDA either
        if self.hpa.minimum <= spec <= self.hpa.maximum and not self.pool.world.faults.metrics_api_fails(clock.now):
            answers = self.ask()
        pods = [pod.seen() for pod in self.pool.alive]
        decision = self.hpa.decide(clock.now, spec, spec, pods, answers)
        self.decisions.append(decision)
        self.pool.scale_to(decision.desired)


def metric_of(metric: HpaMetric) -> Metric:
    if metric.signal is Signal.CPU:
        return cpu_metric(metric.type, metric.target)
    assert metric.type != "Utilization"
    return Metric("Pods" if metric.source == "pods" else metric.type, milli(metric.target))


def cpu_metric(kind: str, target: float) -> Metric:
    return Metric("Utilization", int(target)) if kind == "Utilization" else Metric("Cores", milli(target))


def hpa_of(pool: PoolState, policy: HpaPolicy, metrics: Metrics) -> HpaLoop:
    hpa = Hpa(
        policy.replicas.min, policy.replicas.max, tuple(metric_of(m) for m in policy.metrics), policy.behavior,
        pool.world.settings.hpa,
    )  # fmt: skip
    return HpaLoop(pool, hpa, lambda: [metrics.adapter(metric) for metric in policy.metrics], [])


def knative_hpa_of(pool: PoolState, policy: KnativeHpaPolicy, metrics: Metrics) -> HpaLoop:
    """The HPA that Knative makes of its annotations."""
    behavior = None
    if policy.window_s is not None:
        rules = ScalingRules(stabilization_s=policy.window_s)
        behavior = Behavior(scale_up=rules, scale_down=rules)
    metric = _knative_metric(policy)
    hpa = Hpa(policy.replicas.min, policy.replicas.max, (metric_of(metric),), behavior, pool.world.settings.hpa)
    return HpaLoop(pool, hpa, lambda: [metrics.adapter(metric)], [])


def _knative_metric(policy: KnativeHpaPolicy) -> HpaMetric:
    given = policy.metric
    if isinstance(given, CpuMetric):
        return HpaMetric(signal=Signal.CPU, type="Utilization", source="resource", target=float(given.target))
    if isinstance(given, MemoryMetric):
        raise NotImplementedError("knative-hpa by memory")
    return HpaMetric(
        signal=given.signal, window_s=given.window_s, type="AverageValue", source="pods", target=float(given.target)
    )


def generated_hpa(pool: PoolState, policy: KedaPolicy, keda: Keda, metrics: Metrics) -> HpaLoop:
    """The HPA that KEDA makes for a ScaledObject (3.1)."""
    if policy.scaling_modifiers is not None:
        raise NotImplementedError("scaling modifiers")
    described: list[Metric] = []
    asks: list[Callable[[int], Answer]] = []
    for trigger in policy.triggers:
        if isinstance(trigger, CpuTrigger):
            described.append(cpu_metric(trigger.metric_type, trigger.threshold))
            asks.append(lambda spec: metrics.cpu())
            continue
        index = len([t for t in policy.triggers[: len(described)] if not isinstance(t, CpuTrigger)])
        threshold = trigger.threshold if isinstance(trigger, PrometheusTrigger) else float(trigger.lag_threshold)
        described.append(Metric(trigger.metric_type, milli(threshold)))
        asks.append(lambda spec, index=index: keda.metric_m(index, spec, pool.ready_count))  # type: ignore[misc]
    hpa = Hpa(max(policy.replicas.min, 1), policy.replicas.max, tuple(described), policy.behavior, _flags(pool))
    return HpaLoop(pool, hpa, lambda: [ask(len(pool.wanted)) for ask in asks], [])


def _flags(pool: PoolState) -> Any:
    return pool.world.settings.hpa


def keda_loop(pool: PoolState, keda: Keda, polls: list[Poll], place: int) -> Process:
    clock = pool.world.clock
    yield clock.at(pool.chances.keda_phase_s, Order.KEDA_POLL, place)
    while True:
        poll = keda.poll(clock.now, len(pool.wanted), pool.ready_count)
        polls.append(poll)
        pool.scale_to(poll.replicas)
        yield clock.at(clock.now + keda.policy.polling_interval_s, Order.KEDA_POLL, place)


# --- Knative


@dataclass(frozen=True)
class Tick:
    """What one tick saw and left behind."""

    time_s: float
    ready: int
    outcome: Outcome


class Knative:
    """The autoscaler of one revision: a value each second, a decision each tick."""

    def __init__(self, pool: PoolState, policy: KpaPolicy, line: ActivatorLine) -> None:
        self.pool, self.policy, self.line, self.clock = pool, policy, line, pool.world.clock
        self.settings = pool.world.settings.knative
        self.law = Kpa(policy, self.settings, len(pool.wanted), len(pool.able()), self.clock.now)
        self.line.is_proxied = self.law.proxy_since_s is not None
        self.queue_area = 0.0
        self.ahead = 0.0
        """What was reported before its second was over."""
        self.busy: dict[int, bool] = {}
        """By pod, whether it had anything in the last second."""
        burst = policy.target_burst_capacity
        self.asks_pods = (self.settings.target_burst_capacity if burst is None else burst) != -1
        self.ticks: list[Tick] = []
        pool.knock = self.knock

    def begin(self, place: int) -> None:
        self._second_at(0, place)
        self._tick_at(0, place)

    def _second_at(self, number: int, place: int) -> None:
        due_s = self.pool.chances.kpa_phase_s + number * self.settings.scrape_s
        self.clock.call(due_s, Order.KPA_SECOND, place, lambda: self._second(number, place))

    def _second(self, number: int, place: int) -> None:
        value = self._value(number)
        if value is not None:
            self.law.record(self.clock.now, value)
        self._second_at(number + 1, place)

    def _value(self, number: int) -> float | None:
        now_s = self.clock.now
        loads = {pod.number: self._load(pod) for pod in list(self.pool.alive)}
        queue_area = self.line.length.until(now_s)
        queued = (queue_area - self.queue_area) / self.settings.scrape_s
        self.queue_area = queue_area
        pods = self.pool.able()
        ahead, self.ahead = self.ahead, 0.0
        if self.line.is_proxied or (not pods and queued > 0):
            own = queued if self.policy.metric == "concurrency" else 0.0
            seen = queued > 0 or any(self.busy[pod.number] for pod in pods)
            if not seen:
                # activators that had nothing say nothing; pods that are asked say 0
                return 0.0 if pods and self.asks_pods else None
            return max(0.0, own + sum(loads[pod.number] for pod in pods) - ahead)
        if not pods or not self.asks_pods:
            return None
        asked = self._sample(pods, number)
        return sum(loads[pod.number] for pod in asked) / len(asked) * len(pods)

    def _load(self, pod: Pod) -> float:
        """Mean concurrency, or requests ended, since the last second or readiness."""
        area, ended = pod.load.until(self.clock.now), pod.jobs_ended
        last_area, last_ended = pod.last_second
        pod.last_second = (area, ended)
        self.busy[pod.number] = area > last_area or ended > last_ended
        concurrency = self.policy.metric == "concurrency"
        return (area - last_area if concurrency else ended - last_ended) / self.settings.scrape_s

    def _sample(self, pods: list[Pod], number: int) -> list[Pod]:
        wanted = samples(len(pods))
        if len(pods) <= 3:
            return pods
        old = [pod for pod in pods if self.clock.now - pod.transition_s >= self.law.window_s]
        young = [pod for pod in pods if pod not in old]
        if old:
            first = self.pool.world.chances.mixed(self.pool.chances.routing_seed + 7, number) % len(old)
            old = [*old[first:], *old[:first]]
        return [*old, *young][:wanted]

    def _tick_at(self, number: int, place: int) -> None:
        due_s = self.pool.chances.kpa_phase_s + number * self.settings.tick_s
        self.clock.call(due_s, Order.KPA_TICK, place, lambda: self._regular_tick(number, place))

    def _regular_tick(self, number: int, place: int) -> None:
        self.tick()
        self._tick_at(number + 1, place)

    def tick(self) -> None:
        ready = len(self.pool.able())
        outcome = self.law.tick(self.clock.now, ready, len(self.pool.wanted))
        self.ticks.append(Tick(self.clock.now, ready, outcome))
        self.line.is_proxied = outcome.proxy
        if outcome.replicas is not None:
            self.pool.scale_to(outcome.replicas)

    def knock(self) -> None:
        """The first job that waits is told at once; where nobody is wanted the decision comes at once too."""
        self.ahead += 1.0
        self.law.record(self.clock.now, 1.0)
        if self.law.idle:
            self.tick()


# --- by the clock


def scheduled(policy: SchedulePolicy, clock_s: float) -> int:
    """What the schedule wants at a time of its clock: the newest entry, of this period or the one before."""
    period_s = policy.repeats_every_s
    into_s = clock_s if math.isinf(period_s) else clock_s % period_s
    begun = [entry for entry in policy.times if entry.at_s <= into_s]
    return policy.bounded((begun or policy.times)[-1].replicas)


def schedule_loop(pool: PoolState, policy: SchedulePolicy, place: int) -> Process:
    """Its changes from now on; the count at time 0 was set before."""
    clock, midnight_s = pool.world.clock, -pool.world.scenario.starts_at_s
    period_s = policy.repeats_every_s
    periods = 0 if math.isinf(period_s) else math.floor(-midnight_s / period_s)
    while True:
        for entry in policy.times:
            start_s = 0.0 if math.isinf(period_s) else periods * period_s
            due_s = midnight_s + start_s + entry.at_s
            if due_s > clock.now:
                yield clock.at(due_s, Order.SCHEDULE, place)
                pool.scale_to(policy.bounded(entry.replicas))
        if math.isinf(period_s):
            return
        periods += 1
