"""Traffic made to order: rates are exact in the mean, gaps as asked, lengths as asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.traffic import SyntheticSource, statistics

CONSTANT = {"shape": "constant", "per_s": 5.0}


def source(**changes: Any) -> SyntheticSource:
    document = {
        "kind": "synthetic",
        "duration_s": 1000.0,
        "rate": CONSTANT,
        "input_tokens": {"kind": "fixed", "tokens": 512},
        "output_tokens": {"kind": "fixed", "tokens": 64},
    }
    return parse(SyntheticSource, document | changes, "experiment.yaml")


def drawn(seed: int = 1, **changes: Any) -> Trace:
    return source(**changes).load(seed, Path()).trace


SHAPES: dict[str, tuple[dict[str, Any], dict[tuple[float, float], float]]] = {
    # shape, and by hand the mean number of requests in windows of it
    "constant": (CONSTANT, {(0, 1000): 5000, (200, 300): 500}),
    "ramp up": ({"shape": "ramp", "from_per_s": 0.0, "to_per_s": 10.0}, {(0, 1000): 5000, (0, 500): 1250}),
    "ramp down": ({"shape": "ramp", "from_per_s": 10.0, "to_per_s": 0.0}, {(0, 1000): 5000, (0, 500): 3750}),
    "diurnal": (
        {"shape": "diurnal", "mean_per_s": 5.0, "swing_ratio": 1.0, "period_s": 1000.0, "peak_at_s": 500.0},
        # half a period round the peak holds half of the requests and 1/pi more
        {(0, 1000): 5000, (250, 750): 5000 * (0.5 + 1 / math.pi)},
    ),
    "spikes": (
        {
            "shape": "spikes",
            "base_per_s": 2.0,
            "spikes": [
                {"at_s": 100.0, "duration_s": 50.0, "height_per_s": 20.0},
                {"at_s": 140.0, "duration_s": 20.0, "height_per_s": 10.0},
                {"at_s": 990.0, "duration_s": 100.0, "height_per_s": 8.0},
            ],
        },
        {(0, 1000): 2000 + 1000 + 200 + 80, (100, 160): 120 + 1000 + 200, (160, 990): 1660, (990, 1000): 100},
    ),
    "steps": (
        {"shape": "steps", "steps": [{"at_s": 0, "per_s": 1}, {"at_s": 300, "per_s": 9}, {"at_s": 400, "per_s": 0}]},
        {(0, 300): 300, (300, 400): 900, (400, 1000): 0},
    ),
    "points": (
        {"shape": "points", "points": [{"at_s": 0, "per_s": 0}, {"at_s": 500, "per_s": 8}, {"at_s": 600, "per_s": 2}]},
        {(0, 500): 2000, (0, 250): 500, (500, 600): 500, (600, 1000): 800},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_window_has_the_integral_of_its_rate(name: str) -> None:
    """Mean count over 40 seeds within four standard errors (Poisson) of the integral by hand."""
    shape, windows = SHAPES[name]
    arrivals = [drawn(seed, rate=shape).arrival_s for seed in range(40)]
    for (start_s, stop_s), expected in windows.items():
        mean = np.mean([((at >= start_s) & (at < stop_s)).sum() for at in arrivals])
        assert abs(mean - expected) <= 4 * math.sqrt(expected / 40)


@pytest.mark.parametrize(("cv", "seeds"), [(0.2, 30), (1.0, 30), (3.0, 60)])
def test_gamma_gaps_have_their_variation_and_their_mean_from_the_first_request_on(cv: float, seeds: int) -> None:
    traces = [drawn(seed, gaps={"kind": "gamma", "cv": cv}) for seed in range(seeds)]
    gaps = np.concatenate([np.diff(trace.arrival_s) for trace in traces])
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    # stationary: the first 50 s hold what any 50 s hold; counts disperse by cv^2, more at first sight
    first = np.mean([(trace.arrival_s < 50).sum() for trace in traces])
    assert abs(first - 250) < 4 * math.sqrt(250 * max(cv**2, 0.3) / seeds)


def test_poisson_counts_disperse_as_poisson() -> None:
    trace = drawn(3, duration_s=20_000.0)
    # standard error of the index: sqrt(2 / 20,000) = 0.01
    assert statistics(trace).dispersion_1s == pytest.approx(1.0, abs=0.04)


def test_the_trace_lasts_as_long_as_asked_and_is_the_seeds() -> None:
    assert drawn().end_s == 1000.0
    assert drawn(1).digest() == drawn(1).digest()
    assert drawn(1).digest() != drawn(2).digest()


def lengths(tokens: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return drawn(1, duration_s=10_000.0, input_tokens=tokens).input_tokens


def test_lengths_are_fixed() -> None:
    assert set(lengths({"kind": "fixed", "tokens": 2048})) == {2048}


def test_lengths_are_uniform_ends_included() -> None:
    found = lengths({"kind": "uniform", "low": 3, "high": 6})
    assert np.bincount(found)[3:].tolist() == pytest.approx([len(found) / 4] * 4, rel=0.05)


def test_lengths_are_lognormal_with_median_p95_and_a_cut() -> None:
    found = lengths({"kind": "lognormal", "median": 1000, "p95": 4000, "max": 5000})
    assert np.quantile(found, [0.5, 0.95]).tolist() == pytest.approx([1000, 4000], rel=0.03)
    assert found.max() == 5000


def test_lengths_are_empirical_between_their_quantiles() -> None:
    found = lengths({"kind": "empirical", "quantiles": [[0, 10], [0.5, 100], [0.9, 1000], [1, 1000]]})
    assert np.quantile(found, [0.25, 0.5, 0.7, 0.9]).tolist() == pytest.approx([55, 100, 550, 1000], rel=0.03)
    assert (found.min(), found.max()) == (10, 1000)


LEVELS_NOT_AT_0 = {"shape": "steps", "steps": [{"at_s": 5, "per_s": 1}]}
LEVELS_BACK = {"shape": "points", "points": [{"at_s": 0, "per_s": 1}, {"at_s": 0, "per_s": 2}]}
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"duration_s": -1.0}, "duration_s", "greater than 0"),
    ({"duration_s": float("nan")}, "duration_s", "finite"),
    ({"rate": {"shape": "constant", "per_s": 0}}, "rate.per_s", "greater than 0"),
    ({"rate": {"shape": "square"}}, "rate.shape", "constant, diurnal, points, ramp, spikes, steps"),
    ({"rate": {"shape": "constant", "per_sec": 1.0}}, "rate.per_sec", "did you mean 'per_s'"),
    ({"rate": LEVELS_NOT_AT_0}, "rate.steps", "first level"),
    ({"rate": LEVELS_BACK}, "rate.points", "in order"),
    ({"gaps": {"kind": "gamma", "cv": 0.0}}, "gaps.cv", "greater than 0"),
    ({"input_tokens": {"kind": "uniform", "low": 5, "high": 4}}, "input_tokens", "low is over high"),
    ({"input_tokens": {"kind": "lognormal", "median": 50, "p95": 4}}, "input_tokens", "must not fall"),
    ({"input_tokens": {"kind": "fixed", "tokens": 0}}, "input_tokens.tokens", "greater than or equal to 1"),
    ({"input_tokens": {"kind": "empirical", "quantiles": [[0, 5], [0.9, 7]]}}, "input_tokens", "level 1"),
]


@pytest.mark.parametrize(("change", "key", "says"), FAULTS, ids=[f"{key}: {says}" for _, key, says in FAULTS])
def test_what_cannot_be_is_named_with_its_key(change: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        source(**change)
    assert (caught.value.where, caught.value.key) == ("experiment.yaml", key)
    assert says in str(caught.value)


def test_a_rate_that_brings_nothing_or_too_much_is_refused() -> None:
    silent = {"shape": "steps", "steps": [{"at_s": 0, "per_s": 0}]}
    with pytest.raises(InputError, match="no request arrives"):
        drawn(rate=silent)
    with pytest.raises(InputError, match="too many requests"):
        drawn(duration_s=1e9)
