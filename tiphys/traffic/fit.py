"""Learn a `TrafficProfile` from a trace."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.errors import InputError
from tiphys.traffic.bursts import fit_bursting, within_minute_dispersion
from tiphys.traffic.lengths import fit_lengths
from tiphys.traffic.profile import MINUTE_S, Bursts, Clusters, TrafficProfile
from tiphys.traffic.sample import local_mean, toned
from tiphys.traffic.statistics import dispersion, window_counts

Floats = NDArray[np.float64]

_SHORTEST_S = 2 * MINUTE_S
_LONGEST_S = 100 * 86_400.0
_MOST_RATES = 3000
# At most this share of the variance of minutes is redrawn in a sample, or its minutes no longer follow the original's.
# Of a short trace less: this share for each minute already moves the sample's dispersion at 60 s by 5 % (one sigma).
_REDRAWN_SHARE = 0.1
_REDRAWN_SHARE_A_MINUTE = 1 / 1600


def fit(
    trace: Trace, *, name: str = "", source: str = "", licence: str = "", citation: str = "", changes: str = ""
) -> TrafficProfile:
    """What the trace's traffic looks like, to be drawn from again: about 20 KB for a day.

    Raises InputError when the trace lasts less than two minutes or more than a hundred days.
    """
    if not _SHORTEST_S <= trace.end_s <= _LONGEST_S:
        raise InputError(
            "a profile cannot be learnt from a trace this short or long",
            where=trace.name,
            found=trace.end_s,
            allowed=f"{_SHORTEST_S:g} to {_LONGEST_S:g} s",
        )
    step_s = MINUTE_S * (1 + int(trace.end_s / MINUTE_S / _MOST_RATES))
    return TrafficProfile(
        name=name or trace.name,
        source=source,
        licence=licence,
        citation=citation,
        changes=changes,
        requests=len(trace),
        duration_s=trace.end_s,
        mean_rate_per_s=_short(len(trace) / trace.end_s),
        rate_step_s=step_s,
        rates_per_s=_rates(trace, step_s),
        bursts=_bursts(trace),
        lengths=fit_lengths(trace),
    )


def _rates(trace: Trace, step_s: float) -> tuple[float, ...]:
    steps = int(-(-trace.end_s // step_s))
    index = np.minimum((trace.arrival_s // step_s).astype(np.int64), steps - 1)
    lengths = np.full(steps, step_s)
    lengths[-1] = trace.end_s - (steps - 1) * step_s
    return tuple(_short(rate) for rate in np.bincount(index, minlength=steps) / lengths)


def _bursts(trace: Trace) -> Bursts:
    whole = int(trace.end_s // MINUTE_S)
    counts = np.bincount((trace.arrival_s // MINUTE_S).astype(np.int64), minlength=whole)[:whole]
    noise = _minute_noise(counts)
    bursting = fit_bursting(trace.arrival_s, counts)
    return Bursts(
        dispersion_1s=_short(dispersion(window_counts(trace.arrival_s, 1.0))),
        dispersion_60s=_short(dispersion(counts)),
        within_minute_1s=_short(within_minute_dispersion(trace.arrival_s, whole, 1.0)),
        minute_noise=_short(noise),
        shape_weight=_short(_shape_weight(counts.astype(np.float64), noise)),
        clustered_share=bursting.share,
        fast=_shortened(bursting.fast),
        slow=_shortened(bursting.slow),
    )


def _minute_noise(counts: NDArray[np.int64]) -> float:
    """Index of dispersion of what changes from one minute to the next, at most the redrawn share of the whole, at
    least Poisson's.
    """
    if counts.sum() == 0 or len(counts) < 2:
        return 1.0
    neighbours = float(np.mean(np.diff(counts) ** 2)) / 2 / float(counts.mean())
    share = min(_REDRAWN_SHARE, _REDRAWN_SHARE_A_MINUTE * len(counts))
    return max(1.0, min(neighbours, share * dispersion(counts)))


def _shape_weight(counts: Floats, noise: float) -> float:
    """The weight of the observed minutes against their local mean with which shape and noise together disperse as
    observed.
    """
    goal = dispersion(counts) - noise
    smooth = local_mean(counts, np.ones(len(counts)))
    low, high = -1.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if dispersion(toned(counts, smooth, middle)) < goal else (low, middle)
    return low


def _shortened(family: Clusters) -> Clusters:
    return Clusters(mean_size=_short(family.mean_size), spread_s=family.spread_s)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
