"""Scaling policies: one control law a folder, each with its numbers, its manifests and its arithmetic.

A policy is read from a file, rendered to manifests, read back from manifests and obeyed by the twin: the same object.
To add a law: its file or folder here, one line in `any_policy.py`, and one in `manifests.py` for each way.
"""

from __future__ import annotations

from tiphys.policies.any_policy import AnyPolicy, ClosedPolicy, parse_policy
from tiphys.policies.common import ReplicaBounds
from tiphys.policies.differences import differences, distance
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import Behavior, HpaMetric, HpaPolicy, RatePolicy, ScalingRules
from tiphys.policies.keda.spec import (
    CpuTrigger,
    Fallback,
    KedaPolicy,
    KedaReplicas,
    NatsJetStreamTrigger,
    PrometheusTrigger,
    ScalingModifiers,
)
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy, KpaReplicas
from tiphys.policies.load import load_policy, policy_of
from tiphys.policies.manifests import import_manifests, render
from tiphys.policies.objects import PoolContext
from tiphys.policies.schedule.spec import ScheduledReplicas, SchedulePolicy
from tiphys.policies.space import Dimension, Inert, PolicySpace, closed
from tiphys.policies.within import check_bounds, clipped

__all__ = [
    "AnyPolicy",
    "Behavior",
    "ClosedPolicy",
    "CpuTrigger",
    "Dimension",
    "Fallback",
    "FixedPolicy",
    "HpaMetric",
    "HpaPolicy",
    "Inert",
    "KedaPolicy",
    "KedaReplicas",
    "KnativeHpaPolicy",
    "KpaPolicy",
    "KpaReplicas",
    "NatsJetStreamTrigger",
    "PolicySpace",
    "PoolContext",
    "PrometheusTrigger",
    "RatePolicy",
    "ReplicaBounds",
    "ScalingModifiers",
    "ScalingRules",
    "SchedulePolicy",
    "ScheduledReplicas",
    "check_bounds",
    "clipped",
    "closed",
    "differences",
    "distance",
    "import_manifests",
    "load_policy",
    "parse_policy",
    "policy_of",
    "render",
]
