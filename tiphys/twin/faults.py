"""Faults as they happen (`tiphys.domain.faults` says what each means)."""

from __future__ import annotations

from enum import IntEnum

from tiphys.compiled import lean_jit
from tiphys.twin.engine import steps_until_after, stop_after
from tiphys.twin.fleet import crash, lose_pod, oldest_ready, remove_pod, scale_to
from tiphys.twin.nodes import leave, place_pending
from tiphys.twin.offline import ENDING, GONE, PLACED, tell
from tiphys.twin.state import (
    HERE,
    LEAVING,
    METRICS_ERRORS,
    NONE,
    OFFLINE_JOBS,
    PROMETHEUS_DOWN,
    Setting,
    World,
)


class Kind(IntEnum):
    """What a fault is, in the twin's numbers."""

    REPLICA_CRASH = 0
    NODE_GONE = 1
    SPOT_RECLAIM = 2
    SCRAPES_FAIL = 3
    METRICS_API_ERROR = 4
    PROMETHEUS_DOWN = 5
    CONSUMER_MISSING = 6
    STALE_LAG = 7
    COLD_START_NEVER_ENDS = 8
    SLOW_REPLICA = 9


(
    _CRASH, _NODE_GONE, _RECLAIM, _SCRAPES, _API, _PROMETHEUS, _CONSUMER, _STALE, _NO_START, _SLOW,
) = (int(kind) for kind in Kind)  # fmt: skip


@lean_jit
def fault_begins(world: World, setting: Setting, number: int, now_s: float) -> None:
    """A fault sets in."""
    fault = world.faults[number]
    kind = fault.kind
    if kind == _CRASH:
        crash_oldest(world, setting, fault.pool, fault.count, now_s)
    elif kind == _NODE_GONE:
        lose_node(world, setting, fault.node, now_s)
    elif kind == _RECLAIM:
        reclaim(world, setting, fault.node, fault.value, now_s)
    elif kind == _SLOW:
        fault.pod = oldest_ready(world, fault.pool, 0)
        change_speed(world, fault.pod, fault.value, now_s)
    else:
        change_state(world, number, 1)


@lean_jit
def fault_ends(world: World, setting: Setting, number: int, now_s: float) -> None:
    """A lasting fault is over; a reclaimed node goes."""
    fault = world.faults[number]
    if fault.kind == _RECLAIM:
        if world.nodes[fault.node].state == LEAVING:
            lose_node(world, setting, fault.node, now_s)
    elif fault.kind == _SLOW:
        change_speed(world, fault.pod, 1.0 / fault.value, now_s)
    else:
        change_state(world, number, -1)


@lean_jit
def change_state(world: World, number: int, change: int) -> None:
    """Count a fault in or out that is looked up where it acts."""
    fault = world.faults[number]
    kind = fault.kind
    if kind == _API:
        world.counters[METRICS_ERRORS] += change
    elif kind == _PROMETHEUS:
        world.counters[PROMETHEUS_DOWN] += change
    else:
        pool = world.pools[fault.pool]
        if kind == _SCRAPES:
            pool.scrapes_fail += change
        elif kind == _CONSUMER:
            pool.consumer_missing += change
        elif kind == _STALE:
            if change > 0 and pool.lag_stale == 0:
                pool.stale_lag = stream_lag(world, fault.pool)
            pool.lag_stale += change
        elif kind == _NO_START:
            pool.no_start += change


@lean_jit
def crash_oldest(world: World, setting: Setting, pool: int, count: int, now_s: float) -> None:
    """The containers of the oldest ready replicas die."""
    for _ in range(count):
        pod = oldest_ready(world, pool, 0)
        if pod == NONE:
            return
        crash(world, setting, pod, now_s)


@lean_jit
def change_speed(world: World, pod: int, factor: float, now_s: float) -> None:
    """Steps that begin from now on take so many times as long; the step under way does not change."""
    if pod == NONE or world.pods[pod].alive == 0:
        return
    record = world.pods[pod]
    record.slow = factor * record.slow if factor > 1.0 else 1.0
    if record.steps > 1:
        stop_after(world, pod, steps_until_after(world, pod, now_s))


@lean_jit
def lose_node(world: World, setting: Setting, node: int, now_s: float) -> None:
    """A node vanishes; what ran on it is created anew elsewhere."""
    if world.nodes[node].state != HERE and world.nodes[node].state != LEAVING:
        return
    world.nodes[node].state = LEAVING
    for place in range(world.counters[OFFLINE_JOBS]):
        job = world.offline[place]
        if job.node == node and (job.state == PLACED or job.state == ENDING):
            job.lost = 1 if job.state == PLACED else 0
            job.gone_s = now_s
            job.state = GONE
    for pool in range(world.pools.shape[0]):
        world.pools[pool].wanted_before = world.pools[pool].wanted
        for i in range(world.pools[pool].live):
            pod = world.live[pool, i]
            if world.pods[pod].alive == 1 and world.pods[pod].is_placed == 1 and world.pods[pod].node == node:
                lose_pod(world, setting, pod, now_s)
    leave(world, node)
    replace_lost(world, setting, now_s)
    place_pending(world, setting, now_s)


@lean_jit
def replace_lost(world: World, setting: Setting, now_s: float) -> None:
    """Every pool creates as many replicas as it had been wanting."""
    for pool in range(world.pools.shape[0]):
        scale_to(world, setting, pool, world.pools[pool].wanted_before, now_s)


@lean_jit
def reclaim(world: World, setting: Setting, node: int, notice_s: float, now_s: float) -> None:
    """A node is being taken back: its pods are drained within the notice and created anew elsewhere."""
    if world.nodes[node].state != HERE:
        return
    world.nodes[node].state = LEAVING
    for place in range(world.counters[OFFLINE_JOBS]):
        if world.offline[place].node == node and world.offline[place].state == PLACED:
            tell(world, place, min(setting.offline_grace_s, notice_s), now_s)
    for pool in range(world.pools.shape[0]):
        of = world.pools[pool]
        of.wanted_before = of.wanted
        for i in range(of.live):
            pod = world.live[pool, i]
            record = world.pods[pod]
            if record.alive == 1 and record.is_removed == 0 and record.is_placed == 1 and record.node == node:
                remove_pod(world, setting, pod, now_s, min(of.termination_grace_s, notice_s))
    replace_lost(world, setting, now_s)


@lean_jit
def stream_lag(world: World, pool: int) -> int:
    """Messages of a JetStream consumer that are pending, or delivered and not acknowledged."""
    of = world.pools[pool]
    lag = of.queued + of.redelivering
    for i in range(of.live):
        lag += world.pods[world.live[pool, i]].outstanding
    return int(lag)
