"""The catalog's stream (/v1/internal/view) as a client reads it: frames, rows, where to go on.

The format is told in `raftreg.server.viewfeed`; the harness reads it with code of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from jepsen_like.history import Type
from jepsen_like.workloads.steps import Ended

FRAME_BYTES_MAX = 16 << 20
_LENGTH_BYTES = 4

#: A service row: id, metadata, modify_index.
ServiceRow = tuple[str, dict[str, str], int]


class Position(msgspec.Struct):
    """Where a client is in the stream.

    Attributes:
        index: Everything up to it is known.
        epoch: Name of the history that the index belongs to; "" before the first answer.
    """

    index: int = 0
    epoch: str = ""


class _Service(msgspec.Struct, frozen=True):
    id: str
    modify_index: int
    meta: dict[str, str] = {}


class Frame(msgspec.Struct, frozen=True):
    """One frame: "reset", "resume", "deltas" or "beat"."""

    kind: str
    index: int
    epoch: str = ""
    deltas: list[tuple[str, str, str, int, msgspec.Raw]] = []


_frames = msgspec.msgpack.Decoder(Frame)
_services = msgspec.msgpack.Decoder(_Service | None)


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """Cuts a stream into frames; ends with it, and leaves a frame out that is not whole.

    Raises:
        Ended: FAIL: it is no such stream.
    """
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(buffer[:_LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise Ended(Type.FAIL, f"a frame of {length} bytes")
            end = _LENGTH_BYTES + length
            if len(buffer) < end:
                break
            yield _frame(bytes(buffer[_LENGTH_BYTES:end]))
            del buffer[:end]


def _frame(data: bytes) -> Frame:
    try:
        return _frames.decode(data)
    except msgspec.DecodeError as error:
        raise Ended(Type.FAIL, f"a frame can't be read: {error}") from error


class Turn:
    """What one connection to the stream told.

    The content after a "reset" comes in the order of the tables, and is put into that of time here;
    what was known before is left out. It is whole with the first beat.

    Args:
        since: Where it began.

    Attributes:
        rows: What is new, in order.
        position: Where to go on; as good as `since` until `settled`.
        settled: Everything up to `position` was read.
    """

    def __init__(self, since: Position) -> None:
        self._since = since.index
        self._content: list[ServiceRow] = []
        self._content_index: int | None = None
        self._after: list[ServiceRow] = []  # what happened after the content was taken
        self.rows: list[ServiceRow] = []
        self.position = Position(since.index, since.epoch)
        self.settled = False

    def take(self, frame: Frame) -> None:
        """Takes the next frame."""
        match frame.kind:
            case "reset":
                self.settled = False
                self.position.epoch = frame.epoch
                self._content, self._content_index, self._after = [], None, []
            case "resume":
                self.settled = True
            case "deltas":
                self._take_rows(frame)
            case _:
                self._settle()
        if self.settled:
            self.position.index = frame.index

    def _take_rows(self, frame: Frame) -> None:
        rows = [
            (service.id, service.meta, service.modify_index)
            for kind, _, _, _, raw in frame.deltas
            if kind == "service" and (service := _services.decode(raw)) is not None
        ]
        if self.settled:
            self.rows.extend(rows)
            return
        if self._content_index is None:
            self._content_index = frame.index
        (self._content if frame.index == self._content_index else self._after).extend(rows)

    def _settle(self) -> None:
        if self.settled:
            return
        self.settled = True
        rows = [*sorted(self._content, key=_modify_index), *self._after]
        self.rows.extend(row for row in rows if row[2] > self._since)


def _modify_index(row: ServiceRow) -> int:
    return row[2]
