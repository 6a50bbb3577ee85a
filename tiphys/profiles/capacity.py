"""What one replica carries at given lengths: by its KV cache, by its SLO, and the targets of a scaler that follow.

A fluid picture of a steady state: requests of I input and O output tokens, and B sequences decoding at all times.

* A step gives each decoding sequence one token and a request needs O - 1 after its first: s = (O - 1) / B steps go by
  for each request that finishes, and in them the I prompt tokens of the one that follows it are prefilled.
* With c = ceil(I / (budget - B)) chunks to a prompt, m = min(s, c) of the s steps hold I / m prompt tokens (those
  of several requests when s < 1), the others only decode. More than budget - B tokens in a step have no steady state.
* A request takes T = m * prefill step + (s - m) * decode step of the replica's time: 1 / T requests per second, T / s
  between a request's tokens on the mean, and by Little's law (L = lambda W; Little 1961) c * prefill step / T requests
  being prefilled beside the B that decode.
* A decoding sequence has I + O / 2 cached tokens on the mean; rule `trtllm_no_evict` reserves I + O from the start.
* A request that meets no queue waits for the running step to end, E[t^2] / 2 E[t] on the mean (the inspection paradox),
  and then for its own c steps: its TTFT. Its end-to-end time is that and O - 1 gaps.
* While a queue of w requests empties at 1 / T per second its last waits w T; so w = (limit - TTFT) / T may wait.

Means stand for percentiles: an answer is where the search starts, and the twin is what judges it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tiphys.domain.profile import Profile, StepTime
from tiphys.domain.signals import Signal
from tiphys.domain.slo import Objective, Slo
from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen
from tiphys.errors import InputError

Flags = npt.NDArray[np.bool_]
Admission = Literal["vllm", "trtllm_no_evict"]
_MOST_SEQUENCES = 16384


class OperatingPoint(Frozen):
    """A steady state of one replica."""

    running: float
    """Requests in the engine: decoding and being prefilled."""
    decoding: float
    step_s: float
    """Mean step."""
    decode_step_s: float
    prefill_step_s: float
    requests_per_s: float
    ttft_s: float
    """Mean, without a queue."""
    gap_s: float
    """Mean time between a request's tokens; 0 for one output token."""
    e2e_s: float
    kv_usage: float


class Capacity(Frozen):
    """What one replica carries of requests of one length, and what stops it."""

    profile: str
    input_tokens: int
    output_tokens: int
    admission: Admission
    kv_bound_concurrency: int
    """Requests whose KV the cache holds, on the mean."""
    slo_bound_concurrency: int
    """Running requests at which the objectives are just met, whatever the cache holds; 0 when a single one misses."""
    bound_by: str
    """What stops the point from going further: kv, max_num_seqs, prefill, or the objective by name."""
    meets_slo: bool
    """False when even one running request misses an objective; the point is then that of one."""
    point: OperatingPoint
    waiting_per_replica: float | None
    """Requests that may wait and still meet the objectives; None when no objective limits a wait."""
    ttft_limit_s: float | None


class _Points(NamedTuple):
    """Steady states, one an index."""

    decoding: Floats
    running: Floats
    prefill_step_s: Floats
    decode_step_s: Floats
    step_s: Floats
    requests_per_s: Floats
    ttft_s: Floats
    gap_s: Floats
    e2e_s: Floats
    kv_tokens: Floats
    plain_share: Floats
    """Share of the steps that only decode."""

    def at(self, index: int, kv_capacity_tokens: int) -> OperatingPoint:
        return OperatingPoint(
            running=float(self.running[index]),
            decoding=float(self.decoding[index]),
            step_s=float(self.step_s[index]),
            decode_step_s=float(self.decode_step_s[index]),
            prefill_step_s=float(self.prefill_step_s[index]),
            requests_per_s=float(self.requests_per_s[index]),
            ttft_s=float(self.ttft_s[index]),
            gap_s=float(self.gap_s[index]),
            e2e_s=float(self.e2e_s[index]),
            kv_usage=float(self.kv_tokens[index]) / kv_capacity_tokens,
        )


