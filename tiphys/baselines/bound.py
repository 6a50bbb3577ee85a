"""GPU-seconds that no policy can go below: the least work that the promises leave, at the best prices.

**What a job costs at least.** A step with P prefill tokens and B decodes, n = P + B rows, lasts
`C[n] + b B + c X + p P + q sum(p_i context_i)`, where C[n] = g[n] + k and X are the cached tokens that its decodes
read. The engine keeps P <= max(0, budget - B), B <= max_num_seqs and X <= the KV capacity K. Take prices alpha, beta,
gamma >= 0 with `alpha P + beta B + gamma X <= C[P + B]` for every such step (prices of this kind are the dual of the
linear programme "least sum of C over steps that hold these rows"). Sum that over all steps of all replicas: the C of
the whole play is at least alpha x prefill rows + beta x decode rows + gamma x cached tokens read, however rows are
batched. The other terms are exact. So a job of I input and O output tokens is worth at least

    alpha I + p I + q I context + sum over j = 1 .. O-1 of (beta + b + (c + gamma) (I + j))

seconds of a replica: each prompt token is a prefill row, the first output token comes with the last of them, each
later one is a decode row that reads I + j cached tokens. A preempted job prefills I + j tokens anew, which brings it
one token without a decode row; where that would be cheaper than the row, beta is lowered for this job until it is not.
A step may hold rows of several jobs and prices are not negative, so the worth of any set of jobs that are finished is a
bound by itself. With alpha = beta = min C[n] / n and gamma = 0 this is "work over best throughput"; the best of a grid
of prices is never below it. On nodes of several tiers a job is worth what it is where it is cheapest.

**How much of it must be done by the horizon**, where GPU time stops being counted. Requests count that arrive in the
scored window. From each promise follows a bound:

* e2e <= L for a share s of a class's N requests: of those that arrive before horizon - L all are finished by the
  horizon, but for the N - ceil(s N) that may miss: the most expensive ones are taken to be those.
* ttft <= L1 for s1 and tpot <= L2 for s2: the same with L = L1 + L2 (O - 1) and the share s1 + s2 - 1.
* ttft <= L alone, in a service of one pool: the same for what the prompts cost.
* `failed_at_most`, in a service of one pool whose requests are sent to a replica as they arrive (nothing holds them in
  front of it): all others are finished at last, by the end of the drain D. What is done after the horizon is done by
  replicas that were ready by then, since a request stays where it was sent. Of the `max` places for replicas each holds
  one that may work for all of D, and some that were removed from it and may work for the rest of their grace G: between
  each two of them lies a cold start, of C at least, so that the j-th has G - j C left. In all
  max x (max(D, G) + sum over j >= 1 of (G - j C)) of replicas' time. C is a cold start so short that one in two
  millions is shorter; were it 0, there would be no such bound.

Of the first three the highest is taken for each class, and the sum of those or the last, whichever is higher. What a
pool alone is promised is left aside, and so are token gaps. A request that arrives before the window and is worked on
within it only adds, and so does an idle replica.

**The envelope's minimum.** A service that starts with `min` replicas has `min` of them at all times, where nothing
keeps them from their nodes and none is lost by a fault. The two are not added: the work may be done by those.

The bound is one of policies that keep the promises. One that misses them can go below it; `work_of` bounds that one by
the jobs that it did finish. Steps are taken to last what the profile says, times the scenario's factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from tiphys.baselines.work import Flags, PoolWork
from tiphys.domain.baselines import LowerBound, PoolBound
from tiphys.domain.scenario import Scenario
from tiphys.domain.slo import Objective, Slo
from tiphys.domain.trace import Floats

_MS = 1000.0
_GRID = 48
_RARE = 4.9
"""Standard deviations below the mean: one cold start in two millions is shorter."""


class Prices(NamedTuple):
    """What a row, or a cached token read, takes of a replica at least; seconds."""

    prefill_s: float
    """alpha, per prefill token"""
    decode_s: float
    """beta, per decode"""
    cached_s: float
    """gamma, per cached token read"""


class Worth(NamedTuple):
    """Seconds of a replica that each request of the trace takes at least of one pool: its prompts, and all of it."""

    prompt_s: Floats
    whole_s: Floats


def lower_bound(
    pools: Mapping[str, PoolWork], scenario: Scenario, slo: Slo, *, held_in_front: bool = False
) -> LowerBound:
    """GPU-seconds in the scored window that no policy can go below which keeps the promises (this file's head).

    `held_in_front` where what governs may hold requests before it sends them to a replica: Knative's activator does.
    """
    sent = len(pools) == 1 and not held_in_front and _undisturbed(scenario)
    bounds = {
        name: _pool_bound(name, work, scenario, slo, alone=len(pools) == 1, sent=sent and work.pool.queue is None)
        for name, work in pools.items()
    }
    return LowerBound(gpu_seconds=sum(bound.gpu_seconds for bound in bounds.values()), pools=bounds)


def work_of(work: PoolWork, scenario: Scenario, finished: Flags) -> float:
    """GPU-seconds that any play takes at least which finishes these requests (a mask over the trace)."""
    return work.pool.gpus_per_replica * float(_worth(work, scenario, finished).whole_s.sum())


def _undisturbed(scenario: Scenario) -> bool:
    """Whether every replica finds its GPU at once and none is lost by a fault."""
    return scenario.settings.nodes is None and not scenario.faults


def _pool_bound(name: str, work: PoolWork, scenario: Scenario, slo: Slo, *, alone: bool, sent: bool) -> PoolBound:
    arrival_s = scenario.trace.arrival_s
    scored = (arrival_s >= scenario.warmup_s) & (arrival_s <= scenario.horizon_s)
    refused = np.zeros(len(scored), np.bool_)
    refused[work.request[~work.servable]] = True
    worth = _worth(work, scenario, scored & ~refused)
    must_s = sum(
        max(
            _by_deadlines_s(work, scenario, slo, worth, scored & scenario.trace.of_class(kind), refused, kind, alone),
            default=0.0,
        )
        for kind in scenario.trace.classes
    )
    if sent:
        may_fail = max(int(slo.failed_at_most * scored.sum() + 1e-9) - int((scored & refused).sum()), 0)
        must_s = max(must_s, _without_most(worth.whole_s, may_fail) - _after_horizon_s(work, scenario))
    gpus, window_s = work.pool.gpus_per_replica, scenario.horizon_s - scenario.warmup_s
    envelope = work.pool.replicas
    least = min(envelope.min, scenario.start_replicas.get(name, envelope.at_start)) if _undisturbed(scenario) else 0
    whole_s, minimum = float(worth.whole_s.sum()), least * window_s * gpus
    return PoolBound(
        gpu_seconds=max(must_s * gpus, minimum),
        work_gpu_seconds=whole_s * gpus,
        left_over_gpu_seconds=(whole_s - must_s) * gpus,
        minimum_gpu_seconds=minimum,
    )


def _by_deadlines_s(
    work: PoolWork, scenario: Scenario, slo: Slo, worth: Worth, scored: Flags, refused: Flags, kind: str, alone: bool
) -> Iterator[float]:
    """Seconds of replicas that a class's requests must have taken by the horizon, as each of its promises has it."""
    count, lost = int(scored.sum()), int((scored & refused).sum())
    left_s = (scenario.horizon_s - scenario.trace.arrival_s)[scored]

    def kept(worth_s: Floats, within_s: Floats | float, share: float) -> float:
        misses = max(count - math.ceil(share * count - 1e-9) - lost, 0)
        return _without_most(worth_s[scored][left_s >= within_s], misses)

    first = scenario.trace.classes[0]
    promised = [each for each in slo.objectives if each.pool is None and (each.request_class or first) == kind]
    e2es, ttfts, tpots = (_of(promised, metric) for metric in ("e2e", "ttft", "tpot"))
    for e2e in e2es:
        yield kept(worth.whole_s, e2e.at_most_s, e2e.share)
    gaps = np.maximum(scenario.trace.output_tokens[scored] - 1.0, 0.0)
    for ttft in ttfts if alone else ():
        yield kept(worth.prompt_s, ttft.at_most_s, ttft.share)
        for tpot in tpots:
            yield kept(worth.whole_s, ttft.at_most_s + tpot.at_most_s * gaps, ttft.share + tpot.share - 1.0)


def _of(objectives: list[Objective], metric: str) -> list[Objective]:
    return [each for each in objectives if each.metric == metric]


def _without_most(worth_s: Floats, misses: int) -> float:
    """The sum without the `misses` largest."""
    if misses >= len(worth_s):
        return 0.0
    return float(np.sort(worth_s)[: len(worth_s) - misses].sum())


def _after_horizon_s(work: PoolWork, scenario: Scenario) -> float:
    """The most that replicas can work after the horizon on what they were sent by then; seconds of replicas."""
    cold, grace_s = work.pool.cold_start, work.pool.termination_grace_s
    shortest_s = scenario.perturbation.cold_start * cold.median_s * math.exp(-_RARE * cold.log_sigma)
    if grace_s > 0 and shortest_s == 0:
        return math.inf
    removed_s = (
        sum(grace_s - place * shortest_s for place in range(1, math.ceil(grace_s / shortest_s))) if grace_s else 0
    )
    replicas = max(work.pool.replicas.max, *scenario.start_replicas.values(), 0)
    return replicas * (max(scenario.drain_s, grace_s) + removed_s)


def _worth(work: PoolWork, scenario: Scenario, requests: Flags) -> Worth:
    """By request, 0 for those that are not asked for; on the tier where it is least."""
    jobs = requests[work.request]
    each = [_worth_on(work.on(profile), jobs) for profile in (work.profile, *work.tier_profiles)]
    counts, factor = len(scenario.trace), scenario.perturbation.step_time
    prompt_s = factor * np.minimum.reduce([worth.prompt_s for worth in each])
    whole_s = factor * np.minimum.reduce([worth.whole_s for worth in each])
    of = work.request[jobs]
    by_request = [np.bincount(of, each_s, minlength=counts).astype(np.float64) for each_s in (prompt_s, whole_s)]
    return Worth(*by_request)


def _worth_on(work: PoolWork, jobs: Flags) -> Worth:
    step, prices = work.profile.step, best_prices(work, jobs)
    prompts, decodes, cached = (values[jobs] for values in (work.prompts, work.decodes, work.cached))
    pairs = prompts * work.context_tokens[jobs]
    prompt_s = (prices.prefill_s + step.prefill_token_ms / _MS) * prompts + step.prefill_pair_ms / _MS * pairs
    anew_s = _prefilled_anew_s(work, work.input_tokens[jobs].astype(np.float64), decodes, prices)
    row_s = np.minimum(prices.decode_s, anew_s) + step.decode_ms / _MS
    decode_s = decodes * row_s + (step.kv_token_ms / _MS + prices.cached_s) * cached
    return Worth(prompt_s, prompt_s + decode_s)


def _prefilled_anew_s(work: PoolWork, inputs: Floats, decodes: Floats, prices: Prices) -> Floats:
    """The price of a decode row at which prefilling x = I + j tokens anew costs as much, at the cheapest j."""
    step = work.profile.step
    slope = prices.prefill_s + (step.prefill_token_ms - step.kv_token_ms) / _MS - prices.cached_s
    curve = step.prefill_pair_ms / _MS
    first, last = inputs + 1.0, inputs + np.maximum(decodes, 1.0)
    bottom = np.clip(-slope / (2.0 * curve), first, last) if curve > 0 else np.where(slope >= 0, first, last)
    return np.asarray(slope * bottom + curve * bottom**2 - step.decode_ms / _MS)


def best_prices(work: PoolWork, counted: Flags) -> Prices:
    """The prices of a grid under which these jobs are worth most (without regard to preemptions)."""
    prefills, decodes, cached = (float(values[counted].sum()) for values in (work.prompts, work.decodes, work.cached))
    rows_s = work.rows_s
    highest = float((rows_s[1 : work.budget_tokens + 1] / np.arange(1, work.budget_tokens + 1)).min())
    most_cached = float(rows_s[1:].min()) / work.kv_capacity_tokens
    shares = np.linspace(0.0, 1.0, _GRID + 1)
    best, best_worth = Prices(highest, 0.0, 0.0), highest * prefills
    for cached_s in shares * most_cached:
        decode_s = _decode_prices_s(work, shares * highest, float(cached_s))
        worth = shares * highest * prefills + decode_s * decodes + cached_s * cached
        worth[decode_s < 0] = -1.0
        place = int(np.argmax(worth))
        if worth[place] > best_worth:
            best = Prices(float(shares[place] * highest), float(decode_s[place]), float(cached_s))
            best_worth = float(worth[place])
    return best


def _decode_prices_s(work: PoolWork, prefill_s: Floats, cached_s: float) -> Floats:
    """For each price of a prefill row the highest price of a decode row that no step contradicts."""
    rows_s, seqs = work.rows_s, work.pool.max_num_seqs
    held_s = cached_s * work.kv_capacity_tokens
    alone = np.arange(1, min(seqs, len(rows_s) - 1) + 1)
    decoding_s = float(((rows_s[alone] - held_s) / alone).min())
    # linear in the number of decodes among n rows, so that the fewest and the most decide
    rows = np.arange(2, work.budget_tokens + 1)
    if not len(rows):
        return np.full(len(prefill_s), decoding_s)
    spare_s = (rows_s[rows] - held_s)[None, :] - prefill_s[:, None] * rows[None, :]
    with_most = np.minimum(seqs, rows - 1)
    mixed_s = np.minimum(spare_s.min(axis=1), (spare_s / with_most).min(axis=1)) + prefill_s
    return np.asarray(np.minimum(decoding_s, mixed_s), dtype=np.float64)
