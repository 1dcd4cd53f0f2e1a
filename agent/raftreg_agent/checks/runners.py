"""What the runners share: their shape, and the bounds of what they say."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Protocol

from raftreg.http.decode import CheckDefinition
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult

TIMEOUT_DEFAULT_S = 10.0
OUTPUT_BYTES_MAX = 4096


class Runner(Protocol):
    """Probes one kind of check."""

    async def run(self, check: CheckDefinition) -> CheckResult:
        """Probes once, within the check's timeout; a failed probe is a result, not an error."""
        ...


def timeout_s(check: CheckDefinition) -> float:
    """Seconds that a probe may take."""
    return check.timeout_s if check.timeout_s > 0 else TIMEOUT_DEFAULT_S


def output_bytes_max(check: CheckDefinition) -> int:
    """Bytes of output that are kept: the definition's figure, at most 4 KiB."""
    if 0 < check.output_max_bytes < OUTPUT_BYTES_MAX:
        return check.output_max_bytes
    return OUTPUT_BYTES_MAX


def clipped(text: str, check: CheckDefinition) -> str:
    """The text within the check's bound, in UTF-8, cut at a character."""
    data = text.encode("utf-8", "replace")
    if len(data) <= output_bytes_max(check):
        return text
    return data[: output_bytes_max(check)].decode("utf-8", "ignore")


def critical(text: str, check: CheckDefinition) -> CheckResult:
    """The result of a probe that failed."""
    return CheckResult(Status.CRITICAL, clipped(text, check))


def reason(error: BaseException) -> str:
    """What an exception of a probe says to a person; some have no text of their own.

    The same failure has the same text at each probe and on each path: an error of the system is
    told in its words, without what the layers above wrap around it (objects' addresses among that).
    """
    root = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if not isinstance(root, OSError):
        return str(root) or type(root).__name__
    if isinstance(root, ssl.SSLError | socket.gaierror):  # their numbers are of other tables
        return root.strerror or str(root)
    return os.strerror(root.errno).lower() if root.errno else str(root) or type(root).__name__
