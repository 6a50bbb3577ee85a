"""Record vectors from a real Prometheus: `python -m tests.promql.record PROMETHEUS [FOLDER]`, about two minutes.

The server scrapes the scripted exporter for a while. What it then holds is read back with its own timestamps; the
questions hang on those. Of stale markers the API shows only that a series is gone, so the millisecond at which each
begins is searched for. The server is started again over the same data, scraping nothing, for each lookback.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.promql.exporter import TIMEOUT_MS, Exporter
from tests.promql.questions import DEFAULT_LOOKBACK_MS, SHORT_LOOKBACK_MS, Question, Rows, questions
from tests.promql.script import INTERVALS_MS, LENGTH_S, TARGETS, Target
from tests.promql.server import Prometheus, running, version_of
from tests.promql.shapes import promql
from tests.promql.vectors import FOLDER, FORMAT, Document, differences_of, json_text

Recorded = dict[str, Any]


def record(binary: str, folder: Path) -> Path:
    """Scrape, ask, and write `prometheus-<version>.json`."""
    version = version_of(binary)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        with running(binary, home, _config(home)) as server:
            epoch_ms = time.time_ns() // 1_000_000_000 * 1000
            seen_gone = _scrape(server, home)
        # the server scrapes no more: a config without jobs leaves what was scraped as it is
        with running(binary, home, "") as server:
            targets = {target.name: _read_back(server, target, epoch_ms) for target in TARGETS}
            order = _order(server)
        _note(f"read {sum(len(target['time_ms']) for target in targets.values())} rows back")
        asked = questions({name: Rows(t["time_ms"], [bool(s) for s in t["stale"]]) for name, t in targets.items()})
        answers: dict[int, list[float]] = {}
        for lookback_ms in (DEFAULT_LOOKBACK_MS, SHORT_LOOKBACK_MS):
            with running(binary, home, "", [f"--query.lookback-delta={lookback_ms}ms"]) as server:
                for number, question in enumerate(asked):
                    if question.lookback_ms == lookback_ms:
                        answers[number] = _answer(server, question, epoch_ms)
    document: Document = {
        "format": FORMAT,
        "prometheus": version,
        "epoch_ms": epoch_ms,
        "dropped": _dropped(targets, seen_gone, epoch_ms),
        "order": order,
        "targets": targets,
        "vectors": [_vector(number, question, answers[number]) for number, question in enumerate(asked)],
    }
    for vector in document["vectors"]:
        vector["differs"] = differences_of(document, vector, version)
    file = folder / f"prometheus-{version}.json"
    file.write_text(json_text(document), encoding="utf-8")
    _note(f"{file}: {len(asked)} vectors of Prometheus {version}")
    return file


def _config(home: Path) -> str:
    jobs = [
        {
            "job_name": job,
            "scrape_interval": f"{interval_ms}ms",
            "scrape_timeout": f"{TIMEOUT_MS}ms",
            "file_sd_configs": [{"files": [str(home / f"{job}.json")]}],
        }
        for job, interval_ms in INTERVALS_MS.items()
    ]
    return json.dumps({"scrape_configs": jobs})


def _scrape(server: Prometheus, home: Path) -> dict[str, int]:
    """Play the script; when, by target, a dropped target's series were first seen to be gone."""
    exporter = Exporter()
    begin_s = time.monotonic()
    seen_gone: dict[str, int] = {}
    watched = {target.name for target in TARGETS if target.lost_s is not None}
    listed: set[str] = set()
    while (at_s := time.monotonic() - begin_s) < LENGTH_S:
        due = {target.name for target in TARGETS if target.listed(at_s)}
        if due != listed:
            _discover(home, exporter.address, due)
            listed = due
        for name in sorted(watched - due - set(seen_gone)):
            now_ms = time.time_ns() // 1_000_000
            if exporter.scrapes[name] and not server.ask(f'running{{target="{name}"}}', now_ms):
                seen_gone[name] = now_ms
        time.sleep(0.02)
    return seen_gone


def _discover(home: Path, address: str, listed: set[str]) -> None:
    for job in INTERVALS_MS:
        groups = [
            {"targets": [address], "labels": {"__metrics_path__": f"/metrics/{target.name}", "target": target.name}}
            for target in TARGETS
            if target.job == job and target.name in listed
        ]
        scratch = home / f"{job}.tmp"
        scratch.write_text(json.dumps(groups), encoding="utf-8")
        scratch.rename(home / f"{job}.json")


