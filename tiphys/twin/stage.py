"""The twin's memory for one play, as it stands before anything has happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiphys.domain import faults as fault_values
from tiphys.domain.nodes import Nodes
from tiphys.domain.platform import Policy, ScalingPolicy
from tiphys.domain.profile import Profile
from tiphys.domain.queues import JetStreamQueue, RouterQueue
from tiphys.domain.recording import ITL_BINS
from tiphys.domain.route import Hop
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool, Router
from tiphys.domain.signals import Latency
from tiphys.domain.trace import Floats, Trace
from tiphys.errors import InputError
from tiphys.policies.kpa.spec import KpaPolicy
from tiphys.twin.events import FAULT_BEGINS, FAULT_ENDS, LEVEL_BEGINS
from tiphys.twin.faults import Kind
from tiphys.twin.governing import Histograms
from tiphys.twin.jobs import lay_out
from tiphys.twin.randomness import cold_starts_s, routing_seed, scrape_phases_s, think_times_s
from tiphys.twin.routing import CONNECTION_RANDOM, LEAST_OUTSTANDING, RANDOM, ROUND_ROBIN
from tiphys.twin.state import (
    ACTIVATOR,
    BUCKETS,
    CLOCKS,
    COUNTERS,
    ENGINE_DTYPE,
    EVENT_DTYPE,
    EVENTS,
    FAULT_DTYPE,
    HERE,
    HOP_DTYPE,
    HORIZON,
    INTERCEPTOR,
    JETSTREAM,
    JOB_DTYPE,
    KV_AWAY,
    NO_KV,
    NO_QUEUE,
    NODE_DTYPE,
    NONE,
    OFFLINE_DTYPE,
    POD_DTYPE,
    POOL_DTYPE,
    ROUTER_QUEUE,
    UNFINISHED,
    USER_DTYPE,
    Setting,
    World,
    pod_places,
    tree_of_equals,
)

if TYPE_CHECKING:
    from tiphys.twin.platform import TwinPool, TwinService
    from tiphys.twin.play import Room

_ROUTERS = {
    "least_outstanding": LEAST_OUTSTANDING,
    "round_robin": ROUND_ROBIN,
    "random": RANDOM,
    "connection_random": CONNECTION_RANDOM,
}
_NO_QUOTA = 2**31 - 1
_LONG_AGO_S = -1e12
_DAY_S = 86400.0
_ACTIVATOR_TIMEOUT_S = 300.0
"""Default timeoutSeconds of a Revision: a request that waits at the activator for longer fails."""
_RANK_BITS = 40


@dataclass(frozen=True)
class Stage:
    """The memory, the constants, and which of its jobs answers each request (empty where every job does)."""

    world: World
    setting: Setting
    answering: NDArray[np.int64]


def set_stage(
    service: TwinService,
    policy: Policy,
    scenario: Scenario,
    room: Room,
    jump: bool,
    histograms: Histograms,
    longest_window_s: float,
    counts_work: bool,
) -> Stage:
    """Memory for one play with the given room. Raises InputError for what the twin cannot play."""
    nodes, scrape = scenario.settings.nodes, scenario.settings.scrape
    tiers: Sequence[str | None] = [None] if nodes is None else [tier.name for tier in nodes.tiers]
    leaves, pools = pod_places(room.pods), len(service.pools)
    engines, gemm_s, tier_engine = engines_of(service, policy, scenario.perturbation.step_time, tiers, jump)
    routes = service.hops_of(scenario.trace)
    hops, followers, offsets = hop_table(service, routes)
    is_simple = service.is_single and scenario.users is None
    jobs, journeys = job_table(scenario.trace, routes, offsets, is_simple)
    # a recording rule looks back from its last evaluation
    ring = int((longest_window_s + scrape.rule_interval_s) / scrape.interval_s) + 6
    columns = BUCKETS + sum(histograms)
    world_nodes = node_table(nodes)
    faults = fault_table(scenario, service)
    users = scenario.users
    world = World(
        pods=pod_table(leaves),
        pools=pool_table(service, policy, scenario),
        engines=engines,
        jobs=jobs,
        hops=hops,
        followers=followers,
        nodes=world_nodes,
        faults=faults,
        users=np.zeros(0 if users is None else users.most, USER_DTYPE),
        offline=np.zeros(offline_places(nodes, room), OFFLINE_DTYPE),
        events=np.zeros(room.events + 2 * len(faults) + len(world_nodes) + 16, EVENT_DTYPE),
        counters=np.zeros(COUNTERS, np.int64),
        clocks=np.zeros(CLOCKS),
        trace_s=scenario.trace.arrival_s if users is None else unchanging(np.zeros(0)),
        first_job=journeys.first_job,
        jobs_left=journeys.hops_of.copy(),
        request_failed=np.zeros(len(journeys.hops_of), np.int8),
        hops_of=journeys.hops_of,
        user_of=np.full(0 if users is None else len(scenario.trace), NONE, np.int32),
        think_s=np.zeros(0) if users is None else think_times_s(users, scenario.seed, len(scenario.trace)),
        levels_s=np.zeros(0) if users is None else np.array([level.at_s for level in users.levels]),
        level_users=np.array([] if users is None else [level.users for level in users.levels], np.int64),
        gemm_s=gemm_s,
        finish_iteration=np.empty((leaves, most_sequences(engines)), np.int64),
        finish_job=np.empty((leaves, most_sequences(engines)), np.int32),
        steps_tree=tree_of_equals(leaves),
        step_keys=np.full(leaves, np.inf),
        load_tree=np.tile(tree_of_equals(leaves), (pools, 1)),
        load_keys=np.full((pools, leaves), np.inf),
        timers_tree=tree_of_equals(leaves),
        timer_keys=np.full(leaves, np.inf),
        live=np.zeros((pools, leaves), np.int64),
        ready=np.zeros((pools, leaves), np.int64),
        histograms=np.zeros((leaves, sum(histograms)), np.int64),
        bounds_s=bounds_of(service, histograms),
        itl_counts=np.zeros((pools, ITL_BINS), np.int64),
        sample_ms=np.zeros((leaves + pools, ring), np.int64),
        sample_stale=np.zeros((leaves + pools, ring), np.int8),
        samples=np.zeros((leaves + pools, ring, columns)),
        connections=np.full((pools, service.router.connections), NONE, np.int64),
        cold_starts_s=np.array([_cold_starts(pool.pool, scenario, leaves, n) for n, pool in _numbered(service)]),
        scrape_phases_s=np.array(
            [
                scrape_phases_s(scrape.interval_s, scrape.phase_s, scenario.seed, leaves, n)
                for n, _ in _numbered(service)
            ]
        ),
        has_image=np.zeros((len(world_nodes), pools), np.int8),
        has_loaded=np.zeros((len(world_nodes), pools), np.int8),
        tier_engine=tier_engine,
    )
    begin(world, scenario, len(jobs))
    pool_records: Any = world.pools
    has_queues = bool((pool_records["queue"] != NO_QUEUE).any())
    setting = setting_of(scenario, histograms, longest_window_s, is_simple, counts_work, has_queues)
    return Stage(world, setting, journeys.answering)


def begin(world: World, scenario: Scenario, jobs: int) -> None:
    """What is known before the play: how much is to do, when faults and levels set in, how long it takes."""
    world.clocks[HORIZON] = scenario.horizon_s
    known: list[tuple[float, int]] = []
    if scenario.users is None:
        world.counters[UNFINISHED] = jobs
    elif scenario.users.requests_per_user is None:
        known += [(level.at_s, LEVEL_BEGINS << _RANK_BITS | n) for n, level in enumerate(scenario.users.levels)]
    else:
        known.append((0.0, LEVEL_BEGINS << _RANK_BITS))
        world.clocks[HORIZON] = np.inf
    faults: Any = world.faults
    for number, fault in enumerate(faults):
        known.append((float(fault["at_s"]), FAULT_BEGINS << _RANK_BITS | number))
        if np.isfinite(fault["until_s"]):
            known.append((float(fault["until_s"]), FAULT_ENDS << _RANK_BITS | number))
    # a sorted list is a heap
    for place, (time_s, rank) in enumerate(sorted(known)):
        world.events[place] = (time_s, rank)
    world.counters[EVENTS] = len(known)


def _numbered(service: TwinService) -> list[tuple[int, TwinPool]]:
    return list(enumerate(service.pools.values()))


def _cold_starts(pool: Pool, scenario: Scenario, pods: int, number: int) -> Floats:
    return cold_starts_s(pool.cold_start, scenario.perturbation.cold_start, scenario.seed, pods, number)


def setting_of(
    scenario: Scenario,
    histograms: Histograms,
    longest_window_s: float,
    is_simple: bool,
    counts_work: bool,
    has_queues: bool,
) -> Setting:
    """The constants of a play."""
    scrape, nodes, users = scenario.settings.scrape, scenario.settings.nodes, scenario.users
    offline = None if nodes is None else nodes.offline
    return Setting(
        warmup_s=scenario.warmup_s,
        latest_s=_longest_s(scenario) + scenario.drain_s,
        scrape_interval_s=scrape.interval_s,
        retention_s=max(longest_window_s, scrape.lookback_s) + 3 * scrape.interval_s,
        lookback_s=scrape.lookback_s,
        ttft_buckets=histograms.ttft,
        itl_buckets=histograms.itl,
        e2e_buckets=histograms.e2e,
        counts_work=counts_work,
        has_queues=has_queues,
        is_simple=is_simple,
        has_nodes=nodes is not None,
        quota_gpus=_NO_QUOTA if nodes is None or nodes.quota_gpus is None else nodes.quota_gpus,
        empty_s=0.0 if nodes is None else nodes.empty_s,
        warm_cache=nodes is not None and nodes.warm_cache,
        offline_grace_s=0.0 if offline is None else offline.grace_s,
        retry_s=0.0 if users is None else users.retry_s,
        ramp_s=0.0 if users is None else users.ramp_s,
        requests_per_user=0 if users is None else users.requests_per_user or 0,
        most_requests=len(scenario.trace),
        draws_more=scenario.trace.longer is not None,
    )


def _longest_s(scenario: Scenario) -> float:
    """When the play ends at the latest, its drain apart: where users end it, they may take a day."""
    users = scenario.users
    return _DAY_S if users is not None and users.requests_per_user is not None else scenario.horizon_s


# --- pods and pools


def pod_table(places: int) -> Any:
    """Places for pods, none of them taken."""
    pods: Any = np.zeros(places, POD_DTYPE)
    for name in ("ready_s", "running_s", "removed_s", "grace_end_s", "gone_s", "step_end_s", "next_scrape_s"):
        pods[name] = np.inf
    for name in ("wait_head", "wait_tail", "prefill_head", "prefill_tail", "land_head", "land_tail", "landed", "node"):
        pods[name] = NONE
    pods["slow"] = 1.0
    pods["cpu_cores"] = np.nan
    pods["cpu_last_s"] = np.inf
    return pods


def pool_table(service: TwinService, policy: Policy, scenario: Scenario) -> Any:
    """Each pool's rules and counters."""
    pools: Any = np.zeros(len(service.pools), POOL_DTYPE)
    for number, (name, twin_pool) in enumerate(service.pools.items()):
        record, pool, cold = pools[number], twin_pool.pool, twin_pool.pool.cold_start
        record["kv_capacity_tokens"] = twin_pool.kv_capacity_tokens
        record["gpus"] = pool.gpus_per_replica
        record["last_routed"] = record["last_place"] = NONE
        record["router"] = _ROUTERS[service.router.kind]
        record["routing_seed"] = routing_seed(scenario.seed, number)
        record["termination_grace_s"] = pool.termination_grace_s
        record["pending_s"] = cold.pending_s
        if cold.parts is not None:
            record["has_parts"] = 1
            record["image_pull_s"] = cold.parts.image_pull_s
            record["load_cold_s"] = cold.parts.loading_s(False)
            record["load_warm_s"] = cold.parts.loading_s(True)
        record["queue_head"] = record["queue_tail"] = NONE
        record["idle_cores"], record["busy_cores"] = pool.cpu.idle, pool.cpu.busy
        memory_ratio = pool.gpu_memory_ratio
        record["gpu_memory"] = twin_pool.profile.source.memory_ratio if memory_ratio is None else memory_ratio
        record["timeout_s"], record["rule_s"] = np.inf, _LONG_AGO_S
        set_queue(record, pool, policy[name], service.router, name)
    return pools


