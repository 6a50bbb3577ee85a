"""From measured steps to a `StepTime`: non-negative least squares on the relative error, and what is left of it.

The formula is linear in its numbers once the points of the table are chosen: a table that may only rise is a sum of
ramps, one between each two points, each with a weight that is not negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tiphys.domain.profile import FitError, StepTime
from tiphys.domain.trace import Floats

_DIGITS = 5
"""Significant digits that are kept: far below the error of any fit, and the same on every machine."""


class Step(NamedTuple):
    """One engine step and its time: prompts of equal length being prefilled, beside decodes that read a KV cache."""

    prefill_tokens: int
    prompt_tokens: int
    decodes: int
    kv_tokens: int
    ms: float

    @property
    def pairs(self) -> int:
        """P * isl: the sum of p_i * isl_i, as all prompts are of one length."""
        return self.prefill_tokens * self.prompt_tokens


class StepArrays(NamedTuple):
    """Many steps, one array a quantity."""

    prefill_tokens: Floats
    pairs: Floats
    decodes: Floats
    kv_tokens: Floats
    ms: Floats

    @classmethod
    def of(cls, steps: Iterable[Step]) -> StepArrays:
        """The steps as columns."""
        rows = [(s.prefill_tokens, s.pairs, s.decodes, s.kv_tokens, s.ms) for s in steps]
        return cls(*np.array(rows, dtype=np.float64).T)


def fit_step_time(steps: Iterable[Step], tokens: tuple[int, ...]) -> StepTime:
    """The step-time formula nearest to the steps, its table on the points `tokens`, no number negative.

    Steps alone do not tell the constant k from the floor of the table: it is left at 0.
    """
    columns = StepArrays.of(steps)
    ramps = _ramps(columns.prefill_tokens + columns.decodes, tokens)
    terms = np.column_stack([ramps, columns.decodes, columns.kv_tokens, columns.prefill_tokens, columns.pairs])
    weights = nonnegative_least_squares(terms / columns.ms[:, None], np.ones_like(columns.ms))
    table = np.cumsum(weights[: len(tokens)])
    decode_ms, kv_token_ms, prefill_token_ms, prefill_pair_ms = weights[len(tokens) :]
    return StepTime(
        tokens=tokens,
        gemm_ms=tuple(_rounded(value) for value in table),
        decode_ms=_rounded(decode_ms),
        kv_token_ms=_rounded(kv_token_ms),
        prefill_token_ms=_rounded(prefill_token_ms),
        prefill_pair_ms=_rounded(prefill_pair_ms),
        fixed_ms=0.0,
    )


def relative_errors(step_time: StepTime, steps: Iterable[Step]) -> Floats:
    """Formula over measurement, less 1, of each step."""
    columns = StepArrays.of(steps)
    formula = step_time.step_ms(columns.prefill_tokens, columns.pairs, columns.decodes, columns.kv_tokens)
    return formula / columns.ms - 1.0


def fit_error(step_time: StepTime, steps: Iterable[Step]) -> FitError:
    """How far the formula is from the steps, as shares of their time."""
    size = np.abs(relative_errors(step_time, steps))
    median, p95 = np.quantile(size, (0.5, 0.95))
    return FitError(
        points=len(size),
        median_ratio=round(float(median), 4),
        p95_ratio=round(float(p95), 4),
        max_ratio=round(float(size.max()), 4),
    )


def _ramps(x: Floats, points: tuple[int, ...]) -> Floats:
    """Column 0 is 1 everywhere; column j rises from 0 at point j-1 to 1 at point j (the last goes on rising)."""
    columns = [np.ones_like(x)]
    for left, right in pairwise(points):
        last = right == points[-1]
        columns.append(np.clip((x - left) / (right - left), 0.0, np.inf if last else 1.0))
    return np.column_stack(columns)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def nonnegative_least_squares(terms: Floats, target: Floats) -> Floats:
    """The x >= 0 with the least |terms x - target| (Lawson and Hanson, Solving Least Squares Problems, chapter 23)."""
    scale = np.linalg.norm(terms, axis=0)
    scale[scale == 0.0] = 1.0
    gram = (terms / scale).T @ (terms / scale)
    right = (terms / scale).T @ target
    x = np.zeros(terms.shape[1])
    free = np.zeros(terms.shape[1], dtype=bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(right).max()))
    for _ in range(10 * len(x)):
        gradient = np.where(free, -np.inf, right - gram @ x)
        if free.all() or gradient.max() <= tolerance:
            break
        free[int(gradient.argmax())] = True
        x = _step_to_feasible(gram, right, x, free)
    answer: Floats = x / scale
    return answer


def _step_to_feasible(gram: Floats, right: Floats, x: Floats, free: npt.NDArray[np.bool_]) -> Floats:
    """The least-squares answer of the free variables; those that it would make negative are let go of in `free`."""
    while True:
        wish = np.zeros_like(x)
        wish[free] = np.linalg.lstsq(gram[np.ix_(free, free)], right[free], rcond=None)[0]
        negative = free & (wish <= 0.0)
        if not negative.any():
            return wish
        share = float((x[negative] / (x[negative] - wish[negative])).min())
        x = np.where(free, x + share * (wish - x), 0.0)
        free &= x > 1e-14
        x[~free] = 0.0
