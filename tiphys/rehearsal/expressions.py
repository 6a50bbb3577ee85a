"""The two little languages of workflows: `when` (govaluate), and expr for all else: `depends`, retries, hooks, `{{=`.

Both are parsed to one tree. They differ in what a bare word is: in `when` the string itself, elsewhere a variable. What
is not spoken here (closures, sprig) is a RehearsalError that names it, never a wrong answer.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.errors import RehearsalError


class ExpressionError(Exception):
    """An expression that Argo would refuse too: the node ends in Error with this message."""


class MissingVariableError(ExpressionError):
    """A variable that is not there (yet); `.path` names it."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is missing")


@dataclass(frozen=True)
class Tree:
    """One operation: `op` with its operands, which are trees, names or plain values."""

    op: str
    parts: tuple[Any, ...]


_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>0x[0-9a-fA-F]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)
  | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
  | (?P<word>[^\W\d]\w*)
  | (?P<mark>\?\?|\?\.|\*\*|\|\||&&|==|!=|<=|>=|=~|!~|\.\.|[-+*/%^<>!?:.,()\[\]{}|\#])
    )""",
    re.VERBOSE,
)
_BINDS = {
    "?": 2, "||": 10, "or": 10, "&&": 15, "and": 15, "==": 20, "!=": 20, "<": 20, "<=": 20, ">": 20, ">=": 20, "in": 20,
    "not in": 20, "=~": 20, "!~": 20, "matches": 20, "contains": 20, "startsWith": 20, "endsWith": 20,
    "+": 30, "-": 30, "*": 60, "/": 60, "%": 60, "**": 100, "^": 100, "??": 500,
}  # fmt: skip
_WORD_OPERATORS = {"and", "or", "in", "not", "matches", "contains", "startsWith", "endsWith"}
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(text: str, *, bare_words: bool = False) -> Tree:
    """The tree of an expression; with `bare_words` a word is the string it spells (Argo's `when`)."""
    return _Parser(text, bare_words).whole()


def evaluate(text: str, variables: Mapping[str, Any]) -> Any:
    """The value of an expr expression over nested variables.

    Raises MissingVariableError, ExpressionError for what Argo refuses, RehearsalError for what is not spoken here.
    """
    return _value(parse(text), variables)


def evaluate_bool(text: str, variables: Mapping[str, Any]) -> bool:
    """As `evaluate`, for an expression that has to be true or false."""
    value = evaluate(text, variables)
    if not isinstance(value, bool):
        raise ExpressionError(f"expected true or false from '{text}', got {value!r}")
    return value


def holds(when: str) -> bool:
    """Whether a substituted `when` lets its task run; an empty one does."""
    if not when.strip():
        return True
    value = _value(parse(when, bare_words=True), {}, strings=True)
    if not isinstance(value, bool):
        raise ExpressionError(f"Expected boolean evaluation for '{when}'. Got {value!r}")
    return value


def paths(tree: Tree) -> Iterator[str]:
    """The dotted paths of the variables that an expression needs (what `??` may stand in for is left out)."""
    if tree.op == "name":
        yield tree.parts[0]
    elif tree.op == "member" and (path := _static_path(tree)):
        yield path
    else:
        operands = tree.parts[1:] if tree.op in ("call", "??") else tree.parts
        for part in operands:
            if isinstance(part, Tree):
                yield from paths(part)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"tasks.a.status": v}` as `{"tasks": {"a": {"status": v}}}`; a longer path wins over a value at its stem."""
    tree: dict[str, Any] = {}
    for key in sorted(flat):
        at = tree
        *stem, leaf = key.split(".")
        for part in stem:
            if not isinstance(at.get(part), dict):
                at[part] = {}
            at = at[part]
        at[leaf] = flat[key]
    return tree


class _Parser:
    def __init__(self, text: str, bare_words: bool) -> None:
        self.text, self.bare_words = text, bare_words
        self.tokens = list(_tokens(text, bare_words))
        self.at = 0

    def whole(self) -> Tree:
        tree = self.expression(0)
        if self.at < len(self.tokens):
            raise self.error(f"unexpected {self.tokens[self.at][1]!r}")
        return tree

    def error(self, message: str) -> ExpressionError:
        hint = " (hint: try wrapping the affected expression in quotes)" if self.bare_words else ""
        return ExpressionError(f"invalid expression '{self.text}': {message}{hint}")

    def peek(self) -> tuple[str, Any]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "end of expression")

    def take(self) -> tuple[str, Any]:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, mark: str) -> None:
        kind, value = self.take()
        if (kind, value) != ("mark", mark):
            raise self.error(f"expected {mark!r}, found {value!r}")

    def infix(self) -> str | None:
        kind, value = self.peek()
        if kind == "mark" and value in _BINDS:
            return str(value)
        if kind == "word" and value in _WORD_OPERATORS and (not self.bare_words or value == "in"):
            if value == "not":
                following = self.tokens[self.at + 1 : self.at + 2]
                return "not in" if following == [("word", "in")] else None
            return str(value)
        return None

    def expression(self, least: int) -> Tree:
        left = self.postfix(self.prefix())
        while (op := self.infix()) is not None and _BINDS[op] > least:
            self.at += 2 if op == "not in" else 1
            if op == "?":
                left = self.ternary(left)
            else:
                right = self.expression(_BINDS[op] - (1 if op in ("**", "^") else 0))
                left = Tree(op, (left, right))
        return left

    def ternary(self, condition: Tree) -> Tree:
        yes = self.expression(0)
        self.expect(":")
        return Tree("?", (condition, yes, self.expression(1)))

    def prefix(self) -> Tree:
        kind, value = self.take()
        if kind in ("number", "string"):
            return Tree("value", (value,))
        if kind == "word":
            return self.word(value)
        if (kind, value) == ("mark", "("):
            return self.group()
        if (kind, value) == ("mark", "["):
            return Tree("list", tuple(self.sequence("]")))
        if (kind, value) == ("mark", "{"):
            return self.mapping()
        if kind == "mark" and value in ("!", "-", "+"):
            return Tree("unary " + value, (self.expression(50 if value == "!" else 90),))
        if (kind, value) in (("mark", "#"), ("mark", ".")):
            raise unspoken(self.text, "a closure")
        raise self.error(f"unexpected {value!r}")

    def word(self, word: str) -> Tree:
        if self.bare_words:
            return Tree("value", (_CONSTANTS[word] if word in ("true", "false") else word,))
        if word in _CONSTANTS:
            return Tree("value", (_CONSTANTS[word],))
        if word == "not":
            return Tree("unary !", (self.expression(50),))
        if word == "let":
            raise unspoken(self.text, "let")
        return Tree("name", (word,))

    def group(self) -> Tree:
        parts = list(self.sequence(")"))
        if len(parts) == 1:
            return parts[0]
        return Tree("list", tuple(parts))

    def sequence(self, end: str) -> Iterator[Tree]:
        while self.peek() != ("mark", end):
            yield self.expression(0)
            if self.peek() != ("mark", end):
                self.expect(",")
        self.at += 1

    def mapping(self) -> Tree:
        parts: list[Tree] = []
        while self.peek() != ("mark", "}"):
            kind, value = self.take()
            if kind not in ("word", "string"):
                raise self.error(f"unexpected {value!r} in a map")
            self.expect(":")
            parts += [Tree("value", (value,)), self.expression(0)]
            if self.peek() != ("mark", "}"):
                self.expect(",")
        self.at += 1
        return Tree("map", tuple(parts))

    def postfix(self, tree: Tree) -> Tree:
        while not self.bare_words:
            kind, value = self.peek()
            if kind != "mark" or value not in (".", "?.", "[", "("):
                break
            self.at += 1
            if value in (".", "?."):
                word_kind, name = self.take()
                if word_kind != "word":
                    raise self.error(f"unexpected {name!r} after {value!r}")
                tree = Tree("member" if value == "." else "optional member", (tree, Tree("value", (name,))))
            elif value == "[":
                tree = Tree("member", (tree, self.expression(0)))
                self.expect("]")
            else:
                tree = Tree("call", (_function_name(tree, self.text), *self.sequence(")")))
        return tree


def _tokens(text: str, bare_words: bool) -> Iterator[tuple[str, Any]]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        if bare_words and (bracket := re.compile(r"\s*\[([^\]]*)\]").match(text, at)):
            yield "string", bracket[1]
            at = bracket.end()
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"invalid expression '{text}': invalid token at {text[at:].strip()[:20]!r}")
        at = match.end()
        kind = str(match.lastgroup)
        yield kind, _literal(kind, match[kind], bare_words)


def _literal(kind: str, text: str, bare_words: bool) -> Any:
    if kind == "number":
        if text.startswith("0x"):
            return int(text, 16)
        plain = text.replace("_", "")
        return float(plain) if bare_words or set(plain) & set(".eE") else int(plain)
    if kind == "string":
        if text[0] == "`":
            return text[1:-1]
        escapes = {"n": "\n", "t": "\t", "r": "\r"}
        return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)
    return text


