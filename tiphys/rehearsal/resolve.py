"""References to what other nodes produced: in a task's arguments, and in the outputs of a DAG or steps template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiphys.rehearsal.expressions import ExpressionError, evaluate, nested
from tiphys.rehearsal.leaf import as_text
from tiphys.rehearsal.model import Data
from tiphys.rehearsal.nodes import Outputs
from tiphys.rehearsal.substitution import Scope, UnresolvedError, pure_reference, substitute


def filled_in(user: Data, scope: Scope) -> tuple[Data, frozenset[str]]:
    """A task with its references replaced, and the parameters that refer to an absent optional and nothing else."""
    arguments = user.get("arguments") or {}
    absent = frozenset(
        p["name"]
        for p in arguments.get("parameters") or []
        if (name := pure_reference(p.get("value"))) and name in scope and scope[name] is None
    )
    kept = [p for p in arguments.get("parameters") or [] if p["name"] not in absent]
    body = {key: value for key, value in user.items() if key != "hooks"}
    if arguments:
        body["arguments"] = {**arguments, "parameters": kept}
    filled: Data = substitute(body, scope, strict=True)
    return {**filled, **({"hooks": user["hooks"]} if "hooks" in user else {})}, absent


def artifact_from(artifact: Data, scope: Scope) -> Path | None:
    """The file that an artifact's `from` names, or its part. Raises UnresolvedError unless the artifact is optional."""
    source = str(artifact["from"])
    found = scope.get(pure_reference(source) or source)
    if not isinstance(found, Path):
        if artifact.get("optional"):
            return None
        raise UnresolvedError(f"Unable to resolve: {source}")
    part = substitute(artifact.get("subPath") or "", scope, strict=True)
    path = found / part if part else found
    if not path.exists():
        raise UnresolvedError(f"{source}: there is no '{part}' in it")
    return path


def outputs_from(template: Data, scope: Scope) -> Outputs | None:
    """The outputs of a DAG or steps template, taken from its tasks. Raises UnresolvedError for one that is absent."""
    declared = template.get("outputs") or {}
    if not declared.get("parameters") and not declared.get("artifacts"):
        return None
    parameters = {p["name"]: _output(p, scope) for p in declared.get("parameters") or []}
    artifacts: dict[str, Path] = {}
    for artifact in declared.get("artifacts") or []:
        path = artifact_from(artifact, scope) if artifact.get("from") else None
        if path is not None:
            artifacts[artifact["name"]] = path
    return Outputs(parameters, artifacts)


def _output(parameter: Data, scope: Scope) -> str:
    source = parameter.get("valueFrom") or {}
    try:
        if source.get("expression"):
            value: Any = evaluate(str(source["expression"]), nested(texts(scope)))
        else:
            reference = str(source.get("parameter", ""))
            name = pure_reference(reference)
            value = scope.get(name) if name in scope else substitute(reference, scope, strict=True)
            if not name and reference not in scope and "{{" not in reference:
                value = None
    except (UnresolvedError, ExpressionError):
        if source.get("default") is None:
            raise
        value = None
    if value is None and source.get("default") is not None:
        return as_text(source["default"])
    if value is None or (isinstance(value, str) and pure_reference(value)):
        raise UnresolvedError(f'output parameter "{parameter["name"]}": "{source.get("parameter", "")}" is absent')
    return as_text(value)


def texts(scope: Scope) -> dict[str, Any]:
    """The scope without its files: what an expression can speak of."""
    return {key: value for key, value in scope.items() if value is None or isinstance(value, str)}
