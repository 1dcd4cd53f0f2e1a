"""A long answer read piece by piece, with the frames of the view feed on top."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import aiohttp

from raftreg.client.failures import BadAnswer
from raftreg.client.http import failure_of
from raftreg.errors import ConnectionLost

FRAME_BYTES_MAX = 16 * 1024 * 1024
_LENGTH_BYTES = 4
_CHUNK_BYTES = 64 * 1024


class Stream:
    """The open body of an answer.

    Args:
        answer: The answer, its body unread.
        address: URL of the server that sends it.
        silence_s: Longest wait for the next bytes, in seconds; None waits for ever.

    Attributes:
        address: URL of the server that sends it.
        status: HTTP status, a success.
        headers: Headers of the answer.
    """

    def __init__(
        self, answer: aiohttp.ClientResponse, address: str, silence_s: float | None = None
    ) -> None:
        self._answer = answer
        self._silence_s = silence_s
        self.address = address
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the body in chunks as they arrive.

        Raises:
            ConnectionLost: The connection broke, or nothing came for `silence_s`.
        """
        while chunk := await self._next_chunk():
            yield chunk

    async def _next_chunk(self) -> bytes:
        """Gives what has arrived, b"" at the end."""
        try:
            # aiohttp's own read timeout ends with its parser: after bytes that are no chunk the
            # reader would be woken by nobody, not even by the end of the connection.
            async with asyncio.timeout(self._silence_s):
                return await self._answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise failure_of(error, self.address) from error

    async def head(self, bytes_max: int) -> bytes:
        """Reads up to this many bytes of the body."""
        body = b""
        async for chunk in self:
            body += chunk
            if len(body) >= bytes_max:
                break
        return body[:bytes_max]

    async def frames(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> AsyncIterator[bytes]:
        """Yields the frames of a body that is a row of (big-endian u32 length, bytes).

        Args:
            frame_bytes_max: A longer frame is refused.

        Raises:
            BadAnswer: A frame is over the limit.
            ConnectionLost: The body broke, fell silent, or ended within a frame.
        """
        buffer = bytearray()
        async for chunk in self:
            buffer += chunk
            start = 0
            while (end := self._frame_end(buffer, start, frame_bytes_max)) is not None:
                yield bytes(buffer[start + _LENGTH_BYTES : end])
                start = end
            del buffer[:start]
        if buffer:
            raise ConnectionLost(f"{self.address}: the stream ended within a frame")

    def _frame_end(self, buffer: bytearray, start: int, frame_bytes_max: int) -> int | None:
        """Gives where the frame at `start` ends, None while it is not whole."""
        if len(buffer) - start < _LENGTH_BYTES:
            return None
        length = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
        if length > frame_bytes_max:
            raise BadAnswer(
                f"{self.address}: a frame of {length} bytes, the limit is {frame_bytes_max}"
            )
        end = start + _LENGTH_BYTES + length
        return end if len(buffer) >= end else None
