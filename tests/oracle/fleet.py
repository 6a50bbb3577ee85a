"""Offline work in the GPUs that no replica needs: admitted and evicted by thresholds, preempted when serving grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.oracle.clock import INFINITY, Clock, Order
from tiphys.domain.nodes import Offline
from tiphys.policies.fleet import FleetPolicy

if TYPE_CHECKING:
    from tests.oracle.nodes import Cluster, Node
    from tests.oracle.pods import Pod


@dataclass(eq=False)
class OfflineJob:
    """One job, from its admission until it has given its GPUs back."""

    number: int
    node: Node
    gpus: int
    began_s: float
    told_s: float = INFINITY
    gone_s: float = INFINITY
    is_lost: bool = False
    """Its node disappeared."""


class Fleet:
    """The offline tier of a cluster under a policy."""

    def __init__(self, clock: Clock, cluster: Cluster, offline: Offline, policy: FleetPolicy, phase_s: float) -> None:
        self.clock, self.cluster, self.offline, self.policy, self.phase_s = clock, cluster, offline, policy, phase_s
        self.jobs: list[OfflineJob] = []
        self.over_reserve_since_s: float | None = None
        cluster.fleet = self
        self._check_at(0)

    @property
    def here(self) -> list[OfflineJob]:
        return [job for job in self.jobs if job.gone_s == INFINITY]

    @property
    def running(self) -> list[OfflineJob]:
        """Those that nobody has told to end."""
        return [job for job in self.here if job.told_s == INFINITY]

    # --- the thresholds

    def _check_at(self, number: int) -> None:
        due_s = self.phase_s + number * self.policy.check_s
        self.clock.call(due_s, Order.FLEET, 0, lambda: self._check(number))

    def _check(self, number: int) -> None:
        self._evict()
        self._admit()
        self._check_at(number + 1)

    def _idle_gpus(self) -> int:
        return sum(node.free_gpus for node in self.cluster.usable())

    def _evict(self) -> None:
        coming = sum(job.gpus for job in self.here if job.told_s < INFINITY)
        if self._idle_gpus() + coming >= self.policy.evict_below_gpus:
            return
        for job in sorted(self.running, key=lambda job: -job.number):
            if self._idle_gpus() + coming >= self.policy.reserve_gpus:
                return
            coming += job.gpus
            self.tell(job, self.offline.grace_s)

    def _admit(self) -> None:
        now_s, reserve, gpus = self.clock.now, self.policy.reserve_gpus, self.offline.gpus_per_job
        if self._idle_gpus() <= reserve:
            self.over_reserve_since_s = None
            return
        if self.over_reserve_since_s is None:
            self.over_reserve_since_s = now_s
        if now_s - self.over_reserve_since_s < self.policy.admit_after_s:
            return
        while self._idle_gpus() - reserve >= gpus and self._held_gpus() + gpus <= self.policy.most_gpus:
            node = self.cluster.node_with(gpus)
            if node is None:
                return
            self._begin(node)

    def _held_gpus(self) -> int:
        return sum(job.gpus for job in self.here)

    def _begin(self, node: Node) -> None:
        job = OfflineJob(len(self.jobs), node, self.offline.gpus_per_job, self.clock.now)
        self.jobs.append(job)
        node.jobs.append(job)
        self.cluster.touched(node)

    # --- how jobs end

    def tell(self, job: OfflineJob, grace_s: float) -> None:
        """It ends, and holds its GPUs for its grace period."""
        job.told_s = self.clock.now
        self.clock.call(job.told_s + grace_s, Order.LIFECYCLE, 2**39 + job.number, lambda: self._end(job))

    def _end(self, job: OfflineJob) -> None:
        if job.gone_s == INFINITY:
            self._leave(job)
            self.cluster.place()

    def _leave(self, job: OfflineJob) -> None:
        job.gone_s = self.clock.now
        job.node.jobs.remove(job)
        self.cluster.touched(job.node)

    def lose(self, node: Node) -> None:
        """The node is not there any more."""
        for job in list(node.jobs):
            job.is_lost = job.told_s == INFINITY
            self._leave(job)

    def reclaim(self, node: Node, notice_s: float) -> None:
        """The node will not be there any more: its jobs are told."""
        for job in node.jobs:
            if job.told_s == INFINITY:
                self.tell(job, min(self.offline.grace_s, notice_s))

    # --- preemption

    def make_way(self, pods: list[Pod]) -> list[Pod]:
        """Tell jobs to end for pods that found no place; those that no job can make way for."""
        promised: dict[int, int] = {}
        rest = []
        for pod in pods:
            node = self._node_after_ends(pod.pool.gpus, promised)
            if node is None:
                rest.append(pod)
                continue
            missing = pod.pool.gpus - self._available(node, promised)
            for job in sorted((job for job in node.jobs if job.told_s == INFINITY), key=lambda job: -job.number):
                if missing > 0:
                    missing -= job.gpus
                    self.tell(job, self.offline.grace_s)
            promised[node.place] = promised.get(node.place, 0) + pod.pool.gpus
        return rest

    def _available(self, node: Node, promised: dict[int, int]) -> int:
        leaving = sum(job.gpus for job in node.jobs if job.told_s < INFINITY)
        return node.free_gpus + leaving - promised.get(node.place, 0)

    def _node_after_ends(self, gpus: int, promised: dict[int, int]) -> Node | None:
        """In the first tier that has one, the node on which the fewest GPUs are taken from jobs."""
        able = [
            node
            for node in self.cluster.usable()
            if self._available(node, promised) + sum(job.gpus for job in node.jobs if job.told_s == INFINITY) >= gpus
        ]
        if not able:
            return None
        tier = able[0].tier
        return min(
            (node for node in able if node.tier is tier),
            key=lambda node: (max(0, gpus - self._available(node, promised)), node.number),
        )
