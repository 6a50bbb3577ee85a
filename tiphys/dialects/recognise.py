"""Signals recognised in what others wrote: metric names of HPAs and queries of ScaledObjects, in any dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tiphys.dialects.base import Dialect
from tiphys.dialects.foreign import FOREIGN, FOREIGN_RATIO
from tiphys.dialects.measures import RECORDED, Aggregation, Recorded
from tiphys.dialects.promql import (
    AGGREGATIONS,
    Binary,
    Call,
    Expression,
    NotPromqlError,
    Number,
    Selector,
    read_promql,
    seconds_of,
)
from tiphys.domain.signals import Signal
from tiphys.errors import InputError

OWN_PREFIX = "tiphys_"
PERCENT = "DCGM_FI_DEV_GPU_UTIL"
_WINDOW_S = 60
"""Any window: what is compared with a query is written with this one."""
_LATENCY_NAME = re.compile(r"^(?P<base>.+?)_(?P<of>p\d\d|mean)(?:_(?P<window>\d+)(?P<unit>[sm]))?$")
_OWN_NAME = re.compile(r"^(?P<signal>[a-z0-9_]+?)(?:_(?P<window>\d+)s)?(?:_(?P<aggregation>sum|avg))?$")
_OWN_RECORD = re.compile(rf"^{RECORDED}(?P<signal>[a-z_]+?)(?:_by_pod)?:rate(?P<window>[0-9smhd]+)$")
RECOGNISED = (
    "histogram_quantile(0.5|0.9|0.95|0.99, sum by (le) (rate(LATENCY_bucket[window]))), "
    "sum(rate(LATENCY_sum[window])) / sum(rate(LATENCY_count[window])), sum(rate(COUNTER[window])), sum(GAUGE) or "
    f"avg(GAUGE), of the signals {', '.join(Signal)}"
)


@dataclass(frozen=True)
class Recognised:
    """What a metric name or a query measures. `window_s` and `aggregation` are None where they do not say."""

    signal: Signal
    window_s: int | None = None
    aggregation: Aggregation | None = None


def is_aggregated(signal: Signal) -> bool:
    """True where a signal is a sum or a mean over pods, as the target's type wants it; a queue before them is not."""
    return signal.reading in ("level", "rate") and signal is not Signal.QUEUED


def metric_name(signal: Signal, window_s: int | None, aggregation: Aggregation) -> str:
    """The name under which tiphys has the metric served: it says everything that the adapter's rule does."""
    window = (f"{window_s}s",) if signal.has_window else ()
    over = (aggregation,) if is_aggregated(signal) else ()
    return "_".join((f"{OWN_PREFIX}{signal}", *window, *over))


def recognise_name(name: str, dialects: Iterable[Dialect]) -> Recognised:
    """The signal of a metric name: one of `metric_name`, a gauge's own, or a latency's with a suffix such as `_p90`.

    Raises InputError that lists the known signals.
    """
    known = (*dialects, *FOREIGN)
    found = _own_name(name.removeprefix(OWN_PREFIX)) or _gauge_name(name, known) or _latency_name(name, known)
    if found is None and name in (FOREIGN_RATIO, FOREIGN_RATIO.replace(":", "_")):
        return Recognised(Signal.QUEUE_COMPUTE_RATIO)
    if found is None and name == PERCENT:
        raise InputError(f"{PERCENT} is in percent: have its hundredth served as gpu_utilization, 0 to 1", found=name)
    if found is None:
        raise InputError("no signal is known by this metric name", found=name, allowed=f"names of {', '.join(Signal)}")
    return found


def _own_name(name: str) -> Recognised | None:
    match = _OWN_NAME.match(name)
    if match is None or match["signal"] not in list(Signal):
        return None
    signal = Signal(match["signal"])
    window_s = int(match["window"]) if match["window"] else None
    aggregation: Aggregation | None = (
        "sum" if match["aggregation"] == "sum" else "avg" if match["aggregation"] else None
    )
    if not (signal.is_level or signal.has_window) or (signal.has_window and window_s is None):
        return None
    if (window_s is not None and not signal.has_window) or (aggregation is not None and not is_aggregated(signal)):
        return None
    return Recognised(signal, window_s, aggregation)


def _gauge_name(name: str, dialects: Iterable[Dialect]) -> Recognised | None:
    for dialect in dialects:
        for signal in dialect.signals:
            gauge = dialect.measure(signal).gauge
            if gauge is not None and not gauge.labels and name in (gauge.metric, gauge.metric.replace(":", "_")):
                return Recognised(signal)
    return None


def _latency_name(name: str, dialects: Iterable[Dialect]) -> Recognised | None:
    match = _LATENCY_NAME.match(name.removeprefix(OWN_PREFIX))
    if match is None:
        return None
    base = _plain_base(match["base"])
    bases = {"ttft": "ttft", "itl": "itl", "e2e": "e2e"} | {
        _plain_base(histogram.base): latency for each in dialects for latency, histogram in each.histograms.items()
    }
    named = f"{bases.get(base)}_{match['of']}"
    if named not in list(Signal):
        return None
    window_s = int(match["window"]) * (60 if match["unit"] == "m" else 1) if match["window"] else None
    return Recognised(Signal(named), window_s)


