"""Pods come and go: creation, placement, readiness, removal, draining, crashes."""

from __future__ import annotations

from typing import Any

from tiphys.compiled import lean_jit
from tiphys.twin.nodes import free_gpus, place_pending
from tiphys.twin.pods import list_ready, next_timer_s, settle
from tiphys.twin.requests import drop_all
from tiphys.twin.state import (
    FULL,
    FULL_OF_PODS,
    IDLE_S,
    NONE,
    PENDING_PODS,
    PODS_CREATED,
    Setting,
    World,
)
from tiphys.twin.tournament import set_key


@lean_jit
def create_pod(world: World, pool: int, now_s: float) -> int:
    """Add a pod that has no place yet: its number, or NONE when there is no room for another."""
    pod = world.counters[PODS_CREATED]
    if pod == world.pods.shape[0]:
        world.counters[FULL] = FULL_OF_PODS
        return NONE
    world.counters[PODS_CREATED] += 1
    world.counters[PENDING_PODS] += 1
    record, of = world.pods[pod], world.pools[pool]
    record.pool = pool
    record.number = of.created
    record.created_s = now_s
    record.transition_s = now_s
    record.alive = 1
    record.gpus = of.gpus
    record.engine = world.tier_engine[pool, 0]
    record.never_starts = 1 if of.no_start > 0 else 0
    of.created += 1
    of.wanted += 1
    world.live[pool, of.live] = pod
    of.live += 1
    return int(pod)


@lean_jit
def start_with(world: World, setting: Setting, pool: int, replicas: int) -> None:
    """The replicas that are ready when the play begins, as far as there is room for them."""
    for _ in range(replicas):
        pod = create_pod(world, pool, 0.0)
        if pod != NONE:
            world.pods[pod].is_first = 1
        if pod != NONE and not setting.has_nodes:
            settle(world, setting, pod, NONE, 0.0)
    if setting.has_nodes:
        place_pending(world, setting, 0.0)


@lean_jit
def scale_to(world: World, setting: Setting, pool: int, wish: int, now_s: float) -> None:
    """Create or remove pods until `wish` are wanted."""
    of = world.pools[pool]
    created = False
    while of.wanted < wish:
        pod = create_pod(world, pool, now_s)
        if pod == NONE:
            return
        created = True
        if not setting.has_nodes:
            settle(world, setting, pod, NONE, now_s)
    while of.wanted > wish:
        remove_pod(world, setting, victim(world, pool), now_s, of.termination_grace_s)
    if created and setting.has_nodes:
        place_pending(world, setting, now_s)


@lean_jit
def victim(world: World, pool: int) -> int:
    """The pod that a ReplicaSet would delete first: not ready before ready, then the most recent."""
    best, best_ready, best_since = NONE, 2, -IDLE_S
    for i in range(world.pools[pool].live):
        pod = world.live[pool, i]
        record = world.pods[pod]
        if record.alive == 0 or record.is_removed == 1:
            continue
        since = record.ready_s if record.is_ready == 1 else record.created_s
        if record.is_ready < best_ready or (record.is_ready == best_ready and since >= best_since):
            best, best_ready, best_since = pod, record.is_ready, since
    return best


@lean_jit
def remove_pod(world: World, setting: Setting, pod: int, now_s: float, grace_s: float) -> None:
    """Ask a pod to go: one that is not ready or holds nothing goes at once, any other drains."""
    record = world.pods[pod]
    record.is_removed = 1
    record.removed_s = now_s
    record.grace_end_s = now_s + grace_s
    world.pools[record.pool].wanted -= 1
    set_key(world.load_tree[record.pool], world.load_keys[record.pool], pod, IDLE_S)
    if record.is_ready == 0 or record.outstanding + record.holding == 0:
        let_go(world, setting, pod, now_s)
    else:
        set_key(world.timers_tree, world.timer_keys, pod, next_timer_s(record))
    list_ready(world, record.pool)


@lean_jit
def let_go(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod is gone; what it still held has failed, and its series go stale at the scrape that misses it."""
    record = world.pods[pod]
    record.restarts += 1
    drop_all(world, setting, pod, now_s)
    record.alive = 0
    record.gone_s = now_s
    if record.is_ready == 1 or record.is_stale_due == 1:
        # the marker of a target that is gone is written so late in case that it comes back
        record.is_stale_due = 1
        record.next_scrape_s += 1.1 * setting.scrape_interval_s
    record.is_ready = 0
    set_key(world.timers_tree, world.timer_keys, pod, next_timer_s(record))
    if record.is_placed == 0:
        world.counters[PENDING_PODS] -= 1
    elif setting.has_nodes:
        free_gpus(world, setting, pod, now_s)


@lean_jit
def lose_pod(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod is gone without having been asked to go."""
    record = world.pods[pod]
    if record.is_removed == 0:
        record.is_removed = 1
        record.removed_s = now_s
        world.pools[record.pool].wanted -= 1
        set_key(world.load_tree[record.pool], world.load_keys[record.pool], pod, IDLE_S)
    let_go(world, setting, pod, now_s)
    list_ready(world, record.pool)


@lean_jit
def crash(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod's container dies; it loads anew in place."""
    record, pool = world.pods[pod], world.pools[world.pods[pod].pool]
    record.restarts += 1
    drop_all(world, setting, pod, now_s)
    record.is_ready = 0
    record.transition_s = now_s
    record.is_stale_due = 1
    forget_counts(world, pod)
    again_s = world.cold_starts_s[record.pool, record.number]
    if pool.has_parts == 1:
        # the node has loaded the model before
        again_s *= pool.load_warm_s
    record.ready_s = now_s + again_s
    set_key(world.load_tree[record.pool], world.load_keys[record.pool], pod, IDLE_S)
    set_key(world.timers_tree, world.timer_keys, pod, next_timer_s(record))
    list_ready(world, record.pool)


@lean_jit
def forget_counts(world: World, pod: int) -> None:
    """The exporter of a restarted container counts from zero."""
    record = world.pods[pod]
    record.restarted_row = record.samples
    record.finished = 0
    record.ended = 0
    record.queue_s = 0.0
    record.compute_s = 0.0
    record.ttft_s = 0.0
    record.itl_s = 0.0
    record.e2e_s = 0.0
    world.histograms[pod, :] = 0


@lean_jit
def forget_gone(world: World, setting: Setting, pool: int, now_s: float) -> None:
    """Drop pods from the live list that no query can see any more."""
    count = 0
    of = world.pools[pool]
    for i in range(of.live):
        pod = world.live[pool, i]
        record = world.pods[pod]
        if record.alive == 1 or now_s - record.gone_s <= setting.retention_s:
            world.live[pool, count] = pod
            count += 1
    of.live = count


@lean_jit
def oldest_ready(world: World, pool: int, place: int) -> int:
    """The pod at a place among those that take jobs, in order of creation, or NONE."""
    return int(world.ready[pool, place]) if place < world.pools[pool].ready else NONE


@lean_jit
def is_lifecycle_due(record: Any, now_s: float) -> bool:
    """Whether the timer of a pod that is due is its readiness or the end of its grace, rather than a scrape."""
    if record.alive == 0:
        return False
    if record.is_ready == 0:
        return bool(record.ready_s <= now_s)
    return bool(record.is_removed == 1 and record.grace_end_s <= now_s)
