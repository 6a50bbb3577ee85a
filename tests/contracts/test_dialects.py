"""What every dialect and every backend owes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import TypeAdapter

from tiphys.backends import AnyBackend
from tiphys.dialects import DIALECTS, DYNAMO, NIM, TRITON, TRITON_LLMAPI, TRTLLM_SERVE, VLLM, dialect_named
from tiphys.dialects.promql import Binary, Call, Expression, NotPromqlError, Number, Selector, read_promql
from tiphys.dialects.recognise import is_aggregated, metric_name, recognise_name, recognise_query
from tiphys.domain.signals import Signal
from tiphys.errors import InputError

PODS = {"namespace": "serve", "service": "chat"}
EVERYWHERE = {Signal.TTFT_P50, Signal.TTFT_P90, Signal.TTFT_P95, Signal.TTFT_P99, Signal.TTFT_MEAN, Signal.RPS} | {
    Signal.QUEUED,
    Signal.GPU_UTILIZATION,
    Signal.GPU_MEMORY,
}
NOWHERE = {Signal.STREAM_LAG, Signal.CPU}


def window_of(signal: Signal) -> int | None:
    return 90 if signal.has_window else None


def selectors(expression: Expression) -> list[Selector]:
    if isinstance(expression, Selector):
        return [expression]
    if isinstance(expression, Call):
        return [each for argument in expression.arguments for each in selectors(argument)]
    return selectors(expression.left) + selectors(expression.right) if isinstance(expression, Binary) else []


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
class TestEveryDialect:
    def test_its_bounds_are_finite_and_increase(self, dialect):
        for latency in ("ttft", "itl", "e2e"):
            bounds = dialect.bounds_s(latency)
            assert all(math.isfinite(bound) and bound > 0 for bound in bounds)
            assert all(a < b for a, b in pairwise(bounds))
        assert dialect.ttft_bounds_s == dialect.bounds_s("ttft") != ()

    def test_a_latency_has_quantiles_exactly_where_it_has_bounds(self, dialect):
        for signal in Signal:
            if signal.latency is not None and signal.quantile is not None:
                assert (signal in dialect.signals) == bool(dialect.bounds_s(signal.latency))

    def test_it_shows_what_every_server_does_and_nothing_that_prometheus_is_not_asked_for(self, dialect):
        assert set(dialect.signals) >= EVERYWHERE
        assert not NOWHERE & set(dialect.signals)

    def test_each_query_is_recognised_as_what_it_was_made_for(self, dialect):
        for signal in dialect.signals:
            for aggregation in ("sum", "avg"):
                query = dialect.query(signal, PODS, window_s=window_of(signal), aggregation=aggregation)
                found = recognise_query(query, DIALECTS.values())
                assert (found.signal, found.window_s) == (signal, window_of(signal))
                assert found.aggregation == (aggregation if is_aggregated(signal) else None)

    def test_each_query_is_of_the_selected_pods_alone(self, dialect):
        for signal in dialect.signals:
            query = dialect.query(signal, PODS, window_s=window_of(signal))
            for selector in selectors(read_promql(query)):
                namespaces = {selector.labels.get("namespace"), selector.labels.get("exported_namespace")}
                assert "serve" in namespaces and ('"chat"' in query or '"chat-.*"' in query)

    def test_what_a_query_reads_that_a_rule_records_is_recorded_by_its_rules(self, dialect):
        for signal in dialect.signals:
            rules = dialect.recording_rules(signal, PODS, window_s=window_of(signal))
            read = {
                each.name for each in selectors(read_promql(dialect.query(signal, PODS, window_s=window_of(signal))))
            }
            assert {name for name in read if name.startswith("tiphys:")} == {rule.record for rule in rules}
            for rule in rules:
                assert rule.labels == PODS and signal is Signal.QUEUE_COMPUTE_RATIO
                assert {each.range_s for each in selectors(read_promql(rule.expression))} == {90.0}

    def test_what_it_does_not_show_is_an_error_that_says_why_and_lists_what_it_does(self, dialect):
        for signal in set(Signal) - set(dialect.signals):
            with pytest.raises(InputError, match=rf"{dialect.name} does not show this signal: .*'{signal}'.*ttft_p90"):
                dialect.query(signal, PODS)

    def test_what_has_a_window_cannot_be_asked_for_without_one(self, dialect):
        for signal in dialect.signals:
            if signal.has_window:
                with pytest.raises(InputError, match="needs a window"):
                    dialect.query(signal, PODS)

    def test_it_is_known_by_its_name(self, dialect):
        assert dialect_named(dialect.name) is dialect


def test_queries_are_what_one_would_write_by_hand():
    assert VLLM.query(Signal.TTFT_P90, PODS, window_s=60) == (
        "histogram_quantile(0.9, sum by (le) (rate("
        'vllm:time_to_first_token_seconds_bucket{namespace="serve", service="chat"}[1m])))'
    )
    assert NIM.query(Signal.KV_USAGE, {}, aggregation="avg") == "avg(gpu_cache_usage_perc)"
    assert TRTLLM_SERVE.query(Signal.WAITING, {}) == "sum(trtllm_num_requests_waiting)"
    assert TRITON.query(Signal.RUNNING, PODS) == (
        'sum(nv_trt_llm_request_metrics{request_type="active", namespace="serve", service="chat"})'
    )
    assert TRITON.query(Signal.TTFT_P99, {}, window_s=45) == (
        "histogram_quantile(0.99, sum by (le) (rate("
        'nv_inference_first_response_histogram_ms_bucket{model="ensemble"}[45s]))) / 1000'
    )
    assert TRTLLM_SERVE.query(Signal.E2E_MEAN, {}, window_s=60) == (
        "sum(rate(trtllm_e2e_request_latency_seconds_sum[1m])) / "
        "sum(rate(trtllm_e2e_request_latency_seconds_count[1m]))"
    )
    assert TRITON.query(Signal.E2E_MEAN, {}, window_s=60) == (
        'sum(rate(nv_inference_request_duration_us{model="ensemble"}[1m])) / '
        'sum(rate(nv_inference_request_success{model="ensemble"}[1m])) / 1000000'
    )
    assert VLLM.query(Signal.CONCURRENCY, {}) == "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)"
    assert NIM.query(Signal.RPS, {}, window_s=60, aggregation="avg") == (
        "avg(sum by (pod) (rate(request_success_total[1m])))"
    )
    assert DYNAMO.query(Signal.ITL_P95, {"namespace": "serve"}, window_s=120) == (
        "histogram_quantile(0.95, sum by (le) (rate("
        'dynamo_frontend_inter_token_latency_seconds_bucket{namespace="serve"}[2m])))'
    )


def test_what_others_export_is_selected_by_the_labels_that_they_give_it():
    assert VLLM.query(Signal.GPU_UTILIZATION, PODS, aggregation="avg") == (
        'avg(DCGM_FI_DEV_GPU_UTIL{exported_namespace="serve", exported_pod=~"chat-.*"}) / 100'
    )
    assert NIM.query(Signal.QUEUED, PODS, aggregation="avg") == (
        'sum(llm_d_epp_flow_control_queue_size{namespace="serve", inference_pool="chat"})'
    )


def test_a_pod_of_several_gpus_counts_once_in_a_sum():
    assert TRITON.query(Signal.GPU_UTILIZATION, {}) == "sum(avg by (pod) (nv_gpu_utilization))"
    assert TRITON.query(Signal.GPU_MEMORY, {}) == (
        "sum(avg by (pod) (nv_gpu_memory_used_bytes / nv_gpu_memory_total_bytes))"
    )


def test_the_ratio_of_triton_is_recorded_for_one_model():
    (rule,) = TRITON.recording_rules(Signal.QUEUE_COMPUTE_RATIO, {"service": "chat"}, window_s=60)
    assert rule.record == "tiphys:queue_compute_ratio:rate1m"
    assert rule.expression == (
        'sum(rate(nv_inference_queue_duration_us{model="tensorrt_llm", service="chat"}[1m])) / '
        'sum(rate(nv_inference_compute_infer_duration_us{model="tensorrt_llm", service="chat"}[1m]))'
    )
    (rule,) = TRITON.recording_rules(Signal.QUEUE_COMPUTE_RATIO, {}, window_s=90, each_pod=True)
    assert rule.record == "tiphys:queue_compute_ratio_by_pod:rate90s" and rule.expression.startswith("sum by (pod) (")
    assert VLLM.recording_rules(Signal.RUNNING, {}, window_s=None) == ()


@pytest.mark.parametrize(
    ("dialect", "signal", "reason"),
    [
        (TRITON, Signal.ITL_P90, "Triton does not measure the gaps between tokens"),
        (TRITON, Signal.E2E_P90, "summaries cannot be put together over pods"),
        (TRITON_LLMAPI, Signal.QUEUE_COMPUTE_RATIO, "hands requests over at once"),
        (TRITON_LLMAPI, Signal.RUNNING, "registers no gauges"),
        (NIM, Signal.QUEUE_COMPUTE_RATIO, "do not count the time that requests wait"),
        (VLLM, Signal.PENDING, "Triton's own count"),
        (VLLM, Signal.STREAM_LAG, "nats-jetstream trigger"),
        (DYNAMO, Signal.CPU, "metrics-server"),
    ],
)
def test_what_is_absent_is_absent_for_a_reason(dialect, signal, reason):
    with pytest.raises(InputError, match=reason):
        dialect.measure(signal)


def test_label_values_are_escaped():
    assert VLLM.query(Signal.RUNNING, {"pod": 'a"b\\c'}) == 'sum(vllm:num_requests_running{pod="a\\"b\\\\c"})'


def test_a_latency_without_a_window_is_an_error():
    with pytest.raises(InputError, match="a latency or a rate needs a window"):
        VLLM.query(Signal.TTFT_P90, PODS)


def test_bounds_are_those_of_the_servers():
    assert NIM.ttft_bounds_s[-1] == 10 and len(NIM.ttft_bounds_s) == 16
    assert VLLM.ttft_bounds_s[-1] == 2560 and VLLM.ttft_bounds_s[:16] == NIM.ttft_bounds_s
    assert TRITON.ttft_bounds_s == TRITON_LLMAPI.ttft_bounds_s == (0.1, 0.5, 2.0, 5.0)
    assert VLLM.bounds_s("itl")[:3] == (0.01, 0.025, 0.05) and VLLM.bounds_s("itl")[-1] == 80
    assert VLLM.bounds_s("e2e") == TRTLLM_SERVE.bounds_s("e2e") and VLLM.bounds_s("e2e")[-1] == 7680
    assert TRITON.bounds_s("itl") == () and DYNAMO.bounds_s("itl")[-1] == 2


def test_a_dialect_says_whether_it_times_gaps_or_requests():
    assert VLLM.histograms["itl"].observed == "token"
    assert TRTLLM_SERVE.histograms["itl"].observed == "request"


def test_an_unknown_dialect_lists_the_known():
    with pytest.raises(InputError, match=r"unknown dialect 'vlm', did you mean 'vllm'\?.*trtllm-serve"):
        dialect_named("vlm")


@pytest.mark.parametrize("signal", sorted(set(Signal) - NOWHERE))
def test_our_metric_names_say_everything(signal):
    for aggregation in ("sum", "avg"):
        name = metric_name(signal, window_of(signal), aggregation)
        found = recognise_name(name, DIALECTS.values())
        assert (found.signal, found.window_s) == (signal, window_of(signal))
        assert found.aggregation == (aggregation if is_aggregated(signal) else None)


def test_a_recorded_ratio_of_others_is_known_by_its_name():
    for known in (
        recognise_name("triton:queue_compute:ratio", []),
        recognise_query("avg(triton:queue_compute:ratio)", []),
    ):
        assert (known.signal, known.window_s) == (Signal.QUEUE_COMPUTE_RATIO, None)


def test_a_percentage_is_refused_with_its_remedy():
    with pytest.raises(InputError, match=r"in percent.*/ 100 is gpu_utilization"):
        recognise_query("avg(DCGM_FI_DEV_GPU_UTIL)", DIALECTS.values())
    with pytest.raises(InputError, match="is in percent"):
        recognise_name("DCGM_FI_DEV_GPU_UTIL", DIALECTS.values())


@pytest.mark.parametrize(
    "name",
    [
        *("", "ttft", "ttft_p80", "p90", "running_max", "running_60s", "e2e_p80", "e2e_p90_60s_sum", "rps", "rps_sum"),
        *("queued_avg", "tiphys_", "cpu", "stream_lag", "tiphys_cpu_sum"),
    ],
)
def test_other_metric_names_are_no_signal(name):
    with pytest.raises(InputError, match="no signal is known by this metric name"):
        recognise_name(name, DIALECTS.values())


def test_promql_is_read_into_calls_selectors_and_numbers():
    assert read_promql('sum by (a, b) (x:y{c="d", e=~"f"}[1h5m])') == Call(
        "sum", (Selector("x:y", {"c": "d"}, 3900.0),), ("a", "b")
    )
    assert read_promql("quantile(.5, up)") == Call("quantile", (Number(0.5), Selector("up", {})))


@pytest.mark.parametrize("text", ["", "sum(", "sum(a", "a b", "a{b}", "a{b=c", "a[5x]", "a[", "1 +", "(a", "a)"])
def test_what_is_not_promql_is_an_error(text):
    with pytest.raises(NotPromqlError):
        read_promql(text)


BACKENDS = [
    ({"kind": "vllm"}, VLLM, "vllm", "Deployment"),
    ({"kind": "nim"}, VLLM, "vllm", "Deployment"),
    ({"kind": "nim", "release": "1", "engine": "trtllm"}, NIM, "trtllm_no_evict", "Deployment"),
    ({"kind": "triton"}, TRITON_LLMAPI, "trtllm_no_evict", "Deployment"),
    ({"kind": "triton", "engine_mode": "trt-engine"}, TRITON, "trtllm_no_evict", "Deployment"),
    ({"kind": "dynamo"}, VLLM, "vllm", "DynamoGraphDeploymentScalingAdapter"),
    ({"kind": "dynamo", "framework": "trtllm"}, TRTLLM_SERVE, "trtllm_no_evict", "DynamoGraphDeploymentScalingAdapter"),
]


@pytest.mark.parametrize(("document", "dialect", "admission", "kind"), BACKENDS)
def test_a_backend_says_dialect_admission_and_target(document, dialect, admission, kind):
    backend = TypeAdapter(AnyBackend).validate_python(document)
    assert (backend.dialect, backend.admission) == (dialect, admission)
    target = backend.target("chat")
    assert (target.kind, target.name) == (kind, "chat")
