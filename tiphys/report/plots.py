"""The pictures of a report as SVG text. The one import of matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tiphys.domain.baselines import Baselines
from tiphys.domain.recording import Recording
from tiphys.domain.trace import Floats
from tiphys.domain.verdict import Kept, Verdict
from tiphys.report.evidence import CONTESTANTS, Evidence, Trial

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLOURS = {"incumbent": "#8292a2", "challenger": "#0b7285"}
GOOD, BAD = "#2b8a3e", "#c92a2a"
_SPACES = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#e67700", "#495057")
_BINS = 120
_LABELS = {"gpu_seconds": "GPU-seconds"}
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiphys",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@contextmanager
def _drawn(width_in: float, height_in: float) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width_in, height_in), layout="constrained")


def _svg(figure: Figure) -> str:
    """The figure as an `svg` element that takes the width that it is given."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = _METADATA.sub("", svg[svg.index("<svg") :])
    head, rest = svg.split(">", 1)
    attributes = [part for part in head.split() if not part.startswith(("width=", "height="))]
    return f"{' '.join(attributes)} role='img'>{rest}"


def judged_traffic(evidence: Evidence) -> str:
    """Arrival rate, replicas and TTFT over the judged part, for both contestants."""
    first = next(iter(evidence.recordings.values()))
    edges = np.linspace(first.warmup_s, first.horizon_s, _BINS + 1)
    minutes = (edges - first.warmup_s) / 60
    with _drawn(10.5, 6.6) as figure:
        rate, replicas, ttft = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.25, 1.25))
        arrivals = np.histogram(first.trace.arrival_s, edges)[0] / np.diff(edges)
        rate.fill_between(minutes[:-1], arrivals, step="post", color="#ced4da", linewidth=0)
        rate.set_ylabel("arrivals per s")
        for name in (each for each in CONTESTANTS if each in evidence.recordings):
            _draw_contestant(replicas, ttft, evidence.recordings[name], edges, name)
        _finish_replicas(replicas, minutes)
        _finish_ttft(ttft, evidence)
        figure.legend(*replicas.get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return _svg(figure)


def _draw_contestant(replicas: Axes, ttft: Axes, recording: Recording, edges: Floats, name: str) -> None:
    begin_s = edges[0]
    for pool in recording.pools.values():
        wanted, ready = (_steps(log, begin_s, edges[-1]) for log in (pool.life.wanted_log(), pool.life.ready_log()))
        replicas.step(wanted[0], wanted[1], where="post", color=COLOURS[name], alpha=0.35, linewidth=1.2, linestyle=":")
        replicas.step(
            ready[0], ready[1], where="post", color=COLOURS[name], label=f"{name} (dotted: replicas asked for)"
        )
    minutes = (edges[:-1] + edges[1:]) / 2 / 60 - begin_s / 60
    ttft.plot(minutes, _ttft_p90_s(recording, edges), color=COLOURS[name], label=name)


def _steps(log: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> tuple[list[float], list[int]]:
    """A log as points of a step line in minutes of the window."""
    before = [count for time_s, count in log if time_s <= begin_s]
    inside = [(time_s, count) for time_s, count in log if begin_s < time_s <= end_s]
    counts = [*(before[-1:] or [0]), *(count for _, count in inside)]
    times = [0.0, *((time_s - begin_s) / 60 for time_s, _ in inside)]
    return [*times, (end_s - begin_s) / 60], [*counts, counts[-1]]


def _ttft_p90_s(recording: Recording, edges: Floats) -> Floats:
    """The 90th percentile by time of arrival; NaN where nothing arrived or it never came."""
    arrival_s = recording.trace.arrival_s
    ttft_s = np.where(recording.failed, np.inf, recording.first_token_s) - arrival_s
    bounds = np.searchsorted(arrival_s, edges)
    values = [
        float(np.percentile(ttft_s[low:high], 90, method="inverted_cdf")) if high > low else np.nan
        for low, high in pairwise(bounds)
    ]
    return np.array([value if np.isfinite(value) else np.nan for value in values])


def _finish_replicas(axes: Axes, minutes: Floats) -> None:
    axes.set_ylabel("ready replicas")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, float(minutes[-1]))


def _finish_ttft(axes: Axes, evidence: Evidence) -> None:
    axes.set_yscale("log")
    axes.set_ylabel("TTFT p90, s")
    axes.set_xlabel("minutes of the judged part")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for objective in evidence.slo.objectives:
        if objective.metric == "ttft":
            axes.axhline(objective.at_most_s, color=BAD, linewidth=1, linestyle="--")
            axes.annotate(
                f"{objective.at_most_s:g} s for {objective.share:.0%}", (1, objective.at_most_s), (-2, 3),
                xycoords=("axes fraction", "data"), textcoords="offset points", color=BAD, ha="right", fontsize=8.5,
            )  # fmt: skip


def forest(verdict: Verdict, baselines: Baselines | None = None) -> str:
    """The GPU-seconds ratio with its interval, beside every other way to look at it and what was possible."""
    gain = verdict.gain
    rows: list[tuple[str, float, tuple[float, float] | None, str]] = [
        ("all replicates", gain.gpu_seconds_ratio, gain.interval, COLOURS["challenger"]),
        ("judged part alone", gain.on_judged_part, None, COLOURS["challenger"]),
    ]
    if gain.on_resampled is not None:
        rows.append(("resampled alone", gain.on_resampled, None, COLOURS["challenger"]))
    rows += [(each.perturbation, each.gpu_seconds_ratio, None, FAINT) for each in verdict.robustness]
    rows += [
        (f"rival {place}: {_kind(each.policy)}", each.gpu_seconds_ratio, each.interval, "#adb5bd")
        for place, each in enumerate(verdict.rivals, 1)
    ]
    rows += _possible(verdict, baselines)
    with _drawn(5.2, 0.9 + 0.31 * len(rows)) as figure:
        axes = figure.subplots()
        for place, (_, ratio, interval, colour) in enumerate(rows):
            y = -place
            if interval is not None:
                axes.plot(interval, (y, y), color=colour, linewidth=3, alpha=0.55, solid_capstyle="round")
            axes.plot([ratio], [y], marker="o" if interval else "D", markersize=6 if interval else 4.5, color=colour)
        axes.axvline(1, color=INK, linewidth=1)
        axes.axvline(1 - verdict.rules.min_gain, color=GOOD, linewidth=1, linestyle="--")
        axes.set_yticks([-place for place in range(len(rows))], [name for name, *_ in rows])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("GPU-seconds, challenger over incumbent")
        axes.annotate(
            f"needs < {1 - verdict.rules.min_gain:g}", (1 - verdict.rules.min_gain, 1), (-3, 3),
            xycoords=("data", "axes fraction"), textcoords="offset points", color=GOOD, ha="right", fontsize=8.5,
        )  # fmt: skip
        return _svg(figure)


def _possible(
    verdict: Verdict, baselines: Baselines | None
) -> list[tuple[str, float, tuple[float, float] | None, str]]:
    """The reference and the bound, over the incumbent on the judged part."""
    if baselines is None:
        return []
    incumbent = verdict.incumbent.scorecard.gpu_seconds
    reference, bound = baselines.clairvoyant, baselines.lower_bound
    known = [("clairvoyant plan", reference.gpu_seconds)] if reference and reference.feasible else []
    known.append(("lower bound", bound.gpu_seconds))
    return [(name, gpu_seconds / incumbent, None, GOOD) for name, gpu_seconds in known]


def _kind(policy: Any) -> str:
    document = next(iter(policy.values()))
    looks = document.get("metrics") or document.get("triggers") or ()
    signals = ", ".join(str(each.get("signal", each.get("scaler"))) for each in looks)
    return f"{document['kind']} {signals}".strip()


def margins(verdict: Verdict) -> str:
    """The margin of each promise as judged, and the smallest of them under each perturbation."""
    rows = [(each.promise, _least(each.incumbent), _least(each.challenger)) for each in verdict.slo]
    rows += [
        (f"{each.perturbation}: worst", each.incumbent_margin, each.challenger_margin) for each in verdict.robustness
    ]
    with _drawn(5.2, 0.9 + 0.36 * len(rows)) as figure:
        axes = figure.subplots()
        for place, (_, theirs, ours) in enumerate(rows):
            axes.plot((100 * theirs, 100 * ours), (-place, -place), color=GRID, linewidth=3, zorder=1)
            for name, margin in zip(CONTESTANTS, (theirs, ours), strict=True):
                label = name if place == 0 else None
                axes.plot([100 * margin], [-place], "o", markersize=7, color=COLOURS[name], label=label, zorder=2)
        low, high = axes.get_xlim()
        axes.axvspan(min(low, -1), 0, color=BAD, alpha=0.06, linewidth=0)
        axes.axvline(0, color=BAD, linewidth=1)
        axes.set_xlim(min(low, -1), max(high, 1))
        axes.set_yticks([-place for place in range(len(rows))], [name for name, *_ in rows])
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("margin to the promise, points (below 0: missed)")
        figure.legend(loc="outside upper center", ncols=2)
        return _svg(figure)


def _least(kept: Kept) -> float:
    return min(margin for margin in (kept.margin_judged_part, kept.margin_resampled) if margin is not None)


def trials(found: Sequence[Trial], minimised: str) -> str:
    """What every trial cost against how it kept the SLO, by space."""
    spaces = list(dict.fromkeys(trial.space for trial in found))
    with _drawn(10.5, 4.4) as figure:
        axes = figure.subplots()
        low = 100 * float(np.percentile([trial.margin for trial in found], 10))
        low = min(low, -2.0) * 1.1
        for place, space in enumerate(spaces):
            of_space = [trial for trial in found if trial.space == space]
            x = [trial.value for trial in of_space]
            y = [max(100 * trial.margin, low) for trial in of_space]
            colour = _SPACES[place % len(_SPACES)]
            axes.scatter(x, y, s=26, color=colour, alpha=0.7, linewidth=0, label=f"{space} ({len(of_space)})")
        _mark(axes, [t for t in found if t.shortlisted], low, "worth judging", marker="o", colour=INK)
        _mark(axes, [t for t in found if t.origin == "published default"], low, "published default", "s", FAINT)
        axes.axhspan(low * 1.04, 0, color=BAD, alpha=0.05, linewidth=0)
        axes.axhline(0, color=BAD, linewidth=1)
        axes.set_ylim(bottom=low * 1.04)
        axes.set_xlabel(f"{_LABELS.get(minimised, minimised)}, mean over the folds")
        axes.set_ylabel("worst margin to the SLO, points")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)


def _mark(axes: Axes, chosen: Sequence[Trial], low: float, label: str, marker: str, colour: str) -> None:
    if chosen:
        x, y = [trial.value for trial in chosen], [max(100 * trial.margin, low) for trial in chosen]
        axes.scatter(x, y, s=75, facecolor="none", edgecolor=colour, linewidth=1.4, marker=marker, label=label)
