"""KEDA in the loop: the operator's polls at the 0/1 edge, and the metrics it hands to the generated HPA."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.policies.keda.fallback import NEVER_COUNTED, NO_FALLBACK, FallbackRules, fallback_rules
from tiphys.policies.keda.formula import NO_FALLBACK_REPLICAS, NO_FORMULA, Program, compile_formula
from tiphys.policies.keda.poll import UNSET, PollRules
from tiphys.policies.keda.spec import CpuTrigger, KedaPolicy, NatsJetStreamTrigger, PrometheusTrigger, Trigger
from tiphys.twin.state import Floats, Longs

Flags = NDArray[np.bool_]
PROMETHEUS, NATS, CPU = range(3)
NOT_POLLED = -(2**63)
"""Stands for the metric of the last poll before the first one."""


class Triggers(NamedTuple):
    """One entry a trigger; numbers of the spec first, then what the operator remembers."""

    source: Longs
    """code: PROMETHEUS, NATS or CPU"""
    metric: Longs
    """place among the generated HPA's metrics; -1 for one that is part of the composite metric"""
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
    """those that metrics-server answers: they are no triggers of the operator"""
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
        _triggers([], [], False),
        False,
        NO_FORMULA,
        0.0,
        0.0,
        NO_FALLBACK_REPLICAS,
        np.full(1, np.nan),
    )


def keda_loop(policy: KedaPolicy) -> KedaLoop:
    """The operator's rules for a ScaledObject."""
    triggers = ordered_triggers(policy)
    modifiers = policy.scaling_modifiers
    rules = [_fallback(policy, trigger) for trigger in triggers]
    idle = UNSET if policy.idle_replicas is None else policy.idle_replicas
    fallback_replicas = UNSET if policy.fallback is None else policy.fallback.replicas
    names = [str(t.name) for t in triggers if not isinstance(t, CpuTrigger)]
    return KedaLoop(
        True,
        PollRules(
            policy.replicas.min, idle, float(policy.cooldown_s), float(policy.initial_cooldown_s), fallback_replicas
        ),
        rules[0],
        _triggers(triggers, rules, modifiers is not None),
        modifiers is not None,
        NO_FORMULA if modifiers is None else compile_formula(modifiers.formula, names),
        0.0 if modifiers is None else modifiers.target,
        0.0 if modifiers is None else float(modifiers.activation_target or 0.0),
        NO_FALLBACK_REPLICAS if policy.fallback is None else policy.fallback.replicas,
        np.full(1, np.nan),
    )


def ordered_triggers(policy: KedaPolicy) -> list[Trigger]:
    """The triggers as the generated HPA has them: with scaling modifiers those of metrics-server come last."""
    if policy.scaling_modifiers is None:
        return list(policy.triggers)
    return sorted(policy.triggers, key=lambda trigger: isinstance(trigger, CpuTrigger))


def _fallback(policy: KedaPolicy, trigger: Trigger) -> FallbackRules:
    if policy.fallback is None or isinstance(trigger, CpuTrigger):
        return NO_FALLBACK
    rules, modifiers = policy.fallback, policy.scaling_modifiers
    target, kind, text = _target(trigger), trigger.metric_type, None
    if modifiers is not None:
        target, kind, text = modifiers.target, modifiers.metric_type, f"{modifiers.target:g}"
    return fallback_rules(rules.failure_threshold, rules.replicas, rules.behavior, target, kind, text)


def _target(trigger: PrometheusTrigger | NatsJetStreamTrigger) -> float:
    return trigger.threshold if isinstance(trigger, PrometheusTrigger) else float(trigger.lag_threshold)


def _activation(trigger: Trigger) -> float:
    if isinstance(trigger, PrometheusTrigger):
        return trigger.activation_value
    return float(trigger.activation or 0) if isinstance(trigger, NatsJetStreamTrigger) else 0.0


def _source(trigger: Trigger) -> int:
    if isinstance(trigger, CpuTrigger):
        return CPU
    return NATS if isinstance(trigger, NatsJetStreamTrigger) else PROMETHEUS


def _metric_places(triggers: list[Trigger], has_formula: bool) -> list[int]:
    if not has_formula:
        return list(range(len(triggers)))
    resources = iter(range(1, len(triggers) + 1))
    return [next(resources) if isinstance(trigger, CpuTrigger) else -1 for trigger in triggers]


def _triggers(triggers: list[Trigger], rules: list[FallbackRules], has_formula: bool) -> Triggers:
    n = len(triggers)

    def flags(values: list[bool] | None = None) -> Flags:
        return np.zeros(n, np.bool_) if values is None else np.array(values, np.bool_)

    return Triggers(
        np.array([_source(t) for t in triggers], np.int64),
        np.array(_metric_places(triggers, has_formula), np.int64),
        flags([getattr(t, "ignore_null", False) for t in triggers]),
        np.array([_activation(t) for t in triggers], np.float64),
        flags([getattr(t, "use_cached_metrics", False) for t in triggers]),
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
        flags([isinstance(t, CpuTrigger) for t in triggers]),
        np.full(n, NOT_POLLED),
        flags(),
    )
