"""Transactions: atomic, read their own writes, say all that failed in Consul's words."""

from __future__ import annotations

import pytest

from raftreg.core import kvstore, txn
from raftreg.core.commands import (
    CatalogVerb,
    CheckOp,
    KVOp,
    KVVerb,
    NodeOp,
    ServiceOp,
    SessionDestroy,
    Txn,
)
from raftreg.core.results import TxnItem, TxnResult
from raftreg.model import TXN_OPERATIONS_MAX, Check, Node, ServiceInstance, Status
from tests.core.registry_rig import Registry, web, web_check

NODE = Node(name="n1", id="id-n1", address="10.0.0.1")


def run(registry: Registry, *operations: txn.Operation) -> TxnResult:
    """Runs a transaction."""
    result = registry.run(Txn(operations=operations))
    assert isinstance(result, TxnResult)
    return result


def error(registry: Registry, operation: txn.Operation) -> str:
    """The text with which a single operation fails."""
    result = run(registry, operation)
    assert not result.ok
    assert result.results == ()
    ((number, what),) = result.errors
    assert number == 0
    return what


def kv(verb: KVVerb, key: str = "k", **fields: object) -> KVOp:
    """A KV operation."""
    return KVOp(verb=verb, key=key, **fields)  # type: ignore[arg-type]


def test_reads_see_the_writes_before_them() -> None:
    """Writes answer without the value, reads with it."""
    registry = Registry()
    result = run(
        registry,
        kv(KVVerb.SET, "a/1", value=b"one", flags=3),
        kv(KVVerb.GET, "a/1"),
        kv(KVVerb.CHECK_NOT_EXISTS, "a/2"),
        kv(KVVerb.SET, "a/2", value=b"two"),
        kv(KVVerb.GET_TREE, "a/"),
        kv(KVVerb.DELETE, "a/1"),
        kv(KVVerb.GET_TREE, "a/"),
    )
    assert result.ok
    rows = [item.kv for item in result.results]
    assert [(row.key, row.value) for row in rows if row is not None] == [
        ("a/1", b""),
        ("a/1", b"one"),
        ("a/2", b""),
        ("a/1", b"one"),
        ("a/2", b"two"),
        ("a/2", b"two"),
    ]
    assert rows[0] is not None
    assert rows[0].flags == 3


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        (kv(KVVerb.GET, "x"), 'key "x" doesn\'t exist'),
        (kv(KVVerb.CAS, index=9), 'failed to set key "k", index is stale'),
        (kv(KVVerb.DELETE_CAS, index=9), 'failed to delete key "k", index is stale'),
        (kv(KVVerb.LOCK, session="s2"), 'failed to lock key "k", lock is already held'),
        (kv(KVVerb.LOCK, session="none"), 'invalid session "none"'),
        (
            kv(KVVerb.UNLOCK, session="s2"),
            'failed to unlock key "k", lock isn\'t held, or is held by another session',
        ),
        (kv(KVVerb.CHECK_NOT_EXISTS), 'key "k" exists'),
        (kv(KVVerb.CHECK_INDEX, "x"), 'failed to check index, key "x" doesn\'t exist'),
        (
            kv(KVVerb.CHECK_INDEX, index=9),
            'failed index check for key "k", current modify index 5 != 9',
        ),
        (kv(KVVerb.CHECK_SESSION, "x"), 'failed to check session, key "x" doesn\'t exist'),
        (
            kv(KVVerb.CHECK_SESSION, session="s2"),
            'failed session check for key "k", current session "s1" != "s2"',
        ),
        (
            NodeOp(verb=CatalogVerb.GET, node=Node(name="x", address="")),
            'node "x" doesn\'t exist',
        ),
        (
            NodeOp(verb=CatalogVerb.CAS, node=NODE, index=9),
            'failed to set node "n1", index is stale',
        ),
        (
            NodeOp(verb=CatalogVerb.DELETE_CAS, node=NODE, index=9),
            'failed to delete node "n1", index is stale',
        ),
        (
            NodeOp(verb=CatalogVerb.SET, node=Node(name="", address="")),
            "Must provide node and address",
        ),
        (
            ServiceOp(verb=CatalogVerb.GET, service=web("n1", "x")),
            'service "x" on node "n1" doesn\'t exist',
        ),
        (
            ServiceOp(verb=CatalogVerb.CAS, service=web(), index=9),
            'failed to set service "web-1" on node "n1", index is stale',
        ),
        (
            ServiceOp(verb=CatalogVerb.DELETE_CAS, service=web(), index=9),
            'failed to delete service "web-1" on node "n1", index is stale',
        ),
        (ServiceOp(verb=CatalogVerb.SET, service=web("x")), "Missing node registration"),
        (
            ServiceOp(verb=CatalogVerb.SET, service=ServiceInstance(node="n1", id="x", name="")),
            "Must provide service name with ID",
        ),
        (
            CheckOp(verb=CatalogVerb.GET, check=Check(node="n1", check_id="x")),
            'check "x" on node "n1" doesn\'t exist',
        ),
        (
            CheckOp(verb=CatalogVerb.CAS, check=web_check(), index=9),
            'failed to set check "service:web-1" on node "n1", index is stale',
        ),
        (
            CheckOp(verb=CatalogVerb.DELETE_CAS, check=web_check(), index=9),
            'failed to delete check "service:web-1" on node "n1", index is stale',
        ),
        (
            CheckOp(verb=CatalogVerb.SET, check=Check(node="x", check_id="c")),
            "Missing node registration",
        ),
        (
            CheckOp(verb=CatalogVerb.SET, check=Check(node="n1", check_id="c", service_id="x")),
            "Missing service registration",
        ),
        (
            CheckOp(verb=CatalogVerb.SET, check=Check(node="n1", check_id="")),
            "Must provide check ID or name",
        ),
    ],
)
def test_failures_are_told_in_consul_s_words(operation: txn.Operation, what: str) -> None:
    """Clients and people know these texts."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1")
    registry.session("s2")
    assert registry.kv(KVVerb.LOCK, "k", session="s1") is True
    assert error(registry, operation) == what


def test_a_lock_that_is_delayed_says_so() -> None:
    """It is not held by anybody, so "already held" would mislead."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.run(SessionDestroy(id="s1"))
    what = error(registry, kv(KVVerb.LOCK, session="s2"))
    assert what == 'failed to lock key "k" due to lock delay'


