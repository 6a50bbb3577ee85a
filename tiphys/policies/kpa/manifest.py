"""Services of serving.knative.dev/v1: out, and in from anybody's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from tiphys.dialects.recognise import metric_name
from tiphys.domain.values import parse
from tiphys.errors import InputError, unknown_name
from tiphys.policies.hpa.manifest import metric_rules, read_signal
from tiphys.policies.hpa.spec import HpaMetric, HpaPolicy
from tiphys.policies.kpa.notation import format_duration, parse_duration, percent_text, plain, ratio_of
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy, PodsMetric
from tiphys.policies.objects import Document, Manifest, PoolContext, read_object

API_VERSION, KIND = "serving.knative.dev/v1", "Service"
PREFIX = "autoscaling.knative.dev/"
DEADLINE = "serving.knative.dev/progress-deadline"
CLASS = f"{PREFIX}class"
KPA, HPA = "kpa.autoscaling.knative.dev", "hpa.autoscaling.knative.dev"
RESOURCES = ("cpu", "memory")


def render_kpa(policy: KpaPolicy, pool: PoolContext) -> list[Document]:
    """The part of the Service that scales it, to be applied over it; what is the cluster's is left out."""
    annotations = {
        "class": KPA,
        "metric": policy.metric,
        "target": _text(policy.target, plain),
        "target-utilization-percentage": _text(policy.target_utilization_ratio, percent_text),
        "window": _text(policy.window_s, format_duration),
        "panic-window-percentage": _text(policy.panic_window_ratio, percent_text),
        "panic-threshold-percentage": _text(policy.panic_threshold_ratio, percent_text),
        "min-scale": str(policy.replicas.min),
        "max-scale": str(policy.replicas.max),
        "initial-scale": _text(policy.initial_scale, str),
        "activation-scale": str(policy.activation_scale) if policy.activation_scale > 1 else None,
        "scale-down-delay": _text(policy.scale_down_delay_s, format_duration),
        "scale-to-zero-pod-retention-period": _text(policy.pod_retention_s, format_duration),
        "target-burst-capacity": _text(policy.target_burst_capacity, plain),
        "metric-aggregation-algorithm": None if policy.aggregation == "linear" else policy.aggregation,
    }
    return [_service(policy, annotations, pool)]


def render_knative_hpa(policy: KnativeHpaPolicy, pool: PoolContext) -> list[Document]:
    """The part of the Service that scales it, and the prometheus-adapter rule that a signal needs."""
    annotations = {
        "class": HPA,
        "metric": _metric_name(policy),
        "target": str(policy.metric.target),
        "window": _text(policy.window_s, format_duration),
        "min-scale": str(policy.replicas.min),
        "max-scale": str(policy.replicas.max),
        "initial-scale": _text(policy.initial_scale, str),
    }
    service = _service(policy, annotations, pool)
    if not isinstance(policy.metric, PodsMetric):
        return [service]
    return [service, *metric_rules(_hpa_of(policy, policy.metric), pool)]


def _text(value: Any, write: Callable[[Any], str]) -> str | None:
    return None if value is None else write(value)


def _service(policy: KpaPolicy | KnativeHpaPolicy, annotations: dict[str, str | None], pool: PoolContext) -> Document:
    written = {f"{PREFIX}{name}": text for name, text in annotations.items() if text is not None}
    if policy.progress_deadline_s is not None:
        written[DEADLINE] = format_duration(policy.progress_deadline_s)
    template: Document = {"metadata": {"annotations": written}}
    if policy.container_concurrency:
        template["spec"] = {"containerConcurrency": policy.container_concurrency}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": pool.metadata(pool.target.name),
        "spec": {"template": template},
    }


def _metric_name(policy: KnativeHpaPolicy) -> str:
    metric = policy.metric
    return metric_name(metric.signal, metric.window_s, "sum") if isinstance(metric, PodsMetric) else metric.source


def _hpa_of(policy: KnativeHpaPolicy, metric: PodsMetric) -> HpaPolicy:
    """The HPA that Knative makes, as the adapter's rules look at it."""
    of_pods = HpaMetric(
        signal=metric.signal, window_s=metric.window_s, type="AverageValue", source="pods", target=float(metric.target)
    )
    return HpaPolicy(replicas=policy.replicas, metrics=(of_pods,))


class Metadata(Manifest):
    """ObjectMeta, of which only annotations matter here."""

    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] | None = None
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: int | None = None
    finalizers: Any = None
    owner_references: Any = None
    managed_fields: Any = None
    self_link: str | None = None


class RevisionSpec(Manifest):
    """RevisionSpec, of which the rest is the workload's."""

    model_config = ConfigDict(extra="ignore")
    container_concurrency: Annotated[int, Field(ge=0, le=1000)] = 0


class RevisionTemplate(Manifest):
    """RevisionTemplateSpec."""

    metadata: Metadata = Metadata()
    spec: RevisionSpec = RevisionSpec()


class ServiceSpec(Manifest):
    """ServiceSpec."""

    template: RevisionTemplate
    traffic: tuple[dict[str, Any], ...] = ()


