"""Policies go out as manifests and come back as the same policies; manifests of others are read strictly."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from tests.drawn_policies import policies
from tests.goldens import assert_matches_golden
from tests.upstream_shape import faults
from tiphys.dialects import DIALECTS, TRITON, TRITON_LLMAPI, TRTLLM_SERVE, VLLM, Dialect
from tiphys.documents import parse_yaml, to_yaml
from tiphys.domain.service import Target
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies import (
    HpaPolicy,
    KedaPolicy,
    PoolContext,
    closed,
    import_manifests,
    load_policy,
    parse_policy,
    render,
)

FULL_HPA = {
    "kind": "hpa",
    "replicas": {"min": 1, "max": 6},
    "metrics": [
        {"signal": "ttft_p90", "type": "Value", "target": 2, "window_s": 90},
        {"signal": "waiting", "type": "AverageValue", "source": "external", "target": "2500m"},
        {"signal": "kv_usage", "type": "AverageValue", "source": "pods", "target": 0.8},
    ],
    "behavior": {
        "scale_up": {"stabilization_s": 0, "select": "Min", "tolerance": 0.05},
        "scale_down": {"policies": [{"type": "Percent", "value": 50, "period_s": 120}]},
    },
}
FULL_KEDA = {
    "kind": "keda",
    "replicas": {"min": 1, "max": 6},
    "polling_interval_s": 5,
    "idle_replicas": 0,
    "fallback": {"failure_threshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"},
    "scaling_modifiers": {"formula": "max(queue, lag)", "target": 2, "activation_target": 1, "metric_type": "Value"},
    "behavior": {},
    "triggers": [
        {
            "scaler": "prometheus",
            "name": "queue",
            "signal": "ttft_p95",
            "threshold": 2,
            "activation_ratio": 0.1,
            "metric_type": "Value",
            "window_s": 45,
            "ignore_null": False,
        },
        {"scaler": "nats-jetstream", "name": "lag", "endpoint": "nats.nats:8222", "stream": "s", "consumer": "c"},
        {"scaler": "cpu", "name": "cpu", "threshold": 70},
    ],
}


HPA_OF_SIGNALS = {
    "kind": "hpa",
    "replicas": {"min": 1, "max": 6},
    "metrics": [
        {"signal": "cpu", "type": "Utilization", "target": 70},
        {"signal": "gpu_utilization", "type": "AverageValue", "source": "pods", "target": 0.75},
        {"signal": "gpu_memory", "type": "AverageValue", "source": "pods", "target": 0.9},
        {"signal": "queued", "type": "AverageValue", "source": "external", "target": 5},
        {"signal": "concurrency", "type": "AverageValue", "target": 64},
        {"signal": "rps", "type": "Value", "target": 3},
        {"signal": "ttft_mean", "type": "Value", "target": 1.5, "window_s": 120},
        {"signal": "queue_compute_ratio", "type": "Value", "target": "1000m"},
    ],
}
KEDA_OF_SIGNALS = {
    "kind": "keda",
    "replicas": {"min": 0, "max": 6},
    "triggers": [
        {"scaler": "prometheus", "metric_type": "Value", **trigger}
        for trigger in (
            {"signal": "itl_p95", "threshold": 0.05},
            {"signal": "e2e_p90", "threshold": 20},
            {"signal": "e2e_mean", "threshold": 8},
            {"signal": "rps", "threshold": 3},
            {"signal": "queue_compute_ratio", "threshold": 1},
            {"signal": "gpu_utilization", "threshold": 0.8},
            {"signal": "queued", "threshold": 5},
        )
    ],
}


def pool(dialect: Dialect = VLLM) -> PoolContext:
    return PoolContext(name="chat", target=Target(name="chat-llm"), dialect=dialect, namespace="serve")


def read(text: str) -> Any:
    return import_manifests(parse_yaml(text, "their.yaml"), where="their.yaml")


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(text)
    assert caught.value.where == "their.yaml"
    return str(caught.value)


@settings(max_examples=300, deadline=None)
@given(policies)
def test_what_is_rendered_is_imported_as_the_same_policy(policy):
    documents = render(policy, pool())
    assert import_manifests(documents) == policy
    assert import_manifests(parse_yaml(to_yaml(*documents))) == policy


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_renders_queries_that_are_recognised_again(dialect):
    for signal in dialect.signals:
        for kind in ("Value", "AverageValue")[: 1 if signal is Signal.QUEUE_COMPUTE_RATIO else 2]:
            trigger = {"scaler": "prometheus", "signal": str(signal), "threshold": 2, "metric_type": kind}
            policy = parse_policy({"kind": "keda", "triggers": [trigger]})
            assert import_manifests(render(policy, pool(dialect))) == policy


@pytest.mark.parametrize("policy", [FULL_HPA, FULL_KEDA], ids=["hpa", "keda"])
def test_a_signal_that_the_servers_do_not_show_cannot_be_rendered(policy):
    document = deepcopy(policy)
    key = "metrics" if policy["kind"] == "hpa" else "triggers"
    document[key][0] = {**document[key][0], "signal": "running", "window_s": None}
    with pytest.raises(InputError, match=r"triton-llmapi does not show this signal: .*gauges.*'running'.*ttft_p90"):
        render(parse_policy(document), pool(TRITON_LLMAPI))


@pytest.mark.parametrize(
    ("name", "document", "dialect"),
    [
        ("hpa_full_vllm", FULL_HPA, VLLM),
        ("hpa_full_triton", FULL_HPA, TRITON),
        ("keda_full_vllm", FULL_KEDA, VLLM),
        ("fixed", {"kind": "fixed", "replicas": 3}, VLLM),
        ("hpa_signals_triton", HPA_OF_SIGNALS, TRITON),
        ("hpa_signals_vllm", HPA_OF_SIGNALS, VLLM),
        ("keda_signals_trtllm_serve", KEDA_OF_SIGNALS, TRTLLM_SERVE),
    ],
)
def test_rendered_manifests_equal_their_goldens(name, document, dialect, pytestconfig):
    documents = render(parse_policy(document), pool(dialect))
    assert_matches_golden(name, documents, pytestconfig)


@pytest.mark.parametrize("name", ["published-hpa-ttft", "published-keda-running", "published-keda-nats"])
def test_published_manifests_equal_their_goldens(name, pytestconfig):
    documents = render(closed(load_policy(name)), pool())
    assert_matches_golden(name.replace("-", "_"), documents, pytestconfig)


@settings(max_examples=100, deadline=None)
@given(policies)
def test_rendered_hpas_have_the_shape_of_the_api_server(policy):
    for document in render(policy, pool()):
        if document["kind"] == "HorizontalPodAutoscaler":
            assert faults(document, "V2HorizontalPodAutoscaler") == []
        if document["kind"] == "ConfigMap":
            assert faults(document, "V1ConfigMap") == []
        if document["kind"] == "ScaledObject":
            behavior = document["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
            assert faults(behavior, "V2HorizontalPodAutoscalerBehavior") == []
            assert all(
                isinstance(value, str)
                for trigger in document["spec"]["triggers"]
                for value in trigger["metadata"].values()
            )


def test_the_oracle_of_shapes_finds_what_is_misplaced():
    document = render(parse_policy(FULL_HPA), pool())[0]
    document["spec"]["behavior"]["scaleDown"]["policies"][0]["selectPolicy"] = "Max"
    document["spec"]["maxReplicas"] = "6"
    assert [fault.split(": ")[1] for fault in faults(document, "V2HorizontalPodAutoscaler")] == [
        "'6' is not int",
        "no such key",
    ]


@settings(max_examples=50, deadline=None)
@given(policies)
def test_what_tiphys_makes_is_labelled_and_an_autoscaled_workload_is_left_alone(policy):
    for document in render(policy, pool()):
        assert document["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tiphys"
        assert policy.kind == "fixed" or "replicas" not in document.get("spec", {})


def test_the_adapter_has_a_rule_for_every_metric_that_the_hpa_names():
    hpa, rules = render(parse_policy(FULL_HPA), pool(TRITON))
    config = parse_yaml(rules["data"]["config.yaml"])[0]
    served = {rule["name"]["as"] for rule in config["rules"] + config["externalRules"]}
    named = {metric[metric["type"].lower()]["metric"]["name"] for metric in hpa["spec"]["metrics"]}
    assert served == named
    waiting = next(rule for rule in config["externalRules"])
    assert waiting["metricsQuery"] == (
        'sum by (<<.GroupBy>>) (<<.Series>>{request_type="waiting", <<.LabelMatchers>>})'
    )


def test_an_edited_activation_threshold_wins_over_the_annotation_of_its_ratio():
    documents = render(parse_policy(FULL_KEDA), pool())
    documents[0]["spec"]["triggers"][0]["metadata"]["activationThreshold"] = "0.7"
    policy = import_manifests(documents)
    assert isinstance(policy, KedaPolicy) and policy.triggers[0].scaler == "prometheus"
    assert (policy.triggers[0].activation, policy.triggers[0].activation_ratio) == (0.7, None)


HPA_OF_OTHERS = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: llm, namespace: rag, annotations: {owner: somebody}}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: rag-nim-llm}
  minReplicas: 1
  maxReplicas: 6
  metrics:
  - type: Object
    object:
      metric: {name: NAME}
      describedObject: {apiVersion: v1, kind: Service, name: rag-nim-llm}
      target: {type: TYPE}
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 60
      selectPolicy: Max
      policies: [{type: Percent, value: 100, periodSeconds: 30}, {type: Pods, value: 1, periodSeconds: 30}]
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{type: Percent, value: 50, periodSeconds: 120}]
"""


