"""Search, judge and shortlist over several pools."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from tests.fluid_platform import SLO, fixed_space, hpa, hpa_space, wave
from tests.fluid_route import FluidRoute, incumbent
from tiphys.domain.platform import Policy, Transition
from tiphys.domain.scenario import Scenario
from tiphys.domain.slo import Minimised
from tiphys.errors import InputError
from tiphys.policies import FixedPolicy
from tiphys.policies.space import PolicySpace
from tiphys.search import EvaluationPlan, Exam, SearchResult, judge_on, search, write_shortlist, write_trials
from tiphys.search.evaluation import Bench, evaluate
from tiphys.search.joint import JointSpace, joint_spaces, read_stated, stated
from tiphys.search.simplify import one_reverted

TRACE = wave(minutes=12, mean_per_s=8.0)
PLAN = EvaluationPlan.of([Scenario(TRACE, seed=1), Scenario(TRACE, seed=2)])
BOTH = {"embed": {"fixed": fixed_space()}, "llm": {"fixed": fixed_space()}}
EITHER = {pool: {"hpa": hpa_space(), "fixed": fixed_space()} for pool in ("embed", "llm")}


def tables(result: SearchResult, folder: Path) -> bytes:
    write_trials(folder / "trials.csv", result)
    write_shortlist(folder / "shortlist.json", result)
    return (folder / "trials.csv").read_bytes() + (folder / "shortlist.json").read_bytes()


def test_the_best_pair_of_an_exhaustible_space_is_nearly_found() -> None:
    bench = Bench(FluidRoute(), PLAN, SLO, Minimised())
    pairs = [
        {"embed": FixedPolicy(replicas=a), "llm": FixedPolicy(replicas=b)} for a, b in product(range(1, 9), repeat=2)
    ]
    least = min(outcome.value for pair in pairs if (outcome := evaluate(bench, pair)).feasible)
    result = search(FluidRoute(), BOTH, PLAN, SLO, trials=64, seed=3)
    assert result.feasible
    assert result.best.value <= 1.1 * least
    defaults = [c for c in result.trials if c.origin == "published default"]
    assert all(result.best.value < c.value for c in defaults)


def test_pools_without_spaces_keep_the_incumbent() -> None:
    result = search(FluidRoute(), {"llm": {"fixed": fixed_space()}}, PLAN, SLO, trials=12)
    assert {c.policy["embed"] for c in result.trials} == {incumbent()["embed"]}
    assert len({c.policy["llm"] for c in result.trials}) > 2
    assert {path for c in result.trials for path in c.params or ()} == {"llm.replicas"}


def test_every_combination_of_spaces_is_a_family_where_the_trials_suffice() -> None:
    result = search(FluidRoute(), EITHER, PLAN, SLO, trials=80)
    assert set(result.rungs) == {f"embed {a}, llm {b}" for a, b in product(("hpa", "fixed"), repeat=2)}
    assert {c.space for c in result.trials} == set(result.rungs)
    for candidate in result.trials:
        kinds = f"embed {candidate.policy['embed'].kind}, llm {candidate.policy['llm'].kind}"
        assert candidate.space == kinds


def test_one_study_chooses_the_spaces_where_there_are_more_combinations_than_trials_suffice_for() -> None:
    result = search(FluidRoute(), EITHER, PLAN, SLO, trials=40)
    assert list(result.rungs) == ["any spaces"]
    assert len({c.space for c in result.trials}) > 2
    for candidate in result.trials:
        if candidate.params is not None:
            assert candidate.params["llm"] == candidate.policy["llm"].kind
            other = 1 if candidate.params["llm"] == "hpa" else 0
            assert not any(path.startswith(f"llm#{other}.") for path in candidate.params)


def test_a_point_of_a_joint_space_is_its_policy_and_back() -> None:
    space = JointSpace(EITHER, incumbent())
    policy = {"embed": FixedPolicy(replicas=3), "llm": hpa(12.0, low=2)}
    params = space.params_of(policy)
    assert params == {
        "embed": "fixed", "embed#1.replicas": 3,
        "llm": "hpa", "llm#0.replicas.min": 2, "llm#0.replicas.max": 8, "llm#0.metrics.0.target": 12.0,
    }  # fmt: skip
    assert space.policy(params) == policy
    assert space.params_of({"embed": hpa(1000.0), "llm": hpa(4.0)}) is None
    assert read_stated(json.loads(json.dumps(stated(policy))), ("embed", "llm")) == policy


def test_simplifying_puts_a_number_back_in_its_own_pool() -> None:
    space = joint_spaces({pool: {"hpa": hpa_space()} for pool in ("embed", "llm")}, incumbent(), most=8)[
        "embed hpa, llm hpa"
    ]
    params = space.params_of({"embed": hpa(9.0), "llm": hpa(4.0)})
    assert params is not None
    (reverted,) = one_reverted(space, params)
    assert space.policy(reverted) == incumbent()


def test_the_shortlist_says_each_policy_by_pool(tmp_path: Path) -> None:
    result = search(FluidRoute(), BOTH, PLAN, SLO, trials=24)
    write_shortlist(tmp_path / "shortlist.json", result)
    first = json.loads((tmp_path / "shortlist.json").read_text())[0]
    assert first["policy"] == {pool: result.best.policy[pool].document() for pool in ("embed", "llm")}
    assert first["space"] == "embed fixed, llm fixed"


def test_a_search_that_is_resumed_and_one_on_two_workers_are_the_same(tmp_path: Path) -> None:
    whole = search(FluidRoute(), EITHER, PLAN, SLO, trials=40, seed=3)
    folder = tmp_path / "cut"
    search(FluidRoute(), EITHER, PLAN, SLO, trials=40, seed=3, folder=folder)
    journal = (folder / "study.journal").read_bytes()
    (folder / "study.journal").write_bytes(journal[: len(journal) // 2])
    for number, found in enumerate(
        (
            search(FluidRoute(), EITHER, PLAN, SLO, trials=40, seed=3, folder=folder),
            search(FluidRoute(), EITHER, PLAN, SLO, trials=40, seed=3, workers=2),
        )
    ):
        (tmp_path / str(number)).mkdir()
        assert tables(found, tmp_path / str(number)) == tables(whole, tmp_path), number


def test_the_objective_of_a_pool_decides_over_its_own_jobs_alone() -> None:
    on_embed = SLO.with_(objectives=(SLO.objectives[0].with_(pool="embed", at_most_s=2.0),))
    bench = Bench(FluidRoute(), PLAN, on_embed, Minimised())
    starved_llm = evaluate(bench, {"embed": FixedPolicy(replicas=8), "llm": FixedPolicy(replicas=1)})
    starved_embed = evaluate(bench, {"embed": FixedPolicy(replicas=1), "llm": FixedPolicy(replicas=8)})
    assert (
        starved_llm.margins["ttft in embed <= 2 s for 90 %"]
        > 0
        > starved_embed.margins["ttft in embed <= 2 s for 90 %"]
    )


def test_an_unknown_pool_in_an_objective_names_the_nearest() -> None:
    wrong = SLO.with_(objectives=(SLO.objectives[0].with_(pool="embd"),))
    with pytest.raises(InputError, match="did you mean 'embed'"):
        evaluate(Bench(FluidRoute(), PLAN, wrong, Minimised()), {})


def test_a_point_for_every_pool_costs_one_trial() -> None:
    points = {pool: {"one": PolicySpace({"kind": "fixed", "replicas": 6})} for pool in ("embed", "llm")}
    assert len(search(FluidRoute(), points, PLAN, SLO, trials=20).trials) == 1


def test_the_verdict_names_pools_in_what_changes() -> None:
    real = [Scenario(TRACE, seed=seed) for seed in range(10)]
    drawn = [Scenario(wave(seed=20 + seed, minutes=12, mean_per_s=8.0), seed=seed) for seed in range(20)]
    exam = Exam.of(real, drawn, each=1)
    result = judge_on(FluidRoute({"embed": hpa(1.0), "llm": hpa(1.0)}), [{"llm": hpa(2.0)}], exam, SLO)
    assert result.changes == ("llm.metrics.0.target",)
    assert set(result.challenger.policy) == {"embed", "llm"}
    assert result.challenger.policy["embed"] == result.incumbent.policy["embed"]


class Charging(FluidRoute):
    """A platform that says that every other policy than the one in force takes a new revision."""

    def apply(self, policy: Policy) -> Transition:
        changed = dict(policy) != dict(self.in_force)
        super().apply(policy)
        return Transition(seconds=60, gpu_seconds=120, surge_gpus=2, new_revision=True) if changed else Transition()


def test_what_a_transition_takes_is_charged_to_every_trial_that_makes_one(tmp_path: Path) -> None:
    result = search(Charging(), BOTH, PLAN, SLO, trials=12, folder=tmp_path)
    changing = [c for c in result.trials if c.policy != incumbent()]
    assert result.taken.seconds == 60 * len(changing) and result.taken.surge_gpus == 2
    assert search(Charging(), BOTH, PLAN, SLO, trials=12, folder=tmp_path).taken == result.taken
    assert search(FluidRoute(), BOTH, PLAN, SLO, trials=12).taken == Transition()
