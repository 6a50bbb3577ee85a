"""How far two policies are from each other, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiphys.domain.platform import ScalingPolicy


def differences(a: ScalingPolicy, b: ScalingPolicy) -> list[tuple[str, Any, Any]]:
    """(dotted path, value in `a`, value in `b`) of every leaf that differs; None where one has none."""
    first, second = dict(leaves(a)), dict(leaves(b))
    paths = [*first, *(path for path in second if path not in first)]
    return [(path, first.get(path), second.get(path)) for path in paths if first.get(path) != second.get(path)]


def distance(a: ScalingPolicy, b: ScalingPolicy) -> int:
    """The number of leaves in which two policies differ; 0 for equal ones."""
    return len(differences(a, b))


def leaves(policy: ScalingPolicy) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything that a policy says, defaults included, absent members left out."""
    return _leaves(policy.model_dump(mode="json", exclude={"api_version"}), "")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = _children(value)
    if children is None:
        if value is not None:
            yield path, value
        return
    inner = [leaf for key, child in children for leaf in _leaves(child, f"{path}.{key}" if path else str(key))]
    # an empty member is not the same as an absent one: `behavior: {}` brings the API's defaults into force
    yield from inner or [(path, {})]


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return list(enumerate(value))
    return None
