"""What a DAG's tasks wait for: `dependencies` and `depends` as one logic, and the phase of the DAG from its leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiphys.errors import RehearsalError, nearest
from tiphys.rehearsal.expressions import ExpressionError, evaluate_bool
from tiphys.rehearsal.nodes import Node, Phase

Task = Mapping[str, Any]
RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
_TERM = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9_]*)(\.[A-Z][a-zA-Z]+)?")


@dataclass(frozen=True)
class Graph:
    """The tasks of a DAG with what each waits for.

    Raises RehearsalError for an unknown task, an unknown result, a cycle, or both `depends` and `dependencies`.
    """

    tasks: Mapping[str, Task]
    logic: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, tasks: list[Task], where: str) -> Graph:
        """The graph of a DAG template's tasks."""
        named = {str(task["name"]): task for task in tasks}
        if len(named) < len(tasks):
            raise RehearsalError(f"{where}: two tasks have one name", field="name")
        logic = {name: _logic(task, where) for name, task in named.items()}
        parents = {name: _parents(name, text, named, where) for name, text in logic.items()}
        graph = cls(named, {name: _expanded(text, named) for name, text in logic.items()}, parents)
        for name in named:
            graph.ancestors(name, where)
        return graph

    def ancestors(self, name: str, where: str = "") -> set[str]:
        """Every task that `name` waits for, directly or not."""
        found: set[str] = set()
        waiting = list(self.parents[name])
        while waiting:
            parent = waiting.pop()
            if parent == name:
                raise RehearsalError(f"{where}: task '{name}' waits for itself", field="depends")
            if parent not in found:
                found.add(parent)
                waiting += self.parents[parent]
        return found

    def targets(self, target: str) -> list[str]:
        """The tasks that have to end: those named, or those that no other waits for."""
        if target:
            return target.split()
        awaited = {parent for parents in self.parents.values() for parent in parents}
        return sorted(name for name in self.tasks if name not in awaited)

    def needed(self, targets: list[str]) -> list[str]:
        """The targets and all that they wait for, in the order in which they are written."""
        wanted = set(targets).union(*(self.ancestors(name) for name in targets))
        return [name for name in self.tasks if name in wanted]

    def may_run(self, name: str, results: Mapping[str, Node]) -> bool:
        """Whether a task runs, now that all it waits for has ended. Raises ExpressionError for broken logic."""
        if not self.logic[name]:
            return True
        text = _TERM.sub(lambda term: _variable(term[1]) + (term[2] or ""), self.logic[name])
        return evaluate_bool(text, {_variable(parent): task_results(results[parent]) for parent in self.parents[name]})

    def phase(self, targets: list[str], results: Mapping[str, Node], *, fail_fast: bool) -> Phase:
        """The phase of the DAG: a failure counts when no later task of its branch ended well."""
        phase: Phase = "Succeeded"
        for name in targets:
            branch = self._branch(name, results)
            if branch in ("Failed", "Error") and not continues_on(self.tasks[name], branch):
                phase = branch
                if fail_fast:
                    break
        return phase

    def _branch(self, name: str, results: Mapping[str, Node]) -> Phase:
        """A task's own phase when it ran; else the worst of those that it waited for."""
        if results[name].completed:
            return results[name].phase
        inherited = [self._branch(parent, results) for parent in self.parents[name]]
        return next((phase for phase in inherited if phase in ("Failed", "Error")), "Succeeded")


def task_results(node: Node) -> dict[str, bool]:
    """What `depends` may ask of a task that has ended."""
    items = node.children if node.kind == "TaskGroup" else ()
    return {
        "Succeeded": node.phase == "Succeeded", "Failed": node.phase == "Failed", "Errored": node.phase == "Error",
        "Skipped": node.phase == "Skipped", "Omitted": node.phase == "Omitted", "Daemoned": False,
        "AnySucceeded": any(item.phase == "Succeeded" for item in items),
        "AllFailed": bool(items) and all(item.phase == "Failed" for item in items),
    }  # fmt: skip


def continues_on(user: Task, phase: str) -> bool:
    """Whether `continueOn` lets the rest go on after this phase."""
    rule = user.get("continueOn") or {}
    return bool((phase == "Error" and rule.get("error")) or (phase == "Failed" and rule.get("failed")))


def _logic(task: Task, where: str) -> str:
    if task.get("depends") and task.get("dependencies"):
        raise RehearsalError(f"{where}: task '{task['name']}' has both depends and dependencies", field="depends")
    return str(task.get("depends") or " && ".join(task.get("dependencies") or []))


def _parents(name: str, text: str, tasks: Mapping[str, Task], where: str) -> tuple[str, ...]:
    parents: list[str] = []
    for parent, result in _TERM.findall(text):
        if parent not in tasks:
            hint = nearest(parent, tasks)
            raise RehearsalError(
                f"{where}: task '{name}' depends on '{parent}', which is not a task here"
                + (f"; {hint}" if hint else ""),
                field="depends",
            )
        if result and result[1:] not in RESULTS:
            raise RehearsalError(
                f"{where}: task '{name}': '{parent}{result}' is no result of a task ({', '.join(RESULTS)})",
                field="depends",
            )
        parents += [parent] if parent not in parents else []
    return tuple(parents)


def _expanded(text: str, tasks: Mapping[str, Task]) -> str:
    """A bare task name means that it succeeded, was skipped, or ended in a way that it says may be continued on."""

    def expand(term: re.Match[str]) -> str:
        if term[2]:
            return term[0]
        wanted = ["Succeeded", "Skipped", "Daemoned"]
        wanted += [
            result
            for result, phase in (("Errored", "Error"), ("Failed", "Failed"))
            if continues_on(tasks[term[1]], phase)
        ]
        return "(" + " || ".join(f"{term[1]}.{result}" for result in wanted) + ")"

    return _TERM.sub(expand, text)


def _variable(task: str) -> str:
    return "task_" + task.replace("-", "_")


__all__ = ["RESULTS", "ExpressionError", "Graph", "continues_on", "task_results"]
