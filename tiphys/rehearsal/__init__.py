"""Argo workflows acted out on this machine: the DAG that a cluster runs, walked by its own model.

`rehearse` is handed a workflow (plain data, or whatever has Hera's `to_dict()`) and does what an Argo Workflows 4.1
controller would: `depends`, `when`, items, outputs, retries, gates, deadlines, exit handlers. Scripts run as calls in
this process or as processes of Hera's own runner. `check` asks beforehand whether every reference leads somewhere. What
cannot be acted out is a `RehearsalError` that names the field; `IGNORED` lists the fields that are left out of account.

Nothing here knows what the steps do, and nothing here imports Hera.
"""

from __future__ import annotations

from tiphys.rehearsal.check import check
from tiphys.rehearsal.inprocess import InProcess
from tiphys.rehearsal.leaf import LeafCall, LeafResult, LeafRunner
from tiphys.rehearsal.model import IGNORED
from tiphys.rehearsal.nodes import (
    Answer,
    Clock,
    Event,
    Gate,
    GateParameter,
    Node,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    Outcome,
    Outputs,
    Phase,
    StepFailedError,
    WorkflowFinished,
    WorkflowStarted,
)
from tiphys.rehearsal.rehearse import refuse_to_answer, rehearse, say_yes, take_defaults
from tiphys.rehearsal.subprocesses import Subprocess

__all__ = [
    "IGNORED",
    "Answer",
    "Clock",
    "Event",
    "Gate",
    "GateParameter",
    "InProcess",
    "LeafCall",
    "LeafResult",
    "LeafRunner",
    "Node",
    "NodeFinished",
    "NodeRetried",
    "NodeStarted",
    "Outcome",
    "Outputs",
    "Phase",
    "StepFailedError",
    "Subprocess",
    "WorkflowFinished",
    "WorkflowStarted",
    "check",
    "refuse_to_answer",
    "rehearse",
    "say_yes",
    "take_defaults",
]
