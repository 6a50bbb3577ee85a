"""Scaling modifiers: a formula over the triggers' values, compiled to a postfix program that the event loop can run.

The language is the part of expr-lang that scales: numbers, triggers by name, `+ - * /`, comparisons (chained too), `==`
and `!=`, `and or not`, `c ? a : b`, `a ?? b`, nil, min, max, mean, sum, count, float, and for sum and count a predicate
over `#`. Kinds are checked while compiling, so that at run time only a nil operand can fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.errors import InputError, unknown_name
from tiphys.policies.keda.triggers import NO_METRIC_M, truncated_milli, units_of

OPERATIONS = (
    "constant",
    "trigger",
    "nil",
    "jump",
    "jump unless",
    "jump unless nil",
    "equal",
    "add",
    "subtract",
    "multiply",
    "divide",
    "less",
    "at most",
    "min",
    "max",
)
"""`constant` and `trigger` push entry `argument`; jumps skip `argument` instructions; the rest take two operands.

`jump unless` takes a truth value; `jump unless nil` takes its operand only when that is nil.
"""
(
    CONSTANT,
    TRIGGER,
    NIL,
    JUMP,
    JUMP_UNLESS,
    JUMP_UNLESS_NIL,
    EQUAL,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    LESS,
    AT_MOST,
    MIN,
    MAX,
) = range(len(OPERATIONS))

OUTCOMES = ("a number", "nil", "an operand was nil")
IS_NUMBER, IS_NIL, HAS_FAILED = range(len(OUTCOMES))

NO_FALLBACK_REPLICAS = -1


class Program(NamedTuple):
    """A compiled formula; arrays of one entry an instruction, and the constants."""

    operation: NDArray[np.int64]
    """Code in OPERATIONS."""
    argument: NDArray[np.int64]
    constants: NDArray[np.float64]
    may_be_nil: bool
    """The formula has a `??`: only then KEDA lets its result be nil, elsewhere nil is an error."""


NO_FORMULA = Program(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64), False)
"""Stands where a ScaledObject has no scaling modifiers; it is not to be run."""


class Outcome(NamedTuple):
    """What a program came to."""

    kind: int
    """Code in OUTCOMES."""
    value: float
    """Counts only for a number."""


class Composite(NamedTuple):
    """The composite metric of one request."""

    error: bool
    metric_m: int
    """Milli-units, possibly negative; counts only without an error."""


@jit
def composite_metric(
    program: Program,
    target: float,
    fallback_replicas: int,
    metric_m: NDArray[np.int64],
    is_error: NDArray[np.bool_],
    in_fallback: NDArray[np.bool_],
    is_nil: NDArray[np.bool_],
) -> Composite:
    """The composite metric from one entry for each external trigger (3.7).

    The metric of the first trigger in fallback takes the formula's place; without one, a trigger's error is an error.
    `target` is the composite's, in units; `fallback_replicas` NO_FALLBACK_REPLICAS where no fallback is configured.
    """
    values = np.empty(len(metric_m), np.float64)
    for trigger in range(len(metric_m)):
        if in_fallback[trigger]:
            return Composite(False, metric_m[trigger])
        values[trigger] = units_of(metric_m[trigger])
    if np.any(is_error):
        return Composite(True, NO_METRIC_M)
    return formula_metric(program, target, fallback_replicas, values, is_nil)


@jit
def formula_metric(
    program: Program,
    target: float,
    fallback_replicas: int,
    values: NDArray[np.float64],
    is_nil: NDArray[np.bool_],
) -> Composite:
    """The formula's result over the triggers' values (units), cut to milli-units; nil becomes fallback x target."""
    outcome = evaluate(program, values, is_nil)
    if outcome.kind == IS_NUMBER:
        return Composite(False, truncated_milli(outcome.value * 1000.0))
    if outcome.kind == HAS_FAILED or not program.may_be_nil or fallback_replicas == NO_FALLBACK_REPLICAS:
        return Composite(True, NO_METRIC_M)
    return Composite(False, truncated_milli(fallback_replicas * target * 1000.0))


@jit
def evaluate(program: Program, values: NDArray[np.float64], is_nil: NDArray[np.bool_]) -> Outcome:
    """Run a program over the triggers' values, of which some are nil."""
    stack = np.zeros(len(program.operation), np.float64)
    empty = np.zeros(len(program.operation), np.bool_)
    top, at = -1, 0
    while at < len(program.operation):
        operation, argument = program.operation[at], program.argument[at]
        at += 1
        if operation == CONSTANT:
            top += 1
            stack[top], empty[top] = program.constants[argument], False
        elif operation == TRIGGER:
            top += 1
            stack[top], empty[top] = values[argument], is_nil[argument]
        elif operation == NIL:
            top += 1
            empty[top] = True
        elif operation == JUMP:
            at += argument
        elif operation == JUMP_UNLESS:
            at += argument if stack[top] == 0.0 else 0
            top -= 1
        elif operation == JUMP_UNLESS_NIL:
            at += 0 if empty[top] else argument
            top -= int(empty[top])
        else:
            top -= 1
            if operation == EQUAL:
                alike = empty[top] == empty[top + 1] and (empty[top] or stack[top] == stack[top + 1])
                stack[top], empty[top] = 1.0 if alike else 0.0, False
            elif empty[top] or empty[top + 1]:
                return Outcome(HAS_FAILED, 0.0)
            else:
                stack[top] = _combined(operation, float(stack[top]), float(stack[top + 1]))
    return Outcome(IS_NIL if empty[top] else IS_NUMBER, stack[top])


