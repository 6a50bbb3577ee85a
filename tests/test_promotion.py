"""Promotion to a directory: what a reader sees, what the ledger says, what a kill leaves behind."""

from __future__ import annotations

import json
import multiprocessing
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fluid_platform import hpa
from tests.test_judge import INCUMBENT, played, verdict
from tiphys import promotion
from tiphys.documents import read_yaml, to_json
from tiphys.errors import InputError, PromotionRefused
from tiphys.promotion import PolicyDocuments, history, promote, promotion_diff, rollback, rollback_diff

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def render(policy: PolicyDocuments) -> dict[str, list[dict[str, Any]]]:
    return {f"{pool}.yaml": [{"kind": "Scaler", "spec": document}] for pool, document in policy.items()}


def run_folder(path: Path, target: float = 6.0, gpu_seconds: float = 800.0) -> Path:
    """A run whose challenger has this target and takes so many GPU-seconds to the incumbent's 1000."""
    path.mkdir(parents=True)
    (path / "verdict.json").write_text(to_json(verdict(played(hpa(target), gpu_seconds)).document()))
    return path


def target_in(folder: Path) -> float:
    """The target that a reader of the folder finds, the same in the policy and in its manifest."""
    policy = read_yaml(folder / "policy.yaml")
    manifest = read_yaml(folder / "manifests" / "llm.yaml")
    assert manifest["spec"] == policy
    return float(policy["metrics"][0]["target"])


def test_a_promotion_puts_policy_and_manifests_in_force_and_says_so_in_the_run(tmp_path: Path) -> None:
    run, target = run_folder(tmp_path / "run-1"), tmp_path / "promoted"
    entry = promote(run, target, render=render, now=NOON)
    assert target_in(target) == 6.0
    assert (entry.action, entry.run, entry.decision, entry.forced) == ("promote", "run-1", "promote", False)
    assert entry.gpu_seconds_ratio == pytest.approx(0.8)
    assert json.loads((run / "verdict.json").read_text())["promoted_to"]["entry"] == entry.entry


def test_the_ledger_begins_with_the_incumbent_so_that_there_is_a_way_back(tmp_path: Path) -> None:
    promote(run_folder(tmp_path / "run"), tmp_path / "promoted", render=render, now=NOON)
    assert [(e.entry, e.action, e.replaces) for e in history(tmp_path / "promoted")] == [
        (1, "adopt", None),
        (2, "promote", 1),
    ]
    rollback(tmp_path / "promoted", now=NOON)
    assert target_in(tmp_path / "promoted") == 4.0


def test_a_verdict_to_keep_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", gpu_seconds=990.0)
    with pytest.raises(PromotionRefused, match="is 'keep'"):
        promote(run, tmp_path / "promoted", render=render, now=NOON)
    assert not (tmp_path / "promoted").exists()


