"""The controllers' side of the loop: what a pass sees, the law's answer, and what is done about it.

The arithmetic is that of `tiphys.policies`; here it is only fed and obeyed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import inner_jit, lean_jit
from tiphys.policies.hpa.calculator import MOST_MILLI, PENDING, RUNNING, Containers, Pods
from tiphys.policies.hpa.reconcile import (
    PODS,
    Controller,
    Observations,
    Proposals,
    Rules,
    Scale,
    State,
    reconcile,
)
from tiphys.policies.keda.fallback import FallbackRules, fallback_step, is_nil
from tiphys.policies.keda.formula import Composite, composite_metric
from tiphys.policies.keda.poll import NO_ANNOTATIONS, activity, activity_of_formula, request_scale
from tiphys.policies.keda.triggers import prometheus_reading, units_of
from tiphys.twin.decisions import Log, log_answer, log_pass, log_poll
from tiphys.twin.fleet import PodRules, scale_to
from tiphys.twin.metrics import Answer, level, newest, ttft_quantile
from tiphys.twin.operator import NOT_POLLED, KedaLoop
from tiphys.twin.state import LIVE, NONE, WANTED, Fleet, Floats, Longs, Requests, Samples

OK, OUT_OF_PODS, OUT_OF_DECISIONS = range(3)
HPA, KEDA = 0, 1


class Sight(NamedTuple):
    """What each metric looks at; one entry a metric."""

    quantile: Floats
    """NaN for a level"""
    level: Longs
    """place in `Samples.levels`"""
    mean: NDArray[np.bool_]
    """avg over pods rather than sum"""
    window_s: Floats
    lookback_s: float
    scratch: Floats
    """one place a TTFT bucket"""


class Control(NamedTuple):
    """One pool's controllers."""

    next_s: Floats
    """[HPA, KEDA] time of the next pass; inf where there is none"""
    period_s: Floats
    """[HPA, KEDA]"""
    controller: Controller
    rules: Rules
    sight: Sight
    pods: Pods
    containers: Containers
    observed: Observations
    state: State
    proposals: Proposals
    log: Log
    keda: KedaLoop


@inner_jit
def hpa_pass(
    fleet: Fleet,
    requests: Requests,
    samples: Samples,
    rules: PodRules,
    control: Control,
    bounds_s: Floats,
    now_s: float,
) -> int:
    """One pass of the HPA controller: query, decide, write the scale."""
    control.next_s[HPA] = now_s + control.period_s[HPA]
    if control.log.written[0] == control.log.rows.shape[0]:
        return OUT_OF_DECISIONS
    seen = control.pods
    count, ready = see_pods(fleet, rules, seen, now_s)
    pods = Pods(count, seen.phase, seen.ready, seen.start_s, seen.ready_transition_s, seen.deleting)
    spec = fleet.counters[WANTED]
    if control.keda.present:
        # outside its bounds the controller asks for no metric, and so KEDA counts no failure
        if control.rules.min_replicas <= spec <= control.rules.max_replicas:
            observe_keda(fleet, samples, control, bounds_s, spec, ready, now_s)
    else:
        for metric in range(control.rules.metrics.source.shape[0]):
            observe(fleet, samples, control, bounds_s, metric, now_s)
    # a ReplicaSet's status follows its spec within a second, pods that load a model included
    outcome = reconcile(
        control.controller,
        control.rules,
        Scale(spec, spec, True, 0, True),
        pods,
        control.containers,
        control.observed,
        control.state,
        control.proposals,
        now_s,
    )
    log_pass(control.log, now_s, spec, spec, ready, outcome, control.proposals)
    if outcome.rescaled and not scale_to(fleet, requests, rules, outcome.desired_replicas, now_s):
        return OUT_OF_PODS
    return OK


