"""Adapters from the KEDA vectors to the laws: names become codes, null becomes the mark of what is absent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.conformance.vectors import Answer, Case, Suite
from tiphys.errors import InputError
from tiphys.policies.hpa import calculator as c
from tiphys.policies.keda import fallback as f
from tiphys.policies.keda import formula as fm
from tiphys.policies.keda import poll as p
from tiphys.policies.keda import triggers as t

JSZ = {"accounts": "account_details", "streams": "stream_detail", "consumers": "consumer_detail"}
RESOURCES = ("cpu", "memory")


def _or(value: Any, absent: Any) -> Any:
    return absent if value is None else value


def _flags(values: Any) -> Any:
    return np.array([bool(value) for value in values], dtype=np.bool_)


def _as_jsz(node: Any) -> Any:
    """The answer under the names that the server gives its members."""
    if isinstance(node, dict):
        return {JSZ.get(name, name): _as_jsz(value) for name, value in node.items()}
    return [_as_jsz(value) for value in node] if isinstance(node, list) else node


def nats_jetstream(case: Case) -> Answer:
    answer = None if case.get("unreachable") else _as_jsz(case["response"])
    reading = t.nats_jetstream(answer, t.nats_config(case["metadata"], case.get("auth_params", {})))
    answered = {} if reading.error else {"lag": int(reading.value), "metric_milli": reading.metric_m}
    return {"error": reading.error, "active": reading.active, **answered}


def nats_config(case: Case) -> Answer:
    try:
        t.nats_config(case["metadata"], case.get("auth_params", {}))
    except InputError:
        return {"valid": False}
    return {"valid": True}


def metric_name(case: Case) -> Answer:
    return {"value": t.metric_name(case["scaler"], case["trigger_index"], case.get("stream", ""))}


def prometheus_query(case: Case) -> Answer:
    reading = t.prometheus_query(
        case["body"],
        case["http_status"],
        case.get("ignore_null_values", True),
        float(case.get("activation_threshold", 0)),
    )
    answered = {} if reading.error else {"value": reading.value, "metric_milli": reading.metric_m}
    return {"error": reading.error, "active": reading.active, **answered}


def quantity_milli(case: Case) -> Answer:
    quantity = t.quantity_milli(float(case["value"]))
    return {"value": quantity.mantissa * 2**quantity.shift, "hpa_reads": t.milli_value(float(case["value"]))}


def activity(case: Case) -> Answer:
    triggers, modifiers = case["triggers"], case.get("modifiers")
    resources = _flags(trigger["type"] in RESOURCES for trigger in triggers)
    errors = _flags(trigger["error"] for trigger in triggers)
    if modifiers is not None:
        value, target = _or(modifiers["value"], math.nan), modifiers["activation_target"] or 0
        return p.activity_of_formula(resources, errors, float(value), float(target))._asdict()
    active = _flags(trigger["active"] for trigger in triggers)
    return p.activity(resources, active, errors, _flags(x.get("fallback_active") for x in triggers))._asdict()


def request_scale(case: Case) -> Answer:
    spec = case["spec"]
    rules = p.PollRules(
        min_replicas=_or(spec.get("min"), 0),
        idle_replicas=_or(spec.get("idle"), p.UNSET),
        cooldown_s=float(_or(spec.get("cooldown_s"), 300)),
        initial_cooldown_s=float(_or(spec.get("initial_cooldown_s"), 0)),
        fallback_replicas=_or(spec.get("fallback_replicas"), p.UNSET),
    )
    decision = p.request_scale(
        rules,
        p.read_annotations(case["annotations"] or {}),
        case["current_replicas"],
        case["active"],
        case["error"],
        float(_or(case["last_active_age_s"], math.nan)),
        float(case["creation_age_s"]),
    )
    return {
        **decision._asdict(),
        "ready_condition": p.READY_CONDITIONS[decision.ready_condition],
        "active_condition": p.ACTIVE_CONDITIONS[decision.active_condition] or None,
    }


def _fallback_rules(fallback: Any, target: float, metric_type: str, modifiers: Any) -> f.FallbackRules:
    if fallback is None:
        return f.NO_FALLBACK
    if modifiers is not None:
        target, metric_type = modifiers["target"], modifiers.get("metric_type", "AverageValue")
    return f.fallback_rules(
        fallback["failure_threshold"],
        fallback["replicas"],
        fallback.get("behavior") or "static",
        _or(t.parse_float(str(target)), math.nan),
        metric_type,
        None if modifiers is None else modifiers["target"],
    )


def fallback(case: Case) -> Answer:
    step = f.fallback_step(
        _fallback_rules(case["fallback"], case["target"], case["target_type"], case.get("scaling_modifiers")),
        case["scaler_error"],
        round(_or(case["metric"], 0) * 1000),
        _or(case["failures_before"], f.NEVER_COUNTED),
        f.HEALTHS.index(case["health_before"] or ""),
        _or(case.get("current_replicas"), 0),
        _or(case.get("ready_replicas"), 0),
    )
    return {
        "metric": None if step.error else step.metric_m / 1000,
        "fallback_active": step.in_fallback,
        "error": step.error,
        "failures": None if step.failures == f.NEVER_COUNTED else step.failures,
        "health": f.HEALTHS[step.health] or None,
    }


def scaling_modifiers(case: Case) -> Answer:
    triggers = case["triggers"]
    rules = _fallback_rules(case["fallback"], 0.0, "AverageValue", {"target": case["target"]})
    try:
        program = fm.compile_formula(case["formula"], [trigger["name"] for trigger in triggers])
    except InputError:
        return {"error": True}
    composite = fm.formula_metric(
        program,
        rules.target,
        fm.NO_FALLBACK_REPLICAS if case["fallback"] is None else rules.replicas,
        np.array([trigger["value"] for trigger in triggers], dtype=np.float64),
        _flags(f.is_nil(rules, _or(trigger.get("failures"), f.NEVER_COUNTED)) for trigger in triggers),
    )
    return {"error": composite.error, **({} if composite.error else {"metric_milli": composite.metric_m})}


def composite_metric(case: Case) -> Answer:
    triggers = case["triggers"]
    composite = fm.composite_metric(
        fm.compile_formula(case["formula"], [trigger["name"] for trigger in triggers]),
        float(case["target"]),
        _or(case["fallback_replicas"], fm.NO_FALLBACK_REPLICAS),
        np.array([trigger["metric_milli"] for trigger in triggers], dtype=np.int64),
        _flags(trigger["error"] for trigger in triggers),
        _flags(trigger["fallback_active"] for trigger in triggers),
        _flags(trigger["nil"] for trigger in triggers),
    )
    return {"error": composite.error, **({} if composite.error else {"metric_milli": composite.metric_m})}


def hpa_bounds(case: Case) -> Answer:
    return p.hpa_bounds(case["spec"].get("min"), case["spec"].get("max"))._asdict()


def bounds_valid(case: Case) -> Answer:
    return {"valid": p.bounds_valid(*(case["spec"].get(name) for name in ("min", "max", "idle")))}


def paused(case: Case) -> Answer:
    return {"paused": p.read_annotations(case["annotations"] or {}).paused}


def _ready_pods(count: int) -> c.Pods:
    return c.Pods(
        count,
        np.full(count, c.RUNNING, dtype=np.int8),
        np.ones(count, dtype=np.int8),
        np.zeros(count),
        np.zeros(count),
        np.zeros(count, dtype=np.bool_),
    )


def keda_hpa_desired(case: Case) -> Answer:
    status: int = case["status_replicas"]
    proposal = p.keda_hpa_desired(
        case["metric_milli"],
        case["threshold_milli"],
        case["metric_type"] == "Value",
        _or(case.get("spec_replicas"), status),
        status,
        _ready_pods(_or(case.get("ready_replicas"), status)),
        c.Tolerance(float(case["tolerance"]["down"]), float(case["tolerance"]["up"])),
    )
    return {"desired": proposal.replicas, "error": proposal.error != c.NO_ERROR}


SUITE: Suite = {
    law.__name__: law
    for law in (
        nats_jetstream,
        nats_config,
        metric_name,
        prometheus_query,
        quantity_milli,
        activity,
        request_scale,
        fallback,
        scaling_modifiers,
        composite_metric,
        hpa_bounds,
        bounds_valid,
        paused,
        keda_hpa_desired,
    )
}
