"""A policy made ready for the twin: the law's numbers, the controllers' memory, what each query looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.service import Pool
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.calculator import Containers, Pods
from tiphys.policies.hpa.calculator import Samples as PodSamples
from tiphys.policies.hpa.reconcile import Observations, Rules, new_proposals, new_state
from tiphys.policies.hpa.rules import controller, hpa_rules, rules_of
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.rules import generated_hpa
from tiphys.policies.keda.spec import CpuTrigger, KedaPolicy, NatsJetStreamTrigger, Trigger
from tiphys.policies.kpa import rules as knative
from tiphys.policies.kpa.loop import new_kpa_state
from tiphys.policies.kpa.rules import kpa_rules
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy, MemoryMetric
from tiphys.policies.schedule.rules import no_schedule, schedule_rules
from tiphys.policies.schedule.spec import SchedulePolicy
from tiphys.twin.control import Control
from tiphys.twin.decisions import Log, new_log
from tiphys.twin.knative import KpaControl
from tiphys.twin.loop import (
    CPU_LOOK,
    HPA,
    KEDA,
    KPA_DECISION,
    KPA_SECOND,
    LOOPS,
    ROUTER_SCRAPE,
    RULE,
    SCHEDULE,
    Timetable,
)
from tiphys.twin.metrics import LAG, LEVEL, MEAN, QUANTILE, RATE, RATIO, RESOURCE, ROUTER, Sight
from tiphys.twin.operator import KedaLoop, keda_loop, no_keda, ordered_triggers
from tiphys.twin.randomness import (
    cpu_phase_s,
    hpa_phase_s,
    keda_phase_s,
    kpa_phase_s,
    router_phase_s,
    rule_phase_s,
)
from tiphys.twin.state import (
    BUCKETS,
    CONCURRENCY,
    E2E_SUM,
    FINISHED,
    GPU_MEMORY,
    GPU_UTILIZATION,
    ITL_SUM,
    KV_USAGE,
    RUNNING,
    TTFT_SUM,
    WAITING,
)

_LEVELS = {
    Signal.RUNNING: RUNNING,
    Signal.WAITING: WAITING,
    Signal.PENDING: WAITING,
    Signal.KV_USAGE: KV_USAGE,
    Signal.CONCURRENCY: CONCURRENCY,
    Signal.GPU_UTILIZATION: GPU_UTILIZATION,
    Signal.GPU_MEMORY: GPU_MEMORY,
    Signal.RPS: FINISHED,
}
_SUMS = {"ttft": TTFT_SUM, "itl": ITL_SUM, "e2e": E2E_SUM}
_KINDS = {"quantile": QUANTILE, "mean": MEAN, "level": LEVEL, "ratio": RATIO, "rate": RATE, "lag": LAG}
_POKES = 1000
"""Decisions of a KPA between two ticks that there is room for at first."""


class Query(NamedTuple):
    """A signal as a scaler asks for it."""

    signal: Signal
    mean: bool
    window_s: float


class Histograms(NamedTuple):
    """Buckets that pods keep of each latency, +Inf included; 0 where nobody asks."""

    ttft: int
    itl: int
    e2e: int

    def first(self, latency: str) -> int:
        """Where the buckets of a latency begin."""
        return {"ttft": 0, "itl": self.ttft, "e2e": self.ttft + self.itl}[latency]


@dataclass(frozen=True)
class Clock:
    """What the controllers of one pool need to know of the play."""

    seed: int
    pool: int
    latest_s: float
    starts_at_s: float
    start_replicas: int
    start_ready: int
    """those of them that find a place at once"""
    places: int
    rows_factor: int


@dataclass(frozen=True)
class Government:
    """One pool's controllers for one play, and how much of the past they look at."""

    control: Control
    autoscaler: KpaControl
    timetable: Timetable
    first_s: tuple[float, ...]
    """by loop"""
    period_s: tuple[float, ...]
    queries: int
    longest_window_s: float
    wanted_replicas: int
    log_of: str
    """which of the three writes the decisions down"""


