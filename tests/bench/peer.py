"""The twin against the field's own simulator: the replay of NVIDIA Dynamo, which is AISimulate's engine.

`python -m tests.bench.peer [--json]`. The package `ai-dynamo-runtime` (pinned by hash in `peer.lock`) goes into a
virtual environment of its own in the cache folder and never into this project's; it is a Rust library, run in one
process beside this one. The engine of `aisimulate` (the crate `aisimulate-core`) is compiled into it; the Python
package of that name is a stub on the registry, which fetches its wheel from elsewhere.

Both get the same requests, replicas behind a round-robin router, token budget, limit of sequences, KV capacity, and
one step time: `k + p * P + c * KV` milliseconds, P prompt tokens in the step and KV cached tokens that its decodes
read, a straight line through the shipped profile. The peer takes it as its table `dynamo_profile` of two points each
way, which it interpolates linearly. One thing the peer has no place for: a step without a decode has no `k` there. So
the loads keep replicas busy; TTFT of a request that meets an empty replica differs by `k`.

Timed is the play alone, as each states it: `wall_s` of the twin's recording, `wall_time_ms` of the peer's summary
("runtime construction and execution"; reading the trace is not in it). Pairs are interleaved, each after a play that is
not counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.bench.services import H100, poisson
from tests.bench.tables import Missing, Row, Table, machine, markdown, measured, sentence
from tests.real_traces import real_trace
from tiphys.compiled import cache_folder
from tiphys.dialects import VLLM
from tiphys.domain.profile import Profile, StepTime
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope, Pool, Router
from tiphys.domain.trace import Floats, Trace
from tiphys.policies.fixed import FixedPolicy
from tiphys.profiles import load_profile
from tiphys.twin import Twin, TwinPool, TwinService

HERE = Path(__file__).parent
LOCK = HERE / "peer.lock"
PAIRS, PLAYS_A_PAIR = 5, 5
BLOCK_TOKENS = 16
TRACE_BLOCK_TOKENS = 512
MAX_NUM_SEQS = 256


class Case(NamedTuple):
    """Traffic, and how many replicas serve it."""

    name: str
    trace: Callable[[], Trace]
    replicas: int


CASES = (
    Case("Poisson 8/s, 800 in, 200 out", lambda: poisson(20_000, 8.0, 800, 200), 1),
    Case("Poisson 64/s, 800 in, 200 out", lambda: poisson(20_000, 64.0, 800, 200), 8),
    Case("Poisson 24/s, 800 in, 200 out", lambda: poisson(20_000, 24.0, 800, 200), 1),
    Case("azure2023-conv", lambda: from_zero(real_trace("azure2023-conv")), 1),
    Case("azure2023-conv x8", lambda: from_zero(real_trace("azure2023-conv").scaled(8, seed=1)), 8),
)


class Line(NamedTuple):
    """A step's milliseconds: `fixed_ms + prefill_token_ms * P + kv_token_ms * KV`."""

    fixed_ms: float
    prefill_token_ms: float
    kv_token_ms: float

    @classmethod
    def of(cls, profile: Profile) -> Line:
        """Through a profile's step of one token and its step of a full budget, its decodes' attention kept."""
        one, full = profile.step.gemm_at_ms(np.array([1.0, float(profile.max_batched_tokens)]))
        return cls(float(one), float(full - one) / (profile.max_batched_tokens - 1), profile.step.kv_token_ms)


class Both(NamedTuple):
    """What the simulators say of one case, milliseconds by request in order of arrival."""

    twin_ttft_ms: Floats
    peer_ttft_ms: Floats
    twin_e2e_ms: Floats
    peer_e2e_ms: Floats
    twin_duration_s: float
    peer_duration_s: float


def from_zero(trace: Trace) -> Trace:
    """The trace with its first arrival at time 0, as the peer has it."""
    return trace.between(float(trace.arrival_s[0]), float(np.nextafter(trace.end_s, np.inf)))


def environment() -> Path:
    """The Python of the peer's environment, made on first use. Raises Missing when it cannot be installed."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache_folder().parents[1] / "bench-peer" / digest
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        print(f"setting up {folder} from {LOCK.name}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        words = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        done = subprocess.run([*words, "--require-hashes", "-r", str(LOCK)], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise Missing(f"the peer could not be installed from {LOCK.name}: {said[-1]}")
        (folder / "ready").touch()
    return python


def versions() -> dict[str, str]:
    """What the lock pins, the simulator's package only."""
    pinned = next(line.split()[0] for line in LOCK.read_text().splitlines() if line.startswith("ai-dynamo-runtime"))
    name, _, number = pinned.partition("==")
    return {name: number}


