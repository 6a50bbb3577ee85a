"""What the rehearsal does with each construct of a workflow, as claims about Argo's own rules."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hera.workflows import DAG, Parameter, RetryStrategy, Step, Steps, Suspend, Task, Workflow, WorkflowTemplate
from hera.workflows import models as m

from tests import rehearsal_scripts as scripts
from tiphys.errors import Infeasible, InputError, RehearsalError
from tiphys.rehearsal import (
    Clock,
    Event,
    Gate,
    NodeFinished,
    NodeRetried,
    NodeStarted,
    Outcome,
    Subprocess,
    check,
    rehearse,
    say_yes,
    take_defaults,
)


class Fake(Clock):
    """A clock that goes on only by sleeping."""

    def __init__(self) -> None:
        self.at, self.slept = 1_000.0, list[float]()

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    scripts.CALLS.clear()
    yield


def leaf(name: str, function: str, *inputs: str, outputs: tuple[str, ...] = ("text",), **more: Any) -> dict[str, Any]:
    """A Hera runner template as plain data; an input `a=b` has a default, an output `a=b` a `valueFrom.default`."""
    template: dict[str, Any] = {
        "name": name,
        "inputs": {"parameters": [_pair(each, "default") for each in inputs]},
        "outputs": {"parameters": [{"name": o.split("=")[0], "valueFrom": _source(o)} for o in outputs]},
        "script": {
            "image": "tiphys",
            "command": ["python"],
            "args": ["-m", "hera.workflows.runner", "-e", f"tests.rehearsal_scripts:{function}"],
            "source": "{{inputs.parameters}}",
        },
    }
    return template | more


def _pair(text: str, key: str) -> dict[str, str]:
    name, has, value = text.partition("=")
    return {"name": name, key: value} if has else {"name": name}


def _source(text: str) -> dict[str, str]:
    name, has, value = text.partition("=")
    return {"path": f"/tmp/hera-outputs/parameters/{name}"} | ({"default": value} if has else {})


def task(
    name: str, template: str, depends: str = "", arguments: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    parameters = [{"name": key, "value": value} for key, value in (arguments or {}).items()]
    made = {"name": name, "template": template, "arguments": {"parameters": parameters}} | more
    return made | ({"depends": depends} if depends else {})


KEEP = leaf("keep", "keep", "text")
KEEP_DEFAULT = leaf("keep-default", "keep_default", "text", outputs=("text=by default",))
FAIL = leaf("fail", "fail", "text=broken")
LEAVE = leaf("leave", "leave", "code")
FAIL_IF_B = leaf("fail-if-b", "fail_if_b", "text")


def workflow(
    tasks: list[dict[str, Any]], *templates: dict[str, Any], dag: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    known = {t["name"]: t for t in (KEEP, KEEP_DEFAULT, FAIL, LEAVE, FAIL_IF_B, *templates)}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "wf"},
        "spec": {
            "entrypoint": "main",
            "templates": [{"name": "main", "dag": {"tasks": tasks} | (dag or {})}, *known.values()],
            **spec,
        },
    }


def act(
    tasks: list[dict[str, Any]], *templates: dict[str, Any], dag: dict[str, Any] | None = None, **spec: Any
) -> Outcome:
    return rehearse(workflow(tasks, *templates, dag=dag, **spec), clock=Fake())


def text_of(outcome: Outcome, name: str) -> str:
    outputs = outcome.node(name).outputs
    assert outputs is not None
    return outputs.parameters["text"]


# ---- a whole workflow, as Hera builds it


def hera_workflow() -> WorkflowTemplate:
    with WorkflowTemplate(
        name="whole", entrypoint="main", arguments=[Parameter(name="rates", value="[1, 2.5]")], on_exit="bye"
    ) as built:
        with DAG(
            name="main",
            outputs=[
                Parameter(name="best", value_from=m.ValueFrom(parameter="{{tasks.pick.outputs.parameters.best}}"))
            ],
        ):
            p = scripts.plan(arguments={"rates": "{{workflow.parameters.rates}}"})
            b = scripts.bench(
                with_param=p.get_parameter("cases"),
                arguments=[Parameter(name="case", value="{{item}}"), p.get_artifact("plan")],
            )
            k = scripts.pick(arguments={"reports": b.get_parameter("report")})
            p >> b >> k
        with DAG(name="bye"):
            scripts.keep(arguments={"text": "{{workflow.status}}"})
    return built


def test_a_hera_workflow_with_models_artifacts_fan_out_and_fan_in_runs_in_this_process() -> None:
    outcome = rehearse(hera_workflow(), {"rates": "[1, 4]"})
    assert (outcome.phase, outcome.outputs) == ("Succeeded", {"best": "40.0"})
    assert scripts.CALLS == ["Succeeded"]


def test_the_same_workflow_through_heras_own_runner_in_processes_ends_alike(tmp_path: Path) -> None:
    alone = rehearse(hera_workflow())
    apart = rehearse(hera_workflow(), runner=Subprocess(), folder=tmp_path)
    assert [(n.name, n.phase, n.kind) for n in apart.nodes] == [(n.name, n.phase, n.kind) for n in alone.nodes]
    assert [n.outputs.parameters for n in apart.nodes if n.outputs] == [
        n.outputs.parameters for n in alone.nodes if n.outputs
    ]


def test_a_built_model_is_as_good_as_the_workflow() -> None:
    assert rehearse(hera_workflow().build()).outputs == {"best": "25.0"}


def test_items_of_a_fan_out_may_run_side_by_side_and_still_come_in_order() -> None:
    assert rehearse(hera_workflow(), {"rates": "[5, 1, 3]"}, workers=3).outputs == {"best": "50.0"}


# ---- depends


@pytest.mark.parametrize(
    ("depends", "phase"),
    [
        ("ok", "Succeeded"),
        ("bad", "Omitted"),
        ("bad.Failed", "Succeeded"),
        ("ok.Failed", "Omitted"),
        ("ok && bad.Failed", "Succeeded"),
        ("ok.Failed || bad.Failed", "Succeeded"),
        ("!bad.Succeeded", "Succeeded"),
        ("!(ok && bad.Failed)", "Omitted"),
        ("odd.Skipped", "Succeeded"),
        ("odd", "Succeeded"),
        ("odd.Succeeded", "Omitted"),
        ("late.Omitted", "Succeeded"),
        ("late", "Omitted"),
        ("broken-one.Errored", "Succeeded"),
        ("broken-one.Failed", "Omitted"),
        ("many.AnySucceeded", "Succeeded"),
        ("many.AllFailed", "Omitted"),
        ("many", "Omitted"),
        ("(ok || bad) && odd && !late.Daemoned", "Succeeded"),
    ],
)
def test_depends_is_understood_in_full(depends: str, phase: str) -> None:
    outcome = act(
        [
            task("ok", "keep", arguments={"text": "1"}),
            task("bad", "fail"),
            task("odd", "keep", arguments={"text": "2"}, when="a == b"),
            task("late", "keep", "bad", arguments={"text": "3"}),
            task("broken-one", "forgetful"),
            task("many", "fail-if-b", arguments={"text": "{{item}}"}, withItems=["a", "b"]),
            task("last", "keep", depends, arguments={"text": "last"}),
        ],
        leaf("forgetful", "forgetful"),
    )
    assert outcome.node("last").phase == phase


def test_dependencies_mean_success_or_a_skip() -> None:
    outcome = act(
        [
            task("a", "keep", arguments={"text": "a"}, when="1 == 2"),
            task("b", "keep", arguments={"text": "b"}, dependencies=["a"]),
        ]
    )
    assert outcome.phases() == {"a": "Skipped", "b": "Succeeded", "wf": "Succeeded"}


def test_a_dag_fails_by_its_leaves_and_a_branch_that_ends_well_is_forgiven() -> None:
    handled = act([task("a", "fail"), task("b", "keep", "a.Failed", {"text": "b"})])
    unhandled = act([task("a", "fail"), task("b", "keep", "a", {"text": "b"})])
    assert (handled.phase, unhandled.phase) == ("Succeeded", "Failed")
    assert unhandled.message.startswith("a: main: Error (exit code 1): ValueError: broken")


def test_a_failure_does_not_stop_other_branches() -> None:
    act([task("a", "fail"), task("b", "keep", arguments={"text": "b"}), task("c", "keep", "b", {"text": "c"})])
    assert scripts.CALLS == ["fail broken", "b", "c"]


def test_a_template_that_fails_fast_starts_nothing_after_a_failure() -> None:
    data = workflow([task("a", "fail"), task("b", "keep", "a.Failed", {"text": "b"})])
    data["spec"]["templates"][0]["failFast"] = True
    outcome = rehearse(data)
    assert (outcome.phase, scripts.CALLS) == ("Failed", ["fail broken"])


def test_a_target_runs_itself_and_what_it_waits_for_and_nothing_else() -> None:
    tasks = [task(n, "keep", d, {"text": n}) for n, d in (("a", ""), ("b", "a"), ("c", "b"))]
    act(tasks, dag={"target": "b"})
    assert scripts.CALLS == ["a", "b"]


def test_continue_on_lets_the_rest_go_on_and_the_dag_succeed() -> None:
    outcome = act(
        [task("a", "fail", continueOn={"failed": True}), task("b", "keep", arguments={"text": "b"}, dependencies=["a"])]
    )
    alone = act([task("a", "fail", continueOn={"failed": True})])
    assert (outcome.phase, alone.phase, outcome.node("a").phase) == ("Succeeded", "Succeeded", "Failed")


# ---- when


@pytest.mark.parametrize(
    ("when", "phase"),
    [
        ("{{workflow.parameters.p}} == x", "Succeeded"),
        ("{{workflow.parameters.p}} != x", "Skipped"),
        ("{{workflow.parameters.n}} > 3", "Succeeded"),
        ("{{workflow.parameters.n}} >= 11", "Skipped"),
        ("'{{workflow.parameters.p}}' == 'x' && {{workflow.parameters.n}} < 11", "Succeeded"),
        ("{{workflow.parameters.p}} == y || {{workflow.parameters.n}} == 10", "Succeeded"),
        ("!({{workflow.parameters.p}} == x)", "Skipped"),
        ("true == true", "Succeeded"),
        ("{{workflow.parameters.p}} in (a, x)", "Succeeded"),
        ("{{workflow.parameters.p}} =~ '^x$'", "Succeeded"),
        ("{{= asInt(workflow.parameters.n) * 2 == 20 }}", "Succeeded"),
        ("{{= workflow.parameters.p == 'x' ? 'true' : 'false' }} == false", "Skipped"),
        ("{{workflow.parameters.p}} == ", "Error"),
        ("{{workflow.parameters.p}}", "Error"),
        ("{{workflow.parameters.dashed}} == a-b", "Error"),
        ("{{workflow.parameters.p}} < 3", "Error"),
    ],
)
def test_when_compares_as_argo_does(when: str, phase: str) -> None:
    parameters = [{"name": "p", "value": "x"}, {"name": "n", "value": "10"}, {"name": "dashed", "value": "a-b"}]
    outcome = act([task("a", "keep", arguments={"text": "a"}, when=when)], arguments={"parameters": parameters})
    assert outcome.node("a").phase == phase


# ---- items


@pytest.mark.parametrize(
    ("items", "value", "calls"),
    [
        ({"withItems": ["a", "b c"]}, "{{item}}", ["a", "b c"]),
        ({"withItems": [1, 2.5, True]}, "{{item}}", ["1", "2.5", "true"]),
        ({"withItems": [{"k": "v", "n": 3}]}, "{{item.k}}/{{item.n}}", ["v/3"]),
        ({"withItems": [{"n": 3, "k": "v"}]}, "{{item}}", ['{"k":"v","n":3}']),
        ({"withItems": [[1, 2]]}, "{{item}}", ["[1,2]"]),
        ({"withParam": '["x", 1.50, {"y": [2]}]'}, "{{item}}", ["x", "1.50", '{"y":[2]}']),
        ({"withSequence": {"count": "3"}}, "{{item}}", ["0", "1", "2"]),
        ({"withSequence": {"start": "3", "end": "1", "format": "n%02d"}}, "{{item}}", ["n03", "n02", "n01"]),
        ({"withSequence": {"count": "0"}}, "{{item}}", []),
    ],
)
def test_items_are_text_as_argo_makes_it(items: dict[str, Any], value: str, calls: list[str]) -> None:
    act([task("a", "keep", arguments={"text": value}, **items)])
    assert calls == scripts.CALLS


def test_items_are_named_by_number_and_value() -> None:
    outcome = act([task("a", "keep", arguments={"text": "{{item.k}}"}, withItems=[{"k": "v", "j": "(w)"}])])
    assert [node.name for node in outcome.nodes] == ["wf.a(0:j:w,k:v)", "wf.a", "wf"]


def test_fan_in_is_a_json_list_of_texts_or_of_values() -> None:
    outcome = act(
        [
            task("plain", "keep", arguments={"text": "{{item}}"}, withItems=["1", "x"]),
            task("maps", "keep", arguments={"text": '{"v": {{item}}}'}, withItems=[1, 2]),
            task(
                "last",
                "keep",
                "plain && maps",
                {"text": "{{tasks.plain.outputs.parameters.text}} {{tasks.maps.outputs.parameters.text}}"},
            ),
            task("all", "keep", "plain", {"text": "{{tasks.plain.outputs.parameters}}"}),
        ]
    )
    assert text_of(outcome, "last") == '["1", "x"] [{"v": 1}, {"v": 2}]'
    assert json.loads(text_of(outcome, "all")) == [{"text": "1"}, {"text": "x"}]


def test_one_failed_item_fails_the_fan_out_and_only_the_others_are_handed_on() -> None:
    outcome = act(
        [
            task("many", "fail-if-b", arguments={"text": "{{item}}"}, withItems=["a", "b", "c"]),
            task("last", "keep", "many.AnySucceeded", {"text": "{{tasks.many.outputs.parameters.text}}"}),
        ]
    )
    assert (outcome.node("many").phase, text_of(outcome, "last")) == ("Failed", '["a", "c"]')


def test_an_empty_list_skips_and_a_when_may_speak_of_the_item() -> None:
    outcome = act(
        [
            task("none", "keep", arguments={"text": "{{item}}"}, withParam="[]"),
            task("some", "keep", arguments={"text": "{{item}}"}, withItems=["a", "b"], when="{{item}} == b"),
        ]
    )
    assert (outcome.node("none").phase, scripts.CALLS) == ("Skipped", ["b"])
    assert outcome.node("some(0:a)").phase == "Skipped"


def test_with_param_that_is_no_list_is_an_error() -> None:
    outcome = act([task("a", "keep", arguments={"text": "{{item}}"}, withParam="nonsense")])
    assert outcome.node("a").phase == "Error"
    assert "could not be parsed as a JSON list" in outcome.node("a").message


# ---- outputs


def test_an_exit_without_a_declared_output_is_an_error_that_has_no_exit_code() -> None:
    outcome = act([task("a", "forgetful")], leaf("forgetful", "forgetful"))
    node = outcome.node("a")
    assert (node.phase, node.message) == (
        "Error",
        "wait: Error (exit code 64): no such file: /tmp/hera-outputs/parameters/text",
    )
    assert node.outputs is not None and node.outputs.exit_code is None


def test_a_declared_default_stands_in_for_a_file_that_was_not_written() -> None:
    outcome = act([task("a", "forgetful")], leaf("forgetful", "forgetful", outputs=("text=nothing",)))
    assert text_of(outcome, "a") == "nothing"


def test_another_path_than_heras_own_gives_the_default_even_on_success() -> None:
    template = leaf("elsewhere", "keep", "text", outputs=())
    template["outputs"] = {
        "parameters": [{"name": "text", "valueFrom": {"path": "/tmp/elsewhere", "default": "default"}}]
    }
    assert text_of(act([task("a", "elsewhere", arguments={"text": "a"})], template), "a") == "default"


def test_the_output_of_a_skipped_task_is_the_producers_default() -> None:
    outcome = act(
        [
            task("a", "keep-default", arguments={"text": "a"}, when="a == b"),
            task("b", "keep", "a", {"text": "<{{tasks.a.outputs.parameters.text}}>"}),
        ]
    )
    assert text_of(outcome, "b") == "<by default>"


def test_without_one_it_is_the_consumers_default_but_only_for_a_plain_reference() -> None:
    skipped = task("a", "keep", arguments={"text": "a"}, when="a == b")
    consumer = leaf("consumer", "keep", "text=consumers own")
    plain = act([skipped, task("b", "consumer", "a", {"text": "{{tasks.a.outputs.parameters.text}}"})], consumer)
    mixed = act([skipped, task("b", "consumer", "a", {"text": "x{{tasks.a.outputs.parameters.text}}"})], consumer)
    assert text_of(plain, "b") == "consumers own"
    assert (mixed.node("b").phase, mixed.phase) == ("Error", "Error")
    assert "absent optional" in mixed.node("b").message


def test_without_any_default_the_consumer_and_even_its_when_are_errors() -> None:
    skipped = task("a", "keep", arguments={"text": "a"}, when="a == b")
    plain = act([skipped, task("b", "keep", "a", {"text": "{{tasks.a.outputs.parameters.text}}"})])
    when = act([skipped, task("b", "keep", "a", {"text": "b"}, when="{{tasks.a.outputs.parameters.text}} == yes")])
    rescued = act([skipped, task("b", "keep", "a", {"text": "{{= tasks.a.outputs.parameters.text ?? 'rescued' }}"})])
    assert (plain.node("b").phase, when.node("b").phase) == ("Error", "Error")
    assert text_of(rescued, "b") == "rescued"


def test_the_result_is_what_was_printed_and_a_falsy_return_prints_nothing() -> None:
    outcome = act(
        [
            task("a", "said", arguments={"text": "hello"}),
            task("b", "keep", "a", {"text": "{{tasks.a.outputs.result}}!"}),
            task("c", "said", arguments={"text": ""}),
        ],
        leaf("said", "said", "text", outputs=()),
    )
    assert text_of(outcome, "b") == "saying hello\nhello!"
    assert outcome.node("c").outputs is not None and outcome.node("c").outputs.result == "saying "


def test_artifacts_and_outputs_that_a_function_writes_itself_are_handed_on() -> None:
    with Workflow(name="wf", entrypoint="main") as built, DAG(name="main"):
        w = scripts.writes_itself(arguments={"text": "abc"})
        r = scripts.reads(arguments=[w.get_artifact("log")])
        w >> r
    outcome = rehearse(built)
    node = outcome.node("writes-itself")
    assert node.outputs is not None and node.outputs.parameters == {"to": "ABC"}
    assert text_of(outcome, "reads") == "log of abc"


def test_an_output_with_an_exit_code_fails_and_keeps_its_outputs() -> None:
    outcome = act([task("a", "coded", arguments={"code": "3"})], leaf("coded", "coded", "code"))
    assert (outcome.node("a").phase, text_of(outcome, "a")) == ("Failed", "kept")


def test_outputs_exported_by_name_are_known_to_the_whole_workflow() -> None:
    exporting = leaf("exporting", "keep", "text")
    exporting["outputs"]["parameters"][0]["globalName"] = "shared"
    inner = {
        "name": "inner",
        "dag": {"tasks": [task("x", "keep", arguments={"text": "{{workflow.outputs.parameters.shared}}"})]},
    }
    outcome = act([task("a", "exporting", arguments={"text": "v"}), task("b", "inner", "a")], exporting, inner)
    assert (outcome.outputs, text_of(outcome, "x")) == ({"shared": "v"}, "v")


# ---- retries


def test_an_attempt_follows_a_failure_until_the_limit_with_a_growing_pause() -> None:
    clock = Fake()
    strategy = {"limit": "3", "retryPolicy": "Always", "backoff": {"duration": "5s", "factor": "2", "cap": "15"}}
    outcome = rehearse(
        workflow([task("a", "fails")], leaf("fails", "fail", "text=x", retryStrategy=strategy)), clock=clock
    )
    assert clock.slept == [5, 10, 15]
    assert (outcome.node("a").phase, outcome.node("a").kind, len(outcome.node("a").children)) == ("Failed", "Retry", 4)
    assert outcome.node("a").message.startswith("No more retries left")


def test_retries_are_numbered_and_the_first_success_ends_them() -> None:
    template = leaf(
        "third", "works_the_third_time", "attempt={{retries}}", outputs=("attempt",), retryStrategy={"limit": "5"}
    )
    outcome = act([task("a", "third")], template)
    assert scripts.CALLS == ["attempt 0", "attempt 1", "attempt 2"]
    assert outcome.node("a").outputs is not None and outcome.node("a").outputs.parameters == {"attempt": "2"}


@pytest.mark.parametrize(("code", "calls"), [(3, 1), (2, 1), (7, 3)])
def test_an_expression_keeps_some_exit_codes_from_being_retried(code: int, calls: int) -> None:
    strategy = {"limit": 2, "expression": "asInt(lastRetry.exitCode) != 3 && lastRetry.exitCode != '2'"}
    outcome = act(
        [task("a", "leaves", arguments={"code": str(code)})], leaf("leaves", "leave", "code", retryStrategy=strategy)
    )
    assert [f"leave {code}"] * calls == scripts.CALLS
    assert (outcome.phase, outcome.node("a").outputs.exit_code) == ("Failed", code)  # type: ignore[union-attr]


def test_an_error_is_retried_only_where_the_policy_says_so() -> None:
    def calls(policy: str) -> int:
        scripts.CALLS.clear()
        act([task("a", "f")], leaf("f", "forgetful", retryStrategy={"limit": "1", "retryPolicy": policy}))
        return len(scripts.CALLS)

    assert [calls(p) for p in ("Always", "OnError", "OnFailure", "OnTransientError")] == [2, 2, 1, 1]


def test_no_attempt_begins_that_would_pass_the_longest_duration() -> None:
    clock = Fake()
    strategy = {"limit": "9", "backoff": {"duration": "10", "maxDuration": "25s"}}
    rehearse(workflow([task("a", "fails")], leaf("fails", "fail", "text=x", retryStrategy=strategy)), clock=clock)
    assert clock.slept == [10, 10]


def test_a_nested_dag_is_retried_as_a_whole() -> None:
    inner = {
        "name": "inner",
        "retryStrategy": {"limit": "1"},
        "dag": {"tasks": [task("x", "keep", arguments={"text": "x"}), task("y", "fail", "x")]},
    }
    act([task("a", "inner")], inner)
    assert scripts.CALLS == ["x", "fail broken"] * 2


# ---- steps, nesting, references to other workflows


def test_steps_run_group_after_group_and_hand_on_their_outputs() -> None:
    with Workflow(name="wf", entrypoint="main") as built:
        keep = scripts.keep
        with Steps(name="main") as steps:
            keep(name="a", arguments={"text": "a"})
            with steps.parallel():
                keep(name="b", arguments={"text": "{{steps.a.outputs.parameters.text}}b"})
                Step(name="c", template="keep", arguments={"text": "{{item}}"}, with_items=["x", "y"])
            keep(name="d", arguments={"text": "{{steps.c.outputs.parameters.text}} {{steps.b.status}}"})
    outcome = rehearse(built)
    assert text_of(outcome, "d") == '["x", "y"] Succeeded'
    assert [n.name for n in outcome.nodes if n.kind == "StepGroup"] == ["wf[0]", "wf[1]", "wf[2]"]


def test_a_failed_group_ends_the_steps_unless_it_is_continued_on() -> None:
    def steps(**more: Any) -> Outcome:
        main = {"name": "steps", "steps": [[task("a", "fail", **more)], [task("b", "keep", arguments={"text": "b"})]]}
        return act([task("inner", "steps")], main)

    assert (steps().phase, scripts.CALLS) == ("Failed", ["fail broken"])
    assert steps(continueOn={"failed": True}).node("b").phase == "Succeeded"


def test_a_nested_dag_takes_arguments_and_gives_outputs() -> None:
    inner = {
        "name": "inner",
        "inputs": {"parameters": [{"name": "who"}]},
        "outputs": {
            "parameters": [
                {"name": "text", "valueFrom": {"parameter": "{{tasks.x.outputs.parameters.text}}"}},
                {"name": "sum", "valueFrom": {"expression": "tasks.x.outputs.parameters.text + '!'"}},
                {"name": "none", "valueFrom": {"parameter": "{{tasks.y.outputs.parameters.text}}", "default": "-"}},
            ]
        },
        "dag": {
            "tasks": [
                task("x", "keep", arguments={"text": "hi {{inputs.parameters.who}}"}),
                task("y", "keep", arguments={"text": ""}, when="{{inputs.parameters.who}} == nobody"),
            ]
        },
    }
    outcome = act([task("a", "inner", arguments={"who": "you"})], inner)
    outputs = outcome.node("a").outputs
    assert outputs is not None and outputs.parameters == {"text": "hi you", "sum": "hi you!", "none": "-"}


def test_a_template_of_another_workflow_is_found_among_those_handed_over() -> None:
    other = workflow([], KEEP) | {"kind": "WorkflowTemplate", "metadata": {"name": "shared"}}
    ref = {
        "templateRef": {"name": "shared", "template": "keep"},
        "arguments": {"parameters": [{"name": "text", "value": "far"}]},
    }
    data = workflow([{"name": "a", **ref}])
    assert text_of(rehearse(data, templates=[other]), "a") == "far"
    with pytest.raises(RehearsalError, match="no workflow template 'shared'"):
        rehearse(data)


def test_a_workflow_may_be_another_ones_template_with_arguments_of_its_own() -> None:
    template = workflow(
        [task("a", "keep", arguments={"text": "{{workflow.parameters.p}}"})],
        arguments={"parameters": [{"name": "p", "value": "1"}]},
    ) | {"kind": "WorkflowTemplate", "metadata": {"name": "base"}}
    spec = {"workflowTemplateRef": {"name": "base"}, "arguments": {"parameters": [{"name": "p", "value": "2"}]}}
    cron = {
        "kind": "CronWorkflow",
        "metadata": {"name": "nightly"},
        "spec": {"schedules": ["0 3 * * *"], "workflowSpec": spec},
    }
    assert text_of(rehearse(cron, templates=[template]), "a") == "2"


# ---- gates


def gate() -> Workflow:
    with Workflow(name="wf", entrypoint="main") as built:
        Suspend(
            name="ask",
            intermediate_parameters=[Parameter(name="approve", default="NO", enum=["YES", "NO"], description="go?")],
        )
        with DAG(name="main"):
            g = Task(name="gate", template="ask")
            k = scripts.keep(
                arguments={"text": "{{tasks.gate.outputs.parameters.approve}}"},
                when="{{tasks.gate.outputs.parameters.approve}} == YES",
            )
            g >> k
    return built


def test_a_gate_asks_and_what_follows_obeys_the_answer() -> None:
    asked: list[Gate] = []

    def answer(gate: Gate) -> dict[str, str]:
        asked.append(gate)
        return {"approve": "YES"}

    assert rehearse(gate(), answer=answer).node("keep").phase == "Succeeded"
    assert [(q.name, q.default, q.enum, q.description) for q in asked[0].parameters] == [
        ("approve", "NO", ("YES", "NO"), "go?")
    ]
    assert rehearse(gate(), answer=say_yes).node("keep").phase == "Succeeded"


def test_a_careless_resume_takes_the_default() -> None:
    assert rehearse(gate(), answer=take_defaults).node("keep").phase == "Skipped"


def test_a_gate_that_nobody_answers_is_named_and_a_wrong_answer_refused() -> None:
    with pytest.raises(RehearsalError, match=r"the gate 'wf.gate' waits for approve"):
        rehearse(gate())
    with pytest.raises(InputError, match="allowed: YES, NO"):
        rehearse(gate(), answer=lambda gate: {"approve": "maybe"})


def test_a_gate_with_a_duration_resumes_by_itself() -> None:
    clock = Fake()
    data = workflow(
        [task("wait", "pause"), task("a", "keep", "wait", {"text": "a"})],
        {"name": "pause", "suspend": {"duration": "1m30s"}},
    )
    assert (rehearse(data, clock=clock).phase, clock.slept) == ("Succeeded", [90])


# ---- deadlines


@pytest.mark.parametrize("runner", [None, Subprocess()])
@pytest.mark.parametrize("limit", [{"activeDeadlineSeconds": 1}, {"timeout": "1s"}])
def test_a_script_that_takes_too_long_is_ended_and_failed(runner: Subprocess | None, limit: dict[str, Any]) -> None:
    data = workflow(
        [task("a", "dawdle", arguments={"seconds": "30"})], leaf("dawdle", "dawdle", "seconds", outputs=(), **limit)
    )
    node = rehearse(data, runner=runner).node("a")
    assert (node.phase, node.message) == ("Failed", "Pod was active on the node longer than the specified deadline")
    assert node.seconds < 20


def test_after_the_workflows_deadline_nothing_starts_but_the_exit_handler() -> None:
    data = workflow(
        [task("wait", "pause"), task("a", "keep", "wait", {"text": "a"})],
        {"name": "pause", "suspend": {"duration": "60"}},
        {"name": "bye", "dag": {"tasks": [task("b", "keep", arguments={"text": "{{workflow.status}}"})]}},
        activeDeadlineSeconds=30,
        onExit="bye",
    )
    outcome = rehearse(data, clock=Fake())
    assert (outcome.phase, scripts.CALLS) == ("Failed", ["Failed"])


# ---- the exit handler


def leaving(tasks: list[dict[str, Any]], text: str, template: str = "keep") -> dict[str, Any]:
    return workflow(
        tasks, {"name": "bye", "dag": {"tasks": [task("b", template, arguments={"text": text})]}}, onExit="bye"
    )


def test_the_exit_handler_knows_how_it_ended_and_the_failures_are_doubly_encoded() -> None:
    rehearse(leaving([task("a", "fail")], "{{workflow.status}} {{workflow.failures}}"))
    status, _, failures = scripts.CALLS[-1].partition(" ")
    first = json.loads(json.loads(failures))[0]
    assert (status, first["displayName"], first["templateName"], first["phase"]) == ("Failed", "a", "fail", "Failed")
    assert first["message"] == "main: Error (exit code 1): ValueError: broken"


def test_a_failing_exit_handler_fails_a_workflow_that_had_succeeded() -> None:
    outcome = rehearse(leaving([task("a", "keep", arguments={"text": "a"})], "x", "fail"))
    assert outcome.phase == "Failed"


def test_an_interrupt_runs_the_exit_handler_and_goes_on() -> None:
    data = leaving([task("a", "stop")], "{{workflow.status}}")
    data["spec"]["templates"].append(leaf("stop", "interrupted", outputs=()))
    with pytest.raises(KeyboardInterrupt):
        rehearse(data)
    assert scripts.CALLS == ["Failed"]


def test_a_task_may_have_an_exit_hook_that_changes_nothing_else() -> None:
    hook = {
        "template": "keep",
        "expression": "tasks.a.status == 'Failed'",
        "arguments": {"parameters": [{"name": "text", "value": "{{tasks.a.status}}"}]},
    }
    act([task("a", "fail", hooks={"exit": hook}), task("b", "keep", "a.Failed", {"text": "b"})])
    assert scripts.CALLS == ["fail broken", "Failed", "b"]


# ---- errors keep their exit code


def test_the_error_of_a_step_can_be_raised_again_with_its_exit_code() -> None:
    outcome = act([task("a", "none")], leaf("none", "infeasible"))
    assert outcome.node("a").outputs.exit_code == 3  # type: ignore[union-attr]
    with pytest.raises(Infeasible, match="no policy met the SLO"):
        outcome.raise_failure()


def test_a_step_in_a_process_leaves_its_exit_code_too() -> None:
    outcome = rehearse(workflow([task("a", "leave", arguments={"code": "3"})]), runner=Subprocess())
    with pytest.raises(Exception, match="exit code 3") as raised:
        outcome.raise_failure()
    assert raised.value.exit_code == 3  # type: ignore[attr-defined]


# ---- arguments


def test_arguments_are_checked_against_the_workflows_own_enum() -> None:
    parameters = [{"name": "platform", "value": "twin", "enum": ["twin", "cluster"]}, {"name": "trials"}]
    data = workflow(
        [task("a", "keep", arguments={"text": "{{workflow.parameters.platform}}"})],
        arguments={"parameters": parameters},
    )
    assert text_of(rehearse(data, {"platform": "cluster", "trials": 3}), "a") == "cluster"
    with pytest.raises(InputError, match="found 'moon'; allowed: twin, cluster"):
        rehearse(data, {"platform": "moon", "trials": 3})
    with pytest.raises(InputError, match=r"arguments.parameters.trials: has no value"):
        rehearse(data)
    with pytest.raises(InputError, match="did you mean 'trials'"):
        rehearse(data, {"trial": 3})


# ---- scripts that are not Hera's, environment, events


def test_an_inline_script_runs_with_the_python_at_hand() -> None:
    template = {
        "name": "inline",
        "inputs": {"parameters": [{"name": "n"}]},
        "script": {"image": "python", "command": ["python"], "source": "print(int('{{inputs.parameters.n}}') * 2)"},
    }
    outcome = act(
        [task("a", "inline", arguments={"n": "21"}), task("b", "keep", "a", {"text": "{{tasks.a.outputs.result}}"})],
        template,
    )
    assert text_of(outcome, "b") == "42"


@pytest.mark.parametrize("runner", [None, Subprocess()])
def test_a_scripts_environment_is_set_for_it_alone(runner: Subprocess | None) -> None:
    template = leaf("env", "environment", "name")
    template["script"]["env"] = [{"name": "REHEARSED", "value": "{{inputs.parameters.name}}!"}]
    data = workflow(
        [task("a", "env", arguments={"name": "REHEARSED"}), task("b", "plain", "a", {"name": "REHEARSED"})],
        template,
        leaf("plain", "environment", "name"),
    )
    outcome = rehearse(data, runner=runner)
    assert (text_of(outcome, "a"), text_of(outcome, "b")) == ("REHEARSED!", "")


def test_events_tell_the_story_in_order() -> None:
    told: list[Event] = []
    rehearse(
        workflow([task("a", "f")], leaf("f", "fail", "text=x", retryStrategy={"limit": "1"})), on_event=told.append
    )
    story = [
        (type(e).__name__, e.name if isinstance(e, NodeStarted | NodeRetried) else e.node.name)
        for e in told
        if isinstance(e, NodeStarted | NodeFinished | NodeRetried)
    ]
    assert story == [
        ("NodeStarted", "wf"),
        ("NodeStarted", "wf.a(0)"),
        ("NodeFinished", "wf.a(0)"),
        ("NodeRetried", "wf.a"),
        ("NodeStarted", "wf.a(1)"),
        ("NodeFinished", "wf.a(1)"),
        ("NodeFinished", "wf.a"),
        ("NodeFinished", "wf"),
    ]


def test_what_steps_print_does_not_reach_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    act([task("a", "said", arguments={"text": "hello"})], leaf("said", "said", "text", outputs=()))
    assert capsys.readouterr().out == ""


# ---- what is not acted out, and what leads nowhere


def change(path: str, value: Any) -> dict[str, Any]:
    """A good workflow with one value put in at a dotted path."""
    second = {"text": "{{tasks.a.outputs.parameters.text}}"}
    data = copy.deepcopy(workflow([task("a", "keep", arguments={"text": "a"}), task("b", "keep", "a", second)]))
    at: Any = data
    *stem, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in stem:
        at = at[part]
    at[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("spec.suspend", True, "suspend"),
        ("spec.shutdown", "Stop", "shutdown"),
        ("spec.volumeClaimTemplates", [{}], "volumeClaimTemplates"),
        ("spec.volumes", [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}], "volumes.persistentVolumeClaim"),
        ("spec.hooks", {"running": {"template": "keep"}}, "hooks.running"),
        ("spec.inventedField", 1, "inventedField"),
        ("spec.templates.1.daemon", True, "daemon"),
        ("spec.templates.1.sidecars", [{"name": "s"}], "sidecars"),
        ("spec.templates.1.initContainers", [{"name": "s"}], "initContainers"),
        ("spec.templates.1", {"name": "keep", "container": {"image": "i"}}, "container"),
        ("spec.templates.1", {"name": "keep", "http": {"url": "u"}}, "http"),
        ("spec.templates.1", {"name": "keep", "resource": {"action": "get"}}, "resource"),
        ("spec.templates.1.script.envFrom", [{}], "envFrom"),
        ("spec.templates.1.script.env", [{"name": "A", "valueFrom": {"secretKeyRef": {}}}], "valueFrom"),
        ("spec.templates.1.inputs.artifacts", [{"name": "a", "s3": {"key": "k"}}], "s3"),
        ("spec.templates.1.retryStrategy", {"limits": 3}, "limits"),
        ("spec.templates.0.dag.tasks.0.onFinish", "x", "onFinish"),
        ("spec.templates.0.synchronization", {"mutexes": [{"name": "m"}]}, "synchronization"),
    ],
)
def test_a_field_that_cannot_be_acted_out_is_named(path: str, value: Any, named: str) -> None:
    with pytest.raises(RehearsalError) as raised:
        rehearse(change(path, value))
    assert raised.value.field == named
    assert named.split(".")[-1] in str(raised.value)
    assert scripts.CALLS == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.podSpecPatch", "{}"),
        ("spec.serviceAccountName", "tiphys"),
        ("spec.synchronization", {"mutexes": [{"name": "m"}]}),
        ("spec.volumes", [{"name": "v", "emptyDir": {}}]),
        ("spec.templates.1.daemon", False),
        ("spec.templates.1.memoize", {"key": "k"}),
        ("spec.templates.1.synchronization", {"mutexes": [{"name": "m"}]}),
        ("spec.templates.1.script.resources", {"limits": {"cpu": "1"}}),
        ("spec.templates.1.nodeSelector", {"a": "b"}),
        ("spec.podGC", {"strategy": "OnPodSuccess"}),
    ],
)
def test_a_field_that_changes_nothing_here_is_ignored(path: str, value: Any) -> None:
    assert rehearse(change(path, value)).phase == "Succeeded"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("spec.entrypoint", "mian", "template name 'mian' undefined in 'wf'; did you mean 'main'"),
        ("spec.onExit", "bye", "template name 'bye' undefined"),
        (
            "spec.templates.0.dag.tasks.0.template",
            "kept",
            "template name 'kept' undefined in 'wf'; did you mean 'keep'",
        ),
        ("spec.templates.0.dag.tasks.0.arguments", {}, "template 'keep' needs the argument 'text'"),
        ("spec.templates.0.dag.tasks.1.depends", "aa", "depends on 'aa', which is not a task here; did you mean 'a'"),
        ("spec.templates.0.dag.tasks.1.depends", "a.Finished", "'a.Finished' is no result of a task"),
        ("spec.templates.0.dag.tasks.0.depends", "b", "waits for itself"),
        ("spec.templates.0.dag.tasks.1.depends", "", "'a' is not a task or step that ends before"),
        (
            "spec.templates.0.dag.tasks.1.arguments.parameters.0.value",
            "{{tasks.a.outputs.parameters.txt}}",
            "has no output 'txt'",
        ),
        (
            "spec.templates.0.dag.tasks.1.arguments.parameters.0.value",
            "{{inputs.parameters.no}}",
            "there is no such input",
        ),
        (
            "spec.templates.0.dag.tasks.1.arguments.parameters.0.value",
            "{{workflow.parameters.no}}",
            "no such workflow parameter",
        ),
        ("spec.templates.0.dag.tasks.1.arguments.parameters.0.value", "{{item}}", "without withItems"),
        (
            "spec.templates.0.dag.tasks.1.arguments.parameters.0.value",
            "{{= tasks.a.outputs.parameters.no }}",
            "has no output 'no'",
        ),
        ("spec.templates.0.dag.tasks.1.arguments.parameters.0.value", "{{= 1 + }}", "invalid expression"),
        ("spec.templates.1.script.args.3", "tests.rehearsal_scripts:gone", "cannot be imported"),
        ("spec.templates.1.script.args.3", "no.such.module:x", "cannot be imported"),
        (
            "spec.templates.1.inputs.parameters.0",
            {"name": "text", "default": "c", "enum": ["a", "b"]},
            "the default 'c' is not in its enum (a, b)",
        ),
        (
            "spec.arguments",
            {"parameters": [{"name": "p", "value": "z", "enum": ["x"]}]},
            "the value 'z' is not in its enum",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_found_before_anything_runs(path: str, value: Any, told: str) -> None:
    with pytest.raises(RehearsalError) as raised:
        check(change(path, value))
    assert told in str(raised.value)


def test_the_workflow_that_those_were_made_from_is_in_order() -> None:
    check(change("metadata.name", "wf"))


def test_every_fault_is_told_at_once() -> None:
    data = change("spec.templates.0.dag.tasks.0.template", "kept")
    data["spec"]["onExit"] = "bye"
    with pytest.raises(RehearsalError) as raised:
        check(data)
    assert len(str(raised.value).splitlines()) >= 2


@pytest.mark.parametrize("found", [None, {}, {"kind": "Pod"}, "text", 3])
def test_what_is_no_workflow_is_refused(found: object) -> None:
    with pytest.raises(InputError, match="is not a workflow"):
        rehearse(found)


def test_a_retry_strategy_of_hera_is_understood() -> None:
    with Workflow(name="wf", entrypoint="main") as built, DAG(name="main"):
        scripts.fail(name="x")
    built.templates[-1].retry_strategy = RetryStrategy(limit="1", retry_policy="Always")  # type: ignore[union-attr,index]
    assert rehearse(built).phase == "Failed"
