"""The KEDA operator, from section 3 of the decision semantics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from tests.oracle.hpa import milli
from tiphys.policies.keda.spec import CpuTrigger, KedaPolicy, NatsJetStreamTrigger, PrometheusTrigger

External = PrometheusTrigger | NatsJetStreamTrigger
Query = Callable[[External], float | None]
"""What a trigger's source says now; None where the answer is empty. Raises TriggerError where there is none."""


class TriggerError(Exception):
    pass


def threshold_m(trigger: External) -> int:
    return milli(trigger.threshold) if isinstance(trigger, PrometheusTrigger) else 1000 * trigger.lag_threshold


def activation(trigger: External) -> float:
    return trigger.activation_value if isinstance(trigger, PrometheusTrigger) else trigger.activation


def external_milli(value: float) -> int:
    """The number printed with three decimals; negative or not finite becomes 0."""
    return int(Decimal(f"{value:.3f}") * 1000) if math.isfinite(value) and value > 0 else 0


@dataclass(frozen=True)
class Poll:
    """What one poll saw and did."""

    time_s: float
    spec: int
    active: bool
    error: bool
    replicas: int


@dataclass
class Keda:
    """One ScaledObject, created at time 0."""

    policy: KedaPolicy
    query: Query
    failures: dict[int, int] = field(default_factory=dict)
    last_active_s: float | None = None
    cached: dict[int, int | None] = field(default_factory=dict)

    def triggers(self) -> list[External]:
        """All but cpu, which neither activates nor is asked of KEDA."""
        return [t for t in self.policy.triggers if not isinstance(t, CpuTrigger)]

    def _live(self, trigger: External) -> float:
        value = self.query(trigger)
        if value is None or not math.isfinite(value):
            if not (isinstance(trigger, PrometheusTrigger) and trigger.ignore_null):
                raise TriggerError
            return 0.0
        return value

    def _fallback(self, index: int, trigger: External, spec: int, ready: int) -> int:
        """A failure: the metric that stands in for it in milli-units, cut off; or TriggerError again."""
        fallback = self.policy.fallback
        if fallback is None:
            raise TriggerError
        self.failures[index] = self.failures.get(index, 0) + 1
        if self.failures[index] <= fallback.failure_threshold:
            raise TriggerError
        replicas = {
            "static": fallback.replicas,
            "currentReplicas": spec,
            "currentReplicasIfHigher": max(spec, fallback.replicas),
            "currentReplicasIfLower": min(spec, fallback.replicas),
        }[fallback.behavior]
        metric_m = threshold_m(trigger) * replicas
        if trigger.metric_type == "AverageValue":
            return metric_m
        if ready == 0:
            raise TriggerError
        return metric_m // ready

    def metric_m(self, index: int, spec: int, ready: int) -> int | None:
        """What the metrics server answers the HPA; None for an error."""
        trigger = self.triggers()[index]
        if trigger.use_cached_metrics and index in self.cached:
            return self.cached[index]
        try:
            value = self._live(trigger)
        except TriggerError:
            try:
                return self._fallback(index, trigger, spec, ready)
            except TriggerError:
                return None
        self.failures[index] = 0
        return external_milli(value)

    def poll(self, now_s: float, spec: int, ready: int) -> Poll:
        """One poll (3.5)."""
        active, error = not self.triggers(), False
        for index, trigger in enumerate(self.triggers()):
            try:
                value = self._live(trigger)
            except TriggerError:
                try:
                    self.cached[index] = self._fallback(index, trigger, spec, ready)
                    active = True
                except TriggerError:
                    self.cached[index] = None
                    error = True
                continue
            self.failures[index] = 0
            self.cached[index] = external_milli(value)
            active = active or value > activation(trigger)
        return Poll(now_s, spec, active, error, self._replicas(now_s, spec, active, error))

    def _replicas(self, now_s: float, spec: int, active: bool, error: bool) -> int:
        minimum, idle, fallback = self.policy.replicas.min, self.policy.idle_replicas, self.policy.fallback
        if active:
            if spec == 0 or (idle is not None and spec < minimum):
                self.last_active_s = now_s
                return max(minimum, 1)
            if not error:
                self.last_active_s = now_s
            return spec
        if error and (fallback is None or fallback.replicas != 0):
            return spec
        if (idle is not None and spec > idle) or (spec > 0 and minimum == 0):
            if self._is_cool(now_s):
                return idle if idle is not None else minimum
            return spec
        if idle is None and spec < minimum:
            return minimum
        return spec

    def _is_cool(self, now_s: float) -> bool:
        if self.last_active_s is None:
            return now_s > self.policy.initial_cooldown_s
        return now_s - self.last_active_s > self.policy.cooldown_s
