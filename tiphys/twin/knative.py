"""Knative in the loop: what queue-proxies and activators report each second, the ticks, the request path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiphys.compiled import lean_jit
from tiphys.policies.kpa.loop import KpaState, kpa_is_idle, kpa_record, kpa_tick
from tiphys.policies.kpa.rules import KpaRules
from tiphys.policies.kpa.target import sampled_pods
from tiphys.twin.arena import Arena, compiled_unpacker
from tiphys.twin.decisions import Log, is_full, log_kpa
from tiphys.twin.delivery import drain_queue, note_load, note_queued
from tiphys.twin.fleet import scale_to
from tiphys.twin.routing import mixed
from tiphys.twin.state import FULL, FULL_OF_DECISIONS, Floats, Setting, World


class KpaControl(NamedTuple):
    """One revision's autoscaler."""

    present: bool
    rules: KpaRules
    state: KpaState
    log: Log
    memory: Floats
    """[seconds sampled so far, time of the last one, concurrency already reported ahead of the next second]"""


kpa_at = compiled_unpacker(KpaControl)
SECONDS, LAST_S, AHEAD_OF_TIME = range(3)


@lean_jit
def kpa_second(world: World, arena: Arena, pool: int, now_s: float) -> None:
    """The autoscaler's second: what the pods or the activators report of the past one."""
    control = kpa_at(arena, pool)
    of = world.pools[pool]
    length_s = now_s - control.memory[LAST_S]
    second = int(control.memory[SECONDS])
    control.memory[SECONDS] += 1.0
    control.memory[LAST_S] = now_s
    window_s = float(control.rules.stable_window_s)
    asked, load_s, ended = ask_pods(world, pool, window_s, second, now_s)
    note_queued(world, pool, now_s)
    waited_s = of.queued_load_s
    of.queued_load_s = 0.0
    reported = control.memory[AHEAD_OF_TIME]
    control.memory[AHEAD_OF_TIME] = 0.0
    if of.is_proxy == 1 or (of.ready == 0 and waited_s > 0.0):
        concurrency = max(0.0, (load_s + waited_s) / length_s - reported)
        if load_s + waited_s > 0.0 or ended > 0:
            kpa_record(control.rules, control.state, now_s, concurrency, max(0.0, ended / length_s - reported))
        if of.ready > 0 and control.rules.is_scraped:
            kpa_record(control.rules, control.state, now_s, 0.0, 0.0)
    elif asked > 0 and control.rules.is_scraped:
        each = of.ready / (asked * length_s)
        kpa_record(control.rules, control.state, now_s, load_s * each, ended * each)


@lean_jit
def ask_pods(world: World, pool: int, window_s: float, second: int, now_s: float) -> tuple[int, float, int]:
    """Sums over pods of what their queue-proxies counted since the last second: (pods asked, load integral, ended).

    In the request path of the activators every pod counts; else a sample of them, older ones first. Every pod begins to
    count anew.
    """
    of = world.pools[pool]
    count = of.ready
    wanted = count if of.is_proxy == 1 else sampled_pods(count)
    old = 0
    while old < count and now_s - world.pods[world.ready[pool, old]].ready_s >= window_s:
        old += 1
    turn = int(mixed(of.routing_seed + 7, second) % np.uint64(max(old, 1))) if old > wanted else 0
    asked, load_s, ended = 0, 0.0, 0
    for i in range(count):
        pod = world.ready[pool, i]
        note_load(world, pod, now_s)
        record = world.pods[pod]
        place = (i - turn) % old if i < old else i
        if place < wanted:
            asked += 1
            load_s += record.load_s
            ended += record.finished - record.ended
        record.load_s = 0.0
        record.ended = record.finished
    return asked, load_s, ended


@lean_jit
def kpa_decides(world: World, setting: Setting, arena: Arena, pool: int, now_s: float) -> None:
    """A tick of the autoscaler, and what the reconciler makes of it."""
    control = kpa_at(arena, pool)
    if is_full(control.log):
        world.counters[FULL] = FULL_OF_DECISIONS
        return
    of = world.pools[pool]
    spec = of.wanted
    outcome = kpa_tick(control.rules, control.state, now_s, of.ready, True, spec)
    log_kpa(control.log, now_s, spec, of.ready, outcome)
    was_proxy = of.is_proxy
    of.is_proxy = 1 if outcome.is_proxied else 0
    if outcome.replicas >= 0 and outcome.replicas != spec:
        scale_to(world, setting, pool, outcome.replicas, now_s)
    if was_proxy == 1 and of.is_proxy == 0 and of.queued > 0:
        drain_queue(world, setting, pool, now_s)


@lean_jit
def kpa_poked(world: World, setting: Setting, arena: Arena, pool: int, now_s: float) -> None:
    """The first request at an idle revision: the activator reports it at once, and the autoscaler decides at once."""
    control = kpa_at(arena, pool)
    control.memory[AHEAD_OF_TIME] += 1.0
    kpa_record(control.rules, control.state, now_s, 1.0, 1.0)
    if kpa_is_idle(control.state):
        kpa_decides(world, setting, arena, pool, now_s)
