"""The numbers of a trace: by hand, and against the published table of the real traces."""

from __future__ import annotations

import numpy as np
import pytest

from tests.real_traces import trace_file
from tiphys.domain.trace import Trace
from tiphys.errors import InputError
from tiphys.traffic import open_trace, show_text, statistics

# n, duration, mean rate, 1-s p99 and max, 60-s min p99 max, gap cv, dispersion 1 s and 60 s,
# input mean p50 p99, output mean p50 p99
TABLE = {
    "azure2023-conv": (
        19_366, 3501.7, 5.530, 13, 16, 3.18, 8.19, 8.45, 1.09, 1.39, 20.6, 1155, 1020, 4142, 211, 129, 601,
    ),
    "azure2023-code": (
        5353, 1705.8, 3.138, 30, 67, 0.00, 10.06, 10.53, 13.64, 14.2, 182, 2028, 1465, 7436, 28, 13, 246,
    ),
    "mooncake-conversation": (
        12_031, 3537.0, 3.401, 17, 28, 2.40, 4.12, 4.12, 3.03, 7.89, 2.85, 12_035, 6909, 85_400, 343, 350, 1118,
    ),
    "mooncake-synthetic": (
        3993, 1022.0, 3.907, 9, 13, 3.47, 4.51, 4.55, 1.01, 1.09, 13.0, 15_325, 11_587, 66_456, 149, 69, 768,
    ),
    "servegen-mlarge-day8": (
        998_050, 86_399.9, 11.552, 34, 120, 3.97, 21.92, 24.87, 1.37, 4.28, 92.3, 1109, 803, 5838, 82, 46, 553,
    ),
    "servegen-mmid-day3": (
        211_192, 86_399.5, 2.444, 29, 107, 0.18, 7.58, 12.88, 2.36, 12.6, 68.3, 377, 179, 3045, 53, 33, 319,
    ),
}  # fmt: skip
# Half a unit of the last printed digit; token figures were printed whole, some cut rather than rounded.
PRINTED = (0, 0.05, 0.0005, 0.5, 0, 0.005, 0.005, 0.005, 0.005, 0.05, 0.5, 0.5, 0.5, 1, 0.5, 0.5, 1)


@pytest.mark.parametrize("name", TABLE)
def test_the_numbers_are_those_of_the_published_table(name: str) -> None:
    found = statistics(open_trace(trace_file(name)).trace)
    numbers = (
        found.requests, found.duration_s, found.mean_rate_per_s, found.count_1s_p99, found.count_1s_max,
        found.rate_60s_min_per_s, found.rate_60s_p99_per_s, found.rate_60s_max_per_s, found.gap_cv,
        found.dispersion_1s, found.dispersion_60s,
        found.input_tokens.mean, found.input_tokens.p50, found.input_tokens.p99,
        found.output_tokens.mean, found.output_tokens.p50, found.output_tokens.p99,
    )  # fmt: skip
    for number, published, half_digit in zip(numbers, TABLE[name], PRINTED, strict=True):
        assert number == pytest.approx(published, abs=half_digit + 1e-6, rel=0)


def by_hand() -> Trace:
    arrival = np.array([10.0, 10.25, 10.5, 12.0, 13.5])
    return Trace(arrival, np.array([1, 2, 3, 4, 10]), np.array([5, 5, 4, 3, 1]), "by hand")


def test_a_small_trace_is_as_reckoned_by_hand() -> None:
    found = statistics(by_hand())
    # counted from the first request: 3, 0, 1, 1 in the four seconds; mean 1.25, variance 1.1875
    assert found.duration_s == 3.5
    assert found.mean_rate_per_s == pytest.approx(5 / 3.5)
    assert found.dispersion_1s == pytest.approx(1.1875 / 1.25)
    assert (found.count_1s_max, found.dispersion_60s) == (3, 0.0)
    # gaps 0.25, 0.25, 1.5, 1.5: mean 0.875, deviation 0.625
    assert found.gap_cv == pytest.approx(0.625 / 0.875)
    assert (found.input_tokens.mean, found.input_tokens.p50, found.input_tokens.max) == (4.0, 3.0, 10)
    # ranks 1..5 against 4.5, 4.5, 3, 2, 1: covariance -1.9, deviations sqrt(2) and sqrt(1.9)
    assert found.rank_correlation == pytest.approx(-1.9 / (2 * 1.9) ** 0.5)


def test_one_request_has_statistics() -> None:
    found = statistics(Trace(np.array([3.0]), np.array([7]), np.array([2])))
    assert (found.requests, found.duration_s, found.mean_rate_per_s, found.gap_cv) == (1, 0.0, 0.0, 0.0)


def test_a_trace_too_long_to_count_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        statistics(Trace(np.array([0.0, 1e12]), np.array([1, 1]), np.array([1, 1])))


def test_the_picture_shows_the_rate_and_the_numbers() -> None:
    arrival = np.sort(np.concatenate([np.arange(0, 100, 0.5), np.arange(50, 100, 0.1)]))
    ones = np.full(len(arrival), 12, dtype=np.int32)
    text = show_text(Trace(arrival, ones, ones, "two levels", 100.0), width=40, height=6)
    lines = text.splitlines()
    plot = [line.partition("│")[2] for line in lines[1:7]]
    assert lines[0] == "two levels: requests/s over 100.0 s"
    assert all(len(row) == 40 for row in plot)
    assert plot[0][:20].strip() == ""  # the low half does not reach the top row, the high half does
    assert "█" in plot[0][20:]
    assert plot[-1] == "█" * 40
    assert "700" in text
    assert "mean 12, p50 12, p90 12, p99 12, max 12" in text
