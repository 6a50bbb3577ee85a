"""Everything random in a play, from its seed: streams that do not depend on the policy, so that policies meet the
same luck. Each pool has streams of its own.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from tiphys.domain.service import ColdStart
from tiphys.domain.trace import Floats
from tiphys.domain.users import Users


class Stream(IntEnum):
    """What a stream of random numbers is for; part of its seed."""

    COLD_STARTS = 1
    SCRAPE_PHASES = 2
    HPA_PHASE = 3
    KEDA_PHASE = 4
    ROUTING = 5
    ROUTER_PHASE = 6
    RULE_PHASE = 7
    CPU_PHASE = 8
    KPA_PHASE = 9
    THINKING = 10
    FLEET_PHASE = 11


def _generator(seed: int, stream: Stream, pool: int) -> np.random.Generator:
    return np.random.default_rng([seed, int(stream), pool] if pool else [seed, int(stream)])


def cold_starts_s(cold_start: ColdStart, factor: float, seed: int, pods: int, pool: int = 0) -> Floats:
    """Seconds of cold start by creation number, or with `parts` the factor on them: log-normal, the first ones the same
    however many are asked for.
    """
    normal = _generator(seed, Stream.COLD_STARTS, pool).standard_normal(pods)
    median = cold_start.median_s if cold_start.parts is None else 1.0
    return np.asarray(median * np.exp(cold_start.log_sigma * normal) * factor)


def scrape_phases_s(interval_s: float, phase_s: float | None, seed: int, pods: int, pool: int = 0) -> Floats:
    """Offset of each pod's scrapes within the interval, by creation number."""
    if phase_s is not None:
        return np.full(pods, phase_s % interval_s)
    return _generator(seed, Stream.SCRAPE_PHASES, pool).random(pods) * interval_s


def phase_s(stream: Stream, period_s: float, given_s: float | None, seed: int, pool: int = 0) -> float:
    """When a controller first acts: as given, else drawn within one period."""
    return given_s if given_s is not None else float(_generator(seed, stream, pool).random() * period_s)


def hpa_phase_s(period_s: float, given_s: float | None, seed: int, pool: int = 0) -> float:
    """Time of the first HPA pass."""
    return phase_s(Stream.HPA_PHASE, period_s, given_s, seed, pool)


def keda_phase_s(period_s: float, given_s: float | None, seed: int, pool: int = 0) -> float:
    """Time of the first KEDA poll."""
    return phase_s(Stream.KEDA_PHASE, period_s, given_s, seed, pool)


def kpa_phase_s(period_s: float, given_s: float | None, seed: int, pool: int = 0) -> float:
    """Time of the first tick of the KPA; its seconds begin at the same time."""
    return phase_s(Stream.KPA_PHASE, period_s, given_s, seed, pool)


def router_phase_s(interval_s: float, given_s: float | None, seed: int, pool: int = 0) -> float:
    """Time of the first scrape of a pool's router."""
    return phase_s(Stream.ROUTER_PHASE, interval_s, given_s, seed, pool)


def rule_phase_s(interval_s: float, seed: int, pool: int = 0) -> float:
    """Time of the first evaluation of a pool's recording rule."""
    return phase_s(Stream.RULE_PHASE, interval_s, None, seed, pool)


def cpu_phase_s(resolution_s: float, seed: int, pool: int = 0) -> float:
    """Time of metrics-server's first look at a pool's pods."""
    return phase_s(Stream.CPU_PHASE, resolution_s, None, seed, pool)


def fleet_phase_s(period_s: float, seed: int) -> float:
    """Time of the fleet controller's first look."""
    return phase_s(Stream.FLEET_PHASE, period_s, None, seed)


def think_times_s(users: Users, seed: int, requests: int) -> Floats:
    """Seconds that a user thinks after each request, the first ones the same however many are asked for."""
    if users.think == "constant":
        return np.full(requests, users.think_s)
    return np.asarray(_generator(seed, Stream.THINKING, 0).exponential(1.0, requests) * users.think_s)


def routing_seed(seed: int, pool: int = 0) -> int:
    """Seed of the routers' draws."""
    return int(_generator(seed, Stream.ROUTING, pool).integers(2**31))
