"""A recording judged against what users were promised."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tiphys.domain.damage import Damage, damages
from tiphys.domain.latencies import (
    ClassLatencies,
    Latencies,
    answering_pools,
    by_class,
    job_latencies,
    judged,
    request_latencies,
    scored,
)
from tiphys.domain.offline import OfflineScore, harvested_value, prices_per_gpu_hour, score_offline
from tiphys.domain.recording import PoolRecording, Recording, itl_upper_bounds_s
from tiphys.domain.slo import Minimised, Objective, Slo
from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen
from tiphys.errors import EmptyRecording, unknown_name

Percentiles = dict[str, float | None]


class ObjectiveScore(Frozen):
    """One objective: the share of requests (tokens for `itl`) within the limit, and whether that is enough."""

    metric: str
    at_most_s: float
    share: float
    met_share: float
    met: bool
    pool: str | None = None
    request_class: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if value is not None}

    @property
    def name(self) -> str:
        """For people: `ttft <= 2 s`, `ttft in llm <= 2 s`."""
        whose = f" in {self.pool}" if self.pool else f" of {self.request_class}" if self.request_class else ""
        return f"{self.metric}{whose} <= {self.at_most_s:g} s"

    @property
    def margin(self) -> float:
        """Met share less the share that was promised: negative is a miss."""
        return self.met_share - self.share


class PoolScore(Frozen):
    """One pool's replicas over the scored window."""

    gpu_seconds: float
    replica_seconds: float
    mean_replicas: float
    max_replicas: int
    scale_ups: int
    scale_downs: int
    flaps: int
    """Changes of direction within ten minutes."""


class ClassScore(Frozen):
    """One traffic class of several."""

    requests: int
    finished: int
    failed: int
    ttft_s: Percentiles
    e2e_s: Percentiles


class TierScore(Frozen):
    """GPU time of the replicas on one tier of nodes, and what it costs; None where nothing states a price."""

    gpu_seconds: float
    cost: float | None


class Scorecard(Frozen):
    """What a play was worth; the JSON of `tiphys simulate --json`.

    Latencies are those of the first traffic class; where there are several, `classes` has each. `tiers` is empty, and
    `offline` None, without nodes.
    """

    requests: int
    finished: int
    failed: int
    horizon_s: float
    feasible: bool
    slo: tuple[ObjectiveScore, ...]
    failed_share: float
    gpu_seconds: float
    replica_seconds: float
    cost: float | None
    mean_replicas: float
    max_replicas: int
    scale_ups: int
    scale_downs: int
    ttft_s: Percentiles
    tpot_s: Percentiles
    itl_s: Percentiles
    e2e_s: Percentiles
    goodput_per_s: float
    preemptions: int
    pools: dict[str, PoolScore]
    wall_s: float
    seed: int
    classes: dict[str, ClassScore] = Field(default_factory=dict)
    tiers: dict[str, TierScore] = Field(default_factory=dict)
    offline: OfflineScore | None = None
    offline_value: float | None = None
    """What the harvested GPU time would have cost; None without a price."""
    faults: tuple[Damage, ...] = ()

    def objective_value(self, minimised: Minimised) -> float:
        """What the search minimises: GPU-seconds or cost, less the credit for harvested offline work."""
        credit = minimised.harvested_credit
        if minimised.minimise == "cost" and self.cost is not None:
            return self.cost - credit * (self.offline_value or 0.0)
        harvested = self.offline.harvested_gpu_seconds if self.offline is not None else 0.0
        return self.gpu_seconds - credit * harvested

    @property
    def margin(self) -> float:
        """The smallest margin over the objectives, in share."""
        return min(score.margin for score in self.slo)


