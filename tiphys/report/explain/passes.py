"""Rows of the decision table as values that name their codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
from tiphys.policies.kpa.rules import KpaRules, kpa_rules
from tiphys.policies.kpa.rules import generated_hpa as knative_hpa
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy, PodsMetric
from tiphys.policies.schedule.spec import SchedulePolicy
from tiphys.report.explain.cells import count, known, named
from tiphys.report.explain.ticks import PANIC_WINDOW, STABLE_WINDOW, KpaTick, kpa_tick
from tiphys.twin.decisions import HPA_PASS, KEDA_POLL, KPA_TICK

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
    kpa: KpaRules | None = None


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
    """One pass of the HPA controller, poll of KEDA, tick of Knative's autoscaler or entry of a timetable, with every
    number on the way. Replicas; times in seconds.
    """

    time_s: float
    loop: Literal["hpa", "keda", "kpa", "schedule"]
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
    tick: KpaTick | None = None
    """Knative's autoscaler alone: what it averaged, and what became of it."""

    @property
    def changed(self) -> bool:
        """The pass wrote another count."""
        return self.after != self.before

    @property
    def held_back(self) -> bool:
        """A window, a limit or a fault kept the pass from its wish."""
        if self.tick is not None:
            at_rest = self.before == 0 and self.wish == 0
            return self.tick.holds_back and not at_rest
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
    if isinstance(policy, KnativeHpaPolicy):
        metric = _knative_metric(policy)
        return _law("knative-hpa", knative_hpa(policy, settings), (metric,), (metric.name,), None, settings)
    if isinstance(policy, KpaPolicy):
        return _kpa_law(policy, settings)
    if isinstance(policy, SchedulePolicy):
        bounds = policy.bounds
        return Law(policy.kind, (), (), None, bounds.min, bounds.max, 0.0, 0.0, 0.0, 0.0)
    replicas = policy.replicas if isinstance(policy, FixedPolicy) else 0
    return Law(policy.kind, (), (), None, replicas, replicas, 0.0, 0.0, 0.0, 0.0)


def _kpa_law(policy: KpaPolicy, settings: ClusterSettings) -> Law:
    rules = kpa_rules(policy, settings)
    windows = ((STABLE_WINDOW, rules.stable_window_s), (PANIC_WINDOW, rules.panic_window_s))
    metrics = tuple(
        LawMetric(name, "AverageValue", rules.decider.aim, float(window_s), "kpa") for name, window_s in windows
    )
    bounds = policy.bounds
    return Law(policy.kind, metrics, (policy.metric,), None, bounds.min, bounds.max, 0.0, 0.0, 0.0, 0.0, rules)


def _knative_metric(policy: KnativeHpaPolicy) -> LawMetric:
    metric = policy.metric
    if isinstance(metric, PodsMetric):
        return LawMetric(metric.signal.value, "AverageValue", float(metric.target), float(metric.window_s or 0), "pods")
    kind = "Utilization" if metric.source == "cpu" else "AverageValue"
    return LawMetric(metric.source, kind, float(metric.target), 0.0, "resource")


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
    return [_explained(row, law) for row in rows]


def _explained(row: dict[str, float], law: Law) -> Explained:
    if row["loop"] == HPA_PASS:
        return _hpa_pass(row, law)
    if row["loop"] == KEDA_POLL:
        return _keda_poll(row, law)
    return _kpa_tick(row, law.kpa) if row["loop"] == KPA_TICK and law.kpa is not None else _timetable(row)


