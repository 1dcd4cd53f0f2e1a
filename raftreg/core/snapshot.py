"""The state as bytes, and back.

A snapshot is a magic line and frames, cut into chunks of about 64 KiB (how chunks are cut carries
no meaning):

    u8 table number | u32 payload length | u32 CRC-32 of the payload | payload: msgpack list of rows

all numbers big-endian. The header frame comes first, the trailer with the number of rows of each
table last, so that a cut snapshot is known as such. Tables are written in their own order, which a
restore keeps: equal states give equal bytes on every server without sorting anything.

`snapshot` copies the tables at once (pointers only, rows are immutable) and encodes lazily, so the
iterator may run in another thread while the state goes on changing.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from raftreg.core.config_table import ConfigTable
from raftreg.core.connect_ca import Authority
from raftreg.core.distances import CoordinateRow
from raftreg.core.events import Event, EventRing
from raftreg.core.staging import Staging
from raftreg.core.state import State
from raftreg.decoding import MsgpackDecoder
from raftreg.errors import RaftregError
from raftreg.model import Check, ConfigEntry, KVEntry, Node, PreparedQuery, ServiceInstance, Session

FORMAT = 1
MAGIC = b"raftreg snapshot\n"
CHUNK_BYTES = 64 * 1024
#: A frame holds one row at least, and a row at most a command's bytes or a restored part's.
FRAME_BYTES_MAX = 16 * 1024 * 1024
_ROW_BYTES = 32
_INDEX_MAX = 1 << 62
_FRAME = struct.Struct(">BII")


class SnapshotError(RaftregError):
    """The bytes are no whole snapshot of a known format."""

    code = "bad_snapshot"
    http_status = 400


class Table(enum.IntEnum):
    """Numbers of the tables in frames; a number is never given a second meaning."""

    HEADER = 1
    KV = 2
    TOMBSTONES = 3
    NODES = 4
    SERVICES = 5
    CHECKS = 6
    SESSIONS = 7
    CONFIG = 8
    LOCK_DELAYS = 9
    LAST_CHANGES = 10
    STAGED = 11
    TRAILER = 12
    QUERIES = 13
    COORDINATES = 14
    EVENTS = 15
    CONNECT = 16
    KV_DEADLINES = 20


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What is not a row."""

    format: int
    index: int
    time_ms: int
    index_floor: int
    kv_floor: int
    sessions_changed: int
    sessions_ended: int
    config_deleted: int
    names_gone: dict[str, int]
    #: Restore under way: its id and the cluster time of its last part.
    staging: tuple[str, int] | None
    queries_changed: int = 0
    queries_deleted: int = 0
    coordinates_changed: int = 0
    coordinates_dropped: int = 0


class TableSummary(msgspec.Struct, frozen=True):
    """Size of one table in a snapshot."""

    rows: int
    bytes: int


_KVRow = tuple[str, bytes, int, str | None, int, int, int]
_Rows = list[Any]

_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[Table, MsgpackDecoder[_Rows]] = {
    Table.HEADER: MsgpackDecoder(list[Header]),
    Table.KV: MsgpackDecoder(list[_KVRow]),
    Table.TOMBSTONES: MsgpackDecoder(list[tuple[str, int]]),
    Table.NODES: MsgpackDecoder(list[Node]),
    Table.SERVICES: MsgpackDecoder(list[ServiceInstance]),
    Table.CHECKS: MsgpackDecoder(list[Check]),
    Table.SESSIONS: MsgpackDecoder(list[Session]),
    Table.CONFIG: MsgpackDecoder(list[ConfigEntry]),
    Table.LOCK_DELAYS: MsgpackDecoder(list[tuple[str, int]]),
    Table.LAST_CHANGES: MsgpackDecoder(list[tuple[str, str, int]]),
    Table.STAGED: MsgpackDecoder(list[bytes]),
    Table.TRAILER: MsgpackDecoder(list[dict[str, int]]),
    Table.QUERIES: MsgpackDecoder(list[PreparedQuery]),
    Table.COORDINATES: MsgpackDecoder(list[CoordinateRow]),
    Table.EVENTS: MsgpackDecoder(list[Event]),
    Table.CONNECT: MsgpackDecoder(list[Authority]),
    Table.KV_DEADLINES: MsgpackDecoder(list[tuple[str, int, int]]),
}


