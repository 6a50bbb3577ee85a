"""Random worlds of every shape: what a twin and the second implementation are played on side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.oracle import drawn
from tests.oracle.drawn import pick
from tests.oracle.pools import OraclePool, PoolChances
from tests.oracle.world import Account, AnyPolicy, Chances, OracleService, play
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
from tiphys.domain.nodes import Nodes, Offline, Tier
from tiphys.domain.queues import JetStreamQueue, RouterQueue
from tiphys.domain.route import GraphRoute, Hop, KvTransfer, PdRoute, RagRoute, Tokens, single
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Perturbation, Router
from tiphys.domain.settings import ClusterSettings, HpaSettings, KnativeSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.domain.users import Level, Users
from tiphys.policies.fits import check_fits
from tiphys.policies.fleet import FLEET, FleetPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.policies.kpa.spec import KpaPolicy
from tiphys.policies.within import check_bounds

PODS = 400
"""Creation numbers that chances are drawn for: more than any world creates."""
SHAPES = ("one pool", "rag", "pd", "pd among others", "join", "users", "counted users", "stream", "zero")
_WEIGHTS = (0.22, 0.12, 0.12, 0.08, 0.1, 0.1, 0.06, 0.1, 0.1)
ENCODERS = ("embed", "rerank", "prefill")
Pools = dict[str, OraclePool]
Policies = dict[str, AnyPolicy]


@dataclass(frozen=True)
class RandomWorld:
    """A service, its policies, and what is played on it."""

    shape: str
    service: OracleService
    policies: Mapping[str, AnyPolicy | FleetPolicy]
    scenario: Scenario

    def chances(self) -> Chances:
        """Luck of its own, drawn from the scenario's seed."""
        rng = np.random.default_rng([self.scenario.seed, 5150])
        users, n = self.scenario.users, len(self.scenario.trace)
        think = np.zeros(n)
        if users is not None:
            think = users.think_s * (rng.exponential(size=n) if users.think == "exponential" else np.ones(n))
        pools = {name: self._pool_chances(rng, name) for name in self.service.pools}
        fleet = self.policies.get(FLEET)
        fleet_phase_s = float(rng.random() * fleet.check_s) if isinstance(fleet, FleetPolicy) else 0.0
        return Chances(pools, think.tolist(), fleet_phase_s)

    def _pool_chances(self, rng: np.random.Generator, name: str) -> PoolChances:
        settings, policy = self.scenario.settings, self.policies[name]
        cold = self.service.pools[name].pool.cold_start
        factors = np.exp(cold.log_sigma * rng.standard_normal(PODS)) * self.scenario.perturbation.cold_start
        poll_s = policy.polling_interval_s if isinstance(policy, KedaPolicy) else 1.0
        return PoolChances(
            cold_starts=(factors * (cold.median_s if cold.parts is None else 1.0)).tolist(),
            scrape_phases_s=(rng.random(PODS) * settings.scrape.interval_s).tolist(),
            router_phase_s=float(rng.random() * settings.scrape.interval_s),
            rule_phase_s=float(rng.random() * settings.scrape.rule_interval_s),
            hpa_phase_s=float(rng.random() * (settings.hpa.sync_period_s + settings.hpa.pass_s)),
            keda_phase_s=float(rng.random() * poll_s),
            kpa_phase_s=float(rng.random() * settings.knative.tick_s),
            cpu_phase_s=float(rng.random() * settings.scrape.cpu_resolution_s),
            routing_seed=int(rng.integers(2**31)),
        )

    def check(self) -> None:
        """Raises InputError for a world that could not be."""
        for name, pool in self.service.pools.items():
            check_bounds(self.policies[name], pool.pool.replicas)
            settings, router = self.scenario.settings, self.service.router.kind
            is_encoder = name in ENCODERS
            check_fits(self.policies[name], pool.pool, settings, None, name, router=router, is_encoder=is_encoder)

    def oracle(self) -> Account:
        """The second implementation's account."""
        return play(self.service, self.policies, self.scenario, self.chances())


