"""A profile to look at: step time over tokens, with the error of the fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tiphys.domain.profile import Profile
from tiphys.profiles.encoders import ENCODERS

_CONTEXT_TOKENS = 1024
_DECODES = (1, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
_BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Curve(NamedTuple):
    """One line of a plot: milliseconds of a step over a quantity."""

    title: str
    x_name: str
    x: tuple[int, ...]
    step_ms: tuple[float, ...]


class Picture(NamedTuple):
    """What is drawn of a profile."""

    title: str
    facts: str
    decode: Curve
    prefill: Curve
    error: str
    note: str


def show(profile: Profile) -> Picture:
    """The curves of a profile: steps that only decode (1,024 cached tokens each), steps that only prefill."""
    source = profile.source
    gpus = f"{profile.tensor_parallel} x " if profile.tensor_parallel > 1 else ""
    made_of = f"{source.tool} {source.tool_version}, {source.system} {source.backend} {source.backend_version}"
    return Picture(
        title=f"{profile.name}: {profile.model} ({source.quantization}) on {gpus}{profile.gpu}, {profile.engine}",
        facts=(
            f"{_memory_name(profile)} {profile.kv_capacity_tokens:,} tokens of {profile.kv_bytes_per_token:,} bytes; "
            f"at most {profile.max_batched_tokens:,} tokens a step"
        ),
        decode=_decode_curve(profile),
        prefill=_prefill_curve(profile),
        error=error_sentence(profile),
        note=f"{made_of}: {source.note}",
    )


def _memory_name(profile: Profile) -> str:
    return "activations of up to" if profile.model in ENCODERS else "KV cache"


def show_text(profile: Profile) -> str:
    """The picture as plain text with bars, for a terminal."""
    picture = show(profile)
    parts = (picture.title, picture.facts, "", *_bars(picture.decode), "", *_bars(picture.prefill), "", picture.error)
    return "\n".join((*parts, picture.note)) + "\n"


def error_sentence(profile: Profile) -> str:
    """How far the formula is from the measured steps, in a sentence."""
    error = profile.fit_error
    return (
        f"The formula is off by {error.median_ratio:.1%} in the median, {error.p95_ratio:.1%} at the 95th percentile "
        f"and {error.max_ratio:.1%} at most, over {error.points} steps."
    )


def _decode_curve(profile: Profile) -> Curve:
    most = profile.kv_capacity_tokens // _CONTEXT_TOKENS
    decodes = np.array([n for n in _DECODES if n <= max(most, 1)], dtype=np.float64)
    none = np.zeros_like(decodes)
    step_ms = profile.step.step_ms(none, none, decodes, decodes * _CONTEXT_TOKENS)
    title = f"decode only, {_CONTEXT_TOKENS:,} cached tokens each"
    return Curve(title, "sequences", tuple(map(int, decodes)), tuple(map(float, step_ms)))


def _prefill_curve(profile: Profile) -> Curve:
    doublings = [2**k for k in range(6, 20) if 2**k < profile.max_batched_tokens]
    tokens = np.array([*doublings, profile.max_batched_tokens], dtype=np.float64)
    none = np.zeros_like(tokens)
    step_ms = profile.step.step_ms(tokens, tokens * tokens, none, none)
    return Curve("prefill only, one prompt", "tokens", tuple(map(int, tokens)), tuple(map(float, step_ms)))


def _bars(curve: Curve) -> list[str]:
    longest = max(curve.step_ms)
    rows = [
        f"{x:>10,}  {_bar(ms / longest):<{_BAR_WIDTH}}  {ms:8.2f} ms"
        for x, ms in zip(curve.x, curve.step_ms, strict=True)
    ]
    return [f"{curve.title}", f"{curve.x_name:>10}", *rows]


def _bar(share: float) -> str:
    whole, eighth = divmod(round(share * _BAR_WIDTH * 8), 8)
    return ("█" * whole + _EIGHTHS[eighth]).rstrip()
