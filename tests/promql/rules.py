"""PromQL once more, in plain Python over plain lists: Prometheus' rules as one would write them down.

Shares nothing with the twin. Knows the rules of Prometheus 3 and, one by one, those that 2.42 had instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.promql.shapes import Answer, Shape

LEFT_CLOSED = "left edge"
"""windows and lookback are closed on the left"""
ZERO_POINT_FIRST = "zero point"
"""a counter's zero point is looked at before the far edge of the window is given up"""
EVERY_DELTA = "small deltas"
"""buckets that differ by rounding only are told apart"""
DIFFERENCES = (LEFT_CLOSED, ZERO_POINT_FIRST, EVERY_DELTA)
PROMETHEUS_3: frozenset[str] = frozenset()
PROMETHEUS_2_42 = frozenset(DIFFERENCES)

Sample = tuple[int, float]


@dataclass(frozen=True)
class History:
    """What was scraped of one target; `samples` by series, `None` for a stale marker."""

    times_ms: Sequence[int]
    samples: dict[str, Sequence[float | None]]
    buckets: dict[str, tuple[Sequence[float], Sequence[Sequence[float | None]]]] = field(default_factory=dict)
    """by histogram: finite bounds, and the samples of each bucket with `+Inf` last"""


@dataclass(frozen=True)
class Query:
    """When, how far back, and after which rules."""

    now_ms: int
    window_ms: int
    lookback_ms: int
    rules: frozenset[str] = PROMETHEUS_3

    def within(self, time_ms: int, reach_ms: int) -> bool:
        start_ms = self.now_ms - reach_ms
        return time_ms <= self.now_ms and (time_ms > start_ms or (time_ms == start_ms and LEFT_CLOSED in self.rules))


def answer(shape: Shape, histories: Sequence[History], query: Query) -> Answer:
    """What Prometheus answers; `histories` are those of the shape's targets, in the order in which it adds them up."""
    if shape["form"] == "series":
        return _aggregated(shape, shape["series"], histories, query)
    if shape["form"] == "ratio":
        above = _aggregated(shape, shape["series"], histories, query)
        below = _aggregated(shape, shape["below"], histories, query)
        return [divide(a, b) for a, b in zip(above, below, strict=False)]
    held = [(h.times_ms, *h.buckets[shape["histogram"]]) for h in histories if shape["histogram"] in h.buckets]
    bounds = held[0][1] if held else ()
    sums: list[float] = []
    for bucket in range(len(bounds) + 1):
        windows = [_window(times_ms, samples[bucket], query) for times_ms, _, samples in held]
        rates = [_extrapolated(window, query, "rate") for window in windows]
        found = [rate for rate in rates if rate is not None]
        sums += [precise_sum(found)] if found else []
    if shape["form"] == "buckets" or not sums:
        return sums
    return [bucket_quantile(float(shape["quantile"]), bounds, sums, query.rules)]


def _aggregated(shape: Shape, name: str, histories: Sequence[History], query: Query) -> Answer:
    function = FUNCTIONS[shape["function"]]
    found = [
        function(history.times_ms, history.samples[name], query) for history in histories if name in history.samples
    ]
    values = [value for value in found if value is not None]
    if not values or shape["aggregate"] == "none":
        return values
    if shape["aggregate"] == "max":
        return [max(values)]
    total, lost = compensated(values)
    return [total + lost] if shape["aggregate"] == "sum" else [total / len(values) + lost / len(values)]


def _window(times_ms: Sequence[int], values: Sequence[float | None], query: Query) -> list[Sample]:
    return [
        (time_ms, value)
        for time_ms, value in zip(times_ms, values, strict=True)
        if value is not None and query.within(time_ms, query.window_ms)
    ]


def _level(times_ms: Sequence[int], values: Sequence[float | None], query: Query) -> float | None:
    seen = [value for time, value in zip(times_ms, values, strict=True) if query.within(time, query.lookback_ms)]
    return seen[-1] if seen else None


