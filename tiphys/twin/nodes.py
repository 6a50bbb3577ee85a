"""Nodes: where pods find their GPUs, when more nodes are ordered, when empty ones are given back.

Offline jobs hold GPUs too; they make way for pods (`tiphys.twin.offline`).
"""

from __future__ import annotations

from tiphys.compiled import lean_jit
from tiphys.twin.events import NODE_EMPTY, NODE_READY, push_event
from tiphys.twin.offline import ENDING, GONE, free_node, make_way
from tiphys.twin.pods import settle
from tiphys.twin.state import (
    ABSENT,
    COMING,
    HERE,
    IDLE_S,
    NONE,
    OFFLINE_JOBS,
    PENDING_PODS,
    PODS_CREATED,
    SERVING_GPUS,
    Setting,
    World,
)


@lean_jit
def place_pending(world: World, setting: Setting, now_s: float) -> None:
    """Give every pod without a place one, in order of creation, as far as there is room; then order nodes."""
    if world.counters[PENDING_PODS] == 0:
        return
    unplaced = 0
    for pod in range(world.counters[PODS_CREATED]):
        record = world.pods[pod]
        if not waits_for_place(world, setting, pod):
            continue
        node = free_node(world, record.gpus)
        if node == NONE:
            unplaced += 1
            continue
        take_gpus(world, node, record.gpus)
        world.counters[SERVING_GPUS] += record.gpus
        record.engine = world.tier_engine[record.pool, world.nodes[node].tier]
        settle(world, setting, pod, node, now_s)
    if unplaced > 0:
        find_more(world, setting, now_s)


@lean_jit
def waits_for_place(world: World, setting: Setting, pod: int) -> bool:
    """Whether a pod has no place and may have one within the quota."""
    record = world.pods[pod]
    if record.alive == 0 or record.is_placed == 1:
        return False
    return bool(world.counters[SERVING_GPUS] + record.gpus <= setting.quota_gpus)


@lean_jit
def find_more(world: World, setting: Setting, now_s: float) -> None:
    """For pods without a place offline jobs make way, else nodes are ordered until those coming have room for them."""
    missing, coming = 0, 0
    for node in range(world.nodes.shape[0]):
        world.nodes[node].promised = 0
        if world.nodes[node].state == COMING:
            coming += world.nodes[node].gpus
    for pod in range(world.counters[PODS_CREATED]):
        if not waits_for_place(world, setting, pod):
            continue
        gpus = world.pods[pod].gpus
        if world.counters[OFFLINE_JOBS] > 0 and make_way(world, setting.offline_grace_s, gpus, now_s):
            continue
        missing += gpus
        while coming < missing:
            ordered = order_node(world, gpus, now_s)
            if ordered == 0:
                break
            coming += ordered


@lean_jit
def take_gpus(world: World, node: int, gpus: int) -> None:
    """Something begins to run on a node."""
    record = world.nodes[node]
    record.free -= gpus
    record.held += 1
    record.empty_s = IDLE_S


@lean_jit
def give_gpus(world: World, setting: Setting, node: int, gpus: int, now_s: float) -> None:
    """Something has ended on a node."""
    record = world.nodes[node]
    record.free += gpus
    record.held -= 1
    if record.held == 0 and record.stays == 0 and record.state == HERE:
        record.empty_s = now_s
        push_event(world.events, world.counters, now_s + setting.empty_s, NODE_EMPTY, node)


@lean_jit
def free_gpus(world: World, setting: Setting, pod: int, now_s: float) -> None:
    """A pod that had a place is gone: others may have it."""
    record = world.pods[pod]
    world.counters[SERVING_GPUS] -= record.gpus
    give_gpus(world, setting, record.node, record.gpus, now_s)
    place_pending(world, setting, now_s)


@lean_jit
def order_node(world: World, gpus: int, now_s: float) -> int:
    """Order a node that is large enough, of the first tier that has one to order: its GPUs; 0 where none is left."""
    for node in range(world.nodes.shape[0]):
        record = world.nodes[node]
        if record.state == ABSENT and record.gpus >= gpus:
            record.state = COMING
            record.free = record.gpus
            push_event(world.events, world.counters, now_s + record.ready_s, NODE_READY, node)
            return int(record.gpus)
    return 0


@lean_jit
def node_ready(world: World, setting: Setting, node: int, now_s: float) -> None:
    """An ordered node has come."""
    record = world.nodes[node]
    record.state = HERE
    record.stays = 0
    record.held = 0
    record.empty_s = now_s
    push_event(world.events, world.counters, now_s + setting.empty_s, NODE_EMPTY, node)
    place_pending(world, setting, now_s)


@lean_jit
def node_empty(world: World, setting: Setting, node: int, now_s: float) -> None:
    """An ordered node that has been empty for long is given back."""
    record = world.nodes[node]
    if record.state == HERE and record.stays == 0 and record.empty_s + setting.empty_s <= now_s:
        leave(world, node)
        place_pending(world, setting, now_s)


@lean_jit
def offline_gone(world: World, setting: Setting, place: int, now_s: float) -> None:
    """An offline job's grace is over: its GPUs are free."""
    job = world.offline[place]
    if job.state != ENDING:
        return
    job.state = GONE
    job.gone_s = now_s
    give_gpus(world, setting, job.node, job.gpus, now_s)
    place_pending(world, setting, now_s)


@lean_jit
def leave(world: World, node: int) -> None:
    """A node is no more, nor what lay on its disk."""
    record = world.nodes[node]
    record.state = ABSENT
    record.stays = 0
    record.free = 0
    record.held = 0
    world.has_image[node, :] = 0
    world.has_loaded[node, :] = 0
