"""Knative policies hold what its webhook accepts and come back as they go out; Services of others are read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from tests.goldens import assert_matches_golden
from tiphys.dialects import VLLM
from tiphys.documents import parse_yaml
from tiphys.domain.service import Envelope, Target
from tiphys.domain.settings import ClusterSettings, KnativeSettings
from tiphys.errors import InputError
from tiphys.policies import (
    KnativeHpaPolicy,
    KpaPolicy,
    PolicySpace,
    PoolContext,
    check_bounds,
    clipped,
    import_manifests,
    parse_policy,
    render,
)
from tiphys.policies.inert import inert_numbers

KPA = {"kind": "kpa", "replicas": {"min": 0, "max": 8}}
FULL_KPA = {
    "kind": "kpa",
    "replicas": {"min": 1, "max": 6},
    "metric": "rps",
    "target": 12.5,
    "target_utilization_ratio": 0.85,
    "window_s": 90,
    "panic_window_ratio": 0.125,
    "panic_threshold_ratio": 1.5,
    "scale_down_delay_s": 300,
    "container_concurrency": 32,
    "activation_scale": 2,
    "initial_scale": 3,
    "target_burst_capacity": -1,
    "pod_retention_s": 600,
    "aggregation": "weighted-exponential",
    "progress_deadline_s": 1800,
}
KNATIVE_HPA = {
    "kind": "knative-hpa",
    "replicas": {"min": 2, "max": 6},
    "metric": {"source": "pods", "signal": "running", "target": 16},
    "window_s": 45,
    "container_concurrency": 32,
}
POOL = PoolContext(name="chat", target=Target(name="chat-llm"), dialect=VLLM, namespace="serve")
PREFIX = "autoscaling.knative.dev/"


def wrong(document: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        parse_policy(document, "file.yaml")
    assert caught.value.where == "file.yaml"
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metric": "cpu"}, "metric"),
        ({"target": 0.009}, "target: Input should be greater than or equal to 0.01"),
        ({"target_utilization_ratio": 1.01}, "target_utilization_ratio"),
        ({"target_utilization_ratio": 0.009}, "target_utilization_ratio"),
        ({"window_s": 5}, "window_s: Input should be greater than or equal to 6"),
        ({"window_s": 3601}, "window_s"),
        ({"window_s": 7.5}, "window_s"),
        ({"panic_window_ratio": 0.009}, "panic_window_ratio"),
        ({"panic_window_ratio": 1.01}, "panic_window_ratio"),
        ({"panic_threshold_ratio": 1.09}, "panic_threshold_ratio"),
        ({"panic_threshold_ratio": 10.1}, "panic_threshold_ratio"),
        ({"scale_down_delay_s": 3601}, "scale_down_delay_s"),
        ({"pod_retention_s": 3601}, "pod_retention_s"),
        ({"container_concurrency": 1001}, "container_concurrency"),
        ({"target_burst_capacity": -0.5}, "target_burst_capacity -0.5 is neither -1 (unlimited) nor at least 0"),
        ({"target_burst_capacity": -2}, "target_burst_capacity"),
        ({"activation_scale": 9}, "activation_scale 9 does not lie between replicas.min 0 and replicas.max 8"),
        ({"activation_scale": 2, "replicas": {"min": 3, "max": 8}}, "activation_scale 2 does not lie between"),
        ({"replicas": {"min": 1}}, "replicas.max"),
        ({"replicas": {"min": 0, "max": 0}}, "replicas.max"),
        ({"max_scale_up_rate": 10}, "unknown key 'max_scale_up_rate'"),
        ({"aggregation": "median"}, "aggregation"),
    ],
)
def test_what_knative_would_refuse_or_takes_only_for_the_cluster_is_an_error(changes, expected):
    assert expected in wrong(KPA | changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"replicas": {"min": 0, "max": 6}}, "the hpa class does not scale to zero"),
        ({"metric": {"source": "gpu", "target": 3}}, "unknown source 'gpu'"),
        ({"metric": {"source": "cpu", "target": 0.5}}, "metric.target"),
        ({"metric": {"source": "pods", "signal": "runing", "target": 3}}, "did you mean 'running'"),
        ({"panic_window_ratio": 0.5}, "unknown key 'panic_window_ratio'"),
    ],
)
def test_what_the_hpa_class_cannot_mean_is_an_error(changes, expected):
    assert expected in wrong(KNATIVE_HPA | changes)


def test_a_kpa_clipped_to_an_envelope_keeps_a_valid_activation_scale():
    policy = parse_policy(KPA | {"activation_scale": 6})
    for low, high, activation in ((0, 4, 4), (2, 8, 6), (7, 8, 1)):
        inside = clipped(policy, Envelope(min=low, max=high))
        assert isinstance(inside, KpaPolicy) and inside.activation_scale == activation
        check_bounds(inside, Envelope(min=low, max=high))


def test_a_space_clips_an_open_activation_scale_too():
    document = KPA | {"target": {"between": [1, 9]}, "activation_scale": {"between": [2, 6]}}
    inside = PolicySpace(document, "kpa", "kpa.yaml").within(Envelope(min=0, max=4))
    scale = next(each for each in inside.dimensions if each.path == "activation_scale")
    assert (scale.low, scale.high) == (2, 4)
    assert inside.document["replicas"] == {"min": 0, "max": 4}


# --- manifests


@pytest.mark.parametrize(("name", "document"), [("kpa_full", FULL_KPA), ("knative_hpa", KNATIVE_HPA)])
def test_rendered_services_equal_their_goldens(name, document, pytestconfig):
    documents = render(parse_policy(document), POOL)
    assert_matches_golden(name, documents, pytestconfig)
    assert import_manifests(documents) == parse_policy(document)


def test_what_is_the_clusters_is_never_rendered():
    annotations = render(parse_policy(KPA), POOL)[0]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        f"{PREFIX}class": "kpa.autoscaling.knative.dev",
        f"{PREFIX}metric": "concurrency",
        f"{PREFIX}min-scale": "0",
        f"{PREFIX}max-scale": "8",
    }


SERVICE_OF_OTHERS = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: llm-kpa}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/metric: concurrency
        autoscaling.knative.dev/target: "16"
        autoscaling.knative.dev/target-utilization-percentage: "80"
        autoscaling.knative.dev/window: 30s
        autoscaling.knative.dev/min-scale: "1"
        autoscaling.knative.dev/max-scale: "4"
        autoscaling.knative.dev/scale-to-zero-pod-retention-period: 10m
        serving.knative.dev/progress-deadline: 1800s
        prometheus.io/scrape: "true"
    spec:
      containerConcurrency: 32
      timeoutSeconds: 600
      containers:
      - image: vllm/vllm-openai
        ports: [{containerPort: 8000}]
"""


