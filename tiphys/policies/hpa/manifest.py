"""HorizontalPodAutoscaler manifests: out, and in from anybody's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tiphys.dialects import DIALECTS
from tiphys.dialects.measures import Aggregation, Asked, Exporter, Recorded, Series
from tiphys.dialects.recognise import Recognised, metric_name, recognise_name
from tiphys.documents import to_yaml
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies.common import AtLeastOne, Replicas
from tiphys.policies.hpa.spec import (
    Behavior,
    HpaMetric,
    HpaPolicy,
    PeriodSeconds,
    RatePolicy,
    ScalingRules,
    SelectPolicy,
    WindowSeconds,
)
from tiphys.policies.objects import (
    Document,
    Manifest,
    PoolContext,
    Recording,
    TargetRef,
    policy_from,
    read_object,
    recording_rules,
)
from tiphys.policies.quantity import Quantity, format_quantity

API_VERSION, KIND = "autoscaling/v2", "HorizontalPodAutoscaler"


def render_hpa(policy: HpaPolicy, pool: PoolContext) -> list[Document]:
    """The HPA, what Prometheus records for it, and the rules that prometheus-adapter needs to serve its metrics.

    Raises InputError when the pool's servers do not show a signal, or when their series cannot be had by its source.
    """
    for metric in policy.metrics:
        if metric.source != "resource":
            pool.dialect.measure(metric.signal)
    spec: Document = {
        "scaleTargetRef": pool.target_ref(),
        "minReplicas": policy.replicas.min,
        "maxReplicas": policy.replicas.max,
        "metrics": [_metric(metric, pool) for metric in policy.metrics],
    }
    if policy.behavior is not None:
        spec["behavior"] = render_behavior(policy.behavior)
    hpa = {"apiVersion": API_VERSION, "kind": KIND, "metadata": pool.metadata(), "spec": spec}
    return [hpa, *metric_rules(policy, pool)]


def metric_rules(policy: HpaPolicy, pool: PoolContext) -> list[Document]:
    """What Prometheus records and what prometheus-adapter serves, so that the policy's metrics are there."""
    served = [metric for metric in policy.metrics if metric.source != "resource"]
    recorded = recording_rules([_recording(metric) for metric in served], pool)
    return [*recorded, adapter_rules(policy, pool)] if served else []


def render_behavior(behavior: Behavior) -> Document:
    """`behavior` in the API's words; what the policy leaves out is left out."""
    directions = {"scaleUp": behavior.scale_up, "scaleDown": behavior.scale_down}
    return {name: _rules(rules) for name, rules in directions.items() if rules is not None}


def _rules(rules: ScalingRules) -> Document:
    policies = rules.policies and [
        {"type": policy.type, "value": policy.value, "periodSeconds": policy.period_s} for policy in rules.policies
    ]
    members = {
        "stabilizationWindowSeconds": rules.stabilization_s,
        "selectPolicy": rules.select,
        "policies": policies,
        "tolerance": None if rules.tolerance is None else format_quantity(rules.tolerance),
    }
    return {name: value for name, value in members.items() if value is not None}


def _metric(metric: HpaMetric, pool: PoolContext) -> Document:
    if metric.source == "resource":
        return {"type": "Resource", "resource": {"name": str(metric.signal), "target": _target(metric)}}
    target = _target(metric)
    name = {"name": _name(metric)}
    if metric.source == "pods":
        return {"type": "Pods", "pods": {"metric": name, "target": target}}
    if metric.source == "external":
        label = _leading_series(metric, pool).exporter.label("service")
        selector = {"matchLabels": {label: pool.service_name}}
        return {"type": "External", "external": {"metric": {**name, "selector": selector}, "target": target}}
    described = {"apiVersion": "v1", "kind": "Service", "name": pool.service_name}
    return {"type": "Object", "object": {"metric": name, "describedObject": described, "target": target}}


def _target(metric: HpaMetric) -> Document:
    if metric.type == "Utilization":
        return {"type": metric.type, "averageUtilization": int(metric.target)}
    key = "value" if metric.type == "Value" else "averageValue"
    return {"type": metric.type, key: format_quantity(metric.target)}


def _recording(metric: HpaMetric) -> Recording:
    return Recording(metric.signal, metric.window_s, metric.source == "pods")


def _asked(metric: HpaMetric) -> Asked:
    return Asked(metric.window_s, _aggregation(metric), ("<<.GroupBy>>",), metric.source == "pods")


def _leading_series(metric: HpaMetric, pool: PoolContext) -> Series:
    """The series by which the adapter finds the metric."""
    measure = pool.dialect.measure(metric.signal)
    return measure.record(_asked(metric)) if isinstance(measure, Recorded) else measure.series[0]


def _aggregation(metric: HpaMetric) -> Aggregation:
    return "avg" if metric.type == "Value" else "sum"


def _name(metric: HpaMetric) -> str:
    return metric_name(metric.signal, metric.window_s, _aggregation(metric))