def hpa_of_others(name: str, target: str = 'AverageValue, averageValue: "60"') -> str:
    return HPA_OF_OTHERS.replace("NAME", name).replace("TYPE", target)


@pytest.mark.parametrize(
    ("name", "target", "signal", "window_s", "value"),
    [
        ("num_requests_running", 'AverageValue, averageValue: "60"', "running", None, 60.0),
        ("vllm:num_requests_running", "AverageValue, averageValue: 60", "running", None, 60.0),
        ("vllm_num_requests_waiting", "AverageValue, averageValue: 500m", "waiting", None, 0.5),
        ("gpu_cache_usage_perc", 'AverageValue, averageValue: "0.5"', "kv_usage", None, 0.5),
        ("vllm:gpu_cache_usage_perc", "AverageValue, averageValue: 0.5", "kv_usage", None, 0.5),
        ("trtllm_kv_cache_utilization", "AverageValue, averageValue: 0.5", "kv_usage", None, 0.5),
        ("time_to_first_token_p90", 'Value, value: "2"', "ttft_p90", 60, 2.0),
        ("time_to_first_token_seconds_p95", "Value, value: 1500m", "ttft_p95", 60, 1.5),
        ("vllm_time_to_first_token_seconds_p99_2m", "Value, value: 2", "ttft_p99", 120, 2.0),
        ("ttft_p90_30s", "Value, value: 1k", "ttft_p90", 30, 1000.0),
        ("vllm_inter_token_latency_seconds_p90", "Value, value: 50m", "itl_p90", 60, 0.05),
        ("time_per_output_token_p95_2m", "Value, value: 50m", "itl_p95", 120, 0.05),
        ("e2e_request_latency_mean", "Value, value: 8", "e2e_mean", 60, 8.0),
        ("gpu_utilization", "AverageValue, averageValue: 750m", "gpu_utilization", None, 0.75),
        ("nv_inference_pending_request_count", "AverageValue, averageValue: 4", "pending", None, 4.0),
        ("llm_d_epp_flow_control_queue_size", "AverageValue, averageValue: 5", "queued", None, 5.0),
        ("triton:queue_compute:ratio", "Value, value: 1000m", "queue_compute_ratio", 60, 1.0),
    ],
)
def test_metric_names_of_the_field_are_signals(name, target, signal, window_s, value):
    policy = read(hpa_of_others(name, target))
    metric = policy.metrics[0]
    assert (metric.signal, metric.window_s, metric.target) == (signal, window_s, value)
    assert metric.type == target.split(",")[0]