def random_world(seed: int, with_fleet: bool = False) -> RandomWorld:
    """A world of 20 to 200 requests and some minutes; real-valued times, so that nothing coincides.

    `with_fleet` gives those that have nodes offline work too.
    """
    world = _random_world(seed)
    nodes = world.scenario.settings.nodes
    if nodes is None or not with_fleet:
        return world
    rng = np.random.default_rng([seed, 77002])
    offline = Offline(
        gpus_per_job=int(pick(rng, [1, 1, 2])), start_s=float(rng.uniform(0, 20)),
        checkpoint_s=float(rng.uniform(5, 60)), grace_s=float(rng.uniform(0.5, 30)),
        checkpoint_on_sigterm=bool(rng.random() < 0.3),
    )  # fmt: skip
    reserve = int(rng.integers(0, 3))
    fleet = FleetPolicy(
        reserve_gpus=reserve, evict_below_gpus=int(rng.integers(0, reserve + 1)),
        admit_after_s=float(rng.uniform(0, 30)), check_s=float(rng.uniform(2, 15)),
        borrowing_limit_gpus=pick(rng, [None, 2, 4]), quota_gpus=pick(rng, [None, None, 3]),
    )  # fmt: skip
    settings = world.scenario.settings.with_(nodes=nodes.with_(offline=offline))
    scenario = replace(world.scenario, settings=settings)
    return replace(world, policies={**world.policies, FLEET: fleet}, scenario=scenario)


def _random_world(seed: int) -> RandomWorld:
    rng = np.random.default_rng([seed, 77001])
    shape = str(rng.choice(SHAPES, p=_WEIGHTS))
    duration_s = float(rng.uniform(40, 180))
    pools, policies, classes = _service(rng, shape)
    trace = _trace(rng, duration_s, tuple(classes))
    settings = _settings(rng, shape, pools)
    if settings.nodes is not None:
        pools = {name: _on_tiers(rng, name, pool, settings.nodes) for name, pool in pools.items()}
    scenario = Scenario(
        trace,
        seed=seed,
        warmup_s=float(pick(rng, [0.0, 10.3])),
        drain_s=float(rng.uniform(10, 60)),
        start_replicas={name: _start(rng, policies[name]) for name in pools},
        settings=settings,
        perturbation=Perturbation(step_time=float(pick(rng, [0.8, 1.0, 1.2])), cold_start=float(pick(rng, [0.5, 1.0]))),
        users=_users(rng, shape, duration_s),
        starts_at_s=float(rng.uniform(0, 86_400)),
    )
    scenario = replace(scenario, faults=_faults(rng, shape, pools, settings.nodes, duration_s))
    return RandomWorld(shape, OracleService(pools, _router(rng, pools), classes), policies, scenario)


# --- services


def _service(rng: np.random.Generator, shape: str) -> tuple[Pools, Policies, dict[str, tuple[Hop, ...]]]:
    if shape == "rag":
        return _rag(rng)
    if shape in ("pd", "pd among others"):
        return _pd(rng, alone=shape == "pd")
    if shape == "join":
        return _join(rng)
    kinds = {
        "stream": ("jetstream",), "zero": ("interceptor", "router", "none"), "counted users": ("none", "interceptor"),
    }.get(shape, ("none", "none", "interceptor", "router"))  # fmt: skip
    pool = drawn.oracle_pool(rng, "llm", queue=drawn.waiting_room(rng, kinds), most=int(rng.integers(2, 7)))
    laws: tuple[str, ...] = ("hpa", "hpa", "hpa", "keda", "keda", "schedule", "fixed")
    if pool.pool.queue is None:
        laws = (*laws, "kpa", "kpa", "kpa", "knative-hpa", "knative-hpa")
    to_zero = shape == "zero"
    if to_zero:
        laws = ("kpa",) if pool.pool.queue is None else ("keda", "keda", "hpa")
    elif shape == "stream":
        laws = ("keda", "keda", "keda", "hpa", "fixed")
        to_zero = bool(rng.random() < 0.5)
    law = pick(rng, laws)
    policy = drawn.policy(rng, law, pool, to_zero=to_zero and not (shape == "stream" and law == "hpa"))
    return {"llm": pool}, {"llm": policy}, single("llm")


