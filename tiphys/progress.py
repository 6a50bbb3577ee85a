"""How far the work is, told to whoever listens: the command line's one display, or the log of a step.

A stage calls `report`; nobody has to listen. The listener is held in a context variable, so that two runs in one
process do not hear each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_log = logging.getLogger("tiphys")


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total` (0 where there is nothing to count), the best so far in words, a remark."""

    stage: str
    done: int = 0
    total: int = 0
    best: str = ""
    message: str = ""


Listener = Callable[[Progress], None]


def log_progress(progress: Progress) -> None:
    """One line in the log: a remark, or the count (each tenth part of it and the last)."""
    counted = progress.total and (progress.done == progress.total or progress.done % max(1, progress.total // 10) == 0)
    if progress.message or counted:
        count = f" {progress.done}/{progress.total}" if progress.total else ""
        rest = "; ".join(part for part in (progress.message, progress.best and f"best {progress.best}") if part)
        _log.info("%s%s%s", progress.stage, count, f": {rest}" if rest else "")


_listener: ContextVar[Listener] = ContextVar("listener", default=log_progress)


def report(stage: str, done: int = 0, total: int = 0, best: str = "", message: str = "") -> None:
    """Tell the listener how far a stage is."""
    _listener.get()(Progress(stage, done, total, best, message))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, `listener` hears every report."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
