"""What a trace asks of each pool: the jobs that its requests bring, and what an engine step may hold and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.profile import Profile
from tiphys.domain.route import Classes, Hop, Tokens
from tiphys.domain.service import Pool
from tiphys.domain.trace import Floats, Trace

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]
_MS = 1000.0


@dataclass(frozen=True, eq=False)
class PoolWork:
    """The jobs of one pool: arrays of one entry a job, in any order.

    `request` is the job's request in the trace; `context_tokens` are those that a prompt token attends to at the end of
    its sequence (the prompt, where it is one sequence); `prefilled` is true where the KV cache comes from another pool.
    A job with one output token only prefills. `tier_profiles` are the step times of nodes that are unlike `profile`.
    """

    pool: Pool
    profile: Profile
    request: Longs
    input_tokens: Longs
    output_tokens: Longs
    context_tokens: Longs
    prefilled: Flags
    tier_profiles: tuple[Profile, ...] = ()

    @classmethod
    def of(cls, pool: Pool, profile: Profile, trace: Trace) -> PoolWork:
        """The work of the only pool: every request as it arrives."""
        inputs, outputs = trace.input_tokens.astype(np.int64), trace.output_tokens.astype(np.int64)
        return cls(pool, profile, np.arange(len(trace)), inputs, outputs, inputs, np.zeros(len(trace), np.bool_))

    def on(self, profile: Profile) -> PoolWork:
        """The same jobs by other step times."""
        return replace(self, profile=profile, tier_profiles=())

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that one replica's KV cache holds."""
        return self.pool.kv_capacity_tokens or self.profile.kv_capacity_tokens

    @property
    def budget_tokens(self) -> int:
        """Tokens of a step that prefills."""
        return self.pool.max_batched_tokens or self.profile.max_batched_tokens

    @cached_property
    def rows_s(self) -> Floats:
        """Seconds of a step of 0, 1, ... rows, of what its number of rows alone costs: g[n] + k.

        As far as a step can go: max_num_seqs decodes, or the token budget where something is prefilled.
        """
        most = max(self.budget_tokens, self.pool.max_num_seqs)
        step = self.profile.step
        return np.asarray((step.gemm_table_ms(most) + step.fixed_ms) / _MS, dtype=np.float64)

    @property
    def servable(self) -> Flags:
        """Which jobs fit into an empty KV cache; the others fail on arrival."""
        return np.asarray(self.input_tokens + self.output_tokens <= self.kv_capacity_tokens)

    @property
    def prompts(self) -> Floats:
        """Prefill rows of each job."""
        return np.asarray(np.where(self.prefilled, 0.0, self.input_tokens), dtype=np.float64)

    @property
    def decodes(self) -> Floats:
        """Decode rows of each job: its output tokens after the first, which comes with the last of the prompt."""
        return np.asarray(np.maximum(self.output_tokens - 1.0, 0.0), dtype=np.float64)

    @property
    def cached(self) -> Floats:
        """Cached tokens that each job's decodes read, all together: I + 1, I + 2, ..., I + O - 1."""
        return np.asarray(self.decodes * (self.input_tokens + 0.5 * (self.decodes + 1.0)))


def work_on_route(pools: Mapping[str, tuple[Pool, Profile]], classes: Classes, trace: Trace) -> dict[str, PoolWork]:
    """The work of every pool of a route, by the hops of each traffic class."""
    jobs: dict[str, list[PoolWork]] = {name: [] for name in pools}
    for name, hops in classes.items():
        chosen = np.flatnonzero(trace.of_class(name))
        for hop in hops:
            jobs[hop.pool].append(_jobs(*pools[hop.pool], hop, chosen, trace))
    return {name: _together(pools[name], parts) for name, parts in jobs.items()}


def _jobs(pool: Pool, profile: Profile, hop: Hop, chosen: Longs, trace: Trace) -> PoolWork:
    asked, answered = trace.input_tokens[chosen].astype(np.float64), trace.output_tokens[chosen].astype(np.float64)
    inputs, outputs = _counts(hop.input, asked, answered), _counts(hop.output, asked, answered)
    context = -(-inputs // hop.sequences)
    if hop.sequence_tokens is not None:
        context = np.minimum(context, hop.sequence_tokens)
    prefilled = np.full(len(chosen), hop.kv_from is not None)
    return PoolWork(pool, profile, chosen, inputs, outputs, context, prefilled)


def _counts(tokens: Tokens, asked: Floats, answered: Floats) -> Longs:
    """`Tokens.count` of many requests."""
    counts = np.ceil(tokens.of_input * asked + tokens.of_output * answered).astype(np.int64) + tokens.fixed
    return np.maximum(counts, 1)


def _together(pool: tuple[Pool, Profile], parts: list[PoolWork]) -> PoolWork:
    def column(name: str, dtype: type) -> NDArray[np.generic]:
        return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])

    names = ("request", "input_tokens", "output_tokens", "context_tokens")
    columns = {name: column(name, np.int64) for name in names}
    return PoolWork(*pool, **columns, prefilled=column("prefilled", np.bool_))  # type: ignore[arg-type]
