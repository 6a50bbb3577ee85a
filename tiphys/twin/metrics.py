"""What the scalers see: scrapes of the pods, and PromQL over them.

Instant selectors see the newest sample within the lookback unless a stale marker came after it; range selectors skip
markers and see every sample inside a left-open window; `rate` extrapolates and `histogram_quantile` interpolates as
Prometheus 3 does (specification, section 5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tiphys.compiled import lean_jit
from tiphys.twin.state import NONE, EngineLimits, Fleet, Floats, Longs, Samples

RUNNING, WAITING, KV_USAGE = 0, 1, 2


class Answer(NamedTuple):
    """An instant query's answer: `found` False for an empty vector; `age_s` of the newest sample behind it."""

    found: bool
    value: float
    age_s: float


@lean_jit
def scrape(fleet: Fleet, samples: Samples, limits: EngineLimits, pod: int, now_s: float) -> None:
    """Store what a pod's exporter shows now."""
    record = fleet.pods[pod]
    place = record.samples % samples.time_s.shape[1]
    record.samples += 1
    samples.time_s[pod, place] = now_s
    held = record.reserved_tokens if limits.no_evict else tokens_held(fleet, pod, now_s)
    samples.levels[pod, place, RUNNING] = record.decoding + record.prefilling
    samples.levels[pod, place, WAITING] = record.waiting
    samples.levels[pod, place, KV_USAGE] = held / limits.kv_capacity_tokens
    total = 0
    for bucket in range(fleet.ttft_counts.shape[1]):
        total += fleet.ttft_counts[pod, bucket]
        samples.ttft[pod, place, bucket] = total


@lean_jit
def tokens_held(fleet: Fleet, pod: int, now_s: float) -> int:
    """KV tokens in use now, a run of steps under way taken into account."""
    record = fleet.pods[pod]
    held = record.decode_tokens + record.prompt_tokens
    if record.steps > 1 and record.decoding > 0:
        held += record.decoding * (steps_done(fleet, pod, now_s))
    return held


@lean_jit
def steps_done(fleet: Fleet, pod: int, now_s: float) -> int:
    """Steps of the present run that have ended by `now_s`."""
    record = fleet.pods[pod]
    elapsed = now_s - record.step_start_s
    if elapsed <= 0.0:
        return 0
    a, growth = record.first_step_s, record.step_growth_s
    half = a - 0.5 * growth
    steps = int(2.0 * elapsed / (math.sqrt(half * half + 2.0 * growth * elapsed) + half))
    return max(0, min(steps, record.steps - 1))


@lean_jit
def newest(fleet: Fleet, samples: Samples, pod: int, now_s: float, lookback_s: float) -> int:
    """The place of the sample that an instant selector sees, or NONE."""
    record = fleet.pods[pod]
    if record.samples == 0 or record.stale_s <= now_s:
        return NONE
    place = (record.samples - 1) % samples.time_s.shape[1]
    return place if now_s - samples.time_s[pod, place] < lookback_s else NONE


@lean_jit
def level(
    fleet: Fleet, samples: Samples, live: Longs, lives: int, which: int, mean: bool, now_s: float, lookback_s: float
) -> Answer:
    """`sum(level)` or `avg(level)` over the pods."""
    total, count, age_s = 0.0, 0, np.inf
    for i in range(lives):
        pod = live[i]
        place = newest(fleet, samples, pod, now_s, lookback_s)
        if place != NONE:
            total += samples.levels[pod, place, which]
            count += 1
            age_s = min(age_s, now_s - samples.time_s[pod, place])
    if count == 0:
        return Answer(False, 0.0, np.inf)
    return Answer(True, total / count if mean else total, age_s)


@lean_jit
def samples_in_window(fleet: Fleet, samples: Samples, pod: int, now_s: float, window_s: float) -> int:
    """How many samples lie in (now - window, now]."""
    record = fleet.pods[pod]
    places = samples.time_s.shape[1]
    count = 0
    while count < min(record.samples, places):
        time_s = samples.time_s[pod, (record.samples - 1 - count) % places]
        if time_s <= now_s - window_s:
            break
        count += 1
    return count


@lean_jit
def extrapolated(
    first: float, last: float, first_s: float, last_s: float, count: int, now_s: float, window_s: float
) -> float:
    """`rate` of a counter that was never reset, from its first and last sample in the window (Prometheus'
    extrapolatedRate).
    """
    increase = last - first
    sampled_s = last_s - first_s
    mean_gap_s = sampled_s / (count - 1)
    to_start_s = first_s - (now_s - window_s)
    to_end_s = now_s - last_s
    if to_start_s >= 1.1 * mean_gap_s:
        to_start_s = mean_gap_s / 2
    if increase > 0 and first >= 0:
        # a counter cannot have been below zero
        to_start_s = min(to_start_s, sampled_s * (first / increase))
    if to_end_s >= 1.1 * mean_gap_s:
        to_end_s = mean_gap_s / 2
    # the division order is Prometheus' own: a rank may fall exactly on a bucket's count
    return increase * ((sampled_s + to_start_s + to_end_s) / sampled_s / window_s)


@lean_jit
def ttft_quantile(
    fleet: Fleet,
    samples: Samples,
    bounds_s: Floats,
    live: Longs,
    lives: int,
    quantile: float,
    now_s: float,
    window_s: float,
    rates: Floats,
) -> Answer:
    """`histogram_quantile(quantile, sum by (le) (rate(ttft_bucket[window])))`; NaN when nothing was observed, empty
    without series.

    `rates` is scratch space of one place a bucket.
    """
    places = samples.time_s.shape[1]
    rates[:] = 0.0
    series, age_s = 0, np.inf
    for i in range(lives):
        pod = live[i]
        count = samples_in_window(fleet, samples, pod, now_s, window_s)
        if count < 2:
            continue
        series += 1
        last = (fleet.pods[pod].samples - 1) % places
        first = (fleet.pods[pod].samples - count) % places
        first_s, last_s = samples.time_s[pod, first], samples.time_s[pod, last]
        age_s = min(age_s, now_s - last_s)
        for bucket in range(rates.shape[0]):
            rates[bucket] += extrapolated(
                float(samples.ttft[pod, first, bucket]),
                float(samples.ttft[pod, last, bucket]),
                first_s,
                last_s,
                count,
                now_s,
                window_s,
            )
    if series == 0:
        return Answer(False, 0.0, np.inf)
    return Answer(True, histogram_quantile(quantile, bounds_s, rates), age_s)


@lean_jit
def histogram_quantile(quantile: float, bounds_s: Floats, cumulative: Floats) -> float:
    """Prometheus' bucketQuantile over cumulative counts, the last being `+Inf`; NaN for no observations."""
    for bucket in range(1, cumulative.shape[0]):
        cumulative[bucket] = max(cumulative[bucket], cumulative[bucket - 1])
    total = cumulative[cumulative.shape[0] - 1]
    if total == 0.0 or bounds_s.shape[0] == 0:
        return np.nan
    rank = quantile * total
    bucket = 0
    while bucket < bounds_s.shape[0] and cumulative[bucket] < rank:
        bucket += 1
    if bucket == bounds_s.shape[0]:
        return bounds_s[bucket - 1]
    if bucket == 0:
        return bounds_s[0] * (rank / cumulative[0])
    below = cumulative[bucket - 1]
    low_s = bounds_s[bucket - 1]
    return low_s + (bounds_s[bucket] - low_s) * ((rank - below) / (cumulative[bucket] - below))