@jit
def _combined(operation: int, left: float, right: float) -> float:
    if operation == ADD:
        return left + right
    if operation == SUBTRACT:
        return left - right
    if operation == MULTIPLY:
        return left * right
    if operation == DIVIDE:
        return _quotient(left, right)
    if operation == LESS:
        return 1.0 if left < right else 0.0
    if operation == AT_MOST:
        return 1.0 if left <= right else 0.0
    if operation == MIN:
        return min(left, right)
    return max(left, right)


@jit
def _quotient(left: float, right: float) -> float:
    """The IEEE quotient, also where Python would raise."""
    return left / right if right != 0.0 else left * math.copysign(math.inf, right)


NUMBER, TRUTH, NOTHING = "a number", "a truth value", "nil"
ARITHMETIC = {"+": ADD, "-": SUBTRACT, "*": MULTIPLY, "/": DIVIDE}
COMPARISONS = ("<", "<=", ">", ">=")
_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
_WHOLE, _COMPARING, _NOTTING, _NEGATING = 0, 20, 50, 90
_NO_OPERATOR = -1
PRECEDENCE = {
    **dict.fromkeys(_OR, 10),
    **dict.fromkeys(_AND, 15),
    **dict.fromkeys(("==", "!=", *COMPARISONS), _COMPARING),
    **dict.fromkeys(("+", "-"), 30),
    **dict.fromkeys(("*", "/"), 60),
    "??": 500,
}
"""expr-lang's: `??` binds tightest, and binary operators are left-associative."""

_LONGEST = 1023
_NO_ARGUMENT = 0.0
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_$][A-Za-z0-9_$]*)|(?P<sign>\?\?|\|\||&&|[=!<>]=|[-+*/<>!?:,()\[\]{}#])"
)


class _Part(NamedTuple):
    """Code that leaves one value of a kind on the stack: pairs of an operation and its argument."""

    kind: str
    code: tuple[tuple[int, float], ...]


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


_END = "end of the formula"
_TRUE, _FALSE = _Part(TRUTH, ((CONSTANT, 1.0),)), _Part(TRUTH, ((CONSTANT, 0.0),))
_WORDS = {"true": _TRUE, "false": _FALSE, "nil": _Part(NOTHING, ((NIL, _NO_ARGUMENT),))}


def compile_formula(text: str, triggers: Sequence[str], where: str = "", key: str = "formula") -> Program:
    """The program of a formula over these triggers, by name, in the order of the values it will be run with.

    Raises InputError for what is not in the language, for an unknown name, and for a result that is no number.
    """
    try:
        return _program(_Parser(text, triggers).formula(), "??" in text)
    except InputError as error:
        raise error.at(where, key) from None
    except RecursionError:
        raise InputError("is nested too deeply", where=where, key=key) from None


def _program(part: _Part, may_be_nil: bool) -> Program:
    constants = [argument for operation, argument in part.code if operation == CONSTANT]
    places = iter(range(len(constants)))
    arguments = [next(places) if operation == CONSTANT else int(argument) for operation, argument in part.code]
    operations = [operation for operation, _ in part.code]
    return Program(
        np.array(operations, np.int64), np.array(arguments, np.int64), np.array(constants, np.float64), may_be_nil
    )


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InputError("holds a character that no formula has", found=text[at:])
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*tokens, _Token("end", _END, at)]