def set_queue(record: Any, pool: Pool, policy: ScalingPolicy, router: Router, name: str) -> None:
    """What holds a pool's jobs. Raises InputError for a queue that does not go with the policy or the router."""
    queue, key = pool.queue, f"service.pools.{name}.queue"
    record["queue"] = NO_QUEUE
    if isinstance(policy, KpaPolicy):
        if queue is not None:
            raise InputError(
                "a Knative Service takes its requests over HTTP through its own activator, not from another queue",
                key=key, found=queue.kind, allowed="no queue under a policy of kind kpa",
            )  # fmt: skip
        record["queue"], record["timeout_s"], record["is_knative"] = ACTIVATOR, _ACTIVATOR_TIMEOUT_S, 1
        record["container_concurrency"], record["is_proxy"] = policy.container_concurrency, 1
        return
    if queue is None:
        return
    if isinstance(queue, RouterQueue | JetStreamQueue):
        if router.kind != "least_outstanding":
            raise InputError(
                "a queue hands its head to the replica with the fewest requests",
                key="service.router", found=router.kind, allowed="least_outstanding with a router or jetstream queue",
            )  # fmt: skip
        record["in_flight"] = queue.in_flight
    if isinstance(queue, JetStreamQueue):
        record["queue"], record["ack_wait_s"] = JETSTREAM, queue.ack_wait_s
        record["max_ack_pending"] = queue.max_ack_pending
    else:
        record["queue"] = ROUTER_QUEUE if isinstance(queue, RouterQueue) else INTERCEPTOR
        record["timeout_s"] = np.inf if queue.timeout_s is None else queue.timeout_s


