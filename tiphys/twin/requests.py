"""From one hop to the next: what follows a job's end or failure, and users who ask again."""

from __future__ import annotations

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.engine import kv_is_held, release_kv, silence
from tiphys.twin.events import HOP_BEGINS, LEVEL_BEGINS, USER_ASKS, push_event
from tiphys.twin.exporter import busy_until
from tiphys.twin.state import (
    ACTIVE_USERS,
    AHEAD,
    ASKED,
    DELAYED,
    ENDED,
    FULL,
    FULL_OF_REQUESTS,
    HORIZON,
    IDLE_S,
    JETSTREAM,
    KV_AWAY,
    KV_MOVING,
    LEVEL,
    NONE,
    UNFINISHED,
    Setting,
    World,
)

REDELIVERED = -1
"""Stands for a job's `before` while it waits to be delivered again."""


@lean_jit
def begin_request(world: World, request: int, now_s: float) -> None:
    """The hops where a request enters are on their way."""
    first = world.first_job[request]
    for job in range(first, first + world.hops_of[request]):
        entry = world.jobs[job]
        if entry.before == 0:
            entry.state = DELAYED
            push_event(world.events, world.counters, now_s + world.hops[entry.hop].delay_s, HOP_BEGINS, job)


@inlined_jit
def follow(world: World, setting: Setting, ended: int, now_s: float) -> None:
    """What follows the end of each job of a chain."""
    job = ended
    while job != NONE:
        behind = world.jobs[job].next
        job_ended(world, setting, job, now_s)
        job = behind


@inlined_jit
def job_ended(world: World, setting: Setting, job: int, now_s: float) -> None:
    """A job has ended, well or not: hops that waited for it begin, and a user whose request is through goes on."""
    entry = world.jobs[job]
    request = entry.request
    world.jobs_left[request] -= 1
    if world.request_failed[request] == 0:
        hop = world.hops[entry.hop]
        for i in range(hop.first_follower, hop.first_follower + hop.followers):
            after = job + world.followers[i]
            world.jobs[after].before -= 1
            if world.jobs[after].before == 0:
                world.jobs[after].state = DELAYED
                delay_s = world.hops[world.jobs[after].hop].delay_s
                push_event(world.events, world.counters, now_s + delay_s, HOP_BEGINS, after)
    if world.jobs_left[request] == 0 and world.user_of.shape[0] > 0:
        user_answered(world, setting, request, now_s)


@lean_jit
def fail_job(world: World, setting: Setting, job: int, now_s: float) -> None:
    """A job fails, and with it its request: no further hop of it begins."""
    entry = world.jobs[job]
    entry.failed = 1
    entry.state = ENDED
    world.counters[UNFINISHED] -= 1
    if setting.is_simple:
        return
    if (entry.kv == KV_AWAY or entry.kv == KV_MOVING) and kv_is_held(world, job):
        release_kv(world, job, now_s)
    call_off(world, entry.request)
    job_ended(world, setting, job, now_s)


@lean_jit
def call_off(world: World, request: int) -> None:
    """Hops of a failed request that have not begun never will."""
    world.request_failed[request] = 1
    first = world.first_job[request]
    for job in range(first, first + world.hops_of[request]):
        entry = world.jobs[job]
        if entry.state == AHEAD:
            entry.state = ENDED
            entry.failed = 1
            world.jobs_left[request] -= 1
            world.counters[UNFINISHED] -= 1


