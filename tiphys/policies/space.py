"""`PolicySpace`: a policy in which some values are ranges. What is searched is written as the thing that is searched.

`{between: [low, high], log: true, step: n}` stands for a number, `{choice: [...]}` for any value (a choice may itself
hold ranges), `{same_as: PATH}` for the value at another path. `published_default` names the policy that the search
starts from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Literal

from tiphys.configs import config_file
from tiphys.documents import read_yaml
from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.service import Envelope
from tiphys.domain.settings import ClusterSettings
from tiphys.errors import InputError, unknown_name
from tiphys.policies.any_policy import ClosedPolicy, parse_policy, policy_class
from tiphys.policies.inert import inert_numbers
from tiphys.policies.space_document import Choice, Node, Range, SameAs, is_open, read_node
from tiphys.policies.within import clipped, clipped_document

Value = int | float | str | bool | None
Params = Mapping[str, Value]
_PROBES = 32


@dataclass(frozen=True)
class Dimension:
    """One open value of a space.

    `path` is its dotted path in the document; inside the i-th choice of an open value it carries `#i`. `low` and `high`
    are both included. `choices` are the values themselves where all are scalar, else the labels `#0`, `#1`, ... in
    order. `when` names the choices under which this dimension exists at all.
    """

    path: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] = ()
    when: tuple[tuple[str, Value], ...] = ()

    def exists(self, params: Params) -> bool:
        """True when the choices that were made lead to this dimension."""
        return all(params.get(path) == value for path, value in self.when)

    def contains(self, value: object) -> bool:
        """True for a value that this dimension can take."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int if self.kind == "int" else int | float):
            return False
        return self.low <= value <= self.high and self._on_grid(value)

    def _on_grid(self, value: float) -> bool:
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-9

    def draw(self, random: Random) -> Value:
        """A value drawn uniformly (in the logarithm, where `log`)."""
        if self.kind == "choice":
            return random.choice(self.choices)
        if self.step:
            index = random.randint(0, round((self.high - self.low) / self.step))
            return self._number(self.low + index * self.step)
        if self.log:
            drawn = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
            return self._number(min(max(drawn, self.low), self.high))
        return self._number(random.uniform(self.low, self.high))

    def ends(self) -> tuple[Value, ...]:
        """The extreme values: both ends of a range, every choice."""
        return self.choices if self.kind == "choice" else (self._number(self.low), self._number(self.high))

    def middle(self) -> Value:
        """The middle of the range (in the logarithm, where `log`); the first choice."""
        if self.kind == "choice":
            return self.choices[0]
        centre = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step:
            centre = self.low + math.floor((centre - self.low) / self.step) * self.step
        return self._number(centre)

    def _number(self, value: float) -> int | float:
        return round(value) if self.kind == "int" else value


@dataclass(frozen=True)
class Inert:
    """An open value that cannot act in its setting: fixed at `value`, not tuned."""

    path: str
    value: Value
    reason: str


