"""The file under a journal: whole lines, one writer, whatever kills it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiphys.errors import InputError


class JournalFile:
    """A journal file with one writer, held open and locked; in memory alone where there is no path.

    Optuna's own file backend takes and drops a lock file for every line: a kill leaves it behind, and the next start
    then waits half a minute. A lock on the open file goes with its process.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._logs: list[dict[str, Any]] = []
        self._file = None if path is None else _locked(path)
        if self._file is not None and path is not None:
            try:
                self._logs = _whole_lines(self._file, path)
            except BaseException:
                self.close()
                raise

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The lines from a number on."""
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, in one write."""
        text = [json.dumps(log, separators=(",", ":")) for log in logs]
        # as read back from the file, so that a study that goes on and one that is resumed see the same values
        self._logs.extend(json.loads(line) for line in text)
        if self._file is not None:
            self._file.write("".join(line + "\n" for line in text).encode())
            self._file.flush()

    def sync(self) -> None:
        """Wait for the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _locked(path: Path) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError("is in use by another search", where=str(path)) from None
    return file


def _whole_lines(file: Any, path: Path) -> list[dict[str, Any]]:
    """Every line of the file; a last line that a kill tore is cut off."""
    file.seek(0)
    content = file.read()
    logs: list[dict[str, Any]] = []
    good = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        try:
            log = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            log = None
        if not isinstance(log, dict):
            if good + len(line) < len(content):
                raise InputError(f"line {number} is damaged", where=str(path))
            break
        logs.append(log)
        good += len(line)
    if good < len(content):
        file.truncate(good)
    return logs
