"""Controller flags and cluster-wide settings that the control laws depend on."""

from __future__ import annotations

from tiphys.domain.nodes import Nodes
from tiphys.domain.values import Frozen, PositiveSeconds, Ratio, Seconds


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


class ClusterSettings(Frozen):
    """Read from a cluster where there is one, obeyed by the twin, never a default baked into a law."""

    hpa: HpaSettings = HpaSettings()
    scrape: ScrapeSettings = ScrapeSettings()
    keda: KedaSettings = KedaSettings()
    nodes: Nodes | None = None
