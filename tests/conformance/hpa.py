"""Adapters from the HPA vectors to the laws: ages become times before 0, names become indices and codes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tests.conformance.vectors import Answer, Case, Suite
from tiphys.policies.hpa import behavior as b
from tiphys.policies.hpa import calculator as c
from tiphys.policies.hpa import reconcile as r

NOW_S = 0.0
READY = {True: 1, False: 0, None: -1, "Unknown": 2}
NAMED_POLICY = {name: code for code, name in enumerate(b.POLICY_TYPES)}
NAMED_SELECT = {name: code for code, name in enumerate(b.SELECTS)}


def _whole(values: Iterable[Any]) -> Any:
    return np.array([c.ABSENT if value is None else value for value in values], dtype=np.int64)


def _times(ages_s: Iterable[Any]) -> Any:
    return np.array([math.nan if age is None else NOW_S - age for age in ages_s], dtype=np.float64)


class _Names:
    """Codes for names, in order of appearance; the empty name is the whole pod."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, name: str | None) -> int:
        return self._codes.setdefault(name, len(self._codes)) if name else c.WHOLE_POD


def _pods(pods: list[Case]) -> c.Pods:
    return c.Pods(
        len(pods),
        np.array([c.PHASES.index(pod.get("phase", "Running")) for pod in pods], dtype=np.int8),
        np.array([READY[pod.get("ready")] for pod in pods], dtype=np.int8),
        _times(pod.get("start_age_s") for pod in pods),
        _times(pod.get("ready_transition_age_s") for pod in pods),
        np.array([bool(pod.get("deleting")) for pod in pods], dtype=np.bool_),
    )


def _containers(pods: list[Case], names: _Names) -> c.Containers:
    rows = [
        (index, names.code(row["name"]), _kind(row, is_init), row.get("request_m"))
        for index, pod in enumerate(pods)
        for is_init, key in ((False, "containers"), (True, "init_containers"))
        for row in pod.get(key) or []
    ]
    return c.Containers(
        _whole(row[0] for row in rows),
        _whole(row[1] for row in rows),
        np.array([row[2] for row in rows], dtype=np.int8),
        _whole(row[3] for row in rows),
        _whole(pod.get("pod_request_m") for pod in pods),
    )


def _kind(row: Case, is_init: bool) -> int:
    if not is_init:
        return c.REGULAR
    return c.SIDECAR if row.get("restart_policy") == "Always" else c.INIT


def _samples(samples: list[Case], pods: list[Case], names: _Names) -> c.Samples:
    """Samples of pods; one with `value_m` in place of containers has one row. The last of several for a pod counts."""
    index = {pod["name"]: number for number, pod in enumerate(pods)}
    single = list({sample["pod"]: sample for sample in samples}.values())
    rows = [sample.get("containers", [{"name": "", "usage_m": sample.get("value_m")}]) for sample in single]
    return c.Samples(
        _whole(index.get(sample["pod"], -1) for sample in single),
        _times(sample.get("timestamp_age_s", 0) for sample in single),
        np.array([sample.get("window_s", 60) for sample in single], dtype=np.float64),
        np.cumsum([0] + [len(row) for row in rows], dtype=np.int64),
        _whole(names.code(row["name"]) for sample in rows for row in sample),
        _whole(row.get("usage_m") for sample in rows for row in sample),
    )


def _tolerance(case: Case) -> c.Tolerance:
    return c.Tolerance(case["tolerance"]["down"], case["tolerance"]["up"])


def _readiness(case: Case) -> c.Readiness:
    period_s, delay_s = case.get("cpu_initialization_period_s", 300), case.get("initial_readiness_delay_s", 30)
    return c.Readiness(NOW_S, float(period_s), float(delay_s))


def _answer(proposal: c.Proposal) -> Answer:
    if proposal.error != c.NO_ERROR:
        return {"error": c.METRIC_ERRORS[proposal.error]}
    return {
        "replicas": proposal.replicas,
        "utilization": proposal.utilization_percent,
        "usage_m": proposal.usage_m,
        "raw_average_m": proposal.usage_m,
        "ratio": proposal.ratio,
        "final_ratio": proposal.final_ratio,
        "multiplier": _or_null(proposal.multiplier),
        "decided_by": c.DECIDED_BY[proposal.decided_by],
    }


