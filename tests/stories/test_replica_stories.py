"""Replica logs worked out by hand, at least one a law."""

from __future__ import annotations

import numpy as np

from tests.oracle.scenes import flat_step
from tests.stories.scenes import assert_story, hpa, per_replica, scene, settings
from tiphys.twin.decisions import HPA_PASS

THREE_FOR_25_S = [(20.0, 1, 25), (20.5, 1, 24), (20.5, 1, 24)]
"""One request starts its steps of 1 s at 20 s, two more join it at 21 s: all end at 45 s exactly."""


def test_fixed_goes_to_its_count_at_once_and_stays() -> None:
    # The workload had 1 replica; the policy says 3: two pods are created at 0, ready after the cold start of 60 s.
    story = scene({"kind": "fixed", "replicas": 3}, THREE_FOR_25_S, until_s=400)
    assert_story(story, [(0, 3)])
    assert story.twin().pools["llm"].life.ready_log() == [(0, 1), (60, 3)]


def test_hpa_without_behavior_holds_the_highest_wish_for_300_s_inclusive() -> None:
    # Scrapes come before passes at one instant, ends of steps before both.
    #   0, 15  running 0: wish 0, held at 1 by the first entry (spec at the first pass), minimum 1.
    #   30     running 3: 3 / (1 x 1) = 3, wish 3; growth limit max(2 x 1, 4) = 4: 3.
    #   45     the requests end at 45, then the scrape sees 0: wish 0, held by the 3 of 30 s ...
    #   330    ... whose age is 300: the path without behavior still counts it (2.6).
    #   345    age 315: no longer; wish 0, minimum 1.
    assert_story(scene(hpa(per_replica("running", 1), 5), THREE_FOR_25_S, until_s=400), [(0, 1), (30, 3), (345, 1)])


def test_an_empty_behavior_lets_go_of_a_wish_at_300_s_exactly() -> None:
    # As above, but an entry as old as the window no longer counts (2.8): at 330 the stabilized wish is 0. Down 100 % a
    # period from the start of 3 (no change within 15 s) allows 0, the minimum makes it 1.
    policy = hpa(per_replica("running", 1), 5, behavior={})
    assert_story(scene(policy, THREE_FOR_25_S, until_s=400), [(0, 1), (30, 3), (330, 1)])


def test_growth_without_behavior_doubles_from_four() -> None:
    # 100 requests run from 5 s on, target 10: the wish is 10; limits max(2 x spec, 4): 4, 8, then 16 (2.10).
    policy = hpa(per_replica("running", 10), 100)
    assert_story(scene(policy, [(5.0, 1, 500)] * 100, until_s=100), [(0, 1), (15, 4), (30, 8), (45, 10)])


def test_growth_with_an_empty_behavior_adds_four_or_doubles() -> None:
    # Limits 1 + 4 = 5 (the change then is 15 s old: no longer within the period), 5 x 2 = 10.
    policy = hpa(per_replica("running", 10), 100, behavior={})
    assert_story(scene(policy, [(5.0, 1, 500)] * 100, until_s=100), [(0, 1), (15, 5), (30, 10)])


def test_rate_policies_count_changes_of_both_directions() -> None:
    # One pod a minute either way, no stabilization down; 10 run from 20 to 171 s: the wish is 4 (the maximum cuts 10).
    #   30   start 1, limit 2: 2.   45 to 75: start 2 - 1 = 1, limit 2.   90: the change is 60 s old: limit 3.
    #   150  limit 4.   165: still 10.
    #   180  running 0. start = 4 - 1 (increase at 150) = 3, limit 2: 2.
    #   195  start = 2 - 1 (150) + 2 (180) = 3, limit 2: no change.   210: start = 2 + 2 = 4, limit 3: no.
    #   240  the decrease is 60 s old: start 2, limit 1: 1.
    one_a_minute = [{"type": "Pods", "value": 1, "period_s": 60}]
    policy = hpa(
        per_replica("running", 1), 4,
        behavior={
            "scale_up": {"policies": one_a_minute},
            "scale_down": {"policies": one_a_minute, "stabilization_s": 0},
        },
    )  # fmt: skip
    story = scene(policy, [(20.0, 1, 150)] * 10, until_s=300)
    assert_story(story, [(0, 1), (30, 2), (90, 3), (150, 4), (180, 2), (240, 1)])
    # At 180 s goes first what is not ready (created at 150), then what was ready last (created at 90, ready at 150).
    life = story.twin().pools["llm"].life
    assert life.ready_log() == [(0, 1), (90, 2), (150, 3), (180, 2), (240, 1)]
    assert life.removed_s.tolist() == [np.inf, 240, 180, 180]


