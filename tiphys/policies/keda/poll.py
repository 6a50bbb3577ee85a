"""One poll of the KEDA operator: is the ScaledObject active, and what becomes of the replicas at the 0/1 edge.

Everything above one replica belongs to the generated HPA, whose proposal is asked for here too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.policies.hpa.calculator import Pods, Proposal, Tolerance, average_value_replicas, value_replicas
from tiphys.policies.keda.triggers import parse_bool

UNSET = -1
"""Marks a replica count that the ScaledObject does not give."""

REASONS = (
    "paused by annotation",
    "active: from zero or idle to the minimum",
    "active, but growing is paused by annotation",
    "active",
    "active, some triggers fail",
    "not active, a trigger fails: the fallback will act",
    "not active, a trigger fails and there is no fallback",
    "not active, but shrinking is paused by annotation",
    "not active: down to idle or zero",
    "not active, cooling down",
    "not active: up to the minimum",
    "not active, nothing to do",
)
(
    PAUSED,
    ACTIVATED,
    GROWTH_PAUSED,
    ACTIVE,
    PARTIAL_ERROR,
    AWAITING_FALLBACK,
    TRIGGER_ERROR,
    SHRINKING_PAUSED,
    DEACTIVATED,
    COOLING_DOWN,
    RAISED_TO_MINIMUM,
    UNCHANGED,
) = range(len(REASONS))

READY_CONDITIONS = ("True", "Unknown", "False")
READY, READY_UNKNOWN, NOT_READY = range(len(READY_CONDITIONS))

ACTIVE_CONDITIONS = ("", "True:ScalerActive", "False:ScalerNotActive", "False:ScalerCooldown")
UNTOUCHED, SCALER_ACTIVE, SCALER_NOT_ACTIVE, SCALER_COOLDOWN = range(len(ACTIVE_CONDITIONS))

_PREFIX = "autoscaling.keda.sh/"
_PAUSED_REPLICAS = f"{_PREFIX}paused-replicas"
_DEFAULT_MAXIMUM = 100


class PollRules(NamedTuple):
    """What a ScaledObject says about the 0/1 edge; times in seconds."""

    min_replicas: int
    idle_replicas: int
    """UNSET where there is none."""
    cooldown_s: float
    initial_cooldown_s: float
    fallback_replicas: int
    """UNSET where there is no fallback."""


class Annotations(NamedTuple):
    """The annotations that hold a poll back or push it on."""

    paused: bool
    growing_paused: bool
    shrinking_paused: bool
    force_activation: bool


NO_ANNOTATIONS = Annotations(False, False, False, False)


class PollDecision(NamedTuple):
    """What one poll does."""

    reason: int
    """Code in REASONS."""
    replicas: int
    """The spec count of the target afterwards."""
    scaled: bool
    """The count was written."""
    last_active_refreshed: bool
    """The last-active time is now."""
    ready_condition: int
    """Code in READY_CONDITIONS."""
    active_condition: int
    """Code in ACTIVE_CONDITIONS."""


class Activity(NamedTuple):
    """The state of a ScaledObject that its triggers make."""

    active: bool
    error: bool


class HpaBounds(NamedTuple):
    """minReplicas and maxReplicas of the generated HPA."""

    min: int
    max: int


@jit
def activity(
    is_resource: NDArray[np.bool_],
    is_active: NDArray[np.bool_],
    is_error: NDArray[np.bool_],
    in_fallback: NDArray[np.bool_],
) -> Activity:
    """Whether a ScaledObject without scaling modifiers is active, from one entry a trigger (3.4).

    `is_resource` marks cpu and memory triggers, which count only where there are no others.
    """
    only_resources, active, error = True, False, False
    for trigger in range(len(is_resource)):
        error |= is_error[trigger]
        if not is_resource[trigger]:
            only_resources = False
            active |= in_fallback[trigger] or (is_active[trigger] and not is_error[trigger])
    return Activity(bool(active or (only_resources and not error)), bool(error))


@jit
def activity_of_formula(
    is_resource: NDArray[np.bool_], is_error: NDArray[np.bool_], value: float, activation_target: float
) -> Activity:
    """Whether a ScaledObject with scaling modifiers is active: no error and a value strictly over the target (3.4).

    `value` is the composite metric in units, NaN where the formula gave none.
    """
    error = bool(np.any(is_error))
    return Activity(not error and (value > activation_target or bool(np.all(is_resource))), error)


@jit
def request_scale(
    rules: PollRules,
    annotations: Annotations,
    current_replicas: int,
    active: bool,
    error: bool,
    last_active_age_s: float,
    creation_age_s: float,
) -> PollDecision:
    """The decision of one poll (3.5).

    `current_replicas` is the spec count of the target; ages are seconds before now, `last_active_age_s` NaN where no
    trigger has been active yet.
    """
    if annotations.paused:
        return PollDecision(PAUSED, current_replicas, False, False, READY, UNTOUCHED)
    if active or annotations.force_activation:
        return _when_active(rules, annotations, current_replicas, error)
    return _when_inactive(rules, annotations, current_replicas, error, last_active_age_s, creation_age_s)


@jit
def _when_active(rules: PollRules, annotations: Annotations, current_replicas: int, error: bool) -> PollDecision:
    if current_replicas == 0 or (rules.idle_replicas != UNSET and current_replicas < rules.min_replicas):
        if annotations.growing_paused:
            return PollDecision(GROWTH_PAUSED, current_replicas, False, False, READY, SCALER_ACTIVE)
        return PollDecision(ACTIVATED, max(rules.min_replicas, 1), True, True, READY, SCALER_ACTIVE)
    if error:
        return PollDecision(PARTIAL_ERROR, current_replicas, False, False, READY_UNKNOWN, SCALER_ACTIVE)
    return PollDecision(ACTIVE, current_replicas, False, True, READY, SCALER_ACTIVE)


@jit
def _when_inactive(
    rules: PollRules,
    annotations: Annotations,
    current_replicas: int,
    error: bool,
    last_active_age_s: float,
    creation_age_s: float,
) -> PollDecision:
    if error and rules.fallback_replicas == UNSET:
        return PollDecision(TRIGGER_ERROR, current_replicas, False, False, NOT_READY, SCALER_NOT_ACTIVE)
    # A fallback to 0 replicas holds nothing back: the operator tests its count, not its presence.
    if error and rules.fallback_replicas != 0:
        return PollDecision(AWAITING_FALLBACK, current_replicas, False, False, READY, SCALER_NOT_ACTIVE)
    is_idle_set = rules.idle_replicas != UNSET
    if (is_idle_set and current_replicas > rules.idle_replicas) or (current_replicas > 0 and rules.min_replicas == 0):
        if annotations.shrinking_paused:
            return PollDecision(SHRINKING_PAUSED, current_replicas, False, False, READY, SCALER_NOT_ACTIVE)
        if not _has_cooled_down(rules, last_active_age_s, creation_age_s):
            return PollDecision(COOLING_DOWN, current_replicas, False, False, READY, SCALER_COOLDOWN)
        replicas = rules.idle_replicas if is_idle_set else rules.min_replicas
        return PollDecision(DEACTIVATED, replicas, True, False, READY, SCALER_NOT_ACTIVE)
    if not is_idle_set and current_replicas < rules.min_replicas:
        return PollDecision(RAISED_TO_MINIMUM, rules.min_replicas, True, False, READY, SCALER_NOT_ACTIVE)
    return PollDecision(UNCHANGED, current_replicas, False, False, READY, SCALER_NOT_ACTIVE)


@jit
def _has_cooled_down(rules: PollRules, last_active_age_s: float, creation_age_s: float) -> bool:
    if math.isnan(last_active_age_s):
        return creation_age_s > rules.initial_cooldown_s
    return last_active_age_s > rules.cooldown_s


@jit
def keda_hpa_desired(
    metric_m: int,
    threshold_m: int,
    is_value: bool,
    spec_replicas: int,
    status_replicas: int,
    pods: Pods,
    tolerance: Tolerance,
) -> Proposal:
    """What the generated HPA proposes from one trigger's metric, before stabilization and limits (2.5.4, 2.5.5).

    `is_value` is metricType Value, which looks at the spec count and the ready pods; AverageValue at the status count.
    """
    if is_value:
        return value_replicas(spec_replicas, metric_m, threshold_m, pods, tolerance)
    return average_value_replicas(status_replicas, metric_m, threshold_m, tolerance)


def hpa_bounds(min_replicas: int | None, max_replicas: int | None) -> HpaBounds:
    """The bounds of the generated HPA (3.1): at least 1, and 100 where no maximum is given."""
    minimum = 1 if min_replicas is None else max(min_replicas, 1)
    return HpaBounds(minimum, _DEFAULT_MAXIMUM if max_replicas is None else max_replicas)


def bounds_valid(min_replicas: int | None, max_replicas: int | None, idle_replicas: int | None) -> bool:
    """Whether KEDA accepts these bounds: minimum not over the maximum, idle count below the minimum (3.1).

    A minimum that is given as 0 is compared as 1, an absent one as 0: so KEDA has it.
    """
    bounds = hpa_bounds(min_replicas, max_replicas)
    lowest = 0 if min_replicas is None else bounds.min
    return lowest <= bounds.max and (idle_replicas is None or idle_replicas < lowest)


def read_annotations(annotations: Mapping[str, str]) -> Annotations:
    """What the annotations of a ScaledObject ask for (3.5): a switch is on unless it is a false boolean."""
    return Annotations(
        paused=_PAUSED_REPLICAS in annotations or _is_on("paused", annotations),
        growing_paused=_is_on("paused-scale-out", annotations),
        shrinking_paused=_is_on("paused-scale-in", annotations),
        force_activation=_is_on("force-activation", annotations),
    )


def _is_on(name: str, annotations: Mapping[str, str]) -> bool:
    text = annotations.get(_PREFIX + name)
    return text is not None and parse_bool(text) is not False
