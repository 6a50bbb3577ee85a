"""Numbers of a policy that cannot act in its setting, and why: not worth tuning."""

from __future__ import annotations

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.settings import ClusterSettings
from tiphys.policies.hpa.spec import Behavior, HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger

AT_THE_EDGE = "acts only at zero or idle replicas, which replicas.min 1 or more without idle_replicas never reaches"
GATE_OFF = "the cluster does not honour behavior.*.tolerance (HPAConfigurableTolerance is off)"
DISABLED = "select is Disabled: no policy of this direction acts"


def inert_numbers(policy: ScalingPolicy, settings: ClusterSettings) -> dict[str, str]:
    """The dotted paths of numbers that cannot act under these settings, each with the reason."""
    if isinstance(policy, HpaPolicy):
        return _behavior(policy.behavior, settings)
    if isinstance(policy, KedaPolicy):
        return _behavior(policy.behavior, settings) | _edge(policy)
    return {}


def _behavior(behavior: Behavior | None, settings: ClusterSettings) -> dict[str, str]:
    reasons = {}
    for name in ("scale_up", "scale_down"):
        rules = getattr(behavior, name, None)
        if rules is None:
            continue
        if not settings.hpa.configurable_tolerance:
            reasons[f"behavior.{name}.tolerance"] = GATE_OFF
        if rules.select == "Disabled":
            reasons |= {
                f"behavior.{name}.policies.{index}.{number}": DISABLED
                for index in range(len(rules.policies or ()))
                for number in ("value", "period_s")
            }
    return reasons


def _edge(policy: KedaPolicy) -> dict[str, str]:
    if policy.replicas.min == 0 or policy.idle_replicas is not None:
        return {}
    paths = ["cooldown_s", "initial_cooldown_s", "scaling_modifiers.activation_target"]
    # failures are counted by the polls too, and cached metrics are those of the last poll
    cached = any(getattr(trigger, "use_cached_metrics", False) for trigger in policy.triggers)
    if policy.fallback is None and not cached:
        paths.append("polling_interval_s")
    for index, trigger in enumerate(policy.triggers):
        paths.append(f"triggers.{index}.activation")
        if isinstance(trigger, PrometheusTrigger):
            paths.append(f"triggers.{index}.activation_ratio")
    return dict.fromkeys(paths, AT_THE_EDGE)
