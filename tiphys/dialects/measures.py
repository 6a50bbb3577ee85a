"""How a signal is made of a server's series, in PromQL: gauges, shares, histograms, counters, recorded ratios."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tiphys.errors import InputError

Aggregation = Literal["sum", "avg"]
"""How a level or a rate is put together over pods: `sum` for AverageValue, `avg` for Value."""
Source = Literal["object", "external", "pods"]
"""Ways in which an HPA can be told of a series."""
POD = "pod"


@dataclass(frozen=True)
class Exporter:
    """Who serves a series: under which labels it names a pool, and how an HPA can be told of it.

    `renamed` says what a selector's label is called here; a label in `prefixed` holds the selector's value followed by
    a dash and more.
    """

    name: str
    sources: tuple[Source, ...] = ("object", "external", "pods")
    renamed: Mapping[str, str] = field(default_factory=dict)
    prefixed: frozenset[str] = frozenset()

    def label(self, name: str) -> str:
        """What a selector's label is called in these series."""
        return self.renamed.get(name, name)

    def matcher(self, name: str, value: str) -> str:
        """One matcher of PromQL."""
        pattern = f'=~"{_escaped(value)}-.*"' if name in self.prefixed else f'="{_escaped(value)}"'
        return self.label(name) + pattern


THE_PODS = Exporter("the pods")
DCGM_EXPORTER = Exporter(
    "dcgm-exporter",
    ("pods",),
    # honorLabels is off in its chart: `pod` and `namespace` are the exporter's own there, and no Service is named
    {"namespace": "exported_namespace", "pod": "exported_pod", "service": "exported_pod"},
    frozenset({"service"}),
)
ENDPOINT_PICKER = Exporter("the endpoint picker", ("external",), {"service": "inference_pool"})
FRONTEND = Exporter("the frontend", ("object", "external"))


@dataclass(frozen=True)
class Series:
    """One metric: its name, labels that pick some of its series, and who serves it."""

    metric: str
    labels: Mapping[str, str] = field(default_factory=dict)
    exporter: Exporter = THE_PODS

    def selected(self, selector: Mapping[str, str]) -> str:
        """The instant vector of PromQL, narrowed down to a pool by a selector's labels."""
        own = [f'{name}="{_escaped(value)}"' for name, value in self.labels.items()]
        inner = ", ".join(own + [self.exporter.matcher(name, value) for name, value in selector.items()])
        return f"{self.metric}{{{inner}}}" if inner else self.metric

    def templated(self, matchers: str) -> str:
        """The same with some text in place of the selector's matchers."""
        own = "".join(f'{name}="{_escaped(value)}", ' for name, value in self.labels.items())
        return f"{self.metric}{{{own}{matchers}}}"


Vector = Callable[[Series], str]
"""Text of a series' instant vector, narrowed down to a pool."""


