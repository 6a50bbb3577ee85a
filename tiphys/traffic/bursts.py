"""Clusters of arrivals within a minute: drawn, measured, and fitted to what was measured.

Each minute gets its count first. A share of its requests is then cut into slow clusters of fast clusters of geometric
sizes (a Neyman-Scott process conditioned on the count), the rest falls uniformly. For such a process the index of
dispersion of counts in windows of w seconds is 1 + share * sum of excess * (1 - (1 - exp(-w/spread)) / (w/spread)),
with excess 2 (mean_size - 1) for the fast clusters and mean_size_fast * 2 (mean_size_slow - 1) for the slow ones
(Daley and Vere-Jones, "An Introduction to the Theory of Point Processes", 6.3). What conditioning on the minute takes
away is put back by simulating.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tiphys.traffic.profile import MINUTE_S, Clusters

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

WINDOWS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_FAST_S = (0.03, 0.1, 0.3, 0.6, 1.0)
_SLOW_S = (2.0, 4.0, 8.0, 15.0)
_SHARES = (1.0, 0.6, 0.35, 0.2, 0.1)
_ROUNDS = 5
_SIMULATED_REQUESTS = 150_000
_ANCHORS_S = (1.0, 10.0)  # the windows at which a simulation must disperse as observed


@dataclass(frozen=True)
class Bursting:
    """The share of requests that come in clusters, and the two families of clusters."""

    share: float
    fast: Clusters
    slow: Clusters

    @property
    def is_poisson(self) -> bool:
        """True when nothing comes in clusters."""
        return self.fast.mean_size == 1 and self.slow.mean_size == 1


def place(rng: np.random.Generator, counts: Counts, lengths_s: Floats, bursting: Bursting) -> tuple[Floats, Counts]:
    """`counts[i]` arrivals within a cell of `lengths_s[i]` seconds, from the cell's start; and the cell of each.

    Not sorted within a cell. A cell is a circle of there and back: a cluster that would leave it turns round at its
    end.
    """
    if bursting.is_poisson:
        return _uniform(rng, counts, lengths_s)
    clustered = rng.binomial(counts, bursting.share)
    singles, clusters = _uniform(rng, counts - clustered, lengths_s), _clustered(rng, clustered, lengths_s, bursting)
    return np.concatenate([singles[0], clusters[0]]), np.concatenate([singles[1], clusters[1]])


def _uniform(rng: np.random.Generator, counts: Counts, lengths_s: Floats) -> tuple[Floats, Counts]:
    cell = np.repeat(np.arange(len(counts)), counts)
    return rng.random(len(cell)) * lengths_s[cell], cell


def _clustered(
    rng: np.random.Generator, counts: Counts, lengths_s: Floats, bursting: Bursting
) -> tuple[Floats, Counts]:
    cell = np.repeat(np.arange(len(counts)), counts)
    length = lengths_s[cell]
    new_fast, new_slow = _cluster_starts(rng, cell, bursting)
    slow = np.cumsum(new_slow) - 1
    at = (rng.random(int(new_slow.sum())) * 2 * length[new_slow])[slow]
    if bursting.slow.mean_size > 1:
        fast = np.cumsum(new_fast) - 1
        at += rng.exponential(bursting.slow.spread_s, int(new_fast.sum()))[fast]
    if bursting.fast.mean_size > 1:
        at += rng.exponential(bursting.fast.spread_s, len(cell))
    return np.abs((at + length) % (2 * length) - length), cell


def within_minute_dispersion(arrival_s: Floats, minutes: int, window_s: float) -> float:
    """Index of dispersion of counts per window round the mean of their own minute, over the first whole minutes
    (Poisson: 1).
    """
    counts = _windows(arrival_s, minutes, window_s)
    around = counts - counts.mean(axis=1, keepdims=True)
    total, per_minute = counts.sum(), counts.shape[1]
    return float((around**2).sum() * per_minute / (per_minute - 1) / total) if total else 1.0


def fit_bursting(arrival_s: Floats, counts: Counts) -> Bursting:
    """The clusters with which minutes of these counts disperse as the arrivals do, at 1 s and nearly so at 0.1 to 20
    s.

    The share of clustered requests is the one whose 1-s counts are distributed most like the observed. Traffic that
    is not significantly burstier than Poisson (three standard errors) is taken for Poisson.
    """
    observed = np.array([within_minute_dispersion(arrival_s, len(counts), window) - 1 for window in WINDOWS_S])
    fast_s, slow_s = _spreads(observed)
    anchors = np.maximum([observed[WINDOWS_S.index(window)] for window in _ANCHORS_S], 0.0)
    if anchors[0] < 3 * math.sqrt(2 / (MINUTE_S * len(counts))):
        return Bursting(0.0, Clusters(mean_size=1, spread_s=fast_s), Clusters(mean_size=1, spread_s=slow_s))
    every = max(1, int(counts.sum() // _SIMULATED_REQUESTS))
    seconds = _count_quantiles(_windows(arrival_s, len(counts), 1.0)[::every])
    fitted = [_calibrated(anchors, counts[::every], share, fast_s, slow_s) for share in _SHARES]

    def misfit(bursting: Bursting) -> float:
        at, minutes = _simulated(counts[::every], bursting, _ROUNDS)
        return float(np.abs(_count_quantiles(_windows(at, minutes, 1.0)) - seconds).sum())

    return min(fitted, key=misfit)


def _calibrated(anchors: Floats, counts: Counts, share: float, fast_s: float, slow_s: float) -> Bursting:
    """The clusters that disperse as the anchors say, with this share of clustered requests."""
    response = np.array([[_conditioned_excess(window, spread) for spread in (fast_s, slow_s)] for window in _ANCHORS_S])
    aimed = anchors.copy()
    for turn in range(_ROUNDS):
        bursting = _bursting(share, _excesses(response, aimed), fast_s, slow_s)
        at, minutes = _simulated(counts, bursting, turn)
        reached = [within_minute_dispersion(at, minutes, window) - 1 for window in _ANCHORS_S]
        aimed = aimed * np.clip(anchors / np.maximum(reached, 1e-3), 0.5, 2.0)
    return _bursting(share, _excesses(response, aimed), fast_s, slow_s)


def _windows(arrival_s: Floats, minutes: int, window_s: float) -> Counts:
    """Counts per window, a row a minute."""
    per_minute = round(MINUTE_S / window_s)
    index = (arrival_s / window_s).astype(np.int64)
    inside = index[index < minutes * per_minute]
    return np.bincount(inside, minlength=minutes * per_minute).reshape(minutes, per_minute)


def _count_quantiles(counts: Counts) -> Floats:
    return np.quantile(counts, np.linspace(0.0005, 0.9995, 1000))


def _cluster_starts(
    rng: np.random.Generator, cell: Counts, bursting: Bursting
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which requests begin a fast and a slow cluster: geometric sizes are coins tossed at each request."""
    new_cell = np.ones(len(cell), dtype=np.bool_)
    new_cell[1:] = cell[1:] != cell[:-1]
    new_fast = new_cell | (rng.random(len(cell)) < 1 / bursting.fast.mean_size)
    new_slow = new_cell | (new_fast & (rng.random(len(cell)) < 1 / bursting.slow.mean_size))
    return new_fast, new_slow


