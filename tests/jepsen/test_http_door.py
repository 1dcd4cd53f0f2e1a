"""The real door: what an answer, or the lack of one, means."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rrset
import pytest

import raftreg.core
from jepsen_like.door import DEFINITE_ERRORS, Answer, NoAnswer, NotSent, outcome
from jepsen_like.history import Type
from jepsen_like.http import Endpoint, HttpDoor
from raftreg import errors
from raftreg.core.results import Refused
from raftreg.errors import RaftregError
from raftreg.http import problems
from raftreg.server.writes import RefusedByRules
from tests.jepsen.workload_rig import free_port, registry

HOST = "127.0.0.1"
Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\n"


class Peer:
    """What listens, and what came."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.door = HttpDoor({})


@asynccontextmanager
async def peer(respond: Respond, **limits: float) -> AsyncIterator[Peer]:
    """Something that answers HTTP as it likes; the door knows it as "n1"."""
    found = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.requests.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await respond(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    endpoint = Endpoint(HOST, server.sockets[0].getsockname()[1])
    async with server, HttpDoor({"n1": endpoint}, **limits) as door:  # type: ignore[arg-type]
        found.door = door
        yield found


def _sends(data: bytes) -> Respond:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return respond


async def _says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()  # until the door gives up


async def test_an_answer_comes_as_it_was_sent() -> None:
    """Status, headers in lower case, the whole body; a flag of the query has no `=`."""
    async with peer(_sends(OK + b"Content-Length: 2\r\n\r\nhi")) as found:
        params = {"recurse": "", "cas": "3"}
        answer = await found.door.request("n1", "PUT", "/v1/kv/a%2Fb", params=params, body=b"x")
    assert (answer.status, answer.body, answer.index) == (200, b"hi", 7)
    assert found.requests[0].startswith(b"PUT /v1/kv/a%2Fb?recurse&cas=3 HTTP/1.1\r\n")


async def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    """Nobody listens there."""
    async with HttpDoor({"n1": Endpoint(HOST, free_port())}) as door:
        with pytest.raises(NotSent):
            await door.request("n1", "PUT", "/v1/kv/a")
        with pytest.raises(NotSent):
            async with door.stream("n1", "/v1/internal/view"):
                pass


async def test_a_connection_that_never_stands_means_that_nothing_was_sent() -> None:
    """Whether the wait for it or for everything ends first: a full queue takes nobody in."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(0)
        endpoint = Endpoint(HOST, listener.getsockname()[1])
        with socket.create_connection((HOST, endpoint.http_port)):  # fills the queue
            async with HttpDoor({"n1": endpoint}, connect_timeout_s=0.05) as door:
                with pytest.raises(NotSent):
                    await door.request("n1", "PUT", "/v1/kv/a")
            async with HttpDoor({"n1": endpoint}) as door:
                with pytest.raises(NotSent):
                    await door.request("n1", "PUT", "/v1/kv/a", timeout_s=0.05)


@pytest.mark.parametrize(
    "sent",
    [b"", OK, OK + b"Content-Length: 9\r\n\r\nhi", b"no HTTP at all\r\n\r\n"],
    ids=["nothing", "half-a-head", "half-a-body", "nonsense"],
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
async def test_what_is_no_whole_answer_leaves_the_outcome_open(method: str, sent: bytes) -> None:
    """And the request is not sent a second time, whatever its method."""
    async with peer(_sends(sent)) as found:
        with pytest.raises(NoAnswer):
            await found.door.request("n1", method, "/v1/kv/a")
    assert len(found.requests) == 1


async def test_silence_leaves_the_outcome_open() -> None:
    """The time is over after the request was sent."""
    async with peer(_says_nothing) as found:
        with pytest.raises(NoAnswer):
            await found.door.request("n1", "PUT", "/v1/kv/a", timeout_s=0.1)


async def test_an_answer_over_the_limit_is_none() -> None:
    """A server gone mad does not fill the harness's memory."""
    endless = OK + b"Content-Length: 100\r\n\r\n" + b"x" * 100
    async with peer(_sends(endless), answer_bytes_max=99) as found:
        with pytest.raises(NoAnswer, match="over 99 bytes"):
            await found.door.request("n1", "GET", "/v1/kv/a")


async def test_a_stream_gives_what_comes_until_it_ends() -> None:
    """However it ends; and a refusal is no stream."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        peer(_sends(head + b"2\r\nab\r\n1\r\nc\r\n")) as found,
        found.door.stream("n1", "/v1/internal/view") as chunks,
    ):
        assert b"".join([chunk async for chunk in chunks]) == b"abc"
    async with peer(_sends(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")) as found:
        with pytest.raises(NotSent, match="status 500"):
            async with found.door.stream("n1", "/v1/internal/view"):
                pass


# -- DNS -------------------------------------------------------------------------------------------


class _Datagrams(asyncio.DatagramProtocol):
    """Answers every question with what a function makes of it."""

    def __init__(self, answer: Callable[[dns.message.Message], bytes]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._answer(dns.message.from_wire(data)), addr)


def _records(question: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(question)
    name = question.question[0].name
    answer.answer.append(dns.rrset.from_text(name, 0, "IN", "A", "10.0.0.2", "10.0.0.1"))
    return answer


def _cut(question: dns.message.Message) -> bytes:
    answer = dns.message.make_response(question)
    answer.flags |= dns.flags.TC
    return answer.to_wire()


@asynccontextmanager
async def names(answer: Callable[[dns.message.Message], bytes]) -> AsyncIterator[HttpDoor]:
    """A name server: UDP as the function says, TCP with the truth."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        wire = _records(dns.message.from_wire(await reader.readexactly(size))).to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Datagrams(answer), local_addr=(HOST, port)
    )
    try:
        async with server, HttpDoor({"n1": Endpoint(HOST, dns_port=port)}) as door:
            yield door
    finally:
        transport.close()


