"""Closed loop: users who ask, wait, think and ask again."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import simpy

from tests.oracle.clock import Order
from tests.oracle.work import Asked
from tiphys.domain.users import Users

if TYPE_CHECKING:
    from tests.oracle.world import World


class Crowd:
    """The users of a scenario; `done` happens when the last of a last level without set length has left."""

    def __init__(self, world: World, users: Users) -> None:
        self.world, self.users, self.clock = world, users, world.clock
        self.done: simpy.Event = simpy.Event(world.clock)
        self.level = 0
        self.is_here = [False] * users.most
        self.asked = [0] * users.most
        self.to_leave = 0
        self.numbers = count()

    @property
    def counts_requests(self) -> bool:
        return self.users.requests_per_user is not None

    @property
    def wanted(self) -> int:
        return self.users.levels[self.level].users

    def begin(self) -> None:
        if self.counts_requests:
            self._begin_level(0)
            return
        for number, level in enumerate(self.users.levels):
            if level.at_s > 0:
                self.clock.call(level.at_s, Order.DELIVERY, 2**38, lambda number=number: self._begin_level(number))  # type: ignore[misc]
        self._begin_level(0)

    def _begin_level(self, number: int) -> None:
        old = self.wanted if number > 0 and not self.counts_requests else 0
        self.level = number
        new, now_s = self.wanted, self.clock.now
        if self.counts_requests:
            self.asked, self.to_leave = [0] * self.users.most, new
        for user in range(old, new):
            due_s = now_s + self.users.ramp_s * (user - old) / (new - old)
            self._at(due_s, user, is_new=True)

    def _at(self, due_s: float, user: int, is_new: bool) -> None:
        place = self.world.place_of_user(user)
        self.clock.call(due_s, Order.DELIVERY, place, lambda: self._come(user, is_new))

    def _come(self, user: int, is_new: bool) -> None:
        if is_new and self.is_here[user]:
            return
        if user >= self.wanted:
            if not is_new:
                self._leave(user)
            return
        self.is_here[user] = True
        self._ask(user)

    def _ask(self, user: int) -> None:
        trace = self.world.scenario.trace
        number = next(self.numbers)
        if number >= len(trace) or not self.world.is_asking_time():
            self._leave(user)
            return
        self.asked[user] += 1
        self.world.ask(number, user)

    def answered(self, request: Asked) -> None:
        """A user has the answer, or knows that there will be none."""
        user, limit = request.user, self.users.requests_per_user
        if (limit is not None and self.asked[user] >= limit) or user >= self.wanted:
            self._leave(user)
            return
        think_s = self.world.chances.think_times_s[request.number]
        retry_s = self.users.retry_s if request.failed else 0.0
        self._at(self.clock.now + think_s + retry_s, user, is_new=False)

    def _leave(self, user: int) -> None:
        self.is_here[user] = False
        if not self.counts_requests:
            return
        self.to_leave -= 1
        if self.to_leave > 0:
            return
        if self.level + 1 < len(self.users.levels):
            self._begin_level(self.level + 1)
        else:
            self.done.succeed()
