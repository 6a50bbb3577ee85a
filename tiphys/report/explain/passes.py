"""Rows of the decision table as values that name their codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.values import Frozen
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.behavior import REASONS, SCALE_DOWN_STABILIZED, SCALE_UP_STABILIZED
from tiphys.policies.hpa.calculator import DECIDED_BY, METRIC_ERRORS
from tiphys.policies.hpa.reconcile import BRANCHES, METRICS, METRICS_FAILED, Rules
from tiphys.policies.hpa.rules import hpa_rules
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.poll import ACTIVATED, AWAITING_FALLBACK, COOLING_DOWN, DEACTIVATED, TRIGGER_ERROR
from tiphys.policies.keda.poll import REASONS as POLL_REASONS
from tiphys.policies.keda.rules import generated_hpa, hpa_sources
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger
from tiphys.policies.schedule.spec import SchedulePolicy
from tiphys.twin.decisions import HPA_PASS

_WITHIN_RANGE = "DesiredWithinRange"
_HOLDING_POLLS = (AWAITING_FALLBACK, COOLING_DOWN, TRIGGER_ERROR)
_TELLING_POLLS = (ACTIVATED, DEACTIVATED, *_HOLDING_POLLS)


@dataclass(frozen=True)
class LawMetric:
    """One metric of a law: what it is called, how it is compared, with what. `window_s` is 0 for an instant level."""

    name: str
    type: str
    target: float
    window_s: float
    source: str


@dataclass(frozen=True)
class Law:
    """The numbers of a policy that its decisions are explained with."""

    kind: str
    metrics: tuple[LawMetric, ...]
    queries: tuple[str, ...]
    """What is asked of Prometheus; the same as the metrics but under a formula."""
    formula: str | None
    min_replicas: int
    max_replicas: int
    tolerance_down: float
    tolerance_up: float
    up_window_s: float
    down_window_s: float


class MetricStep(Frozen):
    """One metric's way from a sample to a proposal."""

    name: str
    type: str
    source: str
    value: float | None
    """What Prometheus answered; None for an empty answer or NaN."""
    found: bool
    """False for an empty answer."""
    age_s: float | None
    """Age of the newest scrape in the answer."""
    target: float
    usage: float | None
    """The value that the controller shows: per replica under AverageValue."""
    ratio: float | None
    multiplier: int | None
    """Replicas that the ratio was multiplied with."""
    proposal: int | None
    decided_by: str
    error: str
    failures: int


class Held(Frozen):
    """The entry of the history that held a wish back."""

    replicas: int | None
    time_s: float | None
    window_s: float
    reason: str


class Explained(Frozen):
    """One pass of the HPA controller, or one poll of KEDA, with every number on the way. Replicas; times in seconds."""

    time_s: float
    loop: Literal["hpa", "keda"]
    before: int
    ready: int
    answers: tuple[MetricStep, ...]
    branch: str
    invalid_metrics: int
    wish: int | None
    winner: str | None
    stabilized: int | None
    held: Held | None
    limited: int | None
    limit: str | None
    """The limit that cut the wish; None where none did."""
    rate_limit: int | None
    bound: int | None
    """minReplicas or maxReplicas, where that is what cut it."""
    formula: str | None
    active: bool | None
    """KEDA alone: whether a trigger was active."""
    reason: str
    after: int
    tolerance: tuple[float, float]

    @property
    def changed(self) -> bool:
        """The pass wrote another count."""
        return self.after != self.before

    @property
    def held_back(self) -> bool:
        """A window, a limit or a fault kept the pass from its wish."""
        if self.loop == "keda":
            return self.reason in [POLL_REASONS[code] for code in _HOLDING_POLLS]
        return self.held is not None or self.limit is not None or self.branch == BRANCHES[METRICS_FAILED]

    @property
    def tells(self) -> bool:
        """Worth telling by itself: it changed the scale or was held back."""
        return self.changed or self.held_back


def law_of(policy: ScalingPolicy, settings: ClusterSettings) -> Law:
    """What explains the decisions of a policy under a cluster's settings."""
    if isinstance(policy, HpaPolicy):
        metrics = tuple(
            LawMetric(m.signal.value, m.type, float(m.target), float(m.window_s or 0), m.source) for m in policy.metrics
        )
        return _law("hpa", hpa_rules(policy, settings), metrics, tuple(m.name for m in metrics), None, settings)
    if isinstance(policy, KedaPolicy):
        queries = tuple(t.signal.value if isinstance(t, PrometheusTrigger) else t.scaler for t in policy.triggers)
        formula = policy.scaling_modifiers.formula if policy.scaling_modifiers else None
        rules = generated_hpa(policy, settings)
        return _law("keda", rules, _keda_metrics(policy, queries), queries, formula, settings)
    if isinstance(policy, SchedulePolicy):
        bounds = policy.bounds
        return Law(policy.kind, (), (), None, bounds.min, bounds.max, 0.0, 0.0, 0.0, 0.0)
    replicas = policy.replicas if isinstance(policy, FixedPolicy) else 0
    return Law(policy.kind, (), (), None, replicas, replicas, 0.0, 0.0, 0.0, 0.0)


def _keda_metrics(policy: KedaPolicy, queries: tuple[str, ...]) -> tuple[LawMetric, ...]:
    windows = [float(getattr(trigger, "window_s", None) or 0) for trigger in policy.triggers]
    sources = [(kind, target_m / 1000) for _, kind, target_m in hpa_sources(policy)]
    if policy.scaling_modifiers is not None:
        return tuple(LawMetric("formula", kind, target, max(windows), "external") for kind, target in sources[:1])
    return tuple(
        LawMetric(name, kind, target, window_s, "external")
        for name, (kind, target), window_s in zip(queries, sources, windows, strict=True)
    )


