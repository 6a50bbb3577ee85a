"""Shapes of a rate over time: one class a shape, each an integral that can be turned round exactly enough.

`cumulative(t)` is the expected number of requests by time t (from 0); `corners` are the times at which the rate jumps
or bends.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveSeconds, Ratio, Seconds

Floats = NDArray[np.float64]
Rate = Annotated[float, Field(ge=0)]
PositiveRate = Annotated[float, Field(gt=0)]


class Constant(Frozen):
    """The same rate throughout."""

    shape: Literal["constant"] = "constant"
    per_s: PositiveRate

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        return self.per_s * time_s

    def corners(self, duration_s: float) -> tuple[float, ...]:
        """None."""
        return ()


class Ramp(Frozen):
    """From one rate at the start to another at the end, in a straight line."""

    shape: Literal["ramp"] = "ramp"
    from_per_s: Rate
    to_per_s: Rate

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        return self.from_per_s * time_s + (self.to_per_s - self.from_per_s) * time_s**2 / (2 * duration_s)

    def corners(self, duration_s: float) -> tuple[float, ...]:
        """None."""
        return ()


class Diurnal(Frozen):
    """A sine: `mean_per_s` times 1 plus or minus `swing_ratio`, highest at `peak_at_s` and every `period_s` after."""

    shape: Literal["diurnal"] = "diurnal"
    mean_per_s: PositiveRate
    swing_ratio: Ratio = 0.5
    period_s: PositiveSeconds = 86_400.0
    peak_at_s: Seconds = 50_400.0

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        turn = 2 * math.pi / self.period_s
        swing = np.sin(turn * (time_s - self.peak_at_s)) + math.sin(turn * self.peak_at_s)
        return np.asarray(self.mean_per_s * (time_s + self.swing_ratio * swing / turn))

    def corners(self, duration_s: float) -> tuple[float, ...]:
        """Enough points of each period that straight lines between them are within 1e-6 of the sine's integral."""
        return tuple(np.arange(0.0, duration_s, max(self.period_s / 2000, duration_s / 2e6)).tolist())


class Spike(Frozen):
    """A rate that comes on top for a while."""

    at_s: Seconds
    duration_s: PositiveSeconds
    height_per_s: PositiveRate


class Spikes(Frozen):
    """A constant rate with spikes on top; spikes that overlap add up."""

    shape: Literal["spikes"] = "spikes"
    base_per_s: Rate
    spikes: tuple[Spike, ...]

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        on_top = (spike.height_per_s * np.clip(time_s - spike.at_s, 0, spike.duration_s) for spike in self.spikes)
        return np.asarray(self.base_per_s * time_s + sum(on_top))

    def corners(self, duration_s: float) -> tuple[float, ...]:
        """Where spikes begin and end."""
        return tuple(edge for spike in self.spikes for edge in (spike.at_s, spike.at_s + spike.duration_s))


class Level(Frozen):
    """A rate from a time on."""

    at_s: Seconds
    per_s: Rate


class _Levels(Frozen):
    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [level.at_s for level in self._levels]
        if not times or times[0] != 0:
            raise ValueError("the first level must be at_s: 0")
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError("levels must be in order of at_s")
        return self

    @property
    def _levels(self) -> tuple[Level, ...]:
        raise NotImplementedError

    def corners(self, duration_s: float) -> tuple[float, ...]:
        """The times of the levels."""
        return tuple(level.at_s for level in self._levels)


class Steps(_Levels):
    """Constant from each level to the next; the last stays."""

    shape: Literal["steps"] = "steps"
    steps: tuple[Level, ...]

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.steps

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        ends = [*(level.at_s for level in self.steps[1:]), math.inf]
        parts = (
            level.per_s * np.clip(time_s - level.at_s, 0, end - level.at_s)
            for level, end in zip(self.steps, ends, strict=True)
        )
        return np.asarray(sum(parts), dtype=np.float64)


class Points(_Levels):
    """A straight line from each point to the next; the last stays."""

    shape: Literal["points"] = "points"
    points: tuple[Level, ...]

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.points

    def cumulative(self, time_s: Floats, duration_s: float) -> Floats:
        """Expected requests by each time."""
        at = np.array([point.at_s for point in self.points])
        rate = np.array([point.per_s for point in self.points])
        until = np.append(0.0, np.cumsum(np.diff(at) * (rate[1:] + rate[:-1]) / 2))
        index = np.clip(np.searchsorted(at, time_s, side="right") - 1, 0, len(at) - 1)
        since = time_s - at[index]
        return np.asarray(until[index] + since * (rate[index] + np.interp(time_s, at, rate)) / 2)


AnyRate = Annotated[Constant | Ramp | Diurnal | Spikes | Steps | Points, Field(discriminator="shape")]
