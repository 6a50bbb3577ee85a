"""The twin as a platform: a service of arithmetic, put under a policy and played."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tiphys.domain.platform import Policy, ScalingPolicy, Transition
from tiphys.domain.profile import Profile
from tiphys.domain.recording import ITL_BINS, PoolRecording, Recording, ReplicaLife
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool, Router
from tiphys.domain.trace import Trace
from tiphys.errors import InputError, unknown_name
from tiphys.policies.fixed import FixedPolicy
from tiphys.twin.control import OK, OUT_OF_PODS
from tiphys.twin.decisions import table
from tiphys.twin.fleet import CONNECTION_RANDOM, LEAST_OUTSTANDING, RANDOM, ROUND_ROBIN, PodRules
from tiphys.twin.governing import Government, government
from tiphys.twin.loop import Window, play
from tiphys.twin.randomness import cold_starts_s, routing_seed, scrape_phases_s
from tiphys.twin.state import (
    NONE,
    PODS_CREATED,
    PREEMPTIONS,
    EngineLimits,
    Fleet,
    Floats,
    Requests,
    Samples,
    new_fleet,
)

_ROUTERS = {
    "least_outstanding": LEAST_OUTSTANDING,
    "round_robin": ROUND_ROBIN,
    "random": RANDOM,
    "connection_random": CONNECTION_RANDOM,
}
_SPARE_PODS = 16


@dataclass(frozen=True)
class TwinPool:
    """One pool as the twin knows it: its description, its step times, its engine's admission rule, its TTFT buckets."""

    pool: Pool
    profile: Profile
    admission: Literal["vllm", "trtllm_no_evict"]
    ttft_bounds_s: tuple[float, ...]

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that one replica's KV cache holds."""
        return self.pool.kv_capacity_tokens or self.profile.kv_capacity_tokens

    @property
    def max_batched_tokens(self) -> int:
        """Token budget of one engine step."""
        return self.pool.max_batched_tokens or self.profile.max_batched_tokens

    def limits(self, step_time_factor: float, jump: bool) -> EngineLimits:
        """The scheduler's limits and the step times in seconds, slower or faster by a factor."""
        step, scale = self.profile.step, step_time_factor / 1000.0
        most = max(self.max_batched_tokens, self.pool.max_num_seqs) + self.pool.max_num_seqs
        return EngineLimits(
            step.gemm_table_ms(most) * scale,
            step.decode_ms * scale,
            step.kv_token_ms * scale,
            step.prefill_token_ms * scale,
            step.prefill_pair_ms * scale,
            step.fixed_ms * scale,
            self.max_batched_tokens,
            self.pool.max_num_seqs,
            self.kv_capacity_tokens,
            self.admission == "trtllm_no_evict",
            jump,
        )


@dataclass(frozen=True)
class TwinService:
    """What the twin serves: one pool behind a router."""

    pools: Mapping[str, TwinPool]
    router: Router = field(default_factory=Router)

    def __post_init__(self) -> None:
        if len(self.pools) != 1:
            raise InputError("this twin plays services of one pool", key="service.pools", found=sorted(self.pools))


@dataclass
class Twin:
    """A platform made of arithmetic (see `tiphys.domain.platform.Platform`).

    `jump=False` takes every engine step by itself: the slow oracle of the fast path. The same inputs give the same
    recording, bit for bit, in any process.
    """

    service: TwinService
    in_force: Policy
    jump: bool = True
    _pods: int = field(default=0, repr=False)

    def incumbent(self) -> Policy:
        """The policy in force."""
        return self.in_force

    def apply(self, policy: Policy) -> Transition:
        """Put a policy in force, at no cost. Raises InputError for a pool that does not exist or is left without a
        policy.
        """
        for name in policy:
            if name not in self.service.pools:
                raise unknown_name("pool", name, self.service.pools, key="policy")
        for name in self.service.pools:
            if name not in policy:
                raise InputError("no policy for this pool", key=f"policy.{name}", allowed="one policy for each pool")
        self.in_force = policy
        return Transition()

    def play(self, scenario: Scenario) -> Recording:
        """Everything observed while the scenario was played under the policy in force.

        Raises InputError for a prompt that no KV cache of the service can hold.
        """
        ((name, pool),) = self.service.pools.items()
        check_prompts(scenario.trace, pool)
        policy = self.in_force[name]
        start = scenario.start_replicas.get(name, pool.pool.replicas.at_start)
        began = time.perf_counter()
        pods = max(self._pods, start + _SPARE_PODS)
        while True:
            stage = set_stage(pool, policy, self.service.router, scenario, pods, self.jump)
            outcome, end_s = stage.play(start, policy.replicas if isinstance(policy, FixedPolicy) else start)
            if outcome == OK:
                break
            if outcome != OUT_OF_PODS:
                raise AssertionError("the log of decisions was sized for every pass of the play")
            pods *= 4
        self._pods = pods
        return stage.recording(name, pool, scenario, end_s, time.perf_counter() - began)


