"""What the scalers see: PromQL over the scrapes of a pool's pods (arithmetic: `tiphys.twin.promql`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiphys.compiled import lean_jit
from tiphys.twin.faults import stream_lag
from tiphys.twin.promql import (
    ABSENT,
    NOTHING,
    Ring,
    Value,
    add_rates,
    histogram_quantile,
    level,
    mean_of,
    milliseconds,
    plus,
    rate,
    ratio,
    settle,
    sum_of,
)
from tiphys.twin.state import COMPUTE_S, PROMETHEUS_DOWN, QUEUE_S, Floats, Longs, Setting, World

LEVEL, QUANTILE, MEAN, RATE, RATIO, LAG, ROUTER, RESOURCE = range(8)


class Sight(NamedTuple):
    """What each metric looks at; one entry a metric."""

    kind: Longs
    """code of the above"""
    column: Longs
    """place in a sample: of a level or counter, of a histogram's first bucket"""
    sum_column: Longs
    """of a mean: where the sum of the latencies is"""
    buckets: Longs
    """of a histogram, +Inf included"""
    first_bound: Longs
    quantile: Floats
    averaged: Longs
    """1: avg over pods rather than sum"""
    window_s: Floats
    rates: Floats
    """scratch space of one place a bucket, as is the next"""
    lost: Floats


class Answer(NamedTuple):
    """An instant query's answer: `found` False for an empty vector or an error; `age_s` of the newest sample behind."""

    found: bool
    value: float
    age_s: float
    error: bool


@lean_jit
def ring_of(world: World, pod: int) -> Ring:
    """What Prometheus holds of a pod."""
    record = world.pods[pod]
    return Ring(world.sample_ms[pod], world.sample_stale[pod], world.samples[pod], record.samples, record.restarted_row)


@lean_jit
def query(world: World, setting: Setting, sight: Sight, pool: int, metric: int, now_s: float) -> Answer:
    """The metric's expression, now."""
    if sight.kind[metric] == LAG:
        return ask_lag(world, pool)
    if world.counters[PROMETHEUS_DOWN] > 0:
        return Answer(False, 0.0, np.inf, True)
    value = evaluate(world, setting, sight, pool, metric, now_s)
    if not value.found:
        return Answer(False, 0.0, np.inf, False)
    return Answer(True, value.value, now_s - value.time_ms / 1000.0, False)


@lean_jit
def ask_lag(world: World, pool: int) -> Answer:
    """What the monitoring endpoint says of the pool's consumer."""
    of = world.pools[pool]
    if of.consumer_missing > 0:
        return Answer(False, 0.0, np.inf, True)
    lag = of.stale_lag if of.lag_stale > 0 else stream_lag(world, pool)
    return Answer(True, float(lag), 0.0, False)


@lean_jit
def evaluate(world: World, setting: Setting, sight: Sight, pool: int, metric: int, now_s: float) -> Value:
    """The PromQL of a metric."""
    now_ms, window_ms = milliseconds(now_s), milliseconds(sight.window_s[metric])
    kind, averaged = sight.kind[metric], sight.averaged[metric] == 1
    if kind == QUANTILE:
        return latency_quantile(world, sight, pool, metric, now_ms, window_ms)
    if kind == MEAN:
        above = rate_over_pods(world, pool, sight.sum_column[metric], now_ms, window_ms, False)
        count = sight.column[metric] + sight.buckets[metric] - 1
        return ratio(above, rate_over_pods(world, pool, count, now_ms, window_ms, False))
    if kind == RATE:
        return rate_over_pods(world, pool, sight.column[metric], now_ms, window_ms, averaged)
    if kind == RATIO:
        return recorded(world, setting, pool, window_ms, now_ms)
    if kind == ROUTER:
        row = world.pods.shape[0] + pool
        ring = Ring(
            world.sample_ms[row], world.sample_stale[row], world.samples[row], world.pools[pool].router_samples, 0
        )
        return level(ring, sight.column[metric], now_ms, milliseconds(setting.lookback_s))
    return level_over_pods(world, setting, pool, sight.column[metric], now_ms, averaged)


