"""A job arrives at its pool: a replica takes it, or it waits, or it fails."""

from __future__ import annotations

from typing import Any

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.engine import (
    append_prefill,
    enqueue,
    finish,
    first_token,
    kv_is_held,
    landing_before,
    release_kv,
    unlink_landing,
    wake,
)
from tiphys.twin.events import EXPIRES, push_event
from tiphys.twin.faults import stream_lag
from tiphys.twin.fleet import let_go
from tiphys.twin.requests import REDELIVERED, fail_job, job_ended
from tiphys.twin.routing import least_loaded_below, route
from tiphys.twin.state import (
    ACTIVATOR,
    AT_POD,
    ENDED,
    IDLE_S,
    INTERCEPTOR,
    JETSTREAM,
    KV_HERE,
    KV_MOVING,
    NO_KV,
    NO_QUEUE,
    NONE,
    POKED,
    QUEUED,
    Setting,
    World,
)
from tiphys.twin.tournament import set_key


@inlined_jit
def arrive(world: World, setting: Setting, job: int, now_s: float) -> None:
    """A job is delivered to its pool; one that no replica could ever hold fails at once."""
    entry = world.jobs[job]
    number = world.hops[entry.hop].pool
    pool = world.pools[number]
    if entry.before == REDELIVERED:
        entry.before = 0
        pool.redelivering -= 1
    else:
        entry.arrival_s = now_s
    if entry.input_tokens + entry.output_tokens > pool.kv_capacity_tokens:
        fail_job(world, setting, job, now_s)
        return
    if setting.has_queues and pool.queue != NO_QUEUE:
        deliver_through_queue(world, setting, number, job, now_s)
        return
    pod = route(world, number, job)
    if pod == NONE:
        fail_job(world, setting, job, now_s)
        return
    enqueue(world, setting, pod, job, now_s)
    set_key(world.load_tree[number], world.load_keys[number], pod, world.load_keys[number, pod] + 1.0)


@lean_jit
def deliver_through_queue(world: World, setting: Setting, number: int, job: int, now_s: float) -> None:
    """A job is delivered to a pool that can hold jobs back."""
    pool = world.pools[number]
    passes = pool.queue == ACTIVATOR and pool.is_proxy == 0
    if pool.ready > 0 and (passes or (pool.queued == 0 and in_flight_limit(pool) == 0)):
        hand_over(world, setting, route(world, number, job), job, now_s)
        return
    was_idle = pool.queued == 0 and pool.ready == 0
    join_queue(world, number, job, now_s)
    if pool.ready > 0:
        drain_queue(world, setting, number, now_s)
    elif pool.queue == ACTIVATOR and was_idle:
        world.counters[POKED] = number + 1


@inlined_jit
def in_flight_limit(pool: Any) -> int:
    """Jobs that one replica may be given; 0: any number."""
    if pool.queue == ACTIVATOR:
        return pool.container_concurrency
    return pool.in_flight if pool.queue != INTERCEPTOR else 0


@lean_jit
def note_queued(world: World, number: int, now_s: float) -> None:
    """Keep the time integral of the queue's length, before the length changes."""
    pool = world.pools[number]
    pool.queued_load_s += pool.queued * (now_s - pool.queued_since_s)
    pool.queued_since_s = now_s


@lean_jit
def note_load(world: World, pod: int, now_s: float) -> None:
    """Keep the time integral of a pod's load, before the load changes."""
    record = world.pods[pod]
    record.load_s += record.outstanding * (now_s - record.load_since_s)
    record.load_since_s = now_s


@lean_jit
def join_queue(world: World, number: int, job: int, now_s: float) -> None:
    """A job waits in its pool's queue."""
    pool, entry = world.pools[number], world.jobs[job]
    note_queued(world, number, now_s)
    entry.next = NONE
    entry.state = QUEUED
    if pool.queue_head == NONE:
        pool.queue_head = job
    else:
        world.jobs[pool.queue_tail].next = job
    pool.queue_tail = job
    pool.queued += 1
    if pool.timeout_s != IDLE_S:
        push_event(world.events, world.counters, now_s + pool.timeout_s, EXPIRES, job)


