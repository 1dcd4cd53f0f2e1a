"""DNS over TCP: any number of queries on a connection, answers as they are ready (RFC 7766)."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import structlog

from raftreg.dns.answer import HEADER_BYTES, Transport
from raftreg.dns.responder import Asker, Pending, Responder

QUERY_BYTES_MAX = 4_096

_log = structlog.get_logger(__name__)


class Stream:
    """One connection.

    Args:
        reader, writer: The connection.
        responder: Answers.
        idle_s: Seconds after which it is closed when nothing comes, or nothing is taken.
        queries_max: Queries that may wait for their answers; meanwhile no more are read.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        responder: Responder,
        *,
        idle_s: float,
        queries_max: int,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._responder = responder
        self._respond = responder.desk(Transport.TCP).respond
        self._idle_s = idle_s
        self._queries_max = queries_max
        self._address: str = writer.get_extra_info("peername", ("",))[0]
        self._waiting: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answers until the peer is gone, idle for too long, or sends what is no query."""
        try:
            while await self._one():
                pass
            if self._waiting:  # the peer has sent all: it still gets its answers
                await asyncio.wait(self._waiting)
            await self._drained()
        except (OSError, asyncio.IncompleteReadError):
            pass  # it went away, or was idle for too long (TimeoutError)
        except Exception:  # noqa: BLE001 (a fault of ours must not take the name service down)
            _log.exception("dns connection failed")
        finally:
            for task in self._waiting:
                task.cancel()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    def abort(self) -> None:
        """Ends it at once."""
        self._writer.transport.abort()

    async def _one(self) -> bool:
        """Reads a query and answers it or has it answered; False when there are to be no more."""
        query = await self._query()
        if query is None:
            return False
        found = self._respond(query)
        if isinstance(found, bytes):
            self._send(found)
            await self._drained()
            # Neither the read of what is here already nor a write that fits lets others on: one
            # client with enough to ask would have the process to itself.
            await asyncio.sleep(0)
        elif found is not None:
            await self._later(query, found)
        return found is not None

    async def _query(self) -> bytes | None:
        head = await self._head()
        if head is None:
            return None
        (length,) = struct.unpack("!H", head)
        if not HEADER_BYTES <= length <= QUERY_BYTES_MAX:
            return None
        async with asyncio.timeout(self._idle_s):
            return await self._reader.readexactly(length)

    async def _head(self) -> bytes | None:
        """The length of the next query; None at the end."""
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    return await self._reader.readexactly(2)
            except asyncio.IncompleteReadError:
                return None
            except TimeoutError:
                if not self._waiting:  # else it is us who are slow
                    raise

    async def _later(self, query: bytes, pending: Pending) -> None:
        asker = Asker(query, Transport.TCP, self._address, self._send)
        task = self._responder.later(asker, pending)
        if task is not None:
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)
        if len(self._waiting) >= self._queries_max:
            await asyncio.wait(self._waiting, return_when=asyncio.FIRST_COMPLETED)
        await self._drained()

    def _send(self, reply: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(struct.pack("!H", len(reply)) + reply)

    async def _drained(self) -> None:
        async with asyncio.timeout(self._idle_s):
            await self._writer.drain()
