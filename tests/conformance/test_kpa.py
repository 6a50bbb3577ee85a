"""The KPA laws against every vector of the KPA suite."""

from __future__ import annotations

from tests.conformance.kpa import SUITE
from tests.conformance.vectors import Case, verdict

VECTORS = "kpa*.json"


def test_the_kpa_answers_as_knative_does(case: Case) -> None:
    difference = verdict(SUITE, case)
    assert not difference, difference


def test_a_step_that_differs_is_a_failure() -> None:
    ops = [{"op": "record", "at_s": 5, "value": 2.0}, {"op": "average", "at_s": 5, "expect": 3.0}]
    case = {"id": "x", "title": "wrong", "function": "window_average", "algorithm": "linear", "window_s": 6, "ops": ops}
    assert "2.0, expected 3.0" in verdict(SUITE, case)
