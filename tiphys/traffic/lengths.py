"""Joint token lengths: learnt as quantile tables, drawn again with their drift over time.

A request's input and output are each a standard normal score: a shift of its part of time plus noise. The score's
rank under the mixture of all parts is looked up in the quantile table, so that the whole has the observed quantiles
while each part keeps its own mean rank. Between two quantiles the logarithm is interpolated: tails are long. The
noise is stratified (one draw in each of n equal slices), which steadies the quantiles of a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.traffic.profile import Lengths
from tiphys.traffic.statistics import rank_correlation

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Counts = NDArray[np.int64]

_GROUPS = 12
_INPUT_LEVELS = (0.0, 0.001, 0.0025, 0.005, *(i / 100 for i in range(1, 100)), 0.995, 0.9975, 0.999, 0.9995, 1.0)
_OUTPUT_TAIL = (*(i / 100 for i in range(91, 99)), 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 1.0)
_OUTPUT_LEVELS = (0.0, 0.01, *(i / 40 for i in range(1, 37)), *_OUTPUT_TAIL)
_REQUESTS_PER_PART = 1000
_MOST_PARTS = 24
_SCORES = np.linspace(-6.0, 6.0, 1201)
_NORMAL = np.array([0.5 * (1 + math.erf(score / math.sqrt(2))) for score in _SCORES])


def fit_lengths(trace: Trace) -> Lengths:
    """The quantile tables of a trace and how its lengths drift from part to part (at most 24 parts of 1,000
    requests).
    """
    input_rank = _ranks(trace.input_tokens)
    group = np.minimum((input_rank * _GROUPS).astype(np.int64), _GROUPS - 1)
    output_rank, rows = np.empty(len(trace)), []
    for members in (np.flatnonzero(group == g) for g in range(_GROUPS)):
        outputs = trace.output_tokens[members if len(members) else slice(None)]
        rows.append(_quantiles(outputs, _OUTPUT_LEVELS))
        output_rank[members] = _ranks(trace.output_tokens[members])
    parts = max(1, min(_MOST_PARTS, len(trace) // _REQUESTS_PER_PART))
    part = part_of(trace.arrival_s, trace.end_s, parts)
    return Lengths(
        input_levels=_INPUT_LEVELS,
        input_tokens=_quantiles(trace.input_tokens, _INPUT_LEVELS),
        output_levels=_OUTPUT_LEVELS,
        output_tokens=tuple(rows),
        input_shift=_shifts(input_rank, part, parts),
        output_shift=_shifts(output_rank, part, parts),
        rank_correlation=round(rank_correlation(trace.input_tokens, trace.output_tokens), 4),
    )


def draw_lengths(rng: np.random.Generator, lengths: Lengths, part: Counts, weights: Floats) -> tuple[Ints, Ints]:
    """Input and output tokens of requests that arrive in the given parts; `weights` is the share of traffic of
    every part.
    """
    drift = _Drift.of(lengths.input_shift, weights)
    input_rank = drift.ranks(drift.scores(rng, part, part))
    outputs = np.log(lengths.output_tokens)
    group = np.minimum((input_rank * len(outputs)).astype(np.int64), len(outputs) - 1)
    output_rank = _output_ranks(rng, lengths.output_shift, part, group, drift.shares(len(outputs)))
    levels = np.array(lengths.output_levels)
    position = np.interp(output_rank, levels, np.arange(len(levels)))
    below = np.minimum(position.astype(np.int64), len(levels) - 2)
    fraction = position - below
    drawn = outputs[group, below] * (1 - fraction) + outputs[group, below + 1] * fraction
    inputs = np.interp(input_rank, lengths.input_levels, np.log(lengths.input_tokens))
    return _whole(np.exp(inputs)), _whole(np.exp(drawn))


def part_of(arrival_s: Floats, duration_s: float, parts: int) -> Counts:
    """Which of the equal parts of the duration each arrival falls in."""
    return np.clip((arrival_s * (parts / duration_s)).astype(np.int64), 0, parts - 1)


@dataclass(frozen=True)
class _Drift:
    """Scores that are normal within a part, round the part's shift; `weights` is how often each part is met."""

    shifts: Floats
    weights: Floats
    noise: float

    @classmethod
    def of(cls, shifts: tuple[float, ...], weights: Floats) -> _Drift:
        centred = np.array(shifts) - float((weights * np.array(shifts)).sum())
        return cls(centred, weights, math.sqrt(max(1 - float((weights * centred**2).sum()), 0.1)))

    def scores(self, rng: np.random.Generator, part: Counts, stratum: Counts) -> Floats:
        """A score for each request, its noise stratified among the requests of its stratum."""
        return np.asarray(self.shifts[part] + self.noise * np.interp(_stratified(rng, stratum), _NORMAL, _SCORES))

    def ranks(self, scores: Floats) -> Floats:
        """Where the scores stand among those of all parts, 0 to 1."""
        return np.asarray(np.interp(scores, _SCORES, self.weights @ self._within(_SCORES)))

    def shares(self, groups: int) -> Floats:
        """The weight of each part (column) within each of equal groups of ranks (row)."""
        bounds = np.interp(np.linspace(0, 1, groups + 1), self.weights @ self._within(_SCORES), _SCORES)
        bounds[0], bounds[-1] = -np.inf, np.inf
        joint = np.diff(self._within(bounds), axis=1).T * self.weights
        return np.asarray(joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300))

    def _within(self, scores: Floats) -> Floats:
        """The distribution function of each part (row) at the scores."""
        rows = [np.interp((scores - shift) / self.noise, _SCORES, _NORMAL) for shift in self.shifts]
        return np.array(rows)


def _output_ranks(
    rng: np.random.Generator, shifts: tuple[float, ...], part: Counts, group: Counts, shares: Floats
) -> Floats:
    """Ranks within the input groups. A group is met in some parts more than in others: each has its own mixture."""
    overall = _Drift.of(shifts, shares.mean(axis=0))
    scores, ranks = overall.scores(rng, part, part * len(shares) + group), np.empty(len(part))
    for index, weights in enumerate(shares):
        members = group == index
        ranks[members] = _Drift(overall.shifts, weights, overall.noise).ranks(scores[members])
    return ranks


def _stratified(rng: np.random.Generator, stratum: Counts) -> Floats:
    """Uniform numbers; those of one stratum fall one in each of as many equal slices, in random order."""
    drawn = np.empty(len(stratum))
    slices = [(rng.permutation(n) + rng.random(n)) / n for n in np.bincount(stratum) if n]
    drawn[np.argsort(stratum.astype(np.int16), kind="stable")] = np.concatenate(slices)
    return drawn


def _ranks(values: Ints) -> Floats:
    """Ranks within (0, 1); ties in random order, for their order in time would look like drift."""
    ranks = np.empty(len(values))
    coins = np.random.default_rng(0x71E5).random(len(values))
    ranks[np.lexsort((coins, values))] = (np.arange(len(values)) + 0.5) / max(len(values), 1)
    return ranks


def _shifts(ranks: Floats, part: Counts, parts: int) -> tuple[float, ...]:
    scores = np.interp(ranks, _NORMAL, _SCORES)
    sums = np.bincount(part, scores, parts)
    return tuple(round(float(shift), 3) for shift in sums / np.maximum(np.bincount(part, minlength=parts), 1))


def _quantiles(tokens: Ints, levels: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(value) for value in _whole(np.quantile(tokens, levels, method="hazen")))


def _whole(tokens: Floats) -> Ints:
    return np.maximum(np.rint(tokens), 1).astype(np.int32)
