"""The HPA's numbers: what a policy file of kind `hpa` says."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen
from tiphys.errors import nearest
from tiphys.policies.common import AtLeastOne, NotEmpty, ReplicaBounds, WrittenPolicy
from tiphys.policies.quantity import PositiveQuantity, Quantity

DEFAULT_WINDOW_S = 60
"""Window of a latency quantile where a policy or a foreign manifest names none: the 1m of the published rules."""

PeriodSeconds = Annotated[int, Field(ge=1, le=1800)]
WindowSeconds = Annotated[int, Field(ge=0, le=3600)]
RateWindowSeconds = Annotated[int, Field(ge=1, le=86400)]
SelectPolicy = Literal["Max", "Min", "Disabled"]


class RatePolicy(Frozen):
    """One limit on the speed of change: HPAScalingPolicy (`type`, `value`, `period_s` is periodSeconds, 1 to 1800)."""

    type: Literal["Pods", "Percent"]
    value: AtLeastOne
    """Pods, or percent of the replicas at the period's start."""
    period_s: PeriodSeconds


class ScalingRules(Frozen):
    """One direction of `behavior`: HPAScalingRules.

    `stabilization_s` is stabilizationWindowSeconds (0 to 3600), `select` selectPolicy, `policies` policies, `tolerance`
    tolerance (a share; in force since Kubernetes 1.35). What is absent takes the API's default: window 0 up and the
    controller's downscale stabilization down; Max; 4 pods and 100 % per 15 s up, 100 % per 15 s down; the controller's
    tolerance. A given list of policies replaces the default list as a whole.
    """

    stabilization_s: WindowSeconds | None = None
    select: SelectPolicy | None = None
    policies: Annotated[tuple[RatePolicy, ...], NotEmpty] | None = None
    tolerance: Quantity | None = None


class Behavior(Frozen):
    """HorizontalPodAutoscalerBehavior: `scale_up` is scaleUp, `scale_down` scaleDown.

    An empty one is not the same as none: with it the defaults of both directions apply, without it the controller's
    old growth limit of max(2 x replicas, 4) a pass and its downscale stabilization.
    """

    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


def _known_signal(value: Any) -> Any:
    if isinstance(value, str) and value not in list(Signal):
        hint = nearest(value, Signal)
        raise ValueError(f"unknown signal '{value}'{', ' + hint if hint else ''} (allowed: {', '.join(Signal)})")
    return value


class Windowed(Frozen):
    """Something that measures a signal, over `window_s` seconds where the signal is a latency quantile."""

    signal: Annotated[Signal, BeforeValidator(_known_signal)]
    window_s: RateWindowSeconds | None = None
    """Range of the rate under a latency quantile, seconds; 60 where absent. Levels are instant values and have none."""

    @model_validator(mode="before")
    @classmethod
    def _with_window(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("window_s") is None and _is_latency(data.get("signal")):
            return data | {"window_s": DEFAULT_WINDOW_S}
        return data

    @model_validator(mode="after")
    def _only_latencies_have_windows(self) -> Self:
        if not self.signal.has_window and self.window_s is not None:
            raise ValueError(f"window_s is for latencies and rates; {self.signal} is an instant value")
        return self


def _is_latency(signal: object) -> bool:
    return signal in list(Signal) and Signal(str(signal)).has_window


class HpaMetric(Windowed):
    """One MetricSpec of type Object, External or Pods.

    `source` object is a metric of the pool's Service (describedObject) by way of prometheus-adapter, external one of
    the external metrics API, pods one value per pod. `type` is target.type, `target` is target.value or
    target.averageValue (a quantity: seconds, requests, or a share 0..1). Levels are summed over pods under AverageValue
    and averaged under Value: Value multiplies the ratio by the ready pods and so wants what does not grow with them.
    """

    type: Literal["Value", "AverageValue"]
    source: Literal["object", "external", "pods"] = "object"
    target: PositiveQuantity

    @model_validator(mode="after")
    def _pods_are_averaged(self) -> Self:
        if self.source == "pods" and self.type != "AverageValue":
            raise ValueError("a metric of source pods has type AverageValue: autoscaling/v2 takes no other")
        return self


class HpaPolicy(WrittenPolicy):
    """HorizontalPodAutoscaler, autoscaling/v2.

    `replicas.min` and `.max` are minReplicas and maxReplicas, `metrics` metrics, `behavior` behavior; each class says
    the rest. Not for a pool that must reach zero: that needs the scale-to-zero feature of Kubernetes 1.37, or KEDA.
    """

    kind: Literal["hpa"] = "hpa"
    replicas: ReplicaBounds
    metrics: Annotated[tuple[HpaMetric, ...], NotEmpty]
    behavior: Behavior | None = None

    @model_validator(mode="after")
    def _zero_needs_a_metric_without_pods(self) -> Self:
        if self.replicas.min == 0 and all(metric.source == "pods" for metric in self.metrics):
            raise ValueError("min 0 needs a metric of source object or external: without pods there is no pods metric")
        return self

    @property
    def bounds(self) -> ReplicaBounds:
        """Replicas between which this policy moves."""
        return self.replicas

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What this policy looks at, in order."""
        return tuple(metric.signal for metric in self.metrics)
