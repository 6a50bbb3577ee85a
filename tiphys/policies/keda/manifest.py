"""ScaledObject manifests: out, and in from anybody's."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from tiphys.dialects import DIALECTS
from tiphys.dialects.recognise import recognise_query
from tiphys.domain.values import parse
from tiphys.errors import InputError, unknown_name
from tiphys.policies.common import AtLeastOne, Replicas
from tiphys.policies.hpa.manifest import BehaviorObject, Text, check_aggregation, read_behavior, render_behavior
from tiphys.policies.keda.spec import (
    CpuTrigger,
    Fallback,
    KedaPolicy,
    NatsJetStreamTrigger,
    PrometheusTrigger,
    ScalingModifiers,
    Trigger,
    WholeSeconds,
)
from tiphys.policies.objects import (
    Document,
    Manifest,
    PoolContext,
    Recording,
    policy_from,
    read_object,
    recording_rules,
)
from tiphys.policies.quantity import format_quantity

API_VERSION, KIND = "keda.sh/v1alpha1", "ScaledObject"
RATIO = "tiphys.io/activation-ratio-"
"""Annotation: the activation threshold of trigger n was written as this share of its threshold."""
Flag = Literal["true", "True", "TRUE", "t", "T", "1", "false", "False", "FALSE", "f", "F", "0"]
"""What Go's ParseBool takes."""
PAUSED = "autoscaling.keda.sh/paused"


def render_scaled_object(policy: KedaPolicy, pool: PoolContext) -> list[Document]:
    """The ScaledObject, of which KEDA makes the HPA, and what Prometheus records for its queries."""
    spec: Document = {
        "scaleTargetRef": pool.target_ref(),
        "minReplicaCount": policy.replicas.min,
        "maxReplicaCount": policy.replicas.max,
        "pollingInterval": policy.polling_interval_s,
        "cooldownPeriod": policy.cooldown_s,
        "initialCooldownPeriod": policy.initial_cooldown_s,
    }
    if policy.idle_replicas is not None:
        spec["idleReplicaCount"] = policy.idle_replicas
    if policy.fallback is not None:
        spec["fallback"] = _fallback(policy.fallback)
    if advanced := _advanced(policy):
        spec["advanced"] = advanced
    spec["triggers"] = [_trigger(trigger, pool) for trigger in policy.triggers]
    metadata = pool.metadata(annotations=_ratios(policy))
    scaled = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    asked = [Recording(each.signal, each.window_s) for each in policy.triggers if isinstance(each, PrometheusTrigger)]
    return [scaled, *recording_rules(asked, pool)]


def _ratios(policy: KedaPolicy) -> dict[str, str]:
    return {
        f"{RATIO}{index}": repr(trigger.activation_ratio)
        for index, trigger in enumerate(policy.triggers)
        if isinstance(trigger, PrometheusTrigger) and trigger.activation_ratio is not None
    }


def _fallback(fallback: Fallback) -> Document:
    return {
        "failureThreshold": fallback.failure_threshold,
        "replicas": fallback.replicas,
        "behavior": fallback.behavior,
    }


def _advanced(policy: KedaPolicy) -> Document:
    advanced: Document = {}
    if policy.behavior is not None:
        advanced["horizontalPodAutoscalerConfig"] = {"behavior": render_behavior(policy.behavior)}
    if policy.scaling_modifiers is not None:
        advanced["scalingModifiers"] = _modifiers(policy.scaling_modifiers)
    return advanced


def _modifiers(modifiers: ScalingModifiers) -> Document:
    members = {
        "formula": modifiers.formula,
        "target": decimal(modifiers.target),
        "activationTarget": None if modifiers.activation_target is None else decimal(modifiers.activation_target),
        "metricType": modifiers.metric_type,
    }
    return {name: value for name, value in members.items() if value is not None}


def decimal(value: float) -> str:
    """The shortest decimal text of a number: KEDA reads thresholds as decimals, not as quantities."""
    return repr(int(value)) if value == int(value) else repr(value)


def _trigger(trigger: Trigger, pool: PoolContext) -> Document:
    data: Document = {"type": trigger.scaler}
    if trigger.name is not None:
        data["name"] = trigger.name
    data["metricType"] = trigger.metric_type
    if isinstance(trigger, PrometheusTrigger):
        return data | {"useCachedMetrics": trigger.use_cached_metrics, "metadata": _prometheus(trigger, pool)}
    if isinstance(trigger, NatsJetStreamTrigger):
        return data | {"useCachedMetrics": trigger.use_cached_metrics, "metadata": _nats(trigger)}
    threshold = trigger.threshold
    value = decimal(threshold) if trigger.metric_type == "Utilization" else format_quantity(threshold)
    container = {} if trigger.container is None else {"containerName": trigger.container}
    return data | {"metadata": {"value": value, **container}}


