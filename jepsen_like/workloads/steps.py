"""Operations as sequences of requests, of which any may end the whole operation.

A workload says what one operation does when all goes well; a request that does not end as it
should raises `Ended`, and `Stepwise` turns that into the completion.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec

from jepsen_like.door import Answer, Door, NoAnswer, NotSent, outcome
from jepsen_like.history import Type
from jepsen_like.workloads.base import Completion, Context, Invocation, Workload

REASON_CHARS_MAX = 120


class Ended(Exception):
    """An operation is over before its last step.

    Args:
        type: FAIL or INFO.
        reason: Why.
        raft_index: From the answer that ended it.
    """

    def __init__(self, type: Type, reason: str, raft_index: int | None = None) -> None:  # noqa: A002
        super().__init__(reason)
        self.type = type
        self.reason = reason
        self.raft_index = raft_index


class Stepwise(Workload):
    """A workload whose operations are steps at one server."""

    async def invoke(self, context: Context, invocation: Invocation) -> Completion:
        """See `Workload.invoke`."""
        node = self.node_for(context, invocation)
        try:
            return await self.steps(context, node, invocation)
        except Ended as ended:
            return Completion(
                ended.type, invocation.value, node, ended.raft_index, error=ended.reason
            )

    def node_for(self, context: Context, invocation: Invocation) -> str:
        """Whom to ask: any server, unless the invocation or a workload knows better."""
        return invocation.node or context.rng.choice(context.servers)

    @abstractmethod
    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """Does it.

        Raises:
            Ended: A step did not end as it should.
        """


async def write(
    door: Door,
    node: str,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """Sends a request that may change something; gives the answer when it was carried out.

    Raises:
        Ended: FAIL when it certainly had no effect, INFO when that is not certain.
    """
    try:
        answer = await door.request(node, method, path, params=params, headers=headers, body=body)
    except NotSent as error:
        raise Ended(Type.FAIL, f"not sent: {error}") from error
    except NoAnswer as error:
        raise Ended(Type.INFO, f"no answer: {error}") from error
    kind = outcome(answer)
    if kind is not Type.OK:
        raise Ended(kind, refusal(answer), answer.index)
    return answer


async def read(
    door: Door,
    node: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    timeout_s: float = 5.0,
) -> Answer:
    """Sends a request that changes nothing; gives a success, or the 404 of something absent.

    Raises:
        Ended: FAIL, whatever happened: a read without an answer had no effect.
    """
    try:
        answer = await door.request(node, "GET", path, params=params, timeout_s=timeout_s)
    except (NotSent, NoAnswer) as error:
        raise Ended(Type.FAIL, f"no answer: {error}") from error
    absent = answer.status == 404 and answer.index is not None
    if answer.status != 200 and not absent:
        raise Ended(Type.FAIL, refusal(answer), answer.index)
    return answer


def decoded(answer: Answer, type_: Any) -> Any:
    """The body of an answer to a write as JSON of a type; see `readable`."""
    return readable(answer.body, type_)


def shown(answer: Answer, type_: Any) -> Any:
    """The body of an answer to a read as JSON of a type.

    Raises:
        Ended: FAIL: it is something else, and a read has no effect that could be unknown.
    """
    try:
        return readable(answer.body, type_)
    except Ended as ended:
        raise Ended(Type.FAIL, ended.reason, answer.index) from ended


def readable(data: bytes, type_: Any) -> Any:
    """Bytes as JSON of a type.

    Raises:
        Ended: INFO: it is something else, so nobody can tell what was done.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Ended(Type.INFO, f"the answer can't be read: {error}") from error


def refusal(answer: Answer) -> str:
    """What an answer says of a failure, in one line."""
    text = answer.body[:REASON_CHARS_MAX].decode("utf-8", "replace").strip()
    code = answer.headers.get("x-raftreg-error", "")
    return " ".join(part for part in (str(answer.status), code, text) if part)
