"""Adapters from the KPA vectors to the laws: time 0 becomes a time past the epoch, null the mark of what is absent."""

from __future__ import annotations

import math
from typing import Any

from tests.conformance.vectors import Answer, Case, Suite
from tiphys.domain.settings import ClusterSettings, KnativeSettings
from tiphys.domain.values import parse
from tiphys.policies.hpa.reconcile import SOURCES, TARGET_TYPES
from tiphys.policies.kpa import average as a
from tiphys.policies.kpa import decider as d
from tiphys.policies.kpa import delay as w
from tiphys.policies.kpa import loop
from tiphys.policies.kpa import reconciler as r
from tiphys.policies.kpa import target as t
from tiphys.policies.kpa.rules import generated_hpa, kpa_rules
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy

ORIGIN_S = 1_000_000.0
"""Past the epoch, as the controller's clock is; even, so that it begins a bucket of the delay."""
TICK_S = 2.0
DESIRED = 7
"""Where a run's answers have the decider's wish."""
CONDITIONS = dict(zip(r.CONDITIONS, range(len(r.CONDITIONS)), strict=True))


def _or(value: Any, absent: Any) -> Any:
    return absent if value is None else value


def _decider_rules(spec: Case) -> d.DeciderRules:
    return d.DeciderRules(
        aim=float(spec.get("target_value", 1)),
        total=float(spec["total_value"]),
        target_burst_capacity=float(spec["target_burst_capacity"]),
        panic_threshold=float(spec.get("panic_threshold", 2)),
        max_scale_up_rate=float(spec.get("max_scale_up_rate", 1000)),
        max_scale_down_rate=float(spec.get("max_scale_down_rate", 2)),
        stable_window_s=float(spec.get("stable_window_s", 60)),
        scale_down_delay_s=float(spec.get("scale_down_delay_s", 0)),
        delay_bucket_s=float(spec.get("tick_s", TICK_S)),
        activation_scale=int(spec.get("activation_scale", 0)),
        activator_capacity=float(spec.get("activator_capacity", 100)),
    )


def _since(state: d.DeciderState) -> float | None:
    since_s = float(state.panic_since_s[0])
    return None if math.isnan(since_s) else since_s - ORIGIN_S


def decider(case: Case) -> Answer:
    """The answer is what differs from the steps' own expectations."""
    spec = dict(case["spec"])
    state = d.new_decider_state(_decider_rules(spec), case["create_ready"], ORIGIN_S)
    if case["state_override"] is not None:
        state.panic_since_s[0] = ORIGIN_S + case["state_override"]["panic_since_s"]
        state.panic_maximum[0] = case["state_override"]["max_panic_pods"]
    differs = []
    for step in case["steps"]:
        spec |= step.get("spec_update", {})
        has_data = not step.get("metric_error", False)
        ready = _or(step["ready"], d.UNKNOWN)
        load = d.Load(ready, spec["reachable"], has_data, float(step["stable"]), float(step["panic"]))
        decision = d.decide(_decider_rules(spec), state, load, ORIGIN_S + step["at_s"])
        got = {
            "valid": decision.valid,
            "desired": decision.wish,
            "panic_since_s": _since(state),
            "mode": d.MODES[decision.mode],
            "limit": d.LIMITS[decision.limit],
            "stable_pods": decision.stable_pods,
            "panic_pods": decision.panic_pods,
        }
        differs += _differences(step, got, decision.excess_burst_capacity, case["ebc_tolerance"])
    return {"differs": differs}


def _differences(step: Case, got: Answer, excess: int, tolerance: float) -> list[str]:
    expected = dict(step["expect"])
    if not expected["valid"]:
        expected = {name: value for name, value in expected.items() if name in ("valid", "mode", "limit")}
    elif abs(expected.pop("ebc") - excess) > tolerance:
        return [f"at {step['at_s']}: excess {excess}, expected {step['expect']['ebc']}"]
    wrong = {name: (got[name], value) for name, value in expected.items() if got[name] != value}
    return [f"at {step['at_s']}: {wrong}"] if wrong else []


def decider_create(case: Case) -> Answer:
    state = d.new_decider_state(_decider_rules(case["spec"]), case["create_ready"], ORIGIN_S)
    return {
        "in_panic": _since(state) is not None,
        "panic_since_s": _since(state),
        "max_panic_pods": int(state.panic_maximum[0]),
    }


