"""The scorecard of routes, nodes, offline work and faults, on recordings worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tiphys.domain.faults import ReplicaCrash, ScrapesFail
from tiphys.domain.nodes import Offline, Tier
from tiphys.domain.offline import score_offline
from tiphys.domain.recording import ITL_BINS, JobTimes, OfflineJobs, PoolRecording, Recording, ReplicaLife
from tiphys.domain.route import Hop, Tokens
from tiphys.domain.scorecard import score
from tiphys.domain.slo import Minimised, Objective, Slo
from tiphys.domain.trace import Trace
from tiphys.errors import InputError

INF = float("inf")
CLASSES = {
    "query": (
        Hop(name="embed", pool="embed"),
        Hop(name="llm", pool="llm", after=("embed",), output=Tokens(of_output=2.0), answers=True),
    ),
    "ingest": (Hop(name="embed", pool="embed"),),
}


def life(*rows: tuple[float, ...], scheduled: list[float] | None = None, tier: list[int] | None = None) -> ReplicaLife:
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return ReplicaLife(
        *columns,
        scheduled_s=None if scheduled is None else np.array(scheduled),
        tier=None if tier is None else np.array(tier, np.int8),
    )


ALWAYS = life((0.0, 0.0, INF, INF))


def pool(of: ReplicaLife = ALWAYS, jobs: JobTimes | None = None) -> PoolRecording:
    return PoolRecording(1, of, np.zeros(0, [("at_s", "f8")]), np.zeros(ITL_BINS, np.int64), jobs)


def recording(ttft_s: list[float], e2e_s: list[float], kinds: list[int] | None = None, **more: object) -> Recording:
    """Requests one a second from 0; `inf` is one that failed."""
    n = len(ttft_s)
    arrival, tokens = np.arange(n, dtype=float), np.full(n, 11, np.int32)
    classes = ("query", "ingest") if kinds else ("request",)
    trace = Trace(arrival, tokens, tokens, "t", float(n), None if kinds is None else np.array(kinds, np.int8), classes)
    finish = arrival + np.array(e2e_s)
    given: dict[str, object] = {"pools": {"llm": pool()}, "warmup_s": 0.0, "horizon_s": float(n), "end_s": float(n)}
    return Recording(
        trace=trace, first_token_s=arrival + np.array(ttft_s), finish_s=finish, failed=~np.isfinite(finish), seed=1,
        **(given | more),  # type: ignore[arg-type]
    )  # fmt: skip


def slo(*objectives: Objective) -> Slo:
    return Slo(objectives=objectives, failed_at_most=1.0)


TTFT = Objective(metric="ttft", at_most_s=1.0, share=0.5)


# --- routes -----------------------------------------------------------------------------------------------------------


def test_an_objective_without_a_class_judges_the_first_one_and_others_need_their_own() -> None:
    pools = {"embed": pool(), "llm": pool()}
    play = recording([0.5, 9, 0.5, 9], [1.0, 10, 1.0, 10], [0, 1, 0, 1], pools=pools, classes=CLASSES)
    card = score(play, slo(TTFT, TTFT.with_(request_class="ingest")))
    assert [each.met_share for each in card.slo] == [1.0, 0.0]
    assert card.ttft_s["p99"] == 0.5
    assert card.requests == 4
    assert {name: (each.requests, each.e2e_s["p50"]) for name, each in card.classes.items()} == {
        "query": (2, 1.0),
        "ingest": (2, 10.0),
    }
    # a request is good by the objectives of its own class
    assert score(play, slo(TTFT)).goodput_per_s == 1.0
    assert card.goodput_per_s == 0.5


def test_an_objective_of_a_pool_judges_its_jobs_from_their_arrival_there() -> None:
    jobs = JobTimes(
        np.array([5.0, 6.0]), np.array([5.5, 9.0]), np.array([6.0, 10.0]), np.zeros(2, bool), np.array([1, 1])
    )
    play = recording([8.0] * 8, [9.0] * 8, pools={"embed": pool(), "llm": pool(jobs=jobs)}, classes={
        "request": CLASSES["query"]
    })  # fmt: skip
    card = score(play, slo(TTFT, TTFT.with_(pool="llm")))
    assert [each.met_share for each in card.slo] == [0.0, 0.5]


def test_tpot_counts_the_tokens_of_the_answering_hop() -> None:
    play = recording(
        [1.0] * 4, [22.0] * 4, pools={"embed": pool(), "llm": pool()}, classes={"request": CLASSES["query"]}
    )
    # 11 tokens asked for, 22 made: 21 gaps in 21 s
    assert score(play, slo(TTFT)).tpot_s["p50"] == 1.0
    assert score(replace(play, classes={}), slo(TTFT)).tpot_s["p50"] == pytest.approx(2.1)


def test_a_class_to_which_nothing_came_keeps_no_promise() -> None:
    play = recording([0.5] * 4, [1.0] * 4, [0, 0, 0, 0], pools={"embed": pool(), "llm": pool()}, classes=CLASSES)
    card = score(play, slo(TTFT, TTFT.with_(request_class="ingest")))
    assert [each.met for each in card.slo] == [True, False]
    assert card.classes["ingest"].ttft_s["mean"] is None


def test_a_class_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'request'"):
        score(recording([0.5], [1.0]), slo(TTFT.with_(request_class="requests")))


# --- nodes and cost ---------------------------------------------------------------------------------------------------

TIERS = (
    Tier(name="bought", gpus=4, nodes=1, price_per_gpu_hour=2.0),
    Tier(name="spot", gpus=4, nodes=1, price_per_gpu_hour=1.0),
)
PLACED = life(
    (0.0, 0.0, INF, INF), (10.0, 40.0, INF, INF), (20.0, INF, 30.0, 30.0),
    scheduled=[0.0, 16.0, INF], tier=[0, 1, -1],
)  # fmt: skip


def test_gpu_time_runs_from_scheduling_and_what_was_never_placed_takes_none() -> None:
    card = score(recording([0.5] * 36, [1.0] * 36, pools={"llm": pool(PLACED)}, tiers=TIERS), slo(TTFT))
    assert card.gpu_seconds == 36 + 20
    assert {name: tier.gpu_seconds for name, tier in card.tiers.items()} == {"bought": 36, "spot": 20}


def test_cost_is_at_the_price_of_the_tier_that_a_replica_runs_on() -> None:
    play = recording([0.5] * 36, [1.0] * 36, pools={"llm": pool(PLACED)}, tiers=TIERS)
    card = score(play, slo(TTFT), Minimised(minimise="cost"))
    assert card.cost == pytest.approx((36 * 2 + 20) / 3600)
    assert card.objective_value(Minimised(minimise="cost")) == card.cost
    assert {name: tier.cost for name, tier in card.tiers.items()} == {
        "bought": pytest.approx(72 / 3600),
        "spot": pytest.approx(20 / 3600),
    }


def test_a_tier_without_a_price_has_the_objectives_and_without_either_there_is_no_cost() -> None:
    free = (TIERS[0], TIERS[1].with_(price_per_gpu_hour=None))
    play = recording([0.5] * 36, [1.0] * 36, pools={"llm": pool(PLACED)}, tiers=free)
    assert score(play, slo(TTFT), Minimised(price_per_gpu_hour=3.0)).cost == pytest.approx((36 * 2 + 20 * 3) / 3600)
    assert score(play, slo(TTFT)).cost is None
    assert score(play, slo(TTFT)).tiers["bought"].cost == pytest.approx(72 / 3600)


# --- offline work -----------------------------------------------------------------------------------------------------

SPEC = Offline(gpus_per_job=2, start_s=10, checkpoint_s=100, grace_s=5)


def offline(spec: Offline, *rows: tuple[float, float, float, bool]) -> OfflineJobs:
    began, told, gone, lost = (np.array(column) for column in zip(*rows, strict=True))
    return OfflineJobs(spec, began, told, gone, lost.astype(bool))


def test_an_evicted_job_keeps_what_it_did_until_its_last_checkpoint() -> None:
    # began at 0, useful from 10, told at 250 (last checkpoint at 200), gone at 255
    work = score_offline(offline(SPEC, (0.0, 250.0, 255.0, False)), 0.0, 1000.0)
    assert work.harvested_gpu_seconds == 2 * 190
    assert work.wasted_gpu_seconds == 2 * 50
    assert work.overhead_gpu_seconds == 2 * (10 + 5)
    assert (work.held_gpu_seconds, work.jobs, work.evicted) == (2 * 255, 1, 1)


def test_a_job_that_saves_when_it_is_told_wastes_nothing_but_one_whose_node_is_lost_does() -> None:
    saving = SPEC.with_(checkpoint_on_sigterm=True)
    told = score_offline(offline(saving, (0.0, 250.0, 255.0, False)), 0.0, 1000.0)
    lost = score_offline(offline(saving, (0.0, 250.0, 250.0, True)), 0.0, 1000.0)
    assert (told.harvested_gpu_seconds, told.wasted_gpu_seconds) == (480, 0)
    assert (lost.harvested_gpu_seconds, lost.wasted_gpu_seconds) == (380, 100)


def test_a_job_that_goes_on_is_harvested_until_the_horizon() -> None:
    work = score_offline(offline(SPEC, (50.0, INF, INF, False)), 100.0, 275.0)
    assert (work.harvested_gpu_seconds, work.wasted_gpu_seconds, work.evicted) == (2 * 175, 0, 0)
    assert work.overhead_gpu_seconds == 0


@pytest.mark.parametrize("seed", range(5))
def test_offline_gpu_seconds_are_conserved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    began = rng.uniform(0, 900, 50)
    told = np.where(rng.random(50) < 0.7, began + rng.exponential(200, 50), INF)
    lost = rng.random(50) < 0.3
    jobs = OfflineJobs(SPEC, began, told, told + np.where(lost, 0, SPEC.grace_s), lost)
    work = score_offline(jobs, 100.0, 800.0)
    parts = (work.harvested_gpu_seconds, work.wasted_gpu_seconds, work.overhead_gpu_seconds)
    assert sum(parts) == pytest.approx(work.held_gpu_seconds)
    cut = [score_offline(jobs, a, b) for a, b in ((100.0, 333.0), (333.0, 800.0))]
    assert sum(each.harvested_gpu_seconds for each in cut) == pytest.approx(work.harvested_gpu_seconds)


def test_harvested_work_is_credited_in_what_is_minimised() -> None:
    jobs = offline(SPEC.with_(gpus_per_job=1), (0.0, INF, INF, False))
    play = recording([0.5] * 36, [1.0] * 36, offline=jobs)
    card = score(play, slo(TTFT), Minimised(price_per_gpu_hour=3.6))
    assert card.offline is not None and card.offline.harvested_gpu_seconds == 26
    assert card.objective_value(Minimised(harvested_credit=0.5)) == 36 - 13
    priced = Minimised(minimise="cost", price_per_gpu_hour=3.6, harvested_credit=0.5)
    assert card.objective_value(priced) == pytest.approx((36 - 13) * 0.001)


# --- faults -----------------------------------------------------------------------------------------------------------


def test_the_damage_of_a_fault_is_told_with_what_was_before_and_when_it_was_over() -> None:
    ttft = np.full(1200, 0.5)
    ttft[300:500] = 9.0
    ttft[290:300] = INF
    crash = ReplicaCrash(kind="replica_crash", at_s=300.0, pool="llm")
    (damage,) = score(recording(ttft.tolist(), (ttft + 1.5).tolist(), faults=(crash,)), slo(TTFT)).faults
    assert (damage.kind, damage.at_s) == ("replica_crash", 300.0)
    assert damage.met_share_before == pytest.approx(290 / 300)
    # half of a minute's requests must be within again
    assert damage.recovered_s == 170.0
    assert damage.met_share_during == 0.0
    # those that were under way failed by it
    assert damage.failed == 10


def test_a_fault_that_nobody_noticed_was_over_at_once_and_one_without_an_end_never() -> None:
    ttft = np.full(600, 0.5)
    scrapes = ScrapesFail(kind="scrapes_fail", at_s=100.0, for_s=200.0, pool="llm")
    (unnoticed,) = score(recording(ttft.tolist(), ttft.tolist(), faults=(scrapes,)), slo(TTFT)).faults
    assert (unnoticed.recovered_s, unnoticed.met_share_during, unnoticed.failed) == (0.0, 1.0, 0)
    ttft[200:] = 9.0
    (lasting,) = score(recording(ttft.tolist(), ttft.tolist(), faults=(scrapes,)), slo(TTFT)).faults
    assert lasting.recovered_s is None
    assert lasting.met_share_during == pytest.approx(100 / 500)
