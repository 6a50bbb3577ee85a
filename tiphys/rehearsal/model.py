"""A workflow as plain data: which template is which, and which fields this machine can act out.

`IGNORED` is the one list of fields that change nothing here (where a pod runs, with what, what is kept of it). Every
other field that is not acted out is a RehearsalError that names it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiphys.errors import InputError, RehearsalError, nearest

Data = dict[str, Any]

IGNORED: dict[str, frozenset[str]] = {
    "workflow": frozenset({"status"}),
    "spec": frozenset({
        "affinity", "archiveLogs", "artifactGC", "artifactRepositoryRef", "automountServiceAccountToken", "dnsConfig",
        "dnsPolicy", "executor", "hostAliases", "hostNetwork", "imagePullSecrets", "metrics", "nodeSelector",
        "podDisruptionBudget", "podGC", "podMetadata", "podPriorityClassName", "podSpecPatch", "priority",
        "schedulerName", "securityContext", "serviceAccountName",
        "synchronization", "tolerations", "ttlStrategy", "volumeClaimGC",
        "workflowMetadata",
    }),
    "template": frozenset({
        "affinity", "annotations", "archiveLocation", "automountServiceAccountToken", "executor", "hostAliases",
        "memoize", "metadata", "metrics", "nodeSelector",
        "parallelism", "pendingTimeout", "podSpecPatch", "priorityClassName",
        "schedulerName", "securityContext", "serviceAccountName", "tolerations",
    }),
    "script": frozenset({
        "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports", "readinessProbe", "resizePolicy",
        "resources", "securityContext", "startupProbe", "terminationMessagePath", "terminationMessagePolicy",
        "volumeMounts",
    }),
    "retryStrategy": frozenset({"affinity"}),
    "parameter": frozenset({"description"}),
    "artifact": frozenset({"archive", "archiveLogs", "artifactGC", "deleted", "mode", "recurseMode"}),
    "cron": frozenset({
        "concurrencyPolicy", "failedJobsHistoryLimit", "schedules", "startingDeadlineSeconds", "stopStrategy",
        "successfulJobsHistoryLimit", "suspend", "timezone", "when", "workflowMetadata",
    }),
}  # fmt: skip
"""Fields that are safe to ignore on one machine, by the object that they stand in."""

ACTED: dict[str, frozenset[str]] = {
    "workflow": frozenset({"apiVersion", "kind", "metadata", "spec"}),
    "cron": frozenset({"workflowSpec"}),
    "spec": frozenset({
        "activeDeadlineSeconds", "arguments", "entrypoint", "hooks", "onExit", "parallelism", "retryStrategy",
        "templateDefaults", "templates", "volumes", "workflowTemplateRef",
    }),
    "template": frozenset({
        "activeDeadlineSeconds", "dag", "failFast", "inputs", "name", "outputs", "retryStrategy", "script", "steps",
        "suspend", "synchronization", "timeout", "volumes",
    }),
    "volume": frozenset({"emptyDir", "name"}),
    "script": frozenset({"args", "command", "env", "source"}),
    "env": frozenset({"name", "value"}),
    "dag": frozenset({"failFast", "target", "tasks"}),
    "task": frozenset({
        "arguments", "continueOn", "dependencies", "depends", "hooks", "inline", "name", "onExit", "template",
        "templateRef", "when", "withItems", "withParam", "withSequence",
    }),
    "step": frozenset({
        "arguments", "continueOn", "hooks", "inline", "name", "onExit", "template", "templateRef", "when", "withItems",
        "withParam", "withSequence",
    }),
    "continueOn": frozenset({"error", "failed"}),
    "hooks": frozenset({"exit"}),
    "hook": frozenset({"arguments", "expression", "template", "templateRef"}),
    "withSequence": frozenset({"count", "end", "format", "start"}),
    "templateRef": frozenset({"clusterScope", "name", "template"}),
    "retryStrategy": frozenset({"backoff", "expression", "limit", "retryPolicy"}),
    "backoff": frozenset({"cap", "duration", "factor", "maxDuration"}),
    "suspend": frozenset({"duration"}),
    "synchronization": frozenset({"mutexes", "semaphores"}),
    "io": frozenset({"artifacts", "parameters"}),
    "parameter": frozenset({"default", "enum", "globalName", "name", "value", "valueFrom"}),
    "valueFrom": frozenset({"default", "expression", "parameter", "path", "supplied"}),
    "argumentFrom": frozenset({"configMapKeyRef", "default"}),
    "artifact": frozenset({"from", "globalName", "name", "optional", "path", "raw", "subPath"}),
}  # fmt: skip
"""Fields that the rehearsal acts on."""

KINDS = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")


def as_data(workflow: object) -> Data:
    """Plain data of a workflow: of a mapping, of what has `to_dict()` (Hera), of a pydantic model (`build()`).

    Raises InputError for anything else and for a kind that is no workflow.
    """
    data = _plain(workflow)
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(data, dict) or kind not in KINDS:
        raise InputError("is not a workflow", where="workflow", key="kind", found=kind, allowed=", ".join(KINDS))
    return data


def _plain(workflow: object) -> Any:
    if isinstance(workflow, Mapping):
        return copy.deepcopy(dict(workflow))
    if hasattr(workflow, "to_dict"):
        return copy.deepcopy(workflow.to_dict())
    if hasattr(workflow, "model_dump"):
        return workflow.model_dump(mode="json", by_alias=True, exclude_none=True)
    return None


@dataclass(frozen=True)
class Place:
    """A template and the workflow that it stands in, in which the names that it uses are looked up."""

    template: Data
    home: str

    @property
    def name(self) -> str:
        """The template's name; `inline` for one that is written where it is used."""
        return str(self.template.get("name", "inline"))

    @property
    def kind(self) -> str:
        """`dag`, `steps`, `suspend` or `script`; raises RehearsalError for what else there is (`container`, ...)."""
        for kind in ("dag", "steps", "suspend", "script"):
            if kind in self.template:
                return kind
        raise unsupported(self.home, self.name, _unknown(self.template, "template") or "template without a body")


