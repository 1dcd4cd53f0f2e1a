"""Faults of durable storage. None of them may be passed over: the server stops and says why."""

from __future__ import annotations

from raftreg.errors import RaftregError


class StorageFault(RaftregError):
    """Base of everything that makes the storage of a server unusable."""

    code = "storage_fault"


class DiskFailure(StorageFault):
    """The operating system refused a read, a write or a sync, or the directory is in use.

    After a failed write or fsync the kernel may have dropped the dirty pages and marked them
    clean, so that a second fsync would report a success that is none (the "fsyncgate" of 2018,
    https://wiki.postgresql.org/wiki/Fsync_Errors). A failure is therefore final.
    """

    code = "disk_failure"


class _CorruptFile(StorageFault):
    """Bytes that were synced are not what was written.

    Args:
        file: Name of the file inside the data directory.
        offset: Where the damage begins, in bytes from the start of the file.
        reason: What was found there.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(
            f"{file}: corrupt at byte {offset}: {reason}. Nothing was changed; restore this server "
            "from its peers (remove it from the cluster, empty its data directory, add it again)."
        )
        self.file = file
        self.offset = offset
        self.reason = reason


class CorruptLog(_CorruptFile):
    """The write-ahead log is damaged below what is known to have been synced."""

    code = "corrupt_log"


class CorruptSnapshot(_CorruptFile):
    """A snapshot file, or the bytes of one sent by a peer, fail their checks."""

    code = "corrupt_snapshot"


class InvariantViolation(StorageFault):
    """The engine asked for something that would break Raft's guarantees."""

    code = "invariant_violation"


class ProtocolViolation(RaftregError):
    """A peer sent what no correct server sends; the message is dropped and nothing has changed."""

    code = "protocol_violation"
