"""Whatever happens at a time that is not a step's end, a trace's arrival or a controller's pass: a heap of events.

Events of one instant go by rank: kind first, then number.
"""

from __future__ import annotations

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.state import EVENTS, FULL, FULL_OF_EVENTS, IDLE_S, Longs, Records

FAULT_BEGINS, FAULT_ENDS, NODE_READY, NODE_EMPTY, OFFLINE_GONE, LEVEL_BEGINS = range(6)
KV_ARRIVES, EXPIRES, USER_ASKS, HOP_BEGINS, WAKES = range(6, 11)
DELIVERIES = KV_ARRIVES
"""The first kind that goes behind the trace's arrivals of the same instant."""
_BITS = 40
_NUMBER = (1 << _BITS) - 1


@inlined_jit
def next_event_s(events: Records, counters: Longs) -> float:
    """When the next event is due; inf without one."""
    return events[0].time_s if counters[EVENTS] > 0 else IDLE_S


@inlined_jit
def next_kind(events: Records) -> int:
    """What the next event is."""
    return events[0].rank >> _BITS


@inlined_jit
def next_number(events: Records) -> int:
    """Which job, node, fault, user it is about."""
    return events[0].rank & _NUMBER


@inlined_jit
def push_event(events: Records, counters: Longs, time_s: float, kind: int, number: int) -> None:
    """Something will happen."""
    place = counters[EVENTS]
    if place == events.shape[0]:
        counters[FULL] = FULL_OF_EVENTS
        return
    counters[EVENTS] = place + 1
    rank = (kind << _BITS) | number
    while place > 0:
        parent = (place - 1) >> 1
        above = events[parent]
        if above.time_s < time_s or (above.time_s == time_s and above.rank <= rank):
            break
        events[place].time_s = above.time_s
        events[place].rank = above.rank
        place = parent
    events[place].time_s = time_s
    events[place].rank = rank


@lean_jit
def pop_event(events: Records, counters: Longs) -> None:
    """The next event is dealt with."""
    last = counters[EVENTS] - 1
    counters[EVENTS] = last
    time_s, rank = events[last].time_s, events[last].rank
    place = 0
    while True:
        child = 2 * place + 1
        if child >= last:
            break
        if child + 1 < last and is_before(events, child + 1, child):
            child += 1
        below = events[child]
        if time_s < below.time_s or (time_s == below.time_s and rank <= below.rank):
            break
        events[place].time_s = below.time_s
        events[place].rank = below.rank
        place = child
    events[place].time_s = time_s
    events[place].rank = rank


@inlined_jit
def is_before(events: Records, one: int, other: int) -> bool:
    """Whether one place of the heap goes before another."""
    a, b = events[one], events[other]
    return bool(a.time_s < b.time_s or (a.time_s == b.time_s and a.rank < b.rank))
