"""The pipelines: what is rendered, what is safe about it, and that they do their work when rehearsed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines import PipelineSettings, render_all, retune, tune
from tests.goldens import assert_matches_golden
from tiphys import stages
from tiphys.documents import parse_yaml
from tiphys.domain.values import parse
from tiphys.domain.verdict import Verdict
from tiphys.errors import InputError, PlatformError, PromotionRefused
from tiphys.progress import Progress, listening
from tiphys.rehearsal import (
    Clock,
    LeafCall,
    LeafResult,
    Outcome,
    Subprocess,
    check,
    refuse_to_answer,
    rehearse,
    say_yes,
    take_defaults,
)

EXPERIMENT = """
api_version: tiphys/v1
name: small
service:
  name: small-llm
  model: meta-llama/Llama-3.1-8B-Instruct
  backend: {kind: vllm}
  pools:
    llm:
      profile: /tmp/e2e/p.json
      replicas: {min: 1, max: 8, start: 2}
      cold_start: {median_s: 20, p95_s: 30}
traffic:
  source:
    kind: synthetic
    duration_s: 1200
    rate: {shape: diurnal, mean_per_s: 4, swing_ratio: 0.8, period_s: 300}
    input_tokens: {kind: lognormal, median: 800, p95: 2000}
    output_tokens: {kind: lognormal, median: 80, p95: 200}
  warmup_s: 60
slo:
  objectives:
    - {metric: ttft, at_most_s: 2.0, share: 0.9}
    - {metric: e2e, at_most_s: 20.0, share: 0.9}
incumbent: {llm: published-hpa-ttft}
search: {spaces: {llm: [hpa-running, keda-running]}, trials: 4, workers: 1, tune_seeds: 1, folds: 1}
"""


class Fake(Clock):
    """A clock that goes on only by sleeping."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.mark.parametrize("name", ["tiphys-tune", "tiphys-retune", "rbac"])
def test_rendered_pipelines_equal_their_goldens(name: str, pytestconfig: pytest.Config) -> None:
    rendered = parse_yaml(render_all()[f"{name}.yaml"])
    assert_matches_golden(f"../goldens_pipelines/{name.replace('-', '_')}", rendered, pytestconfig)


def test_every_reference_of_the_pipeline_leads_somewhere() -> None:
    check(tune.pipeline())


def leaves(settings: PipelineSettings | None = None) -> list[dict[str, Any]]:
    (document,) = parse_yaml(render_all(settings)["tiphys-tune.yaml"])
    return [template for template in document["spec"]["templates"] if "script" in template]


def test_every_step_is_one_that_pod_security_restricted_admits() -> None:
    (document,) = parse_yaml(render_all()["tiphys-tune.yaml"])
    patch = json.loads(document["spec"]["podSpecPatch"])
    safe = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    patched = [*patch["initContainers"], *patch["containers"]]
    assert {each["name"]: each["securityContext"] for each in patched} == {"init": safe, "wait": safe}
    assert document["spec"]["securityContext"]["runAsNonRoot"] is True
    assert len(leaves()) == 12
    for template in leaves():
        assert template["script"]["securityContext"] == safe
        assert template["script"]["resources"].keys() == {"limits", "requests"}
        assert {"name": "tmp", "mountPath": "/tmp"} in template["script"]["volumeMounts"]
        assert template["activeDeadlineSeconds"] >= 1800


def test_settings_reach_steps_that_were_imported_before_they_were_known() -> None:
    settings = PipelineSettings(image="registry.local/tiphys:7", pull_policy="Always", service_account="other")
    assert {template["script"]["image"] for template in leaves(settings)} == {"registry.local/tiphys:7"}
    assert "other" in render_all(settings)["rbac.yaml"]
    assert {template["script"]["image"] for template in leaves()} == {PipelineSettings().image}


def test_outputs_of_steps_that_may_be_skipped_have_defaults_at_the_path_that_the_runner_writes() -> None:
    (document,) = parse_yaml(render_all()["tiphys-tune.yaml"])
    templates = {template["name"]: template for template in document["spec"]["templates"]}
    skippable = [task["template"] for task in templates["tune"]["dag"]["tasks"] if "when" in task]
    assert sorted(skippable) == ["approval", "install-observability", "promote", "search-live"]
    for name in skippable:
        assert all("default" in output["valueFrom"] for output in templates[name]["outputs"]["parameters"])
    for template in leaves():
        for output in template["outputs"]["parameters"]:
            assert output["valueFrom"]["path"] == f"/tmp/hera-outputs/parameters/{output['name']}"


