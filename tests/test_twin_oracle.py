"""The twin against a second implementation, on small random scenes with scaling in the loop."""

from __future__ import annotations

import numpy as np
import pytest

from tests.oracle.play import Account
from tests.oracle.scenes import random_scene
from tiphys.domain.recording import ITL_BINS, Recording, itl_upper_bounds_s
from tiphys.twin.decisions import HPA_PASS, KEDA_POLL

SCENES = 150
WITHIN_S = 1e-6


def times_agree(twin: np.ndarray, oracle: np.ndarray, until_s: float) -> bool:
    """Equal within the tolerance; what happens after `until_s` is the same as never."""
    twin, oracle = (np.where(times > until_s + WITHIN_S, np.inf, times) for times in (twin, oracle))
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(twin - oracle) <= WITHIN_S) | (twin == oracle)))


def hpa_passes(recording: Recording) -> list[tuple[float, float, float]]:
    """(time, wish, desired) of each HPA pass; wish is -1 where none was computed."""
    rows = recording.pools["llm"].decisions
    rows = rows[(rows["loop"] == HPA_PASS) & (rows["time_s"] <= recording.end_s)]
    return [(float(r["time_s"]), float(r["wish"]), float(r["desired"])) for r in rows]


def polls(recording: Recording) -> list[tuple[float, bool, bool, float]]:
    """(time, active, error, replicas) of each KEDA poll."""
    rows = recording.pools["llm"].decisions
    rows = rows[(rows["loop"] == KEDA_POLL) & (rows["time_s"] <= recording.end_s)]
    return [(float(r["time_s"]), bool(r["active"]), bool(r["error"]), float(r["desired"])) for r in rows]


def assert_agreement(twin: Recording, oracle: Account) -> None:
    """Replica lives, decisions, then every request."""
    until_s = twin.end_s
    expected = [
        (d.time_s, -1 if d.wish is None else d.wish, d.desired) for d in oracle.decisions if d.time_s <= until_s
    ]
    assert hpa_passes(twin) == [pytest.approx(row, abs=WITHIN_S) for row in expected]
    expected_polls = [(p.time_s, p.active, p.error, p.replicas) for p in oracle.polls if p.time_s <= until_s]
    assert polls(twin) == [pytest.approx(row, abs=WITHIN_S) for row in expected_polls]
    life = twin.pools["llm"].life
    for name in ("created_s", "removed_s", "gone_s"):
        theirs = np.array([getattr(r, name) for r in oracle.replicas if r.created_s <= until_s])
        ours = getattr(life, name)[life.created_s <= until_s]
        assert len(ours) == len(theirs)
        assert times_agree(ours, theirs, until_s), name
    for name in ("first_token_s", "finish_s"):
        theirs = np.array([getattr(r, name) for r in oracle.requests])
        assert times_agree(getattr(twin, name), theirs, until_s), name
    assert twin.failed.tolist() == [r.failed for r in oracle.requests]
    assert twin.replica_of_request is not None
    served = np.isfinite(twin.first_token_s)
    theirs = np.array([r.replica for r in oracle.requests])
    assert twin.replica_of_request[served].tolist() == theirs[served].tolist()
    assert twin.preemptions == oracle.preemptions


@pytest.mark.parametrize("seed", range(SCENES, SCENES + 50))
def test_the_second_implementation_sees_the_same_gaps_between_tokens(seed: int) -> None:
    scene = random_scene(seed)
    recording = scene.twin(jump=False)
    scored = scene.oracle().gaps_s(recording.warmup_s, recording.horizon_s)
    bounds = itl_upper_bounds_s()
    theirs = np.bincount(np.searchsorted(bounds, np.clip(scored, 0, bounds[-1]), side="right"), minlength=ITL_BINS)
    assert recording.pools["llm"].itl_counts.tolist() == theirs[:ITL_BINS].tolist()


@pytest.mark.parametrize("seed", range(SCENES))
def test_the_second_implementation_gives_the_same_requests_replicas_and_decisions(seed: int) -> None:
    scene = random_scene(seed)
    assert_agreement(scene.twin(), scene.oracle())
