"""Traces as JSON lines, as Mooncake publishes them and aiperf replays them (`--custom-dataset-type mooncake_trace`).

One object a line: `{"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [...]}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tiphys.domain.trace import Trace
from tiphys.errors import InputError, nearest
from tiphys.traffic.content import read_content, text_of
from tiphys.traffic.csv import arrival_fault, tokens_fault, trace_name
from tiphys.traffic.loaded import Loaded

KEYS = ("timestamp", "input_length", "output_length")


def read_jsonl(path: Path) -> Loaded:
    """The trace of a JSON lines file, gzip or not. Raises InputError with the line for what is not such a trace."""
    return parse_jsonl(read_content(path), str(path))


def parse_jsonl(data: bytes, where: str) -> Loaded:
    """The trace of a JSON lines file's content; members other than the three are ignored with a notice."""
    rows: list[tuple[float, float, float]] = []
    ignored: set[str] = set()
    for number, line in enumerate(text_of(data, where).splitlines(), start=1):
        if line.strip():
            record = _record(line, f"line {number}", where)
            rows.append(_row(record, rows[-1][0] if rows else 0.0, f"line {number}", where))
            ignored |= record.keys()
    if not rows:
        raise InputError("there is no request", where=where)
    table = np.array(rows)
    trace = Trace(table[:, 0] / 1000.0, table[:, 1].astype(np.int32), table[:, 2].astype(np.int32), trace_name(where))
    return Loaded(trace, _ignored(ignored - set(KEYS)))


def _ignored(keys: set[str]) -> tuple[str, ...]:
    hashes = ("hash_ids are ignored: every prompt is computed in full, no prefix is cached",)
    rest = ", ".join(sorted(keys - {"hash_ids"}))
    return (hashes if "hash_ids" in keys else ()) + ((f"members ignored: {rest}",) if rest else ())


def _record(line: str, place: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=where, key=place, found=line[:80]) from None
    if not isinstance(record, dict):
        raise InputError("expected one JSON object a line", where=where, key=place, found=line[:80])
    return record


def _row(record: dict[str, Any], previous_ms: float, place: str, where: str) -> tuple[float, float, float]:
    stamp, inputs, outputs = (_number(record, key, place, where) for key in KEYS)
    faults = (
        _renamed(arrival_fault(stamp, previous_ms), "timestamp"),
        tokens_fault("input_length", inputs),
        tokens_fault("output_length", outputs),
    )
    for fault in faults:
        if fault:
            raise fault.at(where, place)
    return stamp, inputs, outputs


def _renamed(fault: InputError | None, key: str) -> InputError | None:
    return fault and InputError(fault.message, key=key, found=fault.found, allowed=fault.allowed)


def _number(record: dict[str, Any], key: str, place: str, where: str) -> float:
    if key not in record:
        hint = next((nearest(other, KEYS) for other in record if other not in KEYS and nearest(other, [key])), "")
        message = f"'{key}' is missing" + (f", {hint}" if hint else "")
        raise InputError(message, where=where, key=place, found=", ".join(record) or "{}", allowed=", ".join(KEYS))
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("is not a number", where=where, key=f"{place}.{key}", found=value)
    return float(value)
