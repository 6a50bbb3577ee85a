"""`make bench`: how fast the twin is on this machine, as medians of several runs; nothing here is asserted.

Prints Markdown: a day of a million requests with HPA and KEDA in the loop, cost by number of requests, jumping against
the per-iteration path, first compilation in an empty cache, and the whole of `tiphys run` on the chat experiment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.real_traces import trace_file
from tiphys.dialects import VLLM
from tiphys.domain.platform import Policy
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope, Pool
from tiphys.domain.trace import Trace
from tiphys.policies import load_policy
from tiphys.profiles import load_profile
from tiphys.traffic import open_trace
from tiphys.twin import Twin, TwinPool, TwinService

ROOT = Path(__file__).resolve().parent.parent
TIPHYS = str(Path(sys.executable).with_name("tiphys"))
RUNS = 5
DAY = "servegen-mlarge-day8"


def twin(policy: str, jump: bool = True, profile: str = "llama31-8b_l40s_vllm_tp1") -> Twin:
    """A service of one pool under a published policy."""
    pool = Pool(profile=profile, replicas=Envelope(max=8, start=4))
    known = TwinPool(pool, load_profile(pool.profile), "vllm", VLLM.ttft_bounds_s)
    in_force: Policy = {"llm": load_policy(policy)}  # type: ignore[dict-item]
    return Twin(TwinService({"llm": known}), in_force, jump)


def wall_s(platform_: Twin, trace: Trace, runs: int = RUNS) -> float:
    """The median wall time of a play, after one that is not counted."""
    scenario = Scenario(trace)
    platform_.play(scenario)
    return statistics.median(platform_.play(scenario).wall_s for _ in range(runs))


def first(trace: Trace, requests: int) -> Trace:
    """The first requests of a trace."""
    return trace.between(0.0, float(np.nextafter(trace.arrival_s[requests - 1], np.inf)))


def day(trace: Trace) -> list[str]:
    """The million-request day under each law."""
    rows = ["| law | wall s, median | us a request |", "| --- | --: | --: |"]
    for policy in ("published-hpa-ttft", "published-hpa-running", "published-keda-running"):
        seconds = wall_s(twin(policy), trace)
        rows.append(f"| {policy} | {seconds:.3f} | {seconds / len(trace) * 1e6:.3f} |")
    return rows


def by_size(trace: Trace) -> list[str]:
    """Cost by number of requests: linear is a constant last column."""
    rows = ["| requests | wall s, median | us a request |", "| --: | --: | --: |"]
    for requests in (10_000, 100_000, len(trace)):
        part = first(trace, requests) if requests < len(trace) else trace
        seconds = wall_s(twin("published-hpa-running"), part)
        rows.append(f"| {len(part)} | {seconds:.4f} | {seconds / len(part) * 1e6:.3f} |")
    return rows


def jumping() -> list[str]:
    """Jumping against the per-iteration path on the same traffic."""
    rows = ["| traffic | jumping s | per iteration s | ratio |", "| --- | --: | --: | --: |"]
    for name, length in (("azure2023-conv", 1), ("azure2023-conv, answers x8", 8)):
        trace = open_trace(trace_file("azure2023-conv")).trace
        trace = Trace(trace.arrival_s, trace.input_tokens, trace.output_tokens * length, trace.name, trace.end_s)
        fast, slow = (
            wall_s(twin("published-hpa-running", jump, "llama31-8b_h100_vllm_tp1"), trace) for jump in (True, False)
        )
        rows.append(f"| {name} | {fast:.4f} | {slow:.4f} | {slow / fast:.1f} |")
    return rows


def command(*arguments: str, cache: Path | None = None) -> tuple[float, str]:
    """Wall seconds and standard output of a `tiphys` command."""
    environment = os.environ | ({"TIPHYS_CACHE": str(cache)} if cache else {})
    began = time.perf_counter()
    done = subprocess.run(
        [TIPHYS, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    return time.perf_counter() - began, done.stdout


def compilation() -> list[str]:
    """The first command ever on a machine, and the second."""
    with tempfile.TemporaryDirectory() as folder:
        short = ("simulate", "chat", "--set", "traffic.scale=0.05", "--json")
        cold, _ = command(*short, cache=Path(folder))
        warm = statistics.median(command(*short, cache=Path(folder))[0] for _ in range(RUNS))
    return [f"First compilation: {cold - warm:.1f} s. The same command afterwards: {warm:.2f} s in all."]


def memory(trace_path: Path) -> list[str]:
    """Peak memory of `tiphys simulate` on the day, everything included."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [TIPHYS, "simulate", "day", "--trace", str(trace_path), "--json"]
    done = subprocess.run([sys.executable, "-c", script, *words], check=True, capture_output=True, text=True, cwd=ROOT)
    return [f"`tiphys simulate day --trace {trace_path.name}`: {int(done.stdout) / 1024:.0f} MB at its peak."]


def whole_run() -> list[str]:
    """`tiphys run` on the chat experiment at its 300 trials, with two workers."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"promotion.target.path={folder}/promoted"
        seconds, out = command("run", "chat", "--out", folder, "--set", target, "--json")
    verdict = json.loads(out)
    return [f"`tiphys run chat`: {seconds:.0f} s, {verdict['decision']}: {verdict['reason']}"]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="leave out compilation and the whole run")
    quick = options.parse_args().quick
    path = trace_file(DAY)
    trace = open_trace(path).trace
    parts = [day(trace), by_size(trace), jumping(), memory(path)]
    if not quick:
        parts += [compilation(), whole_run()]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, medians of {RUNS} runs\n")
    for part in parts:
        print("\n".join(part) + "\n")


if __name__ == "__main__":
    main()
