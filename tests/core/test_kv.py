"""The KV verbs one by one (the traps that clients fall into)."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core import kvstore, query
from raftreg.core.commands import KVOp, KVVerb, ReapTombstones, SessionDestroy, Txn
from raftreg.core.kvstore import KVStore, upper_bound
from raftreg.model import KVEntry
from tests.core.registry_rig import Registry


def test_cas_with_index_0_creates_only() -> None:
    """The first writer wins, the second is told False and changes nothing."""
    registry = Registry()
    assert registry.kv(KVVerb.CAS, "k", b"one", index=0) is True
    assert registry.kv(KVVerb.CAS, "k", b"two", index=0) is False
    entry = registry.state.kv.get("k")
    assert entry is not None
    assert entry.value == b"one"
    assert registry.kv(KVVerb.CAS, "k", b"two", index=entry.modify_index) is True


def test_a_write_that_changes_nothing_gets_a_new_index() -> None:
    """CreateIndex stays, ModifyIndex moves, flags and value are the new ones."""
    registry = Registry()
    registry.kv(KVVerb.SET, "k", b"v", flags=7)
    first = registry.state.kv.rows["k"]
    registry.kv(KVVerb.SET, "k", b"v", flags=7)
    second = registry.state.kv.rows["k"]
    assert second.create_index == first.create_index
    assert second.modify_index == first.modify_index + 1


def test_delete_of_a_missing_key_is_true_with_and_without_cas() -> None:
    """An existing one is deleted at its own index only."""
    registry = Registry()
    assert registry.kv(KVVerb.DELETE, "k") is True
    assert registry.kv(KVVerb.DELETE_CAS, "k", index=9) is True
    registry.kv(KVVerb.SET, "k")
    assert registry.kv(KVVerb.DELETE_CAS, "k", index=0) is False
    assert (
        registry.kv(KVVerb.DELETE_CAS, "k", index=registry.state.kv.rows["k"].modify_index) is True
    )
    assert registry.state.kv.get("k") is None


def test_lock_index_counts_acquisitions_not_writes_of_the_holder() -> None:
    """Another session is told False; a release frees the key and keeps the count."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.session("s2")
    assert registry.kv(KVVerb.LOCK, "k", b"1", session="s1") is True
    assert registry.kv(KVVerb.LOCK, "k", b"2", session="s1") is True
    assert registry.kv(KVVerb.LOCK, "k", b"3", session="s2") is False
    assert registry.state.kv.rows["k"].lock_index == 1
    assert registry.state.kv.rows["k"].value == b"2"
    assert registry.kv(KVVerb.UNLOCK, "k", session="s2") is False
    assert registry.kv(KVVerb.UNLOCK, "k", b"free", session="s1") is True
    assert registry.state.kv.rows["k"].session is None
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is True
    assert registry.state.kv.rows["k"].lock_index == 2


def test_a_plain_write_and_a_delete_pass_a_lock() -> None:
    """Locks are advisory: set keeps the holder, delete removes the key."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.kv(KVVerb.SET, "k", b"new")
    assert registry.state.kv.rows["k"].session == "s1"
    assert registry.kv(KVVerb.DELETE, "k") is True
    assert registry.state.kv.held == {}


def test_lock_and_unlock_name_what_is_wrong_with_the_session() -> None:
    """Consul's texts, status 500."""
    registry = Registry()
    lock = KVOp(verb=KVVerb.LOCK, key="k", session='x"y')
    assert registry.refusal(lock) == 'invalid session "x\\"y"'
    assert registry.refusal(KVOp(verb=KVVerb.LOCK, key="k")) == "missing session"
    assert registry.refusal(KVOp(verb=KVVerb.UNLOCK, key="k")) == "missing session"
    endless = registry.refusal(KVOp(verb=KVVerb.LOCK, key="k", session="x" * 10_000))
    assert len(endless) < 300


def test_verbs_that_only_read_and_empty_keys_are_refused_alone() -> None:
    """They are no writes, so the caller erred."""
    registry = Registry()
    assert "transaction only" in registry.refusal(KVOp(verb=KVVerb.GET, key="k"))
    assert registry.refusal(KVOp(verb=KVVerb.SET, key="")) == "Missing key name"


def test_delete_tree_publishes_one_topic_and_nothing_when_empty() -> None:
    """Deleting nothing wakes nobody."""
    registry = Registry()
    registry.kv(KVVerb.SET, "a/1")
    registry.kv(KVVerb.SET, "a/2")
    registry.kv(KVVerb.SET, "b")
    assert registry.apply(KVOp(verb=KVVerb.DELETE_TREE, key="a/")).topics == (("kv-tree", "a/"),)
    assert list(registry.state.kv.rows) == ["b"]
    assert registry.apply(KVOp(verb=KVVerb.DELETE_TREE, key="a/")).topics == ()


