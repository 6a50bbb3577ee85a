"""`traffic fit|sample|show`: learn from traffic, draw it, look at it."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiphys.cli import show as screen
from tiphys.cli.options import Json, writable_file
from tiphys.errors import InputError

if TYPE_CHECKING:
    from tiphys.domain.trace import Trace

app = typer.Typer(help="Traffic: learn a profile from a trace, draw from one, look at a trace.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(metavar="FILE", help="A trace: CSV or JSON lines, gzip or not.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there, not to stdout.")]
Spread = Annotated[
    float, typer.Option("--spread", min=0.0, help="Spread the arrivals of a coarse clock's stamp over so many seconds.")
]


@app.command()
def fit(
    file: File,
    out: Out = None,
    name: Annotated[str, typer.Option(help="The profile's name (default: the trace's).")] = "",
    source: Annotated[str, typer.Option(help="Where the trace is from.")] = "",
    licence: Annotated[str, typer.Option(help="The trace's licence.")] = "",
    citation: Annotated[str, typer.Option(help="What to cite.")] = "",
    spread_s: Spread = 0.0,
    json: Json = False,
) -> None:
    """Learn rate per minute, burstiness and joint token lengths of a trace.

    Example: tiphys traffic fit azure2023_conv.csv.gz --name azure2023-conv --out azure2023-conv.yaml
    """
    from tiphys.documents import write_atomically
    from tiphys.traffic import fit as fitted
    from tiphys.traffic import traffic_profile_text

    if out is not None:
        writable_file(out, "--out")
    changes = f"arrivals spread over {spread_s:g} s" if spread_s else ""
    profile = fitted(
        _trace(file, spread_s=spread_s), name=name, source=source, licence=licence, citation=citation, changes=changes
    )
    if out is not None:
        write_atomically(out, traffic_profile_text(profile))
        screen.say(f"wrote {out}")
    if json:
        screen.print_json(profile.model_dump(mode="json"))
    elif out is None:
        sys.stdout.write(traffic_profile_text(profile))


@app.command()
def sample(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A name in configs/traffic, or a path.")],
    out: Out = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other traffic of the same kind.")] = 1,
    duration_s: Annotated[float | None, typer.Option("--duration", help="Seconds (default: the profile's).")] = None,
    scale: Annotated[float, typer.Option(help="Copies laid over one another; a fraction thins.")] = 1.0,
) -> None:
    """Draw a trace from a profile, as CSV (gzip where the file's name ends in .gz).

    Example: tiphys traffic sample azure2023-conv --seed 7 --duration 3600 --out drawn.csv.gz
    """
    from tiphys.documents import write_atomically
    from tiphys.traffic import load_traffic_profile
    from tiphys.traffic import sample as drawn

    if out is not None:
        writable_file(out, "--out")
    trace = drawn(load_traffic_profile(profile, where="traffic sample"), seed, duration_s, scale)
    text = _csv(trace)
    if out is None:
        sys.stdout.write(text)
        return
    data = gzip.compress(text.encode(), mtime=0) if out.suffix == ".gz" else text.encode()
    write_atomically(out, data)
    screen.say(f"wrote {len(trace):,} requests to {out}")


@app.command()
def show(file: File, seed: Annotated[int, typer.Option(min=0)] = 1, spread_s: Spread = 0.0, json: Json = False) -> None:
    """The rate over time as a plot, and a trace's statistics. A traffic profile is drawn from first.

    Example: tiphys traffic show azure2023_conv.csv.gz
    """
    from tiphys.traffic import show_text, statistics

    trace = _trace(file, seed, spread_s)
    if json:
        screen.print_json({"name": trace.name} | statistics(trace).model_dump(mode="json"))
        return
    print(show_text(trace))


def _trace(file: Path, seed: int = 1, spread_s: float = 0.0) -> Trace:
    """The trace of a file, or one drawn from a profile (by name or by its YAML file); notices go to stderr."""
    from tiphys.traffic import known_traffic, load_traffic_profile, open_trace, sample

    if file.suffix in (".yaml", ".yml") or (not file.exists() and str(file) in known_traffic()):
        return sample(load_traffic_profile(str(file), where="traffic"), seed)
    if not file.exists():
        raise InputError("there is no such file", where=str(file), allowed="a trace file, or a traffic profile")
    loaded = open_trace(file, seed, spread_s)
    for notice in loaded.notices:
        screen.say(f"note: {notice}")
    return loaded.trace


def _csv(trace: Trace) -> str:
    text = io.StringIO()
    text.write("arrival_s,input_tokens,output_tokens\n")
    columns = (trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    text.writelines(f"{arrival!r},{given},{made}\n" for arrival, given, made in zip(*columns, strict=True))
    return text.getvalue()
