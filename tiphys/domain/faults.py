"""What goes wrong, and when: seconds after the scored window begins."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds


class _Fault(Frozen):
    at_s: Seconds


class _Lasting(_Fault):
    for_s: PositiveSeconds

    @property
    def until_s(self) -> float:
        """When it is over."""
        return self.at_s + self.for_s


class ReplicaCrash(_Fault):
    """The container of the oldest `count` ready replicas dies: what they held fails (or is delivered again), and they
    load anew in place.
    """

    kind: Literal["replica_crash"]
    pool: str
    count: PositiveInt = 1


class NodeGone(_Fault):
    """A node disappears with all that runs on it; replicas are created anew elsewhere. Needs `cluster.nodes`."""

    kind: Literal["node_gone"]
    tier: str
    node: Annotated[int, Field(ge=0)] = 0
    """Number of the node within its tier."""


class SpotReclaim(_Fault):
    """The provider takes a node back: it is drained for `notice_s`, then gone. Needs `cluster.nodes`."""

    kind: Literal["spot_reclaim"]
    tier: str
    node: Annotated[int, Field(ge=0)] = 0
    notice_s: Seconds = 120.0


class ScrapesFail(_Lasting):
    """No scrape of the pool's replicas succeeds."""

    kind: Literal["scrapes_fail"]
    pool: str


class MetricsApiError(_Lasting):
    """Every metric request of the HPA is answered by an error."""

    kind: Literal["metrics_api_error"]


class PrometheusDown(_Lasting):
    """Prometheus neither scrapes nor answers: adapter and KEDA triggers get errors, no marker is written."""

    kind: Literal["prometheus_down"]


class ConsumerMissing(_Lasting):
    """The pool's JetStream consumer does not exist: KEDA's trigger fails, nothing is delivered, messages are kept."""

    kind: Literal["consumer_missing"]
    pool: str


class StaleLag(_Lasting):
    """The monitoring endpoint goes on answering the lag that it had when this began."""

    kind: Literal["stale_lag"]
    pool: str


class ColdStartNeverEnds(_Lasting):
    """Replicas of the pool that are created in this time never become ready."""

    kind: Literal["cold_start_never_ends"]
    pool: str


class SlowReplica(_Lasting):
    """The oldest ready replica takes `factor` times as long for a step that begins in this time."""

    kind: Literal["slow_replica"]
    pool: str
    factor: Annotated[float, Field(ge=1, le=1000)] = 2.0


Fault = Annotated[
    ReplicaCrash
    | NodeGone
    | SpotReclaim
    | ScrapesFail
    | MetricsApiError
    | PrometheusDown
    | ConsumerMissing
    | StaleLag
    | ColdStartNeverEnds
    | SlowReplica,
    Field(discriminator="kind"),
]
