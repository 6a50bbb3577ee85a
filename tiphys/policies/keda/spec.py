"""KEDA's numbers: what a policy file of kind `keda` says."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen
from tiphys.errors import InputError
from tiphys.policies.common import AtLeastOne, NotEmpty, ReplicaBounds, Replicas, WrittenPolicy
from tiphys.policies.hpa.spec import Behavior, Windowed, asked_of_prometheus, check_ratio
from tiphys.policies.quantity import PositiveDecimal, PositiveQuantity

Text = Annotated[str, Field(min_length=1)]
WholeSeconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
NonNegative = Annotated[float, Field(ge=0)]
MetricType = Literal["AverageValue", "Value"]


class PrometheusTrigger(Windowed):
    """A trigger of type `prometheus`; its query is the signal's in the pool's dialect.

    `threshold` and `activation` are metadata.threshold and .activationThreshold (`activation_ratio` is the latter as a
    share of the threshold, so that a range of it is always valid), `ignore_null` is metadata.ignoreNullValues,
    `metric_type` metricType, `use_cached_metrics` useCachedMetrics, `name` name. KEDA's default type AverageValue
    divides by the replicas: a latency wants Value. With `ignore_null` (KEDA's default) an empty answer counts as 0 and
    scales in.
    """

    scaler: Literal["prometheus"]
    name: Text | None = None
    """How a formula calls this trigger."""
    threshold: PositiveDecimal
    """Target of the generated HPA, in the signal's unit (seconds, requests, share)."""
    activation: NonNegative | None = None
    """Active above this value, in the signal's unit; 0 where absent. Acts only at zero or idle replicas."""
    activation_ratio: NonNegative | None = None
    metric_type: MetricType = "AverageValue"
    use_cached_metrics: bool = False
    ignore_null: bool = True

    @model_validator(mode="after")
    def _prometheus_has_the_signal(self) -> Self:
        asked_of_prometheus(self.signal)
        check_ratio(self.signal, self.metric_type, "external")
        return self

    @model_validator(mode="after")
    def _one_activation(self) -> Self:
        if self.activation is not None and self.activation_ratio is not None:
            raise ValueError("activation and activation_ratio say the same thing: give one")
        return self

    @property
    def activation_value(self) -> float:
        """The trigger is active above this, in the signal's unit."""
        if self.activation_ratio is not None:
            return self.activation_ratio * self.threshold
        return self.activation or 0.0


class NatsJetStreamTrigger(Frozen):
    """A trigger of type `nats-jetstream`: messages of a consumer that are pending or not acknowledged.

    `endpoint` is metadata.natsServerMonitoringEndpoint, `use_https` useHttps, `account` account, `stream` stream,
    `consumer` consumer, `lag_threshold` lagThreshold, `activation` activationLagThreshold; the rest as in the
    prometheus trigger.
    """

    scaler: Literal["nats-jetstream"]
    name: Text | None = None
    endpoint: Text
    """host:port of the NATS monitoring server"""
    use_https: bool = False
    account: Text = "$G"
    stream: Text
    consumer: Text
    lag_threshold: AtLeastOne = 10
    """messages"""
    activation: Replicas = 0
    """messages"""
    metric_type: MetricType = "AverageValue"
    use_cached_metrics: bool = False


class CpuTrigger(Frozen):
    """A trigger of type `cpu`: `threshold` is metadata.value, `container` metadata.containerName.

    Under Utilization the threshold is percent of the requested CPU, under AverageValue cores per pod. It neither
    activates from zero nor can it be the only trigger of a pool that reaches zero.
    """

    scaler: Literal["cpu"]
    name: Text | None = None
    threshold: PositiveQuantity
    metric_type: Literal["Utilization", "AverageValue"] = "Utilization"
    container: Text | None = None

    @model_validator(mode="after")
    def _whole_percent(self) -> Self:
        if self.metric_type == "Utilization" and self.threshold != int(self.threshold):
            raise ValueError("a utilization threshold is a whole percentage")
        return self


def signal_of(trigger: PrometheusTrigger | NatsJetStreamTrigger | CpuTrigger) -> Signal:
    """What a trigger looks at."""
    if isinstance(trigger, PrometheusTrigger):
        return trigger.signal
    return Signal.CPU if isinstance(trigger, CpuTrigger) else Signal.STREAM_LAG


Trigger = Annotated[PrometheusTrigger | NatsJetStreamTrigger | CpuTrigger, Field(discriminator="scaler")]


class Fallback(Frozen):
    """What counts while a trigger fails: `failure_threshold` is failureThreshold, `replicas` and `behavior` the same.

    It takes more failures than the threshold, counted over the polls and the HPA's requests together.
    """

    failure_threshold: Replicas
    replicas: Replicas
    behavior: Literal[
        "static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"
    ] = "static"


class ScalingModifiers(Frozen):
    """One composite metric in place of the triggers': advanced.scalingModifiers.

    `activation_target` is activationTarget, `metric_type` metricType. A fallback needs a whole `target`: with a
    fraction KEDA silently does without.
    """

    formula: Text
    """An expression over the triggers' names: arithmetic, comparisons, `?:`, `??`, min, max, mean, sum, count."""
    target: PositiveDecimal
    activation_target: NonNegative | None = None
    metric_type: MetricType = "AverageValue"


class KedaReplicas(ReplicaBounds):
    """minReplicaCount and maxReplicaCount, with KEDA's defaults."""

    min: Replicas = 0
    max: AtLeastOne = 100


class KedaPolicy(WrittenPolicy):
    """ScaledObject, keda.sh/v1alpha1.

    `replicas.min` and `.max` are minReplicaCount and maxReplicaCount, `polling_interval_s` pollingInterval,
    `cooldown_s` cooldownPeriod, `initial_cooldown_s` initialCooldownPeriod, `idle_replicas` idleReplicaCount,
    `fallback` fallback, `behavior` advanced.horizontalPodAutoscalerConfig.behavior, `scaling_modifiers`
    advanced.scalingModifiers. The polling interval and the cooldown act only at zero or idle replicas; above them the
    generated HPA decides.
    """

    kind: Literal["keda"] = "keda"
    replicas: KedaReplicas = KedaReplicas()
    triggers: Annotated[tuple[Trigger, ...], NotEmpty]
    polling_interval_s: Annotated[int, Field(ge=1, le=2**31 - 1)] = 30
    cooldown_s: WholeSeconds = 300
    initial_cooldown_s: WholeSeconds = 0
    idle_replicas: Replicas | None = None
    fallback: Fallback | None = None
    scaling_modifiers: ScalingModifiers | None = None
    behavior: Behavior | None = None

    @model_validator(mode="after")
    def _as_the_webhook_checks(self) -> Self:
        if self.idle_replicas is not None and self.idle_replicas >= self.replicas.min:
            raise ValueError(f"idle_replicas {self.idle_replicas} must be below replicas.min {self.replicas.min}")
        only_cpu = all(trigger.scaler == "cpu" for trigger in self.triggers)
        if only_cpu and (self.replicas.min == 0 or self.idle_replicas is not None):
            raise ValueError("cpu triggers alone cannot bring a pool to zero: give another trigger, or replicas.min 1")
        if only_cpu and self.fallback is not None:
            raise ValueError("fallback is not for cpu triggers")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [trigger.name for trigger in self.triggers if trigger.name is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"two triggers have one name: {', '.join(sorted(names))}")
        if self.scaling_modifiers is not None and len(names) < len(self.triggers):
            raise ValueError("with scaling_modifiers every trigger has a name, by which the formula calls it")
        if self.scaling_modifiers is not None and not all(name.isidentifier() for name in names):
            raise ValueError(f"a formula cannot call triggers by these names: {', '.join(names)}")
        if (
            self.fallback is not None
            and self.fallback.behavior == "scalingModifiers"
            and self.scaling_modifiers is None
        ):
            raise ValueError("fallback.behavior scalingModifiers needs scaling_modifiers")
        return self

    @model_validator(mode="after")
    def _formula_can_be_read(self) -> Self:
        if self.scaling_modifiers is not None:
            # imported here because the compiler of formulas brings numba, which no other policy needs to be read
            from tiphys.policies.keda.formula import compile_formula

            names = [str(trigger.name) for trigger in self.triggers if trigger.scaler != "cpu"]
            try:
                compile_formula(self.scaling_modifiers.formula, names, key="scaling_modifiers.formula")
            except InputError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def bounds(self) -> ReplicaBounds:
        """Replicas between which this policy moves."""
        return self.replicas

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the triggers look at, in order."""
        return tuple(signal_of(trigger) for trigger in self.triggers)