def _prometheus(trigger: PrometheusTrigger, pool: PoolContext) -> dict[str, str]:
    aggregation: Literal["sum", "avg"] = "avg" if trigger.metric_type == "Value" else "sum"
    query = pool.dialect.query(trigger.signal, pool.series_selector, window_s=trigger.window_s, aggregation=aggregation)
    metadata = {"serverAddress": pool.prometheus_url, "query": query, "threshold": decimal(trigger.threshold)}
    if trigger.activation is not None or trigger.activation_ratio is not None:
        metadata["activationThreshold"] = decimal(trigger.activation_value)
    return metadata | {"ignoreNullValues": "true" if trigger.ignore_null else "false"}


def _nats(trigger: NatsJetStreamTrigger) -> dict[str, str]:
    return {
        "natsServerMonitoringEndpoint": trigger.endpoint,
        "account": trigger.account,
        "stream": trigger.stream,
        "consumer": trigger.consumer,
        "lagThreshold": str(trigger.lag_threshold),
        "activationLagThreshold": str(trigger.activation),
        "useHttps": "true" if trigger.use_https else "false",
    }


class ScaleTargetObject(Manifest):
    """ScaleTarget."""

    api_version: str = "apps/v1"
    kind: str = "Deployment"
    name: str
    env_source_container_name: str | None = None


class FallbackObject(Manifest):
    """Fallback."""

    failure_threshold: Replicas
    replicas: Replicas
    behavior: str = "static"


class HpaConfigObject(Manifest):
    """HorizontalPodAutoscalerConfig."""

    name: str | None = None
    behavior: BehaviorObject | None = None


class ModifiersObject(Manifest):
    """ScalingModifiers."""

    formula: str
    target: str
    activation_target: str | None = None
    metric_type: Literal["AverageValue", "Value"] = "AverageValue"


class AdvancedObject(Manifest):
    """AdvancedConfig."""

    restore_to_original_replica_count: bool | None = None
    horizontal_pod_autoscaler_config: HpaConfigObject | None = None
    scaling_modifiers: ModifiersObject | None = None


class TriggerObject(Manifest):
    """ScaleTriggers: the values of `metadata` are strings."""

    type: str
    name: str | None = None
    metadata: dict[str, str]
    metric_type: Literal["AverageValue", "Value", "Utilization"] | None = None
    use_cached_metrics: bool = False
    authentication_ref: dict[str, Any] | None = None


class ScaledObjectSpec(Manifest):
    """ScaledObjectSpec, with KEDA's defaults."""

    scale_target_ref: ScaleTargetObject
    polling_interval: AtLeastOne = 30
    cooldown_period: WholeSeconds = 300
    initial_cooldown_period: WholeSeconds = 0
    idle_replica_count: Replicas | None = None
    min_replica_count: Replicas = 0
    max_replica_count: AtLeastOne = 100
    advanced: AdvancedObject = AdvancedObject()
    triggers: tuple[TriggerObject, ...]
    fallback: FallbackObject | None = None


class MetadataObject(Manifest):
    """ObjectMeta, of which only annotations matter here."""

    model_config = ConfigDict(extra="ignore")
    annotations: dict[str, str] | None = None


class ScaledObject(Manifest):
    """ScaledObject."""

    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: MetadataObject = MetadataObject()
    spec: ScaledObjectSpec
    status: dict[str, Any] | None = None


def read_scaled_object(document: Document, where: str = "") -> KedaPolicy:
    """The policy of a ScaledObject. Raises InputError; a query that shows no known signal is one.

    Authentication and the name of the generated HPA are no part of a policy and are left out.
    """
    scaled = read_object(ScaledObject, document, where)
    annotations = scaled.metadata.annotations or {}
    _refuse_pauses(annotations, where)
    spec = scaled.spec
    config, modifiers = spec.advanced.horizontal_pod_autoscaler_config, spec.advanced.scaling_modifiers
    place = "spec.advanced.horizontalPodAutoscalerConfig.behavior"
    members = {
        "replicas": {"min": spec.min_replica_count, "max": spec.max_replica_count},
        "polling_interval_s": spec.polling_interval,
        "cooldown_s": spec.cooldown_period,
        "initial_cooldown_s": spec.initial_cooldown_period,
        "idle_replicas": spec.idle_replica_count,
        "fallback": spec.fallback and spec.fallback.model_dump(),
        "scaling_modifiers": modifiers and _read_modifiers(modifiers, where),
        "behavior": read_behavior(config.behavior, where, place) if config else None,
        "triggers": [
            _read_trigger(trigger, annotations.get(f"{RATIO}{index}"), where, f"spec.triggers.{index}")
            for index, trigger in enumerate(spec.triggers)
        ],
    }
    return policy_from(KedaPolicy, members, where)


def _read_modifiers(modifiers: ModifiersObject, where: str) -> Document:
    place, activation = "spec.advanced.scalingModifiers", modifiers.activation_target
    return {
        "formula": modifiers.formula,
        "target": _float(modifiers.target, where, f"{place}.target"),
        "activation_target": _float(activation, where, f"{place}.activationTarget") if activation else None,
        "metric_type": modifiers.metric_type,
    }


def _refuse_pauses(annotations: dict[str, str], where: str) -> None:
    for name, value in annotations.items():
        if name.startswith(PAUSED) and value.lower() not in ("false", "f", "0"):
            message = "this ScaledObject is paused, which no policy says"
            raise InputError(message, where=where, key=f"metadata.annotations.{name}", found=value, allowed="absent")


