"""Runs of a KPA revision as vectors, with the answers of the second implementation.

`python -m tests.oracle.kpa_runs` writes them anew.

A run plays a policy against loads drawn from a seed; every answer of the second implementation is written down with the
step that it belongs to.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.oracle.kpa import Kpa, Outcome
from tiphys.domain.settings import KnativeSettings
from tiphys.domain.values import parse
from tiphys.policies.kpa.spec import KpaPolicy

FILE = Path(__file__).parent.parent / "vectors_extra" / "kpa_runs.json"
ANSWERS = (
    "replicas", "want", "proxy", "activators", "look_again_s", "condition", "reason", "desired", "excess",
    "panic_since_s",
)  # fmt: skip
SCENES: tuple[tuple[str, dict[str, Any], dict[str, Any], int, int], ...] = (
    ("from zero and back", {"replicas": {"min": 0, "max": 9}, "target": 8, "initial_scale": 3}, {}, 0, 0),
    (
        "a short window with a delay",
        {"replicas": {"min": 0, "max": 9}, "target": 3, "window_s": 6, "scale_down_delay_s": 7, "activation_scale": 2,
         "target_burst_capacity": 0},
        {"max_scale_up_rate": 2.0},
        3,
        3,
    ),
    (
        "requests per second, weighted",
        {"replicas": {"min": 1, "max": 20}, "metric": "rps", "window_s": 15, "panic_window_ratio": 0.3,
         "aggregation": "weighted-exponential", "panic_threshold_ratio": 1.5},
        {"rps_target_default": 6.0, "rps_target_utilization_ratio": 0.5},
        2,
        2,
    ),
    (
        "unlimited capacity with a retained pod",
        {"replicas": {"min": 0, "max": 5}, "window_s": 6, "pod_retention_s": 25, "target_burst_capacity": -1,
         "container_concurrency": 4, "target_utilization_ratio": 1.0},
        {"scale_to_zero_grace_s": 8.0},
        1,
        1,
    ),
    (
        "a new revision with an initial scale",
        {"replicas": {"min": 0, "max": 9}, "initial_scale": 3, "window_s": 20, "progress_deadline_s": 5},
        {"container_concurrency_target_default": 6.0, "target_burst_capacity": 10.0, "pod_retention_s": 3.0},
        3,
        0,
    ),
    (
        "the cluster's own windows, no zero",
        {"replicas": {"min": 0, "max": 9}, "target": 5},
        {"stable_window_s": 10, "panic_window_ratio": 0.5, "panic_threshold_ratio": 3.0, "scale_to_zero": False,
         "scale_down_delay_s": 5, "concurrency_target_utilization_ratio": 0.9, "activator_capacity": 3.0,
         "progress_deadline_s": 40, "max_scale_down_rate": 4.0},
        4,
        4,
    ),
    (
        "none allowed at the start",
        {"replicas": {"min": 0, "max": 9}, "target": 5, "initial_scale": 0, "window_s": 8},
        {"allow_zero_initial_scale": True, "initial_scale": 2},
        1,
        0,
    ),
)  # fmt: skip


def run(
    title: str, document: dict[str, Any], cluster: dict[str, Any], replicas: int, ready: int, seed: int
) -> dict[str, Any]:
    """One case: some minutes of seconds, most of them with reports, every other one with a tick."""
    rng = random.Random(seed)
    policy, settings = parse(KpaPolicy, {"kind": "kpa", **document}), KnativeSettings(**cluster)
    oracle = Kpa(policy, settings, replicas, ready, 0.0)
    case = {"replicas": replicas, "ready": ready, "policy": document, "settings": cluster}
    steps: list[list[Any]] = []
    now_s = 0.0
    for _ in range(7):
        load, hangs, reachable = rng.choice([0, 0, 1, 7.5, 40]), rng.random() < 0.3, rng.random() < 0.9
        silent, counted = rng.random() < 0.15, rng.random() < 0.8
        for _ in range(rng.randrange(4, 26)):
            now_s += 1
            if not silent and (load or ready):
                oracle.record(now_s, load)
                steps.append(["record", now_s, load])
            looks = now_s % 2 == 1
            if looks and rng.random() < 0.7:
                continue
            seen = ready if counted else None
            for what in ("look",) if looks else ("tick", "look") if rng.random() < 0.3 else ("tick",):
                outcome = getattr(oracle, what)(now_s, seen, replicas, reachable)
                steps.append([what, now_s, seen, replicas, reachable, answers(outcome)])
                replicas = replicas if outcome.replicas is None else outcome.replicas
            ready = min(ready, replicas) if hangs else replicas
    return {"title": title, "function": "kpa_run", **case, "steps": steps}


def answers(outcome: Outcome) -> list[Any]:
    return [getattr(outcome, name) for name in ANSWERS]


def main() -> None:
    runs = [run(*scene, seed=seed) for seed, scene in enumerate(SCENES * 2)]
    origin = {"origin": "second-implementation", "upstream_test": None}
    lines = [json.dumps({"id": f"xr-{number + 1:03d}", **origin, **each}) for number, each in enumerate(runs)]
    head = {"format": "autoscaler-vectors/1", "suite": "kpa", "source": {"project": "tiphys", "license": "Apache-2.0"}}
    text = json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