@lean_jit
def expire(world: World, setting: Setting, job: int, now_s: float) -> None:
    """A job has waited too long, if it still waits. Its place in the queue is passed over later."""
    entry = world.jobs[job]
    if entry.state == QUEUED:
        number = world.hops[entry.hop].pool
        note_queued(world, number, now_s)
        world.pools[number].queued -= 1
        fail_job(world, setting, job, now_s)


@lean_jit
def drain_queue(world: World, setting: Setting, number: int, now_s: float) -> None:
    """Give waiting jobs to replicas, first in, first out, as far as these take them."""
    pool = world.pools[number]
    while pool.queue_head != NONE:
        job = pool.queue_head
        if world.jobs[job].state == QUEUED:
            limit = in_flight_limit(pool)
            if pool.queue == JETSTREAM and not delivers(world, number):
                return
            pod = route(world, number, job) if limit == 0 else least_loaded_below(world, number, limit)
            if pod == NONE:
                return
            note_queued(world, number, now_s)
            pool.queued -= 1
            pool.queue_head = world.jobs[job].next
            hand_over(world, setting, pod, job, now_s)
        else:
            pool.queue_head = world.jobs[job].next
    pool.queue_tail = NONE


@lean_jit
def delivers(world: World, number: int) -> bool:
    """Whether a JetStream consumer hands out another message now."""
    pool = world.pools[number]
    unacknowledged = stream_lag(world, number) - pool.queued
    return bool(pool.consumer_missing == 0 and unacknowledged < pool.max_ack_pending)


@lean_jit
def hand_over(world: World, setting: Setting, pod: int, job: int, now_s: float) -> None:
    """A replica is given a job."""
    number = world.pods[pod].pool
    if world.pools[number].is_knative == 1:
        note_load(world, pod, now_s)
    enqueue(world, setting, pod, job, now_s)
    set_key(world.load_tree[number], world.load_keys[number], pod, world.load_keys[number, pod] + 1.0)


# --- KV caches on their way


@lean_jit
def kv_arrives(world: World, setting: Setting, job: int, now_s: float) -> None:
    """The KV cache of a prompt has come over: its first token is out and it decodes from the next step on.

    Where the replica that held it has been lost meanwhile, the prompt is prefilled here.
    """
    entry = world.jobs[job]
    if entry.kv != KV_MOVING or entry.state != AT_POD:
        return
    pod = entry.pod
    record = world.pods[pod]
    if not kv_is_held(world, job):
        unlink_landing(record, world.jobs, landing_before(world, pod, job), job)
        entry.kv = NO_KV
        entry.prefill_left = entry.input_tokens
        append_prefill(world, pod, job)
        wake(world, setting, pod, now_s)
        return
    release_kv(world, job, now_s)
    first_token(world, setting, pod, job, now_s)
    entry.kv = KV_HERE
    if entry.output_tokens > 1:
        # the token that it begins with
        record.prompt_tokens += 1
        wake(world, setting, pod, now_s)
        return
    unlink_landing(record, world.jobs, landing_before(world, pod, job), job)
    record.prompt_tokens -= entry.input_tokens
    record.reserved_tokens -= entry.input_tokens + entry.output_tokens
    finish(world, setting, pod, job, now_s)
    job_ended(world, setting, job, now_s)
    if record.waiting > 0:
        wake(world, setting, pod, now_s)
    after_work(world, setting, pod, now_s)


@lean_jit
def after_work(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod holds fewer jobs: it goes if it drains and is empty, else others may take the place."""
    record = world.pods[pod]
    if record.is_removed == 1:
        if record.alive == 1 and record.outstanding + record.holding == 0:
            let_go(world, setting, pod, now_s)
        return
    number = record.pool
    set_key(world.load_tree[number], world.load_keys[number], pod, float(record.outstanding))
    if world.pools[number].queued > 0:
        drain_queue(world, setting, number, now_s)


@lean_jit
def wakes(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """KV that a replica held is free: what waits there may be admitted, and a replica that drains may go."""
    record = world.pods[pod]
    if record.alive == 0 or record.is_ready == 0:
        return
    if record.waiting > 0:
        wake(world, setting, pod, now_s)
    if record.is_removed == 1 and record.outstanding + record.holding == 0:
        let_go(world, setting, pod, now_s)


__all__ = ["ENDED", "after_work", "arrive", "drain_queue", "expire", "kv_arrives", "note_load", "wakes"]
