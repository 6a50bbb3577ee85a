"""Joint token lengths: learnt as quantile tables, drawn again with their drift over time.

A request's input and output are each a standard normal score: a shift of its part of time plus noise. The score's rank under
the mixture of all parts is looked up in the quantile table, so that the whole has the observed quantiles while each part
keeps its own mean rank. The noise is stratified (one draw in each of n equal slices), which steadies the quantiles of a sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.traffic.profile import Lengths
from tiphys.traffic.statistics import rank_correlation

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_GROUPS = 12
_INPUT_LEVELS = (0.0, 0.001, 0.0025, 0.005, *(i / 100 for i in range(1, 100)), 0.995, 0.9975, 0.999, 0.9995, 1.0)
_OUTPUT_LEVELS = (0.0, 0.01, *(i / 40 for i in range(1, 40)), 0.99, 0.995, 0.999, 1.0)
_REQUESTS_PER_PART = 1000
_MOST_PARTS = 24
_SCORES = np.linspace(-6.0, 6.0, 1201)
_NORMAL = np.array([0.5 * (1 + math.erf(score / math.sqrt(2))) for score in _SCORES])


def fit_lengths(trace: Trace) -> Lengths:
    """The quantile tables of a trace and how its lengths drift from part to part (at most 24 parts of 1,000 requests)."""
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


def draw_lengths(
    rng: np.random.Generator, lengths: Lengths, part: NDArray[np.int64], weights: Floats
) -> tuple[Ints, Ints]:
    """Input and output tokens of requests that arrive in the given parts; `weights` is the share of traffic of every part."""
    input_rank = _drifting_ranks(rng, np.array(lengths.input_shift), part, weights)
    output_rank = _drifting_ranks(rng, np.array(lengths.output_shift), part, weights)
    table = np.array(lengths.output_tokens, dtype=np.float64)
    group = np.minimum((input_rank * len(table)).astype(np.int64), len(table) - 1)
    levels = np.array(lengths.output_levels)
    position = np.interp(output_rank, levels, np.arange(len(levels)))
    below = np.minimum(position.astype(np.int64), len(levels) - 2)
    fraction = position - below
    outputs = table[group, below] * (1 - fraction) + table[group, below + 1] * fraction
    inputs = np.interp(input_rank, lengths.input_levels, lengths.input_tokens)
    return _whole(inputs), _whole(outputs)


def part_of(arrival_s: Floats, duration_s: float, parts: int) -> NDArray[np.int64]:
    """Which of the equal parts of the duration each arrival falls in."""
    return np.clip((arrival_s * (parts / duration_s)).astype(np.int64), 0, parts - 1)


def _drifting_ranks(
    rng: np.random.Generator, shifts: Floats, part: NDArray[np.int64], weights: Floats
) -> Floats:
    n = len(part)
    stratified = (rng.permutation(n) + rng.random(n)) / n
    if not shifts.any():
        return stratified
    centred = shifts - (weights * shifts).sum()
    noise = math.sqrt(max(1 - float((weights * centred**2).sum()), 0.1))
    score = centred[part] + noise * np.interp(stratified, _NORMAL, _SCORES)
    return np.interp(score, _SCORES, _mixture(centred, noise, weights))


def _mixture(shifts: Floats, noise: float, weights: Floats) -> Floats:
    """The distribution function of the scores of all parts together, on the grid of scores."""
    rows = (weight * np.interp((_SCORES - shift) / noise, _SCORES, _NORMAL) for shift, weight in zip(shifts, weights, strict=True))
    return np.asarray(sum(rows), dtype=np.float64)


def _ranks(values: Ints) -> Floats:
    """Ranks within (0, 1); ties in random order, for their order in time would look like drift."""
    ranks = np.empty(len(values))
    coins = np.random.default_rng(0x71E5).random(len(values))
    ranks[np.lexsort((coins, values))] = (np.arange(len(values)) + 0.5) / max(len(values), 1)
    return ranks


def _shifts(ranks: Floats, part: NDArray[np.int64], parts: int) -> tuple[float, ...]:
    scores = np.interp(ranks, _NORMAL, _SCORES)
    sums = np.bincount(part, scores, parts)
    return tuple(round(float(shift), 3) for shift in sums / np.maximum(np.bincount(part, minlength=parts), 1))


def _quantiles(tokens: Ints, levels: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(value) for value in _whole(np.quantile(tokens, levels)))


def _whole(tokens: Floats) -> Ints:
    return np.maximum(np.rint(tokens), 1).astype(np.int32)
