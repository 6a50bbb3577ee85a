"""PromQL over what was scraped: the arithmetic of Prometheus 3, one target at a time.

What Prometheus holds of a target is a `Ring` of rows, one a scrape. A row is a sample of every series of the target,
or a stale marker for all of them: Prometheus writes one when a scrape fails after a good one, and one after the last
scrape of a target that discovery has dropped (`marker_seen_ms`). The rules, with their places in
prometheus/prometheus v3.15:

* an instant selector sees the newest row of (now - lookback, now], and nothing if that is a marker
  (`vectorSelectorSingle` in promql/engine.go);
* a range selector sees the samples of (now - window, now]; markers are skipped, they do not end a range
  (`matrixIterSlice`). Before Prometheus 3 both intervals were closed on the left;
* `rate`, `increase` and `delta` extrapolate (`extrapolatedRate` in promql/functions.go). Before Prometheus 3 the zero
  point of a counter was looked at before the far edge of the window was given up, not after;
* `sum` and `avg`, over pods and over time, carry what rounding lost (`kahansum.Inc` in util/kahansum);
* `histogram_quantile` repairs and interpolates classic buckets (`BucketQuantile` in promql/quantile.go).

Time is in whole milliseconds, as Prometheus keeps it: whether a sample lies on a window's edge is then not decided by
rounding. Rows are in order of time, no two at the same one, and the ring has room for those of the longest window and
lookback that is asked for. Rows newer than the query are not seen, so a marker may be written ahead of its time.
Nothing here allocates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import inlined_jit, lean_jit

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Flags = NDArray[np.int8]

NONE = -1
NEVER_MS = -(1 << 62)
"""Older than any sample."""
LOOKBACK_MS = 300_000
"""Prometheus' default `--query.lookback-delta`."""

_NEAR_EDGE_GAPS = 1.1
"""A sample nearer to the window's edge than this many mean gaps is taken to go on to the edge."""
_SMALL_DELTA_RATIO = 1e-12
_SMALLEST_NORMAL = 2.2250738585072014e-308


class Ring(NamedTuple):
    """What Prometheus holds of one target; row `r`, counted from 0, lies at place `r % places`."""

    time_ms: Longs
    """[place] the scrape's timestamp"""
    stale: Flags
    """[place] 1: the row is a stale marker of every series, and its values mean nothing"""
    values: Floats
    """[place, column] one column a series; whole numbers may be held as integers"""
    written: int
    """rows ever written"""
    restarted: int
    """first row of the process that runs now: from it on no counter falls, and ranges that begin there are not searched
    for resets. 0 where none ever restarted, `written` where nothing is known"""


class Window(NamedTuple):
    """The rows that a range selector sees: `samples` of them, from row `first` to row `last`, markers between them
    skipped; `NONE` and 0 where there are none.
    """

    first: int
    last: int
    samples: int


class Edges(NamedTuple):
    """What growth between a window's first and last sample is extended by, and the time between the two."""

    to_start_s: float
    sampled_s: float
    to_end_s: float


class Value(NamedTuple):
    """A query's answer of at most one element; `found` False for an empty vector. `time_ms` is that of the newest
    sample behind it.
    """

    found: bool
    value: float
    time_ms: int


class Sum(NamedTuple):
    """A sum under way over pods: begin with `NOTHING`."""

    total: float
    lost: float
    """what rounding took from `total`"""
    added: int
    time_ms: int


ABSENT = Value(False, 0.0, NEVER_MS)
NOTHING = Sum(0.0, 0.0, 0, NEVER_MS)


# time


@lean_jit
def milliseconds(time_s: float) -> int:
    """The timestamp of a moment: truncated to milliseconds as Prometheus does, after rounding to the clock's
    nanoseconds, so that 1.001 s is 1001.
    """
    return math.floor(time_s * 1000.0 + 1e-6)


@lean_jit
def marker_seen_ms(next_scrape_ms: int, interval_ms: int) -> int:
    """When the stale marker of a target that discovery dropped can first be seen.

    The marker bears the time of the scrape that would have come next, but is written 1.1 intervals after that, in case
    the target comes back (`endOfRunStaleness` in scrape/scrape.go); until then instant selectors still see the last
    sample. The marker of a failed scrape is written at once.
    """
    return next_scrape_ms + interval_ms + interval_ms // 10


@lean_jit
def _seconds(duration_ms: int) -> float:
    """As Go's `Duration.Seconds` rounds it."""
    return duration_ms // 1000 + (duration_ms % 1000) / 1000


# selectors