def queries_of(policy: ScalingPolicy) -> tuple[Query, ...]:
    """What a policy asks, in the order of its metrics or triggers."""
    if isinstance(policy, HpaPolicy):
        return tuple(Query(m.signal, m.type == "Value", float(m.window_s or 0)) for m in policy.metrics)
    if isinstance(policy, KedaPolicy):
        return tuple(_trigger_query(trigger) for trigger in ordered_triggers(policy))
    if isinstance(policy, KnativeHpaPolicy):
        signal = policy.signals[0] if policy.signals else Signal.CPU
        return (Query(signal, False, 0.0),)
    return ()


def _trigger_query(trigger: Trigger) -> Query:
    if isinstance(trigger, NatsJetStreamTrigger):
        return Query(Signal.STREAM_LAG, trigger.metric_type == "Value", 0.0)
    if isinstance(trigger, CpuTrigger):
        return Query(Signal.CPU, False, 0.0)
    return Query(trigger.signal, trigger.metric_type == "Value", float(trigger.window_s or 0))


def government(
    policy: ScalingPolicy,
    pool: Pool,
    settings: ClusterSettings,
    clock: Clock,
    histograms: Histograms,
    own: Histograms,
) -> Government:
    """The controllers that a policy sets up for a pool, whose own histograms have so many buckets.

    Raises InputError for a policy that the twin cannot obey, naming what it cannot.
    """
    queries = queries_of(policy)
    rules, keda = _laws(policy, settings)
    first_s, period_s = _ticks(policy, queries, pool, settings, clock)
    rows = _rows(first_s, period_s, clock)
    is_kpa, is_schedule = isinstance(policy, KpaPolicy), isinstance(policy, SchedulePolicy)
    sight = _sight(queries, histograms, own)
    control = _control(rules, keda, sight, pool, settings, clock, 0 if is_kpa or is_schedule else rows)
    timetable = _timetable(policy, clock, new_log(_changes(policy, clock), 1))
    return Government(
        control,
        _autoscaler(policy, settings, clock, rows, first_s[KPA_SECOND]),
        timetable,
        first_s,
        period_s,
        max(len(queries), 1),
        max((query.window_s for query in queries), default=0.0),
        _wanted(policy, timetable, clock),
        "autoscaler" if is_kpa else "timetable" if is_schedule else "control",
    )


def _laws(policy: ScalingPolicy, settings: ClusterSettings) -> tuple[Rules, KedaLoop]:
    if isinstance(policy, HpaPolicy):
        return hpa_rules(policy, settings), no_keda()
    if isinstance(policy, KedaPolicy):
        return generated_hpa(policy, settings), keda_loop(policy)
    if isinstance(policy, KnativeHpaPolicy):
        if isinstance(policy.metric, MemoryMetric):
            raise InputError(
                "the twin does not know how much memory a replica's process uses",
                key="metric.source", found=policy.metric.source, allowed="cpu, or a signal of the pods",
            )  # fmt: skip
        return knative.generated_hpa(policy, settings), no_keda()
    if isinstance(policy, FixedPolicy | KpaPolicy | SchedulePolicy):
        return rules_of(0, 1, None, [], settings), no_keda()
    raise InputError(
        "the twin does not know this control law",
        key="kind",
        found=policy.kind,
        allowed="fixed, hpa, keda, kpa, knative-hpa, schedule",
    )


