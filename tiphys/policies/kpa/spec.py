"""Knative's numbers: what policy files of kind `kpa` and `knative-hpa` say."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.service import Envelope
from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen
from tiphys.policies.common import AtLeastOne, ReplicaBounds, Replicas, WrittenPolicy
from tiphys.policies.hpa.spec import Windowed, asked_of_pods

UNLIMITED = -1.0
"""Target burst capacity of a service that keeps the activator in the path."""

Load = Annotated[float, Field(ge=0.01, le=1e12)]
"""Requests, or requests per second, of one pod."""
WindowSeconds = Annotated[int, Field(ge=6, le=3600)]
DelaySeconds = Annotated[int, Field(ge=0, le=3600)]
RetentionSeconds = Annotated[float, Field(ge=0, le=3600)]
DeadlineSeconds = Annotated[int, Field(ge=1, le=2**31 - 1)]
Utilization = Annotated[float, Field(ge=0.01, le=1)]
PanicWindow = Annotated[float, Field(ge=0.01, le=1)]
PanicThreshold = Annotated[float, Field(ge=1.1, le=10)]
BurstCapacity = Annotated[float, Field(ge=UNLIMITED, le=1e12)]
ContainerConcurrency = Annotated[int, Field(ge=0, le=1000)]


class KpaReplicas(ReplicaBounds):
    """min-scale and max-scale. Knative's max-scale 0 (none) is not taken: a pool has an envelope."""

    min: Replicas = 0
    max: AtLeastOne


class KpaPolicy(WrittenPolicy):
    """The autoscaling annotations (autoscaling.knative.dev/) of a serving.knative.dev/v1 Service, class kpa.

    `replicas.min` and `.max` are min-scale and max-scale, `metric` metric, `target` target, `target_utilization_ratio`
    target-utilization-percentage / 100, `window_s` window, `panic_window_ratio` panic-window-percentage / 100,
    `panic_threshold_ratio` panic-threshold-percentage / 100, `scale_down_delay_s` scale-down-delay, `activation_scale`
    activation-scale, `initial_scale` initial-scale, `target_burst_capacity` target-burst-capacity, `pod_retention_s`
    scale-to-zero-pod-retention-period, `aggregation` metric-aggregation-algorithm; `container_concurrency` is
    spec.containerConcurrency of the Revision, `progress_deadline_s` the annotation
    serving.knative.dev/progress-deadline. What is absent is the cluster's (ConfigMap config-autoscaler:
    `settings.knative`), which alone holds the scale rates, the grace period and whether there is scale to zero at all.
    Any change is a new Revision: new pods, a new cold start.
    """

    kind: Literal["kpa"] = "kpa"
    replicas: KpaReplicas
    metric: Literal["concurrency", "rps"] = "concurrency"
    target: Load | None = None
    """Load of one pod that is full; the autoscaler aims for `target_utilization_ratio` of it."""
    target_utilization_ratio: Utilization | None = None
    window_s: WindowSeconds | None = None
    panic_window_ratio: PanicWindow | None = None
    panic_threshold_ratio: PanicThreshold | None = None
    """Pods wanted over pods ready at which panic begins."""
    scale_down_delay_s: DelaySeconds | None = None
    container_concurrency: ContainerConcurrency = 0
    """Requests that queue-proxy lets into a pod at a time; the next one waits there. 0 is no limit."""
    activation_scale: AtLeastOne = 1
    """Least replicas while there is any load; 1 says nothing."""
    initial_scale: Replicas | None = None
    target_burst_capacity: BurstCapacity | None = None
    """Load that must find free room at once, or else the activator stays in the path; -1: it always does."""
    pod_retention_s: RetentionSeconds | None = None
    """The last pod stays at least so long after the service has gone idle."""
    aggregation: Literal["linear", "weighted-exponential"] = "linear"
    progress_deadline_s: DeadlineSeconds | None = None
    """A start that takes longer has failed; it must exceed the model's load time."""

    @model_validator(mode="after")
    def _as_the_webhook_checks(self) -> Self:
        capacity, activation = self.target_burst_capacity, self.activation_scale
        if capacity is not None and capacity < 0 and capacity != UNLIMITED:
            raise ValueError(f"target_burst_capacity {capacity:g} is neither -1 (unlimited) nor at least 0")
        if activation > 1 and not self.replicas.min <= activation <= self.replicas.max:
            bounds = f"replicas.min {self.replicas.min} and replicas.max {self.replicas.max}"
            raise ValueError(f"activation_scale {activation} does not lie between {bounds}")
        return self

    @property
    def bounds(self) -> ReplicaBounds:
        """Replicas between which this policy moves."""
        return self.replicas

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Nothing that a server exports: queue-proxy and activator count requests themselves."""
        return ()

    def within(self, envelope: Envelope) -> KpaPolicy:
        """The policy with its bounds, and the activation scale that must lie in them, clipped to an envelope."""
        replicas = self.replicas.within(envelope)
        activation = min(self.activation_scale, replicas.max)
        return self.with_(replicas=replicas, activation_scale=activation if activation >= replicas.min else 1)


class CpuMetric(Frozen):
    """metric cpu: a Resource metric of type Utilization."""

    source: Literal["cpu"]
    target: AtLeastOne
    """Percent of the requested CPU."""


class MemoryMetric(Frozen):
    """metric memory: a Resource metric of type AverageValue."""

    source: Literal["memory"]
    target: AtLeastOne
    """MiB of a pod. Whole, because Knative cuts off the fraction."""


class PodsMetric(Windowed):
    """Any other metric: a Pods metric of type AverageValue, one value of the signal for each pod."""

    source: Literal["pods"]
    target: AtLeastOne
    """In the signal's unit. Whole, because Knative cuts off the fraction: no share such as `kv_usage` can be meant."""

    @model_validator(mode="after")
    def _each_pod_has_the_signal(self) -> Self:
        asked_of_pods(self.signal)
        return self


class KnativeHpaPolicy(WrittenPolicy):
    """The autoscaling annotations of a serving.knative.dev/v1 Service, class hpa.autoscaling.knative.dev.

    Knative makes an HPA of them and leaves the scaling to it: no panic, no activator's share, and never to zero.
    `replicas` are min-scale (at least 1) and max-scale, `metric` metric and target, `window_s` window, which is the
    stabilization of both directions; where it is absent the HPA has no `behavior`. The other members are as in the
    class kpa, and any change is a new Revision too.
    """

    kind: Literal["knative-hpa"] = "knative-hpa"
    replicas: ReplicaBounds
    metric: Annotated[CpuMetric | MemoryMetric | PodsMetric, Field(discriminator="source")]
    window_s: WindowSeconds | None = None
    container_concurrency: ContainerConcurrency = 0
    initial_scale: Replicas | None = None
    progress_deadline_s: DeadlineSeconds | None = None

    @model_validator(mode="after")
    def _never_reaches_zero(self) -> Self:
        if self.replicas.min == 0:
            raise ValueError("the hpa class does not scale to zero: replicas.min is at least 1")
        return self

    @property
    def bounds(self) -> ReplicaBounds:
        """Replicas between which this policy moves."""
        return self.replicas

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What this policy looks at; nothing for cpu and memory."""
        return (self.metric.signal,) if isinstance(self.metric, PodsMetric) else ()
