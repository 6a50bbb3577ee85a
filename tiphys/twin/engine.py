"""One replica's engine: continuous batching with chunked prefill and a KV budget, under both admission rules.

A step starts when the one before it ends, or when work arrives at an idle replica. Steps without prefill are taken
many at a time ("jump"): between two finishes nothing changes but the cached tokens, which grow by the number of
decodes, so durations are an arithmetic series.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.domain.recording import ITL_BINS, ITL_BINS_PER_OCTAVE, ITL_FIRST_EXPONENT
from tiphys.twin.events import KV_ARRIVES, WAKES, push_event
from tiphys.twin.exporter import count_latency, count_run, uncount_latency
from tiphys.twin.state import (
    ADMISSIONS,
    AT_POD,
    ENDED,
    HORIZON,
    IDLE_S,
    KV_AWAY,
    KV_HERE,
    KV_MOVING,
    LAST_FINISH,
    NO_KV,
    NONE,
    PREEMPTIONS,
    UNFINISHED,
    Longs,
    Setting,
    World,
)
from tiphys.twin.tournament import set_key

_ITL_SHIFT = 52 - 6
_ITL_FIRST = (1023 + ITL_FIRST_EXPONENT) * ITL_BINS_PER_OCTAVE
_ITL_TOP = ITL_BINS - 1


@inlined_jit
def enqueue(world: World, setting: Setting, pod: int, job: int, now_s: float) -> None:
    """Put a job at the end of a pod's queue; an idle engine starts, a jumping one ends at its next boundary."""
    record, entry = world.pods[pod], world.jobs[job]
    queue_was_empty = record.waiting == 0
    entry.next = NONE
    if queue_was_empty:
        record.wait_head = job
    else:
        world.jobs[record.wait_tail].next = job
    record.wait_tail = job
    record.waiting += 1
    record.outstanding += 1
    entry.prefill_left = entry.input_tokens
    entry.pod = pod
    entry.handed_s = now_s
    entry.state = AT_POD
    if record.step_end_s == IDLE_S:
        begin_step(world, setting, pod, now_s)
    elif queue_was_empty and record.steps > 1:
        # a queue that is not empty is blocked until something finishes, which is where the run of steps ends anyway
        stop_after(world, pod, steps_until_after(world, pod, now_s))


@inlined_jit
def steps_until_after(world: World, pod: int, now_s: float) -> int:
    """The first step of the present run that ends strictly after `now_s` (1 = the first)."""
    record = world.pods[pod]
    elapsed = now_s - record.step_start_s
    a, growth = record.first_step_s, record.step_growth_s
    if growth > 0.0:
        half = a - 0.5 * growth
        steps = int((math.sqrt(half * half + 2.0 * growth * elapsed) - half) / growth) if elapsed > 0.0 else 0
    else:
        steps = int(elapsed / a)
    steps = max(1, steps)
    while steps > 1 and end_of(record.step_start_s, a, growth, steps - 1) > now_s:
        steps -= 1
    while steps < record.steps and end_of(record.step_start_s, a, growth, steps) <= now_s:
        steps += 1
    return steps


@inlined_jit
def end_of(start_s: float, first_s: float, growth_s: float, steps: int) -> float:
    """When `steps` steps have passed of which the first takes `first_s` and each later one `growth_s` more."""
    return start_s + steps * first_s + growth_s * (0.5 * steps * (steps - 1))


@inlined_jit
def stop_after(world: World, pod: int, steps: int) -> None:
    """End the present run after `steps` steps."""
    record = world.pods[pod]
    record.steps = steps
    record.step_end_s = end_of(record.step_start_s, record.first_step_s, record.step_growth_s, steps)
    set_key(world.steps_tree, world.step_keys, pod, record.step_end_s)


