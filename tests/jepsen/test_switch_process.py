"""The shell around the rules: devices and the control connection, here sockets in place of tun."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from jepsen_like.ground.api import Rule
from jepsen_like.ground.fabric import Answer, AskCounts, SetRules
from jepsen_like.ground.switch import LINE_BYTES_MAX, Port, Setup, Switch

HOSTS = {"n1": "10.77.0.1", "n2": "10.77.0.2", "client": "10.77.0.254"}
WAIT_S = 20.0


class Wired:
    """A switch in a thread, whose devices are sockets that keep packets apart."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(WAIT_S)
        self._theirs = theirs
        pairs = {name: socket.socketpair(type=socket.SOCK_DGRAM) for name in HOSTS}
        self._inner = {name: inner for name, (_, inner) in pairs.items()}
        self.hosts = {name: outer for name, (outer, _) in pairs.items()}
        for name in HOSTS:
            self._inner[name].setblocking(False)
            self.hosts[name].settimeout(WAIT_S)
        setup = Setup([Port(name, f"{address}/24") for name, address in HOSTS.items()])
        devices = [inner.fileno() for inner in self._inner.values()]
        switch = Switch(theirs, setup, devices)
        self.thread = threading.Thread(target=switch.run)
        self.thread.start()

    def ask(self, request: Any) -> Answer:
        """One request."""
        return self.say(msgspec.json.encode(request) + b"\n")

    def say(self, line: bytes) -> Answer:
        """One line, whatever it is; gives the answer to it."""
        self.control.sendall(line)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            answer += self.control.recv(1 << 20)
        return msgspec.json.decode(bytes(answer), type=Answer)

    def count(self, source: str, target: str, field: str) -> int:
        """One counter."""
        counts = self.ask(AskCounts()).counts
        found = next(count for a, b, count in counts if (a, b) == (source, target))
        return int(getattr(found, field))

    def close(self) -> None:
        """Ends the switch and closes everything."""
        self.control.close()
        self.thread.join(WAIT_S)
        self._theirs.close()
        for end in (*self.hosts.values(), *self._inner.values()):
            end.close()


@pytest.fixture
def wired() -> Iterator[Wired]:
    """The switch of three hosts."""
    with contextlib.closing(Wired()) as switch:
        yield switch


def packet(source: str, target: str, payload: bytes = b"hello") -> bytes:
    """As much of an IPv4 packet as the switch looks at (RFC 791, section 3.1)."""
    header = bytearray(20)
    header[0] = 0x45
    header[12:16] = socket.inet_aton(source)
    header[16:20] = socket.inet_aton(target)
    return bytes(header) + payload


def test_packets_go_to_the_host_of_their_address(wired: Wired) -> None:
    """Unchanged, and to no other host."""
    sent = packet(HOSTS["n1"], HOSTS["n2"])
    wired.hosts["n1"].send(sent)
    assert wired.hosts["n2"].recv(9000) == sent
    back = packet(HOSTS["n2"], HOSTS["n1"])
    wired.hosts["n2"].send(back)
    assert wired.hosts["n1"].recv(9000) == back
    assert wired.count("n1", "n2", "passed") == wired.count("n2", "n1", "passed") == 1


def test_what_is_for_nobody_is_counted_as_a_stray(wired: Wired) -> None:
    """Packets for unknown addresses, for the sender itself, of IPv6, and scraps reach nobody."""
    strays = [
        packet(HOSTS["n1"], "8.8.8.8"),
        packet(HOSTS["n1"], HOSTS["n1"]),
        b"\x60" + bytes(39),
        b"\x45",
    ]
    for stray in strays:
        wired.hosts["n1"].send(stray)
    marker = packet(HOSTS["n1"], HOSTS["n2"], b"last")
    wired.hosts["n1"].send(marker)
    assert wired.hosts["n2"].recv(9000) == marker
    assert wired.ask(AskCounts()).strays == len(strays)


def test_rules_come_and_go_over_the_control_connection(wired: Wired) -> None:
    """A cut drops until it is healed; delayed packets come by themselves."""
    cut = SetRules([("n1", "n2", Rule(drop=True))])
    assert wired.ask(cut).error == ""
    wired.hosts["n1"].send(packet(HOSTS["n1"], HOSTS["n2"], b"lost"))
    wired.hosts["n1"].send(packet(HOSTS["n1"], HOSTS["client"], b"marker"))
    assert wired.hosts["client"].recv(9000).endswith(b"marker")
    assert wired.count("n1", "n2", "dropped") == 1
    assert wired.ask(SetRules([("n1", "n2", Rule(delay_s=0.01))])).error == ""
    wired.hosts["n1"].send(packet(HOSTS["n1"], HOSTS["n2"], b"late"))
    assert wired.hosts["n2"].recv(9000).endswith(b"late")
    assert wired.count("n1", "n2", "delayed") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{\n",
        b'{"op":"dance"}\n',
        b'{"op":"rules","rules":[["n1","n9",{}]]}\n',
        b'{"op":"rules","rules":[["n1","n2",{"loss":7}]]}\n',
        b'{"op":"rules","rules":"none"}\n',
    ],
)
def test_a_bad_request_is_answered_with_what_is_wrong(wired: Wired, line: bytes) -> None:
    """The switch goes on."""
    assert wired.say(line).error
    assert wired.ask(AskCounts()).error == ""


def test_an_endless_line_ends_the_switch(wired: Wired) -> None:
    """What it keeps of a request is bounded."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(LINE_BYTES_MAX // 65_536 + 2):
            wired.control.sendall(b"x" * 65_536)
    wired.thread.join(WAIT_S)
    assert not wired.thread.is_alive()


def test_it_ends_with_the_control_connection(wired: Wired) -> None:
    """Whatever becomes of the harness, no switch stays behind."""
    wired.control.close()
    wired.thread.join(WAIT_S)
    assert not wired.thread.is_alive()


def test_a_host_that_takes_nothing_costs_packets_not_the_switch(wired: Wired) -> None:
    """A device that can't be written to is a lost packet, as on any path."""
    wired.hosts["n2"].close()
    wired.hosts["n1"].send(packet(HOSTS["n1"], HOSTS["n2"]))
    wired.hosts["n1"].send(packet(HOSTS["n1"], HOSTS["client"], b"marker"))
    assert wired.hosts["client"].recv(9000).endswith(b"marker")
