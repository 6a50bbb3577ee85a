"""The event loop: step ends, pod lifecycle, faults and nodes, deliveries, scrapes, controllers, in this order at one
instant.
"""

from __future__ import annotations

from typing import NamedTuple

from tiphys.compiled import inlined_jit, inner_jit, jit, lean_jit
from tiphys.policies.schedule.rules import ScheduleRules, next_change_s, replicas_at
from tiphys.twin.arena import Arena, compiled_unpacker
from tiphys.twin.control import hpa_pass, keda_poll, look_at_cpu
from tiphys.twin.decisions import SCHEDULED, Log, is_full, log_change
from tiphys.twin.delivery import after_work, arrive, drain_queue, expire, kv_arrives, note_load, wakes
from tiphys.twin.engine import begin_step, end_steps
from tiphys.twin.events import (
    DELIVERIES,
    EXPIRES,
    FAULT_BEGINS,
    FAULT_ENDS,
    HOP_BEGINS,
    KV_ARRIVES,
    LEVEL_BEGINS,
    NODE_EMPTY,
    NODE_READY,
    OFFLINE_GONE,
    USER_ASKS,
    WAKES,
    next_event_s,
    next_kind,
    next_number,
    pop_event,
)
from tiphys.twin.exporter import mark_stale, scrape
from tiphys.twin.faults import fault_begins, fault_ends
from tiphys.twin.fleet import forget_gone, is_lifecycle_due, let_go, scale_to, start_with
from tiphys.twin.knative import kpa_decides, kpa_poked, kpa_second
from tiphys.twin.metrics import evaluate_rule
from tiphys.twin.nodes import node_empty, node_ready, offline_gone
from tiphys.twin.offline import FleetRules, fleet_tick
from tiphys.twin.pods import become_ready, next_timer_s
from tiphys.twin.requests import begin_level, begin_request, follow, user_answered, user_asks
from tiphys.twin.state import (
    ARRIVED,
    DELAYED,
    ENDED,
    FULL,
    FULL_OF_DECISIONS,
    FULL_OF_NOTHING,
    HORIZON,
    IDLE_S,
    LAST_FINISH,
    NONE,
    POKED,
    PROMETHEUS_DOWN,
    RUNNING,
    UNFINISHED,
    Floats,
    Longs,
    Setting,
    World,
)
from tiphys.twin.tournament import set_key

ROUTER_SCRAPE, RULE, CPU_LOOK, KPA_SECOND, KPA_DECISION, KEDA, HPA, SCHEDULE, FLEET = range(9)
LOOPS = 9


class Ticks(NamedTuple):
    """When the controllers next act: one row a loop, one column a pool; inf where there is none."""

    next_s: Floats
    period_s: Floats
    first_s: Floats
    turns: Longs
    """taken so far"""


class Timetable(NamedTuple):
    """One pool's replicas by the clock."""

    rules: ScheduleRules
    starts_at_s: float
    next_change_s: Floats
    """[time of the next change on the timetable's own clock]"""
    log: Log


timetable_at = compiled_unpacker(Timetable)


@jit
def play(
    world: World,
    setting: Setting,
    ticks: Ticks,
    controls: Arena,
    autoscalers: Arena,
    timetables: Arena,
    fleet: FleetRules,
    fleet_memory_s: Floats,
    start_replicas: Longs,
    wanted_replicas: Longs,
) -> tuple[int, float]:
    """Play everything; the recording is what stands in the arguments afterwards.

    Returns (FULL_OF_NOTHING or which room ran out, the time at which the play ended).
    """
    for pool in range(world.pools.shape[0]):
        start_with(world, setting, pool, start_replicas[pool])
    for pool in range(world.pools.shape[0]):
        scale_to(world, setting, pool, wanted_replicas[pool], 0.0)
    while world.counters[FULL] == FULL_OF_NOTHING:
        loop, pool = next_tick(ticks)
        now_s = play_until(world, setting, ticks.next_s[loop, pool])
        if now_s == IDLE_S or world.counters[FULL] != FULL_OF_NOTHING:
            break
        if world.counters[POKED] > 0:
            poked = world.counters[POKED] - 1
            world.counters[POKED] = 0
            kpa_poked(world, setting, autoscalers, poked, now_s)
            continue
        wind(ticks, loop, pool, now_s)
        act(world, setting, ticks, controls, autoscalers, timetables, fleet, fleet_memory_s, loop, pool, now_s)
    if world.counters[UNFINISHED] > 0:
        return world.counters[FULL], setting.latest_s
    return world.counters[FULL], max(world.clocks[HORIZON], world.clocks[LAST_FINISH])


@lean_jit
def wind(ticks: Ticks, loop: int, pool: int, now_s: float) -> None:
    """When it is a loop's turn again: a fixed time after this turn for KEDA and the HPA, else by the clock."""
    ticks.turns[loop, pool] += 1
    if loop in (KEDA, HPA):
        ticks.next_s[loop, pool] = now_s + ticks.period_s[loop, pool]
    else:
        ticks.next_s[loop, pool] = ticks.first_s[loop, pool] + ticks.turns[loop, pool] * ticks.period_s[loop, pool]


