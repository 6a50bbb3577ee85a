"""Numbers of a policy that cannot act in its setting, and why: not worth tuning."""

from __future__ import annotations

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.settings import ClusterSettings
from tiphys.policies.hpa.spec import Behavior, HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger
from tiphys.policies.kpa.spec import KpaPolicy

AT_THE_EDGE = "acts only at zero or idle replicas, which replicas.min 1 or more without idle_replicas never reaches"
GATE_OFF = "the cluster does not honour behavior.*.tolerance (HPAConfigurableTolerance is off)"
DISABLED = "select is Disabled: no policy of this direction acts"
BY_FORMULA = "with scaling_modifiers the formula's target and activation_target count in place of the triggers' own"
NEVER_ZERO = "acts only on the way to zero, which replicas.min 1 or more never goes"
ZERO_IS_OFF = "acts only on the way to zero, and the cluster does not scale to zero (enable-scale-to-zero)"
UNDER_MINIMUM = "replicas.min is no smaller"
NO_ZERO_START = "the cluster does not let a revision begin with none (allow-zero-initial-scale)"
LIMITED = "container_concurrency is no greater and counts in its place"


def inert_numbers(policy: ScalingPolicy, settings: ClusterSettings) -> dict[str, str]:
    """The dotted paths of numbers that cannot act under these settings, each with the reason."""
    if isinstance(policy, HpaPolicy):
        return _behavior(policy.behavior, settings)
    if isinstance(policy, KedaPolicy):
        return _behavior(policy.behavior, settings) | _edge(policy) | _under_a_formula(policy)
    if isinstance(policy, KpaPolicy):
        return _of_zero(policy, settings) | _of_starting(policy, settings) | _of_target(policy)
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


def _under_a_formula(policy: KedaPolicy) -> dict[str, str]:
    if policy.scaling_modifiers is None:
        return {}
    members = ("threshold", "lag_threshold", "activation", "activation_ratio")
    return {
        f"triggers.{index}.{member}": BY_FORMULA
        for index, trigger in enumerate(policy.triggers)
        for member in members
        if trigger.scaler != "cpu" and member in type(trigger).model_fields
    }


def _of_zero(policy: KpaPolicy, settings: ClusterSettings) -> dict[str, str]:
    if policy.replicas.min > 0:
        return {"pod_retention_s": NEVER_ZERO}
    if not settings.knative.scale_to_zero:
        return {"pod_retention_s": ZERO_IS_OFF}
    return {}


def _of_starting(policy: KpaPolicy, settings: ClusterSettings) -> dict[str, str]:
    reasons, least, initial = {}, max(policy.replicas.min, 1), policy.initial_scale
    if policy.activation_scale <= least:
        reasons["activation_scale"] = UNDER_MINIMUM
    if initial == 0 and not settings.knative.allow_zero_initial_scale:
        reasons["initial_scale"] = NO_ZERO_START
    elif initial is not None and 0 < initial <= policy.replicas.min:
        reasons["initial_scale"] = UNDER_MINIMUM
    return reasons


def _of_target(policy: KpaPolicy) -> dict[str, str]:
    """A target of requests at a time that queue-proxy never lets a pod reach."""
    limit = policy.container_concurrency
    if policy.metric == "concurrency" and policy.target is not None and 0 < limit <= policy.target:
        return {"target": LIMITED}
    return {}