@dataclass(frozen=True)
class Histogram:
    """A classic histogram without `_bucket`: finite upper bounds in seconds, units in a second, what it counts.

    `observed` is `token` where each gap between two tokens is one observation, `request` where each request is.
    """

    base: str
    bounds_s: tuple[float, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    per_s: int = 1
    observed: Literal["request", "token"] = "request"
    exporter: Exporter = THE_PODS

    def series(self, suffix: Literal["bucket", "sum", "count"]) -> Series:
        """One of its three metrics."""
        return Series(f"{self.base}_{suffix}", self.labels, self.exporter)


@dataclass(frozen=True)
class Asked:
    """What is asked beside the signal: range of the rate, aggregation over pods, labels kept, or one value a pod."""

    window_s: int | None = None
    aggregation: Aggregation = "sum"
    by: tuple[str, ...] = ()
    each_pod: bool = False

    @property
    def range(self) -> str:
        """`[1m]`. Raises InputError without a window."""
        if self.window_s is None:
            raise InputError("a latency or a rate needs a window", key="window_s", allowed="1 or more")
        return f"[{promql_duration(self.window_s)}]"

    def over(self, aggregation: str, *more: str) -> str:
        """An aggregation that keeps the asked labels and `more`."""
        kept = (*more, *self.by)
        return f"{aggregation} by ({', '.join(kept)}) " if kept else aggregation


class Measure(ABC):
    """One signal of one family of servers."""

    @property
    @abstractmethod
    def series(self) -> tuple[Series, ...]:
        """What it is computed from; the first one is there whenever the signal is."""

    @abstractmethod
    def expression(self, vector: Vector, asked: Asked) -> str:
        """PromQL, in seconds, requests or a share."""

    @property
    def gauge(self) -> Series | None:
        """The one gauge whose value it is, where there is such a one."""
        return None


@dataclass(frozen=True)
class Level(Measure):
    """Gauges, added up."""

    terms: tuple[Series, ...]

    @property
    def series(self) -> tuple[Series, ...]:
        """The gauges."""
        return self.terms

    @property
    def gauge(self) -> Series | None:
        """The one gauge."""
        return self.terms[0] if len(self.terms) == 1 else None

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The terms, each put together over pods."""
        return " + ".join(f"{asked.over(asked.aggregation)}({vector(term)})" for term in self.terms)


@dataclass(frozen=True)
class Total(Measure):
    """A gauge that several series hold parts of: a queue before all pods, which has no mean over them."""

    parts: Series

    @property
    def series(self) -> tuple[Series, ...]:
        """The gauge."""
        return (self.parts,)

    @property
    def gauge(self) -> Series | None:
        """The gauge."""
        return self.parts

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The sum, whatever the type of the target."""
        return f"{asked.over('sum')}({vector(self.parts)})"


@dataclass(frozen=True)
class Share(Measure):
    """A gauge of each GPU as a share: in units of `per`, or of the sum of `whole`. A pod's share is its GPUs' mean."""

    part: Series
    per: int = 1
    whole: tuple[Series, ...] = ()

    @property
    def series(self) -> tuple[Series, ...]:
        """The part, and what it is a part of."""
        return (self.part, *(each for each in self.whole if each != self.part))

    @property
    def gauge(self) -> Series | None:
        """The one gauge, where it is a share as it stands."""
        return self.part if self.per == 1 and not self.whole else None

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The mean over GPUs for `avg`; for `sum` the sum over pods of theirs."""
        value = vector(self.part)
        if self.whole:
            whole = " + ".join(vector(each) for each in self.whole)
            value += f" / ({whole})" if len(self.whole) > 1 else f" / {whole}"
        if asked.aggregation == "sum" and not asked.each_pod:
            value = f"{asked.over('avg', self.part.exporter.label(POD))}({value})"
            value = f"{asked.over('sum')}({value})"
        else:
            value = f"{asked.over('avg')}({value})"
        return value if self.per == 1 else f"{value} / {self.per}"


@dataclass(frozen=True)
class Quantile(Measure):
    """A quantile of a histogram over the rates of its buckets."""

    histogram: Histogram
    quantile: float

    @property
    def series(self) -> tuple[Series, ...]:
        """The buckets."""
        return (self.histogram.series("bucket"),)

    def expression(self, vector: Vector, asked: Asked) -> str:
        """`histogram_quantile` of the pods' buckets together."""
        rate = f"{asked.over('sum', 'le')}(rate({vector(self.series[0])}{asked.range}))"
        return _in_seconds(f"histogram_quantile({self.quantile:g}, {rate})", self.histogram.per_s)


@dataclass(frozen=True)
class Mean(Measure):
    """A counter of time over a counter of what took it."""

    total: Series
    count: Series
    per_s: int = 1

    @property
    def series(self) -> tuple[Series, ...]:
        """Both counters."""
        return (self.total, self.count)

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The ratio of both rates, each summed over the pods."""
        return _in_seconds(_ratio(self.total, self.count, vector, asked), self.per_s)


@dataclass(frozen=True)
class Rate(Measure):
    """A counter, per second."""

    counter: Series

    @property
    def series(self) -> tuple[Series, ...]:
        """The counter."""
        return (self.counter,)

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The sum over the pods, or the mean of each pod's sum (a pod has several series: one a reason to finish)."""
        rate = f"rate({vector(self.counter)}{asked.range})"
        if asked.aggregation == "sum" or asked.each_pod:
            return f"{asked.over('sum')}({rate})"
        return f"{asked.over('avg')}({asked.over('sum', self.counter.exporter.label(POD))}({rate}))"


@dataclass(frozen=True)
class RecordingRule:
    """A rule by which Prometheus evaluates an expression at its interval and stores it under a name."""

    record: str
    expression: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Recorded(Measure):
    """The ratio of two counters of time, stored by a recording rule and read as a gauge: one value for a pool."""

    name: str
    total: Series
    count: Series

    @property
    def series(self) -> tuple[Series, ...]:
        """Both counters."""
        return (self.total, self.count)

    def record(self, asked: Asked) -> Series:
        """What the rule stores: the window is part of its name, and so is that it has one value for each pod."""
        subject = f"{self.name}_by_pod" if asked.each_pod else self.name
        return Series(f"{RECORDED}{subject}:rate{asked.range[1:-1]}")

    def expression(self, vector: Vector, asked: Asked) -> str:
        """The newest recorded value."""
        return f"{asked.over('avg')}({vector(self.record(asked))})"

    def rule(self, selector: Mapping[str, str], asked: Asked) -> RecordingRule:
        """The rule; what it stores carries the selector's labels."""
        parts = Asked(asked.window_s, by=(POD,) if asked.each_pod else ())
        expression = _ratio(self.total, self.count, lambda series: series.selected(selector), parts)
        return RecordingRule(self.record(asked).metric, expression, dict(selector))


RECORDED = "tiphys:"


def _ratio(total: Series, count: Series, vector: Vector, asked: Asked) -> str:
    return " / ".join(f"{asked.over('sum')}(rate({vector(each)}{asked.range}))" for each in (total, count))


def _in_seconds(expression: str, per_s: int) -> str:
    return expression if per_s == 1 else f"{expression} / {per_s}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def promql_duration(seconds: int) -> str:
    """`60` as `1m`, `90` as `90s`, `3600` as `1h`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
