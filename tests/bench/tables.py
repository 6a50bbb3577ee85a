"""What a benchmark found: rows with a title, as Markdown or as plain data; and the machine that they were found on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tiphys.errors import TiphysError

Row = Mapping[str, Any]


class Missing(Exception):
    """What a row measures is not there; the message says what."""


class Table(NamedTuple):
    """Rows of one kind. A row that could not be measured has `skipped`: why."""

    title: str
    rows: tuple[Row, ...]
    remark: str = ""


def measured(label: Row, measure: Callable[[], Row]) -> Row:
    """The label with what was measured, or with the reason why nothing was."""
    try:
        return {**label, **measure()}
    except (Missing, TiphysError, pytest.skip.Exception) as reason:
        return {**label, "skipped": " ".join(str(reason).split())}


def machine() -> dict[str, Any]:
    """The CPU, its cores, and the versions of what computes."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tiphys", "numba", "numpy")},
    }


def sentence(facts: Mapping[str, Any]) -> str:
    """Facts in a line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def markdown(table: Table) -> str:
    """The table under its title."""
    columns = list(dict.fromkeys(name for row in table.rows for name in row if name != "skipped"))
    if any("skipped" in row and columns[-1] in row for row in table.rows):
        columns.append("measured")
    kinds = {name: any(isinstance(row.get(name), int | float) for row in table.rows) for name in columns}
    lines = [f"### {table.title}", ""]
    if table.remark:
        lines += [table.remark, ""]
    lines.append(_line(columns))
    lines.append(_line("--:" if kinds[name] else "---" for name in columns))
    for row in table.rows:
        cells = [_cell(row[name]) if name in row else "" for name in columns]
        if "skipped" in row:
            cells[-1] = f"skipped: {row['skipped']}"
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cpu_model() -> str:
    names = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