def check_prompts(trace: Trace, pool: TwinPool) -> None:
    """Raise InputError for the first request whose prompt no replica could hold."""
    too_long = np.flatnonzero(trace.input_tokens >= pool.kv_capacity_tokens)
    if len(too_long):
        request = int(too_long[0])
        raise InputError(
            f"request {request} has a prompt longer than the KV cache of profile {pool.profile.name}",
            where=trace.name,
            key="input_tokens",
            found=int(trace.input_tokens[request]),
            allowed=f"below {pool.kv_capacity_tokens} tokens",
        )


@dataclass(frozen=True)
class Stage:
    """The twin's memory for one play."""

    fleet: Fleet
    requests: Requests
    samples: Samples
    limits: EngineLimits
    rules: PodRules
    government: Government
    bounds_s: Floats
    window: Window

    def play(self, start_replicas: int, wanted_replicas: int) -> tuple[int, float]:
        """Run the event loop over this memory."""
        outcome, end_s = play(
            self.fleet,
            self.requests,
            self.samples,
            self.limits,
            self.rules,
            self.government.control,
            self.bounds_s,
            self.window,
            start_replicas,
            wanted_replicas,
        )
        return int(outcome), float(end_s)

    def recording(self, name: str, pool: TwinPool, scenario: Scenario, end_s: float, wall_s: float) -> Recording:
        """What stands in the memory after the play, frozen."""
        created = int(self.fleet.counters[PODS_CREATED])
        pods: Any = self.fleet.pods[:created]
        times = (np.array(pods[column]) for column in ("created_s", "ready_s", "removed_s", "gone_s"))
        unfinished = ~np.isfinite(self.requests.finish_s)
        return Recording(
            trace=scenario.trace,
            first_token_s=self.requests.first_token_s,
            finish_s=self.requests.finish_s,
            failed=self.requests.failed.astype(np.bool_) & unfinished,
            pools={
                name: PoolRecording(
                    pool.pool.gpus_per_replica,
                    ReplicaLife(*times),
                    table(self.government.control.log, self.government.queries),
                    self.fleet.itl_counts,
                )
            },
            warmup_s=scenario.warmup_s,
            horizon_s=scenario.horizon_s,
            end_s=end_s,
            seed=scenario.seed,
            wall_s=wall_s,
            preemptions=int(self.fleet.counters[PREEMPTIONS]),
            replica_of_request=self.requests.pod,
        )


def set_stage(
    pool: TwinPool, policy: ScalingPolicy, router: Router, scenario: Scenario, pods: int, jump: bool
) -> Stage:
    """Memory for one play with room for `pods` pods."""
    settings, seed = scenario.settings, scenario.seed
    latest_s = scenario.horizon_s + scenario.drain_s
    bounds_s = np.array(pool.ttft_bounds_s)
    fleet = new_fleet(pods, pool.pool.max_num_seqs, len(bounds_s) + 1, ITL_BINS)
    places = fleet.pods.shape[0]
    governed = government(policy, settings, seed, latest_s, places, len(bounds_s) + 1)
    interval_s = settings.scrape.interval_s
    ring = int(governed.longest_window_s / interval_s) + 3
    rules = PodRules(
        cold_starts_s(pool.pool.cold_start, scenario.perturbation.cold_start, seed, places),
        scrape_phases_s(interval_s, settings.scrape.phase_s, seed, places),
        interval_s,
        pool.pool.cold_start.pending_s,
        pool.pool.termination_grace_s,
        max(governed.longest_window_s, settings.scrape.lookback_s) + 2 * interval_s,
        _ROUTERS[router.kind],
        np.full(router.connections, NONE, np.int64),
        routing_seed(seed),
    )
    return Stage(
        fleet,
        new_requests(scenario.trace),
        Samples(
            np.zeros((places, ring)), np.zeros((places, ring, 3)), np.zeros((places, ring, len(bounds_s) + 1), np.int64)
        ),
        pool.limits(scenario.perturbation.step_time, jump),
        rules,
        governed,
        bounds_s,
        Window(scenario.warmup_s, scenario.horizon_s, latest_s),
    )


def new_requests(trace: Trace) -> Requests:
    """The requests of a trace, nothing having happened to them."""
    n = len(trace)

    def ints() -> Any:
        return np.zeros(n, np.int32)

    return Requests(
        trace.arrival_s,
        trace.input_tokens,
        trace.output_tokens,
        np.full(n, np.inf),
        np.full(n, np.inf),
        np.zeros(n, np.int8),
        ints(),
        ints(),
        ints(),
        np.zeros(n, np.int64),
        np.full(n, NONE, np.int32),
        np.zeros(n),
    )
