"""The twin against the second implementation on random worlds: every shape of service, every law, every fault."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oracle.agreement import differences, oracle_of, twin_of
from tests.oracle.worlds import random_world

WORLDS = settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
FEWER = settings(WORLDS, max_examples=60)
seeds = st.integers(0, 10**6)


@WORLDS
@given(seeds)
def test_the_second_implementation_sees_the_same_requests_replicas_and_decisions(seed: int) -> None:
    world = random_world(seed)
    assert not differences(twin_of(world).play(world.scenario), oracle_of(world))


@FEWER
@given(seeds)
def test_so_it_does_of_the_path_that_takes_every_iteration(seed: int) -> None:
    world = random_world(seed)
    assert not differences(twin_of(world, jump=False).play(world.scenario), oracle_of(world))


@FEWER
@given(seeds)
def test_so_it_does_with_offline_work_beside_the_replicas(seed: int) -> None:
    world = random_world(seed, with_fleet=True)
    assert not differences(twin_of(world).play(world.scenario), oracle_of(world))
