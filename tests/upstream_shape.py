"""The API server's own schema of built-in objects, as the Kubernetes client carries it: an oracle of shapes."""

from __future__ import annotations

import re
from typing import Any

from kubernetes import client


def faults(document: Any, kind: str, path: str = "") -> list[str]:
    """Every key and scalar of a document that the upstream type `kind` does not have in that place."""
    listed = re.fullmatch(r"List\[(.+)\]", kind) or re.fullmatch(r"list\[(.+)\]", kind)
    if listed:
        if not isinstance(document, list):
            return [f"{path}: not a list"]
        return [fault for i, item in enumerate(document) for fault in faults(item, listed[1], f"{path}[{i}]")]
    if kind.lower().startswith(("dict(", "dict[")):
        strings = isinstance(document, dict) and all(isinstance(value, str) for value in document.values())
        return [] if strings else [f"{path}: not a map of strings"]
    if kind in ("str", "int", "bool", "float"):
        wanted = {"str": str, "int": int, "bool": bool, "float": float}[kind]
        return [] if type(document) is wanted else [f"{path}: {document!r} is not {kind}"]
    return _object_faults(document, getattr(client, kind), path)


def _object_faults(document: Any, model: Any, path: str) -> list[str]:
    if not isinstance(document, dict):
        return [f"{path}: not an object"]
    members = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
    found = []
    for key, value in document.items():
        if key not in members:
            found.append(f"{path}.{key}: no such key")
        else:
            found += faults(value, members[key], f"{path}.{key}")
    return found