class PolicySpace:
    """Every policy that a document with open values stands for.

    Raises InputError, with file and key, for a range whose low is over its high, for a number that is not finite, for
    unknown keys, and when some sample would not be a valid policy.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        name: str = "",
        where: str = "",
        *,
        published: ScalingPolicy | None = None,
    ) -> None:
        self.name, self.where = name, where
        self.document = deepcopy(dict(document))
        self._published = published
        stated = {key: value for key, value in self.document.items() if key != "published_default"}
        self._class = policy_class(stated, where)
        for key in stated:
            if key not in self._class.model_fields:
                raise unknown_name("key", key, {*self._class.model_fields, "published_default"}, where=where, key=key)
        self._tree = read_node(stated, "", self._class, where)
        self.dimensions = tuple(_dimensions(self._tree, ()))
        self._check_samples()

    def __repr__(self) -> str:
        return f"PolicySpace({self.name or self.where!r}, {len(self.dimensions)} dimensions)"

    @property
    def kind(self) -> str:
        """The control law: hpa, keda, kpa, ..."""
        return str(self.document["kind"])

    @property
    def is_point(self) -> bool:
        """True when nothing is open: the space is one policy."""
        return not self.dimensions

    def policy(self, params: Params) -> ClosedPolicy:
        """The policy at a point. Values of dimensions that do not exist there are ignored.

        Raises InputError for a name that is no dimension, a value that is missing or outside its range.
        """
        unknown = set(params) - {dimension.path for dimension in self.dimensions}
        if unknown:
            raise InputError("is not open in this space", where=self.where, key=min(unknown))
        for dimension in self.dimensions:
            if dimension.exists(params) and not dimension.contains(params.get(dimension.path)):
                raise InputError(
                    "is not a point of the space",
                    where=self.where,
                    key=dimension.path,
                    found=params.get(dimension.path),
                    allowed=_allowed(dimension),
                )
        return parse_policy(_tied(_filled(self._tree, params), self.where), self.where)

    def params_of(self, policy: ScalingPolicy) -> dict[str, Value] | None:
        """The point of the space that is this policy; None when it lies outside."""
        if policy.kind != self.kind:
            return None
        for params in _points(self._tree, policy.model_dump(mode="json")):
            try:
                if self.policy(params) == policy:
                    return params
            except InputError:
                continue
        return None

    @cached_property
    def default(self) -> ScalingPolicy:
        """The published default of the family; where the document names none, the middle of every range."""
        if self._published is not None:
            return self._published
        name = self.document.get("published_default")
        if name is None:
            return self.policy({dimension.path: dimension.middle() for dimension in self.dimensions})
        if not isinstance(name, str):
            raise InputError("is the name of a policy", where=self.where, key="published_default", found=name)
        path = config_file("policies", name, where=self.where, key="published_default")
        return parse_policy(read_yaml(path), str(path))

    def sample(self, seed: int) -> dict[str, Value]:
        """A point drawn at random."""
        random = Random(seed)
        drawn = {dimension.path: dimension.draw(random) for dimension in self.dimensions}
        return self._existing(drawn)

    def within(self, envelope: Envelope) -> PolicySpace:
        """The same space with its replica bounds, and its default's, clipped to a pool's envelope."""
        document = clipped_document(self.document, self._class, envelope)
        return PolicySpace(document, self.name, self.where, published=clipped(self.default, envelope))

    def inert(self, settings: ClusterSettings) -> tuple[Inert, ...]:
        """The open values that cannot act anywhere in the space under these settings, and why."""
        at_default = self.params_of(self.default) or {}
        found = []
        for dimension in self.dimensions:
            policies = [self.policy(params) for params in self._probes() if dimension.path in params]
            reasons = [inert_numbers(policy, settings).get(policy_path(dimension.path)) for policy in policies]
            if reasons and all(reasons):
                value = at_default.get(dimension.path, dimension.middle())
                found.append(Inert(dimension.path, value, str(reasons[0])))
        return tuple(found)

    def without(self, inert: Iterable[Inert]) -> PolicySpace:
        """The same space with some dimensions fixed at a value."""
        document = deepcopy(self.document)
        for number in inert:
            _put(document, number.path, number.value)
        return PolicySpace(document, self.name, self.where, published=self.default)

    def _existing(self, params: Params) -> dict[str, Value]:
        return {d.path: params[d.path] for d in self.dimensions if d.exists(params)}

    def _probes(self) -> Iterator[dict[str, Value]]:
        """Points that find what is invalid: each end against all lows and against all highs, and seeded draws."""
        lows = {d.path: d.ends()[0] for d in self.dimensions}
        highs = {d.path: d.ends()[-1] for d in self.dimensions}
        yield self._existing(lows)
        yield self._existing(highs)
        for dimension in self.dimensions:
            for end in dimension.ends():
                towards = dict(dimension.when)
                yield self._existing({**lows, **towards, dimension.path: end})
                yield self._existing({**highs, **towards, dimension.path: end})
        for seed in range(_PROBES if self.dimensions else 0):
            yield self.sample(seed)

    def _check_samples(self) -> None:
        for params in self._probes():
            try:
                self.policy(params)
            except InputError as error:
                if not self.dimensions or error.message.startswith("unknown key"):
                    raise
                at = ", ".join(f"{path} {value}" for path, value in params.items())
                raise InputError(
                    f"not every sample is a valid policy: {error.message} (at {at})",
                    where=self.where,
                    key=error.key,
                    found=error.found,
                    allowed=error.allowed,
                ) from None


def closed(policy: ScalingPolicy | PolicySpace, where: str = "") -> ScalingPolicy:
    """A policy with nothing open. Raises InputError that names what is open."""
    if isinstance(policy, ScalingPolicy):
        return policy
    if policy.is_point:
        return policy.policy({})
    raise InputError(
        "this must be one policy, but it has open values (tiphys search tunes those)",
        where=where or policy.where,
        key=policy.dimensions[0].path,
        found=", ".join(dimension.path for dimension in policy.dimensions),
        allowed="numbers",
    )


def policy_path(path: str) -> str:
    """The path in the policy of a dimension's path: without the numbers of choices."""
    return ".".join(part.split("#")[0] for part in path.split("."))


