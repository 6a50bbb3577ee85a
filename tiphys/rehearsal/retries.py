"""`retryStrategy`: whether a failed attempt is followed by another, and after how long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiphys.rehearsal.expressions import evaluate_bool, nested
from tiphys.rehearsal.nodes import Node
from tiphys.rehearsal.substitution import UnresolvedError

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")


class NoMoreAttemptsError(Exception):
    """There is no further attempt; the message says why, and is empty when the attempt's own says enough."""


def duration_s(text: object) -> float:
    """Seconds of `90`, `"90"`, `"1m30s"`. Raises UnresolvedError for anything else."""
    plain = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    parts = _PART.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise UnresolvedError(f"unable to parse {plain!r} as a duration")
    return sum(float(number) * _UNIT_S[unit] for number, unit in parts)


def wait_before_next(strategy: Mapping[str, Any], attempts: Sequence[Node]) -> float:
    """Seconds from the end of the last attempt, which failed, to the start of the next. Raises NoMoreAttemptsError.

    The policy is `Always` when there is an expression and none is given, else `OnFailure` (Argo).
    """
    last = attempts[-1]
    _by_policy(strategy, last)
    limit = strategy.get("limit")
    if limit is not None and len(attempts) > int(limit):
        raise NoMoreAttemptsError("No more retries left")
    expression = strategy.get("expression")
    if expression and not evaluate_bool(str(expression), nested(last_retry(attempts))):
        raise NoMoreAttemptsError("retryStrategy.expression evaluated to false")
    return _backoff(strategy.get("backoff") or {}, attempts)


def last_retry(attempts: Sequence[Node]) -> dict[str, str]:
    """The variables about the attempts so far; an attempt without an exit code has -1."""
    if not attempts:
        return {"retries": "0"}
    last = attempts[-1]
    code = last.outputs.exit_code if last.outputs else None
    return {
        "retries": str(len(attempts) - 1), "lastRetry.exitCode": str(-1 if code is None else code),
        "lastRetry.status": last.phase, "lastRetry.duration": f"{last.seconds:g}", "lastRetry.message": last.message,
    }  # fmt: skip


def _by_policy(strategy: Mapping[str, Any], last: Node) -> None:
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    allowed = {"Always": ("Failed", "Error"), "OnFailure": ("Failed",), "OnError": ("Error",), "OnTransientError": ()}
    if policy not in allowed:
        raise UnresolvedError(f"{policy} is not a valid RetryPolicy")
    if last.phase not in allowed[policy]:
        raise NoMoreAttemptsError("")


def _backoff(backoff: Mapping[str, Any], attempts: Sequence[Node]) -> float:
    if not backoff:
        return 0.0
    if not backoff.get("duration"):
        raise UnresolvedError("no base duration specified for retryStrategy")
    wait_s = duration_s(backoff["duration"])
    factor = int(backoff.get("factor") or 0)
    if factor > 0:
        wait_s *= factor ** (len(attempts) - 1)
    if backoff.get("cap"):
        wait_s = min(wait_s, duration_s(backoff["cap"]))
    if backoff.get("maxDuration"):
        until = attempts[0].started_at + duration_s(backoff["maxDuration"])
        if attempts[-1].finished_at + wait_s > until:
            raise NoMoreAttemptsError("Backoff would exceed max duration limit")
    return wait_s
