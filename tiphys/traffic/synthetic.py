"""Traffic made to order: a rate over time, gaps more or less even than Poisson, token lengths from a distribution.

Arrivals are a stationary renewal process of unit rate, its clock turned by the inverse of the cumulative rate, so
that the expected count of every window is the integral of the rate over it (Gerhardt and Nelson, "Transforming
Renewal Processes for Simulation of Nonstationary Arrival Processes", INFORMS Journal on Computing 21(4), 2009).
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tiphys.domain.trace import Trace
from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds
from tiphys.errors import InputError
from tiphys.traffic.loaded import Loaded
from tiphys.traffic.rates import AnyRate

Floats = NDArray[np.float64]

_Z95 = 1.6448536269514722
_GRID = 20_000
_SETTLING_GAPS = 200
_MOST_REQUESTS = 100_000_000


class PoissonGaps(Frozen):
    """Requests that know nothing of one another."""

    kind: Literal["poisson"] = "poisson"

    def unit_gaps(self, rng: np.random.Generator, n: int) -> Floats:
        """n gaps of mean 1."""
        return rng.exponential(1.0, n)


class GammaGaps(Frozen):
    """Gaps of a Gamma distribution: `cv` over 1 comes in bursts, under 1 is more even than Poisson. Shape is 1 /
    cv^2.
    """

    kind: Literal["gamma"] = "gamma"
    cv: Annotated[float, Field(gt=0, le=50)]

    def unit_gaps(self, rng: np.random.Generator, n: int) -> Floats:
        """n gaps of mean 1."""
        return rng.gamma(self.cv**-2, self.cv**2, n)


class FixedTokens(Frozen):
    """The same for every request."""

    kind: Literal["fixed"] = "fixed"
    tokens: PositiveInt

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """n token counts."""
        return np.full(n, float(self.tokens))


class UniformTokens(Frozen):
    """Every whole number from low to high equally often."""

    kind: Literal["uniform"] = "uniform"
    low: PositiveInt
    high: PositiveInt

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is over high ({self.low} > {self.high})")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """n token counts."""
        return rng.integers(self.low, self.high, n, endpoint=True).astype(np.float64)


class LognormalTokens(Frozen):
    """Half are below the median, 95 % below `p95`; what is over `max` is cut to it."""

    kind: Literal["lognormal"] = "lognormal"
    median: PositiveInt
    p95: PositiveInt
    max: PositiveInt = 1_000_000

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.median <= self.p95 <= self.max:
            raise ValueError(f"median, p95 and max must not fall ({self.median}, {self.p95}, {self.max})")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """n token counts."""
        sigma = math.log(self.p95 / self.median) / _Z95
        return np.minimum(rng.lognormal(math.log(self.median), sigma, n), self.max)


class EmpiricalTokens(Frozen):
    """Pairs of a level from 0 to 1 and the tokens at that quantile; straight lines between them."""

    kind: Literal["empirical"] = "empirical"
    quantiles: tuple[tuple[float, PositiveInt], ...]

    @model_validator(mode="after")
    def _rise(self) -> Self:
        levels, tokens = [level for level, _ in self.quantiles], [count for _, count in self.quantiles]
        if len(levels) < 2 or levels[0] != 0 or levels[-1] != 1:
            raise ValueError("quantiles must go from level 0 to level 1")
        if any(b <= a for a, b in pairwise(levels)) or any(b < a for a, b in pairwise(tokens)):
            raise ValueError("levels of quantiles must rise and their tokens must not fall")
        return self

    def draw(self, rng: np.random.Generator, n: int) -> Floats:
        """n token counts."""
        levels, tokens = np.array(self.quantiles).T
        return np.asarray(np.interp(rng.random(n), levels, tokens))


AnyGaps = Annotated[PoissonGaps | GammaGaps, Field(discriminator="kind")]
AnyTokens = Annotated[FixedTokens | UniformTokens | LognormalTokens | EmpiricalTokens, Field(discriminator="kind")]


class SyntheticSource(Frozen):
    """Traffic made to order. Input and output lengths are drawn independently."""

    kind: Literal["synthetic"] = "synthetic"
    duration_s: PositiveSeconds
    rate: AnyRate
    gaps: AnyGaps = PoissonGaps()
    input_tokens: AnyTokens
    output_tokens: AnyTokens

    def load(self, seed: int, base: Path) -> Loaded:
        """The trace that the seed draws; `base` is not needed. Raises InputError when nothing arrives, or too much."""
        rng = np.random.default_rng([seed, 0x5F47])
        arrival = _arrivals(rng, self)
        n = len(arrival)
        if n == 0:
            raise InputError("no request arrives", key="traffic.source.rate", found=self.rate.shape)
        inputs, outputs = (
            np.maximum(np.rint(tokens.draw(rng, n)), 1).astype(np.int32)
            for tokens in (self.input_tokens, self.output_tokens)
        )
        return Loaded(Trace(arrival, inputs, outputs, f"synthetic-{self.rate.shape}", self.duration_s))


def _arrivals(rng: np.random.Generator, source: SyntheticSource) -> Floats:
    grid = _grid(source)
    expected = source.rate.cumulative(grid, source.duration_s)
    if expected[-1] > _MOST_REQUESTS:
        raise InputError(
            "too many requests", key="traffic.source", found=int(expected[-1]), allowed=f"at most {_MOST_REQUESTS}"
        )
    return np.asarray(np.interp(_unit_arrivals(rng, source.gaps, float(expected[-1])), expected, grid))


def _grid(source: SyntheticSource) -> Floats:
    """Times between which the cumulative rate is as good as straight: an even grid and all corners."""
    corners = [corner for corner in source.rate.corners(source.duration_s) if corner < source.duration_s]
    return np.unique(np.concatenate([np.linspace(0.0, source.duration_s, _GRID + 1), corners]))


def _unit_arrivals(rng: np.random.Generator, gaps: PoissonGaps | GammaGaps, until: float) -> Floats:
    """Arrivals in [0, until) of a unit-rate renewal process that has been running long enough to be stationary."""
    settling = float(_SETTLING_GAPS * rng.random() + _SETTLING_GAPS)
    pieces, reached = [], -settling
    while reached < until:
        more = reached + np.cumsum(gaps.unit_gaps(rng, int((until - reached) * 1.05) + 100))
        pieces.append(more)
        reached = float(more[-1])
    arrivals = np.concatenate(pieces)
    return arrivals[(arrivals >= 0) & (arrivals < until)]
