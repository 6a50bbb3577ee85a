"""Kubernetes quantities are read exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.errors import InputError
from tiphys.policies.quantity import format_quantity, milli, parse_quantity, to_milli_grid


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", Fraction(2)),
        ("500m", Fraction(1, 2)),
        ("1k", Fraction(1000)),
        ("1Ki", Fraction(1024)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("1e3", Fraction(1000)),
        ("12E2", Fraction(1200)),
        ("1E", Fraction(10**18)),
        ("3u", Fraction(3, 10**6)),
        ("7n", Fraction(7, 10**9)),
        ("-5", Fraction(-5)),
        (0.75, Fraction(3, 4)),
        (60, Fraction(60)),
    ],
)
def test_a_quantity_has_its_exact_value(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "m", "1 k", "1kk", "two", "1,5", "0x10", None, True, [1], "1e"])
def test_what_is_no_quantity_is_an_error_that_says_where(text):
    with pytest.raises(InputError, match=r"file.yaml: spec.target: is not a quantity"):
        parse_quantity(text, "file.yaml", "spec.target")


def test_finer_fractions_than_thousandths_are_rounded_up():
    assert to_milli_grid(parse_quantity("1u")) == 0.001
    assert to_milli_grid(parse_quantity("1000001u")) == 1.001
    assert to_milli_grid(0.3) == 0.3


@given(st.integers(0, 10**14))
def test_a_written_quantity_is_read_back(thousandths):
    value = thousandths / 1000
    assert parse_quantity(format_quantity(value)) == Fraction(thousandths, 1000)
    assert milli(value) == thousandths
