"""A restore through the log: in parts, one at a time, all or nothing."""

from __future__ import annotations

from hashlib import sha256

import pytest

from raftreg.core import staging
from raftreg.core.changes import ALL
from raftreg.core.commands import ConfigSet, KVVerb, ReapTombstones, RestoreChunk, SessionDestroy
from raftreg.core.identity import identity_entry, identity_of
from raftreg.core.snapshot import restore, snapshot
from tests.core.registry_rig import Registry


def image() -> bytes:
    """A snapshot with one key."""
    source = Registry()
    source.kv(KVVerb.SET, "restored")
    return b"".join(snapshot(source.state))


def part(data: bytes, sequence: int = 0, restore_id: str = "r", **fields: object) -> RestoreChunk:
    """One part."""
    return RestoreChunk(restore_id=restore_id, sequence=sequence, data=data, **fields)  # type: ignore[arg-type]


def registry_with_key() -> Registry:
    """A registry whose content must survive every refused restore."""
    registry = Registry()
    registry.kv(KVVerb.SET, "kept")
    return registry


def test_the_last_part_replaces_everything_and_wakes_everyone() -> None:
    """Parts before it change nothing that can be seen."""
    registry, data = registry_with_key(), image()
    first = registry.apply(part(data[:20]))
    assert (first.result, first.topics) == (True, ())
    assert list(registry.state.kv.rows) == ["kept"]
    last = registry.apply(part(data[20:], 1, last=True, sha256=sha256(data).hexdigest().upper()))
    assert (last.result, last.topics) == (True, (ALL,))
    assert list(registry.state.kv.rows) == ["restored"]
    assert registry.state.staging is None
    assert registry.state.index_floor == registry.state.index


def test_a_restore_begins_another_history() -> None:
    """The registry that the snapshot is of may live on: their indexes must not be taken for one."""
    source = Registry()
    source.run(ConfigSet(entry=identity_entry("first")))
    data = b"".join(snapshot(source.state))
    registry = registry_with_key()
    for restore_id in ("second", "third"):
        index = registry.state.index
        registry.run(part(data, 0, restore_id, last=True, sha256=sha256(data).hexdigest()))
        assert identity_of(registry.state) == restore_id
        assert registry.state.index > max(index, source.state.index)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (part(b"x", 2), "expected part 1"),
        (part(b"x", 1, "other"), "does not follow"),
        (part(b"x", 1, last=True, sha256="00"), "SHA-256"),
        (part(b"x", 1, last=True, sha256=sha256(b"firstx").hexdigest()), "cut short"),
        (part(b"x" * 100, 1), "at most 50 bytes"),
    ],
)
def test_a_wrong_part_drops_the_restore(
    monkeypatch: pytest.MonkeyPatch, second: RestoreChunk, message: str
) -> None:
    """The content stays, and the next part finds nothing to continue."""
    monkeypatch.setattr(staging, "RESTORE_BYTES_MAX", 50)
    registry = registry_with_key()
    assert registry.run(part(b"first")) is True
    assert message in registry.refusal(second)
    assert registry.state.staging is None
    assert "start again with part 0" in registry.refusal(part(b"x", 1))
    assert list(registry.state.kv.rows) == ["kept"]


def test_a_new_restore_takes_the_place_of_one_under_way() -> None:
    """An operator who starts again need not clean up."""
    registry, data = registry_with_key(), image()
    registry.run(part(b"left behind"))
    command = part(data, restore_id="again", last=True, sha256=sha256(data).hexdigest())
    assert registry.run(command) is True
    assert list(registry.state.kv.rows) == ["restored"]


def test_a_snapshot_in_the_middle_of_a_restore_keeps_the_parts() -> None:
    """A server that starts from it finishes the restore like the others."""
    registry, data = registry_with_key(), image()
    registry.run(part(data[:20]))
    registry.state = restore(snapshot(registry.state))
    command = part(data[20:], 1, last=True, sha256=sha256(data).hexdigest())
    assert registry.run(command) is True
    assert list(registry.state.kv.rows) == ["restored"]


def test_an_abandoned_restore_is_dropped_in_time() -> None:
    """Its parts do not fill memory for ever; one that goes on is left alone."""
    registry = Registry()
    registry.run(part(b"first"))
    registry.now_ms += staging.ABANDONED_AFTER_MS
    registry.run(ReapTombstones(up_to_index=0))
    assert registry.state.staging is not None
    registry.now_ms += 1
    registry.run(ReapTombstones(up_to_index=0))
    assert registry.state.staging is None


def test_lock_delays_keep_what_was_left_of_them() -> None:
    """Cluster time of the snapshot and of the cluster it goes into differ."""
    source = Registry()
    source.host()
    source.session("s1")
    source.session("s2")
    source.kv(KVVerb.LOCK, "k", session="s1")
    source.run(SessionDestroy(id="s1"))
    source.now_ms += 5_000
    source.kv(KVVerb.SET, "other")
    data = b"".join(snapshot(source.state))
    registry = Registry()
    registry.now_ms = 900_000
    registry.run(part(data, last=True, sha256=sha256(data).hexdigest()))
    registry.now_ms += 9_999
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is False
    registry.now_ms += 1
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is True