def test_a_failure_undoes_everything_and_names_every_failed_operation() -> None:
    """Keys, tombstones, catalog rows, sessions, their locks and delays are as before."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1", service_checks=("service:web-1",))
    registry.kv(KVVerb.LOCK, "held", session="s1")
    registry.kv(KVVerb.SET, "old")
    registry.kv(KVVerb.SET, "dead")
    registry.kv(KVVerb.DELETE, "dead")
    state = registry.state

    def content() -> tuple[object, ...]:
        catalog = state.catalog
        return (
            dict(state.kv.rows),
            dict(state.kv.tombstones),
            {session: set(keys) for session, keys in state.kv.held.items()},
            dict(state.sessions),
            {node: set(ids) for node, ids in state.sessions_of.items()},
            (state.sessions_changed, state.sessions_ended, dict(state.lock_delays)),
            (dict(catalog.nodes), catalog.services_of("n1"), catalog.checks_of("n1")),
            (catalog.last_changes(), catalog.tags_of("web"), list(catalog.service_names())),
        )

    before = content()
    applied = registry.apply(
        Txn(
            operations=(
                kv(KVVerb.SET, "dead"),
                kv(KVVerb.DELETE, "old"),
                CheckOp(verb=CatalogVerb.SET, check=web_check(Status.CRITICAL)),
                kv(KVVerb.GET, "nothing"),
                NodeOp(verb=CatalogVerb.DELETE, node=NODE),
                kv(KVVerb.LOCK, "new", session="s1"),
            )
        )
    )
    assert isinstance(applied.result, TxnResult)
    assert [number for number, _ in applied.result.errors] == [3, 5]
    assert (applied.topics, applied.deltas) == ((), ())
    assert content() == before


def test_catalog_operations_take_effect_and_answer_with_rows() -> None:
    """A whole registration, read back; deletes answer nothing."""
    registry = Registry()
    result = run(
        registry,
        NodeOp(verb=CatalogVerb.CAS, node=NODE, index=0),
        ServiceOp(verb=CatalogVerb.CAS, service=web(tags=("blue",)), index=0),
        CheckOp(verb=CatalogVerb.CAS, check=web_check(), index=0),
        NodeOp(verb=CatalogVerb.GET, node=Node(name="", id="id-n1", address="")),
        ServiceOp(verb=CatalogVerb.GET, service=web()),
        CheckOp(verb=CatalogVerb.GET, check=web_check()),
    )
    assert result.ok
    assert result.results[:3] == result.results[3:]
    catalog = registry.state.catalog
    assert result.results[3] == TxnItem(node=catalog.nodes["n1"])
    assert result.results[5] == TxnItem(check=catalog.check("n1", "service:web-1"))
    result = run(
        registry,
        CheckOp(verb=CatalogVerb.DELETE, check=web_check()),
        ServiceOp(verb=CatalogVerb.DELETE, service=web()),
        NodeOp(verb=CatalogVerb.DELETE, node=NODE),
        NodeOp(verb=CatalogVerb.DELETE_CAS, node=NODE, index=5),
    )
    assert (result.ok, result.results) == (True, ())
    assert catalog.nodes == {}


def test_a_session_ended_by_an_operation_can_t_lock_in_the_next() -> None:
    """Operations see what those before them caused."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1", service_checks=("service:web-1",))
    result = run(
        registry,
        CheckOp(verb=CatalogVerb.SET, check=web_check(Status.CRITICAL)),
        kv(KVVerb.LOCK, session="s1"),
    )
    assert result.errors == ((1, 'invalid session "s1"'),)
    assert registry.state.sessions.keys() == {"s1"}


