"""What lies between a step of the load and a replica that takes requests, measured on one recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiphys.domain.recording import PoolRecording
from tiphys.domain.values import Frozen
from tiphys.report.explain.passes import Explained, Law


class DelayBudget(Frozen):
    """Means in seconds; None where the recording has nothing to measure it on."""

    scale_ups: int
    scrape_age_s: float | None
    """Age of the newest scrape that a scale-up was decided on."""
    window_half_s: float
    """Half the range of a rate: by then a step counts for half. 0 for instant levels."""
    pass_wait_s: float | None
    """Half the time between passes of the controller."""
    held_s: float
    """From the first pass that wished for more to the pass that wrote it."""
    cold_start_s: float | None
    """From a pod's creation to its readiness."""
    cold_start_longest_s: float | None

    @property
    def total_s(self) -> float:
        """The sum of what is known."""
        parts = (self.scrape_age_s, self.window_half_s, self.pass_wait_s, self.held_s, self.cold_start_s)
        return sum(part for part in parts if part is not None)


def delay_budget(pool: PoolRecording, passes: Sequence[Explained], law: Law) -> DelayBudget:
    """The budget of one pool, from its decisions and the lives of its replicas."""
    looks = [each for each in passes if each.loop in ("hpa", "kpa")]
    ups = [each for each in looks if each.after > each.before and each.winner is not None]
    ages = [age for each in ups or looks for age in [_winning_age_s(each)] if age is not None]
    windows = [_window_s(law, each.winner) for each in ups]
    times = np.array([each.time_s for each in looks])
    life = pool.life
    cold_s = (life.ready_s - life.created_s)[(life.created_s > 0) & np.isfinite(life.ready_s)]
    held = _held_s(looks)
    return DelayBudget(
        scale_ups=len(ups),
        scrape_age_s=_mean(ages),
        window_half_s=(_mean(windows) or max((m.window_s for m in law.metrics), default=0.0)) / 2,
        pass_wait_s=float(np.diff(times).mean()) / 2 if len(times) > 1 else None,
        held_s=_mean(held) or 0.0,
        cold_start_s=_mean(cold_s.tolist()),
        cold_start_longest_s=float(cold_s.max()) if len(cold_s) else None,
    )


def _held_s(passes: Sequence[Explained]) -> list[float]:
    """For each scale-up, how long more had been wished for in one stretch."""
    waits, since_s = [], None
    for each in passes:
        wishes_more = each.wish is not None and each.wish > each.before
        since_s = (each.time_s if since_s is None else since_s) if wishes_more else None
        if each.after > each.before and since_s is not None:
            waits.append(each.time_s - since_s)
            since_s = None
    return waits


def _winning_age_s(each: Explained) -> float | None:
    steps = [step for step in each.answers if each.winner in (None, step.name)]
    return min((step.age_s for step in steps if step.age_s is not None), default=None)


def _window_s(law: Law, winner: str | None) -> float:
    return next((metric.window_s for metric in law.metrics if metric.name == winner), 0.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
