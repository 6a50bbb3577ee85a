"""Passes in a row: what the controller remembers from one to the next."""

from __future__ import annotations

import numpy as np
import pytest

from tiphys.compiled import jit
from tiphys.policies.hpa import behavior as b
from tiphys.policies.hpa import calculator as c
from tiphys.policies.hpa import reconcile as r

UP, DOWN = b.scale_up_rules(), b.scale_down_rules(downscale_stabilization_s=300.0)
NO_PODS = c.Pods(0, np.zeros(0, np.int8), np.zeros(0, np.int8), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_))


def external_hpa(*, has_behavior: bool, max_replicas: int = 100) -> r.Rules:
    """One External AverageValue metric with target 10."""
    metrics = r.Metrics(
        np.array([r.EXTERNAL], np.int8),
        np.array([r.AVERAGE_VALUE], np.int8),
        np.array([10_000]),
        np.array([False]),
        np.array([c.WHOLE_POD]),
    )
    return r.Rules(1, max_replicas, has_behavior, UP, DOWN, metrics)


def counts(rules: r.Rules, values_m: list[int], replicas: int = 1, *, period_s: float = 15.0) -> list[int]:
    """The count before the first and after each pass, one value of the metric a pass; the status keeps up."""
    state, proposals, observed = r.new_state(32, 32), r.new_proposals(1), r.value_observations(1)
    story = [replicas]
    for index, value_m in enumerate(values_m):
        observed.valid[0], observed.value_m[0] = True, value_m
        scale = r.Scale(story[-1], story[-1], True, r.SELECTOR_VALID, True)
        outcome = r.reconcile(
            r.Controller(), rules, scale, NO_PODS, r.no_containers(), observed, state, proposals, index * period_s
        )
        story.append(outcome.desired_replicas)
    return story


def test_without_behavior_growth_doubles_from_four() -> None:
    assert counts(external_hpa(has_behavior=False), [100_000] * 4) == [1, 4, 8, 10, 10]


def test_an_empty_behavior_grows_by_four_pods_or_a_hundred_percent() -> None:
    assert counts(external_hpa(has_behavior=True), [100_000] * 3) == [1, 5, 10, 10]


@pytest.mark.parametrize(("has_behavior", "passes_held"), [(False, 21), (True, 20)])
def test_a_drop_is_held_for_one_window_of_300_s(has_behavior: bool, passes_held: int) -> None:
    story = counts(external_hpa(has_behavior=has_behavior), [40_000] + [10_000] * 25, replicas=4)
    assert story == [4, 4] + [4] * (passes_held - 1) + [1] * (26 - passes_held)


def test_a_pass_in_which_every_metric_fails_is_not_remembered() -> None:
    rules, state, proposals = external_hpa(has_behavior=False), r.new_state(8, 8), r.new_proposals(1)
    observed, scale = r.value_observations(1), r.Scale(3, 3, True, r.SELECTOR_VALID, True)
    outcome = r.reconcile(r.Controller(), rules, scale, NO_PODS, r.no_containers(), observed, state, proposals, 0.0)
    assert (outcome.error, outcome.rescaled, outcome.desired_replicas) == (True, False, 3)
    assert state.history.replicas[: state.history.used[0]].tolist() == [3]


def test_a_full_history_loses_its_oldest_entry() -> None:
    history = b.new_history(2)
    for time_s, replicas in ((10.0, 1), (5.0, 2), (20.0, 3)):
        b.remember(history, replicas, time_s, c.NONE)
    assert history.replicas.tolist() == [1, 3]


@jit
def first_wish(controller: r.Controller, rules: r.Rules, pods: c.Pods, state: r.State, value_m: int) -> int:
    observed = r.Observations(
        np.full(1, True),
        np.full(1, value_m, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        c.Samples(
            np.zeros(0, dtype=np.int64),
            np.zeros(0),
            np.zeros(0),
            np.zeros(1, dtype=np.int64),
            np.zeros(0, dtype=np.int64),
            np.zeros(0, dtype=np.int64),
        ),
    )
    containers = c.Containers(
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int8),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
    )
    proposals = r.Proposals(
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.zeros(1),
        np.zeros(1),
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
        np.zeros(1, dtype=np.int64),
    )
    scale = r.Scale(4, 4, True, r.SELECTOR_VALID, True)
    return r.reconcile(controller, rules, scale, pods, containers, observed, state, proposals, 0.0).wish


def test_a_pass_can_be_called_from_compiled_code() -> None:
    rules, state = external_hpa(has_behavior=True), r.new_state(8, 8)
    assert first_wish(r.Controller(), rules, NO_PODS, state, 47_000) == 5
