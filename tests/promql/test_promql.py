"""The twin's PromQL against what real Prometheus servers answered, and against the rules in plain Python."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.promql import twin
from tests.promql.rules import DIFFERENCES, PROMETHEUS_2_42, History, Query, answer
from tests.promql.shapes import FUNCTIONS, Shape, buckets, quantile, ratio, series
from tests.promql.vectors import (
    Document,
    Vector,
    by_the_rules,
    differences_of,
    expected_of,
    histories_of,
    read_documents,
    same,
)
from tiphys.compiled import jit
from tiphys.twin.promql import ABSENT, Floats, Value, histogram_quantile, marker_seen_ms, milliseconds

DOCUMENTS = read_documents()
VERSIONS = {document["prometheus"]: document for document in DOCUMENTS}
CASES = [
    pytest.param(document, vector, id=f"{document['prometheus']}-{vector['id']}")
    for document in DOCUMENTS
    for vector in document["vectors"]
]
EXACT = 0.0
EARLY_BY_MS, LATE_BY_MS = 25, 250
"""how well a recording tells when a series is gone: a marker's time is a late timer's, and the server is asked anew and
anew"""


@pytest.mark.parametrize(("document", "vector"), CASES)
def test_the_twin_answers_as_prometheus_3_does(document: Document, vector: Vector) -> None:
    histories = histories_of(document, vector["shape"]["targets"])
    got = twin.answer(vector["shape"], histories, vector["at_ms"], vector["lookback_ms"])
    expected = expected_of(vector)
    if vector["differs"]:
        assert not same(got, expected), f"{vector['promql']}: Prometheus {document['prometheus']} answers as 3 does"
        assert same(by_the_rules(document, vector, frozenset(vector["differs"])), expected), vector["promql"]
    else:
        assert same(got, expected), f"{vector['promql']}: {got}, Prometheus {document['prometheus']} says {expected}"


def test_every_answer_of_prometheus_3_is_met_to_the_last_bit() -> None:
    for document, vector in _vectors_of("3."):
        histories = histories_of(document, vector["shape"]["targets"])
        got = twin.answer(vector["shape"], histories, vector["at_ms"], vector["lookback_ms"])
        assert same(got, expected_of(vector), EXACT), vector["id"]


def test_the_vectors_are_many_and_of_every_kind() -> None:
    kinds = Counter(vector["kind"] for _, vector in _vectors_of("3."))
    assert sum(kinds.values()) >= 300
    assert {
        "left edge",
        "reset",
        "few samples",
        "zero point",
        "stale marker",
        "failed scrapes",
        "vanished target",
    } <= set(kinds)
    assert {"new target", "short lookback", "odd buckets", "mended buckets", "ratio by zero", "absent"} <= set(kinds)
    assert min(kinds.values()) >= 5, kinds
    answers = [expected_of(vector) for _, vector in _vectors_of("3.")]
    assert sum(not answer for answer in answers) >= 20
    assert sum(any(math.isnan(value) for value in answer) for answer in answers) >= 10


def test_prometheus_3_shows_no_rule_of_before_it_and_2_42_shows_each() -> None:
    assert not any(vector["differs"] for _, vector in _vectors_of("3."))
    shown = {rule for _, vector in _vectors_of("2.42") for rule in vector["differs"]}
    assert shown == set(DIFFERENCES) == PROMETHEUS_2_42


def test_what_differs_in_a_recording_is_what_the_recorder_would_find() -> None:
    for document in DOCUMENTS:
        for vector in document["vectors"]:
            assert differences_of(document, vector, document["prometheus"]) == vector["differs"], vector["id"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dropped_target_is_gone_only_when_its_marker_is_written(version: str) -> None:
    dropped = VERSIONS[version]["dropped"]
    assert len(dropped) == 2
    for case in dropped:
        late_ms = case["seen_ms"] - seen_ms(case["marker_ms"], case["interval_ms"])
        assert -EARLY_BY_MS <= late_ms <= LATE_BY_MS, case


def _vectors_of(version: str) -> list[tuple[Document, Vector]]:
    found = [
        (document, vector)
        for name, document in VERSIONS.items()
        if name.startswith(version)
        for vector in document["vectors"]
    ]
    assert found, f"no vectors of Prometheus {version}"
    return found


@jit
def seen_ms(next_scrape_ms: int, interval_ms: int) -> int:
    return marker_seen_ms(next_scrape_ms, interval_ms)


@jit
def stamped(time_s: float) -> int:
    return milliseconds(time_s)


@pytest.mark.parametrize(
    ("time_s", "time_ms"),
    [(0.0, 0), (1.001, 1001), (0.0009999, 0), (4.35, 4350), (86399.9999, 86399999), (1.1 * 3, 3300)],
)
def test_a_timestamp_is_truncated_to_milliseconds(time_s: float, time_ms: int) -> None:
    assert stamped(time_s) == time_ms


# what a ring holds

_MINUTE_MS = 60_000


def _ring(times_ms: Sequence[int], places: int, values: Sequence[float]) -> twin.Rings:
    """A ring of one target after these scrapes; what was never written is zero."""
    rings = twin.Rings(*(np.zeros(shape, kind) for shape, kind in _layout(places)))
    for row, (time_ms, value) in enumerate(zip(times_ms, values, strict=True)):
        rings.time_ms[0, row % places] = time_ms
        rings.values[0, row % places, 0] = value
    rings.written[0] = len(times_ms)
    return rings


def _layout(places: int) -> list[tuple[tuple[int, ...], type]]:
    return [
        ((1, places), np.int64),
        ((1, places), np.int8),
        ((1, places, 1), np.float64),
        ((1,), np.int64),
        ((1,), np.int64),
    ]


def _asked(rings: twin.Rings, function: str, now_ms: int, window_ms: int = _MINUTE_MS) -> Value:
    return twin.over_targets(rings, 1, FUNCTIONS.index(function), 0, now_ms, window_ms, window_ms)


def test_places_that_were_never_written_are_not_seen() -> None:
    rings = _ring([10, 20], 5, [7.0, 9.0])
    assert _asked(rings, "avg_over_time", 30) == (True, 8.0, 20)
    assert _asked(rings, "level", 5) == ABSENT
    assert _asked(_ring([], 5, []), "level", 5) == ABSENT
    assert _asked(_ring([], 5, []), "avg_over_time", 5) == ABSENT


def test_a_row_that_was_overwritten_is_not_seen_again() -> None:
    rings = _ring([10, 20, 30, 40, 50], 3, [1.0, 2.0, 4.0, 8.0, 12.0])
    assert _asked(rings, "avg_over_time", 60) == (True, 8.0, 50)
    assert _asked(rings, "level", 29) == ABSENT
    assert _asked(rings, "level", 30) == (True, 4.0, 30)


def test_an_answer_is_as_new_as_the_newest_sample_behind_it() -> None:
    held = [History([1000, 2000], {"a": [1.0, 2.0]}), History([1500, 1700], {"a": [1.0, 3.0]})]
    rings = twin.rings_of(held, ["a"])
    for function in FUNCTIONS:
        for aggregate in (1, 2, 3):
            asked = (aggregate, FUNCTIONS.index(function), 0, 2100, 5000, 5000)
            assert twin.over_targets(rings, *asked).time_ms == 2000
    older, newer = Value(True, 1.0, 5), Value(True, 2.0, 9)
    assert twin.ratio_of(older, newer) == (True, 0.5, 9)
    assert twin.ratio_of(newer, older) == (True, 2.0, 9)


def test_what_add_rates_answers_is_the_rate_of_every_observation() -> None:
    for document, vector in _vectors_of("3."):
        if vector["shape"]["form"] != "buckets" or len(vector["shape"]["targets"]) != 1:
            continue
        rings, bounds = twin.bucket_rings_of(
            histories_of(document, vector["shape"]["targets"]), vector["shape"]["histogram"]
        )
        rates, lost = np.zeros(bounds.shape[0] + 1), np.zeros(bounds.shape[0] + 1)
        got = twin.summed_rates(rings, vector["at_ms"], vector["shape"]["window_ms"], rates, lost)
        assert [got.value] == expected_of(vector)[-1:] if got.found else not vector["expected"]


def test_counts_may_be_held_as_whole_numbers() -> None:
    rings = _ring([10, 1010, 2010], 4, [7.0, 9.0, 4.0])
    rings.restarted[0] = 3
    whole = rings._replace(values=rings.values.astype(np.int64))
    for function in ("rate", "increase"):
        assert _asked(rings, function, 2500) == _asked(whole, function, 2500)


# against the rules, on what nobody scripted

_GAPS_MS = st.sampled_from([1, 500, 999, 1000, 1000, 1000, 1001, 1100, 2500])
_VALUES = st.one_of(st.integers(0, 50).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))
_BOUNDS = (0.1, 0.5, 2.0)


@st.composite
def histories(draw: st.DrawFn) -> list[History]:
    """One to three targets, with outages; series `a` grows and falls back, `b` does what it likes."""
    return [draw(_history()) for _ in range(draw(st.integers(1, 3)))]


@st.composite
def _history(draw: st.DrawFn) -> History:
    rows = draw(st.integers(1, 12))
    gaps = draw(st.lists(_GAPS_MS, min_size=rows, max_size=rows))
    times = [int(time) for time in np.cumsum(gaps)]
    stale = draw(st.lists(st.sampled_from([False, False, False, True]), min_size=rows, max_size=rows))
    steps = draw(st.lists(st.integers(-3, 6), min_size=rows, max_size=rows))

    def shown(values: list[float]) -> list[float | None]:
        return [None if gone else value for gone, value in zip(stale, values, strict=True)]

    counter = _counter(steps)
    wild = draw(st.lists(_VALUES, min_size=rows, max_size=rows))
    shares = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), min_size=3, max_size=3))
    held = [shown([share * value for value in counter]) for share in shares]
    return History(times, {"a": shown(counter), "b": shown(wild)}, {"h": (_BOUNDS, [*held, shown(counter)])})


def _counter(steps: list[int]) -> list[float]:
    values = [3.0]
    for step in steps[1:]:
        # a negative step is a restart
        values.append(values[-1] + step if step >= 0 else float(-step))
    return values


_windows = st.sampled_from([1, 1000, 1500, 2500, 3300, 5000, 20_000])
_functions = st.sampled_from(["level", "rate", "increase", "delta", "irate", "deriv", "avg_over_time", "max_over_time"])


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    window_ms, function = draw(_windows), draw(_functions)
    name = "a" if function in ("rate", "increase", "irate") else draw(st.sampled_from(["a", "b"]))
    form = draw(st.sampled_from(["series", "series", "ratio", "buckets", "quantile"]))
    if form == "series":
        return series(function, name, "any", window_ms, draw(st.sampled_from(["sum", "avg", "max"])))
    if form == "ratio":
        return ratio(function, name, "a", "any", window_ms)
    if form == "buckets":
        return buckets("h", "any", window_ms)
    return quantile(draw(st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.9, 1.0, 2.0])), "h", "any", window_ms)


@settings(max_examples=400, deadline=None)
@given(histories(), shapes(), st.integers(0, 20_000), st.sampled_from([1000, 4000, 300_000]))
def test_the_twin_answers_by_the_rules(held: list[History], shape: Shape, now_ms: int, lookback_ms: int) -> None:
    by_rules = answer(shape, held, Query(now_ms, shape["window_ms"], lookback_ms))
    assert same(twin.answer(shape, held, now_ms, lookback_ms), by_rules, EXACT)


@settings(max_examples=100, deadline=None)
@given(histories(), st.sampled_from(["rate", "increase"]), _windows, st.integers(0, 20_000))
def test_knowing_the_last_restart_changes_no_answer(
    held: list[History], function: str, window_ms: int, now_ms: int
) -> None:
    shape = series(function, "a", "any", window_ms, "sum")
    rings = twin.rings_of(held, ["a"])
    for target, history in enumerate(held):
        rings.restarted[target] -= len(history.times_ms) - _last_fall(history.samples["a"])
    asked = (1, FUNCTIONS.index(function), 0, now_ms, window_ms, 1)
    value = twin.over_targets(rings, *asked)
    assert ([value.value] if value.found else []) == twin.answer(shape, held, now_ms, 1)


def _last_fall(samples: Any) -> int:
    """The first row of a counter after which it falls no more; 0 when it never does."""
    seen = [(row, value) for row, value in enumerate(samples) if value is not None]
    falls = [row for (_, before), (row, value) in pairwise(seen) if value < before]
    return falls[-1] if falls else 0


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_larger_quantile_is_never_smaller(counts: list[float], one: float, other: float) -> None:
    bounds = np.arange(1.0, len(counts))
    low, high = sorted((one, other))
    lower, higher = (mended_quantile(share, bounds, np.array(counts)) for share in (low, high))
    assert lower <= higher or math.isnan(lower) or math.isnan(higher)


@jit
def mended_quantile(share: float, bounds: Floats, counts: Floats) -> float:
    return histogram_quantile(share, bounds, counts)
