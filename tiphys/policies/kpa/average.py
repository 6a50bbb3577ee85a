"""Window averages over buckets of one second (4.2): how the autoscaler smooths what it is told."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import law_jit

_LATER, _EARLIER = 2**62, -(2**62)
"""Than any second: the span of buckets that know none."""
_LEAST_SMOOTHING = 0.2
_TAIL = 0.0001
"""Share of the weights that may lie beyond the window of a weighted average."""
_DECIMALS = 1e6


class Buckets(NamedTuple):
    """Sums of a value by whole seconds: a ring as long as the window, and the span of seconds that it knows."""

    sums: NDArray[np.float64]
    """One entry a second of the window; second `s` lies at `s % len(sums)`."""
    total: NDArray[np.float64]
    """One entry: the sum of the ring."""
    first: NDArray[np.int64]
    """One entry: the second of the first value."""
    last: NDArray[np.int64]
    """One entry: the second of the newest value; before `first` where there is none."""
    smoothing: float
    """Weight of the newest bucket in an exponential average; 0 where the average is linear."""


def new_buckets(window_s: int, is_weighted: bool) -> Buckets:
    """Empty buckets for a window of whole seconds."""
    smoothing = smoothing_of(window_s) if is_weighted else 0.0
    first, last = np.full(1, _LATER, dtype=np.int64), np.full(1, _EARLIER, dtype=np.int64)
    return Buckets(np.zeros(window_s), np.zeros(1), first, last, smoothing)


def smoothing_of(window_s: int) -> float:
    """The weight of the newest of so many buckets: the window holds all but 0.0001 of the weights, or it is 0.2."""
    return max(1.0 - math.pow(_TAIL, 1.0 / window_s), _LEAST_SMOOTHING)


@law_jit
def record(buckets: Buckets, at_s: float, value: float) -> None:
    """Add a value to its second; what is older than the window is dropped."""
    second, size = math.floor(at_s), len(buckets.sums)
    if second + size <= buckets.last[0]:
        return
    buckets.first[0] = min(buckets.first[0], second)
    _advance(buckets, second)
    buckets.sums[second % size] += value
    buckets.total[0] += value


@law_jit
def _advance(buckets: Buckets, second: int) -> None:
    """Let no second be newer than this one; seconds that nothing was recorded in hold 0."""
    size, last = len(buckets.sums), buckets.last[0]
    if second - last >= size:
        for entry in range(size):
            buckets.sums[entry] = 0.0
        buckets.total[0] = 0.0
        buckets.first[0] = second
    else:
        for entered in range(last + 1, second + 1):
            buckets.total[0] -= buckets.sums[entered % size]
            buckets.sums[entered % size] = 0.0
    buckets.last[0] = max(last, second)


@law_jit
def is_silent(buckets: Buckets, now_s: float) -> bool:
    """Whether nothing was recorded for longer than the window: there is no data."""
    return bool(math.floor(now_s) - buckets.last[0] > len(buckets.sums))


@law_jit
def window_average(buckets: Buckets, now_s: float) -> float:
    """The average over the window that ends now."""
    if buckets.smoothing > 0.0:
        return _weighted_average(buckets, now_s)
    return _linear_average(buckets, now_s)


@law_jit
def _linear_average(buckets: Buckets, now_s: float) -> float:
    """Old seconds drop out of the sum as time passes, while the divisor does not grow with the silence."""
    size, last = len(buckets.sums), buckets.last[0]
    silent_s = max(math.floor(now_s) - last, 0)
    if silent_s >= size:
        return 0.0
    total = buckets.total[0]
    for entered in range(last + 1, last + silent_s + 1):
        total -= buckets.sums[entered % size]
    return _rounded(total / min(last - buckets.first[0] + 1, size - silent_s))


@law_jit
def _weighted_average(buckets: Buckets, now_s: float) -> float:
    """Weights m, m (1 - m), m (1 - m)^2, ... from the newest second back; silence ages them; not normalised."""
    size, last = len(buckets.sums), buckets.last[0]
    silent_s = max(math.floor(now_s) - last, 0)
    weight = buckets.smoothing * math.pow(1.0 - buckets.smoothing, float(silent_s))
    average = 0.0
    for age_s in range(size - silent_s):
        average += buckets.sums[(last - age_s) % size] * weight
        weight *= 1.0 - buckets.smoothing
    return average


@law_jit
def _rounded(value: float) -> float:
    """Six decimals, half away from zero: without it the remains of additions would ask for a pod too many."""
    scaled = abs(value) * _DECIMALS
    whole = math.floor(scaled)
    if scaled - whole >= 0.5:
        whole += 1
    return math.copysign(whole / _DECIMALS, value)


@law_jit
def resize(buckets: Buckets, resized: Buckets, now_s: float) -> None:
    """Fill empty buckets of another window from these: what both windows hold, unless these have gone silent."""
    resized.last[0] = buckets.last[0]
    if is_silent(buckets, now_s):
        return
    old, new = len(buckets.sums), len(resized.sums)
    for second in range(buckets.last[0] - min(old, new) + 1, buckets.last[0] + 1):
        resized.sums[second % new] = buckets.sums[second % old]
        resized.total[0] += buckets.sums[second % old]
    # the controller takes its whole old window for known, however lately it was begun
    resized.first[0] = buckets.last[0] - old + 1
