"""`Frozen`: what every value that is read from a file is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiphys.errors import InputError, unknown_name

Seconds = Annotated[float, Field(ge=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """An immutable value: unknown keys are errors that name the nearest known one; numbers are finite; types strict."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=False, populate_by_name=True
    )

    def document(self) -> dict[str, Any]:
        """Plain data as it would stand in a file, defaults left out."""
        return json.loads(self.model_dump_json(exclude_defaults=True, by_alias=True))  # type: ignore[no-any-return]

    def with_(self, **changes: Any) -> Self:
        """A new, validated value with some members replaced."""
        members = {name: getattr(self, name) for name in type(self).model_fields} | changes
        return type(self)(**members)


def parse(kind: type[M], data: object, where: str = "") -> M:
    """`data` (as read from YAML or JSON) as a `kind`.

    Raises InputError with `where`, the dotted key, what was found and what is allowed, for the first fault.
    """
    try:
        text = json.dumps(data, default=str)
    except (ValueError, RecursionError):
        raise InputError("an anchor holds itself, or values are nested too deeply", where=where) from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise input_error(error, kind, data, where) from None


def input_error(error: ValidationError, kind: Any, data: object, where: str = "") -> InputError:
    """The first fault of a pydantic error in our words; an unknown key names the nearest; more faults are counted.

    `data` is what was parsed: the path of a fault goes through the names of union members, which no file has.
    """
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = _key(first, data)
    if first["type"] == "extra_forbidden":
        return unknown_name("key", str(first["loc"][-1]), _known_keys(kind, first["loc"][:-1]), where=where, key=key)
    of_union = {name: str(value).strip("'") for name, value in first.get("ctx", {}).items()}
    tag_key = f"{key}.{of_union.get('discriminator', '')}".removeprefix(".")
    if first["type"] == "union_tag_invalid":
        known = [name.strip("' ") for name in of_union["expected_tags"].split(",")]
        return unknown_name(of_union["discriminator"], of_union["tag"], known, where=where, key=tag_key)
    if first["type"] == "union_tag_not_found":
        return InputError("is missing", where=where, key=tag_key)
    message = first["msg"].removeprefix("Value error, ")
    others = {_key(fault, data) for fault in faults} - {key}
    if others:
        message += f" (and faults in {len(others)} more)"
    found = "null" if first.get("input") is None else first["input"]
    shown = None if isinstance(found, dict | list) or first["type"] == "missing" else found
    return InputError(message, where=where, key=key, found=shown)


def _key(fault: Any, data: object) -> str:
    """The dotted key of a fault as the file has it."""
    location, value = fault["loc"], data
    parts: list[str] = []
    for place, part in enumerate(location):
        if (isinstance(value, dict) and part in value) or (isinstance(value, list | tuple) and isinstance(part, int)):
            value = value[part]
        elif fault["type"] != "missing" or place < len(location) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _known_keys(kind: Any, location: tuple[int | str, ...]) -> set[str]:
    """The keys of the models that an error's location leads to (list indices and union tags lead nowhere by
    themselves).
    """
    models = list(_models_in(kind))
    for part in location:
        fields = [
            field for model in models for name, field in model.model_fields.items() if part in (name, field.alias)
        ]
        inner = [model for field in fields for model in _models_in(field.annotation)]
        tagged = [model for model in models if part in _tags(model)]
        models = inner or tagged or models
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _tags(model: type[BaseModel]) -> set[Any]:
    fields = (model.model_fields.get(name) for name in ("kind", "source", "type", "scaler"))
    return {model.__name__} | {tag for field in fields if field for tag in get_args(field.annotation)}
