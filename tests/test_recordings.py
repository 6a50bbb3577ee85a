"""A recording of several pools, classes, tiers and faults comes back from its file."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np

from tests.test_scorecard import CLASSES, PLACED, SPEC, TIERS, offline, pool, recording
from tiphys.domain.faults import ReplicaCrash
from tiphys.domain.recording import JobTimes
from tiphys.domain.scorecard import score
from tiphys.domain.slo import Objective, Slo
from tiphys.recordings import read_recording, write_recording

JOBS = JobTimes(np.array([1.0]), np.array([1.5]), np.array([np.inf]), np.array([True]), np.array([3], np.int32))


def same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if is_dataclass(a):
        return all(same(getattr(a, each.name), getattr(b, each.name)) for each in fields(a))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def test_everything_of_a_route_on_nodes_comes_back(tmp_path: Path) -> None:
    crash = ReplicaCrash(kind="replica_crash", at_s=3.0, pool="llm")
    play = recording(
        [0.5, 9.0, 0.5], [1.0, float("inf"), 1.0], [0, 1, 0],
        pools={"embed": pool(), "llm": pool(PLACED, JOBS)}, classes=CLASSES, tiers=TIERS, faults=(crash,),
        offline=offline(SPEC, (0.0, 250.0, 255.0, False)),
    )  # fmt: skip
    write_recording(tmp_path / "play.parquet", play)
    found = read_recording(tmp_path / "play.parquet").recording
    assert same(play, found)
    slo = Slo(objectives=(Objective(metric="ttft", at_most_s=1.0, share=0.5, pool="llm"),))
    assert score(found, slo) == score(play, slo)


def test_a_recording_of_one_pool_says_nothing_of_what_it_has_not(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_recording(tmp_path / "play.parquet", recording([0.5], [1.0]))
    table = pq.read_table(tmp_path / "play.parquet")
    assert b"around" not in table.schema.metadata[b"tiphys.play"]
    assert "class" not in table.column_names
    assert same(read_recording(tmp_path / "play.parquet").recording, recording([0.5], [1.0]))
