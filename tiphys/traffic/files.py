"""Traces in files: which reader a file needs is told by its content, not by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tiphys.domain.values import Frozen, Seconds
from tiphys.errors import InputError
from tiphys.traffic.clock import coarse_clock_s, from_first, spread, starts_with_a_date
from tiphys.traffic.content import read_content
from tiphys.traffic.csv import parse_csv
from tiphys.traffic.jsonl import parse_jsonl
from tiphys.traffic.loaded import Loaded


class CsvSource(Frozen):
    """A trace file: CSV (`arrival_s,input_tokens,output_tokens`) or JSON lines (Mooncake, aiperf), gzip or not."""

    kind: Literal["csv"] = "csv"
    path: str
    """Relative to the experiment's folder, else to the working folder."""
    spread_s: Seconds = 0.0
    """Undo a coarse clock: each request is moved later by a seeded uniform share of this (Mooncake conversation: 3)."""

    def load(self, seed: int, base: Path) -> Loaded:
        """The trace in the file. Raises InputError when there is none."""
        return open_trace(found_file(self.path, base, "traffic.source.path"), seed, self.spread_s)


def open_trace(path: Path | str, seed: int = 1, spread_s: float = 0.0) -> Loaded:
    """The trace in a CSV or JSON lines file, gzip or not, with what the reader should know of it.

    `spread_s` above 0 spreads the arrivals of a stamp over the seconds that follow it (`seed` draws how).
    Raises InputError for anything that is not a trace.
    """
    data = read_content(Path(path))
    is_json = data.lstrip()[:1] in (b"{", b"[")
    loaded = parse_jsonl(data, str(path)) if is_json else Loaded(parse_csv(data, str(path)))
    loaded = _dated(loaded) if starts_with_a_date(loaded.trace) else loaded
    return _spread(loaded, spread_s, seed) if spread_s > 0 else _checked_clock(loaded)


def found_file(path: str, base: Path, key: str) -> Path:
    """The file that a relative path means: in `base`, else in the working folder. Raises InputError when in neither."""
    given = Path(path).expanduser()
    for candidate in (given,) if given.is_absolute() else (base / given, given):
        if candidate.is_file():
            return candidate
    places = "an existing file" if given.is_absolute() else f"a file in {base} or in {Path.cwd()}"
    raise InputError("there is no such file", key=key, found=path, allowed=places)


def _dated(loaded: Loaded) -> Loaded:
    notice = f"arrivals are dates: counted from the first one ({loaded.trace.arrival_s[0]:.3f} s)"
    return Loaded(from_first(loaded.trace), (*loaded.notices, notice))


def _spread(loaded: Loaded, spread_s: float, seed: int) -> Loaded:
    notice = f"arrivals of a stamp are spread uniformly over the {spread_s:g} s that follow it"
    return Loaded(spread(loaded.trace, spread_s, seed), (*loaded.notices, notice))


def _checked_clock(loaded: Loaded) -> Loaded:
    tick_s = coarse_clock_s(loaded.trace)
    if tick_s is None:
        return loaded
    notice = (
        f"arrivals are stamped every {tick_s:g} s, which makes bursts the service never saw: set spread_s: {tick_s:g}"
    )
    return Loaded(loaded.trace, (*loaded.notices, notice))
