"""Kubernetes quantities (`500m`, `2`, `1k`), read exactly and written in thousandths."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tiphys.errors import InputError

_NUMBER = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,4})|([numkMGTPE]|[KMGTPE]i))?$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
ALLOWED = "a number or a Kubernetes quantity such as 500m, 2 or 1k"
MOST = 1e12


def parse_quantity(value: object, where: str = "", key: str = "") -> Fraction:
    """The exact value of a quantity: text as Kubernetes writes it, or a plain number. Raises InputError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError("is not a quantity", where=where, key=key, found=value, allowed=ALLOWED)
    match = _NUMBER.match(str(value).strip())
    if match is None:
        raise InputError("is not a quantity", where=where, key=key, found=value, allowed=ALLOWED)
    number, exponent, suffix = match.groups()
    exact = Fraction(number)
    if exponent:
        exact *= Fraction(10) ** int(exponent[1:])
    if suffix:
        exact *= Fraction(2) ** _BINARY[suffix] if suffix in _BINARY else Fraction(10) ** _DECIMAL[suffix]
    return exact


def milli(value: float) -> int:
    """Thousandths of a value that was read by `Quantity`, exactly."""
    return round(value * 1000)


def format_quantity(value: float) -> str:
    """The canonical quantity of a value in whole thousandths: `2`, `500m`, `1500m`."""
    thousandths = milli(value)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def to_milli_grid(value: Fraction | float) -> float:
    """A value rounded up to whole thousandths, which is all that the controllers see of it."""
    exact = value if isinstance(value, Fraction) else Fraction(str(value))
    return math.ceil(exact * 1000) / 1000


def _exact(value: Any) -> Fraction:
    try:
        return min(parse_quantity(value), Fraction(10) ** 30)
    except InputError as error:
        raise ValueError(f"{error.message} (allowed: {error.allowed})") from None


def _up(value: Any) -> Any:
    """Not finite is left to pydantic, which says it better."""
    return value if isinstance(value, float) and not math.isfinite(value) else to_milli_grid(_exact(value))


def _nearest(value: Any) -> Any:
    return value if isinstance(value, float) and not math.isfinite(value) else float(f"{float(_exact(value)):.3f}")


Quantity = Annotated[float, BeforeValidator(_up), Field(ge=0, le=MOST)]
"""A quantity in whole thousandths: the HPA controller rounds finer fractions up when it reads a target."""
PositiveQuantity = Annotated[float, BeforeValidator(_up), Field(gt=0, le=MOST)]
"""A target of an HPA: a quantity over zero."""
PositiveDecimal = Annotated[float, BeforeValidator(_nearest), Field(gt=0, le=MOST)]
"""A threshold of KEDA, which writes it into its HPA with three decimals (pkg/scalers/scaler.go)."""
