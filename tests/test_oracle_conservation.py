"""What must hold of every world that the second implementation plays, whatever the rules decide."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from tests.oracle.clock import INFINITY
from tests.oracle.pods import Pod
from tests.oracle.pools import OraclePool
from tests.oracle.work import Asked, Job
from tests.oracle.world import Account, PoolAccount
from tests.oracle.worlds import SHAPES, RandomWorld, random_world
from tiphys.domain.faults import ConsumerMissing
from tiphys.domain.queues import JetStreamQueue, RouterQueue
from tiphys.policies.fleet import FLEET, FleetPolicy

WORLDS = 200
_CLOSE_S = 1e-9


@pytest.mark.parametrize("seed", range(WORLDS))
def test_nothing_is_lost_and_nothing_comes_from_nowhere(seed: int) -> None:
    world = random_world(seed)
    world.check()
    account = world.oracle()
    _check_requests(world, account)
    for name, described in world.service.pools.items():
        pool = account.pools[name]
        for job in pool.jobs:
            _check_job(job, pool.pods)
        _check_tokens(pool)
        _check_gpu_seconds(pool, described, account.end_s)
        _check_in_flight(pool, described)
        assert all(pod.kv_peak_tokens <= pod.batch.limits.kv_capacity_tokens for pod in pool.pods)
    _check_gpus(world, account)
    _check_consumers(world, account)


def _check_requests(world: RandomWorld, account: Account) -> None:
    trace, users = world.scenario.trace, world.scenario.users
    assert [request.number for request in account.requests] == list(range(len(account.requests)))
    if users is None:
        assert len(account.requests) == len(trace)
    else:
        assert len(account.requests) <= len(trace)
        assert _most_at_once(account) <= users.most
    jobs: dict[int, dict[str, Job]] = {}
    for pool in account.pools.values():
        for job in pool.jobs:
            jobs.setdefault(job.request.number, {})[job.hop.name] = job
    for request in account.requests:
        _check_route(world, request, jobs.get(request.number, {}))


def _most_at_once(account: Account) -> int:
    changes = [(request.arrival_s, 1) for request in account.requests]
    changes += [(request.finish_s, -1) for request in account.requests if not request.failed]
    # when a request failed is not written down: it is the user's next one that shows it
    open_until: dict[int, float] = {}
    for request in reversed(account.requests):
        if request.failed:
            changes.append((open_until.get(request.user, INFINITY), -1))
        open_until[request.user] = request.arrival_s
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _check_route(world: RandomWorld, request: Asked, jobs: dict[str, Job]) -> None:
    hops = world.service.classes[request.class_name]
    is_finished = request.finish_s < INFINITY
    assert not (is_finished and request.failed)
    if is_finished:
        assert set(jobs) == {hop.name for hop in hops}
        assert request.finish_s == max(job.finish_s for job in jobs.values())
        assert request.arrival_s < request.first_token_s <= request.finish_s
    assert request.failed == any(job.failed for job in jobs.values())
    for hop in hops:
        if hop.name in jobs:
            begins_s = max((jobs[name].finish_s for name in hop.after), default=request.arrival_s)
            assert jobs[hop.name].arrival_s == pytest.approx(begins_s + hop.delay_s, abs=_CLOSE_S)


def _check_job(job: Job, pods: tuple[Pod, ...]) -> None:
    assert not (job.failed and job.finish_s < INFINITY)
    times_s = [job.arrival_s, job.delivered_s, job.admitted_s, job.first_token_s, job.last_token_s, job.finish_s]
    assert all(before <= after for before, after in pairwise(t for t in times_s if t < INFINITY))
    if job.delivered_s < INFINITY:
        pod = pods[job.replica]
        assert pod.ready_s <= job.delivered_s <= min(pod.removed_s, pod.gone_s)
    if job.finish_s == INFINITY:
        return
    assert job.generated == job.output_tokens
    if job.preemptions or job.returns:
        return  # some of its work was done more than once
    fetched = job.transfers == 1 and job.prefilled_tokens == 0
    assert job.prefilled_tokens == (0 if fetched else job.input_tokens)
    assert job.generated_tokens == job.output_tokens - fetched


def _check_tokens(pool: PoolAccount) -> None:
    assert sum(job.prefilled_tokens for job in pool.jobs) == pool.prefilled_tokens
    assert sum(job.generated_tokens for job in pool.jobs) == pool.generated_tokens


def _check_gpu_seconds(pool: PoolAccount, described: OraclePool, until_s: float) -> None:
    edges = sorted({0.0, until_s, *(t for pod in pool.pods for t in (pod.scheduled_s, pod.gone_s) if t < until_s)})
    area = 0.0
    for left, right in pairwise(edges):
        middle = (left + right) / 2
        area += sum(pod.scheduled_s <= middle < pod.gone_s for pod in pool.pods) * (right - left)
    assert pool.gpu_seconds(until_s) == pytest.approx(area * described.pool.gpus_per_replica, abs=1e-6)


def _most_together(spans: Iterable[tuple[float, float, int]]) -> int:
    """The greatest sum of weights at one time; what ends goes before what begins."""
    changes: list[tuple[float, int]] = []
    for start_s, stop_s, weight in spans:
        changes += [(start_s, weight), (stop_s, -weight)]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def _check_in_flight(pool: PoolAccount, described: OraclePool) -> None:
    queue = described.pool.queue
    if not isinstance(queue, RouterQueue | JetStreamQueue):
        return
    ended = [job for job in pool.jobs if job.finish_s < INFINITY]
    for pod in pool.pods:
        spans = ((job.delivered_s, job.finish_s, 1) for job in ended if job.replica == pod.number)
        assert _most_together(spans) <= queue.in_flight
    if isinstance(queue, JetStreamQueue):
        assert _most_together((job.delivered_s, job.finish_s, 1) for job in ended) <= queue.max_ack_pending


def _check_gpus(world: RandomWorld, account: Account) -> None:
    nodes = world.scenario.settings.nodes
    if nodes is None:
        return
    placed = [pod for pool in account.pools.values() for pod in pool.pods if pod.scheduled_s < INFINITY]
    by_node: dict[int, list[tuple[float, float, int]]] = {}
    for pod in placed:
        assert pod.node is not None
        by_node.setdefault(pod.node.place, []).append((pod.scheduled_s, pod.gone_s, pod.pool.gpus))
        assert _most_together(by_node[pod.node.place]) <= pod.node.tier.gpus
    if nodes.quota_gpus is not None:
        assert _most_together(span for spans in by_node.values() for span in spans) <= nodes.quota_gpus


def _check_consumers(world: RandomWorld, account: Account) -> None:
    for fault in world.scenario.faults:
        if isinstance(fault, ConsumerMissing):
            from_s = world.scenario.warmup_s + fault.at_s
            delivered = [job.delivered_s for job in account.pools[fault.pool].jobs]
            assert not any(from_s <= time_s < from_s + fault.for_s for time_s in delivered)


@pytest.mark.parametrize("seed", [seed for seed in range(WORLDS) if random_world(seed).scenario.settings.nodes])
def test_offline_work_has_what_no_replica_has(seed: int) -> None:
    world = random_world(seed, with_fleet=True)
    account = world.oracle()
    policy = world.policies[FLEET]
    assert isinstance(policy, FleetPolicy)
    jobs = [(job.began_s, job.gone_s, job.gpus) for job in account.offline_jobs]
    assert _most_together(jobs) <= policy.most_gpus
    assert all(job.began_s <= job.told_s for job in account.offline_jobs)
    pods = [pod for pool in account.pools.values() for pod in pool.pods if pod.node is not None]
    for node in {job.node.place: job.node for job in account.offline_jobs}.values():
        here = [(job.began_s, job.gone_s, job.gpus) for job in account.offline_jobs if job.node is node]
        here += [(pod.scheduled_s, pod.gone_s, pod.pool.gpus) for pod in pods if pod.node is node]
        assert _most_together(here) <= node.tier.gpus


@pytest.mark.parametrize("seed", range(0, WORLDS, 20))
def test_a_world_played_twice_is_the_same(seed: int) -> None:
    first, second = random_world(seed).oracle(), random_world(seed).oracle()
    assert [(r.first_token_s, r.finish_s) for r in first.requests] == [
        (r.first_token_s, r.finish_s) for r in second.requests
    ]
    for name, pool in first.pools.items():
        assert pool.decisions == second.pools[name].decisions
        assert pool.polls == second.pools[name].polls
        assert pool.ticks == second.pools[name].ticks


def test_every_shape_is_drawn() -> None:
    assert {random_world(seed).shape for seed in range(WORLDS)} == set(SHAPES)