@lean_jit
def drop_all(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod loses all that it holds: jobs of a JetStream come back, others fail."""
    record = world.pods[pod]
    record.busy_s = busy_until(world, pod, now_s)
    if record.outstanding == 0 and record.holding == 0:
        silence(world, pod)
        return
    decoding, prefilling, landing, waiting = record.decoding, record.prefilling, record.landing, record.waiting
    prefill_head, land_head, wait_head = record.prefill_head, record.land_head, record.wait_head
    silence(world, pod)
    for place in range(decoding):
        drop(world, setting, world.finish_job[pod, place], now_s)
    drop_list(world, setting, prefill_head, prefilling, now_s)
    drop_list(world, setting, land_head, landing, now_s)
    drop_list(world, setting, wait_head, waiting, now_s)


@lean_jit
def drop_list(world: World, setting: Setting, head: int, count: int, now_s: float) -> None:
    """Drop every job of a list."""
    job = head
    for _ in range(count):
        behind = world.jobs[job].next
        drop(world, setting, job, now_s)
        job = behind


@lean_jit
def drop(world: World, setting: Setting, job: int, now_s: float) -> None:
    """One job is lost with its replica."""
    entry = world.jobs[job]
    pool = world.pools[world.hops[entry.hop].pool]
    if pool.queue != JETSTREAM:
        fail_job(world, setting, job, now_s)
        return
    entry.state = DELAYED
    entry.before = REDELIVERED
    entry.generated = 0
    entry.first_token_s = IDLE_S
    entry.admitted_s = IDLE_S
    pool.redelivering += 1
    push_event(world.events, world.counters, now_s + pool.ack_wait_s, HOP_BEGINS, job)


# --- closed loop


@lean_jit
def user_answered(world: World, setting: Setting, request: int, now_s: float) -> None:
    """A user's request is through: another one after some thought, or the user leaves."""
    user = world.user_of[request]
    entry = world.users[user]
    entry.left -= 1
    wait_s = world.think_s[request] + (setting.retry_s if world.request_failed[request] == 1 else 0.0)
    if (setting.requests_per_user > 0 and entry.left <= 0) or not is_wanted(world, user, now_s):
        user_leaves(world, setting, user, now_s)
    else:
        push_event(world.events, world.counters, now_s + wait_s, USER_ASKS, user)


@lean_jit
def is_wanted(world: World, user: int, now_s: float) -> bool:
    """Whether a user is one of the present level; nobody is behind the horizon."""
    return bool(now_s <= world.clocks[HORIZON] and user < world.level_users[world.counters[LEVEL]])


@lean_jit
def user_leaves(world: World, setting: Setting, user: int, now_s: float) -> None:
    """A user is done; where a level lasts until its last user is, the next one begins."""
    world.users[user].asking = 0
    world.counters[ACTIVE_USERS] -= 1
    if setting.requests_per_user > 0 and world.counters[ACTIVE_USERS] == 0:
        level = world.counters[LEVEL] + 1
        if level < world.levels_s.shape[0]:
            push_event(world.events, world.counters, now_s, LEVEL_BEGINS, level)
        else:
            world.clocks[HORIZON] = now_s


@lean_jit
def begin_level(world: World, setting: Setting, level: int, now_s: float) -> None:
    """The number of users changes: new ones start, evenly over the ramp."""
    before = world.level_users[level - 1] if level > 0 and setting.requests_per_user == 0 else 0
    world.counters[LEVEL] = level
    users = world.level_users[level]
    for user in range(before, users):
        if world.users[user].asking == 1:
            continue
        world.users[user].asking = 1
        world.users[user].left = setting.requests_per_user
        world.counters[ACTIVE_USERS] += 1
        start_s = now_s + setting.ramp_s * (user - before) / (users - before)
        push_event(world.events, world.counters, start_s, USER_ASKS, user)


@lean_jit
def user_asks(world: World, setting: Setting, user: int, now_s: float) -> None:
    """A user asks the next request of the trace, unless it is not wanted any more."""
    if not is_wanted(world, user, now_s):
        user_leaves(world, setting, user, now_s)
        return
    request = world.counters[ASKED]
    if request == setting.most_requests:
        if setting.draws_more:
            world.counters[FULL] = FULL_OF_REQUESTS
        else:
            user_leaves(world, setting, user, now_s)
        return
    world.counters[ASKED] = request + 1
    world.user_of[request] = user
    world.counters[UNFINISHED] += world.hops_of[request]
    begin_request(world, request, now_s)