def capacity(
    profile: Profile,
    input_tokens: int,
    output_tokens: int,
    slo: Slo,
    max_num_seqs: int = 256,
    *,
    max_batched_tokens: int | None = None,
    kv_capacity_tokens: int | None = None,
    admission: Admission = "vllm",
) -> Capacity:
    """What one replica carries of requests of these lengths under these objectives (the arithmetic: this file's head).

    `max_batched_tokens` and `kv_capacity_tokens` are the profile's where absent. Raises InputError for lengths below 1
    and for a request that the KV cache cannot hold.
    """
    budget = profile.max_batched_tokens if max_batched_tokens is None else max_batched_tokens
    cache = profile.kv_capacity_tokens if kv_capacity_tokens is None else kv_capacity_tokens
    _check(profile.name, input_tokens, output_tokens, max_num_seqs, budget, cache)
    points = _steady_states(profile.step, input_tokens, output_tokens, budget, admission)
    meets = {objective.name: _meets(objective, points) for objective in slo.objectives}
    limits = {"kv": points.kv_tokens <= cache, "max_num_seqs": points.running <= max_num_seqs, **meets}
    bounds = {name: _before_first_miss(met) for name, met in limits.items()}
    bound_by = min(bounds, key=lambda name: bounds[name])
    last = bounds[bound_by]
    point = points.at(max(last, 1) - 1, cache)
    slo_bound = min((bounds[name] for name in meets), default=len(points.running))
    return Capacity(
        profile=profile.name,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        admission=admission,
        kv_bound_concurrency=int(cache / _kv_tokens_each(input_tokens, output_tokens, admission)),
        slo_bound_concurrency=int(points.running[slo_bound - 1]) if slo_bound else 0,
        bound_by="prefill" if last == len(points.running) else bound_by,
        meets_slo=slo_bound > 0,
        point=point,
        waiting_per_replica=_waiting(slo, point),
        ttft_limit_s=_tightest(slo, "ttft"),
    )


def signal_targets(found: Capacity) -> dict[Signal, float]:
    """For each signal the level per replica (the limit, for TTFT) at which one replica more is due."""
    targets = {Signal.RUNNING: found.point.running, Signal.KV_USAGE: found.point.kv_usage}
    if found.waiting_per_replica is not None:
        targets[Signal.WAITING] = max(1.0, found.waiting_per_replica)
    if found.ttft_limit_s is not None:
        targets |= {signal: found.ttft_limit_s for signal in Signal if signal.quantile and signal.latency == "ttft"}
    return targets


def _check(profile: str, input_tokens: int, output_tokens: int, max_num_seqs: int, budget: int, cache: int) -> None:
    least = {"input_tokens": 1, "output_tokens": 1, "max_num_seqs": 1, "max_batched_tokens": 2}
    for (key, low), value in zip(least.items(), (input_tokens, output_tokens, max_num_seqs, budget), strict=True):
        if value < low:
            raise InputError(f"must be at least {low}", where=profile, key=key, found=value)
    if input_tokens + output_tokens > cache:
        raise InputError(
            "a request of these lengths is longer than the KV cache",
            where=profile,
            key="input_tokens + output_tokens",
            found=input_tokens + output_tokens,
            allowed=f"at most {cache}",
        )


def _kv_tokens_each(input_tokens: int, output_tokens: int, admission: Admission) -> float:
    return input_tokens + (output_tokens if admission == "trtllm_no_evict" else output_tokens / 2)


