"""What putting a policy in force takes on a pool: nothing but a request to the API server, or new pods."""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.domain.platform import Policy, ScalingPolicy, Transition
from tiphys.domain.service import Pool
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy


def transition(before: Policy, after: Policy, pools: Mapping[str, Pool]) -> Transition:
    """What it takes to go from one policy to another.

    Knative keeps a policy in the annotations of the pod template: a change of it is a new Revision, whose pods start
    beside those that serve. Any other change takes nothing.
    """
    total = Transition()
    for name, pool in pools.items():
        if name in after and name in before and _is_new_revision(before[name], after[name]):
            total = joined(total, _revision(after[name], pool))
    return total


def joined(a: Transition, b: Transition) -> Transition:
    """Both, one beside the other: the longer time, all GPUs."""
    return Transition(
        seconds=max(a.seconds, b.seconds),
        gpu_seconds=a.gpu_seconds + b.gpu_seconds,
        surge_gpus=a.surge_gpus + b.surge_gpus,
        new_revision=a.new_revision or b.new_revision,
    )


def _is_new_revision(before: ScalingPolicy, after: ScalingPolicy) -> bool:
    knative = any(isinstance(each, KpaPolicy | KnativeHpaPolicy) for each in (before, after))
    return knative and before != after


def _revision(after: ScalingPolicy, pool: Pool) -> Transition:
    gpus = _first_pods(after, pool) * pool.gpus_per_replica
    seconds = pool.cold_start.median_s
    if pool.cold_start.parts is not None:
        parts = pool.cold_start.parts
        seconds = parts.pending_s(has_image=False) + parts.loading_s(is_warm=False)
    return Transition(seconds=seconds, gpu_seconds=gpus * seconds, surge_gpus=gpus, new_revision=True)


def _first_pods(after: ScalingPolicy, pool: Pool) -> int:
    """Pods that a new revision begins with."""
    if isinstance(after, KpaPolicy):
        return max(after.initial_scale if after.initial_scale is not None else 1, after.replicas.min)
    if isinstance(after, KnativeHpaPolicy):
        return max(after.replicas.min, 1)
    return pool.replicas.at_start