def test_the_retuning_is_asleep_until_somebody_wakes_it() -> None:
    cron = retune.pipeline().to_dict()
    assert cron["spec"]["suspend"] is True
    assert cron["spec"]["workflowSpec"]["workflowTemplateRef"] == {"name": tune.NAME}


# ---- the pipeline's own logic, with steps that only say what they were told to


class Canned:
    """Steps that return what they are told, and are remembered."""

    def __init__(self, **outputs: str) -> None:
        self.outputs, self.calls = outputs, list[str]()

    def run(self, call: LeafCall) -> LeafResult:
        name = call.entrypoint.partition(":")[2]
        self.calls.append(name)
        declared = call.template["outputs"]["parameters"]
        return LeafResult(files={p["valueFrom"]["path"]: self.outputs.get(p["name"], "{}") for p in declared})


def told(decision: str, arguments: Mapping[str, str], answer: Any = refuse_to_answer) -> tuple[Outcome, list[str]]:
    steps = Canned(decision=decision)
    outcome = rehearse(tune.pipeline(), {"experiment": "x", **arguments}, runner=steps, answer=answer, clock=Fake())
    return outcome, steps.calls


@pytest.mark.parametrize(
    ("decision", "approval", "answer", "promoted"),
    [
        ("promote", "true", say_yes, True),
        ("promote", "true", take_defaults, False),
        ("promote", "false", refuse_to_answer, True),
        ("keep", "false", refuse_to_answer, False),
        ("keep", "true", refuse_to_answer, False),
        ("infeasible", "false", refuse_to_answer, False),
        ("too_short", "true", refuse_to_answer, False),
    ],
)
def test_the_winner_is_put_in_force_only_when_it_won_and_was_approved(
    decision: str, approval: str, answer: Any, promoted: bool
) -> None:
    outcome, calls = told(decision, {"approval": approval}, answer)
    assert (outcome.phase, "promote" in calls) == ("Succeeded", promoted)


def test_the_stages_come_in_their_order_and_those_of_a_cluster_only_there() -> None:
    on_the_twin = [
        "build_engine",
        "deploy",
        "apply_scaling",
        "load_test",
        "calibrate",
        "search_twin",
        "judge",
        "restore_incumbent",
        "notify",
    ]
    assert told("keep", {})[1] == on_the_twin
    calls = told("keep", {"platform": "cluster"})[1]
    assert calls.index("deploy") < calls.index("install_observability") < calls.index("apply_scaling")
    assert calls.index("search_twin") < calls.index("search_live") < calls.index("judge")


def test_a_platform_that_does_not_exist_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="allowed: twin, cluster"):
        told("keep", {"platform": "moon"})


# ---- real stages


def run_small(run: Path, **more: Any) -> Outcome:
    arguments = {"experiment": EXPERIMENT, "run-folder": str(run), "seed": "3"}
    return rehearse(tune.pipeline(), arguments, **more)


@dataclass(frozen=True)
class Finished:
    """One run of the small experiment in this process."""

    folder: Path
    outcome: Outcome
    heard: list[Progress]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder, heard = tmp_path_factory.mktemp("small"), list[Progress]()
    with listening(heard.append):
        return Finished(folder, run_small(folder, answer=say_yes), heard)


def test_an_experiment_is_rehearsed_from_its_text_to_its_verdict(finished: Finished) -> None:
    outcome, folder, heard = finished.outcome, finished.folder, finished.heard
    assert outcome.phase == "Succeeded", outcome.message
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["decision"] == outcome.node("judge").outputs.parameters["decision"]  # type: ignore[union-attr]
    for name in ("experiment.yaml", "environment.json", "study.journal", "trials.csv", "shortlist.json", "policy.yaml"):
        assert (folder / name).stat().st_size > 0
    for name in ("incumbent", "challenger", "load-test"):
        assert (folder / "recordings" / f"{name}.parquet").stat().st_size > 0
    assert "seed: 3" in (folder / "experiment.yaml").read_text()
    assert {p.stage for p in heard} >= {"build_engine", "deploy", "load_test", "search_twin", "judge", "notify"}
    assert heard[-1].message == "Succeeded"
    assert max(p.done for p in heard if p.stage == "search_twin") <= 4


