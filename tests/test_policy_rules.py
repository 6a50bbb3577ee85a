"""Policies in the numbers that the compiled controllers take."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tiphys.domain.settings import ClusterSettings, HpaSettings
from tiphys.policies import HpaPolicy, KedaPolicy, parse_policy
from tiphys.policies.hpa.behavior import POLICY_PERCENT, POLICY_PODS, SELECT_MAX, SELECT_MIN
from tiphys.policies.hpa.reconcile import (
    AVERAGE_VALUE,
    CONTAINER_RESOURCE,
    EXTERNAL,
    OBJECT,
    PODS,
    RESOURCE,
    UTILIZATION,
    VALUE,
    Rules,
)
from tiphys.policies.hpa.rules import controller, hpa_rules
from tiphys.policies.keda.rules import generated_hpa

SETTINGS = ClusterSettings(hpa=HpaSettings(downscale_stabilization_s=240.0, tolerance=0.2))


def hpa(**changes: Any) -> Rules:
    document = {
        "kind": "hpa",
        "replicas": {"min": 2, "max": 9},
        "metrics": [
            {"signal": "ttft_p90", "type": "Value", "target": "1500m"},
            {"signal": "running", "type": "AverageValue", "source": "pods", "target": 60},
        ],
    }
    policy = parse_policy(document | changes)
    assert isinstance(policy, HpaPolicy)
    return hpa_rules(policy, SETTINGS)


def keda(**changes: Any) -> Rules:
    trigger = {"scaler": "prometheus", "signal": "running", "threshold": 60}
    policy = parse_policy({"kind": "keda", "triggers": [trigger]} | changes)
    assert isinstance(policy, KedaPolicy)
    return generated_hpa(policy, SETTINGS)


def test_metrics_keep_their_order_and_their_thousandths():
    rules = hpa()
    assert (rules.min_replicas, rules.max_replicas) == (2, 9)
    assert rules.metrics.source.tolist() == [OBJECT, PODS]
    assert rules.metrics.target_type.tolist() == [VALUE, AVERAGE_VALUE]
    assert rules.metrics.target_milli.tolist() == [1500, 60000]


def test_no_behavior_is_told_from_an_empty_one():
    assert not hpa().has_behavior
    assert hpa(behavior={}).has_behavior


def test_an_empty_behavior_has_the_defaults_of_the_api_and_the_window_of_the_controller():
    rules = hpa(behavior={})
    assert rules.up.stabilization_s == 0 and rules.down.stabilization_s == 240
    assert rules.up.policy_type.tolist() == [POLICY_PODS, POLICY_PERCENT]
    assert rules.up.policy_value.tolist() == [4, 100]
    assert rules.down.policy_value.tolist() == [100]
    assert rules.down.select == SELECT_MAX and math.isnan(rules.down.tolerance)


def test_a_given_behavior_replaces_the_defaults():
    down = {
        "stabilization_s": 60,
        "select": "Min",
        "tolerance": 0.05,
        "policies": [{"type": "Percent", "value": 50, "period_s": 120}],
    }
    rules = hpa(behavior={"scale_down": down}).down
    assert (rules.stabilization_s, rules.select, rules.tolerance) == (60, SELECT_MIN, 0.05)
    assert (rules.policy_type.tolist(), rules.policy_value.tolist()) == ([POLICY_PERCENT], [50])
    assert rules.policy_period_s.tolist() == [120.0]


@pytest.mark.parametrize(("minimum", "generated"), [(0, 1), (1, 1), (5, 5)])
def test_the_hpa_that_keda_generates_has_at_least_one_replica(minimum, generated):
    rules = keda(replicas={"min": minimum, "max": 10})
    assert (rules.min_replicas, rules.max_replicas, rules.has_behavior) == (generated, 10, False)


def test_each_trigger_is_a_metric_of_the_generated_hpa():
    triggers = [
        {"scaler": "prometheus", "signal": "ttft_p90", "threshold": 2, "metric_type": "Value"},
        {"scaler": "nats-jetstream", "endpoint": "nats:8222", "stream": "s", "consumer": "c"},
        {"scaler": "cpu", "threshold": 70},
        {"scaler": "cpu", "threshold": "1500m", "metric_type": "AverageValue", "container": "server"},
    ]
    metrics = keda(triggers=triggers).metrics
    assert metrics.source.tolist() == [EXTERNAL, EXTERNAL, RESOURCE, CONTAINER_RESOURCE]
    assert metrics.target_type.tolist() == [VALUE, AVERAGE_VALUE, UTILIZATION, AVERAGE_VALUE]
    assert metrics.target_milli.tolist() == [2000, 10000, 70, 1500]
    assert metrics.is_cpu.tolist() == [False, False, True, True]


def test_a_formula_replaces_all_triggers_but_cpu_by_one_metric():
    triggers = [
        {"scaler": "prometheus", "signal": "running", "threshold": 60, "name": "a"},
        {"scaler": "prometheus", "signal": "waiting", "threshold": 5, "name": "b"},
        {"scaler": "cpu", "threshold": 70, "name": "c"},
    ]
    metrics = keda(triggers=triggers, scaling_modifiers={"formula": "a + b", "target": "2500m"}).metrics
    assert metrics.source.tolist() == [EXTERNAL, RESOURCE]
    assert metrics.target_milli.tolist() == [2500, 70]


def test_the_flags_of_the_controller_come_from_the_cluster():
    flags = controller(SETTINGS)
    assert (flags.tolerance, flags.downscale_stabilization_s) == (0.2, 240.0)
