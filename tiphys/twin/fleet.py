"""Pods come and go: creation, readiness, removal, draining, and which of them takes a request."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.engine import fail_all
from tiphys.twin.state import (
    IDLE_S,
    LAST_ROUTED,
    LIVE,
    NONE,
    PODS_CREATED,
    READY,
    WANTED,
    Fleet,
    Floats,
    Longs,
    Requests,
)
from tiphys.twin.tournament import set_key

LEAST_OUTSTANDING, ROUND_ROBIN, RANDOM, CONNECTION_RANDOM = range(4)


class PodRules(NamedTuple):
    """How this play's pods live."""

    cold_start_s: Floats
    """by creation number"""
    scrape_phase_s: Floats
    """by creation number, in [0, interval)"""
    scrape_interval_s: float
    pending_s: float
    termination_grace_s: float
    retention_s: float
    """how long the samples of a pod that is gone can still be seen"""
    router: int
    connections: Longs
    """the pod of each keep-alive connection, or NONE"""
    routing_seed: int


@lean_jit
def create_pod(fleet: Fleet, rules: PodRules, now_s: float, ready_now: bool) -> None:
    """Add a pod; it is ready after its cold start."""
    pod = fleet.counters[PODS_CREATED]
    fleet.counters[PODS_CREATED] += 1
    fleet.counters[WANTED] += 1
    record = fleet.pods[pod]
    record.created_s = now_s
    record.alive = 1
    record.ready_s = now_s if ready_now else now_s + rules.cold_start_s[pod]
    fleet.live[fleet.counters[LIVE]] = pod
    fleet.counters[LIVE] += 1
    if record.ready_s <= now_s:
        become_ready(fleet, rules, pod, now_s)
    else:
        set_key(fleet.timers_tree, fleet.timer_keys, pod, record.ready_s)


@lean_jit
def become_ready(fleet: Fleet, rules: PodRules, pod: int, now_s: float) -> None:
    """A pod begins to take requests and to be scraped."""
    record = fleet.pods[pod]
    record.is_ready = 1
    phase_s, interval_s = rules.scrape_phase_s[pod], rules.scrape_interval_s
    record.next_scrape_s = phase_s + interval_s * np.ceil((now_s - phase_s) / interval_s)
    set_key(fleet.load_tree, fleet.load_keys, pod, 0.0)
    set_key(fleet.timers_tree, fleet.timer_keys, pod, next_timer_s(fleet, rules, pod))
    list_ready(fleet)


@lean_jit
def next_timer_s(fleet: Fleet, rules: PodRules, pod: int) -> float:
    """When something next happens to a pod by the clock: readiness, the end of its grace, a scrape."""
    record = fleet.pods[pod]
    if record.alive == 0:
        return IDLE_S
    if record.is_ready == 0:
        return record.ready_s
    if record.is_removed == 1:
        return min(record.next_scrape_s, record.removed_s + rules.termination_grace_s)
    return record.next_scrape_s


@lean_jit
def list_ready(fleet: Fleet) -> None:
    """Write down anew which pods take requests."""
    count = 0
    for i in range(fleet.counters[LIVE]):
        record = fleet.pods[fleet.live[i]]
        if record.is_ready == 1 and record.is_removed == 0:
            fleet.ready[count] = fleet.live[i]
            count += 1
    fleet.counters[READY] = count


@lean_jit
def forget_gone(fleet: Fleet, rules: PodRules, now_s: float) -> None:
    """Drop pods from the live list that no query can see any more."""
    count = 0
    for i in range(fleet.counters[LIVE]):
        pod = fleet.live[i]
        record = fleet.pods[pod]
        if record.alive == 1 or now_s - record.gone_s <= rules.retention_s:
            fleet.live[count] = pod
            count += 1
    fleet.counters[LIVE] = count


@lean_jit
def scale_to(fleet: Fleet, requests: Requests, rules: PodRules, wish: int, now_s: float) -> bool:
    """Create or remove pods until `wish` are wanted; False when there is no place for another pod."""
    while fleet.counters[WANTED] < wish:
        if fleet.counters[PODS_CREATED] == fleet.pods.shape[0]:
            return False
        create_pod(fleet, rules, now_s, False)
    while fleet.counters[WANTED] > wish:
        remove_pod(fleet, requests, rules, victim(fleet), now_s)
    return True


@lean_jit
def victim(fleet: Fleet) -> int:
    """The pod that a ReplicaSet would delete first: not ready before ready, then the most recent."""
    best, best_ready, best_since = NONE, 2, -IDLE_S
    for i in range(fleet.counters[LIVE]):
        pod = fleet.live[i]
        record = fleet.pods[pod]
        if record.alive == 0 or record.is_removed == 1:
            continue
        since = record.ready_s if record.is_ready == 1 else record.created_s
        if record.is_ready < best_ready or (record.is_ready == best_ready and since >= best_since):
            best, best_ready, best_since = pod, record.is_ready, since
    return best


@lean_jit
def remove_pod(fleet: Fleet, requests: Requests, rules: PodRules, pod: int, now_s: float) -> None:
    """Ask a pod to go: one that is not ready or holds nothing goes at once, any other drains."""
    record = fleet.pods[pod]
    record.is_removed = 1
    record.removed_s = now_s
    fleet.counters[WANTED] -= 1
    set_key(fleet.load_tree, fleet.load_keys, pod, IDLE_S)
    if record.is_ready == 0 or record.waiting + record.prefilling + record.decoding == 0:
        let_go(fleet, requests, pod, now_s)
    else:
        set_key(fleet.timers_tree, fleet.timer_keys, pod, next_timer_s(fleet, rules, pod))
    list_ready(fleet)


@lean_jit
def let_go(fleet: Fleet, requests: Requests, pod: int, now_s: float) -> None:
    """A pod is gone; what it still held has failed, and its series go stale at the scrape that misses it."""
    record = fleet.pods[pod]
    fail_all(fleet, requests, pod)
    record.alive = 0
    record.gone_s = now_s
    record.stale_s = record.next_scrape_s
    set_key(fleet.timers_tree, fleet.timer_keys, pod, IDLE_S)


@inlined_jit
def route(fleet: Fleet, rules: PodRules, request: int) -> int:
    """The pod that takes a request, or NONE when none is ready."""
    count = fleet.counters[READY]
    if count == 0:
        return NONE
    if rules.router == LEAST_OUTSTANDING:
        return fleet.load_tree[1]
    if rules.router == ROUND_ROBIN:
        return next_round(fleet, count)
    draw = mixed(rules.routing_seed, request)
    if rules.router == RANDOM:
        return fleet.ready[draw % np.uint64(count)]
    connection = draw % np.uint64(rules.connections.shape[0])
    pod = rules.connections[connection]
    if pod == NONE or fleet.pods[pod].is_removed == 1:
        pod = fleet.ready[mixed(rules.routing_seed + 1, request) % np.uint64(count)]
        rules.connections[connection] = pod
    return pod


@lean_jit
def next_round(fleet: Fleet, count: int) -> int:
    """The ready pod after the one that was used last, in order of creation."""
    last = fleet.counters[LAST_ROUTED]
    pod = fleet.ready[0]
    for i in range(count):
        if fleet.ready[i] > last:
            pod = fleet.ready[i]
            break
    fleet.counters[LAST_ROUTED] = pod
    return pod


@lean_jit
def mixed(seed: int, index: int) -> np.uint64:
    """64 well mixed bits of (seed, index): splitmix64's finaliser."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(index + 1) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
