"""Kubernetes objects of policies: where they go, and how those of others are read.

What is read is parsed by strict models, as a server that validates strictly would: a misspelt key, or one in the wrong
place, is an error that says where the key belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from tiphys.dialects import Dialect
from tiphys.domain.service import Target
from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen, parse
from tiphys.errors import InputError

MANAGED_BY = {"app.kubernetes.io/managed-by": "tiphys"}
Document = dict[str, Any]


@dataclass(frozen=True)
class PoolContext:
    """What a manifest says besides the policy's numbers: names, places, the dialect of the pool's servers.

    `name` is the scaler's, `service` the Service in front of the pool's pods (named as the workload where absent),
    `selector` the labels that pick the pool's series in Prometheus (namespace and service where empty).
    """

    name: str
    target: Target
    dialect: Dialect
    namespace: str = "default"
    service: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    labels: Mapping[str, str] = field(default_factory=dict)
    rule_interval_s: float | None = None
    """How often recording rules are evaluated; Prometheus' own interval where absent."""

    @property
    def service_name(self) -> str:
        """The Service in front of the pool's pods."""
        return self.service or self.target.name

    @property
    def series_selector(self) -> Mapping[str, str]:
        """Labels that pick the pool's series."""
        return self.selector or {"namespace": self.namespace, "service": self.service_name}

    def metadata(self, name: str = "", annotations: Mapping[str, str] | None = None) -> Document:
        """Metadata of an object that tiphys makes."""
        data: Document = {
            "name": name or self.name,
            "namespace": self.namespace,
            "labels": {**MANAGED_BY, **self.labels},
        }
        return data | {"annotations": dict(annotations)} if annotations else data

    def target_ref(self) -> Document:
        """scaleTargetRef of the pool's workload."""
        return {"apiVersion": self.target.api_version, "kind": self.target.kind, "name": self.target.name}


@dataclass(frozen=True)
class Recording:
    """A signal that is recorded: over which window, and whether for each pod."""

    signal: Signal
    window_s: int | None
    each_pod: bool = False


def recording_rules(recordings: Iterable[Recording], pool: PoolContext) -> list[Document]:
    """The PrometheusRule that queries of these signals read from; nothing where none is recorded."""
    rules = [
        {"record": rule.record, "expr": rule.expression, "labels": dict(rule.labels)}
        for each in dict.fromkeys(recordings)
        for rule in pool.dialect.recording_rules(
            each.signal, pool.series_selector, window_s=each.window_s, each_pod=each.each_pod
        )
    ]
    if not rules:
        return []
    interval = {} if pool.rule_interval_s is None else {"interval": f"{pool.rule_interval_s:g}s"}
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": pool.metadata(f"{pool.name}-recording-rules"),
            "spec": {"groups": [{"name": f"tiphys.{pool.name}", **interval, "rules": rules}]},
        }
    ]


class Manifest(Frozen):
    """Part of a Kubernetes object as it stands in a file: camelCase keys, unknown ones are errors."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=False)


class TargetRef(Manifest):
    """The workload that is scaled."""

    api_version: str = "apps/v1"
    kind: str = "Deployment"
    name: str


M = TypeVar("M", bound=Manifest)


def read_object(kind: type[M], document: object, where: str = "") -> M:
    """A Kubernetes object as a strict model. Raises InputError; for a misplaced key it says where it belongs."""
    try:
        return parse(kind, document, where)
    except InputError as error:
        key = error.key.rsplit(".", 1)[-1]
        homes = [path for path in _paths(kind) if path.rsplit(".", 1)[-1] == key]
        if not error.message.startswith("unknown key") or not homes:
            raise
        message = f"misplaced key '{key}', which belongs at {' or '.join(homes)}"
        raise InputError(message, where=error.where, key=error.key, allowed=error.allowed) from None


def _paths(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, member in kind.model_fields.items():
        path = f"{prefix}{member.alias or name}"
        yield path
        for inner in _models(member.annotation):
            yield from _paths(inner, f"{path}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


P = TypeVar("P", bound=Frozen)


def policy_from(kind: type[P], members: Document, where: str = "", key: str = "") -> P:
    """A policy, or part of one, of members that a manifest gave; a fault is reported at the manifest's place."""
    try:
        return parse(kind, members, where)
    except InputError as error:
        raise error.at(where, key) from None
