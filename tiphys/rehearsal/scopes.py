"""The names that a workflow may refer to: of the workflow, of a template's inputs, of nodes that have ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiphys.errors import InputError, unknown_name
from tiphys.rehearsal.items import aggregated
from tiphys.rehearsal.leaf import as_text
from tiphys.rehearsal.model import Book, Data
from tiphys.rehearsal.nodes import Node


def rfc3339(at_s: float) -> str:
    """A time as Argo writes it, to the second, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def workflow_arguments(book: Book, given: Mapping[str, object]) -> dict[str, str]:
    """The workflow's parameters: given, else the workflow's own value or default.

    Raises InputError for an unknown name, a missing value, or one that is not in the parameter's enum.
    """
    declared = {p["name"]: p for p in (book.spec.get("arguments") or {}).get("parameters") or []}
    for name in given:
        if name not in declared:
            raise unknown_name("workflow parameter", name, declared, where=book.name)
    return {name: _argument(book, parameter, given) for name, parameter in declared.items()}


def _argument(book: Book, parameter: Data, given: Mapping[str, object]) -> str:
    name = parameter["name"]
    source = parameter.get("valueFrom") or {}
    for holder, key in ((given, name), (parameter, "value"), (parameter, "default"), (source, "default")):
        if holder.get(key) is not None:
            value = as_text(holder[key])
            break
    else:
        raise InputError(
            "has no value", where=book.name, key=f"arguments.parameters.{name}", allowed=_choices(parameter)
        )
    allowed = [as_text(each) for each in parameter.get("enum") or []]
    if allowed and value not in allowed:
        raise InputError(
            "is not one of its choices",
            where=book.name,
            key=f"arguments.parameters.{name}",
            found=value,
            allowed=", ".join(allowed),
        )
    return value


def _choices(parameter: Data) -> str:
    return ", ".join(as_text(each) for each in parameter.get("enum") or []) or "any text"


def workflow_scope(book: Book, arguments: Mapping[str, str], started_at: float) -> dict[str, Any]:
    """`workflow.*`."""
    created = datetime.fromtimestamp(started_at, UTC)
    scope: dict[str, Any] = {
        "workflow.name": book.name,
        "workflow.namespace": str(book.metadata.get("namespace") or "default"),
        "workflow.uid": str(book.metadata.get("uid") or f"rehearsal-{int(started_at)}"),
        "workflow.mainEntrypoint": str(book.spec.get("entrypoint", "")),
        "workflow.serviceAccountName": str(book.spec.get("serviceAccountName", "")),
        "workflow.creationTimestamp": rfc3339(started_at),
        "workflow.creationTimestamp.RFC3339": rfc3339(started_at),
        "workflow.creationTimestamp.s": str(int(started_at)),
        "workflow.status": "Running",
        "workflow.parameters": json.dumps([{"name": k, "value": v} for k, v in arguments.items()]),
    }
    scope["workflow.parameters.json"] = scope["workflow.parameters"]
    scope |= {f"workflow.creationTimestamp.{mark}": created.strftime(f"%{mark}") for mark in "YmdHMSjybBaAIpZ"}
    scope |= {f"workflow.parameters.{name}": value for name, value in arguments.items()}
    for what in ("labels", "annotations"):
        named = book.metadata.get(what) or {}
        scope[f"workflow.{what}"] = json.dumps(named)
        scope |= {f"workflow.{what}.{name}": as_text(value) for name, value in named.items()}
    return scope


def input_scope(template: Data, parameters: Mapping[str, str], artifacts: Mapping[str, Path]) -> dict[str, Any]:
    """`inputs.*` and the paths of a template's files."""
    scope: dict[str, Any] = {f"inputs.parameters.{name}": value for name, value in parameters.items()}
    scope["inputs.parameters"] = json.dumps([{"name": name, "value": value} for name, value in parameters.items()])
    scope |= {f"inputs.artifacts.{name}": path for name, path in artifacts.items()}
    for artifact in (template.get("inputs") or {}).get("artifacts") or []:
        if artifact.get("path"):
            scope[f"inputs.artifacts.{artifact['name']}.path"] = str(artifact["path"])
    outputs = template.get("outputs") or {}
    for artifact in outputs.get("artifacts") or []:
        if artifact.get("path"):
            scope[f"outputs.artifacts.{artifact['name']}.path"] = str(artifact["path"])
    for parameter in outputs.get("parameters") or []:
        if path := (parameter.get("valueFrom") or {}).get("path"):
            scope[f"outputs.parameters.{parameter['name']}.path"] = str(path)
    return scope


def node_scope(prefix: str, node: Node, declared: Data | None) -> dict[str, Any]:
    """What others see of a node that has ended, under `prefix` (`tasks.a`).

    A skipped or omitted node has its declared outputs' defaults; an output without one is None: an absent optional.
    """
    scope: dict[str, Any] = {
        f"{prefix}.id": node.name, f"{prefix}.status": node.phase,
        f"{prefix}.startedAt": rfc3339(node.started_at), f"{prefix}.finishedAt": rfc3339(node.finished_at),
    }  # fmt: skip
    if node.kind == "TaskGroup":
        scope |= aggregated(prefix, node.children)
    if node.outputs is not None:
        outputs = node.outputs
        scope |= {f"{prefix}.outputs.parameters.{name}": value for name, value in outputs.parameters.items()}
        scope |= {f"{prefix}.outputs.artifacts.{name}": path for name, path in outputs.artifacts.items()}
        if outputs.result is not None:
            scope[f"{prefix}.outputs.result"] = outputs.result
        if outputs.exit_code is not None:
            scope[f"{prefix}.exitCode"] = scope[f"{prefix}.outputs.exitCode"] = str(outputs.exit_code)
    elif node.phase in ("Skipped", "Omitted"):
        for parameter in ((declared or {}).get("outputs") or {}).get("parameters") or []:
            default = (parameter.get("valueFrom") or {}).get("default")
            scope[f"{prefix}.outputs.parameters.{parameter['name']}"] = None if default is None else as_text(default)
    return scope


def failures_text(nodes: list[Node]) -> str:
    """`{{workflow.failures}}`: a JSON list as a JSON string, so that it has to be read twice."""
    failures = [
        {"displayName": n.display_name, "message": n.message, "templateName": n.template, "phase": n.phase,
         "podName": n.name.replace(".", "-"), "finishedAt": rfc3339(n.finished_at)}
        for n in nodes if n.failed
    ]  # fmt: skip
    return json.dumps(json.dumps(failures or None))
