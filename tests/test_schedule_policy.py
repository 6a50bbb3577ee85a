"""Replicas by the clock: what a schedule says, when it changes, and what KEDA's cron triggers make of it."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn_policies import schedules
from tiphys.dialects import VLLM
from tiphys.documents import parse_yaml, to_yaml
from tiphys.domain.service import Envelope, Target
from tiphys.errors import InputError
from tiphys.policies import (
    KedaPolicy,
    PolicySpace,
    PoolContext,
    SchedulePolicy,
    check_bounds,
    clipped,
    import_manifests,
    load_policy,
    parse_policy,
    render,
)
from tiphys.policies.schedule.rules import next_change_s, no_schedule, replicas_at, schedule_rules

POOL = PoolContext(name="chat", target=Target(name="chat-llm"), dialect=VLLM)
HOUR_S, DAY_S = 3600.0, 86_400.0
OFFICE: dict[str, Any] = {
    "kind": "schedule",
    "replicas": {"min": 1, "max": 8},
    "times": [
        {"at": "06:30", "replicas": 3},
        {"at": "09:00", "replicas": 12},
        {"at_s": 64800, "replicas": 2},
    ],
}


def schedule(**changes: Any) -> SchedulePolicy:
    policy = parse_policy({**deepcopy(OFFICE), **changes}, "schedule.yaml")
    assert isinstance(policy, SchedulePolicy)
    return policy


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        schedule(**changes)
    return str(caught.value)


def story(policy: SchedulePolicy, from_s: float, until_s: float) -> list[tuple[float, int]]:
    """(time, replicas) at the beginning and at every change."""
    rules, now_s, log = schedule_rules(policy), from_s, []
    while now_s <= until_s:
        log.append((now_s, replicas_at(rules, now_s)))
        now_s = next_change_s(rules, now_s)
    return log


def test_a_schedule_goes_round_the_clock() -> None:
    assert story(schedule(), 0.0, 1.5 * DAY_S) == [
        (0.0, 2),  # as at the end of the day before
        (6.5 * HOUR_S, 3),
        (9 * HOUR_S, 8),  # 12, held by the maximum
        (18 * HOUR_S, 2),
        (DAY_S + 6.5 * HOUR_S, 3),
        (DAY_S + 9 * HOUR_S, 8),
    ]


def test_a_plan_in_absolute_time_ends_with_its_last_entry() -> None:
    plan = schedule(period_s=None, times=[{"at_s": 0, "replicas": 4}, {"at_s": 2 * DAY_S, "replicas": 5}])
    assert story(plan, 0.0, 1e9) == [(0.0, 4), (2 * DAY_S, 5)]
    assert next_change_s(schedule_rules(plan), 2 * DAY_S) == math.inf
    assert replicas_at(schedule_rules(plan), 1e9) == 5


def test_where_there_is_no_schedule_nothing_changes() -> None:
    assert next_change_s(no_schedule(), 5.0) == math.inf


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6, unique=True).map(sorted),
    st.floats(0.1, 1e6),
    st.floats(0, 1e8),
)
def test_a_change_is_seen_at_the_very_moment_that_was_named(
    shares: list[float], period_s: float, clock_s: float
) -> None:
    moments = [share * period_s for share in shares]
    if any(b - a < 1e-6 * period_s for a, b in pairwise(moments)) or moments[-1] > 0.999 * period_s:
        return
    if clock_s > 1e6 * period_s:
        return
    times = [{"at_s": at_s, "replicas": place + 1} for place, at_s in enumerate(moments)]
    policy = schedule(times=times, period_s=period_s, replicas={"min": 1, "max": 9})
    rules = schedule_rules(policy)
    now_s = clock_s
    for _ in range(2 * len(times)):
        before = replicas_at(rules, now_s)
        then_s = next_change_s(rules, now_s)
        assert now_s < then_s <= now_s + period_s * (1 + 1e-9)
        assert replicas_at(rules, then_s) == before % len(times) + 1
        now_s = then_s


def test_the_rules_are_arrays_that_the_event_loop_can_hold() -> None:
    rules = schedule_rules(schedule())
    assert rules.time_s.dtype == np.float64 and rules.replicas.dtype == np.int64
    assert rules.replicas.tolist() == [3, 8, 2] and rules.period_s == DAY_S


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"times": []}, "times: must hold at least one"),
        ({"times": [{"at": "25:00", "replicas": 1}]}, "'25:00' is not a time of day"),
        ({"times": [{"at": 750, "replicas": 1}]}, 'write it in quotes, such as "06:30"'),
        ({"times": [{"at": "6:00", "at_s": 1, "replicas": 1}]}, "at and at_s say the same thing"),
        ({"times": [{"replicas": 1}]}, "times.0.at_s"),
        ({"times": [{"at_s": 5, "replicas": 1}, {"at_s": 5, "replicas": 2}]}, "times must increase"),
        ({"times": [{"at_s": 86400, "replicas": 1}]}, "is not within the period of 86400 s"),
        ({"times": [{"at_s": 5, "replicas": 1}], "period_s": None}, "a plan that never repeats begins at 0"),
        ({"times": [{"at_s": 0, "replicas": -1}]}, "times.0.replicas"),
        ({"period_s": 0}, "period_s"),
        ({"timezone": "UTC"}, "unknown key 'timezone'"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_key(changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(**changes)


# --- manifests


@given(schedules)
def test_a_schedule_that_cron_can_say_comes_back_from_its_manifest(policy: SchedulePolicy) -> None:
    assert import_manifests(parse_yaml(to_yaml(*render(policy, POOL)))) == policy


def test_each_entry_is_a_trigger_that_ends_where_the_next_starts() -> None:
    (document,) = render(schedule(), POOL)
    assert document["kind"] == "ScaledObject" and "replicas" not in document["spec"]
    said = [tuple(trigger["metadata"].values()) for trigger in document["spec"]["triggers"]]
    assert said == [
        ("Etc/UTC", "30 6 * * *", "0 9 * * *", "3"),
        ("Etc/UTC", "0 9 * * *", "0 18 * * *", "12"),
        ("Etc/UTC", "0 18 * * *", "30 6 * * *", "2"),
    ]


def test_nothing_of_the_generated_hpa_stands_in_the_way_of_the_plan() -> None:
    def behavior(*counts: int) -> dict[str, Any]:
        times = [{"at_s": 3600.0 * place, "replicas": count} for place, count in enumerate(counts)]
        (document,) = render(schedule(times=times, replicas={"min": 1, "max": 50}), POOL)
        found: dict[str, Any] = document["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        return found

    for rules in behavior(2, 9, 4).values():
        assert rules["stabilizationWindowSeconds"] == 0 and "tolerance" not in rules
        assert rules["policies"] == [{"type": "Pods", "value": 7, "periodSeconds": 15}]
    # from 20 to 19 is less than the tenth that the controller tolerates
    assert {rules["tolerance"] for rules in behavior(20, 19).values()} == {"0"}


def test_zero_is_a_gap_between_triggers() -> None:
    night = schedule(
        replicas={"min": 0, "max": 8}, times=[{"at": "08:00", "replicas": 4}, {"at": "20:00", "replicas": 0}]
    )
    (document,) = render(night, POOL)
    assert len(document["spec"]["triggers"]) == 1
    assert document["spec"]["minReplicaCount"] == 0 and document["spec"]["cooldownPeriod"] == 0
    assert import_manifests([document]) == night


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"period_s": None, "times": [{"at_s": 0, "replicas": 1}]}, "cron repeats by the day"),
        ({"period_s": 7200.0, "times": [{"at_s": 0, "replicas": 1}]}, "cron repeats by the day"),
        ({"times": [{"at_s": 90, "replicas": 1}, {"at_s": 120, "replicas": 2}]}, "cron counts whole minutes"),
        ({"times": [{"at_s": 60, "replicas": 1}]}, "that is kind fixed"),
        ({"times": [{"at_s": 60, "replicas": 0}, {"at_s": 120, "replicas": 0}]}, "that is kind fixed"),
        ({"times": [{"at_s": 60, "replicas": 0}, {"at_s": 120, "replicas": 0}, {"at_s": 180, "replicas": 1}]}, "leave"),
        ({"times": [{"at_s": 60, "replicas": 0}, {"at_s": 120, "replicas": 1}, {"at_s": 180, "replicas": 0}]}, "leave"),
    ],
)
def test_what_cron_cannot_say_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        render(schedule(**changes), POOL)


THEIRS = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: llm}
spec:
  scaleTargetRef: {name: llm}
  minReplicaCount: 2
  maxReplicaCount: 9
  triggers:
  - type: cron
    metadata: {timezone: Asia/Kolkata, start: 0 6 * * *, end: 0 20 * * *, desiredReplicas: "10"}
"""


