"""The twin and the second implementation on one world, and whether they saw the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracle.luck import shared_chances
from tests.oracle.pods import Pod
from tests.oracle.world import Account, PoolAccount, play
from tests.oracle.worlds import RandomWorld
from tiphys.domain.recording import PoolRecording, Recording
from tiphys.twin import Twin, TwinPool, TwinService
from tiphys.twin.decisions import HPA_PASS, KEDA_POLL, KPA_TICK

WITHIN_S = 1e-6
_64_BITS = 2**64 - 1
_NEVER = 1e17


def mixed(seed: int, index: int) -> int:
    """splitmix64's finaliser over (seed, index), as published."""
    z = (seed * 0x9E3779B97F4A7C15 + (index + 1) * 0xD1B54A32D192ED03) & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return z ^ (z >> 31)


def twin_of(world: RandomWorld, jump: bool = True) -> Twin:
    """The world's service as a twin under the world's policies."""
    pools = {
        name: TwinPool(
            pool.pool, pool.profile, pool.pool.admission or pool.admission, *(tuple(pool.bounds_s[latency])
            for latency in ("ttft", "itl", "e2e")), tier_profiles=pool.tier_profiles,
        )
        for name, pool in world.service.pools.items()
    }  # fmt: skip
    service = TwinService(pools, world.service.router, world.service.classes)
    return Twin(service, dict(world.policies), jump)


def oracle_of(world: RandomWorld) -> Account:
    """The second implementation's account under the twin's luck."""
    return play(world.service, world.policies, world.scenario, shared_chances(world, mixed))


def differences(recording: Recording, account: Account) -> list[str]:
    """What the two saw differently, the first of each sort; empty when they agree."""
    until_s = recording.end_s
    found = [_times("request", name, getattr(recording, name), [getattr(r, name) for r in account.requests], until_s)
             for name in ("first_token_s", "finish_s")]  # fmt: skip
    found.append(_same("failed", recording.failed.tolist(), [r.failed for r in account.requests]))
    for name, pool in recording.pools.items():
        theirs = account.pools[name]
        found += [f"{name}: {each}" for each in _pool(pool, theirs, until_s) if each]
    if recording.offline is not None:
        jobs = account.offline_jobs
        ours = recording.offline
        found += [
            _times("offline", name, getattr(ours, name), [getattr(job, name) for job in jobs], until_s)
            for name in ("began_s", "gone_s")
            if len(ours.began_s) or jobs
        ]
    found.append(_same("preemptions", [recording.preemptions], [account.preemptions]))
    return [each for each in found if each]


def _pool(ours: PoolRecording, theirs: PoolAccount, until_s: float) -> list[str]:
    found = []
    pods = [pod for pod in theirs.pods if pod.created_s <= until_s]
    created = ours.life.created_s <= until_s
    for name in ("created_s", "scheduled_s", "removed_s", "gone_s"):
        found.append(_times("pods", name, getattr(ours.life, name)[created], [getattr(p, name) for p in pods], until_s))
    found += _decisions(ours.decisions, theirs, until_s)
    if ours.jobs is not None:
        for name in ("arrival_s", "first_token_s", "finish_s"):
            jobs = sorted(theirs.jobs, key=_place)
            found.append(_times("jobs", name, getattr(ours.jobs, name), [getattr(j, name) for j in jobs], until_s))
    return found


def _place(job: Any) -> tuple[int, int]:
    return job.request.number, job.number


def _decisions(rows: NDArray[np.void], theirs: PoolAccount, until_s: float) -> list[str]:
    hpa = [(d.time_s, -1 if d.wish is None else d.wish, d.desired) for d in theirs.decisions if d.time_s <= until_s]
    polls = [(p.time_s, p.active, p.error, p.replicas) for p in theirs.polls if p.time_s <= until_s]
    ticks = [
        (t.time_s, t.ready, -1 if t.outcome.replicas is None else t.outcome.replicas, t.outcome.proxy)
        for t in theirs.ticks
        if t.time_s <= until_s
    ]
    return [
        _rows("HPA passes", rows, HPA_PASS, ("time_s", "wish", "desired"), hpa, until_s),
        _rows("KEDA polls", rows, KEDA_POLL, ("time_s", "active", "error", "desired"), polls, until_s),
        _rows("KPA ticks", rows, KPA_TICK, ("time_s", "ready", "written", "proxied"), ticks, until_s),
    ]


def _rows(
    what: str, rows: NDArray[np.void], loop: int, columns: Sequence[str], theirs: Sequence[Any], until_s: float
) -> str:
    mine = rows[(rows["loop"] == loop) & (rows["time_s"] <= until_s)]
    ours = [tuple(float(row[column]) for column in columns) for row in mine]
    if len(ours) != len(theirs):
        return f"{what}: {len(ours)} against {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if abs(a[0] - b[0]) > WITHIN_S or any(x != float(y) for x, y in zip(a[1:], b[1:], strict=True)):
            return f"{what}, number {number}: {a} against {b}"
    return ""


def _times(what: str, name: str, ours: Any, theirs: Sequence[float], until_s: float) -> str:
    """Equal within the tolerance; what happens after the end of the play is the same as never."""
    if len(ours) != len(theirs):
        return f"{what}.{name}: {len(ours)} against {len(theirs)}"
    a, b = (np.where(np.asarray(each) > until_s + WITHIN_S, _NEVER, np.asarray(each, float)) for each in (ours, theirs))
    wrong = np.flatnonzero(np.abs(a - b) > WITHIN_S)
    return f"{what}.{name}[{wrong[0]}]: {a[wrong[0]]} against {b[wrong[0]]}, {len(wrong)} in all" if len(wrong) else ""


def _same(what: str, ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    if len(ours) != len(theirs):
        return f"{what}: {len(ours)} against {len(theirs)}"
    wrong = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    return f"{what}[{wrong[0]}]: {ours[wrong[0]]} against {theirs[wrong[0]]}, {len(wrong)} in all" if wrong else ""


__all__ = ["Callable", "Pod", "differences", "mixed", "oracle_of", "twin_of"]
