"""One pass of the HPA controller: scale and metrics in, a replica count and its reasons out.

`reconcile` is what the twin calls each sync period. The state (history, changes, marker) is changed in place,
everything else is read only; per metric proposals are written into arrays of the caller, and the outcome holds every
intermediate number, so that a decision can be told as arithmetic.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.policies.hpa.behavior import (
    AMBIGUOUS_SELECTOR,
    FAILED_GET_CONTAINER_RESOURCE_METRIC,
    FAILED_GET_EXTERNAL_METRIC,
    FAILED_GET_OBJECT_METRIC,
    FAILED_GET_PODS_METRIC,
    FAILED_GET_RESOURCE_METRIC,
    FAILED_GET_SCALE,
    FAILED_UPDATE_SCALE,
    INVALID_METRIC_SOURCE_TYPE,
    INVALID_SELECTOR,
    NO_REASON,
    NOT_SCALED_TO_ZERO,
    SCALED_TO_ZERO,
    SCALING_DISABLED,
    SUCCEEDED_GET_SCALE,
    SUCCEEDED_RESCALE,
    VALID_METRIC_FOUND,
    History,
    Limited,
    ScaleEvents,
    ScalingRules,
    Stabilized,
    behavior_rate,
    behavior_stabilization,
    legacy_limits,
    legacy_stabilization,
    new_events,
    new_history,
    remember,
    store_scale_event,
)
from tiphys.policies.hpa.calculator import (
    INVALID_SOURCE,
    NO_ERROR,
    NO_METRICS,
    NONE,
    Containers,
    Pods,
    Proposal,
    Readiness,
    Samples,
    Tolerance,
    average_value_replicas,
    no_proposal,
    plain_average,
    resource_utilization,
    value_replicas,
)

SOURCES = ("Resource", "ContainerResource", "Pods", "Object", "External", "unknown")
RESOURCE, CONTAINER_RESOURCE, PODS, OBJECT, EXTERNAL, UNKNOWN_SOURCE = range(len(SOURCES))

TARGET_TYPES = ("Utilization", "AverageValue", "Value", "none")
UTILIZATION, AVERAGE_VALUE, VALUE, NO_TARGET = range(len(TARGET_TYPES))

SELECTORS = ("valid", "invalid", "ambiguous")
SELECTOR_VALID, SELECTOR_INVALID, SELECTOR_AMBIGUOUS = range(len(SELECTORS))

STATUSES = ("False", "True")
UNSET, FALSE, TRUE = -1, 0, 1

BRANCHES = ("no scale", "disabled", "above maximum", "below minimum", "metrics failed", "metrics")
NO_SCALE, DISABLED, ABOVE_MAXIMUM, BELOW_MINIMUM, METRICS_FAILED, METRICS = range(len(BRANCHES))

DEFAULT_MIN_REPLICAS = 1
"""What the API adds where `minReplicas` is absent."""


class Controller(NamedTuple):
    """Flags of the controller and feature gates (2.1, 2.11). Tolerances are ratios."""

    tolerance: float = 0.1
    downscale_stabilization_s: float = 300.0
    cpu_initialization_period_s: float = 300.0
    initial_readiness_delay_s: float = 30.0
    scale_up_limit_factor: float = 2.0
    scale_up_limit_minimum: float = 4.0
    configurable_tolerance: bool = True
    scale_to_zero: bool = False
    pod_level_resources: bool = True


class Metrics(NamedTuple):
    """The metric sources of an HPA, one entry each."""

    source: NDArray[np.int8]
    """Code in SOURCES."""
    target_type: NDArray[np.int8]
    """Code in TARGET_TYPES."""
    target_milli: NDArray[np.int64]
    """Milli-units, positive; percent for a utilization."""
    is_cpu: NDArray[np.bool_]
    """Whether a Resource or ContainerResource metric is of cpu, whose samples wait for readiness."""
    container: NDArray[np.int64]
    """Name code of a ContainerResource metric's container, WHOLE_POD for the rest."""


class Rules(NamedTuple):
    """What the HPA object says."""

    min_replicas: int
    max_replicas: int
    has_behavior: bool
    """False: 2.6 applies and `up` and `down` are not read."""
    up: ScalingRules
    down: ScalingRules
    metrics: Metrics


class Scale(NamedTuple):
    """The scale subresource as read, and whether the write of this pass will succeed."""

    spec_replicas: int
    status_replicas: int
    found: bool = True
    selector: int = SELECTOR_VALID
    """Code in SELECTORS."""
    write_succeeds: bool = True