def resolve_target(case: Case) -> Answer:
    pa, config = case["pa"], case["config"]
    is_rps = pa.get("metric") == "rps"
    default = config["rps_target_default" if is_rps else "concurrency_target_default"]
    ratio = config["target_utilization" if is_rps else "concurrency_target_fraction"]
    if "target_utilization_percentage" in pa:
        ratio = pa["target_utilization_percentage"] / 100.0
    target = t.resolve_target(is_rps, pa.get("target"), pa.get("container_concurrency", 0), default, ratio)
    return {"target": round(target.aim, 9), "total": target.total}


def panic_window(case: Case) -> Answer:
    return {"value": t.panic_window_s(case["stable_window_s"], case["percent"])}


def sample_size(case: Case) -> Answer:
    return {"value": t.sampled_pods(case["ready"])}


def max_window(case: Case) -> Answer:
    window = w.new_maximum_window(case["size"])
    return {"value": [w.largest_with(window, each["index"], each["value"]) for each in case["records"]]}


def max_time_window(case: Case) -> Answer:
    window = w.new_maximum_window(w.delay_buckets(case["duration_s"], case["granularity_s"]))
    largest = 0
    for each in case["records"]:
        largest = w.largest_with(window, w.bucket_of(each["at_s"], case["granularity_s"]), each["value"])
    return {"value": largest}


def window_average(case: Case) -> Answer:
    """The answer is what differs from the averages that the operations expect."""
    is_weighted = case["algorithm"] != "linear"
    buckets = a.new_buckets(case["window_s"], is_weighted)
    differs = []
    for op in case["ops"]:
        if op["op"] == "record":
            a.record(buckets, float(op["at_s"]), float(op["value"]))
        elif op["op"] == "resize":
            resized = a.new_buckets(op["window_s"], is_weighted)
            a.resize(buckets, resized, float(op["at_s"]))
            buckets = resized
        elif op["op"] == "silent":
            if a.is_silent(buckets, float(op["at_s"])) != op["expect"]:
                differs.append(f"silent at {op['at_s']}: expected {op['expect']}")
        else:
            got = a.window_average(buckets, float(op["at_s"]))
            exact = op.get("exact", False)
            if "decimals" in op:
                got = round(got, op["decimals"])
            if (got != op["expect"]) if exact else abs(got - op["expect"]) > 1e-6:
                differs.append(f"at {op['at_s']}: {got!r}, expected {op['expect']}")
    return {"differs": differs}


def _scaler_rules(case: Case) -> r.ScalerRules:
    config, pa = case["config"], case["pa"]
    capacity = pa.get("target_burst_capacity", config["target_burst_capacity"])
    return r.ScalerRules(
        min_replicas=pa.get("min_scale", 0),
        max_replicas=pa.get("max_scale", 0),
        initial_scale=t.initial_scale(
            pa.get("initial_scale"), config["initial_scale"], config["allow_zero_initial_scale"]
        ),
        scale_to_zero=config["enable_scale_to_zero"],
        stable_window_s=float(pa.get("window_s", config["stable_window_s"])),
        grace_s=float(config["grace_period_s"]),
        retention_s=float(pa.get("pod_retention_s", config["pod_retention_s"])),
        progress_deadline_s=float(pa.get("progress_deadline_s", config["progress_deadline_s"])),
        probes_activator=capacity != d.UNLIMITED,
    )


def _revision(case: Case) -> r.Revision:
    pa = case["pa"]
    return r.Revision(
        replicas=case.get("start_replicas", 0),
        condition=CONDITIONS[pa["active"]],
        in_condition_s=float(pa.get("in_state_for_s", 0)),
        is_initialized=pa.get("initialized", False),
        reachable=pa.get("reachability") != "Unreachable",
        is_proxied=case["sks"]["mode"] == "Proxy",
        proxied_for_s=float(case["sks"]["proxy_for_s"]),
        probe_ok=case["activator_probe_ok"],
    )


def kpa_scale(case: Case) -> Answer:
    applied = r.apply_wish(_scaler_rules(case), _revision(case), case["scale_to"])
    looks = not math.isnan(applied.look_again_s)
    return {
        "desired": applied.wish,
        "patched": applied.replicas != case["start_replicas"],
        "replicas": applied.replicas,
        "requeues": int(looks),
        "look_again_s": applied.look_again_s if looks else None,
        "async_probes": int(applied.begins_probe),
        "reason": r.REASONS[applied.reason],
    }


