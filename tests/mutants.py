"""Do the vectors notice a wrong law? `python -m tests.mutants` changes one operator or constant at a time and asks.

Each seeded mutant of a law source runs against the vectors of its suite in a process of its own, as plain Python. A
mutant is killed when a case answers differently, raises, warns or runs out of time. Exit status 1 when fewer than 95 %
are killed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
ENOUGH = 0.95
LIMIT_S = 10.0
NOT_LAWS = (
    "new_history",
    "new_events",
    "new_state",
    "new_buckets",
    "new_maximum_window",
    "new_proposals",
    "no_samples",
    "no_containers",
    "value_observations",
)
"""Functions in the sources that only make empty arrays for the caller."""


@dataclass(frozen=True)
class Family:
    """The law sources of one controller, the files of vectors they answer to, and the module with their adapters."""

    modules: tuple[str, ...]
    pattern: str
    adapters: str

    def sources(self) -> Iterator[tuple[str, Path]]:
        for module in self.modules:
            path = ROOT / (module.replace(".", "/") + ".py")
            if path.exists():
                yield module, path


KPA_LAWS = ("average", "delay", "target", "decider", "reconciler", "rules", "loop")
FAMILIES = (
    Family(
        tuple(f"tiphys.policies.hpa.{name}" for name in ("calculator", "behavior", "reconcile")),
        "hpa_*.json",
        "tests.conformance.hpa",
    ),
    Family(
        tuple(f"tiphys.policies.keda.{name}" for name in ("triggers", "poll", "fallback", "formula")),
        "keda*.json",
        "tests.conformance.keda",
    ),
    Family(
        tuple(f"tiphys.policies.kpa.{name}" for name in KPA_LAWS),
        "kpa*.json",
        "tests.conformance.kpa",
    ),
)


@dataclass(frozen=True)
class Mutant:
    """One changed expression of a source."""

    family: Family
    module: str
    path: Path
    line: int
    what: str
    original: str
    source: str

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    def diff(self) -> str:
        before, after = self.original.splitlines(), self.source.splitlines()
        lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
        return "\n".join(f"    {line}" for line in lines)


BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
NEGATION = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult}
OPPOSITE = {"ceil": "floor", "floor": "ceil", "min": "max", "max": "min"}
WINDOWS = ("window", "period", "cutoff", "cooldown", "delay", "stabilization", "longest")


def mutations(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may be wrong in this place: a word for it, and the changed node."""
    if isinstance(node, ast.Compare):
        yield from _comparisons(node)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield "arithmetic", _changed(node, op=ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield "and/or", _changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield "sign", node.operand
    elif isinstance(node, ast.Call):
        yield from _opposites(node)
    elif isinstance(node, ast.Constant):
        yield from _constants(node)


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for index, op in enumerate(node.ops):
        for word, table in (("boundary", BOUNDARY), ("negation", NEGATION)):
            if type(op) in table:
                ops = [*node.ops[:index], table[type(op)](), *node.ops[index + 1 :]]
                yield word, _changed(node, ops=ops)
    last = node.comparators[-1]
    if type(node.ops[-1]) in BOUNDARY and any(word in ast.unparse(last) for word in WINDOWS):
        wider = ast.BinOp(last, ast.Add(), ast.Constant(1))
        yield "window bound", _changed(node, comparators=[*node.comparators[:-1], wider])


def _opposites(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name in OPPOSITE:
        field = "attr" if isinstance(function, ast.Attribute) else "id"
        # The built-in min and max keep their name, but math.ceil and a bare ceil change likewise.
        yield f"{name} for {OPPOSITE[name]}", _changed(node, func=_changed(function, **{field: OPPOSITE[name]}))


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "truth", ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield "off by one", ast.Constant(node.value + 1)
        yield "off by one", ast.Constant(node.value - 1)


def _changed(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def mutants_of(family: Family, module: str, path: Path) -> Iterator[Mutant]:
    """Every mutant of the function bodies of a source, in the order of the text."""
    text = path.read_text(encoding="utf-8")
    for node in _expressions(ast.parse(text)):
        for word, changed in mutations(node):
            yield Mutant(family, module, path, node.lineno, word, text, _spliced(text, node, changed))


def _expressions(tree: ast.Module) -> Iterator[Any]:
    """Expressions and augmented assignments inside functions; no annotations, defaults or raised errors."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    methods = [node for cls in tree.body if isinstance(cls, ast.ClassDef) for node in cls.body]
    for function in [*functions, *(node for node in methods if isinstance(node, ast.FunctionDef))]:
        if function.name not in NOT_LAWS:
            for statement in function.body:
                yield from _inside(statement)


def _inside(node: ast.AST) -> Iterator[Any]:
    if isinstance(node, ast.Raise):
        return  # what an error says is not law
    if isinstance(node, ast.AnnAssign):
        if node.value is not None:
            yield from _inside(node.value)
        return
    if isinstance(node, ast.expr | ast.AugAssign):
        yield node
    for child in ast.iter_child_nodes(node):
        if not _is_index(node, child):
            yield from _inside(child)


def _is_index(node: ast.AST, child: ast.AST) -> bool:
    """Element 0 of a one-element array is also its element -1: changing such an index changes nothing or breaks all."""
    return isinstance(node, ast.Subscript) and child is node.slice and isinstance(child, ast.Constant)


def _spliced(text: str, node: Any, changed: ast.AST) -> str:
    """The text with one node replaced. AST columns count bytes."""
    lines = text.encode().splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    written = ast.unparse(ast.fix_missing_locations(changed))
    if isinstance(node, ast.expr) and not isinstance(changed, ast.Constant):
        written = f"({written})"
    whole = text.encode()
    return (whole[:start] + written.encode() + whole[end:]).decode()


class _Substitute(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text in place of its file."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, self._mutant.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.source, str(self._mutant.path), "exec"), module.__dict__)


def first_difference(mutant: Mutant, cases: Sequence[dict[str, Any]]) -> str:
    """How the vectors notice a mutant, empty when they do not. Replaces modules: call it in a process of its own."""
    from tests.conformance.vectors import verdict

    warnings.simplefilter("error")
    laws = {module.rpartition(".")[0] for module in mutant.family.modules}
    for name in list(sys.modules):
        if name == mutant.family.adapters or any(name == law or name.startswith(f"{law}.") for law in laws):
            del sys.modules[name]
    sys.meta_path.insert(0, _Substitute(mutant))
    try:
        suite = importlib.import_module(mutant.family.adapters).SUITE
        return next((difference for case in cases if (difference := verdict(suite, case))), "")
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"


def is_killed(mutant: Mutant, cases: Sequence[dict[str, Any]]) -> bool:
    """Whether a mutant is noticed, tried in a forked process with a time limit."""
    child = multiprocessing.get_context("fork").Process(target=_try, args=(mutant, cases))
    child.start()
    child.join()
    return child.exitcode != 0


def _try(mutant: Mutant, cases: Sequence[dict[str, Any]]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    os._exit(1 if first_difference(mutant, cases) else 0)


def chosen(count: int, seed: int, only: str = "") -> list[Mutant]:
    """A seeded choice of so many mutants over the law sources whose path holds `only`, in the order of the text."""
    sources = [(family, *source) for family in FAMILIES for source in family.sources() if only in str(source[1])]
    every = [mutant for source in sources for mutant in mutants_of(*source)]
    picked = random.Random(seed).sample(range(len(every)), min(count, len(every)))
    return [every[index] for index in sorted(picked)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=120, help="how many mutants (default: 120; 0: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only sources whose path holds this text")
    options = parser.parse_args(arguments)

    os.environ["NUMBA_DISABLE_JIT"] = "1"
    from tests.conformance.vectors import EXTRA, OWN, read_cases

    cases = {family: read_cases(OWN, family.pattern) + read_cases(EXTRA, family.pattern) for family in FAMILIES}
    for family in FAMILIES:
        if any(family.sources()):
            importlib.import_module(family.adapters)
    started, survivors = time.monotonic(), []
    mutants = chosen(options.count or sys.maxsize, options.seed, options.only)
    for mutant in mutants:
        killed = is_killed(mutant, cases[mutant.family])
        print(f"{'killed  ' if killed else 'SURVIVED'} {mutant.place} {mutant.what}", flush=True)
        if not killed:
            survivors.append(mutant)
    share = 1 - len(survivors) / len(mutants)
    for mutant in survivors:
        print(f"\nsurvivor {mutant.place} ({mutant.what})\n{mutant.diff()}")
    took_s = time.monotonic() - started
    print(f"\n{len(mutants) - len(survivors)} of {len(mutants)} mutants killed ({share:.1%}) in {took_s:.0f} s")
    return 0 if share >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
