"""One cell of the decision table as what it stands for."""

from __future__ import annotations

import math


def count(value: float) -> int | None:
    """A number of replicas; None where the step was not reached."""
    return None if math.isnan(value) or value < 0 else int(value)


def known(value: float) -> float | None:
    """A measured number; None where there is none."""
    return value if math.isfinite(value) else None


def named(names: tuple[str, ...], code: float) -> str:
    """The word that a code stands for; empty where there is none."""
    return "" if math.isnan(code) or code < 0 else names[int(code)]
