"""Clusters of arrivals within a minute: drawn, measured, and fitted to what was measured.

Each minute gets its count first; the requests of a minute are then cut into slow clusters of fast clusters of geometric sizes
(a Neyman-Scott process conditioned on the count). Unclustered requests fall uniformly. For such a process the index of
dispersion of counts in windows of w seconds is 1 + sum of excess * (1 - (1 - exp(-w/spread)) / (w/spread)), with excess
2 (mean_size - 1) for the fast clusters and mean_size_fast * 2 (mean_size_slow - 1) for the slow ones (Daley and Vere-Jones, "An
Introduction to the Theory of Point Processes", 6.3). What conditioning on the minute takes away is put back by simulating.
"""

from __future__ import annotations

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
_ROUNDS = 8
_SIMULATED_REQUESTS = 150_000
_ANCHORS_S = (1.0, 10.0)  # the windows at which a simulation must disperse as observed


@dataclass(frozen=True)
class Bursting:
    """The two families of clusters."""

    fast: Clusters
    slow: Clusters

    @property
    def is_poisson(self) -> bool:
        """True when nothing comes in clusters."""
        return self.fast.mean_size == 1 and self.slow.mean_size == 1


def place(rng: np.random.Generator, counts: Counts, lengths_s: Floats, bursting: Bursting) -> tuple[Floats, Counts]:
    """`counts[i]` arrivals within a cell of `lengths_s[i]` seconds, from the cell's start; and the cell of each.

    Not sorted within a cell. A member that would leave its cell is mirrored back into it.
    """
    cell = np.repeat(np.arange(len(counts)), counts)
    length = lengths_s[cell]
    if bursting.is_poisson:
        return rng.random(len(cell)) * length, cell
    new_fast, new_slow = _cluster_starts(rng, cell, bursting)
    slow = np.cumsum(new_slow) - 1
    at = (rng.random(int(new_slow.sum())) * length[new_slow])[slow]
    if bursting.slow.mean_size > 1:
        fast = np.cumsum(new_fast) - 1
        at += rng.exponential(bursting.slow.spread_s, int(new_fast.sum()))[fast]
    if bursting.fast.mean_size > 1:
        at += rng.exponential(bursting.fast.spread_s, len(cell))
    return np.abs((at + length) % (2 * length) - length), cell


def within_minute_dispersion(arrival_s: Floats, minutes: int, window_s: float) -> float:
    """Index of dispersion of counts per window round the mean of their own minute, over the first whole minutes (Poisson: 1)."""
    per_minute = round(MINUTE_S / window_s)
    index = (arrival_s / window_s).astype(np.int64)
    counts = np.bincount(index[index < minutes * per_minute], minlength=minutes * per_minute).reshape(minutes, per_minute)
    around = counts - counts.mean(axis=1, keepdims=True)
    total = counts.sum()
    return float((around**2).sum() * per_minute / (per_minute - 1) / total) if total else 1.0


def fit_bursting(arrival_s: Floats, counts: Counts) -> Bursting:
    """The clusters with which minutes of these counts disperse as the arrivals do, at 1 s and nearly so at 0.1 to 20 s.

    Traffic that is more even than Poisson is taken for Poisson.
    """
    observed = np.array([within_minute_dispersion(arrival_s, len(counts), window) - 1 for window in WINDOWS_S])
    fast_s, slow_s = _spreads(observed)
    anchors = np.maximum([observed[WINDOWS_S.index(window)] for window in _ANCHORS_S], 0.0)
    if anchors[0] < 0.05:
        return Bursting(Clusters(mean_size=1, spread_s=fast_s), Clusters(mean_size=1, spread_s=slow_s))
    response = np.array([[_conditioned_excess(window, spread) for spread in (fast_s, slow_s)] for window in _ANCHORS_S])
    aimed, chosen = anchors.copy(), counts[:: max(1, int(counts.sum() // _SIMULATED_REQUESTS))]
    for turn in range(_ROUNDS):
        bursting = _bursting(_excesses(response, aimed), fast_s, slow_s)
        aimed = aimed * np.clip(anchors / np.maximum(_simulated(chosen, bursting, turn), 1e-3), 0.5, 2.0)
    return bursting


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
    """The delays of the fast and slow clusters that come nearest to the dispersion at all windows (relative squares)."""
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


def _bursting(excesses: tuple[float, float], fast_s: float, slow_s: float) -> Bursting:
    fast_size = 1 + excesses[0] / 2
    slow_size = 1 + excesses[1] / (2 * fast_size)
    return Bursting(Clusters(mean_size=fast_size, spread_s=fast_s), Clusters(mean_size=slow_size, spread_s=slow_s))


def _simulated(counts: Counts, bursting: Bursting, turn: int) -> Floats:
    """What the clusters give at the anchors, with these counts in the minutes, over enough repeats to be steady."""
    repeats = max(1, int(_SIMULATED_REQUESTS // max(int(counts.sum()), 1)))
    many = np.tile(counts, repeats)
    rng = np.random.default_rng([0xB0057, turn])
    at, cell = place(rng, many, np.full(len(many), MINUTE_S), bursting)
    at += cell * MINUTE_S
    return np.array([within_minute_dispersion(at, len(many), window) - 1 for window in _ANCHORS_S])