# -- out -------------------------------------------------------------------------------------------


def snapshot(state: State) -> Iterator[bytes]:
    """Takes shallow copies of all tables now; the iterator gives chunks of about 64 KiB."""
    catalog, staging = state.catalog, state.staging
    changed, gone = catalog.last_changes()
    header = Header(
        format=FORMAT,
        index=state.index,
        time_ms=state.time_ms,
        index_floor=state.index_floor,
        kv_floor=state.kv.floor,
        sessions_changed=state.sessions_changed,
        sessions_ended=state.sessions_ended,
        config_deleted=state.config_deleted,
        names_gone=gone,
        staging=None if staging is None else (staging.restore_id, staging.time_ms),
        queries_changed=state.queries.changed,
        queries_deleted=state.queries.deleted,
        coordinates_changed=state.coordinates.changed,
        coordinates_dropped=state.coordinates.dropped,
    )
    delays = state.lock_delays.items()
    tables: list[tuple[Table, list[Any]]] = [
        (Table.HEADER, [header]),
        (Table.KV, list(state.kv.rows.values())),
        (Table.TOMBSTONES, list(state.kv.tombstones.items())),
        (Table.KV_DEADLINES, state.kv.endings()),
        (Table.NODES, list(catalog.nodes.values())),
        (Table.SERVICES, catalog.all_services()),
        (Table.CHECKS, catalog.all_checks()),
        (Table.SESSIONS, list(state.sessions.values())),
        (Table.CONFIG, list(state.config.values())),
        (Table.QUERIES, list(state.queries.rows.values())),
        (Table.COORDINATES, state.coordinates.all_rows()),
        # When a delay that has passed is swept is no part of the state, nor is their order.
        (Table.LOCK_DELAYS, sorted(d for d in delays if d[1] > state.time_ms)),
        (Table.LAST_CHANGES, changed),
        (Table.EVENTS, state.events.all()),
        (Table.CONNECT, [state.connect] if state.connect.cluster_id else []),
        (Table.STAGED, [] if staging is None else list(staging.parts)),
    ]
    return _encode_tables(tables)


def _encode_tables(tables: list[tuple[Table, list[Any]]]) -> Iterator[bytes]:
    yield MAGIC
    for table, rows in tables:
        if table is Table.KV:
            yield from _frames(table, map(_sized_kv_row, rows))
        elif table is Table.STAGED:
            yield from _frames(table, ((len(part), part) for part in rows))
        else:
            yield from _frames(table, map(_sized_row, rows))
    yield _frame(Table.TRAILER, [{table.name: len(rows) for table, rows in tables}])


def _frames(table: Table, sized_rows: Iterable[tuple[int, object]]) -> Iterator[bytes]:
    """Cuts rows into frames of about a chunk; a larger row gets one for itself."""
    batch: list[object] = []
    room_bytes = CHUNK_BYTES
    for size_bytes, row in sized_rows:
        room_bytes -= size_bytes + _ROW_BYTES
        if batch and room_bytes < 0:
            yield _frame(table, batch)
            batch = []
            room_bytes = CHUNK_BYTES - size_bytes - _ROW_BYTES
        batch.append(row)
    if batch:
        yield _frame(table, batch)


def _sized_row(row: object) -> tuple[int, msgspec.Raw]:
    encoded = _encode(row)
    return len(encoded), msgspec.Raw(encoded)


def _sized_kv_row(e: KVEntry) -> tuple[int, _KVRow]:
    row = (e.key, e.value, e.flags, e.session, e.lock_index, e.create_index, e.modify_index)
    return len(e.key) + len(e.value), row


