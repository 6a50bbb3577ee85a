"""The real traces, where they are: `TIPHYS_TRACES`, else `../shared/traces` beside the repository."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from tiphys.domain.trace import Trace
from tiphys.traffic import open_trace

# Of each: the file, and the seconds of the clock that its arrivals were stamped with.
REAL_TRACES = {
    "azure2023-conv": ("azure2023_conv.csv.gz", 0.0),
    "azure2023-code": ("azure2023_code_h1.csv.gz", 0.0),
    "mooncake-conversation": ("mooncake_conversation.csv.gz", 3.0),
    "mooncake-synthetic": ("mooncake_synthetic.csv.gz", 0.0),
    "servegen-mlarge-day8": ("servegen_mlarge_day8_1m.csv.gz", 0.0),
    "servegen-mmid-day3": ("servegen_mmid_day3_200k.csv.gz", 0.0),
}


def trace_file(name: str) -> Path:
    """The file of a real trace; skips the test, by name, where it is absent."""
    beside = Path(__file__).parents[2] / "shared" / "traces"
    path = Path(os.environ.get("TIPHYS_TRACES") or beside) / REAL_TRACES[name][0]
    if not path.is_file():
        pytest.skip(f"the real trace {path.name} is not here (TIPHYS_TRACES)")
    return path


def real_trace(name: str) -> Trace:
    """A real trace, arrivals of a coarse clock spread out."""
    return _opened(trace_file(name), REAL_TRACES[name][1])


@cache
def _opened(path: Path, spread_s: float) -> Trace:
    return open_trace(path, seed=1, spread_s=spread_s).trace
