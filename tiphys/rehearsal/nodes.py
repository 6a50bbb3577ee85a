"""What a rehearsal tells: nodes with Argo's phases, events while it runs, and the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tiphys.errors import TiphysError

Phase = Literal["Succeeded", "Failed", "Error", "Skipped", "Omitted"]
"""How a node ended, in Argo's words."""


@dataclass(frozen=True)
class Outputs:
    """What a node hands on. A parameter is always text, as in Argo."""

    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    result: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Node:
    """One node of the workflow when it has ended.

    `name` is the full path in Argo's form (`wf.fan(0:a)`, `wf[1].step`, attempts `wf.task(0)`), `kind` Argo's type.
    """

    name: str
    display_name: str
    kind: str
    template: str
    phase: Phase
    message: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Outputs | None = None
    started_at: float = 0.0
    finished_at: float = 0.0
    error: BaseException | None = None
    children: tuple[Node, ...] = ()
    """Items of a fan-out, attempts of a retried node."""

    @property
    def failed(self) -> bool:
        """Whether it ended in Failed or Error."""
        return self.phase in ("Failed", "Error")

    @property
    def completed(self) -> bool:
        """Whether it ran to an end: a skipped or omitted node did not."""
        return self.phase in ("Succeeded", "Failed", "Error")

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished_at - self.started_at


@dataclass(frozen=True)
class WorkflowStarted:
    """The workflow has begun."""

    name: str


@dataclass(frozen=True)
class NodeStarted:
    """A node has begun; `kind` is `Pod` for what really runs."""

    name: str
    display_name: str
    kind: str
    template: str


@dataclass(frozen=True)
class NodeFinished:
    """A node has ended, skipped and omitted ones included."""

    node: Node


@dataclass(frozen=True)
class NodeRetried:
    """An attempt failed and another follows after `wait_s`."""

    name: str
    attempt: int
    wait_s: float
    message: str


@dataclass(frozen=True)
class WorkflowFinished:
    """The workflow has ended, its exit handler included."""

    name: str
    phase: Phase
    message: str


Event = WorkflowStarted | NodeStarted | NodeFinished | NodeRetried | WorkflowFinished


@dataclass(frozen=True)
class GateParameter:
    """One question of a suspend gate; `default` is what a careless resume answers."""

    name: str
    default: str | None
    enum: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Gate:
    """A suspended node that waits for somebody."""

    name: str
    template: str
    inputs: Mapping[str, str]
    parameters: tuple[GateParameter, ...]


Answer = Callable[[Gate], Mapping[str, str]]
"""Resumes a gate with answers by parameter; those not given take their defaults."""


class Clock:
    """The time, and waiting for it; a test hands in one of its own."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Return when so much time has gone by."""
        time.sleep(seconds)


class StepFailedError(TiphysError):
    """A step of a workflow failed; `exit_code` is that of its process."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@dataclass(frozen=True)
class Outcome:
    """How a workflow ended: every node in order of ending, the outputs, and the error that made it fail."""

    phase: Phase
    message: str
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    """Parameters of the entrypoint, and those exported by `globalName`."""
    error: BaseException | None = None
    """The exception behind the failure, where a step raised one in this process."""

    def node(self, name: str) -> Node:
        """The last node of a display name or full name. Raises KeyError."""
        for node in reversed(self.nodes):
            if name in (node.display_name, node.name):
                return node
        raise KeyError(name)

    def raise_failure(self) -> None:
        """Raise what made the workflow fail, so that a command can end with its exit code; nothing if it succeeded."""
        if self.phase == "Succeeded":
            return
        if self.error is not None:
            raise self.error
        codes = [n.outputs.exit_code for n in self.nodes if n.failed and n.outputs and n.outputs.exit_code]
        raise StepFailedError(self.message or f"the workflow ended in {self.phase}", codes[-1] if codes else 1)

    def phases(self) -> dict[str, Phase]:
        """Phase by display name."""
        return {node.display_name: node.phase for node in self.nodes}
