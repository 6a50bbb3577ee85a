"""`python -m tests.bench`: measure and print Markdown, or one JSON object."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from tests.bench import peer, plays, processes
from tests.bench.services import RUNS
from tests.bench.tables import Missing, Table, machine, markdown, sentence
from tiphys.errors import TiphysError

QUICK: dict[str, Callable[[], Table]] = {
    "day": plays.day,
    "size": plays.by_size,
    "replicas": plays.by_replicas,
    "jumping": plays.jumping,
    "routes": plays.routes_and_users,
    "memory": processes.memory,
}
SLOW: dict[str, Callable[[], Table]] = {
    "peer": peer.compared,
    "workers": processes.workers,
    "compilation": processes.compilation,
    "run": processes.whole_run,
}
PARTS = QUICK | SLOW


def main() -> None:
    """Measure and print."""
    known = ", ".join(PARTS)
    options = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    options.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure, all by default: {known}")
    options.add_argument("--quick", action="store_true", help=f"leave out {', '.join(SLOW)}")
    options.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = options.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        options.error(f"unknown part {unknown[0]!r}; known: {known}")
    names = asked.parts or (QUICK if asked.quick else PARTS)
    here = machine()
    if not asked.json:
        print(f"{sentence(here)}; medians of {RUNS} runs\n", flush=True)
    found = {}
    for name in names:
        print(f"measuring: {name}", file=sys.stderr)
        table = _table(name)
        found[name] = table._asdict()
        if not asked.json:
            print(markdown(table), flush=True)
    if asked.json:
        print(json.dumps({"machine": here, "runs": RUNS, "tables": found}, indent=1))


def _table(name: str) -> Table:
    try:
        return PARTS[name]()
    except (Missing, TiphysError) as reason:
        return Table(name, ({"part": name, "skipped": str(reason)},))


if __name__ == "__main__":
    main()