def read(text: str) -> Any:
    return import_manifests(parse_yaml(text, "their.yaml"), where="their.yaml")


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(text)
    assert caught.value.where == "their.yaml"
    return str(caught.value)


def test_a_service_of_others_is_read_in_full():
    expected = {
        "kind": "kpa",
        "replicas": {"min": 1, "max": 4},
        "target": 16,
        "target_utilization_ratio": 0.8,
        "window_s": 30,
        "container_concurrency": 32,
        "pod_retention_s": 600,
        "progress_deadline_s": 1800,
    }
    assert read(SERVICE_OF_OTHERS) == parse_policy(expected)


def test_both_spellings_of_an_annotation_are_read_but_not_side_by_side():
    camel = SERVICE_OF_OTHERS.replace("min-scale", "minScale").replace("max-scale", "maxScale")
    camel = camel.replace("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod")
    assert read(camel) == read(SERVICE_OF_OTHERS)
    twice = SERVICE_OF_OTHERS.replace('min-scale: "1"', 'min-scale: "1"\n        autoscaling.knative.dev/minScale: "2"')
    assert "min-scale: is written twice, in both spellings" in refused(twice)


def test_the_two_spellings_of_an_aggregation_are_one():
    text = SERVICE_OF_OTHERS.replace("/window: 30s", "/metric-aggregation-algorithm: weightedExponential")
    assert read(text).aggregation == "weighted-exponential"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("/target:", "/tarjet:", "unknown annotation 'autoscaling.knative.dev/tarjet', did you mean"),
        ("/min-scale:", "/activationScale:", "unknown annotation 'autoscaling.knative.dev/activationScale'"),
        ('target: "16"', "target: 16", "annotations.autoscaling.knative.dev/target: Input should be a valid string"),
        ('target: "16"', 'target: "many"', "autoscaling.knative.dev/target: is not a number"),
        (
            'target: "16"',
            'target: "0"',
            "autoscaling.knative.dev/target: Input should be greater than or equal to 0.01",
        ),
        ('target: "16"', 'target: "nan"', "autoscaling.knative.dev/target"),
        ('percentage: "80"', 'percentage: "0.8"', "target-utilization-percentage: Input should be greater"),
        ('percentage: "80"', 'percentage: "80%"', "target-utilization-percentage: is not a number"),
        ('percentage: "80"', 'percentage: "inf"', "target-utilization-percentage"),
        ("window: 30s", 'window: "30"', "autoscaling.knative.dev/window: is not a duration; found '30'"),
        ("window: 30s", "window: 5s", "autoscaling.knative.dev/window: Input should be greater than or equal to 6"),
        ("window: 30s", "window: 30500ms", "autoscaling.knative.dev/window: is not in whole seconds"),
        ('max-scale: "4"', 'max-scale: "0"', "autoscaling.knative.dev/max-scale: is missing"),
        ('        autoscaling.knative.dev/max-scale: "4"\n', "", "autoscaling.knative.dev/max-scale: is missing"),
        ('max-scale: "4"', 'max-scale: "four"', "autoscaling.knative.dev/max-scale: is not a whole number"),
        ('min-scale: "1"', 'min-scale: "5"', "min 5 is over max 4"),
        ('min-scale: "1"', 'activation-scale: "1"', "activation-scale: must be over 1"),
        ('min-scale: "1"', 'activation-scale: "7"', "activation_scale 7 does not lie between"),
        (
            "metric: concurrency",
            "metric: cpu",
            "autoscaling.knative.dev/metric: Input should be 'concurrency' or 'rps'",
        ),
        ("/metric: concurrency", "/class: keda", "autoscaling.knative.dev/class: is no class of autoscaler"),
        ("      annotations:", "      annotation:", "spec.template.metadata.annotation: unknown key"),
        (
            "metadata: {name: llm-kpa}",
            "metadata: {annotations: {autoscaling.knative.dev/target: '9'}}",
            "is not read here",
        ),
        ("containerConcurrency: 32", "containerconcurrency: 32", "misplaced key 'containerconcurrency'"),
        ("containerConcurrency: 32", "containerConcurrency: -1", "containerConcurrency: Input should be greater"),
        ("      - image: vllm/vllm-openai", "      - containerConcurrency: 9", "spec.template.spec.containers.0"),
        ("  template:", "  containerConcurrency: 9\n  template:", "misplaced key 'containerConcurrency'"),
        ("serving.knative.dev/v1\n", "serving.knative.dev/v1alpha1\n", "apiVersion"),
    ],
)
def test_faults_of_services_are_errors_that_name_the_place(old, new, expected):
    assert old in SERVICE_OF_OTHERS
    assert expected in refused(SERVICE_OF_OTHERS.replace(old, new, 1))