class Observations(NamedTuple):
    """What the metric APIs answered, one entry a metric of the HPA."""

    valid: NDArray[np.bool_]
    """False: the API returned an error or an empty answer."""
    value_m: NDArray[np.int64]
    """Object and External metrics: the value (see `external_total` for several series)."""
    first_sample: NDArray[np.int64]
    """Metrics of pods: samples of metric i are first_sample[i] to first_sample[i + 1], end excluded."""
    samples: Samples


class State(NamedTuple):
    """What the controller remembers of one HPA between passes, changed in place."""

    seen: NDArray[np.bool_]
    """One element: whether the controller has seen this HPA since it started."""
    history: History
    ups: ScaleEvents
    downs: ScaleEvents
    scaled_to_zero: NDArray[np.int64]
    """One element: status of the marker condition, UNSET, FALSE or TRUE."""


class Proposals(NamedTuple):
    """Receives the proposal of each metric, field by field as in `Proposal`."""

    error: NDArray[np.int64]
    replicas: NDArray[np.int64]
    ratio: NDArray[np.float64]
    final_ratio: NDArray[np.float64]
    multiplier: NDArray[np.int64]
    usage_m: NDArray[np.int64]
    utilization_percent: NDArray[np.int64]
    decided_by: NDArray[np.int64]


class Condition(NamedTuple):
    """Status (UNSET: this pass did not touch it) and reason code (names in `behavior.REASONS`)."""

    status: int
    reason: int


class Outcome(NamedTuple):
    """What a pass decided, and every number on the way."""

    desired_replicas: int
    """As reported in the status: the new count, or the spec count where nothing was written."""
    rescaled: bool
    error: bool
    """The pass reports an error, which does not exclude a rescale."""
    branch: int
    """Code in BRANCHES."""
    able_to_scale: Condition
    scaling_active: Condition
    scaling_limited: Condition
    scaled_to_zero: Condition
    """The marker as it stands after the pass."""
    invalid_metrics: int
    first_invalid: int
    """Index of the first invalid metric, NONE where all are valid."""
    winner: int
    """Index of the metric whose proposal won, NONE where none did."""
    wish: int
    """The winning proposal, at least 0; NONE where no metrics were computed."""
    stabilized: Stabilized
    """`replicas` is NONE where nothing was stabilized."""
    limited: Limited
    """`replicas` is NONE where nothing was limited."""
    written: int
    """The count that the pass tried to write, NONE where it wrote nothing."""


def new_state(history_capacity: int, events_capacity: int) -> State:
    """A controller that has never seen this HPA."""
    return State(
        np.zeros(1, dtype=np.bool_),
        new_history(history_capacity),
        new_events(events_capacity),
        new_events(events_capacity),
        np.full(1, UNSET, dtype=np.int64),
    )


def new_proposals(metric_count: int) -> Proposals:
    """Arrays for the proposals of so many metrics."""
    whole = [np.zeros(metric_count, dtype=np.int64) for _ in range(6)]
    ratios = [np.zeros(metric_count) for _ in range(2)]
    return Proposals(whole[0], whole[1], ratios[0], ratios[1], whole[2], whole[3], whole[4], whole[5])


def no_samples() -> Samples:
    """Samples for an HPA that has only Object and External metrics."""
    none, times = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Samples(none, times, times, np.zeros(1, dtype=np.int64), none, none)


def no_containers() -> Containers:
    """Requests for an HPA that has no utilization target."""
    none = np.zeros(0, dtype=np.int64)
    return Containers(none, none, np.zeros(0, dtype=np.int8), none, none)


def value_observations(metric_count: int) -> Observations:
    """Observations for Object and External metrics: set `valid` and `value_m` before each pass."""
    return Observations(
        np.zeros(metric_count, dtype=np.bool_),
        np.zeros(metric_count, dtype=np.int64),
        np.zeros(metric_count + 1, dtype=np.int64),
        no_samples(),
    )


class _Decision(NamedTuple):
    """A wanted count and how it came about, before the scale is written."""

    branch: int
    desired: int
    error: bool
    able_to_scale: Condition
    scaling_active: Condition
    scaling_limited: Condition
    invalid_metrics: int
    first_invalid: int
    winner: int
    wish: int
    stabilized: Stabilized
    limited: Limited


class _Choice(NamedTuple):
    """The best of the proposals."""

    replicas: int
    winner: int
    invalid_metrics: int
    first_invalid: int


