"""Signals recognised in what others wrote: metric names of HPAs and queries of ScaledObjects, in any dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tiphys.dialects.base import Aggregation, Dialect, Series
from tiphys.dialects.promql import Binary, Call, Expression, NotPromqlError, Number, Selector, read_promql
from tiphys.domain.signals import Signal
from tiphys.errors import InputError

OTHER_LEVELS: Mapping[str, Signal] = {
    "vllm:gpu_cache_usage_perc": Signal.KV_USAGE,  # vLLM before 0.12
    "nv_inference_pending_request_count": Signal.WAITING,  # Triton's own queue, with any backend
    "dynamo_frontend_active_requests": Signal.RUNNING,
    "dynamo_component_gpu_cache_usage_percent": Signal.KV_USAGE,
}
"""Gauges of releases and frontends that no dialect here is written for."""
OTHER_TTFT = ("dynamo_frontend_time_to_first_token_seconds",)
OWN_PREFIX = "tiphys_"
_BY_QUANTILE = {signal.quantile: signal for signal in Signal if signal.quantile is not None}
_QUANTILE_NAME = re.compile(r"^(?P<base>.+?)_p(?P<percent>\d\d)(?:_(?P<window>\d+)(?P<unit>[sm]))?$")
_OWN_LEVEL = re.compile(r"^(?P<signal>.+)_(?P<aggregation>sum|avg)$")
RECOGNISED = (
    "histogram_quantile(0.5|0.9|0.95|0.99, sum by (le) (rate(TTFT_bucket[window]))), sum(GAUGE) or avg(GAUGE) "
    f"of the signals {', '.join(Signal)}"
)


@dataclass(frozen=True)
class Recognised:
    """What a metric name or a query measures. `window_s` and `aggregation` are None where they do not say."""

    signal: Signal
    window_s: int | None = None
    aggregation: Aggregation | None = None


def metric_name(signal: Signal, window_s: int | None, aggregation: Aggregation) -> str:
    """The name under which tiphys has the metric served: it says everything that the adapter's rule does."""
    return f"{OWN_PREFIX}{signal}_{aggregation if signal.is_level else f'{window_s}s'}"


def recognise_name(name: str, dialects: Iterable[Dialect]) -> Recognised:
    """The signal of a metric name: one of `metric_name`, a gauge's own name, or a TTFT's with a suffix such as `_p90`.

    Raises InputError that lists the known signals.
    """
    known = list(dialects)
    plain = name.removeprefix(OWN_PREFIX)
    own = _OWN_LEVEL.match(plain)
    if own and own["signal"] in _levels():
        return Recognised(Signal(own["signal"]), None, "sum" if own["aggregation"] == "sum" else "avg")
    if plain in _levels():
        return Recognised(Signal(plain))
    for series, signal in _gauges(known):
        if not series.labels and name in (series.metric, series.metric.replace(":", "_")):
            return Recognised(signal)
    latency = _latency_name(plain, known)
    if latency is not None:
        return latency
    raise InputError("no signal is known by this metric name", found=name, allowed=f"names of {', '.join(Signal)}")


def _latency_name(name: str, dialects: list[Dialect]) -> Recognised | None:
    match = _QUANTILE_NAME.match(name)
    signal = _BY_QUANTILE.get(int(match["percent"]) / 100) if match else None
    if match is None or signal is None or _plain_base(match["base"]) not in _ttft_bases(dialects):
        return None
    window_s = int(match["window"]) * (60 if match["unit"] == "m" else 1) if match["window"] else None
    return Recognised(signal, window_s)


def _ttft_bases(dialects: list[Dialect]) -> set[str]:
    names = [dialect.ttft for dialect in dialects if dialect.ttft is not None]
    return {"ttft"} | {_plain_base(name) for name in (*names, *OTHER_TTFT)}


def _plain_base(name: str) -> str:
    """A histogram's name without what adapter rules commonly drop or rewrite."""
    return name.replace(":", "_").removesuffix("_bucket").removesuffix("_seconds").removesuffix("_histogram_ms")


def recognise_query(query: str, dialects: Iterable[Dialect]) -> Recognised:
    """The signal of a PromQL query: its metric, quantile, window and aggregation. Raises InputError."""
    try:
        expression = read_promql(query)
    except NotPromqlError as error:
        raise InputError(f"no signal is known by this query: {error}", found=query, allowed=RECOGNISED) from None
    known = list(dialects)
    found = _level(expression, known) or _latency(expression, known)
    if found is None and isinstance(expression, Selector):
        message = "this gives one series a pod, and a trigger fails on more than one: wrap it in sum() or avg()"
        raise InputError(message, found=query, allowed=RECOGNISED)
    if found is None:
        raise InputError("no signal is known by this query", found=query, allowed=RECOGNISED)
    return found


def _level(expression: Expression, dialects: list[Dialect]) -> Recognised | None:
    if not isinstance(expression, Call) or expression.name not in ("sum", "avg") or len(expression.arguments) != 1:
        return None
    inner = expression.arguments[0]
    if not isinstance(inner, Selector) or inner.range_s is not None:
        return None
    for series, signal in _gauges(dialects):
        if series.metric == inner.name and series.labels.items() <= inner.labels.items():
            return Recognised(signal, None, "sum" if expression.name == "sum" else "avg")
    return None


def _latency(expression: Expression, dialects: list[Dialect]) -> Recognised | None:
    expression, per_s = _undivided(expression)
    if not isinstance(expression, Call) or expression.name != "histogram_quantile" or len(expression.arguments) != 2:
        return None
    quantile, buckets = expression.arguments
    rated = _rated(buckets)
    if rated is None or rated.range_s is None or not isinstance(quantile, Number):
        return None
    signal = _BY_QUANTILE.get(quantile.value)
    units = {f"{d.ttft}_bucket": d.ttft_per_s for d in dialects} | {f"{name}_bucket": 1 for name in OTHER_TTFT}
    if signal is None or units.get(rated.name) != per_s or rated.range_s != int(rated.range_s):
        return None
    return Recognised(signal, int(rated.range_s))


def _undivided(expression: Expression) -> tuple[Expression, float]:
    """The expression without a number that it is divided by, and that number or 1."""
    if isinstance(expression, Binary) and expression.operator == "/":
        divisor = expression.right
        if isinstance(divisor, Number):
            return expression.left, divisor.value
    return expression, 1.0


def _rated(expression: Expression) -> Selector | None:
    """The selector in `sum by (le) (rate(...))` or `rate(...)`; `increase` gives the same quantile."""
    if isinstance(expression, Call) and expression.name == "sum" and not expression.without:
        if "le" not in (expression.by or ()) or len(expression.arguments) != 1:
            return None
        expression = expression.arguments[0]
    if not isinstance(expression, Call) or expression.name not in ("rate", "increase"):
        return None
    inner = expression.arguments[0] if len(expression.arguments) == 1 else None
    return inner if isinstance(inner, Selector) else None


def _levels() -> set[str]:
    return {str(signal) for signal in Signal if signal.is_level}


def _gauges(dialects: list[Dialect]) -> list[tuple[Series, Signal]]:
    own = [(series, signal) for dialect in dialects for signal, series in dialect.levels.items()]
    return own + [(Series(name, {}), signal) for name, signal in OTHER_LEVELS.items()]