def test_a_ttft_quantile_is_multiplied_by_ready_pods_only() -> None:
    # Ten requests of one token arrive at 20 s into an idle replica whose step takes 4 s: the first starts a step alone;
    # the other nine wait for the next: TTFT 4 s once and 8 s nine times. Bounds 0.1, 0.5, 2, 5, 10.
    #   30  window (-30, 30] holds 0, 15, 30: le=5 went 0 to 1, le=10 0 to 10. Started from zero, no extrapolation back;
    #       the last sample is now. Rank 0.9 x 10 = 9 in (5, 10]: 5 + 5 x (9 - 1) / 9 = 9.444, i.e. 9444m.
    #       9444 / 2000 = 4.722 x 1 ready pod: wish 5; growth limit 4: 4.
    #   45  window (-15, 45], the same counts; the three new pods load until 90: still 1 ready, wish 5, limit 8: 5.
    #   60  window (0, 60] without the sample at 0 (left-open): 15 to 60 hold the increase. Wish 5.
    #   75  window (15, 75]: 30 to 75 are equal: NaN, which the adapter makes 0: wish 0, held by the 5 of 60 s ...
    #   360 ... up to an age of 300.   375: 1.
    metric = {"signal": "ttft_p90", "type": "Value", "target": 2.0, "window_s": 60}
    requests = [(20.0, 1, 1)] + [(20.5, 1, 1)] * 9
    story = scene(
        hpa(metric, 8), requests, until_s=400, bounds_s=(0.1, 0.5, 2.0, 5.0, 10.0), step=flat_step(4000.0)
    )  # fmt: skip
    assert_story(story, [(0, 1), (30, 4), (45, 5), (375, 1)])


def test_keda_goes_to_zero_after_the_cooldown_whatever_the_hpa_holds() -> None:
    # Three requests run from 20 to 75 s. Polls at 0, 30, 60, ... s come before passes.
    #   0    inactive, never active; age 0 > initial cooldown 0 is false: wait.
    #   30   running 3 > 0: active, noted. The HPA: 3 / (2 x 1) = 1.5, ceil(3 / 2) = 2.
    #   60   active, noted.   75: the requests end.   90: inactive for 30 s.   120: 60 > 60 is false.
    #   150  90 > 60: from 2 to 0 at once, though the HPA's window would hold 2 until 330.
    #   200  a request finds no replica and fails.
    policy = {
        "kind": "keda", "replicas": {"min": 0, "max": 3}, "polling_interval_s": 30, "cooldown_s": 60,
        "triggers": [{"scaler": "prometheus", "signal": "running", "threshold": 2}],
    }  # fmt: skip
    story = scene(policy, [(20.0, 1, 55), (20.5, 1, 54), (20.5, 1, 54), (200.0, 1, 1)], until_s=260)
    assert_story(story, [(0, 1), (30, 2), (150, 0)])
    assert story.twin().failed.tolist() == [False, False, False, True]
    assert story.twin().finish_s.tolist() == [75, 75, 75, np.inf]


def test_keda_raises_to_the_minimum_and_leaves_the_rest_to_the_hpa() -> None:
    # Without load the ScaledObject is inactive; cooldown plays no part above a minimum of 2. Started at 1:
    #   0    poll: 1 < 2: 2 at once. The pass of the same instant sees 2: the first entry of its history is 2.
    policy = {
        "kind": "keda", "replicas": {"min": 2, "max": 3}, "polling_interval_s": 30, "cooldown_s": 0,
        "triggers": [{"scaler": "prometheus", "signal": "waiting", "threshold": 2}],
    }  # fmt: skip
    assert_story(scene(policy, [(20.0, 1, 5)], until_s=500), [(0, 2)])


def test_missing_metrics_hold_the_replicas_where_silence_would_shrink_them() -> None:
    # With metrics: wish 0 from the first pass; the first entry (3) holds until its age passes 300: 315.
    metric = per_replica("running", 1)
    request = [(20.0, 1, 5)]
    assert_story(scene(hpa(metric, 5), request, until_s=400, start=3), [(0, 3), (315, 1)])
    # No scrape ever: the answer is empty, the metric invalid, every pass an error, nothing changes.
    never = settings(scrape={"interval_s": 1e6, "phase_s": 9e5})
    story = scene(hpa(metric, 5), request, until_s=400, start=3, under=never)
    assert_story(story, [(0, 3)])
    decisions = story.twin().pools["llm"].decisions
    passes = decisions[decisions["loop"] == HPA_PASS]
    assert len(passes) == 27  # 0, 15, ..., 390
    assert passes["error"].all()
    assert (passes["found_0"] == 0).all()


def test_a_sample_as_old_as_the_lookback_is_missing_and_leaves_no_trace_in_the_history() -> None:
    # Scrapes at 0, 60, 120 s, lookback 30 s, window down 30 s. Four requests run from 5 to 65 s.
    #   0, 15  running 0: held at 1.   30, 45: the sample's age is 30 or more: no metric, error.
    #   60     running 4: 4.   75: the same sample: 4 / (1 x 4) is within tolerance: 4.   90, 105: error.
    #   120    running 0: wish 0. Entries of the last 30 s: none, since failed passes enter nothing (a wish of 4 at 90
    #          would have held it until 135): 1.
    under = settings(hpa={"downscale_stabilization_s": 30.0}, scrape={"interval_s": 60.0, "lookback_s": 30.0})
    story = scene(hpa(per_replica("running", 1), 5), [(5.0, 1, 60)] * 4, until_s=200, under=under)
    assert_story(story, [(0, 1), (60, 4), (120, 1)])