def test_conditions_that_hold_answer_with_the_row() -> None:
    """Without its value."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.kv(KVVerb.LOCK, "k", b"v", session="s1")
    index = registry.state.index
    result = run(
        registry,
        kv(KVVerb.CHECK_INDEX, index=index),
        kv(KVVerb.CHECK_SESSION, session="s1"),
    )
    assert result.ok
    assert [item.kv and (item.kv.key, item.kv.value) for item in result.results] == [("k", b"")] * 2


def test_a_failure_brings_back_tombstones_and_lock_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the transaction made the registry forget the one and overwrite the other."""
    monkeypatch.setattr(kvstore, "TOMBSTONES_MAX", 1)
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1")
    registry.session("s2", service_checks=("service:web-1",), lock_delay_s=60.0)
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.run(SessionDestroy(id="s1"))
    registry.now_ms += 15_000
    registry.kv(KVVerb.LOCK, "k", session="s2")
    registry.kv(KVVerb.SET, "dead")
    registry.kv(KVVerb.DELETE, "dead")
    registry.kv(KVVerb.SET, "x")
    store, delays = registry.state.kv, dict(registry.state.lock_delays)
    before = (dict(store.tombstones), store.floor, list(store.tombstones_under("")))
    result = run(
        registry,
        kv(KVVerb.DELETE, "x"),
        CheckOp(verb=CatalogVerb.SET, check=web_check(Status.CRITICAL)),
        kv(KVVerb.GET, "none"),
    )
    assert not result.ok
    after = (dict(store.tombstones), store.floor, list(store.tombstones_under("")))
    assert after == before
    assert registry.state.lock_delays == delays


def test_too_many_operations_are_refused() -> None:
    """With both numbers in the text."""
    registry = Registry()
    command = Txn(operations=(kv(KVVerb.SET),) * (TXN_OPERATIONS_MAX + 1))
    assert registry.refusal(command) == "Transaction contains too many operations (65 > 64)"


def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree read that would fill memory fails instead, and undoes the rest."""
    monkeypatch.setattr(txn, "ANSWER_BYTES_MAX", 1_000)
    registry = Registry()
    for number in range(10):
        registry.kv(KVVerb.SET, f"a/{number}", b"x" * 100)
    result = run(registry, kv(KVVerb.SET, "b"), kv(KVVerb.GET_TREE, "a/"))
    assert result.errors == ((1, "the rows read hold more than 1000 bytes"),)
    assert registry.state.kv.get("b") is None
