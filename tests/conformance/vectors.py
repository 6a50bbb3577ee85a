"""Conformance vectors: reading them, and judging an answer.

A suite is a table from the name of a function in the vectors to an adapter, which feeds one case to the law under test
and returns its answer in the words of the vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Answer = dict[str, Any]
Suite = Mapping[str, Callable[[Case], Answer]]

FORMAT = "autoscaler-vectors/1"
OWN = Path(__file__).parent.parent / "vectors"
EXTRA = Path(__file__).parent.parent / "vectors_extra"


def read_cases(folder: Path, pattern: str) -> list[Case]:
    """Every case of the files of a folder that match a pattern, in the order of the files."""
    cases: list[Case] = []
    for file in sorted(folder.glob(pattern)):
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.get("format") != FORMAT:
            raise ValueError(f"{file}: format {document.get('format')!r}, expected {FORMAT!r}")
        cases += document["cases"]
    return cases


def verdict(suite: Suite, case: Case) -> str:
    """Empty when the law answers as expected, else what differs; fields that `expected` lacks are not compared."""
    if case["function"] not in suite:
        return f"{case['id']}: unknown function {case['function']!r}, known: {', '.join(sorted(suite))}"
    answer = suite[case["function"]](case)
    # Some functions have one nameless result; where a case's steps say what they expect, the answer is what differs.
    stated = case.get("expected", {"differs": []})
    expected = stated if isinstance(stated, dict) else {"value": stated}
    wrong = {
        name: (answer.get(name, "nothing"), value)
        for name, value in expected.items()
        if name not in answer or not same(answer[name], value)
    }
    if not wrong:
        return ""
    lines = [f"{case['id']} ({case['function']}): {case['title']}"]
    lines += [f"  {name}: got {got!r}, expected {value!r}" for name, (got, value) in wrong.items()]
    return "\n".join(lines)


def same(got: Any, expected: Any) -> bool:
    """Equal in value and, for truth values, in kind: True is not 1."""
    return got == expected and isinstance(got, bool) == isinstance(expected, bool)