def score(recording: Recording, slo: Slo, minimised: Minimised | None = None) -> Scorecard:
    """Judge a recording against what users were promised.

    Percentiles are over requests that arrived in the scored window (over tokens for ITL). A failed or unfinished
    request is infinitely late; a percentile that falls on one is None. GPU time runs from scheduling to termination or
    the horizon.

    Raises EmptyRecording if no request arrived in the scored window or none finished: silence is not success.
    """
    classes = by_class(recording)
    count = sum(len(each.latencies) for each in classes.values())
    finished = sum(each.latencies.finished for each in classes.values())
    if finished == 0:
        raise EmptyRecording(
            f"no request finished among {count} that arrived between {recording.warmup_s:g} s "
            f"and {recording.horizon_s:g} s: give a longer trace, a shorter warm-up or a "
            "service that can hold these prompts"
        )
    first = next(iter(classes.values())).latencies
    itl_counts = np.sum([recording.pools[name].itl_counts for name in answering_pools(recording)], axis=0)
    objectives = tuple(_judge(objective, recording, classes, itl_counts) for objective in slo.objectives)
    good = _good(recording, slo, classes)
    window_s = recording.horizon_s - recording.warmup_s
    pools = {name: _pool_score(pool, recording) for name, pool in recording.pools.items()}
    failed_share = (count - finished) / count
    gpu_seconds = sum(pool.gpu_seconds for pool in pools.values())
    price = minimised.price_per_gpu_hour if minimised else None
    offline = recording.offline
    return Scorecard(
        requests=count,
        finished=finished,
        failed=_failed(recording, classes),
        horizon_s=window_s,
        feasible=all(o.met for o in objectives) and failed_share <= slo.failed_at_most,
        slo=objectives,
        failed_share=failed_share,
        gpu_seconds=gpu_seconds,
        replica_seconds=sum(pool.replica_seconds for pool in pools.values()),
        cost=replicas_cost(recording, gpu_seconds, price),
        mean_replicas=sum(pool.mean_replicas for pool in pools.values()),
        max_replicas=sum(pool.max_replicas for pool in pools.values()),
        scale_ups=sum(pool.scale_ups for pool in pools.values()),
        scale_downs=sum(pool.scale_downs for pool in pools.values()),
        ttft_s=_percentiles(first.ttft),
        tpot_s=_percentiles(first.tpot),
        itl_s=_itl_percentiles(itl_counts),
        e2e_s=_percentiles(first.e2e),
        goodput_per_s=int(good.sum()) / window_s if window_s > 0 else 0.0,
        preemptions=recording.preemptions,
        pools=pools,
        wall_s=recording.wall_s,
        seed=recording.seed,
        classes=_class_scores(recording, classes) if len(classes) > 1 else {},
        tiers=_tier_scores(recording, price),
        offline=None if offline is None else score_offline(offline, recording.warmup_s, recording.horizon_s),
        offline_value=_offline_value(recording, price),
        faults=damages(recording, good, min((o.share for o in slo.objectives if o.pool is None), default=1.0)),
    )


def spent(recording: Recording, minimised: Minimised) -> float:
    """What is minimised, of a play of which nothing else can be said."""
    start_s, stop_s = recording.warmup_s, recording.horizon_s
    pools = recording.pools.values()
    gpu_seconds = sum(pool.life.seconds_within(start_s, stop_s) * pool.gpus_per_replica for pool in pools)
    cost = replicas_cost(recording, gpu_seconds, minimised.price_per_gpu_hour)
    return gpu_seconds if minimised.minimise == "gpu_seconds" or cost is None else cost


def replicas_cost(recording: Recording, gpu_seconds: float, price: float | None) -> float | None:
    """What the replicas' GPU time in the scored window costs: at their tiers' prices, at `price` where there is none.

    None where neither states one for GPU time that was taken.
    """
    if not recording.tiers:
        return None if price is None else gpu_seconds / 3600 * price
    total = 0.0
    for pool in recording.pools.values():
        cost = _cost(pool, recording, price, None)
        if cost is None:
            return None
        total += cost
    return total


def _cost(pool: PoolRecording, recording: Recording, price: float | None, tier: int | None) -> float | None:
    """The cost of a pool's replicas, of those on one tier where it is given."""
    hours = pool.life.each_within(recording.warmup_s, recording.horizon_s) * pool.gpus_per_replica / 3600
    if tier is not None and pool.life.tier is not None:
        hours = np.where(pool.life.tier == tier, hours, 0.0)
    unknown = float("nan") if price is None else price
    prices = prices_per_gpu_hour(pool.life.tier, len(hours), recording.tiers, unknown)
    if np.isnan(prices[hours > 0]).any():
        return None
    return float((hours * np.nan_to_num(prices)).sum())


def _tier_scores(recording: Recording, price: float | None) -> dict[str, TierScore]:
    scores = {}
    for number, tier in enumerate(recording.tiers):
        seconds, costs = 0.0, []
        for pool in recording.pools.values():
            if pool.life.tier is not None:
                on_tier = pool.life.each_within(recording.warmup_s, recording.horizon_s)[pool.life.tier == number]
                seconds += float(on_tier.sum()) * pool.gpus_per_replica
                costs.append(_cost(pool, recording, price, number))
        known = [cost for cost in costs if cost is not None]
        scores[tier.name] = TierScore(gpu_seconds=seconds, cost=sum(known) if len(known) == len(costs) else None)
    return scores


def _offline_value(recording: Recording, price: float | None) -> float | None:
    jobs = recording.offline
    if jobs is None or (price is None and any(tier.price_per_gpu_hour is None for tier in recording.tiers)):
        return None
    return harvested_value(jobs, recording.tiers, price or 0.0, recording.warmup_s, recording.horizon_s)


