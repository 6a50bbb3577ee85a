"""The engine against closed forms: with c slots, flat steps and long outputs it is M/D/c or M/M/c."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.oracle.queues import mdc_wait, mmc_wait
from tests.oracle.scenes import Scene, flat_step, profile_of
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope, Pool
from tiphys.domain.settings import ClusterSettings, HpaSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy

Floats = NDArray[np.float64]
SERVICE_S = 1.0
BATCHES = 30
WARMUP_SHARE = 0.1


def queue(
    servers: int, utilization: float, lengths: str, requests: int, tokens: int, seed: int = 1
) -> tuple[Scene, float]:
    """One replica with `servers` slots whose mean service time is 1 s, in `tokens` steps; (scene, step in seconds)."""
    rng = np.random.default_rng([seed, servers, int(utilization * 100), lengths == "geometric"])
    gaps = rng.exponential(SERVICE_S / (servers * utilization), requests)
    outputs = np.full(requests, tokens) if lengths == "constant" else rng.geometric(1 / tokens, requests)
    trace = Trace(np.cumsum(gaps), np.ones(requests, np.int32), outputs.astype(np.int32), "queue")
    pool = Pool(profile="test", replicas=Envelope(min=1, max=1), max_num_seqs=servers)
    step_s = SERVICE_S / tokens
    profile = profile_of(flat_step(1000 * step_s), kv_capacity_tokens=10**9)
    scenario = Scenario(trace, start_replicas={"llm": 1}, drain_s=1e5)
    return Scene(profile, pool, parse(FixedPolicy, {"kind": "fixed", "replicas": 1}), scenario), step_s


def mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean after the warm-up, and its standard error from batch means."""
    kept = values[int(len(values) * WARMUP_SHARE) :]
    means = np.array([batch.mean() for batch in np.array_split(kept, BATCHES)])
    return float(kept.mean()), float(means.std(ddof=1) / np.sqrt(BATCHES))


def exact_wait(servers: int, utilization: float, lengths: str) -> float:
    known = mdc_wait if lengths == "constant" else mmc_wait
    return known(servers, utilization, SERVICE_S)


def test_the_known_waits_are_those_of_the_books() -> None:
    # M/M/1: rho / (1 - rho); M/D/1: half of it (Pollaczek-Khinchine); M/M/4 at 0.8: Erlang C 0.5964 / 0.8.
    for utilization in (0.5, 0.8, 0.95):
        assert mmc_wait(1, utilization, 1.0) == pytest.approx(utilization / (1 - utilization))
        assert mdc_wait(1, utilization, 1.0) == pytest.approx(utilization / (1 - utilization) / 2, rel=1e-9)
    assert mmc_wait(4, 0.8, 1.0) == pytest.approx(0.5964 / 0.8, rel=1e-4)
    # with many servers busy all the time, deterministic service halves the wait, a little more with several servers
    assert 0.5 < mdc_wait(4, 0.95, 1.0) / mmc_wait(4, 0.95, 1.0) < 0.53


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("utilization", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("lengths", ["constant", "geometric"])
def test_the_mean_wait_is_that_of_the_closed_form(servers: int, utilization: float, lengths: str) -> None:
    # the time over which waits are alike grows with 1 / (1 - rho) squared
    requests = 3_000_000 if utilization > 0.9 else 500_000
    scene, step_s = queue(servers, utilization, lengths, requests, tokens=20_000)
    recording = scene.twin()
    mean_s, error_s = mean_and_error(recording.first_token_s - scene.scenario.trace.arrival_s - step_s)
    assert abs(mean_s - exact_wait(servers, utilization, lengths)) < 3 * error_s
    assert error_s < 0.05 * mean_s + 0.002


@pytest.mark.parametrize(("servers", "lengths"), [(1, "constant"), (4, "geometric")])
def test_the_second_implementation_passes_the_same_test(servers: int, lengths: str) -> None:
    # steps are a twentieth of a service time here: an arrival at a busy replica waits for the boundary, at most a step
    scene, step_s = queue(servers, 0.8, lengths, requests=6_000, tokens=20)
    account = scene.oracle()
    waits = np.array([r.first_token_s - r.arrival_s - step_s for r in account.requests])
    mean_s, error_s = mean_and_error(waits)
    assert -3 * error_s < mean_s - exact_wait(servers, 0.8, lengths) < 3 * error_s + step_s


def test_littles_law_holds_between_the_scraped_gauges_and_the_times_of_requests() -> None:
    # The level is what scrapes saw of `running` and `waiting`, the times are those of the recording.
    scene, _ = queue(4, 0.8, "geometric", requests=200_000, tokens=2_000)
    metrics = [{"signal": signal, "type": "AverageValue", "target": 1e6} for signal in ("running", "waiting")]
    policy = {"kind": "hpa", "replicas": {"min": 1, "max": 1}, "metrics": metrics}
    settings = ClusterSettings(
        hpa=HpaSettings(sync_period_s=7.3, pass_s=0.0, phase_s=7.0), scrape=ScrapeSettings(interval_s=7.3, phase_s=7.0)
    )
    trace = scene.scenario.trace
    scenario = Scenario(trace, start_replicas={"llm": 1}, settings=settings)
    recording = Scene(scene.profile, scene.pool, parse(HpaPolicy, policy), scenario).twin()
    decisions = recording.pools["llm"].decisions
    seen = decisions[decisions["time_s"] < trace.end_s]
    level, error = mean_and_error(seen["value_0"] + seen["value_1"])
    from_times = trace.mean_rate_per_s * float((recording.finish_s - trace.arrival_s).mean())
    assert abs(level - from_times) < 3 * error
