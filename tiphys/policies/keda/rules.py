"""The HPA that KEDA generates for a ScaledObject, in the numbers that the compiled controller takes."""

from __future__ import annotations

from tiphys.domain.settings import ClusterSettings
from tiphys.policies.hpa.reconcile import Rules
from tiphys.policies.hpa.rules import Source, rules_of
from tiphys.policies.keda.spec import CpuTrigger, KedaPolicy, NatsJetStreamTrigger, PrometheusTrigger
from tiphys.policies.quantity import milli


def generated_hpa(policy: KedaPolicy, settings: ClusterSettings) -> Rules:
    """The generated HPA: minimum at least 1, behaviour only where the policy gives one, one metric a trigger.

    With scaling modifiers one composite External metric comes first, in place of all but the cpu triggers.
    """
    minimum = max(policy.replicas.min, 1)
    return rules_of(minimum, policy.replicas.max, policy.behavior, hpa_sources(policy), settings)


def hpa_sources(policy: KedaPolicy) -> list[Source]:
    """The metrics of the generated HPA, in its order."""
    resources = [_cpu(trigger) for trigger in policy.triggers if isinstance(trigger, CpuTrigger)]
    if policy.scaling_modifiers is not None:
        modifiers = policy.scaling_modifiers
        return [("External", modifiers.metric_type, milli(modifiers.target)), *resources]
    return [_cpu(each) if isinstance(each, CpuTrigger) else _external(each) for each in policy.triggers]


def _external(trigger: PrometheusTrigger | NatsJetStreamTrigger) -> Source:
    target_m = milli(trigger.threshold) if isinstance(trigger, PrometheusTrigger) else trigger.lag_threshold * 1000
    return "External", trigger.metric_type, target_m


def _cpu(trigger: CpuTrigger) -> Source:
    source = "Resource" if trigger.container is None else "ContainerResource"
    if trigger.metric_type == "Utilization":
        return source, "Utilization", int(trigger.threshold)
    return source, "AverageValue", milli(trigger.threshold)
