"""The TTL of keys: when they end, what renews them, and that nothing else follows from it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.commands import (
    KVExpire,
    KVOp,
    KVVerb,
    RestoreChunk,
    SessionDestroy,
    Txn,
    decode,
    encode,
)
from raftreg.core.kvstore import EXPIRED_TOGETHER_MAX
from raftreg.core.results import TxnResult
from raftreg.core.snapshot import SnapshotError, Table, restore, snapshot
from raftreg.model import KV_TTL_MS_MAX
from tests.core.registry_rig import Registry
from tests.core.test_snapshot import frame


def _expire(registry: Registry, keys_max: int = 100) -> tuple[bool, tuple[tuple[str, str], ...]]:
    applied = registry.apply(KVExpire(keys_max=keys_max))
    assert isinstance(applied.result, bool)
    return applied.result, applied.topics


def test_a_key_ends_at_its_deadline_and_not_before() -> None:
    """The end is a delete: the key's watchers are told, and a tombstone keeps the index up."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", ttl_ms=5_000)
    registry.now_ms += 4_999
    assert _expire(registry) == (False, ())
    assert "k" in registry.state.kv.rows
    registry.now_ms += 1
    assert _expire(registry) == (True, (("kv", "k"),))
    assert "k" not in registry.state.kv.rows
    assert registry.state.kv.tombstones == {"k": registry.state.index}


def test_a_key_whose_time_is_over_is_there_until_it_is_deleted() -> None:
    """What reads and conditions see changes only by an entry of the log."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", ttl_ms=1_000)
    registry.now_ms += 60_000
    assert registry.kv(KVVerb.CAS, "k", b"new", index=0) is False
    assert registry.kv(KVVerb.RENEW, "k") is True
    assert _expire(registry)[0] is False


def test_a_renewal_keeps_the_entry_as_it_is() -> None:
    """Value, lock and index stay, and nobody is woken; only the deadline moves."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", flags=7, ttl_ms=5_000)
    before = registry.state.kv.rows["k"]
    registry.now_ms += 4_000
    applied = registry.apply(KVOp(verb=KVVerb.RENEW, key="k"))
    assert (applied.result, applied.topics) == (True, ())
    assert registry.state.kv.rows["k"] is before
    registry.now_ms += 4_999
    assert _expire(registry)[0] is False
    registry.now_ms += 1
    assert _expire(registry)[0] is True


def test_a_renewal_with_another_ttl_is_a_change() -> None:
    """The TTL is shown to readers, so its watchers are told and the index moves."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", ttl_ms=5_000)
    applied = registry.apply(KVOp(verb=KVVerb.RENEW, key="k", ttl_ms=9_000))
    assert applied.topics == (("kv", "k"),)
    entry = registry.state.kv.rows["k"]
    assert (entry.value, entry.ttl_ms, entry.modify_index) == (b"v", 9_000, registry.state.index)


def test_a_renewal_may_be_bound_to_an_index() -> None:
    """It fails where somebody else has written since, and where the key is gone."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", ttl_ms=5_000)
    index = registry.state.kv.rows["k"].modify_index
    assert registry.kv(KVVerb.RENEW, "k", index=index) is True
    registry.kv(KVVerb.SET, "k", b"other", ttl_ms=5_000)
    assert registry.kv(KVVerb.RENEW, "k", index=index) is False
    assert registry.kv(KVVerb.RENEW, "none") is False


def test_a_key_without_a_ttl_can_be_given_one_but_not_renewed() -> None:
    """A renewal that would do nothing for ever is a mistake of the caller."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v")
    assert "has no TTL" in registry.refusal(KVOp(verb=KVVerb.RENEW, key="k"))
    assert registry.kv(KVVerb.RENEW, "k", ttl_ms=1_000) is True
    assert registry.state.kv.rows["k"].ttl_ms == 1_000


@pytest.mark.parametrize("verb", [KVVerb.SET, KVVerb.CAS, KVVerb.LOCK])
def test_a_write_without_a_ttl_clears_it(verb: KVVerb) -> None:
    """Each write says how long the key lives; one that says nothing means for ever."""
    registry = Registry()
    registry.host()
    registry.session()
    registry.kv(KVVerb.SET, "k", b"v", ttl_ms=1_000)
    index = registry.state.kv.rows["k"].modify_index
    assert registry.kv(verb, "k", b"w", index=index, session="s1") is True
    assert registry.state.kv.deadlines == {}
    assert registry.state.kv.rows["k"].ttl_ms == 0


@pytest.mark.parametrize("ttl_ms", [1, 999, -1, KV_TTL_MS_MAX + 1])
def test_a_ttl_out_of_range_is_refused(ttl_ms: int) -> None:
    """A second at least, a year at most; nothing is written."""
    registry = Registry()
    op = KVOp(verb=KVVerb.SET, key="k", ttl_ms=ttl_ms)
    assert "TTL must be between" in registry.refusal(op)
    assert registry.state.kv.rows == {}


def test_a_lock_does_not_keep_a_key_and_its_end_starts_no_lock_delay() -> None:
    """As with a delete: the holder's session lives on, and anybody may lock the key at once."""
    registry = Registry()
    registry.host()
    registry.session("s1", lock_delay_s=15.0)
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "k", b"v", session="s1", ttl_ms=1_000)
    registry.now_ms += 1_000
    assert _expire(registry)[0] is True
    assert registry.state.kv.held == {}
    assert "s1" in registry.state.sessions
    assert registry.kv(KVVerb.LOCK, "k", b"v", session="s2") is True