def active_condition(case: Case) -> Answer:
    active = r.activity(_scaler_rules(case), _revision(case), case["want"], case["ready"])
    return {
        "active": r.CONDITIONS[active.condition],
        "reason": r.CONDITION_REASONS[active.reason],
        "initialized": active.is_initialized,
    }


def service_mode(case: Case) -> Answer:
    return {"value": "Proxy" if r.is_proxied(case["want"], case["ebc"]) else "Serve"}


def kpa_run(case: Case) -> Answer:
    """The answer is what differs from the outcomes that the ticks and looks expect."""
    settings = ClusterSettings(knative=KnativeSettings(**case["settings"]))
    rules = kpa_rules(parse(KpaPolicy, {"kind": "kpa", **case["policy"]}), settings)
    state = loop.new_kpa_state(rules, case["replicas"], case["ready"], ORIGIN_S)
    differs = []
    for what, at_s, *inputs in case["steps"]:
        now_s = ORIGIN_S + at_s
        if what == "record":
            # the one that the policy does not look at is never right
            other = -1e9
            loads = (other, inputs[0]) if case["policy"].get("metric") == "rps" else (inputs[0], other)
            loop.kpa_record(rules, state, now_s, *map(float, loads))
            continue
        ready, replicas, reachable, expected = inputs
        act = loop.kpa_tick if what == "tick" else loop.kpa_look
        got = _outcome(act(rules, state, now_s, _or(ready, d.UNKNOWN), reachable, replicas))
        if got != expected or loop.kpa_is_idle(state) != (got[DESIRED] == 0):
            differs.append(f"{what} at {at_s}: {got}, expected {expected}")
    return {"differs": differs}


def _outcome(outcome: loop.KpaOutcome) -> list[Any]:
    """An outcome in the order of `tests.oracle.kpa_runs.ANSWERS`, times before and after the origin."""
    return [
        outcome.replicas if outcome.replicas >= 0 else None,
        outcome.wish,
        outcome.is_proxied,
        outcome.activators,
        None if math.isnan(outcome.look_again_s) else outcome.look_again_s,
        r.CONDITIONS[outcome.condition],
        r.CONDITION_REASONS[outcome.condition_reason],
        outcome.decided,
        outcome.excess_burst_capacity,
        None if math.isnan(outcome.panic_since_s) else outcome.panic_since_s - ORIGIN_S,
    ]


def rules_of_policy(case: Case) -> Answer:
    """The numbers that a policy and a cluster's settings stand for."""
    settings = ClusterSettings(knative=KnativeSettings(**case["settings"]))
    rules = kpa_rules(parse(KpaPolicy, {"kind": "kpa", **case["policy"]}), settings)
    return {**rules.decider._asdict(), **rules.scaler._asdict(), **rules._asdict()}


def hpa_of_class(case: Case) -> Answer:
    """The HPA that Knative makes of a Service of the hpa class."""
    policy = parse(KnativeHpaPolicy, {"kind": "knative-hpa", **case["policy"]})
    rules = generated_hpa(policy, ClusterSettings())
    return {
        "min_replicas": rules.min_replicas,
        "max_replicas": rules.max_replicas,
        "stabilization_s": [rules.up.stabilization_s, rules.down.stabilization_s] if rules.has_behavior else None,
        "source": [SOURCES[code] for code in rules.metrics.source],
        "target_type": [TARGET_TYPES[code] for code in rules.metrics.target_type],
        "target_m": rules.metrics.target_milli.tolist(),
        "is_cpu": rules.metrics.is_cpu.tolist(),
    }


def num_activators(case: Case) -> Answer:
    return {"value": d.activators_in_path(_decider_rules(case["spec"]), case["ready"])}


def initial_ebc(case: Case) -> Answer:
    rules = _decider_rules(case["spec"])
    return {"desired": d.UNKNOWN, "ebc": d.first_excess_burst_capacity(rules, case["spec"]["initial_scale"])}


def initial_scale(case: Case) -> Answer:
    config = case["config"]
    scale = t.initial_scale(case["annotation"], config["initial_scale"], config["allow_zero_initial_scale"])
    return {"value": scale}


SUITE: Suite = {
    law.__name__: law
    for law in (
        decider,
        decider_create,
        resolve_target,
        panic_window,
        sample_size,
        max_window,
        max_time_window,
        window_average,
        kpa_scale,
        active_condition,
        service_mode,
        kpa_run,
        rules_of_policy,
        hpa_of_class,
        num_activators,
        initial_ebc,
        initial_scale,
    )
}
