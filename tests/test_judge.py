"""The judge: its statistics on synthetic plays whose truth is known, its rules one by one, and its plays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tests.fluid_platform import SLO, FluidPlatform, hpa, wave
from tiphys.domain.judge import Played, Replicate, judge
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import ObjectiveScore, Scorecard
from tiphys.domain.service import PERTURBATIONS
from tiphys.domain.statistics import (
    Blocks,
    autocorrelation_time,
    independent_blocks,
    ratio_interval,
    student_t_cdf,
    student_t_quantile,
)
from tiphys.domain.users import Level, Users
from tiphys.domain.values import parse
from tiphys.domain.verdict import JudgeRules, Verdict
from tiphys.errors import InputError
from tiphys.policies.differences import differences
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.search import Exam, judge_on
from tiphys.search.judging import traffic_blocks

REPLICATES = tuple(Replicate("real", True) for _ in range(10)) + tuple(Replicate(f"draw-{i}", False) for i in range(20))
LONG = Blocks(block_s=60.0, count=30.0)
NAMES = tuple(p.name for p in PERTURBATIONS)


def card(gpu_seconds: float, met_share: float = 0.95, failed_share: float = 0.0) -> Scorecard:
    objective = ObjectiveScore(metric="ttft", at_most_s=5.0, share=0.9, met_share=met_share, met=met_share >= 0.9)
    nothing: dict[str, float | None] = {}
    return Scorecard(
        requests=1000, finished=1000, failed=0, horizon_s=1800.0, feasible=met_share >= 0.9, slo=(objective,),
        failed_share=failed_share, gpu_seconds=gpu_seconds, replica_seconds=gpu_seconds, cost=None, mean_replicas=4.0,
        max_replicas=8, scale_ups=1, scale_downs=1, ttft_s=nothing, tpot_s=nothing, itl_s=nothing, e2e_s=nothing,
        goodput_per_s=1.0, preemptions=0, pools={}, wall_s=0.0, seed=1,
    )  # fmt: skip


def noisy_logs(rng: np.random.Generator, mean: float, between: float, within: float) -> np.ndarray:
    """Log ratios of GPU-seconds of one experiment: each traffic has its own mean, each seed its own noise."""
    own = {replicate.cluster: rng.normal(mean, between) for replicate in REPLICATES}
    return np.array([own[replicate.cluster] + rng.normal(0, within) for replicate in REPLICATES])


def played(
    policy: HpaPolicy,
    gpu_seconds: float | Sequence[float] = 1000.0,
    met_share: float = 0.95,
    perturbed_share: float = 0.95,
    real_share: float | None = None,
) -> Played:
    gpu = [gpu_seconds] * len(REPLICATES) if isinstance(gpu_seconds, float) else list(gpu_seconds)
    cards = tuple(
        card(g, real_share if replicate.real and real_share is not None else met_share)
        for g, replicate in zip(gpu, REPLICATES, strict=True)
    )
    return Played({"llm": policy}, cards, {name: (card(gpu[0], perturbed_share),) for name in NAMES})


INCUMBENT = hpa(4.0)
OTHER = hpa(6.0)


def verdict(*challengers: Played, incumbent: Played | None = None, blocks: Blocks = LONG) -> Verdict:
    return judge(incumbent or played(INCUMBENT), challengers, REPLICATES, blocks, SLO, differences)


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dof", "at_975", "at_995"), [(1, 12.7062, 63.6567), (2, 4.3027, 9.9248), (5, 2.5706, 4.0321), (20, 2.0860, 2.8453)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(dof: int, at_975: float, at_995: float) -> None:
    assert student_t_quantile(0.975, dof) == pytest.approx(at_975, abs=6e-5)
    assert student_t_quantile(0.995, dof) == pytest.approx(at_995, abs=6e-5)


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 7, 30])
def test_the_closed_form_of_students_t_is_the_integral_of_its_density(dof: int) -> None:
    x = np.linspace(0, 1.7, 20001)
    scale = math.gamma((dof + 1) / 2) / math.sqrt(dof * math.pi) / math.gamma(dof / 2)
    area = float(np.trapezoid(scale * (1 + x * x / dof) ** (-(dof + 1) / 2), x))
    assert student_t_cdf(1.7, dof) == pytest.approx(0.5 + area, abs=1e-8)


@pytest.mark.parametrize(("between", "within"), [(0.03, 0.0), (0.03, 0.03), (0.005, 0.05)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(between: float, within: float) -> None:
    rng = np.random.default_rng(7)
    clusters = [replicate.cluster for replicate in REPLICATES]
    truth, tries, covered = 0.9, 4000, 0
    for _ in range(tries):
        interval = ratio_interval(noisy_logs(rng, math.log(truth), between, within), clusters, 0.95)
        covered += interval.low <= truth <= interval.high
    # three standard errors of a share of 0.95 in 4000 tries are 0.0103
    assert covered / tries == pytest.approx(0.95, abs=0.0125)


def test_an_interval_that_took_seeds_for_traffic_would_be_far_too_sure() -> None:
    rng = np.random.default_rng(8)
    each_its_own = [str(index) for index in range(len(REPLICATES))]
    covered = 0
    for _ in range(1000):
        interval = ratio_interval(noisy_logs(rng, 0.0, 0.03, 0.0), each_its_own, 0.95)
        covered += interval.low <= 1 <= interval.high
    assert covered / 1000 < 0.85


def test_a_skewed_ratio_is_covered_nearly_as_often() -> None:
    rng = np.random.default_rng(9)
    clusters = [replicate.cluster for replicate in REPLICATES]
    covered = 0
    for _ in range(2000):
        own = {c: math.log(0.9) + 0.03 * (rng.exponential() - 1) for c in dict.fromkeys(clusters)}
        interval = ratio_interval(np.array([own[c] for c in clusters]), clusters, 0.95)
        covered += interval.low <= 0.9 <= interval.high
    assert covered / 2000 > 0.91


def test_equal_policies_are_promoted_no_more_often_than_the_confidence_allows() -> None:
    rng = np.random.default_rng(11)
    rules = JudgeRules(min_gain=0.0)
    promoted = 0
    for _ in range(600):
        challenger = played(OTHER, [1000 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.03, 0.02)])
        result = judge(played(INCUMBENT), [challenger], REPLICATES, LONG, SLO, differences, rules)
        promoted += result.decision == "promote"
    # the stated rate is (1 - 0.95) / 2; three standard errors in 600 tries are 0.019
    assert promoted / 600 <= 0.025 + 0.019


def test_the_best_of_five_equal_policies_is_promoted_no_more_often_either() -> None:
    rng = np.random.default_rng(12)
    rules = JudgeRules(min_gain=0.0)
    promoted = 0
    for _ in range(300):
        challengers = [
            played(hpa(5.0 + i), [1000 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.03, 0.02)]) for i in range(5)
        ]
        result = judge(played(INCUMBENT), challengers, REPLICATES, LONG, SLO, differences, rules)
        promoted += result.decision == "promote"
    assert promoted / 300 <= 0.025 + 0.027


def test_a_true_gain_of_a_tenth_is_found_and_equal_policies_never_gain_the_least_gain() -> None:
    rng = np.random.default_rng(13)
    found = false = 0
    for _ in range(200):
        better = played(OTHER, [900 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.03, 0.03)])
        equal = played(OTHER, [1000 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.03, 0.03)])
        found += verdict(better).decision == "promote"
        false += verdict(equal).decision == "promote"
    assert found >= 198
    assert false == 0


def test_a_window_of_white_load_holds_as_many_blocks_as_minutes() -> None:
    load = np.random.default_rng(1).normal(100, 5, 60)
    assert independent_blocks(load, 60.0) == Blocks(block_s=60.0, count=60.0)


def test_the_autocorrelation_time_of_an_ar1_series_is_the_known_one() -> None:
    rng, phi = np.random.default_rng(2), 0.8
    series = [0.0]
    for _ in range(200_000):
        series.append(phi * series[-1] + rng.normal())
    assert autocorrelation_time(np.array(series)) == pytest.approx((1 + phi) / (1 - phi), rel=0.05)


def test_a_straight_trend_does_not_make_a_window_shorter() -> None:
    noise = np.random.default_rng(3).normal(0, 5, 60)
    assert independent_blocks(noise + 100, 60.0).count == independent_blocks(noise + 100 + np.arange(60), 60.0).count


# --- rules ------------------------------------------------------------------------------------------------------------


def test_a_sure_gain_with_the_slo_met_is_promoted_with_its_figures_in_the_reason() -> None:
    result = verdict(played(OTHER, 800.0))
    assert result.decision == "promote"
    assert result.gain.gpu_seconds_ratio == pytest.approx(0.8)
    assert "20.0 % fewer GPU-seconds" in result.reason and "95%" in result.reason
    assert result.changes == ("metrics.0.target",)


def test_a_gain_below_the_least_gain_keeps_the_incumbent() -> None:
    result = verdict(played(OTHER, 975.0))
    assert result.decision == "keep"
    assert "3.0 %" in result.reason


def test_a_dearer_challenger_keeps_the_incumbent() -> None:
    assert verdict(played(OTHER, 1100.0)).decision == "keep"


def test_a_cheap_challenger_that_misses_the_slo_keeps_the_incumbent() -> None:
    result = verdict(played(OTHER, 500.0, met_share=0.89))
    assert result.decision == "keep"
    assert "misses the SLO" in result.reason and "1.00 points" in result.reason


def test_missing_on_the_judged_part_alone_is_a_miss() -> None:
    assert verdict(played(OTHER, 500.0, met_share=0.99, real_share=0.89)).decision == "keep"


def test_missing_on_resampled_traffic_alone_is_a_miss() -> None:
    assert verdict(played(OTHER, 500.0, met_share=0.89, real_share=0.99)).decision == "keep"


def test_a_dearer_challenger_is_promoted_where_the_incumbent_misses_the_slo() -> None:
    result = verdict(played(OTHER, 1300.0), incumbent=played(INCUMBENT, met_share=0.8))
    assert result.decision == "promote"
    assert "which the incumbent misses" in result.reason


def test_nobody_meeting_the_slo_is_infeasible_with_both_misses() -> None:
    result = verdict(played(OTHER, 900.0, met_share=0.88), incumbent=played(INCUMBENT, met_share=0.8))
    assert result.decision == "infeasible"
    assert "2.00 points" in result.reason and "10.00 points" in result.reason


def test_missing_under_a_perturbation_by_more_than_the_incumbent_keeps_the_incumbent() -> None:
    result = verdict(played(OTHER, 800.0, perturbed_share=0.7), incumbent=played(INCUMBENT, perturbed_share=0.8))
    assert result.decision == "keep"
    assert result.reason.startswith(f"under {NAMES[0]} the challenger misses")
    assert not any(row.passed for row in result.robustness)


def test_missing_under_a_perturbation_by_no_more_than_the_incumbent_is_allowed() -> None:
    result = verdict(played(OTHER, 800.0, perturbed_share=0.8), incumbent=played(INCUMBENT, perturbed_share=0.8))
    assert result.decision == "promote"


def test_too_few_independent_blocks_are_too_short_whatever_the_gain() -> None:
    result = verdict(played(OTHER, 500.0), blocks=Blocks(block_s=200.0, count=7.9))
    assert result.decision == "too_short"
    assert "7.9 independent blocks of 200 s" in result.reason


def test_too_few_replicates_are_an_error() -> None:
    with pytest.raises(InputError, match="at least 30"):
        few = Played({"llm": OTHER}, (card(1.0),) * 29, {})
        judge(few, [few], REPLICATES[:29], LONG, SLO, differences)


def test_seeds_on_one_traffic_alone_are_an_error() -> None:
    with pytest.raises(InputError, match="share one traffic"):
        same = played(INCUMBENT)
        judge(same, [same], (Replicate("real", True),) * len(REPLICATES), LONG, SLO, differences)


def test_of_policies_tied_within_noise_the_one_that_differs_least_wins_and_the_rest_is_inert() -> None:
    rng = np.random.default_rng(4)
    far = played(hpa(6.0, low=2, high=6), [800 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.01, 0.01)])
    near = played(hpa(6.0), [802 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.01, 0.01)])
    result = verdict(far, near)
    assert result.decision == "promote"
    assert result.changes == ("metrics.0.target",)
    assert result.inert_numbers == ("replicas.min", "replicas.max")
    assert [rival.tied for rival in result.rivals] == [True]


def test_a_policy_that_is_surely_dearer_ties_with_nobody() -> None:
    rng = np.random.default_rng(5)
    far = played(hpa(6.0, low=2, high=6), [700 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.01, 0.01)])
    near = played(hpa(6.0), [800 * math.exp(x) for x in noisy_logs(rng, 0.0, 0.01, 0.01)])
    result = verdict(far, near)
    assert len(result.changes) == 3
    assert result.inert_numbers == ()


def test_a_cheaper_policy_that_misses_the_slo_does_not_stand_in_the_way_of_one_that_meets_it() -> None:
    result = verdict(played(hpa(9.0), 500.0, met_share=0.7), played(OTHER, 800.0))
    assert result.decision == "promote"
    assert result.gain.gpu_seconds_ratio == pytest.approx(0.8)


def test_the_same_policy_as_challenger_keeps_the_incumbent_without_noise() -> None:
    result = verdict(played(INCUMBENT))
    assert result.decision == "keep"
    assert result.gain.interval == (1.0, 1.0)
    assert result.changes == ()


def test_a_verdict_read_from_its_file_is_the_verdict() -> None:
    result = verdict(played(OTHER, 800.0))
    assert parse(Verdict, result.document()) == result


# --- plays ------------------------------------------------------------------------------------------------------------


def exam() -> Exam:
    judged = wave(seed=50, minutes=20, mean_per_s=6.0)
    real = [Scenario(judged, seed=s) for s in range(10)]
    resampled = [Scenario(wave(seed=100 + i, minutes=20, mean_per_s=6.0), seed=i) for i in range(20)]
    return Exam.of(real, resampled, each=2)


def test_an_exam_pairs_every_play_and_counts_its_traffics() -> None:
    steps: list[tuple[int, int]] = []
    result = judge_on(
        FluidPlatform({"llm": hpa(1.0)}),
        [{"llm": hpa(2.0)}, {"llm": hpa(64.0)}],
        exam(),
        SLO,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert result.judged_on.replicates == 30
    assert result.judged_on.clusters == 21
    assert [row.perturbation for row in result.robustness] == list(NAMES)
    assert steps[-1] == (3 * (30 + 16), 3 * (30 + 16))
    assert result.incumbent.policy["llm"]["metrics"][0]["target"] == 1.0


def test_the_incumbent_is_in_force_again_after_an_exam() -> None:
    platform = FluidPlatform({"llm": hpa(1.0)})
    judge_on(platform, [{"llm": hpa(2.0)}], exam(), SLO)
    assert platform.incumbent() == {"llm": hpa(1.0)}


def test_one_and_two_workers_give_the_same_verdict() -> None:
    alone, together = (
        judge_on(FluidPlatform(), [{"llm": hpa(2.0)}], exam(), SLO, workers=workers).document() for workers in (1, 2)
    )
    assert alone == together


def test_a_closed_loop_holds_a_block_a_minute_of_what_was_played() -> None:
    users = Users(levels=(Level(at_s=0, users=5),), requests_per_user=15)
    looped = Scenario(wave(minutes=2), users=users)
    assert traffic_blocks(looped, JudgeRules(), 600.0) == Blocks(block_s=60.0, count=10.0)
