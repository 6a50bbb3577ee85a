"""What an experiment's file says, as frozen values."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiphys.backends import AnyBackend
from tiphys.domain.faults import Fault
from tiphys.domain.nodes import Nodes
from tiphys.domain.route import Classes, Route, single
from tiphys.domain.service import Pool, Router, RouterKind
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.values import Frozen, PositiveInt, Ratio, Seconds
from tiphys.experiment.checks import check_fleet, check_names, check_nodes, check_route
from tiphys.policies.fleet import FLEET
from tiphys.traffic import AnySource, ConcurrencySource, OpenSource

PolicyName = str | dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
Scale = Annotated[float, Field(gt=0)]


class Service(Frozen):
    """What is served: a model on a backend, behind a router, in pools."""

    name: Name
    model: str
    backend: AnyBackend
    router: RouterKind | Router = "least_outstanding"
    pools: Annotated[dict[str, Pool], Field(min_length=1)]
    route: Route | None = None
    """Which pools a request passes, by traffic class; said where there is more than one pool, and only there."""

    @model_validator(mode="after")
    def _the_route_passes_every_pool(self) -> Self:
        check_route(self.route, self.pools)
        return self

    @property
    def routing(self) -> Router:
        """The router with its numbers."""
        return self.router if isinstance(self.router, Router) else Router(kind=self.router)

    @property
    def classes(self) -> Classes:
        """The hops of each traffic class, the first class first."""
        return single(next(iter(self.pools))) if self.route is None else self.route.classes()


class ClusterSpec(Frozen):
    """Where things are on a cluster, its nodes, and the settings that its controllers run with."""

    namespace: str = "default"
    context: str | None = None
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    settings: ClusterSettings = ClusterSettings()
    nodes: Nodes | None = None
    """The cluster's GPUs; without this every replica finds a free one at once."""

    @model_validator(mode="after")
    def _nodes_stand_in_one_place(self) -> Self:
        if self.nodes is not None and self.settings.nodes is not None:
            raise ValueError("nodes and settings.nodes say the same: leave one out")
        return self

    @property
    def in_force(self) -> ClusterSettings:
        """The settings with the nodes among them."""
        return self.settings if self.nodes is None else self.settings.with_(nodes=self.nodes)


class OtherTraffic(Frozen):
    """The traffic of another class than the first."""

    source: OpenSource
    scale: Scale = 1.0
    """Copies laid over one another; a fraction thins."""


class Traffic(Frozen):
    """The traffic: its source, how many copies of it, and which part of it may be tuned on."""

    source: AnySource
    """That of the first class."""
    scale: Scale = 1.0
    """Copies laid over one another, each shifted by a seeded jitter; a fraction thins."""
    others: dict[str, OtherTraffic] = Field(default_factory=dict)
    """That of the other classes, by name; it ends with the first's."""
    tune_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The first part in time is tuned on, the rest only judged on. In a closed loop both play the whole schedule."""
    warmup_s: Seconds = 300.0
    """Played before each scored window, not scored."""
    drain_s: Seconds = 600.0
    """How long requests in flight may finish after the last arrival."""
    starts_at: str = "00:00"
    """Time of day at which the traffic begins, HH:MM."""

    @field_validator("starts_at")
    @classmethod
    def _is_a_time_of_day(cls, text: str) -> str:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
            raise ValueError("is not a time of day from 00:00 to 23:59")
        return text

    @model_validator(mode="after")
    def _a_closed_loop_stands_alone(self) -> Self:
        if isinstance(self.source, ConcurrencySource) and (self.scale != 1 or self.others):
            raise ValueError("in a closed loop the source says how many users there are: leave out scale and others")
        return self

    @property
    def starts_at_s(self) -> float:
        """The time of day at which the traffic begins, seconds."""
        hours, minutes = self.starts_at.split(":")
        return int(hours) * 3600.0 + int(minutes) * 60.0


class Search(Frozen):
    """What is tried: policy spaces by pool, and how much of it."""

    spaces: dict[str, tuple[PolicyName, ...]]
    """A pool that is not named keeps its incumbent."""
    trials: PositiveInt = 300
    seed: Annotated[int, Field(ge=0)] = 1
    workers: PositiveInt = 2
    tune_seeds: PositiveInt = 2
    """Seeds under which each trial plays each fold of the tuning part."""
    folds: PositiveInt = 2
    """Parts in time of the tuning part, each of which must meet the SLO."""


class Live(Frozen):
    """How much is tried on a cluster."""

    trials: PositiveInt = 8
    confirmations: PositiveInt = 3


class DirectoryTarget(Frozen):
    """Promotion to a folder, as GitOps wants it."""

    kind: Literal["directory"]
    path: str = "promoted"


class Promotion(Frozen):
    """When a challenger replaces the incumbent, and where the winner goes."""

    min_gain: Ratio = 0.03
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    approval: bool = False
    target: DirectoryTarget = DirectoryTarget(kind="directory")


class Experiment(Frozen):
    """One experiment as its file states it."""

    api_version: Literal["tiphys/v1"]
    name: Name
    service: Service
    cluster: ClusterSpec = ClusterSpec()
    traffic: Traffic
    slo: Slo
    objective: Minimised = Minimised()
    incumbent: dict[str, PolicyName]
    search: Search
    live: Live = Live()
    promotion: Promotion = Promotion()
    faults: tuple[Fault, ...] = ()
    """What goes wrong in judged and in perturbed plays, and in `tiphys simulate`."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        pools, classes = self.service.pools, self.service.classes
        check_fleet(pools, self.incumbent, self.search.spaces, self.cluster.in_force.nodes)
        check_names("incumbent", "pool", self.incumbent, {*pools, FLEET})
        check_names("search.spaces", "pool", self.search.spaces, set(self.incumbent) | set(pools))
        for pool in pools:
            if pool not in self.incumbent:
                raise ValueError(f"incumbent: no policy for pool '{pool}'")
        check_names("traffic.others", "traffic class", self.traffic.others, list(classes)[1:])
        for place, objective in enumerate(self.slo.objectives):
            key = f"slo.objectives.{place}"
            check_names(key, "pool", [objective.pool] if objective.pool else [], pools)
            check_names(key, "traffic class", [objective.request_class] if objective.request_class else [], classes)
        check_nodes(self.cluster.in_force.nodes, pools, self.faults)
        self._check_price()
        return self

    def _check_price(self) -> None:
        nodes = self.cluster.in_force.nodes
        tiers = nodes.tiers if nodes else ()
        priced = bool(tiers) and all(tier.price_per_gpu_hour is not None for tier in tiers)
        if self.objective.minimise == "cost" and self.objective.price_per_gpu_hour is None and not priced:
            raise ValueError("objective: minimising cost needs price_per_gpu_hour, here or on every tier of nodes")
        if self.objective.harvested_credit and (nodes is None or nodes.offline is None):
            raise ValueError("objective: harvested_credit is for offline work, and cluster.nodes.offline is absent")
