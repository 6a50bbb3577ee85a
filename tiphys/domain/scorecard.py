"""A recording judged against what users were promised."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.recording import PoolRecording, Recording, itl_upper_bounds_s
from tiphys.domain.slo import Minimised, Objective, Slo
from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen
from tiphys.errors import EmptyRecording

Percentiles = dict[str, float | None]


class ObjectiveScore(Frozen):
    """One objective: the share of requests (tokens for `itl`) within the limit, and whether that is enough."""

    metric: str
    at_most_s: float
    share: float
    met_share: float
    met: bool

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


class Scorecard(Frozen):
    """What a play was worth; the JSON of `tiphys simulate --json`."""

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

    def objective_value(self, minimised: Minimised) -> float:
        """What the search minimises."""
        return self.gpu_seconds if minimised.minimise == "gpu_seconds" or self.cost is None else self.cost

    @property
    def margin(self) -> float:
        """The smallest margin over the objectives, in share."""
        return min(score.margin for score in self.slo)


def score(recording: Recording, slo: Slo, minimised: Minimised | None = None) -> Scorecard:
    """Judge a recording against what users were promised.

    Percentiles are over requests that arrived in the scored window (over tokens for ITL). A failed or unfinished
    request is infinitely late; a percentile that falls on one is None. GPU time runs from creation to termination or
    the horizon.

    Raises EmptyRecording if no request arrived in the scored window or none finished: silence is not success.
    """
    latencies = _latencies(recording)
    scored = len(latencies["e2e"])
    finished = int(np.isfinite(latencies["e2e"]).sum())
    if finished == 0:
        raise EmptyRecording(
            f"no request finished among {scored} that arrived between {recording.warmup_s:g} s "
            f"and {recording.horizon_s:g} s: give a longer trace, a shorter warm-up or a "
            "service that can hold these prompts"
        )
    failed = int(recording.failed[_scored(recording)].sum())
    itl_counts = np.sum([pool.itl_counts for pool in recording.pools.values()], axis=0)
    objectives = tuple(_judge(o, latencies, itl_counts) for o in slo.objectives)
    window_s = recording.horizon_s - recording.warmup_s
    pools = {name: _pool_score(pool, recording) for name, pool in recording.pools.items()}
    failed_share = (scored - finished) / scored
    gpu_seconds = sum(pool.gpu_seconds for pool in pools.values())
    price = minimised.price_per_gpu_hour if minimised else None
    return Scorecard(
        requests=scored,
        finished=finished,
        failed=failed,
        horizon_s=window_s,
        feasible=all(o.met for o in objectives) and failed_share <= slo.failed_at_most,
        slo=objectives,
        failed_share=failed_share,
        gpu_seconds=gpu_seconds,
        replica_seconds=sum(pool.replica_seconds for pool in pools.values()),
        cost=None if price is None else gpu_seconds / 3600 * price,
        mean_replicas=sum(pool.mean_replicas for pool in pools.values()),
        max_replicas=sum(pool.max_replicas for pool in pools.values()),
        scale_ups=sum(pool.scale_ups for pool in pools.values()),
        scale_downs=sum(pool.scale_downs for pool in pools.values()),
        ttft_s=_percentiles(latencies["ttft"]),
        tpot_s=_percentiles(latencies["tpot"]),
        itl_s=_itl_percentiles(itl_counts),
        e2e_s=_percentiles(latencies["e2e"]),
        goodput_per_s=_good(slo, latencies) / window_s if window_s > 0 else 0.0,
        preemptions=recording.preemptions,
        pools=pools,
        wall_s=recording.wall_s,
        seed=recording.seed,
    )


def _scored(recording: Recording) -> NDArray[np.bool_]:
    arrival = recording.trace.arrival_s
    return (arrival >= recording.warmup_s) & (arrival <= recording.horizon_s)


def _latencies(recording: Recording) -> dict[str, Floats]:
    """Seconds by metric for each scored request, in order of arrival; inf where it never came."""
    scored = _scored(recording)
    arrival = recording.trace.arrival_s[scored]
    lost = recording.failed[scored]
    first = np.where(lost, np.inf, recording.first_token_s[scored])
    finish = np.where(lost, np.inf, recording.finish_s[scored])
    gaps = recording.trace.output_tokens[scored] - 1
    with np.errstate(invalid="ignore"):
        tpot = np.where(gaps > 0, (finish - first) / np.maximum(gaps, 1), 0.0)
    return {"ttft": first - arrival, "e2e": finish - arrival, "tpot": np.where(np.isfinite(finish), tpot, np.inf)}


def _judge(objective: Objective, latencies: dict[str, Floats], itl_counts: NDArray[np.int64]) -> ObjectiveScore:
    if objective.metric == "itl":
        within = itl_counts[itl_upper_bounds_s() <= objective.at_most_s * (1 + 1e-9)].sum()
        met_share = float(within / max(itl_counts.sum(), 1))
    else:
        met_share = float((latencies[objective.metric] <= objective.at_most_s).mean())
    return ObjectiveScore(
        metric=objective.metric,
        at_most_s=objective.at_most_s,
        share=objective.share,
        met_share=met_share,
        met=met_share >= objective.share,
    )


def _good(slo: Slo, latencies: dict[str, Floats]) -> int:
    good = np.isfinite(latencies["e2e"])
    for objective in slo.objectives:
        if objective.metric != "itl":
            good &= latencies[objective.metric] <= objective.at_most_s
    return int(good.sum())


def _percentiles(values: Floats) -> Percentiles:
    """Mean, and percentiles that are values which occurred (inverted CDF); None where they are infinite."""
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
