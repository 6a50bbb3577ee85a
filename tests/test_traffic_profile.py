"""Profiles: what a sample shares with the traffic that its profile was fitted to, within stated tolerances.

Stated for each of the real traces and for single seeds: mean rate 3 %; index of dispersion 15 % at 1 s and 60 s (whole
minutes); minutes as in `MINUTES`; p50, p90, p99 of input and output 5 % (p99 8 % for traces of under 10,000 requests).
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.real_traces import REAL_TRACES, real_trace
from tiphys.documents import parse_yaml, write_atomically
from tiphys.domain.trace import Trace
from tiphys.domain.values import Frozen, parse
from tiphys.errors import InputError
from tiphys.traffic import (
    TrafficProfile,
    fit,
    known_traffic,
    load_traffic_profile,
    sample,
    statistics,
    traffic_profile_text,
)

SEEDS = range(1, 9)
# Root mean square difference of minute rates from the original's, over the mean rate, and (where the shape is more than
# Poisson noise) their correlation.
MINUTES = {
    "azure2023-conv": (0.08, 0.93),
    "azure2023-code": (0.20, 0.97),
    "mooncake-conversation": (0.11, 0.60),
    "mooncake-synthetic": (0.14, None),
    "servegen-mlarge-day8": (0.14, 0.93),
    "servegen-mmid-day3": (0.25, 0.93),
}


@cache
def fitted(name: str) -> TrafficProfile:
    return fit(real_trace(name), name=name)


@cache
def samples(name: str) -> tuple[Trace, ...]:
    seeds = SEEDS if len(real_trace(name)) < 500_000 else SEEDS[:2]
    return tuple(sample(fitted(name), seed) for seed in seeds)


def minutes(trace: Trace, end_s: float | None = None) -> NDArray[np.int64]:
    whole = int((end_s or trace.end_s) // 60)
    return np.bincount((trace.arrival_s // 60).astype(int), minlength=whole)[:whole]


def dispersion(counts: NDArray[np.int64]) -> float:
    return float(counts.var() / counts.mean())


@pytest.mark.parametrize("name", REAL_TRACES)
def test_a_sample_has_the_mean_rate(name: str) -> None:
    for drawn in samples(name):
        assert drawn.end_s == real_trace(name).end_s
        assert len(drawn) == pytest.approx(len(real_trace(name)), rel=0.03)


@pytest.mark.parametrize("name", REAL_TRACES)
def test_a_sample_has_the_dispersion_at_1_s_and_60_s(name: str) -> None:
    original = real_trace(name)
    for drawn in samples(name):
        assert statistics(drawn).dispersion_1s == pytest.approx(statistics(original).dispersion_1s, rel=0.15)
        assert dispersion(minutes(drawn)) == pytest.approx(dispersion(minutes(original)), rel=0.15)


@pytest.mark.parametrize("name", REAL_TRACES)
def test_a_sample_has_the_shape_over_minutes(name: str) -> None:
    original = minutes(real_trace(name))
    most_off, least_correlated = MINUTES[name]
    for drawn in samples(name):
        counts = minutes(drawn)
        assert np.sqrt(np.mean((counts - original) ** 2)) / original.mean() < most_off
        if least_correlated:
            assert np.corrcoef(counts, original)[0, 1] > least_correlated


@pytest.mark.parametrize("name", REAL_TRACES)
@pytest.mark.parametrize("column", ["input_tokens", "output_tokens"])
def test_a_sample_has_the_length_quantiles_and_means(name: str, column: str) -> None:
    original = getattr(statistics(real_trace(name)), column)
    tail = 0.08 if len(real_trace(name)) < 10_000 else 0.05
    for drawn in samples(name):
        found = getattr(statistics(drawn), column)
        # half a token of slack: a median of 13 tokens has no 5 %
        assert found.p50 == pytest.approx(original.p50, rel=0.05, abs=0.5)
        assert found.p90 == pytest.approx(original.p90, rel=0.05)
        assert found.p99 == pytest.approx(original.p99, rel=tail)
        assert found.mean == pytest.approx(original.mean, rel=0.04)


@pytest.mark.parametrize("name", REAL_TRACES)
def test_a_sample_keeps_how_input_and_output_go_together(name: str) -> None:
    for drawn in samples(name):
        found = statistics(drawn).rank_correlation
        assert found == pytest.approx(statistics(real_trace(name)).rank_correlation, abs=0.03)


def test_silent_minutes_stay_silent() -> None:
    silent = minutes(real_trace("azure2023-code")) == 0
    assert silent.sum() == 5
    for drawn in samples("azure2023-code"):
        assert ((minutes(drawn) == 0) == silent).all()


def test_bursts_of_the_real_kind_last_as_long_as_the_real_ones() -> None:
    original = statistics(real_trace("servegen-mmid-day3"))
    for drawn in samples("servegen-mmid-day3"):
        assert statistics(drawn).gap_cv == pytest.approx(original.gap_cv, rel=0.15)
        assert statistics(drawn).count_1s_p99 == pytest.approx(original.count_1s_p99, rel=0.10)


def numbers(value: Frozen) -> list[float]:
    members = [getattr(value, name) for name in type(value).model_fields]
    return [number for member in members for number in (numbers(member) if isinstance(member, Frozen) else [member])]


@pytest.mark.parametrize("name", REAL_TRACES)
def test_the_shipped_profile_is_the_fit_of_its_trace(name: str) -> None:
    shipped, refitted = load_traffic_profile(name), fitted(name)
    assert shipped.rates_per_s == refitted.rates_per_s
    assert shipped.requests == refitted.requests
    assert numbers(shipped.bursts) == pytest.approx(numbers(refitted.bursts), rel=1e-3)
    assert shipped.lengths.input_tokens == refitted.lengths.input_tokens
    assert shipped.lengths.output_tokens == refitted.lengths.output_tokens


# What follows needs no real trace: the profiles are shipped.

DAY = "servegen-mmid-day3"


@pytest.mark.parametrize("name", known_traffic())
def test_every_shipped_profile_says_where_it_is_from_and_is_small(name: str) -> None:
    profile = load_traffic_profile(name)
    assert profile.name == name
    assert all((profile.source, profile.licence, profile.citation, profile.changes))
    assert len(traffic_profile_text(profile).encode()) < 60_000
    drawn = sample(profile, 1, duration_s=1200.0, scale=0.1 if profile.mean_rate_per_s > 100 else 1.0)
    assert len(drawn) > 100


def test_the_same_seed_draws_the_same_trace_and_others_do_not() -> None:
    profile = load_traffic_profile("azure2023-conv")
    assert sample(profile, 7).digest() == sample(profile, 7).digest()
    assert len({sample(profile, seed).digest() for seed in range(20)}) == 20


def test_seeds_draw_independently() -> None:
    """What is left of two samples' 10-s counts round the mean of many samples is not correlated."""
    profile = load_traffic_profile("azure2023-conv")
    counts = np.array([np.histogram(sample(profile, seed).arrival_s, np.arange(0, 3500, 10))[0] for seed in range(40)])
    left = counts - counts.mean(axis=0)
    correlations = np.corrcoef(left)[np.triu_indices(40, 1)]
    # round a common mean the expectation is -1/39; four standard errors of 780 pairs of 349 windows
    assert abs(correlations.mean() + 1 / 39) < 4 / (349 * 780) ** 0.5


