"""Jumping over idle stretches of decode iterations against taking every iteration, on 200,000 requests."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.oracle.scenes import Scene, profile_of
from tiphys.domain.profile import StepTime
from tiphys.domain.recording import Recording
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import ColdStart, Envelope, Pool
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.policies.hpa.spec import HpaPolicy

REQUESTS = 200_000
WITHIN_S = 1e-6
STEP = StepTime(
    tokens=(1, 64, 256, 1024), gemm_ms=(6.0, 6.5, 8.0, 20.0), decode_ms=0.01, kv_token_ms=1e-5, prefill_token_ms=0.002,
    prefill_pair_ms=1e-6, fixed_ms=1.0,
)  # fmt: skip
LOADS = {"low": 2.0, "middle": 300.0, "saturating": 1200.0}
"""Requests per second on at most four replicas, which together manage some 600."""


def busy_scene(load: str, admission: str) -> Scene:
    """HPA in the loop, a KV cache so small that a saturating load preempts, log-normal lengths."""
    rng = np.random.default_rng([7, int(LOADS[load])])
    arrival = np.cumsum(rng.exponential(1 / LOADS[load], REQUESTS))
    inputs = np.clip(rng.lognormal(5, 0.8, REQUESTS), 1, 2000).astype(np.int32)
    outputs = np.clip(rng.lognormal(3.6, 0.8, REQUESTS), 1, 500).astype(np.int32)
    policy = {
        "kind": "hpa", "replicas": {"min": 1, "max": 4},
        "metrics": [
            {"signal": "running", "type": "AverageValue", "target": 8},
            {"signal": "ttft_p90", "type": "Value", "target": 0.5, "window_s": 60},
        ],
        "behavior": {"scale_down": {"stabilization_s": 60}},
    }  # fmt: skip
    pool = Pool(
        profile="test", replicas=Envelope(min=1, max=4), cold_start=ColdStart(median_s=20, p95_s=30), max_num_seqs=64,
        max_batched_tokens=1024, kv_capacity_tokens=16_000, admission=admission,  # type: ignore[arg-type]
    )  # fmt: skip
    scenario = Scenario(Trace(arrival, inputs, outputs, load), drain_s=50_000, start_replicas={"llm": 2})
    return Scene(profile_of(STEP), pool, parse(HpaPolicy, policy), scenario)


@cache
def both(load: str, admission: str) -> tuple[Recording, Recording]:
    scene = busy_scene(load, admission)
    return scene.twin(jump=True), scene.twin(jump=False)


CASES = [("low", "vllm"), ("middle", "vllm"), ("saturating", "vllm"), ("saturating", "trtllm_no_evict")]


@pytest.mark.parametrize(("load", "admission"), CASES)
def test_jumping_gives_the_recording_of_every_iteration(load: str, admission: str) -> None:
    jumping, stepping = both(load, admission)
    assert np.isfinite(stepping.finish_s).sum() > 0.5 * REQUESTS
    for name in ("first_token_s", "finish_s"):
        ours, theirs = getattr(jumping, name), getattr(stepping, name)
        assert (np.isfinite(ours) == np.isfinite(theirs)).all()
        came = np.isfinite(theirs)
        assert np.abs(ours[came] - theirs[came]).max() <= WITHIN_S
    assert (jumping.failed == stepping.failed).all()
    assert jumping.preemptions == stepping.preemptions
    assert jumping.replica_of_request is not None
    assert stepping.replica_of_request is not None
    assert (jumping.replica_of_request == stepping.replica_of_request).all()
    ours_life, theirs_life = jumping.pools["llm"].life, stepping.pools["llm"].life
    assert [n for _, n in ours_life.wanted_log()] == [n for _, n in theirs_life.wanted_log()]
    ours_times = [t for t, _ in ours_life.wanted_log()]
    np.testing.assert_allclose(ours_times, [t for t, _ in theirs_life.wanted_log()], rtol=0, atol=WITHIN_S)


def test_the_loads_are_what_they_are_called() -> None:
    waits = {load: float(np.nanmedian(_ttft(both(load, "vllm")[0]))) for load in LOADS}
    assert waits["low"] < 0.05
    assert waits["low"] < waits["middle"] < 100 < waits["saturating"]
    assert both("saturating", "vllm")[0].preemptions > 100
    assert both("saturating", "trtllm_no_evict")[0].preemptions == 0


def _ttft(recording: Recording) -> np.ndarray:
    return np.where(np.isfinite(recording.first_token_s), recording.first_token_s - recording.trace.arrival_s, np.nan)
