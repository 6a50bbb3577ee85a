"""The table of scaling decisions: one row a controller pass, with every number that the decision was made from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import lean_jit
from tiphys.policies.hpa.reconcile import Outcome, Proposals
from tiphys.policies.kpa.loop import KpaOutcome
from tiphys.twin.metrics import Answer
from tiphys.twin.state import Floats, Longs

HPA_PASS, KEDA_POLL, KPA_TICK, SCHEDULED, FLEET_TICK = range(5)
COLUMNS = (
    "time_s",
    "loop",
    "spec",
    "status",
    "ready",
    "branch",
    "error",
    "invalid_metrics",
    "winner",
    "wish",
    "stabilized",
    "stabilized_reason",
    "held_replicas",
    "held_time_s",
    "limited",
    "limited_reason",
    "rate_limit",
    "written",
    "desired",
    "active",
    "able_reason",
    "active_reason",
    "limited_condition",
    "stable",
    "panic",
    "stable_pods",
    "panic_pods",
    "panic_since_s",
    "excess",
    "proxied",
)
"""`loop` is one of the codes above; reasons are codes of `policies.hpa.behavior.REASONS` (of `policies.keda.poll` in a
poll, of `policies.kpa.reconciler` in a tick of the KPA, whose mode is in `branch`, limit in `limited_reason`, condition
in `active`); `winner` is the metric whose proposal won; -1 or NaN where a step was not reached. The last seven are the
KPA's.
"""
METRIC_COLUMNS = (
    "value",
    "age_s",
    "found",
    "usage_m",
    "ratio",
    "proposal",
    "multiplier",
    "decided_by",
    "metric_error",
    "failures",
)
"""For each metric i, named `value_0`, `age_s_0`, ...: the query's answer and the age of its newest sample, then the
law's arithmetic.
"""
_BASE, _PER_METRIC = len(COLUMNS), len(METRIC_COLUMNS)


class Log(NamedTuple):
    """Rows of float64, `written[0]` of them in use."""

    rows: Floats
    written: Longs


def new_log(rows: int, metrics: int) -> Log:
    """Room for so many passes over so many metrics."""
    return Log(np.full((rows, _BASE + metrics * _PER_METRIC), np.nan), np.zeros(1, np.int64))


def column_names(metrics: int) -> list[str]:
    """Names of the columns of a log over so many metrics."""
    return [*COLUMNS, *(f"{name}_{metric}" for metric in range(metrics) for name in METRIC_COLUMNS)]


def table(log: Log, metrics: int) -> NDArray[np.void]:
    """The rows that were written, as a structured array of doubles."""
    names = column_names(metrics)
    rows: Any = np.ascontiguousarray(log.rows[: log.written[0]])
    return np.asarray(rows.view([(name, "f8") for name in names]).reshape(len(rows)))


@lean_jit
def log_pass(
    log: Log, now_s: float, spec: int, status: int, ready: int, outcome: Outcome, proposals: Proposals
) -> None:
    """Write down an HPA pass."""
    row = log.rows[log.written[0]]
    log.written[0] += 1
    row[0] = now_s
    row[1] = HPA_PASS
    row[2] = spec
    row[3] = status
    row[4] = ready
    row[5] = outcome.branch
    row[6] = outcome.error
    row[7] = outcome.invalid_metrics
    row[8] = outcome.winner
    row[9] = outcome.wish
    row[10] = outcome.stabilized.replicas
    row[11] = outcome.stabilized.reason
    row[12] = outcome.stabilized.held_replicas
    row[13] = outcome.stabilized.held_time_s
    row[14] = outcome.limited.replicas
    row[15] = outcome.limited.reason
    row[16] = outcome.limited.rate_limit
    row[17] = outcome.written
    row[18] = outcome.desired_replicas
    row[20] = outcome.able_to_scale.reason
    row[21] = outcome.scaling_active.reason
    row[22] = outcome.scaling_limited.status
    for metric in range(proposals.error.shape[0]):
        place = _BASE + metric * _PER_METRIC
        row[place + 3] = proposals.usage_m[metric]
        row[place + 4] = proposals.ratio[metric]
        row[place + 5] = proposals.replicas[metric]
        row[place + 6] = proposals.multiplier[metric]
        row[place + 7] = proposals.decided_by[metric]
        row[place + 8] = proposals.error[metric]


@lean_jit
def log_kpa(log: Log, now_s: float, spec: int, ready: int, outcome: KpaOutcome) -> None:
    """Write down a tick of the KPA."""
    row = log.rows[log.written[0]]
    log.written[0] += 1
    row[0] = now_s
    row[1] = KPA_TICK
    row[2] = spec
    row[4] = ready
    row[5] = outcome.mode
    row[9] = outcome.decided
    row[15] = outcome.limit
    row[17] = outcome.replicas
    row[18] = outcome.replicas if outcome.replicas >= 0 else spec
    row[19] = outcome.condition
    row[20] = outcome.condition_reason
    row[21] = outcome.reason
    row[23] = outcome.stable
    row[24] = outcome.panic
    row[25] = outcome.stable_pods
    row[26] = outcome.panic_pods
    row[27] = outcome.panic_since_s
    row[28] = outcome.excess_burst_capacity
    row[29] = outcome.is_proxied


@lean_jit
def log_change(log: Log, now_s: float, loop: int, spec: int, replicas: int) -> None:
    """Write down a change that a timetable or a fleet's thresholds made."""
    row = log.rows[log.written[0]]
    log.written[0] += 1
    row[0] = now_s
    row[1] = loop
    row[2] = spec
    row[17] = replicas if replicas != spec else -1
    row[18] = replicas


@lean_jit
def is_full(log: Log) -> bool:
    """Whether there is no room for another row."""
    return bool(log.written[0] == log.rows.shape[0])


@lean_jit
def log_answer(log: Log, metric: int, answer: Answer, failures: int) -> None:
    """Write down what a metric's query answered, in the row that is being made."""
    row = log.rows[log.written[0]]
    place = _BASE + metric * _PER_METRIC
    row[place] = answer.value
    row[place + 1] = answer.age_s
    row[place + 2] = answer.found
    row[place + 9] = failures


@lean_jit
def log_poll(
    log: Log, now_s: float, spec: int, ready: int, active: bool, error: bool, replicas: int, reason: int
) -> None:
    """Write down a KEDA poll."""
    row = log.rows[log.written[0]]
    log.written[0] += 1
    row[0] = now_s
    row[1] = KEDA_POLL
    row[2] = spec
    row[4] = ready
    row[6] = error
    row[17] = replicas if replicas != spec else -1
    row[18] = replicas
    row[19] = active
    row[21] = reason
