"""A leader's rounds over a network that loses messages: who is asked, and when again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from raftreg.raft.api import Role, Server
from raftreg.raft.engine import Engine
from raftreg.raft.linear_reads import HEDGE_S, LinearReads
from raftreg.raft.membership import Configuration

RETRY_S = 0.5


@dataclass
class Leader:
    """What `LinearReads` sees of an engine that leads."""

    role: Role = Role.LEADER
    term: int = 3
    commit_index: int = 7
    applied_index: int = 7
    leader_id: str = "a"


class Rig:
    """A leader of three, and what it sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.read: list[int | None] = []
        servers = tuple(Server(id=name, name=name, address=f"{name}:1") for name in "abc")
        self.reads = LinearReads(
            engine=cast(Engine, Leader()),
            server_id="a",
            configuration=lambda: Configuration(servers),
            leads=lambda: True,
            connected={"b", "c"},
            send=self._send,
            retry_s=RETRY_S,
        )

    def _send(self, peer: str, message: dict[str, Any]) -> bool:
        assert message["type"] == "read_ping"
        self.sent.append((peer, message["sequence"]))
        return True

    def begin(self, now: float) -> list[str]:
        """A reader comes; gives who is asked for it."""
        self.sent.clear()
        self.reads.read(self.read.append)
        return self.drive(now)

    def drive(self, now: float) -> list[str]:
        """A tick; gives who is asked."""
        self.sent.clear()
        self.reads.drive(now)
        return [peer for peer, _ in self.sent]

    def echo(self, peer: str, sequence: int, term: int = 3) -> None:
        """An echo arrives."""
        message = {"type": "read_echo", "term": term, "sequence": sequence}
        self.reads.handlers["read_echo"](peer, message)


def test_one_echo_of_three_is_asked_for_and_enough() -> None:
    """The leader itself and one more are a majority."""
    rig = Rig()
    assert rig.begin(10.0) == ["b"]
    rig.echo("b", 1)
    assert rig.read == [7]
    assert rig.reads.due() is None


def test_a_silent_peer_costs_a_moment_once() -> None:
    """Soon everybody is asked; from then on, who answered is asked first."""
    rig = Rig()
    rig.begin(10.0)
    due = rig.reads.due()
    assert due is not None
    assert 10.0 < due <= 10.0 + HEDGE_S
    assert rig.drive(10.0 + HEDGE_S / 2) == []
    assert rig.drive(due) == ["b", "c"]
    rig.echo("c", 1)
    assert rig.read == [7]
    assert rig.begin(11.0) == ["c"]


def test_all_are_asked_again_while_nobody_answers() -> None:
    """Every one of these messages may be lost."""
    rig = Rig()
    rig.begin(10.0)
    rig.drive(10.0 + HEDGE_S)
    assert rig.reads.due() == 10.0 + HEDGE_S + RETRY_S
    assert rig.drive(10.0 + HEDGE_S + RETRY_S) == ["b", "c"]
    rig.echo("b", 1, term=2)
    assert rig.read == []


def test_without_enough_connections_all_voters_are_asked() -> None:
    """Whoever may come back in time."""
    rig = Rig()
    rig.reads._connected = set()
    assert rig.begin(10.0) == ["b", "c"]