def _allowed(dimension: Dimension) -> str:
    if dimension.kind == "choice":
        return ", ".join(str(choice) for choice in dimension.choices)
    step = f" in steps of {dimension.step:g}" if dimension.step else ""
    return f"{dimension.kind} from {dimension.low:g} to {dimension.high:g}{step}"


def _dimensions(node: Node, when: tuple[tuple[str, Value], ...]) -> Iterator[Dimension]:
    if isinstance(node, Range):
        kind: Literal["int", "float"] = "int" if node.whole else "float"
        yield Dimension(node.path, kind, node.low, node.high, node.log, node.step, when=when)
    elif isinstance(node, Choice):
        yield Dimension(node.path, "choice", choices=node.labels, when=when)
        for label, option in zip(node.labels, node.options, strict=True):
            yield from _dimensions(option, (*when, (node.path, label)))
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _dimensions(child, when)


def _filled(node: Node, params: Params) -> Any:
    if isinstance(node, Range):
        return params[node.path]
    if isinstance(node, Choice):
        return _filled(node.option(params[node.path]), params)
    if isinstance(node, dict):
        return {key: _filled(child, params) for key, child in node.items()}
    if isinstance(node, list):
        return [_filled(child, params) for child in node]
    return node


def _tied(data: Any, where: str) -> Any:
    """Plain data in which every `same_as` is replaced by what stands at its path."""

    def follow(node: Any) -> Any:
        if isinstance(node, SameAs):
            return _value_at(data, node, where)
        if isinstance(node, dict):
            return {key: follow(child) for key, child in node.items()}
        return [follow(child) for child in node] if isinstance(node, list) else node

    return follow(data)


def _value_at(data: Any, tie: SameAs, where: str) -> Any:
    value = data
    for part in tie.target.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise InputError("same_as leads nowhere", where=where, key=tie.path, found=tie.target) from None
    if isinstance(value, SameAs | dict | list):
        raise InputError("same_as must lead to one value", where=where, key=tie.path, found=tie.target)
    return value


def _points(node: Node, data: Any) -> Iterator[dict[str, Value]]:
    """Parameters under which a tree may give this data; constants are not compared."""
    if isinstance(node, Range):
        if isinstance(data, int | float) and not isinstance(data, bool):
            yield {node.path: node.nearest(data)}
    elif isinstance(node, Choice):
        for label, option in zip(node.labels, node.options, strict=True):
            for params in _points(option, data):
                yield {node.path: label, **params}
    elif isinstance(node, dict):
        yield from _joined([(child, data.get(key) if isinstance(data, dict) else None) for key, child in node.items()])
    elif isinstance(node, list):
        if isinstance(data, list) and len(data) == len(node):
            yield from _joined(list(zip(node, data, strict=True)))
    else:
        yield {}


def _joined(pairs: list[tuple[Node, Any]]) -> Iterator[dict[str, Value]]:
    if not pairs:
        yield {}
        return
    (node, data), rest = pairs[0], pairs[1:]
    for params in _points(node, data):
        for others in _joined(rest):
            yield params | others


def _put(document: Any, path: str, value: Value) -> None:
    """Replace the open value at a dimension's path."""
    *parents, last = [step for part in path.split(".") for step in _steps(part)]
    place = document
    for step in parents:
        place = place[step]
    opened = place[last]
    chosen = isinstance(value, str) and value.startswith("#") and "choice" in opened
    place[last] = opened["choice"][int(str(value)[1:])] if chosen else value


def _steps(part: str) -> Iterator[str | int]:
    name, *choices = part.split("#")
    yield int(name) if name.isdigit() else name
    for choice in choices:
        yield "choice"
        yield int(choice)


__all__ = ["Dimension", "Inert", "Params", "PolicySpace", "Value", "closed", "is_open", "policy_path"]