def _hpa_pass(row: dict[str, float], law: Law) -> Explained:
    branch = int(row["branch"])
    stabilized, limited = count(row["stabilized"]), count(row["limited"])
    limit = REASONS[int(row["limited_reason"])] if limited is not None else _WITHIN_RANGE
    before, written = int(row["spec"]), count(row["written"])
    winner = count(row["winner"])
    bounds = {"TooFewReplicas": law.min_replicas, "TooManyReplicas": law.max_replicas}
    return Explained(
        time_s=row["time_s"],
        loop="hpa",
        before=before,
        ready=int(row["ready"]),
        answers=_answers(row, law) if branch in (METRICS, METRICS_FAILED) else (),
        branch=BRANCHES[branch],
        invalid_metrics=int(row["invalid_metrics"]),
        wish=count(row["wish"]),
        winner=law.metrics[winner].name if winner is not None else None,
        stabilized=stabilized,
        held=_held(row, law),
        limited=limited,
        limit=None if limit == _WITHIN_RANGE else limit,
        rate_limit=count(row["rate_limit"]),
        bound=bounds.get(limit),
        formula=law.formula,
        active=None,
        reason=named(REASONS, row["active_reason"]),
        after=before if written is None else written,
        tolerance=(1 - law.tolerance_down, 1 + law.tolerance_up),
    )


def _held(row: dict[str, float], law: Law) -> Held | None:
    reason = row["stabilized_reason"]
    if reason not in (SCALE_UP_STABILIZED, SCALE_DOWN_STABILIZED):
        return None
    window_s = law.up_window_s if reason == SCALE_UP_STABILIZED else law.down_window_s
    return Held(
        replicas=count(row["held_replicas"]),
        time_s=known(row["held_time_s"]),
        window_s=window_s,
        reason=REASONS[int(reason)],
    )


def _answers(row: dict[str, float], law: Law) -> tuple[MetricStep, ...]:
    return tuple(_step(row, metric, place) for place, metric in enumerate(law.metrics) if f"value_{place}" in row)


def _step(row: dict[str, float], metric: LawMetric, place: int) -> MetricStep:
    def at(name: str) -> float:
        return row[f"{name}_{place}"]

    error = named(METRIC_ERRORS, at("metric_error"))
    counted = not error and not math.isnan(at("metric_error"))
    usage_m = known(at("usage_m"))
    return MetricStep(
        name=metric.name,
        type=metric.type,
        source=metric.source,
        value=known(at("value")) if at("found") == 1 else None,
        found=at("found") == 1,
        age_s=known(at("age_s")),
        target=metric.target,
        usage=usage_m / 1000 if counted and usage_m is not None else None,
        ratio=known(at("ratio")) if counted else None,
        multiplier=count(at("multiplier")) if counted else None,
        proposal=count(at("proposal")) if counted else None,
        decided_by=named(DECIDED_BY, at("decided_by")) if counted else "nothing",
        error=error,
        failures=count(at("failures")) or 0,
    )


def _keda_poll(row: dict[str, float], law: Law) -> Explained:
    before, written = int(row["spec"]), count(row["written"])
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
        reason=named(POLL_REASONS, row["active_reason"]),
        after=before if written is None else written,
        tolerance=(1 - law.tolerance_down, 1 + law.tolerance_up),
    )


def _kpa_tick(row: dict[str, float], rules: KpaRules) -> Explained:
    tick = kpa_tick(row, rules)
    return _without_metrics(row, "kpa", tick.reason).with_(
        branch=tick.mode, wish=count(row["wish"]), winner=tick.winner, limit=tick.limit or None, tick=tick
    )


def _timetable(row: dict[str, float]) -> Explained:
    return _without_metrics(row, "schedule", "the hour has come")


def _without_metrics(row: dict[str, float], loop: Literal["kpa", "schedule"], reason: str) -> Explained:
    before, written = int(row["spec"]), count(row["written"])
    return Explained(
        time_s=row["time_s"],
        loop=loop,
        before=before,
        ready=count(row["ready"]) or 0,
        answers=(),
        branch=loop,
        invalid_metrics=0,
        wish=None,
        winner=None,
        stabilized=None,
        held=None,
        limited=None,
        limit=None,
        rate_limit=None,
        bound=None,
        formula=None,
        active=None,
        reason=reason,
        after=before if written is None else written,
        tolerance=(1.0, 1.0),
    )