def test_the_end_of_a_session_leaves_the_ttl_of_its_keys_alone() -> None:
    """A released key ends when it said it would."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.kv(KVVerb.LOCK, "k", b"v", session="s1", ttl_ms=5_000)
    deadline_ms = registry.state.kv.deadlines["k"]
    registry.run(SessionDestroy(id="s1"))
    assert registry.state.kv.rows["k"].session is None
    assert registry.state.kv.deadlines == {"k": deadline_ms}


def test_what_ends_together_is_deleted_a_few_at_a_time() -> None:
    """The first to end goes first; no command does more than its share, whatever it asks."""
    registry = Registry()
    for number in range(EXPIRED_TOGETHER_MAX + 10):
        registry.kv(KVVerb.SET, f"k{number:04}", ttl_ms=2_000)
    registry.now_ms += 1
    registry.kv(KVVerb.SET, "first", ttl_ms=1_000)
    registry.now_ms += 5_000
    assert _expire(registry, 1) == (True, (("kv", "first"),))
    assert len(_expire(registry, 1 << 40)[1]) == EXPIRED_TOGETHER_MAX
    assert len(_expire(registry, 1 << 40)[1]) == 10
    assert _expire(registry) == (False, ())


def test_a_transaction_that_fails_leaves_every_deadline() -> None:
    """Sets, renewals, deletes of keys and trees are taken back together."""
    registry = Registry()
    for key in ("a", "b", "t/1", "t/2"):
        registry.kv(KVVerb.SET, key, b"v", ttl_ms=5_000)
    before = dict(registry.state.kv.deadlines)
    registry.now_ms += 1_000
    operations = (
        KVOp(verb=KVVerb.RENEW, key="a"),
        KVOp(verb=KVVerb.SET, key="b", value=b"w"),
        KVOp(verb=KVVerb.RENEW, key="b", ttl_ms=3_000),
        KVOp(verb=KVVerb.DELETE_TREE, key="t/"),
        KVOp(verb=KVVerb.SET, key="t/1", ttl_ms=9_000),
        KVOp(verb=KVVerb.RENEW, key="none"),
    )
    result = registry.run(Txn(operations=operations))
    assert isinstance(result, TxnResult)
    assert result.errors == (
        (5, 'failed to renew key "none", it doesn\'t exist or its index is stale'),
    )
    assert registry.state.kv.deadlines == before
    assert registry.state.kv.next_deadline_ms() == min(before.values())
    assert isinstance(done := registry.run(Txn(operations=operations[:5])), TxnResult)
    assert done.ok
    assert registry.state.kv.deadlines == {
        "a": registry.now_ms + 5_000,
        "b": registry.now_ms + 3_000,
        "t/1": registry.now_ms + 9_000,
    }


def test_a_large_tree_takes_its_deadlines_with_it() -> None:
    """Also where a delete of many keys leaves no tombstones."""
    registry = Registry()
    for number in range(1_100):
        registry.kv(KVVerb.SET, f"t/{number}", ttl_ms=5_000)
    registry.kv(KVVerb.DELETE_TREE, "t/")
    assert registry.state.kv.deadlines == {}
    assert registry.state.kv.next_deadline_ms() is None


def test_a_snapshot_that_is_restored_elsewhere_keeps_the_remaining_terms() -> None:
    """Cluster times of two clusters have nothing to do with each other; what was left stays."""
    source, target = Registry(), Registry()
    source.kv(KVVerb.SET, "k", b"v", ttl_ms=9_000)
    source.now_ms += 4_000
    source.kv(KVVerb.SET, "other")
    image = b"".join(snapshot(source.state))
    target.now_ms = 5_000_000
    chunk = RestoreChunk(
        restore_id="r", sequence=0, data=image, last=True, sha256=sha256(image).hexdigest()
    )
    assert target.run(chunk) is True
    assert target.state.kv.deadlines == {"k": 5_005_000}
    target.now_ms += 5_000
    assert _expire(target)[0] is True


@pytest.mark.parametrize("row", [("none", 1_000, 5), ("k", 0, 5)])
def test_a_snapshot_whose_deadlines_fit_no_key_is_refused(row: tuple[str, int, int]) -> None:
    """A deadline without a key, or without a TTL, would never be cleared."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", ttl_ms=1_000)
    chunks = list(snapshot(registry.state))
    whole = [frame(Table.KV_DEADLINES, [row]) if c[:1] == b"\x14" else c for c in chunks]
    assert whole != chunks
    with pytest.raises(SnapshotError, match="TTL"):
        restore(whole)


_steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 999, 1_000, 2_000]),
        st.one_of(
            st.builds(
                KVOp,
                verb=st.sampled_from(
                    [KVVerb.SET, KVVerb.RENEW, KVVerb.RENEW, KVVerb.CAS, KVVerb.DELETE]
                ),
                key=st.sampled_from(["a", "b", "c"]),
                ttl_ms=st.sampled_from([0, 1_000, 3_000]),
            ),
            st.builds(KVExpire, keys_max=st.sampled_from([1, 2])),
        ),
    ),
    max_size=30,
)


@given(_steps, st.integers(0, 30))
def test_every_server_expires_the_same_keys_at_the_same_index(
    script: list[tuple[int, KVOp | KVExpire]], cut: int
) -> None:
    """Whether it saw all commands, or a snapshot and the rest; and never before the time."""
    one, other = Registry(), Registry()
    for number, (passed_ms, command) in enumerate(script):
        if number == cut:
            other.state = restore(snapshot(other.state))
        one.now_ms += passed_ms
        other.now_ms = one.now_ms
        due = {k for k, at_ms in one.state.kv.deadlines.items() if at_ms <= one.now_ms}
        before = set(one.state.kv.rows)
        one.apply(command)
        other.apply(decode(encode(command)))
        if isinstance(command, KVExpire):
            assert before - set(one.state.kv.rows) <= due
        assert b64encode(b"".join(snapshot(one.state))) == b64encode(
            b"".join(snapshot(other.state))
        )