@dataclass(frozen=True)
class Book:
    """Every template that a rehearsal may need: the workflow's own, and those of the workflows handed with it."""

    name: str
    spec: Data
    metadata: Data
    kind: str
    others: Mapping[str, Data] = field(default_factory=dict)

    def place(self, user: Mapping[str, Any], home: str, where: str) -> Place:
        """The template that a task, step or hook names. Raises RehearsalError when it is not there."""
        if "inline" in user:
            return Place({"name": "inline", **user["inline"]}, home)
        if ref := user.get("templateRef"):
            return self.find(ref.get("template", ""), ref.get("name", ""), where)
        return self.find(user.get("template", ""), home, where)

    def find(self, template: str, home: str, where: str) -> Place:
        """A template by name within one workflow."""
        spec = self.spec if home == self.name else self.others.get(home)
        if spec is None:
            known = ", ".join(sorted(self.others)) or "none were handed over"
            raise RehearsalError(f"{where}: no workflow template '{home}' ({known})", field="templateRef")
        defaults = spec.get("templateDefaults") or {}
        for each in spec.get("templates") or []:
            if each.get("name") == template:
                return Place(_merged(defaults, each), home)
        names = [str(each.get("name")) for each in spec.get("templates") or []]
        hint = nearest(template, names)
        raise RehearsalError(
            f"{where}: template name '{template}' undefined in '{home}'" + (f"; {hint}" if hint else ""),
            field="template",
        )


def read(workflow: object, templates: Sequence[object] = ()) -> Book:
    """The book of a workflow. Raises RehearsalError for a field that cannot be acted out, InputError for nonsense."""
    data = as_data(workflow)
    others = {name_of(each): _spec(each) for each in map(as_data, templates)}
    spec = _spec(data)
    if ref := spec.get("workflowTemplateRef"):
        if ref.get("name") not in others:
            raise RehearsalError(
                f"workflowTemplateRef: no workflow template '{ref.get('name')}' was handed over",
                field="workflowTemplateRef",
            )
        spec = _submitted(others[ref["name"]], spec)
    book = Book(name_of(data), spec, data.get("metadata") or {}, data["kind"], others)
    check_fields(book, data)
    return book


def name_of(data: Data) -> str:
    """The name of a workflow; of one whose name is generated, the stem."""
    metadata = data.get("metadata") or {}
    return str(metadata.get("name") or str(metadata.get("generateName", "workflow")).rstrip("-"))


def _spec(data: Data) -> Data:
    spec: Data = data.get("spec") or {}
    if data["kind"] == "CronWorkflow":
        return spec.get("workflowSpec") or {}
    return spec


def _submitted(template: Data, spec: Data) -> Data:
    """A workflow template's spec as submitted by a workflow that refers to it: its fields and arguments win."""
    arguments = {p["name"]: p for p in (template.get("arguments") or {}).get("parameters") or []}
    for given in (spec.get("arguments") or {}).get("parameters") or []:
        arguments[given["name"]] = {**arguments.get(given["name"], {}), **given}
    merged = {**template, **{key: value for key, value in spec.items() if key != "workflowTemplateRef"}}
    merged["arguments"] = {"parameters": list(arguments.values())}
    return merged


def _merged(defaults: Data, over: Data) -> Data:
    merged = dict(defaults)
    for key, value in over.items():
        both_maps = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_maps else value
    return merged


def unsupported(home: str, path: str, name: str) -> RehearsalError:
    """The error for a field that this machine cannot act out."""
    return RehearsalError(
        f"{home}: {path}: the field '{name}' is not acted out on this machine, and is not one that is safe to ignore",
        field=name,
    )


_UNSET: tuple[Any, ...] = (None, False, "", [], {})


def _unknown(data: Mapping[str, Any], what: str) -> str:
    known = ACTED.get(what, frozenset()) | IGNORED.get(what, frozenset())
    return next((key for key, value in data.items() if key not in known and value not in _UNSET), "")