def _governed(rng: np.random.Generator, pools: Pools) -> Policies:
    policies: Policies = {}
    for name, pool in pools.items():
        laws = ("hpa", "hpa", "keda", "fixed", "schedule") + (("kpa",) if pool.pool.queue is None else ())
        policies[name] = drawn.policy(rng, pick(rng, laws), pool, is_encoder=name in ENCODERS)
    return policies


def _queued_pool(rng: np.random.Generator, name: str) -> OraclePool:
    queue = drawn.waiting_room(rng, ("none", "interceptor", "router"))
    return drawn.oracle_pool(rng, name, queue=queue, most=int(rng.integers(2, 5)), is_encoder=name in ENCODERS)


def _rag(rng: np.random.Generator) -> tuple[Pools, Policies, dict[str, tuple[Hop, ...]]]:
    route = RagRoute(
        kind="rag", rerank=pick(rng, ["rerank", "rerank", None]), rewrite=pick(rng, ["llm", None]),
        rewrite_template_tokens=11, rewrite_output_tokens=5, search_s=float(rng.uniform(0.01, 0.4)),
        vdb_top_k=int(rng.integers(3, 6)), reranker_top_k=int(rng.integers(1, 4)),
        chunk_tokens=int(rng.integers(10, 40)), template_tokens=int(rng.integers(0, 30)),
        ingest_class=pick(rng, ["ingest", None]),
    )  # fmt: skip
    classes = route.classes()
    names = dict.fromkeys(hop.pool for hops in classes.values() for hop in hops)
    pools = {name: _queued_pool(rng, name) for name in names}
    return pools, _governed(rng, pools), classes


def _transfer(rng: np.random.Generator) -> KvTransfer:
    bytes_per_token = int(rng.integers(1, 200)) * 10_000 if rng.random() < 0.5 else None
    speed = drawn.log_uniform(rng, 0.05, 25)
    return KvTransfer(
        gigabytes_per_s=speed,
        latency_s=float(rng.uniform(0.0005, 0.3)) * float(pick(rng, [1, 1, 10])),
        bytes_per_token=bytes_per_token,
    )


def _pd(rng: np.random.Generator, alone: bool) -> tuple[Pools, Policies, dict[str, tuple[Hop, ...]]]:
    pools = {name: _queued_pool(rng, name) for name in ("prefill", "decode")}
    if alone:
        return pools, _governed(rng, pools), PdRoute(kind="pd", transfer=_transfer(rng)).classes()
    prefill = Hop(name="prefill", pool="prefill", output=Tokens(fixed=1))
    decode = Hop(
        name="decode", pool="decode", after=("prefill",), kv_from="prefill", transfer=_transfer(rng), answers=True,
        delay_s=float(pick(rng, [0.0, 0.037])),
    )  # fmt: skip
    checked = Hop(name="check", pool="decode", after=("decode",), input=Tokens(of_output=1), output=Tokens(fixed=2))
    plain = Hop(name="plain", pool="decode")
    hops = {"answered": (prefill, decode, checked), "plain": (plain,)}
    return pools, _governed(rng, pools), GraphRoute(kind="graph", hops=hops).classes()


def _join(rng: np.random.Generator) -> tuple[Pools, Policies, dict[str, tuple[Hop, ...]]]:
    names = ("first", "left", "right")
    pools = {name: _queued_pool(rng, name) for name in names}
    delays = [float(pick(rng, [0.0, rng.uniform(0.01, 2)])) for _ in range(4)]
    half, answered = Tokens(of_input=0.5, fixed=3), int(rng.integers(0, 4))
    parts = [
        Hop(name="ask", pool="first", delay_s=delays[0], output=Tokens(fixed=2), answers=answered == 0),
        Hop(name="left", pool="left", after=("ask",), delay_s=delays[1], input=half, answers=answered == 1),
        Hop(
            name="right", pool=pick(rng, ["right", "left"]), after=("ask",), delay_s=delays[2], output=Tokens(fixed=1),
            sequences=int(rng.integers(1, 4)), answers=answered == 2,
        ),
        Hop(name="both", pool="right", after=("left", "right"), delay_s=delays[3], input=half),
    ]  # fmt: skip
    hops = {"joined": tuple(parts), "two ways": (parts[0].with_(answers=True), Hop(name="beside", pool="left"))}
    return pools, _governed(rng, pools), GraphRoute(kind="graph", hops=hops).classes()