def adapter_rules(policy: HpaPolicy, pool: PoolContext) -> Document:
    """The rules by which prometheus-adapter serves the policy's metrics, in a ConfigMap beside the HPA.

    The adapter has one configuration for the whole cluster, so these are to be merged into it (`rules.custom` and
    `rules.external` of its chart); it reads them at its start.
    """
    served = [metric for metric in policy.metrics if metric.source != "resource"]
    custom = {_name(metric): _adapter_rule(metric, pool) for metric in served if metric.source != "external"}
    external = {_name(metric): _adapter_rule(metric, pool) for metric in served if metric.source == "external"}
    config = {"rules": list(custom.values()), "externalRules": list(external.values())}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": pool.metadata(f"{pool.name}-adapter-rules"),
        "data": {"config.yaml": to_yaml({name: rules for name, rules in config.items() if rules})},
    }


def _adapter_rule(metric: HpaMetric, pool: PoolContext) -> Document:
    leading = _leading_series(metric, pool)
    exporter = leading.exporter
    if metric.source not in exporter.sources:
        raise InputError(
            f"{leading.metric} comes from {exporter.name}: an HPA cannot be told of it by source {metric.source}",
            key="source",
            found=metric.source,
            allowed=", ".join(exporter.sources),
        )

    def vector(series: Series) -> str:
        named = replace(series, metric="<<.Series>>") if series.metric == leading.metric else series
        return named.templated("<<.LabelMatchers>>")

    resources = {exporter.label(name): {"resource": name} for name in _owners(exporter)}
    present = ", ".join(f'{exporter.label(name)}!=""' for name in _owners(exporter)[:2])
    return {
        "seriesQuery": f"{leading.metric}{{{present}}}",
        "resources": {"overrides": resources},
        "name": {"matches": f"^{leading.metric}$", "as": _name(metric)},
        "metricsQuery": pool.dialect.measure(metric.signal).expression(vector, _asked(metric)),
    }


def _owners(exporter: Exporter) -> tuple[str, ...]:
    """What of the cluster an exporter's series name by labels."""
    if exporter.sources == ("external",):
        return ("namespace",)
    return ("namespace", "pod") if exporter.sources == ("pods",) else ("namespace", "service", "pod")


class RatePolicyObject(Manifest):
    """HPAScalingPolicy."""

    type: Literal["Pods", "Percent"]
    value: AtLeastOne
    period_seconds: PeriodSeconds


class RulesObject(Manifest):
    """HPAScalingRules."""

    stabilization_window_seconds: WindowSeconds | None = None
    select_policy: SelectPolicy | None = None
    policies: tuple[RatePolicyObject, ...] | None = None
    tolerance: Quantity | None = None

    def rules(self) -> ScalingRules:
        """The same in our words."""
        policies = [
            RatePolicy(type=policy.type, value=policy.value, period_s=policy.period_seconds)
            for policy in self.policies or ()
        ]
        return ScalingRules(
            stabilization_s=self.stabilization_window_seconds,
            select=self.select_policy,
            policies=tuple(policies) or None,
            tolerance=self.tolerance,
        )


class BehaviorObject(Manifest):
    """HorizontalPodAutoscalerBehavior."""

    scale_up: RulesObject | None = None
    scale_down: RulesObject | None = None

    def behavior(self) -> Behavior:
        """The same in our words."""
        return Behavior(
            scale_up=None if self.scale_up is None else self.scale_up.rules(),
            scale_down=None if self.scale_down is None else self.scale_down.rules(),
        )


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]


class TargetObject(Manifest):
    """MetricTarget. Quantities stay text, so that a wrong one is reported in the file's own words."""

    type: Literal["Value", "AverageValue", "Utilization"]
    value: Text | None = None
    average_value: Text | None = None
    average_utilization: int | None = None


class MetricIdentifier(Manifest):
    """MetricIdentifier: the selector narrows the series down and is no number of the policy."""

    name: str
    selector: dict[str, Any] | None = None


class ObjectSource(Manifest):
    """ObjectMetricSource."""

    metric: MetricIdentifier
    described_object: TargetRef
    target: TargetObject


class OtherSource(Manifest):
    """PodsMetricSource and ExternalMetricSource."""

    metric: MetricIdentifier
    target: TargetObject


class ResourceSource(Manifest):
    """ResourceMetricSource."""

    name: str
    target: TargetObject


class MetricObject(Manifest):
    """MetricSpec."""

    type: Literal["Object", "External", "Pods", "Resource", "ContainerResource"]
    object: ObjectSource | None = None
    external: OtherSource | None = None
    pods: OtherSource | None = None
    resource: ResourceSource | None = None
    container_resource: dict[str, Any] | None = None


class HpaSpecObject(Manifest):
    """HorizontalPodAutoscalerSpec."""

    scale_target_ref: TargetRef
    min_replicas: Replicas = 1
    max_replicas: AtLeastOne
    metrics: tuple[MetricObject, ...] = ()
    behavior: BehaviorObject | None = None


