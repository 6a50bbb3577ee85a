"""What an experiment amounts to: parts that do not overlap, replicates, spaces without what cannot act."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiphys.configs import config_names
from tiphys.domain.scenario import Scenario
from tiphys.domain.trace import Trace
from tiphys.errors import InputError
from tiphys.experiment import JUDGED_REPLICATES, Plan, load_experiment


def plan(name: str = "code", **changes: object) -> Plan:
    return Plan(*load_experiment(name, {key.replace("__", "."): value for key, value in changes.items()}))


def scored(scenario: Scenario) -> int:
    arrival = scenario.trace.arrival_s
    return int(((arrival >= scenario.warmup_s) & (arrival <= scenario.horizon_s)).sum())


def beginning(whole: Scenario) -> Scenario:
    """Two minutes from the first request on; in a closed loop three users at most, on the first level."""
    trace, users = whole.trace, whole.users
    if users is None:
        first_s = float(trace.arrival_s[0])
        return replace(whole, trace=trace.between(first_s, first_s + 120.0))
    first = users.levels[0]
    few = users.with_(levels=(first.with_(users=min(first.users, 3)),))
    asked = Trace(
        trace.arrival_s, trace.input_tokens, trace.output_tokens, trace.name, min(trace.end_s, 120.0),
        classes=trace.classes,
    )  # fmt: skip
    return replace(whole, trace=asked, users=few)


@pytest.mark.parametrize("name", config_names("experiments"))
def test_every_shipped_experiment_names_things_that_exist(name: str) -> None:
    found = Plan(*load_experiment(name))
    assert set(found.incumbent) >= set(found.experiment.service.pools)
    for space in (space for spaces in found.spaces.values() for space in spaces.values()):
        assert space.params_of(space.default) is not None, space.name


@pytest.mark.parametrize("name", config_names("experiments"))
def test_the_twin_plays_every_shipped_experiment(name: str) -> None:
    found = Plan(*load_experiment(name))
    scenario, twin = beginning(found.whole()), found.twin()
    for pool, spaces in found.spaces.items():
        for space in spaces.values():
            twin.check({**found.incumbent, pool: space.default}, scenario)
    recording = twin.play(scenario)
    assert set(recording.pools) == set(found.pools)
    assert np.isfinite(recording.finish_s).sum() > 0.8 * len(recording.trace)


def test_what_is_scored_in_tuning_and_what_is_judged_make_up_the_traffic_but_for_the_first_warm_up() -> None:
    whole = plan(search__tune_seeds=1)
    tuned = sum(scored(fold) for fold in whole.folds())
    judged = scored(whole.judged()[0])
    warmup_s = whole.experiment.traffic.warmup_s
    assert tuned + judged == len(whole.trace) - int((whole.trace.arrival_s < warmup_s).sum())


def test_the_judged_part_is_played_with_the_traffic_before_it_as_its_warm_up() -> None:
    whole = plan()
    first = whole.judged()[0]
    begin_s = whole.split_s - whole.experiment.traffic.warmup_s
    assert np.array_equal(first.trace.arrival_s, whole.trace.between(begin_s, whole.trace.end_s).arrival_s)


def test_the_exam_has_its_replicates_and_resampled_traffic_is_no_copy() -> None:
    scenarios = plan().judged()
    assert len(scenarios) == JUDGED_REPLICATES >= 30
    assert len({scenario.seed for scenario in scenarios}) == len(scenarios)
    assert len({scenario.trace.digest() for scenario in scenarios}) > len(scenarios) / 2


def test_numbers_that_cannot_act_are_fixed_and_told(tmp_path: Path) -> None:
    space = tmp_path / "polled.yaml"
    space.write_text(
        "api_version: tiphys/v1\nkind: keda\npublished_default: published-keda-running\nreplicas: {min: 1, max: 8}\n"
        "polling_interval_s: {between: [5, 60]}\n"
        "triggers:\n- {scaler: prometheus, signal: running, threshold: {between: [5, 100]}}\n"
    )
    found = plan(search__spaces__llm=[str(space)])
    assert [number.path for number in found.inert["llm"]["polled"]] == ["polling_interval_s"]
    assert [dimension.path for dimension in found.spaces["llm"]["polled"].dimensions] == ["triggers.0.threshold"]


def test_a_trace_that_is_too_short_to_split_says_how_long_it_would_have_to_be() -> None:
    with pytest.raises(InputError, match="too short to split"):
        _ = plan(traffic__warmup_s=800).split_s
