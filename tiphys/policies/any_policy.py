"""The closed set of policies, and a policy from plain data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tiphys.domain.values import parse
from tiphys.errors import InputError, unknown_name
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.fleet import FleetPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.schedule.spec import SchedulePolicy

ClosedPolicy = HpaPolicy | KedaPolicy | KpaPolicy | KnativeHpaPolicy | SchedulePolicy | FixedPolicy | FleetPolicy
AnyPolicy = Annotated[ClosedPolicy, Field(discriminator="kind")]
KINDS: dict[str, type[ClosedPolicy]] = {
    "hpa": HpaPolicy,
    "keda": KedaPolicy,
    "kpa": KpaPolicy,
    "knative-hpa": KnativeHpaPolicy,
    "schedule": SchedulePolicy,
    "fixed": FixedPolicy,
    "fleet": FleetPolicy,
}


def parse_policy(document: object, where: str = "") -> ClosedPolicy:
    """The policy that a document states. Raises InputError with file and key."""
    return parse(policy_class(document, where), document, where)


def policy_class(document: object, where: str = "") -> type[ClosedPolicy]:
    """The member of the family that a document's `kind` names. Raises InputError that lists the kinds."""
    if not isinstance(document, dict):
        raise InputError("a policy is a mapping", where=where, found=document, allowed="kind: " + " | ".join(KINDS))
    kind = document.get("kind")
    if kind is None:
        raise InputError("is missing", where=where, key="kind", allowed=", ".join(KINDS))
    if not isinstance(kind, str):
        raise InputError("is not a name; it cannot be open", where=where, key="kind", allowed=", ".join(KINDS))
    if kind not in KINDS:
        raise unknown_name("kind of policy", kind, KINDS, where=where, key="kind")
    return KINDS[kind]
