"""Decisions told as arithmetic: small scenes whose numbers can be followed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.oracle.scenes import Scene, flat_step, profile_of, random_scene
from tiphys.domain.recording import Recording
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import ColdStart, Envelope, Pool
from tiphys.domain.settings import ClusterSettings, HpaSettings, KedaSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.policies import parse_policy
from tiphys.policies.fixed import FixedPolicy
from tiphys.recordings import read_recording, write_recording
from tiphys.report.explain import (
    Explained,
    budget_lines,
    clock,
    delay_budget,
    explained,
    law_of,
    sentences,
    story,
)  # fmt: skip

SETTINGS = ClusterSettings(
    hpa=HpaSettings(sync_period_s=15, pass_s=0.0, phase_s=10), scrape=ScrapeSettings(interval_s=15, phase_s=1),
    keda=KedaSettings(phase_s=5),
)  # fmt: skip


def scene(policy: dict[str, object], arrival_s: list[float], output_tokens: int = 100, end_s: float = 200.0) -> Scene:
    """One request a second of steps, at most 8 replicas that are ready after 20 s; scraped at 1, 16, 31 s and so on."""
    n = len(arrival_s)
    trace = Trace(np.array(arrival_s), np.full(n, 10), np.full(n, output_tokens), "by hand", end_s)
    pool = Pool(
        profile="test", replicas=Envelope(min=1, max=8), cold_start=ColdStart(median_s=20, p95_s=20, pending_s=5),
        max_num_seqs=64,
    )  # fmt: skip
    scenario = Scenario(trace, drain_s=60, settings=SETTINGS, start_replicas={"llm": 1})
    made = parse_policy({"api_version": "tiphys/v1", **policy})
    return Scene(profile_of(flat_step(1000.0)), pool, made, scenario)  # type: ignore[arg-type]


def passes_of(made: Scene) -> tuple[list[Explained], Recording]:
    recording = made.twin()
    return explained(recording.pools["llm"].decisions, law_of(made.policy, SETTINGS)), recording


RUNNING = {
    "kind": "hpa",
    "replicas": {"min": 1, "max": 4},
    "metrics": [{"signal": "running", "type": "AverageValue", "target": 4}],
    "behavior": {
        "scale_up": {"stabilization_s": 30, "policies": [{"type": "Pods", "value": 2, "period_s": 60}]},
        "scale_down": {"stabilization_s": 60},
    },
}


def test_a_scale_up_is_the_arithmetic_of_its_pass() -> None:
    found, recording = passes_of(scene(RUNNING, [17.0 + i / 100 for i in range(20)]))
    told = {round(each.time_s): "\n".join(sentences(each)) for each in found}
    assert told[25] == (
        "0:00:25.0  stays at 1  (1 ready)\n"
        "  running: 0 (scraped 9.0 s before), over 4 x 1 replicas = 0, outside 0.9 to 1.1: ceil(0 / 4) = 0\n"
        "  scale-down window of 60 s holds it at 1 (ScaleDownStabilized): "
        "1 wished for at 0:00:10.0, 15.0 s before, is the largest\n"
        "  result: stays at 1"
    )
    assert told[40] == (
        "0:00:40.0  stays at 1  (1 ready)\n"
        "  running: 20 (scraped 9.0 s before), over 4 x 1 replicas = 5, outside 0.9 to 1.1: ceil(20 / 4) = 5\n"
        "  scale-up window of 30 s holds it at 1 (ScaleUpStabilized): "
        "0 wished for at 0:00:25.0, 15.0 s before, is the smallest\n"
        "  result: stays at 1"
    )
    assert told[55] == (
        "0:00:55.0  1 -> 3  (1 ready)\n"
        "  running: 20 (scraped 9.0 s before), over 4 x 1 replicas = 5, outside 0.9 to 1.1: ceil(20 / 4) = 5\n"
        "  cut to 3 by the rate policies, which allow 3 now (ScaleUpLimit)\n"
        "  result: 1 -> 3"
    )
    assert recording.pools["llm"].life.wanted_log()[:2] == [(0.0, 1), (55.0, 3)]


def test_the_delays_of_a_scale_up_add_up() -> None:
    made = scene(RUNNING, [17.0 + i / 100 for i in range(20)])
    found, recording = passes_of(made)
    budget = delay_budget(recording.pools["llm"], found, law_of(made.policy, SETTINGS))
    first = next(each for each in found if each.after > each.before)
    assert budget.scrape_age_s == pytest.approx(9.0)
    assert budget.window_half_s == 0
    assert budget.pass_wait_s == pytest.approx(7.5)
    assert first.time_s == 55
    assert budget.cold_start_s == pytest.approx(20.0)
    ups = [each.time_s for each in found if each.after > each.before]
    assert budget.scale_ups == len(ups)
    assert budget.total_s == pytest.approx(9.0 + 7.5 + budget.held_s + 20.0)
    assert budget_lines(budget)[-1].split()[-2:] == [f"{budget.total_s:.1f}", "s"]


def test_a_ratio_within_the_tolerance_moves_nothing() -> None:
    found, _ = passes_of(scene(RUNNING, [2.0 + i / 100 for i in range(4)]))
    at_25 = next(each for each in found if each.time_s == 25)
    assert not at_25.tells
    assert sentences(at_25)[1] == (
        "  running: 4 (scraped 9.0 s before), over 4 x 1 replicas = 1, within 0.9 to 1.1: stays at 1"
    )


def test_a_value_is_multiplied_by_the_ready_replicas() -> None:
    policy = RUNNING | {"metrics": [{"signal": "running", "type": "Value", "target": 4}], "behavior": {}}
    found, _ = passes_of(scene(policy, [2.0 + i / 100 for i in range(10)]))
    at_25 = next(each for each in found if each.time_s == 25)
    assert "ceil(2.5 x 1 ready) = 3" in "\n".join(sentences(at_25))
    assert (at_25.before, at_25.after) == (1, 3)


def test_missing_metrics_decide_nothing() -> None:
    policy = RUNNING | {"metrics": [{"signal": "ttft_p90", "type": "Value", "target": 2.0, "window_s": 30}]}
    found, recording = passes_of(scene(policy, [100.0]))
    assert sentences(found[0]) == [
        "0:00:10.0  stays at 1  (1 ready)",
        "  ttft_p90: no sample: no proposal (no metrics)",
        "  no decision, since a metric failed",
        "  result: stays at 1",
    ]
    assert found[0].held_back
    silent = next(each for each in found if each.time_s == 40)
    assert sentences(silent)[1].startswith("  ttft_p90: nothing observed (NaN), taken as 0, over 2 = 0")
    assert recording.pools["llm"].life.wanted_log() == [(0.0, 1)]


def test_minimum_and_maximum_are_named_when_they_cut() -> None:
    policy = RUNNING | {"replicas": {"min": 2, "max": 3}, "behavior": {}}
    found, _ = passes_of(scene(policy, [2.0 + i / 100 for i in range(40)]))
    assert sentences(found[0]) == [
        "0:00:10.0  1 -> 2  (1 ready)",
        "  fewer replicas than minReplicas: raised without looking at a metric",
        "  result: 1 -> 2",
    ]
    assert "  cut to 3 by maxReplicas 3 (TooManyReplicas)" in sentences(found[1])


def test_keda_polls_are_told_with_their_reason() -> None:
    policy = {
        "kind": "keda",
        "replicas": {"min": 0, "max": 4},
        "triggers": [{"scaler": "prometheus", "signal": "running", "threshold": 4}],
        "polling_interval_s": 30,
        "cooldown_s": 30,
        "initial_cooldown_s": 60,
    }
    found, _ = passes_of(scene(policy, [2.0], output_tokens=40))
    polls = [each for each in found if each.loop == "keda"]
    assert sentences(polls[1]) == [
        "0:00:35.0  KEDA poll: active; stays at 1",
        "  running: 1 (scraped 4.0 s before)",
    ]
    down = next(each for each in polls if each.changed)
    assert sentences(down)[0] == "0:01:35.0  KEDA poll: not active: down to idle or zero; 1 -> 0"
    assert [each.reason for each in polls if each.held_back][:1] == ["not active, cooling down"]


def test_passes_held_in_the_same_way_are_told_once() -> None:
    found, _ = passes_of(scene(RUNNING, [2.0 + i / 100 for i in range(40)], output_tokens=400))
    told = list(story([each for each in found if each.tells]))
    assert any("held in the same way" in paragraph for paragraph in told)
    assert len(told) < len([each for each in found if each.tells])


KPA = {
    "kind": "kpa",
    "replicas": {"min": 0, "max": 3},
    "target": 4,
    "target_utilization_ratio": 1.0,
    "window_s": 20,
    "panic_window_ratio": 0.1,
    "panic_threshold_ratio": 2.0,
    "target_burst_capacity": 10,
}


def test_a_knative_tick_is_told_from_its_averages_to_its_pods() -> None:
    found, recording = passes_of(scene(KPA, [30.0 + i / 100 for i in range(14)]))
    first = next(each for each in found if each.after > each.before)
    told = sentences(first)
    assert first.tick is not None
    assert (first.loop, first.before, first.wish, first.after) == ("kpa", 1, first.tick.panic_pods, 3)
    assert told[1].startswith(f"  concurrency, stable window of 20 s: ceil({first.tick.stable:.4g} / 4) = ")
    assert told[2] == (
        f"  panic window of 2 s: ceil({first.tick.panic:.4g} / 4) = {first.wish}, {first.wish} / 1 ready = "
        f"{first.wish}, at or over the panic threshold 2"
    )
    assert told[3] == "  in panic, renewed now, so the larger counts"
    assert f"floor(1 x 4 - 10 - {first.tick.panic:.4g}) = {first.tick.excess_burst_capacity}" in told[4]
    assert told[4].endswith("requests go through the activator (Proxy)")
    assert told[-1] == "  result: 1 -> 3"
    log = recording.pools["llm"].life.wanted_log()
    assert log == [(0.0, 1), *((each.time_s, each.after) for each in found if each.changed)]


def test_knatives_way_to_zero_is_told_step_by_step() -> None:
    found, _ = passes_of(scene(KPA, [2.0], output_tokens=5))
    told = "\n".join(story([each for each in found if each.tells]))
    for step in ("idle: inactive from now on (1)", "result: 1 -> 0"):
        assert step in told
    silent = [each for each in found if each.before == 0]
    assert silent
    assert not any(each.tells for each in silent)


def test_what_a_knative_tick_tells_follows_from_its_numbers() -> None:
    found, recording = passes_of(scene(KPA, [5.0 + i * 2.3 for i in range(60)], output_tokens=12))
    ticks = [each.tick for each in found if each.tick is not None and each.tick.is_decided]
    assert len(ticks) > 50
    for tick in ticks:
        assert tick.stable is not None
        assert tick.panic is not None
        assert tick.stable_pods == math.ceil(tick.stable / tick.aim)
        assert tick.panic_pods == math.ceil(tick.panic / tick.aim)
        assert tick.is_in_panic == (tick.panic_since_s is not None)
    budget = delay_budget(
        recording.pools["llm"], found, law_of(parse_policy({"api_version": "tiphys/v1", **KPA}), SETTINGS)
    )
    assert budget.pass_wait_s == pytest.approx(1.0)
    assert budget.window_half_s in (1.0, 10.0) or 1.0 < budget.window_half_s < 10.0


def test_an_hpa_that_knative_makes_is_told_as_an_hpa() -> None:
    metric = {"source": "pods", "signal": "running", "target": 4}
    policy = {"kind": "knative-hpa", "replicas": {"min": 1, "max": 4}, "metric": metric}
    found, _ = passes_of(scene(policy, [17.0 + i / 100 for i in range(20)]))
    assert "running: 20 (scraped 9.0 s before), 20 per pod over 4 = 5" in "\n".join(sentences(found[2]))


def test_what_is_assumed_of_pods_without_a_sample_is_told() -> None:
    metrics = [{"signal": "running", "type": "AverageValue", "target": 4, "source": "pods"}]
    found, _ = passes_of(scene(RUNNING | {"metrics": metrics}, [17.0 + i / 100 for i in range(20)], output_tokens=150))
    steps = [(step, line) for each in found for step in each.answers for line in [sentences(each)[1]] if step.ratio]
    assert any("assumed of pods without a sample" in line for _, line in steps)
    for step, line in steps:
        if step.multiplier is not None and "assumed" not in line:
            assert step.ratio is not None
            assert math.ceil(step.ratio * step.multiplier) == step.proposal


def test_a_timetable_is_told_by_its_hours() -> None:
    times = [{"at_s": 0, "replicas": 1}, {"at_s": 60, "replicas": 3}, {"at_s": 120, "replicas": 2}]
    policy = {"kind": "schedule", "replicas": {"min": 1, "max": 4}, "times": times}
    found, _ = passes_of(scene(policy, [2.0]))
    told = [line for each in found if each.changed for line in sentences(each)]
    assert told[:2] == ["0:01:00.0  timetable: 1 -> 3", "0:02:00.0  timetable: 3 -> 2"]


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_is_what_was_done(seed: int) -> None:
    made = random_scene(seed)
    recording = made.twin()
    found = explained(recording.pools["llm"].decisions, law_of(made.policy, made.scenario.settings))
    log = recording.pools["llm"].life.wanted_log()
    told = [(each.time_s, each.after) for each in found if each.changed]
    start = made.start_replicas if not isinstance(made.policy, FixedPolicy) else log[0][1]
    assert log == [(0.0, start), *told]
    assert all(each.tells for each in found if each.changed)
    assert all("result:" in sentences(each)[-1] for each in found if each.loop == "hpa")


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_a_recording_comes_back_from_its_file(seed: int, tmp_path: Path) -> None:
    made = random_scene(seed)
    recording = made.twin()
    write_recording(tmp_path / "play.parquet", recording, {"llm": made.policy}, made.scenario.settings)
    stored = read_recording(tmp_path / "play.parquet")
    assert stored.settings == made.scenario.settings
    assert parse_policy(dict(stored.policy["llm"])) == made.policy
    back = stored.recording
    for name in ("first_token_s", "finish_s", "failed", "replica_of_request"):
        assert np.array_equal(getattr(back, name), getattr(recording, name)), name
    assert back.pools["llm"].decisions.tobytes() == recording.pools["llm"].decisions.tobytes()
    assert back.pools["llm"].life.wanted_log() == recording.pools["llm"].life.wanted_log()
    assert replace(back, trace=recording.trace).end_s == recording.end_s
    assert back.trace.digest() == recording.trace.digest()


def test_times_are_shown_on_the_plays_clock() -> None:
    assert [clock(time_s) for time_s in (0, 59.96, 330.1, 86399.9)] == [
        "0:00:00.0",
        "0:01:00.0",
        "0:05:30.1",
        "23:59:59.9",
    ]
