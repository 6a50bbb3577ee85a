"""Step times of one engine on one GPU: a small JSON that states its source and its fit error."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen, PositiveInt, Ratio

NonNegative = Annotated[float, Field(ge=0)]


class StepTime(Frozen):
    """Milliseconds of one engine step: `g[P+B] + b*B + c*KV + p*P + q*sum(p_i * isl_i) + k`.

    P prefill tokens in the step (p_i of a prompt of isl_i tokens), B decoding sequences, KV cached tokens that the
    decodes read. `g` is linear between the points of `tokens`/`gemm_ms`, constant below the first, extended by its last
    slope above. Each prefill token attends to what came before it in its prompt, which over the whole prompt is
    isl_i / 2 tokens on the mean however it is chunked: so p_i * isl_i, the half being in `q`.
    """

    tokens: Annotated[tuple[int, ...], Field(min_length=2)]
    gemm_ms: Annotated[tuple[NonNegative, ...], Field(min_length=2)]
    decode_ms: NonNegative
    """b, per decoding sequence"""
    kv_token_ms: NonNegative
    """c, per cached token read"""
    prefill_token_ms: NonNegative
    """p, per prefill token"""
    prefill_pair_ms: NonNegative
    """q, per prefill token and token of its prompt (attention)"""
    fixed_ms: NonNegative
    """k, per step"""

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if len(self.tokens) != len(self.gemm_ms):
            raise ValueError("tokens and gemm_ms differ in length")
        if any(b <= a for a, b in zip(self.tokens, self.tokens[1:], strict=False)):
            raise ValueError("tokens must increase")
        return self

    def gemm_table_ms(self, max_tokens: int) -> Floats:
        """g at 0, 1, ... max_tokens tokens."""
        x = np.arange(max_tokens + 1, dtype=np.float64)
        table = np.interp(x, self.tokens, self.gemm_ms)
        slope = (self.gemm_ms[-1] - self.gemm_ms[-2]) / (self.tokens[-1] - self.tokens[-2])
        beyond = x > self.tokens[-1]
        table[beyond] = self.gemm_ms[-1] + slope * (x[beyond] - self.tokens[-1])
        return table

    def gemm_at_ms(self, tokens: Floats) -> Floats:
        """g at any numbers of tokens, fractions included."""
        slope = (self.gemm_ms[-1] - self.gemm_ms[-2]) / (self.tokens[-1] - self.tokens[-2])
        beyond = np.maximum(tokens - self.tokens[-1], 0.0)
        return np.interp(tokens, self.tokens, self.gemm_ms) + slope * beyond

    def step_ms(self, prefill_tokens: Floats, pairs: Floats, decodes: Floats, kv_tokens: Floats) -> Floats:
        """Milliseconds of many steps at once; `pairs` is the sum of p_i * isl_i of each."""
        attention_ms = self.kv_token_ms * kv_tokens + self.prefill_pair_ms * pairs
        rows_ms = self.decode_ms * decodes + self.prefill_token_ms * prefill_tokens
        return self.gemm_at_ms(prefill_tokens + decodes) + rows_ms + attention_ms + self.fixed_ms


class FitError(Frozen):
    """How far the formula is from measured steps, as a share of the step time."""

    points: PositiveInt
    """Steps that it was held against; in a made profile none of them was fitted to."""
    median_ratio: NonNegative
    p95_ratio: NonNegative
    max_ratio: NonNegative


class ProfileSource(Frozen):
    """Where the points came from: enough to make the profile again."""

    tool: str
    tool_version: str
    system: str
    backend: str
    backend_version: str
    quantization: str
    memory_ratio: Ratio = 0.9
    """Share of the GPU's memory that the engine may use."""
    note: str = ""


class Profile(Frozen):
    """What the twin knows of an engine on a GPU."""

    api_version: Literal["tiphys/v1"] = "tiphys/v1"
    kind: Literal["profile"] = "profile"
    name: str
    model: str
    gpu: str
    engine: Literal["vllm", "trtllm", "sglang"]
    tensor_parallel: PositiveInt
    max_batched_tokens: PositiveInt
    """Token budget of a step (chunked prefill) that the points were made for."""
    kv_capacity_tokens: PositiveInt
    """Tokens that the KV cache of one replica holds."""
    kv_bytes_per_token: PositiveInt
    """Bytes of one cached token on all GPUs of the replica together."""
    max_sequence_tokens: PositiveInt
    step: StepTime
    fit_error: FitError
    source: ProfileSource