@lean_jit
def wake(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """Something about a pod's work has changed: an idle engine looks for a step, a jumping one at its next boundary."""
    record = world.pods[pod]
    if record.step_end_s == IDLE_S:
        begin_step(world, setting, pod, now_s)
    elif record.steps > 1:
        stop_after(world, pod, steps_until_after(world, pod, now_s))


@inlined_jit
def begin_step(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """Start the next step of a pod, or a run of steps without prefill; idle when there is nothing to do."""
    record = world.pods[pod]
    engine = world.engines[record.engine]
    if record.landing > 0:
        take_landed(world, pod)
    if not engine.no_evict and used_tokens(record) > engine.kv_capacity_tokens:
        preempt(world, pod, engine.kv_capacity_tokens, now_s)
    tokens, pairs = 0, 0.0
    if record.prefilling > 0 or record.waiting > 0:
        tokens, pairs = schedule_prefill(world, pod, now_s)
    decodes = record.decoding
    record.step_start_s = now_s
    record.prefill_tokens = tokens
    if tokens == 0 and decodes == 0:
        record.steps = 0
        record.step_end_s = IDLE_S
        set_key(world.steps_tree, world.step_keys, pod, IDLE_S)
        return
    # The reading head of every decode is the token generated last, which is part of decode_tokens.
    record.first_step_s = record.slow * (
        world.gemm_s[record.engine, tokens + decodes]
        + engine.decode_s * decodes
        + engine.kv_token_s * record.decode_tokens
        + engine.prefill_token_s * tokens
        + engine.prefill_pair_s * pairs
        + engine.fixed_s
    )
    record.step_growth_s = record.slow * (engine.kv_token_s * decodes)
    steps = 1
    if tokens == 0 and engine.jump:
        steps = world.finish_iteration[pod, 0] - record.iteration
        if not engine.no_evict:
            room = engine.kv_capacity_tokens - used_tokens(record)
            steps = min(steps, room // decodes + 1)
    record.steps = steps
    record.step_end_s = end_of(now_s, record.first_step_s, record.step_growth_s, steps)
    set_key(world.steps_tree, world.step_keys, pod, record.step_end_s)


@inlined_jit
def used_tokens(record: Any) -> int:
    """KV tokens in use at a step's boundary."""
    return record.decode_tokens + record.prompt_tokens + record.held_tokens


@inlined_jit
def schedule_prefill(world: World, pod: int, now_s: float) -> tuple[int, float]:
    """Give prompts their chunks of this step and admit what fits: (prefill tokens P, sum of p_i * isl_i)."""
    record = world.pods[pod]
    engine = world.engines[record.engine]
    budget = max(0, engine.max_batched_tokens - record.decoding)
    tokens, pairs = 0, 0.0
    job = record.prefill_head
    for _ in range(record.prefilling):
        chunk = take_chunk(world, job, budget - tokens)
        tokens += chunk
        pairs += float(chunk) * attended_tokens(world, job)
        job = world.jobs[job].next
    while record.waiting > 0 and record.decoding + record.prefilling + record.landing < engine.max_num_seqs:
        job = record.wait_head
        entry = world.jobs[job]
        if entry.kv == KV_AWAY and not kv_is_held(world, job):
            entry.kv = NO_KV
        if (tokens >= budget and entry.kv != KV_AWAY) or not fits(world, record, engine, job):
            break
        if entry.kv == KV_AWAY:
            admit_transfer(world, pod, job, now_s)
        else:
            admit(world, pod, job, now_s)
            chunk = take_chunk(world, job, budget - tokens)
            tokens += chunk
            pairs += float(chunk) * attended_tokens(world, job)
    return tokens, pairs


@inlined_jit
def take_chunk(world: World, job: int, budget: int) -> int:
    """As much of a prompt as the budget allows."""
    entry = world.jobs[job]
    chunk = min(entry.prefill_left, budget)
    entry.prefill_left -= chunk
    return chunk


@inlined_jit
def prompt_tokens(world: World, job: int) -> int:
    """Tokens to prefill: the prompt, and after a preemption what had been generated too."""
    return world.jobs[job].input_tokens + world.jobs[job].generated


@inlined_jit
def attended_tokens(world: World, job: int) -> int:
    """Tokens of the sequence that a prompt token belongs to."""
    context = world.jobs[job].context
    return context if context > 0 else prompt_tokens(world, job)


@inlined_jit
def fits(world: World, record: Any, engine: Any, job: int) -> bool:
    """Whether the KV cache has room for a job under the engine's admission rule."""
    if engine.no_evict:
        wanted = world.jobs[job].input_tokens + world.jobs[job].output_tokens
        return record.reserved_tokens + wanted <= engine.kv_capacity_tokens
    return used_tokens(record) + prompt_tokens(world, job) <= engine.kv_capacity_tokens


@inlined_jit
def take_place(world: World, pod: int, job: int, now_s: float) -> None:
    """The head of the queue is admitted: it counts as running and its KV is spoken for."""
    record, entry = world.pods[pod], world.jobs[job]
    record.wait_head = entry.next
    record.waiting -= 1
    entry.next = NONE
    record.prompt_tokens += prompt_tokens(world, job)
    record.reserved_tokens += entry.input_tokens + entry.output_tokens
    world.counters[ADMISSIONS] += 1
    entry.admission = world.counters[ADMISSIONS]
    if entry.admitted_s == IDLE_S:
        entry.admitted_s = now_s


@inlined_jit
def admit(world: World, pod: int, job: int, now_s: float) -> None:
    """Move the head of the queue to the end of the prefilling list."""
    take_place(world, pod, job, now_s)
    append_prefill(world, pod, job)


@inlined_jit
def append_prefill(world: World, pod: int, job: int) -> None:
    """Put a job at the end of the prefilling list."""
    record = world.pods[pod]
    if record.prefilling == 0:
        record.prefill_head = job
    else:
        world.jobs[record.prefill_tail].next = job
    record.prefill_tail = job
    world.jobs[job].next = NONE
    record.prefilling += 1


# --- prompts that another replica prefilled


@inlined_jit
def kv_source(world: World, job: int) -> int:
    """The job that prefilled this one's prompt."""
    return job + world.hops[world.jobs[job].hop].kv_source


@lean_jit
def kv_is_held(world: World, job: int) -> bool:
    """Whether the replica that prefilled a job's prompt still has its KV cache."""
    source = world.jobs[kv_source(world, job)]
    return source.pod != NONE and world.pods[source.pod].restarts == source.epoch


@lean_jit
def admit_transfer(world: World, pod: int, job: int, now_s: float) -> None:
    """The head of the queue is admitted and its KV cache begins to come over."""
    record, entry = world.pods[pod], world.jobs[job]
    take_place(world, pod, job, now_s)
    entry.prefill_left = 0
    entry.kv = KV_MOVING
    if record.landing == 0:
        record.land_head = job
    else:
        world.jobs[record.land_tail].next = job
    record.land_tail = job
    record.landing += 1
    hop = world.hops[entry.hop]
    arrival_s = now_s + (hop.transfer_s + entry.input_tokens * hop.transfer_token_s)
    push_event(world.events, world.counters, arrival_s, KV_ARRIVES, job)


@lean_jit
def release_kv(world: World, job: int, now_s: float) -> None:
    """The KV cache that a replica holds for a job elsewhere is not needed any more."""
    source = world.jobs[kv_source(world, job)]
    pod = source.pod
    record = world.pods[pod]
    record.held_tokens -= source.input_tokens
    record.reserved_tokens -= source.input_tokens + source.output_tokens
    record.holding -= 1
    push_event(world.events, world.counters, now_s, WAKES, pod)


@lean_jit
def take_landed(world: World, pod: int) -> None:
    """Those whose KV cache has come over decode from now on."""
    record = world.pods[pod]
    before, job = NONE, record.land_head
    for _ in range(record.landing):
        entry = world.jobs[job]
        behind = entry.next
        if entry.kv == KV_HERE:
            unlink_landing(record, world.jobs, before, job)
            record.prompt_tokens -= entry.input_tokens + 1
            record.decode_tokens += entry.input_tokens + 1
            entry.kv = NO_KV
            add_decode(world, pod, record.iteration + entry.output_tokens - 1, job)
            entry.next = record.landed
            record.landed = job
        else:
            before = job
        job = behind


@lean_jit
def unlink_landing(record: Any, jobs: Any, before: int, job: int) -> None:
    """Take a job out of the list of those whose KV cache is under way; `before` is the one before it."""
    behind = jobs[job].next
    if before == NONE:
        record.land_head = behind
    else:
        jobs[before].next = behind
    if record.land_tail == job:
        record.land_tail = before
    record.landing -= 1


@lean_jit
def landing_before(world: World, pod: int, job: int) -> int:
    """The job before one in the landing list, or NONE."""
    before, other = NONE, world.pods[pod].land_head
    while other != job:
        before, other = other, world.jobs[other].next
    return before


@lean_jit
def youngest_landing(world: World, pod: int) -> int:
    """The job in transfer that was admitted last, or NONE."""
    best, best_admission = NONE, NONE
    job = world.pods[pod].land_head
    for _ in range(world.pods[pod].landing):
        if world.jobs[job].admission > best_admission:
            best, best_admission = job, world.jobs[job].admission
        job = world.jobs[job].next
    return best


# --- preemption


@lean_jit
def preempt(world: World, pod: int, capacity: int, now_s: float) -> None:
    """Put the most recently admitted jobs back to the front of the queue until the KV cache holds the rest."""
    record = world.pods[pod]
    while used_tokens(record) > capacity and record.decoding + record.prefilling + record.landing > 0:
        # the three kinds of running jobs lie apart: compare the youngest of each
        prompt = record.prefill_tail if record.prefilling > 0 else NONE
        moving = youngest_landing(world, pod)
        place = youngest_decode(world, pod)
        decode = world.finish_job[pod, place] if place != NONE else NONE
        job = younger(world.jobs, younger(world.jobs, prompt, moving), decode)
        if job == decode:
            left = world.finish_iteration[pod, place] - record.iteration
            world.jobs[job].generated = world.jobs[job].output_tokens - left
            world.jobs[job].preempted_s = now_s
            remove_decode(world, pod, place)
            record.decode_tokens -= prompt_tokens(world, job)
        else:
            if job == prompt:
                drop_last_prefill(record, world.jobs)
            else:
                unlink_landing(record, world.jobs, landing_before(world, pod, job), job)
                if kv_is_held(world, job):
                    release_kv(world, job, now_s)
                world.jobs[job].kv = NO_KV
            record.prompt_tokens -= prompt_tokens(world, job)
        put_back(world, pod, job)


@inlined_jit
def younger(jobs: Any, one: int, other: int) -> int:
    """The one of two jobs that was admitted later; either may be NONE."""
    if one == NONE or other == NONE:
        return max(one, other)
    return one if jobs[one].admission > jobs[other].admission else other


@lean_jit
def put_back(world: World, pod: int, job: int) -> None:
    """A job that was running waits again, at the front."""
    record, entry = world.pods[pod], world.jobs[job]
    record.reserved_tokens -= entry.input_tokens + entry.output_tokens
    entry.prefill_left = prompt_tokens(world, job)
    entry.next = record.wait_head if record.waiting > 0 else NONE
    if record.waiting == 0:
        record.wait_tail = job
    record.wait_head = job
    record.waiting += 1
    world.counters[PREEMPTIONS] += 1


@lean_jit
def youngest_decode(world: World, pod: int) -> int:
    """The heap place of the decoding sequence that was admitted last, or NONE."""
    best, best_admission = NONE, NONE
    for place in range(world.pods[pod].decoding):
        admission = world.jobs[world.finish_job[pod, place]].admission
        if admission > best_admission:
            best, best_admission = place, admission
    return best


@lean_jit
def drop_last_prefill(record: Any, jobs: Any) -> None:
    """Take the last job off the prefilling list."""
    last = record.prefill_tail
    if record.prefill_head == last:
        record.prefill_head = NONE
        record.prefill_tail = NONE
    else:
        job = record.prefill_head
        while jobs[job].next != last:
            job = jobs[job].next
        jobs[job].next = NONE
        record.prefill_tail = job
    record.prefilling -= 1


# --- the end of a step


@inlined_jit
def end_steps(world: World, setting: Setting, pod: int, now_s: float) -> int:
    """What the end of a pod's step (or run of steps) brings: tokens, finishes, first tokens.

    Returns the head of the list of jobs that ended, chained by `next`, where something may follow a job's end; NONE
    where nothing does.
    """
    record = world.pods[pod]
    steps = record.steps
    record.iteration += steps
    record.busy_s += now_s - record.step_start_s
    counts_itl = record.step_start_s >= setting.warmup_s and record.step_start_s <= world.clocks[HORIZON]
    ended = NONE
    if record.decoding > 0:
        record.decode_tokens += record.decoding * steps
        if counts_itl:
            count_gaps(world.itl_counts[record.pool], record.first_step_s, record.step_growth_s, steps, record.decoding)
        if setting.itl_buckets > 0:
            count_run(world, setting, pod, steps)
        if record.landed != NONE:
            lengthen_first_gaps(world, setting, pod, counts_itl)
        ended = finish_decodes(world, setting, pod, now_s)
    if record.prefill_tokens > 0:
        ended = end_prefills(world, setting, pod, now_s, counts_itl, ended)
    return ended


@lean_jit
def lengthen_first_gaps(world: World, setting: Setting, pod: int, counts_itl: bool) -> None:
    """The first gap of a job whose KV cache had come over began there, not with the step that ended it."""
    record = world.pods[pod]
    job = record.landed
    record.landed = NONE
    step_s = record.first_step_s
    while job != NONE:
        entry = world.jobs[job]
        gap_s = record.step_start_s + step_s - entry.first_token_s
        if counts_itl:
            world.itl_counts[record.pool, gap_bin(step_s)] -= 1
            world.itl_counts[record.pool, gap_bin(gap_s)] += 1
        if setting.itl_buckets > 0:
            record.itl_s += gap_s - step_s
            count_latency(world, pod, setting.ttft_buckets, setting.itl_buckets, gap_s)
            uncount_latency(world, pod, setting.ttft_buckets, setting.itl_buckets, step_s)
        job = entry.next


@inlined_jit
def finish_decodes(world: World, setting: Setting, pod: int, now_s: float) -> int:
    """Take every sequence off the heap whose last token came at this iteration: those that ended, chained."""
    record = world.pods[pod]
    ended = NONE
    while record.decoding > 0 and world.finish_iteration[pod, 0] <= record.iteration:
        job = world.finish_job[pod, 0]
        remove_decode(world, pod, 0)
        tokens = world.jobs[job].input_tokens + world.jobs[job].output_tokens
        record.decode_tokens -= tokens
        record.reserved_tokens -= tokens
        finish(world, setting, pod, job, now_s)
        if not setting.is_simple:
            world.jobs[job].next = ended
            ended = job
    return ended


@inlined_jit
def finish(world: World, setting: Setting, pod: int, job: int, now_s: float) -> None:
    """A job has all its tokens."""
    record, entry = world.pods[pod], world.jobs[job]
    entry.finish_s = now_s
    entry.state = ENDED
    world.clocks[LAST_FINISH] = now_s
    world.counters[UNFINISHED] -= 1
    record.outstanding -= 1
    record.finished += 1
    if setting.counts_work:
        record.queue_s += entry.admitted_s - entry.handed_s
        record.compute_s += now_s - entry.admitted_s
        record.e2e_s += now_s - entry.arrival_s
    if setting.e2e_buckets > 0:
        first = setting.ttft_buckets + setting.itl_buckets
        count_latency(world, pod, first, setting.e2e_buckets, now_s - entry.arrival_s)


@inlined_jit
def end_prefills(world: World, setting: Setting, pod: int, now_s: float, counts_itl: bool, ended: int) -> int:
    """First tokens of the prompts that were completed in this step; what ended with them is added to the chain."""
    record = world.pods[pod]
    while record.prefilling > 0 and world.jobs[record.prefill_head].prefill_left == 0:
        job = record.prefill_head
        entry = world.jobs[job]
        record.prefill_head = entry.next
        record.prefilling -= 1
        record.prompt_tokens -= prompt_tokens(world, job)
        if entry.generated == 0:
            first_token(world, setting, pod, job, now_s)
        else:
            gap_s = now_s - entry.preempted_s
            if counts_itl:
                world.itl_counts[record.pool, gap_bin(gap_s)] += 1
            if setting.itl_buckets > 0:
                record.itl_s += gap_s
                count_latency(world, pod, setting.ttft_buckets, setting.itl_buckets, gap_s)
        generated = entry.generated + 1
        left = entry.output_tokens - generated
        if left > 0:
            record.decode_tokens += entry.input_tokens + generated
            add_decode(world, pod, record.iteration + left, job)
            continue
        if not setting.is_simple and world.hops[entry.hop].keeps_kv:
            record.held_tokens += entry.input_tokens
            record.holding += 1
            entry.epoch = record.restarts
        else:
            record.reserved_tokens -= entry.input_tokens + entry.output_tokens
        finish(world, setting, pod, job, now_s)
        if not setting.is_simple:
            entry.next = ended
            ended = job
    if record.prefilling == 0:
        record.prefill_head = NONE
        record.prefill_tail = NONE
    return ended


@inlined_jit
def first_token(world: World, setting: Setting, pod: int, job: int, now_s: float) -> None:
    """A job's first token is out."""
    entry = world.jobs[job]
    entry.first_token_s = now_s
    if setting.ttft_buckets > 0:
        world.pods[pod].ttft_s += now_s - entry.arrival_s
        count_latency(world, pod, 0, setting.ttft_buckets, now_s - entry.arrival_s)


@inlined_jit
def gap_bin(gap_s: float) -> np.int64:
    """The logarithmic bin of an inter-token gap: exponent and leading mantissa bits of the double."""
    bits = np.float64(gap_s).view(np.int64)
    return np.int64(max(np.int64(0), min(np.int64(_ITL_TOP), (bits >> _ITL_SHIFT) - _ITL_FIRST)))


@inlined_jit
def count_gaps(counts: Longs, first_s: float, growth_s: float, steps: int, sequences: int) -> None:
    """Count the token gaps of a run of steps whose durations grow by `growth_s`: one bin after the other, not step by
    step.
    """
    low = gap_bin(first_s)
    if low == gap_bin(first_s + growth_s * (steps - 1)):
        counts[low] += steps * sequences
        return
    done = 0
    while done < steps:
        low = gap_bin(first_s + growth_s * done)
        # the upper end of a bin, from its bits
        edge_s = np.int64((low + 1 + _ITL_FIRST) << _ITL_SHIFT).view(np.float64)
        until = steps if low == _ITL_TOP else min(steps, int((edge_s - first_s) / growth_s) + 1)
        until = max(until, done + 1)
        counts[low] += (until - done) * sequences
        done = until


@inlined_jit
def add_decode(world: World, pod: int, iteration: int, job: int) -> None:
    """Push a sequence that ends at `iteration` onto the pod's heap."""
    key, value = world.finish_iteration[pod], world.finish_job[pod]
    place = world.pods[pod].decoding
    world.pods[pod].decoding += 1
    while place > 0:
        parent = (place - 1) >> 1
        if key[parent] <= iteration:
            break
        key[place] = key[parent]
        value[place] = value[parent]
        place = parent
    key[place] = iteration
    value[place] = job


@inlined_jit
def remove_decode(world: World, pod: int, place: int) -> None:
    """Take one place out of the pod's heap."""
    key, value = world.finish_iteration[pod], world.finish_job[pod]
    last = world.pods[pod].decoding - 1
    world.pods[pod].decoding = last
    if place == last:
        return
    moved, job = key[last], value[last]
    while place > 0 and key[(place - 1) >> 1] > moved:
        key[place] = key[(place - 1) >> 1]
        value[place] = value[(place - 1) >> 1]
        place = (place - 1) >> 1
    while True:
        child = 2 * place + 1
        if child >= last:
            break
        if child + 1 < last and key[child + 1] < key[child]:
            child += 1
        if key[child] >= moved:
            break
        key[place] = key[child]
        value[place] = value[child]
        place = child
    key[place] = moved
    value[place] = job


@lean_jit
def silence(world: World, pod: int) -> None:
    """The engine of a pod is no more: nothing runs, nothing is held."""
    record = world.pods[pod]
    record.outstanding = 0
    record.decoding = 0
    record.prefilling = 0
    record.waiting = 0
    record.landing = 0
    record.holding = 0
    record.decode_tokens = 0
    record.prompt_tokens = 0
    record.reserved_tokens = 0
    record.held_tokens = 0
    record.steps = 0
    record.prefill_tokens = 0
    record.prefill_head = NONE
    record.prefill_tail = NONE
    record.landed = NONE
    record.step_end_s = IDLE_S
    set_key(world.steps_tree, world.step_keys, pod, IDLE_S)