def _extrapolated(window: list[Sample], query: Query, function: str) -> float | None:
    if len(window) < 2:
        return None
    (first_ms, first), (last_ms, last) = window[0], window[-1]
    counter = function != "delta"
    grown = last - first
    for (_, before), (_, now) in pairwise(window):
        grown += before if counter and now < before else 0.0
    sampled_s = (last_ms - first_ms) / 1000
    gap_s = sampled_s / (len(window) - 1)
    before_s = (first_ms - (query.now_ms - query.window_ms)) / 1000
    after_s = (query.now_ms - last_ms) / 1000
    to_zero_s = sampled_s * (first / grown) if counter and grown > 0 and first >= 0 else math.inf
    if ZERO_POINT_FIRST in query.rules:
        before_s = min(before_s, to_zero_s)
    if before_s >= gap_s * 1.1:
        before_s = gap_s / 2
    if ZERO_POINT_FIRST not in query.rules:
        before_s = min(before_s, to_zero_s)
    if after_s >= gap_s * 1.1:
        after_s = gap_s / 2
    factor = (sampled_s + before_s + after_s) / sampled_s
    if function == "rate":
        factor /= query.window_ms // 1000 + query.window_ms % 1000 / 1000
    return grown * factor


def _irate(window: list[Sample]) -> float | None:
    if len(window) < 2:
        return None
    (before_ms, before), (now_ms, now) = window[-2:]
    return (now if now < before else now - before) / ((now_ms - before_ms) / 1000)


def _deriv(window: list[Sample]) -> float | None:
    if len(window) < 2:
        return None
    x = [(time_ms - window[0][0]) / 1000 for time_ms, _ in window]
    y = [value for _, value in window]
    if len(set(y)) == 1:
        return 0.0
    n = float(len(window))
    sum_x, sum_y = precise_sum(x), precise_sum(y)
    covariance = precise_sum([a * b for a, b in zip(x, y, strict=True)]) - sum_x * sum_y / n
    return covariance / (precise_sum([a * a for a in x]) - sum_x * sum_x / n)


def _mean(window: list[Sample]) -> float | None:
    if not window:
        return None
    total, lost = compensated([value for _, value in window])
    return total / len(window) + lost / len(window)


Over = Callable[[Sequence[int], Sequence["float | None"], Query], "float | None"]
FUNCTIONS: dict[str, Over] = {
    "level": _level,
    "rate": lambda times, values, query: _extrapolated(_window(times, values, query), query, "rate"),
    "increase": lambda times, values, query: _extrapolated(_window(times, values, query), query, "increase"),
    "delta": lambda times, values, query: _extrapolated(_window(times, values, query), query, "delta"),
    "irate": lambda times, values, query: _irate(_window(times, values, query)),
    "deriv": lambda times, values, query: _deriv(_window(times, values, query)),
    "avg_over_time": lambda times, values, query: _mean(_window(times, values, query)),
    "max_over_time": lambda times, values, query: max((v for _, v in _window(times, values, query)), default=None),
}


def compensated(values: Iterable[float]) -> tuple[float, float]:
    """A sum and what rounding took from it: Kahan's summation in Neumaier's form."""
    total, lost = 0.0, 0.0
    for value in values:
        new = total + value
        lost += (total - new) + value if abs(total) >= abs(value) else (value - new) + total
        total = new
    return total, lost


def precise_sum(values: Iterable[float]) -> float:
    total, lost = compensated(values)
    return total + lost


def divide(above: float, below: float) -> float:
    """As floats divide outside Python."""
    if below == 0.0:
        return math.nan if above == 0.0 or math.isnan(above) else math.copysign(math.inf, above)
    return above / below


def bucket_quantile(share: float, bounds: Sequence[float], counts: Sequence[float], rules: frozenset[str]) -> float:
    """Of a classic histogram; `counts` are cumulative, `+Inf` last."""
    if math.isnan(share):
        return math.nan
    if not 0 <= share <= 1:
        return math.inf if share > 1 else -math.inf
    mended = [counts[0]]
    for count in counts[1:]:
        same = count != mended[-1] and abs(count - mended[-1]) / (count + mended[-1]) < 1e-12
        mended.append(mended[-1] if count < mended[-1] or (same and EVERY_DELTA not in rules) else count)
    if not bounds or mended[-1] == 0:
        return math.nan
    rank = share * mended[-1]
    bucket = next((i for i, count in enumerate(mended[:-1]) if count >= rank), len(bounds))
    if bucket == len(bounds):
        return bounds[-1]
    if bucket == 0:
        return bounds[0] if bounds[0] <= 0 else bounds[0] * divide(rank, mended[0])
    start, below = bounds[bucket - 1], mended[bucket - 1]
    return start + (bounds[bucket] - start) * ((rank - below) / (mended[bucket] - below))
