"""The commands: what they print, where, and how they leave."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_experiment import small_document, small_experiment
from tiphys.cli import outcome
from tiphys.documents import read_yaml, read_yaml_all

TIPHYS = [sys.executable, "-c", "from tiphys.cli import main; main()"]
PERCENTILES = {"mean", "p50", "p90", "p95", "p99"}
COMMANDS = (
    "run", "simulate", "compare", "search", "judge", "explain", "import", "render", "render-pipelines", "promote",
    "rollback", "history", "profile make", "profile show", "profile capacity", "traffic fit", "traffic sample",
    "traffic show", "schema", "report",
)  # fmt: skip


class Ran:
    """What a command line answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def tiphys(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs a command line here, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        code = outcome([str(each) for each in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run of the small experiment; `promoted` is beside it."""
    folder = tmp_path_factory.mktemp("finished")
    path = small_experiment(folder)
    ran = subprocess.run(
        [*TIPHYS, "run", str(path), "--out", str(folder / "out"), "--json"], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode in (0, 3), ran.stderr
    (run,) = (folder / "out").iterdir()
    (folder / "answer.json").write_text(ran.stdout)
    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, tiphys: Callable[..., Ran]) -> None:
    ran = tiphys(*command.split(), "--help")
    assert ran.code == 0
    assert f"Example: tiphys {command}" in " ".join(ran.out.split()) or f"| tiphys {command}" in ran.out


def test_help_needs_no_heavy_room() -> None:
    code = (
        "import sys; from tiphys.cli import outcome; code = outcome(['--help']); "
        "print([name for name in ('numba', 'optuna', 'hera', 'pandas', 'matplotlib', 'pyarrow', 'numpy') "
        "if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stderr.strip() == "[]"


def test_simulate_prints_the_whole_scorecard_and_nothing_else(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    card = tiphys("simulate", small_experiment(tmp_path), "--json", "--repeat", "2").json
    assert card["requests"] == card["finished"] + card["failed"] > 9000
    assert card["horizon_s"] == pytest.approx(2400, abs=5)
    for latency in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        assert set(card[latency]) == PERCENTILES
    expected = {
        "feasible", "slo", "gpu_seconds", "replica_seconds", "cost", "mean_replicas", "max_replicas", "scale_ups",
        "scale_downs", "goodput_per_s", "pools", "wall_s", "seed",
    }  # fmt: skip
    assert expected <= set(card)
    assert card["slo"][0] == {
        "metric": "ttft", "at_most_s": 2.0, "share": 0.9, "met_share": card["slo"][0]["met_share"], "met": True
    }  # fmt: skip
    assert 0 < card["wall_s"] < 5


def test_the_same_seed_gives_the_same_scorecard(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    path = small_experiment(tmp_path)
    first, again, other = (tiphys("simulate", path, "--json", "--seed", seed).json for seed in (1, 1, 2))
    assert first | {"wall_s": 0} == again | {"wall_s": 0}
    assert first["requests"] != other["requests"]


def test_simulate_plays_the_policy_that_is_given(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    path = small_experiment(tmp_path)
    rendered = tiphys("render", path, "--policy", "published-keda-running")
    manifest = tmp_path / "scaled-object.yaml"
    manifest.write_text(rendered.out)
    by_name = tiphys("simulate", path, "--policy", "published-keda-running", "--json").json
    by_manifest = tiphys("simulate", path, "--policy", manifest, "--json").json
    assert by_name | {"wall_s": 0} == by_manifest | {"wall_s": 0}
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text("{api_version: tiphys/v1, kind: fixed, replicas: 4}\n")
    card = tiphys("simulate", path, "--policy", fixed, "--json").json
    assert card["gpu_seconds"] == pytest.approx(4 * card["horizon_s"])


def test_simulate_draws_tables_without_colours_where_nobody_watches(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    ran = tiphys("simulate", small_experiment(tmp_path))
    assert ran.code == 0
    assert "meets the SLO" in ran.out
    assert "ttft <= 2 s" in ran.out
    assert "\x1b" not in ran.out + ran.err


def test_a_recording_is_explained_as_arithmetic(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    recording = tmp_path / "kept.parquet"
    card = tiphys("simulate", small_experiment(tmp_path), "--recording", recording, "--json").json
    told = tiphys("explain", recording, "--all", "--json").json["pools"]["llm"]
    assert told["passes"] == len(told["decisions"])
    changes = [each for each in told["decisions"] if each["changed"] and each["time_s"] <= card["horizon_s"]]
    assert len(changes) == card["scale_ups"] + card["scale_downs"]
    at = changes[0]["time_s"]
    one = tiphys("explain", recording, "--at", f"{at + 1}")
    assert f"{changes[0]['before']} -> {changes[0]['after']}" in one.out
    assert "result:" in one.out
    assert tiphys("explain", recording, "--at", "99:99").code == 0
    assert tiphys("explain", recording, "--at", "soon").code == 2


def test_a_run_ends_in_a_verdict_and_a_full_folder(finished: Path) -> None:
    files = {path.name for path in finished.iterdir()}
    expected = {
        "experiment.yaml", "environment.json", "study.journal", "trials.csv", "shortlist.json", "incumbent.json",
        "challenger.json", "verdict.json", "policy.yaml", "manifests", "recordings", "report.html", "log.jsonl",
    }  # fmt: skip
    assert expected <= files
    answer = json.loads((finished.parent.parent / "answer.json").read_text())
    assert answer.pop("run") == str(finished)
    assert answer == read_yaml(finished / "verdict.json")
    assert answer["decision"] in ("promote", "keep", "infeasible", "too_short")
    assert answer["reason"]


def test_a_finished_run_goes_on_to_the_same_verdict_at_once(finished: Path, tiphys: Callable[..., Ran]) -> None:
    before = read_yaml(finished / "verdict.json")
    ran = tiphys("run", finished.parent.parent / "small.yaml", "--resume", finished, "--json")
    answer = ran.json
    assert answer.pop("run") == str(finished)
    for ignoring in (answer, before):
        ignoring.pop("promoted_to")
        for contestant in ("incumbent", "challenger"):
            ignoring[contestant]["scorecard"].pop("wall_s")
    assert answer == before


def test_a_run_folder_is_explained_and_rendered_and_promoted(finished: Path, tiphys: Callable[..., Ran]) -> None:
    assert "From a step of the load to a ready replica" in tiphys("explain", finished).out
    experiment = finished.parent.parent / "small.yaml"
    rendered = tiphys("render", experiment, "--policy", finished / "policy.yaml", "--json").json["manifests"]
    assert {each["kind"] for each in rendered} & {"HorizontalPodAutoscaler", "ScaledObject"}
    target = Path("here")
    shown = tiphys("promote", finished, "--target", target, "--dry-run", "--force")
    assert shown.code == 0
    assert not target.exists()
    done = tiphys("promote", finished, "--target", target, "--force", "--json").json
    entries = tiphys("history", "--target", target, "--json").json["entries"]
    assert entries[-1]["entry"] == done["entry"]
    assert entries[0]["action"] == "adopt"
    back = tiphys("rollback", "--target", target, "--to", "1", "--json").json
    assert back["version"] == entries[0]["version"]
    assert [each["action"] for each in tiphys("history", "--target", target, "--json").json["entries"]][
        -1
    ] == "rollback"


def test_the_exit_code_says_that_the_incumbent_stays(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    path = small_experiment(tmp_path)
    arguments = ("judge", path, "--challenger", "published-hpa-ttft", "--out", tmp_path / "out", "--json")
    kept = tiphys(*arguments, "--exit-code")
    assert kept.json["decision"] in ("keep", "too_short")
    assert kept.code == 10
    assert tiphys(*arguments).code == 0


def test_search_alone_lists_what_is_worth_judging(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    ran = tiphys("search", small_experiment(tmp_path), "--out", tmp_path / "out", "--json")
    assert ran.code == (0 if ran.json["feasible"] else 3)
    assert ran.json["shortlist"][0]["space"] == "hpa-running"
    assert ran.json["shortlist"] == read_yaml(Path(ran.json["run"]) / "shortlist.json")


def test_nothing_feasible_is_exit_3_and_shows_the_nearest(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    document = small_document()
    document["slo"]["objectives"][0]["at_most_s"] = 0.001
    ran = tiphys("search", small_experiment(tmp_path, document), "--out", tmp_path / "out", "--json")
    assert ran.code == 3
    assert len(ran.json["shortlist"]) == 1
    assert "no policy met the SLO" in ran.err


def test_a_cluster_is_exit_4(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    ran = tiphys("run", small_experiment(tmp_path), "--platform", "cluster", "--out", tmp_path / "out")
    assert ran.code == 4
    assert not (tmp_path / "out").exists()


def test_an_unexpected_error_is_one_line_and_shows_itself_on_request(
    tmp_path: Path, tiphys: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("tiphys.twin.platform.Twin.play", fail)
    path = small_experiment(tmp_path)
    ran = tiphys("simulate", path)
    assert ran.code == 1
    assert [line for line in ran.err.splitlines() if "compiling" not in line] == [
        "error: unexpected ZeroDivisionError: of all things (tiphys --debug ... shows where)"
    ]
    assert "Traceback" in tiphys("simulate", path, "--debug").err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(number: int, code: int, tmp_path: Path) -> None:
    path = small_experiment(tmp_path)
    arguments = ["run", str(path), "--out", str(tmp_path / "out"), "--trials", "400"]
    with subprocess.Popen([*TIPHYS, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "search_twin" in line:
                break
        process.send_signal(number)
        said += process.stderr.readlines()
        assert process.wait(60) == code
    (run,) = (tmp_path / "out").iterdir()
    text = "".join(said)
    assert f"--resume {run}" in text
    assert "Traceback" not in text
    assert (run / "study.journal").stat().st_size > 0
    assert not (run / "verdict.json").exists()


def test_import_of_a_rendered_manifest_gives_the_policy_back(tmp_path: Path, tiphys: Callable[..., Ran]) -> None:
    path = small_experiment(tmp_path)
    tiphys("render", path, "--out", "plain", "--format", "kustomize")
    kustomization = read_yaml(Path("plain/kustomization.yaml"))
    objects = [each for name in kustomization["resources"] for each in read_yaml_all(Path("plain") / name)]
    assert objects == read_yaml_all_text(tiphys("render", path).out)
    (scaler,) = Path("plain").glob("horizontalpodautoscaler-*.yaml")
    imported = tiphys("import", scaler, "--json").json
    assert tiphys("import", scaler, "--out", "back.yaml").code == 0
    assert read_yaml(Path("back.yaml")) == imported
    first, back = (tiphys("simulate", path, "--json", *more).json for more in ((), ("--policy", "back.yaml")))
    assert first | {"wall_s": 0} == back | {"wall_s": 0}


def read_yaml_all_text(text: str) -> list[Any]:
    """Every document of a YAML text."""
    path = Path("as-text.yaml")
    path.write_text(text)
    return read_yaml_all(path)


def test_the_pipelines_are_rendered_as_objects_that_argo_knows(tiphys: Callable[..., Ran]) -> None:
    assert tiphys("render-pipelines", "--out", "deploy").code == 0
    kinds = {each["kind"] for path in Path("deploy").glob("*.yaml") for each in read_yaml_all(path)}
    assert {"WorkflowTemplate", "CronWorkflow", "ServiceAccount"} <= kinds


@pytest.mark.parametrize("kind", ["experiment", "policy", "verdict", "scorecard", "profile", "traffic-profile"])
def test_a_schema_accepts_what_tiphys_writes(kind: str, finished: Path, tiphys: Callable[..., Ran]) -> None:
    from jsonschema import Draft202012Validator

    schema = tiphys("schema", kind).json
    Draft202012Validator.check_schema(schema)
    documents = {
        "experiment": lambda: read_yaml(finished / "experiment.yaml"),
        "policy": lambda: read_yaml(finished / "policy.yaml"),
        "verdict": lambda: read_yaml(finished / "verdict.json"),
        "scorecard": lambda: read_yaml(finished / "load-test.json"),
        "profile": lambda: tiphys("profile", "show", "llama31-8b_h100_vllm_tp1", "--json").json["profile"],
        "traffic-profile": lambda: tiphys("traffic", "fit", drawn(tiphys), "--json").json,
    }
    validator = Draft202012Validator(schema)
    assert not list(validator.iter_errors(documents[kind]()))
    assert list(validator.iter_errors({"frobnicate": 1}))


def drawn(tiphys: Callable[..., Ran]) -> Path:
    """A trace file of an hour."""
    path = Path("drawn.csv")
    rows = "".join(f"{2.5 * i},{100 + i % 50},{20 + i % 7}\n" for i in range(1440))
    path.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}")
    return path


def test_traffic_is_learnt_drawn_and_shown(tiphys: Callable[..., Ran]) -> None:
    trace = drawn(tiphys)
    assert tiphys("traffic", "fit", trace, "--name", "learnt", "--out", "learnt.yaml").code == 0
    assert (
        tiphys("traffic", "sample", "learnt.yaml", "--seed", 3, "--duration", 1800, "--out", "again.csv.gz").code == 0
    )
    shown = tiphys("traffic", "show", "again.csv.gz", "--json").json
    assert shown["mean_rate_per_s"] == pytest.approx(0.4, rel=0.15)
    assert 100 <= shown["input_tokens"]["p50"] <= 150
    assert "mean rate" in tiphys("traffic", "show", "again.csv.gz").out
    first, again, other = (tiphys("traffic", "sample", "learnt.yaml", "--seed", seed).out for seed in (3, 3, 4))
    assert first == again != other


def test_a_profile_says_what_a_replica_carries(tiphys: Callable[..., Ran]) -> None:
    arguments = ("llama31-8b_h100_vllm_tp1", "--input", 1000, "--output", 200, "--ttft", 2, "--e2e", 20)
    found = tiphys("profile", "capacity", *arguments, "--json").json
    assert found["meets_slo"]
    assert found["point"]["requests_per_s"] > 1
    assert found["signal_targets"]["ttft_p90"] == 2.0
    assert "rate per replica" in tiphys("profile", "capacity", *arguments).out
    assert "off by" in tiphys("profile", "show", "llama31-8b_h100_vllm_tp1").out


def test_a_second_run_starts_its_first_trial_within_three_seconds(finished: Path, tmp_path: Path) -> None:
    path = small_experiment(tmp_path)
    waits_s = []
    while len(waits_s) < 3 and min(waits_s, default=3.0) >= 3:  # another process may have the machine just now
        began = time.monotonic()
        arguments = ["search", str(path), "--out", str(tmp_path / "out"), "--trials", "10"]
        with subprocess.Popen([*TIPHYS, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            next(line for line in process.stderr if "search_twin" in line)
            waits_s.append(time.monotonic() - began)
            process.stderr.read()
    assert min(waits_s) < 3


def test_compare_sets_policies_and_spaces_beside_what_was_possible(tiphys: Callable[..., Ran], tmp_path: Path) -> None:
    path = small_experiment(tmp_path)
    ran = tiphys("compare", path, "hpa-running", "published-keda-running", "--budget", "3", "--json")
    assert ran.code == 0, ran.err
    rows, baselines = ran.json["rows"], ran.json["baselines"]
    assert [row["name"] for row in rows] == ["incumbent", "hpa-running", "published-keda-running"]
    bound = baselines["lower_bound"]["gpu_seconds"]
    for row in rows:
        assert row["over_incumbent"] == row["gpu_seconds"] / rows[0]["gpu_seconds"]
        assert row["over_lower_bound"] == row["gpu_seconds"] / bound
        assert not row["meets"] or row["gpu_seconds"] >= bound
    shown = tiphys("compare", path, "published-keda-running")
    assert shown.code == 0 and "lower bound" in shown.out
    assert ("clairvoyant (reference)" in shown.out) == (baselines["clairvoyant"] is not None)
    assert tiphys("compare", path, "hpa-runing").code == 2
