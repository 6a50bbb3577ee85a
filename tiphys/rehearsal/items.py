"""Fan-out and fan-in: `withItems`, `withParam`, `withSequence`, and the outputs of many as JSON lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tiphys.rehearsal.nodes import Node
from tiphys.rehearsal.substitution import UnresolvedError, references, substitute

Data = dict[str, Any]
_EXPANDERS = ("withItems", "withParam", "withSequence")


def fans_out(user: Mapping[str, Any]) -> bool:
    """Whether a task or step is made into one per item."""
    return bool(user.get("withItems") or user.get("withParam") or user.get("withSequence"))


def expanded(user: Data) -> list[Data]:
    """One task or step per item, each named `name(0:item)`, with `{{item}}` and `{{item.key}}` replaced.

    Raises UnresolvedError for a list that is none and for a key that an item does not have.
    """
    return [_made(user, number, item) for number, item in enumerate(_items(user))]


def _items(user: Data) -> list[Any]:
    if user.get("withItems"):
        return list(user["withItems"])
    if sequence := user.get("withSequence"):
        return list(_sequence(sequence))
    text = user["withParam"]
    try:
        items = json.loads(text, parse_float=Decimal) if isinstance(text, str) else text
    except json.JSONDecodeError as error:
        raise UnresolvedError(
            f"withParam value could not be parsed as a JSON list: {text.strip()[:200]!r}: {error}"
        ) from None
    if not isinstance(items, list):
        raise UnresolvedError(f"withParam value could not be parsed as a JSON list: {text.strip()[:200]!r}")
    return items


def _sequence(sequence: Mapping[str, Any]) -> Iterator[str]:
    try:
        start = int(sequence.get("start") or 0)
        if sequence.get("end") not in (None, ""):
            end = int(sequence["end"])
        elif sequence.get("count") not in (None, ""):
            count = int(sequence["count"])
            if count == 0:
                return
            end = start + count - 1
        else:
            raise UnresolvedError("neither end nor count was specified in withSequence")
    except ValueError as error:
        raise UnresolvedError(f"withSequence: {error}") from None
    layout = str(sequence.get("format") or "%d")
    step = 1 if start <= end else -1
    for number in range(start, end + step, step):
        yield layout % number


def _made(user: Data, number: int, item: Any) -> Data:
    scope, described = _item_scope(number, item)
    body = {
        key: value
        for key, value in user.items()
        if key not in (*_EXPANDERS, "hooks", "name", "depends", "dependencies")
    }
    made: Data = substitute(body, scope)
    left = [name for name in references([made.get("arguments"), made.get("when")]) if re.match(r"item(\.|$)", name)]
    if left:
        raise UnresolvedError(f"failed to resolve {{{{{left[0]}}}}}: withItems[{number}] is {described}")
    return {**made, "name": f"{user['name']}({number}:{described.translate(_NO_BRACKETS)})", "hooks": user.get("hooks")}


_NO_BRACKETS = str.maketrans("", "", "()")


def _item_scope(number: int, item: Any) -> tuple[dict[str, str], str]:
    if isinstance(item, dict):
        members = {key: _item_text(value) for key, value in item.items()}
        described = ",".join(sorted(f"{key}:{text}" for key, text in members.items()))
        return {"item": _item_text(item)} | {f"item.{key}": text for key, text in members.items()}, described
    if item is None:
        raise UnresolvedError(f"withItems[{number}] expected string, number, list, or map. received: null")
    return {"item": _item_text(item)}, _item_text(item)


def _item_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(_undecimal(value), separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _undecimal(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _undecimal(each) for key, each in value.items()}
    return [_undecimal(each) for each in value] if isinstance(value, list) else value


def aggregated(prefix: str, items: tuple[Node, ...]) -> dict[str, Any]:
    """What others see of a fan-out under `prefix`: JSON lists over the items that succeeded."""
    produced = [item.outputs for item in items if item.phase == "Succeeded" and item.outputs is not None]
    scope: dict[str, Any] = {}
    results = [outputs.result for outputs in produced if outputs.result]
    scope[f"{prefix}.outputs.result"] = json.dumps([_json_or_text(result) for result in results])
    scope[f"{prefix}.outputs.parameters"] = json.dumps([dict(o.parameters) for o in produced if o.parameters])
    for name in dict.fromkeys(name for outputs in produced for name in outputs.parameters):
        texts = [outputs.parameters[name] for outputs in produced if name in outputs.parameters]
        scope[f"{prefix}.outputs.parameters.{name}"] = json_list(texts)
    return scope


def json_list(texts: list[str]) -> str:
    """A JSON list of values: as they are when each is a JSON map or list, else as strings."""
    values = [_json_or_text(text) for text in texts]
    return json.dumps(values if all(isinstance(value, dict | list) for value in values) else texts)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
