"""Runs in the peer's own environment, on nothing but its package: one replay for each JSON line that comes in.

A line in: `{"trace": FILE, "replicas": N, "engine": {...}, "requests_to": FILE or null}`. A line out: the peer's
summary. With `requests_to` each request's TTFT and end-to-end milliseconds are written there, in order of arrival.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def replay(asked: dict[str, Any]) -> dict[str, Any]:
    """The peer's summary of one replay."""
    from dynamo import _core  # type: ignore[import-not-found]

    played = _core.run_mocker_trace_replay(
        [asked["trace"]],
        extra_engine_args={"engine": asked["engine"]},
        num_workers=asked["replicas"],
        router_mode="round_robin",
        trace_block_size=asked["trace_block_tokens"],
        capture_per_request=asked["requests_to"] is not None,
    )
    if asked["requests_to"] is not None:
        rows = sorted(played.per_request, key=lambda row: row["arrival_time_ms"])
        with open(asked["requests_to"], "w") as file:  # noqa: PTH123
            json.dump({name: [row[name] for row in rows] for name in ("ttft_ms", "e2e_latency_ms")}, file)
    return dict(played.summary)


def main() -> None:
    """Answer until the input ends. What the peer itself prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(replay(json.loads(line)), default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