@pytest.mark.parametrize("scale", [3.0, 8.0])
def test_scale_lays_independent_copies_over_one_another(scale: int) -> None:
    """Rates times scale; within the minute the index of dispersion of one copy, as of independent copies."""
    profile = load_traffic_profile(DAY)
    window = {"start_s": 36_000.0, "duration_s": 7200.0}
    expected = np.mean([len(sample(profile, seed, **window)) for seed in range(20)])
    drawn = [sample(profile, seed, scale=scale, **window) for seed in range(6)]
    assert np.mean([len(trace) for trace in drawn]) == pytest.approx(scale * expected, rel=0.03)
    found = np.mean([within_minute(trace, 120) for trace in drawn])
    assert found == pytest.approx(profile.bursts.within_minute_1s, rel=0.10)


def within_minute(trace: Trace, whole: int) -> float:
    counts = np.bincount((trace.arrival_s).astype(int), minlength=whole * 60)[: whole * 60].reshape(whole, 60)
    return float((counts.var(axis=1, ddof=1)).sum() / counts.mean(axis=1).sum())


def test_a_fraction_of_a_copy_thins_the_clients_and_keeps_their_bursts() -> None:
    profile = load_traffic_profile(DAY)
    thin = [sample(profile, seed, scale=0.25) for seed in range(3)]
    assert np.mean([len(trace) for trace in thin]) == pytest.approx(profile.requests / 4, rel=0.02)
    found = np.mean([within_minute(trace, 1439) for trace in thin])
    # the clusters of a thin minute are cut short by its small count
    assert 0.6 * profile.bursts.within_minute_1s < found < 1.1 * profile.bursts.within_minute_1s


