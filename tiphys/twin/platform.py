"""The twin as a platform: a service of arithmetic, put under a policy and played."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tiphys.domain.platform import Policy, Transition
from tiphys.domain.profile import Profile
from tiphys.domain.recording import Recording
from tiphys.domain.route import Classes, Hop, single
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool, Router
from tiphys.domain.signals import Latency
from tiphys.domain.trace import Trace
from tiphys.errors import InputError, unknown_name
from tiphys.policies.fleet import FLEET
from tiphys.policies.transition import transition
from tiphys.twin.play import Room, check_playable, play_once

__all__ = ["Twin", "TwinPool", "TwinService", "check_prompts"]

_SPARE_PODS = 16


@dataclass(frozen=True)
class TwinPool:
    """One pool as the twin knows it: its description, its step times, its engine's admission rule, its histograms.

    `tier_profiles` are step times on tiers of nodes where they differ, by tier; they bring their own token
    budget and KV capacity.
    """

    pool: Pool
    profile: Profile
    admission: Literal["vllm", "trtllm_no_evict"]
    ttft_bounds_s: tuple[float, ...]
    itl_bounds_s: tuple[float, ...] = ()
    e2e_bounds_s: tuple[float, ...] = ()
    tier_profiles: Mapping[str, Profile] = field(default_factory=dict)

    def profile_on(self, tier: str | None) -> Profile:
        """The step times on a tier; the pool's own where the tier has none, or without nodes."""
        return self.profile if tier is None else self.tier_profiles.get(tier, self.profile)

    def kv_capacity_on(self, tier: str | None) -> int:
        """Tokens that one replica's KV cache holds there."""
        own = None if tier in self.tier_profiles else self.pool.kv_capacity_tokens
        return own or self.profile_on(tier).kv_capacity_tokens

    def max_batched_on(self, tier: str | None) -> int:
        """Token budget of one engine step there."""
        own = None if tier in self.tier_profiles else self.pool.max_batched_tokens
        return own or self.profile_on(tier).max_batched_tokens

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that the smallest KV cache of a replica holds."""
        return min(self.kv_capacity_on(tier) for tier in (None, *self.tier_profiles))

    @property
    def max_batched_tokens(self) -> int:
        """Token budget of one engine step."""
        return self.max_batched_on(None)

    def bounds_s(self, latency: Latency) -> tuple[float, ...]:
        """Upper bounds of a latency's histogram, without +Inf."""
        return {"ttft": self.ttft_bounds_s, "itl": self.itl_bounds_s, "e2e": self.e2e_bounds_s}[latency]


@dataclass(frozen=True)
class TwinService:
    """What the twin serves: pools behind a router, and the route of each traffic class through them.

    Raises InputError for a service of several pools without a route, and for a hop to a pool that it does not have.
    """

    pools: Mapping[str, TwinPool]
    router: Router = field(default_factory=Router)
    classes: Classes = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes:
            if len(self.pools) != 1:
                raise InputError("several pools need a route", key="service.route", found=sorted(self.pools))
            object.__setattr__(self, "classes", single(next(iter(self.pools))))
        for name, hops in self.classes.items():
            for hop in hops:
                if hop.pool not in self.pools:
                    raise unknown_name("pool", hop.pool, self.pools, key=f"service.route, class {name}, hop {hop.name}")

    @property
    def is_single(self) -> bool:
        """Whether every request is one visit to the one pool, its tokens unchanged."""
        hops = [hop for each in self.classes.values() for hop in each]
        plain = Hop(name=hops[0].name, pool=hops[0].pool)
        return len(self.pools) == 1 and len(hops) == 1 and replace_answers(hops[0]) == plain

    def hops_of(self, trace: Trace, key: str = "classes") -> tuple[tuple[Hop, ...], ...]:
        """The route of each of a trace's classes, in the trace's order; a trace without classes takes the first route.

        Raises InputError for a class that has no route.
        """
        if trace.class_of is None and len(trace.classes) == 1 and trace.classes[0] not in self.classes:
            return (next(iter(self.classes.values())),)
        for name in trace.classes:
            if name not in self.classes:
                raise unknown_name("traffic class", name, self.classes, where=trace.name, key=key)
        return tuple(self.classes[name] for name in trace.classes)


def replace_answers(hop: Hop) -> Hop:
    """A hop without the mark that it answers: the only one does anyway."""
    return hop.with_(answers=False)


@dataclass
class Twin:
    """A platform made of arithmetic (see `tiphys.domain.platform.Platform`).

    `jump=False` takes every engine step by itself: the slow oracle of the fast path. The same inputs give the same
    recording, bit for bit, in any process.
    """

    service: TwinService
    in_force: Policy
    jump: bool = True
    _room: Room | None = field(default=None, repr=False)

    def incumbent(self) -> Policy:
        """The policy in force."""
        return self.in_force

    def apply(self, policy: Policy) -> Transition:
        """Put a policy in force. Raises InputError for a pool that does not exist or is left without a policy.

        It takes no time, but for a Knative policy: any change of one makes a new Revision, whose pods load the model
        while those of the old one still run.
        """
        for name in policy:
            if name not in self.service.pools and name != FLEET:
                raise unknown_name("pool", name, self.service.pools, key="policy")
        for name in self.service.pools:
            if name not in policy:
                raise InputError("no policy for this pool", key=f"policy.{name}", allowed="one policy for each pool")
        pools = {name: pool.pool for name, pool in self.service.pools.items()}
        taken = transition(self.in_force, policy, pools)
        self.in_force = policy
        return taken

    def check(self, policy: Policy, scenario: Scenario) -> None:
        """Raise InputError for a policy, queue, route or fault that the twin cannot play; nothing is played."""
        check_playable(self.service, policy, scenario)

    def play(self, scenario: Scenario) -> Recording:
        """Everything observed while the scenario was played under the policy in force.

        Raises InputError for a prompt that no KV cache of the service can hold, and for a policy, route or fault that
        the twin cannot play.
        """
        check_prompts(scenario.trace, self.service)
        room = self._room or Room(pods=self._most_at_start(scenario) + _SPARE_PODS)
        began = time.perf_counter()
        while True:
            recording, wanted = play_once(self.service, self.in_force, scenario, room, self.jump)
            if recording is not None:
                break
            room = wanted
            if room.requests > len(scenario.trace):
                scenario = _longer(scenario, room.requests)
        self._room = replace(room, requests=0)
        return replace(recording, wall_s=time.perf_counter() - began)

    def _most_at_start(self, scenario: Scenario) -> int:
        return sum(
            scenario.start_replicas.get(name, pool.pool.replicas.at_start) for name, pool in self.service.pools.items()
        )


def _longer(scenario: Scenario, requests: int) -> Scenario:
    """The scenario with more requests for its users to ask."""
    assert scenario.trace.longer is not None
    return replace(scenario, trace=scenario.trace.longer(requests))


def check_prompts(trace: Trace, service: TwinService) -> None:
    """Raise InputError for the first request of a single-pool service whose prompt no replica could hold.

    In a route the tokens of a hop are made from the request's: such a job fails when it arrives.
    """
    if not service.is_single:
        return
    ((_, pool),) = service.pools.items()
    too_long = (trace.input_tokens >= pool.kv_capacity_tokens).nonzero()[0]
    if len(too_long):
        request = int(too_long[0])
        raise InputError(
            f"request {request} has a prompt longer than the KV cache of profile {pool.profile.name}",
            where=trace.name,
            key="input_tokens",
            found=int(trace.input_tokens[request]),
            allowed=f"below {pool.kv_capacity_tokens} tokens",
        )