def _ticks(
    policy: ScalingPolicy, queries: Sequence[Query], pool: Pool, settings: ClusterSettings, clock: Clock
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(first time, period) of each loop; inf where there is none."""
    first, period = [math.inf] * LOOPS, [1.0] * LOOPS
    seed, number, scrape = clock.seed, clock.pool, settings.scrape

    def begin(loop: int, first_s: float, period_s: float) -> None:
        first[loop], period[loop] = first_s, period_s

    signals = {query.signal for query in queries}
    if isinstance(policy, HpaPolicy | KedaPolicy | KnativeHpaPolicy):
        hpa_s = settings.hpa.sync_period_s + settings.hpa.pass_s
        begin(HPA, hpa_phase_s(hpa_s, settings.hpa.phase_s, seed, number), hpa_s)
    if isinstance(policy, KedaPolicy):
        poll_s = float(policy.polling_interval_s)
        begin(KEDA, keda_phase_s(poll_s, settings.keda.phase_s, seed, number), poll_s)
    if isinstance(policy, KpaPolicy):
        tick_s = settings.knative.tick_s
        phase_s = kpa_phase_s(tick_s, settings.knative.phase_s, seed, number)
        begin(KPA_DECISION, phase_s, tick_s)
        begin(KPA_SECOND, phase_s, settings.knative.scrape_s)
    if isinstance(policy, SchedulePolicy):
        first[SCHEDULE] = _first_change_s(policy, clock)
    if Signal.QUEUED in signals:
        begin(ROUTER_SCRAPE, router_phase_s(scrape.interval_s, scrape.phase_s, seed, number), scrape.interval_s)
    if Signal.QUEUE_COMPUTE_RATIO in signals:
        begin(RULE, rule_phase_s(scrape.rule_interval_s, seed, number), scrape.rule_interval_s)
    if Signal.CPU in signals:
        begin(CPU_LOOK, cpu_phase_s(scrape.cpu_resolution_s, seed, number), scrape.cpu_resolution_s)
    return tuple(first), tuple(period)


def _first_change_s(policy: SchedulePolicy, clock: Clock) -> float:
    from tiphys.policies.schedule.rules import next_change_s

    return next_change_s(schedule_rules(policy), clock.starts_at_s) - clock.starts_at_s


def _rows(first_s: Sequence[float], period_s: Sequence[float], clock: Clock) -> int:
    acting = [loop for loop in (KPA_DECISION, KEDA, HPA) if math.isfinite(first_s[loop])]
    passes = sum(max(0, int((clock.latest_s - first_s[loop]) / period_s[loop])) + 2 for loop in acting)
    extra = _POKES if math.isfinite(first_s[KPA_DECISION]) else 0
    return passes + extra * clock.rows_factor


def _changes(policy: ScalingPolicy, clock: Clock) -> int:
    if not isinstance(policy, SchedulePolicy):
        return 0
    periods = 1 if math.isinf(policy.repeats_every_s) else int(clock.latest_s / policy.repeats_every_s) + 2
    return len(policy.times) * periods + 2


def _wanted(policy: ScalingPolicy, timetable: Timetable, clock: Clock) -> int:
    if isinstance(policy, FixedPolicy):
        return policy.replicas
    if isinstance(policy, SchedulePolicy):
        from tiphys.policies.schedule.rules import replicas_at

        return replicas_at(timetable.rules, clock.starts_at_s)
    return clock.start_replicas


def _timetable(policy: ScalingPolicy, clock: Clock, log: Log) -> Timetable:
    is_schedule = isinstance(policy, SchedulePolicy)
    rules = schedule_rules(policy) if isinstance(policy, SchedulePolicy) else no_schedule()
    next_s = _first_change_s(policy, clock) + clock.starts_at_s if isinstance(policy, SchedulePolicy) else math.inf
    return Timetable(rules, clock.starts_at_s, np.array([next_s if is_schedule else math.inf]), log)


def _autoscaler(
    policy: ScalingPolicy, settings: ClusterSettings, clock: Clock, rows: int, first_s: float
) -> KpaControl:
    if not isinstance(policy, KpaPolicy):
        return _no_autoscaler()
    rules = kpa_rules(policy, settings)
    state = new_kpa_state(rules, clock.start_replicas, clock.start_ready, 0.0)
    return KpaControl(True, rules, state, new_log(rows, 1), np.array([0.0, first_s - settings.knative.scrape_s, 0.0]))


@cache
def _no_autoscaler() -> KpaControl:
    from tiphys.domain.values import parse

    settings = ClusterSettings()
    rules = kpa_rules(parse(KpaPolicy, {"kind": "kpa", "replicas": {"min": 1, "max": 1}}), settings)
    return KpaControl(False, rules, new_kpa_state(rules, 1, 1, 0.0), new_log(0, 1), np.zeros(3))


def _control(
    rules: Rules,
    keda: KedaLoop,
    sight: Sight,
    pool: Pool,
    settings: ClusterSettings,
    clock: Clock,
    rows: int,
) -> Control:
    metrics = len(rules.metrics.source)
    return Control(
        controller(settings),
        rules,
        sight,
        _pods(clock.places),
        _containers(clock.places),
        _observations(metrics, clock.places),
        new_state(_history(rules, settings), _events(rules, settings)),
        new_proposals(metrics),
        keda,
        new_log(rows, max(len(sight.kind), metrics, 1)),
        np.array([pool.cpu.request * 1000.0, -1.0, settings.scrape.cpu_resolution_s]),
    )


def _sight(queries: Sequence[Query], histograms: Histograms, own: Histograms) -> Sight:
    def buckets(query: Query) -> int:
        latency = query.signal.latency
        return 0 if latency is None else int(getattr(own, latency))

    def first(query: Query) -> int:
        return 0 if query.signal.latency is None else histograms.first(query.signal.latency)

    def column(query: Query) -> int:
        return BUCKETS + first(query) if query.signal.latency is not None else _LEVELS.get(query.signal, RUNNING)

    def kind(query: Query) -> int:
        if query.signal == Signal.QUEUED:
            return ROUTER
        return _KINDS.get(query.signal.reading, RESOURCE)

    def longs(values: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array(values, np.int64)

    most = max(histograms.ttft, histograms.itl, histograms.e2e, 1)
    return Sight(
        longs([kind(q) for q in queries]),
        longs([column(q) for q in queries]),
        longs([_SUMS.get(q.signal.latency or "", 0) for q in queries]),
        longs([buckets(q) for q in queries]),
        longs([first(q) for q in queries]),
        np.array([math.nan if q.signal.quantile is None else q.signal.quantile for q in queries]),
        longs([int(q.mean) for q in queries]),
        np.array([q.window_s for q in queries]),
        np.zeros(most),
        np.zeros(most),
    )


def _history(rules: Rules, settings: ClusterSettings) -> int:
    longest_s = max(rules.up.stabilization_s, rules.down.stabilization_s, settings.hpa.downscale_stabilization_s)
    return int(longest_s / settings.hpa.sync_period_s) + 3


def _events(rules: Rules, settings: ClusterSettings) -> int:
    longest_s = max((*rules.up.policy_period_s, *rules.down.policy_period_s), default=0.0)
    return int(longest_s / settings.hpa.sync_period_s) + 3


def _pods(places: int) -> Pods:
    return Pods(
        0,
        np.zeros(places, np.int8),
        np.zeros(places, np.int8),
        np.zeros(places),
        np.zeros(places),
        np.zeros(places, np.bool_),
    )


def _containers(places: int) -> Containers:
    return Containers(
        np.zeros(places, np.int64),
        np.zeros(places, np.int64),
        np.zeros(places, np.int8),
        np.zeros(places, np.int64),
        np.zeros(places, np.int64),
    )


def _observations(metrics: int, places: int) -> Observations:
    samples = metrics * places
    return Observations(
        np.zeros(metrics, np.bool_),
        np.zeros(metrics, np.int64),
        np.zeros(metrics + 1, np.int64),
        PodSamples(
            np.zeros(samples, np.int64),
            np.zeros(samples),
            np.full(samples, 60.0),
            np.arange(samples + 1),
            np.full(samples, -1),
            np.zeros(samples, np.int64),
        ),
    )
