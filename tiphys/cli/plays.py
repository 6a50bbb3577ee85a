"""`simulate` and `explain`: one play on the twin, and why it scaled as it did."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiphys.cli import show
from tiphys.cli.options import (
    Changes,
    ExperimentName,
    Json,
    PolicyFile,
    Seed,
    TraceFile,
    planned,
    writable_file,
)  # fmt: skip
from tiphys.errors import InputError

if TYPE_CHECKING:
    from tiphys.domain.damage import Damage
    from tiphys.domain.recording import Recording
    from tiphys.domain.scorecard import Scorecard
    from tiphys.recordings import StoredRecording
    from tiphys.report.explain import Explained

_PLOT_COLUMNS = 72


def simulate(
    experiment: ExperimentName,
    policy: PolicyFile = None,
    trace: TraceFile = None,
    changes: Changes = None,
    seed: Seed = None,
    repeat: Annotated[int, typer.Option(min=1, help="Plays after one to warm up; wall_s is their median.")] = 1,
    recording: Annotated[
        Path | None, typer.Option("--recording", metavar="FILE", help="Keep everything observed, as Parquet.")
    ] = None,
    json: Json = False,
) -> None:
    """Play the whole traffic once on the twin and score it: the incumbent, or the policy that is given.

    Example: tiphys simulate configs/experiments/chat.yaml --policy hpa.yaml --repeat 5 --json
    """
    if recording is not None:
        writable_file(recording, "--recording")
    with show.quiet_stdout():
        plan = planned(experiment, changes, trace, seed)
        governing = plan.incumbent if policy is None else plan.policy_given(policy, "--policy")
        twin = plan.twin()
        twin.apply(governing)
        plan.check_prompts()
        scenario = plan.whole()
        for notice in plan.loaded.notices:
            show.say(f"note: {notice}")
        show.announce_compilation()
        played = twin.play(scenario)
        walls_s = [played.wall_s]
        if repeat > 1:
            del played
            walls_s = []
            for _ in range(repeat):
                played = twin.play(scenario)
                walls_s.append(played.wall_s)
        card = _scored(played, plan.experiment.slo, plan.experiment.objective, statistics.median(walls_s))
        if recording is not None:
            from tiphys.recordings import write_recording

            write_recording(recording, played, governing, scenario.settings)
    if json:
        show.print_json(card.model_dump(mode="json"))
        return
    _print_card(card, f"{plan.experiment.name}: {policy or 'incumbent'} on {scenario.trace.name}")
    if show.out().is_terminal:
        _print_plot(played)


def _scored(played: Recording, slo: Any, minimised: Any, wall_s: float) -> Scorecard:
    from tiphys.domain.scorecard import score

    return score(played, slo, minimised).with_(wall_s=wall_s)


def _print_card(card: Scorecard, title: str) -> None:
    console = show.out()
    verdict = "[green]meets the SLO[/]" if card.feasible else "[red]misses the SLO[/]"
    console.print(f"[bold]{title}[/]: {verdict}", soft_wrap=True)
    objectives = [
        (
            o.name,
            show.percent(o.met_share, 2),
            show.percent(o.share),
            "yes" if o.met else "no",
        )
        for o in card.slo
    ]
    console.print(show.table(("objective", "within", "promised", "met"), objectives))
    latencies = [
        (name, *(show.seconds(values[key]) for key in ("mean", "p50", "p90", "p95", "p99")))
        for name, values in (("ttft", card.ttft_s), ("tpot", card.tpot_s), ("itl", card.itl_s), ("e2e", card.e2e_s))
    ]
    latencies += [
        (f"{metric} of {name}", *(show.seconds(values[key]) for key in ("mean", "p50", "p90", "p95", "p99")))
        for name, each in list(card.classes.items())[1:]
        for metric, values in (("ttft", each.ttft_s), ("e2e", each.e2e_s))
    ]
    console.print(show.table(("latency", "mean", "p50", "p90", "p95", "p99"), latencies))
    facts = [
        ("requests (finished, failed)", f"{card.requests:,} ({card.finished:,}, {card.failed:,})"),
        ("GPU-seconds", f"{card.gpu_seconds:,.0f}"),
        ("cost", "-" if card.cost is None else f"{card.cost:,.2f}"),
        ("replicas, mean and most", f"{card.mean_replicas:.2f}, {card.max_replicas}"),
        ("scale-ups, scale-downs", f"{card.scale_ups}, {card.scale_downs}"),
        ("goodput", f"{card.goodput_per_s:.2f} /s"),
        ("preemptions", f"{card.preemptions:,}"),
        ("horizon", f"{card.horizon_s:,.1f} s"),
        ("time of the play", f"{card.wall_s:.3f} s"),
    ]
    console.print(show.table(("", ""), facts))
    _print_parts(card)


def _print_parts(card: Scorecard) -> None:
    """What there is more of than one: pools, tiers, faults; and the offline work."""
    console = show.out()
    if len(card.pools) > 1:
        pools = [
            (name, f"{each.gpu_seconds:,.0f}", f"{each.mean_replicas:.2f}", f"{each.max_replicas}")
            for name, each in card.pools.items()
        ]
        console.print(show.table(("pool", "GPU-seconds", "replicas, mean", "most"), pools))
    if card.tiers:
        tiers = [
            (name, f"{each.gpu_seconds:,.0f}", "-" if each.cost is None else f"{each.cost:,.2f}")
            for name, each in card.tiers.items()
        ]
        console.print(show.table(("tier", "GPU-seconds", "cost"), tiers))
    if card.offline is not None:
        work = card.offline
        said = (f"{work.harvested_gpu_seconds:,.0f}", f"{work.wasted_gpu_seconds:,.0f}", f"{work.evicted}")
        console.print(show.table(("offline GPU-seconds: harvested", "wasted", "jobs evicted"), [said]))
    if card.faults:
        columns = ("fault", "at", "failed", "kept before", "kept during", "recovered after")
        console.print(show.table(columns, [_damage_row(each) for each in card.faults]))


def _damage_row(damage: Damage) -> tuple[str, ...]:
    shares = (damage.met_share_before, damage.met_share_during)
    return (
        damage.kind,
        f"{damage.at_s:g} s",
        f"{damage.failed:,}",
        *("-" if share is None else show.percent(share) for share in shares),
        "never" if damage.recovered_s is None else f"{damage.recovered_s:g} s",
    )


def _print_plot(played: Recording) -> None:
    """Arrivals and replicas over the horizon, as lines of blocks."""
    import numpy as np

    edges = np.linspace(0.0, played.horizon_s, _PLOT_COLUMNS + 1)
    arrivals, _ = np.histogram(played.trace.arrival_s, edges)
    rate = arrivals / np.diff(edges)
    console = show.out()
    console.print(f"arrivals  {show.bars(rate.tolist(), _PLOT_COLUMNS)}  up to {rate.max():.1f} /s")
    middles = (edges[:-1] + edges[1:]) / 2
    for name, pool in played.pools.items():
        times, counts = (np.array(column) for column in zip(*pool.life.ready_log(), strict=True))
        ready = counts[np.searchsorted(times, middles, side="right") - 1]
        label = "ready" if len(played.pools) == 1 else f"ready {name}"
        console.print(f"{label:<9} {show.bars(ready.tolist(), _PLOT_COLUMNS)}  up to {int(ready.max())} replicas")


def explain(
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_RECORDING", help="A run folder, or a recording's Parquet file.")
    ],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="The pass in force then: seconds, or H:MM:SS.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every pass, not only those that changed or were held.")
    ] = False,
    json: Json = False,
) -> None:
    """Each scaling decision as arithmetic, and the delay from a step of the load to a ready replica.

    Example: tiphys explain runs/chat/20261121-1015-seed1 --at 0:05:30
    """
    from tiphys.recordings import read_recording

    time_s = None if at is None else _time_s(at)
    path = _recording_of(Path(source))
    stored = read_recording(path)
    documents = [_explain_pool(stored, name, str(path), time_s, everything) for name in stored.recording.pools]
    if json:
        show.print_json({"recording": str(path), "pools": {each["pool"]: each["json"] for each in documents}})
        return
    show.say(f"{path}")
    for each in documents:
        if len(documents) > 1:
            print(f"\n{each['pool']}\n")
        print("\n".join(each["lines"]))


def _explain_pool(
    stored: StoredRecording, name: str, where: str, time_s: float | None, everything: bool
) -> dict[str, Any]:
    from tiphys.policies import parse_policy
    from tiphys.report.explain import budget_lines, delay_budget, explained, law_of, sentences, story

    if name not in stored.policy:
        raise InputError("does not say which policy was in force", where=where, key=f"policy.{name}")
    pool = stored.recording.pools[name]
    law = law_of(parse_policy(dict(stored.policy[name]), where), stored.settings)
    passes = explained(pool.decisions, law)
    budget = delay_budget(pool, passes, law)
    if time_s is not None:
        chosen = _in_force(passes, time_s, where)
        lines = [line for each in chosen for line in sentences(each)]
    else:
        chosen = [each for each in passes if everything or each.tells]
        lines = [line for each in chosen for line in sentences(each)] if everything else list(story(chosen))
        lines = lines or ["no decision changed the scale or was held back"]
        lines += ["", *budget_lines(budget)]
    decisions = [
        each.model_dump(mode="json") | {"changed": each.changed, "held_back": each.held_back} for each in chosen
    ]
    delays = budget.model_dump(mode="json") | {"total_s": budget.total_s}
    return {
        "pool": name,
        "lines": lines,
        "json": {"decisions": decisions, "passes": len(passes), "delay_budget": delays},
    }


def _in_force(passes: list[Explained], time_s: float, where: str) -> list[Explained]:
    """The last pass of each controller at or before a time."""
    last = {each.loop: each for each in passes if each.time_s <= time_s}
    if not last:
        first = f"from {passes[0].time_s:.1f} s" if passes else "a policy that decides (this one never did)"
        raise InputError("no decision had been made by then", where=where, key="--at", found=time_s, allowed=first)
    return list(last.values())


def _time_s(text: str) -> float:
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(not 0 <= number < float("inf") for number in numbers):
        raise InputError("is not a time", where="--at", found=text, allowed="seconds, M:SS or H:MM:SS")
    return float(sum(number * 60.0**place for place, number in enumerate(reversed(numbers))))


def _recording_of(source: Path) -> Path:
    """The recording itself, or that of the challenger in a run folder (of the incumbent where there is no other)."""
    if source.is_file():
        return source
    found = sorted((source / "recordings").glob("*.parquet")) if source.is_dir() else []
    if not found:
        raise InputError(
            "holds no recording", where=str(source), allowed="a run folder, or a file that --recording wrote"
        )
    named = [path for word in ("challenger", "incumbent") for path in found if path.stem.startswith(word)]
    if len(found) > 1:
        show.say(f"recordings here: {', '.join(path.name for path in found)}")
    return (named or found)[0]
