"""The catalog as a stream: what agents keep their views by.

GET /v1/internal/view?index=N&epoch=E answers with frames (big-endian u32 length, msgpack map):

* `{"kind": "reset", "index": i, "epoch": e}`, then the whole content as `deltas` frames; or
  `{"kind": "resume", "index": i, "epoch": e}` when the content up to N is known at the client;
* `{"kind": "deltas", "index": i, "deltas": [...]}` for each log entry that changed the catalog;
* `{"kind": "beat", "index": i, "leader": bool, "last_contact_ms": n or null}` at once after the
  above, then every second.

An epoch names the history that indexes belong to, so that a stream can be resumed at another
server. The recent past is kept in a ring of encoded frames that all streams share; the whole
content is encoded once and shared too, until the ring no longer reaches back to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

from raftreg.core.changes import ALL, Topic
from raftreg.core.delta import CatalogDelta, encode_deltas
from raftreg.http.watch import WatchHub
from raftreg.server.machine import RegistryMachine

RING_DELTAS_MAX = 10_000
ROWS_PER_FRAME = 256
#: A shared content is encoded anew when this many deltas would have to follow it.
REPLAY_DELTAS_MAX = RING_DELTAS_MAX // 2

_FEED: Topic = ("view-feed", "")
_encode = msgspec.msgpack.Encoder().encode


class _Entry(msgspec.Struct, frozen=True):
    """What one log entry changed: the frame for it, and how many rows it holds."""

    index: int
    rows: int
    frame: bytes


class _Content(msgspec.Struct, frozen=True):
    """The whole catalog at an index, as frames."""

    index: int
    frames: tuple[bytes, ...]


def frame(fields: Mapping[str, Any]) -> bytes:
    """Encodes one frame."""
    payload = _encode(fields)
    return len(payload).to_bytes(4, "big") + payload


def deltas_frame(index: int, deltas: Iterable[CatalogDelta]) -> bytes:
    """Encodes rows as one frame."""
    raw = msgspec.Raw(encode_deltas(deltas))
    return frame({"kind": "deltas", "index": index, "deltas": raw})


class ViewFeed:
    """The recent past of the catalog, and its whole content, ready to be sent.

    Args:
        machine: Is followed.
        hub: Wakes the streams.
        epoch: Gives the present epoch.
    """

    def __init__(self, machine: RegistryMachine, hub: WatchHub, epoch: Callable[[], str]) -> None:
        self._machine = machine
        self._hub = hub
        self._epoch = epoch
        self._ring: deque[_Entry] = deque()
        self._ring_rows = 0
        #: The ring holds everything above this index.
        self._floor = machine.state.index
        self._content: _Content | None = None
        self._encoding = asyncio.Lock()
        machine.on_change(self._changed)

    @property
    def index(self) -> int:
        """The registry index now."""
        return self._machine.state.index

    @property
    def newest(self) -> int:
        """The index of the last change of the catalog; a view that has come so far is complete."""
        return self._ring[-1].index if self._ring else self._floor

    def can_resume(self, index: int, epoch: str) -> bool:
        """Tells whether everything after an index is in the ring."""
        return bool(epoch) and epoch == self._epoch() and index >= self._floor

    async def start(self, index: int, epoch: str) -> tuple[int, list[bytes]]:
        """Gives the first frames for a client that has the content up to an index.

        Returns:
            The index that the client has after them, and the frames.
        """
        if self.can_resume(index, epoch):
            return index, [frame({"kind": "resume", "index": index, "epoch": epoch})]
        while True:
            content = await self._whole()
            since = self.after(content.index)
            if since is not None:
                break
        # Labelled with the index now: a shared content may be older than what the client had.
        now = max(self.index, since[0])
        reset = frame({"kind": "reset", "index": now, "epoch": self._epoch()})
        return now, [reset, *content.frames, *since[1]]

    def after(self, index: int) -> tuple[int, list[bytes]] | None:
        """Gives all frames after an index, None when they are no longer all there."""
        if index < self._floor:
            return None
        frames: list[bytes] = []
        newest = index
        for entry in reversed(self._ring):
            if entry.index <= index:
                break
            frames.append(entry.frame)
            newest = max(newest, entry.index)
        frames.reverse()
        return newest, frames

    async def wait(self, timeout_s: float) -> bool:
        """Waits for the next change; False when the time is over.

        Raises:
            TooManyWatches: Too many wait already.
        """
        return await self._hub.wait((_FEED,), timeout_s)

    def _changed(
        self, topics: tuple[Topic, ...], deltas: tuple[CatalogDelta, ...], index: int
    ) -> None:
        if ALL in topics:
            self._ring.clear()
            self._ring_rows = 0
            self._floor = index
            self._content = None
        elif deltas:
            self._ring.append(_Entry(index, len(deltas), deltas_frame(index, deltas)))
            self._ring_rows += len(deltas)
            self._trim()
        else:
            return
        self._hub.publish((_FEED,))

    def _trim(self) -> None:
        while self._ring_rows > RING_DELTAS_MAX and len(self._ring) > 1:
            oldest = self._ring.popleft()
            self._ring_rows -= oldest.rows
            self._floor = oldest.index

    async def _whole(self) -> _Content:
        """The shared content; encoded again, one at a time, when it is too far behind."""
        async with self._encoding:
            while not self._is_usable(self._content):
                self._content = await self._encode_content()
            assert self._content is not None
            return self._content

    def _is_usable(self, content: _Content | None) -> bool:
        if content is None or content.index < self._floor:
            return False
        behind = 0
        for entry in reversed(self._ring):
            if entry.index <= content.index:
                break
            behind += entry.rows
        return behind <= REPLAY_DELTAS_MAX

    async def _encode_content(self) -> _Content:
        index = self.index
        # Taken in one step, since the tables go on changing; encoded in slices, so that the loop
        # serves others in between.
        rows = list(self._machine.state.catalog.rows())
        frames: list[bytes] = []
        for batch in _slices(rows, ROWS_PER_FRAME):
            frames.append(deltas_frame(index, batch))
            await asyncio.sleep(0)
        return _Content(index, tuple(frames))


def _slices(rows: list[CatalogDelta], size: int) -> Iterator[list[CatalogDelta]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