def _law(
    kind: str,
    rules: Rules,
    metrics: tuple[LawMetric, ...],
    queries: tuple[str, ...],
    formula: str | None,
    settings: ClusterSettings,
) -> Law:
    flag = settings.hpa.tolerance
    own = rules.has_behavior and settings.hpa.configurable_tolerance
    down = rules.down.tolerance if own and not math.isnan(rules.down.tolerance) else flag
    up = rules.up.tolerance if own and not math.isnan(rules.up.tolerance) else flag
    down_window_s = rules.down.stabilization_s if rules.has_behavior else settings.hpa.downscale_stabilization_s
    up_window_s = rules.up.stabilization_s if rules.has_behavior else 0.0
    return Law(
        kind, metrics, queries, formula, rules.min_replicas, rules.max_replicas, down, up, up_window_s, down_window_s
    )


def explained(decisions: NDArray[np.void], law: Law) -> list[Explained]:
    """Every row of a decision table, in order of time."""
    names = decisions.dtype.names or ()
    rows = [dict(zip(names, map(float, row), strict=True)) for row in decisions.tolist()]
    return [_hpa_pass(row, law) if row["loop"] == HPA_PASS else _keda_poll(row, law) for row in rows]


def _hpa_pass(row: dict[str, float], law: Law) -> Explained:
    branch = int(row["branch"])
    stabilized, limited = _count(row["stabilized"]), _count(row["limited"])
    limit = REASONS[int(row["limited_reason"])] if limited is not None else _WITHIN_RANGE
    before, written = int(row["spec"]), _count(row["written"])
    winner = _count(row["winner"])
    bounds = {"TooFewReplicas": law.min_replicas, "TooManyReplicas": law.max_replicas}
    return Explained(
        time_s=row["time_s"],
        loop="hpa",
        before=before,
        ready=int(row["ready"]),
        answers=_answers(row, law) if branch in (METRICS, METRICS_FAILED) else (),
        branch=BRANCHES[branch],
        invalid_metrics=int(row["invalid_metrics"]),
        wish=_count(row["wish"]),
        winner=law.metrics[winner].name if winner is not None else None,
        stabilized=stabilized,
        held=_held(row, law),
        limited=limited,
        limit=None if limit == _WITHIN_RANGE else limit,
        rate_limit=_count(row["rate_limit"]),
        bound=bounds.get(limit),
        formula=law.formula,
        active=None,
        reason=_named(REASONS, row["active_reason"]),
        after=before if written is None else written,
        tolerance=(1 - law.tolerance_down, 1 + law.tolerance_up),
    )


def _held(row: dict[str, float], law: Law) -> Held | None:
    reason = row["stabilized_reason"]
    if reason not in (SCALE_UP_STABILIZED, SCALE_DOWN_STABILIZED):
        return None
    window_s = law.up_window_s if reason == SCALE_UP_STABILIZED else law.down_window_s
    return Held(
        replicas=_count(row["held_replicas"]),
        time_s=_known(row["held_time_s"]),
        window_s=window_s,
        reason=REASONS[int(reason)],
    )


def _answers(row: dict[str, float], law: Law) -> tuple[MetricStep, ...]:
    return tuple(_step(row, metric, place) for place, metric in enumerate(law.metrics) if f"value_{place}" in row)


def _step(row: dict[str, float], metric: LawMetric, place: int) -> MetricStep:
    def at(name: str) -> float:
        return row[f"{name}_{place}"]

    error = _named(METRIC_ERRORS, at("metric_error"))
    counted = not error and not math.isnan(at("metric_error"))
    usage_m = _known(at("usage_m"))
    return MetricStep(
        name=metric.name,
        type=metric.type,
        source=metric.source,
        value=_known(at("value")) if at("found") == 1 else None,
        found=at("found") == 1,
        age_s=_known(at("age_s")),
        target=metric.target,
        usage=usage_m / 1000 if counted and usage_m is not None else None,
        ratio=_known(at("ratio")) if counted else None,
        multiplier=_count(at("multiplier")) if counted else None,
        proposal=_count(at("proposal")) if counted else None,
        decided_by=_named(DECIDED_BY, at("decided_by")) if counted else "nothing",
        error=error,
        failures=_count(at("failures")) or 0,
    )


def _keda_poll(row: dict[str, float], law: Law) -> Explained:
    before, written = int(row["spec"]), _count(row["written"])
    return Explained(
        time_s=row["time_s"],
        loop="keda",
        before=before,
        ready=int(row["ready"]),
        answers=_answers(row, law) if law.formula is None else (),
        branch="poll",
        invalid_metrics=0,
        wish=None,
        winner=None,
        stabilized=None,
        held=None,
        limited=None,
        limit=None,
        rate_limit=None,
        bound=None,
        formula=law.formula,
        active=bool(row["active"]),
        reason=_named(POLL_REASONS, row["active_reason"]),
        after=before if written is None else written,
        tolerance=(1 - law.tolerance_down, 1 + law.tolerance_up),
    )


def _count(value: float) -> int | None:
    return None if math.isnan(value) or value < 0 else int(value)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _named(names: tuple[str, ...], code: Any) -> str:
    return "" if math.isnan(code) or code < 0 else names[int(code)]
