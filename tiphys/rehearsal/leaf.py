"""The seam to what a script template does: a call with its inputs, a result with its files. Runners sit behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from tiphys.errors import RehearsalError
from tiphys.rehearsal.nodes import Outputs, Phase

RUNNER_MODULE = "hera.workflows.runner"
OUTPUTS_VARIABLE = "hera__outputs_directory"
DEFAULT_OUTPUTS = "/tmp/hera-outputs"
TOO_LONG = "Pod was active on the node longer than the specified deadline"


@dataclass(frozen=True)
class LeafCall:
    """One script to run: its template with everything substituted, its inputs, and a folder of its own."""

    node: str
    template: Mapping[str, Any]
    parameters: Mapping[str, str]
    artifacts: Mapping[str, Path]
    folder: Path
    limit_s: float | None
    stopping: Callable[[], bool]

    @property
    def script(self) -> Mapping[str, Any]:
        """The template's script."""
        script: Mapping[str, Any] = self.template["script"]
        return script

    @property
    def entrypoint(self) -> str:
        """`module:function` of a Hera runner script; empty for an inline one."""
        return entrypoint(self.script)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the script is started with, on top of this process's own."""
        return {entry["name"]: str(entry.get("value", "")) for entry in self.script.get("env") or []}

    @property
    def outputs_root(self) -> str:
        """Where the script believes that Hera writes its outputs."""
        return self.environment.get(OUTPUTS_VARIABLE, DEFAULT_OUTPUTS)

    def input_artifacts(self) -> Iterator[tuple[str, str, Path]]:
        """Name, declared path, and file of each input artifact that was given."""
        for artifact in (self.template.get("inputs") or {}).get("artifacts") or []:
            if artifact["name"] in self.artifacts:
                yield artifact["name"], str(artifact.get("path", "")), self.artifacts[artifact["name"]]


@dataclass(frozen=True)
class LeafResult:
    """How a script ended. `files` are what it wrote, by the path that it believes in: text, or where the file is."""

    exit_code: int = 0
    stdout: str = ""
    files: Mapping[str, str | Path] = field(default_factory=dict)
    message: str = ""
    error: BaseException | None = None
    timed_out: bool = False


class LeafRunner(Protocol):
    """Something that runs scripts. What a script raises is part of the result; an interrupt is raised."""

    def run(self, call: LeafCall) -> LeafResult:
        """Run one script to its end."""
        ...


def entrypoint(script: Mapping[str, Any]) -> str:
    """`module:function` that a script hands to Hera's runner, or an empty string."""
    args = [str(each) for each in [*(script.get("command") or []), *(script.get("args") or [])]]
    if RUNNER_MODULE not in args:
        return ""
    for flag, value in pairwise(args):
        if flag in ("-e", "--entrypoint"):
            return value
    return ""


def collect(call: LeafCall, result: LeafResult) -> tuple[Phase, str, Outputs]:
    """Phase, message and outputs of a script that has ended, as Argo's executor would report them."""
    parameters, missing = _parameters(call, result)
    artifacts, lost = _artifacts(call, result)
    exit_code = None if result.timed_out else result.exit_code
    stdout = result.stdout.removesuffix("\n")
    outputs = Outputs(parameters=parameters, artifacts=artifacts, result=stdout, exit_code=exit_code)
    if result.timed_out:
        return "Failed", TOO_LONG, outputs
    if result.exit_code != 0:
        text = f"main: Error (exit code {result.exit_code})"
        return "Failed", f"{text}: {result.message}" if result.message else text, outputs
    if missing or lost:
        absent = ", ".join([*missing, *lost])
        return (
            "Error",
            f"wait: Error (exit code 64): no such file: {absent}",
            Outputs(parameters, artifacts, stdout, None),
        )
    return "Succeeded", "", outputs


def _parameters(call: LeafCall, result: LeafResult) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    missing: list[str] = []
    for parameter in (call.template.get("outputs") or {}).get("parameters") or []:
        source = parameter.get("valueFrom") or {}
        path = source.get("path")
        if not path:
            continue
        if path in result.files:
            found[parameter["name"]] = _content(result.files[path]).removesuffix("\n")
        elif "default" in source:
            found[parameter["name"]] = as_text(source["default"])
        else:
            missing.append(path)
    return found, missing


def _artifacts(call: LeafCall, result: LeafResult) -> tuple[dict[str, Path], list[str]]:
    found: dict[str, Path] = {}
    missing: list[str] = []
    for artifact in (call.template.get("outputs") or {}).get("artifacts") or []:
        path = str(artifact.get("path", ""))
        if path in result.files:
            found[artifact["name"]] = _as_file(call, artifact["name"], result.files[path])
        elif not artifact.get("optional"):
            missing.append(path)
    return found, missing


def _content(written: str | Path) -> str:
    return written.read_text(encoding="utf-8") if isinstance(written, Path) else written


def _as_file(call: LeafCall, name: str, written: str | Path) -> Path:
    if isinstance(written, Path):
        return written
    path = call.folder / "artifacts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written, encoding="utf-8")
    return path


def as_text(value: object) -> str:
    """A value of a YAML file as Argo's any-string takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def safe_place(path: str, what: str) -> Path:
    """An absolute path of a container that may be used as it is here: only below the temporary folder.

    Raises RehearsalError for any other: acting out a container must not write into this machine.
    """
    place = Path(path)
    roots = {Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()}
    resolved = place.resolve()
    if not place.is_absolute() or not any(resolved != root and resolved.is_relative_to(root) for root in roots):
        raise RehearsalError(
            f"{what}: '{path}' lies in the container, not below /tmp, so that it cannot be acted out on this machine",
            field="path",
        )
    return place


@contextmanager
def nothing() -> Iterator[None]:
    """A context that does nothing."""
    yield
