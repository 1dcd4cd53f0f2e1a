"""Speaks as much of Consul as the benchmark's driver needs to start it and to load it.

It is strict where Consul is: an option or a configuration key that Consul does not have ends it.
Lists go out chunked, as Go's server sends them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

VERSION = "Consul v1.8.0-standin\nRevision 0\nProtocol 2 spoken by default"
KNOWN_KEYS = {"ports", "performance", "limits", "disable_update_check"}
KNOWN_PORTS = {"http", "dns", "serf_lan", "serf_wan", "server"}


class _Handler(BaseHTTPRequestHandler):
    """Answers what the driver asks."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment an answer: no delayed acknowledgement
    leader: ClassVar[str] = ""
    rows: ClassVar[dict[str, list[Any]]] = {}

    def do_GET(self) -> None:
        """Status, health, a key that is not there."""
        path = self.path.partition("?")[0]
        if path == "/v1/status/leader":
            self._answer(200, json.dumps(self.leader).encode())
        elif path.startswith("/v1/health/service/"):
            self._chunked(json.dumps(self.rows.get(path.rpartition("/")[2], [])).encode())
        else:
            self._answer(404, b"")

    def do_PUT(self) -> None:
        """Takes registrations and heartbeats."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/v1/catalog/register":
            row = json.loads(body)
            self.rows.setdefault(row["Service"]["Service"], []).append(row)
        self._answer(200, b"true")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunked(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = len(body) // 2
        for part in (body[:half], body[half:]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if part else b"")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Says nothing."""


def main() -> None:
    """`version` or `agent …`."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    agent = commands.add_parser("agent", allow_abbrev=False)
    for option in ("-node", "-data-dir", "-config-file", "-bind", "-client", "-retry-interval"):
        agent.add_argument(option, required=True)
    agent.add_argument("-log-level")
    agent.add_argument("-retry-join", action="append", required=True)
    agent.add_argument("-server", action="store_true")
    agent.add_argument("-bootstrap-expect", type=int)
    given = parser.parse_args()
    if given.command == "version":
        sys.stdout.write(VERSION + "\n")
        return
    configuration = json.loads(Path(given.config_file).read_bytes())
    ports = configuration["ports"]
    unknown = (configuration.keys() - KNOWN_KEYS) | (ports.keys() - KNOWN_PORTS)
    if unknown or given.server != (given.bootstrap_expect is not None):
        raise SystemExit(f"invalid configuration: {unknown}")
    Path(given.data_dir).mkdir(parents=True)
    first = min(address.rpartition(":")[0] for address in given.retry_join)
    _Handler.leader = f"{first}:8300"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ThreadingHTTPServer((given.client, ports["http"]), _Handler).serve_forever()


if __name__ == "__main__":
    main()
