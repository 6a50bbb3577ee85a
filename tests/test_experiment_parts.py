"""Experiments of several pools, classes, nodes and faults: what belongs together is checked, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiphys.errors import InputError
from tiphys.experiment import Plan, load_experiment


def plan(name: str, **changes: Any) -> Plan:
    return Plan(*load_experiment(name, {key.replace("__", "."): value for key, value in changes.items()}))


def refused(name: str, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        found = plan(name, **changes)
        _ = (found.incumbent, found.spaces, found.tuned)
    return str(caught.value)


def small_rag() -> Plan:
    """An hour of it, with a steady ingest."""
    steady = {"shape": "constant", "per_s": 0.2}
    return plan("rag", traffic__source__duration_s=3600, traffic__others__ingest__source__rate=steady)


# --- routes and classes -----------------------------------------------------------------------------------------------


def test_a_service_of_several_pools_says_its_route_and_one_of_one_pool_does_not() -> None:
    assert "route: is missing" in refused("rag", service__route=None)
    assert "a service of one pool has none" in refused("chat", service__route={"kind": "pd"})


def test_a_hop_to_an_unknown_pool_names_the_nearest() -> None:
    message = refused("rag", service__route__rerank="rerankr")
    assert "hop rerank: unknown pool 'rerankr'; did you mean 'rerank'?" in message


def test_a_pool_that_no_hop_visits_is_an_error() -> None:
    assert "no hop visits pool 'rerank'" in refused("rag", service__route__rerank=None)


def test_traffic_of_an_unknown_class_names_the_nearest() -> None:
    other = {"source": {"kind": "profile", "name": "azure2023-conv"}}
    assert "unknown traffic class 'ingests'; did you mean 'ingest'?" in refused("rag", traffic__others__ingests=other)
    assert "unknown traffic class 'query'" in refused("rag", traffic__others__query=other)


def test_an_objective_of_an_unknown_pool_or_class_is_refused() -> None:
    objective = {"metric": "e2e", "at_most_s": 1, "share": 0.5}
    assert "unknown pool 'lm'" in refused("rag", slo__objectives=[objective | {"pool": "lm"}])
    assert "unknown traffic class 'queri'" in refused("rag", slo__objectives=[objective | {"request_class": "queri"}])
    assert "leave out request_class" in refused(
        "rag", slo__objectives=[objective | {"pool": "llm", "request_class": "query"}]
    )


def test_the_traffic_of_all_classes_is_one_trace_that_ends_with_the_first() -> None:
    found = small_rag()
    assert found.trace.classes == ("query", "ingest")
    assert found.trace.end_s == 3600
    for scenario in (found.whole(), *found.folds(), *found.judged()):
        assert {int(each) for each in np.unique(scenario.trace.class_of)} == {0, 1}


def test_resampled_traffic_draws_each_class_from_its_own_profile() -> None:
    judged = small_rag().judged()
    itself, drawn = judged[0].trace, judged[-1].trace
    for name in ("query", "ingest"):
        lengths = [np.median(each.input_tokens[each.of_class(name)]) for each in (itself, drawn)]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.25), name
        counts = [int(each.of_class(name).sum()) for each in (itself, drawn)]
        assert counts[1] == pytest.approx(counts[0], rel=0.25), name


# --- policies by pool -------------------------------------------------------------------------------------------------


def test_manifests_of_each_pool_have_a_name_and_a_workload_of_their_own() -> None:
    found = plan("rag")
    assert [context.name for context in found.contexts.values()] == ["rag-embed", "rag-rerank", "rag-llm"]
    assert found.contexts["llm"].target.name == "rag-llm"
    assert plan("chat").contexts["llm"].name == "chat-llm"


def test_policies_are_given_by_pool_on_the_command_line_or_in_a_file(tmp_path: Path) -> None:
    found = plan("rag")
    given = found.policy_given("llm=published-keda-running,embed=published-hpa-waiting", "--policy")
    assert [policy.kind for policy in given.values()] == ["hpa", "hpa", "keda"]
    assert given["rerank"] == found.incumbent["rerank"]
    path = tmp_path / "policy.yaml"
    path.write_text("llm: {kind: fixed, replicas: 3}\nembed: published-hpa-waiting\n")
    from_file = found.policy_given(str(path), "--policy")
    assert (from_file["llm"].kind, from_file["embed"]) == ("fixed", given["embed"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("published-hpa-ttft", "does not say for which pool"),
        ("lm=published-hpa-ttft", "unknown pool 'lm', did you mean 'llm'"),
        ("llm=published-hpa-tfft", "published-hpa-ttft"),
        ("llm=", "names no policy"),
    ],
)
def test_a_policy_for_no_pool_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match="--policy") as caught:
        plan("rag").policy_given(text, "--policy")
    assert message in str(caught.value)


def test_a_pool_without_spaces_is_not_searched_and_none_at_all_is_an_error() -> None:
    assert list(plan("rag", search__spaces={"llm": ["hpa-ttft"]}).spaces) == ["llm"]
    assert "nothing to try" in refused("rag", search__spaces={})


def test_a_policy_that_cannot_govern_its_pool_is_refused_with_its_place() -> None:
    message = refused("pd", incumbent__decode="published-keda-nats")
    assert "incumbent.decode.triggers.0" in message and "not fed by a JetStream" in message


# --- nodes and faults -------------------------------------------------------------------------------------------------

NODES = {"tiers": [{"name": "bought", "gpus": 4, "nodes": 2}]}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": "replica_crash", "pool": "lm"}, "faults.0: unknown pool 'lm'; did you mean 'llm'?"),
        ({"kind": "node_gone", "tier": "bougt"}, "faults.0: unknown tier 'bougt'; did you mean 'bought'?"),
        ({"kind": "node_gone", "tier": "bought", "node": 2}, "nodes 0 to 1"),
        ({"kind": "stale_lag", "pool": "llm", "for_s": 5}, "needs a pool whose queue is jetstream"),
    ],
)
def test_a_fault_of_what_is_not_there_is_refused(fault: dict[str, Any], message: str) -> None:
    assert message in refused("chat", cluster__nodes=NODES, faults=[{"at_s": 1} | fault])


def test_a_node_fault_needs_nodes_and_a_fault_after_the_judged_part_never_comes() -> None:
    assert "needs cluster.nodes" in refused("chat", faults=[{"kind": "node_gone", "at_s": 1, "tier": "bought"}])
    late = [{"kind": "replica_crash", "at_s": 5000, "pool": "llm"}]
    assert "faults.0.at_s: comes after the judged part" in refused("chat", faults=late)


def test_faults_come_in_judged_and_perturbed_plays_and_not_where_trials_are_ranked() -> None:
    found = plan("chat", faults=[{"kind": "replica_crash", "at_s": 100, "pool": "llm"}])
    assert all(scenario.faults for scenario in (found.whole(), *found.perturbed(), *found.judged()))
    assert not any(scenario.faults for scenario in found.folds())


def test_nodes_stand_beside_the_settings_and_are_played() -> None:
    found = plan("chat", cluster__nodes=NODES)
    assert found.whole().settings.nodes is not None
    both = {"nodes": NODES}
    assert "say the same" in refused("chat", cluster__nodes=NODES, cluster__settings=both)
    large = refused("chat", cluster__nodes=NODES, service__pools__llm__gpus_per_replica=8)
    assert "no node has more than 4" in large


def test_cost_needs_a_price_somewhere_and_credit_needs_offline_work() -> None:
    assert "needs price_per_gpu_hour" in refused("chat", objective={"minimise": "cost"})
    priced = {"tiers": [NODES["tiers"][0] | {"price_per_gpu_hour": 2.0}]}  # type: ignore[index]
    assert plan("chat", objective={"minimise": "cost"}, cluster__nodes=priced).experiment.objective.minimise == "cost"
    assert "harvested_credit is for offline work" in refused("chat", objective={"harvested_credit": 0.5})


# --- time of day and closed loops -------------------------------------------------------------------------------------


def test_a_window_begins_at_the_time_of_day_that_its_traffic_has() -> None:
    found = plan("chat", traffic__starts_at="23:50")
    first = found.judged()[0]
    assert found.whole().starts_at_s == 23 * 3600 + 50 * 60
    assert first.starts_at_s == pytest.approx((85_800 + found.split_s - 300) % 86_400)
    assert "00:00 to 23:59" in refused("chat", traffic__starts_at="24:00")


def test_a_closed_loop_is_tuned_and_judged_on_one_schedule_with_other_requests() -> None:
    found = plan("sweep")
    folds, judged = found.folds(), found.judged()
    assert len({scenario.users for scenario in (*folds, *judged)}) == 1
    assert len({scenario.seed for scenario in (*folds, *judged)}) == len(folds) + len(judged)
    digests = [scenario.trace.digest() for scenario in judged]
    assert len(set(digests)) == 25 and len(set(digests[:12])) == 1
    assert not {scenario.trace.digest() for scenario in folds} & set(digests)
    assert folds[0].horizon_s == folds[0].warmup_s + 3600


def test_a_closed_loop_takes_neither_copies_nor_other_classes() -> None:
    assert "leave out scale and others" in refused("sweep", traffic__scale=2)


# --- offline work -----------------------------------------------------------------------------------------------------


def test_the_fleet_policy_stands_beside_those_of_the_pools_and_has_no_manifest() -> None:
    found = plan("spot")
    assert list(found.incumbent) == ["llm", "fleet"]
    assert found.incumbent["fleet"].kind == "fleet"
    assert found.manifests(found.incumbent) == found.manifests({"llm": found.incumbent["llm"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"incumbent__fleet": "published-hpa-ttft"}, "is no policy for this place"),
        ({"incumbent__llm": {"kind": "fleet"}}, "is no policy for this place"),
        ({"cluster__nodes__offline": None, "objective": {}}, "cluster.nodes.offline is absent"),
    ],
)
def test_a_fleet_policy_in_the_wrong_place_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refused("spot", **changes)


def test_a_fleet_policy_is_searched_like_any_other() -> None:
    space = {"kind": "fleet", "reserve_gpus": {"between": [0, 4]}, "evict_below_gpus": 0}
    found = plan("spot", search__spaces__fleet=[space])
    assert [dimension.path for dimension in found.spaces["fleet"]["space-1"].dimensions] == ["reserve_gpus"]


def test_the_command_renders_the_manifests_of_every_pool(tmp_path: Path) -> None:
    from tiphys.cli import outcome

    assert outcome(["render", "rag", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"horizontalpodautoscaler-rag-{pool}.yaml" for pool in ("embed", "rerank", "llm")} <= names
