"""KEDA in the loop: the operator's polls at the 0/1 edge, and the metrics it hands to the generated HPA."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.policies.keda.fallback import NEVER_COUNTED, NO_FALLBACK, FallbackRules, fallback_rules
from tiphys.policies.keda.formula import NO_FALLBACK_REPLICAS, NO_FORMULA, Program, compile_formula
from tiphys.policies.keda.poll import UNSET, PollRules
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger
from tiphys.twin.state import Floats, Longs

Flags = NDArray[np.bool_]
NOT_POLLED = -(2**63)
"""Stands for the metric of the last poll before the first one."""


class Triggers(NamedTuple):
    """One entry a trigger; numbers of the spec first, then what the operator remembers."""

    ignore_null: Flags
    activation: Floats
    cached: Flags
    usable: Flags
    """whether its failures lead to a fallback"""
    target: Floats
    is_value: Flags
    failures: Longs
    health: Longs
    metric_m: Longs
    """newest metric"""
    is_active: Flags
    is_error: Flags
    in_fallback: Flags
    is_nil: Flags
    is_resource: Flags
    polled_m: Longs
    """metric of the last poll, for `useCachedMetrics`"""
    polled_error: Flags


class KedaLoop(NamedTuple):
    """What the operator knows of one ScaledObject."""

    present: bool
    poll: PollRules
    fallback: FallbackRules
    """threshold, replicas and behaviour; usable, target and type are the triggers' own"""
    triggers: Triggers
    has_formula: bool
    formula: Program
    formula_target: float
    activation_target: float
    formula_fallback_replicas: int
    last_active_s: Floats
    """one element, NaN until a trigger was active"""


def no_keda() -> KedaLoop:
    """The absence of KEDA."""
    return KedaLoop(
        False,
        PollRules(0, UNSET, 0.0, 0.0, UNSET),
        NO_FALLBACK,
        _triggers([], []),
        False,
        NO_FORMULA,
        0.0,
        0.0,
        NO_FALLBACK_REPLICAS,
        np.full(1, np.nan),
    )


def keda_loop(policy: KedaPolicy) -> KedaLoop:
    """The operator's rules for a ScaledObject of prometheus triggers."""
    triggers = [trigger for trigger in policy.triggers if isinstance(trigger, PrometheusTrigger)]
    modifiers = policy.scaling_modifiers
    rules = [_fallback(policy, trigger) for trigger in triggers]
    idle = UNSET if policy.idle_replicas is None else policy.idle_replicas
    fallback_replicas = UNSET if policy.fallback is None else policy.fallback.replicas
    return KedaLoop(
        True,
        PollRules(
            policy.replicas.min, idle, float(policy.cooldown_s), float(policy.initial_cooldown_s), fallback_replicas
        ),
        rules[0],
        _triggers(triggers, rules),
        modifiers is not None,
        NO_FORMULA if modifiers is None else compile_formula(modifiers.formula, [str(t.name) for t in triggers]),
        0.0 if modifiers is None else modifiers.target,
        0.0 if modifiers is None else float(modifiers.activation_target or 0.0),
        NO_FALLBACK_REPLICAS if policy.fallback is None else policy.fallback.replicas,
        np.full(1, np.nan),
    )


def _fallback(policy: KedaPolicy, trigger: PrometheusTrigger) -> FallbackRules:
    if policy.fallback is None:
        return NO_FALLBACK
    rules, modifiers = policy.fallback, policy.scaling_modifiers
    target, kind, text = trigger.threshold, trigger.metric_type, None
    if modifiers is not None:
        target, kind, text = modifiers.target, modifiers.metric_type, f"{modifiers.target:g}"
    return fallback_rules(rules.failure_threshold, rules.replicas, rules.behavior, target, kind, text)


def _triggers(triggers: list[PrometheusTrigger], rules: list[FallbackRules]) -> Triggers:
    n = len(triggers)

    def flags(values: list[bool] | None = None) -> Flags:
        return np.zeros(n, np.bool_) if values is None else np.array(values, np.bool_)

    return Triggers(
        flags([t.ignore_null for t in triggers]),
        np.array([t.activation_value for t in triggers], np.float64),
        flags([t.use_cached_metrics for t in triggers]),
        flags([rule.usable for rule in rules]),
        np.array([rule.target for rule in rules], np.float64),
        flags([rule.divided_by_ready for rule in rules]),
        np.full(n, NEVER_COUNTED),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        flags(),
        flags(),
        flags(),
        flags(),
        flags(),
        np.full(n, NOT_POLLED),
        flags(),
    )
