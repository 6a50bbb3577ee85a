"""A real Prometheus, run for a recording."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_START_S = 60.0

Element = tuple[dict[str, str], list[list[Any]]]


def version_of(binary: str) -> str:
    """`3.15.0` out of what the binary says of itself."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"version (\d+\.\d+\.\d+)", told.stdout + told.stderr)
    if found is None:
        raise SystemExit(f"{binary} --version names no version: {told.stdout or told.stderr}")
    return found[1]


class Prometheus:
    """The query API of a running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, promql: str, at_ms: int) -> list[Element]:
        """(labels, [[time, value], ...]) of every element of an instant query's answer, in the server's own order."""
        # a fraction of seconds would go through doubles on the server, and come out a millisecond early now and then
        at = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03}Z"
        body = urllib.parse.urlencode({"query": promql, "time": at}).encode()
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/query", body, timeout=30) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{promql}: {error.read().decode()}") from error
        return [(element["metric"], element.get("values") or [element["value"]]) for element in result]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running(binary: str, folder: Path, config: str, flags: Sequence[str] = ()) -> Iterator[Prometheus]:
    """A server over the data in `folder`, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        *flags,
    ]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Prometheus(address)
            deadline = time.monotonic() + _START_S
            while not server.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{binary} did not become ready:\n{(folder / 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=30)
