"""What people see: tables and plots on stdout, sentences on stderr, colour on a terminal only."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FILE_COLUMNS = 120
"""Width of what goes to a file or a pipe."""
_BLOCKS = " ▁▂▃▄▅▆▇█"


def out() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)


def err() -> Console:
    """The console for everything said on the way."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A sentence on stderr, never wrapped."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str, with_traceback: bool = False) -> None:
    """An error on stderr, in red on a terminal."""
    if with_traceback:
        traceback.print_exc(file=sys.stderr)
    label = "\x1b[1;31merror\x1b[0m" if sys.stderr.isatty() else "error"
    say(f"{label}: {text}")


def print_json(document: Any) -> None:
    """One JSON object on stdout."""
    from tiphys.documents import to_json

    sys.stdout.write(to_json(document))
    sys.stdout.flush()


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """What anybody prints meanwhile goes to stderr, so that stdout holds the answer alone."""
    with redirect_stdout(sys.stderr):
        yield


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """A table whose first column is words and whose others are numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for place, name in enumerate(columns):
        made.add_column(name, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def announce_compilation() -> None:
    """Say so when the twin has yet to be compiled on this machine."""
    from tiphys.compiled import is_cached

    if not is_cached("loop.play"):
        say("compiling the twin for this machine: once, some 30 s; later runs load it")


def bars(values: Sequence[float], width: int) -> str:
    """A line of blocks, one a column: the mean of its share of the values, scaled to the largest."""
    import numpy as np

    if not len(values):
        return ""
    parts = np.array_split(np.asarray(values, dtype=float), min(width, len(values)))
    means = np.array([part.mean() for part in parts])
    top = means.max()
    if top <= 0:
        return _BLOCKS[0] * len(means)
    return "".join(_BLOCKS[int(np.ceil(mean / top * (len(_BLOCKS) - 1)))] for mean in means)


def seconds(value: float | None) -> str:
    """`1.234 s`, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f} s"


def percent(value: float, digits: int = 1) -> str:
    """`93.1 %`."""
    return f"{value * 100:.{digits}f} %"
