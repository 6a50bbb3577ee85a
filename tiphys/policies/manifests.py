"""Policies as Kubernetes manifests, and back: `import_manifests(render(policy, pool)) == policy`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tiphys.domain.platform import ScalingPolicy
from tiphys.errors import InputError
from tiphys.policies.any_policy import ClosedPolicy
from tiphys.policies.fixed import FixedPolicy, read_scale, render_fixed
from tiphys.policies.hpa.manifest import read_hpa, render_hpa
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.manifest import read_scaled_object, render_scaled_object
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.policies.kpa.manifest import (
    is_knative_service,
    read_knative_service,
    refuse_pod_autoscaler,
    render_knative_hpa,
    render_kpa,
)
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.objects import Document, PoolContext
from tiphys.policies.schedule.manifest import is_schedule, read_schedule, render_schedule
from tiphys.policies.schedule.spec import SchedulePolicy

READERS: dict[str, Callable[[Document, str], ClosedPolicy]] = {
    "HorizontalPodAutoscaler": read_hpa,
    "ScaledObject": lambda document, where: (read_schedule if is_schedule(document) else read_scaled_object)(
        document, where
    ),
    "Service": read_knative_service,
    "PodAutoscaler": refuse_pod_autoscaler,
}


def render(policy: ScalingPolicy, pool: PoolContext) -> list[Document]:
    """Every object that puts a policy in force on a pool; an autoscaled workload's replicas are never among them.

    Raises InputError when the pool's servers do not show a signal.
    """
    if isinstance(policy, HpaPolicy):
        return render_hpa(policy, pool)
    if isinstance(policy, KedaPolicy):
        return render_scaled_object(policy, pool)
    if isinstance(policy, SchedulePolicy):
        return render_schedule(policy, pool)
    if isinstance(policy, KpaPolicy):
        return render_kpa(policy, pool)
    if isinstance(policy, KnativeHpaPolicy):
        return render_knative_hpa(policy, pool)
    if isinstance(policy, FixedPolicy):
        return render_fixed(policy, pool)
    raise InputError("this kind of policy has no manifest", key="kind", found=policy.kind)


def is_manifest(document: object) -> bool:
    """True for what is written for Kubernetes rather than for us."""
    return isinstance(document, dict) and "apiVersion" in document


def import_manifests(documents: Iterable[Any], *, where: str = "") -> ClosedPolicy:
    """The policy of the one HPA, ScaledObject or Knative Service among some documents; else a workload's replicas.

    Other kinds are passed over; a `List` is opened. Raises InputError with file, key, what was found and what is known.
    """
    objects = [each for document in documents for each in _items(document)]
    scalers = [each for each in objects if _is_scaler(each)]
    if len(scalers) > 1:
        names = ", ".join(f"{each['kind']}/{_name(each)}" for each in scalers)
        raise InputError("expected one scaler", where=where, found=names)
    if scalers:
        return READERS[scalers[0]["kind"]](scalers[0], where)
    scales = [each for each in objects if isinstance(each.get("spec"), dict) and "replicas" in each["spec"]]
    if len(scales) == 1:
        return read_scale(scales[0], where)
    found = ", ".join(str(each.get("kind")) for each in objects) or "nothing"
    raise InputError(
        "no scaler in these manifests",
        where=where,
        found=found,
        allowed="HorizontalPodAutoscaler or ScaledObject or Knative's Service, or one spec.replicas",
    )


def _is_scaler(document: Document) -> bool:
    kind = document.get("kind")
    return kind in READERS and (kind != "Service" or is_knative_service(document))


def _items(document: Any) -> list[Document]:
    if not isinstance(document, dict):
        return []
    inner = document.get("items")
    if document.get("kind") == "List" and isinstance(inner, list):
        return [each for item in inner for each in _items(item)]
    return [document]


def _name(document: Document) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("name", "?")) if isinstance(metadata, dict) else "?"