class ServiceObject(Manifest):
    """Service."""

    api_version: Literal["serving.knative.dev/v1"]
    kind: Literal["Service"]
    metadata: Metadata = Metadata()
    spec: ServiceSpec
    status: dict[str, Any] | None = None


def refuse_pod_autoscaler(document: Document, where: str = "") -> KpaPolicy:
    """Raises InputError: Knative makes its PodAutoscalers itself, and overwrites what others put into them."""
    raise InputError(
        "a PodAutoscaler is Knative's own object, which nobody writes",
        where=where,
        key="kind",
        found=f"{document.get('apiVersion')} {document.get('kind')}",
        allowed=f"a Service of {API_VERSION} with annotations at {PLACE}",
    )


def is_knative_service(document: Document) -> bool:
    """True for a Service of Knative rather than of Kubernetes."""
    return document.get("kind") == KIND and str(document.get("apiVersion", "")).startswith("serving.knative.dev/")


PLACE, LIMIT = "spec.template.metadata.annotations", "spec.template.spec.containerConcurrency"
T = TypeVar("T")
P = TypeVar("P", KpaPolicy, KnativeHpaPolicy)


class _Annotations:
    """The autoscaling annotations of a revision by today's names; one that its class does not read is an error."""

    def __init__(self, written: Mapping[str, str], known: tuple[str, ...], where: str) -> None:
        self.where = where
        self.deadline = written.get(DEADLINE)
        self._text: dict[str, str] = {}
        for key, text in written.items():
            if not key.startswith(PREFIX):
                continue
            name = _name_of(key)
            if name not in known:
                names = [f"{PREFIX}{each}" for each in known]
                raise unknown_name("annotation", key, names, where=where, key=f"{PLACE}.{key}")
            if name in self._text:
                raise InputError("is written twice, in both spellings", where=where, key=self.place(name))
            self._text[name] = text

    @staticmethod
    def place(name: str) -> str:
        return f"{PLACE}.{PREFIX}{name}"

    def text(self, name: str) -> str | None:
        return self._text.get(name)

    def whole(self, name: str) -> int | None:
        return self._read(name, _whole)

    def number(self, name: str) -> float | None:
        return self._read(name, _number)

    def ratio(self, name: str) -> float | None:
        return self._read(name, _ratio)

    def seconds(self, name: str) -> float | None:
        return self._read(name, parse_duration)

    def whole_seconds(self, name: str) -> int | None:
        return self._read(name, _whole_seconds)

    def _read(self, name: str, read: Callable[[str, str, str], T]) -> T | None:
        text = self._text.get(name)
        return None if text is None else read(text, self.where, self.place(name))


def _name_of(key: str) -> str:
    """The name of an annotation in today's spelling; older ones had a second (`minScale` for `min-scale`)."""
    name = key.removeprefix(PREFIX)
    return name if name in _ONE_SPELLING else _dashed(name)


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)