def test_a_window_is_that_part_of_the_profile_on_its_own_clock() -> None:
    profile = load_traffic_profile("servegen-mlarge-day8")
    rates = np.array(profile.rates_per_s)
    for start_s in (0.0, 30_030.0, 75_600.0):
        drawn = sample(profile, 3, start_s=start_s, duration_s=3600.0)
        first = int(start_s // 60)
        assert drawn.end_s == 3600.0
        assert 0 <= drawn.arrival_s[0] < 5
        assert len(drawn) / 3600 == pytest.approx(rates[first : first + 60].mean(), rel=0.05)


def test_lengths_drift_over_time_as_they_did() -> None:
    """Mean input of the hours: a window is not given the mean of the whole."""
    profile, original = load_traffic_profile("servegen-mlarge-day8"), real_trace("servegen-mlarge-day8")
    hours = range(0, 24, 3)
    real = [original.between(h * 3600, (h + 1) * 3600).input_tokens.mean() for h in hours]
    drawn = [sample(profile, h, start_s=h * 3600.0, duration_s=3600.0).input_tokens.mean() for h in hours]
    overall = original.input_tokens.mean()
    errors = np.abs(np.array(drawn) - real).mean()
    assert errors < 0.5 * np.abs(overall - np.array(real)).mean()


def test_past_its_end_the_profile_begins_anew() -> None:
    profile = load_traffic_profile("azure2023-conv")
    drawn = sample(profile, 2, duration_s=2 * profile.duration_s)
    once = minutes(sample(profile, 2), profile.duration_s)
    again = drawn.arrival_s[drawn.arrival_s >= profile.duration_s] - profile.duration_s
    second = np.histogram(again, np.arange(len(once) + 1) * 60.0)[0]
    assert len(drawn) == pytest.approx(2 * profile.requests, rel=0.03)
    assert np.corrcoef(second, once)[0, 1] > 0.85
    shifted = sample(profile, 2, start_s=3 * profile.duration_s, duration_s=600.0)
    assert len(shifted) == pytest.approx(len(sample(profile, 2, duration_s=600.0)), rel=0.1)


def test_a_million_requests_are_drawn_in_a_second_and_a_half_of_processor_time() -> None:
    profile = load_traffic_profile("servegen-mlarge-day8")
    sample(profile, 0, duration_s=600.0)
    fastest = min(_seconds(profile, seed) for seed in range(3))
    assert fastest < 1.5


def _seconds(profile: TrafficProfile, seed: int) -> float:
    start = time.process_time()
    assert len(sample(profile, seed)) > 950_000
    return time.process_time() - start


def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    profile = load_traffic_profile("azure2023-code")
    path = tmp_path / "code.yaml"
    write_atomically(path, traffic_profile_text(profile))
    assert load_traffic_profile(str(path)) == profile
    assert load_traffic_profile("code.yaml", tmp_path) == profile


def poisson(rate_per_s: float, duration_s: float, seed: int = 1) -> Trace:
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.random(rng.poisson(rate_per_s * duration_s)) * duration_s)
    lengths = rng.integers(1, 1000, (2, len(arrival)))
    return Trace(arrival, lengths[0], lengths[1], "poisson", duration_s)


def test_poisson_traffic_is_fitted_without_clusters() -> None:
    bursts = fit(poisson(5.0, 7200.0)).bursts
    assert (bursts.clustered_share, bursts.fast.mean_size, bursts.slow.mean_size) == (0.0, 1.0, 1.0)
    assert bursts.minute_noise == 1.0


def test_what_was_drawn_is_fitted_as_what_it_was_drawn_from() -> None:
    """Fit, sample, fit: the burstiness comes back."""
    first = load_traffic_profile(DAY)
    second = fit(sample(first, 5))
    assert second.bursts.within_minute_1s == pytest.approx(first.bursts.within_minute_1s, rel=0.05)
    assert second.bursts.dispersion_60s == pytest.approx(first.bursts.dispersion_60s, rel=0.05)
    assert second.bursts.minute_noise == pytest.approx(first.bursts.minute_noise, rel=0.05)
    assert second.lengths.rank_correlation == pytest.approx(first.lengths.rank_correlation, abs=0.02)


