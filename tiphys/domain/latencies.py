"""Latencies of requests and jobs as they are judged: what failed or never ended is infinitely late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiphys.domain.recording import JobTimes, Recording
from tiphys.domain.route import Hop
from tiphys.domain.slo import Objective
from tiphys.domain.trace import Floats, Ints
from tiphys.errors import unknown_name

Chosen = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Latencies:
    """Seconds of each request (or job), in their order; inf where it never came."""

    ttft: Floats
    e2e: Floats
    tpot: Floats

    def __len__(self) -> int:
        return len(self.e2e)

    def of(self, metric: str) -> Floats:
        """The latencies of a metric: ttft, e2e or tpot."""
        found: Floats = getattr(self, metric)
        return found

    @property
    def finished(self) -> int:
        """How many ended."""
        return int(np.isfinite(self.e2e).sum())


def request_latencies(recording: Recording, chosen: Chosen) -> Latencies:
    """Those of the chosen requests, from their arrival over the whole route."""
    return _latencies(
        recording.trace.arrival_s[chosen],
        recording.first_token_s[chosen],
        recording.finish_s[chosen],
        recording.failed[chosen],
        answer_tokens(recording)[chosen],
    )


def job_latencies(jobs: JobTimes, start_s: float, stop_s: float) -> Latencies:
    """Those of the jobs that came to a pool within a window, from their arrival there."""
    chosen = (jobs.arrival_s >= start_s) & (jobs.arrival_s <= stop_s)
    return _latencies(
        jobs.arrival_s[chosen],
        jobs.first_token_s[chosen],
        jobs.finish_s[chosen],
        jobs.failed[chosen],
        jobs.output_tokens[chosen],
    )


def _latencies(arrival: Floats, first: Floats, finish: Floats, lost: NDArray[np.bool_], tokens: Ints) -> Latencies:
    first, finish = np.where(lost, np.inf, first), np.where(lost, np.inf, finish)
    gaps = tokens - 1
    with np.errstate(invalid="ignore"):
        tpot = np.where(gaps > 0, (finish - first) / np.maximum(gaps, 1), 0.0)
    return Latencies(first - arrival, finish - arrival, np.where(np.isfinite(finish), tpot, np.inf))


def answer_tokens(recording: Recording) -> Ints:
    """Tokens that each request's answering hop generates; the request's own where the recording names no routes."""
    trace = recording.trace
    tokens = trace.output_tokens
    for name in trace.classes:
        hop = answering_hop(recording.classes.get(name, ()))
        if hop is not None and (hop.output.of_output, hop.output.of_input, hop.output.fixed) != (1.0, 0.0, 0):
            inside = trace.of_class(name)
            if tokens is trace.output_tokens:
                tokens = tokens.copy()
            tokens[inside] = _counts(hop, trace.input_tokens[inside], trace.output_tokens[inside])
    return tokens


def _counts(hop: Hop, inputs: Ints, outputs: Ints) -> Ints:
    said = hop.output
    counts: Ints = np.maximum(np.ceil(said.of_input * inputs + said.of_output * outputs) + said.fixed, 1).astype(
        np.int32
    )
    return counts


def answering_hop(hops: tuple[Hop, ...]) -> Hop | None:
    """The hop whose first token is the user's: the one that says so, else the last; None where there is no hop."""
    return next((hop for hop in hops if hop.answers), hops[-1] if hops else None)


def answering_pools(recording: Recording) -> tuple[str, ...]:
    """The pools whose token gaps users see: those of the answering hops; every pool where no route is named."""
    pools = [hop.pool for hops in recording.classes.values() if (hop := answering_hop(hops)) is not None]
    return tuple(dict.fromkeys(pools)) or tuple(recording.pools)


@dataclass(frozen=True, eq=False)
class ClassLatencies:
    """The scored requests of a traffic class, and their latencies."""

    chosen: Chosen
    latencies: Latencies


def by_class(recording: Recording) -> dict[str, ClassLatencies]:
    """The scored requests of each traffic class, the first class first."""
    inside = scored(recording)
    names = tuple(recording.classes) or recording.trace.classes
    parts = {name: inside if len(names) == 1 else inside & of_class(recording, name) for name in names}
    return {name: ClassLatencies(part, request_latencies(recording, part)) for name, part in parts.items()}


def judged(objective: Objective, classes: Mapping[str, ClassLatencies]) -> ClassLatencies:
    """The class that an objective of the whole route judges. Raises InputError for one that is not there."""
    name = objective.request_class or next(iter(classes))
    if name not in classes:
        raise unknown_name("traffic class", name, classes, key="slo.objectives.request_class")
    return classes[name]


def scored(recording: Recording) -> Chosen:
    """The requests that arrived in the scored window."""
    arrival = recording.trace.arrival_s
    return (arrival >= recording.warmup_s) & (arrival <= recording.horizon_s)


def of_class(recording: Recording, name: str) -> Chosen:
    """The requests of a class; none where the trace has no such class."""
    trace = recording.trace
    return trace.of_class(name) if name in trace.classes else np.zeros(len(trace), np.bool_)
