"""Servers find each other, stay connected and exchange messages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import ConfigurationError
from raftreg.raft.security import Security
from raftreg.raft.transport import Address, BindFailed, TransportLimits
from raftreg.raft.wire import Kind, WireError, decode_map, encode_map, encode_message
from tests.raft.transport_rig import (
    FAST,
    KEY,
    Node,
    Stranger,
    connect,
    free_port,
    hello_of,
    running,
    seal,
    until,
)

_SECURITIES = [Security.plain(), Security.shared_key(KEY)]


@pytest.mark.parametrize("security", _SECURITIES, ids=repr)
async def test_messages_arrive_whole_and_in_order(security: Security) -> None:
    """What A sends to B arrives as it was, small and large, in order, under A's id."""
    a, b = Node("a", security=security), Node("b", security=security, host="127.0.0.2")
    async with running(a, b):
        await connect(a, b)
        sent = [{"type": "append", "n": n, "entries": [[b"x" * n * 9000, n, 1]]} for n in range(99)]
        assert all(a.transport.send("b", message) for message in sent)
        await until(lambda: len(b.messages) == len(sent))
        assert b.messages == [("a", message) for message in sent]
        assert a.messages == []


async def test_one_encoding_serves_several_peers() -> None:
    """A message encoded once is sent to each peer, sealed for its connection."""
    nodes = [Node(name, security=Security.shared_key(KEY)) for name in "abc"]
    async with running(*nodes):
        await connect(*nodes)
        body = encode_message({"type": "append", "term": 3})
        assert nodes[0].transport.send_encoded("b", body)
        assert nodes[0].transport.send_encoded("c", body)
        await until(lambda: nodes[1].messages and nodes[2].messages)
        assert nodes[1].messages == nodes[2].messages == [("a", {"type": "append", "term": 3})]


async def test_connections_are_simplex() -> None:
    """A's dial lets A send to B; B can't answer until its own dial is up, and is told of A."""
    a, b = Node("a"), Node("b")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.is_connected(b) and b.hellos)
        assert not b.transport.connected("a")
        assert not b.transport.send("a", {"type": "x"})
        assert b.transport.counters["dropped_sends"] == 1
        assert b.events == []
        (peer, hello, address) = b.hellos[0]
        assert (peer, hello, address) == ("a", a.hello(), a.address)
        info = b.transport.peers()["a"]
        assert (info.connected, info.inbound, info.address) == (False, True, a.address)
        b.transport.set_peers({peer: address})
        await until(lambda: b.is_connected(a))
        assert b.transport.send("a", {"type": "x"})
        await until(lambda: a.messages)


async def test_the_hello_is_told_before_the_connection_and_the_messages() -> None:
    """The driver knows who a peer is before it hears that or what it says."""
    told: list[str] = []
    a, b = Node("a"), Node("b", on_message=lambda _peer, _message: told.append("message"))
    b.hellos = _Log(told, "hello")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.is_connected(b))
        assert a.hellos
        a.transport.send("b", {"type": "x"})
        await until(lambda: len(told) == 2)
        assert told == ["hello", "message"]


class _Log(list[Any]):
    """A list that notes in another one that something was appended."""

    def __init__(self, told: list[str], name: str) -> None:
        super().__init__()
        self._told, self._name = told, name

    def append(self, item: Any) -> None:
        self._told.append(self._name)
        super().append(item)


async def test_servers_find_each_other_by_seeds_and_pass_over_themselves() -> None:
    """One list of seeds given to all connects all; nobody is connected to itself."""
    nodes = [Node(name, host=f"127.0.0.{at}") for at, name in enumerate("abc", 1)]
    async with running(*nodes):
        for node in nodes:
            node.transport.set_seeds([other.address for other in nodes])
        await until(lambda: all(node.is_connected(*(set(nodes) - {node})) for node in nodes))
        for node in nodes:
            assert set(node.transport.peers()) == {"a", "b", "c"} - {node.name}
            assert not any(peer == node.name for _, peer in node.events)
        assert nodes[0].transport.peers()["b"].address == nodes[1].address


