"""Knative policies in the numbers that the compiled controllers take."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from tiphys.domain.settings import ClusterSettings, KnativeSettings
from tiphys.policies.hpa.reconcile import Rules
from tiphys.policies.hpa.rules import Source, rules_of
from tiphys.policies.hpa.spec import Behavior, ScalingRules
from tiphys.policies.kpa.decider import UNLIMITED, DeciderRules
from tiphys.policies.kpa.notation import percent_of
from tiphys.policies.kpa.reconciler import ScalerRules
from tiphys.policies.kpa.spec import CpuMetric, KnativeHpaPolicy, KpaPolicy, MemoryMetric
from tiphys.policies.kpa.target import Target, initial_scale, panic_window_s, resolve_target

_MILLI_A_MIB = 1024 * 1024 * 1000
T = TypeVar("T")


class KpaRules(NamedTuple):
    """A policy of kind kpa under a cluster's settings."""

    is_rps: bool
    """The metric is requests per second, not concurrency."""
    stable_window_s: int
    panic_window_s: int
    is_weighted: bool
    """Averages are weighted exponentially."""
    is_scraped: bool
    """The pods are asked each second. Not with an unlimited target burst capacity: then only activators report."""
    decider: DeciderRules
    scaler: ScalerRules


def kpa_rules(policy: KpaPolicy, settings: ClusterSettings) -> KpaRules:
    """What a decider, its averages and the reconciler are told; what the policy leaves out is the cluster's."""
    knative = settings.knative
    window_s = _or(policy.window_s, knative.stable_window_s)
    capacity = _or(policy.target_burst_capacity, knative.target_burst_capacity)
    threshold = _or(policy.panic_threshold_ratio, knative.panic_threshold_ratio)
    target = target_of(policy, knative)
    return KpaRules(
        is_rps=policy.metric == "rps",
        stable_window_s=window_s,
        panic_window_s=panic_window_s(window_s, percent_of(_or(policy.panic_window_ratio, knative.panic_window_ratio))),
        is_weighted=policy.aggregation == "weighted-exponential",
        is_scraped=capacity != UNLIMITED,
        decider=DeciderRules(
            aim=target.aim,
            total=target.total,
            target_burst_capacity=capacity,
            panic_threshold=percent_of(threshold) / 100.0,
            max_scale_up_rate=knative.max_scale_up_rate,
            max_scale_down_rate=knative.max_scale_down_rate,
            stable_window_s=float(window_s),
            scale_down_delay_s=float(_or(policy.scale_down_delay_s, knative.scale_down_delay_s)),
            delay_bucket_s=knative.tick_s,
            activation_scale=policy.activation_scale,
            activator_capacity=knative.activator_capacity,
        ),
        scaler=ScalerRules(
            min_replicas=policy.replicas.min,
            max_replicas=policy.replicas.max,
            initial_scale=initial_scale(policy.initial_scale, knative.initial_scale, knative.allow_zero_initial_scale),
            scale_to_zero=knative.scale_to_zero,
            stable_window_s=float(window_s),
            grace_s=knative.scale_to_zero_grace_s,
            retention_s=_or(policy.pod_retention_s, knative.pod_retention_s),
            progress_deadline_s=float(_or(policy.progress_deadline_s, knative.progress_deadline_s)),
            probes_activator=capacity != UNLIMITED,
        ),
    )


def target_of(policy: KpaPolicy, knative: KnativeSettings) -> Target:
    """What a pod may have, and what the autoscaler aims for."""
    is_rps = policy.metric == "rps"
    default = knative.rps_target_default if is_rps else knative.container_concurrency_target_default
    utilization = knative.rps_target_utilization_ratio if is_rps else knative.concurrency_target_utilization_ratio
    ratio = percent_of(_or(policy.target_utilization_ratio, utilization)) / 100.0
    return resolve_target(is_rps, policy.target, policy.container_concurrency, default, ratio)


def _or(written: T | None, cluster: T) -> T:
    return cluster if written is None else written


def generated_hpa(policy: KnativeHpaPolicy, settings: ClusterSettings) -> Rules:
    """The HPA that Knative makes of a Service of the hpa class: one metric, one window for both directions."""
    rules = rules_of(policy.replicas.min, policy.replicas.max, hpa_behavior(policy), [_source(policy)], settings)
    # rules_of takes every resource for cpu, of which young pods' samples are left out
    is_cpu = np.array([isinstance(policy.metric, CpuMetric)], dtype=np.bool_)
    return rules._replace(metrics=rules.metrics._replace(is_cpu=is_cpu))


def hpa_behavior(policy: KnativeHpaPolicy) -> Behavior | None:
    """`behavior` of the generated HPA."""
    if policy.window_s is None:
        return None
    window = ScalingRules(stabilization_s=policy.window_s)
    return Behavior(scale_up=window, scale_down=window)


def _source(policy: KnativeHpaPolicy) -> Source:
    metric = policy.metric
    if isinstance(metric, CpuMetric):
        return "Resource", "Utilization", metric.target
    if isinstance(metric, MemoryMetric):
        return "Resource", "AverageValue", metric.target * _MILLI_A_MIB
    return "Pods", "AverageValue", metric.target * 1000
