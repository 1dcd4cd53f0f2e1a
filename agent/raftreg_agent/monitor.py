"""/v1/agent/monitor: the log of this process as it is written, to whoever asks.

A tap is a handler of the standard library's root logger, where every line passes (structlog's
events too). Lines wait in a bounded queue of each client; what does not fit is dropped, counted,
and said in the stream. Writing a log line never waits for a client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from raftreg.errors import InvalidRequest
from raftreg.http.problems import TooManyWatches
from raftreg.http.redaction import HIDDEN, is_secret, without_secrets

LINES_MAX = 1024
LINE_CHARS_MAX = 16 * 1024
TAPS_MAX = 16

#: Consul's names of levels (https://developer.hashicorp.com/consul/api-docs/agent#stream-logs).
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "err": logging.ERROR,
    "error": logging.ERROR,
}
_SHOWN = {"WARNING": "WARN", "CRITICAL": "ERROR"}
#: What structlog puts into an event besides what the caller gave.
_OWN_FIELDS = frozenset({"event", "level", "logger", "time", "timestamp", "exception"})

Render = Callable[[logging.LogRecord], str]


def level_of(name: str) -> int:
    """The standard library's number of a level; "" is info.

    Raises:
        InvalidRequest: There is no such level.
    """
    try:
        return _LEVELS[name.lower() or "info"]
    except KeyError:
        raise InvalidRequest(f"Unknown log level: {name[:32]}") from None


class Tap(logging.Handler):
    """The lines for one client.

    Args:
        level: Lowest level that is taken.
        render: Gives the text of a record.
        loop: Runs the client's handler; records come from any thread.
        lines_max: Lines that wait at most.
    """

    def __init__(
        self, level: int, render: Render, loop: asyncio.AbstractEventLoop, lines_max: int
    ) -> None:
        super().__init__(level)
        self._render = render
        self._loop = loop
        self._lines_max = lines_max
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._guard = threading.Lock()
        self._ready = asyncio.Event()
        self._closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record, from any thread; never raises, never waits."""
        try:
            line = without_secrets(self._render(record))[:LINE_CHARS_MAX]
            with self._guard:
                if len(self._lines) >= self._lines_max:
                    self._dropped += 1
                    return
                self._lines.append(line)
            self._loop.call_soon_threadsafe(self._ready.set)
        except Exception:  # noqa: BLE001 - a log line must not fail its writer; as logging's own
            self.handleError(record)

    def end(self) -> None:
        """Ends the stream after what is waiting."""
        self._closed = True
        self._ready.set()

    async def batches(self) -> AsyncIterator[bytes]:
        """Gives what was written since the last time, until `end`."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            lines, dropped = self._take()
            if dropped:
                lines.append(f"[{dropped} lines were dropped: this client reads too slowly]")
            if lines:
                yield ("\n".join(lines) + "\n").encode("utf-8", "replace")
            if self._closed:
                return

    def _take(self) -> tuple[list[str], int]:
        with self._guard:
            lines, dropped = list(self._lines), self._dropped
            self._lines.clear()
            self._dropped = 0
        return lines, dropped


class Monitors:
    """The taps of one agent.

    While a tap wants more than the process logs, the root logger lets more pass; the process's own
    output keeps its level (`raftreg_cli.logs` sets it on its handler too).

    Args:
        lines_max: Lines that wait for one client at most.
        taps_max: Clients at once.
    """

    def __init__(self, lines_max: int = LINES_MAX, taps_max: int = TAPS_MAX) -> None:
        self._lines_max = lines_max
        self._taps_max = taps_max
        self._taps: set[Tap] = set()
        self._level_before = logging.NOTSET

    @contextmanager
    def tap(self, level: int, render: Render) -> Iterator[Tap]:
        """Taps the log while the block runs.

        Raises:
            TooManyWatches: Too many do so already.
        """
        if len(self._taps) >= self._taps_max:
            raise TooManyWatches(f"{len(self._taps)} clients follow the log of this agent already")
        root = logging.getLogger()
        tap = Tap(level, render, asyncio.get_running_loop(), self._lines_max)
        if not self._taps:
            self._level_before = root.level
        self._taps.add(tap)
        root.addHandler(tap)
        self._set_level(root)
        try:
            yield tap
        finally:
            root.removeHandler(tap)
            self._taps.discard(tap)
            self._set_level(root)

    def close(self) -> None:
        """Ends all streams: the agent stops."""
        for tap in self._taps:
            tap.end()

    def _set_level(self, root: logging.Logger) -> None:
        root.setLevel(min([self._level_before, *(tap.level for tap in self._taps)]))


def as_text(record: logging.LogRecord) -> str:
    """A line as Consul's agents write it: time, level, logger, message and fields."""
    message, fields = _parts(record)
    level = f"[{_SHOWN.get(record.levelname, record.levelname)}]"
    shown = "".join(f" {name}={_plain(value)}" for name, value in fields.items())
    colon = ":" if shown else ""
    return f"{_time(record)} {level:<7} {record.name}: {message}{colon}{shown}"


def as_json(record: logging.LogRecord) -> str:
    """The same as a JSON object, with the names that Consul's JSON log has."""
    message, fields = _parts(record)
    head = {
        "@level": _SHOWN.get(record.levelname, record.levelname).lower(),
        "@message": message,
        "@module": record.name,
        "@timestamp": _time(record),
    }
    return json.dumps(head | fields, default=str, ensure_ascii=False)


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """What happened, and the fields with it; of structlog's events or of anybody's lines."""
    if not isinstance(record.msg, dict):
        return record.getMessage(), _trace(record)
    event = record.msg
    fields = {
        name: HIDDEN if is_secret(name) else value
        for name, value in event.items()
        if name not in _OWN_FIELDS and not name.startswith("_")
    }
    if "exception" in event:
        fields["exception"] = event["exception"]
    return str(event.get("event", "")), fields


def _trace(record: logging.LogRecord) -> dict[str, Any]:
    if not record.exc_info:
        return {}
    return {"exception": logging.Formatter().formatException(record.exc_info)}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: object) -> str:
    """A value of a field; one with spaces or line breaks is quoted."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text.isprintable() or " " in text else text
