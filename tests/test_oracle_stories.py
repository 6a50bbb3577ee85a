"""Stories of the second implementation worked out by hand: routes, KV transfers, queues, users, nodes, faults, zero.

A step takes 1 s unless said otherwise, whatever is in it; a cold start takes 10 s.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle.clock import INFINITY, Order
from tests.oracle.promql import rate
from tests.oracle.small import calm_settings, flat_pool, small_world
from tests.oracle.world import Account, World
from tiphys.domain.faults import (
    ConsumerMissing,
    MetricsApiError,
    NodeGone,
    PrometheusDown,
    ReplicaCrash,
    ScrapesFail,
    SlowReplica,
    SpotReclaim,
    StaleLag,
)
from tiphys.domain.nodes import Nodes, Offline, Tier
from tiphys.domain.route import GraphRoute, Hop, KvTransfer, PdRoute, RagRoute, Tokens
from tiphys.domain.users import Level, Users

FIXED_0 = {"kind": "fixed", "replicas": 0}


def about(*times_s: float) -> Any:
    return pytest.approx(list(times_s), abs=1e-6)


def finishes(account: Account) -> list[float]:
    return [request.finish_s for request in account.requests]


def firsts(account: Account) -> list[float]:
    return [request.first_token_s for request in account.requests]


def fixed(replicas: int) -> dict[str, Any]:
    return {"kind": "fixed", "replicas": replicas}


# --- routes


def test_a_rag_query_passes_embedder_search_reranker_and_llm() -> None:
    # Arrives 0.5; embed one step of 0.1: 0.6; search 0.05: 0.65; rerank one step of 0.2: 0.85; llm steps of 1 s: first
    # token 1.85, third 3.85.
    route = RagRoute(kind="rag", search_s=0.05, vdb_top_k=3, reranker_top_k=2, chunk_tokens=10, template_tokens=7)
    pools = {"embed": flat_pool(0.1), "rerank": flat_pool(0.2), "llm": flat_pool()}
    account = small_world([(0.5, 5, 3)], pools, classes=route.classes()).run()
    assert firsts(account) == about(1.85)
    assert finishes(account) == about(3.85)
    tokens = {
        name: [(job.input_tokens, job.output_tokens) for job in pool.jobs] for name, pool in account.pools.items()
    }
    assert tokens == {"embed": [(5, 1)], "rerank": [(3 * (5 + 10), 1)], "llm": [(5 + 2 * 10 + 7, 3)]}


def test_ingest_only_embeds() -> None:
    route = RagRoute(kind="rag", chunk_tokens=10)
    pools = {"embed": flat_pool(0.1), "rerank": flat_pool(), "llm": flat_pool()}
    account = small_world([(0.0, 95, 9)], pools, classes=route.classes(), class_of=[1]).run()
    assert finishes(account) == about(0.1)
    assert not account.pools["llm"].jobs


def test_a_hop_that_joins_begins_after_the_last_of_those_before_it() -> None:
    # a 0 to 1; left begins 1.5, one step: 2.5; right begins 1, two tokens: 2, 3; both begins at 3 (+0.25): first token
    # 4.25, second 5.25. The user's first token is that of right: 2.
    hops = (
        Hop(name="a", pool="a", output=Tokens(fixed=1)),
        Hop(name="left", pool="b", after=("a",), delay_s=0.5, output=Tokens(fixed=1)),
        Hop(name="right", pool="c", after=("a",), output=Tokens(fixed=2), answers=True),
        Hop(name="both", pool="a", after=("left", "right"), delay_s=0.25),
    )
    classes = GraphRoute(kind="graph", hops={"q": hops}).classes()
    account = small_world([(0.0, 5, 2)], {name: flat_pool() for name in "abc"}, classes=classes).run()
    assert firsts(account) == about(2.0)
    assert finishes(account) == about(5.25)


def test_after_a_failed_hop_none_begins_while_the_others_go_on() -> None:
    # The pool of left has no replica: the request fails at 1.5. Right goes on until 6, and both never begins.
    hops = (
        Hop(name="a", pool="a", output=Tokens(fixed=1)),
        Hop(name="left", pool="b", after=("a",), delay_s=0.5),
        Hop(name="right", pool="c", after=("a",), output=Tokens(fixed=5)),
        Hop(name="both", pool="a", after=("left", "right")),
    )
    classes = GraphRoute(kind="graph", hops={"q": hops}).classes()
    pools = {name: flat_pool() for name in "abc"}
    policies = {"b": FIXED_0}
    account = small_world([(0.0, 5, 2)], pools, classes=classes, policies=policies, start_replicas={"b": 0}).run()
    assert account.requests[0].failed
    assert account.requests[0].finish_s == INFINITY
    assert [job.finish_s for job in account.pools["c"].jobs] == about(6.0)
    assert len(account.pools["a"].jobs) == 1


# --- prefill and decode apart


def pd(latency_s: float = 2.0) -> dict[str, tuple[Hop, ...]]:
    return PdRoute(kind="pd", transfer=KvTransfer(latency_s=latency_s)).classes()


def test_prompts_wait_on_the_prefill_replica_while_the_kv_of_decode_is_full() -> None:
    # Prompts of 6. Prefill has room for 12, decode for 9, a transfer takes 2 s.
    #   0  A's step begins, at once and alone.    1  A is prefilled, is admitted by decode, fetches until 3; B's step.
    #   2  B is prefilled: 12 held, C must wait. Decode has 6 + 6 > 9: B waits there.
    #   3  A's cache is there: its first token; its room on the prefill replica is free, C's step. A decodes: 4, 5.
    #   5  B is admitted, fetches until 7: its first token; decodes until 9.
    #   9  C, prefilled at 4, fetches until 11, ends 13.
    pools = {"prefill": flat_pool(kv_capacity_tokens=12), "decode": flat_pool(kv_capacity_tokens=9)}
    world = small_world([(0.0, 6, 3)] * 3, pools, classes=pd())
    account = world.run()
    assert [job.finish_s for job in account.pools["prefill"].jobs] == about(1, 2, 4)
    assert firsts(account) == about(3, 7, 11)
    assert finishes(account) == about(5, 9, 13)
    assert [job.admitted_s for job in account.pools["decode"].jobs] == about(1, 5, 9)
    assert account.pools["prefill"].pods[0].kv_peak_tokens == 12


def test_a_prompt_whose_prefill_replica_crashed_is_prefilled_by_decode() -> None:
    # Prefilled at 1, fetched until 6 in vain: the replica crashes at 3. At 6 decode prefills: first token 7, third 9.
    pools = {"prefill": flat_pool(), "decode": flat_pool()}
    crash = ReplicaCrash(kind="replica_crash", at_s=3.0, pool="prefill")
    account = small_world([(0.0, 6, 3)], pools, classes=pd(5.0), faults=(crash,)).run()
    assert firsts(account) == about(7)
    assert finishes(account) == about(9)
    assert account.pools["decode"].prefilled_tokens == 6


def test_a_transfer_is_preempted_by_what_decodes_and_then_prefilled_anew() -> None:
    # Decode has room for 14. A (6 tokens) arrives there at 2 and decodes; B (6), prefilled at 2.5, is admitted at 3,
    # A having 8 cached, and fetches until a little after the step that ends at 4 (6 bytes at 25 GB/s, twice).
    #   4  A has 9 cached: 15 > 14. B, the youngest, is set back, its cache given up on the prefill side.
    #   7  A ends. B is prefilled: first token 8, sixth 13.
    pools = {"prefill": flat_pool(), "decode": flat_pool(kv_capacity_tokens=14)}
    world = small_world([(0.0, 6, 6), (1.5, 6, 6)], pools, classes=pd(1.0))
    held: list[int] = []
    for time_s in (3.5, 4.5):
        world.clock.call(
            time_s,
            Order.FLEET,
            0,
            lambda: held.append(sum(h.kv_tokens for h in world.pools["prefill"].pods[0].batch.held)),
        )
    account = world.run()
    assert held == [6, 0]
    assert [job.preemptions for job in account.pools["decode"].jobs] == [0, 1]
    assert account.pools["decode"].prefilled_tokens == 6
    assert firsts(account) == about(2, 8)
    assert finishes(account) == about(7, 13)


def test_a_transfer_needs_no_token_budget() -> None:
    # A plain prompt of 20 takes all 4 tokens of decode's steps. The other one, prefilled at 1 and so at decode when the
    # step of 1 has begun, is admitted at 2 and is there at 2.5: its one step, from 3, takes a token of the budget, so
    # that the prompt has 4 + 4 + 4 + 3 + 4 + 1.
    prefill, decode = PdRoute(kind="pd", transfer=KvTransfer(latency_s=0.5)).classes()["query"]
    hops = {"fetched": (prefill, decode), "plain": (Hop(name="plain", pool="decode"),)}
    pools = {"prefill": flat_pool(), "decode": flat_pool(max_batched_tokens=4)}
    classes = GraphRoute(kind="graph", hops=hops).classes()
    account = small_world([(0.0, 20, 2), (0.0, 6, 2)], pools, classes=classes, class_of=[1, 0]).run()
    assert firsts(account) == about(6, 2.5)


def test_a_plain_prompt_without_budget_blocks_the_transfers_behind_it() -> None:
    # As above with a second plain prompt, which comes at 0.5: it is first in the queue and gets tokens from 5 on only.
    prefill, decode = PdRoute(kind="pd", transfer=KvTransfer(latency_s=0.5)).classes()["query"]
    hops = {"fetched": (prefill, decode), "plain": (Hop(name="plain", pool="decode"),)}
    pools = {"prefill": flat_pool(), "decode": flat_pool(max_batched_tokens=4)}
    classes = GraphRoute(kind="graph", hops=hops).classes()
    requests = [(0.0, 20, 2), (0.1, 6, 2), (0.5, 4, 2)]
    jobs = small_world(requests, pools, classes=classes, class_of=[1, 0, 1]).run().pools["decode"].jobs
    assert [job.admitted_s for job in jobs] == about(0, 5, 5)


def test_a_prefill_replica_drains_until_its_last_cache_has_been_fetched() -> None:
    # Prefilled at 1, fetched at 6; the replica is asked to go at 2.
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 1}, {"at_s": 2, "replicas": 0}],
    }  # fmt: skip
    pools = {"prefill": flat_pool(), "decode": flat_pool()}
    account = small_world([(0.0, 6, 3)], pools, classes=pd(5.0), policies={"prefill": schedule}).run()
    pod = account.pools["prefill"].pods[0]
    assert [pod.removed_s, pod.gone_s] == about(2, 6)
    assert firsts(account) == about(6)


# --- queues


def sampled(world: World, times_s: list[float]) -> list[int]:
    """The lag as the monitoring endpoint tells it, after everything else at those instants."""
    lags: list[int] = []
    for time_s in times_s:
        world.clock.call(time_s, Order.FLEET, 0, lambda: lags.append(world.faults.answered_lag("llm", world.clock.now)))
    world.run()
    return lags


STREAM = {
    "kind": "jetstream", "stream": "work", "consumer": "engines", "in_flight": 2, "ack_wait_s": 10.0,
}  # fmt: skip


def test_what_a_crashed_replica_held_is_delivered_again_and_counts_all_the_while() -> None:
    # m0 and m1 are taken, m2 waits. At 1.5 the replica crashes, ready again at 11.5 with m2 first (its cold start 10):
    # m2 first token 12.5. m0 and m1 come back at 1.5 + 10 = 11.5, after the replica is ready: lifecycle goes first. in
    # flight 2: m0 is taken at once, m1 when m2 has ended (4 tokens: 15.5), which is the boundary after: 16.5.
    crash = ReplicaCrash(kind="replica_crash", at_s=1.5, pool="llm")
    world = small_world([(0.0, 5, 4), (0.1, 5, 4), (0.2, 5, 4)], {"llm": flat_pool(queue=STREAM)}, faults=(crash,))
    assert sampled(world, [0.15, 0.3, 1.4, 1.6, 11.6, 15.6, 30.0]) == [2, 3, 3, 3, 3, 2, 0]
    jobs = world.pools["llm"].jobs
    assert [job.finish_s for job in jobs] == about(16.5, 20.5, 15.5)
    assert not any(job.failed for job in jobs)


def test_without_its_consumer_a_stream_delivers_nothing_and_keeps_everything() -> None:
    # The consumer is missing from 1 to 4: what came at 2 is delivered at 4.
    gone = ConsumerMissing(kind="consumer_missing", at_s=1.0, for_s=3.0, pool="llm")
    account = small_world([(2.0, 5, 1)], {"llm": flat_pool(queue=STREAM)}, faults=(gone,)).run()
    assert [job.delivered_s for job in account.pools["llm"].jobs] == about(4.0)
    assert finishes(account) == about(5.0)


def test_keda_cannot_ask_a_consumer_that_is_not_there() -> None:
    trigger = {"scaler": "nats-jetstream", "endpoint": "nats:8222", "stream": "work", "consumer": "engines"}
    policy = {"kind": "keda", "replicas": {"min": 0, "max": 3}, "triggers": [trigger], "polling_interval_s": 10}
    gone = ConsumerMissing(kind="consumer_missing", at_s=5.0, for_s=25.0, pool="llm")
    world = small_world([(2.0, 5, 100)], {"llm": flat_pool(queue=STREAM)}, policies={"llm": policy}, faults=(gone,))
    polls = world.run().pools["llm"].polls[:4]
    assert [(poll.time_s, poll.active, poll.error) for poll in polls] == [
        (7.0, False, True), (17.0, False, True), (27.0, False, True), (37.0, True, False),
    ]  # fmt: skip


def test_a_stale_answer_is_the_lag_at_its_beginning() -> None:
    stale = StaleLag(kind="stale_lag", at_s=1.0, for_s=3.0, pool="llm")
    world = small_world([(0.5, 5, 20), (2.0, 5, 20)], {"llm": flat_pool(queue=STREAM)}, faults=(stale,))
    assert sampled(world, [0.9, 2.5, 3.9, 4.0]) == [1, 1, 1, 2]


def test_no_more_messages_are_delivered_than_may_be_unacknowledged() -> None:
    # Two replicas could take two each; three may be on their way. The fourth is delivered when the first has ended.
    queue = STREAM | {"max_ack_pending": 3}
    world = small_world([(0.0, 5, 2)] * 4, {"llm": flat_pool(queue=queue)}, start_replicas={"llm": 2},
                        policies={"llm": fixed(2)})  # fmt: skip
    jobs = world.run().pools["llm"].jobs
    assert [job.delivered_s for job in jobs] == about(0, 0, 0, 2)


def test_an_interceptor_holds_requests_for_its_timeout() -> None:
    # The replica is ready at 10. The request of 1 has waited its 5 s at 6; that of 7 goes at 10.
    pool = flat_pool(queue={"kind": "interceptor", "timeout_s": 5.0})
    account = small_world([(1.0, 5, 1), (7.0, 5, 1)], {"llm": pool}, start_replicas={"llm": 0}).run()
    assert [request.failed for request in account.requests] == [True, False]
    assert finishes(account)[1] == pytest.approx(11.0)


def test_a_router_hands_the_head_of_its_queue_to_whoever_has_room() -> None:
    # One in flight. A 0 to 2, B waits and is pulled at 2, when the replica is idle: it begins at once, 2 to 3.
    pool = flat_pool(queue={"kind": "router", "in_flight": 1})
    account = small_world([(0.0, 5, 2), (0.5, 5, 1)], {"llm": pool}).run()
    assert [job.delivered_s for job in account.pools["llm"].jobs] == about(0, 2)
    assert finishes(account) == about(2, 3)


def test_a_pulled_job_is_admitted_at_the_boundary_after_the_step_that_began_before_it() -> None:
    # Two in flight. A (1 token) and B (3 tokens) at 0 and 0.5, C waits. A ends at 1: B's step begins, then C is pulled:
    # it is admitted at 2, ends at 3.
    pool = flat_pool(queue={"kind": "router", "in_flight": 2})
    account = small_world([(0.0, 5, 1), (0.5, 5, 3), (0.6, 5, 1)], {"llm": pool}).run()
    jobs = account.pools["llm"].jobs
    assert [job.delivered_s for job in jobs] == about(0, 0.5, 1)
    assert [job.admitted_s for job in jobs] == about(0, 1, 2)
    assert finishes(account) == about(1, 4, 3)


def test_without_a_queue_nobody_waits() -> None:
    account = small_world([(1.0, 5, 1)], {"llm": flat_pool()}, start_replicas={"llm": 0}).run()
    assert account.requests[0].failed


# --- users


def arrivals(account: Account) -> list[tuple[int, float]]:
    return [(request.user, round(request.arrival_s, 6)) for request in account.requests]


def test_users_ask_wait_think_and_ask_again() -> None:
    # Two users, the second half a second later; answers of one step; thinking 2 s.
    #   user 0 asks 0, answered 1, asks 3, answered 4, asks 6, ...
    #   user 1 asks 0.5, admitted 1, answered 2, asks 4: the step of user 0 ends then, so 4 to 5, asks 7.
    users = Users(levels=(Level(at_s=0, users=2),), think_s=2.0, ramp_s=1.0)
    world = small_world([(0.0, 5, 1)] * 20, {"llm": flat_pool()}, users=users, think_s=[2.0] * 20, until_s=7.5)
    account = world.run()
    assert arrivals(account) == [(0, 0.0), (1, 0.5), (0, 3.0), (1, 4.0), (0, 6.0), (1, 7.0)]
    assert finishes(account) == about(1, 2, 4, 5, 7, 8)


def test_users_leave_after_their_answer_and_come_back_with_a_later_level() -> None:
    # From 2.5 on one user is wanted: user 1, answered at 2, thinks until 3 and is then not wanted any more. At 6.5 he
    # comes again.
    users = Users(levels=(Level(at_s=0, users=2), Level(at_s=2.5, users=1), Level(at_s=6.5, users=2)), think_s=1.0)
    world = small_world([(0.0, 5, 1)] * 20, {"llm": flat_pool()}, users=users, think_s=[1.0] * 20, until_s=7.0)
    assert arrivals(world.run()) == [(0, 0.0), (1, 0.0), (0, 2.0), (0, 4.0), (0, 6.0), (1, 6.5)]


def test_a_user_who_is_not_wanted_when_answered_leaves_at_once() -> None:
    # User 1 is answered at 2, not wanted since 1.5: gone, and so asks anew when the level of 4 begins.
    users = Users(levels=(Level(at_s=0, users=2), Level(at_s=1.5, users=1), Level(at_s=4, users=2)), think_s=10.0)
    world = small_world([(0.0, 5, 1)] * 20, {"llm": flat_pool()}, users=users, think_s=[10.0] * 20, until_s=10.0)
    assert arrivals(world.run()) == [(0, 0.0), (1, 0.0), (1, 4.0)]


def test_a_level_without_set_length_ends_with_its_last_user() -> None:
    # One user asks twice: 0 to 1, 1 to 2. Then two users, each twice, sharing the replica: at 2 user 0 begins alone, 3;
    # user 1 then 3 to 4, and so on in turn: 4 user 0, 5 user 1: ends 6, which is the horizon.
    users = Users(levels=(Level(at_s=0, users=1), Level(at_s=1, users=2)), requests_per_user=2)
    world = small_world([(0.0, 5, 1)] * 20, {"llm": flat_pool()}, users=users, think_s=[0.0] * 20)
    account = world.run()
    assert arrivals(account) == [(0, 0.0), (0, 1.0), (0, 2.0), (1, 2.0), (0, 3.0), (1, 4.0)]
    assert finishes(account) == about(1, 2, 3, 4, 5, 6)
    assert account.horizon_s == pytest.approx(6.0)


def test_a_user_whose_request_failed_tries_again_after_a_while() -> None:
    users = Users(levels=(Level(at_s=0, users=1),), retry_s=4.0)
    world = small_world([(0.0, 5, 1)] * 20, {"llm": flat_pool()}, users=users, think_s=[0.0] * 20, until_s=12.5,
                        start_replicas={"llm": 0})  # fmt: skip
    account = world.run()
    assert arrivals(account)[:5] == [(0, 0.0), (0, 4.0), (0, 8.0), (0, 12.0)]
    assert [request.failed for request in account.requests] == [True, True, True, False]


# --- nodes

PARTS = {"image_pull_s": 4.0, "model_load_s": 10.0, "model_load_warm_s": 2.0, "engine_load_s": 1.0, "warm_up_s": 1.0}
IN_PARTS = {"median_s": 16.0, "p95_s": 16.0, "parts": PARTS}


def on_nodes(*tiers: Tier, **members: Any) -> Any:
    return calm_settings(nodes=Nodes(tiers=tiers, **members))


def test_a_pod_waits_for_a_node_to_be_provisioned() -> None:
    # The one GPU is taken: a node is asked for at 0, there at 30; pull 4, model 10, engine and warm-up 2.
    tier = Tier(name="spot", gpus=1, nodes=1, max_nodes=2, provision_s=30.0)
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool(cold_start=IN_PARTS)}, settings=on_nodes(tier),
                        policies={"llm": fixed(2)}, start_replicas={"llm": 1})  # fmt: skip
    pods = world.run().pools["llm"].pods
    assert [pod.created_s for pod in pods] == about(0, 0)
    assert [pod.scheduled_s for pod in pods] == about(0, 30)
    assert [pod.running_from_s for pod in pods] == about(0, 34)
    assert [pod.ready_s for pod in pods] == about(0, 46)


def test_an_image_is_pulled_once_and_a_model_that_was_loaded_is_warm() -> None:
    # Two pods on a fresh node at 0: the first pulls (16), the second need not (12). A third at 20 finds it warm: 4.
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 2}, {"at_s": 20, "replicas": 3}],
    }  # fmt: skip
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool(cold_start=IN_PARTS)},
                        settings=on_nodes(Tier(name="a", gpus=4, nodes=1)), policies={"llm": schedule},
                        start_replicas={"llm": 0})  # fmt: skip
    assert [pod.ready_s for pod in world.run().pools["llm"].pods] == about(16, 12, 24)


def test_a_full_cluster_places_a_pod_when_another_has_gone() -> None:
    # a holds the only GPU until 20, when its schedule gives it back; b's pod is placed then.
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 1}, {"at_s": 20, "replicas": 0}],
    }  # fmt: skip
    world = small_world([(0.0, 5, 1)], {"a": flat_pool(), "b": flat_pool()}, classes=None,
                        settings=on_nodes(Tier(name="t", gpus=1, nodes=1)), policies={"a": schedule})  # fmt: skip
    account = world.run()
    assert account.pools["b"].pods[0].scheduled_s == pytest.approx(20.0)
    assert account.pools["b"].pods[0].ready_s == pytest.approx(30.0)
    assert account.pools["a"].gpu_seconds(100.0) == pytest.approx(20.0)


def test_a_quota_holds_pods_back_that_would_find_a_gpu() -> None:
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool()}, policies={"llm": fixed(3)},
                        settings=on_nodes(Tier(name="t", gpus=4, nodes=1), quota_gpus=2))  # fmt: skip
    scheduled = [pod.scheduled_s for pod in world.run().pools["llm"].pods]
    assert scheduled == [0.0, 0.0, INFINITY]


def test_the_fullest_node_that_fits_is_filled_first() -> None:
    # Pods of 2, 1 and 1 GPUs on nodes of 3 and 3: the second and third join the first node, then the second.
    pools = {"big": flat_pool(gpus_per_replica=2), "small": flat_pool()}
    world = small_world([(0.0, 5, 1)], pools, policies={"small": fixed(2)},
                        settings=on_nodes(Tier(name="t", gpus=3, nodes=2)))  # fmt: skip
    world.run()
    places = [pod.node.number for pool in world.pools.values() for pod in pool.pods if pod.node is not None]
    assert places == [0, 0, 1]


def test_an_empty_provisioned_node_is_given_back() -> None:
    # The second pod goes at 40; its node, empty for 25 s, is absent at 65.
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 2}, {"at_s": 40, "replicas": 1}],
    }  # fmt: skip
    tier = Tier(name="t", gpus=1, nodes=1, max_nodes=2, provision_s=5.0)
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool()}, policies={"llm": schedule},
                        settings=on_nodes(tier, empty_s=25.0))  # fmt: skip
    states: list[str] = []
    for time_s in (1.0, 6.0, 64.0, 66.0):
        world.clock.call(time_s, Order.FLEET, 0, lambda: states.append(world.cluster.nodes[1].state))
    world.run()
    assert states == ["coming", "ready", "ready", "absent"]


# --- faults


def test_a_crashed_replica_loses_its_jobs_and_loads_anew_in_place() -> None:
    # The request of 0 fails at 2.5; the replica is ready again at 12.5, so that of 5 fails and that of 13 is served.
    crash = ReplicaCrash(kind="replica_crash", at_s=2.5, pool="llm")
    account = small_world([(0.0, 5, 10), (5.0, 5, 1), (13.0, 5, 1)], {"llm": flat_pool()}, faults=(crash,)).run()
    assert [request.failed for request in account.requests] == [True, True, False]
    assert finishes(account)[2] == pytest.approx(14.0)
    pods = account.pools["llm"].pods
    assert [(pod.restarts, pod.gone_s) for pod in pods] == [(1, INFINITY)]
    # nothing is left of the two tokens that it had counted
    assert pods[0].exporter.histograms["ttft"].count == 1
    assert pods[0].generated_tokens == 3


def test_a_node_that_goes_takes_its_pods_which_are_made_anew() -> None:
    # Two nodes of one GPU. At 3 the first goes: its pod's request fails; the new pod finds no GPU, so a node is asked
    # for: the place of the one that went, there at 8.
    tier = Tier(name="t", gpus=1, nodes=2, max_nodes=2, provision_s=5.0)
    gone = NodeGone(kind="node_gone", at_s=3.0, tier="t", node=0)
    world = small_world([(0.0, 5, 10), (0.1, 5, 10)], {"llm": flat_pool()}, policies={"llm": fixed(2)},
                        start_replicas={"llm": 2}, settings=on_nodes(tier), faults=(gone,))  # fmt: skip
    account = world.run()
    assert [request.failed for request in account.requests] == [True, False]
    pods = account.pools["llm"].pods
    assert [(pod.created_s, pod.removed_s, pod.gone_s) for pod in pods] == [
        (0, 3, 3), (0, INFINITY, INFINITY), (3, INFINITY, INFINITY),
    ]  # fmt: skip
    assert pods[2].scheduled_s == pytest.approx(8.0)
    assert pods[2].ready_s == pytest.approx(18.0)


def test_a_node_that_is_reclaimed_is_drained_for_its_notice() -> None:
    # At 3 the pod drains until 3 + 4 = 7 (its grace would be 30): the short request ends, the long one fails at 7.
    tier = Tier(name="t", gpus=1, nodes=1, max_nodes=1)
    reclaim = SpotReclaim(kind="spot_reclaim", at_s=3.0, tier="t", node=0, notice_s=4.0)
    world = small_world([(0.0, 5, 5), (0.1, 5, 20)], {"llm": flat_pool()}, settings=on_nodes(tier), faults=(reclaim,))
    account = world.run()
    assert [request.failed for request in account.requests] == [False, True]
    old, new = account.pools["llm"].pods
    assert (old.removed_s, old.gone_s) == (3.0, 7.0)
    assert new.created_s == 3.0
    # the place is free again at 7, and may be provisioned: 180 s
    assert new.scheduled_s == INFINITY
    assert world.cluster.nodes[0].state == "coming"


def test_a_slow_replica_takes_its_factor_for_steps_begun_meanwhile() -> None:
    # Steps: 0-1, 1-2 (begins before 1.5), 2-4 and 4-6 at factor 2 (the fault ends at 5.5), 6-7.
    slow = SlowReplica(kind="slow_replica", at_s=1.5, for_s=4.0, pool="llm", factor=2.0)
    account = small_world([(0.0, 5, 5)], {"llm": flat_pool()}, faults=(slow,)).run()
    assert finishes(account) == about(7.0)


BUSY = [(0.5, 5, 200)] * 3
RUNNING = {"signal": "running", "type": "AverageValue", "target": 1}
BY_RUNNING = {"kind": "hpa", "replicas": {"min": 1, "max": 9}, "metrics": [RUNNING]}


def spec_at_passes(account: Account) -> list[tuple[float, int, bool]]:
    decisions = account.pools["llm"].decisions
    return [(decision.time_s, decision.desired, decision.error) for decision in decisions if decision.time_s < 50]


@pytest.mark.parametrize(
    ("fault", "errors_at"),
    [
        # Scrapes at 20 and 30 fail and leave markers; that of 40 succeeds.
        (ScrapesFail(kind="scrapes_fail", at_s=12.0, for_s=26.0, pool="llm"), [25.0, 35.0]),
        # No answer at 15 either, while the samples of 10 would still be good.
        (PrometheusDown(kind="prometheus_down", at_s=12.0, for_s=26.0), [15.0, 25.0, 35.0]),
        (MetricsApiError(kind="metrics_api_error", at_s=12.0, for_s=26.0), [15.0, 25.0, 35.0]),
    ],
)
def test_an_hpa_without_metrics_holds_what_there_is(fault: Any, errors_at: list[float]) -> None:
    # Three requests run from 1.5 on (the first alone from 0.5): running 3 is seen by the scrape of 10: wish 3 at 15,
    # where it can be asked for; else at 45, by the scrape of 40.
    world = small_world(BUSY, {"llm": flat_pool()}, policies={"llm": BY_RUNNING}, faults=(fault,))
    passes = spec_at_passes(world.run())
    assert [time_s for time_s, _, error in passes if error] == errors_at
    grows_at = 45.0 if 15.0 in errors_at else 15.0
    assert [desired for time_s, desired, _ in passes] == [1 if time_s < grows_at else 3 for time_s, _, _ in passes]


def test_a_failing_trigger_falls_back_after_its_threshold_of_both_loops() -> None:
    # Scrapes of 20 and 30 fail. Failures: the pass of 25 is the first, the poll of 27 the second, the pass of 35 the
    # third: over the threshold of 2, so 1 x 4 replicas; the growth limit max(2 x 1, 4) lets that pass.
    trigger = {"scaler": "prometheus", "signal": "running", "threshold": 1, "ignore_null": False}
    policy = {
        "kind": "keda", "replicas": {"min": 1, "max": 9}, "triggers": [trigger], "polling_interval_s": 10,
        "fallback": {"failure_threshold": 2, "replicas": 4},
    }  # fmt: skip
    outage = ScrapesFail(kind="scrapes_fail", at_s=12.0, for_s=26.0, pool="llm")
    world = small_world([(0.5, 5, 200)], {"llm": flat_pool()}, policies={"llm": policy}, faults=(outage,))
    account = world.run()
    assert spec_at_passes(account)[:4] == [(5.0, 1, False), (15.0, 1, False), (25.0, 1, True), (35.0, 4, False)]
    assert [poll.error for poll in account.pools["llm"].polls[:4]] == [False, False, True, False]


def test_a_counter_that_begins_anew_loses_nothing() -> None:
    # 5, 8, then anew 1, 3: 3 + 1 + 2 = 6 in 30 s; the window begins 10 s before the first sample, one gap: 6 x 40 / 30.
    assert rate([0, 10, 20, 30], [5, 8, 1, 3], 30.0, 40.0) == pytest.approx(6 * 40 / 30 / 40)


# --- signals


def test_gpu_utilization_is_the_busy_share_since_the_last_scrape() -> None:
    # Steps from 0.5 to 12.5. Scrapes at 0, 10, 20: the share of 9.5 s, then of 2.5 s.
    world = small_world([(0.5, 5, 12)], {"llm": flat_pool()})
    world.run()
    snapshots = world.pools["llm"].pods[0].series.snapshots[:3]
    shares = [snapshot.gauges["gpu_utilization"] for snapshot in snapshots if snapshot is not None]
    assert shares == about(0.0, 0.95, 0.25)


def test_queue_and_compute_time_are_counted_from_the_replica_on() -> None:
    # The second is delivered at 0.5, admitted at 1, ends at 3: 0.5 s of queue, 2 s of compute beside the first's 1 s.
    world = small_world([(0.0, 5, 1), (0.5, 5, 2)], {"llm": flat_pool()})
    world.run()
    exporter = world.pools["llm"].pods[0].exporter
    assert [exporter.queue_s, exporter.compute_s] == about(0.5, 3.0)
    assert exporter.histograms["e2e"].sum_s == pytest.approx(1.0 + 2.5)


def test_an_hpa_by_cpu_sees_the_last_window_that_is_over_and_counts_new_pods_as_idle() -> None:
    # Busy from 0.5 on. No window is over at the pass of 5. At 15: 14.5 / 15 x 1 + 0.2 = 1.167 cores of 2, 58 %; over 30
    # that is 1.93, so 2 pods. At 25 the new one is unready, hence 0: 1167 / 4000, 29 %, within the tolerance.
    metric = {"signal": "cpu", "source": "resource", "type": "Utilization", "target": 30}
    policy = {"kind": "hpa", "replicas": {"min": 1, "max": 9}, "metrics": [metric]}
    pool = flat_pool(cpu={"request": 2.0, "idle": 0.2, "busy": 1.0})
    account = small_world([(0.5, 5, 200)], {"llm": pool}, policies={"llm": policy}).run()
    assert spec_at_passes(account)[:3] == [(5.0, 1, True), (15.0, 2, False), (25.0, 2, False)]


# --- zero and Knative


def test_in_proxy_mode_the_activator_keeps_what_is_over_the_container_concurrency() -> None:
    # One at a time, 2 s each: delivered at 0.5, 2.5, 4.5. The second that ends at 1.25 is told of all three: 0.75 s in
    # the pod, 0.65 and 0.55 s before it.
    policy = {
        "kind": "kpa", "replicas": {"min": 1, "max": 1}, "container_concurrency": 1, "target_burst_capacity": -1.0,
    }  # fmt: skip
    world = small_world([(0.5, 5, 2), (0.6, 5, 2), (0.7, 5, 2)], {"llm": flat_pool()}, policies={"llm": policy})
    seen: list[float] = []
    knatives = world.knatives
    world.clock.call(1.25, Order.FLEET, 0, lambda: seen.append(knatives["llm"].law.stable.by_second[1]))
    jobs = world.run().pools["llm"].jobs
    assert [job.delivered_s for job in jobs] == about(0.5, 2.5, 4.5)
    assert seen == about(0.75 + 0.65 + 0.55)


def test_the_first_request_at_zero_wakes_a_knative_service_at_once() -> None:
    # Between two ticks (4.25 and 6.25) the activator's report and a decision: the pod is created at 5, ready at 15.
    policy = {"kind": "kpa", "replicas": {"min": 0, "max": 5}, "target": 1}
    world = small_world([(5.0, 5, 1)], {"llm": flat_pool()}, policies={"llm": policy}, start_replicas={"llm": 0})
    account = world.run()
    pods = account.pools["llm"].pods
    assert pods[0].created_s == 5.0
    assert finishes(account) == about(16.0)
    # stable window 60 s and grace 30 s after the last load: gone again before the end
    assert pods[0].removed_s < 130.0


def test_keda_wakes_a_pool_at_its_poll_and_sends_it_to_sleep_after_the_cooldown() -> None:
    # The router is scraped at 0, 10, 20 ... The request of 2 waits: seen from 10 on, by the poll of 17 (7, 17, 27 ...),
    # which creates a pod, ready at 27: its step ends at 28. The scrape of 20 still shows it; that of 30 does not: the
    # polls of 17 and 27 are active, 27 the last. Cooldown 20 s, strictly: 47 is not, 57 is.
    trigger = {"scaler": "prometheus", "signal": "queued", "threshold": 1}
    policy = {
        "kind": "keda", "replicas": {"min": 0, "max": 3}, "triggers": [trigger], "polling_interval_s": 10,
        "cooldown_s": 20,
    }  # fmt: skip
    pool = flat_pool(queue={"kind": "interceptor", "timeout_s": 60.0})
    world = small_world([(2.0, 5, 1)], {"llm": pool}, policies={"llm": policy}, start_replicas={"llm": 0})
    account = world.run()
    pods = account.pools["llm"].pods
    assert finishes(account) == about(28.0)
    assert [(pod.created_s, pod.removed_s) for pod in pods] == [(17.0, 57.0)]


def test_an_hpa_leaves_only_a_zero_that_it_went_to_itself() -> None:
    # By the queue in front: 0 waits from the first pass on, so after the 20 s of stabilization the pool is at 0. The
    # request of 52 is seen by the scrape of 60 and the pass of 65.
    queued = {"signal": "queued", "type": "AverageValue", "source": "external", "target": 1}
    policy = {
        "kind": "hpa", "replicas": {"min": 0, "max": 3}, "metrics": [queued],
        "behavior": {"scale_down": {"stabilization_s": 20}},
    }  # fmt: skip
    pool = flat_pool(queue={"kind": "interceptor", "timeout_s": 60.0})
    settings = calm_settings()
    settings = settings.with_(hpa=settings.hpa.with_(scale_to_zero=True))
    world = small_world([(52.0, 5, 1)], {"llm": pool}, policies={"llm": policy}, settings=settings)
    account = world.run()
    pods = account.pools["llm"].pods
    assert [(pod.created_s, pod.removed_s) for pod in pods][:1] == [(0.0, 25.0)]
    assert pods[1].created_s == 65.0
    assert finishes(account) == about(76.0)
    asleep = small_world([(52.0, 5, 1)], {"llm": pool}, policies={"llm": policy}, settings=settings,
                         start_replicas={"llm": 0})  # fmt: skip
    assert not asleep.run().pools["llm"].pods


# --- offline work


def with_offline(gpus: int, **members: Any) -> Any:
    offline = Offline(gpus_per_job=1, start_s=5.0, grace_s=4.0)
    return on_nodes(Tier(name="t", gpus=gpus, nodes=1), offline=offline, **members)


def test_offline_jobs_fill_what_has_been_idle_for_long_enough_but_for_the_reserve() -> None:
    # Four GPUs, one replica, one in reserve: two jobs, when the three have been idle for 20 s: checks at 0, 10, 20.
    fleet = {"kind": "fleet", "reserve_gpus": 1, "admit_after_s": 20.0, "check_s": 10.0}
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool()}, policies={"fleet": fleet}, settings=with_offline(4))
    jobs = world.run().offline_jobs
    assert [(job.began_s, job.told_s) for job in jobs] == [(20.0, INFINITY), (20.0, INFINITY)]


def test_a_replica_that_finds_no_gpu_waits_for_the_grace_of_the_youngest_job() -> None:
    # Three GPUs: a replica, two jobs since 0. At 20 one more replica: the younger job is told and gone at 24, when the
    # replica is placed; ready at 34. It goes at 50, and the check of that instant admits a job again.
    fleet = {"kind": "fleet", "reserve_gpus": 0, "admit_after_s": 0.0, "check_s": 10.0}
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 1}, {"at_s": 20, "replicas": 2}, {"at_s": 50, "replicas": 1}],
    }  # fmt: skip
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool()}, policies={"fleet": fleet, "llm": schedule},
                        settings=with_offline(3))  # fmt: skip
    account = world.run()
    assert [(job.began_s, job.told_s, job.gone_s) for job in account.offline_jobs] == [
        (0.0, INFINITY, INFINITY), (0.0, 20.0, 24.0), (50.0, INFINITY, INFINITY),
    ]  # fmt: skip
    assert [(pod.scheduled_s, pod.ready_s) for pod in account.pools["llm"].pods] == [(0.0, 0.0), (24.0, 34.0)]


def test_jobs_are_evicted_until_the_reserve_is_whole_again() -> None:
    # Four GPUs, a replica, a reserve of one: two jobs at 0. The second replica of 12 takes the reserve: at 20 none is
    # idle, under the 1 of the threshold: the youngest job is told, gone at 24.
    fleet = {"kind": "fleet", "reserve_gpus": 1, "evict_below_gpus": 1, "admit_after_s": 0.0, "check_s": 10.0}
    schedule = {
        "kind": "schedule", "replicas": {"min": 0, "max": 5}, "period_s": None,
        "times": [{"at_s": 0, "replicas": 1}, {"at_s": 12, "replicas": 2}],
    }  # fmt: skip
    world = small_world([(0.0, 5, 1)], {"llm": flat_pool()}, policies={"fleet": fleet, "llm": schedule},
                        settings=with_offline(4))  # fmt: skip
    account = world.run()
    assert [(job.began_s, job.told_s, job.gone_s) for job in account.offline_jobs] == [
        (0.0, INFINITY, INFINITY), (0.0, 20.0, 24.0),
    ]  # fmt: skip
    assert account.pools["llm"].pods[1].scheduled_s == 12.0