def _frame(table: Table, rows: list[Any]) -> bytes:
    payload = _encode(rows)
    return _FRAME.pack(table, len(payload), zlib.crc32(payload)) + payload


# -- in --------------------------------------------------------------------------------------------


def restore(chunks: Iterable[bytes]) -> State:
    """Reads a snapshot.

    Raises:
        SnapshotError: It is cut, damaged, of an unknown format, or its rows contradict each other.
    """
    tables: dict[Table, _Rows] = {table: [] for table in Table}
    for table, payload in _read_frames(chunks):
        tables[table].extend(_decode(table, payload))
    header = _check_header(tables)
    try:
        return _build(header, tables)
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"the rows of the snapshot contradict each other: {error}") from error


def summary(chunks: Iterable[bytes]) -> dict[str, TableSummary]:
    """Gives the size of each table of a snapshot, by name, without building a state.

    Raises:
        SnapshotError: As for `restore`, but rows are not compared with each other.
    """
    sizes = dict.fromkeys(Table, (0, 0))
    tables: dict[Table, _Rows] = {table: [] for table in Table}
    for table, payload in _read_frames(chunks):
        rows = _decode(table, payload)
        count, total_bytes = sizes[table]
        sizes[table] = (count + len(rows), total_bytes + len(payload))
        if table in (Table.HEADER, Table.TRAILER):
            tables[table].extend(rows)
    _check_header(tables, {table: count for table, (count, _) in sizes.items()})
    return {
        table.name.lower(): TableSummary(*sizes[table])
        for table in Table
        if table not in (Table.HEADER, Table.TRAILER)
    }


def header(chunks: Iterable[bytes]) -> Header:
    """Gives the header of a snapshot: index, time and format, reading no further.

    Raises:
        SnapshotError: The bytes do not start with a header.
    """
    for table, payload in _read_frames(chunks):
        rows = _decode(table, payload)
        if table is not Table.HEADER or not rows:
            break
        found: Header = rows[0]
        return found
    raise SnapshotError("the snapshot does not start with a header")


def _read_frames(chunks: Iterable[bytes]) -> Iterator[tuple[Table, bytes]]:
    """Gives (table, payload) of each frame, whatever the chunks are, and checks each."""
    reader = _Reader(chunks)
    if reader.take(len(MAGIC)) != MAGIC:
        raise SnapshotError("this is no raftreg snapshot")
    while not reader.at_end():
        number, length, crc = _FRAME.unpack(reader.take(_FRAME.size))
        if number not in _NUMBERS:
            raise SnapshotError(f"unknown table {number}: the snapshot is of a newer version")
        if length > FRAME_BYTES_MAX:
            raise SnapshotError(f"a frame of {length} bytes is over the limit")
        payload = reader.take(length)
        if zlib.crc32(payload) != crc:
            raise SnapshotError(f"table {Table(number).name}: the checksum does not fit")
        yield Table(number), payload


_NUMBERS = frozenset(Table)