@jit
def reconcile(
    controller: Controller,
    rules: Rules,
    scale: Scale,
    pods: Pods,
    containers: Containers | None,
    observed: Observations,
    state: State,
    proposals: Proposals,
    now_s: float,
) -> Outcome:
    """The decision of one pass (2.9).

    `proposals` is written only when metrics are computed (branches METRICS and METRICS_FAILED). In METRICS_FAILED
    nothing enters the history. The caller writes `desired_replicas` to the workload when `rescaled`. With None for
    `containers` no utilization can be computed, and none is compiled.
    """
    branch = _branch(controller, rules, scale, state)
    if branch != NO_SCALE and not state.seen[0]:
        state.seen[0] = True
        remember(state.history, scale.spec_replicas, now_s, int(NONE))
    if branch == METRICS:
        decision = _by_metrics(controller, rules, scale, pods, containers, observed, state, proposals, now_s)
    else:
        decision = _without_metrics(rules, scale, branch)
    if branch == DISABLED and not controller.scale_to_zero:
        state.scaled_to_zero[0] = UNSET
    return _written(controller, rules, scale, state, now_s, decision)


@jit
def _branch(controller: Controller, rules: Rules, scale: Scale, state: State) -> int:
    if not scale.found:
        return NO_SCALE
    if scale.spec_replicas == 0:
        marked = controller.scale_to_zero and state.scaled_to_zero[0] == TRUE
        return METRICS if marked and (rules.min_replicas != 0 or _can_see_from_zero(rules.metrics)) else DISABLED
    if scale.spec_replicas > rules.max_replicas:
        return ABOVE_MAXIMUM
    if scale.spec_replicas < rules.min_replicas:
        return BELOW_MINIMUM
    return METRICS


@jit
def _can_see_from_zero(metrics: Metrics) -> bool:
    """Whether a metric has a value while there is no pod."""
    found = False
    for source in metrics.source:
        found = found or source in (OBJECT, EXTERNAL)
    return found


@jit
def _without_metrics(rules: Rules, scale: Scale, branch: int) -> _Decision:
    desired = scale.spec_replicas
    if branch == ABOVE_MAXIMUM:
        desired = rules.max_replicas
    elif branch == BELOW_MINIMUM:
        desired = rules.min_replicas
    able = Condition(FALSE, FAILED_GET_SCALE) if branch == NO_SCALE else Condition(TRUE, SUCCEEDED_GET_SCALE)
    active = Condition(FALSE, SCALING_DISABLED) if branch == DISABLED else Condition(UNSET, NO_REASON)
    return _Decision(
        branch,
        int(desired),
        branch == NO_SCALE,
        able,
        active,
        Condition(UNSET, NO_REASON),
        0,
        NONE,
        NONE,
        NONE,
        Stabilized(NONE, NO_REASON, NONE, math.nan),
        Limited(NONE, NO_REASON, NONE),
    )


@jit
def _by_metrics(
    controller: Controller,
    rules: Rules,
    scale: Scale,
    pods: Pods,
    containers: Containers | None,
    observed: Observations,
    state: State,
    proposals: Proposals,
    now_s: float,
) -> _Decision:
    choice, reason = _Choice(0, NONE, 0, NONE), NO_REASON
    if scale.selector == SELECTOR_INVALID:
        reason = INVALID_SELECTOR
    elif scale.selector == SELECTOR_AMBIGUOUS:
        reason = AMBIGUOUS_SELECTOR
    else:
        _propose(controller, rules, scale, pods, containers, observed, proposals, now_s)
        choice = _choose(proposals, len(rules.metrics.source))
        all_invalid = choice.invalid_metrics == len(rules.metrics.source)
        if all_invalid or (choice.invalid_metrics > 0 and choice.replicas < scale.spec_replicas):
            reason = _failure_reason(rules.metrics, choice.first_invalid)
    if reason != NO_REASON:
        return _metrics_failed(scale, reason, choice.invalid_metrics, choice.first_invalid)
    return _settled(controller, rules, scale, state, choice, now_s)


@jit
def _propose(
    controller: Controller,
    rules: Rules,
    scale: Scale,
    pods: Pods,
    containers: Containers | None,
    observed: Observations,
    proposals: Proposals,
    now_s: float,
) -> None:
    tolerance = _tolerance(controller, rules)
    when = Readiness(now_s, controller.cpu_initialization_period_s, controller.initial_readiness_delay_s)
    for metric in range(len(rules.metrics.source)):
        source = rules.metrics.source[metric]
        if source == UNKNOWN_SOURCE:
            made = no_proposal(INVALID_SOURCE)
        elif not observed.valid[metric]:
            made = no_proposal(NO_METRICS)
        elif source in (OBJECT, EXTERNAL):
            made = _of_value(rules.metrics, metric, scale, pods, observed.value_m[metric], tolerance)
        else:
            samples = _samples_of(observed, metric)
            made = _of_pods(
                rules.metrics, metric, scale, pods, containers, samples, controller.pod_level_resources, tolerance, when
            )
        _put(proposals, metric, made)


