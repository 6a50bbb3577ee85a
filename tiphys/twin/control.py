"""The controllers' side of the loop: what a pass sees, the law's answer, and what is done about it.

The arithmetic is that of `tiphys.policies`; here it is only fed and obeyed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiphys.compiled import inner_jit, lean_jit
from tiphys.policies.hpa.calculator import ABSENT, MOST_MILLI, PENDING, RUNNING, Containers, Pods
from tiphys.policies.hpa.reconcile import (
    CONTAINER_RESOURCE,
    PODS,
    RESOURCE,
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
from tiphys.twin.arena import Arena, compiled_unpacker
from tiphys.twin.decisions import Log, is_full, log_answer, log_pass, log_poll
from tiphys.twin.exporter import busy_until
from tiphys.twin.fleet import scale_to
from tiphys.twin.metrics import Answer, Sight, of_pod, query
from tiphys.twin.operator import CPU, NATS, NOT_POLLED, KedaLoop
from tiphys.twin.state import (
    FULL,
    FULL_OF_DECISIONS,
    METRICS_ERRORS,
    PROMETHEUS_DOWN,
    Floats,
    Setting,
    World,
)


class Control(NamedTuple):
    """One pool's HPA, and the KEDA operator where it is KEDA's."""

    controller: Controller
    rules: Rules
    sight: Sight
    pods: Pods
    containers: Containers
    observed: Observations
    state: State
    proposals: Proposals
    keda: KedaLoop
    log: Log
    cpu: Floats
    """[request of a pod in milli-cores, when metrics-server looked last, the seconds that it averaged over]"""


control_at = compiled_unpacker(Control)
CPU_REQUEST_M, CPU_LOOKED_S, CPU_WINDOW_S = range(3)


@inner_jit
def hpa_pass(world: World, setting: Setting, arena: Arena, pool: int, now_s: float) -> None:
    """One pass of the HPA controller: query, decide, write the scale."""
    control = control_at(arena, pool)
    if is_full(control.log):
        world.counters[FULL] = FULL_OF_DECISIONS
        return
    seen = control.pods
    count, ready = see_pods(world, pool, seen, now_s)
    pods = Pods(count, seen.phase, seen.ready, seen.start_s, seen.ready_transition_s, seen.deleting)
    spec = world.pools[pool].wanted
    if control.keda.present:
        # outside its bounds the controller asks for no metric, and so KEDA counts no failure
        if control.rules.min_replicas <= spec <= control.rules.max_replicas:
            observe_keda(world, setting, control, pool, spec, ready, now_s)
    else:
        for metric in range(control.rules.metrics.source.shape[0]):
            observe(world, setting, control, pool, metric, now_s)
    wanted = control.containers
    containers = Containers(
        wanted.pod[:count], wanted.name[:count], wanted.kind[:count], wanted.request_m[:count],
        wanted.pod_request_m[:count],
    )  # fmt: skip
    # a ReplicaSet's status follows its spec within a second, pods that load a model included
    outcome = reconcile(
        control.controller,
        control.rules,
        Scale(spec, spec, True, 0, True),
        pods,
        containers,
        control.observed,
        control.state,
        control.proposals,
        now_s,
    )
    log_pass(control.log, now_s, spec, spec, ready, outcome, control.proposals)
    if outcome.rescaled:
        scale_to(world, setting, pool, outcome.desired_replicas, now_s)


@lean_jit
def see_pods(world: World, pool: int, pods: Pods, now_s: float) -> tuple[int, int]:
    """Fill in the pods that the selector matches: (how many, how many of them Running and Ready)."""
    count, ready = 0, 0
    for i in range(world.pools[pool].live):
        record = world.pods[world.live[pool, i]]
        if record.alive == 0:
            continue
        is_pending = record.is_ready == 0 and now_s < record.running_s
        pods.phase[count] = PENDING if is_pending else RUNNING
        pods.ready[count] = record.is_ready
        pods.start_s[count] = record.scheduled_s if record.is_placed == 1 else np.nan
        pods.ready_transition_s[count] = record.transition_s
        pods.deleting[count] = record.is_removed == 1
        count += 1
        ready += record.is_ready
    return count, ready


@lean_jit
def observe(world: World, setting: Setting, control: Control, pool: int, metric: int, now_s: float) -> None:
    """Query one metric and hand the answer on as the metrics API does."""
    observed = control.observed
    observed.first_sample[metric + 1] = observed.first_sample[metric]
    if world.counters[METRICS_ERRORS] > 0:
        observed.valid[metric] = False
        log_answer(control.log, metric, Answer(False, 0.0, np.inf, True), 0)
        return
    source = control.rules.metrics.source[metric]
    if source == PODS:
        observe_pods(world, setting, control, pool, metric, now_s)
        return
    if source in (RESOURCE, CONTAINER_RESOURCE):
        observe_cpu(world, control, pool, metric, now_s)
        return
    answer = query(world, setting, control.sight, pool, metric, now_s)
    log_answer(control.log, metric, answer, 0)
    observed.valid[metric] = answer.found
    observed.value_m[metric] = adapter_milli(answer.value)


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
def observe_pods(world: World, setting: Setting, control: Control, pool: int, metric: int, now_s: float) -> None:
    """One value a pod; a pod without a sample is absent from the answer. The samples of metric i follow those of
    metric i - 1.
    """
    found = control.observed.samples
    first = control.observed.first_sample[metric]
    count, listed, total, age_s = 0, 0, 0.0, np.inf
    for i in range(world.pools[pool].live):
        pod = world.live[pool, i]
        value = of_pod(world, setting, control.sight, pool, pod, metric, now_s)
        if value.found and world.counters[PROMETHEUS_DOWN] == 0:
            sample = first + count
            found.pod[sample] = listed if world.pods[pod].alive == 1 else -1
            found.time_s[sample] = value.time_ms / 1000.0
            found.row_value_m[sample] = adapter_milli(value.value)
            age_s = min(age_s, now_s - value.time_ms / 1000.0)
            total += value.value
            count += 1
        if world.pods[pod].alive == 1:
            listed += 1
    control.observed.first_sample[metric + 1] = first + count
    control.observed.valid[metric] = count > 0
    log_answer(control.log, metric, Answer(count > 0, total / max(count, 1), age_s, False), 0)


@lean_jit
def observe_cpu(world: World, control: Control, pool: int, metric: int, now_s: float) -> None:
    """CPU of each pod as metrics-server last saw it, and what the pods request."""
    found, wanted, observed = control.observed.samples, control.containers, control.observed
    first = observed.first_sample[metric]
    count, listed, total = 0, 0, 0.0
    for i in range(world.pools[pool].live):
        record = world.pods[world.live[pool, i]]
        if record.alive == 0:
            continue
        wanted.pod[listed] = listed
        wanted.name[listed] = 0
        wanted.kind[listed] = 0
        wanted.request_m[listed] = int(control.cpu[CPU_REQUEST_M])
        wanted.pod_request_m[listed] = ABSENT
        if not np.isnan(record.cpu_cores):
            sample = first + count
            found.pod[sample] = listed
            found.time_s[sample] = control.cpu[CPU_LOOKED_S]
            found.window_s[sample] = control.cpu[CPU_WINDOW_S]
            found.row_container[sample] = 0
            found.row_value_m[sample] = int(np.ceil(record.cpu_cores * 1000.0))
            total += record.cpu_cores
            count += 1
        listed += 1
    observed.first_sample[metric + 1] = first + count
    observed.valid[metric] = count > 0
    age_s = now_s - control.cpu[CPU_LOOKED_S]
    log_answer(control.log, metric, Answer(count > 0, total / max(count, 1), age_s, False), 0)


@inner_jit
def look_at_cpu(world: World, setting: Setting, arena: Arena, pool: int, now_s: float) -> None:
    """metrics-server scrapes the kubelets: CPU of each pod since its last look; none yet for a pod it sees first."""
    control = control_at(arena, pool)
    of = world.pools[pool]
    last_s = control.cpu[CPU_LOOKED_S]
    control.cpu[CPU_WINDOW_S] = now_s - last_s
    control.cpu[CPU_LOOKED_S] = now_s
    for i in range(of.live):
        pod = world.live[pool, i]
        record = world.pods[pod]
        record.cpu_cores = np.nan
        if record.alive == 0 or record.running_s > now_s:
            continue
        busy_s = busy_until(world, pod, now_s)
        if record.cpu_last_s == last_s:
            record.cpu_cores = of.idle_cores + of.busy_cores * (busy_s - record.cpu_busy_s) / (now_s - last_s)
        record.cpu_last_s = now_s
        record.cpu_busy_s = busy_s


# --- KEDA


@inner_jit
def keda_poll(world: World, setting: Setting, arena: Arena, pool: int, now_s: float) -> None:
    """One poll of the KEDA operator: which triggers are active, and what becomes of the replicas at the 0/1 edge."""
    control = control_at(arena, pool)
    if is_full(control.log):
        world.counters[FULL] = FULL_OF_DECISIONS
        return
    keda, triggers = control.keda, control.keda.triggers
    _, ready = see_pods(world, pool, control.pods, now_s)
    spec = world.pools[pool].wanted
    for trigger in range(triggers.cached.shape[0]):
        if triggers.source[trigger] == CPU:
            continue
        ask(world, setting, control, pool, trigger, spec, ready, now_s)
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
    if decision.scaled:
        scale_to(world, setting, pool, decision.replicas, now_s)


@inner_jit
def ask(
    world: World, setting: Setting, control: Control, pool: int, trigger: int, spec: int, ready: int, now_s: float
) -> None:
    """One metric request to a trigger: query it, count its failures, fall back."""
    triggers, shared = control.keda.triggers, control.keda.fallback
    answer = query(world, setting, control.sight, pool, trigger, now_s)
    ignores = triggers.ignore_null[trigger] and not answer.error and triggers.source[trigger] != NATS
    reading = prometheus_reading(answer.value if answer.found else np.nan, ignores, triggers.activation[trigger])
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
    world: World, setting: Setting, control: Control, pool: int, spec: int, ready: int, now_s: float
) -> None:
    """What KEDA's metrics server tells the generated HPA: live, or of the last poll where a trigger says so."""
    keda, triggers, observed = control.keda, control.keda.triggers, control.observed
    if world.counters[METRICS_ERRORS] > 0:
        observed.valid[:] = False
        return
    for trigger in range(triggers.cached.shape[0]):
        metric = triggers.metric[trigger]
        if triggers.source[trigger] == CPU:
            observe_cpu(world, control, pool, metric, now_s)
            continue
        if triggers.cached[trigger] and triggers.polled_m[trigger] != NOT_POLLED:
            triggers.metric_m[trigger] = triggers.polled_m[trigger]
            triggers.is_error[trigger] = triggers.polled_error[trigger]
        else:
            ask(world, setting, control, pool, trigger, spec, ready, now_s)
        if metric >= 0:
            observed.first_sample[metric + 1] = observed.first_sample[metric]
            observed.valid[metric] = not triggers.is_error[trigger]
            observed.value_m[metric] = triggers.metric_m[trigger]
    if keda.has_formula:
        made = composite(keda)
        observed.valid[0] = not made.error
        observed.value_m[0] = made.metric_m
