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


# those of vLLM, for which policies are rendered, by where an HPA can have them from
OF_GPUS = {Signal.GPU_UTILIZATION, Signal.GPU_MEMORY}
OF_PODS = sorted(set(Signal) - {Signal.QUEUED, Signal.STREAM_LAG, Signal.CPU, Signal.PENDING})
OF_PROMETHEUS = [*OF_PODS, Signal.QUEUED]


@st.composite
def measured(draw: st.DrawFn, signals: list[Signal] = OF_PODS) -> dict[str, Any]:
    signal = draw(st.sampled_from(signals))
    window = {"window_s": draw(st.integers(1, 7200))} if signal.has_window else {}
    return {"signal": str(signal), **window}


def types_of(metric: dict[str, Any]) -> st.SearchStrategy[str]:
    return st.sampled_from(["Value"] + ["AverageValue"] * (metric["signal"] != Signal.QUEUE_COMPUTE_RATIO))


@st.composite
def hpa_metrics(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(st.sampled_from(["object", "external", "pods", "resource"]))
    if source == "resource":
        target = draw(st.sampled_from([{"type": "Utilization", "target": 70}, {"type": "AverageValue", "target": 0.5}]))
        return {"signal": "cpu", **draw(st.sampled_from([{}, {"source": source}])), **target}
    signals = {"pods": OF_PODS, "external": OF_PROMETHEUS, "object": OF_PODS}[source]
    metric = draw(measured([signal for signal in signals if source == "pods" or signal not in OF_GPUS]))
    kind = "AverageValue" if source == "pods" else draw(types_of(metric))
    return {**metric, "source": source, "type": kind, "target": draw(TARGETS)}


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
    metric = draw(measured(OF_PROMETHEUS))
    return {
        "scaler": "prometheus",
        **metric,
        "threshold": draw(TARGETS),
        **({activation: draw(share)} if activation else {}),
        "metric_type": draw(types_of(metric)),
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


shares = st.integers(100, 10_000).map(lambda hundredths: hundredths / 10_000)
kpa_members = st.fixed_dictionaries(
    {"metric": st.sampled_from(["concurrency", "rps"])},
    optional={
        "target": TARGETS.map(lambda target: target + 0.01),
        "target_utilization_ratio": shares | st.floats(0.01, 1),
        "window_s": st.integers(6, 3600),
        "panic_window_ratio": shares,
        "panic_threshold_ratio": st.floats(1.1, 10),
        "scale_down_delay_s": st.integers(0, 3600),
        "container_concurrency": st.integers(0, 1000),
        "initial_scale": st.integers(0, 9),
        "target_burst_capacity": st.just(-1) | st.floats(0, 1e6, allow_subnormal=False),
        "pod_retention_s": st.integers(0, 3600) | st.floats(0, 3600, allow_subnormal=False),
        "aggregation": st.sampled_from(["linear", "weighted-exponential"]),
        "progress_deadline_s": st.integers(1, 7200),
    },
)


@st.composite
def kpas(draw: st.DrawFn) -> ClosedPolicy:
    replicas = draw(bounds(lowest=0))
    activation = draw(st.just(1) | st.integers(max(replicas["min"], 1), replicas["max"]))
    return parse_policy(
        {"kind": "kpa", "replicas": replicas, "activation_scale": activation} | draw(kpa_members), "drawn"
    )


@st.composite
def knative_hpas(draw: st.DrawFn) -> ClosedPolicy:
    source = draw(st.sampled_from(["cpu", "memory", "pods"]))
    metric = {"source": source, "target": draw(st.integers(1, 10**6))}
    document = {
        "kind": "knative-hpa",
        "replicas": draw(bounds()),
        "metric": metric | (draw(measured()) if source == "pods" else {}),
        "window_s": draw(optional(st.integers(6, 3600))),
        "container_concurrency": draw(st.integers(0, 1000)),
        "initial_scale": draw(optional(st.integers(0, 9))),
        "progress_deadline_s": draw(optional(st.integers(1, 7200))),
    }
    return parse_policy(document, "drawn")


@st.composite
def _schedules(draw: st.DrawFn) -> ClosedPolicy:
    # what cron can say: two entries or more at whole minutes of a day; 0 only between others
    minutes = sorted(draw(st.sets(st.integers(0, 1439), min_size=2, max_size=6)))
    counts = draw(st.lists(st.integers(1, 60), min_size=len(minutes), max_size=len(minutes)))
    if draw(st.booleans()):
        counts[draw(st.integers(0, len(counts) - 1))] = 0
    times = [{"at_s": 60 * minute, "replicas": count} for minute, count in zip(minutes, counts, strict=True)]
    return parse_policy({"kind": "schedule", "replicas": draw(bounds(lowest=0)), "times": times}, "drawn")


schedules = _schedules()
fixed = st.integers(0, 100).map(lambda count: parse_policy({"kind": "fixed", "replicas": count}, "drawn"))
policies = hpas() | kedas() | kpas() | knative_hpas() | schedules | fixed
