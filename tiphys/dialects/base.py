"""What a dialect is: how one family of servers names the signals in PromQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tiphys.domain.signals import Signal
from tiphys.errors import InputError

Aggregation = Literal["sum", "avg"]
"""How a level is put together over pods: `sum` for AverageValue, `avg` for Value."""

VLLM_TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
"""Upper bounds of vLLM's TTFT histogram, seconds, +Inf left out."""


@dataclass(frozen=True)
class Series:
    """A gauge: the metric's name, and labels that pick one of its series."""

    metric: str
    labels: Mapping[str, str]

    def selected(self, selector: Mapping[str, str]) -> str:
        """The instant vector of PromQL, narrowed down by a selector's labels."""
        return self.metric + matchers(self.labels, selector)


@dataclass(frozen=True)
class Dialect:
    """How one family of servers names the signals.

    `levels` are gauges by signal, `ttft` the TTFT histogram without `_bucket`, `ttft_labels` labels that pick one of
    its series, `ttft_per_s` its units in a second, `ttft_bounds_s` its finite upper bounds in seconds, `metrics_path`
    where they are served.
    """

    name: str
    levels: Mapping[Signal, Series]
    ttft: str | None
    ttft_bounds_s: tuple[float, ...]
    ttft_per_s: int = 1
    ttft_labels: Mapping[str, str] | None = None
    metrics_path: str = "/metrics"

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that these servers show."""
        return tuple(s for s in Signal if s in self.levels or (not s.is_level and self.ttft is not None))

    def series(self, signal: Signal) -> Series:
        """The series under a signal: a gauge, or the buckets of the TTFT histogram.

        Raises InputError, listing what there is, for a signal that these servers do not show.
        """
        if signal not in self.signals:
            raise InputError(
                f"dialect {self.name} does not show this signal", found=str(signal), allowed=", ".join(self.signals)
            )
        return self.levels[signal] if signal.is_level else Series(f"{self.ttft}_bucket", self.ttft_labels or {})

    def query(
        self,
        signal: Signal,
        selector: Mapping[str, str],
        *,
        window_s: int | None = None,
        aggregation: Aggregation = "sum",
    ) -> str:
        """PromQL for a signal of the pods that a selector's labels pick, in seconds, requests or a share.

        A latency is `histogram_quantile` over the rate in `window_s`; a level is summed or averaged over pods. Raises
        InputError for a signal that these servers do not show.
        """
        vector = self.series(signal).selected(selector)
        return self.expression(signal, vector, window_s=window_s, aggregation=aggregation)

    def expression(
        self, signal: Signal, vector: str, *, window_s: int | None, aggregation: Aggregation, by: tuple[str, ...] = ()
    ) -> str:
        """The same over any text that stands for the instant vector; `by` names labels that are kept."""
        if signal.quantile is None:
            grouping = f" by ({', '.join(by)}) " if by else ""
            return f"{aggregation}{grouping}({vector})"
        if window_s is None:
            raise InputError("a latency needs a window", found=str(signal), allowed="window_s of 1 or more")
        rate = f"sum by ({', '.join(('le', *by))}) (rate({vector}[{promql_duration(window_s)}]))"
        quantile = f"histogram_quantile({signal.quantile:g}, {rate})"
        return quantile if self.ttft_per_s == 1 else f"{quantile} / {self.ttft_per_s}"


def matchers(*labels: Mapping[str, str]) -> str:
    """`{name="value", ...}` of PromQL, or nothing for no labels."""
    pairs = [f'{name}="{_escaped(value)}"' for group in labels for name, value in group.items()]
    return "{" + ", ".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def promql_duration(seconds: int) -> str:
    """`60` as `1m`, `90` as `90s`, `3600` as `1h`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