@jit
def _tolerance(controller: Controller, rules: Rules) -> Tolerance:
    """The tolerance of each direction (2.4)."""
    down, up = controller.tolerance, controller.tolerance
    if rules.has_behavior and controller.configurable_tolerance:
        down = down if math.isnan(rules.down.tolerance) else rules.down.tolerance
        up = up if math.isnan(rules.up.tolerance) else rules.up.tolerance
    return Tolerance(down, up)


@jit
def _samples_of(observed: Observations, metric: int) -> Samples:
    first, end = observed.first_sample[metric], observed.first_sample[metric + 1]
    return Samples(
        observed.samples.pod[first:end],
        observed.samples.time_s[first:end],
        observed.samples.window_s[first:end],
        observed.samples.first_row[first : end + 1],
        observed.samples.row_container,
        observed.samples.row_value_m,
    )


@jit
def _of_value(metrics: Metrics, metric: int, scale: Scale, pods: Pods, value_m: int, tolerance: Tolerance) -> Proposal:
    target_m = metrics.target_milli[metric]
    if metrics.target_type[metric] == VALUE:
        return value_replicas(scale.spec_replicas, value_m, target_m, pods, tolerance)
    if metrics.target_type[metric] == AVERAGE_VALUE:
        return average_value_replicas(scale.status_replicas, value_m, target_m, tolerance)
    return no_proposal(INVALID_SOURCE)


@jit
def _of_pods(
    metrics: Metrics,
    metric: int,
    scale: Scale,
    pods: Pods,
    containers: Containers | None,
    samples: Samples,
    pod_level_resources: bool,
    tolerance: Tolerance,
    when: Readiness,
) -> Proposal:
    target = metrics.target_milli[metric]
    is_resource = metrics.source[metric] != PODS
    is_cpu = is_resource and metrics.is_cpu[metric]
    container = metrics.container[metric]
    if metrics.target_type[metric] == AVERAGE_VALUE:
        return plain_average(scale.spec_replicas, target, container, is_cpu, pods, samples, tolerance, when)
    if containers is not None and metrics.target_type[metric] == UTILIZATION and is_resource:
        return resource_utilization(
            scale.spec_replicas,
            target,
            container,
            is_cpu,
            pods,
            containers,
            pod_level_resources,
            samples,
            tolerance,
            when,
        )
    return no_proposal(INVALID_SOURCE)


@jit
def _put(proposals: Proposals, metric: int, made: Proposal) -> None:
    proposals.error[metric] = made.error
    proposals.replicas[metric] = made.replicas
    proposals.ratio[metric] = made.ratio
    proposals.final_ratio[metric] = made.final_ratio
    proposals.multiplier[metric] = made.multiplier
    proposals.usage_m[metric] = made.usage_m
    proposals.utilization_percent[metric] = made.utilization_percent
    proposals.decided_by[metric] = made.decided_by


@jit
def _choose(proposals: Proposals, metric_count: int) -> _Choice:
    """The largest valid proposal; a proposal of 0 gives way to any later valid one (2.6)."""
    best, winner, invalid, first_invalid = 0, NONE, 0, NONE
    for metric in range(metric_count):
        if proposals.error[metric] != NO_ERROR:
            invalid += 1
            first_invalid = metric if first_invalid == NONE else first_invalid
        elif best == 0 or proposals.replicas[metric] > best:
            best, winner = int(proposals.replicas[metric]), metric
    return _Choice(best, winner, invalid, first_invalid)


@jit
def _failure_reason(metrics: Metrics, metric: int) -> int:
    source = metrics.source[metric] if metric != NONE else UNKNOWN_SOURCE
    if source == RESOURCE:
        return FAILED_GET_RESOURCE_METRIC
    if source == CONTAINER_RESOURCE:
        return FAILED_GET_CONTAINER_RESOURCE_METRIC
    if source == PODS:
        return FAILED_GET_PODS_METRIC
    if source == OBJECT:
        return FAILED_GET_OBJECT_METRIC
    if source == EXTERNAL:
        return FAILED_GET_EXTERNAL_METRIC
    return INVALID_METRIC_SOURCE_TYPE


