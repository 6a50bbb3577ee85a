"""Plays of the twin by law, size, replicas, route and users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tests.bench.services import (
    H100,
    first,
    fixed,
    one_pool,
    poisson,
    published,
    published_of,
    rag,
    wall_s,
)
from tests.bench.tables import Missing, Row, Table, measured
from tests.real_traces import trace_file
from tiphys.domain.platform import ScalingPolicy
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Envelope
from tiphys.domain.trace import Trace
from tiphys.domain.users import Level, Users
from tiphys.traffic import open_trace

DAY = "servegen-mlarge-day8"
_UP_TO_8 = Envelope(max=8, start=4)


def day_trace() -> Trace:
    """The million-request day. Skips where it is absent."""
    return open_trace(trace_file(DAY)).trace


def day() -> Table:
    """The million-request day under each law."""
    laws: dict[str, Callable[[], ScalingPolicy]] = {
        "fixed, 8 replicas": lambda: fixed(8),
        "hpa, TTFT": lambda: published("published-hpa-ttft"),
        "hpa, running": lambda: published("published-hpa-running"),
        "keda, running": lambda: published("published-keda-running"),
        "kpa": lambda: published_of("kpa"),
    }
    rows = [measured({"law": name}, partial(_day_row, policy)) for name, policy in laws.items()]
    return Table("A day of a million requests, by law", tuple(rows))


def _day_row(policy: Callable[[], ScalingPolicy]) -> Row:
    trace = day_trace()
    return _timed(wall_s(one_pool(policy(), _UP_TO_8), Scenario(trace)), len(trace))


def by_size() -> Table:
    """Cost by number of requests: linear is a constant last column."""
    return Table(
        "By number of requests (hpa, running)",
        tuple(measured({"requests": n}, partial(_size_row, n)) for n in (10_000, 100_000, 1_000_000)),
    )


def _size_row(requests: int) -> Row:
    trace = first(day_trace(), requests)
    twin = one_pool(published("published-hpa-running"), _UP_TO_8)
    return {"requests": len(trace), **_timed(wall_s(twin, Scenario(trace)), len(trace))}


def by_replicas() -> Table:
    """256 replicas against 8: on the same traffic, and on the same traffic per replica."""
    rows: list[Row] = []
    for law in ("fixed", "hpa, running"):
        for load in ("in all", "per replica"):
            label = {"law": law, "equal load": load}
            rows.append(measured(label, partial(_replicas_row, law, load)))
    return Table(
        "256 replicas against 8, the million-request day",
        tuple(rows),
        "Equal load per replica: the same requests in 1/32 of the time. HPA's bounds hold the number, so that only "
        "scrapes and controller passes are added.",
    )


def _replicas_row(law: str, load: str) -> Row:
    trace = day_trace()
    few = wall_s(one_pool(_held(law, 8), Envelope(max=8, start=8)), Scenario(trace))
    if load == "per replica":
        trace = Trace(trace.arrival_s / 32, trace.input_tokens, trace.output_tokens, trace.name, trace.end_s / 32)
    many = wall_s(one_pool(_held(law, 256), Envelope(max=256, start=256)), Scenario(trace))
    return {"8 replicas, s": few, "256 replicas, s": many, "ratio": many / few}


def _held(law: str, replicas: int) -> ScalingPolicy:
    if law == "fixed":
        return fixed(replicas)
    return published("published-hpa-running").with_(replicas={"min": replicas, "max": replicas})


def jumping() -> Table:
    """Jumping against the per-iteration path on the same traffic."""
    rows = [
        measured({"traffic": name}, partial(_jump_row, length))
        for name, length in (("azure2023-conv", 1), ("azure2023-conv, answers x8", 8))
    ]
    return Table("Jumping against every step by itself (hpa, running)", tuple(rows))


def _jump_row(length: int) -> Row:
    trace = open_trace(trace_file("azure2023-conv")).trace
    trace = Trace(trace.arrival_s, trace.input_tokens, trace.output_tokens * length, trace.name, trace.end_s)
    policy = published("published-hpa-running")
    fast, slow = (wall_s(one_pool(policy, _UP_TO_8, H100, jump), Scenario(trace)) for jump in (True, False))
    return {"jumping, s": fast, "every step, s": slow, "ratio": slow / fast}


def routes_and_users() -> Table:
    """A million requests through three pools, and of users in a closed loop."""
    rows = (
        measured({"play": "embed, rerank, llm under hpa"}, _route_row),
        measured({"play": "closed loop, 200 users, 8 replicas"}, _users_row),
    )
    return Table("A million requests over a route, and in a closed loop", rows)


def _route_row() -> Row:
    trace = replace(poisson(1_000_000, 12.0, 50, 80), classes=("query",))
    return _timed(wall_s(rag(), Scenario(trace)), len(trace))


def _users_row() -> Row:
    _check_users_are_played()
    arrivals = poisson(1_000_000, 12.0, 800, 80)
    trace = Trace(np.zeros(len(arrivals)), arrivals.input_tokens, arrivals.output_tokens, "closed loop", 100_000.0)
    scenario = Scenario(trace, users=Users(levels=(Level(at_s=0, users=200),)))
    twin = one_pool(fixed(8), Envelope(max=8, start=8), H100)
    finished = int(np.isfinite(twin.play(scenario).finish_s).sum())
    seconds = wall_s(twin, scenario)
    return {**_timed(seconds, finished), "wall s a million": seconds / finished * 1e6}


def _check_users_are_played() -> None:
    """Raise Missing where the second request of a single user does not wait for the first."""
    two = Trace(np.zeros(2), np.full(2, 100, np.int32), np.full(2, 50, np.int32), "two requests", 100.0)
    scenario = Scenario(two, users=Users(levels=(Level(at_s=0, users=1),)))
    seen = one_pool(fixed(1), Envelope(max=1), H100).play(scenario)
    if not seen.first_token_s[1] >= seen.finish_s[0]:
        raise Missing("the twin does not play users yet")


def _timed(seconds: float, requests: int) -> Row:
    return {"wall s": seconds, "us a request": seconds / requests * 1e6}
