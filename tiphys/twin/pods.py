"""One pod's way from its node to readiness, and when the clock next has something for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiphys.compiled import lean_jit
from tiphys.twin.state import IDLE_S, NONE, PENDING_PODS, Setting, World
from tiphys.twin.tournament import set_key


@lean_jit
def settle(world: World, setting: Setting, pod: int, node: int, now_s: float) -> None:
    """A pod has a place (a node, or NONE where nodes do not matter): its cold start begins.

    The first replicas of a play that find one at once are ready.
    """
    record = world.pods[pod]
    pool = world.pools[record.pool]
    world.counters[PENDING_PODS] -= 1
    record.is_placed = 1
    record.node = node
    record.scheduled_s = now_s
    cold_s = world.cold_starts_s[record.pool, record.number]
    pending_s = min(pool.pending_s, cold_s)
    if pool.has_parts == 1:
        factor = cold_s
        has_image = node != NONE and world.has_image[node, record.pool] == 1
        is_warm = setting.warm_cache or (node != NONE and world.has_loaded[node, record.pool] == 1)
        pull_s = 0.0 if has_image else pool.image_pull_s
        pending_s = factor * pull_s
        cold_s = factor * (pull_s + (pool.load_warm_s if is_warm else pool.load_cold_s))
    if node != NONE:
        world.has_image[node, record.pool] = 1
    ready_now = record.is_first == 1 and now_s == 0.0
    record.running_s = now_s if ready_now else now_s + pending_s
    record.ready_s = now_s if ready_now else now_s + cold_s
    if record.never_starts == 1:
        record.ready_s = IDLE_S
    if record.ready_s <= now_s:
        become_ready(world, setting, pod, now_s)
    else:
        set_key(world.timers_tree, world.timer_keys, pod, record.ready_s)


@lean_jit
def become_ready(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod begins to take jobs and to be scraped."""
    record = world.pods[pod]
    record.is_ready = 1
    record.transition_s = now_s
    record.is_stale_due = 0
    if record.node != NONE:
        world.has_loaded[record.node, record.pool] = 1
    phase_s, interval_s = world.scrape_phases_s[record.pool, record.number], setting.scrape_interval_s
    record.next_scrape_s = phase_s + interval_s * np.ceil((now_s - phase_s) / interval_s)
    record.scraped_s = now_s
    record.scraped_busy_s = record.busy_s
    record.load_since_s = now_s
    set_key(world.load_tree[record.pool], world.load_keys[record.pool], pod, 0.0)
    set_key(world.timers_tree, world.timer_keys, pod, next_timer_s(record))
    list_ready(world, record.pool)


@lean_jit
def next_timer_s(record: Any) -> float:
    """When something next happens to a pod by the clock: readiness, the end of its grace, a scrape."""
    scrape_s = record.next_scrape_s if record.is_stale_due == 1 or record.is_ready == 1 else IDLE_S
    if record.alive == 0:
        return scrape_s
    if record.is_ready == 0:
        return min(record.ready_s, scrape_s)
    if record.is_removed == 1:
        return min(scrape_s, record.grace_end_s)
    return scrape_s


@lean_jit
def list_ready(world: World, pool: int) -> None:
    """Write down anew which pods take jobs."""
    count = 0
    of = world.pools[pool]
    for i in range(of.live):
        pod = world.live[pool, i]
        record = world.pods[pod]
        if record.is_ready == 1 and record.is_removed == 0:
            world.ready[pool, count] = pod
            count += 1
    of.ready = count