def test_reaping_tombstones_lets_no_index_fall() -> None:
    """A watcher of a deleted key or its prefix still sees at least the index of the deletion."""
    registry = Registry()
    registry.kv(KVVerb.SET, "a/1")
    registry.kv(KVVerb.SET, "a/2")
    registry.kv(KVVerb.DELETE, "a/1")
    deleted_at = registry.state.index
    assert registry.run(ReapTombstones(up_to_index=deleted_at - 1)) is True
    assert registry.state.kv.tombstones == {"a/1": deleted_at}
    assert registry.apply(ReapTombstones(up_to_index=deleted_at)).topics == ()
    assert registry.state.kv.tombstones == {}
    assert query.kv_get(registry.state, "a/1").index == deleted_at
    assert query.kv_list(registry.state, "a/").index == deleted_at


def test_tombstones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit they are forgotten, and no index falls."""
    monkeypatch.setattr(kvstore, "TOMBSTONES_MAX", 3)
    registry = Registry()
    for number in range(5):
        registry.kv(KVVerb.SET, f"k{number}")
        registry.kv(KVVerb.DELETE, f"k{number}")
        assert query.kv_get(registry.state, f"k{number}").index == registry.state.index
    assert len(registry.state.kv.tombstones) <= 3
    assert query.kv_get(registry.state, "k0").index >= 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_large_tree_leaves_a_floor_and_rolls_back(
    monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """One deletion of many keys keeps no tombstone a key; undone, everything is as before."""
    monkeypatch.setattr(kvstore, "TREE_TOMBSTONES_MAX", 2)
    registry = Registry()
    registry.host()
    registry.session("s1")
    for number in range(4):
        registry.kv(KVVerb.LOCK, f"a/{number}", session="s1")
    registry.kv(KVVerb.SET, "b")
    kv = registry.state.kv
    before = copy.deepcopy((kv.rows, kv.floor, kv.held))
    operations = [KVOp(verb=KVVerb.DELETE_TREE, key="a/")]
    if fails:
        operations.append(KVOp(verb=KVVerb.GET, key="a/1"))
    result = registry.run(Txn(operations=tuple(operations)))
    if fails:
        assert (kv.rows, kv.floor, kv.held) == before
        assert kv.keys_under("a/") == ["a/0", "a/1", "a/2", "a/3"]
        return
    assert not isinstance(result, bool | str)
    assert list(kv.rows) == kv.keys_under("") == ["b"]
    assert kv.tombstones == {}
    assert kv.held == {}
    assert query.kv_list(registry.state, "a/").index == registry.state.index


def test_keys_are_cut_at_the_first_separator_behind_the_prefix() -> None:
    """Each common start is listed once, with its separator."""
    registry = Registry()
    for key in ("a/b/1", "a/b/2", "a/c", "a/d/e/f", "b"):
        registry.kv(KVVerb.SET, key)
    assert query.kv_keys(registry.state, "a/", "/").value == ["a/b/", "a/c", "a/d/"]
    assert query.kv_keys(registry.state, "", "/").value == ["a/", "b"]
    assert query.kv_keys(registry.state, "a/b").value == ["a/b/1", "a/b/2"]


def test_a_deletion_makes_a_second_session_wait_for_no_delay() -> None:
    """Lock delay follows an invalidation, not a release or a delete."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.kv(KVVerb.DELETE, "k")
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is True
    registry.run(SessionDestroy(id="s2"))
    assert registry.kv(KVVerb.LOCK, "k", session="s1") is False


@given(st.lists(st.text(max_size=3), max_size=20), st.text(max_size=2))
def test_a_prefix_selects_what_startswith_selects(keys: list[str], prefix: str) -> None:
    """Also for prefixes that end in the highest code point."""
    store = KVStore()
    top = chr(0x10FFFF)
    for key in [*keys, prefix, prefix + top, prefix + top + "x", prefix + "a"]:
        store.put(KVEntry(key=key, value=b""), None)
    for wanted in (prefix, prefix + top):
        assert store.keys_under(wanted) == sorted(k for k in store.rows if k.startswith(wanted))
    assert len(store) == len(store.rows)


def test_nothing_is_above_the_highest_prefix() -> None:
    """So it has no upper bound."""
    assert upper_bound("") is None
    assert upper_bound(chr(0x10FFFF)) is None
    assert upper_bound("a" + chr(0x10FFFF)) == "b"