@lean_jit
def next_tick(ticks: Ticks) -> tuple[int, int]:
    """The loop and the pool whose turn it is next."""
    best_loop, best_pool = 0, 0
    for loop in range(ticks.next_s.shape[0]):
        for pool in range(ticks.next_s.shape[1]):
            if ticks.next_s[loop, pool] < ticks.next_s[best_loop, best_pool]:
                best_loop, best_pool = loop, pool
    return best_loop, best_pool


@inner_jit
def act(
    world: World,
    setting: Setting,
    ticks: Ticks,
    controls: Arena,
    autoscalers: Arena,
    timetables: Arena,
    fleet: FleetRules,
    fleet_memory_s: Floats,
    loop: int,
    pool: int,
    now_s: float,
) -> None:
    """One controller's turn."""
    if loop == KPA_SECOND:
        kpa_second(world, autoscalers, pool, now_s)
    elif loop == KPA_DECISION:
        forget_gone(world, setting, pool, now_s)
        kpa_decides(world, setting, autoscalers, pool, now_s)
    elif loop == HPA:
        forget_gone(world, setting, pool, now_s)
        hpa_pass(world, setting, controls, pool, now_s)
    elif loop == KEDA:
        forget_gone(world, setting, pool, now_s)
        keda_poll(world, setting, controls, pool, now_s)
    elif loop == ROUTER_SCRAPE:
        scrape_router(world, pool, now_s)
    elif loop == RULE:
        evaluate_rule(world, pool, now_s)
    elif loop == CPU_LOOK:
        look_at_cpu(world, setting, controls, pool, now_s)
    elif loop == SCHEDULE:
        follow_timetable(world, setting, ticks, timetables, pool, now_s)
    elif loop == FLEET:
        fleet_tick(world, fleet, fleet_memory_s, now_s)


@lean_jit
def follow_timetable(world: World, setting: Setting, ticks: Ticks, timetables: Arena, pool: int, now_s: float) -> None:
    """The replicas of the present time of day."""
    timetable = timetable_at(timetables, pool)
    if is_full(timetable.log):
        world.counters[FULL] = FULL_OF_DECISIONS
        return
    clock_s = timetable.next_change_s[0]
    replicas = replicas_at(timetable.rules, clock_s)
    log_change(timetable.log, now_s, SCHEDULED, world.pools[pool].wanted, replicas)
    scale_to(world, setting, pool, replicas, now_s)
    timetable.next_change_s[0] = next_change_s(timetable.rules, clock_s)
    ticks.next_s[SCHEDULE, pool] = timetable.next_change_s[0] - timetable.starts_at_s


@lean_jit
def scrape_router(world: World, pool: int, now_s: float) -> None:
    """Store what the router shows of the pool's queue."""
    if world.counters[PROMETHEUS_DOWN] > 0:
        return
    of, row = world.pools[pool], world.pods.shape[0] + pool
    place = of.router_samples % world.sample_ms.shape[1]
    of.router_samples += 1
    world.sample_ms[row, place] = int(now_s * 1000.0 + 1e-6)
    world.samples[row, place, RUNNING] = of.queued


@lean_jit
def play_until(world: World, setting: Setting, tick_s: float) -> float:
    """Play up to a controller's turn: its time, or inf when the play is over before."""
    arrivals = world.trace_s.shape[0]
    request = world.counters[ARRIVED]
    while True:
        step_s = world.step_keys[world.steps_tree[1]]
        arrival_s = world.trace_s[request] if request < arrivals else IDLE_S
        timer_s = world.timer_keys[world.timers_tree[1]]
        event_s = next_event_s(world.events, world.counters)
        now_s = min(min(min(step_s, arrival_s), min(timer_s, tick_s)), event_s)
        if now_s > setting.latest_s or (now_s > world.clocks[HORIZON] and world.counters[UNFINISHED] == 0):
            return IDLE_S
        if step_s == now_s:
            end_of_steps(world, setting, world.steps_tree[1], now_s)
            continue
        job = NONE
        if timer_s == now_s and (arrival_s > now_s and event_s > now_s):
            on_timer(world, setting, world.timers_tree[1], now_s)
        elif timer_s == now_s and lifecycle_due(world, now_s) != NONE:
            on_timer(world, setting, lifecycle_due(world, now_s), now_s)
        elif arrival_s == now_s and (event_s > now_s or next_kind(world.events) >= DELIVERIES):
            if setting.is_simple:
                job = request
            else:
                begin_request(world, request, now_s)
            request += 1
            world.counters[ARRIVED] = request
        elif event_s == now_s:
            kind, number = next_kind(world.events), next_number(world.events)
            pop_event(world.events, world.counters)
            if kind == HOP_BEGINS:
                job = hop_begins(world, setting, number, now_s)
            else:
                happen(world, setting, kind, number, now_s)
                if world.counters[FULL] != FULL_OF_NOTHING:
                    return now_s
        else:
            return now_s
        if job != NONE:
            arrive(world, setting, job, now_s)
            if world.counters[POKED] > 0:
                return now_s


