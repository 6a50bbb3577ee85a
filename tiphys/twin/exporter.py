"""What a pod's exporter counts, and what a scrape of it stores."""

from __future__ import annotations

import math

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.promql import milliseconds
from tiphys.twin.state import (
    BUCKETS,
    COMPUTE_S,
    CONCURRENCY,
    E2E_SUM,
    FINISHED,
    GPU_MEMORY,
    GPU_UTILIZATION,
    IDLE_S,
    ITL_SUM,
    KV_USAGE,
    QUEUE_S,
    RUNNING,
    TTFT_SUM,
    WAITING,
    Setting,
    World,
)


@inlined_jit
def count_latency(world: World, pod: int, first: int, buckets: int, seconds: float) -> None:
    """Add an observation to the histogram of a pod that begins at `first`."""
    bucket = first
    top = first + buckets - 1
    pool = world.pods[pod].pool
    while bucket < top and seconds > world.bounds_s[pool, bucket]:
        bucket += 1
    world.histograms[pod, bucket] += 1


@lean_jit
def uncount_latency(world: World, pod: int, first: int, buckets: int, seconds: float) -> None:
    """Take an observation back out of a pod's histogram."""
    bucket = first
    while bucket < first + buckets - 1 and seconds > world.bounds_s[world.pods[pod].pool, bucket]:
        bucket += 1
    world.histograms[pod, bucket] -= 1


@lean_jit
def count_run(world: World, setting: Setting, pod: int, steps: int) -> None:
    """Add the token gaps of the first `steps` steps of the present run to the pod's histogram, in closed form."""
    record = world.pods[pod]
    first_s, growth_s, sequences = record.first_step_s, record.step_growth_s, record.decoding
    record.itl_s += sequences * (steps * first_s + growth_s * (0.5 * steps * (steps - 1)))
    done, bucket = 0, setting.ttft_buckets
    top = setting.ttft_buckets + setting.itl_buckets - 1
    while done < steps:
        gap_s = first_s + growth_s * done
        while bucket < top and gap_s > world.bounds_s[record.pool, bucket]:
            bucket += 1
        until = steps
        bound_s = world.bounds_s[record.pool, bucket]
        if bound_s < IDLE_S and growth_s > 0.0:
            until = min(steps, max(done + 1, steps_up_to(first_s, growth_s, bound_s)))
        world.histograms[pod, bucket] += (until - done) * sequences
        done = until


@inlined_jit
def steps_up_to(first_s: float, growth_s: float, bound_s: float) -> int:
    """How many steps of a growing run last no longer than a bound."""
    steps = int((bound_s - first_s) / growth_s) + 1
    while steps > 0 and first_s + growth_s * (steps - 1) > bound_s:
        steps -= 1
    while first_s + growth_s * steps <= bound_s:
        steps += 1
    return steps


@lean_jit
def steps_done(world: World, pod: int, now_s: float) -> int:
    """Steps of the present run that have ended by `now_s`."""
    record = world.pods[pod]
    elapsed = now_s - record.step_start_s
    if elapsed <= 0.0:
        return 0
    a, growth = record.first_step_s, record.step_growth_s
    half = a - 0.5 * growth
    steps = int(2.0 * elapsed / (math.sqrt(half * half + 2.0 * growth * elapsed) + half))
    return max(0, min(steps, record.steps - 1))


@lean_jit
def tokens_held(world: World, pod: int, now_s: float) -> int:
    """KV tokens in use now, a run of steps under way taken into account."""
    record = world.pods[pod]
    held = record.decode_tokens + record.prompt_tokens + record.held_tokens
    if record.steps > 1 and record.decoding > 0:
        held += record.decoding * (steps_done(world, pod, now_s))
    return held


@lean_jit
def busy_until(world: World, pod: int, now_s: float) -> float:
    """Seconds in which a step ran, up to now."""
    record = world.pods[pod]
    under_way_s = now_s - record.step_start_s if record.step_end_s != IDLE_S else 0.0
    return record.busy_s + under_way_s


@lean_jit
def next_place(world: World, pod: int, now_s: float) -> int:
    """The place of a pod's next sample, its time written."""
    record = world.pods[pod]
    place = record.samples % world.sample_ms.shape[1]
    record.samples += 1
    world.sample_ms[pod, place] = milliseconds(now_s)
    world.sample_stale[pod, place] = 0
    return place


@lean_jit
def mark_stale(world: World, pod: int, now_s: float) -> None:
    """A scrape has failed: the series of the pod end here for now."""
    last = world.pods[pod].samples - 1
    if last >= 0 and world.sample_stale[pod, last % world.sample_ms.shape[1]] == 0:
        place = next_place(world, pod, now_s)
        world.sample_stale[pod, place] = 1


@lean_jit
def scrape(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """Store what a pod's exporter shows now."""
    record = world.pods[pod]
    engine = world.engines[record.engine]
    place = next_place(world, pod, now_s)
    row = world.samples[pod, place]
    held = record.reserved_tokens if engine.no_evict else tokens_held(world, pod, now_s)
    row[RUNNING] = record.decoding + record.prefilling + record.landing
    row[WAITING] = record.waiting
    row[KV_USAGE] = held / engine.kv_capacity_tokens
    row[CONCURRENCY] = record.outstanding
    busy_s = busy_until(world, pod, now_s)
    elapsed_s = now_s - record.scraped_s
    share = (busy_s - record.scraped_busy_s) / elapsed_s if elapsed_s > 0.0 else 0.0
    # the driver tells whole percents
    row[GPU_UTILIZATION] = math.floor(share * 100.0 + 0.5) / 100.0
    record.scraped_busy_s = busy_s
    record.scraped_s = now_s
    row[GPU_MEMORY] = world.pools[record.pool].gpu_memory
    row[FINISHED] = record.finished
    row[QUEUE_S] = record.queue_s
    row[COMPUTE_S] = record.compute_s
    row[TTFT_SUM] = record.ttft_s
    row[E2E_SUM] = record.e2e_s
    if setting.itl_buckets > 0:
        scrape_gaps(world, setting, pod, place, now_s)
    accumulate(world, pod, place, 0, setting.ttft_buckets)
    accumulate(world, pod, place, setting.ttft_buckets + setting.itl_buckets, setting.e2e_buckets)


@lean_jit
def scrape_gaps(world: World, setting: Setting, pod: int, place: int, now_s: float) -> None:
    """The histogram of token gaps with those of the run under way that have passed."""
    record = world.pods[pod]
    first, buckets = setting.ttft_buckets, setting.itl_buckets
    row = world.samples[pod, place]
    row[ITL_SUM] = record.itl_s
    accumulate(world, pod, place, first, buckets)
    if record.steps <= 1 or record.decoding == 0:
        return
    done = steps_done(world, pod, now_s)
    first_s, growth_s = record.first_step_s, record.step_growth_s
    row[ITL_SUM] += record.decoding * (done * first_s + growth_s * (0.5 * done * (done - 1)))
    for bucket in range(buckets):
        within = done
        bound_s = world.bounds_s[record.pool, first + bucket]
        if bound_s < IDLE_S:
            if growth_s > 0.0:
                within = max(0, min(done, steps_up_to(first_s, growth_s, bound_s)))
            elif first_s > bound_s:
                within = 0
        row[BUCKETS + first + bucket] += within * record.decoding


@lean_jit
def accumulate(world: World, pod: int, place: int, first: int, buckets: int) -> None:
    """Store a histogram as cumulative counts."""
    total = 0
    for bucket in range(first, first + buckets):
        total += world.histograms[pod, bucket]
        world.samples[pod, place, BUCKETS + bucket] = total
