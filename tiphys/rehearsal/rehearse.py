"""`rehearse`: act a workflow out on this machine from its first template to its exit handler."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tiphys.errors import RehearsalError
from tiphys.rehearsal.check import check_book
from tiphys.rehearsal.expressions import evaluate_bool, nested
from tiphys.rehearsal.inprocess import InProcess, routed_stdout
from tiphys.rehearsal.leaf import LeafRunner, as_text
from tiphys.rehearsal.model import Book, Data, read
from tiphys.rehearsal.nodes import (
    Answer,
    Clock,
    Event,
    Gate,
    Node,
    Outcome,
    Phase,
    WorkflowFinished,
    WorkflowStarted,
)
from tiphys.rehearsal.resolve import filled_in, texts
from tiphys.rehearsal.scopes import failures_text, rfc3339, workflow_arguments, workflow_scope
from tiphys.rehearsal.walk import NO_ARGUMENTS, Walk

_YES = ("YES", "yes", "Yes", "true", "True", "approve", "approved")


def refuse_to_answer(gate: Gate) -> Mapping[str, str]:
    """The answer when nobody is there: a RehearsalError that names the gate."""
    questions = ", ".join(q.name for q in gate.parameters) or "to be resumed"
    raise RehearsalError(f"the gate '{gate.name}' waits for {questions}: hand in an answer", field="suspend")


def say_yes(gate: Gate) -> Mapping[str, str]:
    """Approves: `YES` (or `true`, ...) where a question offers it, defaults elsewhere."""
    return {q.name: next(each for each in _YES if each in q.enum) for q in gate.parameters if set(_YES) & set(q.enum)}


def take_defaults(gate: Gate) -> Mapping[str, str]:
    """Resumes without an answer, as a careless click would."""
    return {}


def rehearse(
    workflow: object,
    arguments: Mapping[str, object] | None = None,
    *,
    templates: Sequence[object] = (),
    runner: LeafRunner | None = None,
    clock: Clock | None = None,
    answer: Answer = refuse_to_answer,
    on_event: Callable[[Event], None] | None = None,
    workers: int = 1,
    folder: Path | None = None,
) -> Outcome:
    """How a workflow ends when it is acted out here, as an Argo Workflows 4.1 controller would.

    `workflow` and each of `templates` (what `templateRef` and `workflowTemplateRef` may name) is plain data, or has
    Hera's `to_dict()` or is a built model. With one worker, scripts run one after the other in the calling thread, so
    that an interrupt lands in them. `folder` keeps what they write; without one it is thrown away.

    A failing workflow is an Outcome. Raises RehearsalError for what cannot be acted out, and before anything runs for
    references that lead nowhere; InputError for wrong arguments and answers. An interrupt runs the exit handler and is
    raised.
    """
    book = read(workflow, templates)
    check_book(book)
    given = workflow_arguments(book, arguments or {})
    clock = clock or Clock()
    scope = workflow_scope(book, given, clock.now())
    limit = book.spec.get("parallelism")
    crew = max(1, min(workers, int(limit)) if limit else workers)
    with _folder(folder) as place, routed_stdout():
        walk = Walk(book, runner or InProcess(), clock, answer, on_event or (lambda event: None), place, crew, scope)
        return _acted_out(book, walk)


def _acted_out(book: Book, walk: Walk) -> Outcome:
    started = walk.clock.now()
    walk.emit(WorkflowStarted(book.name))
    if seconds := book.spec.get("activeDeadlineSeconds"):
        walk.deadline = started + float(as_text(seconds))
    try:
        entry = walk.enter(book.name, book.name, {"template": book.spec["entrypoint"]}, book.name, NO_ARGUMENTS, 0)
    except BaseException as interruption:
        _exit_handler(book, walk, "Error" if isinstance(interruption, Exception) else "Failed", started)
        raise
    main: Phase = entry.phase if entry.completed else "Succeeded"
    leaving = _exit_handler(book, walk, main, started)
    last = leaving if main == "Succeeded" and leaving is not None and leaving.failed else entry
    phase: Phase = last.phase if last.failed else "Succeeded"
    message = last.message or _why(walk.nodes) if phase != "Succeeded" else ""
    walk.emit(WorkflowFinished(book.name, phase, message))
    outputs = {**(entry.outputs.parameters if entry.outputs else {}), **walk.exported}
    return Outcome(phase, message, tuple(walk.nodes), outputs, last.error if last.failed else None)


def _why(nodes: Sequence[Node]) -> str:
    """The first node that failed by itself, with its message."""
    failed = [node for node in nodes if node.failed and node.message]
    return f"{failed[0].display_name}: {failed[0].message}" if failed else ""


def _exit_handler(book: Book, walk: Walk, status: Phase, started: float) -> Node | None:
    """The workflow's exit handler, which has no deadline: it runs however the workflow ended."""
    hook: Data | None = (book.spec.get("hooks") or {}).get("exit")
    if hook is None and book.spec.get("onExit"):
        hook = {"template": book.spec["onExit"]}
    if hook is None:
        return None
    walk.go_on()
    walk.globals |= {
        "workflow.status": status, "workflow.failures": failures_text(walk.nodes),
        "workflow.duration": f"{walk.clock.now() - started:.6f}", "workflow.finishedAt": rfc3339(walk.clock.now()),
    }  # fmt: skip
    if hook.get("expression") and not evaluate_bool(str(hook["expression"]), nested(texts(walk.globals))):
        return None
    filled, absent = filled_in({key: hook[key] for key in hook if key != "expression"}, walk.globals)
    arguments = walk.arguments(filled.get("arguments") or {}, walk.globals, absent, "exit")
    return walk.enter(f"{book.name}.onExit", f"{book.name}.onExit", filled, book.name, arguments, 0)


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tiphys-rehearsal-") as temporary:
        yield Path(temporary)
