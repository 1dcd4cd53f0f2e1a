"""The beginning of a cluster: two different sets of servers never both begin."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from raftreg.raft.bootstrap import Begin, Candidate, Pin, Wait, next_step


class Fresh:
    """A fresh server: what it has on disk, and what it last heard of the others."""

    def __init__(self, name: str, expect: int) -> None:
        self.me = Candidate(id=name, name=name, address=f"{name}:1", expect=expect)
        self.heard: dict[str, Candidate] = {}
        self.began: tuple[str, ...] = ()

    def step(self) -> None:
        """Does what the rules say, once."""
        if self.began:
            return
        match next_step(self.me, self.heard):
            case Pin(configuration):
                pinned = tuple(server.id for server in configuration.servers)
                self.me = msgspec.structs.replace(self.me, pinned=pinned)
            case Begin():
                self.began = self.me.pinned
                self.me = msgspec.structs.replace(self.me, member=True)
            case Wait(reason):
                assert reason

    def restart(self) -> None:
        """What was heard is forgotten; what was pinned and begun is on disk."""
        self.heard = {}


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(("hello", "hello", "hello", "step", "step", "restart", "lose")),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=120,
)


def play(servers: list[Fresh], steps: list[tuple[str, int, int]]) -> None:
    """Hellos in any order and as old as may be, steps, restarts, lost connections."""
    for kind, a, b in steps:
        source, target = servers[a % len(servers)], servers[b % len(servers)]
        if kind == "hello" and source is not target:
            target.heard[source.me.id] = source.me
        elif kind == "step":
            target.step()
        elif kind == "restart":
            target.restart()
        elif kind == "lose":
            target.heard.pop(source.me.id, None)


@given(count=st.integers(1, 6), expect=st.integers(1, 5), steps=_STEPS)
def test_two_different_sets_never_both_begin(
    count: int, expect: int, steps: list[tuple[str, int, int]]
) -> None:
    """Also with more servers than expected, and with hellos that are out of date."""
    servers = [Fresh(f"s{i}", expect) for i in range(count)]
    play(servers, steps)
    begun = {server.began for server in servers if server.began}
    assert len(begun) <= count // expect
    for one in begun:
        assert len(one) == expect
        for other in begun - {one}:
            assert not set(one) & set(other)


@given(expect=st.integers(1, 6), steps=_STEPS)
def test_once_all_are_connected_they_begin(expect: int, steps: list[tuple[str, int, int]]) -> None:
    """After any past of exactly the expected servers, connection of all to all is enough."""
    servers = [Fresh(f"s{i}", expect) for i in range(expect)]
    play(servers, steps)
    for _ in range(4):
        for target in servers:
            target.heard = {s.me.id: s.me for s in servers if s is not target}
            target.step()
    assert {server.began for server in servers} == {tuple(f"s{i}" for i in range(expect))}


def test_a_fresh_server_waits_beside_a_cluster() -> None:
    """It pins nothing where a member is near, and nothing when it was told to join."""
    fresh, member = Fresh("a", 1), Fresh("b", 1)
    member.me = msgspec.structs.replace(member.me, member=True, expect=0)
    fresh.heard["b"] = member.me
    assert isinstance(next_step(fresh.me, fresh.heard), Wait)
    assert isinstance(next_step(Fresh("c", 0).me, {}), Wait)


def test_servers_of_one_name_do_not_begin() -> None:
    """A name given twice is told, before anything is written."""
    one, two = Fresh("a", 2), Fresh("b", 2)
    two.me = msgspec.structs.replace(two.me, name="a")
    step = next_step(one.me, {"b": two.me})
    assert isinstance(step, Wait)
    assert "same name" in step.reason


def test_servers_that_expect_different_sizes_do_not_begin() -> None:
    """A server counts only those that wait for a cluster of the same size."""
    assert isinstance(next_step(Fresh("a", 2).me, {"b": Fresh("b", 3).me}), Wait)
