"""What a revision aims for, from its annotations and the cluster's configuration (4.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

from tiphys.compiled import law_jit

_LEAST_AIM = 0.01
_SAMPLES = 15.3664
"""Pods that tell enough of an unbounded number of them (95 % confidence)."""
_ALL_SAMPLED = 3


class Target(NamedTuple):
    """Load of one pod: what it may have (`total`) and what the autoscaler aims for (`aim`)."""

    aim: float
    total: float


def resolve_target(
    is_rps: bool, target: float | None, container_concurrency: int, default: float, utilization_ratio: float
) -> Target:
    """The target of a revision; `default` is the cluster's for the metric, `container_concurrency` 0 is no limit.

    The container limit caps a concurrency and stands in for a missing one; for requests per second it plays no part.
    """
    limit = 0 if is_rps else container_concurrency
    total = default if limit == 0 else float(limit)
    if target is not None:
        total = target if limit == 0 else min(target, float(limit))
    return Target(max(_LEAST_AIM, total * utilization_ratio), total)


def panic_window_s(stable_window_s: int, percent: float) -> int:
    """The panic window, a percentage of the stable one, in whole seconds and at least one."""
    return max(math.floor(stable_window_s * percent / 100.0 + 0.5), 1)


def initial_scale(written: int | None, cluster: int, allow_zero: bool) -> int:
    """The replicas that a new revision starts with: 0 counts only where the cluster allows it."""
    if written is None or (written == 0 and not allow_zero):
        return cluster
    return written


@law_jit
def sampled_pods(ready_pods: int) -> int:
    """How many of so many ready pods the autoscaler asks each second (4.2)."""
    if ready_pods <= _ALL_SAMPLED:
        return max(ready_pods, 0)
    return math.ceil(ready_pods * _SAMPLES / (ready_pods + _SAMPLES - 1.0))
