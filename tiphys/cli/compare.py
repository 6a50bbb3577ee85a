"""`compare`: each family tuned with the same budget, on traffic none was tuned on, beside what was possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiphys.cli import show
from tiphys.cli.options import Changes, ExperimentName, Json, Seed, TraceFile, Workers, planned

if TYPE_CHECKING:
    from tiphys.domain.baselines import Baselines
    from tiphys.domain.platform import Policy
    from tiphys.experiment import Plan
    from tiphys.policies import PolicySpace
    from tiphys.search.compare import Compared

_BUDGET = 60


def compare(
    experiment: ExperimentName,
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POLICY_OR_SPACE]...",
            help="Names in configs/policies, or files; the experiment's spaces if none.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[int, typer.Option("--budget", min=1, help="Policies to try of each space.")] = _BUDGET,
    trace: TraceFile = None,
    changes: Changes = None,
    seed: Seed = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """The fair table: each space tuned with the same budget, all played on traffic that none was tuned on.

    Beside them a plan that knew the traffic (clairvoyant), and a bound that no policy can go below.

    Example: tiphys compare configs/experiments/chat.yaml hpa-running keda-waiting --budget 100
    """
    from tiphys import stages
    from tiphys.cli.progress import displayed

    with show.quiet_stdout():
        plan = planned(experiment, changes, trace, seed, workers)
        contestants = dict(_contestants(plan, policies or ()))
        show.announce_compilation()
        with displayed():
            rows = _played(plan, contestants, budget)
            possible = stages.possible(plan)
    if json:
        documents = [row.model_dump(mode="json") | _over(row.gpu_seconds, possible) for row in rows]
        baselines = None if possible is None else possible.document()
        show.print_json({"experiment": plan.experiment.name, "rows": documents, "baselines": baselines})
        return
    columns = ("on the judged part", "GPU-seconds", "over incumbent", "over clairvoyant", "over bound", "SLO")
    show.out().print(show.table(columns, list(_lines(rows, possible))))
    if possible is not None and possible.message:
        show.say(f"note: {possible.message}")


def _contestants(plan: Plan, named: Sequence[str]) -> Iterator[tuple[str, Mapping[str, PolicySpace]]]:
    """By the name of a row a space for each of some pools, within its envelope, what cannot act fixed.

    A policy is a space of one point. With several pools a row is `POOL=NAME,...`; where none is named, the first
    spaces of all pools together, the second of all, and so on. Raises InputError.
    """
    from tiphys.search.joint import joint_name

    for name in named:
        yield (
            name,
            {pool: plan.space_given(each, pool, _ROWS) for pool, each in plan.given_by_pool(name, _ROWS).items()},
        )
    for turn in range(0 if named else max(len(spaces) for spaces in plan.spaces.values())):
        chosen = {pool: tuple(spaces)[turn % len(spaces)] for pool, spaces in plan.spaces.items()}
        row = joint_name(chosen, many=len(plan.incumbent) > 1)
        yield row, {pool: plan.spaces[pool][name] for pool, name in chosen.items()}


_ROWS = "POLICY_OR_SPACE"


def _played(plan: Plan, contestants: Mapping[str, Mapping[str, PolicySpace]], budget: int) -> tuple[Compared, ...]:
    from tiphys import stages
    from tiphys.progress import report
    from tiphys.search.compare import compare as play

    experiment = plan.experiment
    chosen: dict[str, Policy] = {"incumbent": plan.incumbent}
    for name, spaces in contestants.items():
        chosen[name] = _tuned(plan, name, spaces, budget)
    return play(
        plan.twin(), chosen, stages.exam(plan).real, experiment.slo, experiment.objective,
        workers=experiment.search.workers, on_progress=lambda done, of: report("compare", done, of),
    )  # fmt: skip


def _tuned(plan: Plan, name: str, spaces: Mapping[str, PolicySpace], budget: int) -> Policy:
    """The best of the spaces on the part that is tuned on; the one that misses least where none keeps the SLO."""
    from tiphys import stages
    from tiphys.progress import report
    from tiphys.search import search

    if all(space.is_point for space in spaces.values()):
        return {**plan.incumbent, **{pool: space.policy({}) for pool, space in spaces.items()}}
    experiment = plan.experiment
    result = search(
        plan.twin(), {pool: {name: space} for pool, space in spaces.items()}, stages.evaluation_plan(plan),
        experiment.slo, experiment.objective,
        trials=budget, seed=plan.seed, workers=experiment.search.workers,
        on_progress=lambda progress: report("compare", progress.done, progress.trials, name),
    )  # fmt: skip
    return result.shortlist[0].policy


def _over(gpu_seconds: float, possible: Baselines | None) -> dict[str, Any]:
    return {
        "over_clairvoyant": possible and possible.over_reference(gpu_seconds),
        "over_lower_bound": possible and possible.over_bound(gpu_seconds),
    }


def _lines(rows: Sequence[Compared], possible: Baselines | None) -> Iterator[tuple[str, ...]]:
    def line(name: str, gpu_seconds: float, slo: str) -> tuple[str, ...]:
        shares = (gpu_seconds / rows[0].gpu_seconds, *_over(gpu_seconds, possible).values())
        return (name, f"{gpu_seconds:,.0f}", *("-" if share is None else f"{share:.3f}" for share in shares), slo)

    for row in rows:
        yield line(
            row.name, row.gpu_seconds, f"{'kept' if row.meets else 'missed'} by {abs(row.margin) * 100:.2f} points"
        )
    if possible is not None and possible.clairvoyant is not None:
        reference = possible.clairvoyant
        yield line("clairvoyant (reference)", reference.gpu_seconds, "kept" if reference.feasible else "missed")
    if possible is not None:
        yield line("lower bound", possible.lower_bound.gpu_seconds, "")
