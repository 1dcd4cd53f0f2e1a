"""/v1/snapshot: https://developer.hashicorp.com/consul/api-docs/snapshot."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import count
from typing import IO

from aiohttp import web

from raftreg.core.commands import RestoreChunk
from raftreg.errors import TooLarge
from raftreg.http.discovery import options_of, read_head_bytes
from raftreg.http.middleware import BEGUN
from raftreg.http.operation import DATACENTER, Flag, Param, Raw, operation
from raftreg.http.reply import TEXT, Reply
from raftreg.server.api.context import Context
from raftreg.server.archive import Meta, check_format, extract_state, write_archive

PART_BYTES = 512 * 1024
SEND_BYTES = 256 * 1024


class Snapshots:
    """Saving and restoring everything.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter
        # One at a time: each needs disk space for the whole state.
        self._saving = asyncio.Lock()
        self._restoring = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [web.get("/v1/snapshot", self.save), web.put("/v1/snapshot", self.restore)]

    @operation(
        "Saves everything as an archive",
        tag="snapshot",
        query=(DATACENTER, Param("stale", "this server's state, also without a leader", Flag)),
        answer=Raw("application/x-gzip"),
    )
    async def save(self, request: web.Request) -> web.StreamResponse:
        """The whole state as an archive; linearizable unless `?stale`."""
        options = options_of(request, self._datacenter)
        async with self._saving:
            await self._context.reads.ready(options)
            meta, index = self._meta(), self._context.machine.state.index
            chunks = self._context.machine.snapshot()
            head = read_head_bytes(index, self._context.reads.head(options))
            with tempfile.TemporaryFile() as state, tempfile.TemporaryFile() as archive:
                size = await asyncio.to_thread(write_archive, chunks, meta, state, archive)
                archive.seek(0)
                return await _send(request, archive, size, head)

    @operation(
        "Replaces everything by an archive's content",
        tag="snapshot",
        query=(DATACENTER,),
        body=Raw("application/x-gzip"),
    )
    async def restore(self, request: web.Request) -> Reply:
        """Replaces the whole state by an archive's, through the log."""
        options_of(request, self._datacenter)
        limit = self._context.settings.http.snapshot_bytes_max
        async with self._restoring:
            with tempfile.TemporaryFile() as archive, tempfile.TemporaryFile() as state:
                await _receive(request, archive, limit)
                sha256 = await asyncio.to_thread(extract_state, archive, state, limit)
                await asyncio.to_thread(check_format, state)
                await self._replicate(request, state, sha256)
        return Reply(b"", 200, TEXT)

    async def _replicate(self, request: web.Request, state: IO[bytes], sha256: str) -> None:
        """Sends state.bin through the log, part by part; the last one makes it count."""
        restore_id = self._context.new_id()
        part = await asyncio.to_thread(state.read, PART_BYTES)
        for sequence in count():
            following = await asyncio.to_thread(state.read, PART_BYTES)
            chunk = RestoreChunk(
                restore_id=restore_id,
                sequence=sequence,
                data=part,
                last=not following,
                sha256=sha256 if not following else "",
            )
            await self._context.writes.propose(chunk)
            if not following:
                return
            part = following

    def _meta(self) -> Meta:
        status = self._context.replica.status()
        now_s = self._context.clock.wall()
        return Meta(
            id=f"{status.term}-{status.applied_index}-{round(now_s * 1000)}",
            index=status.applied_index,
            term=status.term,
            time_s=now_s,
            servers=tuple((server.id, server.address) for server in status.servers),
        )


async def _send(
    request: web.Request, archive: IO[bytes], size: int, head: bytes
) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "application/x-gzip"
    response.content_length = size
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(": ")
        response.headers[name] = value
    await response.prepare(request)
    request[BEGUN] = response
    while chunk := await asyncio.to_thread(archive.read, SEND_BYTES):
        await response.write(chunk)
    await response.write_eof()
    return response


async def _receive(request: web.Request, archive: IO[bytes], bytes_max: int) -> None:
    """Writes the body to a file.

    Raises:
        TooLarge: It is over the limit.
    """
    size = 0
    async for chunk in request.content.iter_chunked(SEND_BYTES):
        size += len(chunk)
        if size > bytes_max:
            raise TooLarge(f"snapshot: the archive is larger than {bytes_max} bytes")
        await asyncio.to_thread(archive.write, chunk)
    archive.seek(0)