@lean_jit
def see_pods(fleet: Fleet, rules: PodRules, pods: Pods, now_s: float) -> tuple[int, int]:
    """Fill in the pods that the selector matches: (how many, how many of them Running and Ready)."""
    count, ready = 0, 0
    for i in range(fleet.counters[LIVE]):
        pod = fleet.live[i]
        record = fleet.pods[pod]
        if record.alive == 0:
            continue
        is_pending = record.is_ready == 0 and now_s < record.created_s + rules.pending_s
        pods.phase[count] = PENDING if is_pending else RUNNING
        pods.ready[count] = record.is_ready
        pods.start_s[count] = record.created_s
        pods.ready_transition_s[count] = record.ready_s if record.is_ready == 1 else record.created_s
        pods.deleting[count] = record.is_removed == 1
        count += 1
        ready += record.is_ready
    return count, ready


@lean_jit
def observe(fleet: Fleet, samples: Samples, control: Control, bounds_s: Floats, metric: int, now_s: float) -> None:
    """Query one metric and hand the answer on as the metrics API does."""
    if control.rules.metrics.source[metric] == PODS:
        observe_pods(fleet, samples, control, metric, now_s)
        return
    answer = query(fleet, samples, control.sight, bounds_s, metric, now_s)
    log_answer(control.log, metric, answer, 0)
    control.observed.valid[metric] = answer.found
    control.observed.value_m[metric] = adapter_milli(answer.value)


@lean_jit
def query(fleet: Fleet, samples: Samples, sight: Sight, bounds_s: Floats, metric: int, now_s: float) -> Answer:
    """The metric's PromQL expression, now."""
    lives = fleet.counters[LIVE]
    if np.isnan(sight.quantile[metric]):
        return level(
            fleet, samples, fleet.live, lives, sight.level[metric], sight.mean[metric], now_s, sight.lookback_s
        )
    return ttft_quantile(
        fleet,
        samples,
        bounds_s,
        fleet.live,
        lives,
        sight.quantile[metric],
        now_s,
        sight.window_s[metric],
        sight.scratch,
    )


@lean_jit
def adapter_milli(value: float) -> int:
    """What prometheus-adapter makes of a value: NaN is 0, else milli-units, truncated."""
    if np.isnan(value):
        return 0
    milli = value * 1000.0
    if milli >= 9.2e18:
        return MOST_MILLI
    return int(milli)


@lean_jit
def observe_pods(fleet: Fleet, samples: Samples, control: Control, metric: int, now_s: float) -> None:
    """One value a pod; a pod without a sample is absent from the answer. The samples of metric i follow those of
    metric i - 1.
    """
    found = control.observed.samples
    first = control.observed.first_sample[metric]
    count, listed, total, age_s = 0, 0, 0.0, np.inf
    for i in range(fleet.counters[LIVE]):
        pod = fleet.live[i]
        place = newest(fleet, samples, pod, now_s, control.sight.lookback_s)
        if place != NONE:
            value = samples.levels[pod, place, control.sight.level[metric]]
            sample = first + count
            found.pod[sample] = listed if fleet.pods[pod].alive == 1 else -1
            found.time_s[sample] = samples.time_s[pod, place]
            found.row_value_m[sample] = adapter_milli(value)
            age_s = min(age_s, now_s - samples.time_s[pod, place])
            total += value
            count += 1
        if fleet.pods[pod].alive == 1:
            listed += 1
    control.observed.first_sample[metric + 1] = first + count
    control.observed.valid[metric] = count > 0
    log_answer(control.log, metric, Answer(count > 0, total / max(count, 1), age_s), 0)


