"""A trace as text: its rate over time as a plot, and its statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.traffic.statistics import TokenStatistics, TraceStatistics, statistics

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def show_text(trace: Trace, width: int = 72, height: int = 8) -> str:
    """The rate over time (`width` columns, `height` rows) and the statistics, as lines of text without colours."""
    found = statistics(trace)
    return "\n".join(
        [f"{trace.name}: requests/s over {_time(trace.end_s)}", *_plot(trace, width, height), "", *_table(found)]
    )


def _plot(trace: Trace, width: int, height: int) -> list[str]:
    edges = np.linspace(0.0, max(trace.end_s, 1e-9), width + 1)
    rates = np.histogram(trace.arrival_s, edges)[0] / np.diff(edges)
    top = float(rates.max())
    labels = {height - 1: f"{top:.3g}", 0: "0"}
    rows = [f"{labels.get(row, ''):>8} │{_row(rates / top * height, row)}" for row in reversed(range(height))]
    end = _time(trace.end_s)
    return [*rows, f"{'':>8} └{'─' * width}", f"{'':>10}0{end:>{width - 1}}"]


def _row(heights: NDArray[np.float64], row: int) -> str:
    filled = np.clip(np.ceil((heights - row) * 8), 0, 8).astype(int)
    return "".join(_EIGHTHS[eighths] for eighths in filled)


def _table(found: TraceStatistics) -> list[str]:
    lines = [
        ("requests", f"{found.requests:,}"),
        ("duration", f"{found.duration_s:,.1f} s"),
        ("mean rate", f"{found.mean_rate_per_s:.3f}/s"),
        ("count in 1 s", f"p99 {found.count_1s_p99:.0f}, max {found.count_1s_max}"),
        ("rate over 60 s", _rates(found)),
        ("gap cv", f"{found.gap_cv:.2f} (Poisson: 1)"),
        ("index of dispersion", f"1 s {found.dispersion_1s:.3g}, 60 s {found.dispersion_60s:.3g} (Poisson: 1)"),
        ("input tokens", _tokens(found.input_tokens)),
        ("output tokens", _tokens(found.output_tokens)),
        ("rank correlation", f"{found.rank_correlation:.2f} of input and output"),
    ]
    return [f"{name:<20} {value}" for name, value in lines]


def _rates(found: TraceStatistics) -> str:
    low, p99, high = found.rate_60s_min_per_s, found.rate_60s_p99_per_s, found.rate_60s_max_per_s
    return f"min {low:.2f}/s, p99 {p99:.2f}/s, max {high:.2f}/s"


def _tokens(tokens: TokenStatistics) -> str:
    return (
        f"mean {tokens.mean:.0f}, p50 {tokens.p50:.0f}, p90 {tokens.p90:.0f}, p99 {tokens.p99:.0f}, max {tokens.max:,}"
    )


def _time(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), (1.0, "s"))
    return f"{seconds / size:.1f} {unit}"
