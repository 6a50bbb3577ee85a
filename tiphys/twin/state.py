"""The twin's memory: records of pods, pools, jobs, nodes, and flat arrays beside them.

A *request* is a row of the trace, a *job* one visit of it to a pool. Pods are numbered in order of creation over all
pools and their places are never used twice, so a pod's number is its identity in every array. A play that runs out of
room (`FULL`) is begun again with more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]
Records = NDArray[np.void]

NONE = -1
IDLE_S = np.inf

POD_DTYPE = np.dtype(
    [
        ("created_s", "f8"), ("scheduled_s", "f8"), ("running_s", "f8"), ("ready_s", "f8"),
        ("transition_s", "f8"), ("removed_s", "f8"), ("grace_end_s", "f8"), ("gone_s", "f8"),
        ("pool", "i8"), ("number", "i8"), ("engine", "i8"), ("node", "i8"), ("gpus", "i8"), ("restarts", "i8"),
        ("alive", "i1"), ("is_ready", "i1"), ("is_removed", "i1"), ("is_placed", "i1"), ("never_starts", "i1"),
        ("is_first", "i1"),
        # the engine step, or the run of equal steps, that is under way
        ("step_start_s", "f8"), ("step_end_s", "f8"), ("first_step_s", "f8"), ("step_growth_s", "f8"),
        ("steps", "i8"), ("prefill_tokens", "i8"), ("iteration", "i8"), ("slow", "f8"),
        ("outstanding", "i8"), ("decoding", "i8"), ("prefilling", "i8"), ("waiting", "i8"), ("landing", "i8"),
        ("holding", "i8"),
        ("decode_tokens", "i8"), ("prompt_tokens", "i8"), ("reserved_tokens", "i8"), ("held_tokens", "i8"),
        ("wait_head", "i8"), ("wait_tail", "i8"), ("prefill_head", "i8"), ("prefill_tail", "i8"),
        ("land_head", "i8"), ("land_tail", "i8"), ("landed", "i8"),
        # what the exporter counts
        ("busy_s", "f8"), ("scraped_busy_s", "f8"), ("scraped_s", "f8"),
        ("finished", "i8"), ("queue_s", "f8"), ("compute_s", "f8"), ("ttft_s", "f8"), ("itl_s", "f8"), ("e2e_s", "f8"),
        ("cpu_busy_s", "f8"), ("cpu_last_s", "f8"), ("cpu_cores", "f8"),
        # what queue-proxy counts, since the autoscaler's last second
        ("load_s", "f8"), ("load_since_s", "f8"), ("ended", "i8"),
        ("next_scrape_s", "f8"), ("samples", "i8"), ("restarted_row", "i8"), ("is_stale_due", "i1"),
    ],
    align=True,
)  # fmt: skip

JOB_DTYPE = np.dtype(
    [
        ("arrival_s", "f8"), ("first_token_s", "f8"), ("finish_s", "f8"), ("handed_s", "f8"), ("admitted_s", "f8"),
        # when a preempted job was put back, at the end of the step of its last token
        ("preempted_s", "f8"),
        # the job behind this one in the list that holds it
        ("next", "i4"),
        ("input_tokens", "i4"), ("output_tokens", "i4"),
        # prompt tokens still to be prefilled
        ("prefill_left", "i4"),
        # tokens generated before the job was preempted; 0 for a fresh one
        ("generated", "i4"),
        # running number of the admission, which decides who is preempted first
        ("admission", "i4"),
        # tokens that a prompt token attends to; 0: its own prompt's
        ("context", "i4"),
        ("pod", "i4"), ("request", "i4"), ("epoch", "i4"),
        ("hop", "i2"), ("state", "i1"), ("failed", "i1"), ("before", "i1"), ("kv", "i1"),
    ],
    align=True,
)  # fmt: skip
"""`before`: hops that must end before this one begins."""

AHEAD, DELAYED, QUEUED, AT_POD, ENDED = range(5)
"""States of a job: not begun; on its way; in its pool's queue; on a replica; finished, failed or called off."""
NO_KV, KV_AWAY, KV_MOVING, KV_HERE = range(4)
"""Where the KV cache of a prompt is that another replica prefilled: none is, there, under way, fetched."""

