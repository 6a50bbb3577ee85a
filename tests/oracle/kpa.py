"""Knative's autoscaler and reconciler of one revision, from section 4 of the decision semantics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from tiphys.domain.settings import KnativeSettings
from tiphys.policies.kpa.spec import KpaPolicy

Condition = Literal["Unknown", "True", "False"]
UNKNOWN = -1


def samples(ready_pods: int) -> int:
    """4.2: how many pods are asked."""
    if ready_pods <= 3:
        return ready_pods
    return math.ceil(15.3664 * ready_pods / (ready_pods + 14.3664))


def percent(ratio: float) -> float:
    return float(Decimal(repr(ratio)) * 100)


@dataclass
class Window:
    """One moving average; values come in the order of time."""

    length_s: int
    weighted: bool
    by_second: dict[int, float] = field(default_factory=dict)
    first: int | None = None

    @property
    def last(self) -> int:
        return max(self.by_second)

    def record(self, now_s: float, value: float) -> None:
        second = math.floor(now_s)
        if self.first is None or second - self.last >= self.length_s:
            self.first = second
            self.by_second.clear()
        self.by_second[second] = self.by_second.get(second, 0.0) + value

    def silent(self, now_s: float) -> bool:
        return self.first is None or math.floor(now_s) - self.last > self.length_s

    def average(self, now_s: float) -> float:
        now = math.floor(now_s)
        if self.first is None or now - self.last >= self.length_s:
            return 0.0
        inside = {s: v for s, v in self.by_second.items() if s > now - self.length_s}
        if self.weighted:
            m = max(1 - 0.0001 ** (1 / self.length_s), 0.2)
            return sum(v * m * (1 - m) ** (now - s) for s, v in inside.items())
        counted = min(self.last - self.first + 1, self.length_s - (now - self.last))
        return float(
            Decimal(repr(sum(inside.values()) / counted)).quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)
        )


@dataclass(frozen=True)
class Outcome:
    """What a tick or a look leaves behind. `replicas` is None where the deployment is left alone."""

    replicas: int | None
    want: int
    proxy: bool
    activators: int
    look_again_s: float | None
    condition: Condition
    reason: str
    desired: int
    excess: int
    panic_since_s: float | None


class Kpa:
    """One revision; `ready_pods` of its `replicas` are ready when the autoscaler begins at `now_s`."""

    def __init__(
        self, policy: KpaPolicy, settings: KnativeSettings, replicas: int, ready_pods: int, now_s: float
    ) -> None:
        self.policy, self.settings = policy, settings
        self._resolve()
        weighted = policy.aggregation == "weighted-exponential"
        self.stable, self.panic = Window(self.window_s, weighted), Window(self.panic_window_s, weighted)
        self.panic_since_s: float | None = now_s if ready_pods > 1 else None
        self.panic_max = ready_pods
        self.delayed: list[tuple[int, int]] = []
        self.desired = 0 if replicas == 0 else UNKNOWN
        self.excess = int(self.tbc) if self.tbc in (0, -1) else math.trunc(self.initial * self.total - self.tbc)
        at_start = max(policy.replicas.min, self.initial, 1)
        self.initialized = replicas == 0 or ready_pods >= at_start
        self.condition: Condition = "False" if replicas == 0 else "True" if self.initialized else "Unknown"
        self.since_s = now_s
        self.proxy_since_s: float | None = now_s

    def _resolve(self) -> None:
        """4.1"""
        p, s = self.policy, self.settings
        self.window_s = p.window_s if p.window_s is not None else s.stable_window_s
        share = p.panic_window_ratio if p.panic_window_ratio is not None else s.panic_window_ratio
        tenths = Decimal(repr(percent(share))) * self.window_s / 100
        self.panic_window_s = max(1, int(tenths.quantize(Decimal(1), rounding=ROUND_HALF_UP)))
        threshold = p.panic_threshold_ratio if p.panic_threshold_ratio is not None else s.panic_threshold_ratio
        self.threshold = percent(threshold) / 100
        self.tbc = p.target_burst_capacity if p.target_burst_capacity is not None else s.target_burst_capacity
        self.delay_s = p.scale_down_delay_s if p.scale_down_delay_s is not None else s.scale_down_delay_s
        self.retention_s = p.pod_retention_s if p.pod_retention_s is not None else s.pod_retention_s
        self.deadline_s = p.progress_deadline_s if p.progress_deadline_s is not None else s.progress_deadline_s
        if p.metric == "rps":
            default, utilization = s.rps_target_default, s.rps_target_utilization_ratio
            self.total = p.target if p.target is not None else default
        else:
            default, utilization = s.container_concurrency_target_default, s.concurrency_target_utilization_ratio
            wanted: Iterable[float] = [x for x in (p.target, p.container_concurrency) if x]
            self.total = min(wanted, default=default)
        share = p.target_utilization_ratio if p.target_utilization_ratio is not None else utilization
        self.aim = max(0.01, self.total * (percent(share) / 100))
        zero_refused = p.initial_scale == 0 and not s.allow_zero_initial_scale
        self.initial = s.initial_scale if p.initial_scale is None or zero_refused else p.initial_scale

    def record(self, now_s: float, value: float) -> None:
        """What one source says of this second, in the revision's metric."""
        self.stable.record(now_s, value)
        self.panic.record(now_s, value)

    @property
    def idle(self) -> bool:
        """The first request is decided on at once."""
        return self.desired == 0

    def tick(self, now_s: float, ready_pods: int | None, replicas: int, reachable: bool = True) -> Outcome:
        # where only activators report, an empty report is no load rather than no data
        no_data = self.tbc != -1 and self.stable.silent(now_s)
        if ready_pods is not None and not no_data:
            self._decide(now_s, ready_pods, reachable)
        return self.look(now_s, ready_pods, replicas, reachable)

    def _decide(self, now_s: float, ready: int, reachable: bool) -> None:
        """4.3"""
        stable, panic = self.stable.average(now_s), self.panic.average(now_s)
        q = max(1, ready)
        hi = math.ceil(self.settings.max_scale_up_rate * q)
        lo = math.floor(q / self.settings.max_scale_down_rate) if reachable else 0
        ds, dp = math.ceil(stable / self.aim), math.ceil(panic / self.aim)
        st, pn = min(max(ds, lo), hi), min(max(dp, lo), hi)
        k = self.policy.activation_scale
        if k > 1:
            st = max(st, k) if ds > 0 else st
            pn = max(pn, k) if dp > 0 else pn
        if dp / q >= self.threshold:
            self.panic_since_s = now_s
        elif self.panic_since_s is not None and self.panic_since_s + self.window_s < now_s:
            self.panic_since_s, self.panic_max = None, 0
        w = st
        if self.panic_since_s is not None:
            w = self.panic_max = max(st, pn, self.panic_max)
        if reachable and self.delay_s:
            w = self._delay(now_s, w)
        self.desired = w
        if self.tbc in (0, -1):
            self.excess = int(self.tbc)
        else:
            self.excess = math.floor(ready * self.total - self.tbc - panic)

    def _delay(self, now_s: float, wish: int) -> int:
        width_s = self.settings.tick_s
        bucket = math.floor(now_s / width_s)
        self.delayed.append((bucket, wish))
        return max(w for b, w in self.delayed if bucket - b < math.ceil(self.delay_s / width_s))

    def look(self, now_s: float, ready_pods: int | None, replicas: int, reachable: bool = True) -> Outcome:
        """4.4"""
        ready = ready_pods or 0
        want, written, again_s = self._scale(now_s, replicas, reachable)
        reason = self._activity(now_s, want, ready, reachable)
        proxy = not (want > 0 and self.excess >= 0)
        if not proxy:
            self.proxy_since_s = None
        elif self.proxy_since_s is None:
            self.proxy_since_s = now_s
        changed = None if written is None or written == replicas else written
        return Outcome(
            changed, want, proxy, self._activators(ready), again_s, self.condition, reason, self.desired, self.excess,
            self.panic_since_s,
        )  # fmt: skip

    def _scale(self, now_s: float, replicas: int, reachable: bool) -> tuple[int, int | None, float | None]:
        """(the wish as reported, what is written, when to look again)"""
        wish, s = self.desired, self.settings
        if wish < 0 and self.condition != "Unknown":
            return wish, None, None
        low = self.policy.replicas.min if reachable else 0
        if self.initial > 1 and not self.initialized and reachable:
            low = max(low, self.initial)
        wish = min(max(wish, low), self.policy.replicas.max)
        if wish > 0:
            return wish, wish, None
        if not s.scale_to_zero:
            return 1, 1, None
        age_s = now_s - self.since_s
        if self.condition == "Unknown":
            if age_s > self.deadline_s + 30:
                return 0, 0, None
            return UNKNOWN, None, self.deadline_s + 30
        if self.condition == "True":
            if age_s >= self.window_s:
                return 0, None, 3.0 if self.proxy_since_s is not None else None
            return 1, 1, self.window_s - age_s
        if self.tbc != -1 and (self.proxy_since_s is None or self.proxy_since_s >= now_s):
            return 0, None, None
        retention_s = self.retention_s if reachable else 0.0
        if age_s >= max(s.scale_to_zero_grace_s, retention_s):
            return 0, 0, None
        if age_s < retention_s:
            return 0, None, retention_s - age_s
        proxied_s = 0.0 if self.proxy_since_s is None else now_s - self.proxy_since_s
        if proxied_s >= s.scale_to_zero_grace_s:
            return 0, 0, None
        return 0, None, s.scale_to_zero_grace_s - proxied_s

    def _activity(self, now_s: float, want: int, ready: int, reachable: bool) -> str:
        low = self.policy.replicas.min if reachable else 0
        k = max(low, 1) if self.initialized else max(low, self.initial)
        self.initialized = self.initialized or ready >= k
        if want == 0 or k == 0:
            reason = "TimedOut" if self.condition == "Unknown" and k > 0 else "NoTraffic"
            self._enter("False", now_s)
            return reason
        if self.condition == "False" and want < 0:
            return "NoTraffic"
        self._enter("Unknown" if ready < k else "True", now_s)
        return "Queued" if ready < k else ""

    def _enter(self, condition: Condition, now_s: float) -> None:
        if condition != self.condition:
            self.condition, self.since_s = condition, now_s

    def _activators(self, ready: int) -> int:
        if self.tbc == 0:
            return 2
        return max(2, math.ceil((ready * self.total + max(self.tbc, 0.0)) / self.settings.activator_capacity))
