"""The event loop: step ends, pod lifecycle, arrivals, scrapes, KEDA polls, HPA passes, in this order at one instant."""

from __future__ import annotations

from typing import NamedTuple

from tiphys.compiled import inlined_jit, jit, lean_jit
from tiphys.twin.control import HPA, KEDA, OK, OUT_OF_PODS, Control, hpa_pass, keda_poll
from tiphys.twin.engine import begin_step, end_steps, enqueue
from tiphys.twin.fleet import PodRules, become_ready, create_pod, forget_gone, let_go, next_timer_s, route, scale_to
from tiphys.twin.metrics import scrape
from tiphys.twin.state import (
    ARRIVED,
    IDLE_S,
    LIVE,
    NONE,
    UNFINISHED,
    EngineLimits,
    Fleet,
    Floats,
    Requests,
    Samples,
)
from tiphys.twin.tournament import set_key


class Window(NamedTuple):
    """Seconds on the play's clock."""

    warmup_s: float
    horizon_s: float
    latest_s: float
    """the play is broken off here, however much is in flight"""


@jit
def play(
    fleet: Fleet,
    requests: Requests,
    samples: Samples,
    limits: EngineLimits,
    rules: PodRules,
    control: Control,
    bounds_s: Floats,
    window: Window,
    start_replicas: int,
    wanted_replicas: int,
) -> tuple[int, float]:
    """Play everything; the recording is what stands in the arguments afterwards.

    Returns (OK or which room ran out, the time at which the play ended).
    """
    fleet.counters[UNFINISHED] = requests.arrival_s.shape[0]
    for _ in range(start_replicas):
        create_pod(fleet, rules, 0.0, True)
    if not scale_to(fleet, requests, rules, wanted_replicas, 0.0):
        return OUT_OF_PODS, 0.0
    while True:
        now_s = play_until(
            fleet, requests, samples, limits, rules, bounds_s, window, min(control.next_s[HPA], control.next_s[KEDA])
        )
        if now_s == IDLE_S:
            break
        forget_gone(fleet, rules, now_s)
        if control.next_s[KEDA] == now_s:
            outcome = keda_poll(fleet, requests, samples, rules, control, bounds_s, now_s)
        else:
            outcome = hpa_pass(fleet, requests, samples, rules, control, bounds_s, now_s)
        if outcome != OK:
            return outcome, now_s
    if fleet.counters[UNFINISHED] > 0:
        return OK, window.latest_s
    return OK, max(window.horizon_s, last_finish_s(requests))


@lean_jit
def play_until(
    fleet: Fleet,
    requests: Requests,
    samples: Samples,
    limits: EngineLimits,
    rules: PodRules,
    bounds_s: Floats,
    window: Window,
    tick_s: float,
) -> float:
    """Play up to a controller's next pass: its time, or inf when the play is over before."""
    arrivals = requests.arrival_s.shape[0]
    request = fleet.counters[ARRIVED]
    while True:
        step_s = fleet.step_keys[fleet.steps_tree[1]]
        arrival_s = requests.arrival_s[request] if request < arrivals else IDLE_S
        timer_s = fleet.timer_keys[fleet.timers_tree[1]]
        now_s = min(min(step_s, arrival_s), min(timer_s, tick_s))
        if now_s > window.latest_s or (now_s > window.horizon_s and fleet.counters[UNFINISHED] == 0):
            return IDLE_S
        if step_s == now_s:
            end_of_steps(fleet, requests, limits, rules, bounds_s, fleet.steps_tree[1], now_s, window)
        elif timer_s == now_s and arrival_s > now_s:
            on_timer(fleet, requests, samples, limits, rules, fleet.timers_tree[1], now_s)
        elif timer_s == now_s and lifecycle_due(fleet, rules, now_s) != NONE:
            on_timer(fleet, requests, samples, limits, rules, lifecycle_due(fleet, rules, now_s), now_s)
        elif arrival_s == now_s:
            arrive(fleet, requests, limits, rules, request, now_s)
            request += 1
            fleet.counters[ARRIVED] = request
        else:
            return now_s


@lean_jit
def last_finish_s(requests: Requests) -> float:
    """When the last request that finished did so; 0 when none did."""
    last_s = 0.0
    for finish_s in requests.finish_s:
        if finish_s != IDLE_S and finish_s > last_s:
            last_s = finish_s
    return last_s


@inlined_jit
def end_of_steps(
    fleet: Fleet,
    requests: Requests,
    limits: EngineLimits,
    rules: PodRules,
    bounds_s: Floats,
    pod: int,
    now_s: float,
    window: Window,
) -> None:
    """A pod's step (or run of steps) is over: account for it and begin the next, or go when drained."""
    record = fleet.pods[pod]
    scored = record.step_start_s >= window.warmup_s and record.step_start_s <= window.horizon_s
    end_steps(fleet, requests, limits, bounds_s, pod, now_s, scored)
    begin_step(fleet, requests, limits, pod, now_s)
    if record.is_removed == 0:
        set_key(fleet.load_tree, fleet.load_keys, pod, float(record.waiting + record.prefilling + record.decoding))
    elif record.step_end_s == IDLE_S:
        let_go(fleet, requests, pod, now_s)


@inlined_jit
def arrive(fleet: Fleet, requests: Requests, limits: EngineLimits, rules: PodRules, request: int, now_s: float) -> None:
    """Route a request; one that no replica could ever hold, or that finds none ready, fails at once."""
    tokens = requests.input_tokens[request] + requests.output_tokens[request]
    pod = route(fleet, rules, request) if tokens <= limits.kv_capacity_tokens else NONE
    if pod == NONE:
        requests.failed[request] = 1
        fleet.counters[UNFINISHED] -= 1
        return
    enqueue(fleet, requests, limits, pod, request, now_s)
    set_key(fleet.load_tree, fleet.load_keys, pod, fleet.load_keys[pod] + 1.0)


@lean_jit
def lifecycle_due(fleet: Fleet, rules: PodRules, now_s: float) -> int:
    """A pod that becomes ready or loses patience at this very instant, or NONE."""
    for i in range(fleet.counters[LIVE]):
        pod = fleet.live[i]
        if fleet.timer_keys[pod] == now_s and timer_is_lifecycle(fleet, rules, pod, now_s):
            return int(pod)
    return NONE


@lean_jit
def timer_is_lifecycle(fleet: Fleet, rules: PodRules, pod: int, now_s: float) -> bool:
    """Whether the timer of a pod that is due is its readiness or the end of its grace, rather than a scrape."""
    record = fleet.pods[pod]
    if record.is_ready == 0:
        return True
    return record.is_removed == 1 and record.removed_s + rules.termination_grace_s <= now_s


@lean_jit
def on_timer(
    fleet: Fleet, requests: Requests, samples: Samples, limits: EngineLimits, rules: PodRules, pod: int, now_s: float
) -> None:
    """A pod becomes ready, loses patience, or is scraped."""
    record = fleet.pods[pod]
    if record.is_ready == 0:
        become_ready(fleet, rules, pod, now_s)
    elif timer_is_lifecycle(fleet, rules, pod, now_s):
        let_go(fleet, requests, pod, now_s)
    else:
        scrape(fleet, samples, limits, pod, now_s)
        record.next_scrape_s += rules.scrape_interval_s
        set_key(fleet.timers_tree, fleet.timer_keys, pod, next_timer_s(fleet, rules, pod))
