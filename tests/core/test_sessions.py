"""Sessions: what they need, what ends them, and what becomes of their locks."""

from __future__ import annotations

import pytest

from raftreg.core import sessions
from raftreg.core.commands import (
    Deregister,
    KVVerb,
    NodeSync,
    Register,
    SessionCreate,
    SessionDestroy,
    SetLiveness,
)
from raftreg.model import Check, Node, Session, SessionBehavior, Status
from tests.core.registry_rig import Registry, web, web_check


def test_a_session_needs_a_node_and_healthy_checks() -> None:
    """The refusals are Consul's."""
    registry = Registry()

    def create(**fields: object) -> SessionCreate:
        return SessionCreate(session=Session(id="s1", node="n1", **fields))  # type: ignore[arg-type]

    assert registry.refusal(create()) == "Missing node registration"
    registry.run(Register(node=Node(name="n1", address="10.0.0.1")))
    assert registry.refusal(create()) == "Missing check 'serfHealth' registration"
    registry.host()
    registry.run(SetLiveness(node="n1", alive=False))
    assert registry.refusal(create()) == "Check 'serfHealth' is in critical state"
    assert registry.run(create(node_checks=())) == "s1"
    assert registry.refusal(create(node_checks=())) == 'session "s1" already exists'


def test_a_host_of_another_id_takes_no_sessions_over() -> None:
    """It was reinstalled, or came with a restored snapshot: who held the locks is gone."""
    registry = Registry()
    registry.host("n1")
    registry.session("s1", lock_delay_s=0.0)
    registry.kv(KVVerb.LOCK, "k", b"v", session="s1")
    registry.host("n1")  # the same host again
    assert "s1" in registry.state.sessions
    registry.run(NodeSync(node=Node(name="n1", id="another", address="10.0.0.2")))
    assert registry.state.sessions == {}
    assert registry.state.kv.rows["k"].session is None


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""},
        {"ttl_s": float("nan")},
        {"ttl_s": -1.0},
        {"ttl_s": float("inf")},
        {"lock_delay_s": float("nan")},
        {"lock_delay_s": -1.0},
    ],
)
def test_numbers_that_are_none_are_refused(fields: dict[str, object]) -> None:
    """They could not be compared or kept."""
    registry = Registry()
    registry.host()
    session = Session(**{"id": "s1", "node": "n1", **fields})  # type: ignore[arg-type]
    assert registry.refusal(SessionCreate(session=session))


@pytest.mark.parametrize(
    "ends",
    [
        SessionDestroy(id="s1"),
        SessionDestroy(id="s1", expired=True),
        SetLiveness(node="n1", alive=False),
        Deregister(node="n1"),
        Deregister(node="n1", service_id="web-1"),
        Deregister(node="n1", check_id="service:web-1"),
        Register(node=Node(name="n1", address="10.0.0.1"), checks=(web_check(Status.CRITICAL),)),
        NodeSync(node=Node(name="n1", address="10.0.0.1"), full=True),
        Register(node=Node(name="renamed", id="id-n1", address="10.0.0.1")),
    ],
)
def test_what_ends_a_session_frees_its_lock_for_after_the_delay(ends: SessionDestroy) -> None:
    """The watchers of session and key are told; no one gets the lock before the delay is over."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.host("n2")
    registry.session("s1", service_checks=("service:web-1",), lock_delay_s=15.0)
    registry.session("s2", node="n2")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    topics = registry.apply(ends).topics
    assert {("session", "s1"), ("session-node", "n1"), ("sessions", ""), ("kv", "k")} <= set(topics)
    assert registry.state.sessions.keys() == {"s2"}
    entry = registry.state.kv.rows["k"]
    assert entry.session is None
    assert entry.modify_index == registry.state.index
    registry.now_ms += 14_999
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is False
    registry.now_ms += 1
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is True
    assert registry.state.kv.rows["k"].lock_index == 2


def test_a_warning_ends_no_session() -> None:
    """Only critical does."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1", service_checks=("service:web-1",))
    registry.host("n1", web(), checks=(web_check(Status.WARNING),))
    assert registry.state.sessions.keys() == {"s1"}


def test_a_check_that_moves_to_another_instance_in_one_step_ends_no_session() -> None:
    """What counts is whether the check is there and healthy after the command."""
    registry = Registry()
    registry.host("n1", web(), checks=(web_check(),))
    registry.session("s1", service_checks=("service:web-1",))
    moved = Check(node="n1", check_id="service:web-1", status=Status.PASSING, service_id="web-2")
    node = Node(name="n1", id="id-n1", address="10.0.0.1")
    sync = NodeSync(node=node, services=(web("n1", "web-2"),), checks=(moved,), full=True)
    assert registry.run(sync) is True
    assert registry.state.sessions.keys() == {"s1"}


def test_behavior_delete_deletes_the_keys() -> None:
    """And still delays the next lock."""
    registry = Registry()
    registry.host()
    registry.session("s1", behavior=SessionBehavior.DELETE)
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    assert registry.run(SessionDestroy(id="s1", expired=True)) is True
    assert registry.state.kv.get("k") is None
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is False


def test_a_delay_of_zero_is_none_and_a_long_one_is_cut_to_a_minute() -> None:
    """Consul's limits."""
    registry = Registry()
    registry.host()
    for name, delay_s in (("s1", 0.0), ("s2", float("inf")), ("s3", 15.0)):
        registry.session(name, lock_delay_s=delay_s)
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.run(SessionDestroy(id="s1"))
    assert registry.kv(KVVerb.LOCK, "k", session="s2") is True
    registry.run(SessionDestroy(id="s2"))
    registry.now_ms += 59_999
    assert registry.kv(KVVerb.LOCK, "k", session="s3") is False
    registry.now_ms += 1
    assert registry.kv(KVVerb.LOCK, "k", session="s3") is True


def test_destroying_what_is_not_there_is_fine() -> None:
    """And wakes nobody."""
    registry = Registry()
    applied = registry.apply(SessionDestroy(id="none"))
    assert applied.result is True
    assert applied.topics == ()


def test_delays_that_passed_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So their table does not grow with every lock ever lost."""
    monkeypatch.setattr(sessions, "_LOCK_DELAYS_SWEPT_ABOVE", 2)
    registry = Registry()
    registry.host()
    for number in range(10):
        registry.session(f"s{number}")
        registry.kv(KVVerb.LOCK, f"k{number}", session=f"s{number}")
        registry.run(SessionDestroy(id=f"s{number}"))
        registry.now_ms += 15_000
    assert len(registry.state.lock_delays) <= 2


def test_cluster_time_does_not_go_back() -> None:
    """An entry stamped in the past does not make a lock delay longer or shorter."""
    registry = Registry()
    registry.host()
    registry.session("s1")
    registry.session("s2")
    registry.kv(KVVerb.LOCK, "k", session="s1")
    registry.now_ms = 0
    registry.run(SessionDestroy(id="s1"))
    assert registry.state.lock_delays == {"k": 1_000 + 15_000}
