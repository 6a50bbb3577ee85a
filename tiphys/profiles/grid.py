"""Which steps a profile is fitted to, and which others it is held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

# Dense where kernels change their tiles (128, 256, 512, 1024 rows): step time jumps there.
TABLE_TOKENS = (
    *(1, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256, 288, 384, 448, 512, 544, 640, 768, 896, 1024, 1088, 1280, 1536),
    *(2048, 2560, 3072, 4096, 5120, 6144, 8192, 12288, 16384),
)
# With a point behind each jump: prompts alone fill steps of every size, decodes seldom do.
ENCODER_TABLE_TOKENS = tuple(sorted((*TABLE_TOKENS, 129, 257, 385, 513, 769, 1025, 2049)))
_DECODES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
_CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_BESIDE = ((0, 0), (8, 1024), (32, 512), (32, 4096), (64, 1024), (128, 512), (128, 2048), (256, 1024))
# Whole parts only: the database gives a chunk 1 / ceil(isl / P) of its prompt's attention, which is the share of its
# tokens when P divides isl and too little when it does not.
_CHUNKS = (512, 1024, 2048, 4096, 8192, 16384)
_PARTS = (2, 4, 8, 16)
_LONGEST_PROMPT = 32768
_HELD_OUT = 800
_SHORTEST_SEQUENCE = 16
_SEQUENCES = (16, 32, *_PROMPTS)
_KINDS = 4


class Shape(NamedTuple):
    """A step to be timed: prompts of equal length, whole or one chunk of one, beside decodes of equal context."""

    prefill_tokens: int
    prompt_tokens: int
    decodes: int
    context_tokens: int


def fitted_shapes(max_tokens: int, kv_capacity_tokens: int) -> list[Shape]:
    """Steps on a grid: decodes only, and whole prompts or a chunk of one, alone and beside decodes.

    What the KV cache cannot hold is left out.
    """
    shapes = [*_decode_grid(), *_prefill_grid(2 * max_tokens), *_chunk_grid(max_tokens)]
    return [shape for shape in shapes if _fits(shape, kv_capacity_tokens)]


def held_out_shapes(max_tokens: int, kv_capacity_tokens: int) -> list[Shape]:
    """Steps between the grid's points, within the token budget.

    In equal parts: decodes only, whole prompts only, whole prompts beside decodes, a chunk beside decodes. Each once,
    and none that the fit sees.
    """
    fitted = set(fitted_shapes(max_tokens, kv_capacity_tokens))
    shapes = dict.fromkeys(_scattered(index, max_tokens) for index in range(_HELD_OUT))
    return [shape for shape in shapes if _fits(shape, kv_capacity_tokens) and shape not in fitted]


def encoder_fitted_shapes(max_tokens: int, max_sequence_tokens: int) -> list[Shape]:
    """Steps of whole sequences of equal length, up to twice the token budget (the last points of the table)."""
    return [
        shape
        for shape in _whole_prompts(ENCODER_TABLE_TOKENS, _SEQUENCES)
        if shape.prefill_tokens <= 2 * max_tokens and shape.prompt_tokens <= max_sequence_tokens
    ]


def encoder_held_out_shapes(max_tokens: int, max_sequence_tokens: int) -> list[Shape]:
    """Steps of whole sequences between the grid's points, within the token budget. Each once, none that the fit
    sees.
    """
    fitted = set(encoder_fitted_shapes(max_tokens, max_sequence_tokens))
    shapes = dict.fromkeys(_scattered_sequences(place, max_tokens, max_sequence_tokens) for place in range(_HELD_OUT))
    return [shape for shape in shapes if shape not in fitted]


def _scattered_sequences(place: int, max_tokens: int, max_sequence_tokens: int) -> Shape:
    tokens, share = (_radical_inverse(place + 1, base) for base in (2, 3))
    budget = _log_between(tokens, _SHORTEST_SEQUENCE, max_tokens)
    sequence = _log_between(share, _SHORTEST_SEQUENCE, min(budget, max_sequence_tokens))
    return Shape(budget // sequence * sequence, sequence, 0, 0)


def _fits(shape: Shape, kv_capacity_tokens: int) -> bool:
    return shape.decodes * shape.context_tokens + shape.prompt_tokens <= kv_capacity_tokens


def _decode_grid() -> Iterator[Shape]:
    yield from (Shape(0, 0, decodes, context) for decodes in _DECODES for context in _CONTEXTS)


def _prefill_grid(max_tokens: int) -> Iterator[Shape]:
    for alone in _whole_prompts(TABLE_TOKENS, _PROMPTS):
        for decodes, context in _BESIDE:
            if alone.prefill_tokens + decodes <= max_tokens:
                yield alone._replace(decodes=decodes, context_tokens=context)


def _whole_prompts(totals: Iterable[int], lengths: Iterable[int]) -> Iterator[Shape]:
    """Prompts of each length of which whole ones make up a total, and one prompt that is the total."""
    for tokens in totals:
        prompts = {length for length in lengths if length < tokens and tokens % length == 0} | {tokens}
        yield from (Shape(tokens, prompt, 0, 0) for prompt in sorted(prompts))


def _chunk_grid(max_tokens: int) -> Iterator[Shape]:
    for tokens, parts, (decodes, context) in product(_CHUNKS, _PARTS, _BESIDE):
        if tokens <= max_tokens and tokens * parts <= _LONGEST_PROMPT:
            yield Shape(tokens, tokens * parts, decodes, context)


def _scattered(index: int, max_tokens: int) -> Shape:
    """Step `index`: each kind takes in turn the points of one Halton sequence, spread evenly over the logarithms."""
    # The place is apart from the kind: index % _KINDS would fix the digits of a Halton point in bases 2 and 3.
    place, kind = divmod(index, _KINDS)
    tokens, share, decodes, context = (_radical_inverse(place + 1, base) for base in (2, 3, 5, 7))
    sequences = _log_between(decodes, 1, 512)
    cached = _log_between(context, 64, 16384)
    if kind == 0:
        return Shape(0, 0, sequences, cached)
    if kind == 1:
        chunk = _log_between(tokens, 16, min(max_tokens, _LONGEST_PROMPT // 2))
        parts = _log_between(share, 2, _LONGEST_PROMPT // chunk)
        return Shape(chunk, chunk * parts, _beside(chunk, sequences, max_tokens), cached)
    budget = _log_between(tokens, 16, max_tokens)
    prompt = _log_between(share, 16, budget)
    whole = budget // prompt * prompt
    if kind == 2:
        return Shape(whole, prompt, 0, 0)
    return Shape(whole, prompt, _beside(whole, sequences, max_tokens), cached)


def _beside(prefill_tokens: int, sequences: int, max_tokens: int) -> int:
    return min(sequences, max(1, max_tokens - prefill_tokens))


def _log_between(share: float, low: int, high: int) -> int:
    return min(high, max(low, round(low * math.pow(high / low, share))))


def _radical_inverse(index: int, base: int) -> float:
    value, weight = 0.0, 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digit * weight
        weight /= base
    return value
