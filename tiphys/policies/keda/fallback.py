"""KEDA's fallback: failures are counted per trigger, over the polls and the HPA's requests together."""

from __future__ import annotations

import re
from typing import NamedTuple

from tiphys.compiled import jit
from tiphys.errors import unknown_name
from tiphys.policies.keda.triggers import NO_METRIC_M, truncated_milli

BEHAVIORS = ("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers")
STATIC, CURRENT, CURRENT_IF_HIGHER, CURRENT_IF_LOWER, SCALING_MODIFIERS = range(len(BEHAVIORS))

HEALTHS = ("", "Happy", "Failing")
UNKNOWN, HAPPY, FAILING = range(len(HEALTHS))

NEVER_COUNTED = -1
"""Failures of a trigger that has not been asked yet."""
PLACEHOLDER_M = -1000
"""Metric of a trigger that is nil inside a formula."""

_WHOLE = re.compile(r"[+-]?[0-9]+")


class FallbackRules(NamedTuple):
    """What happens when a trigger fails."""

    usable: bool
    """KEDA counts failures and falls back only where this holds."""
    failure_threshold: int
    replicas: int
    behavior: int
    """Code in BEHAVIORS."""
    target: float
    """Target of the metric that the HPA sees, in units: it makes replicas of the metric."""
    divided_by_ready: bool
    """That metric is of type Value."""


NO_FALLBACK = FallbackRules(False, 0, 0, STATIC, 0.0, False)


class FallbackStep(NamedTuple):
    """The outcome of one metric request."""

    error: bool
    metric_m: int
    """Milli-units; counts only without an error."""
    in_fallback: bool
    """The metric stands for a number of replicas, not for what was measured."""
    failures: int
    """In a row, this one included; NEVER_COUNTED where nothing was counted yet."""
    health: int
    """Code in HEALTHS."""


def fallback_rules(
    failure_threshold: int,
    replicas: int,
    behavior: str,
    target: float,
    metric_type: str,
    modifiers_target: str | None = None,
) -> FallbackRules:
    """The rules of a trigger (3.6): its own target and metric type, or with scaling modifiers those of the composite.

    `modifiers_target` is scalingModifiers.target as it is written; a target that is not a positive integer makes the
    fallback unusable without a word, and so do negative counts. Raises InputError for an unknown behaviour.
    """
    if behavior not in BEHAVIORS:
        raise unknown_name("fallback behavior", behavior, BEHAVIORS)
    usable = failure_threshold >= 0 and replicas >= 0 and (modifiers_target is None or _is_positive(modifiers_target))
    return FallbackRules(
        usable, failure_threshold, replicas, BEHAVIORS.index(behavior), float(target), metric_type == "Value"
    )


def _is_positive(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and 0 < int(text) < 2**63


@jit
def fallback_step(
    rules: FallbackRules,
    failed: bool,
    metric_m: int,
    failures: int,
    health: int,
    current_replicas: int,
    ready_replicas: int,
) -> FallbackStep:
    """One metric request, from poll or HPA: the metric as measured or as the fallback has it, or an error (3.6).

    `metric_m` is what was measured in milli-units, `failures` and `health` the trigger's state before,
    `current_replicas` the spec count of the target, `ready_replicas` its pods that are Running and Ready.
    """
    if not rules.usable:
        return FallbackStep(failed, metric_m, False, failures, health)
    if not failed:
        return FallbackStep(False, metric_m, False, 0, HAPPY)
    counted = max(failures, 0) + 1
    if counted <= rules.failure_threshold:
        return FallbackStep(True, NO_METRIC_M, False, counted, FAILING)
    if rules.behavior == SCALING_MODIFIERS:
        return FallbackStep(False, PLACEHOLDER_M, False, counted, FAILING)
    replicas = float(_replicas(rules, current_replicas))
    if rules.divided_by_ready:
        if ready_replicas == 0:
            return FallbackStep(True, NO_METRIC_M, False, counted, FAILING)
        replicas /= ready_replicas
    return FallbackStep(False, truncated_milli(rules.target * 1000.0 * replicas), True, counted, FAILING)


@jit
def _replicas(rules: FallbackRules, current_replicas: int) -> int:
    if rules.behavior == CURRENT:
        return current_replicas
    if rules.behavior == CURRENT_IF_HIGHER:
        return max(current_replicas, rules.replicas)
    if rules.behavior == CURRENT_IF_LOWER:
        return min(current_replicas, rules.replicas)
    return rules.replicas


@jit
def is_nil(rules: FallbackRules, failures: int) -> bool:
    """Whether a trigger with so many failures is nil inside the formula (3.6, 3.7)."""
    return rules.behavior == SCALING_MODIFIERS and failures > rules.failure_threshold
