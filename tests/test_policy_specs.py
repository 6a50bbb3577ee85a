"""Policies hold what the upstream APIs accept and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from tests.drawn_policies import policies
from tiphys.domain.service import Envelope
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies import HpaPolicy, KedaPolicy, check_bounds, clipped, parse_policy

METRIC = {"signal": "running", "type": "AverageValue", "target": 60}
HPA = {"kind": "hpa", "replicas": {"min": 1, "max": 8}, "metrics": [METRIC]}
TRIGGER = {"scaler": "prometheus", "signal": "running", "threshold": 60}
KEDA = {"kind": "keda", "replicas": {"min": 1, "max": 8}, "triggers": [TRIGGER]}


def wrong(document: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        parse_policy(document, "file.yaml")
    assert caught.value.where == "file.yaml"
    return str(caught.value)


def with_metric(**changes: Any) -> dict[str, Any]:
    return HPA | {"metrics": [METRIC | changes]}


def with_rules(**rules: Any) -> dict[str, Any]:
    return HPA | {"behavior": {"scale_down": rules}}


@given(policies)
def test_a_policy_is_read_back_from_its_document(policy):
    assert parse_policy(policy.document(), "again") == policy


def test_a_latency_without_a_window_has_one_of_a_minute():
    policy = parse_policy(with_metric(signal="ttft_p90", type="Value"))
    assert isinstance(policy, HpaPolicy) and policy.metrics[0].window_s == 60


@pytest.mark.parametrize("signal", [signal for signal in Signal if signal.has_window])
def test_what_is_computed_over_time_has_a_window(signal):
    policy = parse_policy(with_metric(signal=str(signal), type="Value", window_s=45))
    assert isinstance(policy, HpaPolicy) and policy.metrics[0].window_s == 45
    assert parse_policy(policy.document()) == policy


def test_cpu_is_a_resource_without_being_said_to_be():
    policy = parse_policy(with_metric(signal="cpu", type="Utilization", target=70))
    assert isinstance(policy, HpaPolicy) and policy.metrics[0].source == "resource"
    assert policy == parse_policy(with_metric(signal="cpu", type="Utilization", target=70, source="resource"))


def test_each_pod_may_have_a_ratio_of_its_own():
    policy = parse_policy(with_metric(signal="queue_compute_ratio", source="pods", target="1000m"))
    assert isinstance(policy, HpaPolicy) and policy.metrics[0].target == 1.0


def test_what_a_keda_policy_looks_at_is_said_by_every_trigger():
    lag = {"scaler": "nats-jetstream", "endpoint": "nats.nats:8222", "stream": "s", "consumer": "c"}
    policy = parse_policy(KEDA | {"triggers": [lag, {"scaler": "cpu", "threshold": 70}, TRIGGER]})
    assert policy.signals == (Signal.STREAM_LAG, Signal.CPU, Signal.RUNNING)


def test_a_level_has_no_window():
    assert "window_s is for latencies and rates" in wrong(with_metric(window_s=60))


def test_targets_may_be_quantities_and_keep_whole_thousandths():
    policy = parse_policy(with_metric(target="500m"))
    assert isinstance(policy, HpaPolicy) and policy.metrics[0].target == 0.5
    finer = parse_policy(with_metric(target=0.50001))
    assert isinstance(finer, HpaPolicy) and finer.metrics[0].target == 0.501


def test_no_behavior_and_an_empty_one_are_different_policies():
    without, empty = parse_policy(HPA), parse_policy(HPA | {"behavior": {}})
    assert without != empty
    assert "behavior" not in without.document() and empty.document()["behavior"] == {}


def test_an_unknown_signal_lists_the_known_ones():
    message = wrong(with_metric(signal="runing"))
    assert "metrics.0.signal" in message and "did you mean 'running'" in message and "ttft_p90" in message


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (with_metric(tarjet=1), "metrics.0.tarjet: unknown key 'tarjet', did you mean 'target'?"),
        (with_metric(target=0), "metrics.0.target: Input should be greater than 0"),
        (with_metric(target=float("nan")), "metrics.0.target: Input should be a finite number"),
        (with_metric(target=float("inf")), "metrics.0.target: Input should be a finite number"),
        (with_metric(target="2 s"), "metrics.0.target: is not a quantity"),
        (with_metric(source="pods", type="Value"), "a metric of source pods has type AverageValue"),
        (with_metric(source="resource"), "metrics.0: source resource is for cpu and cpu for it alone"),
        (with_metric(signal="cpu", source="object"), "source resource is for cpu and cpu for it alone"),
        (with_metric(signal="cpu", type="Value"), "cpu has type Utilization (percent of the request) or AverageValue"),
        (with_metric(signal="cpu", type="Utilization", target=70.5), "a utilization target is a whole percentage"),
        (with_metric(signal="cpu", type="AverageValue", window_s=60), "window_s is for latencies and rates"),
        (with_metric(type="Utilization"), "type Utilization is for cpu: running has Value or AverageValue"),
        (with_metric(signal="stream_lag"), "asked of NATS by a nats-jetstream trigger of kind keda"),
        (with_metric(signal="queued", source="pods"), "no value of each: give source external"),
        (with_metric(signal="queue_compute_ratio"), "one number of the pool, not a sum over its replicas: give type"),
        (
            with_metric(signal="cpu", type="Utilization", target=70) | {"replicas": {"min": 0, "max": 4}},
            "min 0 needs a metric of source object or external",
        ),
        (HPA | {"metrics": []}, "metrics: must hold at least one"),
        (HPA | {"replicas": {"min": 5, "max": 4}}, "replicas: min 5 is over max 4"),
        (HPA | {"replicas": {"min": "1", "max": 4}}, "replicas.min: Input should be a valid integer"),
        (
            with_metric(source="pods") | {"replicas": {"min": 0, "max": 4}},
            "min 0 needs a metric of source object or external",
        ),
        (with_rules(stabilization_s=3601), "behavior.scale_down.stabilization_s: Input should be less than or equal"),
        (with_rules(stabilization_s=-1), "behavior.scale_down.stabilization_s: Input should be greater than or equal"),
        (with_rules(policies=[]), "behavior.scale_down.policies: must hold at least one"),
        (with_rules(policies=[{"type": "Pods", "value": 1, "period_s": 1801}]), "policies.0.period_s"),
        (with_rules(policies=[{"type": "Pods", "value": 0, "period_s": 60}]), "policies.0.value"),
        (with_rules(policies=[{"type": "Pods", "value": 1, "period_s": 60, "select": "Max"}]), "unknown key 'select'"),
        (with_rules(tolerance=-0.1), "behavior.scale_down.tolerance"),
        (HPA | {"kind": "hpaa"}, "unknown kind of policy 'hpaa', did you mean 'hpa'?"),
        ({"replicas": 3}, "kind: is missing"),
    ],
)
def test_what_autoscaling_v2_would_refuse_is_an_error(document, expected):
    assert expected in wrong(document)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"idle_replicas": 1}, "idle_replicas 1 must be below replicas.min 1"),
        ({"polling_interval_s": 0}, "polling_interval_s"),
        ({"cooldown_s": -1}, "cooldown_s"),
        ({"triggers": []}, "triggers: must hold at least one"),
        ({"triggers": [TRIGGER | {"activation": 1, "activation_ratio": 0.5}]}, "say the same thing"),
        ({"triggers": [TRIGGER | {"scaler": "redis"}]}, "'redis'"),
        ({"triggers": [TRIGGER | {"signal": "cpu"}]}, "keda a trigger cpu"),
        ({"triggers": [TRIGGER | {"signal": "stream_lag"}]}, "nats-jetstream trigger"),
        ({"triggers": [TRIGGER | {"signal": "queue_compute_ratio"}]}, "triggers.0: queue_compute_ratio is one number"),
        ({"triggers": [TRIGGER | {"thresold": 5}]}, "did you mean 'threshold'?"),
        ({"triggers": [{"scaler": "cpu", "threshold": 70.5}]}, "whole percentage"),
        ({"triggers": [{"scaler": "cpu", "threshold": 70}], "replicas": {"min": 0}}, "cpu triggers alone"),
        (
            {"triggers": [{"scaler": "cpu", "threshold": 70}], "fallback": {"failure_threshold": 3, "replicas": 2}},
            "fallback is not for cpu triggers",
        ),
        ({"triggers": [TRIGGER | {"name": "a"}, TRIGGER | {"name": "a"}]}, "two triggers have one name"),
        ({"scaling_modifiers": {"formula": "a", "target": 2}}, "every trigger has a name"),
        (
            {"triggers": [TRIGGER | {"name": "my-queue"}], "scaling_modifiers": {"formula": "a", "target": 2}},
            "cannot call triggers by these names: my-queue",
        ),
        (
            {"triggers": [TRIGGER | {"name": "a"}], "scaling_modifiers": {"formula": "a + b", "target": 2}},
            "scaling_modifiers.formula: unknown trigger 'b'",
        ),
        ({"triggers": [TRIGGER | {"threshold": 0.0004}]}, "triggers.0.threshold: Input should be greater"),
        (
            {"fallback": {"failure_threshold": 3, "replicas": 2, "behavior": "scalingModifiers"}},
            "needs scaling_modifiers",
        ),
    ],
)
def test_what_the_keda_webhook_would_refuse_is_an_error(changes, expected):
    assert expected in wrong(KEDA | changes)


def test_keda_has_its_own_defaults():
    policy = parse_policy({"kind": "keda", "triggers": [TRIGGER]})
    assert isinstance(policy, KedaPolicy)
    assert (policy.replicas.min, policy.replicas.max) == (0, 100)
    assert (policy.polling_interval_s, policy.cooldown_s, policy.initial_cooldown_s) == (30, 300, 0)


def test_a_threshold_of_keda_has_three_decimals_as_in_its_hpa():
    policy = parse_policy(KEDA | {"triggers": [TRIGGER | {"threshold": 2.0004}]})
    assert isinstance(policy, KedaPolicy) and policy.triggers[0].scaler == "prometheus"
    assert policy.triggers[0].threshold == 2.0


def test_activation_is_a_share_of_the_threshold_where_written_so():
    policy = parse_policy(KEDA | {"triggers": [TRIGGER | {"activation_ratio": 0.25}]})
    assert isinstance(policy, KedaPolicy) and policy.triggers[0].scaler == "prometheus"
    assert policy.triggers[0].activation_value == 15.0


@pytest.mark.parametrize("document", [HPA, KEDA, {"kind": "fixed", "replicas": 8}])
def test_bounds_outside_the_envelope_are_an_error_and_can_be_clipped(document):
    policy, envelope = parse_policy(document), Envelope(min=2, max=5)
    with pytest.raises(InputError, match=r"replicas.*outside the pool's envelope.*2 to 5"):
        check_bounds(policy, envelope, "file.yaml")
    check_bounds(clipped(policy, envelope), envelope)
    check_bounds(policy, Envelope(min=1, max=8))