# --- engines


def engines_of(
    service: TwinService, policy: Policy, step_time_factor: float, tiers: Sequence[str | None], jump: bool
) -> tuple[Any, Floats, NDArray[np.int64]]:
    """Each engine's limits, their tables of g, and the engine of each (pool, tier)."""
    found: list[tuple[TwinPool, str | None, str]] = []
    tier_engine = np.zeros((len(service.pools), len(tiers)), np.int64)
    for number, (name, pool) in enumerate(service.pools.items()):
        for place, tier in enumerate(tiers):
            tier_engine[number, place] = len(found)
            found.append((pool, tier, name))
    engines: Any = np.zeros(len(found), ENGINE_DTYPE)
    most = max(pool.max_batched_on(tier) + 2 * _sequences(pool.pool, policy[name]) for pool, tier, name in found)
    gemm_s = np.zeros((len(found), most + 1))
    scale = step_time_factor / 1000.0
    for number, (pool, tier, name) in enumerate(found):
        profile: Profile = pool.profile_on(tier)
        step, record = profile.step, engines[number]
        gemm_s[number] = step.gemm_table_ms(most) * scale
        record["decode_s"] = step.decode_ms * scale
        record["kv_token_s"] = step.kv_token_ms * scale
        record["prefill_token_s"] = step.prefill_token_ms * scale
        record["prefill_pair_s"] = step.prefill_pair_ms * scale
        record["fixed_s"] = step.fixed_ms * scale
        record["max_batched_tokens"] = pool.max_batched_on(tier)
        record["max_num_seqs"] = _sequences(pool.pool, policy[name])
        record["kv_capacity_tokens"] = pool.kv_capacity_on(tier)
        record["no_evict"] = pool.admission == "trtllm_no_evict"
        record["jump"] = jump
    return engines, gemm_s, tier_engine


