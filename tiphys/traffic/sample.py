"""Draw a trace from a `TrafficProfile`.

A doubly stochastic process. Each minute's expected count lies between the observed minute and the local mean
(`shape_weight`), silent minutes stay silent. Its count is redrawn round that with the profile's `minute_noise`
(negative binomial; Poisson at 1), the total kept within 2 % of what is expected. A draw that disperses unusually is
drawn again. Within the minute the requests come in clusters of clusters. Lengths are drawn jointly, with their drift
over time, and are independent of the arrivals within a part.

`scale` copies are drawn one by one and laid over one another: rates times `scale`, and the burstiness of independent
copies. A fraction is one more copy at that share of the rates with clusters of the same size, as fewer clients of the
same kind would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.errors import InputError
from tiphys.traffic.bursts import Bursting, place
from tiphys.traffic.lengths import draw_lengths, part_of
from tiphys.traffic.profile import MINUTE_S, Bursts, TrafficProfile
from tiphys.traffic.statistics import dispersion, window_counts

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_TOTAL_WITHIN = 0.02
_LOCAL_MINUTES = 11
_DRAWS, _DRAWN_REQUESTS = 60, 2e6
_TYPICAL_WITHIN = 0.1
_FEWEST_MINUTES = 10


@dataclass(frozen=True)
class _Cells:
    """Pieces of at most a minute: where they begin on the sample's clock, how long they are, what they expect."""

    start_s: Floats
    length_s: Floats
    expected: Floats


def sample(
    profile: TrafficProfile, seed: int, duration_s: float | None = None, scale: float = 1.0, start_s: float = 0.0
) -> Trace:
    """A trace drawn from the window [start_s, start_s + duration_s) of the profile (default: the whole), from time 0.

    Beyond its end the profile begins anew. The same arguments give the same trace; other seeds give independent ones.
    Raises InputError for a window or scale that is not positive and finite, and for a window in which nothing
    arrives.
    """
    length_s = profile.duration_s - start_s if duration_s is None else duration_s
    for key, value, least in (("scale", scale, 0.0), ("duration_s", length_s, 0.0), ("start_s", start_s, -1e-9)):
        if not (np.isfinite(value) and value > least):
            raise InputError("must be positive and finite", where=profile.name, key=key, found=value)
    rng = np.random.default_rng([seed, 0x7AFF1C])
    cells = _cells(profile, start_s, length_s)
    arrival = _typical(rng, cells, _copies(scale), profile.bursts)
    if len(arrival) == 0:
        raise InputError(
            "nothing arrives in this window", where=profile.name, found=f"{start_s:g} s and {length_s:g} s on"
        )
    arrival = np.minimum(arrival, length_s)
    return Trace(arrival, *_lengths(rng, profile, arrival + start_s), profile.name, length_s)