def test_the_published_hpa_is_read_in_full():
    ours = closed(load_policy("published-hpa-running"))
    assert isinstance(ours, HpaPolicy)
    assert read(hpa_of_others("num_requests_running")) == ours.with_(replicas=ours.replicas.with_(max=6))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("num_requests_running", "gpu_utiliization", "metrics.0.object.metric.name: no signal is known"),
        ("      selectPolicy: Max\n", "      selectPolcy: Max\n", "did you mean 'selectPolicy'?"),
        (
            "periodSeconds: 120}",
            "periodSeconds: 120, selectPolicy: Max}",
            "belongs at spec.behavior.scaleUp.selectPoli",
        ),
        ("periodSeconds: 120", "periodSeconds: 1900", "spec.behavior.scaleDown.policies.0.periodSeconds"),
        ("minReplicas: 1", "minReplica: 1", "spec.minReplica: unknown key 'minReplica', did you mean 'minReplicas'?"),
        ("minReplicas: 1", "minReplicas: 7", "min 7 is over max 6"),
        ("autoscaling/v2", "autoscaling/v1", "apiVersion"),
        ("AverageValue, ", "Value, ", "metrics.0.object.target: is not complete"),
        ('averageValue: "60"', "averageValue: sixty", "metrics.0.object.target: is not a quantity"),
        ("type: Object", "type: ContainerResource", "metrics.0.type: a metric of this type is no signal"),
        ("type: Object", "type: Resource", "metrics.0.resource: is missing, though type is Resource"),
        ("type: Object", "type: Pods", "metrics.0.pods: is missing, though type is Pods"),
        ("stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 300s", "stabilizationWindowSeconds"),
        ("kind: HorizontalPodAutoscaler", "kind: HorizontalPodAutoscalers", "no scaler in these manifests"),
    ],
)
def test_faults_of_hpa_manifests_are_errors_that_name_the_place(old, new, expected):
    text = hpa_of_others("num_requests_running")
    assert old in text
    assert expected in refused(text.replace(old, new))


