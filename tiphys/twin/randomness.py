"""Everything random in a play, from its seed: streams that do not depend on the policy, so that policies meet the
same luck.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from tiphys.domain.service import ColdStart
from tiphys.domain.trace import Floats


class Stream(IntEnum):
    """What a stream of random numbers is for; part of its seed."""

    COLD_STARTS = 1
    SCRAPE_PHASES = 2
    HPA_PHASE = 3
    KEDA_PHASE = 4
    ROUTING = 5


def _generator(seed: int, stream: Stream) -> np.random.Generator:
    return np.random.default_rng([seed, int(stream)])


def cold_starts_s(cold_start: ColdStart, factor: float, seed: int, pods: int) -> Floats:
    """Seconds of cold start by creation number: log-normal, the first ones the same however many are asked for."""
    normal = _generator(seed, Stream.COLD_STARTS).standard_normal(pods)
    return np.asarray(cold_start.median_s * np.exp(cold_start.log_sigma * normal) * factor)


def scrape_phases_s(interval_s: float, phase_s: float | None, seed: int, pods: int) -> Floats:
    """Offset of each pod's scrapes within the interval, by creation number."""
    if phase_s is not None:
        return np.full(pods, phase_s % interval_s)
    return _generator(seed, Stream.SCRAPE_PHASES).random(pods) * interval_s


def hpa_phase_s(period_s: float, phase_s: float | None, seed: int) -> float:
    """Time of the first HPA pass."""
    return phase_s if phase_s is not None else float(_generator(seed, Stream.HPA_PHASE).random() * period_s)


def keda_phase_s(period_s: float, phase_s: float | None, seed: int) -> float:
    """Time of the first KEDA poll."""
    return phase_s if phase_s is not None else float(_generator(seed, Stream.KEDA_PHASE).random() * period_s)


def routing_seed(seed: int) -> int:
    """Seed of the routers' draws."""
    return int(_generator(seed, Stream.ROUTING).integers(2**31))
