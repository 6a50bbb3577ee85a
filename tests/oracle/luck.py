"""The luck of a scenario as the twin draws it, as plain numbers for the second implementation."""

from __future__ import annotations

from collections.abc import Callable

from tests.oracle.pools import PoolChances
from tests.oracle.world import Chances
from tests.oracle.worlds import PODS, RandomWorld
from tiphys.policies.fleet import FLEET, FleetPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.twin import randomness


def shared_chances(world: RandomWorld, mixed: Callable[[int, int], int]) -> Chances:
    """What the scenario's seed stands for; `mixed` is the twin's mixing of a seed with a number."""
    scenario, fleet = world.scenario, world.policies.get(FLEET)
    pools = {name: _pool_chances(world, name, place) for place, name in enumerate(world.service.pools)}
    think_s = [] if scenario.users is None else (
        randomness.think_times_s(scenario.users, scenario.seed, len(scenario.trace)).tolist()
    )  # fmt: skip
    phase_s = randomness.fleet_phase_s(fleet.check_s, scenario.seed) if isinstance(fleet, FleetPolicy) else 0.0
    return Chances(pools, think_s, phase_s, mixed)


def _pool_chances(world: RandomWorld, name: str, place: int) -> PoolChances:
    scenario, policy = world.scenario, world.policies[name]
    settings, seed = scenario.settings, scenario.seed
    scrape, hpa, knative = settings.scrape, settings.hpa, settings.knative
    cold_start = world.service.pools[name].pool.cold_start
    poll_s = policy.polling_interval_s if isinstance(policy, KedaPolicy) else 1.0
    return PoolChances(
        cold_starts=randomness.cold_starts_s(cold_start, scenario.perturbation.cold_start, seed, PODS, place).tolist(),
        scrape_phases_s=randomness.scrape_phases_s(scrape.interval_s, scrape.phase_s, seed, PODS, place).tolist(),
        router_phase_s=randomness.router_phase_s(scrape.interval_s, scrape.phase_s, seed, place),
        rule_phase_s=randomness.rule_phase_s(scrape.rule_interval_s, seed, place),
        hpa_phase_s=randomness.hpa_phase_s(hpa.sync_period_s + hpa.pass_s, hpa.phase_s, seed, place),
        keda_phase_s=randomness.keda_phase_s(poll_s, settings.keda.phase_s, seed, place),
        kpa_phase_s=randomness.kpa_phase_s(knative.tick_s, knative.phase_s, seed, place),
        cpu_phase_s=randomness.cpu_phase_s(scrape.cpu_resolution_s, seed, place),
        routing_seed=randomness.routing_seed(seed, place),
    )
