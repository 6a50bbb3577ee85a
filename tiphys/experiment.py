"""`Experiment`: one YAML file that says what is served, what traffic, what was promised, what is in force, what may
be tried.

Above the families because it names one of each. What the file says is `Experiment`; what it amounts to (traces,
policies, spaces, scenarios) is `Plan`, made once by `plan`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tiphys.backends import AnyBackend
from tiphys.configs import config_file
from tiphys.documents import parse_yaml, read_yaml
from tiphys.domain.platform import Policy
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import PERTURBATIONS, Pool, Router, RouterKind
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.trace import Trace
from tiphys.domain.values import Frozen, PositiveInt, Ratio, Seconds, parse
from tiphys.errors import InputError, unknown_name
from tiphys.policies import Inert, PolicySpace, PoolContext, check_bounds, clipped, closed, load_policy
from tiphys.profiles import load_profile
from tiphys.traffic import AnySource, CsvSource, Loaded, fit, sample
from tiphys.twin import Twin, TwinPool, TwinService
from tiphys.twin.platform import check_prompts

PolicyName = str | dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]

JUDGED_REPLICATES = 36
"""Of which a third play the judged traffic itself under other phases, cold starts and routing, the rest traffic
resampled from it.
"""
_PLAYED_AS_IT_IS = 12
_SHORTEST_PART_S = 60.0
_MOST_REQUESTS = 50_000_000
"""More would not fit into the memory of a laptop."""


class Service(Frozen):
    """What is served: a model on a backend, behind a router, in pools."""

    name: Name
    model: str
    backend: AnyBackend
    router: RouterKind | Router = "least_outstanding"
    pools: Annotated[dict[str, Pool], Field(min_length=1)]

    @property
    def routing(self) -> Router:
        """The router with its numbers."""
        return self.router if isinstance(self.router, Router) else Router(kind=self.router)


class ClusterSpec(Frozen):
    """Where things are on a cluster, and the settings that its controllers run with."""

    namespace: str = "default"
    context: str | None = None
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    settings: ClusterSettings = ClusterSettings()


class Traffic(Frozen):
    """The traffic: its source, how many copies of it, and which part of it may be tuned on."""

    source: AnySource
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Copies laid over one another, each shifted by a seeded jitter; a fraction thins."""
    tune_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The first part in time is tuned on, the rest only judged on."""
    warmup_s: Seconds = 300.0
    """Played before each scored window, not scored."""
    drain_s: Seconds = 600.0
    """How long requests in flight may finish after the last arrival."""


class Search(Frozen):
    """What is tried: policy spaces by pool, and how much of it."""

    spaces: dict[str, tuple[PolicyName, ...]]
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

    @model_validator(mode="after")
    def _pools_are_known(self) -> Self:
        pools = self.service.pools
        for key, named in (("incumbent", self.incumbent), ("search.spaces", self.search.spaces)):
            for pool in named:
                if pool not in pools:
                    raise ValueError(f"{key}: unknown pool '{pool}'; pools: {', '.join(sorted(pools))}")
        for pool in pools:
            if pool not in self.incumbent:
                raise ValueError(f"incumbent: no policy for pool '{pool}'")
        if self.objective.minimise == "cost" and self.objective.price_per_gpu_hour is None:
            raise ValueError("objective: minimising cost needs price_per_gpu_hour")
        return self


def load_experiment(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> tuple[Experiment, Path]:
    """The experiment of a file (or of a name in configs/experiments) with `--set` changes, and the file's path.

    Raises InputError naming file, key, what was found and what is allowed.
    """
    path = Path(name_or_path)
    if not path.is_file() and "/" not in str(name_or_path) and not str(name_or_path).endswith((".yaml", ".yml")):
        path = config_file("experiments", str(name_or_path))
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise InputError("expected a mapping of keys", where=str(path), found=type(document).__name__)
    for key, value in (changes or {}).items():
        document = changed(document, key, value, str(path))
    return parse(Experiment, document, str(path)), path


def read_change(text: str) -> tuple[str, Any]:
    """`PATH=VALUE` of a `--set`: the dotted path and the value as YAML. Raises InputError for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
        raise InputError("is not PATH=VALUE", where="--set", found=text, allowed="for example traffic.scale=4")
    documents = parse_yaml(value, f"--set {key}")
    return key, documents[0] if documents else None


def changed(document: Any, key: str, value: Any, where: str, above: str = "") -> Any:
    """The document with the value at a dotted path replaced or added; list items by their number.

    `above` is where the document stands in a larger one, for messages.
    """
    head, _, rest = key.partition(".")
    path = f"{above}.{head}" if above else head
    place = f"--set in {where}"
    if isinstance(document, list):
        if not head.isdecimal() or int(head) >= len(document):
            allowed = f"0 to {len(document) - 1}"
            raise InputError("no such item", where=place, key=path, found=head, allowed=allowed)
        old = document[int(head)]
        new = changed(old, rest, value, where, path) if rest else value
        return [*document[: int(head)], new, *document[int(head) + 1 :]]
    if not isinstance(document, dict):
        raise InputError("this value holds no further keys", where=place, key=path, found=document)
    inner = changed(document.get(head, {}), rest, value, where, path) if rest else value
    return {**document, head: inner}


