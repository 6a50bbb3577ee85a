"""Traces as CSV: `arrival_s,input_tokens,output_tokens`, sorted by arrival. The one import of pandas for traffic.

The whole file is parsed at once by compiled code; only when that finds something odd are the lines walked one by one to
say which line it is.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.trace import Trace
from tiphys.errors import InputError, unknown_name
from tiphys.traffic.content import read_content, text_of

COLUMNS = ("arrival_s", "input_tokens", "output_tokens")
MOST_TOKENS = 2**31 - 1
Floats = NDArray[np.float64]


def read_csv(path: Path) -> Trace:
    """The trace of a CSV file, gzip or not, named after the file.

    Raises InputError with the line for anything that is not a sorted list of finite arrivals with at least one token
    each.
    """
    return parse_csv(read_content(path), str(path))


def parse_csv(data: bytes, where: str) -> Trace:
    """The trace of a CSV file's content; `where` names it in errors."""
    columns = _header(data, where)
    table = _fast(data)
    if table is None or not _is_sound(*table):
        raise _first_fault(text_of(data, where), columns, where)
    arrival, inputs, outputs = table
    return Trace(arrival, inputs.astype(np.int32), outputs.astype(np.int32), trace_name(where))


def trace_name(where: str) -> str:
    """The file's name without folder and endings."""
    return Path(where).name.split(".")[0] or "trace"


def _header(data: bytes, where: str) -> tuple[str, ...]:
    line = text_of(data.lstrip(b"\r\n").partition(b"\n")[0], where)
    columns = tuple(name.strip().strip('"') for name in line.split(","))
    for name in columns:
        if name not in COLUMNS:
            raise unknown_name("column", name[:80], COLUMNS, where=where, key="line 1")
    missing = [name for name in COLUMNS if name not in columns]
    if missing or len(columns) != len(COLUMNS):
        problem = f"column '{missing[0]}' is missing" if missing else "a column stands twice"
        raise InputError(problem, where=where, key="line 1", found=",".join(columns), allowed=",".join(COLUMNS))
    if b"\n" not in data.strip():
        raise InputError("there is a header and no request", where=where)
    return columns


def _fast(data: bytes) -> tuple[Floats, Floats, Floats] | None:
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(data), dtype=np.float64, engine="c", encoding="utf-8-sig", skipinitialspace=True)
    except ValueError:
        return None
    if not isinstance(frame.index, pd.RangeIndex):  # rows longer than the header: pandas took the surplus for an index
        return None
    arrival, inputs, outputs = (frame[name].to_numpy(dtype=np.float64) for name in COLUMNS)
    return arrival, inputs, outputs


def _is_sound(arrival: Floats, inputs: Floats, outputs: Floats) -> bool:
    finite = np.isfinite(arrival).all() and len(arrival) > 0
    return bool(finite and arrival[0] >= 0 and (np.diff(arrival) >= 0).all() and _counts(inputs) and _counts(outputs))


def _counts(tokens: Floats) -> bool:
    return bool(((tokens >= 1) & (tokens <= MOST_TOKENS) & (np.floor(tokens) == tokens)).all())


def _first_fault(text: str, columns: tuple[str, ...], where: str) -> InputError:
    rows = ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())
    next(rows)
    previous = 0.0
    for number, line in rows:
        place = f"line {number}"
        fields = line.split(",")
        if len(fields) != len(columns):
            return InputError(
                "wrong number of fields", where=where, key=place, found=line[:80], allowed=f"{len(columns)} fields"
            )
        for column, field in zip(columns, fields, strict=True):
            fault = _field_fault(column, field.strip().strip('"'), previous)
            if fault:
                return fault.at(where, place)
        previous = float(fields[columns.index("arrival_s")].strip().strip('"'))
    return InputError("is not a table of numbers", where=where, allowed=",".join(COLUMNS))


def _field_fault(column: str, field: str, previous: float) -> InputError | None:
    try:
        value = float(field)
    except ValueError:
        return InputError("is not a number", key=column, found=field[:80])
    if column == "arrival_s":
        return arrival_fault(value, previous)
    return tokens_fault(column, value)


def arrival_fault(value: float, previous: float) -> InputError | None:
    """What is wrong with an arrival time that follows `previous`, if anything."""
    if not math.isfinite(value) or value < 0:
        return InputError("arrival times must be finite and not negative", key="arrival_s", found=value)
    if value < previous:
        return InputError("arrivals are not sorted", key="arrival_s", found=value, allowed=f"at least {previous}")
    return None


def tokens_fault(column: str, value: float) -> InputError | None:
    """What is wrong with a token count, if anything."""
    if not math.isfinite(value) or value != math.floor(value):
        return InputError("must be a whole number of tokens", key=column, found=value)
    if not 1 <= value <= MOST_TOKENS:
        return InputError("must have tokens", key=column, found=int(value), allowed=f"1 to {MOST_TOKENS}")
    return None
