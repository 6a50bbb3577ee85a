"""Replica bounds and a pool's envelope."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.service import Envelope
from tiphys.errors import InputError
from tiphys.policies.any_policy import ClosedPolicy
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy, KedaReplicas
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.quantity import parse_quantity
from tiphys.policies.schedule.spec import SchedulePolicy


def check_bounds(policy: ScalingPolicy, envelope: Envelope, where: str = "") -> None:
    """Raises InputError for a policy whose own replica bounds lie outside a pool's envelope."""
    if isinstance(policy, FixedPolicy):
        bounds = {"replicas": policy.replicas}
    elif isinstance(policy, HpaPolicy | KedaPolicy | KpaPolicy | KnativeHpaPolicy | SchedulePolicy):
        bounds = {"replicas.min": policy.replicas.min, "replicas.max": policy.replicas.max}
    else:
        return
    for key, value in bounds.items():
        if not envelope.min <= value <= envelope.max:
            raise InputError(
                "lies outside the pool's envelope",
                where=where,
                key=key,
                found=value,
                allowed=f"{envelope.min} to {envelope.max}",
            )


def clipped(policy: ScalingPolicy, envelope: Envelope) -> ScalingPolicy:
    """The policy with its replica bounds clipped to an envelope."""
    if isinstance(policy, FixedPolicy):
        return policy.with_(replicas=_clamp(policy.replicas, envelope))
    if isinstance(policy, SchedulePolicy):
        times = tuple(entry.with_(replicas=_clamp(entry.replicas, envelope)) for entry in policy.times)
        return policy.with_(replicas=policy.replicas.within(envelope), times=times)
    if isinstance(policy, KpaPolicy):
        return policy.within(envelope)
    if isinstance(policy, HpaPolicy | KedaPolicy | KnativeHpaPolicy):
        return policy.with_(replicas=policy.replicas.within(envelope))
    return policy


def clipped_document(document: Mapping[str, Any], kind: type[ClosedPolicy], envelope: Envelope) -> dict[str, Any]:
    """A space's document with its replica bounds, open or not, clipped to an envelope."""
    result = deepcopy(dict(document))
    replicas = result.setdefault("replicas", {})
    if isinstance(replicas, dict) and "choice" in replicas and kind is not FixedPolicy:
        replicas["choice"] = [_bounds(option, kind, envelope) for option in replicas["choice"]]
    elif kind is FixedPolicy:
        result["replicas"] = _open(replicas, envelope)
    else:
        result["replicas"] = _bounds(replicas, kind, envelope)
    if kind is KpaPolicy and "activation_scale" in result:
        result["activation_scale"] = _open(result["activation_scale"], envelope)
    if kind is SchedulePolicy:
        for entry in result["times"]:
            entry["replicas"] = _open(entry["replicas"], envelope)
    return result


def _bounds(replicas: dict[str, Any], kind: type[ClosedPolicy], envelope: Envelope) -> dict[str, Any]:
    defaults = KedaReplicas().model_dump() if kind is KedaPolicy else {"min": 0 if kind is KpaPolicy else 1}
    return {name: _open(value, envelope) for name, value in (defaults | replicas).items()}


def _open(value: Any, envelope: Envelope) -> Any:
    """A number, a range or a choice of numbers, clipped; a range that ends up outside becomes the nearest bound."""
    if isinstance(value, int):
        return _clamp(value, envelope)
    if isinstance(value, dict) and "choice" in value:
        return {"choice": list(dict.fromkeys(_clamp(option, envelope) for option in value["choice"]))}
    if isinstance(value, dict) and "between" in value:
        low, high = (int(parse_quantity(end)) for end in value["between"])
        inside = [n for n in range(low, high + 1, value.get("step") or 1) if envelope.min <= n <= envelope.max]
        if not inside:
            return _clamp(low, envelope)
        return inside[0] if len(inside) == 1 else value | {"between": [inside[0], inside[-1]]}
    return value


def _clamp(value: int, envelope: Envelope) -> int:
    return max(envelope.min, min(value, envelope.max))
