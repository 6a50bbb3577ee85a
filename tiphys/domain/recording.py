"""What was observed in one play, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.faults import Fault
from tiphys.domain.nodes import Offline, Tier
from tiphys.domain.route import Classes
from tiphys.domain.trace import Bytes, Floats, Ints, Trace

ITL_BINS_PER_OCTAVE = 64
ITL_FIRST_EXPONENT, ITL_OCTAVES = -14, 21
ITL_BINS = ITL_BINS_PER_OCTAVE * ITL_OCTAVES
"""Inter-token gaps are counted in bins at most 1.6 % wide from 61 us to 128 s: the exponent and the first six bits of
the mantissa of the double, so that finding a bin costs no logarithm.
"""


def itl_upper_bounds_s() -> Floats:
    """Upper bound of each ITL bin, seconds."""
    index = np.arange(ITL_BINS)
    octave, step = index // ITL_BINS_PER_OCTAVE, index % ITL_BINS_PER_OCTAVE
    return 2.0 ** (ITL_FIRST_EXPONENT + octave) * (1 + (step + 1) / ITL_BINS_PER_OCTAVE)


@dataclass(frozen=True, eq=False)
class ReplicaLife:
    """When each replica of a pool existed: `created_s`, `ready_s`, `removed_s` (asked to go), `gone_s`; inf = not
    yet.

    `scheduled_s` is when it was given its GPUs (inf = never; as it was created where the array is None), `tier` the
    number of its node's tier in the recording's `tiers` (-1 = on no node).
    """

    created_s: Floats
    ready_s: Floats
    removed_s: Floats
    gone_s: Floats
    scheduled_s: Floats | None = None
    tier: Bytes | None = None

    def wanted_log(self) -> list[tuple[float, int]]:
        """(time, replicas that exist and are not being removed), from time 0, one entry a change."""
        return _counts(self.created_s, self.removed_s)

    def ready_log(self) -> list[tuple[float, int]]:
        """(time, replicas that are ready and not being removed), from time 0, one entry a change."""
        served = self.ready_s < self.removed_s
        return _counts(self.ready_s[served], self.removed_s[served])

    def seconds_within(self, start_s: float, stop_s: float) -> float:
        """Replica-seconds from scheduling to termination inside a window, cold starts and draining included."""
        return float(self.each_within(start_s, stop_s).sum())

    def each_within(self, start_s: float, stop_s: float) -> Floats:
        """The same of each replica."""
        since_s = self.created_s if self.scheduled_s is None else self.scheduled_s
        return overlap_s(since_s, self.gone_s, start_s, stop_s)


def overlap_s(since_s: Floats, until_s: Floats, start_s: float, stop_s: float) -> Floats:
    """How long each interval lies inside a window; 0 for one that never began."""
    inside: Floats = np.minimum(until_s, stop_s) - np.maximum(since_s, start_s)
    return np.maximum(inside, 0.0)


def _counts(up_s: Floats, down_s: Floats) -> list[tuple[float, int]]:
    times = np.concatenate([up_s, down_s])
    steps = np.concatenate([np.ones(len(up_s), np.int64), -np.ones(len(down_s), np.int64)])
    finite = np.isfinite(times)
    times, steps = times[finite], steps[finite]
    log: list[tuple[float, int]] = [(0.0, 0)]
    count = 0
    for time in np.unique(times):
        count += int(steps[times == time].sum())
        if time <= 0:
            log[0] = (0.0, count)
        elif count != log[-1][1]:
            log.append((float(time), count))
    return log


@dataclass(frozen=True, eq=False)
class JobTimes:
    """One pool's jobs, each the visit of a request: when it came to the pool, its first token, its end (inf = never).

    Jobs that a route never came to are left out.
    """

    arrival_s: Floats
    first_token_s: Floats
    finish_s: Floats
    failed: NDArray[np.bool_]
    output_tokens: Ints


@dataclass(frozen=True, eq=False)
class OfflineJobs:
    """Offline work beside the replicas: when each job began, was told to go (inf = runs on), gave its GPUs back.

    `lost` jobs were not told: their node disappeared. `spec` says what they keep when they go. `tier` is as that of
    `ReplicaLife`.
    """

    spec: Offline
    began_s: Floats
    told_s: Floats
    gone_s: Floats
    lost: NDArray[np.bool_]
    tier: Bytes | None = None


@dataclass(frozen=True, eq=False)
class PoolRecording:
    """One pool's part of a recording.

    `decisions` is a structured array, one row a controller pass; its columns are named by the platform that recorded it
    (the twin's: `tiphys.twin.decisions`). `itl_counts` are token gaps by logarithmic bin, of the scored window. `jobs`
    is None where the pool's jobs are the requests.
    """

    gpus_per_replica: int
    life: ReplicaLife
    decisions: NDArray[np.void]
    itl_counts: NDArray[np.int64]
    jobs: JobTimes | None = None


@dataclass(frozen=True, eq=False)
class Recording:
    """Everything observed in one play.

    Per request, in order of arrival: `first_token_s` and `finish_s` are times on the play's clock, inf where it never
    came; `failed` is True for a request that was refused or cut off. `warmup_s` and `horizon_s` bound the scored
    window. `wall_s` is the time of the play alone. `classes` are the routes of the service, the first class's first
    (empty: every pool answers). `faults` are those of the scenario, `tiers` those of its nodes.
    """

    trace: Trace
    first_token_s: Floats
    finish_s: Floats
    failed: NDArray[np.bool_]
    pools: Mapping[str, PoolRecording]
    warmup_s: float
    horizon_s: float
    end_s: float
    seed: int
    wall_s: float = 0.0
    preemptions: int = 0
    replica_of_request: Ints | None = field(default=None)
    classes: Classes = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    tiers: tuple[Tier, ...] = ()
    offline: OfflineJobs | None = None
