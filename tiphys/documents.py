"""Files of plain data: YAML and JSON in, YAML and JSON out. The one import of PyYAML.

Duplicate keys are errors, as they are in no YAML library by default. Files are written beside their place and
renamed, so that a reader sees the old one or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tiphys.errors import InputError


class _StrictLoader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    pass


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: dict[Hashable, Any] = {}
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict | set):
            raise yaml.MarkedYAMLError(problem="a key must be one word or number", problem_mark=key_node.start_mark)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise yaml.MarkedYAMLError(problem=f"duplicate key '{key}' (line {line})", problem_mark=key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# Dates stay strings: no value of ours is a date, and a name such as 2026-11-21 must not become one.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _StrictLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, where: str = "") -> list[Any]:
    """Every document of a YAML text. Raises InputError for broken YAML or a duplicate key."""
    try:
        return [doc for doc in yaml.load_all(text, Loader=_StrictLoader) if doc is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{problem}{at}", where=where) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise InputError(f"cannot be read as YAML: {str(error).partition(';')[0]}", where=where) from None


def read_text(path: Path) -> str:
    """The text of a file. Raises InputError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise InputError("is not a UTF-8 text file", where=str(path)) from None


def read_yaml(path: Path) -> Any:
    """The one document of a YAML (or JSON) file."""
    documents = parse_yaml(read_text(path), str(path))
    if len(documents) != 1:
        raise InputError("expected one YAML document", where=str(path), found=len(documents))
    return documents[0]


def read_yaml_all(path: Path) -> list[Any]:
    """Every document of a YAML file."""
    return parse_yaml(read_text(path), str(path))


class _Dumper(yaml.SafeDumper):
    """Text of several lines stands as a block, so that a file within a file can be read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(*documents: Any) -> str:
    """YAML text, keys in their given order."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True
    )


def to_json(document: Any) -> str:
    """JSON text with the shortest form of every double; a value that is not finite becomes null."""
    return json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole. Raises InputError when the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None


def write_yaml(path: Path, documents: Iterable[Any]) -> None:
    """Write YAML documents to a file, atomically."""
    write_atomically(path, to_yaml(*documents))
