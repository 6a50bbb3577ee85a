"""The search: what it finds, and that it is the same study however often it is killed and on however many workers."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import optuna
import pytest

from tests.fluid_platform import SLO, FluidPlatform, fixed_space, hpa, hpa_space, wave
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import PERTURBATIONS
from tiphys.domain.slo import Minimised
from tiphys.errors import InputError, TiphysError
from tiphys.policies import FixedPolicy
from tiphys.policies.space import PolicySpace
from tiphys.search import EvaluationPlan, Outcome, Progress, SearchResult, search, write_shortlist, write_trials
from tiphys.search.evaluation import Bench, evaluate
from tiphys.search.halving import ladder, shares
from tiphys.search.study import propose
from tiphys.search.workers import Workers

TRIALS = 40
TRACE = wave(minutes=12, mean_per_s=8.0)
PLAN = EvaluationPlan.of([Scenario(TRACE, seed=1), Scenario(TRACE, seed=2)])
SPACES = {"hpa": hpa_space(), "fixed": fixed_space()}


def found(folder: Path | None = None, platform: FluidPlatform | None = None, **changes: object) -> SearchResult:
    arguments: dict[str, object] = {"trials": TRIALS, "seed": 3, "folder": folder} | changes
    return search(platform or FluidPlatform(), {"llm": SPACES}, PLAN, SLO, **arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> SearchResult:
    """The search as it comes out when nothing disturbs it."""
    return found()


def tables(result: SearchResult, folder: Path) -> bytes:
    write_trials(folder / "trials.csv", result)
    write_shortlist(folder / "shortlist.json", result)
    return (folder / "trials.csv").read_bytes() + (folder / "shortlist.json").read_bytes()


# --- what it finds ----------------------------------------------------------------------------------------------------


def test_the_best_policy_is_feasible_everywhere_and_cheaper_than_every_published_default(whole: SearchResult) -> None:
    defaults = [c for c in whole.trials if c.origin == "published default"]
    assert len(defaults) == len(SPACES)
    assert whole.best.feasible
    assert all(whole.best.value < c.value for c in defaults if c.feasible)


def test_no_feasible_policy_of_an_exhausted_space_is_cheaper_than_the_best() -> None:
    result = search(FluidPlatform(), {"llm": {"fixed": fixed_space()}}, PLAN, SLO, trials=40)
    bench = Bench(FluidPlatform(), PLAN, SLO, Minimised())
    feasible = [n for n in range(1, 9) if evaluate(bench, {"llm": FixedPolicy(replicas=n)}).feasible]
    assert result.best.policy == {"llm": FixedPolicy(replicas=min(feasible))}


def test_the_value_is_the_mean_over_nominal_scenarios_and_the_margin_the_worst_over_all(whole: SearchResult) -> None:
    best = whole.best
    bench = Bench(FluidPlatform(), PLAN, SLO, Minimised())
    alone = [
        evaluate(dataclasses.replace(bench, plan=EvaluationPlan((scenario,))), best.policy)
        for scenario in PLAN.scenarios
    ]
    assert best.value == sum(outcome.value for outcome in alone[:2]) / 2
    assert best.margin == min(outcome.margin for outcome in alone)


def test_the_default_then_the_handed_in_then_the_incumbent_are_the_first_trials() -> None:
    result = found(platform=FluidPlatform({"llm": hpa(2.0)}), seeds={"llm": {"hpa": [hpa(8.0, high=200)]}})
    first = [(c.origin, c.policy["llm"], c.params is None) for c in result.trials if c.space == "hpa"][:3]
    assert first == [
        ("published default", hpa(4.0), False),
        ("capacity", hpa(8.0, high=200), True),
        ("incumbent", hpa(2.0), False),
    ]


def test_the_worse_half_stops_and_the_rest_shares_what_remains() -> None:
    assert [rung.families for rung in ladder(6)] == [6, 3, 2, 1]
    left, spent = 300, []
    for rung in ladder(6):
        spent.append(shares(rung, left))
        left -= sum(spent[-1])
    assert spent == [[20] * 6, [20] * 3, [30] * 2, [60]]
    assert left == 0


@pytest.mark.parametrize("families", range(1, 13))
def test_every_family_is_tried_however_few_the_trials(families: int) -> None:
    spaces = {f"fixed-{number}": fixed_space() for number in range(families)}
    for trials in range(families, 3 * families):
        result = search(FluidPlatform(), {"llm": spaces}, PLAN, SLO, trials=trials)
        assert {candidate.space for candidate in result.trials} == set(spaces)
        assert len(result.trials) <= trials


def test_a_family_that_is_better_gets_more_trials(whole: SearchResult) -> None:
    counts = {name: sum(c.space == name for c in whole.trials) for name in SPACES}
    assert counts[whole.best.space] == max(counts.values())
    assert set(whole.rungs.values()) == {1, 2}
    assert len(whole.trials) <= TRIALS


def test_an_infeasible_trial_stops_early_only_when_its_family_has_a_feasible_one(whole: SearchResult) -> None:
    short = [c for c in whole.trials if c.outcome.played < len(PLAN.scenarios)]
    assert short
    for candidate in short:
        assert not candidate.feasible
        assert candidate.outcome.played >= len(PLAN.nominal)
        assert any(c.space == candidate.space and c.number < candidate.number and c.feasible for c in whole.trials)


def test_where_nothing_is_feasible_the_shortlist_holds_what_misses_least() -> None:
    small = {
        "fixed": PolicySpace({"kind": "fixed", "replicas": {"between": [1, 2]}}, published=FixedPolicy(replicas=1))
    }
    result = search(FluidPlatform(), {"llm": small}, PLAN, SLO, trials=12)
    assert not result.feasible
    assert [c.policy for c in result.shortlist] == [{"llm": FixedPolicy(replicas=2)}]
    assert all(c.outcome.played == len(PLAN.scenarios) for c in result.trials)


def test_numbers_that_cost_nothing_are_put_back(whole: SearchResult) -> None:
    result = search(FluidPlatform(), {"llm": {"hpa": hpa_space()}}, PLAN, SLO, trials=60, seed=3)
    simplified = [c for c in result.shortlist if c.origin == "simplified"]
    assert simplified
    sampled = min((c for c in result.trials if c.origin == "sampled"), key=lambda c: c.outcome.rank)
    assert simplified[0].value <= sampled.value * 1.005


def test_a_space_with_one_point_costs_one_trial() -> None:
    point = {"one": PolicySpace({"kind": "fixed", "replicas": 6}), "hpa": hpa_space()}
    result = search(FluidPlatform(), {"llm": point}, PLAN, SLO, trials=20)
    assert sum(c.space == "one" for c in result.trials) == 1


def test_a_play_in_which_nothing_finishes_misses_everything_and_still_costs() -> None:
    beyond = Scenario(TRACE, warmup_s=TRACE.end_s - 0.001)
    outcome = evaluate(Bench(FluidPlatform(), EvaluationPlan((beyond,)), SLO, Minimised()), {"llm": hpa(4.0)})
    assert not outcome.feasible
    assert list(outcome.margins.values()) == [-0.9, 0.01 - 1.0]
    assert outcome.value > 0


def test_progress_ends_with_every_trial_done() -> None:
    steps: list[Progress] = []
    result = found(on_progress=steps.append)
    assert [step.done for step in steps] == list(range(1, len(result.trials) + 1))
    assert steps[-1].best is not None and steps[-1].best.feasible


def test_the_incumbent_is_in_force_again_after_a_search() -> None:
    platform = FluidPlatform({"llm": hpa(7.0)})
    found(platform=platform)
    assert platform.incumbent() == {"llm": hpa(7.0)}


def test_perturbed_scenarios_come_the_severest_first() -> None:
    names = [scenario.perturbation.name for scenario in PLAN.perturbed[::2]]
    assert names == ["steps x1.2", "cold starts x2", "cold starts x0.5", "steps x0.8"]
    assert set(names) == {p.name for p in PERTURBATIONS}


# --- proposals --------------------------------------------------------------------------------------------------------


def test_proposals_are_a_pure_function_of_what_was_told_and_never_the_same_for_another_batch() -> None:
    dimensions = hpa_space().dimensions
    told = [
        (
            {"replicas.min": 1 + i % 4, "replicas.max": 8, "metrics.0.target": float(1 + i)},
            Outcome(i, {"a": 1.0 - i / 8}, 1),
        )
        for i in range(16)
    ]
    first = propose(dimensions, told, [], 4, (1, "hpa", 2))
    assert propose(dimensions, told, [], 4, (1, "hpa", 2)) == first
    assert propose(dimensions, told, [], 4, (1, "hpa", 3)) != first
    assert propose(dimensions, told, [], 4, (1, "keda", 2)) != first
    assert all(hpa_space().policy(point) for point in first)


def test_proposals_follow_feasibility_and_not_the_value_alone() -> None:
    space = PolicySpace({"kind": "fixed", "replicas": {"between": [1, 200]}})

    def proposed(threshold: int) -> list[int]:
        told = [({"replicas": n}, Outcome(float(n), {"slo": (n - threshold) / 200}, 1)) for n in range(1, 200, 5)]
        batches = [propose(space.dimensions, told, [], 8, (1, "fixed", batch)) for batch in range(5)]
        return [int(str(point["replicas"])) for batch in batches for point in batch]

    # without a constraint the cheap end is sought, with one the cheapest that keep it
    assert sorted(proposed(0))[20] < 60
    assert 90 <= sorted(proposed(100))[20] <= 130


@pytest.mark.parametrize("choices", [["Max", "Min"], [True, 1, None]])
def test_choices_come_back_as_the_values_they_are(choices: list[object]) -> None:
    from tiphys.policies.space import Dimension

    dimension = Dimension("a", "choice", choices=tuple(choices))  # type: ignore[arg-type]
    points = [point["a"] for point in propose([dimension], [], [], 40, (1, "x", 0))]
    assert {(type(p), p) for p in points} == {(type(c), c) for c in choices}


# --- the same study ---------------------------------------------------------------------------------------------------


def test_two_workers_give_the_same_tables_byte_for_byte(whole: SearchResult, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    two = found(tmp_path / "two", workers=2)
    assert tables(two, tmp_path / "two") == tables(whole, tmp_path / "one")


def test_a_finished_search_is_read_from_its_journal_without_a_play(whole: SearchResult, tmp_path: Path) -> None:
    found(tmp_path)
    plays = tmp_path / "plays"
    plays.mkdir()
    assert found(tmp_path, FluidPlatform(plays=plays)) == whole
    assert list(plays.iterdir()) == []


def test_a_journal_cut_at_any_byte_gives_the_same_search_and_plays_only_what_was_not_recorded(
    whole: SearchResult, tmp_path: Path
) -> None:
    found(tmp_path)
    content = (tmp_path / "study.journal").read_bytes()
    evaluations = {(str(c.policy["llm"].document()), c.outcome.played) for c in whole.trials}
    random = Random(1)
    cuts = [0, 1, len(content) - 1, content.index(b"\n") + 1, *random.sample(range(len(content)), 10)]
    for number, cut in enumerate(cuts):
        folder = tmp_path / str(number)
        (folder / "plays").mkdir(parents=True)
        (folder / "study.journal").write_bytes(content[:cut])
        assert found(folder, FluidPlatform(plays=folder / "plays")) == whole, f"cut at byte {cut}"
        fresh = evaluations - recorded(content[:cut])
        assert len(plays_of(folder)) == sum(played for _, played in fresh), f"cut at byte {cut}"


def recorded(content: bytes) -> set[tuple[str, int]]:
    """The policies whose outcome stands in a journal, each with the scenarios that it was played on."""
    logs = [json.loads(line) for line in content.split(b"\n")[:-1]]
    asked = [log["user_attrs"]["policy"] for log in logs if "distributions" in log]
    return {
        (str(asked[log["trial_id"]]), log["user_attr"]["outcome"]["played"])
        for log in logs
        if "outcome" in log.get("user_attr", {})
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.fluid_platform import FluidPlatform
from tests.test_search import found

def stop(progress):
    if progress.done == int(sys.argv[3]):
        os.kill(os.getpid(), getattr(signal, sys.argv[4]))

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found(folder, FluidPlatform(plays=folder / "plays"), workers=int(sys.argv[2]), on_progress=stop)
"""