def _static_path(tree: Tree) -> str:
    parts: list[str] = []
    while tree.op == "member":
        name = tree.parts[1]
        if name.op != "value" or not isinstance(name.parts[0], str):
            return ""
        parts.append(name.parts[0])
        tree = tree.parts[0]
    return ".".join([tree.parts[0], *reversed(parts)]) if tree.op == "name" else ""


def _function_name(tree: Tree, text: str) -> str:
    name = _static_path(tree)
    if name not in FUNCTIONS:
        raise unspoken(text, f"{name or 'this call'}()")
    return name


def unspoken(text: str, what: str) -> RehearsalError:
    """The error for an expression that Argo would understand and this machine does not."""
    return RehearsalError(f"the expression '{text}' uses {what}, which is not acted out here", field=what)


def _value(tree: Tree, variables: Mapping[str, Any], *, strings: bool = False) -> Any:
    """The value of a tree; `strings` compares as govaluate does (numbers are doubles, unlike types differ)."""

    def of(part: Tree) -> Any:
        return _value(part, variables, strings=strings)

    match tree.op:
        case "value":
            return tree.parts[0]
        case "name":
            if tree.parts[0] not in variables:
                raise MissingVariableError(tree.parts[0])
            return variables[tree.parts[0]]
        case "member" | "optional member":
            return _member(tree, of)
        case "call":
            return _call(tree.parts[0], [of(part) for part in tree.parts[1:]])
        case "list":
            return [of(part) for part in tree.parts]
        case "map":
            return {of(key): of(value) for key, value in zip(tree.parts[::2], tree.parts[1::2], strict=True)}
        case "?":
            return of(tree.parts[1]) if _truth(of(tree.parts[0])) else of(tree.parts[2])
        case "??":
            return _coalesce(tree, of)
        case "&&" | "and":
            return _truth(of(tree.parts[0])) and _truth(of(tree.parts[1]))
        case "||" | "or":
            return _truth(of(tree.parts[0])) or _truth(of(tree.parts[1]))
        case "unary !":
            return not _truth(of(tree.parts[0]))
        case "unary -":
            return -_number(of(tree.parts[0]), "-")
        case "unary +":
            return _number(of(tree.parts[0]), "+")
        case _:
            return _binary(tree.op, of(tree.parts[0]), of(tree.parts[1]))