async def test_a_seed_is_dialled_until_somebody_listens() -> None:
    """The order in which servers start does not matter."""
    port = free_port()
    a = Node("a")
    async with running(a):
        a.transport.set_seeds([Address("127.0.0.1", port)])
        b = Node("b", port=port)
        async with running(b):
            await until(lambda: a.is_connected(b))


async def test_two_addresses_of_one_peer_make_one_connection() -> None:
    """An alias among the seeds neither doubles a peer nor breaks its connection."""
    a, b = Node("a"), Node("b")
    async with running(a, b):
        alias = Address("localhost", b.address.port)
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.is_connected(b))
        a.transport.set_seeds([alias])
        await until(lambda: a.transport.send("b", {"type": "x"}) and len(b.messages) > 50)
        assert a.events == [("connected", "b")]
        assert list(a.transport.peers()) == ["b"]
        a.transport.set_peers({})
        await until(lambda: a.events[1:] == [("disconnected", "b"), ("connected", "b")])


async def test_a_restarted_peer_is_connected_again_on_the_same_address() -> None:
    """The loss and the return of a peer are told, and messages flow again."""
    a, b = Node("a"), Node("b")
    async with running(a):
        async with running(b):
            await connect(a, b)
        await until(lambda: a.events == [("connected", "b"), ("disconnected", "b")])
        assert not a.transport.send("b", {"type": "x"})
        again = Node("b", port=b.address.port)
        async with running(again):
            await until(lambda: a.is_connected(again))
            assert a.transport.send("b", {"type": "x"})
            await until(lambda: again.messages)
            assert a.transport.counters["reconnects"] == 1


async def test_a_restarted_peer_is_found_on_another_address() -> None:
    """A peer that moved dials in, is told with its new address, and is dialled there."""
    a, b = Node("a"), Node("b")
    async with running(a):
        async with running(b):
            await connect(a, b)
        await until(lambda: not a.is_connected(b))
        moved = Node("b", host="127.0.0.3")
        a.hellos.clear()
        async with running(moved):
            moved.transport.set_peers({"a": a.address})
            await until(lambda: a.hellos)
            peer, _, address = a.hellos[0]
            assert (peer, address) == ("b", moved.address)
            a.transport.set_peers({peer: address})
            await until(lambda: a.is_connected(moved))
            assert a.transport.peers()["b"].address == moved.address


async def test_addresses_that_were_swapped_sort_themselves_out() -> None:
    """A wanted peer is connected also when it answers at another peer's address."""
    a, b, c = Node("a"), Node("b"), Node("c")
    async with running(a, b, c):
        a.transport.set_peers({"b": c.address, "c": b.address})
        await until(lambda: a.is_connected(b, c))
        a.transport.send("b", {"type": "x"})
        await until(lambda: b.messages)
        assert c.messages == []


async def test_an_unwanted_server_at_a_peers_address_is_told_and_not_kept() -> None:
    """The driver learns who is there now; nothing is sent to the stranger."""
    a, b = Node("a"), Node("b")
    async with running(a, b):
        a.transport.set_peers({"gone": b.address})
        await until(lambda: a.hellos)
        assert a.hellos[0][0] == "b"
        assert not a.transport.connected("b")
        assert not a.transport.connected("gone")
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.is_connected(b))


async def test_dropped_peers_are_closed_and_told() -> None:
    """A peer that is wanted no more gets no more, from the same moment on."""
    a, b, c = Node("a"), Node("b"), Node("c")
    async with running(a, b, c):
        await connect(a, b, c)
        a.transport.send("b", {"type": "last"})
        a.transport.set_peers({"c": c.address})
        assert not a.transport.connected("b")
        await until(lambda: ("disconnected", "b") in a.events)
        await until(lambda: b.messages == [("a", {"type": "last"})])
        assert a.is_connected(c)
        assert ("disconnected", "c") not in a.events


