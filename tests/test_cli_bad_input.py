"""Everything that can be wrong with what is handed in: exit code 2, one message, nothing half-written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.small_experiment import small_document, small_experiment
from tiphys.cli import outcome

HEADER = "arrival_s,input_tokens,output_tokens\n"
ROWS = "".join(f"{second},100,20\n" for second in range(2400))
Document = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, and what the message must name."""

    name: str
    spoil: Callable[[Document], object]
    names: tuple[str, ...]


def pool(document: Document) -> Document:
    found: Document = document["service"]["pools"]["llm"]
    return found


def space(**changes: Any) -> Document:
    metric = {"signal": "running", "type": "AverageValue", "target": {"between": [8, 64]}}
    return {
        "api_version": "tiphys/v1",
        "kind": "hpa",
        "published_default": "published-hpa-running",
        "replicas": {"min": 1, "max": 8},
        "metrics": [metric | changes],
    }


FAULTS = (
    Fault("unknown key", lambda d: d.update(frobnicate=1), ("frobnicate", "unknown key", "allowed")),
    Fault("misspelt key", lambda d: d["traffic"].update(tune_shar=0.5), ("traffic.tune_shar", "'tune_share'")),
    Fault("misspelt key of a pool", lambda d: pool(d).update(cold_strat={}), ("service.pools.llm", "'cold_start'")),
    Fault("wrong type", lambda d: d["search"].update(trials="many"), ("search.trials", "found 'many'")),
    Fault("fraction for a count", lambda d: pool(d).update(gpus_per_replica=1.5), ("gpus_per_replica", "1.5")),
    Fault("NaN", lambda d: d["traffic"].update(warmup_s=float("nan")), ("traffic.warmup_s",)),
    Fault("infinite", lambda d: d["traffic"].update(drain_s=float("inf")), ("traffic.drain_s",)),
    Fault("negative", lambda d: pool(d)["cold_start"].update(median_s=-1), ("cold_start.median_s", "found -1")),
    Fault("min over max", lambda d: pool(d)["replicas"].update(min=9), ("replicas", "min 9 is over max 8")),
    Fault(
        "low over high",
        lambda d: d["search"]["spaces"].update(llm=[space(target={"between": [64, 8]})]),
        ("search.spaces.llm.0", "metrics.0.target", "64"),
    ),
    Fault("open incumbent", lambda d: d["incumbent"].update(llm="hpa-kv"), ("incumbent.llm.replicas.min", "numbers")),
    Fault("pool that is not there", lambda d: d["incumbent"].update(gpu="x"), ("incumbent", "'gpu'", "llm")),
    Fault(
        "unknown signal",
        lambda d: d["search"]["spaces"].update(llm=[space(signal="runing")]),
        ("search.spaces.llm.0", "runing", "running", "kv_usage"),
    ),
    Fault(
        "unknown profile",
        lambda d: pool(d).update(profile="llama31-8b_h100"),
        ("service.pools.llm.profile", "llama31-8b_h100", "llama31-8b_l40s_vllm_tp1"),
    ),
    Fault("unknown policy", lambda d: d["incumbent"].update(llm="hpa-runing"), ("incumbent.llm", "published-hpa-ttft")),
    Fault("too short to split", lambda d: d["traffic"]["source"].update(duration_s=90), ("tune_share", "found '90 s'")),
    Fault("fewer trials than spaces", lambda d: d["search"].update(trials=1, spaces={"llm": ["hpa-running", "hpa-kv"]}),
          ("search.trials", "found 1")),
    Fault("two spaces of a name", lambda d: d["search"]["spaces"].update(llm=["hpa-kv", "hpa-kv"]),
          ("search.spaces.llm.1", "found 'hpa-kv'")),
    Fault("nothing where a number belongs", lambda d: pool(d).update(max_num_seqs=None),
          ("service.pools.llm.max_num_seqs", "found 'null'")),
    Fault("unknown backend", lambda d: d["service"].update(backend={"kind": "vlm"}),
          ("service.backend.kind", "'vllm'", "dynamo, nim, triton, vllm")),
    Fault("no kind of source", lambda d: d["traffic"]["source"].pop("kind"), (".yaml: traffic.source.kind",)),
    Fault("a value that may be a word or a mapping", lambda d: d["service"].update(router="best"),
          (".yaml: service.router: ", "found 'best'")),
    Fault("misspelt key of one kind", lambda d: d["traffic"]["source"].update(duration=9),
          (".yaml: traffic.source.duration: ", "'duration_s'")),
    Fault("unknown traffic", lambda d: d["traffic"].update(source={"kind": "profile", "name": "azure"}),
          (".yaml: traffic.source.name: ", "azure2023-conv")),
    Fault("more traffic than memory", lambda d: d["traffic"].update(scale=1e9),
          (".yaml: traffic.scale: ", "found 1000000000.0")),
    Fault("no KV room", lambda d: pool(d).update(kv_capacity_tokens=400), ("input_tokens", "found 500", "400")),
)  # fmt: skip


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must be refused; its one message."""

    def run(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        code = outcome([str(each) for each in arguments])
        said = capsys.readouterr()
        assert code == 2, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        messages = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(messages) == 1 and said.err.strip() == messages[0], said.err
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return messages[0]

    return run


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_wrong_experiment_is_refused_with_its_place(
    fault: Fault, tmp_path: Path, refused: Callable[..., str]
) -> None:
    document = small_document()
    fault.spoil(document)
    path = small_experiment(tmp_path, document)
    message = refused("run", path, "--out", tmp_path / "out")
    for named in (str(path), *fault.names):
        assert named in message


def test_a_duplicate_key_is_refused_with_its_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = small_experiment(tmp_path)
    path.write_text(path.read_text() + "name: again\n")
    message = refused("run", path, "--out", tmp_path / "out")
    assert str(path) in message
    assert "duplicate key 'name'" in message
    assert f"line {len(path.read_text().splitlines())}" in message


@pytest.mark.parametrize(
    "text",
    ["", "- 1\n", "{[1, 2]: 3}\n", "a: &a [*a]\n", "[" * 5000, f"a: {'9' * 5000}\n", "a: !!int x\n", "a: [1,\n", "\0"],
)
def test_a_file_that_is_no_experiment_is_refused(text: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = small_experiment(tmp_path)
    path.write_text(text)
    assert str(path) in refused("run", path, "--out", tmp_path / "out")


TRACES = {
    "empty": (b"", ("empty",)),
    "without requests": (HEADER.encode(), ("no request",)),
    "unsorted": (f"{HEADER}1,10,10\n0.5,10,10\n".encode(), ("arrival_s", "0.5")),
    "zero tokens": (f"{HEADER}1,0,10\n".encode(), ("input_tokens", "0")),
    "negative tokens": (f"{HEADER}1,10,-3\n".encode(), ("output_tokens", "-3")),
    "not a number": (f"{HEADER}1,ten,10\n".encode(), ("input_tokens", "ten")),
    "not finite": (f"{HEADER}nan,10,10\n".encode(), ("arrival_s", "nan")),
    "truncated gzip": (gzip.compress((HEADER + ROWS).encode())[:-40], ()),
    "not gzip": (b"\x1f\x8b" + b"nothing of the kind", ()),
    "other columns": (b"time,tokens\n1,2\n", ("arrival_s",)),
    "too short to split": (f"{HEADER}1,10,10\n2,10,10\n".encode(), ("traffic.tune_share", "2 s")),
    "longer than the KV cache": (f"{HEADER}{ROWS}2400,9000000,20\n".encode(), ("input_tokens", "9000000")),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_wrong_trace_is_refused_with_its_name(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    content, names = TRACES[name]
    trace = tmp_path / ("trace.csv.gz" if "gzip" in name else "trace.csv")
    trace.write_bytes(content)
    message = refused("run", small_experiment(tmp_path), "--trace", trace, "--out", tmp_path / "out")
    for named in ("trace", *names):
        assert named in message


def test_a_trace_that_is_not_there_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "nowhere.csv" in refused("simulate", small_experiment(tmp_path), "--trace", tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("traffic.scale", ("--set", "PATH=VALUE")),
        ("traffic.scal=2", ("traffic.scal", "'scale'")),
        ("traffic.scale=-2", ("traffic.scale", "-2")),
        ("slo.objectives.7.share=0.5", ("--set", "slo.objectives.7", "0 to 0")),
    ],
)
def test_a_wrong_change_is_refused(
    change: str, names: tuple[str, ...], tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("simulate", small_experiment(tmp_path), "--set", change)
    for named in names:
        assert named in message


def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    path = small_experiment(tmp_path)
    assert "--out" in refused("run", path, "--out", tmp_path / "file" / "runs")
    assert "--recording" in refused("simulate", path, "--recording", tmp_path / "file" / "x.parquet")
    assert "--recording" in refused("simulate", path, "--recording", tmp_path)


def test_a_run_folder_of_another_experiment_is_not_gone_on_with(tmp_path: Path, refused: Callable[..., str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "experiment.yaml").write_text("name: other\n")
    path = small_experiment(tmp_path)
    message = refused("run", path, "--resume", other)
    for named in (
        str(other / "experiment.yaml"),
        "name: is the run folder of another experiment",
        "'other'",
        "'small'",
    ):
        assert named in message
    assert "experiment.yaml" in refused("run", path, "--resume", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--policy", "hpa-running"), ("--policy hpa-running: replicas.min", "allowed: numbers")),
        (("--policy", "published-hpa-runing"), ("--policy", "published-hpa-running")),
        (("--policy", "nowhere/policy.yaml"), ("--policy", "nowhere/policy.yaml")),
    ],
)
def test_a_wrong_policy_is_refused(
    arguments: tuple[str, ...], names: tuple[str, ...], tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused("simulate", small_experiment(tmp_path), *arguments)
    for named in names:
        assert named in message


def test_a_policy_outside_of_the_envelope_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    policy = tmp_path / "big.yaml"
    policy.write_text("{api_version: tiphys/v1, kind: fixed, replicas: 40}\n")
    message = refused("simulate", small_experiment(tmp_path), "--policy", policy)
    assert "40" in message and "1 to 8" in message


def test_a_policy_that_the_twin_cannot_obey_is_refused_before_any_work(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    policy = tmp_path / "stream.yaml"
    trigger = "{scaler: nats-jetstream, endpoint: 'nats:8222', stream: s, consumer: c}"
    policy.write_text(f"{{kind: keda, replicas: {{min: 1, max: 8}}, triggers: [{trigger}]}}\n")
    document = small_document()
    document["incumbent"]["llm"] = str(policy)
    message = refused("run", small_experiment(tmp_path, document), "--out", tmp_path / "out")
    for named in ("small.yaml", "incumbent.llm.triggers.0", "JetStream", "no queue", "queue jetstream"):
        assert named in message


def test_other_commands_say_what_they_lack(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "experiment.yaml" in refused("report", tmp_path)
    assert "experiment.yaml" in refused("promote", tmp_path)
    assert "recording" in refused("explain", tmp_path)
    assert "kustomize" in refused("render", small_experiment(tmp_path), "--format", "helm")
    assert "traffic-profile" in refused("schema", "nothing")
    assert "llama31-8b_h100_vllm_tp1" in refused("profile", "show", "nothing")
    assert "--ttft" in refused("profile", "capacity", "llama31-8b_h100_vllm_tp1", "--input", "1", "--output", "1")
    assert "nothing was promoted" in refused("rollback", "--target", tmp_path)


def test_a_misused_command_line_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["frobnicate"], ["run"], ["run", "chat", "--nothing"], ["simulate", "chat", "--repeat", "0"]):
        assert outcome(arguments) == 2
        assert capsys.readouterr().out == ""