def _steady_states(step: StepTime, input_tokens: int, output_tokens: int, budget: int, admission: Admission) -> _Points:
    """The steady states of 1, 2, ... decoding sequences, as far as prefill keeps up."""
    if output_tokens == 1:
        return _prefill_only(step, input_tokens, budget)
    gaps = output_tokens - 1
    decoding = _sustained(input_tokens, gaps, budget)
    chunks = np.ceil(input_tokens / (budget - decoding))
    steps = gaps / decoding
    prefill_steps = np.minimum(steps, chunks)
    tokens = input_tokens / prefill_steps
    read = decoding * (input_tokens + output_tokens / 2)
    none = np.zeros_like(decoding)
    prefill_s = step.step_ms(tokens, tokens * input_tokens, decoding, read) / 1e3
    decode_s = step.step_ms(none, none, decoding, read) / 1e3
    plain_steps = steps - prefill_steps
    request_s = prefill_steps * prefill_s + plain_steps * decode_s
    squares = prefill_steps * prefill_s**2 + plain_steps * decode_s**2
    ttft_s = squares / (2 * request_s) + chunks * prefill_s
    prefilling = chunks * prefill_s / request_s
    held = decoding * _kv_tokens_each(input_tokens, output_tokens, admission)
    each_prompt = input_tokens + (output_tokens if admission == "trtllm_no_evict" else 0)
    return _Points(
        decoding=decoding,
        running=decoding + prefilling,
        prefill_step_s=prefill_s,
        decode_step_s=decode_s,
        step_s=request_s / steps,
        requests_per_s=1.0 / request_s,
        ttft_s=ttft_s,
        gap_s=request_s / steps,
        e2e_s=ttft_s + gaps * request_s / steps,
        kv_tokens=held + prefilling * each_prompt,
        plain_share=plain_steps / steps,
    )


def _sustained(input_tokens: int, gaps: int, budget: int) -> Floats:
    """1, 2, ... decoding sequences while a step holds the prompts that follow the finished: I B / gaps <= budget - B.

    Where it does not even for one, all steps hold prompt and less than one sequence decodes on the mean.
    """
    most = gaps * budget / (input_tokens + gaps)
    return np.arange(1.0, min(_MOST_SEQUENCES, int(most)) + 1) if most >= 1 else np.array([most])


def _prefill_only(step: StepTime, input_tokens: int, budget: int) -> _Points:
    """One output token: nothing decodes, and n prompts fill each step (or one prompt several steps)."""
    chunks = math.ceil(input_tokens / budget)
    prompts = np.arange(1.0, max(1, min(_MOST_SEQUENCES, budget // input_tokens)) + 1)
    none = np.zeros_like(prompts)
    tokens = prompts * input_tokens / chunks
    step_s = step.step_ms(tokens, tokens * input_tokens, none, none) / 1e3
    ttft_s = step_s / 2 + chunks * step_s
    return _Points(
        decoding=none,
        running=prompts,
        prefill_step_s=step_s,
        decode_step_s=none,
        step_s=step_s,
        requests_per_s=prompts / (chunks * step_s),
        ttft_s=ttft_s,
        gap_s=none,
        e2e_s=ttft_s,
        kv_tokens=prompts * (input_tokens + 1),
        plain_share=none,
    )


def _meets(objective: Objective, points: _Points) -> Flags:
    limit_s = objective.at_most_s
    if objective.metric == "itl":
        decode_met = np.where(points.decode_step_s <= limit_s, points.plain_share, 0.0)
        prefill_met = np.where(points.prefill_step_s <= limit_s, 1.0 - points.plain_share, 0.0)
        enough: Flags = (decode_met + prefill_met >= objective.share) | (points.gap_s == 0.0)
        return enough
    values_s = {"ttft": points.ttft_s, "tpot": points.gap_s, "e2e": points.e2e_s}
    met: Flags = values_s[objective.metric] <= limit_s
    return met


def _before_first_miss(met: Flags) -> int:
    """How many from the start are met."""
    return len(met) if met.all() else int(met.argmin())


def _tightest(slo: Slo, metric: str) -> float | None:
    return min((o.at_most_s for o in slo.objectives if o.metric == metric), default=None)


def _waiting(slo: Slo, point: OperatingPoint) -> float | None:
    limits = {"ttft": point.ttft_s, "e2e": point.e2e_s}
    slack = [o.at_most_s - limits[o.metric] for o in slo.objectives if o.metric in limits]
    return max(0.0, min(slack)) * point.requests_per_s if slack else None
