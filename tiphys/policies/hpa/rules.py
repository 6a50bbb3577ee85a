"""An HPA policy in the numbers that the compiled controller takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiphys.domain.settings import ClusterSettings
from tiphys.policies.hpa.behavior import POLICY_TYPES, SELECTS, scale_down_rules, scale_up_rules
from tiphys.policies.hpa.behavior import ScalingRules as CompiledRules
from tiphys.policies.hpa.calculator import WHOLE_POD
from tiphys.policies.hpa.reconcile import SOURCES, TARGET_TYPES, Controller, Metrics, Rules
from tiphys.policies.hpa.spec import Behavior, HpaMetric, HpaPolicy, ScalingRules
from tiphys.policies.quantity import milli

_SOURCES = {"object": "Object", "external": "External", "pods": "Pods", "resource": "Resource"}
Source = tuple[str, str, int]
"""Source and target type in the API's words, target in thousandths (percent for a utilization)."""


def controller(settings: ClusterSettings) -> Controller:
    """The flags of a cluster's HPA controller."""
    hpa = settings.hpa
    return Controller(
        tolerance=hpa.tolerance,
        downscale_stabilization_s=hpa.downscale_stabilization_s,
        cpu_initialization_period_s=hpa.cpu_initialization_period_s,
        initial_readiness_delay_s=hpa.initial_readiness_delay_s,
        configurable_tolerance=hpa.configurable_tolerance,
        scale_to_zero=hpa.scale_to_zero,
    )


def hpa_rules(policy: HpaPolicy, settings: ClusterSettings) -> Rules:
    """What an HPA says, with the API's defaults filled in; the metrics are in the policy's order."""
    sources = [(_SOURCES[metric.source], metric.type, _target(metric)) for metric in policy.metrics]
    return rules_of(policy.replicas.min, policy.replicas.max, policy.behavior, sources, settings)


def _target(metric: HpaMetric) -> int:
    return int(metric.target) if metric.type == "Utilization" else milli(metric.target)


def rules_of(
    min_replicas: int,
    max_replicas: int,
    behavior: Behavior | None,
    sources: Sequence[Source],
    settings: ClusterSettings,
) -> Rules:
    """The numbers of any HPA, KEDA's generated one included."""
    given = behavior or Behavior()
    return Rules(
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        has_behavior=behavior is not None,
        up=_up(given.scale_up or ScalingRules()),
        down=_down(given.scale_down or ScalingRules(), settings.hpa.downscale_stabilization_s),
        metrics=_metrics(sources),
    )


def _metrics(sources: Sequence[Source]) -> Metrics:
    return Metrics(
        source=np.array([SOURCES.index(source) for source, _, _ in sources], dtype=np.int8),
        target_type=np.array([TARGET_TYPES.index(kind) for _, kind, _ in sources], dtype=np.int8),
        target_milli=np.array([target for _, _, target in sources], dtype=np.int64),
        is_cpu=np.array([source in ("Resource", "ContainerResource") for source, _, _ in sources], dtype=np.bool_),
        container=np.full(len(sources), WHOLE_POD, dtype=np.int64),
    )


def _up(rules: ScalingRules) -> CompiledRules:
    return scale_up_rules(rules.stabilization_s, _select(rules), _policies(rules), rules.tolerance)


def _down(rules: ScalingRules, downscale_stabilization_s: float) -> CompiledRules:
    return scale_down_rules(
        rules.stabilization_s,
        _select(rules),
        _policies(rules),
        rules.tolerance,
        downscale_stabilization_s=downscale_stabilization_s,
    )


def _select(rules: ScalingRules) -> int | None:
    return None if rules.select is None else SELECTS.index(rules.select)


def _policies(rules: ScalingRules) -> list[tuple[int, int, float]] | None:
    if rules.policies is None:
        return None
    return [(POLICY_TYPES.index(each.type), each.value, float(each.period_s)) for each in rules.policies]
