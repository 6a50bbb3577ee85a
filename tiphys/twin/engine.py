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
from tiphys.twin.state import (
    ADMISSIONS,
    IDLE_S,
    NONE,
    PREEMPTIONS,
    UNFINISHED,
    EngineLimits,
    Fleet,
    Floats,
    Longs,
    Requests,
)
from tiphys.twin.tournament import set_key

_ITL_SHIFT = 52 - 6
_ITL_FIRST = (1023 + ITL_FIRST_EXPONENT) * ITL_BINS_PER_OCTAVE
_ITL_TOP = ITL_BINS - 1


@inlined_jit
def enqueue(fleet: Fleet, requests: Requests, limits: EngineLimits, pod: int, request: int, now_s: float) -> None:
    """Put an arriving request at the end of a pod's queue; an idle engine starts, a jumping one ends at its next
    boundary.
    """
    record = fleet.pods[pod]
    queue_was_empty = record.waiting == 0
    requests.next[request] = NONE
    if queue_was_empty:
        record.wait_head = request
    else:
        requests.next[record.wait_tail] = request
    record.wait_tail = request
    record.waiting += 1
    requests.prefill_left[request] = requests.input_tokens[request]
    requests.pod[request] = pod
    if record.step_end_s == IDLE_S:
        begin_step(fleet, requests, limits, pod, now_s)
    elif queue_was_empty and record.steps > 1:
        # a queue that is not empty is blocked until something finishes, which is where the run of steps ends anyway
        stop_after(fleet, pod, steps_until_after(fleet, pod, now_s))


@inlined_jit
def steps_until_after(fleet: Fleet, pod: int, now_s: float) -> int:
    """The first step of the present run that ends strictly after `now_s` (1 = the first)."""
    record = fleet.pods[pod]
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
def stop_after(fleet: Fleet, pod: int, steps: int) -> None:
    """End the present run after `steps` steps."""
    record = fleet.pods[pod]
    record.steps = steps
    record.step_end_s = end_of(record.step_start_s, record.first_step_s, record.step_growth_s, steps)
    set_key(fleet.steps_tree, fleet.step_keys, pod, record.step_end_s)


