"""Arrival stamps on a coarse clock: noticed, and spread out."""

from __future__ import annotations

import numpy as np

from tiphys.domain.trace import Trace
from tiphys.errors import InputError

_COARSE_S = 1.0
_CROWDED = 3.0
_LONGEST_SILENCE_S = 1e6


def starts_with_a_date(trace: Trace) -> bool:
    """True when the first arrival comes after 11 days of nothing: stamps that count from some epoch."""
    return float(trace.arrival_s[0]) > _LONGEST_SILENCE_S


def from_first(trace: Trace) -> Trace:
    """The same requests, their clock starting at the first of them."""
    first = float(trace.arrival_s[0])
    return Trace(trace.arrival_s - first, trace.input_tokens, trace.output_tokens, trace.name, trace.end_s - first)


def coarse_clock_s(trace: Trace) -> float | None:
    """The tick in seconds of the clock that the arrivals were stamped with, if it is coarse enough to make false
    bursts.

    Coarse: at least a second between most neighbouring stamps and at least three requests to a stamp.
    """
    stamps = np.unique(trace.arrival_s)
    if len(stamps) < 2 or len(trace) / len(stamps) < _CROWDED:
        return None
    tick = float(np.median(np.diff(stamps)))
    return tick if tick >= _COARSE_S else None


def spread(trace: Trace, spread_s: float, seed: int) -> Trace:
    """Each request moved later by a seeded uniform share of `spread_s`: undoes a clock that ticks every `spread_s`
    seconds.

    The trace then ends `spread_s` later. Raises InputError unless `spread_s` is positive and finite.
    """
    if not (np.isfinite(spread_s) and spread_s > 0):
        raise InputError("must be above 0", key="spread_s", found=spread_s)
    rng = np.random.default_rng([seed, 0x59EAD])
    moved = trace.arrival_s + rng.random(len(trace)) * spread_s
    order = np.argsort(moved, kind="stable")
    return Trace(
        moved[order], trace.input_tokens[order], trace.output_tokens[order], trace.name, trace.end_s + spread_s
    )