@pytest.mark.parametrize("group", ["autoscaling.internal.knative.dev/v1alpha1", "autoscaling.knative.dev/v1"])
def test_a_pod_autoscaler_of_any_group_is_refused_with_its_remedy(group):
    text = f"apiVersion: {group}\nkind: PodAutoscaler\nmetadata: {{name: x}}\nspec: {{}}\n"
    message = refused(text)
    assert "Knative's own object" in message and "Service of serving.knative.dev/v1" in message


def test_a_service_of_kubernetes_is_passed_over():
    plain = "apiVersion: v1\nkind: Service\nmetadata: {name: llm}\nspec: {ports: [{port: 80}]}\n---"
    assert read(plain + SERVICE_OF_OTHERS) == read(SERVICE_OF_OTHERS)
    assert "no scaler in these manifests" in refused(plain.removesuffix("---"))


HPA_CLASS = SERVICE_OF_OTHERS.replace("/metric: concurrency", "/class: hpa.autoscaling.knative.dev").replace(
    '        autoscaling.knative.dev/target-utilization-percentage: "80"\n', ""
).replace("        autoscaling.knative.dev/scale-to-zero-pod-retention-period: 10m\n", "")  # fmt: skip


def with_metric(name: str, text: str = HPA_CLASS) -> str:
    return text.replace('/target: "16"', f'/target: "16"\n        autoscaling.knative.dev/metric: {name}')


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        (HPA_CLASS, {"source": "cpu", "target": 16}),
        (with_metric("memory"), {"source": "memory", "target": 16}),
        (with_metric("vllm:num_requests_waiting"), {"source": "pods", "signal": "waiting", "target": 16}),
    ],
)
def test_the_hpa_class_is_read_with_its_metric(text, metric):
    policy = read(text)
    assert isinstance(policy, KnativeHpaPolicy)
    assert policy.metric.model_dump(exclude_none=True, mode="json") == metric
    assert (policy.window_s, policy.replicas.min, policy.container_concurrency) == (30, 1, 32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_metric("requests_of_space"), "annotations.autoscaling.knative.dev/metric"),
        (HPA_CLASS.replace('target: "16"', 'target: "0.8"'), "is not a whole number: Knative rounds it up"),
        (with_metric("memory").replace('target: "16"', 'target: "0.8"'), "Knative cuts off the fraction"),
        (HPA_CLASS.replace('        autoscaling.knative.dev/target: "16"\n', ""), "would have no metric"),
        (HPA_CLASS.replace("/window: 30s", '/panic-window-percentage: "10"'), "unknown annotation"),
        (HPA_CLASS.replace('target: "16"', 'target: "0"'), "annotations.autoscaling.knative.dev/target"),
    ],
)
def test_faults_of_the_hpa_class_are_errors_that_name_the_place(text, expected):
    assert expected in refused(text)