def with_trace(experiment: Experiment, trace: Path) -> Experiment:
    """The experiment with a file of requests in place of its traffic source."""
    source = CsvSource(kind="csv", path=str(trace.resolve()))
    return experiment.with_(traffic=experiment.traffic.with_(source=source))


@dataclass(frozen=True)
class Plan:
    """What an experiment amounts to. Everything is made on first use and kept; the same experiment gives the same
    plan.
    """

    experiment: Experiment
    where: Path

    @property
    def seed(self) -> int:
        """The seed that everything random derives from."""
        return self.experiment.search.seed

    @property
    def pool_name(self) -> str:
        """The name of the one pool."""
        return next(iter(self.experiment.service.pools))

    @property
    def pool(self) -> Pool:
        """The one pool."""
        return self.experiment.service.pools[self.pool_name]

    @cached_property
    def loaded(self) -> Loaded:
        """The source's traffic at scale 1, with what the reader should know of it."""
        try:
            return self.experiment.traffic.source.load(self.seed, self.where.parent)
        except InputError as error:
            raise error.at(error.where or str(self.where)) from None

    @property
    def traffic_where(self) -> str:
        """The file to look in when something is wrong with the traffic."""
        source = self.experiment.traffic.source
        return source.path if isinstance(source, CsvSource) else str(self.where)

    def check_prompts(self) -> None:
        """Raises InputError for the first request whose prompt no replica could hold."""
        try:
            check_prompts(self.loaded.trace, self.service.pools[self.pool_name])
        except InputError as error:
            raise error.at(self.traffic_where) from None

    @cached_property
    def trace(self) -> Trace:
        """The whole traffic, scaled."""
        scale, requests = self.experiment.traffic.scale, len(self.loaded.trace)
        if scale * requests > _MOST_REQUESTS:
            raise InputError(
                f"more than {_MOST_REQUESTS:,} requests",
                where=str(self.where),
                key="traffic.scale",
                found=scale,
                allowed=f"up to {_MOST_REQUESTS / requests:.6g}",
            )
        return self.loaded.trace.scaled(scale, self.seed)

    @cached_property
    def service(self) -> TwinService:
        """The service as the twin knows it. Raises InputError for an unknown profile."""
        backend = self.experiment.service.backend
        pools = {}
        for name, pool in self.experiment.service.pools.items():
            key = f"service.pools.{name}.profile"
            profile = load_profile(pool.profile, str(self.where), key)
            pools[name] = TwinPool(pool, profile, pool.admission or backend.admission, backend.dialect.ttft_bounds_s)
        return TwinService(pools, self.experiment.service.routing)

    @cached_property
    def incumbent(self) -> Policy:
        """The policy in force. Raises InputError when a value of it is open or its bounds lie outside the envelope."""
        policies = {}
        for name, named in self.experiment.incumbent.items():
            key = f"incumbent.{name}"
            policies[name] = self.closed_policy(named, name, key)
        return policies

    def closed_policy(self, named: PolicyName | Path, pool: str, key: str = "", option: str = "") -> Any:
        """A policy by name, path or document, checked against a pool.

        Faults that no file is named for are reported at `key` of the experiment, or at the command line's `option`.
        """
        place = f"{option} {named}" if option else str(self.where)
        if pool not in self.experiment.service.pools:
            raise unknown_name("pool", pool, self.experiment.service.pools, where=str(self.where), key=key)
        try:
            policy = closed(load_policy(named, where=str(self.where)), place)
            check_bounds(policy, self.experiment.service.pools[pool].replicas)
        except InputError as error:
            unplaced = error.where in ("", str(self.where))
            raise error.at(place if unplaced else error.where, key) from None
        return policy

    @cached_property
    def spaces(self) -> dict[str, PolicySpace]:
        """The spaces of the pool, by name, clipped to its envelope, what cannot act there fixed."""
        return {name: space.without(self.inert[name]) for name, space in self._clipped.items()}

    @cached_property
    def inert(self) -> dict[str, tuple[Inert, ...]]:
        """By space, the open numbers that cannot act in this setting: they are fixed and reported, not tuned."""
        settings = self.experiment.cluster.settings
        return {name: space.inert(settings) for name, space in self._clipped.items()}

    @cached_property
    def _clipped(self) -> dict[str, PolicySpace]:
        spaces: dict[str, PolicySpace] = {}
        for place, named in enumerate(self.experiment.search.spaces.get(self.pool_name, ())):
            key = f"search.spaces.{self.pool_name}.{place}"
            try:
                space = _as_space(load_policy(named, where=str(self.where)), named, place)
                if space.name in spaces:
                    raise InputError("a space of this name stands there already", found=space.name)
                spaces[space.name] = space.within(self.pool.replicas)
            except InputError as error:
                raise error.at(error.where or str(self.where), key) from None
        if not spaces:
            raise InputError("nothing to try", where=str(self.where), key=f"search.spaces.{self.pool_name}")
        return spaces

    def twin(self) -> Twin:
        """The twin of the service under the incumbent."""
        return Twin(self.service, self.incumbent)

    def context(self) -> PoolContext:
        """What a manifest of the pool says besides the policy's numbers."""
        service, cluster = self.experiment.service, self.experiment.cluster
        target = self.pool.target or service.backend.target(service.name)
        return PoolContext(
            name=service.name,
            target=target,
            dialect=service.backend.dialect,
            namespace=cluster.namespace,
            prometheus_url=cluster.prometheus_url,
            labels={"tiphys.io/experiment": self.experiment.name},
        )

    def whole(self, seed: int | None = None) -> Scenario:
        """All the traffic, unsplit and without a warm-up."""
        return self._scenario(self.trace, 0.0, self.seed if seed is None else seed, "whole")

    @property
    def split_s(self) -> float:
        """Where the part that is tuned on ends. Raises InputError for a trace that is too short to split."""
        traffic = self.experiment.traffic
        split_s = self.trace.end_s * traffic.tune_share
        fold_s, judged_s = split_s / self.experiment.search.folds, self.trace.end_s - split_s
        if fold_s < _SHORTEST_PART_S or judged_s < _SHORTEST_PART_S or split_s <= traffic.warmup_s + _SHORTEST_PART_S:
            raise InputError(
                "the traffic is too short to split into a part to tune on and a part to judge on",
                where=self.traffic_where,
                key="traffic.tune_share",
                found=f"{self.trace.end_s:g} s",
                allowed=f"folds and a judged part of at least {_SHORTEST_PART_S:g} s, and as much left of the tuning "
                f"part after the warm-up of {traffic.warmup_s:g} s",
            )
        return split_s

    def folds(self) -> tuple[Scenario, ...]:
        """The folds of the tuning part under each seed of the search, to be met one by one."""
        count, split_s = self.experiment.search.folds, self.split_s
        edges = [split_s * fold / count for fold in range(count + 1)]
        return tuple(
            self._window(start_s, stop_s, self.seed * 1000 + seed, f"fold {fold + 1} of {count}, seed {seed + 1}")
            for seed in range(self.experiment.search.tune_seeds)
            for fold, (start_s, stop_s) in enumerate(pairwise(edges))
        )

    def perturbed(self) -> tuple[Scenario, ...]:
        """The whole tuning part where the truth is perturbed."""
        whole = self._window(0.0, self.split_s, self.seed * 1000, "tuning part")
        return tuple(whole.under(perturbation) for perturbation in PERTURBATIONS)

    def judged(self) -> tuple[Scenario, ...]:
        """Replicates of the judged part: itself under several seeds, and traffic resampled from its profile."""
        start_s, stop_s = self.split_s, self.trace.end_s
        first = self.seed * 1000 + 500
        played = [
            self._window(start_s, stop_s, first + i, f"judged part, seed {i + 1}") for i in range(_PLAYED_AS_IT_IS)
        ]
        return (*played, *self._resampled(start_s, stop_s, JUDGED_REPLICATES - _PLAYED_AS_IT_IS, first + 100))

    def _resampled(self, start_s: float, stop_s: float, count: int, first_seed: int) -> list[Scenario]:
        warmup_s = min(self.experiment.traffic.warmup_s, start_s)
        profile = fit(self.loaded.trace.between(start_s - warmup_s, stop_s), name=f"{self.trace.name}, judged part")
        return [
            self._scenario(
                sample(profile, first_seed + i, scale=self.experiment.traffic.scale),
                warmup_s,
                first_seed + i,
                f"resampled {i + 1}",
            )
            for i in range(count)
        ]

    def _window(self, start_s: float, stop_s: float, seed: int, name: str) -> Scenario:
        """A window of the traffic, what came just before it played as its warm-up (its own beginning where nothing
        did).
        """
        warmup_s = self.experiment.traffic.warmup_s
        begin_s = max(0.0, start_s - warmup_s)
        scored_from_s = warmup_s if start_s < warmup_s else start_s - begin_s
        return self._scenario(self.trace.between(begin_s, stop_s), scored_from_s, seed, name)

    def _scenario(self, trace: Trace, warmup_s: float, seed: int, name: str) -> Scenario:
        return Scenario(
            trace,
            seed=seed,
            warmup_s=warmup_s,
            drain_s=self.experiment.traffic.drain_s,
            settings=self.experiment.cluster.settings,
            name=name,
        )


def _as_space(found: Any, named: PolicyName, place: int) -> PolicySpace:
    """A space; a policy without anything open is a space of one point."""
    name = named if isinstance(named, str) else f"space-{place + 1}"
    if isinstance(found, PolicySpace):
        return found
    return PolicySpace(found.document(), Path(name).stem, name)


__all__ = [
    "JUDGED_REPLICATES",
    "ClusterSpec",
    "Experiment",
    "Plan",
    "Promotion",
    "Search",
    "Service",
    "Traffic",
    "changed",
    "clipped",
    "load_experiment",
    "read_change",
    "with_trace",
]