def _member(tree: Tree, of: Callable[[Tree], Any]) -> Any:
    base, key = of(tree.parts[0]), of(tree.parts[1])
    if base is None and tree.op == "optional member":
        return None
    try:
        return base[key] if isinstance(base, dict) or (isinstance(base, list) and isinstance(key, int)) else None
    except (KeyError, IndexError):
        if tree.op == "optional member":
            return None
        raise MissingVariableError(_static_path(tree) or str(key)) from None


def _coalesce(tree: Tree, of: Callable[[Tree], Any]) -> Any:
    try:
        value = of(tree.parts[0])
    except MissingVariableError as error:
        if "." not in error.path:
            raise  # nothing of that kind is known yet, so that the fallback would come too early
        value = None
    return of(tree.parts[1]) if value is None else value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"expected true or false, got {value!r}")
    return value


def _number(value: Any, op: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"'{value}' cannot be used with the numeric operator '{op}'")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": math.fmod, "**": pow, "^": pow,
}  # fmt: skip


def _binary(op: str, left: Any, right: Any) -> Any:
    if op in ("==", "!="):
        return _same(left, right) == (op == "==")
    if op in _ORDER:
        if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
            raise ExpressionError(f"{left!r} {op} {right!r} compares unlike things")
        return _ORDER[op](left, right)
    if op in ("in", "not in"):
        found = any(_same(left, each) for each in right) if isinstance(right, list) else left in right
        return found == (op == "in")
    if op in _TEXT:
        return _TEXT[op](_text(left), _text(right))
    if op == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    try:
        value = _ARITHMETIC[op](_number(left, op), _number(right, op))
    except ZeroDivisionError:
        raise ExpressionError(f"{left!r} {op} {right!r} divides by zero") from None
    return int(value) if op == "%" and isinstance(left, int) and isinstance(right, int) else value


