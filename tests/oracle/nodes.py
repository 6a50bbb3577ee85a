"""The cluster's nodes: where pods are placed, which nodes are asked for and given back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.oracle.clock import Clock, Order
from tiphys.domain.nodes import Nodes, Tier

if TYPE_CHECKING:
    from tests.oracle.fleet import Fleet, OfflineJob
    from tests.oracle.pods import Pod


@dataclass(eq=False)
class Node:
    """A place for a node: absent, on its way, or there."""

    place: int
    """Over all tiers."""
    number: int
    """Within its tier."""
    tier: Tier
    state: Literal["absent", "coming", "ready"] = "absent"
    is_provisioned: bool = False
    is_reclaimed: bool = False
    images: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    pods: list[Pod] = field(default_factory=list)
    jobs: list[OfflineJob] = field(default_factory=list)
    lives: int = 0
    """How often it has vanished."""
    changes: int = 0
    """Of what runs here: an empty time that was interrupted has another number."""

    @property
    def free_gpus(self) -> int:
        return self.tier.gpus - sum(pod.pool.gpus for pod in self.pods) - sum(job.gpus for job in self.jobs)


class Cluster:
    """Places pods; without `nodes` everybody finds a place at once."""

    def __init__(self, clock: Clock, nodes: Nodes | None) -> None:
        self.clock, self.described = clock, nodes
        self.nodes: list[Node] = []
        self.pending: list[Pod] = []
        self.fleet: Fleet | None = None
        self.has_warm_cache = nodes is not None and nodes.warm_cache
        for tier in nodes.tiers if nodes is not None else ():
            for number in range(tier.most_nodes):
                state: Literal["absent", "ready"] = "ready" if number < tier.nodes else "absent"
                self.nodes.append(Node(len(self.nodes), number, tier, state))

    @property
    def placed_gpus(self) -> int:
        return sum(pod.pool.gpus for node in self.nodes for pod in node.pods)

    def node(self, tier: str, number: int) -> Node:
        return next(node for node in self.nodes if node.tier.name == tier and node.number == number)

    def enter(self, pod: Pod) -> None:
        """A pod was created."""
        if self.described is None:
            pod.schedule(None)
        else:
            self.pending.append(pod)
            self.place()

    def left(self, pod: Pod) -> None:
        """A pod is gone."""
        if pod in self.pending:
            self.pending.remove(pod)
        elif pod.node is not None:
            node = pod.node
            node.pods.remove(pod)
            self.touched(node)
            self.place()

    def place(self) -> None:
        """Place what can be placed, in order of creation; ask for nodes for the rest."""
        if self.described is None:
            return
        unplaced = []
        for pod in list(self.pending):
            if pod not in self.pending or not self._is_within_quota(pod):
                continue
            node = self.node_with(pod.pool.gpus)
            if node is None:
                unplaced.append(pod)
                continue
            self.pending.remove(pod)
            node.pods.append(pod)
            self.touched(node)
            pod.schedule(node)
            node.images.add(pod.pool.name)
        if self.fleet is not None:
            unplaced = self.fleet.make_way(unplaced)
        self._ask_for_nodes(unplaced)

    def _is_within_quota(self, pod: Pod) -> bool:
        assert self.described is not None
        quota = self.described.quota_gpus
        return quota is None or self.placed_gpus + pod.pool.gpus <= quota

    def usable(self) -> list[Node]:
        """Nodes that something can be placed on, in order."""
        return [node for node in self.nodes if node.state == "ready" and not node.is_reclaimed]

    def node_with(self, gpus: int) -> Node | None:
        """In the first tier that has one, the node with the fewest free GPUs that are enough."""
        able = [node for node in self.usable() if node.free_gpus >= gpus]
        if not able:
            return None
        tier = able[0].tier
        return min((node for node in able if node.tier is tier), key=lambda node: (node.free_gpus, node.number))

    def _ask_for_nodes(self, unplaced: list[Pod]) -> None:
        needed = 0
        for pod in unplaced:
            needed += pod.pool.gpus
            while sum(node.tier.gpus for node in self.nodes if node.state == "coming") < needed:
                able = (node for node in self.nodes if node.state == "absent" and node.tier.gpus >= pod.pool.gpus)
                node = next(able, None)
                if node is None:
                    break
                self._order(node)

    def _order(self, node: Node) -> None:
        node.state, node.is_provisioned = "coming", True
        self.clock.call(self.clock.now + node.tier.provision_s, Order.NODE, node.place, lambda: self._arrived(node))

    def _arrived(self, node: Node) -> None:
        node.state = "ready"
        self.touched(node)
        self.place()

    def touched(self, node: Node) -> None:
        """Something came to a node or left it."""
        node.changes += 1
        if node.pods or node.jobs or not node.is_provisioned or self.described is None:
            return
        changes = node.changes
        due_s = self.clock.now + self.described.empty_s
        self.clock.call(due_s, Order.NODE, node.place, lambda: self._give_back(node, changes))

    def _give_back(self, node: Node, changes: int) -> None:
        if node.state == "ready" and node.changes == changes:
            self.vanish(node)
            self.place()

    def vanish(self, node: Node) -> None:
        """It is not there any more, and remembers nothing; its place is free."""
        node.state, node.is_reclaimed, node.is_provisioned = "absent", False, False
        node.images.clear()
        node.loaded.clear()
        node.changes += 1
        node.lives += 1
        if self.fleet is not None:
            self.fleet.lose(node)
