"""The one live display of a run: stage, trials done, best so far, time left; plain lines where nobody is watching."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiphys.cli import show
from tiphys.progress import Progress, listening

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from tiphys.rehearsal import Event

_TENTHS = 10


class Lines:
    """Progress as lines on stderr: each remark, and each tenth part of what can be counted."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._began = time.monotonic()

    def hear(self, progress: Progress) -> None:
        """Say what is new, if it is worth a line."""
        if progress.total:
            tenth = progress.done * _TENTHS // progress.total
            if tenth <= self._told.get(progress.stage, 0):
                return
            self._told[progress.stage] = tenth
        elif not progress.message:
            return
        count = f" {progress.done}/{progress.total}" if progress.total else ""
        rest = "; ".join(part for part in (progress.message, progress.best and f"best {progress.best}") if part)
        show.say(f"[{time.monotonic() - self._began:5.1f} s] {progress.stage}{count}{': ' + rest if rest else ''}")

    def stage(self, name: str) -> None:
        """A stage has begun: its own reports say so."""


class LiveDisplay:
    """Progress as one line that is drawn anew, on a terminal."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar, self._task = bar, task
        self._stage = ""

    def hear(self, progress: Progress) -> None:
        """Move the bar; a remark becomes a line above it."""
        self.stage(progress.stage)
        if progress.message:
            self._bar.console.print(f"[dim]{progress.stage}:[/] {progress.message}", soft_wrap=True)
        if progress.total:
            best, count = f"best {progress.best}" if progress.best else "", f"{progress.done}/{progress.total}"
            self._bar.update(self._task, completed=progress.done, total=progress.total, best=best, count=count)

    def stage(self, name: str) -> None:
        """Begin a stage."""
        if name != self._stage:
            self._stage = name
            self._bar.reset(self._task, total=None, description=name, best="", count="")


@contextmanager
def displayed() -> Iterator[Callable[[Event], None]]:
    """A display that hears every report of the stages; what it gives hears the events of a rehearsal."""
    if not sys.stderr.isatty():
        lines = Lines()
        with listening(lines.hear):
            yield lambda event: None
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[best]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=show.err(), transient=True, redirect_stdout=False) as bar:
        display = LiveDisplay(bar, bar.add_task("starting", total=None, best="", count=""))
        with listening(display.hear):
            yield lambda event: _hear_event(display, event)


def _hear_event(display: LiveDisplay, event: Event) -> None:
    from tiphys.rehearsal import NodeStarted

    if isinstance(event, NodeStarted) and event.kind == "Pod":
        display.stage(event.template.replace("-", "_"))
