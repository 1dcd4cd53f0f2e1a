"""Writes: commands proposed within a bounded time, and their outcomes as answers."""

from __future__ import annotations

from aiohttp import web

from raftreg.core import commands
from raftreg.core.commands import Command
from raftreg.core.results import Outcome, Refused
from raftreg.errors import InvalidRequest, RaftregError, TooLarge, UnknownOutcome
from raftreg.http.params import parse_uint
from raftreg.raft.api import ReplicaAPI, RequestId

REQUEST_ID_HEADER = "X-Raftreg-Request-Id"
PROPOSER_CHARS_MAX = 64


class RefusedByRules(RaftregError):
    """The state machine answered with a `Refused`.

    Args:
        refused: What it answered.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        # These two are of the class elsewhere; here the rule that refused decides.
        self.code = refused.code  # type: ignore[misc]
        self.http_status = refused.http_status  # type: ignore[misc]


class Writes:
    """Proposes commands.

    Args:
        replica: Replicates them.
        timeout_s: Longest wait for an outcome, in seconds.
    """

    def __init__(self, replica: ReplicaAPI, timeout_s: float) -> None:
        self._replica = replica
        self._timeout_s = timeout_s

    async def run(self, request: web.Request, command: Command) -> Outcome:
        """Proposes a command under the request's own id, if it has one.

        Raises:
            RefusedByRules: The state machine refused it.
            NoLeader, NotProposed, TooLarge: Nothing was proposed.
            UnknownOutcome: It was proposed and may still commit.
        """
        text = request.headers.get(REQUEST_ID_HEADER)
        return await self.propose(command, None if text is None else request_id(text))

    async def propose(self, command: Command, name: RequestId | None = None) -> Outcome:
        """Proposes a command; see `run` for the errors.

        Args:
            command: What to do.
            name: Of a request that may come again, None for one that does not.
        """
        outcome = await self._replica.propose(
            commands.encode(command), timeout_s=self._timeout_s, request_id=name
        )
        if not isinstance(outcome, Outcome):
            raise UnknownOutcome(
                "this request id was used before and its result is forgotten: the write may have "
                "taken effect"
            )
        if isinstance(outcome.result, Refused):
            raise RefusedByRules(outcome.result)
        return outcome


def write_head(outcome: Outcome) -> bytes:
    """Header line of an answer to a write: the index at which it took effect.

    For a key that was written it is the key's ModifyIndex. A condition that did not hold was
    judged at that index.
    """
    return b"X-Consul-Index: %d\r\n" % outcome.index


def request_id(text: str) -> RequestId:
    """Reads `<proposer>/<sequence>/<low>`.

    Raises:
        InvalidRequest: It is malformed.
    """
    parts = text.split("/")
    wrong = f"Invalid {REQUEST_ID_HEADER}: it must be <proposer>/<sequence>/<low>"
    if len(parts) != 3 or not 0 < len(parts[0]) <= PROPOSER_CHARS_MAX or not parts[0].isascii():
        raise InvalidRequest(wrong)
    sequence, low = parse_uint(parts[1], wrong), parse_uint(parts[2], wrong)
    if not 0 < sequence < 1 << 63 or low > sequence:
        raise InvalidRequest(wrong)
    return RequestId(parts[0], sequence, low)


async def read_body(request: web.Request, bytes_max: int, what: str = "Request body") -> bytes:
    """Reads a body of bounded size.

    Args:
        request: Where from.
        bytes_max: Most bytes.
        what: Begins the text of the refusal.

    Raises:
        TooLarge: It is larger; the text says by how much, as far as that is known.
    """
    announced = request.content_length
    if announced is not None and announced > bytes_max:
        raise _too_large(what, announced, bytes_max)
    body = await request.read()  # bounded by the application's client_max_size
    if len(body) > bytes_max:
        raise _too_large(what, len(body), bytes_max)
    return body


def _too_large(what: str, size: int, bytes_max: int) -> TooLarge:
    return TooLarge(f"{what}({size} bytes) too large, max size: {bytes_max} bytes.")
