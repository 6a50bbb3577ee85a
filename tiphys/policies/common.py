"""What the members of the family share: the file form, replica bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.service import Envelope
from tiphys.domain.values import Frozen

API_VERSION: Literal["tiphys/v1"] = "tiphys/v1"
Replicas = Annotated[int, Field(ge=0, le=2**31 - 1)]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31 - 1)]
Items = TypeVar("Items", bound=tuple[object, ...])


def _not_empty(items: Items) -> Items:
    if not items:
        raise ValueError("must hold at least one")
    return items


NotEmpty = AfterValidator(_not_empty)
"""For a tuple: pydantic's own min_length also complains when the one item is what is wrong."""


class ReplicaBounds(Frozen):
    """Replicas between which a scaler moves: `min` is minReplicas, `max` is maxReplicas."""

    min: Replicas = 1
    max: AtLeastOne

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        return self

    def within(self, envelope: Envelope) -> ReplicaBounds:
        """The nearest bounds that lie inside an envelope."""
        low, high = envelope.min, envelope.max
        return self.with_(min=_clamp(self.min, low, high), max=_clamp(self.max, max(low, 1), high))


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


class WrittenPolicy(ScalingPolicy):
    """A policy as it stands in a file: `api_version` and `kind` first, then the numbers of its law."""

    api_version: Literal["tiphys/v1"] = API_VERSION

    def document(self) -> dict[str, Any]:
        """Plain data as it would stand in a policy file, defaults left out."""
        return {"api_version": API_VERSION, "kind": self.kind} | super().document()