def _or_null(value: int) -> int | None:
    return None if value == c.NONE else value


def _age_s(time_s: float) -> float | None:
    return None if math.isnan(time_s) else NOW_S - time_s


def _resource_utilization(case: Case) -> Answer:
    names = _Names()
    return _answer(
        c.resource_utilization(
            case["current_replicas"],
            case["target"],
            names.code(case.get("container")),
            case["resource"] == "cpu",
            _pods(case["pods"]),
            _containers(case["pods"], names),
            case.get("pod_level_resources", True),
            _samples(case["samples"] or [], case["pods"], names),
            _tolerance(case),
            _readiness(case),
        )
    )


def _pods_metric(case: Case) -> Answer:
    samples = _samples(case["values"] or [], case["pods"], _Names())
    current, target_m, is_cpu = case["current_replicas"], case["target_m"], case.get("resource") == "cpu"
    pods = _pods(case["pods"])
    return _answer(
        c.plain_average(current, target_m, c.WHOLE_POD, is_cpu, pods, samples, _tolerance(case), _readiness(case))
    )


def _value(case: Case, value_m: int) -> Answer:
    pods = _pods(case["pods"])
    return _answer(c.value_replicas(case["current_replicas"], value_m, case["target_m"], pods, _tolerance(case)))


def _average_value(case: Case, value_m: int) -> Answer:
    return _answer(c.average_value_replicas(case["current_replicas"], value_m, case["target_m"], _tolerance(case)))


def _object_value(case: Case) -> Answer:
    return {"error": "no_metrics"} if case["value_m"] is None else _value(case, case["value_m"])


def _object_average_value(case: Case) -> Answer:
    return {"error": "no_metrics"} if case["value_m"] is None else _average_value(case, case["value_m"])


def _external_value(case: Case) -> Answer:
    series = case["values_m"]
    return _value(case, c.external_total(_whole(series))) if series else {"error": "no_metrics"}


def _external_average_value(case: Case) -> Answer:
    series = case["values_m"]
    return _average_value(case, c.external_total(_whole(series))) if series else {"error": "no_metrics"}


def _group_pods(case: Case) -> Answer:
    pods = case["pods"]
    samples = _samples(case["samples"], pods, _Names())
    sample_of_pod = np.full(len(pods), -1, dtype=np.int64)
    for sample, pod in enumerate(samples.pod):
        if pod >= 0:
            sample_of_pod[pod] = sample
    classes = np.zeros(len(pods), dtype=np.int8)
    is_cpu = case["resource"] == "cpu"
    counted = c.group_pods(_pods(pods), sample_of_pod, samples, is_cpu, _readiness(case), classes)
    named = {
        word: sorted(pod["name"] for pod, code in zip(pods, classes, strict=True) if c.POD_CLASSES[code] == word)
        for word in c.POD_CLASSES
    }
    return {"ready_count": counted, **named}


def _calculate_requests(case: Case) -> Answer:
    pods, names = case["pods"], _Names()
    requests_m = np.zeros(len(pods), dtype=np.int64)
    container, gate = names.code(case.get("container")), case.get("pod_level_resources", True)
    error = c.calculate_requests(_containers(pods, names), len(pods), container, gate, requests_m)
    if error != c.NO_ERROR:
        return {"error": c.METRIC_ERRORS[error]}
    return {"requests_m": {pod["name"]: int(m) for pod, m in zip(pods, requests_m, strict=True)}}


def _rule_parts(rules: Mapping[str, Any] | None) -> dict[str, Any]:
    given = rules or {}
    select, policies = given.get("select_policy"), given.get("policies")
    return {
        "stabilization_s": given.get("stabilization_window_s"),
        "select": None if select is None else NAMED_SELECT[select],
        "policies": None
        if policies is None
        else [(NAMED_POLICY[policy["type"]], policy["value"], policy["period_s"]) for policy in policies],
        "tolerance": given.get("tolerance"),
    }


