"""Offline work beside the replicas: what was harvested of idle GPUs, and what was wasted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiphys.domain.nodes import Tier
from tiphys.domain.recording import OfflineJobs, overlap_s
from tiphys.domain.trace import Floats
from tiphys.domain.values import Frozen


class OfflineScore(Frozen):
    """Offline GPU-seconds of the scored window: `held = harvested + wasted + overhead`.

    Harvested is useful work that was kept, or goes on; wasted was lost for want of a checkpoint; overhead is what jobs
    hold while they start and while they leave.
    """

    held_gpu_seconds: float
    harvested_gpu_seconds: float
    wasted_gpu_seconds: float
    overhead_gpu_seconds: float
    jobs: int
    """That held GPUs within the window."""
    evicted: int
    """Told to go, or lost with their node, within the window."""


def score_offline(jobs: OfflineJobs, start_s: float, stop_s: float) -> OfflineScore:
    """What offline jobs made of a window."""
    gpus = jobs.spec.gpus_per_job
    held = float(overlap_s(jobs.began_s, jobs.gone_s, start_s, stop_s).sum()) * gpus
    harvested = float(harvested_s(jobs, start_s, stop_s).sum()) * gpus
    useful_since = jobs.began_s + jobs.spec.start_s
    ended = np.minimum(jobs.told_s, jobs.gone_s)
    lost_since = np.maximum(useful_since, _kept_until_s(jobs))
    wasted = float(overlap_s(lost_since, ended, start_s, stop_s).sum()) * gpus
    inside = (ended > start_s) & (ended <= stop_s)
    return OfflineScore(
        held_gpu_seconds=held,
        harvested_gpu_seconds=harvested,
        wasted_gpu_seconds=wasted,
        overhead_gpu_seconds=max(held - harvested - wasted, 0.0),
        jobs=int(((jobs.began_s < stop_s) & (jobs.gone_s > start_s)).sum()),
        evicted=int(inside.sum()),
    )


def harvested_s(jobs: OfflineJobs, start_s: float, stop_s: float) -> Floats:
    """Seconds of useful work of each job within a window that were kept, or go on."""
    return overlap_s(jobs.began_s + jobs.spec.start_s, _kept_until_s(jobs), start_s, stop_s)


def harvested_value(jobs: OfflineJobs, tiers: Sequence[Tier], price: float, start_s: float, stop_s: float) -> float:
    """What the harvested GPU time of a window costs: each job's at its tier's price, `price` where it states none."""
    hours = harvested_s(jobs, start_s, stop_s) * jobs.spec.gpus_per_job / 3600
    return float((hours * prices_per_gpu_hour(jobs.tier, len(hours), tiers, price)).sum())


def prices_per_gpu_hour(tier: np.ndarray | None, count: int, tiers: Sequence[Tier], price: float) -> Floats:
    """The price of each of `count` holders of GPUs by their tier; `price` without a tier or where it states none."""
    stated = [price if each.price_per_gpu_hour is None else each.price_per_gpu_hour for each in tiers]
    if tier is None or not stated:
        return np.full(count, price)
    return np.append(stated, price)[np.asarray(tier, np.int64)]


def _kept_until_s(jobs: OfflineJobs) -> Floats:
    """Until when each job's work is kept: its last checkpoint, its end where it saves what it has, or for ever."""
    spec = jobs.spec
    ended = np.minimum(jobs.told_s, jobs.gone_s)
    finite = np.where(np.isfinite(ended), ended, jobs.began_s)
    checkpoints = np.floor((finite - jobs.began_s) / spec.checkpoint_s + 1e-9)
    saved = np.minimum(jobs.began_s + checkpoints * spec.checkpoint_s, finite)
    until = saved if not spec.checkpoint_on_sigterm else np.where(jobs.lost, saved, finite)
    return np.where(np.isfinite(ended), until, np.inf)
