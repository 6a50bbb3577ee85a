"""Faults on their schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.oracle.clock import Order
from tiphys.domain.faults import (
    ColdStartNeverEnds,
    ConsumerMissing,
    Fault,
    MetricsApiError,
    NodeGone,
    PrometheusDown,
    ReplicaCrash,
    ScrapesFail,
    SlowReplica,
    SpotReclaim,
    StaleLag,
)

if TYPE_CHECKING:
    from tests.oracle.nodes import Node
    from tests.oracle.pods import Pod
    from tests.oracle.world import World


class Faults:
    """What goes wrong when: questions about now, and what happens at once."""

    def __init__(self, world: World) -> None:
        self.world, self.clock = world, world.clock
        self.stale_lags: dict[int, int] = {}
        for place, fault in enumerate(world.scenario.faults):
            action = self._action(place, fault)
            if action is not None:
                self.clock.call(self._at_s(fault), Order.FAULT, place, action)
            if isinstance(fault, ConsumerMissing):
                pull = world.pools[fault.pool].line.pull
                self.clock.call(self._at_s(fault) + fault.for_s, Order.FAULT, place, pull)

    def _at_s(self, fault: Fault) -> float:
        return self.world.scenario.warmup_s + fault.at_s

    def _action(self, place: int, fault: Fault) -> Callable[[], None] | None:
        if isinstance(fault, ReplicaCrash):
            return lambda: self._crash(fault)
        if isinstance(fault, NodeGone):
            return lambda: self._node_gone(fault)
        if isinstance(fault, SpotReclaim):
            return lambda: self._reclaim(place, fault)
        if isinstance(fault, StaleLag):
            return lambda: self._freeze_lag(place, fault)
        if isinstance(fault, SlowReplica):
            return lambda: self._slow_down(fault)
        return None

    # --- questions

    def _is_on(self, kind: type[Fault], pool: str | None, now_s: float) -> bool:
        for fault in self.world.scenario.faults:
            if isinstance(fault, kind) and (pool is None or getattr(fault, "pool", None) == pool):
                from_s = self._at_s(fault)
                if from_s <= now_s < from_s + fault.for_s:  # type: ignore[union-attr]
                    return True
        return False

    def scrapes_fail(self, pool: str, now_s: float) -> bool:
        return self._is_on(ScrapesFail, pool, now_s)

    def prometheus_is_down(self, now_s: float) -> bool:
        return self._is_on(PrometheusDown, None, now_s)

    def metrics_api_fails(self, now_s: float) -> bool:
        return self._is_on(MetricsApiError, None, now_s)

    def consumer_is_missing(self, pool: str, now_s: float) -> bool:
        return self._is_on(ConsumerMissing, pool, now_s)

    def never_starts(self, pool: str, created_s: float) -> bool:
        return self._is_on(ColdStartNeverEnds, pool, created_s)

    def answered_lag(self, pool: str, now_s: float) -> int:
        """What the monitoring endpoint says."""
        for place, fault in enumerate(self.world.scenario.faults):
            from_s = self._at_s(fault)
            if isinstance(fault, StaleLag) and fault.pool == pool and from_s <= now_s < from_s + fault.for_s:
                return self.stale_lags[place]
        return self.world.pools[pool].line.lag

    # --- events

    def _crash(self, fault: ReplicaCrash) -> None:
        for pod in self.world.pools[fault.pool].able()[: fault.count]:
            pod.crash()

    def _slow_down(self, fault: SlowReplica) -> None:
        able = self.world.pools[fault.pool].able()
        if able:
            from_s = self._at_s(fault)
            able[0].slow = (from_s, from_s + fault.for_s, fault.factor)

    def _freeze_lag(self, place: int, fault: StaleLag) -> None:
        self.stale_lags[place] = self.world.pools[fault.pool].line.lag

    def _node_gone(self, fault: NodeGone) -> None:
        node = self.world.cluster.node(fault.tier, fault.node)
        if node.state == "ready":
            self._vanish(node)

    def _vanish(self, node: Node) -> None:
        pods = sorted(node.pods, key=lambda pod: pod.place)
        wanted = [pod for pod in pods if pod.is_wanted]
        self.world.cluster.vanish(node)
        for pod in pods:
            pod.die()
        self._replace(wanted)
        self.world.cluster.place()

    def _replace(self, lost: list[Pod]) -> None:
        for pool in self.world.pools.values():
            for _ in range(sum(pod.pool is pool for pod in lost)):
                pool.create()

    def _reclaim(self, place: int, fault: SpotReclaim) -> None:
        node = self.world.cluster.node(fault.tier, fault.node)
        if node.state != "ready" or node.is_reclaimed:
            return
        node.is_reclaimed = True
        wanted = [pod for pod in sorted(node.pods, key=lambda pod: pod.place) if pod.is_wanted]
        for pod in wanted:
            pod.remove(min(pod.pool.described.pool.termination_grace_s, fault.notice_s))
        self._replace(wanted)
        if self.world.cluster.fleet is not None:
            self.world.cluster.fleet.reclaim(node, fault.notice_s)
        due_s, life = self.clock.now + fault.notice_s, node.lives
        self.clock.call(due_s, Order.NODE, node.place, lambda: self._end_of_notice(node, life))

    def _end_of_notice(self, node: Node, life: int) -> None:
        if node.lives == life:
            self._vanish(node)
