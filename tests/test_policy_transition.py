"""What putting a policy in force takes."""

from __future__ import annotations

from tests.fluid_platform import hpa
from tiphys.domain.platform import ScalingPolicy, Transition
from tiphys.domain.service import ColdStart, ColdStartParts, Envelope, Pool
from tiphys.policies import parse_policy
from tiphys.policies.transition import transition

POOL = Pool(profile="p", gpus_per_replica=2, replicas=Envelope(max=8), cold_start=ColdStart(median_s=90))


def kpa(target: int, low: int = 1) -> ScalingPolicy:
    return parse_policy({"kind": "kpa", "replicas": {"min": low, "max": 8}, "target": target})


def taken(before: ScalingPolicy, after: ScalingPolicy, pool: Pool = POOL) -> Transition:
    return transition({"llm": before}, {"llm": after}, {"llm": pool})


def test_a_change_of_a_knative_policy_is_a_new_revision_whose_pods_start_beside_the_old() -> None:
    assert taken(kpa(16), kpa(32, low=3)) == Transition(seconds=90, gpu_seconds=540, surge_gpus=6, new_revision=True)
    assert taken(hpa(4.0), kpa(16)).new_revision
    assert taken(kpa(16), hpa(4.0)).new_revision


def test_the_same_policy_and_changes_of_other_laws_take_nothing() -> None:
    assert taken(kpa(16), kpa(16)) == taken(hpa(4.0), hpa(8.0)) == Transition()


def test_a_cold_start_in_parts_is_that_of_a_node_that_has_nothing() -> None:
    parts = ColdStartParts(image_pull_s=40, model_load_s=30, model_load_warm_s=5, engine_load_s=20, warm_up_s=10)
    assert taken(kpa(16), kpa(32), POOL.with_(cold_start=ColdStart(parts=parts))).seconds == 100


def test_the_pools_of_a_service_change_side_by_side() -> None:
    both = transition(
        {"a": kpa(16), "b": kpa(16)}, {"a": kpa(8), "b": kpa(8)}, {"a": POOL, "b": POOL.with_(gpus_per_replica=1)}
    )
    assert (both.seconds, both.surge_gpus) == (90, 3)
