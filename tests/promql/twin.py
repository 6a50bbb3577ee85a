"""The twin's PromQL asked in the shapes of the vectors: one compiled entry, and rings laid out for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tests.promql.rules import History
from tests.promql.shapes import AGGREGATES, FUNCTIONS, Answer, Shape
from tiphys.compiled import jit
from tiphys.twin.promql import (
    ABSENT,
    NOTHING,
    Flags,
    Floats,
    Longs,
    Ring,
    Value,
    add_rates,
    avg_over_time,
    delta,
    deriv,
    histogram_quantile,
    increase,
    irate,
    larger,
    level,
    max_over_time,
    mean_of,
    plus,
    rate,
    ratio,
    settle,
    sum_of,
)

SPARE_PLACES = 3
"""What a ring has beyond its rows, so that rows begin anywhere in it."""


class Rings(NamedTuple):
    """Rings of several targets as the twin holds them: by target, then by place."""

    time_ms: Longs
    stale: Flags
    values: Floats
    written: Longs
    restarted: Longs


@jit
def ring_of(rings: Rings, target: int) -> Ring:
    return Ring(
        rings.time_ms[target],
        rings.stale[target],
        rings.values[target],
        rings.written[target],
        rings.restarted[target],
    )


@jit
def one(ring: Ring, function: int, column: int, now_ms: int, window_ms: int, lookback_ms: int) -> Value:
    """A function of one series, by its number in `FUNCTIONS`."""
    if function == 0:
        return level(ring, column, now_ms, lookback_ms)
    if function == 1:
        return rate(ring, column, now_ms, window_ms)
    if function == 2:
        return increase(ring, column, now_ms, window_ms)
    if function == 3:
        return delta(ring, column, now_ms, window_ms)
    if function == 4:
        return irate(ring, column, now_ms, window_ms)
    if function == 5:
        return deriv(ring, column, now_ms, window_ms)
    if function == 6:
        return avg_over_time(ring, column, now_ms, window_ms)
    return max_over_time(ring, column, now_ms, window_ms)


@jit
def over_targets(
    rings: Rings, aggregate: int, function: int, column: int, now_ms: int, window_ms: int, lookback_ms: int
) -> Value:
    """An aggregate, by its number in `AGGREGATES`, of a function over all targets."""
    total, largest = NOTHING, ABSENT
    for target in range(rings.written.shape[0]):
        value = one(ring_of(rings, target), function, column, now_ms, window_ms, lookback_ms)
        total, largest = plus(total, value), larger(largest, value)
    if aggregate == 1:
        return sum_of(total)
    if aggregate == 2:
        return mean_of(total)
    return largest


@jit
def summed_rates(rings: Rings, now_ms: int, window_ms: int, rates: Floats, lost: Floats) -> Value:
    """`sum by (le)` of the rates of all columns, left in `rates`."""
    total = NOTHING
    for target in range(rings.written.shape[0]):
        total = plus(total, add_rates(ring_of(rings, target), 0, now_ms, window_ms, rates, lost))
    settle(rates, lost)
    return sum_of(total)


@jit
def ratio_of(above: Value, below: Value) -> Value:
    return ratio(above, below)


@jit
def quantile_of(share: float, bounds: Floats, rates: Floats) -> float:
    return histogram_quantile(share, bounds, rates)


def answer(shape: Shape, histories: Sequence[History], now_ms: int, lookback_ms: int) -> Answer:
    """What the twin's arithmetic answers; arguments as for the rules in plain Python."""
    window_ms = shape["window_ms"]
    if shape["form"] in ("series", "ratio"):
        aggregate, function = AGGREGATES.index(shape["aggregate"]), FUNCTIONS.index(shape["function"])
        asked = (aggregate, function, 0, now_ms, window_ms, lookback_ms)
        value = over_targets(rings_of(histories, [shape["series"]]), *asked)
        if shape["form"] == "ratio":
            value = ratio_of(value, over_targets(rings_of(histories, [shape["below"]]), *asked))
        return [value.value] if value.found else []
    rings, bounds = bucket_rings_of(histories, shape["histogram"])
    rates, lost = np.zeros(bounds.shape[0] + 1), np.zeros(bounds.shape[0] + 1)
    if not summed_rates(rings, now_ms, window_ms, rates, lost).found:
        return []
    if shape["form"] == "buckets":
        return [float(value) for value in rates]
    return [quantile_of(float(shape["quantile"]), bounds, rates)]


def rings_of(histories: Sequence[History], names: Sequence[str]) -> Rings:
    """Rings with a column for each named series, of the targets that have it."""
    held = [history for history in histories if names[0] in history.samples]
    return _rings([history.times_ms for history in held], [[h.samples[name] for name in names] for h in held])


def bucket_rings_of(histories: Sequence[History], name: str) -> tuple[Rings, Floats]:
    """Rings with a column for each bucket, and the finite bounds."""
    held = [history for history in histories if name in history.buckets]
    rings = _rings([history.times_ms for history in held], [history.buckets[name][1] for history in held])
    return rings, np.array(held[0].buckets[name][0] if held else [], np.float64)


def _rings(times_ms: Sequence[Sequence[int]], columns: Sequence[Sequence[Sequence[float | None]]]) -> Rings:
    """Rings whose rows begin amid the places; what a stale marker's row holds as values is NaN: nobody may use it."""
    targets = len(times_ms)
    places = max([len(times) for times in times_ms], default=1) + SPARE_PLACES
    width = max([len(series) for series in columns], default=1)
    rings = Rings(
        np.full((targets, places), -(10**12), np.int64),
        np.zeros((targets, places), np.int8),
        np.full((targets, places, width), np.nan),
        np.zeros(targets, np.int64),
        np.zeros(targets, np.int64),
    )
    for target, (times, series) in enumerate(zip(times_ms, columns, strict=True)):
        lost = 2 * places - len(times) + target % SPARE_PLACES  # rows that newer ones have overwritten
        for row, time_ms in enumerate(times):
            place = (lost + row) % places
            rings.time_ms[target, place] = time_ms
            rings.stale[target, place] = series[0][row] is None
            for column, samples in enumerate(series):
                value = samples[row]
                rings.values[target, place, column] = np.nan if value is None else value
        rings.written[target] = lost + len(times)
        rings.restarted[target] = rings.written[target]
    return rings
