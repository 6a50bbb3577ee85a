"""What a change of the scene must do to the recording, whatever the recording is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.oracle.scenes import Scene, random_scene
from tiphys.domain.recording import Recording
from tiphys.domain.service import ColdStart
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.experiment import Plan, load_experiment
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import Behavior, HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.twin.play import Room

LIVES = ("created_s", "ready_s", "removed_s", "gone_s")


def fingerprint(recording: Recording) -> tuple[bytes, ...]:
    """Every array of a recording, to the bit."""
    pool = recording.pools["llm"]
    arrays = [recording.first_token_s, recording.finish_s, recording.failed, pool.itl_counts, pool.decisions]
    arrays += [getattr(pool.life, name) for name in LIVES]
    return (*(array.tobytes() for array in arrays), str((recording.end_s, recording.preemptions)).encode())


@pytest.mark.parametrize("seed", range(300, 310))
def test_the_same_seed_gives_the_same_recording_bit_for_bit(seed: int) -> None:
    scene = random_scene(seed)
    first = fingerprint(scene.twin())
    random_scene(seed + 1).twin()
    assert fingerprint(scene.twin()) == first
    other = replace(scene, scenario=scene.scenario.seeded(seed + 1000))
    assert fingerprint(other.twin()) != first or isinstance(scene.policy, FixedPolicy)


def test_another_process_gives_the_same_recording_bit_for_bit() -> None:
    script = (
        "import hashlib; from tests.oracle.scenes import random_scene; "
        "from tests.test_twin_metamorphic import fingerprint; "
        "print(hashlib.sha256(b''.join(fingerprint(random_scene(301).twin()))).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


# --- stretching


def explicit(behavior: Behavior | None, stabilization_s: float) -> Behavior | None:
    """The same behavior with the API's defaults written out, so that they can be stretched."""
    if behavior is None:
        return None
    document = behavior.document()
    up, down = document.setdefault("scale_up", {}), document.setdefault("scale_down", {})
    hundred = {"type": "Percent", "value": 100, "period_s": 15}
    up.setdefault("policies", [{"type": "Pods", "value": 4, "period_s": 15}, hundred])
    up.setdefault("stabilization_s", 0)
    down.setdefault("policies", [hundred])
    down.setdefault("stabilization_s", int(stabilization_s))
    return parse(Behavior, document)


def stretched_behavior(behavior: Behavior | None, factor: int) -> Behavior | None:
    if behavior is None:
        return None
    document = behavior.document()
    for rules in document.values():
        rules["stabilization_s"] = rules.get("stabilization_s", 0) * factor
        for policy in rules["policies"]:
            policy["period_s"] *= factor
    return parse(Behavior, document)


def stretched_policy(policy: HpaPolicy | KedaPolicy | FixedPolicy, factor: int) -> HpaPolicy | KedaPolicy | FixedPolicy:
    """Every duration of a policy, latency targets included."""
    if isinstance(policy, FixedPolicy):
        return policy
    behavior = stretched_behavior(policy.behavior, factor)
    if isinstance(policy, HpaPolicy):
        metrics = tuple(
            m if m.window_s is None else m.with_(window_s=m.window_s * factor, target=m.target * factor)
            for m in policy.metrics
        )
        return policy.with_(metrics=metrics, behavior=behavior)
    triggers = tuple(
        t if t.window_s is None  # type: ignore[union-attr]
        else t.with_(
            window_s=t.window_s * factor, threshold=t.threshold * factor,  # type: ignore[union-attr]
            activation=None if t.activation is None else t.activation * factor,  # type: ignore[union-attr]
        )
        for t in policy.triggers
    )  # fmt: skip
    return policy.with_(
        triggers=triggers, behavior=behavior, polling_interval_s=policy.polling_interval_s * factor,
        cooldown_s=policy.cooldown_s * factor, initial_cooldown_s=policy.initial_cooldown_s * factor,
    )  # fmt: skip


def stretched(scene: Scene, factor: int) -> Scene:
    """The scene with every duration multiplied; latencies are observed in coarser units to match."""
    scenario, pool, settings = scene.scenario, scene.pool, scene.scenario.settings
    trace = scenario.trace
    hpa, scrape, cold = settings.hpa, settings.scrape, pool.cold_start
    return Scene(
        scene.profile,
        pool.with_(
            cold_start=ColdStart(
                median_s=cold.median_s * factor, p95_s=cold.p95_s * factor, pending_s=cold.pending_s * factor
            ),
            termination_grace_s=pool.termination_grace_s * factor,
        ),
        stretched_policy(scene.policy, factor),
        replace(
            scenario,
            trace=Trace(trace.arrival_s * factor, trace.input_tokens, trace.output_tokens, "s", trace.end_s * factor),
            drain_s=scenario.drain_s * factor,
            perturbation=scenario.perturbation.with_(step_time=scenario.perturbation.step_time * factor),
            settings=settings.with_(
                hpa=hpa.with_(
                    sync_period_s=hpa.sync_period_s * factor, pass_s=hpa.pass_s * factor,
                    downscale_stabilization_s=hpa.downscale_stabilization_s * factor,
                ),
                scrape=scrape.with_(interval_s=scrape.interval_s * factor, lookback_s=scrape.lookback_s * factor),
            ),
        ),
        scene.router,
        tuple(bound * factor for bound in scene.bounds_s),
    )  # fmt: skip


def base_scene(seed: int) -> Scene:
    scene = random_scene(seed)
    if isinstance(scene.policy, FixedPolicy):
        return scene
    behavior = explicit(scene.policy.behavior, scene.scenario.settings.hpa.downscale_stabilization_s)
    return replace(scene, policy=scene.policy.with_(behavior=behavior))


# A factor of two changes only the exponents of doubles, so that nothing may move at all but a latency cut off at its
# third decimal: these seeds have no decision that hangs on that.
@pytest.mark.parametrize("seed", range(400, 440))
def test_stretching_every_duration_stretches_the_recording_and_nothing_else(seed: int) -> None:
    scene = base_scene(seed)
    plain, twice = scene.twin(), stretched(scene, 2).twin()
    np.testing.assert_allclose(twice.first_token_s, plain.first_token_s * 2, rtol=1e-12)
    np.testing.assert_allclose(twice.finish_s, plain.finish_s * 2, rtol=1e-12)
    assert (twice.failed == plain.failed).all()
    assert twice.end_s == pytest.approx(plain.end_s * 2)
    for name in LIVES:
        ours, theirs = getattr(twice.pools["llm"].life, name), getattr(plain.pools["llm"].life, name)
        np.testing.assert_allclose(ours, theirs * 2, rtol=1e-12)
    desired = [list(r.pools["llm"].decisions["desired"]) for r in (twice, plain)]
    assert desired[0] == desired[1]


def test_a_play_that_runs_out_of_places_for_pods_is_begun_again_to_the_same_end() -> None:
    plan = Plan(*load_experiment("code", {"search.seed": 3}))
    restless = parse(
        HpaPolicy,
        {
            "kind": "hpa",
            "replicas": {"min": 1, "max": 8},
            "metrics": [{"signal": "waiting", "type": "AverageValue", "target": 0.5}],
            "behavior": {"scale_down": {"stabilization_s": 0}},
        },
    )
    small, large = plan.twin(), plan.twin()
    small.apply({"llm": restless})
    large.apply({"llm": restless})
    large._room = Room(pods=1024)
    first = small.play(plan.whole())
    assert len(first.pools["llm"].life.created_s) > 32, "the scene must outgrow the first places"
    assert fingerprint(first) == fingerprint(large.play(plan.whole()))
