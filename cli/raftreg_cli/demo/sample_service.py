"""A small HTTP service to be registered, checked and found.

    python -m raftreg_cli.demo.sample_service --name web --port 8080

`GET /` tells who answers, `GET /health` is what the agent asks, `PUT /health` with the body
`failing` or `ok` changes its answer. The standard library alone: six of them start in no time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

_BODY_BYTES_MAX = 64
_IDLE_S_MAX = 30


class SampleService(ThreadingHTTPServer):
    """The service.

    Args:
        name: Name of the service.
        address: Where to listen.
        port: TCP port.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: str, address: str, port: int) -> None:
        super().__init__((address, port), _Handler)
        self.name = name
        self.healthy = True
        self._answered = 0
        self._lock = threading.Lock()

    def count(self) -> int:
        """Counts an answer; gives how many there were."""
        with self._lock:
            self._answered += 1
            return self._answered


class _Handler(BaseHTTPRequestHandler):
    server: SampleService
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S_MAX

    def do_GET(self) -> None:
        if self.path == "/health":
            self._health()
        elif self.path == "/":
            host, port = self.server.server_address[:2]
            shape = {
                "service": self.server.name,
                "address": f"{host!s}:{port}",
                "pid": os.getpid(),
                "answered": self.server.count(),
            }
            self._answer(HTTPStatus.OK, json.dumps(shape))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there is / and /health")

    def do_PUT(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if self.path != "/health" or not length.isdecimal() or int(length) > _BODY_BYTES_MAX:
            self.close_connection = True
            self._answer(HTTPStatus.BAD_REQUEST, "PUT /health takes `ok` or `failing`")
            return
        self.server.healthy = self.rfile.read(int(length)).strip() != b"failing"
        self._health()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Stays quiet: checks come every second."""

    def _health(self) -> None:
        if self.server.healthy:
            self._answer(HTTPStatus.OK, "ok")
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "told to fail by PUT /health")

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    with SampleService(arguments.name, arguments.bind, arguments.port) as service:
        service.serve_forever()


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)


if __name__ == "__main__":
    main()
