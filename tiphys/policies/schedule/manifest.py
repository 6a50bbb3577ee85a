"""A schedule as a ScaledObject of cron triggers, and back.

What KEDA makes of them: a cron trigger is active from each `start` until the next `end`, and then asks for
`desiredReplicas`; at other times it is inactive and asks for 1 (its default, not 0). Several triggers take the
highest, as any metrics of an HPA do (AverageValue, target 1), between minReplicaCount and maxReplicaCount. A pool
goes to zero only while no trigger is active, after cooldownPeriod.

So each entry is one trigger that ends where the next one starts, and an entry of 0 is a gap. The generated HPA is told
not to wait and not to limit its steps; where a step is too small for its tolerance, it is told to tolerate nothing
(which a cluster before Kubernetes 1.35 does not honour). What stays different: the HPA acts at its next pass, and KEDA
goes to and from zero at its next poll.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.policies.keda.manifest import API_VERSION, KIND, ScaledObject, TriggerObject
from tiphys.policies.objects import Document, Manifest, PoolContext, policy_from, read_object
from tiphys.policies.schedule.spec import DAY_S, ScheduledReplicas, SchedulePolicy

CRON = "cron"
_TOLERANCE = 0.1
"""The controller's own, as a share."""
_POLLING_S, _PERIOD_S = 10, 15
_DAILY = re.compile(r"\s*([0-9]{1,2})\s+([0-9]{1,2})\s+\*\s+\*\s+\*\s*")


def render_schedule(policy: SchedulePolicy, pool: PoolContext) -> list[Document]:
    """The ScaledObject; its clock is UTC. Raises InputError, with the reason, for what cron cannot say."""
    _check_sayable(policy)
    spec: Document = {
        "scaleTargetRef": pool.target_ref(),
        "minReplicaCount": policy.replicas.min,
        "maxReplicaCount": policy.replicas.max,
        "pollingInterval": _POLLING_S,
        "cooldownPeriod": 0,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(policy)}},
        "triggers": _triggers(policy.times),
    }
    return [{"apiVersion": API_VERSION, "kind": KIND, "metadata": pool.metadata(), "spec": spec}]


def _check_sayable(policy: SchedulePolicy) -> None:
    if policy.period_s != DAY_S:
        found = "a plan that never repeats" if policy.period_s is None else policy.period_s
        raise InputError("cron repeats by the day", key="period_s", found=found, allowed=f"{DAY_S:g}")
    for place, entry in enumerate(policy.times):
        if entry.at_s % 60:
            raise InputError("cron counts whole minutes", key=f"times.{place}.at_s", found=entry.at_s)
    if len(policy.times) == 1:
        raise InputError("a schedule of one entry never changes: that is kind fixed", key="times")
    counts = [entry.replicas for entry in policy.times]
    if not any(counts):
        raise InputError("a schedule of zeros has no trigger: that is kind fixed", key="times")
    for place, (before, after) in enumerate(pairwise(counts), 1):
        if before == after == 0:
            raise InputError(
                "two entries of 0 in a row are one gap between triggers: leave one out", key=f"times.{place}"
            )
    if counts[0] == counts[-1] == 0:
        raise InputError(
            "the day ends and begins with 0, which is one gap between triggers: leave one out", key="times.0"
        )


def _behavior(policy: SchedulePolicy) -> Document:
    counts = [max(policy.bounded(entry.replicas), 1) for entry in policy.times]
    largest = max(abs(after - before) for before, after in pairwise([*counts, counts[0]]))
    held = any(
        before != after and abs(after / before - 1) <= _TOLERANCE for before, after in pairwise([*counts, counts[0]])
    )
    rules: Document = {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": max(largest, 1), "periodSeconds": _PERIOD_S}],
    }
    if held:
        rules["tolerance"] = "0"
    return {"scaleUp": rules, "scaleDown": {**rules, "policies": [dict(rules["policies"][0])]}}


def _triggers(times: Sequence[ScheduledReplicas]) -> list[Document]:
    ends = [entry.at_s for entry in (*times[1:], times[0])]
    return [
        {
            "type": CRON,
            "metadata": {
                "timezone": "Etc/UTC",
                "start": _cron(entry.at_s),
                "end": _cron(end_s),
                "desiredReplicas": str(entry.replicas),
            },
        }
        for entry, end_s in zip(times, ends, strict=True)
        if entry.replicas > 0
    ]