def _sequences(pool: Pool, policy: ScalingPolicy) -> int:
    """Sequences that an engine runs at a time: what queue-proxy lets through, where that is less."""
    limit = getattr(policy, "container_concurrency", 0)
    return min(pool.max_num_seqs, limit) if limit else pool.max_num_seqs


def most_sequences(engines: Any) -> int:
    """The largest number of sequences of any engine."""
    return int(engines["max_num_seqs"].max())


def bounds_of(service: TwinService, histograms: Histograms) -> Floats:
    """Upper bounds of the buckets that are kept, by pool: every histogram ends with +Inf, over and over if need be."""
    latencies: tuple[Latency, ...] = ("ttft", "itl", "e2e")
    bounds_s = np.full((len(service.pools), sum(histograms)), np.inf)
    for number, pool in enumerate(service.pools.values()):
        for latency in latencies:
            first, kept = histograms.first(latency), min(int(getattr(histograms, latency)), len(pool.bounds_s(latency)))
            bounds_s[number, first : first + kept] = pool.bounds_s(latency)[:kept]
    return bounds_s


# --- routes


def hop_table(service: TwinService, routes: Sequence[tuple[Hop, ...]]) -> tuple[Any, NDArray[np.int32], list[int]]:
    """The hops of all classes one after the other, who follows whom, and where each class's hops begin."""
    names = list(service.pools)
    hops: Any = np.zeros(sum(len(route) for route in routes), HOP_DTYPE)
    followers: list[int] = []
    offsets: list[int] = []
    place = 0
    for route in routes:
        offsets.append(place)
        numbers = {hop.name: n for n, hop in enumerate(route)}
        for number, hop in enumerate(route):
            record = hops[place + number]
            record["pool"] = names.index(hop.pool)
            record["delay_s"] = hop.delay_s
            record["enters"] = not hop.after
            behind = [n - number for n, other in enumerate(route) if hop.name in other.after]
            record["first_follower"], record["followers"] = len(followers), len(behind)
            followers += behind
            record["keeps_kv"] = any(other.kv_from == hop.name for other in route)
            if hop.kv_from is not None:
                set_transfer(record, hop, numbers[hop.kv_from] - number, service, route)
        place += len(route)
    return hops, np.array(followers, np.int32), offsets


