"""Statistics of paired plays: the interval of a ratio over clusters of traffic, and how much traffic a window holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen
from tiphys.errors import InputError


class Blocks(Frozen):
    """How much independent traffic a window holds."""

    block_s: float
    """Length of traffic that says something new: the autocorrelation time of the load, at least the rules' floor."""
    count: float


class Interval(Frozen):
    """A ratio of GPU-seconds (challenger over incumbent) and where it lies with the stated confidence."""

    ratio: float
    low: float
    high: float


def cluster_means(values: Floats, clusters: Sequence[str]) -> Floats:
    """The mean of the values of each cluster, in order of first appearance."""
    names = list(dict.fromkeys(clusters))
    index = np.array([names.index(cluster) for cluster in clusters])
    return np.bincount(index, weights=values, minlength=len(names)) / np.bincount(index, minlength=len(names))


def ratio_interval(log_ratios: Floats, clusters: Sequence[str], confidence: float) -> Interval:
    """The geometric mean ratio over clusters with its two-sided Student's t interval.

    Raises InputError with fewer than two clusters: seeds on one traffic say nothing of other traffic.
    """
    means = cluster_means(log_ratios, clusters)
    if len(means) < 2:
        raise InputError("the replicates share one traffic", key="replicates", allowed="at least 2 different traffics")
    centre = float(means.mean())
    half = student_t_quantile((1 + confidence) / 2, len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return Interval(ratio=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half))


def student_t_quantile(probability: float, dof: int) -> float:
    """The value below which Student's t with whole degrees of freedom lies with a probability in [0.5, 1)."""
    if not 0.5 <= probability < 1 or dof < 1:
        raise ValueError(f"probability {probability} or degrees of freedom {dof} out of range")
    low, high = 0.0, 1.0
    while student_t_cdf(high, dof) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, dof) < probability else (low, middle)
    return (low + high) / 2


def student_t_cdf(t: float, dof: int) -> float:
    """P(T <= t) for whole degrees of freedom and t >= 0, in closed form (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(dof))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = dof % 2 == 1
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if dof == 1:
        total = 0.0
    for k in range(3 if odd else 2, dof - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 + inside) / 2


def independent_blocks(load: Floats, step_s: float, at_least_s: float = 60.0) -> Blocks:
    """How many independent blocks a window of traffic holds, from its load per step (say, arrivals a minute).

    A block is as long as the load's integrated autocorrelation time about its straight trend (Geyer's initial positive
    sequence), at least `at_least_s`. The trend itself is left out: every policy lives through the same one, and what a
    window has to hold often enough are the swings about it.
    """
    block_s = max(step_s * autocorrelation_time(_detrended(load)), at_least_s)
    return Blocks(block_s=block_s, count=len(load) * step_s / block_s)


def _detrended(series: Floats) -> Floats:
    x = np.arange(len(series)) - (len(series) - 1) / 2
    slope = float((x * series).sum()) / max(float((x * x).sum()), 1.0)
    straight: Floats = series - series.mean() - slope * x
    return straight


def autocorrelation_time(series: Floats) -> float:
    """Steps of a series that are worth one independent value, at least 1 (a series that does not vary: 1)."""
    n = len(series)
    centred = series - series.mean() if n else series
    variance = float((centred * centred).sum())
    if n < 4 or variance <= 1e-12 * float((series * series).sum()):
        return 1.0
    total = 1.0
    for lag in range(1, n // 2 - 1, 2):
        pair = sum(float((centred[k:] * centred[: n - k]).sum()) / variance for k in (lag, lag + 1))
        if pair <= 0:
            break
        total += 2 * pair
    return total
