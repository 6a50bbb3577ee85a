"""Services, traffic and policies that are measured, all by the twin's public face."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.tables import Missing
from tiphys.configs import config_names
from tiphys.dialects import VLLM
from tiphys.domain.platform import Policy, ScalingPolicy
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope, Pool
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.experiment import Experiment, Plan
from tiphys.policies import load_policy
from tiphys.policies.fixed import FixedPolicy
from tiphys.profiles import load_profile
from tiphys.twin import Twin, TwinPool, TwinService

RUNS = 5
L40S = "llama31-8b_l40s_vllm_tp1"
H100 = "llama31-8b_h100_vllm_tp1"


def published(name: str) -> ScalingPolicy:
    """A shipped policy. Raises Missing where it is not shipped (yet)."""
    if name not in config_names("policies"):
        raise Missing(f"configs/policies has no {name}")
    return load_policy(name)  # type: ignore[return-value]


def published_of(kind: str) -> ScalingPolicy:
    """The first shipped policy of a law. Raises Missing where there is none."""
    names = [name for name in config_names("policies") if name.startswith(f"published-{kind}")]
    if not names:
        raise Missing(f"configs/policies has no published-{kind}")
    return published(names[0])


def one_pool(policy: ScalingPolicy, replicas: Envelope, profile: str = L40S, jump: bool = True) -> Twin:
    """A service of one pool under a policy."""
    pool = Pool(profile=profile, replicas=replicas)
    known = TwinPool(pool, load_profile(pool.profile), "vllm", VLLM.ttft_bounds_s)
    in_force: Policy = {"llm": policy}
    return Twin(TwinService({"llm": known}), in_force, jump)


def fixed(replicas: int) -> FixedPolicy:
    """A constant number of replicas."""
    return FixedPolicy(replicas=replicas)


def rag() -> Twin:
    """Embedder, reranker and llm behind a route. Raises InputError or Missing where there are no routes."""
    pools = {
        "embed": ("nv-embedqa-1b_h100_vllm_tp1", 1),
        "rerank": ("nv-rerankqa-1b_h100_vllm_tp1", 2),
        "llm": (H100, 2),
    }
    document: dict[str, Any] = {
        "api_version": "tiphys/v1",
        "name": "rag",
        "service": {
            "name": "rag",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "backend": {"kind": "vllm"},
            "pools": {
                name: {"profile": profile, "replicas": {"min": 1, "max": 8, "start": start}}
                for name, (profile, start) in pools.items()
            },
            "route": {"kind": "rag"},
        },
        "traffic": {"source": {"kind": "profile", "name": "azure2023-conv"}},
        "slo": {"objectives": [{"metric": "ttft", "at_most_s": 2.0, "share": 0.9}]},
        "incumbent": dict.fromkeys(pools, "published-hpa-running"),
        "search": {"spaces": {"llm": ["hpa-running"]}},
    }
    twin: Twin = Plan(parse(Experiment, document, "benchmark"), Path("benchmark.yaml")).twin()
    return twin


def poisson(requests: int, per_s: float, input_tokens: float, output_tokens: float, seed: int = 1) -> Trace:
    """Poisson arrivals from time 0 on; log-normal lengths about two medians, sigma 0.6."""
    rng = np.random.default_rng([seed, requests])
    arrival_s = np.cumsum(rng.exponential(1.0 / per_s, requests))
    inputs, outputs = (
        np.maximum(2, np.round(rng.lognormal(np.log(median), 0.6, requests))).astype(np.int32)
        for median in (input_tokens, output_tokens)
    )
    return Trace(arrival_s - arrival_s[0], inputs, outputs, f"Poisson {per_s:g}/s")


def first(trace: Trace, requests: int) -> Trace:
    """The first requests of a trace."""
    if requests >= len(trace):
        return trace
    return trace.between(0.0, float(np.nextafter(trace.arrival_s[requests - 1], np.inf)))


def wall_s(twin: Twin, scenario: Scenario, runs: int = RUNS) -> float:
    """The median wall time of a play, after one that is not counted."""
    twin.play(scenario)
    return statistics.median(twin.play(scenario).wall_s for _ in range(runs))