async def test_a_hello_that_changes_during_the_handshake_is_told() -> None:
    """The listener speaks first. What changes until the dialler's hello is accepted is told then:
    no announcement reaches a connection that is still in the making.
    """
    a = Node("a")
    async with running(a), Stranger.dial(a) as stranger:
        handshake = await stranger.authenticate("s")
        assert handshake.channel is not None
        first = handshake.channel.open(await stranger.receive())
        assert "joins" not in decode_map(first[1:])
        a.extra["joins"] = True
        a.transport.announce()
        stranger.writer.write(seal(handshake, Kind.HELLO, encode_map(hello_of("s"))))
        async with asyncio.timeout(20):
            payload = handshake.channel.open(await stranger.receive())
        assert payload[0] == Kind.HELLO
        assert decode_map(payload[1:])["joins"] is True


async def test_announce_tells_the_changed_hello_to_all() -> None:
    """Peers of either direction learn what changed."""
    a, b, c = Node("a"), Node("b"), Node("c")
    async with running(a, b, c):
        a.transport.set_peers({"b": b.address})
        c.transport.set_peers({"a": a.address})
        await until(lambda: a.is_connected(b) and b.hellos and c.is_connected(a))
        a.extra = {"http": "127.0.0.1:8500"}
        a.transport.announce()
        await until(lambda: b.hellos[-1][1] == c.hellos[-1][1] == a.hello())
        assert b.transport.peers()["a"].hello == c.transport.peers()["a"].hello == a.hello()


async def test_idle_connections_stay_up() -> None:
    """Pings keep a connection alive for many times the silence that would end it."""
    received = 0
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await connect(a, b)
        connection = a.transport._outbound["b"]
        heard_s = connection.heard_at_s
        while received < 20:
            await until(lambda: connection.heard_at_s > heard_s)  # noqa: B023 - awaited at once
            heard_s, received = connection.heard_at_s, received + 1
        assert a.events == [("connected", "b")]


async def test_a_peer_of_another_datacenter_is_refused() -> None:
    """It is never told as a hello, and never connected."""
    a, b = Node("a"), Node("b", datacenter="dc2")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.transport.counters["refused_peers"] >= 3)
        assert a.events == []
        assert a.hellos == []
        assert b.hellos == []


async def test_the_driver_decides_who_is_accepted() -> None:
    """`accept_hello` is asked for each hello, and what it raises is a refusal and a fault."""

    def judge(hello: dict[str, Any]) -> str | None:
        if hello["id"] == "c":
            raise LookupError("c")
        return None if hello["id"] == "b" else "not b"

    a, b, c, d = Node("a", accept_hello=judge), Node("b"), Node("c"), Node("d")
    async with running(a, b, c, d):
        for node in (b, c, d):
            node.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["refused_peers"] >= 4 and a.faults)
        await until(lambda: list(a.transport.peers()) == ["b"])
        assert all(isinstance(fault, LookupError) for fault in a.faults)


async def test_what_a_callback_raises_is_given_to_on_fault() -> None:
    """A bug of the driver ends neither the connection nor the transport."""

    def broken(_peer: str, message: dict[str, Any]) -> None:
        raise KeyError(message["n"])

    a, b = Node("a"), Node("b", on_message=broken)
    async with running(a, b):
        await connect(a, b)
        a.transport.send("b", {"type": "x", "n": 1})
        a.transport.send("b", {"type": "x", "n": 2})
        await until(lambda: len(b.faults) == 2)
        assert [fault.args for fault in b.faults] == [(1,), (2,)]
        assert a.is_connected(b)


