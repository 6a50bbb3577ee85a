"""The HPA controller, from section 2 of the decision semantics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from tiphys.domain.settings import HpaSettings
from tiphys.policies.hpa.spec import Behavior, ScalingRules

Kind = Literal["Value", "AverageValue", "Pods", "Utilization", "Cores"]


def milli(quantity: float) -> int:
    """A quantity of a manifest in milli-units, a finer fraction rounded up."""
    return int((Decimal(repr(quantity)) * 1000).to_integral_value(rounding=ROUND_CEILING))


@dataclass(frozen=True)
class Pod:
    """What the controller sees of a pod."""

    name: int
    phase: Literal["Pending", "Running"]
    ready: bool
    deleting: bool
    start_s: float = -math.inf
    transition_s: float = -math.inf
    """When it last became ready or ceased to be."""


@dataclass(frozen=True)
class Metric:
    """`target_m` is in milli-units; whole percent for Utilization."""

    kind: Kind
    target_m: int


@dataclass(frozen=True)
class CpuUse:
    """What metrics-server says: cores in milli-units by pod, averaged over a window that ended at `taken_s`."""

    values_m: dict[int, int]
    taken_s: float
    window_s: float
    request_m: int


Answer = int | dict[int, int] | CpuUse | None
"""Milli-units, milli-units by pod, CPU; None for an empty or failed query."""


@dataclass(frozen=True)
class Tolerance:
    down: float
    up: float

    def holds(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Decision:
    """The end of a pass: `wish` before history and limits (None: not computed), `desired` after them."""

    time_s: float
    spec: int
    wish: int | None
    desired: int
    error: bool = False


@dataclass(frozen=True)
class Limit:
    """One rate policy."""

    is_percent: bool
    value: int
    period_s: float


@dataclass(frozen=True)
class Direction:
    window_s: float
    select: str
    limits: tuple[Limit, ...]

    @property
    def longest_s(self) -> float:
        return max(limit.period_s for limit in self.limits)


def _direction(rules: ScalingRules | None, window_s: float, limits: tuple[Limit, ...]) -> Direction:
    """One direction with the API's defaults, field by field (2.7)."""
    if rules is None:
        return Direction(window_s, "Max", limits)
    given = rules.policies
    return Direction(
        window_s if rules.stabilization_s is None else rules.stabilization_s,
        rules.select or "Max",
        limits if given is None else tuple(Limit(p.type == "Percent", p.value, p.period_s) for p in given),
    )


DEFAULT_UP = (Limit(False, 4, 15), Limit(True, 100, 15))
DEFAULT_DOWN = (Limit(True, 100, 15),)


@dataclass
class Changes:
    """Past changes of one direction: (time, amount). The one slot that outdated entries free is the last (2.8)."""

    longest_s: float
    entries: list[tuple[float, int]] = field(default_factory=list)

    def add(self, now_s: float, amount: int) -> None:
        outdated = [i for i, (time_s, _) in enumerate(self.entries) if now_s - time_s > self.longest_s]
        if outdated:
            self.entries[outdated[-1]] = (now_s, amount)
        else:
            self.entries.append((now_s, amount))

    def within(self, now_s: float, period_s: float) -> int:
        return sum(amount for time_s, amount in self.entries if now_s - time_s < period_s)


# --- 2.5: proposals


def value_proposal(value_m: int, target_m: int, spec: int, pods: Sequence[Pod], tolerance: Tolerance) -> int | None:
    """2.5.4; None for a selector without pods."""
    ratio = value_m / target_m
    if spec == 0:
        return math.ceil(ratio)
    if tolerance.holds(ratio):
        return spec
    if not pods:
        return None
    ready = sum(1 for pod in pods if pod.phase == "Running" and pod.ready)
    return min(math.ceil(ratio * ready), 2**31 - 1)


def average_value_proposal(value_m: int, target_m: int, status: int, tolerance: Tolerance) -> int:
    """2.5.5"""
    if status > 0 and tolerance.holds(value_m / (target_m * status)):
        return status
    return math.ceil(value_m / target_m)