def _up(rules: Mapping[str, Any] | None) -> b.ScalingRules:
    return b.scale_up_rules(**_rule_parts(rules))


def _down(rules: Mapping[str, Any] | None, downscale_stabilization_s: float = 300.0) -> b.ScalingRules:
    return b.scale_down_rules(**_rule_parts(rules), downscale_stabilization_s=downscale_stabilization_s)


def _events(events: list[Case] | None) -> b.ScaleEvents:
    stored = b.new_events(len(events or []) + 2)
    for index, event in enumerate(events or []):
        stored.time_s[index], stored.change[index] = NOW_S - event["age_s"], event["change"]
        stored.outdated[index] = event.get("outdated", False)
    stored.used[0] = len(events or [])
    return stored


def _history(recommendations: list[Case] | None) -> b.History:
    history = b.new_history(len(recommendations or []) + 2)
    for index, entry in enumerate(recommendations or []):
        history.time_s[index], history.replicas[index] = NOW_S - entry["age_s"], entry["replicas"]
    history.used[0] = len(recommendations or [])
    return history


def _log(history: b.History) -> Answer:
    used = int(history.used[0])
    return {"log": history.replicas[:used].tolist(), "log_length": used}


def _limited(limited: b.Limited) -> Answer:
    reason, rate_limit = b.REASONS[limited.reason], _or_null(limited.rate_limit)
    return {"replicas": limited.replicas, "reason": reason, "rate_limit": rate_limit}


def _stabilized(stabilized: b.Stabilized) -> Answer:
    return {
        "replicas": stabilized.replicas,
        "reason": b.REASONS[stabilized.reason],
        "held_replicas": _or_null(stabilized.held_replicas),
        "held_age_s": _age_s(stabilized.held_time_s),
    }


def _legacy_limits(case: Case) -> Answer:
    return _limited(
        b.legacy_limits(
            case["current_replicas"],
            case["desired_replicas"],
            case["min_replicas"],
            case["max_replicas"],
            float(case.get("scale_up_limit_factor", 2)),
            float(case.get("scale_up_limit_minimum", 4)),
        )
    )


def _legacy_stabilization(case: Case) -> Answer:
    history = _history(case["recommendations"])
    window_s = float(case.get("downscale_stabilization_s", 300))
    stabilized = b.legacy_stabilization(history, case["desired_replicas"], window_s, NOW_S)
    return _stabilized(stabilized) | _log(history)


def _behavior_stabilization(case: Case) -> Answer:
    history = _history(case["recommendations"])
    up_s, down_s = float(case["scale_up_window_s"]), float(case["scale_down_window_s"])
    current, desired = case["current_replicas"], case["desired_replicas"]
    stabilized = b.behavior_stabilization(history, current, desired, up_s, down_s, NOW_S)
    return _stabilized(stabilized) | _log(history)


def _scale_up_limit(case: Case) -> Answer:
    ups, downs = _events(case.get("scale_up_events")), _events(case.get("scale_down_events"))
    return {"limit": b.scale_up_limit(case["current_replicas"], ups, downs, _up(case.get("rules")), NOW_S)}


def _scale_down_limit(case: Case) -> Answer:
    ups, downs = _events(case.get("scale_up_events")), _events(case.get("scale_down_events"))
    return {"limit": b.scale_down_limit(case["current_replicas"], ups, downs, _down(case.get("rules")), NOW_S)}


def _behavior_rate(case: Case) -> Answer:
    rules = case.get("behavior") or {}
    return _limited(
        b.behavior_rate(
            case["current_replicas"],
            case["desired_replicas"],
            case["min_replicas"],
            case["max_replicas"],
            _up(rules.get("scale_up")),
            _down(rules.get("scale_down")),
            _events(case.get("scale_up_events")),
            _events(case.get("scale_down_events")),
            NOW_S,
        )
    )


def _store_scale_event(case: Case) -> Answer:
    events = _events(case["events"])
    rules = (_up if case["direction"] == "up" else _down)(case["rules"])
    before = b.change_within(events, float(case["period_s"]), NOW_S)
    b.store_scale_event(events, case["replica_change"], case["rules"] is not None, rules, NOW_S)
    stored = [
        {"change": int(events.change[entry]), "outdated": bool(events.outdated[entry])}
        for entry in range(events.used[0])
    ]
    return {"change_before": before, "events": stored}


