"""`profile make|show|capacity`: step-time profiles."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tiphys.cli import show as screen
from tiphys.cli.options import Json, writable_file
from tiphys.errors import InputError

app = typer.Typer(help="Step-time profiles: make one, look at one, ask what a replica carries.", no_args_is_help=True)
ProfileName = Annotated[str, typer.Argument(metavar="PROFILE", help="A name in configs/profiles, or a path.")]


class Quantization(StrEnum):
    """Of weights and KV cache."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP8_KV8 = "fp8_kv8"


class Admission(StrEnum):
    """How an engine admits requests to its KV cache."""

    VLLM = "vllm"
    TRTLLM = "trtllm_no_evict"


@app.command()
def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the profile is called.")],
    model: Annotated[str, typer.Option(help="The model's name on its hub.")],
    system: Annotated[str, typer.Option(help="The GPU system, for example h100_sxm.")],
    backend: Annotated[str, typer.Option(help="vllm, trtllm or sglang.")],
    backend_version: Annotated[str | None, typer.Option(help="The database's current one where absent.")] = None,
    tensor_parallel: Annotated[int, typer.Option("--tp", min=1, help="GPUs that one replica is spread over.")] = 1,
    max_batched_tokens: Annotated[int, typer.Option(min=2, help="Token budget of one engine step.")] = 8192,
    quantization: Annotated[Quantization, typer.Option(help="Of weights and KV cache.")] = Quantization.BF16,
    memory_ratio: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of GPU memory to use.")] = 0.9,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there, not to stdout.")] = None,
) -> None:
    """Make a profile from a database of measured kernels (needs the extra `profiles`).

    Example: tiphys profile make llama31-8b_h100_vllm_tp1 --model meta-llama/Llama-3.1-8B \\
    --system h100_sxm --backend vllm
    """
    from tiphys.documents import write_atomically
    from tiphys.profiles import profile_text
    from tiphys.profiles.make import Recipe, make_profile

    if out is not None:
        writable_file(out, "--out")
    with screen.quiet_stdout():
        made = make_profile(
            Recipe(
                name=name,
                model=model,
                system=system,
                backend=backend,
                backend_version=backend_version,
                tensor_parallel=tensor_parallel,
                max_batched_tokens=max_batched_tokens,
                quantization=quantization.value,
                memory_ratio=memory_ratio,
            )
        )
    if out is None:
        sys.stdout.write(profile_text(made))
        return
    write_atomically(out, profile_text(made))
    screen.say(f"wrote {out}")


@app.command()
def show(profile: ProfileName, json: Json = False) -> None:
    """Step time over tokens, and how far the formula is from what was measured.

    Example: tiphys profile show llama31-8b_h100_vllm_tp1
    """
    from tiphys.profiles import load_profile
    from tiphys.profiles.show import show as picture_of
    from tiphys.profiles.show import show_text

    loaded = load_profile(profile, where="profile show")
    if json:
        picture = picture_of(loaded)
        curves = {name: getattr(picture, name)._asdict() for name in ("decode", "prefill")}
        screen.print_json({"profile": loaded.model_dump(mode="json"), "curves": curves, "error": picture.error})
        return
    sys.stdout.write(show_text(loaded))


@app.command()
def capacity(
    profile: ProfileName,
    input_tokens: Annotated[int, typer.Option("--input", min=1, help="Input tokens of a request.")],
    output_tokens: Annotated[int, typer.Option("--output", min=1, help="Output tokens of a request.")],
    ttft_s: Annotated[float | None, typer.Option("--ttft", help="Limit of the time to first token, seconds.")] = None,
    tpot_s: Annotated[
        float | None, typer.Option("--tpot", help="Limit of the mean gap between tokens, seconds.")
    ] = None,
    e2e_s: Annotated[float | None, typer.Option("--e2e", help="Limit of the whole request, seconds.")] = None,
    share: Annotated[float, typer.Option(help="Share of requests within each limit.")] = 0.9,
    max_num_seqs: Annotated[int, typer.Option(min=1, help="The engine's limit of running requests.")] = 256,
    admission: Annotated[Admission, typer.Option(help="The engine's admission rule.")] = Admission.VLLM,
    json: Json = False,
) -> None:
    """What one replica carries at given lengths: by its KV cache, by the limits, as a rate, and as targets of a scaler.

    Example: tiphys profile capacity llama31-8b_h100_vllm_tp1 --input 1024 --output 256 --ttft 2 --e2e 20
    """
    from tiphys.domain.slo import Objective, Slo
    from tiphys.domain.values import parse
    from tiphys.profiles import load_profile
    from tiphys.profiles.capacity import capacity as capacity_of
    from tiphys.profiles.capacity import signal_targets

    loaded = load_profile(profile, where="profile capacity")
    limits: dict[Literal["ttft", "tpot", "e2e"], float | None] = {"ttft": ttft_s, "tpot": tpot_s, "e2e": e2e_s}
    stated = [
        {"metric": name, "at_most_s": limit, "share": share} for name, limit in limits.items() if limit is not None
    ]
    if not stated:
        raise InputError(
            "no limit was given", where="profile capacity", allowed="at least one of --ttft, --tpot, --e2e"
        )
    objectives = tuple(parse(Objective, each, f"--{each['metric']}") for each in stated)
    found = capacity_of(
        loaded, input_tokens, output_tokens, Slo(objectives=objectives), max_num_seqs, admission=admission.value
    )
    targets = {signal.value: target for signal, target in signal_targets(found).items()}
    if json:
        screen.print_json(found.model_dump(mode="json") | {"signal_targets": targets})
        return
    point = found.point
    rows = [
        ("requests that the KV cache holds", f"{found.kv_bound_concurrency:,}"),
        ("running requests that the limits allow", f"{found.slo_bound_concurrency:,}"),
        ("bound by", found.bound_by),
        ("meets the limits", "yes" if found.meets_slo else "no, not even with one running request"),
        ("running there", f"{point.running:.1f}"),
        ("rate per replica", f"{point.requests_per_s:.3f} /s"),
        ("TTFT, gap, e2e", f"{point.ttft_s:.3f} s, {point.gap_s * 1000:.1f} ms, {point.e2e_s:.2f} s"),
        ("KV usage", screen.percent(point.kv_usage)),
        *((f"target of {name}", f"{value:.4g}") for name, value in targets.items() if name not in _SAME_AS_P90),
    ]
    title = f"{loaded.name}: {input_tokens:,} tokens in, {output_tokens:,} out"
    screen.out().print(screen.table(("one replica", ""), rows, title))


_SAME_AS_P90 = ("ttft_p50", "ttft_p95", "ttft_p99")
