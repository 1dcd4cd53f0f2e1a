"""Messages between servers over authenticated connections.

Connections are simplex: what A says to B travels over the connection that A dialled. Each side
can so tell from its own dial whether it can be heard, and no tie has to be broken when both dial
at once. On a connection::

    dialler                       listener
    greeting  ------------------>            security.py; with TLS inside it
              <------------------  greeting
    proof     ------------------>            shared key only
              <------------------  proof
              <------------------  hello     who and where the listener is
    hello     ------------------>            only if the dialler wants this connection
    messages, pings ------------>
              <------------------  pongs, hellos when they change

The listener speaks first so that a dial that finds this server itself, a peer that is connected
already by another address, or one that is refused, ends before it replaces anything.

Whatever a peer sends ends at most its connection. Each queue has a bound: beyond it `send` says
False and the message is dropped, as Raft repeats what matters.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import structlog

from raftreg.errors import RaftregError
from raftreg.raft.connection import Connection, Disconnected
from raftreg.raft.dialler import Dialler, Redundant, SelfConnected
from raftreg.raft.listener import BindFailed, Listener
from raftreg.raft.peers import Address, PeerInfo, TransportLimits
from raftreg.raft.security import (
    MAC_BYTES,
    PROTOCOL_VERSION,
    AuthenticationFailed,
    Security,
    Side,
)
from raftreg.raft.trouble import Refused, TroubleLog
from raftreg.raft.wire import (
    Kind,
    Message,
    OversizeFrame,
    WireError,
    decode_map,
    decode_message,
    encode_map,
    encode_message,
)

__all__ = ["Address", "BindFailed", "PeerInfo", "PeerTransport", "Refused", "TransportLimits"]

log = structlog.get_logger(__name__)

_FLUSH_S_MAX: Final = 0.5
_WILDCARD_HOSTS: Final = frozenset({"", "0.0.0.0", "::"})
_HELLO_FIELDS: Final[Mapping[str, type]] = {
    "id": str,
    "name": str,
    "datacenter": str,
    "host": str,
    "port": int,
    "version": int,
}


class Unwanted(RaftregError):
    """Closed by this server with no fault of the peer: replaced, not needed, stopping."""


_QUIET: Final = (Unwanted, Redundant, SelfConnected)


class PeerTransport:
    """Sends to and receives from the other servers. All methods are for the loop's thread.

    Callbacks are made on the loop and must not block. What they raise goes to `on_fault`. None is
    made after `stop` has begun.

    Args:
        self_id: this server's id.
        bind: where to listen; port 0 takes a free one, see `address`.
        security: how servers prove themselves.
        hello: gives what this server says of itself: "id", "name", "datacenter", "host", "port",
            "version" (`PROTOCOL_VERSION`) and whatever else the peers shall know.
        on_message: (peer id, message), for each message.
        on_connected: (peer id), when messages can be sent to it.
        on_disconnected: (peer id), when they no longer can.
        on_hello: (peer id, hello, advertised address), for each hello of either direction, before
            `on_connected` and before the first message.
        limits: see `TransportLimits`.
        clock: seconds, monotonic.
        rng: source of the jitter of repeated dials.
        accept_hello: says why a peer is refused, or None. By default those of another datacenter
            are.
        on_fault: is given what a callback, or a task of the transport, raised; logged by default.

    Attributes:
        address: where this server listens, once started.
        counters: events since the start, by name.
    """

    def __init__(  # noqa: PLR0913 - the doors to the driver, all by keyword
        self,
        *,
        self_id: str,
        bind: Address,
        security: Security,
        hello: Callable[[], dict[str, Any]],
        on_message: Callable[[str, Message], None],
        on_connected: Callable[[str], None],
        on_disconnected: Callable[[str], None],
        on_hello: Callable[[str, dict[str, Any], Address], None],
        limits: TransportLimits,
        clock: Callable[[], float],
        rng: random.Random,
        accept_hello: Callable[[dict[str, Any]], str | None] | None = None,
        on_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.address = bind
        self._trouble = TroubleLog(limits.log_interval_s, clock)
        self.counters = self._trouble.counters
        self._self_id = self_id
        self._security = security
        self._hello = hello
        self._on_message = on_message
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_hello = on_hello
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._accept_hello = accept_hello or self._same_datacenter
        self._on_fault = on_fault or _log_fault
        self._running = False
        self._stopped = False
        self._listener: Listener | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._swept_at_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted: dict[str, Address] = {}
        self._seeds: frozenset[Address] = frozenset()
        self._own_addresses: set[Address] = set()
        self._diallers: dict[Address, Dialler] = {}
        self._dialled_by: dict[Connection, Dialler] = {}
        self._connections: set[Connection] = set()
        self._outbound: dict[str, Connection] = {}
        self._inbound: dict[str, Connection] = {}

    # -- life

    async def start(self) -> None:
        """Listens and begins to dial.

        Raises:
            BindFailed: the address to listen on can't be used.
        """
        listener = Listener(
            limits=self._limits,
            make_connection=lambda: self._make_connection(Side.LISTENER),
            tls_context=lambda: self._security.tls_context(Side.LISTENER),
            inbound_count=self._inbound_count,
            give_up=self._give_up,
            refused=self._note,
            spawn=self._spawn,
        )
        self.address = await listener.start(self.address)
        self._listener = listener
        self._running = True
        self._swept_at_s = self._clock()
        self._schedule_sweep()
        self._reconcile()

    async def stop(self) -> None:
        """Sends what is queued, for at most half a second, and closes everything."""
        self._running = False
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            self._listener.close()
        reason = Unwanted("this server is stopping")
        for connection in list(self._connections):
            connection.close(reason)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._await_closed(_FLUSH_S_MAX)
        for connection in list(self._connections):
            connection.abort(reason)
        await self._await_closed(None)

    async def _await_closed(self, timeout_s: float | None) -> None:
        waiting = [connection.closed for connection in self._connections if connection.was_made]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout_s)

    # -- whom to talk to

    def set_peers(self, peers: Mapping[str, Address]) -> None:
        """Says which peers to be connected to, by id; replaces the former set.

        Connections to addresses that are no longer wanted are closed. This server's own id is
        passed over.
        """
        added = set(peers.values()) - set(self._wanted.values())
        self._wanted = {key: peers[key] for key in peers if key != self._self_id}
        self._reconcile()
        for address in added & self._diallers.keys():
            self._diallers[address].wake()

    def set_seeds(self, seeds: Iterable[Address]) -> None:
        """Says which addresses to dial without knowing who is there; replaces the former set.

        Whoever answers becomes a peer that can be sent to. This server itself is recognised and
        its address passed over from then on.
        """
        self._seeds = frozenset(seeds)
        self._reconcile()

    def announce(self) -> None:
        """Sends the hello again to all, as it has changed."""
        body = self._own_hello()
        if body is None:
            return
        for connection in [*self._outbound.values(), *self._inbound.values()]:
            self._reply(connection, Kind.HELLO, body)

    def peers(self) -> dict[str, PeerInfo]:
        """Returns what is known of each peer that is wanted or connected, by id."""
        ids = [*self._wanted, *self._outbound, *self._inbound]
        return {peer_id: self._info(peer_id) for peer_id in dict.fromkeys(ids)}

    # -- messages

    def send(self, peer_id: str, message: Message) -> bool:
        """Sends a message, or drops it.

        Returns:
            False: dropped, as the peer is not connected or too much waits to be sent to it. True
            is no promise that it arrives.

        Raises:
            WireError: the message can't be encoded.
        """
        if peer_id not in self._outbound:
            self.counters["dropped_sends"] += 1
            return False
        return self.send_encoded(peer_id, encode_message(message))

    def send_encoded(self, peer_id: str, frame: bytes) -> bool:
        """Sends what `wire.encode_message` returned, or drops it, as `send`.

        Raises:
            WireError: it is longer than a frame may be.
        """
        if len(frame) >= self._limits.frame_bytes_max:
            raise OversizeFrame(f"message of {len(frame)} bytes is over the frame limit")
        connection = self._outbound.get(peer_id)
        if connection is None or not self._has_room(connection, len(frame)):
            self.counters["dropped_sends"] += 1
            return False
        connection.write(Kind.MESSAGE, frame)
        return True

    def buffered_bytes(self, peer_id: str) -> int:
        """Returns how much waits to be sent to a peer; 0 if it is not connected."""
        connection = self._outbound.get(peer_id)
        return connection.buffered_bytes if connection is not None else 0

    def connected(self, peer_id: str) -> bool:
        """Returns whether messages can be sent to a peer."""
        return peer_id in self._outbound

    def _has_room(self, connection: Connection, size_bytes: int) -> bool:
        return connection.buffered_bytes + size_bytes <= self._limits.outbound_bytes_max

    def _reply(self, connection: Connection, kind: Kind, body: bytes = b"") -> None:
        """Sends what is not a message; a peer that lets much of it pile up is cut off."""
        if connection.side is Side.DIALLER:
            if self._has_room(connection, len(body)):
                connection.write(kind, body)
        elif connection.buffered_bytes + len(body) <= self._limits.reply_bytes_max:
            connection.write(kind, body)
        else:
            connection.abort(Disconnected("peer does not read its replies"))

    # -- ConnectionOwner

    def authenticated(self, connection: Connection) -> None:
        """Lets the other side's hello in; a listener says its own."""
        if connection.peer_id == self._self_id:
            raise SelfConnected("this server dialled itself")
        connection.set_limit(self._limits.hello_bytes_max)
        if connection.side is Side.LISTENER:
            self._say_hello(connection)

    def received(self, connection: Connection, kind: int, body: memoryview) -> None:
        """Handles a payload.

        Raises:
            RaftregError: the peer broke the protocol, or its hello is refused.
        """
        if kind == Kind.HELLO:
            self._receive_hello(connection, decode_map(body))
        elif connection.hello is None:
            raise WireError(f"payload of kind {kind} before the hello")
        elif kind == Kind.MESSAGE and connection.side is Side.LISTENER:
            self._call(self._on_message, connection.peer_id, decode_message(body))
        elif kind == Kind.PING and connection.side is Side.LISTENER:
            self._reply(connection, Kind.PONG)
        elif kind != Kind.PONG or connection.side is Side.LISTENER:
            raise WireError(f"payload of kind {kind} from a {connection.side.value}'s peer")

    def lost(self, connection: Connection) -> None:
        """Forgets a connection and tells the driver."""
        self._connections.discard(connection)
        dialler = self._dialled_by.pop(connection, None)
        self._forget(connection)
        if connection.error is not None:
            remote = connection.remote.rpartition(":")[0]
            self._note(str(dialler.address) if dialler else remote, connection.error)

    # -- hellos

    def _receive_hello(self, connection: Connection, hello: dict[str, Any]) -> None:
        self._check_hello(connection, hello)
        first = connection.hello is None
        connection.hello = hello
        if connection.side is Side.LISTENER:
            if first:
                self._accept_inbound(connection)
            self._tell_hello(connection, hello)
        elif first:
            self._accept_outbound(connection, hello)
        else:
            self._tell_hello(connection, hello)

    def _check_hello(self, connection: Connection, hello: dict[str, Any]) -> None:
        for field, kind in _HELLO_FIELDS.items():
            if type(hello.get(field)) is not kind:
                raise WireError(f'hello has no "{field}" of type {kind.__name__}')
        if not 0 < hello["port"] <= 65535:
            raise WireError(f"hello has port {hello['port']}")
        if hello["id"] != connection.peer_id:
            raise AuthenticationFailed("hello names another id than the handshake")
        self._security.check_certificate(connection.certificate, hello["name"])
        if hello["version"] != PROTOCOL_VERSION:
            raise Refused(f"peer has version {hello['version']}, this server {PROTOCOL_VERSION}")
        try:
            reason = self._accept_hello(hello)
        except Exception as error:
            self._fault(error)
            raise Refused("the hello could not be judged") from error
        if reason is not None:
            raise Refused(reason)

    def _same_datacenter(self, hello: dict[str, Any]) -> str | None:
        own = self._hello().get("datacenter")
        theirs = hello["datacenter"]
        return None if own == theirs else f"peer is of datacenter {theirs!r}, this server {own!r}"

    def _accept_inbound(self, connection: Connection) -> None:
        peer_id = connection.peer_id
        former = self._inbound.get(peer_id)
        # The newest counts: the former is from before the peer's restart, or half open.
        self._inbound[peer_id] = connection
        if former is not None:
            former.close(Unwanted("replaced by a newer connection of the same peer"))
        connection.set_limit(self._limits.frame_bytes_max + MAC_BYTES)
        connection.establish()
        self._say_what_changed(connection)
        for dialler in self._diallers.values():
            if peer_id == dialler.peer_id or self._wanted.get(peer_id) == dialler.address:
                dialler.wake()

    def _accept_outbound(self, connection: Connection, hello: dict[str, Any]) -> None:
        peer_id = connection.peer_id
        dialler = self._dialled_by[connection]
        known_here = dialler.peer_id == peer_id
        dialler.peer_id = peer_id
        if peer_id in self._outbound:
            raise Redundant("connected already by another address")
        if peer_id not in self._wanted and dialler.address not in self._seeds:
            # The driver may learn from it that a peer has moved and who is there now.
            self._tell_hello(connection, hello)
            raise Unwanted(f"{dialler.address} is now {peer_id}, who is not wanted")
        if not self._say_hello(connection):
            return
        self._outbound[peer_id] = connection
        self.counters["reconnects"] += known_here
        connection.establish()
        self._tell_hello(connection, hello)
        self._call_soon(self._on_connected, peer_id)
        log.info("peer_connected", peer=peer_id, name=hello["name"], address=str(dialler.address))

    def _tell_hello(self, connection: Connection, hello: dict[str, Any]) -> None:
        advertised = _advertised(connection.remote, hello)
        self._call(self._on_hello, connection.peer_id, hello, advertised)

    def _say_hello(self, connection: Connection) -> bool:
        body = self._own_hello()
        if body is None:
            raise Unwanted("this server has no valid hello")
        connection.write(Kind.HELLO, body)
        connection.told_hello = body
        return True

    def _say_what_changed(self, connection: Connection) -> None:
        """An announcement since this side's hello passed over a connection in the making."""
        body = self._own_hello()
        if body is not None and body != connection.told_hello:
            self._reply(connection, Kind.HELLO, body)

    def _own_hello(self) -> bytes | None:
        try:
            body = encode_map(self._hello())
            if len(body) >= self._limits.hello_bytes_max - MAC_BYTES:
                raise OversizeFrame(f"own hello has {len(body)} bytes")  # noqa: TRY301 - one exit
        except Exception as error:  # noqa: BLE001 - the driver's callback may raise anything
            self._fault(error)
            return None
        return body

    # -- connections

    def _make_connection(self, side: Side) -> Connection:
        connection = Connection(
            side=side,
            handshake=self._security.handshake(side, self._self_id),
            owner=self,
            limit_bytes=self._limits.handshake_frame_bytes_max,
            clock=self._clock,
        )
        self._connections.add(connection)
        return connection

    def _make_dialled(self, dialler: Dialler) -> Connection:
        connection = self._make_connection(Side.DIALLER)
        self._dialled_by[connection] = dialler
        return connection

    def _inbound_count(self) -> int:
        return sum(connection.side is Side.LISTENER for connection in self._connections)

    def _give_up(self, connection: Connection, remote: str, error: RaftregError) -> None:
        connection.abort(error)
        if not connection.was_made:
            # Otherwise `lost` does this.
            self._connections.discard(connection)
            self._dialled_by.pop(connection, None)
            self._note(remote, error)

    def _forget(self, connection: Connection) -> None:
        peer_id = connection.peer_id
        if self._outbound.get(peer_id) is connection:
            del self._outbound[peer_id]
            self._call_soon(self._on_disconnected, peer_id)
            for dialler in self._diallers.values():
                if dialler.peer_id == peer_id and dialler.connection is not connection:
                    dialler.wake()
        if self._inbound.get(peer_id) is connection:
            del self._inbound[peer_id]

    def _reconcile(self) -> None:
        """Makes the diallers those of the wanted addresses."""
        if not self._running:
            return
        addresses = (self._seeds | set(self._wanted.values())) - self._own_addresses
        for address in self._diallers.keys() - addresses:
            dialler = self._diallers.pop(address)
            connection = dialler.connection
            dialler.stop(Unwanted("no longer wanted"))
            if connection is not None:
                self._forget(connection)
        for address in sorted(addresses - self._diallers.keys()):
            self._start_dialler(address)

    def _start_dialler(self, address: Address) -> None:
        dialler = Dialler(
            address=address,
            limits=self._limits,
            make_connection=self._make_dialled,
            tls_context=lambda: self._security.tls_context(Side.DIALLER),
            is_redundant=self._is_redundant,
            give_up=self._give_up,
            clock=self._clock,
            rng=self._rng,
        )
        self._diallers[address] = dialler
        dialler.task = self._spawn(self._run_dialler(dialler), f"peer-dial-{address}")

    async def _run_dialler(self, dialler: Dialler) -> None:
        await dialler.run()
        self._own_addresses.add(dialler.address)
        if self._diallers.get(dialler.address) is dialler:
            del self._diallers[dialler.address]
        log.info("own_address_recognised", address=str(dialler.address))

    def _is_redundant(self, dialler: Dialler) -> bool:
        return dialler.peer_id is not None and dialler.peer_id in self._outbound

    def _info(self, peer_id: str) -> PeerInfo:
        outbound, inbound = self._outbound.get(peer_id), self._inbound.get(peer_id)
        known = outbound or inbound
        address = self._wanted.get(peer_id)
        if address is None and outbound is not None:
            address = self._dialled_by[outbound].address
        elif address is None and inbound is not None:
            address = _advertised(inbound.remote, inbound.hello or {})
        assert address is not None
        return PeerInfo(
            address=address,
            hello=known.hello if known else None,
            connected=outbound is not None,
            inbound=inbound is not None,
        )

    # -- signs of life

    def _schedule_sweep(self) -> None:
        delay_s = min(self._limits.ping_s, self._limits.silence_s_max / 2)
        self._sweeper = asyncio.get_running_loop().call_later(delay_s, self._sweep, delay_s)

    def _sweep(self, delay_s: float) -> None:
        now_s = self._clock()
        late_s = now_s - self._swept_at_s - delay_s
        self._swept_at_s = now_s
        for connection in [*self._outbound.values(), *self._inbound.values()]:
            if late_s > delay_s:
                # This process stood still: what peers sent meanwhile has yet to be read.
                connection.heard_at_s += late_s
            connection.note_progress()
            silent_s = now_s - connection.heard_at_s
            if silent_s > self._limits.silence_s_max:
                connection.abort(Disconnected(f"nothing heard for {silent_s:.1f} s"))
            elif connection.side is Side.DIALLER:
                self._reply(connection, Kind.PING)
        self._schedule_sweep()

    # -- callbacks, tasks, log

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        if self._stopped:
            return
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001 - the driver's callback may raise anything
            self._fault(error)

    def _call_soon(self, callback: Callable[..., None], *args: Any) -> None:
        # Later and in order: the driver may be inside a call of ours, such as set_peers.
        asyncio.get_running_loop().call_soon(self._call, callback, *args)

    def _fault(self, error: BaseException) -> None:
        self.counters["callback_faults"] += 1
        try:
            self._on_fault(error)
        except Exception:
            log.exception("fault_callback_failed")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault(error)

    def _note(self, remote: str, error: RaftregError) -> None:
        if not self._stopped and not isinstance(error, _QUIET):
            self._trouble.note(remote, error)


def _advertised(remote: str, hello: Mapping[str, Any]) -> Address:
    """Returns the address in a hello; a wildcard host stands for where the peer comes from."""
    host = str(hello["host"])
    if host in _WILDCARD_HOSTS:
        host = Address.parse(remote, 0).host
    return Address(host, int(hello["port"]))


def _log_fault(error: BaseException) -> None:
    log.error("transport_fault", exc_info=error)
