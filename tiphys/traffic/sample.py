"""Draw a trace from a `TrafficProfile`.

A doubly stochastic process. Each minute's expected count lies between the observed minute and the local mean (`shape_weight`),
silent minutes stay silent. Its count is redrawn round that with the profile's `minute_noise` (negative binomial; Poisson at 1),
the total kept within 2 % of what is expected. Within the minute the requests come in clusters of clusters. Lengths are drawn
jointly, with their drift over time, and are independent of the arrivals within a part.

`scale` copies are drawn one by one and laid over one another: rates times `scale`, and the burstiness of independent copies. A
fraction is one more copy at that share of the rates with clusters of the same size, as fewer clients of the same kind would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.errors import InputError
from tiphys.traffic.bursts import Bursting, place
from tiphys.traffic.lengths import draw_lengths, part_of
from tiphys.traffic.profile import MINUTE_S, TrafficProfile

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_TOTAL_WITHIN = 0.02
_LOCAL_MINUTES = 11


@dataclass(frozen=True)
class _Cells:
    """Pieces of at most a minute: where they begin on the sample's clock, how long they are, what they expect."""

    start_s: Floats
    length_s: Floats
    expected: Floats


def sample(
    profile: TrafficProfile, seed: int, duration_s: float | None = None, scale: float = 1.0, start_s: float = 0.0
) -> Trace:
    """Traffic of the window [start_s, start_s + duration_s) of the profile, its clock starting at 0; the whole by default.

    Beyond its end the profile begins anew. The same arguments give the same trace; other seeds give independent ones.
    Raises InputError for a window or scale that is not positive and finite, and for a window in which nothing arrives.
    """
    length_s = profile.duration_s - start_s if duration_s is None else duration_s
    for key, value, least in (("scale", scale, 0.0), ("duration_s", length_s, 0.0), ("start_s", start_s, -1e-9)):
        if not (np.isfinite(value) and value > least):
            raise InputError("must be positive and finite", where=profile.name, key=key, found=value)
    rng = np.random.default_rng([seed, 0x7AFF1C])
    cells = _cells(profile, start_s, length_s)
    expected = np.concatenate([cells.expected * share for share in _copies(scale)])
    counts = _counts(rng, expected, profile.bursts.minute_noise)
    if counts.sum() == 0:
        raise InputError("nothing arrives in this window", where=profile.name, found=f"{start_s:g} s and {length_s:g} s on")
    copies = len(expected) // len(cells.expected)
    bursting = Bursting(profile.bursts.fast, profile.bursts.slow)
    at, cell = place(rng, counts, np.tile(cells.length_s, copies), bursting)
    arrival = np.sort(at + np.tile(cells.start_s, copies)[cell])
    arrival = np.minimum(arrival, length_s)
    return Trace(arrival, *_lengths(rng, profile, arrival + start_s), profile.name, length_s)


def local_mean(counts: Floats, lengths: Floats) -> Floats:
    """The mean rate over eleven minutes round each, times its own length; at the ends over those that there are."""
    window = np.ones(min(_LOCAL_MINUTES, 2 * len(counts) - 1))
    return np.asarray(lengths * np.convolve(counts, window, "same") / np.convolve(lengths, window, "same"))


def toned(counts: Floats, smooth: Floats, weight: float) -> Floats:
    """Counts moved towards their local mean, silent minutes left silent, the total kept."""
    mixed = np.where(counts > 0, smooth + weight * (counts - smooth), 0.0)
    return np.asarray(mixed * (counts.sum() / max(mixed.sum(), 1e-300)))


def _copies(scale: float) -> list[float]:
    whole = int(scale)
    return [1.0] * whole + ([scale - whole] if scale > whole else [])


def _cells(profile: TrafficProfile, start_s: float, length_s: float) -> _Cells:
    """The minutes of the profile that the window touches, cut at its ends."""
    lengths = _minute_lengths(profile.duration_s)
    observed = np.repeat(profile.rates_per_s, int(profile.rate_step_s / MINUTE_S))[: len(lengths)] * lengths
    rates = toned(observed, local_mean(observed, lengths), profile.bursts.shape_weight) / lengths
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


def _lengths(
    rng: np.random.Generator, profile: TrafficProfile, at_s: Floats
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    parts = len(profile.lengths.input_shift)
    middle = (np.arange(len(profile.rates_per_s)) + 0.5) * profile.rate_step_s
    weights = np.bincount(part_of(middle, profile.duration_s, parts), profile.rates_per_s, parts)
    part = part_of(at_s % profile.duration_s, profile.duration_s, parts)
    return draw_lengths(rng, profile.lengths, part, weights / weights.sum())
