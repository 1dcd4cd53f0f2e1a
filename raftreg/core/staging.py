"""Parts of a snapshot on their way through the log, until the last one completes them."""

from __future__ import annotations

import hashlib

from raftreg.core.commands import RestoreChunk

RESTORE_BYTES_MAX = 1 << 30
#: Parts that nobody continues are dropped after this much cluster time.
ABANDONED_AFTER_MS = 10 * 60 * 1000


class Staging:
    """The parts of one restore so far.

    Args:
        restore_id: Names the restore.
        time_ms: Cluster time of the last part, in milliseconds.
        parts: Their bytes, in order.
    """

    __slots__ = ("parts", "restore_id", "size_bytes", "time_ms")

    def __init__(self, restore_id: str, time_ms: int, parts: list[bytes] | None = None) -> None:
        self.restore_id = restore_id
        self.time_ms = time_ms
        self.parts = parts if parts is not None else []
        self.size_bytes = sum(map(len, self.parts))

    def refusal(self, chunk: RestoreChunk) -> str | None:
        """Tells why a part can't be the next one; None when it can."""
        if chunk.restore_id != self.restore_id or chunk.sequence != len(self.parts):
            return (
                f"restore: part {chunk.sequence} does not follow: expected part "
                f"{len(self.parts)} of the restore under way"
            )
        if self.size_bytes + len(chunk.data) > RESTORE_BYTES_MAX:
            return f"restore: a snapshot may hold at most {RESTORE_BYTES_MAX} bytes"
        return None

    def add(self, chunk: RestoreChunk, time_ms: int) -> None:
        """Adds the next part."""
        self.parts.append(chunk.data)
        self.size_bytes += len(chunk.data)
        self.time_ms = time_ms

    def sha256(self) -> str:
        """Hex digest of all parts together."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part)
        return digest.hexdigest()

    def is_abandoned(self, time_ms: int) -> bool:
        """Tells whether no part has come for too long."""
        return time_ms - self.time_ms > ABANDONED_AFTER_MS
