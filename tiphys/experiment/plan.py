"""What an experiment amounts to: policies, spaces, scenarios, a twin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tiphys.documents import parse_yaml, read_text
from tiphys.domain.platform import Policy, ScalingPolicy
from tiphys.domain.profile import Profile
from tiphys.domain.route import NOTHING
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool
from tiphys.domain.trace import Trace
from tiphys.errors import InputError, unknown_name
from tiphys.experiment.scenarios import Scenarios, scenarios_of
from tiphys.experiment.spec import Experiment, PolicyName
from tiphys.policies import Inert, PolicySpace, PoolContext, check_bounds, closed, load_policy, render
from tiphys.policies.fits import check_fits
from tiphys.policies.fleet import FLEET, FleetPolicy
from tiphys.profiles import load_profile
from tiphys.traffic import CsvSource, Loaded
from tiphys.twin import Twin, TwinPool, TwinService
from tiphys.twin.platform import check_prompts


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
    def pools(self) -> dict[str, Pool]:
        """Every pool by name."""
        return self.experiment.service.pools

    @property
    def pool_name(self) -> str:
        """The name of the one pool. Raises InputError that lists them where there are several."""
        if len(self.pools) > 1:
            raise InputError("which pool?", where=str(self.where), key="service.pools", allowed=", ".join(self.pools))
        return next(iter(self.pools))

    @cached_property
    def scenarios(self) -> Scenarios:
        """What is played."""
        return scenarios_of(self.experiment, self.where)

    @property
    def loaded(self) -> Loaded:
        """The first class's traffic at scale 1, with what the reader should know of all of it."""
        return self.scenarios.loaded

    @property
    def trace(self) -> Trace:
        """The whole traffic, scaled."""
        return self.scenarios.trace

    @property
    def tuned(self) -> Trace:
        """The part of the traffic that is tuned on. Raises InputError for traffic that is too short to split."""
        return self.scenarios.tuned

    @property
    def split_s(self) -> float:
        """Where the part that is tuned on ends; the end of a schedule of users, which is not split."""
        return self.scenarios.tuned.end_s

    def whole(self, seed: int | None = None) -> Scenario:
        """All the traffic, unsplit and without a warm-up."""
        return self.scenarios.whole(self.seed if seed is None else seed)

    def folds(self) -> tuple[Scenario, ...]:
        """What each trial of the search must meet, one by one."""
        return self.scenarios.folds()

    def perturbed(self) -> tuple[Scenario, ...]:
        """What is tuned on where the truth is perturbed."""
        return self.scenarios.perturbed()

    def judged(self) -> tuple[Scenario, ...]:
        """The replicates that are judged on."""
        return self.scenarios.judged()

    def check_prompts(self) -> None:
        """Raises InputError for the first request whose prompt no replica could hold."""
        source = self.experiment.traffic.source
        where = source.path if isinstance(source, CsvSource) else str(self.where)
        try:
            check_prompts(self.loaded.trace, self.service)
        except InputError as error:
            raise error.at(where) from None

    @cached_property
    def service(self) -> TwinService:
        """The service as the twin knows it. Raises InputError for an unknown profile."""
        service = self.experiment.service
        pools = {}
        for name, pool in service.pools.items():
            profile = load_profile(pool.profile, str(self.where), f"service.pools.{name}.profile")
            admission, dialect = pool.admission or service.backend.admission, service.backend.dialect
            bounds_s = (dialect.bounds_s("ttft"), dialect.bounds_s("itl"), dialect.bounds_s("e2e"))
            pools[name] = TwinPool(pool, profile, admission, *bounds_s, tier_profiles=self._tier_profiles(name))
        return TwinService(pools, service.routing, service.classes if len(pools) > 1 else {})

    def _tier_profiles(self, pool: str) -> dict[str, Profile]:
        nodes = self.experiment.cluster.in_force.nodes
        return {
            tier.name: load_profile(
                tier.profiles[pool], str(self.where), f"cluster.nodes.tiers.{place}.profiles.{pool}"
            )
            for place, tier in enumerate(nodes.tiers if nodes else ())
            if pool in tier.profiles
        }

    def twin(self) -> Twin:
        """The twin of the service under the incumbent."""
        return Twin(self.service, self.incumbent)

    @cached_property
    def incumbent(self) -> Policy:
        """The policy in force. Raises InputError when a value of it is open or its bounds lie outside the envelope."""
        stated = self.experiment.incumbent
        governed = [*self.pools, *([FLEET] if FLEET in stated else [])]
        return {name: self.closed_policy(stated[name], name, f"incumbent.{name}") for name in governed}

    def closed_policy(self, named: PolicyName | Path, pool: str, key: str = "", option: str = "") -> ScalingPolicy:
        """A policy by name, path or document, checked against a pool.

        Faults that no file is named for are reported at `key` of the experiment, or at the command line's `option`.
        """
        place = f"{option} {named}" if option and not isinstance(named, dict) else option or str(self.where)
        if pool not in self.pools and pool != FLEET:
            raise unknown_name("pool", pool, self.pools, where=str(self.where), key=key)
        try:
            policy = closed(load_policy(named, where=str(self.where)), place)
            self._check_fits(policy, pool)
        except InputError as error:
            unplaced = error.where in ("", str(self.where))
            raise error.at(place if unplaced else error.where, key) from None
        return policy

    def _check_fits(self, policy: ScalingPolicy, pool: str) -> tuple[str, ...]:
        """What the reader should know of a policy on a pool. Raises InputError for one that cannot govern it."""
        if (pool == FLEET) != isinstance(policy, FleetPolicy):
            allowed = "fleet" if pool == FLEET else "a policy that scales replicas"
            raise InputError("is no policy for this place", key="kind", found=policy.kind, allowed=allowed)
        if pool == FLEET:
            return ()
        service = self.experiment.service
        check_bounds(policy, self.pools[pool].replicas)
        return check_fits(
            policy,
            self.pools[pool],
            self.experiment.cluster.in_force,
            service.backend.dialect,
            pool if len(self.pools) > 1 else "",
            router=service.routing.kind,
            is_encoder=self._is_encoder(pool),
        )

    def _is_encoder(self, pool: str) -> bool:
        """True for a pool whose jobs only prefill."""
        hops = [hop for hops in self.experiment.service.classes.values() for hop in hops if hop.pool == pool]
        return all(hop.output == NOTHING for hop in hops)

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What the reader should know of the incumbent and the spaces on their pools, each thing once."""
        said = [
            f"{pool}: {notice}" if len(self.pools) > 1 else notice
            for pool, policies in self._tried.items()
            for policy in policies
            for notice in self._check_fits(policy, pool)
        ]
        return tuple(dict.fromkeys(said))

    @property
    def _tried(self) -> dict[str, list[ScalingPolicy]]:
        spaces = {pool: [space.default for space in named.values()] for pool, named in self.spaces.items()}
        return {pool: [policy, *spaces.get(pool, [])] for pool, policy in self.incumbent.items()}

    def policy_given(self, named: str, option: str) -> Policy:
        """The incumbent with what an option of the command line puts in its place.

        For one pool a policy by name or path. For several (or a fleet policy beside): `POOL=NAME_OR_PATH`, more of them
        joined by commas, or a file that holds a policy (or its name) for each of some pools.
        """
        given = {
            pool: self.closed_policy(each, pool, "" if isinstance(each, str) else pool, option)
            for pool, each in self.given_by_pool(named, option).items()
        }
        return {**self.incumbent, **given}

    def given_by_pool(self, named: str, option: str) -> dict[str, PolicyName]:
        """The names or documents that an option of the command line gives, by pool, as `policy_given` reads them."""
        if len(self.incumbent) == 1:
            return {self.pool_name: named}
        place = f"{option} {named}"
        allowed = "POOL=FILE[,POOL=FILE], or a file with a policy for each of some pools"
        if "=" in named:
            pairs = [part.partition("=") for part in named.split(",")]
            found: dict[str, Any] = {pool: policy for pool, _, policy in pairs}
        else:
            path = Path(named)
            documents = parse_yaml(read_text(path), str(path)) if path.is_file() else []
            found = documents[0] if len(documents) == 1 and isinstance(documents[0], dict) else {}
            if not found or "kind" in found or "apiVersion" in found:
                raise InputError("does not say for which pool it is", where=place, allowed=allowed)
        for pool, policy in found.items():
            if pool not in self.incumbent:
                raise unknown_name("pool", pool, self.incumbent, where=place)
            if not policy or not isinstance(policy, str | dict):
                raise InputError("names no policy", where=place, key=pool, allowed=allowed)
        return found

    def space_given(self, named: PolicyName, pool: str, option: str) -> PolicySpace:
        """A space, or a policy as a space of one point, that an option of the command line gives for a pool."""
        found = load_policy(named, where=str(self.where))
        if not isinstance(found, PolicySpace) or found.is_point:
            return PolicySpace(self.closed_policy(named, pool, option=option).document(), str(named))
        space = self._within(found, pool)
        return space.without(space.inert(self.experiment.cluster.in_force))

    @cached_property
    def spaces(self) -> dict[str, dict[str, PolicySpace]]:
        """By pool, the spaces by name, clipped to its envelope, what cannot act there fixed.

        Pools that are not searched are left out. Raises InputError where there is nothing to try.
        """
        return {
            pool: {name: space.without(self.inert[pool][name]) for name, space in spaces.items()}
            for pool, spaces in self._clipped.items()
        }

    @cached_property
    def inert(self) -> dict[str, dict[str, tuple[Inert, ...]]]:
        """By pool and space, the open numbers that cannot act in this setting: fixed and reported, not tuned."""
        settings = self.experiment.cluster.in_force
        return {
            pool: {name: space.inert(settings) for name, space in spaces.items()}
            for pool, spaces in self._clipped.items()
        }

    @cached_property
    def _clipped(self) -> dict[str, dict[str, PolicySpace]]:
        named = self.experiment.search.spaces
        clipped = {pool: dict(self._clipped_of(pool, named[pool])) for pool in self.incumbent if named.get(pool)}
        if not clipped:
            key = f"search.spaces.{self.pool_name}" if len(self.pools) == 1 else "search.spaces"
            raise InputError("nothing to try", where=str(self.where), key=key)
        return clipped

    def _clipped_of(self, pool: str, named: Iterable[PolicyName]) -> Iterator[tuple[str, PolicySpace]]:
        seen: set[str] = set()
        for place, each in enumerate(named):
            with self._faults_at(f"search.spaces.{pool}.{place}"):
                space = _as_space(load_policy(each, where=str(self.where)), each, place)
                if space.name in seen:
                    raise InputError("a space of this name stands there already", found=space.name)
                seen.add(space.name)
                clipped = self._within(space, pool)
                self._check_fits(clipped.default, pool)
            yield clipped.name, clipped

    def _within(self, space: PolicySpace, pool: str) -> PolicySpace:
        return space.within(self.pools[pool].replicas) if pool in self.pools else space

    @contextmanager
    def _faults_at(self, key: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise error.at(error.where or str(self.where), key) from None

    @property
    def contexts(self) -> dict[str, PoolContext]:
        """What the manifests of each pool say besides its policy's numbers."""
        return {name: self.context(name) for name in self.pools}

    def manifests(self, policy: Policy) -> list[dict[str, Any]]:
        """Every object that puts a policy in force on its pools. Offline work has a scheduler, and no scaler."""
        pools = [(pool, scaling) for pool, scaling in policy.items() if pool != FLEET]
        return [each for pool, scaling in pools for each in render(scaling, self.context(pool))]

    def context(self, pool: str) -> PoolContext:
        """What a manifest of a pool says besides the policy's numbers.

        Its scaler and its workload are named as the service; where there are several pools, as service and pool.
        """
        service, cluster = self.experiment.service, self.experiment.cluster
        name = service.name if len(service.pools) == 1 else f"{service.name}-{pool}"
        return PoolContext(
            name=name,
            target=service.pools[pool].target or service.backend.target(name),
            dialect=service.backend.dialect,
            namespace=cluster.namespace,
            prometheus_url=cluster.prometheus_url,
            labels={"tiphys.io/experiment": self.experiment.name},
            rule_interval_s=cluster.in_force.scrape.rule_interval_s,
        )


def _as_space(found: Any, named: PolicyName, place: int) -> PolicySpace:
    """A space; a policy without anything open is a space of one point, one that is written in place has a number."""
    name = Path(named).stem if isinstance(named, str) else f"space-{place + 1}"
    if not isinstance(found, PolicySpace):
        return PolicySpace(found.document(), name, str(named) if isinstance(named, str) else name)
    return found if isinstance(named, str) else PolicySpace(found.document, name, found.where)
