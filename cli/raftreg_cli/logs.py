"""Logs of the long-running processes: to stderr, one line an event."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor

from raftreg.http.redaction import HIDDEN, is_secret, without_secrets

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: Chatty at info for nothing that raftreg does not log itself.
_QUIET = ("aiohttp.access", "asyncio", "pysyncobj")


def configure(log_format: Literal["text", "json"], log_level: str) -> None:
    """Sets up structlog, and the standard library's loggers behind the same renderer.

    Args:
        log_format: "text" is logfmt (key=value), "json" one object a line.
        log_level: Lowest level that is written: debug, info, warning or error.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
        _hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    # A client of /v1/agent/monitor may ask for more than this process writes.
    handler.setLevel(_LEVELS[log_level])
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[log_level])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(_LEVELS[log_level], logging.WARNING))


def _hide_secrets(logger: object, method: str, event: EventDict) -> EventDict:
    """No token that a request brought reaches a log."""
    del logger, method
    for name, value in event.items():
        if is_secret(name):
            event[name] = HIDDEN
        elif isinstance(value, str):
            event[name] = without_secrets(value)
    return event


def _renderer(log_format: Literal["text", "json"]) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.processors.LogfmtRenderer(
        key_order=["time", "level", "event"], bool_as_flag=False
    )
