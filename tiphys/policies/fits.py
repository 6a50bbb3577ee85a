"""Which policies a pool can be governed by: what is impossible is refused, what is surprising is told.

A policy by itself is checked where it is read. Here it is checked against what holds the pool's requests, what its
servers export and what the cluster's controllers do.
"""

from __future__ import annotations

from collections.abc import Iterator

from tiphys.dialects import Dialect
from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.queues import JetStreamQueue, RouterQueue
from tiphys.domain.service import Pool, RouterKind
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy, NatsJetStreamTrigger, PrometheusTrigger
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.schedule.spec import SchedulePolicy

LOST_AT_ZERO = "nothing holds requests while there are no replicas: those that arrive then fail at once"
FLAT_MEMORY = "gpu_memory does not move with the load: the engine allocates its KV cache at the start"
PULLED = "replicas pull from the stream, so the router's kind does not act"


def check_fits(
    policy: ScalingPolicy,
    pool: Pool,
    settings: ClusterSettings,
    dialect: Dialect | None = None,
    pool_name: str = "",
    *,
    router: RouterKind | None = None,
    is_encoder: bool = False,
) -> tuple[str, ...]:
    """What the reader should know of a policy on a pool.

    `dialect` and `router` are the service's, `is_encoder` says that the pool only prefills; what is not given is not
    checked. Raises InputError, whose key is a place in the policy, for a policy that this pool cannot be governed by.
    """
    try:
        _check_queue(pool, router)
        _check_signals(policy, pool, dialect, is_encoder)
        if isinstance(policy, KpaPolicy | KnativeHpaPolicy):
            _check_knative(policy, pool)
        elif isinstance(policy, KedaPolicy):
            _check_streams(policy, pool)
            _check_keda_zero(policy)
        elif isinstance(policy, HpaPolicy):
            _check_hpa_zero(policy, settings)
    except InputError as error:
        of_pool = f" (pool {pool_name})" if pool_name else ""
        raise InputError(
            error.message + of_pool, where=error.where, key=error.key, found=error.found, allowed=error.allowed
        ) from None
    return tuple(_notices(policy, pool, router))


def _signals(policy: ScalingPolicy) -> Iterator[tuple[str, Signal]]:
    """The signals that a policy looks at, and where it says so."""
    if isinstance(policy, KedaPolicy):
        for index, signal in enumerate(policy.signals):
            yield f"triggers.{index}", signal
    elif isinstance(policy, HpaPolicy):
        for index, metric in enumerate(policy.metrics):
            yield f"metrics.{index}.signal", metric.signal
    elif isinstance(policy, KnativeHpaPolicy):
        for signal in policy.signals:
            yield "metric.signal", signal


def _check_queue(pool: Pool, router: RouterKind | None) -> None:
    if isinstance(pool.queue, RouterQueue) and router not in (None, "least_outstanding"):
        raise InputError(
            "a queue in the router hands each request to the replica with the fewest: another router has none",
            key="queue.kind",
            found=f"router, under {router}",
            allowed="router least_outstanding",
        )


def _check_signals(policy: ScalingPolicy, pool: Pool, dialect: Dialect | None, is_encoder: bool) -> None:
    for key, signal in _signals(policy):
        if is_encoder and signal.latency == "itl":
            message = "an encoder generates no tokens, so there are no gaps between them"
            raise InputError(message, key=key, found=str(signal), allowed="ttft, e2e or a level")
        if signal is Signal.QUEUED:
            _check_queued(pool, key)
        if dialect is not None and signal not in (Signal.CPU, Signal.STREAM_LAG):
            try:
                dialect.measure(signal)
            except InputError as error:
                raise error.at(error.where, key) from None


def _check_queued(pool: Pool, key: str) -> None:
    if pool.queue is None:
        message = "nothing before the replicas of this pool queues, so there is no such number"
        raise InputError(message, key=key, found="queued", allowed="a pool with queue interceptor or router")
    if isinstance(pool.queue, JetStreamQueue):
        message = "requests of this pool wait in a stream, which is no series of Prometheus"
        raise InputError(message, key=key, found="queued", allowed="a nats-jetstream trigger of kind keda")