def _read_back(server: Prometheus, target: Target, epoch_ms: int) -> Recorded:
    """All rows of a target as Prometheus holds them, times from `epoch_ms`."""
    name, interval_ms = target.name, INTERVALS_MS[target.job]
    now_ms = time.time_ns() // 1_000_000
    columns: dict[str, list[float]] = {}
    buckets: dict[str, dict[float, list[float]]] = {}
    times: set[tuple[int, ...]] = set()
    for labels, samples in server.ask(f'{{target="{name}"}}[10m]', now_ms):
        series = labels["__name__"]
        if series == "up" or series.startswith("scrape_"):
            continue
        times.add(tuple(round(at * 1000) for at, _ in samples))
        values = [float(value) for _, value in samples]
        if "le" in labels:
            buckets.setdefault(series.removesuffix("_bucket"), {})[float(labels["le"])] = values
        else:
            columns[series] = values
    if len(times) != 1:
        raise SystemExit(f"{name}: its series have different timestamps; the exporter shows all of them or none")
    sampled = list(times.pop())
    watched = f'{{target="{name}", __name__!~"up|scrape_.*"}}'
    markers = _markers(server, watched, sampled, now_ms, interval_ms)
    rows = sorted([*((at_ms, 0) for at_ms in sampled), *((at_ms, 1) for at_ms in markers)])
    place = {at_ms: number for number, at_ms in enumerate(sampled)}
    order = [place.get(at_ms) for at_ms, _ in rows]
    return {
        "interval_ms": interval_ms,
        "time_ms": [at_ms - epoch_ms for at_ms, _ in rows],
        "stale": [stale for _, stale in rows],
        "series": {series: _laid_out(values, order) for series, values in sorted(columns.items())},
        "histograms": {
            series: {
                "bounds": sorted(bound for bound in by_bound if bound != float("inf")),
                "buckets": [_laid_out(by_bound[bound], order) for bound in sorted(by_bound)],
            }
            for series, by_bound in sorted(buckets.items())
        },
    }


def _order(server: Prometheus) -> list[str]:
    """Targets in the order in which the server goes through their series, and so adds them up."""
    found = server.ask("last_over_time(requests_total[10m])", time.time_ns() // 1_000_000)
    return [labels["target"] for labels, _ in found]


def _laid_out(values: Sequence[float], order: Sequence[int | None]) -> list[float | None]:
    return [None if number is None else values[number] for number in order]


def _markers(server: Prometheus, series: str, sampled: Sequence[int], now_ms: int, interval_ms: int) -> list[int]:
    """When stale markers stand: the first millisecond after a sample at which the series are gone."""
    found = []
    for before_ms, after_ms in zip(sampled, [*sampled[1:], now_ms], strict=True):
        # only a gap can hold one, or the end: a scrape that the server's own end cuts short counts as failed
        held = after_ms - before_ms >= 1.5 * interval_ms or after_ms == now_ms
        if not held or server.ask(series, after_ms - 1):
            continue
        alive_ms, gone_ms = before_ms, after_ms - 1
        while gone_ms - alive_ms > 1:
            middle_ms = (alive_ms + gone_ms) // 2
            if server.ask(series, middle_ms):
                alive_ms = middle_ms
            else:
                gone_ms = middle_ms
        found.append(gone_ms)
    return found


def _answer(server: Prometheus, question: Question, epoch_ms: int) -> list[float]:
    elements = server.ask(promql(question.shape), epoch_ms + question.at_ms)
    if question.shape["form"] == "buckets":
        elements.sort(key=lambda element: float(element[0]["le"]))
    return [float(samples[0][1]) for _, samples in elements]


def _dropped(targets: Mapping[str, Recorded], seen_gone: Mapping[str, int], epoch_ms: int) -> list[Recorded]:
    """The marker of every target that discovery dropped, and when it could first be seen."""
    found = []
    for name, at_ms in sorted(seen_gone.items()):
        target = targets[name]
        marker_ms = target["time_ms"][target["stale"].index(1)]
        interval_ms, seen_ms = target["interval_ms"], at_ms - epoch_ms
        found.append({"target": name, "interval_ms": interval_ms, "marker_ms": marker_ms, "seen_ms": seen_ms})
    return found


def _vector(number: int, question: Question, answer: Sequence[float]) -> Recorded:
    return {
        "id": f"{question.kind.replace(' ', '-')}-{number}",
        "kind": question.kind,
        "promql": promql(question.shape),
        "at_ms": question.at_ms,
        "lookback_ms": question.lookback_ms,
        "shape": question.shape,
        "expected": [repr(value) for value in answer],
    }


def _note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    record(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER)
