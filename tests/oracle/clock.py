"""One clock for everything, with an order among what happens at one instant."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from heapq import heappush

import simpy

INFINITY = float("inf")


class Order(IntEnum):
    """What goes first at one instant. SimPy's own events (0 and 1) go before all of these."""

    STEP_END = 10
    LIFECYCLE = 11
    FAULT = 12
    NODE = 13
    DELIVERY = 14
    SCRAPE = 15
    ROUTER_SCRAPE = 16
    RULE = 17
    KPA_SECOND = 18
    KPA_TICK = 19
    KEDA_POLL = 20
    HPA_PASS = 21
    SCHEDULE = 22
    FLEET = 23


_WITHIN = 2**40
"""Places within one order: numbers of pods, jobs, users, pools."""


class Clock(simpy.Environment):
    """An environment whose events can be put at an exact time, with an order among those of one instant."""

    def at(self, time_s: float, order: Order, place: int = 0) -> simpy.Event:
        """What a process yields to go on at that time."""
        event = simpy.Event(self)
        event._ok, event._value = True, None
        heappush(self._queue, (time_s, order * _WITHIN + place, next(self._eid), event))  # type: ignore[misc]
        return event

    def call(self, time_s: float, order: Order, place: int, action: Callable[[], None]) -> None:
        """Do something at that time."""
        callbacks = self.at(time_s, order, place).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: action())
