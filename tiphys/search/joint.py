"""What is searched together: for each of some pools a space, or a choice of spaces; the other pools stay as they are.

With one pool in the service, dimensions and documents are those of its space. With several, every path begins with its
pool, and so does what hangs on the choice of a space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from tiphys.domain.platform import Policy, ScalingPolicy
from tiphys.policies.any_policy import parse_policy
from tiphys.policies.differences import leaves
from tiphys.policies.space import Dimension, Params, PolicySpace, Value

SpacesByPool = Mapping[str, Mapping[str, PolicySpace]]
SeedsByPool = Mapping[str, Mapping[str, Sequence[ScalingPolicy]]]
"""By pool and space, policies that are worth a trial."""
Document = Mapping[str, Any]


@dataclass(frozen=True)
class JointSpace:
    """Every policy of a service that takes one of the spaces of each pool; `incumbent` rules the other pools."""

    spaces: SpacesByPool
    incumbent: Policy

    @property
    def _many(self) -> bool:
        return len(self.incumbent) > 1

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The open values of all pools, each pool's choice of a space before what hangs on it."""
        return tuple(dimension for pool in self.spaces for dimension in self._of_pool(pool))

    def _of_pool(self, pool: str) -> Iterator[Dimension]:
        names = tuple(self.spaces[pool])
        if len(names) > 1:
            yield Dimension(pool, "choice", choices=names)
        for name in names:
            prefix = self._prefix(pool, name)
            chosen: tuple[tuple[str, Value], ...] = ((pool, name),) if len(names) > 1 else ()
            for each in self.spaces[pool][name].dimensions:
                inner = tuple((prefix + path, value) for path, value in each.when)
                yield replace(each, path=prefix + each.path, when=(*chosen, *inner))

    def _prefix(self, pool: str, name: str) -> str:
        if not self._many:
            return ""
        names = tuple(self.spaces[pool])
        return f"{pool}." if len(names) == 1 else f"{pool}#{names.index(name)}."

    @property
    def is_point(self) -> bool:
        """True when nothing is open."""
        return not self.dimensions

    @property
    def document(self) -> dict[str, Any]:
        """The spaces as they would stand in files."""
        return {pool: {name: each.document for name, each in spaces.items()} for pool, spaces in self.spaces.items()}

    def name_at(self, params: Params | None) -> str:
        """The spaces that a point takes: `hpa-ttft`, or `embed hpa-waiting, llm keda-running`."""
        chosen = {pool: self._chosen(pool, params or {}) for pool in self.spaces}
        return joint_name(chosen, self._many)

    def _chosen(self, pool: str, params: Params) -> str:
        names = tuple(self.spaces[pool])
        return str(params.get(pool, names[0])) if len(names) > 1 else names[0]

    def policy(self, params: Params) -> dict[str, ScalingPolicy]:
        """The policy of every pool at a point. Raises InputError for a point that is not one of the space."""
        chosen = {}
        for pool, spaces in self.spaces.items():
            name = self._chosen(pool, params)
            prefix, known = self._prefix(pool, name), {each.path for each in spaces[name].dimensions}
            inner = {path.removeprefix(prefix): value for path, value in params.items() if path.startswith(prefix)}
            chosen[pool] = spaces[name].policy({path: value for path, value in inner.items() if path in known})
        return {**self.incumbent, **chosen}

    def params_of(self, policy: Policy) -> dict[str, Value] | None:
        """The point of the space that is this policy; None when it lies outside."""
        point: dict[str, Value] = {}
        for pool, spaces in self.spaces.items():
            found = next(
                (
                    (name, params)
                    for name, each in spaces.items()
                    if (params := each.params_of(policy[pool])) is not None
                ),
                None,
            )
            if found is None:
                return None
            name, params = found
            point |= {pool: name} if len(spaces) > 1 else {}
            point |= {self._prefix(pool, name) + path: value for path, value in params.items()}
        return point

    def defaults(self) -> tuple[dict[str, ScalingPolicy], ...]:
        """The published defaults: one policy, or so many that every space of every pool is among them."""
        count = max(len(spaces) for spaces in self.spaces.values())
        chosen = [
            {pool: tuple(spaces.values())[turn % len(spaces)] for pool, spaces in self.spaces.items()}
            for turn in range(count)
        ]
        return tuple({**self.incumbent, **{pool: each.default for pool, each in one.items()}} for one in chosen)

    def seeded(self, seeds: SeedsByPool) -> tuple[dict[str, ScalingPolicy], ...]:
        """The published defaults with what was handed in for their spaces, the first of each pool together, and so
        on.
        """
        policies = []
        for turn, default in enumerate(self.defaults()):
            given = {
                pool: seeds.get(pool, {}).get(tuple(spaces)[turn % len(spaces)], ())
                for pool, spaces in self.spaces.items()
            }
            for place in range(max(map(len, given.values()))):
                policies.append({**default, **{pool: each[place] for pool, each in given.items() if place < len(each)}})
        return tuple(policies)

    def reference(self, params: Params) -> dict[str, ScalingPolicy]:
        """What the numbers of a point are put back to: the incumbent's where of the same law, else the default's."""
        policies = dict(self.incumbent)
        for pool, spaces in self.spaces.items():
            space = spaces[self._chosen(pool, params)]
            if self.incumbent[pool].kind != space.kind:
                policies[pool] = space.default
        return policies

    def numbers(self, policy: Policy) -> dict[str, Any]:
        """The numbers of a policy by path, as the dimensions have them but for the numbers of choices."""
        return {
            f"{pool}.{path}" if self._many else path: value
            for pool in self.spaces
            for path, value in leaves(policy[pool])
        }


def stated(policy: Policy) -> dict[str, Any]:
    """A policy as it stands in files: by pool, where there is more than one."""
    documents = {pool: scaling.document() for pool, scaling in policy.items()}
    return next(iter(documents.values())) if len(documents) == 1 else documents


def read_stated(document: Document, pools: Sequence[str]) -> dict[str, ScalingPolicy]:
    """The policy that `stated` wrote, for these pools."""
    by_pool = {pools[0]: document} if len(pools) == 1 else document
    return {pool: parse_policy(dict(by_pool[pool])) for pool in pools}


def joint_name(spaces: Mapping[str, str], many: bool) -> str:
    """What a space for each pool is called together."""
    return ", ".join(f"{pool} {name}" if many else name for pool, name in spaces.items())


def joint_spaces(spaces: SpacesByPool, incumbent: Policy, most: int) -> dict[str, JointSpace]:
    """The families of a search by name: every combination of spaces, or, where those are more than `most`, one family
    in which each pool's space is chosen like any other value.
    """
    many = len(incumbent) > 1
    choices = [[(pool, name) for name in names] for pool, names in spaces.items()]
    count = 1
    for names in choices:
        count *= len(names)
    if many and count > most:
        return {"any spaces": JointSpace(spaces, incumbent)}
    families = {}
    for chosen in product(*choices):
        alone = {pool: {name: spaces[pool][name]} for pool, name in chosen}
        families[joint_name(dict(chosen), many)] = JointSpace(alone, incumbent)
    return families
