"""Who belongs to the cluster: its beginning, servers that come and go, where they are.

The leader admits servers that ask to join, first as non-voters, and promotes them once they have
caught up. A wiped server comes back with a new id (ADR 0005): its old self is removed first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest, NoLeader, NotFound, NotProposed, RaftregError
from raftreg.raft.api import Server
from raftreg.raft.bootstrap import Begin, Candidate, Pin, Wait, next_step
from raftreg.raft.calls import RemoteFault
from raftreg.raft.disk import Disk
from raftreg.raft.membership import (
    Configuration,
    decode_configuration,
    encode_configuration,
)
from raftreg.raft.peers import Address

if TYPE_CHECKING:
    from raftreg.raft.replica import Replica

log = structlog.get_logger(__name__)

_PIN_FILE = "bootstrap"
_CHANNEL = "cluster"
#: Entries that a new server may lack when it is promoted.
_CAUGHT_UP_ENTRIES = 100
_CHANGE_S = 10.0
_TRANSFER_S = 5.0
_RETRY_S = 0.25
PEERS_MAX = 64


class _Pinned(msgspec.Struct, frozen=True):
    configuration: bytes
    begun: bool


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    """A change asked of the leader."""

    operation: str
    server: Server | None = None
    server_id: str = ""


_requests = MsgpackDecoder[_Request](_Request)


class Cluster:
    """Membership of one replica.

    Args:
        disk: The data directory (for the pinned set).
        replica: Whose membership it is.
    """

    def __init__(self, disk: Disk, replica: Replica) -> None:
        self._disk = disk
        self._replica = replica
        self._pinned = self._read_pinned()
        self._hellos: dict[str, dict[str, Any]] = {}
        self._seen: Configuration | None = None
        self._admitting = False
        self._said: str = ""
        self._announced: dict[str, Any] = {}
        self._changes = asyncio.Lock()
        replica.answer_with(_CHANNEL, self._answer)

    # --- the beginning

    def _read_pinned(self) -> _Pinned | None:
        if _PIN_FILE not in self._disk.list():
            return None
        return msgspec.msgpack.decode(self._disk.read(_PIN_FILE), type=_Pinned)

    def _write_pinned(self, pinned: _Pinned) -> None:
        self._disk.write_durably(_PIN_FILE, msgspec.msgpack.encode(pinned))
        self._pinned = pinned

    def base(self) -> Configuration | None:
        """The configuration that the bootstrap agreed on, when it did."""
        if self._pinned is None or not self._pinned.begun:
            return None
        return decode_configuration(self._pinned.configuration)

    def _pinned_ids(self) -> tuple[str, ...]:
        if self._pinned is None:
            return ()
        servers = decode_configuration(self._pinned.configuration).servers
        return tuple(server.id for server in servers)

    def hello(self) -> dict[str, Any]:
        """What this server says of itself to its peers."""
        member = self._is_member()
        fresh = not member and self._pinned is None
        joins = fresh and (self._replica.settings.expect == 0 or self._sees_member())
        return {
            **self._replica.hello(),
            "expect": self._replica.settings.expect if fresh or self._pinned else 0,
            "pinned": list(self._pinned_ids()),
            "member": member,
            "joins": joins,
        }

    def _is_member(self) -> bool:
        return bool(self._replica.node.configuration.servers)

    def _sees_member(self) -> bool:
        return any(hello.get("member") for hello in self._hellos.values())

    def on_hello(self, peer: str, hello: dict[str, Any], address: Address) -> None:
        """A peer said who it is and how it stands."""
        if peer not in self._hellos and len(self._hellos) >= PEERS_MAX:
            log.warning("too_many_peers", peer=peer)
            return
        before = self._hellos.get(peer)
        self._hellos[peer] = {**hello, "address": str(address)}
        if before != self._hellos[peer]:
            self._connect_known()
        self.review()

    def review(self) -> None:
        """Looks whether something is to be done now: begin, join, admit."""
        node = self._replica.node
        if not self._is_member():
            self._bootstrap()
        if node.leads and not self._admitting and self._wanting() is not None:
            self._admitting = True
            self._replica.spawn(self._admit_all())
        self._announce()

    def _announce(self) -> None:
        """Tells the peers when what this server says of itself has changed."""
        hello = self.hello()
        if hello != self._announced:
            self._announced = hello
            self._replica.transport.announce()

    def _bootstrap(self) -> None:
        hello = self.hello()
        me = _candidate({**hello, "address": str(Address(hello["host"], hello["port"]))})
        peers = {
            peer: _candidate(known)
            for peer, known in self._hellos.items()
            if self._replica.transport.connected(peer)
        }
        match next_step(me, peers):
            case Pin(configuration):
                self._write_pinned(_Pinned(encode_configuration(configuration), begun=False))
                log.info("cluster_pinned", servers=[s.name for s in configuration.servers])
                self._announce()
                self._bootstrap()
            case Begin():
                assert self._pinned is not None
                self._write_pinned(_Pinned(self._pinned.configuration, begun=True))
                self._replica.node.set_base(decode_configuration(self._pinned.configuration))
                log.info("cluster_begins")
                self._replica.wake()
            case Wait(reason):
                if reason != self._said:
                    log.info("waiting_for_cluster", reason=reason)
                    self._said = reason

    # --- where everyone is

    def configuration_seen(self) -> None:
        """After each tick: follows a configuration that has changed."""
        configuration = self._replica.node.configuration
        if configuration is not self._seen:
            self._seen = configuration
            self._connect_known()
            self.review()

    def _connect_known(self) -> None:
        me = self._replica.node.server.id
        addresses = {
            server.id: server.address for server in self._replica.node.configuration.servers
        }
        addresses |= {peer: hello["address"] for peer, hello in self._hellos.items()}
        addresses.pop(me, None)
        self._replica.transport.set_peers(
            {peer: Address.parse(address, 0) for peer, address in addresses.items()}
        )

    # --- coming and going, on the leader

    def _wanting(self) -> Server | None:
        """A server that is to be added, promoted, or whose address has changed."""
        configuration = self._replica.node.configuration
        me = self._replica.node.server
        own = configuration.get(me.id)
        if own is not None and own.address != me.address:
            return me  # this leader itself has come back elsewhere
        for peer, hello in sorted(self._hellos.items()):
            if not self._replica.transport.connected(peer):
                continue
            known = configuration.get(peer)
            if known is None and hello.get("joins"):
                return _server(hello)
            if known is not None and (not known.voter or known.address != hello["address"]):
                return _server(hello)
        return None

    async def _admit_all(self) -> None:
        try:
            while self._replica.node.leads and (server := self._wanting()) is not None:
                try:
                    await self._admit(server)
                except (RaftregError, TimeoutError) as error:
                    log.warning("server_not_admitted", server=server.name, reason=str(error))
                    await asyncio.sleep(_RETRY_S)
        finally:
            self._admitting = False

    async def _admit(self, server: Server) -> None:
        known = self._replica.node.configuration.get(server.id)
        if known is not None and known.voter:
            await self._change(msgspec.structs.replace(server, voter=True))
            log.info("server_moved", server=server.name, address=server.address)
            return
        await self._remove_former_self(server)
        await self._add(server)

    async def _remove_former_self(self, server: Server) -> None:
        for known in self._replica.node.configuration.servers:
            if known.name == server.name and known.id != server.id:
                if self._replica.transport.connected(known.id):
                    raise InvalidRequest(
                        f"a server named {server.name!r} is here already (at {known.address})"
                    )
                log.warning("replacing_server", server=server.name, former_id=known.id)
                await self._remove(known.id)
                return

    async def _add(self, server: Server) -> None:
        node = self._replica.node
        learner = msgspec.structs.replace(server, voter=False)
        if node.configuration.get(server.id) is None:
            await self._change(learner)
            log.info("server_added", server=server.name, address=server.address)
        self._connect_known()

        def caught_up() -> bool:
            behind = node.last_log_index - node.match_index(server.id)
            return not node.leads or behind <= _CAUGHT_UP_ENTRIES

        await self._replica.until(caught_up, _CHANGE_S * 3)
        await self._change(msgspec.structs.replace(server, voter=True))
        log.info("server_promoted", server=server.name)

    async def _change(self, server: Server) -> None:
        await self._commit(lambda now: now.with_server(server))

    async def _remove(self, server_id: str) -> None:
        await self._commit(lambda now: now.without(server_id))
        self._hellos.pop(server_id, None)
        self._connect_known()
        log.info("server_removed", server_id=server_id)

    async def _commit(self, change: Callable[[Configuration], Configuration]) -> None:
        """Appends a changed configuration and waits until it is committed; one at a time."""
        async with self._changes, asyncio.timeout(_CHANGE_S):
            while True:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                node = self._replica.node
                try:
                    after = change(node.configuration)
                    node.change_configuration(after, partial(_settle, future))
                    break
                except NotProposed:
                    await asyncio.sleep(0.01)  # the change before it is not committed yet
            self._replica.wake()
            await future

    # --- asked for by people

    async def ask_to_add(self, server: Server, timeout_s: float) -> None:
        """See `Replica.add_server`."""
        await self._ask(_Request(operation="add", server=server), timeout_s)

    async def ask_to_remove(self, server_id: str, timeout_s: float) -> None:
        """See `Replica.remove_server`."""
        await self._ask(_Request(operation="remove", server_id=server_id), timeout_s)

    async def ask_to_transfer(self, server_id: str | None) -> str:
        """See `Replica.transfer_leadership`."""
        request = _Request(operation="transfer", server_id=server_id or "")
        return (await self._ask(request, _TRANSFER_S)).decode()

    async def _ask(self, request: _Request, timeout_s: float) -> bytes:
        payload = msgspec.msgpack.encode(request)
        try:
            return await self._replica.ask(_CHANNEL, payload, timeout_s)
        except RemoteFault as fault:
            raise _ERRORS.get(fault.remote_code, RaftregError)(fault.message) from fault

    async def _answer(self, payload: bytes) -> bytes:
        try:
            request = _requests.decode(payload)
        except msgspec.DecodeError as error:
            raise NotProposed(f"the question can't be read: {error}") from error
        if not self._replica.node.leads:
            raise NoLeader("No cluster leader")
        try:
            return await self._do(request)
        except TimeoutError:
            raise NotProposed("the change was not committed in time; look at the peers") from None

    async def _do(self, request: _Request) -> bytes:
        if request.operation == "transfer":
            return await self._transfer(request.server_id or None)
        if request.operation == "remove":
            if request.server_id == self._replica.node.server.id:
                await self._transfer(None)
                raise NoLeader("leadership was handed over; the new leader removes this server")
            await self._remove(request.server_id)
        elif request.operation == "add" and request.server is not None:
            self._hellos.setdefault(request.server.id, {**_hello_of(request.server)})
            await self._add(request.server)
        else:
            raise InvalidRequest(f"unknown operation {request.operation!r}")
        return b""

    async def _transfer(self, server_id: str | None) -> bytes:
        node = self._replica.node
        target = server_id or self._best_follower()
        if target == node.server.id:
            return target.encode()
        if target not in node.configuration.voters():
            raise NotFound(f"no voter with id {target!r}")

        def handed_over() -> bool:
            return not node.leads or node.transfer_to(target)

        await self._replica.until(handed_over, _TRANSFER_S / 2)
        await self._replica.until(
            lambda: not node.leads and node.leader_id is not None, _TRANSFER_S / 2
        )
        return (node.leader_id or "").encode()

    def _best_follower(self) -> str:
        node = self._replica.node
        others = [
            (node.match_index(server_id), server_id)
            for server_id in node.configuration.voters()
            if server_id != node.server.id and self._replica.transport.connected(server_id)
        ]
        if not others:
            raise InvalidRequest("no other voter is connected: nobody can take over")
        return max(others)[1]


_ERRORS: dict[str, type[RaftregError]] = {
    kind.code: kind for kind in (InvalidRequest, NotFound, NotProposed)
}


def _settle(future: asyncio.Future[None], error: RaftregError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _server(hello: dict[str, Any]) -> Server:
    return Server(id=hello["id"], name=hello["name"], address=hello["address"])


def _hello_of(server: Server) -> dict[str, Any]:
    return {"id": server.id, "name": server.name, "address": server.address}


def _candidate(hello: dict[str, Any]) -> Candidate:
    return Candidate(
        id=hello["id"],
        name=hello["name"],
        address=hello["address"],
        expect=int(hello.get("expect", 0)),
        pinned=tuple(hello.get("pinned", ())),
        member=bool(hello.get("member", False)),
    )
