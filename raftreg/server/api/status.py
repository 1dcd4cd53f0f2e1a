"""/v1/status and /v1/operator: who leads, who takes part, and changes of that."""

from __future__ import annotations

import msgspec
from aiohttp import web

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest, NoLeader, NotFound
from raftreg.http.discovery import options_of, query_of
from raftreg.http.json import dumps
from raftreg.http.operation import DATACENTER, Flag, Param, operation
from raftreg.http.params import Consistency, ReadOptions
from raftreg.http.reply import TRUE, Reply
from raftreg.http.shapes import (
    RaftConfigurationJson,
    RaftServerJson,
    TransferJson,
)
from raftreg.raft.api import ReplicaAPI, ReplicaStatus, Server
from raftreg.server.api.context import Context

PROTOCOL_VERSION = "3"

_READ = (
    DATACENTER,
    Param("stale", "as this server knows it, also without a leader", Flag),
    Param("pretty", "indent", Flag),
)


class Operator:
    """The cluster's own endpoints.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datacenter = context.settings.datacenter

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        transfer = "/v1/operator/raft/transfer-leader"
        return [
            web.get("/v1/status/leader", self.leader),
            web.get("/v1/status/peers", self.peers),
            web.get("/v1/operator/raft/configuration", self.configuration),
            web.delete("/v1/operator/raft/peer", self.remove),
            web.put("/v1/operator/raft/add", self.add),
            web.put(transfer, self.transfer),
            web.post(transfer, self.transfer),
        ]

    def _status(self) -> ReplicaStatus:
        return self._context.replica.status()

    @operation(
        "Tells the leader's host:port, empty when none is known",
        tag="status",
        query=(DATACENTER,),
        answer=str,
    )
    async def leader(self, request: web.Request) -> Reply:
        """`"ip:port"` of the leader, `""` when none is known."""
        options_of(request, self._datacenter)
        status = self._status()
        for server in status.servers:
            if server.id == status.leader_id:
                return Reply(dumps(server.address))
        return Reply(b'""')

    @operation("Lists host:port of all voters", tag="status", query=(DATACENTER,), answer=list[str])
    async def peers(self, request: web.Request) -> Reply:
        """`"ip:port"` of all voters."""
        options_of(request, self._datacenter)
        addresses = sorted(server.address for server in self._status().servers if server.voter)
        return Reply(dumps(addresses))

    @operation(
        "Lists the members of the cluster",
        tag="operator",
        query=_READ,
        answer=RaftConfigurationJson,
    )
    async def configuration(self, request: web.Request) -> Reply:
        """The members, as this server has them; linearizable unless `?stale`."""
        options = options_of(request, self._datacenter)
        await self._context.reads.ready(options)
        status = self._status()
        body = {
            "Servers": [_server_json(server, status) for server in status.servers],
            "Index": status.commit_index,
        }
        return Reply(dumps(body, pretty=options.pretty))

    @operation(
        "Removes a member",
        tag="operator",
        query=(
            DATACENTER,
            Param("id", "the server's id or name"),
            Param("address", "its host:port"),
        ),
        also={404: "there is no such member"},
    )
    async def remove(self, request: web.Request) -> Reply:
        """Removes a member, named by `?id=` or `?address=`."""
        options_of(request, self._datacenter)
        server = self._named(request)
        await self._context.replica.remove_server(server.id)
        return Reply(b"", kind=b"text/plain; charset=utf-8")

    @operation(
        "Adds a member; it votes once it has caught up",
        tag="operator",
        query=(
            DATACENTER,
            Param("id", "the server's id", required=True),
            Param("address", "its host:port", required=True),
            Param("name", "its name"),
        ),
        answer=bool,
    )
    async def add(self, request: web.Request) -> Reply:
        """Adds a member: `?id=`, `?address=host:port`, `?name=`; it votes once it caught up."""
        options_of(request, self._datacenter)
        params = query_of(request)
        server_id, address = params.get("id", ""), params.get("address", "")
        if not server_id or not address:
            raise InvalidRequest("Must specify ?id and ?address (host:port) of the server to add")
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
            raise InvalidRequest(f"Invalid address {address[:64]!r}: it must be host:port")
        name = params.get("name", "") or server_id
        await self._context.replica.add_server(Server(id=server_id, name=name, address=address))
        return Reply(TRUE)

    @operation(
        "Hands leadership on",
        tag="operator",
        query=(
            DATACENTER,
            Param("id", "the server's id or name"),
            Param("address", "its host:port"),
        ),
        answer=TransferJson,
        also={404: "there is no such member"},
    )
    async def transfer(self, request: web.Request) -> Reply:
        """Hands leadership to `?id=`, or to the member furthest ahead."""
        options_of(request, self._datacenter)
        params = query_of(request)
        target = self._named(request).id if "id" in params or "address" in params else None
        leader = await self._context.replica.transfer_leadership(target)
        return Reply(dumps({"Success": True, "Leader": leader}))

    def _named(self, request: web.Request) -> Server:
        """The member that the query names."""
        params = query_of(request)
        by_id, by_address = params.get("id", ""), params.get("address", "")
        if bool(by_id) == bool(by_address):
            raise InvalidRequest("Must specify either ?id with the server's ID or ?address")
        for server in self._status().servers:
            if by_id in {server.id, server.name} if by_id else server.address == by_address:
                return server
        raise NotFound(f"no server {(by_id or by_address)[:64]!r} in the Raft configuration")


STATUS_QUESTION = b"\xa6status"  #: msgpack text "status"; renewals are maps

_encode = msgspec.msgpack.Encoder().encode
_decoder = MsgpackDecoder[ReplicaStatus](ReplicaStatus)


def encode_status(status: ReplicaStatus) -> bytes:
    """A status for another server."""
    return _encode(status)


def decode_status(data: bytes) -> ReplicaStatus:
    """The reverse of `encode_status`.

    Raises:
        msgspec.DecodeError: The bytes are none.
    """
    return _decoder.decode(data)


async def leaders_status(replica: ReplicaAPI, options: ReadOptions) -> ReplicaStatus:
    """The leader's view, since only it knows how far the others are; this server's if `?stale`.

    Raises:
        NoLeader: None answered.
    """
    if options.consistency is Consistency.STALE:
        return replica.status()
    answer = await replica.ask_leader(STATUS_QUESTION)
    try:
        return decode_status(answer)
    except msgspec.DecodeError as error:
        raise NoLeader(f"the leader's answer can't be read: {error}") from error


def _server_json(server: Server, status: ReplicaStatus) -> RaftServerJson:
    return {
        "ID": server.id,
        "Node": server.name,
        "Address": server.address,
        "Leader": server.id == status.leader_id,
        "ProtocolVersion": PROTOCOL_VERSION,
        "Voter": server.voter,
    }
