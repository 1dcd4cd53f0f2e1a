"""What strangers, broken peers and broken networks can not do."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc

import pytest
from structlog.testing import capture_logs

from raftreg.raft.security import Security
from raftreg.raft.transport import TransportLimits
from raftreg.raft.wire import Kind, encode_map, encode_message
from tests.raft.transport_rig import FAST, KEY, Node, Stranger, hello_of, running, seal, until

_MESSAGE = encode_message({"type": "x"})

# {"type": "x"} as the pickle module, which is banned here, writes it.
_PICKLED = b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x04type\x94\x8c\x01x\x94s."


def _locked(name: str = "a", limits: TransportLimits = FAST) -> Node:
    return Node(name, security=Security.shared_key(KEY), limits=limits)


@pytest.mark.parametrize(
    ("said", "counter"),
    [
        pytest.param(_PICKLED, "oversize_frames", id="pickle"),
        pytest.param(len(_PICKLED).to_bytes(4) + _PICKLED, "auth_failures", id="framed pickle"),
        pytest.param(b"\xff\xff\xff\xff", "oversize_frames", id="4 GiB"),
        pytest.param(b"\x00\x00\x10\x01", "oversize_frames", id="just over 4 KiB"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "oversize_frames", id="HTTP"),
        pytest.param(bytes(16), "garbage", id="zeros"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", "oversize_frames", id="TLS"),
    ],
)
async def test_garbage_before_authentication_ends_the_connection(said: bytes, counter: str) -> None:
    """It is hung up on and counted, and the server goes on."""
    node = _locked()
    async with running(node):
        async with Stranger.dial(node) as stranger:
            stranger.writer.write(said)
            assert await stranger.is_hung_up()
        assert node.transport.counters[counter] == 1
        assert node.hellos == []


async def test_a_claim_of_four_gibibytes_costs_no_memory() -> None:
    """What follows an oversize length is not kept."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        tracemalloc.start()
        try:
            stranger.writer.write(b"\xff\xff\xff\xff" + bytes(4_000_000))
            assert await stranger.is_hung_up()
            # The 4 MB here, and asyncio's copy of them.
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


async def test_a_wrong_key_is_refused_by_both_sides() -> None:
    """Servers with different keys never hear a word of each other."""
    a, b = _locked("a"), Node("b", security=Security.shared_key(b"not the same key"))
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        b.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["auth_failures"] > 2)
        await until(lambda: b.transport.counters["auth_failures"] > 2)
        assert a.events == b.events == []
        assert a.hellos == b.hellos == []


async def test_a_server_without_a_key_is_refused_by_those_with_one() -> None:
    """There is no falling back to a weaker mode, in neither direction."""
    a, b = _locked("a"), Node("b")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        b.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["auth_failures"] > 2)
        await until(lambda: b.transport.counters["auth_failures"] > 2)
        assert a.hellos == b.hellos == []


async def test_messages_of_an_accepted_peer_are_heard() -> None:
    """The stranger of these tests speaks the protocol right; no refusal below is for that."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.join("s", KEY)
        stranger.writer.write(seal(handshake, Kind.MESSAGE, _MESSAGE))
        await until(lambda: node.messages == [("s", {"type": "x"})])


async def test_a_replayed_frame_ends_the_connection() -> None:
    """A recorded message is not heard twice."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.join("s", KEY)
        frame = seal(handshake, Kind.MESSAGE, _MESSAGE)
        stranger.writer.write(frame + frame)
        assert await stranger.is_hung_up()
        assert len(node.messages) == 1
        assert node.transport.counters["auth_failures"] == 1


