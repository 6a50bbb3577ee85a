"""`promote`, `rollback`, `history`: the ledger of policies in force."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiphys.cli import show
from tiphys.cli.options import Json
from tiphys.errors import InputError

if TYPE_CHECKING:
    from tiphys.experiment import Plan
    from tiphys.promotion import LedgerEntry

_PRODUCTION = "production"
_DEFAULT_TARGET = Path("promoted")
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change, as kubectl diff does; change nothing.")
]
Target = Annotated[
    Path | None,
    typer.Option(
        "--target", metavar="DIR", help="The folder of what is in force (default: promoted, or the only one in it)."
    ),
]


def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a verdict.")],
    to: Annotated[
        str, typer.Option("--to", help="Where: production, which is the experiment's promotion target.")
    ] = _PRODUCTION,
    target: Annotated[
        Path | None, typer.Option("--target", metavar="DIR", help="Another folder than the experiment's target.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also against a verdict that is not to promote.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put the challenger of a run in force: its policy and manifests into the target folder, an entry into the ledger.

    Example: tiphys promote runs/chat/20261121-1015-seed1 --dry-run
    """
    from tiphys.promotion import promote as promote_run
    from tiphys.promotion import promotion_diff

    if to != _PRODUCTION:
        raise InputError("unknown place", where="--to", found=to, allowed=_PRODUCTION)
    plan = plan_of_run(run)
    place = target or Path(plan.experiment.promotion.target.path)

    def render(policy: Mapping[str, dict[str, Any]]) -> Mapping[str, list[dict[str, Any]]]:
        return {"scaling.yaml": _manifests(plan, policy)}

    if dry_run:
        _print_diff(promotion_diff(run, place, render=render), json)
        return
    entry = promote_run(run, place, render=render, now=datetime.now(UTC), force=force)
    _print_entry(entry, place, json)


def plan_of_run(run: Path) -> Plan:
    """The plan of the experiment that a run folder holds. Raises InputError where there is none."""
    from tiphys.experiment import Plan, load_experiment

    path = run / "experiment.yaml"
    if not path.is_file():
        raise InputError("is not a run folder: it holds no experiment.yaml", where=str(run))
    return Plan(*load_experiment(path))


def _manifests(plan: Plan, policy: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    from tiphys.policies import parse_policy

    return plan.manifests({pool: parse_policy(document) for pool, document in policy.items()})


def rollback(
    to: Annotated[int | None, typer.Option("--to", metavar="ENTRY", help="Number of the entry to go back to.")] = None,
    target: Target = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put the policy in force again that the present one replaced, or that of an earlier entry.

    Example: tiphys rollback --to 1 --dry-run
    """
    from tiphys.promotion import rollback as roll_back
    from tiphys.promotion import rollback_diff

    place = target or _only_target()
    if not (place / "ledger.jsonl").is_file():
        raise InputError("nothing was promoted here", where=str(place))
    if dry_run:
        _print_diff(rollback_diff(place, to), json)
        return
    _print_entry(roll_back(place, to, now=datetime.now(UTC)), place, json)


def history(target: Target = None, json: Json = False) -> None:
    """The ledger: what was put in force, when, and on what evidence.

    Example: tiphys history --json
    """
    from tiphys.promotion import history as entries_of

    place = target or _only_target()
    entries = entries_of(place)
    if json:
        show.print_json({"target": str(place), "entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    if not entries:
        show.say(f"nothing was promoted to {place}")
        return
    columns = ("entry", "time", "action", "version", "replaces", "run", "GPU-seconds ratio")
    show.out().print(show.table(columns, [_row(entry) for entry in entries]))


def _only_target() -> Path:
    """`promoted`, or the one folder in it that has a ledger. Raises InputError that lists them where there are more."""
    inside = sorted(ledger.parent for ledger in _DEFAULT_TARGET.glob("*/ledger.jsonl"))
    if (_DEFAULT_TARGET / "ledger.jsonl").is_file() or not inside:
        return _DEFAULT_TARGET
    if len(inside) > 1:
        raise InputError("which one?", where="--target", allowed=", ".join(map(str, inside)))
    return inside[0]


def _row(entry: LedgerEntry) -> tuple[str, ...]:
    action = entry.action + (f" of {entry.restores}" if entry.restores else "") + (" (forced)" if entry.forced else "")
    ratio = "-" if entry.gpu_seconds_ratio is None else f"{entry.gpu_seconds_ratio:.3f}"
    replaces = "-" if entry.replaces is None else str(entry.replaces)
    return (str(entry.entry), entry.time, action, entry.version, replaces, entry.run or "-", ratio)


def _print_diff(diff: str, json: bool) -> None:
    if json:
        show.print_json({"changes": bool(diff), "diff": diff})
        return
    sys.stdout.write(diff)
    if not diff:
        show.say("nothing would change")


def _print_entry(entry: LedgerEntry, place: Path, json: bool) -> None:
    if json:
        show.print_json(entry.model_dump(mode="json") | {"target": str(place)})
        return
    print(f"entry {entry.entry}: {entry.action}, version {entry.version} is in force in {place}")
