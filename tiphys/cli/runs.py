"""`run`, `search`, `judge`, `report`: the pipeline or parts of it, in a run folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiphys.cli import show
from tiphys.cli.options import (
    Changes,
    ExperimentName,
    Json,
    Seed,
    TraceFile,
    Trials,
    Workers,
    planned,
    writable_folder,
)
from tiphys.errors import InputError

if TYPE_CHECKING:
    from tiphys.domain.verdict import Verdict
    from tiphys.experiment import Plan
    from tiphys.rehearsal import Gate
    from tiphys.stages import Run

KEPT, INFEASIBLE = 10, 3
_RUNS = Path("runs")
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Make the run folder under DIR.")]
Resume = Annotated[
    str | None, typer.Option("--resume", metavar="RUN", help="Go on with a run: its folder, or its name under runs/.")
]


class PlatformName(StrEnum):
    """Where trials are played."""

    TWIN = "twin"
    CLUSTER = "cluster"


def run(
    experiment: ExperimentName,
    platform: Annotated[PlatformName, typer.Option(help="Where trials are played.")] = PlatformName.TWIN,
    out: Out = None,
    trace: TraceFile = None,
    changes: Changes = None,
    trials: Trials = None,
    seed: Seed = None,
    workers: Workers = None,
    resume: Resume = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve the promotion where the experiment asks for it.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 10 when the incumbent stays.")] = False,
    json: Json = False,
) -> None:
    """The whole pipeline, here: tune on one part of the traffic, judge on the other, promote what is surely better.

    Example: tiphys run configs/experiments/chat.yaml --trials 300
    """
    with show.quiet_stdout():
        plan = planned(experiment, changes, trace, seed, workers, trials)
        started = _begin(plan, platform.value, out, resume)
        with _going_on(started.folder):
            _rehearse(started, yes)
            verdict = _verdict_of(started.folder)
            _write_report(started.folder)
    _show_verdict(verdict, started.folder, json)
    _leave(verdict.decision, exit_code)


def search(
    experiment: ExperimentName,
    out: Out = None,
    trace: TraceFile = None,
    changes: Changes = None,
    trials: Trials = None,
    seed: Seed = None,
    workers: Workers = None,
    resume: Resume = None,
    json: Json = False,
) -> None:
    """The search alone: the policies that are worth judging, best first.

    Example: tiphys search configs/experiments/chat.yaml --trials 100 --workers 4
    """
    from tiphys import stages
    from tiphys.cli.progress import displayed

    with show.quiet_stdout():
        started = _begin(planned(experiment, changes, trace, seed, workers, trials), "twin", out, resume)
        show.announce_compilation()
        with _going_on(started.folder), displayed():
            shortlist = stages.search_twin(started)
    found = _read_json(started.folder / "shortlist.json")
    if json:
        show.print_json({"run": str(started.folder), "feasible": shortlist.feasible, "shortlist": found})
    else:
        rows = [
            (f"{place}. {each['space']}, trial {each['trial']}", f"{each['value']:,.0f}", _margin(each["margin"]))
            for place, each in enumerate(found, 1)
        ]
        minimised = started.experiment.objective.minimise.replace("_", "-")
        show.out().print(show.table(("policy", minimised, "worst margin"), rows, "Worth judging"))
        show.say(f"run folder: {started.folder}")
    if not shortlist.feasible:
        show.say("no policy met the SLO on the part that is tuned on; the one that misses least is shown")
        raise typer.Exit(INFEASIBLE)


def judge(
    experiment: ExperimentName,
    challenger: Annotated[
        list[str],
        typer.Option("--challenger", metavar="FILE", help="A policy file, manifest or name; may be repeated."),
    ],
    out: Out = None,
    trace: TraceFile = None,
    changes: Changes = None,
    seed: Seed = None,
    workers: Workers = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 10 when the incumbent stays.")] = False,
    json: Json = False,
) -> None:
    """The judgement alone: given challengers against the incumbent, on the part of the traffic that is only judged on.

    Example: tiphys judge configs/experiments/chat.yaml --challenger mine.yaml --exit-code
    """
    from tiphys import stages
    from tiphys.cli.progress import displayed

    with show.quiet_stdout():
        plan = planned(experiment, changes, trace, seed, workers)
        policies = [plan.policy_given(each, "--challenger") for each in challenger]
        started = _begin(plan, "twin", out, None)
        show.announce_compilation()
        with displayed():
            verdict = stages.judge(started, stages.Shortlist.of(policies, feasible=True))
            _write_report(started.folder)
    _show_verdict(verdict, started.folder, json)
    _leave(verdict.decision, exit_code)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a verdict.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    json: Json = False,
) -> None:
    """Write the HTML report of a run (again): one file that needs no network.

    Example: tiphys report runs/chat/20261121-1015-seed1 --open
    """
    from tiphys.report import write_report

    path = write_report(run)
    if json:
        show.print_json({"report": str(path)})
    else:
        print(path)
    if open_it:
        typer.launch(str(path))


def _begin(plan: Plan, platform: str, out: Path | None, resume: str | None) -> Run:
    """A run whose inputs have all been read and checked, and whose folder can be written.

    Raises InputError before anything is written. The plan that the stages will use is the one that is checked here.
    """
    from tiphys import stages

    stages.require_supported(platform)
    text = _as_text(plan)
    folder = _folder(plan, out, resume)
    started = stages.open_run(text, folder, where=plan.where, platform=platform)
    checked = started.plan
    check_inputs(checked)
    writable_folder(folder, "--out" if out is not None else "--resume" if resume else str(_RUNS))
    for notice in (*checked.loaded.notices, *checked.notices):
        show.say(f"note: {notice}")
    stages.begin(started)
    show.say(f"run folder: {folder}")
    return started


def _as_text(plan: Plan) -> str:
    """The experiment as YAML, with every change of the command line in it."""
    from tiphys.documents import to_yaml

    return to_yaml(plan.experiment.model_dump(mode="json", by_alias=True))


def check_inputs(plan: Plan) -> None:
    """Read all that a run needs, so that what is wrong is said now and not after an hour. Raises InputError."""
    twin, whole = plan.twin(), plan.whole()
    tried = [("incumbent", plan.incumbent)]
    tried += [
        (f"search.spaces.{pool}: {name}", {**plan.incumbent, pool: space.default})
        for pool, spaces in plan.spaces.items()
        for name, space in spaces.items()
    ]
    for key, policy in tried:
        try:
            twin.check(policy, whole)
        except InputError as error:
            raise error.at(str(plan.where), key) from None
    trials, most = plan.experiment.search.trials, max(map(len, plan.spaces.values()))
    if trials < most:
        raise InputError(
            "fewer trials than spaces", where=str(plan.where), key="search.trials", found=trials, allowed=f">= {most}"
        )
    plan.tuned  # noqa: B018 - raises where the traffic is too short
    plan.check_prompts()


def _folder(plan: Plan, out: Path | None, resume: str | None) -> Path:
    base = out if out is not None else _RUNS / plan.experiment.name
    if resume is not None:
        known = [path for path in (Path(resume), base / resume) if (path / "experiment.yaml").is_file()]
        if not known:
            raise InputError("is not a run folder: it holds no experiment.yaml", where="--resume", found=resume)
        return known[0]
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-seed{plan.seed}"
    names = (f"{stem}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 1000))))
    return next(base / name for name in names if not (base / name).exists())


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Whoever interrupts the block is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        arguments = list(sys.argv[1:])
        if "--resume" not in arguments:
            arguments += ["--resume", str(folder)]
        show.say("stopped; nothing that was finished is lost and the incumbent is in force. Go on with:")
        show.say(f"  {shlex.join(['tiphys', *arguments])}")
        raise


def _rehearse(started: Run, yes: bool) -> None:
    """Walk the pipeline on this machine. Raises what made it fail."""
    from pipelines import tune
    from tiphys.cli.progress import displayed
    from tiphys.rehearsal import InProcess, rehearse

    plan = started.plan
    arguments = {
        "experiment": _as_text(plan),
        "experiment-file": str(plan.where),
        "platform": started.platform,
        "run-folder": str(started.folder),
        "approval": "true" if plan.experiment.promotion.approval else "false",
    }
    with displayed() as hear:
        outcome = rehearse(
            tune.pipeline(), arguments, runner=InProcess(), answer=_approval(started.folder, yes), on_event=hear
        )
    outcome.raise_failure()


def _approval(folder: Path, yes: bool) -> Any:
    """How the gate before promotion is answered: `--yes`, somebody at the terminal, or not at all (which is no)."""
    from tiphys.rehearsal import say_yes, take_defaults

    if yes:
        return say_yes
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        return take_defaults

    def ask(gate: Gate) -> Mapping[str, str]:
        return say_yes(gate) if typer.confirm(f"put the challenger in force? (evidence: {folder})", err=True) else {}

    return ask


def _verdict_of(folder: Path) -> Verdict:
    from tiphys.domain.values import parse
    from tiphys.domain.verdict import Verdict

    path = folder / "verdict.json"
    return parse(Verdict, _read_json(path), str(path))


def _read_json(path: Path) -> Any:
    from tiphys.documents import read_yaml

    return read_yaml(path)


def _write_report(folder: Path) -> None:
    from tiphys.report import write_report

    write_report(folder)


def _show_verdict(verdict: Verdict, folder: Path, json: bool) -> None:
    if json:
        show.print_json(verdict.document() | {"run": str(folder)})
        return
    from rich.panel import Panel

    console = show.out()
    colour = {"promote": "green", "keep": "yellow"}.get(verdict.decision, "red")
    title = f"[bold {colour}]{verdict.decision.replace('_', ' ')}[/]"
    console.print(Panel(_sentence(verdict.reason), title=title, title_align="left", border_style=colour, expand=False))
    console.print(show.table(("on the judged part", "incumbent", "challenger"), _comparison(verdict)))
    perturbed = [
        (row.perturbation, _margin(row.incumbent_margin), _margin(row.challenger_margin), "yes" if row.passed else "no")
        for row in verdict.robustness
    ]
    if perturbed:
        console.print(show.table(("worst margin under", "incumbent", "challenger", "passed"), perturbed))
    console.print(f"policy to apply: {folder / 'policy.yaml'}", soft_wrap=True)
    if verdict.promoted_to:
        console.print(f"in force in:     {verdict.promoted_to.get('path')}", soft_wrap=True)
    elif verdict.decision == "promote":
        console.print(f"put in force by: tiphys promote {shlex.quote(str(folder))}", soft_wrap=True)
    console.print(f"report:          {folder / 'report.html'}", soft_wrap=True)


def _comparison(verdict: Verdict) -> Sequence[tuple[str, str, str]]:
    ours, theirs = verdict.challenger.scorecard, verdict.incumbent.scorecard
    low, high = verdict.gain.interval
    rows = [(promise.promise, _kept(promise.incumbent), _kept(promise.challenger)) for promise in verdict.slo]
    return [
        ("policy", _kinds(verdict.incumbent.policy), _kinds(verdict.challenger.policy)),
        ("GPU-seconds", f"{theirs.gpu_seconds:,.0f}", f"{ours.gpu_seconds:,.0f}"),
        *_costs(theirs, ours),
        (
            f"ratio over {verdict.judged_on.replicates} plays",
            "1",
            f"{verdict.gain.gpu_seconds_ratio:.3f} ({low:.3f} to {high:.3f} at {verdict.gain.confidence:.0%})",
        ),
        *rows,
        ("TTFT p90", show.seconds(theirs.ttft_s["p90"]), show.seconds(ours.ttft_s["p90"])),
        ("e2e p90", show.seconds(theirs.e2e_s["p90"]), show.seconds(ours.e2e_s["p90"])),
        ("replicas, mean (most)", _replicas(theirs), _replicas(ours)),
        (
            "scale-ups, scale-downs",
            f"{theirs.scale_ups}, {theirs.scale_downs}",
            f"{ours.scale_ups}, {ours.scale_downs}",
        ),
    ]


def _costs(theirs: Any, ours: Any) -> list[tuple[str, str, str]]:
    if theirs.cost is None or ours.cost is None or not theirs.tiers:
        return []
    return [("cost", f"{theirs.cost:,.2f}", f"{ours.cost:,.2f}")]


def _replicas(card: Any) -> str:
    return f"{card.mean_replicas:.2f} ({card.max_replicas})"


def _kept(kept: Any) -> str:
    worst = [margin for margin in (kept.margin_judged_part, kept.margin_resampled) if margin is not None]
    return ("kept by " if kept.met else "missed by ") + f"{abs(min(worst)) * 100:.2f} points"


def _margin(margin: float) -> str:
    return f"{margin * 100:+.2f} points"


def _kinds(policy: Mapping[str, Mapping[str, Any]]) -> str:
    """`hpa on ttft_p90`, for each pool."""
    words = []
    for pool, document in policy.items():
        looks = document.get("metrics") or document.get("triggers") or ()
        signals = ", ".join(str(each.get("signal", each.get("scaler"))) for each in looks)
        said = f"{document['kind']} on {signals}" if signals else str(document["kind"])
        words.append(said if len(policy) == 1 else f"{pool}: {said}")
    return "; ".join(words)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _leave(decision: str, exit_code: bool) -> None:
    if decision == "infeasible":
        raise typer.Exit(INFEASIBLE)
    if exit_code and decision != "promote":
        raise typer.Exit(KEPT)