def killed(folder: Path, workers: int, after: int, name: str) -> subprocess.CompletedProcess[str]:
    """A search in a process of its own that gets a signal when so many trials are done."""
    script = folder / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parent.parent
    return subprocess.run(
        [sys.executable, script, folder, str(workers), str(after), name],
        env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def plays_of(folder: Path) -> list[Path]:
    return list((folder / "plays").iterdir())


def test_a_search_killed_again_and_again_loses_and_repeats_nothing(whole: SearchResult, tmp_path: Path) -> None:
    whole_plays, folder = tmp_path / "whole", tmp_path / "run"
    whole_plays.mkdir()
    (folder / "plays").mkdir(parents=True)
    found(None, FluidPlatform(plays=whole_plays))
    for after in (1, 9, 21):
        assert killed(folder, 1, after, "SIGKILL").returncode == -signal.SIGKILL
    assert found(folder, FluidPlatform(plays=folder / "plays")) == whole
    # the signal comes after a trial's outcome was recorded, so nothing at all was played twice
    assert len(plays_of(folder)) == len(list(whole_plays.iterdir()))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_workers_do_not_outlive_a_search_that_is_killed(whole: SearchResult, tmp_path: Path, name: str) -> None:
    (tmp_path / "plays").mkdir()
    assert killed(tmp_path, 2, 20, name).returncode in (-getattr(signal, name), 1, 130)
    pids = {int(play.name.split("-")[1]) for play in plays_of(tmp_path)}
    assert len(pids) == 2
    assert all(ends(pid) for pid in pids)
    assert found(tmp_path, workers=2) == whole


def ends(pid: int) -> bool:
    """True when a process has ended or ends within ten seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(10_000))
    os.close(descriptor)
    return ended


def test_the_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    found(tmp_path)
    with pytest.raises(InputError, match="belongs to another search"):
        found(tmp_path, seed=4)
    with pytest.raises(InputError, match="belongs to another search"):
        found(tmp_path, about="another profile")


def test_a_journal_in_use_is_refused(tmp_path: Path) -> None:
    def once(_: Progress) -> None:
        with pytest.raises(InputError, match="in use"):
            found(tmp_path)

    search(FluidPlatform(), {"llm": {"fixed": fixed_space()}}, PLAN, SLO, trials=2, folder=tmp_path, on_progress=once)


def test_a_journal_damaged_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    found(tmp_path)
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], b"garbage\n", *lines[5:]]))
    with pytest.raises(InputError, match="line 5 is damaged"):
        found(tmp_path)


def test_optuna_reads_the_journal_as_studies_with_constraints(whole: SearchResult, tmp_path: Path) -> None:
    found(tmp_path)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    for name in SPACES:
        trials = optuna.load_study(study_name=name, storage=storage).trials
        told = [c for c in whole.trials if c.space == name]
        assert [t.value for t in trials] == [c.value for c in told]
        assert [all(v <= 0 for v in t.constraints.values()) for t in trials] == [c.feasible for c in told]


def test_too_few_trials_are_an_error() -> None:
    with pytest.raises(InputError, match="fewer trials than spaces"):
        found(trials=1)


# --- workers ----------------------------------------------------------------------------------------------------------


def square(offset: int, item: int) -> int:
    if item < 0:
        raise InputError("is negative", found=item)
    if item == 13:
        os._exit(7)
    return item * item + offset


@pytest.mark.parametrize("count", [1, 2])
def test_every_item_gets_its_result_and_workers_are_used_again(count: int) -> None:
    with Workers(square, 1, count) as workers:
        for _ in range(2):
            assert dict(workers.results([2, 3, 4])) == {0: 5, 1: 10, 2: 17}


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_task_is_raised_where_its_results_are_read(count: int) -> None:
    with Workers(square, 0, count) as workers, pytest.raises(InputError, match="is negative; found -1"):
        list(workers.results([1, -1]))


def test_a_worker_that_dies_is_an_error_with_its_exit_code() -> None:
    with Workers(square, 0, 2) as workers, pytest.raises(TiphysError, match="code 7"):
        list(workers.results([1, 13]))
