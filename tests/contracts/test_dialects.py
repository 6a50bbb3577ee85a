"""What every dialect and every backend owes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from pydantic import TypeAdapter

from tiphys.backends import AnyBackend
from tiphys.dialects import DIALECTS, NIM, TRITON, TRITON_LLMAPI, TRTLLM_SERVE, VLLM, dialect_named
from tiphys.dialects.promql import Call, NotPromqlError, Number, Selector, read_promql
from tiphys.dialects.recognise import metric_name, recognise_name, recognise_query
from tiphys.domain.signals import Signal
from tiphys.errors import InputError

PODS = {"namespace": "serve", "service": "chat"}
LATENCIES = [signal for signal in Signal if not signal.is_level]
LEVELS = [signal for signal in Signal if signal.is_level]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
class TestEveryDialect:
    def test_its_bounds_are_finite_and_increase(self, dialect):
        bounds = dialect.ttft_bounds_s
        assert all(math.isfinite(bound) and bound > 0 for bound in bounds)
        assert all(a < b for a, b in pairwise(bounds))

    def test_it_shows_every_ttft_quantile(self, dialect):
        assert set(LATENCIES) <= set(dialect.signals)

    def test_each_query_is_recognised_as_what_it_was_made_for(self, dialect):
        for signal in dialect.signals:
            window_s = None if signal.is_level else 90
            for aggregation in ("sum", "avg"):
                query = dialect.query(signal, PODS, window_s=window_s, aggregation=aggregation)
                found = recognise_query(query, DIALECTS.values())
                assert (found.signal, found.window_s) == (signal, window_s)
                assert found.aggregation == (aggregation if signal.is_level else None)

    def test_each_query_is_of_the_selected_pods_alone(self, dialect):
        for signal in dialect.signals:
            query = dialect.query(signal, PODS, window_s=None if signal.is_level else 60)
            expression = read_promql(query)
            while not isinstance(expression, Selector):
                expression = expression.arguments[-1] if isinstance(expression, Call) else expression.left
            assert PODS.items() <= expression.labels.items()

    def test_what_it_does_not_show_is_an_error_that_lists_what_it_does(self, dialect):
        for signal in set(Signal) - set(dialect.signals):
            with pytest.raises(InputError, match=rf"{dialect.name} does not show.*'{signal}'.*ttft_p90"):
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


def test_label_values_are_escaped():
    assert VLLM.query(Signal.RUNNING, {"pod": 'a"b\\c'}) == 'sum(vllm:num_requests_running{pod="a\\"b\\\\c"})'


def test_a_latency_without_a_window_is_an_error():
    with pytest.raises(InputError, match="a latency needs a window"):
        VLLM.query(Signal.TTFT_P90, PODS)


def test_bounds_are_those_of_the_servers():
    assert NIM.ttft_bounds_s[-1] == 10 and len(NIM.ttft_bounds_s) == 16
    assert VLLM.ttft_bounds_s[-1] == 2560 and VLLM.ttft_bounds_s[:16] == NIM.ttft_bounds_s
    assert TRITON.ttft_bounds_s == TRITON_LLMAPI.ttft_bounds_s == (0.1, 0.5, 2.0, 5.0)


def test_an_unknown_dialect_lists_the_known():
    with pytest.raises(InputError, match=r"unknown dialect 'vlm', did you mean 'vllm'\?.*trtllm-serve"):
        dialect_named("vlm")


@pytest.mark.parametrize("signal", list(Signal))
def test_our_metric_names_say_everything(signal):
    for aggregation in ("sum", "avg"):
        name = metric_name(signal, None if signal.is_level else 75, aggregation)
        found = recognise_name(name, DIALECTS.values())
        assert (found.signal, found.window_s) == (signal, None if signal.is_level else 75)
        assert signal.is_level is (found.aggregation == aggregation)


@pytest.mark.parametrize("name", ["", "ttft", "ttft_p80", "p90", "running_max", "e2e_p90", "tiphys_", "cpu"])
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