def _cron(at_s: float) -> str:
    hour, minute = divmod(int(at_s) // 60, 60)
    return f"{minute} {hour} * * *"


class CronMetadata(Manifest):
    """metadata of a cron trigger."""

    timezone: str
    start: str
    end: str
    desired_replicas: str


def is_schedule(document: Document) -> bool:
    """True for a ScaledObject all of whose triggers are of type cron."""
    spec = document.get("spec")
    triggers = spec.get("triggers") if isinstance(spec, dict) else None
    return isinstance(triggers, list) and bool(triggers) and all(_is_cron(trigger) for trigger in triggers)


def _is_cron(trigger: Any) -> bool:
    return isinstance(trigger, dict) and trigger.get("type") == CRON


def read_schedule(document: Document, where: str = "") -> SchedulePolicy:
    """The policy of a ScaledObject of cron triggers that share the day out among them, each by one daily time.

    The time zone is taken as the clock that the schedule goes by. How fast the HPA follows is no part of a schedule
    and is left out. Raises InputError for triggers that overlap, for other cron expressions, for several time zones.
    """
    spec = read_object(ScaledObject, document, where).spec
    if not spec.triggers:
        raise InputError("names no triggers", where=where, key="spec.triggers")
    windows = sorted(_window(trigger, where, f"spec.triggers.{place}") for place, trigger in enumerate(spec.triggers))
    zones = sorted({trigger.metadata.get("timezone", "") for trigger in spec.triggers})
    if len(zones) > 1:
        raise InputError("a schedule goes by one clock", where=where, key="spec.triggers", found=", ".join(zones))
    members = {
        "replicas": {"min": spec.min_replica_count, "max": spec.max_replica_count},
        "times": _times(windows, where),
    }
    return policy_from(SchedulePolicy, members, where)


def _window(trigger: TriggerObject, where: str, key: str) -> tuple[float, float, int]:
    """Start, end and replicas of a trigger."""
    place = f"{key}.metadata"
    try:
        metadata = parse(CronMetadata, trigger.metadata, where)
    except InputError as error:
        raise error.at(where, place) from None
    start_s, end_s = _daily_s(metadata.start, where, f"{place}.start"), _daily_s(metadata.end, where, f"{place}.end")
    if start_s == end_s:
        raise InputError("start and end are the same", where=where, key=f"{place}.end", found=metadata.end)
    if not metadata.desired_replicas.isdecimal() or int(metadata.desired_replicas) == 0:
        found = metadata.desired_replicas
        raise InputError("is not a number of replicas", where=where, key=f"{place}.desiredReplicas", found=found)
    return start_s, end_s, int(metadata.desired_replicas)


def _daily_s(text: str, where: str, key: str) -> float:
    match = _DAILY.fullmatch(text)
    if match is None or int(match[1]) > 59 or int(match[2]) > 23:
        allowed = "one time of every day, such as `30 6 * * *`"
        raise InputError("is no schedule by the time of day", where=where, key=key, found=text, allowed=allowed)
    return int(match[2]) * 3600.0 + int(match[1]) * 60.0


def _times(windows: Sequence[tuple[float, float, int]], where: str) -> list[Document]:
    """The entries of windows in order; a gap between two is an entry of 0, which the bounds raise to their minimum."""
    times: list[Document] = []
    for (start_s, end_s, replicas), (next_s, _, _) in pairwise([*windows, windows[0]]):
        times.append({"at_s": start_s, "replicas": replicas})
        if end_s == next_s:
            continue
        # everything is on a circle of one day
        if (end_s - start_s) % DAY_S > ((next_s - start_s) % DAY_S or DAY_S):
            message = "triggers overlap: a schedule has one count at a time"
            raise InputError(message, where=where, key="spec.triggers", found=f"two from {_cron(next_s)}")
        times.append({"at_s": end_s, "replicas": 0})
    return sorted(times, key=lambda entry: float(entry["at_s"]))