def test_the_hpa_class_without_a_minimum_has_one_replica():
    assert read(HPA_CLASS.replace('        autoscaling.knative.dev/min-scale: "1"\n', "")).replicas.min == 1


# --- numbers that cannot act


@pytest.mark.parametrize(
    ("changes", "cluster", "expected"),
    [
        ({"pod_retention_s": 60}, {}, {"activation_scale"}),
        ({"replicas": {"min": 1, "max": 8}}, {}, {"activation_scale", "pod_retention_s"}),
        ({"pod_retention_s": 60}, {"scale_to_zero": False}, {"activation_scale", "pod_retention_s"}),
        ({"activation_scale": 2}, {}, set()),
        ({"activation_scale": 2, "replicas": {"min": 2, "max": 8}}, {}, {"activation_scale", "pod_retention_s"}),
        ({"activation_scale": 2, "initial_scale": 0}, {}, {"initial_scale"}),
        ({"activation_scale": 2, "initial_scale": 0}, {"allow_zero_initial_scale": True}, set()),
        ({"activation_scale": 3, "initial_scale": 2, "replicas": {"min": 1, "max": 8}}, {}, {"pod_retention_s"}),
        (
            {"activation_scale": 3, "initial_scale": 2, "replicas": {"min": 2, "max": 8}},
            {},
            {"pod_retention_s", "initial_scale"},
        ),
        ({"activation_scale": 2, "target": 16, "container_concurrency": 16}, {}, {"target"}),
        ({"activation_scale": 2, "target": 16, "container_concurrency": 17}, {}, set()),
        ({"activation_scale": 2, "target": 16, "container_concurrency": 10, "metric": "rps"}, {}, set()),
    ],
)
def test_numbers_that_cannot_act_are_named(changes, cluster, expected):
    settings = ClusterSettings(knative=KnativeSettings(**cluster))
    assert set(inert_numbers(parse_policy(KPA | changes), settings)) == expected