def _same(left: Any, right: Any) -> bool:
    return (isinstance(left, bool) == isinstance(right, bool)) and bool(left == right)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ExpressionError(f"expected a string, got {value!r}")
    return value


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "=~": lambda text, pattern: re.search(pattern, text) is not None,
    "!~": lambda text, pattern: re.search(pattern, text) is None,
    "contains": lambda text, part: part in text,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}


def _int(value: Any) -> int:
    return int(value) if isinstance(value, str | int) else math.trunc(value)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else to_text(value)


def to_text(value: Any) -> str:
    """A value as it stands where a `{{=` tag was: strings bare, everything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_path(text: str, path: str) -> Any:
    """The value at a plain JSON path (`$.a.b[0]['c']`) of a JSON text."""
    at = json.loads(text)
    rest = re.fullmatch(r"\$?((?:\.[\w-]+|\[\d+\]|\['[^']*'\])*)", path)
    if rest is None:
        raise unspoken(f"jsonpath(..., '{path}')", "a JSON path with more than names and indices")
    for name, index, quoted in re.findall(r"\.([\w-]+)|\[(\d+)\]|\['([^']*)'\]", rest[1]):
        at = at[int(index)] if index else at[name or quoted]
    return at


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "asInt": _int, "int": _int, "asFloat": float, "float": float, "string": _string, "len": len, "abs": abs,
    "ceil": math.ceil, "floor": math.floor, "round": round, "max": max, "min": min,
    "toJson": to_text, "toJSON": lambda value: json.dumps(value), "fromJSON": json.loads, "jsonpath": json_path,
    "trim": lambda text, chars=None: text.strip(chars), "upper": str.upper, "lower": str.lower,
    "split": lambda text, by: text.split(by), "join": lambda parts, by="": by.join(parts), "replace": str.replace,
    "hasPrefix": str.startswith, "hasSuffix": str.endswith, "indexOf": str.find,
    "first": lambda parts: parts[0] if parts else None, "last": lambda parts: parts[-1] if parts else None,
    "keys": lambda each: sorted(each), "values": lambda each: [each[key] for key in sorted(each)],
}  # fmt: skip


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise ExpressionError(f"{name}({', '.join(map(repr, arguments))}): {error}") from None
