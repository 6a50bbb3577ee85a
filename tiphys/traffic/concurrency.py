"""Closed loop: so many users at a time, as the published sweeps have it, each waiting for the answer before the next
request.

The trace of such traffic has token lengths alone: when a request is asked is known when it is played.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from tiphys.domain.trace import Trace
from tiphys.domain.users import Level, Users
from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds
from tiphys.errors import InputError
from tiphys.traffic.loaded import Loaded
from tiphys.traffic.profile import TrafficProfile, load_traffic_profile
from tiphys.traffic.sample import sample_lengths
from tiphys.traffic.synthetic import AnyTokens

Ints = NDArray[np.int32]
Whole = Annotated[int, Field(ge=0)]

_QUICKEST_S = 2.0
"""Requests are drawn as if each took no longer; where one does not, more are drawn when they run out."""
_CHUNK = 4096
_MOST_DRAWN = 4_000_000


class LevelRange(Frozen):
    """Levels at equal distances: `{from: 50, to: 300, step: 50}`; `to` is one of them."""

    first: PositiveInt = Field(alias="from")
    last: PositiveInt = Field(alias="to")
    step: PositiveInt

    @model_validator(mode="after")
    def _goes_up(self) -> Self:
        if self.first > self.last or (self.last - self.first) % self.step:
            raise ValueError(f"does not lead from {self.first} to {self.last} in steps of {self.step}")
        return self

    @property
    def users(self) -> tuple[int, ...]:
        """Every level."""
        return tuple(range(self.first, self.last + 1, self.step))


def _form(levels: object) -> str:
    return "range" if isinstance(levels, dict | LevelRange) else "list"


Levels = Annotated[
    Annotated[tuple[PositiveInt, ...], Tag("list")] | Annotated[LevelRange, Tag("range")], Discriminator(_form)
]


class Lengths(Frozen):
    """Token lengths: the joint ones of a traffic profile, or each drawn by itself as synthetic traffic has them."""

    profile: str | None = None
    """A name in configs/traffic, or a path."""
    input_tokens: AnyTokens | None = None
    output_tokens: AnyTokens | None = None

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        drawn = (self.input_tokens is not None, self.output_tokens is not None)
        if (self.profile is None) != all(drawn) or (self.profile is not None and any(drawn)):
            raise ValueError("give either a profile, or input_tokens and output_tokens")
        return self


class ConcurrencySource(Frozen):
    """Users who wait for their answer before they ask again.

    How many there are is said by `levels` (each for `level_s`, or until each of its users has asked
    `requests_per_user` times), or by `clients`: pairs of a time and a number of clients with `users_per_client` each,
    until `duration_s`.
    """

    kind: Literal["concurrency"] = "concurrency"
    levels: Levels | None = None
    level_s: PositiveSeconds | None = None
    requests_per_user: PositiveInt | None = None
    clients: tuple[tuple[Seconds, Whole], ...] | None = None
    users_per_client: PositiveInt = 1
    duration_s: PositiveSeconds | None = None
    think_s: Seconds = 0.0
    think: Literal["constant", "exponential"] = "constant"
    ramp_s: Seconds = 0.0
    """Over which the users that a level adds begin."""
    retry_s: PositiveSeconds = 1.0
    """How long after a failure a user asks again, beside thinking."""
    lengths: Lengths

    @model_validator(mode="after")
    def _says_how_many_users_and_for_how_long(self) -> Self:
        if (self.levels is None) == (self.clients is None):
            raise ValueError("give either levels or clients")
        if self.levels is not None:
            if not self._levels:
                raise ValueError("there is no level")
            if (self.level_s is None) == (self.requests_per_user is None):
                raise ValueError("give either level_s or requests_per_user: how long a level lasts")
            if self.duration_s is not None:
                raise ValueError("duration_s goes with clients; levels last level_s each")
            return self
        if self.level_s is not None or self.requests_per_user is not None:
            raise ValueError("level_s and requests_per_user go with levels; clients have times of their own")
        self._check_clients()
        return self

    def _check_clients(self) -> None:
        times = [at_s for at_s, _ in self.clients or ()]
        if not times or times[0] != 0 or any(b <= a for a, b in pairwise(times)):
            raise ValueError("clients must begin at 0 and come one after the other")
        if self.duration_s is None or self.duration_s <= times[-1]:
            raise ValueError(f"duration_s must say when the last clients leave: after {times[-1]:g} s")
        if not any(count for _, count in self.clients or ()):
            raise ValueError("there is never a client")

    @property
    def _levels(self) -> tuple[int, ...]:
        return self.levels.users if isinstance(self.levels, LevelRange) else self.levels or ()

    @property
    def length_s(self) -> float | None:
        """How long the schedule lasts; None where the play decides it (`requests_per_user`)."""
        if self.level_s is not None:
            return self.level_s * len(self._levels)
        return self.duration_s

    def users(self, warmup_s: float = 0.0) -> Users:
        """The schedule with the first level begun `warmup_s` earlier, so that nothing of it is lost to a warm-up."""
        if self.clients is not None:
            steps = [(at_s, count * self.users_per_client) for at_s, count in self.clients]
        else:
            times = accumulate([self.level_s or 1.0] * (len(self._levels) - 1), initial=0.0)
            steps = list(zip(times, self._levels, strict=True))
        levels = tuple(Level(at_s=at_s + warmup_s if at_s > 0 else 0.0, users=users) for at_s, users in steps)
        return Users(
            levels=levels,
            think_s=self.think_s,
            think=self.think,
            ramp_s=self.ramp_s,
            retry_s=self.retry_s,
            requests_per_user=self.requests_per_user,
        )

    @property
    def name(self) -> str:
        """For people: `concurrency 50-100-150`."""
        return "concurrency " + "-".join(str(users) for users in sorted({level.users for level in self.users().levels}))

    def load(self, seed: int, base: Path) -> Loaded:
        """The lengths that the seed draws, as many as the schedule may well take."""
        notice = "closed loop: users wait for their answers, so arrivals follow from the play"
        return Loaded(self.asked(seed, base), (notice,))

    def trace(self, seed: int, requests: int, base: Path = Path()) -> Trace:
        """So many requests; the first ones are the same however many there are."""
        return self.stream(seed, base)(requests)

    def asked(self, seed: int, base: Path, warmup_s: float = 0.0, request_class: str = "request") -> Trace:
        """As many requests as the schedule may well take, a warm-up before it."""
        return self.stream(seed, base, warmup_s, request_class)(self._estimate(warmup_s))

    def stream(self, seed: int, base: Path, warmup_s: float = 0.0, request_class: str = "request") -> LengthStream:
        """The endless row of requests that the seed draws. Raises InputError for an unknown profile."""
        lengths: TrafficProfile | Lengths = self.lengths
        if self.lengths.profile is not None:
            lengths = load_traffic_profile(self.lengths.profile, base, key="traffic.source.lengths.profile")
        return LengthStream(lengths, seed, self.name, (self.length_s or 0.0) + warmup_s, request_class)

    def _estimate(self, warmup_s: float = 0.0) -> int:
        users = self.users(warmup_s)
        if users.requests_per_user is not None:
            return sum(level.users for level in users.levels) * users.requests_per_user
        ends = [level.at_s for level in users.levels[1:]] + [(self.length_s or 0.0) + warmup_s]
        user_seconds = sum(level.users * (end - level.at_s) for level, end in zip(users.levels, ends, strict=True))
        return min(math.ceil(user_seconds / (self.think_s + _QUICKEST_S)) + users.most, _MOST_DRAWN)


@dataclass(frozen=True)
class LengthStream:
    """An endless row of requests, drawn in chunks of their own, so that asking for more changes none of them."""

    lengths: TrafficProfile | Lengths
    seed: int
    name: str
    end_s: float
    request_class: str = "request"

    def __call__(self, requests: int) -> Trace:
        """The first requests of the row, at least so many. Raises InputError for none, or more than memory holds."""
        if not 1 <= requests <= 25 * _MOST_DRAWN:
            raise InputError("no such number of requests", where=self.name, found=requests)
        chunks = [self._chunk(number) for number in range(-(-requests // _CHUNK))]
        inputs, outputs = (np.concatenate(column)[:requests] for column in zip(*chunks, strict=True))
        classes = (self.request_class,)
        return Trace(np.zeros(requests), inputs, outputs, self.name, self.end_s, classes=classes, longer=self)

    def _chunk(self, number: int) -> tuple[Ints, Ints]:
        rng = np.random.default_rng([self.seed, 0xC105ED, number])
        if isinstance(self.lengths, TrafficProfile):
            return sample_lengths(rng, self.lengths, _CHUNK)
        sides = (self.lengths.input_tokens, self.lengths.output_tokens)
        drawn = (each.draw(rng, _CHUNK) for each in sides if each is not None)
        inputs, outputs = (np.maximum(np.rint(tokens), 1).astype(np.int32) for tokens in drawn)
        return inputs, outputs
