"""Does every reference lead somewhere? Asked before anything runs: Hera and Argo's schema let all of this pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tiphys.errors import RehearsalError, nearest
from tiphys.rehearsal.depends import Graph
from tiphys.rehearsal.expressions import ExpressionError, parse, paths
from tiphys.rehearsal.inprocess import load
from tiphys.rehearsal.items import fans_out
from tiphys.rehearsal.leaf import as_text, entrypoint
from tiphys.rehearsal.model import Book, Data, Place, check_place, read
from tiphys.rehearsal.substitution import references


def check(workflow: object, templates: Sequence[object] = ()) -> None:
    """Nothing, when every field can be acted out and every reference of a workflow leads somewhere.

    Looked at: templates and the entrypoint, required arguments, tasks in `depends`, outputs that tasks refer to and
    whether their task is waited for, inputs, workflow parameters, defaults in enums, and `-e module:function`.

    Raises RehearsalError with every fault, one a line; its `field` is that of the first.
    """
    check_book(read(workflow, templates))


def check_book(book: Book) -> None:
    """The same for a workflow that has been read."""
    faults = _Inspection(book).faults()
    if faults:
        raise RehearsalError("\n".join(fault.text for fault in faults), field=faults[0].field)


@dataclass(frozen=True)
class Fault:
    """One reference that leads nowhere, and the field that it stands in."""

    text: str
    field: str


@dataclass
class _Inspection:
    book: Book
    found: list[Fault] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def faults(self) -> list[Fault]:
        spec = self.book.spec
        _enums(spec.get("arguments") or {}, "value", f"{self.book.name}: arguments", self.fault)
        if not spec.get("entrypoint"):
            self.fault(f"{self.book.name}: no entrypoint", "entrypoint")
        else:
            self.entry({"template": spec["entrypoint"]}, "entrypoint")
        if spec.get("onExit"):
            self.entry({"template": spec["onExit"]}, "onExit")
        for name, hook in (spec.get("hooks") or {}).items():
            self.entry(hook, f"hooks.{name}")
        for template in spec.get("templates") or []:
            self.guarded(partial(self.own, str(template.get("name"))), "template")
        return self.found

    def fault(self, text: str, name: str) -> None:
        if all(text != each.text for each in self.found):
            self.found.append(Fault(text, name))

    def guarded(self, look: Callable[[], Any], name: str) -> None:
        """Keep what a look raises as a fault; a field that cannot be acted out is raised at once."""
        try:
            look()
        except ExpressionError as error:
            self.fault(str(error), name)
        except RehearsalError as error:
            if "is not acted out on this machine" in str(error):
                raise
            self.fault(str(error), error.field or name)

    def entry(self, user: Data, name: str) -> None:
        def look() -> None:
            place = self.book.place(user, self.book.name, f"{self.book.name}: {name}")
            self.supplied(place, user, f"{self.book.name}: {name}")
            self.visit(place)

        self.guarded(look, name)

    def own(self, name: str) -> None:
        self.visit(self.book.find(name, self.book.name, self.book.name))

    def visit(self, place: Place) -> None:
        key = (place.home, place.name)
        if key in self.seen and place.name != "inline":
            return
        self.seen.add(key)
        check_place(place)
        where = f"{place.home}: template '{place.name}'"
        _enums(place.template.get("inputs") or {}, "default", f"{where}: inputs", self.fault)
        kind = place.kind
        if kind == "script":
            self.script(place.template, where)
        elif kind == "dag":
            self.dag(place, where)
        elif kind == "steps":
            self.steps(place, where)

    def script(self, template: Data, where: str) -> None:
        if (name := entrypoint(template["script"])) and "{{" not in name:
            self.guarded(partial(load, name), "script.args")
        self.inputs_and_globals(template["script"], template, where)

    def dag(self, place: Place, where: str) -> None:
        graph = Graph.of(place.template["dag"].get("tasks") or [], where)
        for target in graph.targets(str(place.template["dag"].get("target") or "")):
            if target not in graph.tasks:
                self.fault(f"{where}: the target '{target}' is not a task here", "target")
        for name, task in graph.tasks.items():
            known = {each: graph.tasks[each] for each in graph.ancestors(name)}
            self.user(place, dict(task), f"{where}: task '{name}'", "tasks", known)
        self.outputs(place, where, "tasks", graph.tasks)

    def steps(self, place: Place, where: str) -> None:
        known: dict[str, Mapping[str, Any]] = {}
        for group in place.template["steps"]:
            steps = group.get("steps", []) if isinstance(group, dict) else group
            for step in steps:
                self.user(place, step, f"{where}: step '{step['name']}'", "steps", known)
            known |= {step["name"]: step for step in steps}
        self.outputs(place, where, "steps", known)

    def user(self, place: Place, user: Data, where: str, room: str, known: Mapping[str, Mapping[str, Any]]) -> None:
        body = {key: value for key, value in user.items() if key not in ("hooks", "inline")}
        self.guarded(lambda: self.references(body, place, where, room, known, fans_out(user)), "arguments")
        if not _dynamic(user):
            self.guarded(lambda: self.called(user, place, where), "template")
        hook = (user.get("hooks") or {}).get("exit") or ({"template": user["onExit"]} if user.get("onExit") else None)
        if hook and not _dynamic(hook):
            self.guarded(lambda: self.called(hook, place, f"{where}: exit hook"), "hooks.exit")

    def called(self, user: Mapping[str, Any], place: Place, where: str) -> None:
        callee = self.book.place(user, place.home, where)
        self.supplied(callee, user, where)
        self.visit(callee)

    def supplied(self, callee: Place, user: Mapping[str, Any], where: str) -> None:
        """Every input without a value of its own has an argument."""
        arguments = user.get("arguments") or {}
        declared = callee.template.get("inputs") or {}
        given = {p["name"] for p in arguments.get("parameters") or []}
        for parameter in declared.get("parameters") or []:
            if parameter["name"] not in given and parameter.get("value") is None and parameter.get("default") is None:
                hint = nearest(parameter["name"], given - {p["name"] for p in declared["parameters"]})
                self.fault(
                    f"{where}: template '{callee.name}' needs the argument '{parameter['name']}'"
                    + (f"; {hint}" if hint else ""),
                    "arguments",
                )
        given = {a["name"] for a in arguments.get("artifacts") or []}
        for artifact in declared.get("artifacts") or []:
            if artifact["name"] not in given and not artifact.get("optional") and "raw" not in artifact:
                self.fault(f"{where}: template '{callee.name}' needs the artifact '{artifact['name']}'", "arguments")

    def references(
        self, body: Data, place: Place, where: str, room: str, known: Mapping[str, Mapping[str, Any]], items: bool
    ) -> None:
        self.inputs_and_globals(body, place.template, where)
        for name in references(body):
            root, *rest = name.split(".")
            if root == "item" and not items:
                self.fault(f"{where}: {{{{{name}}}}} without withItems, withParam or withSequence", "arguments")
            if root in ("tasks", "steps") and root != room:
                self.fault(f"{where}: {{{{{name}}}}} does not exist in a template of {room}", "arguments")
            elif root == room and rest and rest != ["name"]:
                self.of_other(name, rest, place, where, known)

    def of_other(
        self, name: str, rest: list[str], place: Place, where: str, known: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """A reference to another task: one that is waited for, and to something that its template has."""
        other = rest[0]
        if other not in known:
            hint = nearest(other, known)
            self.fault(
                f"{where}: {{{{{name}}}}}: '{other}' is not a task or step that ends before"
                + (f"; {hint}" if hint else ""),
                "arguments",
            )
        elif (
            len(rest) > 3
            and rest[1] == "outputs"
            and rest[2] in ("parameters", "artifacts")
            and not _dynamic(known[other])
        ):
            callee = self.book.place(known[other], place.home, where)
            declared = [o["name"] for o in (callee.template.get("outputs") or {}).get(rest[2]) or []]
            if ".".join(rest[3:]) not in declared:
                hint = nearest(rest[3], declared)
                self.fault(
                    f"{where}: {{{{{name}}}}}: template '{callee.name}' has no output '{rest[3]}' among its {rest[2]}"
                    + (f"; {hint}" if hint else ""),
                    "arguments",
                )
        elif len(rest) > 2 and rest[1] == "outputs" and rest[2] == "result" and not _dynamic(known[other]):
            callee = self.book.place(known[other], place.home, where)
            if callee.kind != "script":
                self.fault(
                    f"{where}: {{{{{name}}}}}: template '{callee.name}' is no script and has no result", "arguments"
                )

    def inputs_and_globals(self, body: Any, template: Data, where: str) -> None:
        declared = template.get("inputs") or {}
        inputs = {f"{what}.{each['name']}" for what in ("parameters", "artifacts") for each in declared.get(what) or []}
        arguments = {p["name"] for p in (self.book.spec.get("arguments") or {}).get("parameters") or []}
        for name in references(body):
            root, *rest = name.split(".")
            if root == "inputs" and len(rest) > 1 and "{" not in name and ".".join(rest[:2]) not in inputs:
                self.fault(f"{where}: {{{{{name}}}}}: there is no such input", "inputs")
            if (
                root == "workflow"
                and rest[:1] == ["parameters"]
                and len(rest) > 1
                and rest[1] not in arguments | {"json"}
            ):
                hint = nearest(rest[1], arguments)
                self.fault(
                    f"{where}: {{{{{name}}}}}: there is no such workflow parameter" + (f"; {hint}" if hint else ""),
                    "arguments",
                )

    def outputs(self, place: Place, where: str, room: str, known: Mapping[str, Mapping[str, Any]]) -> None:
        """The outputs of a DAG or steps template come from its own tasks."""
        declared = place.template.get("outputs") or {}
        for parameter in declared.get("parameters") or []:
            source = parameter.get("valueFrom") or {}
            if not source.get("parameter") and not source.get("expression"):
                self.fault(
                    f"{where}: outputs.{parameter['name']}: a {room} output needs valueFrom.parameter", "outputs"
                )
            for name in [*references(str(source.get("parameter", ""))), *_names(source.get("expression"))]:
                root, *rest = name.split(".")
                if root == room and rest:
                    self.guarded(partial(self.of_other, name, rest, place, f"{where}: outputs", known), "outputs")
        for artifact in declared.get("artifacts") or []:
            for name in references(str(artifact.get("from", ""))):
                root, *rest = name.split(".")
                if root == room and rest:
                    self.guarded(partial(self.of_other, name, rest, place, f"{where}: outputs", known), "outputs")


def _names(expression: object) -> Iterator[str]:
    if expression:
        yield from paths(parse(str(expression)))


def _dynamic(user: Mapping[str, Any]) -> bool:
    """A template whose name is known only when it runs."""
    ref = user.get("templateRef") or {}
    return any("{{" in str(name) for name in (user.get("template"), ref.get("name"), ref.get("template")))


def _enums(io: Data, key: str, where: str, fault: Callable[[str, str], None]) -> None:
    for parameter in io.get("parameters") or []:
        allowed = [as_text(each) for each in parameter.get("enum") or []]
        for name in (key, "default"):
            value = parameter.get(name)
            if allowed and value is not None and "{{" not in as_text(value) and as_text(value) not in allowed:
                fault(
                    f"{where}.{parameter['name']}: the {name} '{as_text(value)}' is not in its enum "
                    f"({', '.join(allowed)})",
                    "enum",
                )
