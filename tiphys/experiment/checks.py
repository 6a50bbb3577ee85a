"""Whether the parts of an experiment speak of the same things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tiphys.domain.faults import (
    ConsumerMissing,
    Fault,
    NodeGone,
    SpotReclaim,
    StaleLag,
)
from tiphys.domain.nodes import Nodes, Tier
from tiphys.domain.queues import JetStreamQueue
from tiphys.domain.route import GraphRoute, PdRoute, RagRoute
from tiphys.domain.service import Pool
from tiphys.errors import nearest
from tiphys.policies.fleet import FLEET


def check_names(key: str, what: str, named: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for the first name that is not known: it says the nearest, and lists the known."""
    names = list(known)
    for name in named:
        if name not in names:
            hint = nearest(name, names)
            listed = f"{_plural(what)}: {', '.join(sorted(names)) or 'none'}"
            raise ValueError(f"{key}: unknown {what} '{name}'; " + "; ".join(part for part in (hint, listed) if part))


def _plural(what: str) -> str:
    return f"{what}es" if what.endswith("s") else f"{what}s"


def check_route(route: RagRoute | PdRoute | GraphRoute | None, pools: Mapping[str, Pool]) -> None:
    """Raises ValueError for a service of several pools without a route, a hop to nowhere, a pool that none visits."""
    if route is None:
        if len(pools) > 1:
            raise ValueError(f"route: is missing, which pools a request passes ({', '.join(pools)})")
        return
    if len(pools) == 1:
        raise ValueError("route: a service of one pool has none, every request goes there")
    hops = [hop for each in route.classes().values() for hop in each]
    for hop in hops:
        check_names(f"route: hop {hop.name}", "pool", [hop.pool], pools)
    idle = [name for name in pools if all(hop.pool != name for hop in hops)]
    if idle:
        raise ValueError(f"route: no hop visits pool '{idle[0]}'")


def check_fleet(pools: Iterable[str], incumbent: Iterable[str], spaces: Iterable[str], nodes: Nodes | None) -> None:
    """Raises ValueError for a pool that has the fleet policy's name, and for a fleet policy without offline work."""
    if FLEET in pools:
        raise ValueError(f"service.pools: '{FLEET}' is the name of the policy of offline work: name the pool otherwise")
    if FLEET in spaces and FLEET not in incumbent:
        raise ValueError(f"search.spaces: there is no incumbent '{FLEET}' that could be tuned")
    if FLEET in incumbent and (nodes is None or nodes.offline is None):
        raise ValueError(f"incumbent: '{FLEET}' governs offline work, and cluster.nodes.offline is absent")


def check_nodes(nodes: Nodes | None, pools: Mapping[str, Pool], faults: Sequence[Fault]) -> None:
    """Raises ValueError for nodes that cannot hold a pool, and for faults of what is not there."""
    tiers = {} if nodes is None else {tier.name: tier for tier in nodes.tiers}
    for tier in tiers.values():
        check_names(f"cluster.nodes: tier {tier.name}: profiles", "pool", tier.profiles, pools)
    if tiers:
        largest = max(tier.gpus for tier in tiers.values())
        for name, pool in pools.items():
            if pool.gpus_per_replica > largest:
                raise ValueError(
                    f"cluster.nodes: a replica of pool '{name}' takes {pool.gpus_per_replica} GPUs, "
                    f"and no node has more than {largest}"
                )
    for place, fault in enumerate(faults):
        _check_fault(f"faults.{place}", fault, tiers, pools)


def _check_fault(key: str, fault: Fault, tiers: Mapping[str, Tier], pools: Mapping[str, Pool]) -> None:
    if isinstance(fault, NodeGone | SpotReclaim):
        if not tiers:
            raise ValueError(f"{key}: {fault.kind} needs cluster.nodes")
        check_names(key, "tier", [fault.tier], tiers)
        if fault.node >= tiers[fault.tier].most_nodes:
            raise ValueError(f"{key}: tier '{fault.tier}' has nodes 0 to {tiers[fault.tier].most_nodes - 1} at most")
        return
    pool = getattr(fault, "pool", None)
    if pool is not None:
        check_names(key, "pool", [pool], pools)
    if isinstance(fault, ConsumerMissing | StaleLag) and not isinstance(pools[fault.pool].queue, JetStreamQueue):
        raise ValueError(f"{key}: {fault.kind} needs a pool whose queue is jetstream, and '{fault.pool}' has none")