@lean_jit
def of_pod(world: World, setting: Setting, sight: Sight, pool: int, pod: int, metric: int, now_s: float) -> Value:
    """A metric of one pod alone: a level, a rate, or the ratio that the recording rule found for it."""
    ring, kind = ring_of(world, pod), sight.kind[metric]
    window_ms = milliseconds(sight.window_s[metric])
    if kind == RATE:
        return rate(ring, sight.column[metric], milliseconds(now_s), window_ms)
    if kind == RATIO:
        rule_ms = milliseconds(world.pools[pool].rule_s)
        if rule_ms <= milliseconds(now_s) - milliseconds(setting.lookback_s):
            return ABSENT
        return ratio(rate(ring, QUEUE_S, rule_ms, window_ms), rate(ring, COMPUTE_S, rule_ms, window_ms))
    return level(ring, sight.column[metric], milliseconds(now_s), milliseconds(setting.lookback_s))


@lean_jit
def level_over_pods(world: World, setting: Setting, pool: int, column: int, now_ms: int, averaged: bool) -> Value:
    """`sum(level)` or `avg(level)` over the pods."""
    total = NOTHING
    lookback_ms = milliseconds(setting.lookback_s)
    for i in range(world.pools[pool].live):
        total = plus(total, level(ring_of(world, world.live[pool, i]), column, now_ms, lookback_ms))
    return mean_of(total) if averaged else sum_of(total)


@lean_jit
def rate_over_pods(world: World, pool: int, column: int, now_ms: int, window_ms: int, averaged: bool) -> Value:
    """`sum(rate(counter[window]))` or `avg(...)` over the pods."""
    total = NOTHING
    for i in range(world.pools[pool].live):
        total = plus(total, rate(ring_of(world, world.live[pool, i]), column, now_ms, window_ms))
    return mean_of(total) if averaged else sum_of(total)


@lean_jit
def latency_quantile(world: World, sight: Sight, pool: int, metric: int, now_ms: int, window_ms: int) -> Value:
    """`histogram_quantile(quantile, sum by (le) (rate(bucket[window])))`; NaN when nothing was observed."""
    buckets, first = sight.buckets[metric], sight.first_bound[metric]
    rates, lost = sight.rates[:buckets], sight.lost[:buckets]
    rates[:] = 0.0
    lost[:] = 0.0
    total = NOTHING
    for i in range(world.pools[pool].live):
        ring = ring_of(world, world.live[pool, i])
        total = plus(total, add_rates(ring, sight.column[metric], now_ms, window_ms, rates, lost))
    if total.added == 0:
        return ABSENT
    settle(rates, lost)
    bounds_s = world.bounds_s[pool, first : first + buckets - 1]
    return Value(True, histogram_quantile(sight.quantile[metric], bounds_s, rates), total.time_ms)


@lean_jit
def evaluate_rule(world: World, pool: int, now_s: float) -> None:
    """The recording rules of a pool have been evaluated: what they recorded can be told from the scrapes until then."""
    if world.counters[PROMETHEUS_DOWN] == 0:
        world.pools[pool].rule_s = now_s


@lean_jit
def recorded(world: World, setting: Setting, pool: int, window_ms: int, now_ms: int) -> Value:
    """What the rule `sum(rate(queue)) / sum(rate(compute))` recorded last; an empty result leaves a stale marker."""
    rule_ms = milliseconds(world.pools[pool].rule_s)
    if rule_ms <= now_ms - milliseconds(setting.lookback_s):
        return ABSENT
    queue = rate_over_pods(world, pool, QUEUE_S, rule_ms, window_ms, False)
    value = ratio(queue, rate_over_pods(world, pool, COMPUTE_S, rule_ms, window_ms, False))
    return Value(value.found, value.value, rule_ms)
