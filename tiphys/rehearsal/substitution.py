"""`{{...}}` in a workflow: references, nested references and `{{=` expressions, replaced over a flat scope."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tiphys.rehearsal.expressions import ExpressionError, MissingVariableError, evaluate, nested, parse, paths, to_text

Scope = Mapping[str, Any]
"""Values by full name (`tasks.a.outputs.parameters.x`); None is the output of a skipped node that has no default."""

_TAG = re.compile(r"\{\{(=.*?|[^{}]*)\}\}", re.DOTALL)
_OF_OTHERS = ("tasks.", "steps.")


class UnresolvedError(Exception):
    """A reference to another node that cannot be resolved: the node that has it ends in Error with this message."""


def substitute(value: Any, scope: Scope, *, strict: bool = False) -> Any:
    """`value` (any depth of lists and maps) with the references that the scope knows replaced in every string.

    Others stay as they are; `strict` makes those to tasks and steps an error. Raises UnresolvedError.
    """
    if isinstance(value, str):
        return _text(value, scope, strict) if "{{" in value else value
    if isinstance(value, list):
        return [substitute(each, scope, strict=strict) for each in value]
    if isinstance(value, dict):
        return {key: substitute(each, scope, strict=strict) for key, each in value.items()}
    return value


def references(value: Any) -> Iterator[str]:
    """Every dotted name that stands in a `{{...}}` of `value`; raises ExpressionError for a broken expression."""
    if isinstance(value, str):
        for tag in _TAG.findall(value):
            if tag.startswith("="):
                yield from paths(parse(tag[1:]))
            else:
                yield tag.strip()
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from references(each)


def pure_reference(value: object) -> str:
    """The name that `value` refers to when it is one plain reference and nothing else, or an empty string."""
    match = re.fullmatch(r"\{\{([^{}=][^{}]*)\}\}", value) if isinstance(value, str) else None
    return match[1].strip() if match else ""


def _text(text: str, scope: Scope, strict: bool) -> str:
    def replace(match: re.Match[str]) -> str:
        tag = match[1]
        return (
            _expression(match[0], tag[1:], scope, strict)
            if tag.startswith("=")
            else _simple(match[0], tag, scope, strict)
        )

    replaced = _TAG.sub(replace, text)
    if replaced != text and "{{" in text and re.search(r"\{\{[^{}]*\{\{", text):
        return _TAG.sub(replace, replaced)  # `{{inputs.parameters.{{item}}}}`: the inner name was needed first
    return replaced


def _simple(whole: str, tag: str, scope: Scope, strict: bool) -> str:
    name = tag.strip()
    if name not in scope:
        if strict and name.startswith(_OF_OTHERS) and ".outputs.artifacts." not in name:
            raise UnresolvedError(f"failed to resolve {whole}")
        return whole
    value = scope[name]
    if value is None:
        raise UnresolvedError(
            f"unable to substitute {whole}: it is an absent optional (the output of a skipped or omitted node that has "
            "no valueFrom.default)"
        )
    return value if isinstance(value, str) else whole


def _expression(whole: str, text: str, scope: Scope, strict: bool) -> str:
    variables = {key: value for key, value in scope.items() if value is None or isinstance(value, str)}
    try:
        value = evaluate(text, nested(variables))
    except MissingVariableError as error:
        if strict and f"{error.path}.".startswith(_OF_OTHERS):
            raise UnresolvedError(f"failed to evaluate {whole}: {error}") from None
        return whole
    except ExpressionError as error:
        raise UnresolvedError(f"failed to evaluate {whole}: {error}") from None
    if value is None:
        if strict:
            raise UnresolvedError(f"failed to evaluate {whole}: nothing came of it")
        return whole
    return to_text(value)
