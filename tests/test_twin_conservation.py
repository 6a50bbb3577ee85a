"""What must hold of every recording: requests are conserved, GPU time is the area under the replicas."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.oracle.scenes import random_scene
from tiphys.domain.scorecard import score
from tiphys.domain.slo import Objective, Slo

SEEDS = range(200, 240)


@pytest.mark.parametrize("seed", SEEDS)
def test_requests_in_are_finished_failed_or_in_flight(seed: int) -> None:
    scene = random_scene(seed)
    recording = scene.twin()
    finished, failed = np.isfinite(recording.finish_s), recording.failed
    in_flight = ~finished & ~failed
    assert not (finished & failed).any()
    assert finished.sum() + failed.sum() + in_flight.sum() == len(scene.scenario.trace)
    if in_flight.any():
        assert recording.end_s == scene.scenario.horizon_s + scene.scenario.drain_s
    else:
        assert recording.end_s <= scene.scenario.horizon_s + scene.scenario.drain_s
    trace = scene.scenario.trace
    assert (recording.first_token_s[finished] > trace.arrival_s[finished]).all()
    single = trace.output_tokens == 1
    assert (recording.first_token_s[finished & single] == recording.finish_s[finished & single]).all()
    assert (recording.first_token_s[finished & ~single] < recording.finish_s[finished & ~single]).all()
    too_long = trace.input_tokens + trace.output_tokens > (scene.pool.kv_capacity_tokens or 0)
    assert failed[too_long].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_gap_between_tokens_is_counted_once(seed: int) -> None:
    scene = random_scene(seed)
    recording = scene.twin()
    gaps = int((scene.scenario.trace.output_tokens - 1).sum())
    counted = int(recording.pools["llm"].itl_counts.sum())
    # steps after the horizon are not scored, and what did not finish has fewer
    all_scored = np.isfinite(recording.finish_s).all() and recording.end_s == scene.scenario.horizon_s
    assert counted == gaps if all_scored else counted <= gaps


@pytest.mark.parametrize("seed", SEEDS)
def test_gpu_seconds_are_the_area_under_the_replica_curve(seed: int) -> None:
    scene = random_scene(seed)
    recording = scene.twin()
    life = recording.pools["llm"].life
    horizon_s = scene.scenario.horizon_s
    edges = np.unique(np.concatenate([[0.0, horizon_s], life.created_s, life.gone_s]))
    edges = edges[edges <= horizon_s]
    area = 0.0
    for left, right in pairwise(edges):
        middle = (left + right) / 2
        area += float(((life.created_s <= middle) & (middle < life.gone_s)).sum()) * (right - left)
    assert life.seconds_within(0.0, horizon_s) == pytest.approx(area, rel=1e-9)
    if not np.isfinite(recording.finish_s).any():
        return  # nothing finished, nothing to score
    card = score(recording, Slo(objectives=(Objective(metric="ttft", at_most_s=2.0, share=0.9),)))
    assert card.gpu_seconds == pytest.approx(area * scene.pool.gpus_per_replica, rel=1e-9)
    assert card.requests == len(scene.scenario.trace)
