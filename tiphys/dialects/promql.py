"""A reader of the PromQL that autoscalers are given: selectors, aggregations, functions, arithmetic.

Enough to recognise a signal in somebody's query, not to evaluate one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![a-zA-Z_\d]))
    |(?P<duration>(?:\d+(?:ms|[smhdwy]))+)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<mark>=~|!~|!=|==|<=|>=|[-+*/%^(){}\[\],=<>]))""",
    re.VERBOSE,
)
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
AGGREGATIONS = frozenset(
    {"sum", "avg", "min", "max", "count", "stddev", "stdvar", "group", "quantile", "topk", "bottomk"}
)
_OPERATORS = frozenset({"+", "-", "*", "/", "%", "^", "==", "!=", "<", ">", "<=", ">=", "and", "or", "unless"})


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float


@dataclass(frozen=True)
class Selector:
    """`name{label="value"}`, with `[range]` where it is a range vector. `labels` holds the equalities."""

    name: str
    labels: Mapping[str, str]
    range_s: float | None = None


@dataclass(frozen=True)
class Call:
    """A function or an aggregation; `by` are the labels that are kept, None where none are named."""

    name: str
    arguments: tuple[Expression, ...]
    by: tuple[str, ...] | None = None
    without: bool = False


@dataclass(frozen=True)
class Binary:
    """Two expressions and an operator."""

    operator: str
    left: Expression
    right: Expression


Expression: TypeAlias = Number | Selector | Call | Binary


class NotPromqlError(ValueError):
    """The text is not PromQL of this subset; the message says where reading stopped."""


def read_promql(text: str) -> Expression:
    """The expression of a query. Operators are read left to right, without precedence. Raises NotPromqlError."""
    reader = _Reader(_tokens(text))
    expression = reader.expression()
    if reader.kind:
        raise NotPromqlError(f"did not expect '{reader.text}'")
    return expression


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotPromqlError(f"cannot read '{text[position : position + 12].strip()}'")
        tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
        position = match.end()
    return tokens


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = [*tokens, ("", "")]
        self._at = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    def _next(self, *expected: str) -> str:
        if expected and self.text not in expected:
            raise NotPromqlError(f"expected '{expected[0]}', found '{self.text or 'the end'}'")
        self._at += 1
        return self._tokens[self._at - 1][1]

    def expression(self) -> Expression:
        left = self._operand()
        while self.text in _OPERATORS:
            operator = self._next()
            left = Binary(operator, left, self._operand())
        return left

    def _operand(self) -> Expression:
        if self.kind == "number":
            return Number(float(self._next()))
        if self.text == "(":
            self._next("(")
            inner = self.expression()
            self._next(")")
            return inner
        if self.kind == "name":
            return self._named()
        raise NotPromqlError(f"did not expect '{self.text or 'the end'}'")

    def _named(self) -> Expression:
        name = self._next()
        if self.text == "(" or (name in AGGREGATIONS and self.text in ("by", "without")):
            return self._call(name)
        return self._selector(name)

    def _call(self, name: str) -> Call:
        by, without = self._grouping()
        self._next("(")
        arguments: list[Expression] = []
        while self.text != ")":
            arguments.append(self.expression())
            if self.text != ")":
                self._next(",")
        self._next(")")
        if by is None:
            by, without = self._grouping()
        return Call(name, tuple(arguments), by, without)

    def _grouping(self) -> tuple[tuple[str, ...] | None, bool]:
        if self.text not in ("by", "without"):
            return None, False
        without = self._next() == "without"
        self._next("(")
        labels = []
        while self.text != ")":
            labels.append(self._next())
            if self.text != ")":
                self._next(",")
        self._next(")")
        return tuple(labels), without

    def _selector(self, name: str) -> Selector:
        labels: dict[str, str] = {}
        if self.text == "{":
            labels = self._matchers()
        range_s = None
        if self.text == "[":
            self._next("[")
            range_s = seconds_of(self._next())
            self._next("]")
        return Selector(name, labels, range_s)

    def _matchers(self) -> dict[str, str]:
        self._next("{")
        labels = {}
        while self.text != "}":
            label = self._next()
            operator = self._next("=", "!=", "=~", "!~")
            value = self._next()[1:-1]
            if operator == "=":
                labels[label] = value
            if self.text != "}":
                self._next(",")
        self._next("}")
        return labels


def seconds_of(duration: str) -> float:
    """Seconds of `1h30m`. Raises NotPromqlError."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", duration)
    if not parts:
        raise NotPromqlError(f"'{duration}' is not a duration")
    return sum(int(number) * _UNITS_S[unit] for number, unit in parts)