def _check_knative(policy: KpaPolicy | KnativeHpaPolicy, pool: Pool) -> None:
    if pool.queue is not None:
        raise InputError(
            "a Knative service has its own activator and queue-proxy before its pods: nothing else can queue for it",
            key="kind",
            found=f"{policy.kind} on a pool with queue {pool.queue.kind}",
            allowed="a pool without queue, or kind hpa, keda, fixed",
        )


def _check_streams(policy: KedaPolicy, pool: Pool) -> None:
    for index, trigger in enumerate(policy.triggers):
        if not isinstance(trigger, NatsJetStreamTrigger):
            continue
        queue = pool.queue
        if not isinstance(queue, JetStreamQueue):
            raise InputError(
                "this pool is not fed by a JetStream, so there is no lag",
                key=f"triggers.{index}",
                found="no queue" if queue is None else f"queue {queue.kind}",
                allowed="a pool with queue jetstream",
            )
        for member in ("stream", "consumer"):
            named, wanted = getattr(trigger, member), getattr(queue, member)
            if named != wanted:
                message = f"this pool is fed by another {member}"
                raise InputError(message, key=f"triggers.{index}.{member}", found=named, allowed=wanted)


def _check_hpa_zero(policy: HpaPolicy, settings: ClusterSettings) -> None:
    if policy.replicas.min > 0:
        return
    if not settings.hpa.scale_to_zero:
        raise InputError(
            "this cluster's HPA does not scale to zero (HPAScaleToZero is off)",
            key="replicas.min",
            found=0,
            allowed="1 or more; 0 with settings.hpa.scale_to_zero",
        )
    # what the pods or their GPUs are asked for is gone with them: an HPA with no valid metric stays where it is
    if Signal.QUEUED not in policy.signals:
        raise _stuck(", ".join(policy.signals), "a metric on queued")


def _check_keda_zero(policy: KedaPolicy) -> None:
    if (policy.replicas.min if policy.idle_replicas is None else policy.idle_replicas) > 0:
        return
    awake = any(signal in (Signal.QUEUED, Signal.STREAM_LAG) for signal in policy.signals)
    if not awake and not _falls_back(policy):
        allowed = "a trigger on queued or nats-jetstream, or a fallback and ignore_null false"
        raise _stuck(", ".join(policy.signals), allowed)


def _falls_back(policy: KedaPolicy) -> bool:
    """True where the failing trigger of a pool without pods brings it back."""
    fallback = policy.fallback
    if fallback is None or fallback.replicas == 0 or fallback.behavior not in ("static", "currentReplicasIfHigher"):
        return False
    return any(isinstance(each, PrometheusTrigger) and not each.ignore_null for each in policy.triggers)


def _stuck(found: str, allowed: str) -> InputError:
    message = "without pods there is none of these, so the pool would never leave zero"
    return InputError(message, key="replicas.min", found=found, allowed=allowed)


def _notices(policy: ScalingPolicy, pool: Pool, router: RouterKind | None) -> Iterator[str]:
    if pool.queue is None and _reaches_zero(policy):
        yield LOST_AT_ZERO
    if any(signal is Signal.GPU_MEMORY for _, signal in _signals(policy)):
        yield FLAT_MEMORY
    if isinstance(pool.queue, JetStreamQueue) and router not in (None, "least_outstanding"):
        yield PULLED


def _reaches_zero(policy: ScalingPolicy) -> bool:
    if isinstance(policy, SchedulePolicy):
        return any(entry.replicas == 0 for entry in policy.times)
    if isinstance(policy, FixedPolicy):
        return policy.replicas == 0
    if isinstance(policy, KedaPolicy):
        return policy.replicas.min == 0 or policy.idle_replicas == 0
    return isinstance(policy, HpaPolicy) and policy.replicas.min == 0
