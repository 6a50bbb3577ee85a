"""Which replica takes a job, and where jobs wait that none takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tiphys.compiled import inlined_jit, lean_jit
from tiphys.twin.state import IDLE_S, NONE, Longs, World

LEAST_OUTSTANDING, ROUND_ROBIN, RANDOM, CONNECTION_RANDOM = range(4)


@inlined_jit
def route(world: World, pool: int, job: int) -> int:
    """The pod that takes a job, or NONE when none is ready."""
    of = world.pools[pool]
    count = of.ready
    if count == 0:
        return NONE
    if of.router == LEAST_OUTSTANDING:
        return world.load_tree[pool, 1]
    if of.router == ROUND_ROBIN:
        return next_round(world.ready[pool], of, count)
    return route_at_random(world, pool, job)


@lean_jit
def route_at_random(world: World, pool: int, job: int) -> int:
    """The pod that chance chooses, for each job or for each connection; at least one is ready."""
    of = world.pools[pool]
    count = of.ready
    draw = mixed(of.routing_seed, job)
    if of.router == RANDOM:
        return int(world.ready[pool, draw % np.uint64(count)])
    connection = draw % np.uint64(world.connections.shape[1])
    pod = world.connections[pool, connection]
    if pod == NONE or world.pods[pod].is_removed == 1 or world.pods[pod].is_ready == 0:
        pod = world.ready[pool, mixed(of.routing_seed + 1, job) % np.uint64(count)]
        world.connections[pool, connection] = pod
    return int(pod)


@inlined_jit
def next_round(ready: Longs, of: Any, count: int) -> int:
    """The ready pod after the one that was used last, in order of creation."""
    place = of.last_place + 1
    if place > count or place == 0 or ready[place - 1] != of.last_routed:
        place = 0
        while place < count and ready[place] <= of.last_routed:
            place += 1
    if place >= count:
        place = 0
    of.last_place = place
    of.last_routed = ready[place]
    return of.last_routed


@lean_jit
def least_loaded_below(world: World, pool: int, limit: int) -> int:
    """The ready pod with the fewest jobs if it has fewer than `limit`, or NONE."""
    pod = world.load_tree[pool, 1]
    load = world.load_keys[pool, pod]
    return int(pod) if load != IDLE_S and load < limit else NONE


@lean_jit
def mixed(seed: int, index: int) -> np.uint64:
    """64 well mixed bits of (seed, index): splitmix64's finaliser."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(index + 1) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
