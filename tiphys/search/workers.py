"""Processes that do one task over and over, and that do not outlive the process that started them.

They are spawned, never forked: a fork of a process whose other threads (a progress display, numba's) hold locks can
hang. Each gets what all its tasks share once, over its own pipe; when the parent dies, however it dies, the pipe ends
and so does the worker. Ctrl-C is the parent's to handle: workers ignore it and are ended by `close`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Self, TypeVar

from tiphys.errors import TiphysError

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Generic[Shared, Item, Result]):
    """`task(shared, item)` for many items, on `count` processes; on this one where `count` is 1.

    `task` is a function of a module, and all values can be pickled. Use as a context manager.
    """

    def __init__(self, task: Callable[[Shared, Item], Result], shared: Shared, count: int) -> None:
        self._task, self._shared = task, shared
        self._count = count
        self._pipes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def results(self, items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        """(index, result) of every item, as each is done. An exception of the task is raised here.

        Raises TiphysError when a worker dies.
        """
        if self._count <= 1 or (len(items) <= 1 and not self._pipes):
            yield from ((index, self._task(self._shared, item)) for index, item in enumerate(items))
            return
        self._start()
        waiting = iter(enumerate(items))
        busy = [pipe for pipe in self._pipes if self._hand_out(pipe, waiting)]
        while busy:
            for ready in wait(busy):
                assert isinstance(ready, Connection)
                index, result, error = self._receive(ready)
                if error is not None:
                    raise error
                yield index, result
                if not self._hand_out(ready, waiting):
                    busy.remove(ready)

    def close(self) -> None:
        """End every worker at once, whatever it is doing."""
        for pipe, process in self._pipes.items():
            process.terminate()
            pipe.close()
        for process in self._pipes.values():
            process.join()
            process.close()
        self._pipes = {}

    def _start(self) -> None:
        if self._pipes:
            return
        context = multiprocessing.get_context("spawn")
        with _interrupts_ignored():
            for _ in range(self._count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, self._task, self._shared), daemon=True)
                process.start()
                theirs.close()
                self._pipes[ours] = process

    def _hand_out(self, pipe: Connection, waiting: Iterator[tuple[int, Item]]) -> bool:
        following = next(waiting, None)
        if following is None:
            return False
        try:
            pipe.send(following)
        except OSError:
            raise self._died(pipe) from None
        return True

    def _receive(self, pipe: Connection) -> tuple[int, Result, Exception | None]:
        try:
            answer: tuple[int, Result, Exception | None] = pipe.recv()
        except (EOFError, OSError):
            raise self._died(pipe) from None
        return answer

    def _died(self, pipe: Connection) -> TiphysError:
        process = self._pipes[pipe]
        process.join(5)
        return TiphysError(
            f"a worker process ended with code {process.exitcode} (out of memory?); nothing told is lost"
        )


def _work(pipe: Connection, task: Callable[[Any, Any], Any], shared: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            index, item = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[int, Any, Exception | None] = (index, task(shared, item), None)
        except Exception as error:  # the parent raises it
            answer = (index, None, error)
        try:
            pipe.send(answer)
        except OSError:
            return


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Children started meanwhile ignore Ctrl-C from their first instruction, imports included."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
