"""Small random scenes, and both implementations playing one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle.play import Account, AnyPolicy, Chances, play
from tests.oracle.worlds import RandomWorld, random_world
from tiphys.dialects.base import VLLM_TTFT_BOUNDS_S
from tiphys.domain.profile import FitError, Profile, ProfileSource, StepTime
from tiphys.domain.recording import Recording
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import ColdStart, Envelope, Perturbation, Pool, Router
from tiphys.domain.settings import ClusterSettings, HpaSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.twin import Twin, TwinPool, TwinService
from tiphys.twin.randomness import cold_starts_s, hpa_phase_s, keda_phase_s, scrape_phases_s

__all__ = ["RandomWorld", "Scene", "flat_step", "profile_of", "random_scene", "random_world"]

LEAST_OUTSTANDING = Router()
PODS = 400
"""Creation numbers that chances are drawn for: more than any scene creates."""


def profile_of(step: StepTime, *, kv_capacity_tokens: int = 1_000_000, max_batched_tokens: int = 8192) -> Profile:
    """A profile around step times."""
    return Profile(
        name="test", model="test", gpu="test", engine="vllm", tensor_parallel=1, max_batched_tokens=max_batched_tokens,
        kv_capacity_tokens=kv_capacity_tokens, kv_bytes_per_token=1, max_sequence_tokens=1_000_000, step=step,
        fit_error=FitError(points=1, median_ratio=0, p95_ratio=0, max_ratio=0),
        source=ProfileSource(
            tool="test", tool_version="1", system="test", backend="vllm", backend_version="1", quantization="none"
        ),
    )  # fmt: skip


def flat_step(milliseconds: float) -> StepTime:
    """Steps of constant time."""
    return StepTime(
        tokens=(0, 1), gemm_ms=(0, 0), decode_ms=0, kv_token_ms=0, prefill_token_ms=0, prefill_pair_ms=0,
        fixed_ms=milliseconds,
    )  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One pool under a policy, and what is played on it."""

    profile: Profile
    pool: Pool
    policy: AnyPolicy
    scenario: Scenario
    router: Router = LEAST_OUTSTANDING
    bounds_s: tuple[float, ...] = VLLM_TTFT_BOUNDS_S

    @property
    def start_replicas(self) -> int:
        return self.scenario.start_replicas.get("llm", self.pool.replicas.at_start)

    def twin(self, jump: bool = True) -> Recording:
        """The twin's recording."""
        pool = TwinPool(self.pool, self.profile, self.pool.admission or "vllm", self.bounds_s)
        return Twin(TwinService({"llm": pool}, self.router), {"llm": self.policy}, jump).play(self.scenario)

    def chances(self) -> Chances:
        """What the seed stands for."""
        settings, seed = self.scenario.settings, self.scenario.seed
        scrape, hpa = settings.scrape, settings.hpa
        poll_s = self.policy.polling_interval_s if isinstance(self.policy, KedaPolicy) else 1.0
        return Chances(
            cold_starts_s(self.pool.cold_start, self.scenario.perturbation.cold_start, seed, PODS).tolist(),
            scrape_phases_s(scrape.interval_s, scrape.phase_s, seed, PODS).tolist(),
            hpa_phase_s(hpa.sync_period_s + hpa.pass_s, hpa.phase_s, seed),
            keda_phase_s(poll_s, settings.keda.phase_s, seed),
        )

    def oracle(self) -> Account:
        """The second implementation's account."""
        return play(
            self.profile, self.pool, self.router, self.policy, self.scenario, self.chances(),
            bounds_s=self.bounds_s, admission="vllm", start_replicas=self.start_replicas,
        )  # fmt: skip


# --- random scenes


