"""What a run folder holds, read for its report."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiphys.documents import read_text, read_yaml
from tiphys.domain.baselines import Baselines
from tiphys.domain.recording import Recording
from tiphys.domain.slo import Slo
from tiphys.domain.values import parse
from tiphys.domain.verdict import Verdict
from tiphys.errors import InputError
from tiphys.recordings import read_recording

_MARGIN = "margin: "
CONTESTANTS = ("incumbent", "challenger")


@dataclass(frozen=True)
class Trial:
    """One trial of the search, as `trials.csv` has it."""

    number: int
    space: str
    origin: str
    value: float
    margin: float
    """The worst of the objectives; of all promises where the share that may fail is exceeded."""
    feasible: bool
    shortlisted: bool


@dataclass(frozen=True)
class Evidence:
    """Everything that a report shows. What a run has not got is empty."""

    run: str
    experiment: Mapping[str, Any]
    slo: Slo
    verdict: Verdict
    environment: Mapping[str, Any]
    minimised: str
    trials: tuple[Trial, ...]
    recordings: Mapping[str, Recording]
    """By contestant."""
    policy: str
    manifests: Mapping[str, str]
    baselines: Baselines | None = None


def read_evidence(folder: Path) -> Evidence:
    """The evidence of a run folder. Raises InputError for a folder without an experiment or a verdict."""
    for name in ("experiment.yaml", "verdict.json"):
        if not (folder / name).is_file():
            raise InputError(f"holds no {name}: there is nothing to report on", where=str(folder))
    experiment = read_yaml(folder / "experiment.yaml")
    verdict = parse(Verdict, read_yaml(folder / "verdict.json"), str(folder / "verdict.json"))
    minimised = (experiment.get("objective") or {}).get("minimise", "gpu_seconds")
    return Evidence(
        run=folder.name,
        experiment=experiment,
        slo=parse(Slo, experiment.get("slo"), str(folder / "experiment.yaml")),
        verdict=verdict,
        environment=_optional(folder / "environment.json"),
        minimised=minimised,
        trials=_trials(folder / "trials.csv", minimised),
        recordings={
            name: read_recording(folder / "recordings" / f"{name}.parquet").recording
            for name in CONTESTANTS
            if (folder / "recordings" / f"{name}.parquet").is_file()
        },
        policy=_text(folder / "policy.yaml"),
        manifests={path.name: read_text(path) for path in sorted((folder / "manifests").glob("*.yaml"))},
        baselines=_baselines(folder / "baselines.json"),
    )


def _text(path: Path) -> str:
    return read_text(path) if path.is_file() else ""


def _optional(path: Path) -> Mapping[str, Any]:
    found = read_yaml(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _baselines(path: Path) -> Baselines | None:
    return parse(Baselines, read_yaml(path), str(path)) if path.is_file() else None


def _trials(path: Path, minimised: str) -> tuple[Trial, ...]:
    rows = csv.DictReader(io.StringIO(_text(path)))
    try:
        return tuple(
            Trial(
                number=int(row["trial"]),
                space=row["space"],
                origin=row["origin"],
                value=float(row[minimised]),
                margin=_margin(row),
                feasible=row["feasible"] == "True",
                shortlisted=bool(row["shortlist"]),
            )
            for row in rows
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"is damaged: {error}", where=str(path)) from None


def _margin(row: Mapping[str, str]) -> float:
    """The promise on failures leaves a margin of 0.1 points at most, which would hide those of the objectives."""
    named = {key: float(value) for key, value in row.items() if key.startswith(_MARGIN)}
    objectives = [margin for key, margin in named.items() if not key.startswith(f"{_MARGIN}failed") or margin < 0]
    return min(objectives, default=float(row["margin"]))
