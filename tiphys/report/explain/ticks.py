"""A tick of Knative's autoscaler with every number on its way, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tiphys.domain.values import Frozen
from tiphys.policies.kpa.decider import (
    ACTIVATION_SCALE,
    DELAY,
    GROWTH_RATE,
    LIMITS,
    MODES,
    NO_DATA,
    NO_SHRINKING,
    PANIC,
    PODS_UNKNOWN,
    SHRINK_RATE,
)
from tiphys.policies.kpa.reconciler import AS_WISHED, CONDITION_REASONS, CONDITIONS, NO_WISH, REASONS, TO_ZERO
from tiphys.policies.kpa.rules import KpaRules
from tiphys.report.explain.cells import count, known, named

_NOT_HOLDING = tuple(REASONS[code] for code in (AS_WISHED, NO_WISH, TO_ZERO))
STABLE_WINDOW, PANIC_WINDOW = "stable window", "panic window"


class KpaTick(Frozen):
    """Averages, pods and what the reconciler made of them."""

    metric: str
    mode: str
    stable: float | None
    """Average over the stable window; None without data."""
    panic: float | None
    stable_window_s: float
    panic_window_s: float
    aim: float
    """Load that one pod should have."""
    stable_pods: int | None
    panic_pods: int | None
    panic_threshold: float
    """Pods wanted over pods ready at which panic begins."""
    panic_since_s: float | None
    """The last tick over the threshold; None out of panic."""
    limit: str
    """What changed the wish last; empty where nothing did."""
    max_scale_up_rate: float
    max_scale_down_rate: float
    scale_down_delay_s: float
    total: float
    """Load that one pod may have."""
    target_burst_capacity: float
    excess_burst_capacity: int
    is_proxied: bool
    """Requests go through the activators."""
    reason: str
    """What became of the wish."""
    condition: str
    condition_reason: str

    @property
    def is_decided(self) -> bool:
        """The tick had data to decide on."""
        return self.stable_pods is not None and self.panic_pods is not None

    @property
    def is_in_panic(self) -> bool:
        """The panic window counts too, and nothing shrinks."""
        return self.mode == MODES[PANIC]

    @property
    def winner(self) -> str | None:
        """The window that asks for more pods; outside a panic the stable one."""
        if self.stable_pods is None or self.panic_pods is None:
            return None
        return PANIC_WINDOW if self.is_in_panic and self.panic_pods > self.stable_pods else STABLE_WINDOW

    @property
    def holds_back(self) -> bool:
        """A rate, a delay, a bound, a step on the way to zero or missing data kept the tick from its wish."""
        lacks = self.mode in (MODES[NO_DATA], MODES[PODS_UNKNOWN])
        return bool(self.limit) or lacks or self.reason not in _NOT_HOLDING


def kpa_tick(row: Mapping[str, float], rules: KpaRules) -> KpaTick:
    """The tick that a row of the decision table holds."""
    decider = rules.decider
    return KpaTick(
        metric="requests per second" if rules.is_rps else "concurrency",
        mode=named(MODES, row["branch"]),
        stable=known(row["stable"]),
        panic=known(row["panic"]),
        stable_window_s=float(rules.stable_window_s),
        panic_window_s=float(rules.panic_window_s),
        aim=decider.aim,
        stable_pods=count(row["stable_pods"]),
        panic_pods=count(row["panic_pods"]),
        panic_threshold=decider.panic_threshold,
        panic_since_s=known(row["panic_since_s"]),
        limit=named(LIMITS, row["limited_reason"]),
        max_scale_up_rate=decider.max_scale_up_rate,
        max_scale_down_rate=decider.max_scale_down_rate,
        scale_down_delay_s=decider.scale_down_delay_s,
        total=decider.total,
        target_burst_capacity=decider.target_burst_capacity,
        excess_burst_capacity=int(row["excess"]),
        is_proxied=bool(row["proxied"]),
        reason=named(REASONS, row["active_reason"]),
        condition=named(CONDITIONS, row["active"]),
        condition_reason=named(CONDITION_REASONS, row["able_reason"]),
    )


def tick_lines(tick: KpaTick, now_s: float, ready: int, wish: int | None, after: int) -> Iterator[str]:
    """The steps of one tick, between its heading and its result."""
    if not tick.is_decided:
        yield f"{tick.mode}{'' if wish is None else f' at {wish}'}"
    else:
        yield f"{tick.metric}, {_asked(STABLE_WINDOW, tick.stable_window_s, tick.stable, tick.aim, tick.stable_pods)}"
        asked = _asked(PANIC_WINDOW, tick.panic_window_s, tick.panic, tick.aim, tick.panic_pods)
        yield f"{asked}, {_over_ready(tick, ready)}"
        if tick.is_in_panic:
            yield f"{_panic(tick, now_s)}, so the larger counts"
        if tick.limit:
            yield _limited(tick, max(ready, 1), wish)
        yield _path(tick, ready)
    if tick.reason not in _NOT_HOLDING:
        yield f"{tick.reason} ({after})"


def _asked(window: str, window_s: float, average: float | None, aim: float, pods: int | None) -> str:
    return f"{window} of {window_s:g} s: ceil({_number(average)} / {aim:g}) = {pods}"


def _over_ready(tick: KpaTick, ready: int) -> str:
    pods, asked = max(ready, 1), tick.panic_pods or 0
    relation = "at or over" if asked / pods >= tick.panic_threshold else "under"
    return f"{asked} / {pods} ready = {asked / pods:.4g}, {relation} the panic threshold {tick.panic_threshold:g}"


def _panic(tick: KpaTick, now_s: float) -> str:
    ago_s = now_s - (tick.panic_since_s or 0.0)
    if ago_s <= 0:
        return "in panic, renewed now"
    return f"in panic, last renewed {ago_s:.1f} s before (ends after {tick.stable_window_s:g} s)"


def _limited(tick: KpaTick, pods: int, wish: int | None) -> str:
    told = {
        LIMITS[GROWTH_RATE]: f"cut to {wish}: the growth rate allows ceil({tick.max_scale_up_rate:g} x {pods} ready)",
        LIMITS[SHRINK_RATE]: f"raised to {wish}: the shrink rate leaves floor({pods} ready / "
        f"{tick.max_scale_down_rate:g})",
        LIMITS[ACTIVATION_SCALE]: f"raised to {wish} by the activation scale",
        LIMITS[NO_SHRINKING]: f"nothing shrinks in a panic: the {wish} wished for before in it stay",
        LIMITS[DELAY]: f"the scale-down delay of {tick.scale_down_delay_s:g} s keeps its largest wish: {wish}",
    }
    return told[tick.limit]


def _path(tick: KpaTick, ready: int) -> str:
    way = "through the activator (Proxy)" if tick.is_proxied else "straight to the pods (Serve)"
    excess = f"{tick.excess_burst_capacity}"
    if tick.target_burst_capacity > 0:
        spare = f"{ready} x {tick.total:g} - {tick.target_burst_capacity:g} - {_number(tick.panic)}"
        excess = f"floor({spare}) = {excess}"
    return f"excess burst capacity {excess}: requests go {way}"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