def local_mean(rates: Floats, lengths: Floats) -> Floats:
    """The mean over eleven minutes round each, weighted by their lengths; at the ends over those that there are."""
    total, length = (
        np.convolve(of, np.ones(_LOCAL_MINUTES))[_LOCAL_MINUTES // 2 :][: len(rates)]
        for of in (rates * lengths, lengths)
    )
    return np.asarray(total / length)


def toned(counts: Floats, smooth: Floats, weight: float) -> Floats:
    """Counts moved towards their local mean, silent minutes left silent, the total kept.

    Weight 1 is the counts, 0 the local mean, -1 one mean for all.
    """
    far = counts if weight >= 0 else counts.sum() * np.ones(len(counts)) / len(counts)
    mixed = np.where(counts > 0, smooth + abs(weight) * (far - smooth), 0.0)
    return np.asarray(mixed * (counts.sum() / max(mixed.sum(), 1e-300)))


def _typical(rng: np.random.Generator, cells: _Cells, copies: list[float], bursts: Bursts) -> Floats:
    """The first draw that disperses within 10 % of what is expected at 1 s and 60 s, or the nearest of some; sorted.

    A short trace of heavy bursts is seldom near its own expectation: two samples of it should not differ by that alone.
    """
    drawn: list[tuple[float, Floats]] = []
    expected = cells.expected.sum() * sum(copies)
    for _ in range(max(1, min(_DRAWS, int(_DRAWN_REQUESTS / max(expected, 1.0))))):
        arrival = _drawn(rng, cells, copies, bursts)
        drawn.append((_off(arrival, cells, copies, bursts), arrival))
        if drawn[-1][0] <= _TYPICAL_WITHIN:
            break
    return min(drawn, key=lambda draw: draw[0])[1]


def _drawn(rng: np.random.Generator, cells: _Cells, copies: list[float], bursts: Bursts) -> Floats:
    counts = _counts(rng, np.concatenate([cells.expected * share for share in copies]), bursts.minute_noise)
    bursting = Bursting(bursts.clustered_share, bursts.fast, bursts.slow)
    at, cell = place(rng, counts, np.tile(cells.length_s, len(copies)), bursting)
    return np.sort(at + np.tile(cells.start_s, len(copies))[cell])


def _off(arrival: Floats, cells: _Cells, copies: list[float], bursts: Bursts) -> float:
    """How far the dispersion of the draw is from what is expected of it, as a share, at 1 s or 60 s, whichever is
    further.

    Minutes are whole ones of the sample's clock, seconds are counted from the first request.
    """
    minutes = int((cells.start_s[-1] + cells.length_s[-1]) // MINUTE_S)
    if minutes < _FEWEST_MINUTES or len(arrival) == 0:
        return 0.0
    share = np.cumsum(cells.expected) * sum(copies)
    expected = np.diff(np.interp(np.arange(minutes + 1) * MINUTE_S, cells.start_s + cells.length_s, share, left=0.0))
    counts = np.bincount((arrival // MINUTE_S).astype(np.int64), minlength=minutes)[:minutes]
    goal_60s = dispersion(expected) + bursts.minute_noise
    goal_1s = max(bursts.within_minute_1s, 1.0) * (1 - 1 / MINUTE_S) + goal_60s / MINUTE_S
    found_1s = dispersion(window_counts(arrival - arrival[0], 1.0))
    return max(abs(dispersion(counts) / goal_60s - 1), abs(found_1s / goal_1s - 1))


def _copies(scale: float) -> list[float]:
    whole = int(scale)
    return [1.0] * whole + ([scale - whole] if scale > whole else [])


def _cells(profile: TrafficProfile, start_s: float, length_s: float) -> _Cells:
    """The minutes of the profile that the window touches, cut at its ends."""
    lengths = _minute_lengths(profile.duration_s)
    observed = np.repeat(profile.rates_per_s, int(profile.rate_step_s / MINUTE_S))[: len(lengths)]
    rates = toned(observed, local_mean(observed, lengths), profile.bursts.shape_weight)
    rates *= (observed * lengths).sum() / (rates * lengths).sum()
    turns = np.arange(int(start_s // profile.duration_s), int((start_s + length_s) // profile.duration_s) + 1)
    starts = ((turns * profile.duration_s)[:, None] + (np.cumsum(lengths) - lengths)[None, :]).ravel()
    ends = np.append(starts[1:], starts[-1] + lengths[-1])
    first, last = np.maximum(starts, start_s), np.minimum(ends, start_s + length_s)
    inside = last > first
    piece = (last - first)[inside]
    return _Cells((first - start_s)[inside], piece, np.tile(rates, len(turns))[inside] * piece)


def _minute_lengths(duration_s: float) -> Floats:
    lengths = np.full(int(-(-duration_s // MINUTE_S)), MINUTE_S)
    lengths[-1] = duration_s - MINUTE_S * (len(lengths) - 1)
    return lengths


def _counts(rng: np.random.Generator, expected: Floats, noise: float) -> Counts:
    means = rng.gamma(expected / (noise - 1)) * (noise - 1) if noise > 1 else expected
    low, high = (1 - _TOTAL_WITHIN) * expected.sum(), (1 + _TOTAL_WITHIN) * expected.sum()
    total = round(min(max(float(rng.poisson(means.sum())), low), high))
    shares = means / means.sum() if means.sum() > 0 else expected / max(expected.sum(), 1e-300)
    return np.asarray(rng.multinomial(total, shares), dtype=np.int64) if expected.sum() > 0 else np.zeros(1, np.int64)


def sample_lengths(
    rng: np.random.Generator, profile: TrafficProfile, requests: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Input and output tokens of so many requests, of all times of the profile in their proportion."""
    weights = _part_weights(profile)
    return draw_lengths(rng, profile.lengths, rng.choice(len(weights), requests, p=weights), weights)


def _lengths(
    rng: np.random.Generator, profile: TrafficProfile, at_s: Floats
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    part = part_of(at_s % profile.duration_s, profile.duration_s, len(profile.lengths.input_shift))
    return draw_lengths(rng, profile.lengths, part, _part_weights(profile))


def _part_weights(profile: TrafficProfile) -> Floats:
    """The share of the requests in each of the equal parts of time that lengths drift over."""
    parts = len(profile.lengths.input_shift)
    ends = np.minimum(np.arange(len(profile.rates_per_s) + 1) * profile.rate_step_s, profile.duration_s)
    until = np.append(0.0, np.cumsum(np.diff(ends) * profile.rates_per_s))
    weights = np.diff(np.interp(np.linspace(0, profile.duration_s, parts + 1), ends, until))
    return np.asarray(weights / weights.sum())