def _excess(window_s: float, spread_s: float) -> float:
    ratio = window_s / spread_s
    return float(1 - (1 - np.exp(-ratio)) / ratio)


def _conditioned_excess(window_s: float, spread_s: float) -> float:
    """Per unit of excess, what is left of it round the mean of a minute whose count is given."""
    share = window_s / MINUTE_S
    return (_excess(window_s, spread_s) - share * _excess(MINUTE_S, spread_s)) / (1 - share)


def _spreads(observed: Floats) -> tuple[float, float]:
    """The delays of the fast and slow clusters that come nearest to the dispersion at all windows (relative
    squares).
    """
    weight = 1 / (1 + np.maximum(observed, 0.0))

    def misfit(spreads: tuple[float, float]) -> float:
        response = np.array([[_conditioned_excess(window, spread) for spread in spreads] for window in WINDOWS_S])
        excess = np.linalg.lstsq(response * weight[:, None], observed * weight, rcond=None)[0]
        return float((((response @ np.maximum(excess, 0.0) - observed) * weight) ** 2).sum())

    return min(product(_FAST_S, _SLOW_S), key=misfit)


def _excesses(response: Floats, aimed: Floats) -> tuple[float, float]:
    """Excess of the fast and slow clusters, neither negative; where both anchors cannot be met, the first is."""
    fast, slow = np.linalg.solve(response, aimed)
    if fast < 0:
        return 0.0, float(aimed[0] / response[0, 1])
    if slow < 0:
        return float(aimed[0] / response[0, 0]), 0.0
    return float(fast), float(slow)


def _bursting(share: float, excesses: tuple[float, float], fast_s: float, slow_s: float) -> Bursting:
    fast_size = 1 + excesses[0] / share / 2
    slow_size = 1 + excesses[1] / share / (2 * fast_size)
    return Bursting(
        share, Clusters(mean_size=fast_size, spread_s=fast_s), Clusters(mean_size=slow_size, spread_s=slow_s)
    )


def _simulated(counts: Counts, bursting: Bursting, turn: int) -> tuple[Floats, int]:
    """Arrivals with these counts in the minutes, over enough repeats to be steady; and how many minutes that are."""
    repeats = max(1, int(_SIMULATED_REQUESTS // max(int(counts.sum()), 1)))
    many = np.tile(counts, repeats)
    rng = np.random.default_rng([0xB0057, turn])
    at, cell = place(rng, many, np.full(len(many), MINUTE_S), bursting)
    return at + cell * MINUTE_S, len(many)