@lean_jit
def newest_row(ring: Ring, now_ms: int, lookback_ms: int) -> int:
    """The row that an instant selector sees at `now_ms`, or `NONE`."""
    places = ring.time_ms.shape[0]
    for row in range(ring.written - 1, max(ring.written - places, 0) - 1, -1):
        place = row % places
        if ring.time_ms[place] > now_ms:
            continue
        if ring.stale[place] or ring.time_ms[place] <= now_ms - lookback_ms:
            return NONE
        return row
    return NONE


@lean_jit
def rows_in(ring: Ring, now_ms: int, window_ms: int) -> Window:
    """The rows that the range selector `[window]` sees at `now_ms`."""
    places = ring.time_ms.shape[0]
    first, last, count = NONE, NONE, 0
    for row in range(ring.written - 1, max(ring.written - places, 0) - 1, -1):
        place = row % places
        if ring.time_ms[place] <= now_ms - window_ms:
            break
        if ring.stale[place] or ring.time_ms[place] > now_ms:
            continue
        if count == 0:
            last = row
        first = row
        count += 1
    return Window(first, last, count)


@lean_jit
def level(ring: Ring, column: int, now_ms: int, lookback_ms: int) -> Value:
    """`series`, an instant selector."""
    row = newest_row(ring, now_ms, lookback_ms)
    if row == NONE:
        return ABSENT
    place = row % ring.time_ms.shape[0]
    return Value(True, float(ring.values[place, column]), ring.time_ms[place])


# counters and slopes


@lean_jit
def growth(ring: Ring, column: int, window: Window) -> float:
    """How much a gauge grew from the window's first sample to its last."""
    places = ring.time_ms.shape[0]
    return float(ring.values[window.last % places, column]) - float(ring.values[window.first % places, column])


@lean_jit
def counter_growth(ring: Ring, column: int, window: Window) -> float:
    """As `growth`, of a counter: one that fell began again from 0."""
    grown = growth(ring, column, window)
    if ring.restarted <= window.first:
        return grown
    places = ring.time_ms.shape[0]
    before = ring.values[window.first % places, column]
    for row in range(window.first + 1, window.last + 1):
        place = row % places
        if ring.stale[place]:
            continue
        if ring.values[place, column] < before:
            grown += before
        before = ring.values[place, column]
    return grown


@lean_jit
def edges_of(ring: Ring, window: Window, now_ms: int, window_ms: int) -> Edges:
    """How far growth is extended to either side of the samples, before a counter's zero point is looked at."""
    places = ring.time_ms.shape[0]
    first_ms, last_ms = ring.time_ms[window.first % places], ring.time_ms[window.last % places]
    to_start_s = (first_ms - (now_ms - window_ms)) / 1000
    to_end_s = (now_ms - last_ms) / 1000
    sampled_s = (last_ms - first_ms) / 1000
    mean_gap_s = sampled_s / (window.samples - 1)
    near_s = mean_gap_s * _NEAR_EDGE_GAPS
    if to_start_s >= near_s:
        to_start_s = mean_gap_s / 2
    if to_end_s >= near_s:
        to_end_s = mean_gap_s / 2
    return Edges(to_start_s, sampled_s, to_end_s)


@inlined_jit
def stretch(edges: Edges, counted_from: float, grown: float) -> float:
    """The factor that extends a counter's growth: not beyond where it would have been 0, by its first value."""
    to_start_s = edges.to_start_s
    if grown > 0 and counted_from >= 0:
        to_start_s = min(to_start_s, edges.sampled_s * (counted_from / grown))
    return (edges.sampled_s + to_start_s + edges.to_end_s) / edges.sampled_s


@lean_jit
def _counted(ring: Ring, column: int, now_ms: int, window_ms: int, per_second: bool) -> Value:
    window = rows_in(ring, now_ms, window_ms)
    if window.samples < 2:
        return ABSENT
    places = ring.time_ms.shape[0]
    grown = counter_growth(ring, column, window)
    factor = stretch(
        edges_of(ring, window, now_ms, window_ms), float(ring.values[window.first % places, column]), grown
    )
    if per_second:
        # the order of these divisions is Prometheus' own: a rank may fall exactly on a bucket's count
        factor /= _seconds(window_ms)
    return Value(True, grown * factor, ring.time_ms[window.last % places])


