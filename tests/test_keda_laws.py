"""KEDA's arithmetic where no vector speaks: properties, stories, and what one is told about a wrong formula."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.compiled import jit
from tiphys.errors import InputError
from tiphys.policies.keda import fallback as f
from tiphys.policies.keda import formula as fm
from tiphys.policies.keda import poll as p
from tiphys.policies.keda import triggers as t

compiles_first = settings(deadline=None)
finite = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


@compiles_first
@given(finite)
def test_a_quantity_is_the_number_with_three_decimals_a_tie_to_the_even_one(value: float) -> None:
    quantity = t.quantity_milli(value)
    assert quantity.mantissa * 2**quantity.shift == round(Fraction(value) * 1000)


@compiles_first
@given(finite)
def test_the_hpa_reads_a_quantity_as_it_is_or_saturated(value: float) -> None:
    quantity = t.quantity_milli(value)
    assert t.milli_value(value) == min(quantity.mantissa * 2**quantity.shift, 2**63 - 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, -0.0])
def test_what_is_not_a_positive_number_is_no_load(value: float) -> None:
    assert t.milli_value(value) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_null_value_is_an_error_only_where_it_is_not_ignored(value: float) -> None:
    assert t.prometheus_reading(value, True, 0.0) == t.Reading(False, 0.0, 0, False)
    assert t.prometheus_reading(value, False, 0.0).error


def test_lag_is_compared_as_a_whole_number() -> None:
    assert t.lag_reading(2**53, 1, 2**53).active
    assert not t.lag_reading(2**53, 0, 2**53).active


def _poll_until(seconds: int, last_active_s: float, cooldown_s: float) -> list[tuple[int, int, int]]:
    """(time, replicas, reason) of the polls of a ScaledObject that fell silent with 4 replicas."""
    rules = p.PollRules(0, p.UNSET, cooldown_s, 0.0, p.UNSET)
    replicas, log = 4, []
    for now_s in range(0, seconds + 1, 30):
        decision = p.request_scale(rules, p.NO_ANNOTATIONS, replicas, False, False, now_s - last_active_s, 1e9)
        replicas = decision.replicas
        log.append((now_s, replicas, decision.reason))
    return log


def test_zero_arrives_at_the_first_poll_later_than_the_cooldown() -> None:
    assert _poll_until(120, 0.0, 60.0) == [
        (0, 4, p.COOLING_DOWN),
        (30, 4, p.COOLING_DOWN),
        (60, 4, p.COOLING_DOWN),
        (90, 0, p.DEACTIVATED),
        (120, 0, p.UNCHANGED),
    ]


def test_every_reason_and_condition_has_a_word() -> None:
    assert p.REASONS[p.UNCHANGED] == p.REASONS[-1]
    assert p.READY_CONDITIONS[p.NOT_READY] == "False"
    assert p.ACTIVE_CONDITIONS[p.SCALER_COOLDOWN] == "False:ScalerCooldown"


@compiles_first
@given(
    st.integers(0, 5),
    st.none() | st.integers(0, 4),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1000) | st.just(math.nan),
)
def test_a_poll_writes_only_the_minimum_the_idle_count_zero_or_one(
    minimum: int, idle: int | None, current: int, active: bool, error: bool, last_active_age_s: float
) -> None:
    rules = p.PollRules(minimum, p.UNSET if idle is None else idle, 300.0, 0.0, p.UNSET)
    decision = p.request_scale(rules, p.NO_ANNOTATIONS, current, active, error, last_active_age_s, 1e9)
    if decision.scaled:
        assert decision.replicas in {max(minimum, 1), minimum, idle}
    else:
        assert decision.replicas == current
    assert decision.last_active_refreshed <= active


def test_the_fallback_needs_more_failures_than_the_threshold_and_a_success_ends_it() -> None:
    rules = f.fallback_rules(2, 6, "static", 10.0, "AverageValue")
    failures, health, story = f.NEVER_COUNTED, f.UNKNOWN, []
    for failed in (True, True, True, True, False, True):
        step = f.fallback_step(rules, failed, 7000, failures, health, 3, 3)
        failures, health = step.failures, step.health
        story.append((step.error, step.metric_m, step.in_fallback, failures))
    assert story == [
        (True, 0, False, 1),
        (True, 0, False, 2),
        (False, 60000, True, 3),
        (False, 60000, True, 4),
        (False, 7000, False, 0),
        (True, 0, False, 1),
    ]


def test_without_a_fallback_nothing_is_counted() -> None:
    step = f.fallback_step(f.NO_FALLBACK, True, 0, f.NEVER_COUNTED, f.UNKNOWN, 3, 3)
    assert step == f.FallbackStep(True, 0, False, f.NEVER_COUNTED, f.UNKNOWN)


def test_an_unknown_fallback_behavior_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'currentReplicas'"):
        f.fallback_rules(3, 1, "currentReplica", 1.0, "AverageValue")


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: f"{abs(value):.3f}")
sums = st.recursive(
    numbers | st.sampled_from(["a", "b"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"sum([{pair[0]}, {pair[1]}])"),
    ),
    max_leaves=12,
)


@compiles_first
@given(sums, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_arithmetic_is_that_of_doubles(text: str, a: float, b: float) -> None:
    outcome = fm.evaluate(fm.compile_formula(text, ["a", "b"]), np.array([a, b]), np.zeros(2, np.bool_))
    assert outcome == (fm.IS_NUMBER, eval(text, {"a": a, "b": b, "max": max, "sum": sum}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a + triger", "unknown trigger 'triger', did you mean 'trigger'"),
        ("avg(a)", "unknown function 'avg'"),
        ("a + ", "cannot be read from here on; found 'end of the formula'"),
        ("a > 1", "a truth value stands where a number must"),
        ("a ?? trigger + 1", "parentheses round"),
        ("a & 1", "holds a character that no formula has; found '& 1'"),
        ("(" * 5000 + "a" + ")" * 5000, "nested too deeply"),
        ("a > 1 ? 1 : " * 5000 + "2", "nested too deeply"),
        ("1" + "0" * 400, "too large"),
    ],
)
def test_a_wrong_formula_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        fm.compile_formula(text, ["a", "trigger"], where="policy.yaml", key="scaling_modifiers.formula")
    assert str(raised.value).startswith("policy.yaml: scaling_modifiers.formula: ")
    assert message in str(raised.value)


def test_nested_predicates_cannot_grow_without_end() -> None:
    text = "1"
    for _ in range(12):
        text = f"sum([1, 2, 3, 4, 5, 6, 7, 8], {text})"
    with pytest.raises(InputError, match="comes to more than"):
        fm.compile_formula(text, [])


def test_a_division_by_zero_makes_the_metric_as_small_as_it_can_be() -> None:
    program = fm.compile_formula("a / (a - a)", ["a"])
    metric = fm.formula_metric(program, 1.0, fm.NO_FALLBACK_REPLICAS, np.array([3.0]), np.zeros(1, np.bool_))
    assert metric == fm.Composite(False, -(2**63))


@jit
def one_pass(
    program: fm.Program, rules: f.FallbackRules, poll_rules: p.PollRules, value: float, failed: bool, failures: int
) -> tuple[f.FallbackStep, fm.Composite, p.Activity, p.PollDecision]:
    """What an event loop does: one poll of a ScaledObject with one trigger and a formula."""
    reading = t.failed_reading() if failed else t.prometheus_reading(value, True, 0.0)
    step = f.fallback_step(rules, reading.error, reading.metric_m, failures, f.HAPPY, 2, 2)
    metric_m = np.full(1, step.metric_m, np.int64)
    is_error, in_fallback = np.full(1, step.error, np.bool_), np.full(1, step.in_fallback, np.bool_)
    is_nil = np.full(1, f.is_nil(rules, step.failures), np.bool_)
    composite = fm.composite_metric(program, rules.target, 6, metric_m, is_error, in_fallback, is_nil)
    value = math.nan if composite.error else t.units_of(composite.metric_m)
    activity = p.activity_of_formula(np.zeros(1, np.bool_), is_error, value, 0.0)
    decision = p.request_scale(poll_rules, p.NO_ANNOTATIONS, 0, activity.active, activity.error, math.nan, 10.0)
    return step, composite, activity, decision


def test_the_laws_play_together_inside_a_compiled_loop() -> None:
    program = fm.compile_formula("a * 2", ["a"])
    rules = f.fallback_rules(2, 6, "static", 10.0, "AverageValue", "10")
    poll_rules = p.PollRules(0, p.UNSET, 300.0, 0.0, 6)

    step, composite, activity, decision = one_pass(program, rules, poll_rules, 4.5, False, 0)
    assert (step.metric_m, composite.metric_m, activity.active, decision.replicas) == (4500, 9000, True, 1)

    step, composite, activity, decision = one_pass(program, rules, poll_rules, 0.0, True, 1)
    assert (step.error, composite.error, activity, decision.reason) == (
        True,
        True,
        p.Activity(False, True),
        p.AWAITING_FALLBACK,
    )

    step, composite, activity, decision = one_pass(program, rules, poll_rules, 0.0, True, 2)
    assert (step.in_fallback, composite.metric_m, activity.active, decision.replicas) == (True, 60000, True, 1)


def test_a_loop_without_scaling_modifiers_is_handed_an_empty_program() -> None:
    assert [len(array) for array in fm.NO_FORMULA[:3]] == [0, 0, 0]
    assert [array.dtype for array in fm.NO_FORMULA[:3]] == [array.dtype for array in fm.compile_formula("a", ["a"])[:3]]
