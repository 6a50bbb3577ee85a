"""The scale-down delay: a wish counts until it has left a window of time (4.3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import law_jit


class MaximumWindow(NamedTuple):
    """The values that are, or can still become, the largest of the last so many buckets: a ring that falls from its
    front to its back.
    """

    value: NDArray[np.int64]
    bucket: NDArray[np.int64]
    """Number of the bucket of time in which the value was recorded."""
    front: NDArray[np.int64]
    """One entry: where the ring begins."""
    length: NDArray[np.int64]
    """One entry: how many values it holds."""


def new_maximum_window(buckets: int) -> MaximumWindow:
    """An empty window of so many buckets, at least one."""
    size = max(buckets, 1)
    return MaximumWindow(
        np.zeros(size, dtype=np.int64),
        np.zeros(size, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
    )


def delay_buckets(delay_s: float, bucket_s: float) -> int:
    """The number of buckets that a delay takes."""
    return math.ceil(delay_s / bucket_s)


@law_jit
def bucket_of(now_s: float, bucket_s: float) -> int:
    """The number of the bucket of a time."""
    return math.floor(now_s / bucket_s)


@law_jit
def largest_with(window: MaximumWindow, bucket: int, value: int) -> int:
    """Record a value in the newest bucket, and the largest value of the window with it.

    A value leaves when its bucket is as many buckets old as the window has; one bucket keeps its larger value.
    """
    size = len(window.value)
    while window.length[0] > 0 and window.value[_back(window)] <= value:
        window.length[0] -= 1
    while window.length[0] > 0 and bucket - window.bucket[window.front[0]] >= size:
        window.front[0] = (window.front[0] + 1) % size
        window.length[0] -= 1
    if window.length[0] == 0 or window.bucket[_back(window)] != bucket:
        window.length[0] += 1
        window.value[_back(window)] = value
        window.bucket[_back(window)] = bucket
    return int(window.value[window.front[0]])


@law_jit
def _back(window: MaximumWindow) -> int:
    return int((window.front[0] + window.length[0] - 1) % len(window.value))
