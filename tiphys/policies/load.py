"""Policies and spaces from where people keep them: by name, in files of ours or of Kubernetes, or written in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiphys.configs import config_file, config_names
from tiphys.documents import parse_yaml, read_text
from tiphys.domain.platform import ScalingPolicy
from tiphys.errors import InputError
from tiphys.policies.any_policy import parse_policy
from tiphys.policies.manifests import import_manifests, is_manifest
from tiphys.policies.space import PolicySpace
from tiphys.policies.space_document import is_open


def load_policy(named: str | Path | dict[str, Any], *, where: str = "") -> ScalingPolicy | PolicySpace:
    """The policy or space of a name in configs/policies, of a file (ours or a Kubernetes manifest), or of a document.

    `where` is the file that names it, for messages; a relative path is looked for here and then beside that file.
    Raises InputError: an unknown name lists the known ones.
    """
    if isinstance(named, dict):
        return policy_of([named], where=where)
    path = _path(str(named), where)
    return policy_of(parse_yaml(read_text(path), str(path)), where=str(path), name=path.stem)


def policy_of(documents: list[Any], *, where: str = "", name: str = "") -> ScalingPolicy | PolicySpace:
    """The policy or space that the documents of one file state."""
    if any(is_manifest(document) for document in documents):
        return import_manifests(documents, where=where)
    if len(documents) != 1:
        raise InputError("expected one policy", where=where, found=f"{len(documents)} documents")
    document = documents[0]
    if is_open(document):
        return PolicySpace(document, name or where, where)
    return parse_policy(document, where)


def _path(named: str, where: str) -> Path:
    if "/" in named or named.endswith((".yaml", ".yml", ".json")):
        path = Path(named)
        beside = Path(where).parent / named
        if not path.exists() and beside.exists():
            return beside
        if not path.exists():
            known = ", ".join(config_names("policies"))
            raise InputError("no such policy file", where=where, found=named, allowed=f"a path, or one of: {known}")
        return path
    return config_file("policies", named, where=where)