class _Reader:
    """Takes exact numbers of bytes from chunks of any size."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def at_end(self) -> bool:
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._chunk, self._at = chunk, 0
        return False

    def take(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            if self.at_end():
                raise SnapshotError("the snapshot is cut short")
            part = self._chunk[self._at : self._at + count]
            self._at += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)


def _decode(table: Table, payload: bytes) -> _Rows:
    try:
        return _decoders[table].decode(payload)
    except msgspec.DecodeError as error:
        raise SnapshotError(f"table {table.name}: {error}") from error


def _check_header(tables: dict[Table, _Rows], counts: dict[Table, int] | None = None) -> Header:
    if len(tables[Table.HEADER]) != 1 or len(tables[Table.TRAILER]) != 1:
        raise SnapshotError("the snapshot is cut short")
    if counts is None:
        counts = {table: len(rows) for table, rows in tables.items()}
    trailer = tables[Table.TRAILER][0]
    wrong = [
        t.name for t in Table if t is not Table.TRAILER and trailer.get(t.name, 0) != counts[t]
    ]
    if wrong:
        raise SnapshotError(f"rows are missing from {', '.join(wrong)}")
    found: Header = tables[Table.HEADER][0]
    if found.format != FORMAT:
        raise SnapshotError(f"format {found.format} is not known here (known: {FORMAT})")
    if not 0 <= found.index < _INDEX_MAX:
        raise SnapshotError(f"index {found.index} is out of range")
    return found


def _build(header: Header, tables: dict[Table, _Rows]) -> State:
    state = State()
    state.index, state.time_ms = header.index, header.time_ms
    _build_kv(state, header, tables)
    state.lock_delays = dict(tables[Table.LOCK_DELAYS])
    catalog = state.catalog
    catalog.load(tables[Table.NODES], tables[Table.SERVICES], tables[Table.CHECKS])
    catalog.adopt_last_changes(tables[Table.LAST_CHANGES], header.names_gone)
    catalog.index, catalog.index_floor = header.index, header.index_floor
    for session in tables[Table.SESSIONS]:
        _require(session.node in catalog.nodes, f"session {session.id} has no node")
        state.sessions[session.id] = session
        state.sessions_of.setdefault(session.node, set()).add(session.id)
    state.sessions_changed, state.sessions_ended = header.sessions_changed, header.sessions_ended
    for holder in state.kv.held:
        _require(holder in state.sessions, f"a key is locked by session {holder}, which is missing")
    state.config = ConfigTable(tables[Table.CONFIG])
    state.connect = tables[Table.CONNECT][-1] if tables[Table.CONNECT] else Authority()
    state.config_deleted = header.config_deleted
    _build_queries(state, header, tables)
    _build_coordinates(state, header, tables)
    state.events = EventRing(tables[Table.EVENTS])
    if header.staging is not None:
        state.staging = Staging(*header.staging, tables[Table.STAGED])
    return state


def _build_queries(state: State, header: Header, tables: dict[Table, _Rows]) -> None:
    rows: list[PreparedQuery] = tables[Table.QUERIES]
    state.queries.load(rows, changed=header.queries_changed, deleted=header.queries_deleted)
    for row in rows:
        known = not row.session or row.session in state.sessions
        _require(known, f"prepared query {row.id} is of session {row.session}, which is missing")


def _build_coordinates(state: State, header: Header, tables: dict[Table, _Rows]) -> None:
    table, rows = state.coordinates, tables[Table.COORDINATES]
    table.load(rows, changed=header.coordinates_changed, dropped=header.coordinates_dropped)
    for name in table.rows:
        _require(name in state.catalog.nodes, f"a coordinate is of node {name!r}, which is missing")


def _build_kv(state: State, header: Header, tables: dict[Table, _Rows]) -> None:
    ttls_ms = {key: ttl_ms for key, ttl_ms, _ in tables[Table.KV_DEADLINES]}
    deadlines = {key: at_ms for key, _, at_ms in tables[Table.KV_DEADLINES]}
    entries = [_kv_entry(row, ttls_ms.get(row[0], 0)) for row in tables[Table.KV]]
    state.kv.load(entries, dict(tables[Table.TOMBSTONES]), header.kv_floor, deadlines)
    for key in deadlines:
        _require(key in state.kv.rows, f"a TTL is of key {key!r}, which is missing")
        _require(ttls_ms[key] > 0, f"the TTL of key {key!r} is {ttls_ms[key]} ms")


def _kv_entry(row: _KVRow, ttl_ms: int) -> KVEntry:
    key, value, flags, session, lock_index, create_index, modify_index = row
    return KVEntry(
        key=key,
        value=value,
        flags=flags,
        session=session,
        lock_index=lock_index,
        create_index=create_index,
        modify_index=modify_index,
        ttl_ms=ttl_ms,
    )


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