def test_a_metric_beside_its_object_is_told_where_it_belongs():
    text = hpa_of_others("num_requests_running").replace("    object:\n      metric:", "    object:\n    metric:")
    text = text.replace("      describedObject", "    describedObject").replace("      target", "    target")
    assert "misplaced key 'metric', which belongs at spec.metrics.object.metric" in refused(text)


RESOURCE_HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: llm}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llm}
  maxReplicas: 6
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}
"""


def test_an_hpa_on_cpu_is_read_and_written_as_a_resource_metric():
    policy = read(RESOURCE_HPA)
    assert policy.metrics[0].document() == {"signal": "cpu", "type": "Utilization", "source": "resource", "target": 70}
    (hpa,) = render(policy, pool())
    assert hpa["spec"]["metrics"] == parse_yaml(RESOURCE_HPA)[0]["spec"]["metrics"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: cpu", "name: memory", "spec.metrics.0.resource.name: no signal; found 'memory'; allowed: cpu"),
        ("type: Utilization", "type: Value", "Utilization with averageUtilization, or AverageValue with averageValue"),
        ("averageUtilization: 70", "averageValue: 70", "spec.metrics.0.resource.target: is not complete"),
        ("averageUtilization: 70", "averageUtilization: 0", "spec.metrics.0.resource.target: Input should be greater"),
    ],
)
def test_faults_of_resource_metrics_are_errors_that_name_the_place(old, new, expected):
    assert expected in refused(RESOURCE_HPA.replace(old, new))


def test_tritons_own_example_is_read_as_one_ratio_a_pod():
    text = hpa_of_others("X").replace("type: Object", "type: Pods").replace("    object:", "    pods:")
    text = text.replace("{name: X}", '{name: "triton:queue_compute:ratio"}')
    text = text.replace("      describedObject: {apiVersion: v1, kind: Service, name: rag-nim-llm}\n", "")
    metric = read(text.replace('"60"', "1000m")).metrics[0]
    assert (metric.signal, metric.source, metric.type, metric.target) == (
        "queue_compute_ratio",
        "pods",
        "AverageValue",
        1,
    )


def recorded(metric: dict[str, Any], dialect: Dialect = TRITON) -> tuple[Any, Any]:
    document = {"kind": "hpa", "replicas": {"max": 4}, "metrics": [{"target": 1, "window_s": 60, **metric}]}
    hpa, rules, adapter = render(parse_policy(document), pool(dialect))
    assert hpa["kind"] == "HorizontalPodAutoscaler" and rules["kind"] == "PrometheusRule"
    (rule,) = rules["spec"]["groups"][0]["rules"]
    return rule, parse_yaml(adapter["data"]["config.yaml"])[0]["rules"][0]


def test_a_ratio_is_recorded_and_served_from_its_record():
    rule, served = recorded({"signal": "queue_compute_ratio", "type": "Value"})
    assert rule["record"] == "tiphys:queue_compute_ratio:rate1m"
    assert rule["labels"] == {"namespace": "serve", "service": "chat-llm"}
    assert 'nv_inference_queue_duration_us{model="tensorrt_llm", namespace="serve"' in rule["expr"]
    assert served["seriesQuery"] == 'tiphys:queue_compute_ratio:rate1m{namespace!="", service!=""}'
    assert served["metricsQuery"] == "avg by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})"
    rule, served = recorded({"signal": "queue_compute_ratio", "type": "AverageValue", "source": "pods"})
    assert rule["record"] == "tiphys:queue_compute_ratio_by_pod:rate1m" and "sum by (pod) (" in rule["expr"]


def test_a_rule_is_evaluated_as_often_as_the_pool_says():
    trigger = {"scaler": "prometheus", "signal": "queue_compute_ratio", "threshold": 1, "metric_type": "Value"}
    policy = parse_policy({"kind": "keda", "triggers": [trigger]})
    for interval_s, expected in ((None, None), (5.0, "5s")):
        scaled, rules = render(policy, replace(pool(), rule_interval_s=interval_s))
        assert rules["spec"]["groups"][0].get("interval") == expected
        assert rules["spec"]["groups"][0]["rules"][0]["record"] in scaled["spec"]["triggers"][0]["metadata"]["query"]


def of_signal(**metric: Any) -> HpaPolicy:
    policy = parse_policy({"kind": "hpa", "replicas": {"max": 4}, "metrics": [{"target": 1, **metric}]})
    assert isinstance(policy, HpaPolicy)
    return policy


def test_a_queue_before_the_pods_is_an_external_metric_of_the_inference_pool():
    hpa, adapter = render(of_signal(signal="queued", type="AverageValue", source="external"), pool())
    assert hpa["spec"]["metrics"][0]["external"]["metric"]["selector"] == {
        "matchLabels": {"inference_pool": "chat-llm"}
    }
    (rule,) = parse_yaml(adapter["data"]["config.yaml"])[0]["externalRules"]
    assert rule["seriesQuery"] == 'llm_d_epp_flow_control_queue_size{namespace!=""}'
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}}


def test_the_gpus_of_pods_are_found_by_the_labels_of_dcgm():
    _, adapter = render(of_signal(signal="gpu_utilization", type="AverageValue", source="pods"), pool())
    (rule,) = parse_yaml(adapter["data"]["config.yaml"])[0]["rules"]
    assert rule["seriesQuery"] == 'DCGM_FI_DEV_GPU_UTIL{exported_namespace!="", exported_pod!=""}'
    assert rule["metricsQuery"] == "avg by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>}) / 100"


@pytest.mark.parametrize(
    ("signal", "source", "allowed"),
    [("gpu_utilization", "object", "pods"), ("gpu_memory", "external", "pods"), ("queued", "object", "external")],
)
def test_series_of_others_are_refused_where_an_hpa_cannot_be_told_of_them(signal, source, allowed):
    policy = of_signal(signal=signal, type="AverageValue", source=source)
    with pytest.raises(InputError, match=rf"cannot be told of it by source {source}.*allowed: {allowed}"):
        render(policy, pool())


def test_a_sum_under_value_is_refused_because_it_would_run_away():
    assert "Value wants the avg over pods" in refused(hpa_of_others("tiphys_running_sum", "Value, value: 60"))


def test_two_scalers_in_one_file_are_an_error():
    text = hpa_of_others("num_requests_running")
    assert "expected one scaler" in refused(text + "---" + text)


def test_other_objects_in_the_file_are_passed_over_and_a_list_is_opened():
    hpa = parse_yaml(hpa_of_others("num_requests_running"))[0]
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {"replicas": 2}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [deployment, hpa]}
    assert import_manifests([listed]) == import_manifests([hpa])
    assert import_manifests([deployment]) == parse_policy({"kind": "fixed", "replicas": 2})


def test_an_hpa_without_behavior_is_not_one_with_an_empty_behavior():
    hpa = parse_yaml(hpa_of_others("num_requests_running"))[0]
    del hpa["spec"]["behavior"]
    without = import_manifests([hpa])
    empty = import_manifests([hpa | {"spec": hpa["spec"] | {"behavior": {}}}])
    assert without != empty
    assert isinstance(without, HpaPolicy) and without.behavior is None


SCALED_OBJECT_OF_OTHERS = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: pd-prefill, namespace: serve}
spec:
  scaleTargetRef: {apiVersion: nvidia.com/v1beta1, kind: DynamoGraphDeploymentScalingAdapter, name: pd-prefill}
  minReplicaCount: 1
  maxReplicaCount: 6
  pollingInterval: 5
  fallback: {failureThreshold: 3, replicas: 2, behavior: currentReplicasIfHigher}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown: {stabilizationWindowSeconds: 300, policies: [{type: Percent, value: 50, periodSeconds: 60}]}
  triggers:
  - type: prometheus
    metricType: Value
    metadata:
      serverAddress: http://kps-prometheus.monitoring.svc:9090
      query: |
        QUERY
      threshold: "2"
      ignoreNullValues: "false"
"""
DYNAMO_TTFT = (
    "histogram_quantile(0.90, sum by (le) (rate("
    'dynamo_frontend_time_to_first_token_seconds_bucket{namespace="serve"}[1m])))'
)


