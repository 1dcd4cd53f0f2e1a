"""Snapshots as files: a gzipped tar of meta.json, state.bin and SHA256SUMS.

The layout of Consul's snapshot archives
(https://github.com/hashicorp/consul/blob/v1.8.0/snapshot/archive.go), so that its clients' own
verification accepts them; `state.bin` holds our format. All of it is blocking work for a thread,
in bounded memory: bytes go from file to file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from typing import IO, Any, cast

import msgspec
import orjson

from raftreg.core.snapshot import FORMAT, SnapshotError, header
from raftreg.errors import InvalidRequest, TooLarge

COPY_BYTES = 256 * 1024
META_BYTES_MAX = 1 << 20
COMPRESS_LEVEL = 1
_NAMES = ("meta.json", "state.bin", "SHA256SUMS")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive says about itself.

    Attributes:
        id: Names the snapshot: term, index and time.
        index, term: Raft index and term at which it was taken.
        time_s: Wall time, seconds since the epoch; for people.
        servers: Members then, as (id, address).
    """

    id: str
    index: int
    term: int
    time_s: float
    servers: tuple[tuple[str, str], ...]


def write_archive(chunks: Iterable[bytes], meta: Meta, state: IO[bytes], out: IO[bytes]) -> int:
    """Writes an archive.

    Args:
        chunks: The bytes of state.bin.
        meta: Describes it.
        state: An empty temporary file.
        out: Takes the archive.

    Returns:
        Size of the archive, in bytes.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        state.write(chunk)
    size_bytes = state.tell()
    state.seek(0)
    meta_bytes = orjson.dumps(_meta_json(meta, size_bytes))
    sums = (
        f"{hashlib.sha256(meta_bytes).hexdigest()}  meta.json\n{digest.hexdigest()}  state.bin\n"
    ).encode()
    mtime_s = int(meta.time_s)
    with (
        gzip.GzipFile(
            fileobj=out, mode="wb", compresslevel=COMPRESS_LEVEL, mtime=mtime_s
        ) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        _add(archive, "meta.json", io.BytesIO(meta_bytes), len(meta_bytes), mtime_s)
        _add(archive, "state.bin", state, size_bytes, mtime_s)
        _add(archive, "SHA256SUMS", io.BytesIO(sums), len(sums), mtime_s)
    return out.tell()


def _meta_json(meta: Meta, size_bytes: int) -> dict[str, Any]:
    return {
        "Version": 1,
        "ID": meta.id,
        "Index": meta.index,
        "Term": meta.term,
        "Peers": None,
        "Configuration": {
            "Servers": [
                {"Suffrage": 0, "ID": server_id, "Address": address}
                for server_id, address in meta.servers
            ]
        },
        "ConfigurationIndex": 0,
        "Size": size_bytes,
    }


def _add(archive: tarfile.TarFile, name: str, data: IO[bytes], size: int, mtime_s: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, mtime_s
    archive.addfile(member, data)


def extract_state(archive: IO[bytes], state: IO[bytes], bytes_max: int) -> str:
    """Verifies an archive and writes its state.bin to a file.

    Args:
        archive: The archive, at its start.
        state: An empty file that takes state.bin.
        bytes_max: Most bytes that state.bin may have.

    Returns:
        SHA-256 of state.bin, in hex.

    Raises:
        InvalidRequest: It is no archive of this kind, it is damaged, or a sum differs.
        TooLarge: It unpacks to more than it may.
    """
    found: dict[str, str] = {}
    sums: dict[str, str] = {}
    try:
        packed = gzip.GzipFile(fileobj=archive, mode="rb")
        # tarfile's streaming mode needs no more of a file than `read`.
        readable = cast("IO[bytes]", _Bounded(packed, bytes_max + 2 * META_BYTES_MAX))
        with packed, tarfile.open(fileobj=readable, mode="r|") as tar:
            for member in tar:
                data = tar.extractfile(member)
                if member.name not in _NAMES or data is None:
                    raise InvalidRequest(f"snapshot: unexpected member {member.name[:64]!r}")
                if member.name == "SHA256SUMS":
                    sums = _read_sums(data.read(META_BYTES_MAX))
                else:
                    sink = state if member.name == "state.bin" else None
                    found[member.name] = _copy(data, sink)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise InvalidRequest(f"snapshot: the archive can't be read: {error}") from error
    for name in ("meta.json", "state.bin"):
        if name not in found:
            raise InvalidRequest(f"snapshot: the archive holds no {name}")
        if sums.get(name) != found[name]:
            raise InvalidRequest(f"snapshot: the SHA-256 of {name} differs from SHA256SUMS")
    state.seek(0)
    return found["state.bin"]


def check_format(state: IO[bytes]) -> None:
    """Refuses a state.bin of another program, or of a later version, before it is sent anywhere.

    Args:
        state: The file, at its start; it is there again afterwards.

    Raises:
        SnapshotError: It does not begin as ours do.
    """
    found = header(iter(lambda: state.read(COPY_BYTES), b""))
    if found.format != FORMAT:
        raise SnapshotError(f"format {found.format} is not known here (known: {FORMAT})")
    state.seek(0)


class _Bounded:
    """A reader that gives no more than so many bytes: a small file may unpack to very much."""

    def __init__(self, inner: gzip.GzipFile, bytes_max: int) -> None:
        self._inner = inner
        self._left = bytes_max

    def read(self, size: int = -1) -> bytes:
        """Reads, and counts."""
        data = self._inner.read(min(size, COPY_BYTES) if size >= 0 else COPY_BYTES)
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge("snapshot: the archive unpacks to more than a snapshot may hold")
        return data


def _copy(data: IO[bytes], out: IO[bytes] | None) -> str:
    digest = hashlib.sha256()
    while chunk := data.read(COPY_BYTES):
        digest.update(chunk)
        if out is not None:
            out.write(chunk)
    return digest.hexdigest()


def _read_sums(text: bytes) -> dict[str, str]:
    """`<hex>  <name>` a line."""
    sums: dict[str, str] = {}
    for line in text.decode("ascii").splitlines():
        digest, _, name = line.partition("  ")
        sums[name.strip()] = digest.strip().lower()
    return sums