def set_transfer(record: Any, hop: Hop, source: int, service: TwinService, route: tuple[Hop, ...]) -> None:
    """How a hop gets its KV cache. Raises InputError where messages would bring it."""
    pool = service.pools[hop.pool]
    if isinstance(pool.pool.queue, JetStreamQueue):
        raise InputError(
            "a KV cache is handed from replica to replica, not through a message queue",
            key=f"service.pools.{hop.pool}.queue", found="jetstream", allowed="no queue, or a router queue",
        )  # fmt: skip
    origin = next(other for other in route if other.name == hop.kv_from)
    transfer = hop.transfer
    token_bytes = transfer.bytes_per_token or service.pools[origin.pool].profile.kv_bytes_per_token
    record["kv_source"] = source
    record["transfer_s"] = transfer.latency_s
    record["transfer_token_s"] = token_bytes / (transfer.gigabytes_per_s * 1e9)


@dataclass(frozen=True)
class Journeys:
    """By request: its first job, how many it has, which of them answers; all empty where every job is a request."""

    first_job: NDArray[np.int32]
    hops_of: NDArray[np.int8]
    answering: NDArray[np.int64]


def job_table(
    trace: Trace, routes: Sequence[tuple[Hop, ...]], offsets: Sequence[int], is_simple: bool
) -> tuple[Any, Journeys]:
    """Every job that may come, nothing having happened to it."""
    none = Journeys(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
    if is_simple:
        jobs = np.empty(len(trace), JOB_DTYPE)
        lay_out(jobs, trace.arrival_s, trace.input_tokens, trace.output_tokens)
        return jobs, none
    class_of = np.zeros(len(trace), np.int8) if trace.class_of is None else trace.class_of
    lengths = np.array([len(route) for route in routes], np.int64)
    hops_of = lengths[class_of]
    ends = np.cumsum(hops_of)
    first_job = (ends - hops_of).astype(np.int32)
    jobs = np.empty(int(ends[-1]), JOB_DTYPE)
    no_tokens = unchanging(np.zeros(0, np.int32))
    lay_out(jobs, unchanging(np.zeros(0)), no_tokens, no_tokens)
    jobs["request"] = np.repeat(np.arange(len(trace), dtype=np.int32), hops_of)
    answering = np.zeros(len(trace), np.int64)
    for number, route in enumerate(routes):
        mine = np.flatnonzero(class_of == number)
        answering[mine] = _answering(route)
        for place, hop in enumerate(route):
            _fill_hop(jobs, first_job[mine] + place, hop, offsets[number] + place, trace, mine)
    return jobs, Journeys(first_job, hops_of.astype(np.int8), answering)


def unchanging(array: NDArray[Any]) -> NDArray[Any]:
    """An array that may not be written, as those of a trace: any other would be another type, compiled for anew."""
    array.flags.writeable = False
    return array


def _answering(route: tuple[Hop, ...]) -> int:
    marked = [place for place, hop in enumerate(route) if hop.answers]
    return marked[0] if marked else len(route) - 1


def _fill_hop(
    jobs: Any, places: NDArray[np.int32], hop: Hop, number: int, trace: Trace, requests: NDArray[np.intp]
) -> None:
    tokens_in, tokens_out = trace.input_tokens[requests], trace.output_tokens[requests]

    def count(rule: Any) -> NDArray[np.int64]:
        exact = np.ceil(rule.of_input * tokens_in + rule.of_output * tokens_out) + rule.fixed
        return np.maximum(1, exact.astype(np.int64))

    inputs = count(hop.input)
    jobs["input_tokens"][places], jobs["output_tokens"][places] = inputs, count(hop.output)
    jobs["hop"][places] = number
    jobs["before"][places] = len(hop.after)
    jobs["kv"][places] = NO_KV if hop.kv_from is None else KV_AWAY
    if hop.sequences > 1 or hop.sequence_tokens is not None:
        each = -(-inputs // hop.sequences)
        jobs["context"][places] = each if hop.sequence_tokens is None else np.minimum(each, hop.sequence_tokens)


# --- nodes and faults


def node_table(nodes: Nodes | None) -> Any:
    """Every node that there may be, tier by tier."""
    if nodes is None:
        return np.zeros(0, NODE_DTYPE)
    table: Any = np.zeros(sum(tier.most_nodes for tier in nodes.tiers), NODE_DTYPE)
    place = 0
    for number, tier in enumerate(nodes.tiers):
        for node in range(tier.most_nodes):
            record = table[place]
            record["tier"], record["gpus"], record["ready_s"] = number, tier.gpus, tier.provision_s
            record["empty_s"] = np.inf
            if node < tier.nodes:
                record["state"], record["free"], record["stays"] = HERE, tier.gpus, 1
            place += 1
    return table


def offline_places(nodes: Nodes | None, room: Room) -> int:
    """How many offline jobs there is room for."""
    return 0 if nodes is None or nodes.offline is None else room.events


_KINDS: Mapping[type[Any], Kind] = {
    fault_values.ReplicaCrash: Kind.REPLICA_CRASH,
    fault_values.NodeGone: Kind.NODE_GONE,
    fault_values.SpotReclaim: Kind.SPOT_RECLAIM,
    fault_values.ScrapesFail: Kind.SCRAPES_FAIL,
    fault_values.MetricsApiError: Kind.METRICS_API_ERROR,
    fault_values.PrometheusDown: Kind.PROMETHEUS_DOWN,
    fault_values.ConsumerMissing: Kind.CONSUMER_MISSING,
    fault_values.StaleLag: Kind.STALE_LAG,
    fault_values.ColdStartNeverEnds: Kind.COLD_START_NEVER_ENDS,
    fault_values.SlowReplica: Kind.SLOW_REPLICA,
}


def fault_table(scenario: Scenario, service: TwinService) -> Any:
    """The faults on the play's clock. Raises InputError for one of a pool, tier or queue that is not there."""
    table: Any = np.zeros(len(scenario.faults), FAULT_DTYPE)
    for number, fault in enumerate(scenario.faults):
        record, key = table[number], f"faults.{number}"
        record["kind"] = int(_KINDS[type(fault)])
        record["at_s"] = scenario.warmup_s + fault.at_s
        record["until_s"] = scenario.warmup_s + fault.until_s if hasattr(fault, "until_s") else np.inf
        record["pod"], record["count"] = NONE, getattr(fault, "count", 1)
        record["value"] = getattr(fault, "factor", 1.0)
        if hasattr(fault, "pool"):
            record["pool"] = _pool_of(fault, service, key)
        if isinstance(fault, fault_values.NodeGone | fault_values.SpotReclaim):
            record["node"] = _node_of(fault, scenario.settings.nodes, key)
        if isinstance(fault, fault_values.SpotReclaim):
            record["value"] = fault.notice_s
            record["until_s"] = record["at_s"] + fault.notice_s
    return table


def _pool_of(fault: Any, service: TwinService, key: str) -> int:
    if fault.pool not in service.pools:
        raise InputError("no such pool", key=f"{key}.pool", found=fault.pool, allowed=", ".join(service.pools))
    queue = service.pools[fault.pool].pool.queue
    if fault.kind in ("consumer_missing", "stale_lag") and not isinstance(queue, JetStreamQueue):
        raise InputError(
            "the pool has no JetStream consumer that could be missing or stale",
            key=f"{key}.pool", found=fault.pool, allowed="a pool with a jetstream queue",
        )  # fmt: skip
    return list(service.pools).index(fault.pool)


def _node_of(fault: Any, nodes: Nodes | None, key: str) -> int:
    if nodes is None:
        raise InputError("there are no nodes that could go", key=key, found=fault.kind, allowed="with cluster.nodes")
    place = 0
    for tier in nodes.tiers:
        if tier.name == fault.tier:
            if fault.node >= tier.most_nodes:
                raise InputError(
                    "the tier has no such node",
                    key=f"{key}.node",
                    found=fault.node,
                    allowed=f"0 to {tier.most_nodes - 1}",
                )
            return place + int(fault.node)
        place += tier.most_nodes
    names = ", ".join(tier.name for tier in nodes.tiers)
    raise InputError("no such tier", key=f"{key}.tier", found=fault.tier, allowed=names)