def _controller(case: Case) -> r.Controller:
    flags, gates, default = case.get("controller") or {}, case.get("features") or {}, r.Controller()
    return r.Controller(
        float(flags.get("tolerance", default.tolerance)),
        float(flags.get("downscale_stabilization_s", default.downscale_stabilization_s)),
        float(flags.get("cpu_initialization_period_s", default.cpu_initialization_period_s)),
        float(flags.get("initial_readiness_delay_s", default.initial_readiness_delay_s)),
        float(flags.get("scale_up_limit_factor", default.scale_up_limit_factor)),
        float(flags.get("scale_up_limit_minimum", default.scale_up_limit_minimum)),
        gates.get("HPAConfigurableTolerance", default.configurable_tolerance),
        gates.get("HPAScaleToZero", default.scale_to_zero),
        gates.get("PodLevelResources", default.pod_level_resources),
    )


def _rules(hpa: Case, controller: r.Controller, names: _Names) -> r.Rules:
    minimum, rules = hpa.get("min_replicas"), hpa.get("behavior")
    given = rules or {}
    return r.Rules(
        r.DEFAULT_MIN_REPLICAS if minimum is None else minimum,
        hpa["max_replicas"],
        rules is not None,
        _up(given.get("scale_up")),
        _down(given.get("scale_down"), controller.downscale_stabilization_s),
        _metrics(hpa["metrics"], names),
    )


def _metrics(metrics: list[Case], names: _Names) -> r.Metrics:
    targets = [_target(metric) for metric in metrics]
    return r.Metrics(
        np.array([_source(metric) for metric in metrics], dtype=np.int8),
        np.array([target[0] for target in targets], dtype=np.int8),
        np.array([target[1] for target in targets], dtype=np.int64),
        np.array([metric.get("name") == "cpu" for metric in metrics], dtype=np.bool_),
        np.array([names.code(metric.get("container")) for metric in metrics], dtype=np.int64),
    )


def _source(metric: Case) -> int:
    return r.SOURCES.index(metric["type"]) if metric["type"] in r.SOURCES else r.UNKNOWN_SOURCE


def _target(metric: Case) -> tuple[int, int]:
    """The member of the target that the API server would accept for this source."""
    target = metric.get("target") or {}
    members = {
        r.AVERAGE_VALUE: target.get("average_value_m"),
        r.UTILIZATION: target.get("average_utilization"),
        r.VALUE: target.get("value_m"),
    }
    if _source(metric) == r.OBJECT:
        members = {code: value for code, value in members.items() if r.TARGET_TYPES[code] == target.get("type")}
    for code, value in members.items():
        if value is not None:
            return code, value
    return r.NO_TARGET, 0


def _observations(case: Case, pods: list[Case], names: _Names) -> r.Observations:
    observed = case.get("observations") or {}
    answers = [_observed(metric, observed) for metric in case["hpa"]["metrics"]]
    sampled = [_samples(answer if isinstance(answer, list) else [], pods, names) for answer in answers]
    rows = np.cumsum([0] + [int(samples.first_row[-1]) for samples in sampled])
    joined = c.Samples(
        _joined([samples.pod for samples in sampled], np.int64),
        _joined([samples.time_s for samples in sampled], np.float64),
        _joined([samples.window_s for samples in sampled], np.float64),
        _joined([s.first_row[:-1] + at for s, at in zip(sampled, rows, strict=False)] + [rows[-1:]], np.int64),
        _joined([samples.row_container for samples in sampled], np.int64),
        _joined([samples.row_value_m for samples in sampled], np.int64),
    )
    return r.Observations(
        np.array([answer is not None for answer in answers], dtype=np.bool_),
        np.array([answer if isinstance(answer, int) else 0 for answer in answers], dtype=np.int64),
        np.cumsum([0] + [len(samples.pod) for samples in sampled], dtype=np.int64),
        joined,
    )


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts]).astype(dtype)


