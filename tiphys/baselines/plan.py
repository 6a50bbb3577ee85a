"""A plan in slots: the work that a trace brings, the replicas that it needs, and when those had best be created.

A fluid picture. At a batch of B sequences a decode row costs a B-th of a step, so work is dear where batches are
small: a plan for a batch below the engine's limits has room for what the fluid does not show (bursts, chance, a late
replica). That room is the plan's one number, the safety factor f: batches of B_most / f, and below 1 that share of the
work at full batches, which leaves queues to be served when there is time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys.baselines.work import PoolWork
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope
from tiphys.domain.trace import Floats

SLOT_S = 10.0
_MS = 1000.0
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Load:
    """What each job takes of a replica at a batch: seconds of work, and how long it is worked on."""

    prompt_s: Floats
    decode_s: Floats
    lasts_s: Floats
    """From its first token to its last."""


def full_batch(work: PoolWork) -> float:
    """Sequences that an engine decodes at once where nothing spares it: by its limit and by its KV cache."""
    decodes, cached = float(work.decodes[work.servable].sum()), float(work.cached[work.servable].sum())
    held = cached / decodes if decodes else 1.0
    return max(1.0, min(float(work.pool.max_num_seqs), work.kv_capacity_tokens / held))


def load_at(work: PoolWork, batch: float, factor: float = 1.0) -> Load:
    """The load at `batch` sequences a replica; `factor` on all step times.

    A prompt token costs what it does in the best chunk. While a replica prefills, its decodes wait: a request lasts
    longer by the share of the work that is prefilling.
    """
    step, rows_s, there = work.profile.step, work.rows_s, work.servable
    best_s = float((rows_s[1 : work.budget_tokens + 1] / np.arange(1, work.budget_tokens + 1)).min())
    prompts, decodes = work.prompts * there, work.decodes * there
    pairs = prompts * work.context_tokens
    prompt_s = (best_s + step.prefill_token_ms / _MS) * prompts + step.prefill_pair_ms / _MS * pairs
    decoding_s = float(np.interp(batch, np.arange(len(rows_s)), rows_s))
    cached_s = step.kv_token_ms / _MS * work.cached * there
    decode_s = decodes * (decoding_s / batch + step.decode_ms / _MS) + cached_s
    total_s = float(decode_s.sum())
    slower = 1.0 + float(prompt_s.sum()) / total_s if total_s > 0 else 1.0
    return Load(prompt_s * factor, decode_s * factor, decode_s * factor * batch * slower)


def work_in_slots_s(arrival_s: Floats, load: Load, slots: int) -> Floats:
    """Seconds of replicas' work that fall into each slot: a prompt's where it arrives, a decode's over its length."""
    edges_s = SLOT_S * np.arange(slots + 1, dtype=np.float64)
    prompts = np.bincount((arrival_s / SLOT_S).astype(np.int64), load.prompt_s, minlength=slots + 1)[: slots + 1]
    prompts[slots - 1] += prompts[slots]  # the last arrival may fall on the last edge
    decodes = load.decode_s > 0
    began_s, decode_s, lasts_s = arrival_s[decodes], load.decode_s[decodes], load.lasts_s[decodes]
    rate = decode_s / lasts_s
    done_s = _ramps(began_s, rate, edges_s) - _ramps(began_s + lasts_s, rate, edges_s)
    return np.asarray(prompts[:slots] + np.diff(done_s))


def _ramps(from_s: Floats, rate: Floats, at_s: Floats) -> Floats:
    """Sum of `rate * max(0, at - from)` at each moment."""
    order = np.argsort(from_s, kind="stable")
    began = np.concatenate([[0.0], np.cumsum(rate[order])])
    offset = np.concatenate([[0.0], np.cumsum(rate[order] * from_s[order])])
    place = np.searchsorted(from_s[order], at_s, side="right")
    return np.asarray(began[place] * at_s - offset[place])


def needed_replicas(work_s: Floats, envelope: Envelope) -> Counts:
    """The fewest replicas that do each slot's work in it; what the most of them cannot do goes on to the next."""
    needed = np.empty(len(work_s), np.int64)
    left_s, most_s = 0.0, envelope.max * SLOT_S
    for slot, arrived_s in enumerate(work_s):
        left_s += float(arrived_s)
        needed[slot] = max(envelope.min, min(math.ceil(left_s / SLOT_S - 1e-9), envelope.max))
        left_s = max(left_s - most_s, 0.0) if left_s > most_s else 0.0
    return needed


def wanted_replicas(
    needed: Counts, start: int, lead_s: float, drain_s: float, counted_s: Floats, minimum: int = 0
) -> Counts:
    """Replicas to ask for in each slot at the least GPU time, such that those needed are ready when they are.

    The dynamic programme "keep an idle replica, or drop it and pay another cold start" falls apart by replica: the
    k-th is needed where at least k are. Between two such times keeping it costs the time between, dropping it a cold
    start (`lead_s`) and a drain (`drain_s`); the cheaper is taken, of which only the scored part of each slot
    (`counted_s`) costs anything. Where the k+1-th is asked for the k-th is too, so no replica goes before a later one.
    `start` of them are ready at the beginning; nobody can be ready there besides.
    """
    lead = math.ceil(lead_s / SLOT_S)
    before_s = np.concatenate([[0.0], np.cumsum(counted_s)])
    wanted = np.zeros(len(needed), np.int64)
    for replica in range(1, int(needed.max(initial=0)) + 1):
        on = needed >= replica
        if replica > minimum:
            ready_until = 0 if replica <= start else None
            for begin, end in _runs(needed >= replica):
                created = max(begin - lead, 0)
                starting_s = before_s[begin] - before_s[created] + drain_s
                keeping_s = math.inf if ready_until is None else before_s[begin] - before_s[ready_until]
                on[ready_until if keeping_s <= starting_s else created : begin] = True
                ready_until = end
        wanted += on
    return wanted


def _runs(flags: Flags) -> Iterator[tuple[int, int]]:
    """Begin and end of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2):
        yield int(begin), int(end)


def counted_in_slots_s(scenario: Scenario, slots: int) -> Floats:
    """Seconds of each slot in which GPU time counts."""
    edges_s = np.clip(SLOT_S * np.arange(slots + 1), scenario.warmup_s, scenario.horizon_s)
    return np.asarray(np.diff(edges_s))


def plan_counts(work: PoolWork, scenario: Scenario, start: int, safety: float, lead_s: float) -> Counts:
    """Replicas to ask for in each slot from 0 to the horizon under one safety factor and one lead."""
    slots = max(1, math.ceil(scenario.horizon_s / SLOT_S))
    batch = max(full_batch(work) / max(safety, 1.0), 1.0)
    load = load_at(work, batch, scenario.perturbation.step_time)
    arrival_s = scenario.trace.arrival_s[work.request]
    work_s = work_in_slots_s(arrival_s, load, slots) * min(safety, 1.0)
    envelope = work.pool.replicas
    drain_s = min(work.pool.termination_grace_s, float(load.lasts_s.mean()))
    counted_s = counted_in_slots_s(scenario, slots)
    return wanted_replicas(needed_replicas(work_s, envelope), start, lead_s, drain_s, counted_s, envelope.min)