def _plain_base(name: str) -> str:
    """A histogram's name without what adapter rules commonly drop or rewrite."""
    return name.replace(":", "_").removesuffix("_bucket").removesuffix("_seconds").removesuffix("_histogram_ms")


def recognise_query(query: str, dialects: Iterable[Dialect]) -> Recognised:
    """The signal of a PromQL query: its metric, quantile, window and aggregation. Raises InputError."""
    try:
        expression = read_promql(query)
    except NotPromqlError as error:
        raise InputError(f"no signal is known by this query: {error}", found=query, allowed=RECOGNISED) from None
    found = _recorded(expression) or next(_matching(expression, (*dialects, *FOREIGN)), None)
    if found is not None:
        return found
    message = "no signal is known by this query"
    if isinstance(expression, Selector):
        message = "this gives one series a pod, and a trigger fails on more than one: wrap it in sum() or avg()"
    elif PERCENT in query:
        message += f" ({PERCENT} is in percent: avg({PERCENT}) / 100 is gpu_utilization)"
    raise InputError(message, found=query, allowed=RECOGNISED)


class _Pattern(NamedTuple):
    """A query that we would write for a signal."""

    signal: Signal
    aggregation: Aggregation
    expression: Expression


@cache
def _patterns(dialect: Dialect) -> tuple[_Pattern, ...]:
    written = []
    for signal in dialect.signals:
        if isinstance(dialect.measure(signal), Recorded):
            continue
        over: tuple[Aggregation, ...] = ("sum", "avg") if is_aggregated(signal) else ("sum",)
        for aggregation in over:
            query = dialect.query(signal, {}, window_s=_WINDOW_S, aggregation=aggregation)
            written.append(_Pattern(signal, aggregation, read_promql(query)))
    return tuple(written)


def _matching(expression: Expression, dialects: Iterable[Dialect]) -> Iterator[Recognised]:
    for dialect in dialects:
        for pattern in _patterns(dialect):
            windows: set[float] = set()
            rates = frozenset({"rate", "increase"}) if pattern.signal.latency else frozenset({"rate"})
            if not _alike(pattern.expression, expression, windows, rates) or any(s != int(s) for s in windows):
                continue
            if len(windows) == int(pattern.signal.has_window):
                aggregation = pattern.aggregation if is_aggregated(pattern.signal) else None
                yield Recognised(pattern.signal, int(windows.pop()) if windows else None, aggregation)


def _alike(ours: Expression, theirs: Expression, windows: set[float], rates: frozenset[str]) -> bool:
    """True where a query says what ours does, over any window: those that it names are added to `windows`.

    `rates` are the functions that say the same here: quantiles and means are the same over rates and increases.
    """
    if isinstance(ours, Selector):
        return isinstance(theirs, Selector) and _same_series(ours, theirs, windows)
    if isinstance(ours, Binary):
        same = isinstance(theirs, Binary) and ours.operator == theirs.operator
        return (
            same
            and isinstance(theirs, Binary)
            and _alike(ours.left, theirs.left, windows, rates)
            and _alike(ours.right, theirs.right, windows, rates)
        )
    if isinstance(ours, Number):
        return ours == theirs
    if ours.name == "sum" and ours.by == ("le",) and isinstance(theirs, Call) and theirs.name in rates:
        # one pod's buckets need no sum
        return _alike(ours.arguments[0], theirs, windows, rates)
    return isinstance(theirs, Call) and _same_call(ours, theirs, windows, rates)


def _same_series(ours: Selector, theirs: Selector, windows: set[float]) -> bool:
    if ours.name != theirs.name or not ours.labels.items() <= theirs.labels.items():
        return False
    if theirs.range_s is not None:
        windows.add(theirs.range_s)
    return (ours.range_s is None) == (theirs.range_s is None)


def _same_call(ours: Call, theirs: Call, windows: set[float], rates: frozenset[str]) -> bool:
    named_alike = ours.name == theirs.name or {ours.name, theirs.name} <= rates
    if not named_alike or len(ours.arguments) != len(theirs.arguments):
        return False
    if ours.name in AGGREGATIONS and ours.by is not None and not _keeps(theirs, ours.by):
        return False
    pairs = zip(ours.arguments, theirs.arguments, strict=True)
    return all(_alike(mine, other, windows, rates) for mine, other in pairs)


def _keeps(call: Call, labels: tuple[str, ...]) -> bool:
    return not call.without and set(labels) <= set(call.by or ())


def _recorded(expression: Expression) -> Recognised | None:
    """A ratio that a recording rule stores, in an aggregation of its one series."""
    if (
        isinstance(expression, Call)
        and expression.name in ("sum", "avg", "max", "min")
        and len(expression.arguments) == 1
    ):
        expression = expression.arguments[0]
    if not isinstance(expression, Selector) or expression.range_s is not None:
        return None
    if expression.name == FOREIGN_RATIO:
        return Recognised(Signal.QUEUE_COMPUTE_RATIO)
    match = _OWN_RECORD.match(expression.name)
    if match is None or match["signal"] not in list(Signal):
        return None
    return Recognised(Signal(match["signal"]), int(seconds_of(match["window"])))
