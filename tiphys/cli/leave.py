"""`main`: run a command and leave with the exit code that its ending has."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tiphys.cli.show import complain
from tiphys.errors import TiphysError

INTERRUPTED, TERMINATED = 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: cleaned up after as an interrupt is, left with another code."""


def main() -> None:
    """The entry point of the `tiphys` command."""
    sys.exit(outcome(sys.argv[1:]))


def outcome(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code.

    0 done, 1 unexpected, 2 wrong input, 3 nothing feasible, 4 a platform failed, 130 interrupted, 143 terminated; 10
    where a command was asked to say so when the incumbent stays.
    """
    debug = "--debug" in arguments
    with _terminated_like_interrupted() as arrived:
        try:
            code = _run([argument for argument in arguments if argument != "--debug"])
        except TiphysError as error:
            code = error.exit_code
            complain(str(error), debug)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:
            code = 1
            hint = "" if debug else " (tiphys --debug ... shows where)"
            complain(f"unexpected {type(error).__name__}: {_first_line(error)}{hint}", debug)
        if arrived:
            code = TERMINATED
    return code


def _run(arguments: list[str]) -> int:
    from tiphys.cli.app import command

    try:
        command()(arguments, prog_name="tiphys")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or "no message"


@contextmanager
def _terminated_like_interrupted() -> Iterator[list[int]]:
    """While this lasts SIGTERM raises `Terminated` in the main thread; what arrived is in the list."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def raise_terminated(number: int, _: FrameType | None) -> None:
        arrived.append(number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGTERM, before)
