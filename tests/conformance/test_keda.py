"""The KEDA laws against every vector of the KEDA suite."""

from __future__ import annotations

from tests.conformance.keda import SUITE
from tests.conformance.vectors import Case, verdict

VECTORS = "keda*.json"


def test_keda_answers_as_the_operator_does(case: Case) -> None:
    difference = verdict(SUITE, case)
    assert not difference, difference


def test_a_function_that_no_adapter_knows_is_a_failure() -> None:
    assert "unknown function" in verdict(SUITE, {"id": "x", "function": "no_such_law", "expected": {}})
