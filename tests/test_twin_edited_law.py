"""A law that is edited takes effect in the next run, compiled code in the cache or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiphys
from tests.stories.scenes import hpa, per_replica, scene

REPOSITORY = Path(__file__).parents[1]
LAW = Path("tiphys/policies/hpa/calculator.py")
ROUNDS_UP = "return math.ceil(min(max(wanted,"
ROUNDS_DOWN = "return math.floor(min(max(wanted,"

ONE_PROPOSAL = """
import numpy as np
from tiphys.policies.hpa.calculator import Pods, Tolerance
from tiphys.policies.keda.poll import keda_hpa_desired
pods = Pods(0, np.zeros(1, np.int8), np.zeros(1, np.int8), np.zeros(1), np.zeros(1), np.zeros(1, np.bool_))
print(keda_hpa_desired(29000, 5000, False, 4, 4, pods, Tolerance(0.1, 0.1)).replicas)
"""

ONE_PLAY = """
from tests.test_twin_edited_law import three_on_a_target_of_two
print(three_on_a_target_of_two())
"""


def three_on_a_target_of_two() -> list[tuple[float, int]]:
    """Three requests run on one replica under a target of two: 1.5 replicas, rounded up."""
    play = scene(hpa(per_replica("running", 2), 5), [(1.0, 1, 60), (1.5, 1, 59), (1.5, 1, 59)], until_s=50)
    return play.twin().pools["llm"].life.wanted_log()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package that may be edited."""
    ignored = shutil.ignore_patterns("__pycache__", "configs")
    shutil.copytree(Path(tiphys.__file__).parent, tmp_path / "tiphys", ignore=ignored)
    return tmp_path


def run(copy: Path, script: str) -> str:
    """What a script prints in a fresh process that imports the copy and compiles into the copy's own cache."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(copy), str(REPOSITORY)]), "TIPHYS_CACHE": str(copy / "cache"),
    }  # fmt: skip
    command = [sys.executable, "-c", f"import tiphys\nassert tiphys.__file__.startswith({str(copy)!r})\n{script}"]
    return subprocess.run(command, env=environment, cwd=copy, capture_output=True, text=True, check=True).stdout.strip()


def edit(copy: Path) -> None:
    """Round the replicas of a value down instead of up."""
    law = copy / LAW
    text = law.read_text()
    assert text.count(ROUNDS_UP) == 1
    law.write_text(text.replace(ROUNDS_UP, ROUNDS_DOWN))


def test_a_cached_caller_in_another_file_obeys_the_edited_law(copied: Path) -> None:
    # numba's own cache looks only at the caller's file, which does not change here
    assert run(copied, ONE_PROPOSAL) == "6"
    assert any((copied / "cache").rglob("*.nbi"))
    assert run(copied, ONE_PROPOSAL) == "6"
    edit(copied)
    assert run(copied, ONE_PROPOSAL) == "5"


def test_the_next_play_of_the_twin_obeys_the_edited_law(copied: Path) -> None:
    # compiles the whole event loop once more: the slowest test there is
    assert three_on_a_target_of_two() == [(0, 1), (15, 2)]
    edit(copied)
    assert run(copied, ONE_PLAY) == "[(0.0, 1)]"
