"""Recorded vectors: reading them, laying them out for the twin's arithmetic, and telling the versions' rules apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.promql.rules import DIFFERENCES, PROMETHEUS_3, History, Query, answer

FORMAT = "tiphys-promql/1"
FOLDER = Path(__file__).parent / "vectors"

Document = dict[str, Any]
Vector = dict[str, Any]


def read_documents(folder: Path = FOLDER) -> list[Document]:
    """Every recording of a folder, one a version of Prometheus."""
    documents = []
    for file in sorted(folder.glob("prometheus-*.json")):
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.get("format") != FORMAT:
            raise ValueError(f"{file}: format {document.get('format')!r}, expected {FORMAT!r}")
        documents.append(document)
    return documents


def json_text(document: Document) -> str:
    """Compact, with one target's series and one vector a line."""
    targets = ",\n".join(f"{json.dumps(name)}: {_short(target)}" for name, target in document["targets"].items())
    vectors = ",\n".join(_short(vector) for vector in document["vectors"])
    head = {key: value for key, value in document.items() if key not in ("targets", "vectors")}
    return f'{_short(head)[:-1]},\n"targets": {{\n{targets}\n}},\n"vectors": [\n{vectors}\n]}}\n'


def _short(value: object) -> str:
    return json.dumps(_whole(value), separators=(",", ":"), allow_nan=False)


def _whole(value: Any) -> Any:
    """Whole floats as integers, which are read back as the same number and take less room."""
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def histories_of(document: Document, names: Sequence[str]) -> list[History]:
    """What was scraped of targets, in the order in which Prometheus adds them up."""
    return [_history(target) for target in targets_of(document, names)]


def targets_of(document: Document, names: Sequence[str]) -> list[Document]:
    """Recorded targets, in the order of the recording; those that no other has series in common with come last."""
    ordered = [name for name in document["order"] if name in names]
    return [document["targets"][name] for name in [*ordered, *(name for name in names if name not in ordered)]]


def _history(target: Document) -> History:
    buckets = {name: (held["bounds"], held["buckets"]) for name, held in target["histograms"].items()}
    return History(target["time_ms"], target["series"], buckets)


def by_the_rules(document: Document, vector: Vector, rules: frozenset[str] = PROMETHEUS_3) -> list[float]:
    """What plain Python makes of a vector."""
    shape = vector["shape"]
    query = Query(vector["at_ms"], shape["window_ms"], vector["lookback_ms"], rules)
    return answer(shape, histories_of(document, shape["targets"]), query)


def same(got: Sequence[float], expected: Sequence[float], relative: float = 1e-9) -> bool:
    """Equal but for rounding; NaN equals NaN."""
    return len(got) == len(expected) and all(
        math.isclose(one, other, rel_tol=relative) or (math.isnan(one) and math.isnan(other))
        for one, other in zip(got, expected, strict=True)
    )


def expected_of(vector: Vector) -> list[float]:
    return [float(value) for value in vector["expected"]]


def differences_of(document: Document, vector: Vector, version: str) -> list[str]:
    """The rules of before Prometheus 3 that this answer shows; empty where Prometheus 3 answers the same."""
    expected = expected_of(vector)
    for count in range(len(DIFFERENCES) + 1):
        for rules in combinations(DIFFERENCES, count):
            if same(by_the_rules(document, vector, frozenset(rules)), expected):
                return list(rules)
    raise SystemExit(f"Prometheus {version} answers {vector['id']} as no rule here does: {json.dumps(vector)}")
