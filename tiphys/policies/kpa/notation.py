"""How Knative writes durations and shares: `1m30s`, and percentages."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from tiphys.errors import InputError

_UNITS_S = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str, where: str = "", key: str = "") -> float:
    """Seconds of a duration as Go reads it (`90s`, `1m30s`, `0`). Raises InputError; a bare number is an error."""
    parts = list(_PART.finditer(text))
    if text != "0" and (not parts or "".join(part[0] for part in parts) != text):
        allowed = "a number with its unit, such as 30s or 1m30s"
        raise InputError("is not a duration", where=where, key=key, found=text, allowed=allowed)
    return float(sum((Fraction(part[1]) * _UNITS_S[part[2]] for part in parts), Fraction(0)))


def format_duration(seconds: float) -> str:
    """Seconds as a duration: `90s`, `1.5s`."""
    return f"{plain(seconds)}s"


def plain(value: float) -> str:
    """The shortest decimal text of a number, without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent_text(ratio: float) -> str:
    """A share as a percentage: `0.7` is `70`."""
    text = format(Decimal(repr(ratio)) * 100, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent_of(ratio: float) -> float:
    """The percentage that Knative reads of a share. It divides by 100 again, which need not give the share back."""
    return float(percent_text(ratio))


def ratio_of(percent: str) -> float:
    """The share of a percentage; the one that `percent_text` was given."""
    return float(Decimal(percent) / 100)
