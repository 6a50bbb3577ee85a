"""Scripts as processes: Hera's own runner exactly as its container would start it, and inline sources.

Slower than in this process by the start of an interpreter a step, and the closest to a cluster that one machine gets.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tiphys.errors import RehearsalError
from tiphys.rehearsal.leaf import OUTPUTS_VARIABLE, RUNNER_MODULE, LeafCall, LeafResult, safe_place

_POLL_S = 0.05
_GRACE_S = 10.0


@dataclass(frozen=True)
class Subprocess:
    """Runs each script in a process of its own."""

    def run(self, call: LeafCall) -> LeafResult:
        """How the process ended. Raises RehearsalError for a script that this machine cannot start."""
        if call.entrypoint:
            return run_hera(call)
        return run_inline(call)


def run_hera(call: LeafCall) -> LeafResult:
    """A Hera runner script, with its outputs in the node's own folder."""
    outputs = call.folder / "outputs"
    arguments = call.folder / "args.json"
    call.folder.mkdir(parents=True, exist_ok=True)
    arguments.write_text(json.dumps([{"name": k, "value": v} for k, v in call.parameters.items()]), encoding="utf-8")
    command = [sys.executable, "-m", RUNNER_MODULE, "-e", call.entrypoint, str(arguments)]
    environment = call.environment | {OUTPUTS_VARIABLE: str(outputs)}
    with _inputs_in_place(call):
        since_ns = time.time_ns()
        ended = _run(call, command, environment)
        files = {**_declared_elsewhere(call, since_ns), **_below(outputs, call.outputs_root)}
    return LeafResult(ended.exit_code, ended.stdout, files, ended.message, None, ended.timed_out)


def run_inline(call: LeafCall) -> LeafResult:
    """A script template with its own source: Python, or a shell that is installed here."""
    command = [*map(str, call.script.get("command") or [])]
    if not command:
        raise RehearsalError(f"{call.node}: a script without a command cannot be acted out", field="script.command")
    source = call.folder / "script"
    call.folder.mkdir(parents=True, exist_ok=True)
    source.write_text(str(call.script.get("source", "")), encoding="utf-8")
    program = _program(command[0], call.node)
    with _inputs_in_place(call):
        since_ns = time.time_ns()
        ended = _run(
            call, [program, *command[1:], *map(str, call.script.get("args") or []), str(source)], call.environment
        )
        files = _declared_elsewhere(call, since_ns)
    return LeafResult(ended.exit_code, ended.stdout, files, ended.message, None, ended.timed_out)


def _program(name: str, node: str) -> str:
    if Path(name).name.startswith("python"):
        return sys.executable
    found = shutil.which(Path(name).name)
    if found is None:
        raise RehearsalError(f"{node}: '{name}' is not on this machine", field="script.command")
    return found


def _run(call: LeafCall, command: list[str], environment: Mapping[str, str]) -> LeafResult:
    """Start, wait until it ends, its time is over or the rehearsal stops; then it is gone in any case."""
    call.folder.mkdir(parents=True, exist_ok=True)
    with (call.folder / "stdout").open("w+b") as stdout, (call.folder / "stderr").open("w+b") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, env=_environment(environment)
        )
        try:
            timed_out = _wait(process, call)
        except BaseException:
            _end(process)
            raise
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        return LeafResult(code, _read(stdout), {}, _last_line(_read(stderr)), None, timed_out)


def _wait(process: subprocess.Popen[bytes], call: LeafCall) -> bool:
    """True when the time was over."""
    until = None if call.limit_s is None else time.monotonic() + call.limit_s
    while True:
        try:
            process.wait(_POLL_S)
            return False
        except subprocess.TimeoutExpired:
            over = until is not None and time.monotonic() >= until
            if over or call.stopping():
                _end(process)
                return over


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and import path, so that what can be imported here can be there."""
    path = os.pathsep.join(entry for entry in [*sys.path] if entry) or "."
    return {**os.environ, "PYTHONPATH": path, **extra}


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _below(root: Path, believed: str) -> dict[str, Path]:
    return {f"{believed}/{file.relative_to(root)}": file for file in root.rglob("*") if file.is_file()}


def _declared_elsewhere(call: LeafCall, since_ns: int) -> dict[str, str | Path]:
    """Outputs with paths of their own, kept in the node's folder; what lay there before this run does not count."""
    files: dict[str, str | Path] = {}
    outputs = call.template.get("outputs") or {}
    declared = [(p.get("valueFrom") or {}).get("path") for p in outputs.get("parameters") or []]
    declared += [artifact.get("path") for artifact in outputs.get("artifacts") or []]
    for number, path in enumerate(declared):
        if not path or path.startswith(call.outputs_root + "/"):
            continue
        place = safe_place(path, call.node)
        if place.exists() and place.stat().st_mtime_ns >= since_ns - 20_000_000:
            kept = call.folder / "kept" / str(number)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(place, kept) if place.is_dir() else shutil.copy2(place, kept)
            files[path] = kept
    return files


@contextmanager
def _inputs_in_place(call: LeafCall) -> Iterator[None]:
    """Input artifacts at the fixed paths that a container has: shared, so one step of one rehearsal at a time."""
    wanted = [(safe_place(path, call.node), file) for _, path, file in call.input_artifacts() if path]
    if not wanted:
        yield
        return
    lock = Path(tempfile.gettempdir()) / f"tiphys-rehearsal-inputs-{os.getuid()}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for place, file in wanted:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(file, place, dirs_exist_ok=True) if file.is_dir() else shutil.copy2(file, place)
        try:
            yield
        finally:
            for place, _ in wanted:
                shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