def _router(rng: np.random.Generator, pools: Pools) -> Router:
    queues = [pool.pool.queue for pool in pools.values()]
    if any(isinstance(queue, RouterQueue | JetStreamQueue) for queue in queues) or rng.random() < 0.7:
        return Router()
    return Router(kind="round_robin")


# --- scenarios


def _trace(rng: np.random.Generator, duration_s: float, classes: tuple[str, ...]) -> Trace:
    n = int(rng.integers(20, 201) if len(classes) == 1 else rng.integers(20, 90))
    weights = rng.random(6) ** 3
    part = rng.choice(6, n, p=weights / weights.sum())
    arrival = np.sort((part + rng.random(n)) * duration_s / 6)
    inputs = np.clip(rng.lognormal(3.7, 0.8, n), 1, 190).astype(int)
    outputs = np.clip(rng.lognormal(float(pick(rng, [1.5, 2.5, 3.5])), 0.7, n), 1, 110).astype(int)
    if rng.random() < 0.3:
        outputs[rng.integers(n)] = 1
    if rng.random() < 0.15:
        outputs[rng.integers(n)] = 20_001  # what hardly any replica can ever hold
    of = rng.integers(0, len(classes), n).astype(np.int8) if len(classes) > 1 else None
    return Trace(arrival, inputs, outputs, "random", duration_s, of, classes)


def _settings(rng: np.random.Generator, shape: str, pools: Pools) -> ClusterSettings:
    nodes = _nodes(rng, pools) if rng.random() < 0.4 else None
    return ClusterSettings(
        hpa=HpaSettings(
            sync_period_s=float(pick(rng, [5.0, 15.0])), pass_s=float(rng.uniform(0.01, 0.5)),
            downscale_stabilization_s=float(pick(rng, [20.0, 60.0, 300.0])),
            cpu_initialization_period_s=float(pick(rng, [20.0, 300.0])),
            initial_readiness_delay_s=float(pick(rng, [5.0, 30.0])),
            configurable_tolerance=bool(rng.random() < 0.8), scale_to_zero=shape == "zero" or bool(rng.random() < 0.2),
        ),
        scrape=ScrapeSettings(
            interval_s=float(pick(rng, [2.0, 5.0, 15.0])), lookback_s=float(pick(rng, [12.0, 300.0])),
            rule_interval_s=float(pick(rng, [5.0, 30.0])), cpu_resolution_s=float(pick(rng, [7.3, 15.1])),
        ),
        knative=KnativeSettings(
            scale_to_zero_grace_s=float(rng.uniform(3, 30)), initial_scale=int(pick(rng, [1, 1, 2])),
            max_scale_up_rate=float(pick(rng, [1.5, 1000.0])), max_scale_down_rate=float(pick(rng, [1.2, 2.0])),
            progress_deadline_s=int(pick(rng, [20, 600])),
        ),
        nodes=nodes,
    )  # fmt: skip


def _nodes(rng: np.random.Generator, pools: Pools) -> Nodes:
    tiers = []
    for number in range(int(rng.integers(1, 3))):
        nodes = int(rng.integers(0 if number else 1, 4))
        tiers.append(
            Tier(
                name=f"tier{number}", gpus=int(pick(rng, [2, 3, 4])), nodes=nodes,
                max_nodes=max(nodes, 1) + int(rng.integers(0, 3)), provision_s=float(rng.uniform(5, 60)),
                price_per_gpu_hour=float(rng.uniform(1, 5)),
                profiles={name: f"{name} on tier{number}" for name in pools if rng.random() < 0.3},
            )
        )  # fmt: skip
    quota = int(rng.integers(3, 9)) if rng.random() < 0.3 else None
    return Nodes(
        tiers=tuple(tiers), quota_gpus=quota, empty_s=float(rng.uniform(5, 60)), warm_cache=bool(rng.random() < 0.3)
    )


def _on_tiers(rng: np.random.Generator, name: str, pool: OraclePool, nodes: Nodes) -> OraclePool:
    least = pool.pool.kv_capacity_tokens or 0
    profiles = {
        tier.name: drawn.profile(rng, tier.profiles[name], least + int(rng.integers(0, 500)))
        for tier in nodes.tiers
        if name in tier.profiles
    }
    return replace(pool, tier_profiles=profiles)