@pytest.mark.parametrize("answer", [lambda question: _records(question).to_wire(), _cut])
async def test_records_come_sorted_over_udp_or_tcp(
    answer: Callable[[dns.message.Message], bytes],
) -> None:
    """An answer that was cut is fetched whole."""
    async with names(answer) as door:
        assert await door.resolve("n1", "web.service.consul", "A") == ["10.0.0.1", "10.0.0.2"]


async def test_dns_tells_no_names_from_no_answer(tmp_path: Path) -> None:
    """An unknown name has no records; a refusal, nonsense or silence is no answer."""
    async with registry(tmp_path) as door:
        assert await door.resolve("n1", "none.service.consul", "SRV") == []
        with pytest.raises(NoAnswer, match="REFUSED"):
            await door.resolve("n1", "example.org", "A")
    async with names(lambda _: b"nonsense") as door:
        with pytest.raises(NoAnswer):
            await door.resolve("n1", "web.service.consul", "A", 0.2)
    async with HttpDoor({"n1": Endpoint(HOST, dns_port=free_port())}) as door:
        with pytest.raises(NoAnswer):
            await door.resolve("n1", "web.service.consul", "A", 0.2)


# -- outcomes --------------------------------------------------------------------------------------


def _told(error: RaftregError) -> Answer:
    """The answer of a server, or of an agent, to a request that failed so."""
    response = problems.problem(error)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, b"")


_KINDS = {
    name: kind
    for module in (errors, problems)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, RaftregError) and kind is not RaftregError
}


@pytest.mark.parametrize("name", sorted(_KINDS.keys() - {"Unreachable"}))
def test_a_failure_is_definite_exactly_when_raftreg_says_so(name: str) -> None:
    """Too many INFOs make a history weak; a FAIL for what may have happened makes it wrong.

    An agent that reached no server says so as NoLeader, never as Unreachable.
    """
    kind = _KINDS[name]
    assert outcome(_told(kind("text"))) is (Type.FAIL if kind.definite else Type.INFO)


def test_every_refusal_of_the_core_is_known_to_be_definite() -> None:
    """Also those that will be added."""
    sources = Path(raftreg.core.__file__).parent.glob("*.py")
    codes = {
        code
        for source in sources
        for code in re.findall(r'Refused\(\s*"(\w+)"', source.read_text(encoding="utf-8"))
    }
    assert len(codes) > 5
    for code in codes:
        assert outcome(_told(RefusedByRules(Refused(code, "text")))) is Type.FAIL, code


def test_what_nobody_explains_is_open() -> None:
    """A fault inside a server, or something between that answers in its place."""
    for status in (301, 500, 502, 503):
        assert outcome(Answer(status, {}, b"")) is Type.INFO
        assert outcome(Answer(status, {"x-raftreg-error": "internal"}, b"")) is Type.INFO
    assert outcome(Answer(409, {}, b"")) is Type.FAIL
    assert outcome(Answer(200, {}, b"")) is Type.OK
    assert "unknown_outcome" not in DEFINITE_ERRORS
