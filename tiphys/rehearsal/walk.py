"""The controller's part: walk a workflow's templates, start what may start, decide how each node ended."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiphys.errors import InputError, RehearsalError
from tiphys.rehearsal.depends import Graph, continues_on
from tiphys.rehearsal.expressions import ExpressionError, evaluate, evaluate_bool, holds, nested
from tiphys.rehearsal.items import expanded, fans_out
from tiphys.rehearsal.leaf import LeafCall, LeafRunner, as_text, collect
from tiphys.rehearsal.model import Book, Data, Place, check_place, unsupported
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
    Outputs,
    Phase,
)
from tiphys.rehearsal.resolve import artifact_from, filled_in, outputs_from, texts
from tiphys.rehearsal.retries import NoMoreAttemptsError, duration_s, last_retry, wait_before_next
from tiphys.rehearsal.scopes import input_scope, node_scope
from tiphys.rehearsal.substitution import Scope, UnresolvedError, substitute

DEEPEST = 100
_PAST_DEADLINE = "Step exceeded its deadline"


@dataclass(frozen=True)
class Arguments:
    """What a task hands to its template; `absent` names what refers to an output that a skipped node lacks."""

    parameters: Mapping[str, str]
    artifacts: Mapping[str, Path]
    absent: frozenset[str] = frozenset()


NO_ARGUMENTS = Arguments({}, {})


@dataclass(frozen=True)
class Visit:
    """One node about to run: its names, its template, and the names that hold inside it."""

    name: str
    display_name: str
    place: Place
    template: Data
    scope: Scope
    parameters: Mapping[str, str]
    artifacts: Mapping[str, Path]
    depth: int

    def attempt(self, number: int) -> Visit:
        """The same node as its numbered attempt."""
        return replace(self, name=f"{self.name}({number})", display_name=f"{self.display_name}({number})")


Ending = tuple[Phase, str, Outputs | None, BaseException | None]


class _Inline(Executor):
    """Runs each job at once in the calling thread: a fixed order, and an interrupt lands in the step itself."""

    def submit(self, job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(job(*args, **kwargs))
        return future


class Walk:
    """One rehearsal under way. `globals` are `workflow.*`, `nodes` those that have ended, in order of ending."""

    def __init__(
        self, book: Book, runner: LeafRunner, clock: Clock, answer: Answer, emit: Callable[[Event], None],
        folder: Path, workers: int, scope: dict[str, Any],
    ) -> None:  # fmt: skip
        self.book, self.runner, self.clock, self.answer = book, runner, clock, answer
        self._emit, self.folder, self.workers, self.globals = emit, folder, workers, scope
        self.nodes: list[Node] = []
        self.exported: dict[str, str] = {}
        self.deadline: float | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(workers)
        self._mutexes: dict[str, threading.Lock] = {}

    # ---- events and records

    def emit(self, event: Event) -> None:
        """Tell whoever listens, one event at a time."""
        with self._lock:
            self._emit(event)

    def ended(self, node: Node) -> Node:
        """Keep a node that has ended, and tell."""
        with self._lock:
            self.nodes.append(node)
            self._emit(NodeFinished(node))
        return node

    def not_run(self, name: str, display: str, template: str, phase: Phase, message: str) -> Node:
        """A node that never ran: skipped, omitted, or in Error before its template was entered."""
        now = self.clock.now()
        return self.ended(Node(name, display, "Skipped", template, phase, message, started_at=now, finished_at=now))

    # ---- templates

    def enter(
        self, name: str, display: str, user: Mapping[str, Any], home: str, arguments: Arguments, depth: int,
        local: Scope | None = None,
    ) -> Node:  # fmt: skip
        """Run the template that a task, step or hook names; what a cluster would survive becomes a node in Error."""
        label = _template_label(user)
        if depth > DEEPEST:
            return self.not_run(name, display, label, "Error", "Maximum recursion depth exceeded")
        try:
            place = self.book.place(user, home, name)
            check_place(place)
            visit = self.visit(name, display, place, arguments, depth, local or {})
        except (UnresolvedError, ExpressionError) as error:
            return self.not_run(name, display, label, "Error", str(error))
        strategy = visit.template.get("retryStrategy") or self.book.spec.get("retryStrategy")
        return self.ended(self.retried(visit, strategy) if strategy else self.once(visit))

    def visit(self, name: str, display: str, place: Place, arguments: Arguments, depth: int, local: Scope) -> Visit:
        """The template with its inputs and the workflow's names filled in. Raises UnresolvedError."""
        parameters, artifacts = self.inputs(name, place.template, arguments)
        scope = {**self.globals, **local, "pod.name": name, "node.name": name}
        scope |= input_scope(place.template, parameters, artifacts)
        body = {key: value for key, value in place.template.items() if key not in ("inputs", "outputs")}
        template = {
            **substitute(body, scope),
            **{k: place.template[k] for k in ("inputs", "outputs") if k in place.template},
        }
        if place.kind == "script":
            template["outputs"] = substitute(place.template.get("outputs") or {}, scope)
        return Visit(name, display, place, template, scope, parameters, artifacts, depth)

    def inputs(self, name: str, template: Data, arguments: Arguments) -> tuple[dict[str, str], dict[str, Path]]:
        """Values of a template's inputs: argument, else the template's own value or default."""
        declared = template.get("inputs") or {}
        parameters: dict[str, str] = {}
        for parameter in declared.get("parameters") or []:
            parameters[parameter["name"]] = self.input(parameter, arguments)
        artifacts: dict[str, Path] = {}
        for artifact in declared.get("artifacts") or []:
            key = artifact["name"]
            if key in arguments.artifacts:
                artifacts[key] = arguments.artifacts[key]
            elif "raw" in artifact:
                artifacts[key] = self.raw_artifact(f"{name}.{key}", substitute(artifact["raw"], self.globals))
            elif not artifact.get("optional"):
                raise UnresolvedError(f"inputs.artifacts.{key} was not supplied")
        return parameters, artifacts

    def input(self, parameter: Data, arguments: Arguments) -> str:
        """The value of one input parameter. Raises UnresolvedError when nobody gives one."""
        name = parameter["name"]
        if name in arguments.parameters:
            return arguments.parameters[name]
        for key in ("value", "default"):
            if parameter.get(key) is not None:
                return str(substitute(as_text(parameter[key]), self.globals))
        if name in arguments.absent:
            raise UnresolvedError(
                f"inputs.parameters.{name}: argument references an absent optional (the output of a skipped or omitted "
                "node that has no default)"
            )
        raise UnresolvedError(f"inputs.parameters.{name} was not supplied")

    def raw_artifact(self, name: str, raw: Mapping[str, Any]) -> Path:
        """A file with the text that stands in the workflow itself."""
        path = self.folder / "raw" / _file_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_text(raw.get("data")), encoding="utf-8")
        return path

    # ---- attempts

    def retried(self, visit: Visit, strategy: Mapping[str, Any]) -> Node:
        """Attempts until one succeeds or the strategy gives up; the node ends as its last attempt did."""
        started = self.clock.now()
        attempts: list[Node] = []
        while True:
            attempts.append(self.ended(self.once(self.with_retry(visit.attempt(len(attempts)), attempts))))
            last = attempts[-1]
            message = last.message
            if not last.failed:
                break
            try:
                wait_s = wait_before_next(strategy, attempts)
                if self.past_deadline():
                    raise NoMoreAttemptsError("retry exceeded workflow deadline")
            except NoMoreAttemptsError as reason:
                message = f"{reason}: {last.message}" if str(reason) else last.message
                break
            except (UnresolvedError, ExpressionError) as error:
                last, message = replace(last, phase="Error"), str(error)
                break
            self.emit(NodeRetried(visit.name, len(attempts), wait_s, last.message))
            if wait_s > 0:
                self.clock.sleep(wait_s)
        return replace(
            last, name=visit.name, display_name=visit.display_name, kind="Retry", message=message,
            started_at=started, finished_at=self.clock.now(), children=tuple(attempts),
        )  # fmt: skip

    def with_retry(self, visit: Visit, attempts: Sequence[Node]) -> Visit:
        """The attempt with `{{retries}}` and `{{lastRetry...}}` filled in."""
        variables = last_retry(attempts) | {"retries": str(len(attempts)), "pod.name": visit.name}
        template = {k: v if k == "retryStrategy" else substitute(v, variables) for k, v in visit.template.items()}
        parameters = substitute(dict(visit.parameters), variables)
        return replace(visit, template=template, parameters=parameters, scope={**visit.scope, **variables})

    def once(self, visit: Visit) -> Node:
        """Run a node's template once."""
        kind, act = {
            "dag": ("DAG", self.dag),
            "steps": ("Steps", self.steps),
            "suspend": ("Suspend", self.suspend),
            "script": ("Pod", self.script),
        }[visit.place.kind]
        self.emit(NodeStarted(visit.name, visit.display_name, kind, visit.place.name))
        started = self.clock.now()
        try:
            phase, message, outputs, error = (
                ("Failed", _PAST_DEADLINE, None, None) if self.past_deadline() else act(visit)
            )
        except (UnresolvedError, ExpressionError) as broken:
            phase, message, outputs, error = "Error", str(broken), None, None
        self.export(visit, kind, outputs)
        return Node(
            visit.name, visit.display_name, kind, visit.place.name, phase, message, dict(visit.parameters), outputs,
            started, self.clock.now(), error,
        )  # fmt: skip

    def export(self, visit: Visit, kind: str, outputs: Outputs | None) -> None:
        """`globalName`: outputs for the whole workflow, from every node but a DAG that is the entrypoint."""
        if outputs is None or (kind == "DAG" and visit.name == self.book.name):
            return
        declared = visit.template.get("outputs") or {}
        with self._lock:
            for parameter in declared.get("parameters") or []:
                if parameter.get("globalName") and parameter["name"] in outputs.parameters:
                    self.exported[parameter["globalName"]] = outputs.parameters[parameter["name"]]
                    self.globals[f"workflow.outputs.parameters.{parameter['globalName']}"] = outputs.parameters[
                        parameter["name"]
                    ]
            for artifact in declared.get("artifacts") or []:
                if artifact.get("globalName") and artifact["name"] in outputs.artifacts:
                    self.globals[f"workflow.outputs.artifacts.{artifact['globalName']}"] = outputs.artifacts[
                        artifact["name"]
                    ]

    def past_deadline(self) -> bool:
        """Whether the workflow's time is over."""
        return self.deadline is not None and self.clock.now() >= self.deadline

    # ---- scripts

    def script(self, visit: Visit) -> Ending:
        """Run a script, within its limits."""
        with self.mutex(visit.template), self._slots:
            started = self.clock.now()
            limit_s = self.limit_s(visit.template)
            folder = self.folder / "nodes" / _file_name(visit.name)
            call = LeafCall(
                visit.name, visit.template, visit.parameters, visit.artifacts, folder, limit_s, self._stop.is_set
            )
            result = self.runner.run(call)
            over = limit_s is not None and self.clock.now() - started > limit_s
            if over and not result.timed_out:
                result = replace(result, timed_out=True)
        phase, message, outputs = collect(call, result)
        return phase, message, outputs, result.error

    def limit_s(self, template: Data) -> float | None:
        """Seconds that a script may take: its own limit, or what is left of the workflow's."""
        limits = [float(as_text(template["activeDeadlineSeconds"]))] if template.get("activeDeadlineSeconds") else []
        limits += [duration_s(template["timeout"])] if template.get("timeout") else []
        limits += [self.deadline - self.clock.now()] if self.deadline is not None else []
        return min(limits) if limits else None

    @contextmanager
    def mutex(self, template: Data) -> Iterator[None]:
        """The template's locks; a semaphore's size is kept in a cluster, so that it is taken to be one."""
        sync = template.get("synchronization") or {}
        names = [f"mutex {mutex.get('name')}" for mutex in sync.get("mutexes") or []]
        names += [f"semaphore {semaphore}" for semaphore in sync.get("semaphores") or []]
        with self._lock:
            locks = [self._mutexes.setdefault(name, threading.Lock()) for name in sorted(set(names))]
        for lock in locks:
            lock.acquire()
        try:
            yield
        finally:
            for lock in locks:
                lock.release()

    # ---- gates

    def suspend(self, visit: Visit) -> Ending:
        """Wait for the duration, or for an answer; outputs not answered take their defaults."""
        gate = self.gate(visit)
        wait = (visit.template.get("suspend") or {}).get("duration")
        answers: Mapping[str, str] = {}
        if wait not in (None, ""):
            self.clock.sleep(duration_s(wait))
        else:
            answers = self.answer(gate)
        return self.resumed(gate, answers)

    def gate(self, visit: Visit) -> Gate:
        """What a suspended node asks; an input of the same name gives default and choices."""
        inputs = {p["name"]: p for p in (visit.template.get("inputs") or {}).get("parameters") or []}
        questions: list[GateParameter] = []
        for parameter in (visit.template.get("outputs") or {}).get("parameters") or []:
            source = parameter.get("valueFrom") or {}
            if "supplied" not in source:
                raise unsupported(visit.place.home, f"template '{visit.place.name}'", "outputs.valueFrom")
            asked = inputs.get(parameter["name"], {})
            default = source.get("default", asked.get("default"))
            choices = tuple(as_text(each) for each in parameter.get("enum") or asked.get("enum") or [])
            description = str(parameter.get("description") or asked.get("description") or "")
            questions.append(
                GateParameter(parameter["name"], None if default is None else as_text(default), choices, description)
            )
        return Gate(visit.name, visit.place.name, dict(visit.parameters), tuple(questions))

    def resumed(self, gate: Gate, answers: Mapping[str, str]) -> Ending:
        """How a gate ends with these answers. Raises InputError for one that is not among the choices."""
        values: dict[str, str] = {}
        for question in gate.parameters:
            value = answers.get(question.name, question.default)
            if value is None:
                return "Error", f"output parameter {question.name} has neither an answer nor a default", None, None
            if question.enum and value not in question.enum:
                raise InputError(
                    "is not one of the gate's choices",
                    where=gate.name,
                    key=question.name,
                    found=value,
                    allowed=", ".join(question.enum),
                )
            values[question.name] = value
        return "Succeeded", "", Outputs(values), None

    # ---- DAGs

    @contextmanager
    def crew(self) -> Iterator[Executor]:
        """Who runs the jobs of one DAG or step group. On an interrupt, nothing new starts and processes are ended."""
        with _Inline() if self.workers == 1 else ThreadPoolExecutor(self.workers) as crew:
            try:
                yield crew
            except BaseException:
                self._stop.set()
                crew.shutdown(wait=False, cancel_futures=True)
                raise

    def go_on(self) -> None:
        """After an interrupt, let the exit handler start what it needs."""
        self._stop.clear()
        self.deadline = None

    def start(self, crew: Executor, job: Callable[..., Node], *args: Any) -> Future[Node]:
        """Hand a job to the crew, with the context of this thread."""
        return crew.submit(contextvars.copy_context().run, job, *args)

    def dag(self, visit: Visit) -> Ending:
        """Run each task when what it waits for has ended; the phase comes from the leaves."""
        dag = visit.template["dag"]
        where = f"{visit.place.home}: template '{visit.place.name}'"
        graph = Graph.of(dag.get("tasks") or [], where)
        targets = graph.targets(str(dag.get("target") or ""))
        results: dict[str, Node] = {}
        waiting = graph.needed(targets)
        broken = False
        with self.crew() as crew:
            running: dict[Future[Node], str] = {}
            while True:
                for name in [n for n in waiting if not broken and all(p in results for p in graph.parents[n])]:
                    waiting.remove(name)
                    running[self.start(crew, self.task, visit, graph, name, dict(results))] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    results[running.pop(future)] = future.result()
                broken = bool(visit.template.get("failFast")) and any(node.failed for node in results.values())
        if broken:
            return "Failed", "template has failed or errored children and failFast enabled", None, _first_error(results)
        return self.dag_ended(visit, graph, targets, results)

    def dag_ended(self, visit: Visit, graph: Graph, targets: list[str], results: Mapping[str, Node]) -> Ending:
        """Phase and outputs of a DAG whose tasks have all ended."""
        phase = graph.phase(targets, results, fail_fast=visit.template["dag"].get("failFast") is not False)
        if phase != "Succeeded":
            return phase, "", None, _first_error(results)
        scope = dict(visit.scope)
        for name, node in results.items():
            scope |= node_scope(f"tasks.{name}", node, self.declared(graph.tasks[name], visit.place.home))
        return phase, "", outputs_from(visit.template, scope), None

    def declared(self, user: Mapping[str, Any], home: str) -> Data | None:
        """The template of a task, where its name is known before it runs."""
        try:
            return self.book.place(user, home, "").template
        except RehearsalError:
            return None

    def task(self, visit: Visit, graph: Graph, name: str, results: Mapping[str, Node]) -> Node:
        """One task, once all that it waits for has ended."""
        task = dict(graph.tasks[name])
        full, label = f"{visit.name}.{name}", _template_label(task)
        try:
            if not graph.may_run(name, results):
                return self.not_run(full, name, label, "Omitted", "omitted: depends condition not met")
        except ExpressionError as error:
            return self.not_run(full, name, label, "Error", str(error))
        scope = dict(visit.scope) | self.globals
        for parent in graph.ancestors(name):
            scope |= node_scope(
                f"tasks.{parent}", results[parent], self.declared(graph.tasks[parent], visit.place.home)
            )
        return self.user(visit, task, scope, full, "tasks")

    # ---- steps

    def steps(self, visit: Visit) -> Ending:
        """Run the groups one after the other, the steps of each together; the first group that fails ends it."""
        scope = dict(visit.scope)
        for number, group in enumerate(visit.template["steps"]):
            steps = list(group.get("steps", []) if isinstance(group, dict) else group)
            name = f"{visit.name}[{number}]"
            nodes = self.group(visit, name, steps, scope)
            failed = [n for s, n in zip(steps, nodes, strict=True) if n.failed and not continues_on(s, n.phase)]
            phase: Phase = "Failed" if failed else "Succeeded"
            message = f"child '{failed[0].name}' failed" if failed else ""
            now = self.clock.now()
            self.ended(Node(name, f"[{number}]", "StepGroup", "", phase, message, started_at=now, finished_at=now))
            if failed:
                return "Failed", message, None, failed[0].error
            for step, node in zip(steps, nodes, strict=True):
                scope |= node_scope(f"steps.{step['name']}", node, self.declared(step, visit.place.home))
        return "Succeeded", "", outputs_from(visit.template, scope | self.globals), None

    def group(self, visit: Visit, name: str, steps: Sequence[Data], scope: Scope) -> list[Node]:
        """The steps of one group, together."""
        with self.crew() as crew:
            started = [
                self.start(crew, self.user, visit, step, {**scope, **self.globals}, f"{name}.{step['name']}", "steps")
                for step in steps
            ]
            return [future.result() for future in started]

    # ---- tasks and steps alike

    def user(self, visit: Visit, user: Data, scope: Scope, full: str, room: str) -> Node:
        """A task or step: its `when`, its references, its items, its template, its exit hook."""
        label = _template_label(user)
        try:
            skipped = self.skipped(user, scope, full)
            if skipped is not None:
                return skipped
            filled, absent = filled_in(user, scope)
            if not fans_out(filled):
                node = self.one(visit, filled, scope, absent, full, str(user["name"]), room)
            else:
                node = self.many(visit, filled, scope, absent, full, room)
        except (UnresolvedError, ExpressionError) as error:
            return self.not_run(full, str(user["name"]), label, "Error", str(error))
        return node

    def skipped(self, user: Data, scope: Scope, full: str) -> Node | None:
        """The skipped node when `when` is false before its other references are even looked at."""
        when = user.get("when")
        if not when:
            return None
        resolved = substitute(str(when), scope, strict=True)
        try:
            if holds(resolved):
                return None
        except ExpressionError:
            if fans_out(user):
                return None  # it may speak of `{{item}}`, which is known later
            raise
        message = f"when '{resolved}' evaluated false"
        return self.not_run(full, str(user["name"]), _template_label(user), "Skipped", message)

    def many(self, visit: Visit, user: Data, scope: Scope, absent: frozenset[str], full: str, room: str) -> Node:
        """A fan-out: a node for each item, and one for them all."""
        items = expanded(user)
        label = _template_label(user)
        if not items:
            return self.not_run(full, str(user["name"]), label, "Skipped", "Skipped, empty params")
        started = self.clock.now()
        stem = full.removesuffix(str(user["name"]))
        with self.crew() as crew:
            jobs = [
                self.start(crew, self.item, visit, item, scope, absent, stem + item["name"], room) for item in items
            ]
            children = tuple(job.result() for job in jobs)
        phase: Phase = "Succeeded"
        for child in children:
            phase = child.phase if child.failed else phase
        error = next((child.error for child in children if child.error), None)
        return self.ended(
            Node(full, str(user["name"]), "TaskGroup", label, phase, started_at=started, finished_at=self.clock.now(),
                 error=error, children=children)
        )  # fmt: skip

    def item(self, visit: Visit, user: Data, scope: Scope, absent: frozenset[str], full: str, room: str) -> Node:
        """One item of a fan-out."""
        try:
            return self.skipped(user, scope, full) or self.one(
                visit, user, scope, absent, full, str(user["name"]), room
            )
        except (UnresolvedError, ExpressionError) as error:
            return self.not_run(full, str(user["name"]), _template_label(user), "Error", str(error))

    def one(
        self, visit: Visit, user: Data, scope: Scope, absent: frozenset[str], full: str, display: str, room: str
    ) -> Node:
        """A task, step or item that runs now, and its exit hook."""
        arguments = self.arguments(user.get("arguments") or {}, scope, absent, full)
        node = self.enter(
            full, display, user, visit.place.home, arguments, visit.depth + 1, {f"{room}.name": str(user["name"])}
        )
        if node.completed:
            self.exit_hook(visit, user, scope, node, room)
        return node

    def exit_hook(self, visit: Visit, user: Data, scope: Scope, node: Node, room: str) -> None:
        """`hooks.exit` (or the older `onExit`) of a task that ran; how it ends changes nothing else."""
        hook = (user.get("hooks") or {}).get("exit") or ({"template": user["onExit"]} if user.get("onExit") else None)
        if hook is None:
            return
        inner = dict(scope) | node_scope(f"{room}.{str(user['name']).partition('(')[0]}", node, None)
        name = f"{node.name}.onExit"
        try:
            if hook.get("expression") and not evaluate_bool(str(hook["expression"]), nested(texts(inner))):
                return
            filled, absent = filled_in({key: hook[key] for key in hook if key != "expression"}, inner)
            arguments = self.arguments(filled.get("arguments") or {}, inner, absent, name)
        except (UnresolvedError, ExpressionError) as error:
            self.not_run(name, f"{node.display_name}.onExit", _template_label(hook), "Error", str(error))
            return
        self.enter(name, f"{node.display_name}.onExit", filled, visit.place.home, arguments, visit.depth + 1)

    def arguments(self, given: Data, scope: Scope, absent: frozenset[str], full: str) -> Arguments:
        """Arguments with every reference already replaced, artifacts found as files. Raises UnresolvedError."""
        parameters: dict[str, str] = {}
        for parameter in given.get("parameters") or []:
            if parameter["name"] in absent:
                continue
            value = parameter.get("value")
            if value is None and (expression := (parameter.get("valueFrom") or {}).get("expression")):
                value = evaluate(str(expression), nested(texts(scope)))
            if value is not None:
                parameters[parameter["name"]] = as_text(value)
        artifacts: dict[str, Path] = {}
        for artifact in given.get("artifacts") or []:
            path = self.artifact(artifact, scope, full)
            if path is not None:
                artifacts[artifact["name"]] = path
        return Arguments(parameters, artifacts, absent)

    def artifact(self, artifact: Data, scope: Scope, full: str) -> Path | None:
        """The file of an artifact argument; None for an optional one that is not there."""
        if "raw" in artifact:
            return self.raw_artifact(f"{full}.{artifact['name']}", artifact["raw"])
        if not artifact.get("from"):
            return None
        return artifact_from(artifact, scope)


def _first_error(results: Mapping[str, Node]) -> BaseException | None:
    return next((node.error for node in results.values() if node.failed and node.error), None)


def _template_label(user: Mapping[str, Any]) -> str:
    ref = user.get("templateRef")
    return f"{ref.get('name')}/{ref.get('template')}" if ref else str(user.get("template", "inline"))


def _file_name(name: str) -> str:
    """A node's name as a folder: short enough for any file system, and still one of a kind."""
    from hashlib import sha256

    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    return plain if plain == name and len(plain) < 100 else f"{plain[:80]}-{sha256(name.encode()).hexdigest()[:8]}"
