"""How a workload reaches the cluster: one request, one answer, or a failure with a known meaning.

Two things implement `Door`: real HTTP to real processes, and the simulator. A workload knows
neither; it takes time and waits from asyncio (`asyncio.sleep`, `loop.time()`), randomness from its
context, and so runs unchanged on both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from jepsen_like.history import Type


class Answer(msgspec.Struct, frozen=True):
    """What came back.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        body: The whole body.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def index(self) -> int | None:
        """The registry's index in the answer."""
        text = self.headers.get("x-consul-index", "")
        return int(text) if text.isdecimal() else None


class NotSent(Exception):
    """The request never left: refused or unreachable. It definitely had no effect."""


class NoAnswer(Exception):
    """It was sent and nothing whole came back: it may have had its effect, or yet have it."""


class Door(Protocol):
    """The way to the cluster."""

    async def request(
        self,
        node: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
    ) -> Answer:
        """Sends one request to one server or agent; never repeats it.

        Args:
            node: Name of the server or agent.
            method: HTTP method.
            path: The path, already quoted.
            params: Query; a flag without a value is "".
            headers: More headers.
            body: The whole body.
            timeout_s: For everything, in seconds.

        Raises:
            NotSent: Definitely nothing happened.
            NoAnswer: Unknown.
        """
        ...

    def stream(
        self, node: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens an endless answer; its bytes come as they are sent, until the connection ends.

        Raises:
            NotSent: It could not be opened.
        """
        ...

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """Asks the DNS of a server or agent; gives the records as text, sorted.

        Args:
            node: Name of the server or agent.
            name: Such as "web.service.consul".
            kind: "A" or "SRV".
            timeout_s: For everything, in seconds.

        Raises:
            NoAnswer: Nothing whole came back. (A question has no effect that could be unknown.)
        """
        ...


#: `X-Raftreg-Error` of answers after which the request certainly has no effect: the classes of
#: `raftreg.errors` that are definite, and the rules by which the state machine refuses a command.
DEFINITE_ERRORS: Final = frozenset(
    {
        # Refused at the edge, or never handed to consensus.
        "acl_disabled",
        "conflict",
        "forbidden",
        "invalid_request",
        "method_not_allowed",
        "no_leader",
        "no_path_to_datacenter",
        "not_found",
        "not_proposed",
        "rejected",
        "too_large",
        "too_many_watches",
        # Refused when it was applied; see `Refused` in `raftreg.core`.
        "check_critical",
        "duplicate",
        "graph",
        "invalid_entry",
        "invalid_session",
        "invalid_ttl",
        "missing_check",
        "missing_node",
        "missing_service",
        "missing_session",
        "no_authority",
        "query_exists",
        "refused",
        "restore_refused",
        "session_exists",
        "too_many",
    }
)


def outcome(answer: Answer) -> Type:
    """What an answer tells of a write: it happened, it did not, or nobody knows.

    A status of 4xx is always definite: what can't be parsed, found or allowed is never proposed,
    and 409 is a transaction that was rolled back. Of 5xx only the header can say so; without it
    (a fault inside the server, say) the write may have been proposed. Anything that is not surely
    the one or the other is INFO: to take a write that happened for one that did not would show
    anomalies where there are none.
    """
    if answer.status == 200:
        return Type.OK
    code = answer.headers.get("x-raftreg-error", "")
    if 400 <= answer.status < 500 or code in DEFINITE_ERRORS:
        return Type.FAIL
    return Type.INFO