POOL_DTYPE = np.dtype(
    [
        ("created", "i8"), ("wanted", "i8"), ("wanted_before", "i8"), ("live", "i8"), ("ready", "i8"),
        ("last_routed", "i8"),
        ("last_place", "i8"),
        ("kv_capacity_tokens", "i8"), ("gpus", "i8"), ("tiers", "i8"),
        ("router", "i8"), ("routing_seed", "i8"),
        ("termination_grace_s", "f8"), ("pending_s", "f8"), ("has_parts", "i1"),
        ("image_pull_s", "f8"), ("load_cold_s", "f8"), ("load_warm_s", "f8"), ("cold_factor", "f8"),
        # what holds jobs while no replica takes them
        ("queue", "i8"), ("in_flight", "i8"), ("max_ack_pending", "i8"), ("timeout_s", "f8"), ("ack_wait_s", "f8"),
        ("queue_head", "i8"), ("queue_tail", "i8"), ("queued", "i8"), ("redelivering", "i8"),
        ("queued_load_s", "f8"), ("queued_since_s", "f8"),
        ("is_proxy", "i1"), ("is_knative", "i1"), ("container_concurrency", "i8"),
        # faults in force
        ("scrapes_fail", "i8"), ("consumer_missing", "i8"), ("lag_stale", "i8"), ("stale_lag", "i8"),
        ("no_start", "i8"),
        ("idle_cores", "f8"), ("busy_cores", "f8"), ("gpu_memory", "f8"),
        ("router_samples", "i8"), ("rule_s", "f8"),
    ],
    align=True,
)  # fmt: skip

NO_QUEUE, INTERCEPTOR, ROUTER_QUEUE, JETSTREAM, ACTIVATOR = range(5)

ENGINE_DTYPE = np.dtype(
    [
        ("decode_s", "f8"), ("kv_token_s", "f8"), ("prefill_token_s", "f8"), ("prefill_pair_s", "f8"),
        ("fixed_s", "f8"), ("max_batched_tokens", "i8"), ("max_num_seqs", "i8"), ("kv_capacity_tokens", "i8"),
        ("no_evict", "i1"), ("jump", "i1"),
    ],
    align=True,
)  # fmt: skip
"""What one replica's scheduler may do, and its step times in seconds; one a pool and tier."""

HOP_DTYPE = np.dtype(
    [
        ("pool", "i8"), ("first_follower", "i8"), ("followers", "i8"), ("kv_source", "i8"), ("keeps_kv", "i1"),
        ("enters", "i1"),
        ("delay_s", "f8"), ("transfer_s", "f8"), ("transfer_token_s", "f8"),
    ],
    align=True,
)  # fmt: skip
"""`followers` are places among the class's hops relative to this one; `kv_source` likewise (0: none)."""

NODE_DTYPE = np.dtype(
    [
        ("tier", "i8"), ("gpus", "i8"), ("free", "i8"), ("state", "i8"), ("stays", "i1"),
        ("ready_s", "f8"), ("empty_s", "f8"), ("held", "i8"), ("promised", "i8"),
    ],
    align=True,
)  # fmt: skip
ABSENT, COMING, HERE, LEAVING = range(4)

FAULT_DTYPE = np.dtype(
    [
        ("kind", "i8"), ("pool", "i8"), ("node", "i8"), ("count", "i8"), ("pod", "i8"),
        ("at_s", "f8"), ("until_s", "f8"), ("value", "f8"),
    ],
    align=True,
)  # fmt: skip

USER_DTYPE = np.dtype([("asking", "i1"), ("left", "i8")], align=True)
EVENT_DTYPE = np.dtype([("time_s", "f8"), ("rank", "i8")], align=True)
OFFLINE_DTYPE = np.dtype(
    [
        ("node", "i8"), ("state", "i8"), ("gpus", "i8"), ("lost", "i8"), ("start_s", "f8"), ("stop_s", "f8"),
        ("gone_s", "f8"),
    ],
    align=True,
)  # fmt: skip

# the world's counters
ARRIVED, UNFINISHED, PODS_CREATED, PREEMPTIONS, ADMISSIONS, EVENTS, FULL, ASKED, ACTIVE_USERS, LEVEL = range(10)
PENDING_PODS, SERVING_GPUS, METRICS_ERRORS, PROMETHEUS_DOWN, POKED, OFFLINE_JOBS = range(10, 16)
COUNTERS = 16
# the world's clocks and sums
HORIZON, LAST_FINISH = range(2)
CLOCKS = 2

FULL_OF_NOTHING, FULL_OF_PODS, FULL_OF_EVENTS, FULL_OF_REQUESTS, FULL_OF_DECISIONS = range(5)