async def test_a_tampered_frame_ends_the_connection() -> None:
    """One changed bit is noticed before the frame is decoded."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.join("s", KEY)
        frame = bytearray(seal(handshake, Kind.MESSAGE, _MESSAGE))
        frame[6] ^= 1
        stranger.writer.write(bytes(frame))
        assert await stranger.is_hung_up()
        assert node.messages == []
        assert node.transport.counters["auth_failures"] == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(Kind.MESSAGE, b"\xc1", id="no msgpack"),
        pytest.param(Kind.MESSAGE, _PICKLED, id="pickle"),
        pytest.param(Kind.MESSAGE, encode_map({"no": "type"}), id="no type"),
        pytest.param(Kind.PONG, b"", id="pong to a listener"),
        pytest.param(Kind.HELLO, b"\xc0", id="hello that is no map"),
        pytest.param(9, b"", id="unknown kind"),
    ],
)
async def test_garbage_of_an_accepted_peer_ends_its_connection_only(kind: int, body: bytes) -> None:
    """A broken peer loses its connection; the others stay."""
    node, other = _locked(), _locked("other")
    async with running(node, other):
        other.transport.set_peers({"a": node.address})
        await until(lambda: other.is_connected(node) and node.transport.peers())
        async with Stranger.dial(node) as stranger:
            handshake = await stranger.join("s", KEY)
            assert handshake.channel is not None
            stranger.writer.write(handshake.channel.seal(kind, body))
            assert await stranger.is_hung_up()
        assert node.transport.counters["garbage"] == 1
        assert other.transport.send("a", {"type": "x"})
        await until(lambda: node.messages)


@pytest.mark.parametrize(
    ("hello", "counter"),
    [
        (hello_of("other id"), "auth_failures"),
        (hello_of("s", version=2), "refused_peers"),
        (hello_of("s", datacenter="dc2"), "refused_peers"),
        (hello_of("s", port=0), "garbage"),
        (hello_of("s", port=True), "garbage"),
        (hello_of("s", host=None), "garbage"),
        ({"id": "s"}, "garbage"),
        (hello_of("s", filler="x" * 70_000), "oversize_frames"),
    ],
)
async def test_a_wrong_hello_is_refused(hello: dict[str, object], counter: str) -> None:
    """Id, version, datacenter, address and size are checked before anything is told."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.authenticate("s", KEY)
        stranger.writer.write(seal(handshake, Kind.HELLO, encode_map(hello)))
        assert await stranger.is_hung_up()
        assert node.transport.counters[counter] == 1
        assert node.hellos == []


async def test_a_message_before_the_hello_is_refused() -> None:
    """Nobody is heard whom the driver does not know."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.authenticate("s", KEY)
        stranger.writer.write(seal(handshake, Kind.MESSAGE, _MESSAGE))
        assert await stranger.is_hung_up()
        assert node.messages == []


async def test_a_peer_that_comes_again_replaces_its_former_connection() -> None:
    """After a restart the new connection counts, and the half-open one is closed."""
    node = _locked()
    async with running(node), Stranger.dial(node) as former, Stranger.dial(node) as newer:
        await former.join("s", KEY)
        await until(lambda: "s" in node.transport.peers())
        handshake = await newer.join("s", KEY)
        assert await former.is_hung_up()
        newer.writer.write(seal(handshake, Kind.MESSAGE, _MESSAGE))
        await until(lambda: node.messages)
        assert node.transport.peers()["s"].inbound


@pytest.mark.parametrize("said", [b"", b"\x00", b"\x00\x00\x00\x30RREG"])
async def test_a_stranger_who_does_not_go_on_is_hung_up_on(said: bytes) -> None:
    """Connections cost nothing for long: the handshake has a time limit."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        stranger.writer.write(said)
        assert await stranger.is_hung_up()
        assert node.transport.counters["handshake_timeouts"] == 1


