"""A platform made of a fluid queue: enough physics for search and judge to have something to find, in a millisecond."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tiphys.domain.platform import Policy, ScalingPolicy, Transition
from tiphys.domain.recording import ITL_BINS, PoolRecording, Recording, ReplicaLife
from tiphys.domain.scenario import Scenario
from tiphys.domain.slo import Objective, Slo
from tiphys.domain.trace import Trace
from tiphys.policies import FixedPolicy, HpaMetric, HpaPolicy, SchedulePolicy
from tiphys.policies.common import ReplicaBounds
from tiphys.policies.schedule.rules import replicas_at, schedule_rules
from tiphys.policies.space import PolicySpace

STEP_S = 5.0
SERVICE_S = 2.0
RATE_PER_REPLICA = 4.0
COLD_START_S = 60.0
SLO = Slo(objectives=(Objective(metric="ttft", at_most_s=5.0, share=0.9),), failed_at_most=0.01)


def hpa(target: float, low: int = 1, high: int = 8) -> HpaPolicy:
    """An HPA on running requests."""
    metric = HpaMetric.model_validate_json(f'{{"signal": "running", "type": "AverageValue", "target": {target}}}')
    return HpaPolicy(replicas=ReplicaBounds(min=low, max=high), metrics=(metric,))


def hpa_space(name: str = "hpa-running") -> PolicySpace:
    document = {
        "kind": "hpa",
        "replicas": {"min": {"between": [1, 4]}, "max": {"between": [4, 8]}},
        "metrics": [{"signal": "running", "type": "AverageValue", "target": {"between": [1, 64], "log": True}}],
    }
    return PolicySpace(document, name, published=hpa(4.0))


def fixed_space(name: str = "fixed") -> PolicySpace:
    return PolicySpace({"kind": "fixed", "replicas": {"between": [1, 8]}}, name, published=FixedPolicy(replicas=8))


def wave(seed: int = 1, minutes: int = 30, mean_per_s: float = 12.0) -> Trace:
    """Poisson arrivals whose rate swings by half every ten minutes."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson([mean_per_s * (1 + 0.5 * math.sin(2 * math.pi * s / 600)) for s in range(minutes * 60)])
    arrival = np.sort(np.repeat(np.arange(minutes * 60), counts) + rng.random(counts.sum()))
    tokens = np.full(len(arrival), 10, np.int32)
    return Trace(arrival, tokens, tokens, f"wave-{seed}", minutes * 60.0)


@dataclass
class FluidPlatform:
    """One pool, `llm`: work flows in, each replica serves `RATE_PER_REPLICA` requests a second after its cold start.

    `plays` is a folder in which every play leaves a file, for tests that count them across processes.
    """

    in_force: Mapping[str, ScalingPolicy] = field(default_factory=lambda: {"llm": hpa(4.0)})
    plays: Path | None = None
    play_s: float = 0.0

    def incumbent(self) -> Policy:
        return self.in_force

    def apply(self, policy: Policy) -> Transition:
        self.in_force = dict(policy)
        return Transition()

    def play(self, scenario: Scenario) -> Recording:
        if self.plays is not None:
            (self.plays / f"{time.monotonic_ns()}-{os.getpid()}").touch()
        busy_until = time.perf_counter() + self.play_s
        while time.perf_counter() < busy_until:
            pass
        return _play(self.in_force["llm"], scenario)


def _play(policy: ScalingPolicy, scenario: Scenario) -> Recording:
    rate = RATE_PER_REPLICA / scenario.perturbation.step_time
    cold_s = COLD_START_S * scenario.perturbation.cold_start
    steps = int(scenario.horizon_s / STEP_S) + 1
    load = np.bincount((scenario.trace.arrival_s / STEP_S).astype(int), minlength=steps)
    phase = int(np.random.default_rng(scenario.seed).integers(3))
    created, removed = [0.0] * _wish(policy, 0.0, scenario.starts_at_s), []
    backlog, waits = 0.0, np.zeros(steps)
    for step in range(steps):
        now = step * STEP_S
        living = len(created) - len(removed)
        ready = max(1, sum(now >= at + (cold_s if at > 0 else 0.0) for at in created) - len(removed))
        served = ready * rate * STEP_S
        waits[step] = backlog / (ready * rate)
        backlog = max(0.0, backlog + load[step] - served)
        if step % 3 == phase:
            running = backlog + min(load[step] / STEP_S, ready * rate) * SERVICE_S
            wish = _wish(policy, running, scenario.starts_at_s + now)
            created += [now + 1e-9] * max(0, wish - living)
            removed += [now] * max(0, living - wish)
    first = scenario.trace.arrival_s + waits[(scenario.trace.arrival_s / STEP_S).astype(int)]
    gone = np.array(removed + [np.inf] * (len(created) - len(removed)))
    birth = np.array(created)
    life = ReplicaLife(birth, birth + cold_s * (birth > 0), gone, gone)
    pool = PoolRecording(1, life, np.zeros(0, [("at_s", "f8")]), np.zeros(ITL_BINS, np.int64))
    failed = np.zeros(len(first), bool)
    return Recording(
        scenario.trace,
        first,
        first + SERVICE_S,
        failed,
        {"llm": pool},
        scenario.warmup_s,
        scenario.horizon_s,
        scenario.horizon_s,
        scenario.seed,
    )


def _wish(policy: ScalingPolicy, running: float, now: float) -> int:
    if isinstance(policy, SchedulePolicy):
        return replicas_at(schedule_rules(policy), now)
    if isinstance(policy, FixedPolicy):
        return policy.replicas
    assert isinstance(policy, HpaPolicy)
    bounds, target = policy.replicas, float(policy.model_dump(mode="json")["metrics"][0]["target"])
    return max(bounds.min, min(bounds.max, math.ceil(running / target)))