@inlined_jit
def begin_step(fleet: Fleet, requests: Requests, limits: EngineLimits, pod: int, now_s: float) -> None:
    """Start the next step of a pod, or a run of steps without prefill; idle when there is nothing to do."""
    record = fleet.pods[pod]
    if not limits.no_evict and record.decode_tokens + record.prompt_tokens > limits.kv_capacity_tokens:
        preempt(fleet, requests, limits, pod, now_s)
    tokens, pairs = 0, 0.0
    if record.prefilling > 0 or record.waiting > 0:
        tokens, pairs = schedule_prefill(fleet, requests, limits, pod)
    decodes = record.decoding
    record.step_start_s = now_s
    record.prefill_tokens = tokens
    if tokens == 0 and decodes == 0:
        record.steps = 0
        record.step_end_s = IDLE_S
        set_key(fleet.steps_tree, fleet.step_keys, pod, IDLE_S)
        return
    # The reading head of every decode is the token generated last, which is part of decode_tokens.
    record.first_step_s = (
        limits.gemm_s[tokens + decodes]
        + limits.decode_s * decodes
        + limits.kv_token_s * record.decode_tokens
        + limits.prefill_token_s * tokens
        + limits.prefill_pair_s * pairs
        + limits.fixed_s
    )
    record.step_growth_s = limits.kv_token_s * decodes
    steps = 1
    if tokens == 0 and limits.jump:
        steps = fleet.finish_iteration[pod, 0] - record.iteration
        if not limits.no_evict:
            room = limits.kv_capacity_tokens - record.decode_tokens - record.prompt_tokens
            steps = min(steps, room // decodes + 1)
    record.steps = steps
    record.step_end_s = end_of(now_s, record.first_step_s, record.step_growth_s, steps)
    set_key(fleet.steps_tree, fleet.step_keys, pod, record.step_end_s)


@inlined_jit
def schedule_prefill(fleet: Fleet, requests: Requests, limits: EngineLimits, pod: int) -> tuple[int, float]:
    """Give prompts their chunks of this step and admit what fits: (prefill tokens P, sum of p_i * isl_i)."""
    record = fleet.pods[pod]
    whole = max(0, limits.max_batched_tokens - record.decoding)
    budget, pairs = whole, 0.0
    request = record.prefill_head
    while request != NONE and budget > 0:
        chunk = deal(requests, request, budget)
        budget -= chunk
        pairs += float(chunk) * prompt_tokens(requests, request)
        request = requests.next[request]
    while record.waiting > 0 and budget > 0 and record.decoding + record.prefilling < limits.max_num_seqs:
        request = record.wait_head
        if not fits(record, requests, limits, request):
            break
        admit(fleet, requests, limits, pod, request)
        chunk = deal(requests, request, budget)
        budget -= chunk
        pairs += float(chunk) * prompt_tokens(requests, request)
    return whole - budget, pairs


@inlined_jit
def deal(requests: Requests, request: int, budget: int) -> int:
    """Give a prompt as much of the budget as it can use."""
    chunk = min(requests.prefill_left[request], budget)
    requests.prefill_left[request] -= chunk
    return chunk


@inlined_jit
def prompt_tokens(requests: Requests, request: int) -> int:
    """Tokens to prefill: the prompt, and after a preemption what had been generated too."""
    return requests.input_tokens[request] + requests.generated[request]


@inlined_jit
def fits(record: Any, requests: Requests, limits: EngineLimits, request: int) -> bool:
    """Whether the KV cache has room for a request under the engine's admission rule."""
    if limits.no_evict:
        wanted = requests.input_tokens[request] + requests.output_tokens[request]
        return record.reserved_tokens + wanted <= limits.kv_capacity_tokens
    used = record.decode_tokens + record.prompt_tokens
    return used + prompt_tokens(requests, request) <= limits.kv_capacity_tokens


@inlined_jit
def admit(fleet: Fleet, requests: Requests, limits: EngineLimits, pod: int, request: int) -> None:
    """Move the head of the queue to the end of the prefilling list."""
    record = fleet.pods[pod]
    record.wait_head = requests.next[request]
    record.waiting -= 1
    if record.prefilling == 0:
        record.prefill_head = request
    else:
        requests.next[record.prefill_tail] = request
    record.prefill_tail = request
    requests.next[request] = NONE
    record.prefilling += 1
    record.prompt_tokens += prompt_tokens(requests, request)
    record.reserved_tokens += requests.input_tokens[request] + requests.output_tokens[request]
    fleet.counters[ADMISSIONS] += 1
    requests.admission[request] = fleet.counters[ADMISSIONS]


@lean_jit
def preempt(fleet: Fleet, requests: Requests, limits: EngineLimits, pod: int, now_s: float) -> None:
    """Put the most recently admitted requests back to the front of the queue until the KV cache holds the rest."""
    record = fleet.pods[pod]
    while (
        record.decode_tokens + record.prompt_tokens > limits.kv_capacity_tokens
        and record.decoding + record.prefilling > 0
    ):
        # the youngest decode may have been admitted after the youngest prompt: compare the two
        request = record.prefill_tail if record.prefilling > 0 else NONE
        place = youngest_decode(fleet, requests, pod)
        if request == NONE or (
            place != NONE and requests.admission[fleet.finish_request[pod, place]] > requests.admission[request]
        ):
            request = fleet.finish_request[pod, place]
            left = fleet.finish_iteration[pod, place] - record.iteration
            requests.generated[request] = requests.output_tokens[request] - left
            requests.preempted_s[request] = now_s
            remove_decode(fleet, pod, place)
            record.decode_tokens -= prompt_tokens(requests, request)
        else:
            drop_last_prefill(record, requests)
            record.prompt_tokens -= prompt_tokens(requests, request)
        record.reserved_tokens -= requests.input_tokens[request] + requests.output_tokens[request]
        requests.prefill_left[request] = prompt_tokens(requests, request)
        requests.next[request] = record.wait_head if record.waiting > 0 else NONE
        if record.waiting == 0:
            record.wait_tail = request
        record.wait_head = request
        record.waiting += 1
        fleet.counters[PREEMPTIONS] += 1


@lean_jit
def youngest_decode(fleet: Fleet, requests: Requests, pod: int) -> int:
    """The heap place of the decoding sequence that was admitted last, or NONE."""
    best, best_admission = NONE, NONE
    for place in range(fleet.pods[pod].decoding):
        admission = requests.admission[fleet.finish_request[pod, place]]
        if admission > best_admission:
            best, best_admission = place, admission
    return best


@lean_jit
def drop_last_prefill(record: Any, requests: Requests) -> None:
    """Take the last request off the prefilling list."""
    last = record.prefill_tail
    if record.prefill_head == last:
        record.prefill_head = NONE
        record.prefill_tail = NONE
    else:
        request = record.prefill_head
        while requests.next[request] != last:
            request = requests.next[request]
        requests.next[request] = NONE
        record.prefill_tail = request
    record.prefilling -= 1


@inlined_jit
def end_steps(
    fleet: Fleet, requests: Requests, limits: EngineLimits, bounds_s: Floats, pod: int, now_s: float, counts_itl: bool
) -> None:
    """What the end of a pod's step (or run of steps) brings: tokens, finishes, first tokens."""
    record = fleet.pods[pod]
    steps = record.steps
    record.iteration += steps
    if record.decoding > 0:
        record.decode_tokens += record.decoding * steps
        if counts_itl:
            count_gaps(fleet.itl_counts, record.first_step_s, record.step_growth_s, steps, record.decoding)
        finish_decodes(fleet, requests, pod, now_s)
    if record.prefill_tokens > 0:
        end_prefills(fleet, requests, bounds_s, pod, now_s, counts_itl)


@inlined_jit
def finish_decodes(fleet: Fleet, requests: Requests, pod: int, now_s: float) -> None:
    """Take every sequence off the heap whose last token came at this iteration."""
    record = fleet.pods[pod]
    while record.decoding > 0 and fleet.finish_iteration[pod, 0] <= record.iteration:
        request = fleet.finish_request[pod, 0]
        remove_decode(fleet, pod, 0)
        tokens = requests.input_tokens[request] + requests.output_tokens[request]
        record.decode_tokens -= tokens
        record.reserved_tokens -= tokens
        requests.finish_s[request] = now_s
        fleet.counters[UNFINISHED] -= 1


@inlined_jit
def end_prefills(fleet: Fleet, requests: Requests, bounds_s: Floats, pod: int, now_s: float, counts_itl: bool) -> None:
    """First tokens of the prompts that were completed in this step."""
    record = fleet.pods[pod]
    while record.prefilling > 0 and requests.prefill_left[record.prefill_head] == 0:
        request = record.prefill_head
        record.prefill_head = requests.next[request]
        record.prefilling -= 1
        record.prompt_tokens -= prompt_tokens(requests, request)
        if requests.generated[request] == 0:
            requests.first_token_s[request] = now_s
            count_ttft(fleet, bounds_s, pod, now_s - requests.arrival_s[request])
        elif counts_itl:
            fleet.itl_counts[gap_bin(now_s - requests.preempted_s[request])] += 1
        generated = requests.generated[request] + 1
        left = requests.output_tokens[request] - generated
        if left == 0:
            record.reserved_tokens -= requests.input_tokens[request] + requests.output_tokens[request]
            requests.finish_s[request] = now_s
            fleet.counters[UNFINISHED] -= 1
        else:
            record.decode_tokens += requests.input_tokens[request] + generated
            add_decode(fleet, pod, record.iteration + left, request)
    if record.prefilling == 0:
        record.prefill_head = NONE
        record.prefill_tail = NONE


@inlined_jit
def count_ttft(fleet: Fleet, bounds_s: Floats, pod: int, ttft_s: float) -> None:
    """Add an observation to the pod's TTFT histogram."""
    bucket = 0
    while bucket < bounds_s.shape[0] and ttft_s > bounds_s[bucket]:
        bucket += 1
    fleet.ttft_counts[pod, bucket] += 1


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
def add_decode(fleet: Fleet, pod: int, iteration: int, request: int) -> None:
    """Push a sequence that ends at `iteration` onto the pod's heap."""
    key, value = fleet.finish_iteration[pod], fleet.finish_request[pod]
    place = fleet.pods[pod].decoding
    fleet.pods[pod].decoding += 1
    while place > 0:
        parent = (place - 1) >> 1
        if key[parent] <= iteration:
            break
        key[place] = key[parent]
        value[place] = value[parent]
        place = parent
    key[place] = iteration
    value[place] = request


@inlined_jit
def remove_decode(fleet: Fleet, pod: int, place: int) -> None:
    """Take one place out of the pod's heap."""
    key, value = fleet.finish_iteration[pod], fleet.finish_request[pod]
    last = fleet.pods[pod].decoding - 1
    fleet.pods[pod].decoding = last
    if place == last:
        return
    moved, request = key[last], value[last]
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
    value[place] = request


@lean_jit
def fail_all(fleet: Fleet, requests: Requests, pod: int) -> None:
    """Cut off everything that a pod still holds."""
    record = fleet.pods[pod]
    for place in range(record.decoding):
        requests.failed[fleet.finish_request[pod, place]] = 1
    request = record.prefill_head
    for _ in range(record.prefilling):
        requests.failed[request] = 1
        request = requests.next[request]
    request = record.wait_head
    for _ in range(record.waiting):
        requests.failed[request] = 1
        request = requests.next[request]
    fleet.counters[UNFINISHED] -= record.decoding + record.prefilling + record.waiting
    record.decoding = 0
    record.prefilling = 0
    record.waiting = 0
    record.decode_tokens = 0
    record.prompt_tokens = 0
    record.reserved_tokens = 0
    record.step_end_s = IDLE_S
    set_key(fleet.steps_tree, fleet.step_keys, pod, IDLE_S)