@jit
def _metrics_failed(scale: Scale, reason: int, invalid_metrics: int, first_invalid: int) -> _Decision:
    return _Decision(
        METRICS_FAILED,
        int(scale.spec_replicas),
        True,
        Condition(TRUE, SUCCEEDED_GET_SCALE),
        Condition(FALSE, reason),
        Condition(UNSET, NO_REASON),
        invalid_metrics,
        first_invalid,
        NONE,
        NONE,
        Stabilized(NONE, NO_REASON, NONE, math.nan),
        Limited(NONE, NO_REASON, NONE),
    )


@jit
def _settled(
    controller: Controller, rules: Rules, scale: Scale, state: State, choice: _Choice, now_s: float
) -> _Decision:
    """The wish stabilized and limited, without or with `behavior` (2.6, 2.8)."""
    wish = max(choice.replicas, 0)
    if rules.has_behavior:
        stabilized = behavior_stabilization(
            state.history, scale.spec_replicas, wish, rules.up.stabilization_s, rules.down.stabilization_s, now_s
        )
        limited = behavior_rate(
            scale.spec_replicas,
            stabilized.replicas,
            rules.min_replicas,
            rules.max_replicas,
            rules.up,
            rules.down,
            state.ups,
            state.downs,
            now_s,
        )
    else:
        stabilized = legacy_stabilization(state.history, wish, controller.downscale_stabilization_s, now_s)
        limited = legacy_limits(
            scale.spec_replicas,
            stabilized.replicas,
            rules.min_replicas,
            rules.max_replicas,
            controller.scale_up_limit_factor,
            controller.scale_up_limit_minimum,
        )
    desired = limited.replicas
    if scale.spec_replicas == 0:
        # The minimum may have been raised while this controller held the workload at zero (2.11).
        desired = max(desired, int(rules.min_replicas))
    return _Decision(
        METRICS,
        int(desired),
        choice.invalid_metrics > 0,
        Condition(TRUE, stabilized.reason),
        Condition(TRUE, VALID_METRIC_FOUND),
        Condition(FALSE if limited.replicas == stabilized.replicas else TRUE, limited.reason),
        choice.invalid_metrics,
        choice.first_invalid,
        choice.winner,
        wish,
        stabilized,
        limited,
    )


@jit
def _written(
    controller: Controller, rules: Rules, scale: Scale, state: State, now_s: float, decision: _Decision
) -> Outcome:
    """The outcome after the write of the scale, which is tried when the count differs (2.9)."""
    desired, able, error = decision.desired, decision.able_to_scale, decision.error
    rescaled, written = False, NONE
    if desired != scale.spec_replicas:
        written = desired
        if scale.write_succeeds:
            rescaled, able = True, Condition(TRUE, SUCCEEDED_RESCALE)
            _remember_change(rules, scale.spec_replicas, desired, state, now_s)
            state.scaled_to_zero[0] = _marker(controller, rules, desired)
        else:
            desired, able, error = int(scale.spec_replicas), Condition(FALSE, FAILED_UPDATE_SCALE), True
    return Outcome(
        desired,
        rescaled,
        error,
        decision.branch,
        able,
        decision.scaling_active,
        decision.scaling_limited,
        _marker_condition(state.scaled_to_zero[0]),
        decision.invalid_metrics,
        decision.first_invalid,
        decision.winner,
        decision.wish,
        decision.stabilized,
        decision.limited,
        written,
    )


@jit
def _remember_change(rules: Rules, spec_replicas: int, desired: int, state: State, now_s: float) -> None:
    if desired > spec_replicas:
        store_scale_event(state.ups, desired - spec_replicas, rules.has_behavior, rules.up, now_s)
    else:
        store_scale_event(state.downs, spec_replicas - desired, rules.has_behavior, rules.down, now_s)


@jit
def _marker(controller: Controller, rules: Rules, desired: int) -> int:
    """The marker after a rescale: set when this controller went to zero of its own accord (2.11)."""
    if not controller.scale_to_zero:
        return UNSET
    went = desired == 0 and rules.min_replicas == 0 and _can_see_from_zero(rules.metrics)
    return TRUE if went else FALSE


@jit
def _marker_condition(status: int) -> Condition:
    if status == UNSET:
        return Condition(UNSET, NO_REASON)
    return Condition(int(status), SCALED_TO_ZERO if status == TRUE else NOT_SCALED_TO_ZERO)