def scaled_object(query: str = DYNAMO_TTFT) -> str:
    return SCALED_OBJECT_OF_OTHERS.replace("QUERY", query)


def test_a_scaled_object_of_others_is_read_in_full():
    expected = {
        "kind": "keda",
        "replicas": {"min": 1, "max": 6},
        "polling_interval_s": 5,
        "fallback": {"failure_threshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"},
        "behavior": {
            "scale_down": {"stabilization_s": 300, "policies": [{"type": "Percent", "value": 50, "period_s": 60}]}
        },
        "triggers": [
            {
                "scaler": "prometheus",
                "signal": "ttft_p90",
                "window_s": 60,
                "metric_type": "Value",
                "threshold": 2,
                "ignore_null": False,
            }
        ],
    }
    assert read(scaled_object()) == parse_policy(expected)


@pytest.mark.parametrize(
    ("query", "signal", "window_s"),
    [
        ("avg(vllm:kv_cache_usage_perc)", "kv_usage", None),
        ("avg by (service) (num_requests_running{service='x', pod!='y'})", "running", None),
        ("avg(trtllm_num_requests_waiting) by (service)", "waiting", None),
        ('avg(nv_trt_llm_request_metrics{request_type="waiting", model="m"})', "waiting", None),
        ("histogram_quantile(0.5, rate(vllm:time_to_first_token_seconds_bucket[90s]))", "ttft_p50", 90),
        ("histogram_quantile(0.9, sum by (le) (rate(vllm:e2e_request_latency_seconds_bucket[1m])))", "e2e_p90", 60),
        ("histogram_quantile(.95, sum(rate(sglang:inter_token_latency_seconds_bucket[2m])) by (le))", "itl_p95", 120),
        (
            "sum(increase(vllm:time_to_first_token_seconds_sum{a='b'}[1m])) "
            "/ sum(increase(vllm:time_to_first_token_seconds_count{a='b'}[1m]))",
            "ttft_mean",
            60,
        ),
        ("avg by (namespace) (gpu_utilization)", "gpu_utilization", None),
        ("avg(DCGM_FI_DEV_GPU_UTIL{exported_pod=~'chat.*'}) / 100", "gpu_utilization", None),
        ("avg(sum by (pod) (rate(vllm:request_success_total[1m])))", "rps", 60),
        ("sum(inference_extension_flow_control_queue_size{inference_pool='chat'})", "queued", None),
        ("avg(triton:queue_compute:ratio)", "queue_compute_ratio", 60),
        ("max(tiphys:queue_compute_ratio:rate90s{service='chat'})", "queue_compute_ratio", 90),
        (
            "histogram_quantile(0.99, sum(increase(time_to_first_token_seconds_bucket[1h30m])) by (le))",
            "ttft_p99",
            5400,
        ),
        (
            "histogram_quantile(0.95, sum by (le) (rate(nv_inference_first_response_histogram_ms_bucket[1m]))) / 1000",
            "ttft_p95",
            60,
        ),
    ],
)
def test_queries_of_the_field_are_signals(query, signal, window_s):
    trigger = read(scaled_object(query)).triggers[0]
    assert (trigger.signal, trigger.window_s) == (signal, window_s)