def _whole(text: str, where: str, key: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError("is not a whole number", where=where, key=key, found=text) from None


def _number(text: str, where: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError("is not a number", where=where, key=key, found=text) from None


def _ratio(text: str, where: str, key: str) -> float:
    return ratio_of(text) if math.isfinite(_number(text, where, key)) else math.nan


def _whole_seconds(text: str, where: str, key: str) -> int:
    """A duration that Knative takes to the second only."""
    seconds = parse_duration(text, where, key)
    if seconds != int(seconds):
        raise InputError("is not in whole seconds", where=where, key=key, found=text)
    return int(seconds)


_OF_EITHER = ("class", "metric", "target", "window", "min-scale", "max-scale", "initial-scale")
_OF_KPA = (
    *_OF_EITHER,
    "target-utilization-percentage",
    "panic-window-percentage",
    "panic-threshold-percentage",
    "activation-scale",
    "scale-down-delay",
    "scale-to-zero-pod-retention-period",
    "target-burst-capacity",
    "metric-aggregation-algorithm",
)
_ONE_SPELLING = ("activationScale",)
_HOMES = {
    "replicas": "max-scale",
    "replicas.min": "min-scale",
    "replicas.max": "max-scale",
    "metric": "metric",
    "metric.target": "target",
    "target": "target",
    "window_s": "window",
    "initial_scale": "initial-scale",
    "target_utilization_ratio": "target-utilization-percentage",
    "panic_window_ratio": "panic-window-percentage",
    "panic_threshold_ratio": "panic-threshold-percentage",
    "scale_down_delay_s": "scale-down-delay",
    "pod_retention_s": "scale-to-zero-pod-retention-period",
    "target_burst_capacity": "target-burst-capacity",
    "aggregation": "metric-aggregation-algorithm",
}
"""The annotation of a policy's member."""


def read_knative_service(document: Document, where: str = "") -> KpaPolicy | KnativeHpaPolicy:
    """The policy of a Knative Service: of its autoscaling annotations and its containerConcurrency.

    Raises InputError; annotations in the wrong place, unknown ones and a missing max-scale are among the reasons.
    """
    service = read_object(ServiceObject, document, where)
    _refuse_stray_limit(document, where)
    _refuse_misplaced(service.metadata.annotations, where)
    written = service.spec.template.metadata.annotations
    named = written.get(CLASS, KPA)
    if named not in (KPA, HPA):
        key = _Annotations.place("class")
        raise InputError("is no class of autoscaler", where=where, key=key, found=named, allowed=f"{KPA}, {HPA}")
    annotations = _Annotations(written, _OF_KPA if named == KPA else _OF_EITHER, where)
    members = {
        "replicas": {"min": annotations.whole("min-scale"), "max": _maximum(annotations)},
        "window_s": annotations.whole_seconds("window"),
        "initial_scale": annotations.whole("initial-scale"),
        "container_concurrency": service.spec.template.spec.container_concurrency,
        "progress_deadline_s": _deadline(annotations),
    }
    return _kpa(members, annotations) if named == KPA else _knative_hpa(members, annotations)


def _refuse_misplaced(annotations: Mapping[str, str], where: str) -> None:
    for name in annotations:
        if name.startswith(PREFIX):
            message = f"is not read here: it belongs at {PLACE}"
            raise InputError(message, where=where, key=f"metadata.annotations.{name}")


def _refuse_stray_limit(node: Any, where: str, path: str = "") -> None:
    """A limit that no server reads: the rest of the revision's spec is the workload's and is not looked at."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _refuse_stray_limit(item, where, f"{path}.{index}")
    if isinstance(node, dict):
        for key, child in node.items():
            place = f"{path}.{key}".removeprefix(".")
            if re.sub("[-_]", "", str(key)).lower() == "containerconcurrency" and place != LIMIT:
                raise InputError(f"misplaced key '{key}', which belongs at {LIMIT}", where=where, key=place)
            _refuse_stray_limit(child, where, place)


def _maximum(annotations: _Annotations) -> int:
    maximum = annotations.whole("max-scale")
    if not maximum:
        message = "is missing: without it there is no bound, and a pool has one"
        key = annotations.place("max-scale")
        raise InputError(message, where=annotations.where, key=key, found=maximum, allowed="1 or more")
    return maximum


def _deadline(annotations: _Annotations) -> int | None:
    text = annotations.deadline
    return None if text is None else _whole_seconds(text, annotations.where, f"{PLACE}.{DEADLINE}")


def _kpa(members: Document, annotations: _Annotations) -> KpaPolicy:
    aggregation = annotations.text("metric-aggregation-algorithm")
    members |= {
        "metric": annotations.text("metric") or "concurrency",
        "target": annotations.number("target"),
        "target_utilization_ratio": annotations.ratio("target-utilization-percentage"),
        "panic_window_ratio": annotations.ratio("panic-window-percentage"),
        "panic_threshold_ratio": annotations.ratio("panic-threshold-percentage"),
        "activation_scale": _activation_scale(annotations),
        "scale_down_delay_s": annotations.whole_seconds("scale-down-delay"),
        "pod_retention_s": annotations.seconds("scale-to-zero-pod-retention-period"),
        "target_burst_capacity": annotations.number("target-burst-capacity"),
        "aggregation": _dashed(aggregation or "linear"),
    }
    members["replicas"]["min"] = members["replicas"]["min"] or 0
    return _policy(KpaPolicy, members, annotations.where)


def _policy(kind: type[P], members: Document, where: str) -> P:
    """The policy of members that annotations gave; a fault is reported at its annotation."""
    try:
        return parse(kind, members, where)
    except InputError as error:
        error.key = f"{PREFIX}{_HOMES[error.key]}" if error.key in _HOMES else ""
        raise error.at(where, PLACE) from None


def _activation_scale(annotations: _Annotations) -> int:
    scale = annotations.whole("activation-scale")
    if scale is None:
        return 1
    if scale < 2:
        key = annotations.place("activation-scale")
        raise InputError(
            "must be over 1", where=annotations.where, key=key, found=scale, allowed="2 or more, or absent"
        )
    return scale


def _knative_hpa(members: Document, annotations: _Annotations) -> KnativeHpaPolicy:
    name = annotations.text("metric") or "cpu"
    members["metric"] = {"source": name if name in RESOURCES else "pods", "target": _hpa_target(annotations, name)}
    if name not in RESOURCES:
        found = read_signal(name, "AverageValue", annotations.place("metric"), annotations.where, pods=True)
        members["metric"] |= {"signal": str(found.signal), "window_s": found.window_s}
    # Knative leaves minReplicas out where min-scale is 0, and the API then takes 1
    members["replicas"]["min"] = members["replicas"]["min"] or 1
    return _policy(KnativeHpaPolicy, members, annotations.where)


def _hpa_target(annotations: _Annotations, metric: str) -> int:
    target, key = annotations.number("target"), annotations.place("target")
    if target is None:
        raise InputError("is missing: the HPA would have no metric", where=annotations.where, key=key)
    if target != int(target):
        rule = "rounds it up" if metric == "cpu" else "cuts off the fraction"
        message = f"is not a whole number: Knative {rule}"
        raise InputError(message, where=annotations.where, key=key, found=target)
    return int(target)
