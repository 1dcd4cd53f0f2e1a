"""A responder that does nothing but answer: `python -m bench.responder HOST`.

It shows what the generator can send, and what the kernel takes for it: the ceiling over every rate.
It prints the ports it listens on, HTTP then DNS, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

_BODY = b"x" * 300
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)
#: Response, authoritative, one record in the answer; the rest is the query's.
_DNS_HEAD = b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00"
_DNS_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01"


class _Http(asyncio.Protocol):
    """One answer for whatever arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


class _Dns(asyncio.DatagramProtocol):
    """One record for whatever is asked."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        self._transport.sendto(data[:2] + _DNS_HEAD + data[12:] + _DNS_RECORD, addr)


async def serve(host: str) -> None:
    """Answers until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Http, host, 0)
    datagrams, _ = await loop.create_datagram_endpoint(_Dns, (host, 0))
    ports = (server.sockets[0].getsockname()[1], datagrams.get_extra_info("sockname")[1])
    print(*ports, flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


def main() -> None:
    """Serves on the address that is given."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(sys.argv[1]))


def _loop_factory() -> type[asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415  # optional: the extra `fast`
    except ImportError:
        return asyncio.SelectorEventLoop
    return uvloop.Loop


if __name__ == "__main__":
    main()
