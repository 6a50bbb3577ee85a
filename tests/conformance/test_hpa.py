"""The HPA laws against every vector of the three HPA suites."""

from __future__ import annotations

from tests.conformance.hpa import SUITE
from tests.conformance.vectors import Case, verdict

VECTORS = "hpa_*.json"


def test_the_hpa_answers_as_the_controller_does(case: Case) -> None:
    difference = verdict(SUITE, case)
    assert not difference, difference


def test_a_function_that_no_adapter_knows_is_a_failure() -> None:
    assert "unknown function" in verdict(SUITE, {"id": "x", "function": "no_such_law", "expected": {}})