@lean_jit
def rate(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`rate(counter[window])`, per second."""
    return _counted(ring, column, now_ms, window_ms, True)


@lean_jit
def increase(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`increase(counter[window])`."""
    return _counted(ring, column, now_ms, window_ms, False)


@lean_jit
def delta(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`delta(gauge[window])`."""
    window = rows_in(ring, now_ms, window_ms)
    if window.samples < 2:
        return ABSENT
    edges = edges_of(ring, window, now_ms, window_ms)
    factor = (edges.sampled_s + edges.to_start_s + edges.to_end_s) / edges.sampled_s
    return Value(True, growth(ring, column, window) * factor, ring.time_ms[window.last % ring.time_ms.shape[0]])


@lean_jit
def irate(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`irate(counter[window])`, per second: from the last two samples of the window alone."""
    window = rows_in(ring, now_ms, window_ms)
    if window.samples < 2:
        return ABSENT
    places = ring.time_ms.shape[0]
    last = window.last % places
    row = window.last - 1
    while ring.stale[row % places]:
        row -= 1
    before = row % places
    grown = float(ring.values[last, column])
    if ring.values[last, column] >= ring.values[before, column]:
        grown -= ring.values[before, column]
    return Value(True, grown / ((ring.time_ms[last] - ring.time_ms[before]) / 1000), ring.time_ms[last])


@lean_jit
def deriv(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`deriv(gauge[window])`, per second: the slope of the least-squares line."""
    window = rows_in(ring, now_ms, window_ms)
    if window.samples < 2:
        return ABSENT
    places = ring.time_ms.shape[0]
    x, y, xy, xx = NOTHING, NOTHING, NOTHING, NOTHING
    origin_ms = ring.time_ms[window.first % places]
    constant = True
    for row in range(window.first, window.last + 1):
        place = row % places
        if ring.stale[place]:
            continue
        now_s = (ring.time_ms[place] - origin_ms) / 1000
        value = float(ring.values[place, column])
        constant = constant and value == ring.values[window.first % places, column]
        x, y = _plus(x, now_s, 0), _plus(y, value, 0)
        xy, xx = _plus(xy, now_s * value, 0), _plus(xx, now_s * now_s, 0)
    newest_ms = ring.time_ms[window.last % places]
    if constant:
        return Value(True, 0.0, newest_ms)
    sum_x, sum_y = x.total + x.lost, y.total + y.lost
    covariance = xy.total + xy.lost - sum_x * sum_y / window.samples
    variance = xx.total + xx.lost - sum_x * sum_x / window.samples
    return Value(True, covariance / variance, newest_ms)


# over time


@lean_jit
def avg_over_time(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`avg_over_time(series[window])`: the mean of its samples, however they lie in time."""
    window = rows_in(ring, now_ms, window_ms)
    if window.samples == 0:
        return ABSENT
    places = ring.time_ms.shape[0]
    samples = NOTHING
    for row in range(window.first, window.last + 1):
        if not ring.stale[row % places]:
            samples = _plus(samples, float(ring.values[row % places, column]), ring.time_ms[row % places])
    return mean_of(samples)


@lean_jit
def max_over_time(ring: Ring, column: int, now_ms: int, window_ms: int) -> Value:
    """`max_over_time(series[window])`."""
    window = rows_in(ring, now_ms, window_ms)
    if window.samples == 0:
        return ABSENT
    places = ring.time_ms.shape[0]
    largest = float(ring.values[window.first % places, column])
    for row in range(window.first + 1, window.last + 1):
        if not ring.stale[row % places]:
            largest = max(largest, float(ring.values[row % places, column]))
    return Value(True, largest, ring.time_ms[window.last % places])


# over pods


@inlined_jit
def _plus(total: Sum, value: float, time_ms: int) -> Sum:
    new = total.total + value
    if math.isinf(new):
        lost = 0.0
    elif abs(total.total) >= abs(value):
        lost = total.lost + ((total.total - new) + value)
    else:
        lost = total.lost + ((value - new) + total.total)
    return Sum(new, lost, total.added + 1, max(total.time_ms, time_ms))


@lean_jit
def plus(total: Sum, value: Value) -> Sum:
    """`total` and one more pod's answer; an absent one adds nothing, not even to the count."""
    if not value.found:
        return total
    return _plus(total, value.value, value.time_ms)


@lean_jit
def sum_of(total: Sum) -> Value:
    """`sum(...)` over what was added; empty where nothing was."""
    if total.added == 0:
        return ABSENT
    return Value(True, total.total + total.lost, total.time_ms)


@lean_jit
def mean_of(total: Sum) -> Value:
    """`avg(...)` over what was added; empty where nothing was."""
    if total.added == 0:
        return ABSENT
    return Value(True, total.total / total.added + total.lost / total.added, total.time_ms)


@lean_jit
def larger(one: Value, other: Value) -> Value:
    """`max(...)` over two pods' answers."""
    if not one.found:
        return other
    if not other.found:
        return one
    return Value(True, max(one.value, other.value), max(one.time_ms, other.time_ms))


@lean_jit
def ratio(above: Value, below: Value) -> Value:
    """`above / below`: empty where either is, NaN for 0/0 and an infinity for x/0."""
    if not (above.found and below.found):
        return ABSENT
    return Value(True, _divided(above.value, below.value), max(above.time_ms, below.time_ms))


@lean_jit
def _divided(above: float, below: float) -> float:
    if below != 0.0:
        return above / below
    if above == 0.0 or math.isnan(above):
        return math.nan
    return math.copysign(math.inf, above) * math.copysign(1.0, below)


# classic histograms


@lean_jit
def add_rates(ring: Ring, column: int, now_ms: int, window_ms: int, rates: Floats, lost: Floats) -> Value:
    """Add a pod's `rate(bucket[window])` of every bucket to `rates`: begin with zeros, end with `settle`.

    `rates` and `lost` are scratch space of one place a bucket; the first bucket is in `column`, the others follow it.
    The answer tells whether the pod had a rate at all, and has that of the last bucket: every observation.
    """
    window = rows_in(ring, now_ms, window_ms)
    if window.samples < 2:
        return ABSENT
    places = ring.time_ms.shape[0]
    edges = edges_of(ring, window, now_ms, window_ms)
    window_s, first, one = _seconds(window_ms), window.first % places, 0.0
    for bucket in range(rates.shape[0]):
        grown = counter_growth(ring, column + bucket, window)
        one = grown * (stretch(edges, float(ring.values[first, column + bucket]), grown) / window_s)
        total = _plus(Sum(rates[bucket], lost[bucket], 0, 0), one, 0)
        rates[bucket], lost[bucket] = total.total, total.lost
    return Value(True, one, ring.time_ms[window.last % places])


@lean_jit
def settle(rates: Floats, lost: Floats) -> None:
    """Make `rates` the `sum by (le)` of what `add_rates` added."""
    for bucket in range(rates.shape[0]):
        rates[bucket] += lost[bucket]


@lean_jit
def histogram_quantile(quantile: float, bounds: Floats, cumulative: Floats) -> float:
    """`histogram_quantile(quantile, ...)` over cumulative counts or rates, which are repaired in place.

    `bounds` are the finite upper bounds; `cumulative` has one more, for `+Inf`. NaN without observations, with no
    finite bound and for a quantile that is NaN; an infinity for a quantile outside 0 to 1; the last finite bound for a
    rank above it.
    """
    if math.isnan(quantile):
        return math.nan
    if quantile < 0 or quantile > 1:
        return math.copysign(math.inf, quantile)
    finite = bounds.shape[0]
    make_monotonic(cumulative)
    if finite == 0 or cumulative[finite] == 0:
        return math.nan
    rank = quantile * float(cumulative[finite])
    bucket = _first_at_least(rank, cumulative, finite)
    if bucket == finite:
        return bounds[finite - 1]
    if bucket == 0 and bounds[0] <= 0:
        return bounds[0]
    start, count = 0.0, float(cumulative[bucket])
    if bucket > 0:
        start = bounds[bucket - 1]
        count -= float(cumulative[bucket - 1])
        rank -= float(cumulative[bucket - 1])
    return start + (bounds[bucket] - start) * _divided(rank, count)


@lean_jit
def _first_at_least(rank: float, cumulative: Floats, finite: int) -> int:
    low, high = 0, finite
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] >= rank:
            high = middle
        else:
            low = middle + 1
    return low


@lean_jit
def make_monotonic(cumulative: Floats) -> None:
    """Take back, in place, every fall from a bucket to the next, and every rise that is only rounding."""
    before = cumulative[0]
    for bucket in range(1, cumulative.shape[0]):
        now = cumulative[bucket]
        if now < before or _nearly_equal(before, now):
            cumulative[bucket] = before
        else:
            before = now


@lean_jit
def _nearly_equal(one: float, other: float) -> bool:
    """`almost.Equal`: the difference relative to the sum."""
    if one == other:
        return True
    size, difference = abs(one) + abs(other), abs(one - other)
    if one == 0 or other == 0 or size < _SMALLEST_NORMAL:
        return difference < _SMALL_DELTA_RATIO * _SMALLEST_NORMAL
    return difference / size < _SMALL_DELTA_RATIO
