"""The scripted targets behind HTTP, on the loopback."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.promql.script import GARBLED, REFUSED, SLOW, TARGETS, Target, exposition

TIMEOUT_MS = 350
"""scrape timeout of every job"""


class Exporter(ThreadingHTTPServer):
    """Serves `/metrics/<target>`: each request is the target's next scrape."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.targets = {target.name: target for target in TARGETS}
        self.scrapes = dict.fromkeys(self.targets, 0)
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def next_scrape(self, name: str) -> tuple[Target, int]:
        with self.lock:
            self.scrapes[name] += 1
            return self.targets[name], self.scrapes[name] - 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Exporter

    def do_GET(self) -> None:
        target, number = self.server.next_scrape(self.path.rsplit("/", 1)[1])
        outage = target.outages.get(number)
        body = exposition(target.pages[number]).encode()
        if outage == GARBLED:
            body += b"this is {not a sample\n"
        if outage == SLOW:
            time.sleep(2 * TIMEOUT_MS / 1000)
        self.send_response(500 if outage == REFUSED else 200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            assert outage == SLOW, "only a scrape that timed out hangs up"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
