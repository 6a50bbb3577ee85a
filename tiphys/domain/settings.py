"""Controller flags and cluster-wide settings that the control laws depend on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tiphys.domain.nodes import Nodes
from tiphys.domain.values import Frozen, PositiveSeconds, Ratio, Seconds, Share


class HpaSettings(Frozen):
    """Flags of kube-controller-manager and feature gates; defaults of the upstream release (specification 2.1)."""

    sync_period_s: PositiveSeconds = 15.0
    pass_s: Seconds = 0.1
    """Duration of a pass, added to the period (the queue delays by a full period after each pass)."""
    phase_s: Seconds | None = None
    """First pass; drawn from the seed within one period where absent."""
    tolerance: Ratio = 0.1
    downscale_stabilization_s: Seconds = 300.0
    cpu_initialization_period_s: Seconds = 300.0
    initial_readiness_delay_s: Seconds = 30.0
    configurable_tolerance: bool = True
    scale_to_zero: bool = False


class ScrapeSettings(Frozen):
    """How Prometheus sees the pods."""

    interval_s: PositiveSeconds = 15.0
    phase_s: Seconds | None = None
    """Offset of every target; drawn per pod from the seed where absent."""
    lookback_s: PositiveSeconds = 300.0
    rule_interval_s: PositiveSeconds = 30.0
    """How often recording rules are evaluated."""
    cpu_resolution_s: PositiveSeconds = 15.0
    """metrics-server's --metric-resolution, over which it averages CPU."""


class KedaSettings(Frozen):
    """Phases of the operator's poll loop."""

    phase_s: Seconds | None = None


class KnativeSettings(Frozen):
    """ConfigMaps config-autoscaler and config-deployment; defaults of the upstream release (specification 4.1).

    What a Service's annotations may say too is in force only where a policy leaves it out.
    """

    tick_s: PositiveSeconds = 2.0
    """Seconds from decision to decision, and one bucket of the scale-down delay; no setting of a cluster."""
    scrape_s: PositiveSeconds = 1.0
    """Seconds from one sample of the pods to the next; no setting of a cluster."""
    phase_s: Seconds | None = None
    """First decision; drawn from the seed within one period where absent."""
    max_scale_up_rate: Annotated[float, Field(gt=1)] = 1000.0
    """Most pods after a decision, over the ready ones."""
    max_scale_down_rate: Annotated[float, Field(gt=1)] = 2.0
    """Ready pods over the least after a decision."""
    scale_to_zero: bool = True
    scale_to_zero_grace_s: PositiveSeconds = 30.0
    """How long the activator must have been in the path before the last pod goes."""
    activator_capacity: Annotated[float, Field(ge=1)] = 100.0
    """Requests at a time that one activator is meant for."""
    stable_window_s: Annotated[int, Field(ge=6, le=3600)] = 60
    panic_window_ratio: Annotated[float, Field(ge=0.01, le=1)] = 0.1
    panic_threshold_ratio: Annotated[float, Field(ge=1.1, le=10)] = 2.0
    container_concurrency_target_default: Annotated[float, Field(ge=0.01)] = 100.0
    """Requests at a time of one pod where neither a target nor a container limit is given."""
    concurrency_target_utilization_ratio: Share = 0.7
    rps_target_default: Annotated[float, Field(ge=0.01)] = 200.0
    """Requests per second of one pod where no target is given."""
    rps_target_utilization_ratio: Share = 0.7
    """No setting of a cluster."""
    target_burst_capacity: Annotated[float, Field(ge=-1)] = 211.0
    """-1 keeps the activator in the path."""
    scale_down_delay_s: Annotated[int, Field(ge=0, le=3600)] = 0
    pod_retention_s: Seconds = 0.0
    initial_scale: Annotated[int, Field(ge=0)] = 1
    allow_zero_initial_scale: bool = False
    progress_deadline_s: Annotated[int, Field(ge=1)] = 600


class ClusterSettings(Frozen):
    """Read from a cluster where there is one, obeyed by the twin, never a default baked into a law."""

    hpa: HpaSettings = HpaSettings()
    scrape: ScrapeSettings = ScrapeSettings()
    keda: KedaSettings = KedaSettings()
    knative: KnativeSettings = KnativeSettings()
    nodes: Nodes | None = None
