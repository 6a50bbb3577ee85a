"""What the faults of a scenario did to its users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.faults import Fault
from tiphys.domain.recording import Recording
from tiphys.domain.values import Frozen

BEFORE_S = 600.0
"""How much traffic before a fault it is held against."""
RECOVERED_S = 60.0
"""For how long users must fare as well as before, for the damage to be over."""
_STEP_S = 10.0
_LEAST_REQUESTS = 5


class Damage(Frozen):
    """One fault and what it did; times count from the beginning of the scored window.

    Shares are of requests that kept every objective of their class: of those that arrived in the ten minutes before,
    and from the fault to its end or the recovery, whichever was later. `failed` counts requests that failed, of those
    under way when it began and those that arrived in that time.
    """

    kind: str
    at_s: float
    failed: int
    met_share_before: float | None
    """None where nothing arrived before."""
    met_share_during: float | None
    recovered_s: float | None
    """From the fault's beginning until users fare again as promised, or as before where that was worse; 0 where they
    always did; None for never.
    """


def damages(recording: Recording, good: NDArray[np.bool_], promised_share: float) -> tuple[Damage, ...]:
    """The damage of each fault of a recording, in their order; `good` says which requests kept their objectives."""
    return tuple(_damage(recording, fault, good, promised_share) for fault in recording.faults)


def _damage(recording: Recording, fault: Fault, good: NDArray[np.bool_], promised_share: float) -> Damage:
    arrival, horizon_s = recording.trace.arrival_s, recording.horizon_s
    at_s = recording.warmup_s + fault.at_s
    until_s = min(recording.warmup_s + getattr(fault, "until_s", fault.at_s), horizon_s)
    before = _share(good, arrival, max(at_s - BEFORE_S, recording.warmup_s), at_s)
    aim = promised_share if before is None else min(before, promised_share)
    recovered_s = _recovered_s(good, arrival, at_s, until_s, horizon_s, aim)
    end_s = horizon_s if recovered_s is None else max(recovered_s, until_s)
    return Damage(
        kind=fault.kind,
        at_s=fault.at_s,
        failed=_failed(recording, at_s, max(end_s, at_s + RECOVERED_S)),
        met_share_before=before,
        met_share_during=_share(good, arrival, at_s, max(end_s, min(at_s + RECOVERED_S, horizon_s))),
        recovered_s=None if recovered_s is None else recovered_s - at_s,
    )


def _share(good: NDArray[np.bool_], arrival: NDArray[np.float64], start_s: float, stop_s: float) -> float | None:
    inside = good[np.searchsorted(arrival, start_s) : np.searchsorted(arrival, stop_s)]
    return float(inside.mean()) if len(inside) else None


def _recovered_s(
    good: NDArray[np.bool_], arrival: NDArray[np.float64], at_s: float, until_s: float, horizon_s: float, aim: float
) -> float | None:
    """The end of the last minute, from the fault on, in which users fared worse than they should; its begin if none.

    A minute with hardly a request says nothing. None when the last minute that says something is a bad one.
    """
    begins = np.arange(at_s, max(horizon_s - RECOVERED_S, at_s) + 1e-9, _STEP_S)
    low, high = np.searchsorted(arrival, begins), np.searchsorted(arrival, begins + RECOVERED_S)
    kept = np.concatenate([[0], np.cumsum(good)])
    counts = high - low
    telling = counts >= _LEAST_REQUESTS
    if not telling.any():
        return None
    bad = telling & (kept[high] - kept[low] < aim * counts - 1e-9)
    # what comes long after is other weather: the first good minute after the fault is over ends the damage
    healthy = np.flatnonzero(telling & ~bad & (begins >= until_s))
    if not len(healthy):
        return None
    bad_before = np.flatnonzero(bad[: healthy[0]])
    return float(begins[healthy[0]]) if len(bad_before) else at_s


def _failed(recording: Recording, at_s: float, end_s: float) -> int:
    arrival, finish = recording.trace.arrival_s, recording.finish_s
    ended = np.isfinite(finish)
    longest_s = float((finish[ended] - arrival[ended]).max(initial=0.0))
    under_way = slice(*np.searchsorted(arrival, [at_s - min(longest_s, BEFORE_S), end_s]))
    return int(recording.failed[under_way].sum())
