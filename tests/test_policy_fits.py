"""A policy that a pool cannot be governed by is refused with the reason; what would surprise is told."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.dialects import NIM, TRITON, TRITON_LLMAPI, VLLM, Dialect
from tiphys.domain.service import Envelope, Pool
from tiphys.domain.settings import ClusterSettings, HpaSettings
from tiphys.domain.signals import Signal
from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.policies import parse_policy
from tiphys.policies.fits import FLAT_MEMORY, LOST_AT_ZERO, PULLED, check_fits

BARE = Pool(profile="p", replicas=Envelope(min=0, max=8))
STREAM = {"kind": "jetstream", "stream": "work", "consumer": "engines", "in_flight": 4}
INTERCEPTED, ROUTED, STREAMED = (
    parse(Pool, BARE.document() | {"queue": queue}, "pool")
    for queue in ({"kind": "interceptor"}, {"kind": "router", "in_flight": 8}, STREAM)
)
POOLS = {"none": BARE, "interceptor": INTERCEPTED, "router": ROUTED, "jetstream": STREAMED}
PLAIN = ClusterSettings()
TO_ZERO = ClusterSettings(hpa=HpaSettings(scale_to_zero=True))
LAG = {"scaler": "nats-jetstream", "endpoint": "nats.nats:8222", "stream": "work", "consumer": "engines"}
RUNNING = {"scaler": "prometheus", "signal": "running", "threshold": 8}
QUEUED = {"scaler": "prometheus", "signal": "queued", "threshold": 8}


def hpa(signal: str = "running", low: int = 1, **metric: Any) -> Any:
    kind = "Utilization" if signal == "cpu" else "Value" if Signal(signal).has_window else "AverageValue"
    metrics = [{"signal": signal, "type": kind, "target": 2, **metric}]
    return parse_policy({"kind": "hpa", "replicas": {"min": low, "max": 8}, "metrics": metrics})


def keda(*triggers: dict[str, Any], low: int = 1, **members: Any) -> Any:
    return parse_policy({"kind": "keda", "replicas": {"min": low, "max": 8}, "triggers": list(triggers), **members})


def kpa(kind: str = "kpa") -> Any:
    metric = {"metric": {"source": "cpu", "target": 70}} if kind == "knative-hpa" else {}
    return parse_policy({"kind": kind, "replicas": {"min": 1, "max": 8}, **metric})


def refused(policy: Any, pool: Pool, settings: ClusterSettings = PLAIN, **known: Any) -> str:
    with pytest.raises(InputError) as caught:
        check_fits(policy, pool, settings, pool_name="llm", **known)
    assert "(pool llm)" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["kpa", "knative-hpa"])
@pytest.mark.parametrize("queue", ["interceptor", "router", "jetstream"])
def test_knative_queues_for_itself_alone(kind, queue):
    message = refused(kpa(kind), POOLS[queue])
    assert (
        "kind: a Knative service has its own activator" in message and f"{kind} on a pool with queue {queue}" in message
    )
    assert check_fits(kpa(kind), BARE, PLAIN) == ()


@pytest.mark.parametrize("queue", ["none", "interceptor", "router"])
def test_there_is_no_lag_without_a_stream(queue):
    assert "triggers.1: this pool is not fed by a JetStream" in refused(keda(RUNNING, LAG), POOLS[queue])
    assert check_fits(keda(RUNNING, LAG), STREAMED, PLAIN) == ()


@pytest.mark.parametrize("member", ["stream", "consumer"])
def test_a_trigger_looks_at_the_stream_that_feeds_the_pool(member):
    wanted = LAG[member]
    message = refused(keda(LAG | {member: "other"}), STREAMED)
    assert f"triggers.0.{member}: this pool is fed by another {member}" in message
    assert f"found 'other'; allowed: {wanted}" in message


def test_queued_needs_a_queue_that_prometheus_knows():
    for policy in (hpa("queued", source="external"), keda(QUEUED)):
        assert "nothing before the replicas of this pool queues" in refused(policy, BARE)
        assert "no series of Prometheus" in refused(policy, STREAMED)
        assert check_fits(policy, INTERCEPTED, PLAIN) == check_fits(policy, ROUTED, PLAIN) == ()


def test_an_hpa_goes_to_zero_only_where_the_cluster_lets_it():
    policy = hpa("queued", low=0, source="external")
    assert "replicas.min: this cluster's HPA does not scale to zero" in refused(policy, ROUTED)
    assert check_fits(policy, ROUTED, TO_ZERO) == ()


@pytest.mark.parametrize(
    "signal", [each for each in Signal if each not in (Signal.QUEUED, Signal.STREAM_LAG, Signal.CPU)]
)
def test_an_hpa_whose_metrics_go_with_the_pods_never_leaves_zero(signal):
    message = refused(hpa(signal, low=0), ROUTED, TO_ZERO)
    assert "replicas.min: without pods there is none of these, so the pool would never leave zero" in message
    assert f"found '{signal}'" in message
    assert check_fits(hpa(signal), ROUTED, TO_ZERO) is not None


@pytest.mark.parametrize("members", [{"low": 0}, {"low": 2, "idle_replicas": 0}])
def test_keda_needs_a_trigger_that_is_awake_at_zero(members):
    assert "the pool would never leave zero" in refused(keda(RUNNING, **members), ROUTED)
    assert check_fits(keda(RUNNING, QUEUED, **members), ROUTED, PLAIN) == ()
    assert check_fits(keda(LAG, **members), STREAMED, PLAIN) == ()
    assert check_fits(keda(RUNNING, low=2, idle_replicas=1), ROUTED, PLAIN) == ()


@pytest.mark.parametrize(
    ("trigger", "fallback", "leaves"),
    [
        ({"ignore_null": False}, {"replicas": 2}, True),
        ({"ignore_null": False}, {"replicas": 2, "behavior": "currentReplicasIfHigher"}, True),
        ({"ignore_null": True}, {"replicas": 2}, False),
        ({"ignore_null": False}, {"replicas": 0}, False),
    ],
)
def test_a_fallback_brings_a_pool_back_whose_trigger_fails_without_pods(trigger, fallback, leaves):
    policy = keda(RUNNING | trigger, low=0, fallback={"failure_threshold": 3, **fallback})
    if leaves:
        assert check_fits(policy, ROUTED, PLAIN) == ()
    else:
        assert "never leave zero" in refused(policy, ROUTED)


@pytest.mark.parametrize("router", ["round_robin", "random", "connection_random"])
def test_a_queue_in_the_router_wants_the_router_that_knows_the_load(router):
    message = refused(hpa(), ROUTED, router=router)
    assert "queue.kind" in message and "allowed: router least_outstanding" in message
    assert check_fits(hpa(), ROUTED, PLAIN, router="least_outstanding") == ()
    assert check_fits(hpa(), STREAMED, PLAIN, router=router) == (PULLED,)


@pytest.mark.parametrize("signal", ["itl_p90", "itl_mean"])
def test_encoders_have_no_gaps_between_tokens(signal):
    assert "metrics.0.signal: an encoder generates no tokens" in refused(hpa(signal), BARE, is_encoder=True)
    assert check_fits(hpa(signal), BARE, PLAIN) == check_fits(hpa("ttft_p90"), BARE, PLAIN, is_encoder=True) == ()


@pytest.mark.parametrize(
    ("dialect", "signal", "reason"),
    [
        (TRITON, "itl_p90", "Triton does not measure the gaps"),
        (TRITON_LLMAPI, "kv_usage", "registers no gauges"),
        (NIM, "queue_compute_ratio", "do not count the time"),
        (VLLM, "pending", "Triton's own count"),
    ],
)
def test_signals_that_the_servers_do_not_show_are_refused_before_anything_is_played(dialect: Dialect, signal, reason):
    message = refused(hpa(signal), BARE, dialect=dialect)
    assert "metrics.0.signal" in message and reason in message
    assert check_fits(hpa(signal), BARE, PLAIN) == ()


def test_what_prometheus_is_not_asked_for_fits_every_dialect():
    for dialect in (VLLM, TRITON_LLMAPI):
        assert check_fits(hpa("cpu"), BARE, PLAIN, dialect) == check_fits(keda(LAG), STREAMED, PLAIN, dialect) == ()


@pytest.mark.parametrize("queue", list(POOLS))
def test_requests_that_nothing_holds_at_zero_are_lost_and_that_is_told(queue):
    told = (LOST_AT_ZERO,) if queue == "none" else ()
    policies = [parse_policy({"kind": "fixed", "replicas": 0})]
    if queue == "none":
        fallback = {"failure_threshold": 3, "replicas": 2}
        policies.append(keda(RUNNING | {"ignore_null": False}, low=0, fallback=fallback))
    for policy in policies:
        assert check_fits(policy, POOLS[queue], PLAIN) == told
    assert check_fits(parse_policy({"kind": "fixed", "replicas": 1}), POOLS[queue], PLAIN) == ()
    assert LOST_AT_ZERO not in check_fits(parse_policy({"kind": "kpa", "replicas": {"max": 4}}), BARE, PLAIN)


def test_a_memory_that_never_moves_is_told():
    assert check_fits(hpa("gpu_memory"), BARE, PLAIN) == (FLAT_MEMORY,)
    assert check_fits(hpa("gpu_utilization"), BARE, PLAIN) == ()