@inlined_jit
def hop_begins(world: World, setting: Setting, job: int, now_s: float) -> int:
    """The job that is delivered now, or NONE where its request has failed meanwhile."""
    if world.request_failed.shape[0] > 0 and world.request_failed[world.jobs[job].request] == 1:
        return called_off(world, setting, job, now_s)
    return job


@lean_jit
def called_off(world: World, setting: Setting, job: int, now_s: float) -> int:
    """A job whose request has failed while it was on its way."""
    entry = world.jobs[job]
    if entry.state == DELAYED:
        entry.state = ENDED
        entry.failed = 1
        world.jobs_left[entry.request] -= 1
        world.counters[UNFINISHED] -= 1
        if world.jobs_left[entry.request] == 0 and world.user_of.shape[0] > 0:
            user_answered(world, setting, entry.request, now_s)
    return NONE


@lean_jit
def happen(world: World, setting: Setting, kind: int, number: int, now_s: float) -> None:
    """Any event that does not deliver a job to a pool."""
    if kind == KV_ARRIVES:
        kv_arrives(world, setting, number, now_s)
    elif kind == WAKES:
        wakes(world, setting, number, now_s)
    elif kind == EXPIRES:
        expire(world, setting, number, now_s)
    elif kind == USER_ASKS:
        user_asks(world, setting, number, now_s)
    elif kind == LEVEL_BEGINS:
        begin_level(world, setting, number, now_s)
    elif kind == FAULT_BEGINS:
        fault_begins(world, setting, number, now_s)
    elif kind == FAULT_ENDS:
        fault_ends(world, setting, number, now_s)
    elif kind == NODE_READY:
        node_ready(world, setting, number, now_s)
    elif kind == NODE_EMPTY:
        node_empty(world, setting, number, now_s)
    elif kind == OFFLINE_GONE:
        offline_gone(world, setting, number, now_s)
    serve_queues(world, setting, now_s)


@lean_jit
def serve_queues(world: World, setting: Setting, now_s: float) -> None:
    """Jobs that wait are given to replicas that an event has made ready or emptied."""
    for pool in range(world.pools.shape[0]):
        if world.pools[pool].queued > 0 and world.pools[pool].ready > 0:
            drain_queue(world, setting, pool, now_s)


@inlined_jit
def end_of_steps(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod's step (or run of steps) is over: account for it and begin the next, or go when drained."""
    record = world.pods[pod]
    if setting.has_queues and world.pools[record.pool].is_knative == 1:
        note_load(world, pod, now_s)
    ended = end_steps(world, setting, pod, now_s)
    begin_step(world, setting, pod, now_s)
    if record.is_removed == 1:
        if record.outstanding + record.holding == 0:
            let_go(world, setting, pod, now_s)
    else:
        set_key(world.load_tree[record.pool], world.load_keys[record.pool], pod, float(record.outstanding))
    if ended != NONE:
        follow(world, setting, ended, now_s)
    if setting.has_queues and world.pools[record.pool].queued > 0:
        drain_queue(world, setting, record.pool, now_s)


@lean_jit
def lifecycle_due(world: World, now_s: float) -> int:
    """A pod that becomes ready or loses patience at this very instant, or NONE."""
    for pool in range(world.pools.shape[0]):
        for i in range(world.pools[pool].live):
            pod = world.live[pool, i]
            if world.timer_keys[pod] == now_s and is_lifecycle_due(world.pods[pod], now_s):
                return int(pod)
    return NONE


@lean_jit
def on_timer(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod becomes ready, loses patience, or is scraped."""
    record = world.pods[pod]
    if is_lifecycle_due(record, now_s):
        if record.is_ready == 0:
            become_ready(world, setting, pod, now_s)
            if world.pools[record.pool].queued > 0:
                drain_queue(world, setting, record.pool, now_s)
        else:
            let_go(world, setting, pod, now_s)
        return
    be_scraped(world, setting, pod, now_s)
    set_key(world.timers_tree, world.timer_keys, pod, next_timer_s(record))


@lean_jit
def be_scraped(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A scrape of a pod is due: it succeeds, fails, or does not take place."""
    record = world.pods[pod]
    due_s = record.next_scrape_s
    record.next_scrape_s = due_s + setting.scrape_interval_s
    if world.counters[PROMETHEUS_DOWN] > 0:
        if record.alive == 0:
            # a target that is dropped meanwhile is forgotten
            record.is_stale_due = 0
        return
    if record.is_stale_due == 1 or world.pools[record.pool].scrapes_fail > 0:
        mark_stale(world, pod, now_s)
        record.is_stale_due = 0
    else:
        scrape(world, setting, pod, now_s)


__all__ = ["Ticks", "Timetable", "after_work", "play"]