@pytest.mark.parametrize(
    "query",
    [
        "avg(up)",
        "max(vllm:num_requests_waiting)",
        "avg(vllm:num_requests_waiting[1m])",
        "avg(vllm:num_requests_waiting) / 2",
        "avg(vllm:num_requests_waiting) or vector(0)",
        'avg(nv_trt_llm_request_metrics{request_type="max"})',
        "histogram_quantile(0.8, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[1m])))",
        "histogram_quantile(0.9, sum by (pod) (rate(vllm:time_to_first_token_seconds_bucket[1m])))",
        "histogram_quantile(0.9, sum by (le) (rate(vllm:request_queue_time_seconds_bucket[1m])))",
        "sum(rate(vllm:e2e_request_latency_seconds_sum[1m])) / sum(rate(vllm:e2e_request_latency_seconds_count[2m]))",
        "sum(rate(vllm:e2e_request_latency_seconds_sum[1m])) / sum(rate(vllm:time_to_first_token_seconds_count[1m]))",
        "sum(increase(vllm:request_success_total[1m]))",
        "avg(rate(vllm:request_success_total[1m]))",
        "sum(vllm:num_requests_running) - sum(vllm:num_requests_waiting)",
        "avg(DCGM_FI_DEV_GPU_UTIL)",
        "histogram_quantile(0.9, sum by (le) (rate(nv_inference_first_response_histogram_ms_bucket[1m])))",
        "histogram_quantile(0.9, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[1m]))",
        "avg(“vllm:num_requests_waiting”)",
    ],
)
def test_a_query_that_means_something_else_is_refused_with_the_known_signals(query):
    message = refused(scaled_object(query))
    assert "spec.triggers.0.metadata.query: no signal is known by this query" in message
    assert "ttft_p90" in message and "running" in message