async def test_one_byte_at_a_time_does_not_prolong_the_handshake() -> None:
    """The limit is for the whole handshake, not for each byte (slow loris)."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        stranger.writer.write(b"\x00\x00\x0f\xff")

        async def drip() -> None:
            while True:
                stranger.writer.write(b"x")
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            dripping = group.create_task(drip())
            assert await stranger.is_hung_up()
            dripping.cancel()
        assert node.transport.counters["handshake_timeouts"] == 1


async def test_strangers_cannot_keep_a_peer_out() -> None:
    """When too many wait unauthenticated the oldest goes, so that a peer still gets in."""
    limits = TransportLimits(unauthenticated_max=4, handshake_s_max=600.0)
    node, peer = _locked(limits=limits), _locked("peer")
    async with running(node, peer), contextlib.AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(Stranger.dial(node)) for _ in range(6)]
        await until(lambda: node.transport.counters["crowded"] == 2)
        assert await strangers[0].is_hung_up()
        assert await strangers[1].is_hung_up()
        peer.transport.set_peers({"a": node.address})
        await until(lambda: peer.is_connected(node))
        assert len(node.transport._connections) <= 5


async def test_inbound_connections_are_bounded() -> None:
    """Also those who hold the key can't use up all descriptors."""
    limits = TransportLimits(inbound_max=3)
    node = _locked(limits=limits)
    async with running(node), contextlib.AsyncExitStack() as stack:
        for name in "xyz":
            stranger = await stack.enter_async_context(Stranger.dial(node))
            await stranger.join(name, KEY)
        await until(lambda: len(node.transport.peers()) == 3)
        refused = await stack.enter_async_context(Stranger.dial(node))
        assert await refused.is_hung_up()
        assert set(node.transport.peers()) == {"x", "y", "z"}


async def test_a_silent_peer_is_given_up_by_the_listener() -> None:
    """A half-open inbound connection ends although TCP does not notice."""
    node = _locked()
    async with running(node), Stranger.dial(node) as stranger:
        await stranger.join("s", KEY)
        await until(lambda: "s" in node.transport.peers())
        assert await stranger.is_hung_up()
        await until(lambda: "s" not in node.transport.peers())


async def test_a_frozen_peer_is_given_up_by_the_dialler() -> None:
    """A peer that accepts bytes and never answers counts as disconnected, also under load."""
    a, b = _locked("a"), _locked("b")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        await until(lambda: a.is_connected(b) and b.transport.peers())
        frozen = b.transport._inbound["a"]
        assert frozen._transport is not None
        frozen._transport.pause_reading()
        frozen.heard_at_s += 1000.0  # so that b, frozen, does not close it
        data = {"type": "x", "data": bytes(100_000)}

        def pressed_until_lost() -> bool:
            a.transport.send("b", data)
            return ("disconnected", "b") in a.events

        await until(pressed_until_lost)


async def test_a_peer_that_does_not_read_its_pongs_is_cut_off() -> None:
    """Replies do not pile up without bound."""
    limits = TransportLimits(reply_bytes_max=1000, silence_s_max=600.0)
    node = _locked(limits=limits)
    async with running(node), Stranger.dial(node) as stranger:
        handshake = await stranger.join("s", KEY)
        await until(lambda: "s" in node.transport.peers())
        stranger.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with contextlib.suppress(ConnectionError):
            while "s" in node.transport.peers():
                stranger.writer.write(b"".join(seal(handshake, Kind.PING) for _ in range(2000)))
                await stranger.writer.drain()
        await until(lambda: "s" not in node.transport.peers())


async def test_trouble_is_logged_once_and_counted_always() -> None:
    """A stranger who tries again and again does not fill the log, and no key is in it."""
    node = _locked()
    with capture_logs() as logs:
        async with running(node):
            for _ in range(5):
                async with Stranger.dial(node) as stranger:
                    stranger.writer.write(b"\xff\xff\xff\xff")
                    assert await stranger.is_hung_up()
            assert node.transport.counters["oversize_frames"] == 5
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0]["address"] == "127.0.0.1"
    assert KEY.decode() not in str(logs)


async def test_a_hello_that_cannot_be_said_is_a_fault_and_no_crash() -> None:
    """The driver's broken hello is reported; connections wait for a better one."""
    a, b = _locked("a"), _locked("b")
    async with running(a, b):
        b.extra = {"bad": object()}
        a.transport.set_peers({"b": b.address})
        await until(lambda: b.faults)
        assert a.hellos == []
        b.extra = {}
        await until(lambda: a.is_connected(b))
