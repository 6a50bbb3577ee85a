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
        return kind.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise input_error(error, kind, where) from None


def input_error(error: ValidationError, kind: Any, where: str = "") -> InputError:
    """The first fault of a pydantic error in our words; an unknown key names the nearest; more faults are counted."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_name("key", str(first["loc"][-1]), _known_keys(kind, first["loc"][:-1]), where=where, key=key)
    message = first["msg"].removeprefix("Value error, ")
    if len(faults) > 1:
        message += f" (and {len(faults) - 1} more)"
    found = first.get("input")
    shown = None if isinstance(found, dict | list) or first["type"] == "missing" else found
    return InputError(message, where=where, key=key, found=shown)


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
