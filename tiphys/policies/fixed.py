"""A constant number of replicas: no autoscaler at all."""

from __future__ import annotations

from typing import Any, Literal

from tiphys.domain.signals import Signal
from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.policies.common import ReplicaBounds, Replicas, WrittenPolicy
from tiphys.policies.objects import Document, PoolContext


class FixedPolicy(WrittenPolicy):
    """`replicas` is the workload's spec.replicas. What a new service begins under, and the price of never scaling."""

    kind: Literal["fixed"] = "fixed"
    replicas: Replicas

    @property
    def bounds(self) -> ReplicaBounds:
        """The count, twice."""
        return ReplicaBounds(min=self.replicas, max=max(self.replicas, 1))

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Nothing: it does not look."""
        return ()


def render_fixed(policy: FixedPolicy, pool: PoolContext) -> list[Document]:
    """The part of the workload that holds its replicas, to be applied over it."""
    target = pool.target
    metadata = pool.metadata(target.name)
    return [
        {
            "apiVersion": target.api_version,
            "kind": target.kind,
            "metadata": metadata,
            "spec": {"replicas": policy.replicas},
        }
    ]


def read_scale(document: dict[str, Any], where: str = "") -> FixedPolicy:
    """The policy of a workload that no scaler governs: its spec.replicas."""
    try:
        return parse(FixedPolicy, {"kind": "fixed", "replicas": document["spec"]["replicas"]}, where)
    except InputError as error:
        raise error.at(where, "spec") from None
