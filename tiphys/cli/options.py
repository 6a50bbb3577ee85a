"""Options that several commands share, and the plan that they make of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiphys.errors import InputError

if TYPE_CHECKING:
    from tiphys.experiment import Plan

ExperimentName = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="An experiment file, or a name in configs/experiments.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the experiment, for example traffic.scale=4."),
]
TraceFile = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="A trace file in place of the experiment's traffic source."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="The seed that everything random derives from.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes that play; they change no result.")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Policies to try.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
PolicyFile = Annotated[
    str | None,
    typer.Option(
        "--policy", metavar="FILE", help="A policy file, a Kubernetes manifest, or a name in configs/policies."
    ),
]


def planned(
    experiment: str,
    changes: Sequence[str] | None = None,
    trace: Path | None = None,
    seed: int | None = None,
    workers: int | None = None,
    trials: int | None = None,
) -> Plan:
    """The plan of an experiment with what the command line changes. Raises InputError for a wrong file."""
    from tiphys.experiment import Plan, load_experiment, read_change, with_trace

    loaded, path = load_experiment(experiment, dict(read_change(text) for text in changes or ()))
    given = {"seed": seed, "workers": workers, "trials": trials}
    stated: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if stated:
        loaded = loaded.with_(search=loaded.search.with_(**stated))
    if trace is not None:
        if not trace.is_file():
            raise InputError("there is no such file", where="--trace", found=str(trace))
        loaded = with_trace(loaded, trace)
    return Plan(loaded, path)


def writable_file(path: Path, option: str) -> Path:
    """The path, when a file can be written there. Raises InputError otherwise; leaves nothing behind."""
    if path.is_dir():
        raise InputError("is a folder", where=option, found=str(path), allowed="a file")
    writable_folder(path.parent, option)
    return path


def writable_folder(path: Path, option: str) -> Path:
    """The path, when a folder is there or can be made and written to. Raises InputError otherwise; leaves nothing."""
    import tempfile

    there = next((each for each in (path, *path.absolute().parents) if each.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there):
            return path
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}",
            where=option,
            found=str(path),
            allowed="a folder that can be written to",
        ) from None