def pods_proposal(
    values_m: dict[int, int], target_m: int, spec: int, pods: Sequence[Pod], tolerance: Tolerance
) -> int | None:
    """2.5.1 to 2.5.3 for one value per pod; None where no sample is left or the selector matches nothing."""
    deleting = {pod.name for pod in pods if pod.deleting}
    unready = {pod.name for pod in pods if pod.phase == "Pending"} - deleting
    missing = {pod.name for pod in pods} - deleting - unready - values_m.keys()
    counted = len(pods) - len(deleting) - len(unready) - len(missing)
    samples = [value for name, value in values_m.items() if name not in deleting | unready]

    def ratio_of(samples: list[int]) -> float:
        return (sum(samples) // len(samples)) / target_m

    return _combined(
        samples, ratio_of, target_m, spec, Counts(len(pods), counted, len(missing), len(unready)), tolerance
    )


def cpu_proposal(
    use: CpuUse, metric: Metric, spec: int, pods: Sequence[Pod], tolerance: Tolerance, now_s: float, flags: HpaSettings
) -> int | None:
    """2.5.1 to 2.5.3 for the resource cpu."""
    deleting = {pod.name for pod in pods if pod.deleting}
    rest = [pod for pod in pods if not pod.deleting]
    unready = {pod.name for pod in rest if pod.phase == "Pending"}
    missing = {pod.name for pod in rest} - unready - use.values_m.keys()
    sampled = [pod for pod in rest if pod.name not in unready | missing]
    unready |= {pod.name for pod in sampled if _starts(pod, use, now_s, flags)}
    counted = len(rest) - len(unready) - len(missing)
    listed = {pod.name for pod in pods}
    kept = {name: value for name, value in use.values_m.items() if name not in deleting | unready}
    counts = Counts(len(pods), counted, len(missing), len(unready))
    if metric.kind == "Utilization":
        percent = metric.target_m

        def utilization(samples: list[int]) -> float:
            return (100 * sum(samples) // (use.request_m * len(samples))) / percent

        samples = [value for name, value in kept.items() if name in listed]
        return _combined(samples, utilization, use.request_m * max(100, percent) // 100, spec, counts, tolerance)

    def average(samples: list[int]) -> float:
        return (sum(samples) // len(samples)) / metric.target_m

    return _combined(list(kept.values()), average, metric.target_m, spec, counts, tolerance)


def _starts(pod: Pod, use: CpuUse, now_s: float, flags: HpaSettings) -> bool:
    """Whether the CPU of a pod is that of its start (2.5.1, rule 4)."""
    if now_s - pod.start_s < flags.cpu_initialization_period_s:
        return not pod.ready or use.taken_s < pod.transition_s + use.window_s
    return not pod.ready and pod.transition_s < pod.start_s + flags.initial_readiness_delay_s


@dataclass(frozen=True)
class Counts:
    """Pods of each sort."""

    pods: int
    counted: int
    missing: int
    unready: int


def _combined(
    samples: list[int],
    ratio_of: Callable[[list[int]], float],
    when_missing: int,
    spec: int,
    counts: Counts,
    tolerance: Tolerance,
) -> int | None:
    """2.5.3"""
    if not counts.pods or not samples:
        return None
    ratio = ratio_of(samples)
    if not counts.missing and not (counts.unready and ratio > 1):
        return spec if tolerance.holds(ratio) else math.ceil(ratio * counts.counted)
    assumed = []
    if ratio < 1:
        assumed = [when_missing] * counts.missing
    elif ratio > 1:
        assumed = [0] * (counts.missing + counts.unready)
    samples = samples + assumed
    second = ratio_of(samples)
    if tolerance.holds(second) or ratio < 1 < second or second < 1 < ratio:
        return spec
    proposal = math.ceil(second * len(samples))
    wrong_way = (second < 1 and proposal > spec) or (second > 1 and proposal < spec)
    return spec if wrong_way else proposal


@dataclass
class Hpa:
    """One HPA object and what the controller remembers of it."""

    minimum: int
    maximum: int
    metrics: tuple[Metric, ...]
    behavior: Behavior | None
    settings: HpaSettings
    history: list[tuple[float, int]] | None = None
    came_to_zero: bool = False
    """The marker that this controller went to zero, without which it does not leave it (2.11)."""

    def __post_init__(self) -> None:
        down_s = self.settings.downscale_stabilization_s
        behavior = self.behavior or Behavior()
        self.up = _direction(behavior.scale_up, 0.0, DEFAULT_UP)
        self.down = _direction(behavior.scale_down, down_s, DEFAULT_DOWN)
        self.increases, self.decreases = Changes(self.up.longest_s), Changes(self.down.longest_s)
        self.tolerance = Tolerance(self._tolerance(behavior.scale_down), self._tolerance(behavior.scale_up))

    def _tolerance(self, rules: ScalingRules | None) -> float:
        given = rules.tolerance if rules is not None and self.settings.configurable_tolerance else None
        return self.settings.tolerance if given is None else given

    def decide(self, now_s: float, spec: int, status: int, pods: Sequence[Pod], answers: Sequence[Answer]) -> Decision:
        """One pass (2.9)."""
        if self.history is None:
            self.history = [(now_s, spec)]
        if spec == 0 and not self.came_to_zero:
            return Decision(now_s, spec, None, spec)
        if not self.minimum <= spec <= self.maximum:
            desired = min(max(spec, self.minimum), self.maximum)
            self._record(now_s, spec, desired)
            return Decision(now_s, spec, None, desired)
        proposals = [
            self._proposal(metric, answer, spec, status, pods, now_s)
            for metric, answer in zip(self.metrics, answers, strict=True)
        ]
        valid = [p for p in proposals if p is not None]
        failed = len(valid) < len(proposals)
        if not valid or (failed and max(valid) < spec):
            return Decision(now_s, spec, None, spec, error=True)
        wish = max(valid)
        desired = self._legacy(now_s, spec, wish) if self.behavior is None else self._behaved(now_s, spec, wish)
        self._record(now_s, spec, desired)
        self.came_to_zero = desired == 0 and self.settings.scale_to_zero
        return Decision(now_s, spec, wish, desired, error=failed)

    def _proposal(
        self, metric: Metric, answer: Answer, spec: int, status: int, pods: Sequence[Pod], now_s: float
    ) -> int | None:
        if answer is None:
            return None
        if isinstance(answer, CpuUse):
            return cpu_proposal(answer, metric, spec, pods, self.tolerance, now_s, self.settings)
        if isinstance(answer, dict):
            return pods_proposal(answer, metric.target_m, spec, pods, self.tolerance)
        if metric.kind == "Value":
            return value_proposal(answer, metric.target_m, spec, pods, self.tolerance)
        return average_value_proposal(answer, metric.target_m, status, self.tolerance)

    def _legacy(self, now_s: float, spec: int, wish: int) -> int:
        """2.6: an entry exactly as old as the window still counts."""
        assert self.history is not None
        window_s = self.settings.downscale_stabilization_s
        stabilized = max([wish] + [n for time_s, n in self.history if now_s - time_s <= window_s])
        self.history.append((now_s, wish))
        return max(self.minimum, min(stabilized, self.maximum, max(2 * spec, 4)))

    def _behaved(self, now_s: float, spec: int, wish: int) -> int:
        """2.8: an entry exactly as old as its window no longer counts."""
        assert self.history is not None
        floor = min([wish] + [n for time_s, n in self.history if now_s - time_s < self.up.window_s])
        ceiling = max([wish] + [n for time_s, n in self.history if now_s - time_s < self.down.window_s])
        self.history.append((now_s, wish))
        x = max(spec, floor)
        x = min(x, ceiling)
        if x > spec:
            return min(x, self._most(now_s, spec), self.maximum)
        if x < spec:
            return max(x, self._least(now_s, spec), self.minimum)
        return x

    def _start(self, now_s: float, spec: int, period_s: float) -> int:
        return spec - self.increases.within(now_s, period_s) + self.decreases.within(now_s, period_s)

    def _most(self, now_s: float, spec: int) -> int:
        if self.up.select == "Disabled":
            return spec
        limits = []
        for limit in self.up.limits:
            start = self._start(now_s, spec, limit.period_s)
            limits.append(math.ceil(start * (1 + limit.value / 100)) if limit.is_percent else start + limit.value)
        return max(spec, max(limits) if self.up.select == "Max" else min(limits))

    def _least(self, now_s: float, spec: int) -> int:
        if self.down.select == "Disabled":
            return spec
        limits = []
        for limit in self.down.limits:
            start = self._start(now_s, spec, limit.period_s)
            limits.append(math.trunc(start * (1 - limit.value / 100)) if limit.is_percent else start - limit.value)
        return min(spec, min(limits) if self.down.select == "Max" else max(limits))

    def _record(self, now_s: float, spec: int, desired: int) -> None:
        if self.behavior is None:
            return
        if desired > spec:
            self.increases.add(now_s, desired - spec)
        elif desired < spec:
            self.decreases.add(now_s, spec - desired)
