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


def asked_of_pods(signal: Signal) -> Signal:
    """The signal, which each pod must have a value of. Raises ValueError for one that none has."""
    if signal is Signal.QUEUED:
        raise ValueError("queued is counted before the pods, so there is no value of each: give source external")
    return asked_of_prometheus(signal)


def asked_of_prometheus(signal: Signal) -> Signal:
    """The signal, which a query of Prometheus must give. Raises ValueError for one that is asked for elsewhere."""
    if signal is Signal.STREAM_LAG:
        raise ValueError("stream_lag is asked of NATS by a nats-jetstream trigger of kind keda, and by nothing else")
    if signal is Signal.CPU:
        raise ValueError("cpu is asked of metrics-server: an hpa has source resource for it, keda a trigger cpu")
    return signal


class HpaMetric(Windowed):
    """One MetricSpec of type Object, External, Pods or Resource.

    `source` object is a metric of the pool's Service (describedObject) by way of prometheus-adapter, external one of
    the external metrics API, pods one value per pod, resource the pods' CPU by way of metrics-server (signal cpu, and
    no other source has that). `type` is target.type, `target` is target.value, target.averageValue (a quantity:
    seconds, requests, requests a second, cores, or a share 0..1) or target.averageUtilization (percent of the requested
    CPU). Levels and rates are summed over pods under AverageValue and averaged under Value: Value multiplies the ratio
    by the ready pods and so wants what does not grow with them.
    """

    type: Literal["Value", "AverageValue", "Utilization"]
    source: Literal["object", "external", "pods", "resource"] = "object"
    target: PositiveQuantity

    @model_validator(mode="before")
    @classmethod
    def _cpu_is_a_resource(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("signal") == Signal.CPU and "source" not in data:
            return data | {"source": "resource"}
        return data

    @model_validator(mode="after")
    def _source_has_the_signal(self) -> Self:
        if (self.signal is Signal.CPU) != (self.source == "resource"):
            raise ValueError(f"source resource is for cpu and cpu for it alone; found {self.signal} from {self.source}")
        if self.source == "pods":
            asked_of_pods(self.signal)
        elif self.source != "resource":
            asked_of_prometheus(self.signal)
        return self

    @model_validator(mode="after")
    def _type_is_one_that_the_source_takes(self) -> Self:
        if self.source == "pods" and self.type != "AverageValue":
            raise ValueError("a metric of source pods has type AverageValue: autoscaling/v2 takes no other")
        if self.source == "resource" and self.type == "Value":
            raise ValueError("cpu has type Utilization (percent of the request) or AverageValue (cores)")
        if self.source != "resource" and self.type == "Utilization":
            raise ValueError(f"type Utilization is for cpu: {self.signal} has Value or AverageValue")
        if self.type == "Utilization" and self.target != int(self.target):
            raise ValueError("a utilization target is a whole percentage")
        check_ratio(self.signal, self.type, self.source)
        return self


def check_ratio(signal: Signal, target_type: str, source: str) -> None:
    """Raises ValueError for a ratio of the whole pool that would be divided by its replicas."""
    if signal is Signal.QUEUE_COMPUTE_RATIO and source != "pods" and target_type != "Value":
        raise ValueError("queue_compute_ratio is one number of the pool, not a sum over its replicas: give type Value")


class HpaPolicy(WrittenPolicy):
    """HorizontalPodAutoscaler, autoscaling/v2.

    `replicas.min` and `.max` are minReplicas and maxReplicas, `metrics` metrics, `behavior` behavior; each class says
    the rest. `replicas.min` 0 is taken by clusters with HPAScaleToZero (beta and on since Kubernetes 1.37) and
    needs a metric that is there without pods: in practice `queued`, as what pods export is gone with them.
    """

    kind: Literal["hpa"] = "hpa"
    replicas: ReplicaBounds
    metrics: Annotated[tuple[HpaMetric, ...], NotEmpty]
    behavior: Behavior | None = None

    @model_validator(mode="after")
    def _zero_needs_a_metric_without_pods(self) -> Self:
        if self.replicas.min == 0 and all(metric.source in ("pods", "resource") for metric in self.metrics):
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