def check_fields(book: Book, data: Data) -> None:
    """Raises RehearsalError for the first field of a workflow that can neither be acted out nor ignored."""
    _known(data, "workflow", book.name, "workflow")
    if book.kind == "CronWorkflow":
        _known(data.get("spec") or {}, "cron", book.name, "spec")
    _known(book.spec, "spec", book.name, "spec")
    _check_io(book.spec.get("arguments") or {}, book.name, "spec.arguments", source="argumentFrom")
    _check_volumes(book.spec, book.name, "spec")
    _check_hooks(book.spec, book.name, "spec")
    _check_retries(book.spec, book.name, "spec")
    _check_template(book.spec.get("templateDefaults") or {}, book.name, "spec.templateDefaults")
    for template in book.spec.get("templates") or []:
        _check_template(template, book.name, f"template '{template.get('name')}'")


def check_place(place: Place) -> None:
    """The same for one template, of whichever workflow."""
    _check_template(place.template, place.home, f"template '{place.name}'")


def _known(data: Any, what: str, home: str, path: str) -> None:
    if not isinstance(data, Mapping):
        raise RehearsalError(f"{home}: {path}: expected a map, found {data!r}", field=what)
    if name := _unknown(data, what):
        raise unsupported(home, path, name)


def _check_template(template: Data, home: str, path: str) -> None:
    _known(template, "template", home, path)
    _check_io(template.get("inputs") or {}, home, f"{path}: inputs")
    _check_io(template.get("outputs") or {}, home, f"{path}: outputs")
    _check_retries(template, home, path)
    _check_volumes(template, home, path)
    if sync := template.get("synchronization"):
        _known(sync, "synchronization", home, f"{path}: synchronization")
        if "dag" in template or "steps" in template:
            raise unsupported(home, path, "synchronization")
    if "timeout" in template and ("dag" in template or "steps" in template):
        raise RehearsalError(f"{home}: {path}: a DAG or steps template supports no timeout", field="timeout")
    if "suspend" in template:
        _known(template["suspend"] or {}, "suspend", home, f"{path}: suspend")
    if "script" in template:
        _check_script(template["script"], home, f"{path}: script")
    if "dag" in template:
        _known(template["dag"], "dag", home, f"{path}: dag")
    for what, user in users(template):
        _check_user(user, what, home, f"{path}: {what} '{user.get('name')}'")


def users(template: Data) -> Iterator[tuple[str, Data]]:
    """The tasks of a DAG or the steps of a steps template, each with which of the two it is."""
    for task in (template.get("dag") or {}).get("tasks") or []:
        yield "task", task
    for group in template.get("steps") or []:
        for step in group.get("steps", []) if isinstance(group, dict) else group:
            yield "step", step


def _check_script(script: Data, home: str, path: str) -> None:
    _known(script, "script", home, path)
    for entry in script.get("env") or []:
        _known(entry, "env", home, f"{path}: env '{entry.get('name')}'")


def _check_user(user: Data, what: str, home: str, path: str) -> None:
    _known(user, what, home, path)
    for name in ("continueOn", "withSequence", "templateRef"):
        if user.get(name):
            _known(user[name], name, home, f"{path}: {name}")
    _check_io(user.get("arguments") or {}, home, f"{path}: arguments")
    _check_hooks(user, home, path)
    if "inline" in user:
        _check_template(user["inline"], home, f"{path}: inline")


def _check_hooks(holder: Data, home: str, path: str) -> None:
    for name, hook in (holder.get("hooks") or {}).items():
        if name not in ACTED["hooks"]:
            raise unsupported(home, path, f"hooks.{name}")
        _known(hook, "hook", home, f"{path}: hooks.{name}")
        _check_io(hook.get("arguments") or {}, home, f"{path}: hooks.{name}.arguments")


def _check_retries(holder: Data, home: str, path: str) -> None:
    if strategy := holder.get("retryStrategy"):
        _known(strategy, "retryStrategy", home, f"{path}: retryStrategy")
        _known(strategy.get("backoff") or {}, "backoff", home, f"{path}: retryStrategy.backoff")


def _check_volumes(holder: Data, home: str, path: str) -> None:
    """An empty folder is harmless; a volume that holds something is what a step would miss here."""
    for volume in holder.get("volumes") or []:
        if name := _unknown(volume, "volume"):
            raise unsupported(home, f"{path}: volume '{volume.get('name')}'", f"volumes.{name}")


def _check_io(io: Data, home: str, path: str, *, source: str = "valueFrom") -> None:
    _known(io, "io", home, path)
    for parameter in io.get("parameters") or []:
        _known(parameter, "parameter", home, f"{path}.{parameter.get('name')}")
        _known(parameter.get("valueFrom") or {}, source, home, f"{path}.{parameter.get('name')}.valueFrom")
    for artifact in io.get("artifacts") or []:
        _known(artifact, "artifact", home, f"{path}.{artifact.get('name')}")