def test_even_traffic_is_drawn_as_poisson() -> None:
    arrival = np.arange(0.0, 3600.0, 0.25)
    ones = np.full(len(arrival), 3, dtype=np.int32)
    drawn = sample(fit(Trace(arrival, ones, ones, "even", 3600.0)), 1)
    assert len(drawn) == pytest.approx(len(arrival), rel=0.02)
    assert statistics(drawn).dispersion_1s == pytest.approx(1.0, rel=0.12)
    assert set(drawn.input_tokens) == {3}


def test_few_requests_make_a_profile_too() -> None:
    few = Trace(np.array([1.0, 70.0, 110.0]), np.array([5, 6, 7]), np.array([1, 2, 3]), "few", 180.0)
    drawn = sample(fit(few), 1, scale=100)
    assert len(drawn) == pytest.approx(300, rel=0.02)
    assert set(drawn.output_tokens) <= {1, 2, 3}


@pytest.mark.parametrize("end_s", [60.0, 1e9])
def test_a_trace_too_short_or_long_to_learn_from_is_refused(end_s: float) -> None:
    with pytest.raises(InputError, match="short or long"):
        fit(Trace(np.array([0.0, 1.0]), np.array([1, 1]), np.array([1, 1]), "odd", end_s))


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 0.0}, {"scale": float("nan")}, {"duration_s": -5.0}, {"start_s": -1.0}, {"start_s": 1e6}],
    ids=str,
)
def test_a_window_that_is_none_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError) as caught:
        sample(load_traffic_profile("azure2023-conv"), 1, **wrong)  # type: ignore[arg-type]
    assert caught.value.key in {*wrong, "duration_s"}


def test_a_window_in_which_nothing_arrives_is_refused() -> None:
    profile = load_traffic_profile("azure2023-code")
    silent = profile.rates_per_s.index(0.0)
    with pytest.raises(InputError, match="nothing arrives"):
        sample(profile, 1, start_s=60.0 * silent, duration_s=60.0)


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"rates_per_s": [1.0]}, "", "rates_per_s has 1 entries"),
        ({"rates_per_s": [-1.0] * 59}, "rates_per_s.0", "greater than or equal to 0"),
        ({"rates_per_s": [0.0] * 59}, "", "zero throughout"),
        ({"rate_step_s": 50.0}, "", "whole minutes"),
        ({"requsts": 5}, "requsts", "did you mean 'requests'"),
        ({"kind": "trafic"}, "kind", "traffic-profile"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_profile_is_named_with_its_key(change: dict[str, object], key: str, says: str) -> None:
    document = parse_yaml(traffic_profile_text(load_traffic_profile("azure2023-conv")))[0] | change
    with pytest.raises(InputError) as caught:
        parse(TrafficProfile, document, "p.yaml")
    assert caught.value.key == key
    assert says in str(caught.value)


def test_broken_length_tables_are_refused() -> None:
    document = parse_yaml(traffic_profile_text(load_traffic_profile("azure2023-conv")))[0]
    lengths = document["lengths"]
    for change in (
        {"input_tokens": lengths["input_tokens"][:-1]},
        {"input_tokens": lengths["input_tokens"][::-1]},
        {"output_levels": lengths["output_levels"][::-1]},
        {"output_tokens": []},
        {"input_shift": [0.0]},
    ):
        with pytest.raises(InputError, match=r"p.yaml: lengths"):
            parse(TrafficProfile, {**document, "lengths": lengths | change}, "p.yaml")


def test_an_unknown_profile_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_traffic_profile("azure2023-con", where="chat.yaml", key="traffic.source.name")
    assert str(caught.value).startswith(
        "chat.yaml: traffic.source.name: unknown name in configs/traffic 'azure2023-con'"
    )
    assert "did you mean 'azure2023-conv'" in str(caught.value)
    assert all(name in caught.value.allowed for name in known_traffic())
    with pytest.raises(InputError, match="no such traffic profile"):
        load_traffic_profile("folder/absent.yaml", tmp_path)