class _Parser:
    """Recursive descent by precedence, as expr-lang parses; each method returns the part it has read."""

    def __init__(self, text: str, triggers: Sequence[str]) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._triggers = list(triggers)
        self._at = 0
        self._element: _Part | None = None

    def formula(self) -> _Part:
        part = self._whole()
        if self._sign != _END:
            raise self._unexpected("an operator or the end")
        return self._of_kind(NUMBER, part)

    def _whole(self) -> _Part:
        part = self._above(_WHOLE)
        while self._take("?"):
            part = self._conditional(part)
        return part

    def _above(self, lowest: int) -> _Part:
        """What operators of a higher precedence than `lowest` hold together."""
        left, before = self._primary(), ""
        while PRECEDENCE.get(self._sign, _NO_OPERATOR) > lowest:
            if before == "??" and self._sign != "??":
                raise self._unexpected("a pair of parentheses round ?? beside another operator")
            before = self._next()
            if before in COMPARISONS:
                left = self._comparison(left, before)
            else:
                left = self._joined(before, left, self._above(PRECEDENCE[before]))
        return left

    def _comparison(self, left: _Part, sign: str) -> _Part:
        right = self._above(_COMPARING)
        chain = self._compared(sign, left, right)
        while self._sign in COMPARISONS:
            left, sign = right, self._next()
            right = self._above(_COMPARING)
            chain = _chosen(chain, self._compared(sign, left, right), _FALSE, TRUTH)
        return chain

    def _compared(self, sign: str, left: _Part, right: _Part) -> _Part:
        self._of_kind(NUMBER, left, right)
        lower, upper = (left, right) if sign.startswith("<") else (right, left)
        return _binary(AT_MOST if sign.endswith("=") else LESS, lower, upper, TRUTH)

    def _joined(self, sign: str, left: _Part, right: _Part) -> _Part:
        if sign in ARITHMETIC:
            self._of_kind(NUMBER, left, right)
            return _binary(ARITHMETIC[sign], left, right, NUMBER)
        if sign == "??":
            kind = self._common_kind(left, right)
            return _Part(kind, (*left.code, (JUMP_UNLESS_NIL, len(right.code)), *right.code))
        if sign in ("==", "!="):
            self._common_kind(left, right)
            equal = _binary(EQUAL, left, right, TRUTH)
            return equal if sign == "==" else _negated(equal)
        self._of_kind(TRUTH, left, right)
        return _chosen(left, right, _FALSE, TRUTH) if sign in _AND else _chosen(left, _TRUE, right, TRUTH)

    def _conditional(self, condition: _Part) -> _Part:
        self._of_kind(TRUTH, condition)
        yes = self._whole()
        self._expect(":")
        no = self._whole()
        return _chosen(condition, yes, no, self._common_kind(yes, no))

    def _primary(self) -> _Part:
        token = self._tokens[self._at]
        text = self._next()
        if text in _NOT:
            return _negated(self._of_kind(TRUTH, self._above(_NOTTING)))
        if text in ("-", "+"):
            operand = self._of_kind(NUMBER, self._above(_NEGATING))
            return _binary(MULTIPLY, operand, _constant(-1.0), NUMBER) if text == "-" else operand
        if text == "(":
            inner = self._whole()
            self._expect(")")
            return inner
        if text == "#" and self._element is not None:
            return self._element
        if token.kind == "number":
            return self._number(token)
        if token.kind == "name":
            return self._named(text)
        raise self._unreadable(token, "a number, a trigger or a function")

    def _number(self, token: _Token) -> _Part:
        if not math.isfinite(float(token.text)):
            raise InputError("holds a number that is too large", found=token.text)
        return _constant(float(token.text))

    def _named(self, name: str) -> _Part:
        if name in _WORDS:
            return _WORDS[name]
        if self._take("("):
            if name not in _FUNCTIONS:
                raise unknown_name("function", name, _FUNCTIONS)
            return self._short(_FUNCTIONS[name](self))
        if name not in self._triggers:
            raise unknown_name("trigger", name, self._triggers)
        return _Part(NUMBER, ((TRIGGER, self._triggers.index(name)),))

    def _short(self, part: _Part) -> _Part:
        if len(part.code) > _LONGEST:
            raise InputError(f"comes to more than {_LONGEST} operations")
        return part

    def least(self) -> _Part:
        return _folded(MIN, self._numbers())

    def greatest(self) -> _Part:
        return _folded(MAX, self._numbers())

    def mean(self) -> _Part:
        numbers = self._numbers()
        return _binary(DIVIDE, _folded(ADD, numbers), _constant(len(numbers)), NUMBER)

    def as_number(self) -> _Part:
        number = self._of_kind(NUMBER, self._whole())
        self._expect(")")
        return _binary(MULTIPLY, number, _constant(1.0), NUMBER)

    def total(self) -> _Part:
        return _folded(ADD, [_constant(0.0), *self._mapped(NUMBER)])

    def count(self) -> _Part:
        return _folded(ADD, [_constant(0.0), *self._mapped(TRUTH)])

    def _numbers(self) -> list[_Part]:
        """Arguments up to the closing parenthesis, lists among them laid out."""
        numbers: list[_Part] = []
        while True:
            numbers += self._list() if self._sign == "[" else [self._whole()]
            if not self._take(","):
                break
        self._expect(")")
        self._of_kind(NUMBER, *numbers)
        return numbers

    def _list(self) -> list[_Part]:
        self._expect("[")
        elements = [self._whole()]
        while self._take(","):
            elements.append(self._whole())
        self._expect("]")
        return elements

    def _mapped(self, kind: str) -> list[_Part]:
        """The elements of a list, or what a predicate makes of each, up to the closing parenthesis."""
        elements = self._list()
        if self._take(","):
            start = self._at
            elements = [self._predicate(start, element) for element in elements]
        self._expect(")")
        self._of_kind(kind, *elements)
        return elements

    def _predicate(self, start: int, element: _Part) -> _Part:
        outer, self._at, self._element = self._element, start, element
        in_braces = self._take("{")
        part = self._whole()
        if in_braces:
            self._expect("}")
        self._element = outer
        return part

    @property
    def _sign(self) -> str:
        return self._tokens[self._at].text

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1].text

    def _take(self, sign: str) -> bool:
        is_there = self._sign == sign
        self._at += is_there
        return is_there

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._unexpected(sign)

    def _unexpected(self, allowed: str) -> InputError:
        return self._unreadable(self._tokens[self._at], allowed)

    def _unreadable(self, token: _Token, allowed: str) -> InputError:
        return InputError("cannot be read from here on", found=self._text[token.start :] or _END, allowed=allowed)

    def _of_kind(self, kind: str, *parts: _Part) -> _Part:
        for part in parts:
            if part.kind != kind:
                raise InputError(f"{part.kind} stands where {kind} must", found=self._text)
        return parts[0]

    def _common_kind(self, left: _Part, right: _Part) -> str:
        if left.kind == NOTHING:
            return right.kind
        if right.kind != NOTHING:
            self._of_kind(left.kind, right)
        return left.kind


_FUNCTIONS: dict[str, Callable[[_Parser], _Part]] = {
    "min": _Parser.least,
    "max": _Parser.greatest,
    "mean": _Parser.mean,
    "sum": _Parser.total,
    "count": _Parser.count,
    "float": _Parser.as_number,
}


def _constant(value: float) -> _Part:
    return _Part(NUMBER, ((CONSTANT, value),))


def _binary(operation: int, left: _Part, right: _Part, kind: str) -> _Part:
    return _Part(kind, (*left.code, *right.code, (operation, _NO_ARGUMENT)))


def _negated(truth: _Part) -> _Part:
    return _binary(EQUAL, truth, _FALSE, TRUTH)


def _chosen(condition: _Part, yes: _Part, no: _Part, kind: str) -> _Part:
    """`condition ? yes : no`, of which only one is run."""
    taken = (*yes.code, (JUMP, float(len(no.code))))
    return _Part(kind, (*condition.code, (JUMP_UNLESS, float(len(taken))), *taken, *no.code))


def _folded(operation: int, parts: Iterable[_Part]) -> _Part:
    first, *rest = parts
    for part in rest:
        first = _binary(operation, first, part, NUMBER)
    return first
