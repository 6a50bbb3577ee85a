"""A policy made ready for the twin: the law's numbers, the controllers' memory, what each query looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.signals import Signal
from tiphys.errors import InputError
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.calculator import Pods
from tiphys.policies.hpa.calculator import Samples as PodSamples
from tiphys.policies.hpa.reconcile import (
    Observations,
    Rules,
    new_proposals,
    new_state,
    no_containers,
)
from tiphys.policies.hpa.rules import controller, hpa_rules, rules_of
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.rules import generated_hpa
from tiphys.policies.keda.spec import KedaPolicy, PrometheusTrigger
from tiphys.twin.control import Control, Sight
from tiphys.twin.decisions import new_log
from tiphys.twin.metrics import KV_USAGE, RUNNING, WAITING
from tiphys.twin.operator import KedaLoop, keda_loop, no_keda
from tiphys.twin.randomness import hpa_phase_s, keda_phase_s

_LEVELS = {Signal.RUNNING: RUNNING, Signal.WAITING: WAITING, Signal.KV_USAGE: KV_USAGE}


class Query(NamedTuple):
    """A signal as a scaler asks for it."""

    signal: Signal
    mean: bool
    window_s: float


@dataclass(frozen=True)
class Government:
    """One pool's controllers for one play, and how much of the past they look at."""

    control: Control
    queries: int
    longest_window_s: float


def government(
    policy: ScalingPolicy, settings: ClusterSettings, seed: int, latest_s: float, places: int, buckets: int
) -> Government:
    """The controllers that a policy sets up, with memory for a play of `latest_s` seconds and `places` pods.

    Raises InputError for a policy that the twin cannot obey, naming what it cannot.
    """
    if isinstance(policy, FixedPolicy):
        idle = rules_of(policy.bounds.min, policy.bounds.max, None, [], settings)
        return _government(idle, [], no_keda(), settings, (math.inf, math.inf), (1.0, 1.0), latest_s, places, buckets)
    hpa_period_s = settings.hpa.sync_period_s + settings.hpa.pass_s
    first_hpa_s = hpa_phase_s(hpa_period_s, settings.hpa.phase_s, seed)
    if isinstance(policy, HpaPolicy):
        queries = [Query(m.signal, m.type == "Value", float(m.window_s or 0)) for m in policy.metrics]
        rules = hpa_rules(policy, settings)
        return _government(
            rules, queries, no_keda(), settings, (first_hpa_s, math.inf), (hpa_period_s, 1.0), latest_s, places, buckets
        )
    if isinstance(policy, KedaPolicy):
        poll_s = float(policy.polling_interval_s)
        first_poll_s = keda_phase_s(poll_s, settings.keda.phase_s, seed)
        queries = [_trigger_query(trigger) for trigger in policy.triggers]
        return _government(
            generated_hpa(policy, settings),
            queries,
            keda_loop(policy),
            settings,
            (first_hpa_s, first_poll_s),
            (hpa_period_s, poll_s),
            latest_s,
            places,
            buckets,
        )
    raise InputError(
        "the twin does not know this control law", key="kind", found=policy.kind, allowed="fixed, hpa, keda"
    )


def _trigger_query(trigger: object) -> Query:
    if not isinstance(trigger, PrometheusTrigger):
        scaler = getattr(trigger, "scaler", trigger)
        raise InputError(
            "the twin has no such metric source yet", key="triggers.scaler", found=scaler, allowed="prometheus"
        )
    return Query(trigger.signal, trigger.metric_type == "Value", float(trigger.window_s or 0))


def _government(
    rules: Rules,
    queries: Sequence[Query],
    keda: KedaLoop,
    settings: ClusterSettings,
    first_s: tuple[float, float],
    period_s: tuple[float, float],
    latest_s: float,
    places: int,
    buckets: int,
) -> Government:
    passes = sum(
        int((latest_s - first) / period) + 2
        for first, period in zip(first_s, period_s, strict=True)
        if math.isfinite(first)
    )
    metrics = len(rules.metrics.source)
    control = Control(
        np.array(first_s),
        np.array(period_s),
        controller(settings),
        rules,
        _sight(queries, settings, buckets),
        _pods(places),
        no_containers(),
        _observations(metrics, places),
        new_state(_history(rules, settings), _events(rules, settings)),
        new_proposals(metrics),
        new_log(passes, len(queries)),
        keda,
    )
    return Government(control, len(queries), max((query.window_s for query in queries), default=0.0))


def _sight(queries: Sequence[Query], settings: ClusterSettings, buckets: int) -> Sight:
    return Sight(
        np.array([math.nan if q.signal.quantile is None else q.signal.quantile for q in queries]),
        np.array([_LEVELS.get(q.signal, 0) for q in queries], np.int64),
        np.array([q.mean for q in queries], np.bool_),
        np.array([q.window_s for q in queries]),
        settings.scrape.lookback_s,
        np.zeros(buckets),
    )


def _history(rules: Rules, settings: ClusterSettings) -> int:
    longest_s = max(rules.up.stabilization_s, rules.down.stabilization_s, settings.hpa.downscale_stabilization_s)
    return int(longest_s / settings.hpa.sync_period_s) + 3


def _events(rules: Rules, settings: ClusterSettings) -> int:
    longest_s = max((*rules.up.policy_period_s, *rules.down.policy_period_s), default=0.0)
    return int(longest_s / settings.hpa.sync_period_s) + 3


def _pods(places: int) -> Pods:
    return Pods(
        0,
        np.zeros(places, np.int8),
        np.zeros(places, np.int8),
        np.zeros(places),
        np.zeros(places),
        np.zeros(places, np.bool_),
    )


def _observations(metrics: int, places: int) -> Observations:
    samples = metrics * places
    return Observations(
        np.zeros(metrics, np.bool_),
        np.zeros(metrics, np.int64),
        np.zeros(metrics + 1, np.int64),
        PodSamples(
            np.zeros(samples, np.int64),
            np.zeros(samples),
            np.full(samples, 60.0),
            np.arange(samples + 1),
            np.full(samples, -1),
            np.zeros(samples, np.int64),
        ),
    )
