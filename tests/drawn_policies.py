"""Policies drawn at random, for properties that hold of all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tiphys.domain.signals import Signal
from tiphys.policies import ClosedPolicy, parse_policy

REPLICAS = st.integers(1, 50)
TARGETS = st.integers(1, 10**7).map(lambda thousandths: thousandths / 1000)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def bounds(draw: st.DrawFn, lowest: int = 1) -> dict[str, int]:
    low = draw(st.integers(lowest, 20))
    return {"min": low, "max": draw(st.integers(max(low, 1), 60))}


rate_policies = st.fixed_dictionaries(
    {"type": st.sampled_from(["Pods", "Percent"]), "value": st.integers(1, 900), "period_s": st.integers(1, 1800)}
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "stabilization_s": st.integers(0, 3600),
        "select": st.sampled_from(["Max", "Min", "Disabled"]),
        "policies": st.lists(rate_policies, min_size=1, max_size=3),
        "tolerance": st.integers(0, 500).map(lambda thousandths: thousandths / 1000),
    },
)
behaviors = st.fixed_dictionaries({}, optional={"scale_up": rules, "scale_down": rules})


@st.composite
def measured(draw: st.DrawFn) -> dict[str, Any]:
    signal = draw(st.sampled_from(list(Signal)))
    window = {} if signal.is_level else {"window_s": draw(st.integers(1, 7200))}
    return {"signal": str(signal), **window}


@st.composite
def hpa_metrics(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(st.sampled_from(["object", "external", "pods"]))
    kind = "AverageValue" if source == "pods" else draw(st.sampled_from(["Value", "AverageValue"]))
    return {**draw(measured()), "source": source, "type": kind, "target": draw(TARGETS)}


@st.composite
def hpas(draw: st.DrawFn) -> ClosedPolicy:
    document = {
        "kind": "hpa",
        "replicas": draw(bounds()),
        "metrics": draw(st.lists(hpa_metrics(), min_size=1, max_size=3)),
        "behavior": draw(optional(behaviors)),
    }
    return parse_policy(document, "drawn")


@st.composite
def prometheus_triggers(draw: st.DrawFn) -> dict[str, Any]:
    share = st.floats(0, 4, allow_subnormal=False)
    activation = draw(st.sampled_from(["", "activation", "activation_ratio"]))
    return {
        "scaler": "prometheus",
        **draw(measured()),
        "threshold": draw(TARGETS),
        **({activation: draw(share)} if activation else {}),
        "metric_type": draw(st.sampled_from(["Value", "AverageValue"])),
        "use_cached_metrics": draw(st.booleans()),
        "ignore_null": draw(st.booleans()),
    }


names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
nats_triggers = st.fixed_dictionaries(
    {"scaler": st.just("nats-jetstream"), "endpoint": st.just("nats.nats:8222"), "stream": names, "consumer": names},
    optional={
        "account": names,
        "use_https": st.booleans(),
        "lag_threshold": st.integers(1, 10**6),
        "activation": st.integers(0, 10**6),
        "metric_type": st.sampled_from(["Value", "AverageValue"]),
        "use_cached_metrics": st.booleans(),
    },
)
cpu_triggers = st.fixed_dictionaries(
    {"scaler": st.just("cpu")},
    optional={"container": names},
).flatmap(
    lambda trigger: st.sampled_from(
        [
            {**trigger, "threshold": 70},
            {**trigger, "threshold": 0.5, "metric_type": "AverageValue"},
        ]
    )
)
modifiers = st.fixed_dictionaries(
    {"formula": st.just("trigger0 ?? 0"), "target": TARGETS},
    optional={"activation_target": TARGETS, "metric_type": st.sampled_from(["Value", "AverageValue"])},
)


@st.composite
def fallbacks(draw: st.DrawFn, *, by_formula: bool) -> dict[str, Any]:
    behaviors_of_fallback = ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]
    return {
        "failure_threshold": draw(st.integers(0, 9)),
        "replicas": draw(st.integers(0, 9)),
        "behavior": draw(st.sampled_from([*behaviors_of_fallback, *(["scalingModifiers"] if by_formula else [])])),
    }


@st.composite
def kedas(draw: st.DrawFn) -> ClosedPolicy:
    others = draw(st.lists(prometheus_triggers() | nats_triggers | cpu_triggers, max_size=2))
    triggers = [draw(prometheus_triggers()), *others]
    composite = draw(optional(modifiers))
    if composite is not None or draw(st.booleans()):
        triggers = [{**trigger, "name": f"trigger{index}"} for index, trigger in enumerate(triggers)]
    replicas = draw(bounds(lowest=0))
    document = {
        "kind": "keda",
        "replicas": replicas,
        "triggers": triggers,
        "polling_interval_s": draw(st.integers(1, 600)),
        "cooldown_s": draw(st.integers(0, 3600)),
        "initial_cooldown_s": draw(st.integers(0, 3600)),
        "idle_replicas": draw(optional(st.integers(0, replicas["min"] - 1))) if replicas["min"] else None,
        "fallback": draw(optional(fallbacks(by_formula=composite is not None))),
        "scaling_modifiers": composite,
        "behavior": draw(optional(behaviors)),
    }
    return parse_policy(document, "drawn")


fixed = st.integers(0, 100).map(lambda count: parse_policy({"kind": "fixed", "replicas": count}, "drawn"))
policies = hpas() | kedas() | fixed