def random_scene(seed: int) -> Scene:
    """A scene of 20 to 300 requests and some minutes; real-valued times, so that nothing coincides."""
    rng = np.random.default_rng([seed, 20260])
    duration_s = float(rng.uniform(60, 600))
    kv_capacity = int(rng.choice([300, 600, 2000, 100_000]))
    trace = _trace(rng, duration_s, kv_capacity)
    most = int(rng.integers(2, 7))
    pool = Pool(
        profile="test",
        replicas=Envelope(min=1, max=most),
        cold_start=_cold_start(rng),
        max_num_seqs=int(rng.choice([1, 2, 4, 8, 64])),
        max_batched_tokens=int(rng.choice([7, 16, 64, 256, 2048])),
        kv_capacity_tokens=kv_capacity,
        admission=str(rng.choice(["vllm", "trtllm_no_evict"])),  # type: ignore[arg-type]
        termination_grace_s=float(rng.choice([0.5, 5.0, 30.0, 300.0])) * float(rng.uniform(0.9, 1.1)),
    )
    scenario = Scenario(
        trace,
        seed=seed,
        drain_s=float(rng.choice([20.0, 200.0, 600.0])),
        start_replicas={"llm": int(rng.integers(1, 5))},
        settings=_settings(rng),
        perturbation=Perturbation(step_time=float(rng.choice([0.8, 1.0, 1.2]))),
    )
    router = Router(kind=str(rng.choice(["least_outstanding", "round_robin"])))  # type: ignore[arg-type]
    profile = profile_of(_step(rng))
    return Scene(profile, pool, _policy(rng, most), scenario, router, _bounds(rng))


def _trace(rng: np.random.Generator, duration_s: float, kv_capacity: int) -> Trace:
    n = int(rng.integers(20, 301))
    weights = rng.random(6) ** 2
    part = rng.choice(6, n, p=weights / weights.sum())
    arrival = np.sort((part + rng.random(n)) * duration_s / 6)
    most = max(kv_capacity // 3, 2)
    inputs = np.minimum(np.maximum(1, rng.lognormal(4, 1, n)), most).astype(int)
    outputs = np.minimum(np.maximum(1, rng.lognormal(3, 1, n)), most).astype(int)
    if rng.random() < 0.2:
        outputs[rng.integers(n)] = kv_capacity  # what no replica can ever hold
    return Trace(arrival, inputs, outputs, "random", duration_s)


def _cold_start(rng: np.random.Generator) -> ColdStart:
    median_s = float(rng.uniform(1, 90))
    return ColdStart(
        median_s=median_s, p95_s=median_s * float(rng.uniform(1.05, 2)), pending_s=float(rng.choice([0.0, 3.3, 10.1]))
    )


def _step(rng: np.random.Generator) -> StepTime:
    scale = float(rng.choice([0.3, 1, 3, 10]))
    points = np.sort(rng.choice(np.arange(1, 600), 4, replace=False)).tolist()
    return StepTime(
        tokens=tuple(points), gemm_ms=tuple((np.sort(rng.uniform(5, 60, 4)) * scale).tolist()),
        decode_ms=float(rng.uniform(0, 2)) * scale, kv_token_ms=float(rng.uniform(0, 0.02)) * scale,
        prefill_token_ms=float(rng.uniform(0, 0.5)) * scale, prefill_pair_ms=float(rng.uniform(0, 0.002)) * scale,
        fixed_ms=float(rng.uniform(1, 40)) * scale,
    )  # fmt: skip


def _bounds(rng: np.random.Generator) -> tuple[float, ...]:
    return VLLM_TTFT_BOUNDS_S if rng.random() < 0.7 else (0.1, 0.5, 2.0, 5.0)


def _settings(rng: np.random.Generator) -> ClusterSettings:
    return ClusterSettings(
        hpa=HpaSettings(
            sync_period_s=float(rng.choice([5.0, 15.0])),
            pass_s=float(rng.uniform(0.01, 0.5)),
            downscale_stabilization_s=float(rng.choice([20.0, 60.0, 300.0])),
            configurable_tolerance=bool(rng.random() < 0.8),
        ),
        scrape=ScrapeSettings(
            interval_s=float(rng.choice([1.0, 5.0, 15.0])), lookback_s=float(rng.choice([12.0, 300.0]))
        ),
    )


def _policy(rng: np.random.Generator, most: int) -> AnyPolicy:
    kind = rng.choice(["hpa", "keda", "fixed"], p=[0.55, 0.4, 0.05])
    if kind == "fixed":
        return parse(FixedPolicy, {"kind": "fixed", "replicas": int(rng.integers(1, most + 1))})
    if kind == "hpa":
        least = int(rng.integers(1, most + 1))
        metrics = [_hpa_metric(rng) for _ in range(int(rng.integers(1, 3)))]
        document = {"kind": "hpa", "replicas": {"min": least, "max": most}, "metrics": metrics}
        return parse(HpaPolicy, _with_behavior(rng, document))
    return parse(KedaPolicy, _keda(rng, most))


def _signal(rng: np.random.Generator, averaged: bool) -> tuple[str, float]:
    """A signal and a target near which it moves."""
    signal = str(rng.choice(["running", "waiting", "kv_usage"] if averaged else ["ttft_p90", "ttft_p50", "kv_usage"]))
    if averaged and rng.random() < 0.1:
        signal = "ttft_p95"
    low, high = {"running": (1, 8), "waiting": (0.5, 6), "kv_usage": (0.05, 0.8)}.get(signal, (0.05, 5))
    return signal, round(float(np.exp(rng.uniform(np.log(low), np.log(high)))), 3)


def _window(rng: np.random.Generator, document: dict[str, Any]) -> dict[str, Any]:
    if str(document["signal"]).startswith("ttft"):
        return document | {"window_s": int(rng.choice([20, 60, 120]))}
    return document


def _hpa_metric(rng: np.random.Generator) -> dict[str, Any]:
    averaged = bool(rng.random() < 0.5)
    signal, target = _signal(rng, averaged)
    document: dict[str, Any] = {"signal": signal, "type": "AverageValue" if averaged else "Value", "target": target}
    if averaged and not signal.startswith("ttft") and rng.random() < 0.4:
        document["source"] = "pods"
    return _window(rng, document)


def _keda(rng: np.random.Generator, most: int) -> dict[str, Any]:
    least = int(rng.choice([0, 0, 1, 2]))
    document: dict[str, Any] = {
        "kind": "keda",
        "replicas": {"min": min(least, most), "max": most},
        "triggers": [_trigger(rng) for _ in range(int(rng.integers(1, 3)))],
        "polling_interval_s": int(rng.choice([5, 10, 30])),
        "cooldown_s": int(rng.choice([0, 20, 60])),
        "initial_cooldown_s": int(rng.choice([0, 100])),
    }
    if least == 2 and rng.random() < 0.5:
        document["idle_replicas"] = int(rng.integers(0, 2))
    if rng.random() < 0.4:
        kinds = ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]
        document["fallback"] = {
            "failure_threshold": int(rng.integers(0, 4)), "replicas": int(rng.integers(0, most + 1)),
            "behavior": str(rng.choice(kinds)),
        }  # fmt: skip
    return _with_behavior(rng, document)


