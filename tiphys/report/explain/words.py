"""Explained decisions in words: one short paragraph of arithmetic each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from tiphys.report.explain.delays import DelayBudget
from tiphys.report.explain.passes import Explained, MetricStep
from tiphys.report.explain.ticks import tick_lines

_BRANCHES = {
    "disabled": "the scale is 0, so the controller looks at nothing",
    "above maximum": "more replicas than maxReplicas: cut without looking at a metric",
    "below minimum": "fewer replicas than minReplicas: raised without looking at a metric",
    "metrics failed": "no decision, since a metric failed",
    "no scale": "the scale of the workload could not be read",
}
_FLIPS = {
    "direction would reverse": "with the missing pods assumed the direction would turn: stays",
    "size would reverse": "with the missing pods assumed it would turn: stays",
}

_PER_POD = ("pods", "resource")


def clock(time_s: float) -> str:
    """`0:05:30.1`: hours, minutes and seconds of the play."""
    tenths = round(time_s * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest // 10:02d}.{rest % 10}"


def story(passes: Sequence[Explained]) -> Iterator[str]:
    """Paragraphs in order of time; passes that were held in the same way one after another are told once."""
    for _, group in groupby(passes, key=_alike):
        alike = list(group)
        yield "\n".join(sentences(alike[0]))
        if len(alike) > 1:
            times = "once" if len(alike) == 2 else f"{len(alike) - 1} times"
            yield f"  ... held in the same way {times} more, until {clock(alike[-1].time_s)}"


def _alike(each: Explained) -> tuple[object, ...]:
    if each.changed:
        return (each.time_s,)
    reason = each.held.reason if each.held else ""
    return (each.loop, each.before, each.branch, reason, each.limit, each.reason)


def sentences(each: Explained) -> list[str]:
    """A heading and the steps of one decision."""
    arrow = f"{each.before} -> {each.after}" if each.changed else f"stays at {each.before}"
    if each.loop == "keda":
        return [f"{clock(each.time_s)}  KEDA poll: {each.reason}; {arrow}", *map(_polled, each.answers)]
    if each.loop == "schedule":
        return [f"{clock(each.time_s)}  timetable: {arrow}"]
    if each.tick is not None:
        steps = tick_lines(each.tick, each.time_s, each.ready, each.wish, each.after)
        heading = f"{clock(each.time_s)}  {arrow}  ({each.ready} ready)"
        return [heading, *(f"  {step}" for step in steps), f"  result: {arrow}"]
    lines = [f"{clock(each.time_s)}  {arrow}  ({each.ready} ready)"]
    if each.formula is not None and each.answers:
        lines.append(f"  formula: {each.formula}")
    lines += [f"  {_metric(step, each)}" for step in each.answers]
    if each.branch in _BRANCHES:
        lines.append(f"  {_BRANCHES[each.branch]}")
    if len([step for step in each.answers if step.proposal is not None]) > 1 and each.wish is not None:
        lines.append(f"  the largest proposal is the wish: {each.wish} ({each.winner})")
    if each.held is not None:
        lines.append(f"  {_window(each)}")
    if each.limit is not None:
        lines.append(f"  {_limit(each)}")
    lines.append(f"  result: {arrow}")
    return lines


def _metric(step: MetricStep, each: Explained) -> str:
    if step.error:
        return f"{step.name}: {_sample(step)}: no proposal ({step.error.replace('_', ' ')})"
    if step.ratio is None:
        return (
            f"{step.name}: {_sample(step)}; from zero: ceil({_number(step.value)} / {step.target:g}) = {step.proposal}"
        )
    low, high = each.tolerance
    head = f"{step.name}: {_sample(step)}, {_division(step, each)} = {step.ratio:.4g}"
    if step.decided_by == "within tolerance" and not low <= step.ratio <= high:
        return f"{head}; {_assumed(step)} it is within {low:g} to {high:g}: stays at {step.proposal}"
    if step.decided_by == "within tolerance":
        return f"{head}, within {low:g} to {high:g}: stays at {step.proposal}"
    if step.decided_by in _FLIPS:
        return f"{head}: {_FLIPS[step.decided_by]} at {step.proposal}"
    if step.multiplier is not None and math.ceil(step.ratio * step.multiplier) != step.proposal:
        return f"{head}; {_assumed(step)}, of {step.multiplier} pods in all: {step.proposal}"
    return f"{head}, outside {low:g} to {high:g}: {_ceil(step)} = {step.proposal}"


def _assumed(step: MetricStep) -> str:
    """What the controller takes the missing samples for, so that it moves no further than it knows."""
    level = "0" if step.ratio is not None and step.ratio > 1 else "the target"
    return f"with {level} assumed of pods without a sample"


def _division(step: MetricStep, each: Explained) -> str:
    if step.type == "AverageValue" and step.source not in _PER_POD:
        return f"over {step.target:g} x {each.before} replicas"
    if step.type == "Utilization" and step.ratio is not None:
        return f"{step.ratio * step.target:.4g} % of the request over {step.target:g} %"
    if step.source == "pods":
        return f"{_number(step.usage)} per pod over {step.target:g}"
    if None not in (step.usage, step.value) and _number(step.usage) != _number(step.value):
        return f"cut to milli-units {step.usage:g} over {step.target:g}"
    return f"over {step.target:g}"


def _ceil(step: MetricStep) -> str:
    if step.multiplier is not None:
        count = "pods" if step.source in _PER_POD else "ready"
        return f"ceil({step.ratio:.4g} x {step.multiplier} {count})"
    return f"ceil({_number(step.value)} / {step.target:g})"


def _sample(step: MetricStep) -> str:
    if step.value is None and step.found:
        return "nothing observed (NaN)" + (f", taken as {_number(step.usage)}" if step.usage is not None else "")
    if step.value is None:
        return "no sample" + (f" (failure {step.failures})" if step.failures else "")
    return (
        f"{_number(step.value)} (scraped {step.age_s:.1f} s before)" if step.age_s is not None else _number(step.value)
    )


def _polled(step: MetricStep) -> str:
    return f"  {step.name}: {_sample(step)}"


def _window(each: Explained) -> str:
    held = each.held
    assert held is not None
    direction = "scale-up" if held.reason == "ScaleUpStabilized" else "scale-down"
    extreme = "smallest" if held.reason == "ScaleUpStabilized" else "largest"
    by = ""
    if held.time_s is not None:
        age_s = each.time_s - held.time_s
        by = f": {held.replicas} wished for at {clock(held.time_s)}, {age_s:.1f} s before, is the {extreme}"
    return f"{direction} window of {held.window_s:g} s holds it at {each.stabilized} ({held.reason}){by}"


def _limit(each: Explained) -> str:
    if each.bound is not None:
        name = "minReplicas" if each.limit == "TooFewReplicas" else "maxReplicas"
        return f"cut to {each.limited} by {name} {each.bound} ({each.limit})"
    return f"cut to {each.limited} by the rate policies, which allow {each.rate_limit} now ({each.limit})"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def budget_lines(budget: DelayBudget) -> list[str]:
    """The delay budget as a small table in text."""
    rows = [
        ("age of the newest scrape", budget.scrape_age_s, ""),
        ("half the window of rate or mean", budget.window_half_s, ""),
        ("waiting for the controller's pass", budget.pass_wait_s, ""),
        ("held by windows and limits", budget.held_s, f"over {budget.scale_ups} scale-ups"),
        ("cold start", budget.cold_start_s, _longest(budget)),
    ]
    lines = ["From a step of the load to a ready replica (means):"]
    lines += [f"  {name:<34}{_seconds(value):>10}  {note}".rstrip() for name, value, note in rows]
    return [*lines, f"  {'in all':<34}{_seconds(budget.total_s):>10}"]


def _longest(budget: DelayBudget) -> str:
    return "" if budget.cold_start_longest_s is None else f"longest {budget.cold_start_longest_s:.1f} s"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} s"