def test_each_step_as_a_process_of_heras_own_runner_comes_to_the_same_verdict(
    finished: Finished, tmp_path: Path
) -> None:
    here, apart = finished.folder, tmp_path / "apart"
    outcome = run_small(apart, answer=say_yes, runner=Subprocess(), folder=tmp_path / "processes")
    assert outcome.phase == "Succeeded", outcome.message
    assert (apart / "shortlist.json").read_text() == (here / "shortlist.json").read_text()
    verdicts = [json.loads((folder / "verdict.json").read_text()) for folder in (here, apart)]
    assert _timeless(verdicts[0]) == _timeless(verdicts[1])


def _timeless(value: Any) -> Any:
    """Without the times that the plays took."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key != "wall_s"}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def test_a_winner_is_put_in_force_with_its_manifests_and_another_verdict_is_refused(
    finished: Finished, tmp_path: Path
) -> None:
    found = parse(Verdict, json.loads((finished.folder / "verdict.json").read_text()))
    text = f"{EXPERIMENT}promotion: {{target: {{kind: directory, path: {tmp_path}/promoted}}}}\n"
    with pytest.raises(PromotionRefused):
        stages.promote(stages.open_run(text, tmp_path / "kept"), found.with_(decision="keep"))
    entry = stages.promote(stages.open_run(text, tmp_path / "won"), found.with_(decision="promote"))
    assert (entry.action, entry.decision) == ("promote", "promote")
    (manifest, *_) = parse_yaml((tmp_path / "promoted" / "manifests" / "scaling.yaml").read_text())
    assert manifest["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")


def test_a_cluster_is_refused_with_what_can_be_done_instead(tmp_path: Path) -> None:
    arguments = {"experiment": EXPERIMENT, "run-folder": str(tmp_path / "run"), "platform": "cluster"}
    outcome = rehearse(tune.pipeline(), arguments, clock=Fake())
    with pytest.raises(PlatformError, match=r"does not drive a cluster yet.*render.*promote"):
        outcome.raise_failure()
    assert outcome.node("build-engine(0)").outputs.exit_code == 4  # type: ignore[union-attr]
    assert outcome.node("restore-incumbent").phase == "Succeeded"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (EXPERIMENT.replace("warmup_s", "warmpu_s"), "did you mean 'warmup_s'"),
        (EXPERIMENT.replace("max: 8", "max: 4"), "lies outside the pool's envelope"),
        (EXPERIMENT.replace("keda-running", "keda-runing"), "did you mean 'keda-running'"),
        (EXPERIMENT.replace("1200", "130"), "too short to split"),
    ],
)
def test_wrong_input_is_not_retried_and_leaves_no_run_folder(tmp_path: Path, text: str, told: str) -> None:
    folder = tmp_path / "run"
    outcome = rehearse(tune.pipeline(), {"experiment": text, "run-folder": str(folder)}, clock=Fake())
    with pytest.raises(InputError, match=told):
        outcome.raise_failure()
    assert len(outcome.node("build-engine").children) == 1
    assert not folder.exists()


def test_the_run_folder_of_another_experiment_is_refused(tmp_path: Path) -> None:
    stages.begin(stages.open_run(EXPERIMENT, tmp_path))
    stages.begin(stages.open_run(EXPERIMENT, tmp_path, changes={"workers": "2"}))
    with pytest.raises(InputError, match="run folder of another experiment"):
        stages.begin(stages.open_run(EXPERIMENT, tmp_path, changes={"seed": "9"}))


def test_changes_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trials: is not a whole number; found 'many'"):
        stages.open_run(EXPERIMENT, tmp_path, changes={"trials": "many"})


def test_what_failed_is_told_though_argo_encodes_it_twice(tmp_path: Path) -> None:
    failures = json.dumps(json.dumps([{"displayName": "judge", "message": "no traffic"}, {"displayName": "tune"}]))
    assert stages.notify(tmp_path, "Failed", failures) == ("judge: no traffic",)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["failures"] == ["judge: no traffic"]
    assert stages.notify(tmp_path, "Succeeded", json.dumps("null")) == ()