def _start(rng: np.random.Generator, policy: AnyPolicy) -> int:
    if isinstance(policy, KedaPolicy | KpaPolicy) and policy.replicas.min == 0 and rng.random() < 0.4:
        return 0
    if isinstance(policy, HpaPolicy) and rng.random() < 0.3:
        return max(policy.replicas.min, 1)
    return int(rng.integers(1, 4))


def _users(rng: np.random.Generator, shape: str, duration_s: float) -> Users | None:
    if shape not in ("users", "counted users"):
        return None
    counted = shape == "counted users"
    starts = [0.0, *np.sort(rng.uniform(5, duration_s, int(rng.integers(0, 4)))).tolist()]
    levels = tuple(Level(at_s=at_s, users=int(rng.integers(1 if counted else 0, 9))) for at_s in starts)
    if max(level.users for level in levels) == 0:
        levels = (Level(at_s=0.0, users=3),)
    return Users(
        levels=levels, think_s=float(pick(rng, [0.0, rng.uniform(0.5, 8)])),
        think=pick(rng, ["constant", "exponential"]),
        ramp_s=float(pick(rng, [0.0, rng.uniform(1, 15)])), retry_s=float(rng.uniform(0.5, 5)),
        requests_per_user=int(rng.integers(1, 8)) if counted else None,
    )  # fmt: skip


def _faults(
    rng: np.random.Generator, shape: str, pools: Pools, nodes: Nodes | None, duration_s: float
) -> tuple[Fault, ...]:
    if rng.random() < 0.4:
        return ()
    kinds = ["replica_crash", "scrapes_fail", "metrics_api_error", "prometheus_down", "slow_replica"]
    if shape != "counted users":
        kinds.append("cold_start_never_ends")
    if nodes is not None:
        kinds += ["node_gone", "spot_reclaim"]
    if shape == "stream":
        kinds += ["consumer_missing", "stale_lag"] * 2
    if shape.startswith("pd"):
        kinds += ["replica_crash"] * 3
    chosen = dict.fromkeys(str(pick(rng, kinds)) for _ in range(int(rng.integers(1, 5))))
    return tuple(_fault(rng, kind, pools, nodes, duration_s) for kind in chosen)


def _fault(rng: np.random.Generator, kind: str, pools: Pools, nodes: Nodes | None, duration_s: float) -> Fault:
    at_s, pool = float(rng.uniform(2, duration_s * 0.9)), str(pick(rng, list(pools)))
    lasting: dict[str, Any] = {"at_s": at_s, "for_s": float(rng.uniform(5, 60))}
    if kind == "replica_crash":
        return ReplicaCrash(kind="replica_crash", at_s=at_s, pool=pool, count=int(rng.integers(1, 3)))
    if kind == "scrapes_fail":
        return ScrapesFail(kind="scrapes_fail", pool=pool, **lasting)
    if kind == "metrics_api_error":
        return MetricsApiError(kind="metrics_api_error", **lasting)
    if kind == "prometheus_down":
        return PrometheusDown(kind="prometheus_down", **lasting)
    if kind == "slow_replica":
        return SlowReplica(kind="slow_replica", pool=pool, factor=float(rng.uniform(1.5, 6)), **lasting)
    if kind == "cold_start_never_ends":
        return ColdStartNeverEnds(kind="cold_start_never_ends", pool=pool, **lasting)
    if kind == "consumer_missing":
        return ConsumerMissing(kind="consumer_missing", pool=pool, **lasting)
    if kind == "stale_lag":
        return StaleLag(kind="stale_lag", pool=pool, **lasting)
    assert nodes is not None
    tier = nodes.tiers[int(rng.integers(len(nodes.tiers)))]
    node = int(rng.integers(tier.most_nodes))
    if kind == "node_gone":
        return NodeGone(kind="node_gone", at_s=at_s, tier=tier.name, node=node)
    return SpotReclaim(
        kind="spot_reclaim", at_s=at_s, tier=tier.name, node=node, notice_s=float(rng.uniform(1, 60))
    )  # fmt: skip
