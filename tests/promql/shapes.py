"""The closed set of questions that are asked of Prometheus and of the twin's arithmetic.

A shape is JSON, so a vector is complete in itself. `form` is one of

* `series`: `aggregate` (`none`, `sum`, `avg` or `max`) over `function` of `series` on `targets`;
* `ratio`: the sums over `targets` of `function` of `series`, divided by that of `below`;
* `buckets`: `sum by (le)` of the rates of a histogram's buckets, an element a bucket;
* `quantile`: `histogram_quantile` over those.

`function` is `level` (an instant selector), or that of PromQL over `[window_ms]`.
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]
Answer = list[float]
"""the elements of an instant vector; those of `buckets` by bound"""

FUNCTIONS = ("level", "rate", "increase", "delta", "irate", "deriv", "avg_over_time", "max_over_time")
AGGREGATES = ("none", "sum", "avg", "max")


def series(function: str, name: str, targets: str, window_ms: int = 0, aggregate: str = "none") -> Shape:
    return {
        "form": "series",
        "aggregate": aggregate,
        "function": function,
        "series": name,
        "targets": targets.split("|"),
        "window_ms": window_ms,
    }


def ratio(function: str, above: str, below: str, targets: str, window_ms: int = 0) -> Shape:
    return {**series(function, above, targets, window_ms, "sum"), "form": "ratio", "below": below}


def buckets(histogram: str, targets: str, window_ms: int) -> Shape:
    return {"form": "buckets", "histogram": histogram, "targets": targets.split("|"), "window_ms": window_ms}


def quantile(share: float, histogram: str, targets: str, window_ms: int) -> Shape:
    return {**buckets(histogram, targets, window_ms), "form": "quantile", "quantile": repr(share)}


def promql(shape: Shape) -> str:
    """The shape as PromQL."""
    if shape["form"] == "series":
        return _aggregated(shape, shape["series"])
    if shape["form"] == "ratio":
        return f"{_aggregated(shape, shape['series'])} / {_aggregated(shape, shape['below'])}"
    rates = f"sum by (le) (rate({_selector(shape, shape['histogram'] + '_bucket')}[{_duration(shape)}]))"
    if shape["form"] == "buckets":
        return rates
    return f"histogram_quantile({shape['quantile'].replace('nan', 'NaN')}, {rates})"


def _aggregated(shape: Shape, name: str) -> str:
    selected = _selector(shape, name)
    if shape["function"] != "level":
        selected = f"{shape['function']}({selected}[{_duration(shape)}])"
    return selected if shape["aggregate"] == "none" else f"{shape['aggregate']}({selected})"


def _selector(shape: Shape, name: str) -> str:
    targets = shape["targets"]
    return f'{name}{{target="{targets[0]}"}}' if len(targets) == 1 else f'{name}{{target=~"{"|".join(targets)}"}}'


def _duration(shape: Shape) -> str:
    return f"{shape['window_ms']}ms"