class World(NamedTuple):
    """Everything that a play changes, and what it looks up."""

    pods: Records
    pools: Records
    engines: Records
    jobs: Records
    hops: Records
    followers: Ints
    nodes: Records
    faults: Records
    users: Records
    offline: Records
    events: Records
    """binary heap on (time, rank)"""
    counters: Longs
    clocks: Floats
    trace_s: Floats
    """arrivals of the trace; none in a closed loop"""
    first_job: Ints
    """by request; empty where every request is one job of the same number"""
    jobs_left: Bytes
    """by request, as are the next two; empty likewise"""
    request_failed: Bytes
    hops_of: Bytes
    """jobs that a request consists of"""
    user_of: Ints
    """by request; empty in an open loop"""
    think_s: Floats
    levels_s: Floats
    level_users: Longs
    gemm_s: Floats
    """[engine, tokens] g at 0, 1, ... tokens in the step"""
    finish_iteration: Longs
    """[pod, place] binary heap of the iteration at which each decoding sequence ends"""
    finish_job: Ints
    """[pod, place] the job of that heap entry"""
    steps_tree: Longs
    """tournament over step_end_s"""
    step_keys: Floats
    load_tree: Longs
    """[pool] tournament over the outstanding jobs of ready pods"""
    load_keys: Floats
    timers_tree: Longs
    """tournament over the next lifecycle event or scrape"""
    timer_keys: Floats
    live: Longs
    """[pool] pods in order of creation, without those that are gone and out of every query's sight"""
    ready: Longs
    """[pool] pods that take jobs, in order of creation"""
    histograms: Longs
    """[pod, bucket] latencies by bucket, not cumulative: TTFT, ITL, e2e one after the other"""
    bounds_s: Floats
    """[pool, bucket] upper bounds of the buckets of the three, one after the other, each ended by +Inf"""
    itl_counts: Longs
    """[pool, bin] gaps between tokens, of the scored window"""
    sample_ms: Longs
    """[pod, place] what Prometheus holds: a ring of scrapes a pod, the routers' (one a pool) after the pods"""
    sample_stale: Bytes
    """[pod, place] 1 for a stale marker"""
    samples: Floats
    """[pod, place, column]"""
    connections: Longs
    """[pool] the pod of each keep-alive connection, or NONE"""
    cold_starts_s: Floats
    """[pool, creation number]; with parts the factor on them"""
    scrape_phases_s: Floats
    """[pool, creation number] in [0, interval)"""
    has_image: Bytes
    """[node, pool]"""
    has_loaded: Bytes
    tier_engine: Longs
    """[pool, tier]"""


class Setting(NamedTuple):
    """Constants of a play."""

    warmup_s: float
    latest_s: float
    """the play is broken off here, however much is in flight"""
    scrape_interval_s: float
    retention_s: float
    """how long the samples of a pod that is gone can still be seen"""
    lookback_s: float
    ttft_buckets: int
    """buckets of each histogram that pods keep, +Inf included; 0: not kept"""
    itl_buckets: int
    e2e_buckets: int
    counts_work: bool
    """whether anybody asks for queue and compute times or whole latencies"""
    has_queues: bool
    """whether any pool can hold jobs back"""
    is_simple: bool
    """every request is one job of the same number, and nothing follows its end"""
    has_nodes: bool
    quota_gpus: int
    empty_s: float
    warm_cache: bool
    offline_grace_s: float
    retry_s: float
    ramp_s: float
    requests_per_user: int
    most_requests: int
    draws_more: bool
    """whether users who have asked all of these can be given more; else they leave"""


# columns of a sample; the buckets of the histograms, cumulative, follow
(
    RUNNING, WAITING, KV_USAGE, CONCURRENCY, GPU_UTILIZATION, GPU_MEMORY, FINISHED, QUEUE_S, COMPUTE_S, TTFT_SUM,
    ITL_SUM, E2E_SUM,
) = range(12)  # fmt: skip
BUCKETS = 12


def pod_places(pods: int) -> int:
    """The number of leaves of a tournament over `pods` pods: the next power of two."""
    return 1 << max(1, int(pods - 1).bit_length())


def tree_of_equals(leaves: int) -> Longs:
    """A tournament of equal keys: every node is won by its leftmost leaf."""
    tree = np.empty(2 * leaves, np.int64)
    tree[leaves:] = np.arange(leaves)
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node]
    return tree