def _observed(metric: Case, observed: Case) -> list[Case] | int | None:
    """A list of samples, a value, or nothing where the API returned an error or an empty answer."""
    if metric["type"] in ("Resource", "ContainerResource"):
        samples: list[Case] | None = observed.get("resource_samples")
        return samples
    if metric["type"] == "Pods":
        values: list[Case] | None = (observed.get("pods_metrics") or {}).get(metric["name"])
        return values
    if metric["type"] == "Object":
        value: int | None = (observed.get("object_metrics") or {}).get(metric["name"])
        return value
    series = (observed.get("external_metrics") or {}).get(metric["name"])
    return int(c.external_total(_whole(series))) if series else None


def _state(state: Case) -> r.State:
    recommendations = state.get("recommendations")
    marker = r.TRUE if state.get("scaled_to_zero_condition") else r.UNSET
    return r.State(
        np.array([recommendations is not None], dtype=np.bool_),
        _history(recommendations),
        _events(state.get("scale_up_events")),
        _events(state.get("scale_down_events")),
        np.array([marker], dtype=np.int64),
    )


def _scale(case: Case) -> r.Scale:
    scale, writes = case.get("scale") or {}, case.get("scale_update_ok", True)
    spec, status = scale.get("spec_replicas", 0), scale.get("status_replicas", 0)
    selector = r.SELECTORS.index(scale.get("selector", "valid"))
    return r.Scale(spec, status, bool(scale), selector, writes)


def _reconcile(case: Case) -> Answer:
    names, pods, controller = _Names(), case.get("pods") or [], _controller(case)
    state, proposals = _state(case.get("state") or {}), r.new_proposals(len(case["hpa"]["metrics"]))
    outcome = r.reconcile(
        controller,
        _rules(case["hpa"], controller, names),
        _scale(case),
        _pods(pods),
        _containers(pods, names),
        _observations(case, pods, names),
        state,
        proposals,
        NOW_S,
    )
    return {
        "desired_replicas": outcome.desired_replicas,
        "rescaled": outcome.rescaled,
        "error": outcome.error,
        "conditions": _conditions(outcome),
        "branch": r.BRANCHES[outcome.branch],
        "invalid_metrics": outcome.invalid_metrics,
        "first_invalid": _or_null(outcome.first_invalid),
        "winner": _or_null(outcome.winner),
        "wish": _or_null(outcome.wish),
        "stabilized": _stabilized(outcome.stabilized) if outcome.wish != c.NONE else None,
        "limited": _limited(outcome.limited) if outcome.wish != c.NONE else None,
        "written": _or_null(outcome.written),
        "seen": bool(state.seen[0]),
        "proposals": [_or_null(int(replicas)) for replicas in proposals.replicas],
        "recommendations": _log(state.history)["log"],
        "scale_up_events": state.ups.change[: state.ups.used[0]].tolist(),
        "scale_down_events": state.downs.change[: state.downs.used[0]].tolist(),
    }


def _conditions(outcome: r.Outcome) -> dict[str, list[str]]:
    named = {
        "AbleToScale": outcome.able_to_scale,
        "ScalingActive": outcome.scaling_active,
        "ScalingLimited": outcome.scaling_limited,
        "ScaledToZero": outcome.scaled_to_zero,
    }
    return {
        name: [r.STATUSES[condition.status], b.REASONS[condition.reason]]
        for name, condition in named.items()
        if condition.status != r.UNSET
    }


SUITE: Suite = {
    "resource_utilization": _resource_utilization,
    "pods_metric": _pods_metric,
    "object_value": _object_value,
    "object_average_value": _object_average_value,
    "external_value": _external_value,
    "external_average_value": _external_average_value,
    "group_pods": _group_pods,
    "calculate_requests": _calculate_requests,
    "legacy_limits": _legacy_limits,
    "legacy_stabilization": _legacy_stabilization,
    "scale_up_limit": _scale_up_limit,
    "scale_down_limit": _scale_down_limit,
    "behavior_rate": _behavior_rate,
    "behavior_stabilization": _behavior_stabilization,
    "store_scale_event": _store_scale_event,
    "reconcile": _reconcile,
}
