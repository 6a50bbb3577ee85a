"""Reading the open values of a space's document: ranges, choices, ties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel

from tiphys.errors import InputError, unknown_name
from tiphys.policies.quantity import parse_quantity

MARKS = {"between": {"between", "log", "step"}, "choice": {"choice"}, "same_as": {"same_as"}}
Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Range:
    """An open number; `whole` where the policy takes integers."""

    path: str
    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def nearest(self, value: float) -> float:
        """The value itself, or the end of the range where rounding to thousandths moved it out by less than one."""
        inside = min(max(value, self.low), self.high)
        return inside if abs(inside - value) < 1e-3 and not self.whole else value


@dataclass(frozen=True)
class Choice:
    """An open value with alternatives; labels are the values themselves where all are scalar."""

    path: str
    options: tuple[Node, ...]
    labels: tuple[Scalar, ...]

    def option(self, label: Scalar) -> Node:
        """The alternative with a label."""
        return self.options[self.labels.index(label)]


@dataclass(frozen=True)
class SameAs:
    """A value that is tied to another's."""

    path: str
    target: str


Node: TypeAlias = "Range | Choice | SameAs | dict[str, Node] | list[Node] | Scalar"


def is_open(document: object) -> bool:
    """True when a document holds a range, a choice or a tie, or names a published default: when it is a space's."""
    if isinstance(document, dict):
        named = "published_default" in document or any(mark in document for mark in MARKS)
        return named or any(is_open(child) for child in document.values())
    return isinstance(document, list) and any(is_open(child) for child in document)


def read_node(data: Any, path: str, kind: type[BaseModel], where: str) -> Node:
    """The tree of a document. Raises InputError for a malformed range, choice or tie."""
    if isinstance(data, dict):
        for mark, keys in MARKS.items():
            if mark in data:
                _only(data, keys, path, where)
                return {"between": _range, "choice": _choice, "same_as": _same_as}[mark](data, path, kind, where)
        return {str(key): read_node(child, _joined(path, key), kind, where) for key, child in data.items()}
    if isinstance(data, list | tuple):
        return [read_node(child, _joined(path, index), kind, where) for index, child in enumerate(data)]
    if isinstance(data, float) and not math.isfinite(data):
        raise InputError("is not a finite number", where=where, key=path, found=data)
    return data  # type: ignore[no-any-return]


def _joined(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _only(data: dict[str, Any], keys: set[str], path: str, where: str) -> None:
    for key in data:
        if key not in keys:
            raise unknown_name("key", str(key), keys, where=where, key=_joined(path, key))


def _range(data: dict[str, Any], path: str, kind: type[BaseModel], where: str) -> Node:
    types = set(_types_at(kind, path))
    if not types & {int, float}:
        raise InputError("is not a number and cannot be a range", where=where, key=path, allowed="choice")
    whole = float not in types
    ends = data["between"]
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise InputError("is not a pair", where=where, key=f"{path}.between", found=ends, allowed="[low, high]")
    low, high = (_number(end, whole, f"{path}.between", where) for end in ends)
    if low > high:
        raise InputError("low is over high", where=where, key=f"{path}.between", found=list(ends))
    if low == high:
        return low
    log = data.get("log", False)
    if not isinstance(log, bool):
        raise InputError("is not true or false", where=where, key=f"{path}.log", found=log)
    if log and low <= 0:
        raise InputError("a logarithmic range starts over 0", where=where, key=f"{path}.between", found=list(ends))
    step = _step(data, low, high, whole, path, where) if data.get("step") is not None else None
    if log and step is not None:
        raise InputError("a range has log or step, not both", where=where, key=f"{path}.step", found=step)
    return Range(path, low, high, log, step, whole)


def _number(value: object, whole: bool, key: str, where: str) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError("is not a finite number", where=where, key=key, found=value)
    exact = parse_quantity(value, where, key)
    if whole and exact.denominator != 1:
        raise InputError("is not a whole number", where=where, key=key, found=value)
    return int(exact) if whole else float(exact)


def _step(data: dict[str, Any], low: float, high: float, whole: bool, path: str, where: str) -> float:
    step = _number(data["step"], whole, f"{path}.step", where)
    steps = (high - low) / step if step > 0 else 0.0
    if steps < 1 or abs(steps - round(steps)) > 1e-9:
        raise InputError(
            f"does not lead from {low:g} to {high:g} in whole steps", where=where, key=f"{path}.step", found=step
        )
    return step


def _choice(data: dict[str, Any], path: str, kind: type[BaseModel], where: str) -> Node:
    options = data["choice"]
    if not isinstance(options, list) or not options:
        raise InputError("is not a list of alternatives", where=where, key=f"{path}.choice", found=options)
    if len(options) == 1:
        return read_node(options[0], path, kind, where)
    nodes = tuple(read_node(option, f"{path}#{index}", kind, where) for index, option in enumerate(options))
    scalar = not any(isinstance(node, dict | list | Range | Choice | SameAs) for node in nodes)
    labels = tuple(options) if scalar else tuple(f"#{index}" for index in range(len(nodes)))
    if len({(type(label), label) for label in labels}) < len(labels):
        raise InputError("names an alternative twice", where=where, key=f"{path}.choice", found=options)
    return Choice(path, nodes, labels)


def _same_as(data: dict[str, Any], path: str, kind: type[BaseModel], where: str) -> Node:
    target = data["same_as"]
    if not isinstance(target, str) or not target:
        raise InputError("is not a path", where=where, key=f"{path}.same_as", found=target, allowed="a.dotted.path")
    return SameAs(path, target)


def _types_at(kind: Any, path: str) -> Iterator[type]:
    """The plain types that a policy takes at a path; nothing where the path leads nowhere."""
    places = [kind]
    for part in (part.split("#")[0] for part in path.split(".") if part):
        models = [model for place in places for model in _models(place)]
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        places = fields if not part.isdigit() else places
    for place in places:
        yield from _plain(place)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _plain(annotation: Any) -> Iterator[type]:
    if annotation in (int, float, bool, str):
        yield annotation
    for part in get_args(annotation):
        yield from _plain(part)