@inner_jit
def keda_poll(
    fleet: Fleet,
    requests: Requests,
    samples: Samples,
    rules: PodRules,
    control: Control,
    bounds_s: Floats,
    now_s: float,
) -> int:
    """One poll of the KEDA operator: which triggers are active, and what becomes of the replicas at the 0/1 edge."""
    control.next_s[KEDA] = now_s + control.period_s[KEDA]
    if control.log.written[0] == control.log.rows.shape[0]:
        return OUT_OF_DECISIONS
    keda, triggers = control.keda, control.keda.triggers
    _, ready = see_pods(fleet, rules, control.pods, now_s)
    spec = fleet.counters[WANTED]
    for trigger in range(triggers.cached.shape[0]):
        ask(fleet, samples, control, bounds_s, trigger, spec, ready, now_s)
        triggers.polled_m[trigger] = triggers.metric_m[trigger]
        triggers.polled_error[trigger] = triggers.is_error[trigger]
    if keda.has_formula:
        made = composite(keda)
        value = np.nan if made.error else units_of(made.metric_m)
        state = activity_of_formula(triggers.is_resource, triggers.is_error, value, keda.activation_target)
    else:
        state = activity(triggers.is_resource, triggers.is_active, triggers.is_error, triggers.in_fallback)
    decision = request_scale(
        keda.poll, NO_ANNOTATIONS, spec, state.active, state.error, now_s - keda.last_active_s[0], now_s
    )
    if decision.last_active_refreshed:
        keda.last_active_s[0] = now_s
    log_poll(control.log, now_s, spec, ready, state.active, state.error, decision.replicas, decision.reason)
    if decision.scaled and not scale_to(fleet, requests, rules, decision.replicas, now_s):
        return OUT_OF_PODS
    return OK


@inner_jit
def ask(
    fleet: Fleet,
    samples: Samples,
    control: Control,
    bounds_s: Floats,
    trigger: int,
    spec: int,
    ready: int,
    now_s: float,
) -> None:
    """One metric request to a trigger: query it, count its failures, fall back."""
    triggers, shared = control.keda.triggers, control.keda.fallback
    answer = query(fleet, samples, control.sight, bounds_s, trigger, now_s)
    reading = prometheus_reading(
        answer.value if answer.found else np.nan, triggers.ignore_null[trigger], triggers.activation[trigger]
    )
    own = FallbackRules(
        triggers.usable[trigger],
        shared.failure_threshold,
        shared.replicas,
        shared.behavior,
        triggers.target[trigger],
        triggers.is_value[trigger],
    )
    step = fallback_step(
        own, reading.error, reading.metric_m, triggers.failures[trigger], triggers.health[trigger], spec, ready
    )
    triggers.failures[trigger] = step.failures
    triggers.health[trigger] = step.health
    triggers.metric_m[trigger] = step.metric_m
    triggers.is_active[trigger] = reading.active
    triggers.is_error[trigger] = step.error
    triggers.in_fallback[trigger] = step.in_fallback
    triggers.is_nil[trigger] = is_nil(own, step.failures)
    log_answer(control.log, trigger, answer, step.failures)


@inner_jit
def composite(keda: KedaLoop) -> Composite:
    """The composite metric from what the triggers said last."""
    triggers = keda.triggers
    return composite_metric(
        keda.formula,
        keda.formula_target,
        keda.formula_fallback_replicas,
        triggers.metric_m,
        triggers.is_error,
        triggers.in_fallback,
        triggers.is_nil,
    )


@inner_jit
def observe_keda(
    fleet: Fleet, samples: Samples, control: Control, bounds_s: Floats, spec: int, ready: int, now_s: float
) -> None:
    """What KEDA's metrics server tells the generated HPA: live, or of the last poll where a trigger says so."""
    keda, triggers = control.keda, control.keda.triggers
    for trigger in range(triggers.cached.shape[0]):
        if triggers.cached[trigger] and triggers.polled_m[trigger] != NOT_POLLED:
            triggers.metric_m[trigger] = triggers.polled_m[trigger]
            triggers.is_error[trigger] = triggers.polled_error[trigger]
        else:
            ask(fleet, samples, control, bounds_s, trigger, spec, ready, now_s)
    if keda.has_formula:
        made = composite(keda)
        control.observed.valid[0] = not made.error
        control.observed.value_m[0] = made.metric_m
        return
    for trigger in range(triggers.cached.shape[0]):
        control.observed.valid[trigger] = not triggers.is_error[trigger]
        control.observed.value_m[trigger] = triggers.metric_m[trigger]