def _read_trigger(trigger: TriggerObject, ratio: str | None, where: str, key: str) -> Document:
    readers = {"prometheus": _read_prometheus, "nats-jetstream": _read_nats, "cpu": _read_cpu}
    if trigger.type not in readers:
        raise unknown_name("type of trigger", trigger.type, readers, where=where, key=f"{key}.type")
    members = {"scaler": trigger.type, "name": trigger.name} | readers[trigger.type](trigger, where, key)
    if trigger.metric_type is not None:
        members["metric_type"] = trigger.metric_type
    if trigger.type != "cpu":
        members["use_cached_metrics"] = trigger.use_cached_metrics
    kinds: dict[str, type[PrometheusTrigger | NatsJetStreamTrigger | CpuTrigger]]
    kinds = {"prometheus": PrometheusTrigger, "nats-jetstream": NatsJetStreamTrigger, "cpu": CpuTrigger}
    read = policy_from(kinds[trigger.type], members, where, key)
    if isinstance(read, PrometheusTrigger) and ratio is not None:
        read = _with_ratio(read, ratio)
    return read.model_dump(mode="json")


def _with_ratio(trigger: PrometheusTrigger, ratio: str) -> PrometheusTrigger:
    """The trigger as it was written, unless somebody has edited the number that acts since."""
    written = trigger.with_(activation=None, activation_ratio=float(ratio))
    return written if written.activation_value == trigger.activation_value else trigger


class PrometheusMetadata(Manifest):
    """metadata of a prometheus trigger. `metricName` is long gone from KEDA and ignored by it, but still pasted."""

    server_address: str
    query: str
    threshold: str
    activation_threshold: str | None = None
    ignore_null_values: Flag = "true"
    metric_name: str | None = None
    namespace: str | None = None
    custom_headers: str | None = None
    query_parameters: str | None = None
    unsafe_ssl: str | None = None
    auth_modes: str | None = None
    aws_region: str | None = None
    identity_owner: str | None = None
    timeout: str | None = None


def _read_prometheus(trigger: TriggerObject, where: str, key: str) -> Document:
    metadata = _read_metadata(PrometheusMetadata, trigger, where, key)
    place = f"{key}.metadata.query"
    try:
        found = recognise_query(metadata.query, DIALECTS.values())
    except InputError as error:
        raise error.at(where, place) from None
    check_aggregation(found, trigger.metric_type or "AverageValue", metadata.query, place, where)
    activation = metadata.activation_threshold
    return {
        "signal": str(found.signal),
        "window_s": found.window_s,
        "threshold": _float(metadata.threshold, where, f"{key}.metadata.threshold"),
        "activation": None if activation is None else _float(activation, where, f"{key}.metadata.activationThreshold"),
        "ignore_null": _is_true(metadata.ignore_null_values),
    }


class NatsMetadata(Manifest):
    """metadata of a nats-jetstream trigger; `accountID` stands for `account`."""

    nats_server_monitoring_endpoint: str
    account: str | None = None
    account_id: str | None = Field(default=None, alias="accountID")
    stream: str
    consumer: str
    lag_threshold: str = "10"
    activation_lag_threshold: str = "0"
    use_https: Flag = "false"


def _read_nats(trigger: TriggerObject, where: str, key: str) -> Document:
    metadata = _read_metadata(NatsMetadata, trigger, where, key)
    account = metadata.account or metadata.account_id
    if account is None:
        raise InputError("is missing", where=where, key=f"{key}.metadata.account")
    place = f"{key}.metadata"
    return {
        "endpoint": metadata.nats_server_monitoring_endpoint,
        "account": account,
        "stream": metadata.stream,
        "consumer": metadata.consumer,
        "lag_threshold": _int(metadata.lag_threshold, where, f"{place}.lagThreshold"),
        "activation": _int(metadata.activation_lag_threshold, where, f"{place}.activationLagThreshold"),
        "use_https": _is_true(metadata.use_https),
    }


class CpuMetadata(Manifest):
    """metadata of a cpu trigger."""

    value: Text
    container_name: str | None = None


def _read_cpu(trigger: TriggerObject, where: str, key: str) -> Document:
    metadata = _read_metadata(CpuMetadata, trigger, where, key)
    if trigger.metric_type is None:
        raise InputError("is missing", where=where, key=f"{key}.metricType", allowed="Utilization, AverageValue")
    return {"threshold": metadata.value, "container": metadata.container_name}


M = TypeVar("M", bound=Manifest)


def _read_metadata(kind: type[M], trigger: TriggerObject, where: str, key: str) -> M:
    try:
        return parse(kind, trigger.metadata, where)
    except InputError as error:
        raise error.at(where, f"{key}.metadata") from None


def _is_true(flag: Flag) -> bool:
    return flag.lower() in ("true", "t", "1")


def _float(text: str, where: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError("is not a decimal number", where=where, key=key, found=text, allowed="such as 0.5") from None


def _int(text: str, where: str, key: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError("is not a whole number", where=where, key=key, found=text) from None