def _trigger(rng: np.random.Generator) -> dict[str, Any]:
    averaged = bool(rng.random() < 0.6)
    signal, target = _signal(rng, averaged)
    document: dict[str, Any] = {
        "scaler": "prometheus", "signal": signal, "threshold": target,
        "metric_type": "AverageValue" if averaged else "Value", "ignore_null": bool(rng.random() < 0.5),
        "use_cached_metrics": bool(rng.random() < 0.2),
    }  # fmt: skip
    if rng.random() < 0.5:
        document["activation"] = target / 2
    return _window(rng, document)


def _with_behavior(rng: np.random.Generator, document: dict[str, Any]) -> dict[str, Any]:
    if rng.random() < 0.35:
        return document
    behavior = {}
    for direction in ("scale_up", "scale_down"):
        if rng.random() < 0.8:
            behavior[direction] = _rules(rng)
    return document | {"behavior": behavior}


def _rules(rng: np.random.Generator) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if rng.random() < 0.8:
        rules["stabilization_s"] = int(rng.choice([0, 10, 30, 60]))
    if rng.random() < 0.4:
        rules["select"] = str(rng.choice(["Max", "Min", "Min", "Disabled"]))
    if rng.random() < 0.7:
        rules["policies"] = [_rate(rng) for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.3:
        rules["tolerance"] = float(rng.choice([0.0, 0.05, 0.2, 0.5]))
    return rules


def _rate(rng: np.random.Generator) -> dict[str, Any]:
    kind = str(rng.choice(["Pods", "Percent"]))
    value = int(rng.integers(1, 4)) if kind == "Pods" else int(rng.choice([10, 50, 100]))
    return {"type": kind, "value": value, "period_s": int(rng.choice([15, 30, 60, 120]))}