async def test_a_slow_peer_does_not_grow_memory() -> None:
    """Beyond the bound messages are dropped and counted; what was taken arrives in order."""
    limits = TransportLimits(outbound_bytes_max=300_000, ping_s=0.05, silence_s_max=60.0)
    a, b = Node("a", limits=limits), Node("b", limits=limits)
    async with running(a, b):
        await connect(a, b)
        inbound = b.transport._inbound["a"]
        assert inbound._transport is not None
        inbound._transport.pause_reading()
        taken = 0
        while a.transport.send("b", {"type": "x", "n": taken, "data": bytes(50_000)}):
            assert a.transport.buffered_bytes("b") <= limits.outbound_bytes_max
            taken += 1
            await asyncio.sleep(0)
        assert a.transport.counters["dropped_sends"] == 1
        assert a.transport.buffered_bytes("b") <= limits.outbound_bytes_max
        inbound._transport.resume_reading()
        await until(lambda: len(b.messages) == taken)
        assert [message["n"] for _, message in b.messages] == list(range(taken))
        assert a.transport.buffered_bytes("b") == 0


async def test_a_message_that_cannot_be_sent_at_all_is_an_error() -> None:
    """Too long or not encodable is a bug of the sender, not a dropped message."""
    a, b = Node("a"), Node("b")
    async with running(a, b):
        await connect(a, b)
        with pytest.raises(WireError):
            a.transport.send("b", {"type": "x", "bad": object()})
        with pytest.raises(WireError):
            a.transport.send_encoded("b", bytes(FAST.frame_bytes_max))


async def test_stop_sends_what_is_queued() -> None:
    """The last words before a clean stop arrive."""
    a, b = Node("a"), Node("b")
    async with running(b):
        async with running(a):
            await connect(a, b)
            a.transport.send("b", {"type": "bye", "data": bytes(1_000_000)})
        await until(lambda: b.messages)


async def test_stop_leaves_no_task() -> None:
    """After stop only the tasks of before run."""
    before = asyncio.all_tasks()
    a, b = Node("a"), Node("b")
    async with running(a, b):
        a.transport.set_seeds([Address("127.0.0.1", free_port()), b.address])
        await connect(a, b)
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_no_callback_is_made_after_stop() -> None:
    """What is lost by stopping is not told."""
    a, b = Node("a"), Node("b")
    async with running(b):
        async with running(a):
            await connect(a, b)
        assert a.events == [("connected", "b")]


async def test_a_transport_that_never_started_can_be_stopped() -> None:
    """Stopping early in a failed start is safe."""
    node = Node("a")
    node.transport.set_peers({"b": Address("127.0.0.1", 1)})
    await node.transport.stop()


async def test_an_address_in_use_is_a_clear_error() -> None:
    """Starting twice on one address says what is wrong."""
    a = Node("a")
    async with running(a):
        again = Node("b", port=a.address.port)
        with pytest.raises(BindFailed, match=f"127.0.0.1:{a.address.port}.*already in use"):
            await again.transport.start()


@pytest.mark.parametrize(
    ("host", "what"), [("192.0.2.1", "no interface"), ("no-such-host.invalid", "unknown")]
)
async def test_an_address_of_no_interface_is_a_clear_error(host: str, what: str) -> None:
    """So does an address that is not of this host."""
    with pytest.raises(BindFailed, match=what):
        await Node("a", host=host).transport.start()


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_is_read_as_it_is_written(host: Any, port: int) -> None:
    """Parsing reverses str, for IPv4 and IPv6."""
    address = Address(str(host), port)
    assert Address.parse(str(address), 1) == address
    assert Address.parse(str(host), 8300) == Address(str(host), 8300)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    """Nothing else is raised, and a port is never out of range."""
    with contextlib.suppress(ConfigurationError):
        assert 0 <= Address.parse(text, 8300).port <= 65535


@pytest.mark.parametrize(
    "text", ["", ":8300", "a:", "a:x", "a:65536", "a:-1", "[::1", "[::1]x", "a b"]
)
def test_wrong_addresses_are_refused(text: str) -> None:
    """A typo is named instead of being dialled."""
    with pytest.raises(ConfigurationError):
        Address.parse(text, 8300)


def test_nagle_is_off() -> None:
    """Small messages are not held back for the acknowledgement of others."""

    async def nodelay() -> int:
        a, b = Node("a"), Node("b")
        async with running(a, b):
            await connect(a, b)
            transport = a.transport._outbound["b"]._transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            value: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            return value

    assert asyncio.run(nodelay()) != 0
