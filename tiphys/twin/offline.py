"""Reverse elasticity: offline jobs on GPUs that no replica uses, under the thresholds of a fleet policy.

Jobs have places in `World.offline`, taken in order of admission and never twice. What each was good for follows from
its times (`tiphys.twin.harvest`).
"""

from __future__ import annotations

from typing import NamedTuple

from tiphys.compiled import lean_jit
from tiphys.twin.events import OFFLINE_GONE, push_event
from tiphys.twin.state import FULL, FULL_OF_EVENTS, HERE, IDLE_S, NONE, OFFLINE_JOBS, Floats, World


class FleetRules(NamedTuple):
    """Numbers of a fleet policy and of the offline work."""

    present: bool
    period_s: float
    reserve_gpus: int
    """idle GPUs that are left to the serving pools"""
    evict_below_gpus: int
    """with fewer idle GPUs than this, jobs are evicted until the reserve is whole again"""
    admit_after_s: float
    """how long there must have been more idle GPUs than the reserve"""
    most_gpus: int
    """the least of the borrowing limit and the offline quota"""
    gpus_per_job: int
    grace_s: float


PLACED, ENDING, GONE = 1, 2, 3


@lean_jit
def idle_gpus(world: World) -> int:
    """GPUs of the nodes that are here that nothing holds."""
    total = 0
    for node in range(world.nodes.shape[0]):
        if world.nodes[node].state == HERE:
            total += world.nodes[node].free
    return total


@lean_jit
def offline_gpus(world: World, ending_only: bool) -> int:
    """GPUs that offline jobs hold, or those of them that are on their way out."""
    total = 0
    for place in range(world.counters[OFFLINE_JOBS]):
        job = world.offline[place]
        if job.state == ENDING or (job.state == PLACED and not ending_only):
            total += job.gpus
    return total


@lean_jit
def fleet_tick(world: World, rules: FleetRules, memory_s: Floats, now_s: float) -> None:
    """One look of the fleet's controller: admit into what has long been idle, evict where the reserve is eaten up."""
    idle = idle_gpus(world)
    coming = offline_gpus(world, True)
    if idle + coming < rules.evict_below_gpus:
        evict(world, rules.grace_s, rules.reserve_gpus - idle - coming, now_s)
    if idle <= rules.reserve_gpus:
        memory_s[0] = IDLE_S
        return
    if memory_s[0] == IDLE_S:
        memory_s[0] = now_s
    if now_s - memory_s[0] < rules.admit_after_s:
        return
    while (
        idle - rules.reserve_gpus >= rules.gpus_per_job
        and offline_gpus(world, False) + rules.gpus_per_job <= rules.most_gpus
    ):
        if not start_job(world, rules.gpus_per_job, now_s):
            return
        idle -= rules.gpus_per_job


@lean_jit
def free_node(world: World, gpus: int) -> int:
    """The node that a pod or job goes to: the first tier with room, in it the fullest node that has it; or NONE."""
    best, best_tier, best_free = NONE, NONE, 0
    for node in range(world.nodes.shape[0]):
        record = world.nodes[node]
        if record.state != HERE or record.free < gpus:
            continue
        if best == NONE or (record.tier == best_tier and record.free < best_free):
            best, best_tier, best_free = node, record.tier, record.free
    return best


@lean_jit
def start_job(world: World, gpus: int, now_s: float) -> bool:
    """Begin a job; False when no node has room."""
    node, place = free_node(world, gpus), world.counters[OFFLINE_JOBS]
    if node == NONE:
        return False
    if place == world.offline.shape[0]:
        world.counters[FULL] = FULL_OF_EVENTS
        return False
    world.counters[OFFLINE_JOBS] += 1
    job = world.offline[place]
    job.node = node
    job.state = PLACED
    job.gpus = gpus
    job.start_s = now_s
    job.stop_s = IDLE_S
    job.gone_s = IDLE_S
    record = world.nodes[node]
    record.free -= gpus
    record.held += 1
    record.empty_s = IDLE_S
    return True


@lean_jit
def tell(world: World, place: int, grace_s: float, now_s: float) -> None:
    """A job is told to end."""
    job = world.offline[place]
    job.state = ENDING
    job.stop_s = now_s
    push_event(world.events, world.counters, now_s + grace_s, OFFLINE_GONE, place)


@lean_jit
def evict(world: World, grace_s: float, gpus: int, now_s: float) -> None:
    """Tell the youngest jobs to end until so many GPUs are on their way to being free."""
    freed = 0
    for i in range(world.counters[OFFLINE_JOBS]):
        place = world.counters[OFFLINE_JOBS] - 1 - i
        if freed >= gpus:
            return
        if world.offline[place].state == PLACED:
            freed += world.offline[place].gpus
            tell(world, place, grace_s, now_s)


@lean_jit
def held_by_jobs(world: World, node: int, state: int) -> int:
    """GPUs of a node that offline jobs of a state hold."""
    gpus = 0
    for place in range(world.counters[OFFLINE_JOBS]):
        job = world.offline[place]
        if job.node == node and job.state == state:
            gpus += job.gpus
    return gpus


@lean_jit
def make_way(world: World, grace_s: float, gpus: int, now_s: float) -> bool:
    """Preempt offline jobs for a pod that has no place; False where that would not give it one.

    In the first tier where it would, the node is taken on which the fewest GPUs are taken from jobs, the youngest
    going first. What earlier pods of the same round were promised is not promised again.
    """
    best, best_tier, best_missing = NONE, NONE, 0
    for node in range(world.nodes.shape[0]):
        record = world.nodes[node]
        if record.state != HERE:
            continue
        missing = gpus - (record.free + held_by_jobs(world, node, ENDING) - record.promised)
        if missing > held_by_jobs(world, node, PLACED):
            continue
        missing = max(missing, 0)
        if best == NONE or (record.tier == best_tier and missing < best_missing):
            best, best_tier, best_missing = node, record.tier, missing
    if best == NONE:
        return False
    world.nodes[best].promised += gpus
    for i in range(world.counters[OFFLINE_JOBS]):
        place = world.counters[OFFLINE_JOBS] - 1 - i
        job = world.offline[place]
        if best_missing > 0 and job.node == best and job.state == PLACED:
            best_missing -= job.gpus
            tell(world, place, grace_s, now_s)
    return True