def twin_of(line: Line, profile: Profile, replicas: int) -> Twin:
    """The twin with the line as its step time."""
    straight = profile.with_(
        name="line",
        step=StepTime(
            tokens=(1, 2),
            gemm_ms=(0.0, 0.0),
            decode_ms=0.0,
            kv_token_ms=line.kv_token_ms,
            prefill_token_ms=line.prefill_token_ms,
            prefill_pair_ms=0.0,
            fixed_ms=line.fixed_ms,
        ),
        kv_capacity_tokens=blocks_of(profile) * BLOCK_TOKENS,
    )
    pool = Pool(profile="line", replicas=Envelope(max=replicas, start=replicas), max_num_seqs=MAX_NUM_SEQS)
    known = TwinPool(pool, straight, "vllm", VLLM.ttft_bounds_s)
    return Twin(TwinService({"llm": known}, Router(kind="round_robin")), {"llm": FixedPolicy(replicas=replicas)})


def blocks_of(profile: Profile) -> int:
    """Whole KV blocks that a replica holds."""
    return profile.kv_capacity_tokens // BLOCK_TOKENS


def engine_of(line: Line, profile: Profile, folder: Path) -> dict[str, Any]:
    """The peer's engine with the line as its table."""
    far = 1e6
    both_ways = np.array([0.0, far])
    decode_ms = line.fixed_ms + line.kv_token_ms * both_ways
    np.savez(
        folder / "line.npz",
        prefill_isl=both_ways,
        prefill_ttft_ms=line.prefill_token_ms * both_ways,
        decode_active_kv_tokens=both_ways,
        decode_context_length=both_ways,
        decode_itl=np.stack([decode_ms, decode_ms], axis=1),
    )
    return {
        "backend": "vllm",
        "num_gpu_blocks": blocks_of(profile),
        "block_size": BLOCK_TOKENS,
        "max_num_seqs": MAX_NUM_SEQS,
        "max_num_batched_tokens": profile.max_batched_tokens,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "timing_model": {
            "type": "external",
            "provider": "dynamo_profile",
            "config": {"path": str(folder / "line.npz")},
        },
    }