def test_a_forced_promotion_is_marked_in_the_ledger(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", gpu_seconds=990.0)
    entry = promote(run, tmp_path / "promoted", render=render, now=NOON, force=True)
    assert entry.forced and entry.decision == "keep"


def test_the_same_policy_is_not_promoted_twice(tmp_path: Path) -> None:
    run, target = run_folder(tmp_path / "run"), tmp_path / "promoted"
    assert promote(run, target, render=render, now=NOON) == promote(run, target, render=render, now=NOON)
    assert len(history(target)) == 2


def three_promotions(tmp_path: Path) -> Path:
    target = tmp_path / "promoted"
    for number in (6, 7, 8):
        promote(run_folder(tmp_path / f"run-{number}", float(number)), target, render=render, now=NOON)
    return target


def test_rolling_back_again_and_again_goes_ever_further_back(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    seen = [target_in(target)]
    for _ in range(3):
        rollback(target, now=NOON)
        seen.append(target_in(target))
    assert seen == [8.0, 7.0, 6.0, 4.0]
    with pytest.raises(InputError, match="nothing before"):
        rollback(target, now=NOON)


def test_a_rollback_to_an_entry_puts_that_entry_in_force(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    entry = rollback(target, 2, now=NOON)
    assert (entry.restores, target_in(target)) == (2, 6.0)
    with pytest.raises(InputError, match="1 to 5"):
        rollback(target, 9, now=NOON)


def test_a_rollback_where_nothing_was_promoted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was promoted"):
        rollback(tmp_path, now=NOON)


def test_a_version_that_was_changed_by_hand_is_not_rolled_back_to(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    (target / "versions" / "0003" / "policy.yaml").write_text("kind: fixed\n")
    with pytest.raises(InputError, match="changed or removed"):
        rollback(target, now=NOON)
    assert target_in(target) == 8.0


def test_a_dry_run_shows_the_difference_as_kubectl_diff_does_and_changes_nothing(tmp_path: Path) -> None:
    run, target = run_folder(tmp_path / "run"), tmp_path / "promoted"
    text = promotion_diff(run, target, render=render)
    assert not target.exists()
    assert text.startswith(
        "diff -u -N LIVE/manifests/llm.yaml MERGED/manifests/llm.yaml\n--- LIVE/manifests/llm.yaml\n+++ MERGED/"
    )
    assert "\n-- {signal: running, type: AverageValue, target: 4.0}\n" in text
    assert "\n+- {signal: running, type: AverageValue, target: 6.0}\n" in text
    promote(run, target, render=render, now=NOON)
    assert promotion_diff(run, target, render=render) == ""
    assert "\n+- {signal: running, type: AverageValue, target: 4.0}\n" in rollback_diff(target)


def test_a_torn_last_line_of_the_ledger_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    ledger = target / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b'{"entry": 5, "ti')
    assert len(history(target)) == 4
    rollback(target, now=NOON)
    assert [e.entry for e in history(target)] == [1, 2, 3, 4, 5]
    assert ledger.read_bytes().startswith(whole)


def test_a_damaged_line_within_the_ledger_is_an_error_that_names_it(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    ledger = target / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match="line 2 is damaged"):
        history(target)


class Killed(BaseException):
    """Stands for the end of the process at a chosen system call."""


@pytest.mark.parametrize("call", range(12))
def test_a_promotion_killed_anywhere_leaves_the_old_policy_or_the_new_and_the_next_one_goes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    target = tmp_path / "promoted"
    promote(run_folder(tmp_path / "run-6", 6.0), target, render=render, now=NOON)
    run = run_folder(tmp_path / "run-7", 7.0)
    left = [call]
    fsync = os.fsync

    def dying(descriptor: int) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(promotion.os, "fsync", dying)
        try:
            promote(run, target, render=render, now=NOON)
        except Killed:
            assert call < 8
    assert target_in(target) in (6.0, 7.0)
    promote(run, target, render=render, now=NOON)
    assert target_in(target) == 7.0
    assert [e.action for e in history(target)] == ["adopt", "promote", "promote"]


def promote_one(tmp_path: Path, number: int) -> None:
    promote(tmp_path / f"run-{number}", tmp_path / "promoted", render=render, now=NOON)


def test_promotions_at_one_time_come_one_after_the_other(tmp_path: Path) -> None:
    for number in range(5, 9):
        run_folder(tmp_path / f"run-{number}", float(number) + 0.5)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=promote_one, args=(tmp_path, number)) for number in range(5, 9)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    entries = history(tmp_path / "promoted")
    assert [e.entry for e in entries] == [1, 2, 3, 4, 5]
    assert [e.replaces for e in entries] == [None, 1, 2, 3, 4]
    assert {e.run for e in entries[1:]} == {f"run-{number}" for number in range(5, 9)}


def test_a_reader_that_resolves_the_version_first_never_sees_a_mixture(tmp_path: Path) -> None:
    target = three_promotions(tmp_path)
    reader = (target / "current").resolve()
    rollback(target, now=NOON)
    assert target_in(reader) == 8.0
    assert target_in((target / "current").resolve()) == 7.0


def test_an_unwritable_target_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        promote(run_folder(tmp_path / "run"), tmp_path / "file", render=render, now=NOON)


def test_a_run_without_a_verdict_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"verdict\.json"):
        promote(tmp_path, tmp_path / "promoted", render=render, now=NOON)


def test_the_incumbent_of_these_tests_is_another_policy() -> None:
    assert hpa(6.0) != INCUMBENT


def test_a_folder_that_is_in_use_for_another_workload_is_refused_and_stays(tmp_path: Path) -> None:
    def render_for(workload: str) -> promotion.Render:
        def scaler(policy: PolicyDocuments) -> dict[str, list[dict[str, Any]]]:
            spec = {"scaleTargetRef": {"name": workload}, "policy": dict(policy)}
            return {"scaling.yaml": [{"kind": "Scaler", "metadata": {"namespace": "serve"}, "spec": spec}]}

        return scaler

    target = tmp_path / "promoted"
    promote(run_folder(tmp_path / "one"), target, render=render_for("chat-llm"), now=NOON)
    with pytest.raises(PromotionRefused, match="holds the policy of serve/chat-llm, this one is of serve/code-llm"):
        promote(run_folder(tmp_path / "two", target=9.0), target, render=render_for("code-llm"), now=NOON)
    assert len(history(target)) == 2
