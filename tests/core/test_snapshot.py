"""Snapshots: damage is found, chunks may be cut anywhere, the copy is of one moment."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core import query
from raftreg.core.commands import (
    ConfigDelete,
    ConfigSet,
    CoordinateUpdate,
    EventFire,
    KVVerb,
    QuerySet,
    ReapTombstones,
    RestoreChunk,
    SessionDestroy,
)
from raftreg.core.connect_ca import AuthoritySet, Root, SecretText
from raftreg.core.events import Event
from raftreg.core.snapshot import (
    MAGIC,
    SnapshotError,
    Table,
    header,
    restore,
    snapshot,
    summary,
)
from raftreg.core.vivaldi import origin
from raftreg.model import ConfigEntry, NodeCoordinate, PreparedQuery, QueryService
from tests.core.registry_rig import Registry, web, web_check

ROOT = Root(
    id="r",
    name="root",
    serial=1,
    certificate="PEM",
    key=SecretText("secret"),
    signing_key_id="s",
    not_before=0,
    not_after=1,
)


def filled() -> Registry:
    """A registry with a row in every table."""
    registry = Registry()
    registry.host("n1", web(tags=("blue",)), checks=(web_check(),))
    registry.session("s1")
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "locked", b"v", session="s1")
    registry.kv(KVVerb.LOCK, "freed", b"v", session="s2", flags=2**64 - 1)
    registry.run(SessionDestroy(id="s2"))
    registry.kv(KVVerb.SET, "dead")
    registry.kv(KVVerb.DELETE, "dead")
    registry.kv(KVVerb.SET, "brief", ttl_ms=30_000)
    registry.run(ConfigSet(entry=ConfigEntry(kind="k", name="n", body={"a": [1]})))
    registry.run(EventFire(event=Event(id="e", name="deploy")))
    query = PreparedQuery(id="q", name="web", service=QueryService(service="web"), session="s1")
    registry.run(QuerySet(query=query))
    registry.run(CoordinateUpdate(rows=(NodeCoordinate(node="n1", coordinate=origin()),)))
    registry.run(AuthoritySet(previous="", cluster_id="c", root=ROOT))
    registry.run(RestoreChunk(restore_id="r", sequence=0, data=b"part"))
    return registry


IMAGE = b"".join(snapshot(filled().state))


@given(st.integers(1, 400))
def test_how_chunks_are_cut_carries_no_meaning(size: int) -> None:
    """A proxy or a log may cut them anew."""
    chunks = [IMAGE[at : at + size] for at in range(0, len(IMAGE), size)]
    assert b"".join(snapshot(restore([b"", *chunks]))) == IMAGE


def test_every_table_is_kept_and_counted() -> None:
    """The summary shows what an operator wants to know before a restore."""
    sizes = summary([IMAGE])
    assert {name: size.rows for name, size in sizes.items()} == {
        "kv": 3,
        "kv_deadlines": 1,
        "tombstones": 1,
        "nodes": 1,
        "services": 1,
        "checks": 2,
        "sessions": 1,
        "config": 1,
        "lock_delays": 1,
        "last_changes": sizes["last_changes"].rows,
        "staged": 1,
        "events": 1,
        "queries": 1,
        "coordinates": 1,
        "connect": 1,
    }
    assert sizes["kv"].bytes > 0
    assert header([IMAGE]).index == filled().state.index


@given(st.integers(0, len(IMAGE) - 1))
def test_a_cut_snapshot_is_refused(length: int) -> None:
    """At whatever byte it ends."""
    for read in (restore, summary):
        with pytest.raises(SnapshotError):
            read([IMAGE[:length]])


@given(st.integers(0, len(IMAGE) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_found(at: int, flip: int) -> None:
    """Nothing but an error comes of damage."""
    damaged = bytearray(IMAGE)
    damaged[at] ^= flip
    with pytest.raises(SnapshotError):
        restore([bytes(damaged)])


@given(st.binary(max_size=60))
def test_garbage_is_no_snapshot(data: bytes) -> None:
    """With or without the right first bytes."""
    for start in (b"", MAGIC):
        with pytest.raises(SnapshotError):
            restore([start + data])
        with pytest.raises(SnapshotError):
            header([start + data])


def frame(table: int, rows: object) -> bytes:
    """One frame with a right checksum, whatever it holds."""
    payload = msgspec.msgpack.encode(rows)
    return struct.pack(">BII", table, len(payload), zlib.crc32(payload)) + payload


def forged(tables: dict[Table, list[object]], **header_fields: object) -> bytes:
    """A well-formed snapshot with these rows."""
    fields: dict[str, object] = {
        "format": 1,
        "index": 5,
        "time_ms": 0,
        "index_floor": 0,
        "kv_floor": 0,
        "sessions_changed": 0,
        "sessions_ended": 0,
        "config_deleted": 0,
        "names_gone": {},
        "staging": None,
    }
    rows: dict[Table, list[object]] = {Table.HEADER: [fields | header_fields], **tables}
    counts = {table.name: len(rows.get(table, [])) for table in Table if table != Table.TRAILER}
    frames = [frame(table, content) for table, content in rows.items()]
    return b"".join([MAGIC, *frames, frame(Table.TRAILER, [counts])])


_NODE = {"name": "n1", "address": "10.0.0.1"}
_QUERY = {"id": "q", "name": "web", "service": {"service": "web"}}
_COORD = {"vec": [0.0] * 8, "error": 1.5, "adjustment": 0.0, "height": 0.0}
_PLACE = {"node": "n1", "segment": "", "coordinate": _COORD, "modify_index": 3}
_SERVICE = {"node": "n1", "id": "w", "name": "web"}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (forged({}, format=99), "format 99 is not known here"),
        (forged({}, index=-1), "out of range"),
        (forged({}, index=2**63), "out of range"),
        (forged({Table.SERVICES: [_SERVICE]}), "service 'w' is on node 'n1'"),
        (forged({Table.CHECKS: [{"node": "n1", "check_id": "c"}]}), "belongs to nothing"),
        (
            forged(
                {
                    Table.NODES: [_NODE],
                    Table.CHECKS: [{"node": "n1", "check_id": "c", "service_id": "w"}],
                }
            ),
            "belongs to nothing",
        ),
        (forged({Table.SESSIONS: [{"id": "s", "node": "n1"}]}), "session s has no node"),
        (forged({Table.KV: [["k", b"", 0, "s", 1, 1, 1]]}), "is missing"),
        (forged({Table.QUERIES: [_QUERY, _QUERY | {"id": "p"}]}), "two prepared queries"),
        (forged({Table.QUERIES: [_QUERY | {"session": "s"}]}), "session s, which is missing"),
        (forged({Table.COORDINATES: [_PLACE]}), "node 'n1', which is missing"),
        (
            forged({Table.COORDINATES: [_PLACE | {"coordinate": _COORD | {"height": -1.0}}]}),
            "coordinate of node 'n1' is none",
        ),
        (forged({Table.KV: [["k", "text", 0, None, 1, 1, 1]]}), "table KV"),
        (forged({}) + frame(200, []), "unknown table 200"),
        (MAGIC + struct.pack(">BII", 2, 2**31, 0), "over the limit"),
        (MAGIC + frame(Table.KV, []), "cut short"),
        (forged({}).replace(b"\xa2KV\x00", b"\xa2KV\x01"), "checksum"),
        (forged({}) + frame(Table.NODES, [_NODE]), "rows are missing from NODES"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(image: bytes, message: str) -> None:
    """A state that its own commands could not make must never come to life."""
    with pytest.raises(SnapshotError, match=message):
        restore([image])


def test_an_empty_header_is_none() -> None:
    """Reading the header alone is as careful as reading everything."""
    with pytest.raises(SnapshotError, match="does not start with a header"):
        header([MAGIC + frame(Table.HEADER, [])])


def test_a_forged_snapshot_that_is_sound_is_taken() -> None:
    """The counterpart of the test above."""
    state = restore([forged({Table.NODES: [_NODE], Table.SERVICES: [_SERVICE]})])
    assert [row.id for row in state.catalog.instances("web")] == ["w"]


def test_the_copy_is_of_the_moment_of_the_call() -> None:
    """Commands applied while it is written do not show in it."""
    registry = filled()
    chunks = snapshot(registry.state)
    registry.kv(KVVerb.SET, "later")
    registry.kv(KVVerb.DELETE, "locked")
    assert b"".join(chunks) == IMAGE


def test_the_index_of_what_is_gone_is_kept() -> None:
    """A watcher of an ended session, a deleted key or entry sees no lower index after a restart."""
    registry = filled()
    registry.run(ConfigDelete(kind="k", name="n"))
    deleted_at = registry.state.index
    registry.run(ReapTombstones(up_to_index=registry.state.index))
    again = restore(snapshot(registry.state))
    for state in (registry.state, again):
        assert query.session_info(state, "s2").index == 7
        assert query.sessions(state).index == 7
        assert query.kv_get(state, "dead").index == 9
        assert query.config_get(state, "k", "n").index == deleted_at


def test_a_lock_delay_that_passed_is_no_part_of_the_state() -> None:
    """When it is swept from memory differs between servers; their snapshots must not."""
    registry = filled()
    registry.now_ms += 15_000
    registry.kv(KVVerb.SET, "later")
    assert registry.state.lock_delays.keys() == {"freed"}
    assert summary(snapshot(registry.state))["lock_delays"].rows == 0


def test_chunks_are_small_unless_a_value_is_large() -> None:
    """The writer holds the interpreter for a chunk at a time."""
    registry = Registry()
    for number in range(300):
        registry.kv(KVVerb.SET, f"key/{number}", b"x" * 1_000)
    registry.kv(KVVerb.SET, "large", b"x" * 500_000)
    sizes = [len(chunk) for chunk in snapshot(registry.state)]
    assert sorted(sizes)[-2] < 70_000
    assert len(sizes) > 5


def test_rows_as_large_as_a_command_allows_can_be_restored() -> None:
    """However many of them: a frame holds either a chunk of small rows or one large row."""
    registry = Registry()
    for number in range(20):
        registry.host(f"n{number}", web(f"n{number}", meta={"large": "x" * 1_400_000}))
    chunks = list(snapshot(registry.state))
    assert max(map(len, chunks)) < 1_500_000
    assert len(restore(chunks).catalog.instances("web")) == 20