def write_trace(trace: Trace, path: Path) -> None:
    """The trace in the peer's form (Mooncake's): no two prompts share a block."""
    block = 0
    with path.open("w") as file:
        rows = zip(trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
        for arrival_s, input_tokens, output_tokens in rows:
            blocks = -(-input_tokens // TRACE_BLOCK_TOKENS)
            row = {
                "timestamp": arrival_s * 1e3,
                "input_length": input_tokens,
                "output_length": output_tokens,
                "hash_ids": list(range(block, block + blocks)),
            }
            file.write(json.dumps(row) + "\n")
            block += blocks


@contextmanager
def replaying(python: Path) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A function that has the peer replay something, in a process that stays."""
    process = subprocess.Popen(
        [python, "-I", HERE / "peer_replay.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DYN_LOG": "error"},
    )
    assert process.stdin is not None and process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def replay(what: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(what), file=asked, flush=True)
        answer = answers.readline()
        if not answer:
            raise Missing(f"the peer ended with code {process.wait()}")
        summary: dict[str, Any] = json.loads(answer)
        return summary

    try:
        yield replay
    finally:
        asked.close()
        answers.close()
        process.wait()


def compared() -> Table:
    """Each case on both: requests a second, and how far apart their answers are."""
    profile = load_profile(H100)
    line = Line.of(profile)
    with tempfile.TemporaryDirectory() as folder, replaying(environment()) as replay:
        engine = engine_of(line, profile, Path(folder))

        def row(case: Case) -> Row:
            trace = case.trace()
            path = Path(folder) / "trace.jsonl"
            write_trace(trace, path)
            asked = {
                "trace": str(path),
                "trace_block_tokens": TRACE_BLOCK_TOKENS,
                "replicas": case.replicas,
                "engine": engine,
                "requests_to": None,
            }
            return _compared_row(twin_of(line, profile, case.replicas), Scenario(trace), replay, asked, Path(folder))

        rows = tuple(measured({"traffic": case.name, "replicas": case.replicas}, partial(row, case)) for case in CASES)
    formula = f"{line.fixed_ms:.4g} + {line.prefill_token_ms:.4g} P + {line.kv_token_ms:.4g} KV ms"
    remark = (
        f"Dynamo's replay ({sentence(versions())}; AISimulate's engine) and the twin on the same requests, {formula} a "
        f"step, {blocks_of(profile)} blocks of {BLOCK_TOKENS} tokens, at most {MAX_NUM_SEQS} sequences and "
        f"{profile.max_batched_tokens} tokens a step, round robin, no prefix cache. Requests a second of the play "
        f"alone, medians of {PAIRS} interleaved pairs. Differences are twin over peer, less 1; `within 1 %` is the "
        "share of requests whose end-to-end times agree so."
    )
    return Table("Against Dynamo's replay, fixed replicas", rows, remark)


def _compared_row(
    twin: Twin,
    scenario: Scenario,
    replay: Callable[[dict[str, Any]], dict[str, Any]],
    asked: dict[str, Any],
    folder: Path,
) -> Row:
    answers = _answers(twin, scenario, replay, asked, folder)
    twin_s, peer_s = [], []
    for _ in range(PAIRS):
        peer_s.append(float(replay(asked)["wall_time_ms"]) / 1e3)
        twin_s.append(statistics.median(twin.play(scenario).wall_s for _ in range(PLAYS_A_PAIR)))
    requests = len(scenario.trace)
    return {
        "requests": requests,
        "peer, requests/s": requests / statistics.median(peer_s),
        "twin, requests/s": requests / statistics.median(twin_s),
        "ratio": statistics.median(peer / twin for peer, twin in zip(peer_s, twin_s, strict=True)),
        "mean TTFT, twin, ms": float(answers.twin_ttft_ms.mean()),
        "TTFT differs": _apart(answers.twin_ttft_ms.mean(), answers.peer_ttft_ms.mean()),
        "mean e2e, twin, ms": float(answers.twin_e2e_ms.mean()),
        "e2e differs": _apart(answers.twin_e2e_ms.mean(), answers.peer_e2e_ms.mean()),
        "throughput differs": _apart(answers.peer_duration_s, answers.twin_duration_s),
        "within 1 %": float(np.mean(np.abs(answers.twin_e2e_ms / answers.peer_e2e_ms - 1) < 0.01)),
    }


def _apart(one: float, other: float) -> str:
    return f"{one / other - 1:+.3%}"


def _answers(
    twin: Twin,
    scenario: Scenario,
    replay: Callable[[dict[str, Any]], dict[str, Any]],
    asked: dict[str, Any],
    folder: Path,
) -> Both:
    """What both say of each request; the plays that are not counted. Raises Missing when not all are answered."""
    path = folder / "requests.json"
    summary = replay({**asked, "requests_to": str(path)})
    rows = json.loads(path.read_text())
    seen = twin.play(scenario)
    arrival_s, requests = scenario.trace.arrival_s, len(scenario.trace)
    finished = int(np.isfinite(seen.finish_s).sum())
    if not finished == int(summary["completed_requests"]) == requests:
        raise Missing(f"of {requests} requests the twin finished {finished}, the peer {summary['completed_requests']}")
    if int(summary["total_output_tokens"]) != int(scenario.trace.output_tokens.sum()):
        raise Missing("the peer made another number of output tokens")
    return Both(
        (seen.first_token_s - arrival_s) * 1e3,
        np.array(rows["ttft_ms"]),
        (seen.finish_s - arrival_s) * 1e3,
        np.array(rows["e2e_latency_ms"]),
        float(seen.finish_s.max()),
        float(summary["duration_ms"]) / 1e3,
    )


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.peer", description=__doc__)
    options.add_argument("--json", action="store_true", help="one JSON object on stdout")
    as_json = options.parse_args().json
    here = {**machine(), **versions()}
    try:
        table = compared()
    except Missing as reason:
        sys.exit(f"skipped: {reason}")
    if as_json:
        print(json.dumps({"machine": here, **table._asdict()}, indent=1))
    else:
        print(f"{sentence(here)}\n\n{markdown(table)}", end="")


if __name__ == "__main__":
    main()
