"""What takes a process of its own: workers, memory, first compilation, the whole command."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench.plays import DAY
from tests.bench.services import RUNS, first, fixed, one_pool, poisson, published, published_of
from tests.bench.tables import Row, Table, measured
from tests.real_traces import trace_file
from tiphys.domain.platform import Policy, trial
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope
from tiphys.domain.slo import Objective, Slo
from tiphys.search.workers import Workers
from tiphys.traffic import open_trace
from tiphys.twin import Twin

ROOT = Path(__file__).resolve().parents[2]
TIPHYS = str(Path(sys.executable).with_name("tiphys"))
_TRIALS = 24
_SLO = Slo(objectives=(Objective(metric="ttft", at_most_s=2.0, share=0.9),))
_PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


class Tried(NamedTuple):
    """What every trial is played on; sent to each worker once."""

    twin: Twin
    scenarios: tuple[Scenario, ...]


def tried(on: Tried, policy: Policy) -> float:
    """GPU-seconds of one trial, in a worker."""
    return sum(trial(on.twin, policy, scenario, _SLO).gpu_seconds for scenario in on.scenarios)


def workers() -> Table:
    """Trials of the search a second, on one and on two processes."""
    return Table(
        "Trials through the search's pool of workers, twice 100,000 requests each",
        (measured({"policy": "hpa, running"}, _workers_row),),
        f"{_TRIALS} trials after one on each process that is not counted; this machine has {os.cpu_count()} cores.",
    )


def _workers_row() -> Row:
    trace = open_trace(trace_file(DAY)).trace
    part = Scenario(first(trace, 100_000))
    policy = published("published-hpa-running")
    on = Tried(one_pool(policy, Envelope(max=8, start=4)), (part, part.seeded(2)))
    alone, together = (_trials_per_s(on, {"llm": policy}, count) for count in (1, 2))
    return {"one, trials/s": alone, "two, trials/s": together, "ratio": together / alone}


def _trials_per_s(on: Tried, policy: Policy, count: int) -> float:
    with Workers(tried, on, count) as processes:
        list(processes.results([policy] * 2))
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            list(processes.results([policy] * _TRIALS))
            seconds.append(time.perf_counter() - began)
    return _TRIALS / statistics.median(seconds)


def memory() -> Table:
    """Memory by request beyond the trace itself, and of the whole command on the day."""
    rows = (
        measured({"what": "bytes a request beyond the trace, hpa (1 to 3 million)"}, _slope_row),
        measured({"what": "tiphys simulate day, peak of the whole process, MB"}, _command_row),
    )
    return Table("Memory", rows)


def _slope_row() -> Row:
    least, most = 1_000_000, 3_000_000
    few, many = (_play_bytes(requests) for requests in (least, most))
    return {"value": (many - few) / (most - least)}


def _play_bytes(requests: int) -> int:
    """Bytes that a play adds, at its peak, to a process that holds the trace already."""
    return int(_in_python(f"from tests.bench.processes import play_alone; print(play_alone({requests}))"))


def play_alone(requests: int) -> int:
    """Peak of this process over what it held before the play; for a fresh process."""
    twin = one_pool(published("published-hpa-running"), Envelope(max=8, start=4))
    twin.play(Scenario(poisson(10_000, 11.5, 800, 60)))
    trace = poisson(requests, 11.5, 800, 60)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    twin.play(Scenario(trace))
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _command_row() -> Row:
    words = [TIPHYS, "simulate", "day", "--trace", str(trace_file(DAY)), "--json"]
    done = subprocess.run([sys.executable, "-c", _PEAK, *words], check=True, capture_output=True, text=True, cwd=ROOT)
    return {"value": int(done.stdout) / 1024}


def compilation() -> Table:
    """The first use of everything on a machine: one process, an empty cache folder."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TIPHYS_CACHE": folder}
        script = "from tests.bench.processes import everything; print(everything())"
        cold, laws = _timed_python(script, environment)
        again = [_timed_python(script, environment)[0] for _ in range(3)]
    warm = statistics.median(again)
    row = {"first, s": cold, "afterwards, s": warm, "compilation, s": cold - warm}
    return Table("First compilation in an empty cache", ({"plays": laws.strip(), **row},))


def everything() -> str:
    """A short play under every law that is there; their names."""
    known = []
    scenario = Scenario(poisson(200, 5.0, 800, 60))
    for name in ("fixed", "hpa", "keda", "kpa", "schedule"):
        row = measured({}, partial(_short_play, name, scenario))
        known += [] if "skipped" in row else [name]
    return ", ".join(known)


def _short_play(law: str, scenario: Scenario) -> Row:
    policy = fixed(2) if law == "fixed" else published_of(law)
    one_pool(policy, Envelope(max=8, start=2)).play(scenario)
    return {}


def whole_run() -> Table:
    """`tiphys run` on the chat experiment at its 300 trials, with two workers."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"promotion.target.path={folder}/promoted"
        began = time.perf_counter()
        words = [TIPHYS, "run", "chat", "--out", folder, "--set", target, "--json"]
        done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
        seconds = time.perf_counter() - began
    verdict = json.loads(done.stdout)
    row = {"command": "tiphys run chat", "s": seconds, "verdict": f"{verdict['decision']}: {verdict['reason']}"}
    return Table("The whole pipeline", (row,))


def _timed_python(script: str, environment: dict[str, str]) -> tuple[float, str]:
    began = time.perf_counter()
    out = _in_python(script, environment)
    return time.perf_counter() - began, out


def _in_python(script: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    return done.stdout
