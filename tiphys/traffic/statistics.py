"""What a trace looks like in numbers: rate, burstiness, token lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.domain.values import Frozen
from tiphys.errors import InputError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_MOST_WINDOWS = 1e8


class TokenStatistics(Frozen):
    """Tokens per request."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


class TraceStatistics(Frozen):
    """A trace in numbers. Windows are counted from the first request; the last one may be cut short.

    Index of dispersion: variance over mean of the requests per window (Poisson: 1). `gap_cv`: standard deviation over
    mean of the times between arrivals (Poisson: 1). The lowest rate of a minute leaves out the minute that is cut
    short.
    """

    requests: int
    duration_s: float
    mean_rate_per_s: float
    count_1s_p99: float
    count_1s_max: int
    rate_60s_min_per_s: float
    rate_60s_p99_per_s: float
    rate_60s_max_per_s: float
    gap_cv: float
    dispersion_1s: float
    dispersion_60s: float
    input_tokens: TokenStatistics
    output_tokens: TokenStatistics
    rank_correlation: float


def statistics(trace: Trace) -> TraceStatistics:
    """The numbers of a trace, over the time from its first request to its last."""
    since_first = trace.arrival_s - trace.arrival_s[0]
    duration_s = float(since_first[-1])
    seconds, minutes = window_counts(since_first, 1.0), window_counts(since_first, 60.0)
    whole = minutes[: int(duration_s // 60)] if duration_s >= 60 else minutes
    return TraceStatistics(
        requests=len(trace),
        duration_s=duration_s,
        mean_rate_per_s=len(trace) / duration_s if duration_s > 0 else 0.0,
        count_1s_p99=float(np.quantile(seconds, 0.99)),
        count_1s_max=int(seconds.max()),
        rate_60s_min_per_s=float(whole.min()) / 60,
        rate_60s_p99_per_s=float(np.quantile(minutes, 0.99)) / 60,
        rate_60s_max_per_s=float(minutes.max()) / 60,
        gap_cv=_gap_cv(since_first),
        dispersion_1s=dispersion(seconds),
        dispersion_60s=dispersion(minutes),
        input_tokens=_tokens(trace.input_tokens),
        output_tokens=_tokens(trace.output_tokens),
        rank_correlation=rank_correlation(trace.input_tokens, trace.output_tokens),
    )


def window_counts(arrival_s: Floats, window_s: float) -> Counts:
    """Requests in each window from time 0 to the last arrival. Raises InputError for more windows than memory holds."""
    if arrival_s[-1] / window_s > _MOST_WINDOWS:
        raise InputError("the trace is too long to count", found=float(arrival_s[-1]), allowed=f"{_MOST_WINDOWS:g} s")
    return np.bincount((arrival_s // window_s).astype(np.int64))


def dispersion(counts: NDArray[np.generic]) -> float:
    """Variance over mean of counts; 0 when there are none."""
    mean = float(np.mean(counts))  # type: ignore[arg-type]
    return float(np.var(counts)) / mean if mean > 0 else 0.0  # type: ignore[arg-type]


def rank_correlation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Spearman's: the correlation of ranks, ties sharing their mean rank; 0 when one of them never varies."""
    ranks = _mean_ranks(first), _mean_ranks(second)
    spreads = [float(rank.std()) for rank in ranks]
    if min(spreads) == 0:
        return 0.0
    covariance = float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())))
    return covariance / (spreads[0] * spreads[1])


def _mean_ranks(values: NDArray[np.generic]) -> Floats:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[which])


def _gap_cv(arrival_s: Floats) -> float:
    gaps = np.diff(arrival_s)
    return float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else 0.0


def _tokens(tokens: NDArray[np.int32]) -> TokenStatistics:
    p50, p90, p99 = (float(value) for value in np.quantile(tokens, [0.5, 0.9, 0.99]))
    return TokenStatistics(mean=float(tokens.mean()), p50=p50, p90=p90, p99=p99, max=int(tokens.max()))
