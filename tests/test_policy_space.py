"""A space is written as the policy that is searched, and every sample of it is a valid policy."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drawn_policies import policies
from tiphys.domain.service import Envelope
from tiphys.domain.settings import ClusterSettings, HpaSettings
from tiphys.errors import InputError
from tiphys.policies import HpaPolicy, KedaPolicy, PolicySpace, closed, differences, distance, load_policy, parse_policy

SPACE: dict[str, Any] = {
    "kind": "hpa",
    "published_default": "published-hpa-running",
    "replicas": {"min": {"between": [1, 4]}, "max": {"between": [4, 8]}},
    "metrics": [{"signal": "running", "type": "AverageValue", "target": {"between": [4, 256], "log": True}}],
    "behavior": {
        "choice": [
            None,
            {
                "scale_up": {"stabilization_s": {"same_as": "behavior.scale_down.stabilization_s"}},
                "scale_down": {
                    "stabilization_s": {"between": [0, 600], "step": 30},
                    "select": {"choice": ["Max", "Min"]},
                    "policies": [{"type": "Percent", "value": 50, "period_s": 120}],
                },
            },
        ]
    },
}
WINDOW = "behavior#1.scale_down.stabilization_s"


def space(**changes: Any) -> PolicySpace:
    return PolicySpace(SPACE | changes, "space", "space.yaml")


def with_target(opened: Any) -> dict[str, Any]:
    return {"metrics": [{"signal": "running", "type": "AverageValue", "target": opened}]}


def wrong(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        space(**changes)
    assert caught.value.where == "space.yaml"
    return str(caught.value)


def test_dimensions_have_stable_dotted_paths_and_the_types_of_their_fields():
    shape = [(d.path, d.kind) for d in space().dimensions]
    assert shape == [
        ("replicas.min", "int"),
        ("replicas.max", "int"),
        ("metrics.0.target", "float"),
        ("behavior", "choice"),
        (WINDOW, "int"),
        ("behavior#1.scale_down.select", "choice"),
    ]
    assert space().dimensions[2].log and space().dimensions[4].step == 30


def test_a_dimension_inside_a_choice_exists_only_under_it():
    dimension = next(d for d in space().dimensions if d.path == WINDOW)
    assert dimension.when == (("behavior", "#1"),)
    assert dimension.exists({"behavior": "#1"}) and not dimension.exists({"behavior": "#0"})


def test_a_point_is_a_policy_and_tied_values_are_the_same():
    chosen = {"replicas.min": 2, "replicas.max": 6, "metrics.0.target": 12.5, "behavior": "#1", WINDOW: 90}
    policy = space().policy(chosen | {"behavior#1.scale_down.select": "Min"})
    assert isinstance(policy, HpaPolicy) and policy.behavior and policy.behavior.scale_up and policy.behavior.scale_down
    assert (policy.replicas.min, policy.replicas.max, policy.metrics[0].target) == (2, 6, 12.5)
    assert policy.behavior.scale_up.stabilization_s == policy.behavior.scale_down.stabilization_s == 90
    assert policy.behavior.scale_down.select == "Min"


def test_values_of_dimensions_that_do_not_exist_are_not_needed():
    policy = space().policy({"replicas.min": 1, "replicas.max": 8, "metrics.0.target": 60.0, "behavior": "#0"})
    assert isinstance(policy, HpaPolicy) and policy.behavior is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"replicas.min": 5}, "replicas.min: is not a point of the space; found 5; allowed: int from 1 to 4"),
        ({"replicas.min": 1.5}, "replicas.min: is not a point of the space"),
        ({"replicas.min": True}, "replicas.min: is not a point of the space"),
        ({"metrics.0.target": 1000.0}, "allowed: float from 4 to 256"),
        ({WINDOW: 100}, "in steps of 30"),
        ({"behavior": "#2"}, "allowed: #0, #1"),
        ({"metrics.0.tarjet": 1}, "metrics.0.tarjet: is not open in this space"),
    ],
)
def test_a_point_outside_is_an_error(change, expected):
    point = {"replicas.min": 1, "replicas.max": 8, "metrics.0.target": 60.0, "behavior": "#1", WINDOW: 90}
    with pytest.raises(InputError) as caught:
        space().policy(point | {"behavior#1.scale_down.select": "Max"} | change)
    assert expected in str(caught.value)


def test_a_missing_value_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"space.yaml: metrics.0.target: is not a point"):
        space().policy({"replicas.min": 1, "replicas.max": 8, "behavior": "#0"})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (with_target({"between": [5, 4]}), "metrics.0.target.between: low is over high"),
        (with_target({"between": [1, float("nan")]}), "metrics.0.target.between: is not a finite number"),
        (with_target({"between": [1, float("inf")]}), "metrics.0.target.between: is not a finite number"),
        (with_target({"between": [1, "x"]}), "metrics.0.target.between: is not a quantity"),
        (with_target({"between": [1, True]}), "metrics.0.target.between: is not a quantity"),
        (with_target({"between": [1]}), "metrics.0.target.between: is not a pair"),
        (with_target({"between": 4}), "metrics.0.target.between: is not a pair"),
        (with_target({"between": [0, 4], "log": True}), "a logarithmic range starts over 0"),
        (with_target({"between": [1, 4], "log": 1}), "metrics.0.target.log: is not true or false"),
        (with_target({"between": [1, 4], "lgo": True}), "metrics.0.target.lgo: unknown key 'lgo', did you mean 'log'?"),
        (with_target({"between": [1, 4], "log": True, "step": 1}), "log or step, not both"),
        (with_target({"between": [1, 4], "step": 2}), "metrics.0.target.step: does not lead from 1 to 4"),
        (with_target({"between": [1, 4], "step": 0}), "metrics.0.target.step: does not lead"),
        (with_target({"between": [1, 4], "step": -1}), "metrics.0.target.step: does not lead"),
        (with_target({"between": [-4, 4]}), "not every sample is a valid policy: Input should be greater than 0"),
        (with_target({"choice": []}), "metrics.0.target.choice: is not a list of alternatives"),
        (with_target({"choice": [1, 1]}), "metrics.0.target.choice: names an alternative twice"),
        (with_target({"same_as": "metrics.1.target"}), "same_as leads nowhere"),
        (with_target({"same_as": 3}), "metrics.0.target.same_as: is not a path"),
        ({"replicas": {"min": {"between": [1, 4.5]}, "max": 8}}, "replicas.min.between: is not a whole number"),
        ({"replicas": {"min": {"between": [1, 8]}, "max": 4}}, "min 8 is over max 4"),
        ({"kind": {"choice": ["hpa", "keda"]}}, "kind: is not a name; it cannot be open"),
        ({"published_defalt": "x"}, "unknown key 'published_defalt', did you mean 'published_default'?"),
        ({"replicas": {"mim": 1, "max": {"between": [4, 8]}}}, "replicas.mim: unknown key 'mim', did you mean 'min'?"),
        ({"metrics": [{"signal": {"between": [1, 2]}, "type": "Value", "target": 1}]}, "cannot be a range"),
        ({"metrics": [{"signal": {"choice": ["running", "runing"]}, "type": "Value", "target": 1}]}, "runing"),
    ],
)
def test_a_malformed_space_is_an_error_that_names_the_key(changes, expected):
    assert expected in wrong(**changes)


def test_an_unknown_published_default_lists_the_known_policies():
    with pytest.raises(InputError, match=r"published_default: unknown name.*published-hpa-ttft"):
        _ = space(published_default="published").default


def test_a_space_with_nothing_open_is_one_policy():
    document = {"kind": "fixed", "replicas": {"between": [3, 3]}}
    point = PolicySpace(document, "point", "file.yaml")
    assert point.is_point and point.policy({}) == closed(point) == parse_policy({"kind": "fixed", "replicas": 3})


def test_an_incumbent_with_open_values_is_an_error_that_names_them():
    with pytest.raises(InputError, match=r"policy.yaml: replicas.min: this must be one policy.*metrics.0.target"):
        closed(space(), "policy.yaml")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(["hpa-ttft", "keda-ttft", "keda-kv", "own"]))
def test_a_sampled_policy_is_found_again_in_its_space(seed, name):
    searched = space() if name == "own" else load_policy(name)
    assert isinstance(searched, PolicySpace)
    policy = searched.policy(searched.sample(seed))
    params = searched.params_of(policy)
    assert params is not None and searched.policy(params) == policy


def test_samples_depend_on_the_seed_alone():
    assert space().sample(7) == space().sample(7)
    assert len({str(space().sample(seed)) for seed in range(20)}) == 20


@settings(max_examples=100, deadline=None)
@given(policies)
def test_a_policy_outside_is_not_a_point(policy):
    params = space().params_of(policy)
    assert params is None or space().policy(params) == policy


def test_without_a_published_default_the_middle_is_the_default():
    default = space(published_default=None).default
    assert isinstance(default, HpaPolicy)
    assert default.metrics[0].target == 32.0 and default.replicas.min == 2 and default.behavior is None


def test_a_space_travels_to_other_processes():
    copy = pickle.loads(pickle.dumps(space()))
    assert copy.dimensions == space().dimensions and copy.default == space().default


@pytest.mark.parametrize(
    ("envelope", "lows", "highs"),
    [((1, 8), (1, 4), (4, 8)), ((2, 6), (2, 4), (4, 6)), ((1, 3), (1, 3), (3, 3)), ((5, 20), (5, 5), (5, 8))],
)
def test_replica_bounds_are_clipped_to_the_envelope(envelope, lows, highs):
    inside = space().within(Envelope(min=envelope[0], max=envelope[1]))
    found = {d.path: (d.low, d.high) for d in inside.dimensions}
    for path, ends in (("replicas.min", lows), ("replicas.max", highs)):
        assert found.get(path, ends) == ends and (path in found) == (ends[0] < ends[1])
    default = inside.default
    assert isinstance(default, HpaPolicy)
    assert envelope[0] <= default.replicas.min <= default.replicas.max <= envelope[1]
    for seed in range(20):
        policy = inside.policy(inside.sample(seed))
        assert isinstance(policy, HpaPolicy)
        assert envelope[0] <= policy.replicas.min <= policy.replicas.max <= envelope[1]


def test_bounds_that_a_space_leaves_out_are_clipped_too():
    trigger = {"scaler": "prometheus", "signal": "running", "threshold": {"between": [1, 9]}}
    inside = PolicySpace({"kind": "keda", "triggers": [trigger]}).within(Envelope(min=2, max=5))
    assert isinstance(inside.default, KedaPolicy)
    assert (inside.default.replicas.min, inside.default.replicas.max) == (2, 5)


def keda_space(**changes: Any) -> PolicySpace:
    trigger = {"scaler": "prometheus", "signal": "running", "threshold": 60, "activation_ratio": {"between": [0, 0.9]}}
    document = {
        "kind": "keda",
        "replicas": {"min": 1, "max": 8},
        "polling_interval_s": {"between": [5, 60]},
        "cooldown_s": {"between": [30, 600]},
        "triggers": [trigger],
    }
    return PolicySpace(document | changes, "keda", "keda.yaml")


def inert_paths(searched: PolicySpace, settings: ClusterSettings | None = None) -> set[str]:
    return {number.path for number in searched.inert(settings or ClusterSettings())}


def test_with_a_minimum_of_one_what_acts_at_zero_is_inert():
    assert inert_paths(keda_space()) == {"polling_interval_s", "cooldown_s", "triggers.0.activation_ratio"}


@pytest.mark.parametrize("changes", [{"replicas": {"min": 0, "max": 8}}, {"idle_replicas": 0}])
def test_at_zero_or_idle_replicas_they_act(changes):
    assert inert_paths(keda_space(**changes)) == set()


def test_a_minimum_that_may_be_zero_lets_them_act():
    assert inert_paths(keda_space(replicas={"min": {"between": [0, 2]}, "max": 8})) == set()


def test_cached_metrics_and_fallback_make_the_polling_interval_act():
    cached = {"scaler": "prometheus", "signal": "running", "threshold": 60, "use_cached_metrics": True}
    assert inert_paths(keda_space(triggers=[cached])) == {"cooldown_s"}
    fallback = {"failure_threshold": 3, "replicas": 4}
    assert "polling_interval_s" not in inert_paths(keda_space(fallback=fallback))


def test_under_a_formula_the_triggers_own_thresholds_are_inert():
    trigger = {"scaler": "prometheus", "name": "a", "signal": "running", "threshold": {"between": [1, 9]}}
    modifiers = {"formula": "a * 2", "target": {"between": [1, 9]}, "activation_target": {"between": [0, 2]}}
    searched = keda_space(
        replicas={"min": 0, "max": 8},
        triggers=[trigger | {"activation_ratio": {"between": [0, 0.9]}}],
        scaling_modifiers=modifiers,
    )
    assert inert_paths(searched) == {"triggers.0.threshold", "triggers.0.activation_ratio"}


def test_tolerances_are_inert_where_the_cluster_does_not_honour_them():
    document = SPACE | {"behavior": {"scale_up": {"tolerance": {"between": [0.0, 0.3]}}}}
    searched = PolicySpace(document, "space", "space.yaml")
    assert inert_paths(searched) == set()
    old = ClusterSettings(hpa=HpaSettings(configurable_tolerance=False))
    assert inert_paths(searched, old) == {"behavior.scale_up.tolerance"}


def test_inert_numbers_are_fixed_and_the_rest_stays_open():
    searched = keda_space()
    inert = searched.inert(ClusterSettings())
    rest = searched.without(inert)
    assert rest.is_point and inert
    policy = closed(rest)
    assert isinstance(policy, KedaPolicy)
    assert {"polling_interval_s": policy.polling_interval_s, "cooldown_s": policy.cooldown_s} == {
        number.path: number.value for number in inert if "." not in number.path
    }


def test_inert_numbers_inside_a_choice_are_fixed_there():
    behavior = {
        "choice": [
            None,
            {
                "scale_up": {
                    "select": "Disabled",
                    "policies": [{"type": "Pods", "value": {"between": [1, 4]}, "period_s": 9}],
                }
            },
        ]
    }
    searched = space(behavior=behavior)
    inert = searched.inert(ClusterSettings())
    assert [number.path for number in inert] == ["behavior#1.scale_up.policies.0.value"]
    assert [d.path for d in searched.without(inert).dimensions] == [
        "replicas.min",
        "replicas.max",
        "metrics.0.target",
        "behavior",
    ]


def test_differences_are_counted_number_by_number():
    a = parse_policy({"kind": "fixed", "replicas": 3})
    b = parse_policy({"kind": "fixed", "replicas": 4})
    assert differences(a, b) == [("replicas", 3, 4)] and distance(a, b) == 1 and distance(a, a) == 0


def test_an_empty_behavior_differs_from_none():
    document = {
        "kind": "hpa",
        "replicas": {"max": 8},
        "metrics": [{"signal": "running", "type": "Value", "target": 1}],
    }
    assert distance(parse_policy(document), parse_policy(document | {"behavior": {}})) == 1


@settings(max_examples=100, deadline=None)
@given(policies, policies)
def test_policies_are_equal_exactly_when_nothing_differs(a, b):
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, b) == distance(b, a)
