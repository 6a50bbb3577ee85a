"""Which steps a profile is fitted to, and which others it is held against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

# Dense where kernels change their tiles (128, 256, 512, 1024 rows): step time jumps there.
TABLE_TOKENS = (
    *(1, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256, 288, 384, 448, 512, 544, 640, 768, 896, 1024, 1088, 1280, 1536),
    *(2048, 2560, 3072, 4096, 5120, 6144, 8192, 12288, 16384),
)
_DECODES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_BESIDE = ((0, 0), (8, 1024), (32, 512), (32, 4096), (64, 1024), (128, 512), (128, 2048), (256, 1024))
_HELD_OUT = 600


class Shape(NamedTuple):
    """A step to be timed: prompts of equal length, whole or one chunk of one, beside decodes of equal context."""

    prefill_tokens: int
    prompt_tokens: int
    decodes: int
    context_tokens: int


def fitted_shapes(max_tokens: int, kv_capacity_tokens: int) -> list[Shape]:
    """Decode-only steps, prefill-only steps and mixed ones, on a grid; what a replica cannot hold is left out."""
    shapes = [*_decode_grid(), *_prefill_grid(2 * max_tokens)]
    return [shape for shape in shapes if _fits(shape, kv_capacity_tokens)]


def held_out_shapes(max_tokens: int, kv_capacity_tokens: int) -> list[Shape]:
    """Steps between the grid's points, within the token budget: decode only, prefill only and mixed in equal parts."""
    shapes = (_scattered(index, max_tokens) for index in range(1, _HELD_OUT + 1))
    return [shape for shape in shapes if _fits(shape, kv_capacity_tokens)]


def chunk_shapes(max_tokens: int) -> list[Shape]:
    """Steps that hold one chunk of a prompt of 1.5 to 4 times the token budget: a quarter of it, a half, all of it."""
    return [Shape(max_tokens // part, max_tokens * times // 2, 0, 0) for part in (4, 2, 1) for times in (3, 4, 6, 8)]


def _fits(shape: Shape, kv_capacity_tokens: int) -> bool:
    return shape.decodes * shape.context_tokens <= kv_capacity_tokens


def _decode_grid() -> Iterator[Shape]:
    yield from (Shape(0, 0, decodes, context) for decodes in _DECODES for context in _CONTEXTS)


def _prefill_grid(max_tokens: int) -> Iterator[Shape]:
    for tokens in TABLE_TOKENS:
        prompts = {prompt for prompt in _PROMPTS if prompt < tokens and tokens % prompt == 0} | {tokens}
        for prompt in sorted(prompts):
            for decodes, context in _BESIDE:
                if tokens + decodes <= max_tokens:
                    yield Shape(tokens, prompt, decodes, context)


def _scattered(index: int, max_tokens: int) -> Shape:
    """Point `index` of a Halton sequence, spread evenly over the logarithms."""
    tokens, share, decodes, context = (_radical_inverse(index, base) for base in (2, 3, 5, 7))
    sequences = _log_between(decodes, 1, 512)
    cached = _log_between(context, 64, 16384)
    if index % 3 == 0:
        return Shape(0, 0, sequences, cached)
    budget = _log_between(tokens, 16, max_tokens)
    prompt = _log_between(share, 16, budget)
    whole = budget // prompt * prompt
    if index % 3 == 1:
        return Shape(whole, prompt, 0, 0)
    return Shape(whole, prompt, min(sequences, max(1, max_tokens - whole)), cached)


def _log_between(share: float, low: int, high: int) -> int:
    return min(high, max(low, round(low * math.pow(high / low, share))))


def _radical_inverse(index: int, base: int) -> float:
    value, weight = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digit * weight
        weight /= base
    return value
