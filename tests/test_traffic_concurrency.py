"""Closed-loop traffic: how many users when, and which requests."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.traffic import ConcurrencySource

DRAWN = {
    "input_tokens": {"kind": "lognormal", "median": 500, "p95": 2000},
    "output_tokens": {"kind": "uniform", "low": 1, "high": 99},
}


def source(**members: Any) -> ConcurrencySource:
    return parse(ConcurrencySource, {"kind": "concurrency", "lengths": DRAWN} | members, "sweep.yaml")


def users(found: ConcurrencySource, warmup_s: float = 0.0) -> list[tuple[float, int]]:
    return [(level.at_s, level.users) for level in found.users(warmup_s).levels]


def test_a_range_of_levels_is_a_staircase_and_the_warm_up_goes_before_its_first_step() -> None:
    found = source(levels={"from": 50, "to": 150, "step": 50}, level_s=300)
    assert users(found) == [(0, 50), (300, 100), (600, 150)]
    assert users(found, 120) == [(0, 50), (420, 100), (720, 150)]
    assert found.asked(1, Path(), 120).end_s == 1020


def test_clients_are_so_many_users_each() -> None:
    found = source(clients=[[0, 1], [900, 10], [2700, 1]], users_per_client=16, duration_s=4500)
    assert users(found) == [(0, 16), (900, 160), (2700, 16)]
    assert found.length_s == 4500


def test_a_sweep_of_requests_a_user_draws_exactly_those() -> None:
    found = source(levels=[10, 400], requests_per_user=15)
    assert len(found.load(1, Path()).trace) == 410 * 15
    assert found.users().requests_per_user == 15
    assert found.length_s is None


@pytest.mark.parametrize("lengths", [DRAWN, {"profile": "azure2023-conv"}], ids=["drawn", "profile"])
def test_the_first_requests_stay_the_same_when_more_are_asked_for(lengths: dict[str, Any]) -> None:
    found = source(levels=[50], level_s=600, lengths=lengths)
    few, many = found.trace(3, 100), found.trace(3, 20_000)
    assert (len(few), len(many)) == (100, 20_000)
    assert np.array_equal(few.input_tokens, many.input_tokens[:100])
    assert np.array_equal(few.output_tokens, many.output_tokens[:100])
    assert found.trace(4, 100).digest() != few.digest()
    assert len(np.unique(many.input_tokens)) > 100


def test_a_trace_that_ran_out_goes_on_in_any_process_with_its_class() -> None:
    asked = source(levels=[50], level_s=600).asked(1, Path(), 60, "query")
    assert asked.longer is not None
    more = pickle.loads(pickle.dumps(asked)).longer(2 * len(asked))
    assert len(more) == 2 * len(asked)
    assert np.array_equal(more.input_tokens[: len(asked)], asked.input_tokens)
    assert (more.classes, more.end_s) == (("query",), asked.end_s)


def test_lengths_of_a_profile_have_its_quantiles() -> None:
    from tiphys.traffic import load_traffic_profile, sample

    drawn = source(levels=[50], level_s=600, lengths={"profile": "azure2023-conv"}).trace(1, 20_000)
    sampled = sample(load_traffic_profile("azure2023-conv", Path()), 1)
    for name in ("input_tokens", "output_tokens"):
        mine, theirs = (np.quantile(getattr(each, name), [0.25, 0.5, 0.9]) for each in (drawn, sampled))
        assert mine == pytest.approx(theirs, rel=0.05), name


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "either levels or clients"),
        ({"levels": [5], "clients": [[0, 1]], "level_s": 5}, "either levels or clients"),
        ({"levels": [5]}, "either level_s or requests_per_user"),
        ({"levels": [5], "level_s": 1, "requests_per_user": 2}, "either level_s or requests_per_user"),
        ({"levels": {"from": 50, "to": 120, "step": 50}, "level_s": 5}, "does not lead from 50 to 120"),
        ({"levels": {"from": 50, "too": 120, "step": 50}, "level_s": 5}, "unknown key 'too', did you mean 'to'"),
        ({"levels": [5], "level_s": 5, "lengths": {"profile": "x"} | DRAWN}, "either a profile, or input_tokens"),
        ({"levels": [5], "level_s": 5, "lengths": {}}, "either a profile, or input_tokens"),
        ({"clients": [[5, 1]], "duration_s": 10}, "begin at 0"),
        ({"clients": [[0, 1], [9, 2]], "duration_s": 9}, "after 9 s"),
        ({"clients": [[0, 0]], "duration_s": 9}, "never a client"),
        ({"levels": [5], "level_s": 5, "lengths": {"profile": "azure2023-con"}}, "did you mean 'azure2023-conv'"),
    ],
)
def test_a_wrong_schedule_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        source(**members).load(1, Path())