def test_a_query_of_one_series_a_pod_is_refused_with_its_remedy():
    assert "wrap it in sum()" in refused(scaled_object("vllm:num_requests_waiting"))


def test_a_sum_under_value_in_a_query_is_refused():
    assert "Value wants the avg over pods" in refused(scaled_object("sum(vllm:num_requests_waiting)"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("pollingInterval", "poolingInterval", "did you mean 'pollingInterval'?"),
        ('threshold: "2"', "threshold: 2", "spec.triggers.0.metadata.threshold: Input should be a valid string"),
        ('threshold: "2"', 'treshold: "2"', "spec.triggers.0.metadata.treshold: unknown key"),
        ('threshold: "2"', 'threshold: "two"', "spec.triggers.0.metadata.threshold: is not a decimal number"),
        ('threshold: "2"', 'threshold: "0"', "spec.triggers.0"),
        ("type: prometheus", "type: promotheus", "unknown type of trigger 'promotheus', did you mean 'prometheus'?"),
        ("namespace: serve}", 'namespace: serve, annotations: {autoscaling.keda.sh/paused: "true"}}', "is paused"),
        ("    metricType: Value\n", "    metricType: Values\n", "spec.triggers.0.metricType"),
        ("  minReplicaCount: 1", "  minReplicaCount: 1\n  idleReplicaCount: 1", "idle_replicas 1 must be below"),
        ("  minReplicaCount: 1", "  minReplicaCount: 1\n  cooldown: 1", "spec.cooldown: unknown key"),
        (
            "    horizontalPodAutoscalerConfig:\n      behavior:\n        scaleDown",
            "    behavior:\n      scaleDown",
            "misplaced key 'behavior'",
        ),
    ],
)
def test_faults_of_scaled_objects_are_errors_that_name_the_place(old, new, expected):
    text = scaled_object()
    assert old in text
    assert expected in refused(text.replace(old, new))