def _class_scores(recording: Recording, classes: Mapping[str, ClassLatencies]) -> dict[str, ClassScore]:
    return {
        name: ClassScore(
            requests=len(each.latencies),
            finished=each.latencies.finished,
            failed=int(recording.failed[each.chosen].sum()),
            ttft_s=_percentiles(each.latencies.ttft),
            e2e_s=_percentiles(each.latencies.e2e),
        )
        for name, each in classes.items()
    }


def _failed(recording: Recording, classes: Mapping[str, ClassLatencies]) -> int:
    return sum(int(recording.failed[each.chosen].sum()) for each in classes.values())


def _judge(
    objective: Objective,
    recording: Recording,
    classes: Mapping[str, ClassLatencies],
    itl_counts: NDArray[np.int64],
) -> ObjectiveScore:
    if objective.metric == "itl":
        counts = itl_counts if objective.pool is None else _pool(objective.pool, recording).itl_counts
        within = counts[itl_upper_bounds_s() <= objective.at_most_s * (1 + 1e-9)].sum()
        met_share = float(within / max(counts.sum(), 1))
    else:
        met_share = _met_share(_judged_latencies(objective, recording, classes), objective)
    return ObjectiveScore(
        metric=objective.metric,
        at_most_s=objective.at_most_s,
        share=objective.share,
        met_share=met_share,
        met=met_share >= objective.share,
        pool=objective.pool,
        request_class=objective.request_class,
    )


def _met_share(found: Latencies, objective: Objective) -> float:
    """Nothing is no success: a class or pool that nothing came to has a share of 0."""
    return float((found.of(objective.metric) <= objective.at_most_s).mean()) if len(found) else 0.0


def _judged_latencies(objective: Objective, recording: Recording, classes: Mapping[str, ClassLatencies]) -> Latencies:
    if objective.pool is None:
        return judged(objective, classes).latencies
    jobs = _pool(objective.pool, recording).jobs
    if jobs is None:
        return request_latencies(recording, scored(recording))
    return job_latencies(jobs, recording.warmup_s, recording.horizon_s)


def _pool(name: str, recording: Recording) -> PoolRecording:
    if name not in recording.pools:
        raise unknown_name("pool", name, recording.pools, key="slo.objectives.pool")
    return recording.pools[name]


def _good(recording: Recording, slo: Slo, classes: Mapping[str, ClassLatencies]) -> NDArray[np.bool_]:
    """Which requests were scored and kept every objective of their class."""
    good = np.zeros(len(recording.trace), np.bool_)
    for each in classes.values():
        kept = np.isfinite(each.latencies.e2e)
        for objective in slo.objectives:
            if objective.metric != "itl" and objective.pool is None and judged(objective, classes) is each:
                kept &= each.latencies.of(objective.metric) <= objective.at_most_s
        good[each.chosen] = kept
    return good


def _percentiles(values: Floats) -> Percentiles:
    """Mean, and percentiles that are values which occurred (inverted CDF); None where they are infinite."""
    if not len(values):
        return dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))
    points = np.percentile(values, [50, 90, 95, 99], method="inverted_cdf")
    named = dict(zip(("p50", "p90", "p95", "p99"), points, strict=True)) | {"mean": values.mean()}
    return {key: float(named[key]) if np.isfinite(named[key]) else None for key in ("mean", "p50", "p90", "p95", "p99")}


def _itl_percentiles(counts: NDArray[np.int64]) -> Percentiles:
    total = int(counts.sum())
    if total == 0:
        return dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))
    bounds = itl_upper_bounds_s()
    cumulative = np.cumsum(counts)
    result: Percentiles = {"mean": float((counts * bounds).sum() / total)}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        result[name] = float(bounds[int(np.searchsorted(cumulative, share * total))])
    return result


def _pool_score(pool: PoolRecording, recording: Recording) -> PoolScore:
    start, stop = recording.warmup_s, recording.horizon_s
    seconds = pool.life.seconds_within(start, stop)
    log = pool.life.wanted_log()
    inside = [(t, after - before) for (_, before), (t, after) in pairwise(log) if start < t <= stop]
    counts = [n for t, n in log if t <= start][-1:] + [n for t, n in log if start < t <= stop]
    flaps = sum(1 for (t0, d0), (t1, d1) in pairwise(inside) if d0 * d1 < 0 and t1 - t0 < 600)
    return PoolScore(
        gpu_seconds=seconds * pool.gpus_per_replica,
        replica_seconds=seconds,
        mean_replicas=seconds / (stop - start) if stop > start else 0.0,
        max_replicas=max(counts, default=0),
        scale_ups=sum(1 for _, d in inside if d > 0),
        scale_downs=sum(1 for _, d in inside if d < 0),
        flaps=flaps,
    )
