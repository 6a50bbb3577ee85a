"""The twin's memory: one record a pod, and flat arrays beside it.

Pods are numbered in order of creation and their places are never used twice, so a pod's number is its identity in
every array. The play is begun again with more places when they run out (`OUT_OF_PODS`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Records = NDArray[np.void]

NONE = -1
IDLE_S = np.inf

POD_DTYPE = np.dtype(
    [
        ("created_s", "f8"), ("ready_s", "f8"), ("removed_s", "f8"), ("gone_s", "f8"),
        ("alive", "i1"), ("is_ready", "i1"), ("is_removed", "i1"),
        # the engine step, or the run of equal steps, that is under way
        ("step_start_s", "f8"), ("step_end_s", "f8"), ("first_step_s", "f8"), ("step_growth_s", "f8"),
        ("steps", "i8"), ("prefill_tokens", "i8"), ("iteration", "i8"),
        ("decoding", "i8"), ("prefilling", "i8"), ("waiting", "i8"),
        ("decode_tokens", "i8"), ("prompt_tokens", "i8"), ("reserved_tokens", "i8"),
        ("wait_head", "i4"), ("wait_tail", "i4"), ("prefill_head", "i4"), ("prefill_tail", "i4"),
        ("next_scrape_s", "f8"), ("stale_s", "f8"), ("samples", "i8"),
    ],
    align=True,
)  # fmt: skip


class EngineLimits(NamedTuple):
    """What one replica's scheduler may do; step times in seconds."""

    gemm_s: Floats
    """g at 0, 1, ... tokens in the step"""
    decode_s: float
    kv_token_s: float
    prefill_token_s: float
    prefill_pair_s: float
    fixed_s: float
    max_batched_tokens: int
    max_num_seqs: int
    kv_capacity_tokens: int
    no_evict: bool
    jump: bool


class Requests(NamedTuple):
    """Per request, in order of arrival."""

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    first_token_s: Floats
    finish_s: Floats
    failed: NDArray[np.int8]
    next: Ints
    """the request behind this one in the list that holds it"""
    prefill_left: Ints
    """prompt tokens still to be prefilled"""
    generated: Ints
    """tokens generated before the request was preempted; 0 for a fresh one"""
    admission: Ints
    """running number of the admission, which decides who is preempted first"""
    pod: Ints
    preempted_s: Floats
    """when a preempted request was put back, at the end of the step of its last token"""


class Fleet(NamedTuple):
    """The pods of one pool."""

    pods: Records
    finish_iteration: Longs
    """[pod, place] binary heap of the iteration at which each decoding sequence ends"""
    finish_request: Ints
    """[pod, place] the request of that heap entry"""
    steps_tree: Longs
    """tournament over step_end_s"""
    step_keys: Floats
    load_tree: Longs
    """tournament over the outstanding requests of ready pods"""
    load_keys: Floats
    timers_tree: Longs
    """tournament over the next lifecycle event or scrape"""
    timer_keys: Floats
    ttft_counts: Longs
    """[pod, bucket] first tokens by TTFT bucket, not cumulative"""
    itl_counts: Longs
    counters: Longs
    """by the indices below"""
    live: Longs
    """pods in order of creation, without those that are gone and out of every query's sight; LIVE of them"""
    ready: Longs
    """pods that take requests, in order of creation; READY of them"""


PODS_CREATED, PREEMPTIONS, UNFINISHED, WANTED, ADMISSIONS, LAST_ROUTED, LIVE, READY, ARRIVED = range(9)
COUNTERS = 9


class Samples(NamedTuple):
    """What Prometheus holds: a ring of scrapes a pod."""

    time_s: Floats
    """[pod, place]"""
    levels: Floats
    """[pod, place, running | waiting | kv usage]"""
    ttft: Longs
    """[pod, place, bucket] cumulative counts, +Inf last"""


def pod_places(pods: int) -> int:
    """The number of leaves of a tournament over `pods` pods: the next power of two."""
    return 1 << max(1, int(pods - 1).bit_length())


def new_fleet(pods: int, max_num_seqs: int, ttft_buckets: int, itl_bins: int) -> Fleet:
    """An empty fleet with room for `pods` pods."""
    leaves = pod_places(pods)
    records: Any = np.zeros(leaves, POD_DTYPE)
    for name in ("ready_s", "removed_s", "gone_s", "step_end_s", "next_scrape_s", "stale_s"):
        records[name] = np.inf
    for name in ("wait_head", "wait_tail", "prefill_head", "prefill_tail"):
        records[name] = NONE

    counters = np.zeros(COUNTERS, np.int64)
    counters[LAST_ROUTED] = NONE

    def tree() -> Longs:
        return _leaves_first(leaves)

    def keys() -> Floats:
        return np.full(leaves, np.inf)

    return Fleet(
        records, np.empty((leaves, max_num_seqs), np.int64), np.empty((leaves, max_num_seqs), np.int32),
        tree(), keys(), tree(), keys(), tree(), keys(),
        np.zeros((leaves, ttft_buckets), np.int64), np.zeros(itl_bins, np.int64), counters,
        np.empty(leaves, np.int64), np.empty(leaves, np.int64),
    )  # fmt: skip


def _leaves_first(leaves: int) -> Longs:
    """A tournament of equal keys: every node is won by its leftmost leaf."""
    tree = np.empty(2 * leaves, np.int64)
    tree[leaves:] = np.arange(leaves)
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node]
    return tree