class HpaObject(Manifest):
    """HorizontalPodAutoscaler."""

    api_version: Literal["autoscaling/v2"]
    kind: Literal["HorizontalPodAutoscaler"]
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: HpaSpecObject
    status: dict[str, Any] | None = None


def read_hpa(document: Document, where: str = "") -> HpaPolicy:
    """The policy of an HPA manifest.

    A latency whose metric's name says no window has one of 60 s, the 1m of the published adapter rules. Raises
    InputError; a metric that is no known signal is one.
    """
    spec = read_object(HpaObject, document, where).spec
    if not spec.metrics:
        raise InputError(
            "names no metrics", where=where, key="spec.metrics", allowed="Object, External, Pods or Resource"
        )
    metrics = tuple(
        _read_metric(metric, where, f"spec.metrics.{index}").model_dump(mode="json")
        for index, metric in enumerate(spec.metrics)
    )
    members = {
        "replicas": {"min": spec.min_replicas, "max": spec.max_replicas},
        "metrics": metrics,
        "behavior": read_behavior(spec.behavior, where, "spec.behavior"),
    }
    return policy_from(HpaPolicy, members, where)


def read_behavior(behavior: BehaviorObject | None, where: str, key: str) -> Document | None:
    """`behavior` as members of a policy; None stays None, which is not the same as empty."""
    if behavior is None:
        return None
    for name, rules in (("scaleUp", behavior.scale_up), ("scaleDown", behavior.scale_down)):
        if rules is not None and rules.policies == ():
            raise InputError("must hold at least one", where=where, key=f"{key}.{name}.policies")
    return behavior.behavior().model_dump(mode="json")


def _read_metric(metric: MetricObject, where: str, key: str) -> HpaMetric:
    place = f"{key}.{metric.type.lower()}"
    if metric.type == "Resource":
        return _read_resource(metric.resource, where, place)
    sources = {"Object": metric.object, "External": metric.external, "Pods": metric.pods}
    if metric.type not in sources:
        raise InputError(
            "a metric of this type is no signal of an LLM server",
            where=where, key=f"{key}.type", found=metric.type, allowed="Object, External, Pods, Resource",
        )  # fmt: skip
    source = sources[metric.type]
    if source is None:
        raise InputError(f"is missing, though type is {metric.type}", where=where, key=place)
    target = source.target
    found = read_signal(source.metric.name, target.type, f"{place}.metric.name", where, pods=metric.type == "Pods")
    members = {
        "signal": str(found.signal),
        "window_s": found.window_s,
        "type": target.type,
        "source": metric.type.lower(),
        "target": _read_target(target, where, f"{place}.target", "Value", "AverageValue"),
    }
    return policy_from(HpaMetric, members, where, place)


def _read_resource(source: ResourceSource | None, where: str, place: str) -> HpaMetric:
    if source is None:
        raise InputError("is missing, though type is Resource", where=where, key=place)
    if source.name != Signal.CPU:
        raise InputError("no signal", where=where, key=f"{place}.name", found=source.name, allowed=str(Signal.CPU))
    target = _read_target(source.target, where, f"{place}.target", "Utilization", "AverageValue")
    members = {"signal": source.name, "source": "resource", "type": source.target.type, "target": target}
    return policy_from(HpaMetric, members, where, place)


_TARGET_KEYS = {"Value": "value", "AverageValue": "averageValue", "Utilization": "averageUtilization"}


def _read_target(target: TargetObject, where: str, key: str, *types: str) -> str | int:
    """The number of the target's own type, which must be one of `types`."""
    values = {"Value": target.value, "AverageValue": target.average_value, "Utilization": target.average_utilization}
    value = values[target.type]
    if target.type not in types or value is None:
        allowed = ", or ".join(f"{each} with {_TARGET_KEYS[each]}" for each in types)
        raise InputError("is not complete", where=where, key=key, found=target.type, allowed=allowed)
    return value


def read_signal(name: str, target_type: str, key: str, where: str, *, pods: bool) -> Recognised:
    """The signal of a metric's name, whose aggregation must be the one that its target type wants."""
    try:
        found = recognise_name(name, DIALECTS.values())
    except InputError as error:
        raise error.at(where, key) from None
    if not pods:
        check_aggregation(found, target_type, name, key, where)
    return found


def check_aggregation(found: Recognised, target_type: str, text: str, key: str, where: str) -> None:
    """Raises InputError for an average under AverageValue or a sum under Value: no policy of ours means that."""
    wanted = "avg" if target_type == "Value" else "sum"
    if found.aggregation not in (None, wanted):
        allowed = "sum under AverageValue, avg under Value"
        message = f"{target_type} wants the {wanted} over pods: a {found.aggregation} would be divided wrongly"
        raise InputError(message, where=where, key=key, found=text, allowed=allowed)