def test_the_trigger_of_kedas_documentation_is_a_schedule() -> None:
    policy = import_manifests(parse_yaml(THEIRS))
    assert isinstance(policy, SchedulePolicy)
    assert story(policy, 0.0, DAY_S) == [(0.0, 2), (6 * HOUR_S, 9), (20 * HOUR_S, 2)]


def test_a_trigger_over_midnight_and_a_gap_are_read() -> None:
    day = "{timezone: Asia/Kolkata, start: 0 9 * * *, end: 0 22 * * *, desiredReplicas: '3'}"
    text = THEIRS.replace("0 6", "0 22").replace("0 20", "15 4") + f"  - type: cron\n    metadata: {day}\n"
    policy = import_manifests(parse_yaml(text))
    assert isinstance(policy, SchedulePolicy)
    hours = [(entry.at_s / HOUR_S, entry.replicas) for entry in policy.times]
    assert hours == [(4.25, 0), (9, 3), (22, 10)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("0 6 * * *", "0 6 * * 1-5", "spec.triggers.0.metadata.start: is no schedule by the time of day"),
        ("0 20 * * *", "'*/5 * * * *'", "spec.triggers.0.metadata.end: is no schedule by the time of day"),
        ("0 20 * * *", "0 24 * * *", "spec.triggers.0.metadata.end"),
        ("0 20 * * *", "0 6 * * *", "start and end are the same"),
        ('"10"', '"ten"', "desiredReplicas: is not a number of replicas"),
        ('"10"', '"0"', "desiredReplicas: is not a number of replicas"),
        ("timezone: Asia/Kolkata, ", "", "spec.triggers.0.metadata"),
        ("desiredReplicas", "desiredReplica", "unknown key 'desiredReplica'"),
    ],
)
def test_other_crons_are_refused_with_their_place(old: str, new: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        import_manifests(parse_yaml(THEIRS.replace(old, new)), where="their.yaml")
    assert expected in str(caught.value) and caught.value.where == "their.yaml"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("{timezone: Asia/Kolkata, start: 0 19 * * *, end: 0 22 * * *, desiredReplicas: '3'}", "triggers overlap"),
        ("{timezone: Asia/Kolkata, start: 0 6 * * *, end: 0 7 * * *, desiredReplicas: '3'}", "times must increase"),
        ("{timezone: Etc/UTC, start: 0 21 * * *, end: 0 22 * * *, desiredReplicas: '3'}", "goes by one clock"),
    ],
)
def test_triggers_that_are_no_one_schedule_are_refused(second: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        import_manifests(parse_yaml(f"{THEIRS}  - type: cron\n    metadata: {second}\n"))


def test_a_cron_trigger_beside_others_is_no_schedule() -> None:
    mixed = THEIRS + "  - type: cpu\n    metricType: Utilization\n    metadata: {value: '70'}\n"
    with pytest.raises(InputError, match="unknown type of trigger 'cron'"):
        import_manifests(parse_yaml(mixed))
    cpu = "\n".join(line for line in mixed.splitlines() if "cron" not in line and "timezone" not in line)
    assert isinstance(import_manifests(parse_yaml(cpu)), KedaPolicy)


# --- spaces and bounds


def test_times_and_replicas_may_be_ranges_and_every_sample_is_found_again() -> None:
    space = load_policy("schedule-day")
    assert isinstance(space, PolicySpace)
    assert {dimension.path.split(".")[-1] for dimension in space.dimensions} == {"at_s", "replicas"}
    for seed in range(50):
        policy = space.policy(space.sample(seed))
        params = space.params_of(policy)
        assert params is not None and space.policy(params) == policy
        assert import_manifests(render(policy, POOL)) == policy


def test_a_time_of_day_may_be_a_choice() -> None:
    times = [{"at": {"choice": ["06:00", "07:00"]}, "replicas": 3}, {"at": "20:00", "replicas": 1}]
    space = PolicySpace({**OFFICE, "times": times}, "space", "space.yaml")
    late = space.policy({"times.0.at": "07:00"})
    assert isinstance(late, SchedulePolicy) and late.times[0].at_s == 7 * HOUR_S
    assert space.params_of(late) == {"times.0.at": "07:00"}


def test_ranges_in_which_times_could_change_places_are_refused() -> None:
    times = [{"at_s": {"between": [0, 7200]}, "replicas": 3}, {"at_s": {"between": [3600, 9000]}, "replicas": 1}]
    with pytest.raises(InputError, match="not every sample is a valid policy: times must increase"):
        PolicySpace({**OFFICE, "times": times}, "space", "space.yaml")


def test_entries_and_bounds_are_clipped_to_an_envelope_in_policies_and_spaces() -> None:
    envelope = Envelope(min=2, max=5)
    inside = clipped(schedule(), envelope)
    assert isinstance(inside, SchedulePolicy)
    check_bounds(inside, envelope)
    assert [entry.replicas for entry in inside.times] == [3, 5, 2]
    with pytest.raises(InputError, match=r"replicas\.min: lies outside the pool's envelope"):
        check_bounds(schedule(), envelope)
    space = load_policy("schedule-day")
    assert isinstance(space, PolicySpace)
    within = space.within(envelope)
    assert within.params_of(within.default) is not None
    counts = {entry.replicas for seed in range(40) for entry in within.policy(within.sample(seed)).times}  # type: ignore[union-attr]
    assert counts == {2, 3, 4, 5}
