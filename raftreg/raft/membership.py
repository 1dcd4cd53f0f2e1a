"""Who is in the cluster: an immutable configuration, and which next one is allowed.

Single-server changes as in the Raft dissertation (Ongaro 2014, section 4.1): a configuration is in
force from the moment it is in the log, and the next may differ by one voter, only after the
present one is committed. New servers start as non-voters (section 4.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.errors import InvalidRequest, NotFound
from raftreg.raft.api import Server

SERVERS_MAX = 32


class Configuration(msgspec.Struct, frozen=True):
    """The servers of a cluster, in the order of their ids."""

    servers: tuple[Server, ...] = ()

    @classmethod
    def of(cls, servers: Iterable[Server]) -> Configuration:
        """Builds a configuration with its servers in canonical order."""
        return cls(tuple(sorted(servers, key=lambda server: server.id)))

    def get(self, server_id: str) -> Server | None:
        """The server of this id, or None."""
        return next((server for server in self.servers if server.id == server_id), None)

    def voters(self) -> frozenset[str]:
        """Ids of the servers that count in a majority."""
        return frozenset(server.id for server in self.servers if server.voter)

    def learners(self) -> frozenset[str]:
        """Ids of the servers that only receive the log."""
        return frozenset(server.id for server in self.servers if not server.voter)

    def with_server(self, server: Server) -> Configuration:
        """The same with `server` added, or replaced where its id is known.

        Raises:
            InvalidRequest: There are `SERVERS_MAX` servers, or the name belongs to another id.
        """
        others = [known for known in self.servers if known.id != server.id]
        if len(others) >= SERVERS_MAX:
            raise InvalidRequest(f"a cluster holds at most {SERVERS_MAX} servers")
        clash = next((known for known in others if known.name == server.name), None)
        if clash is not None:
            raise InvalidRequest(
                f"server name {server.name!r} belongs to {clash.id} at {clash.address}: "
                "remove that server first"
            )
        return Configuration.of([*others, server])

    def without(self, server_id: str) -> Configuration:
        """The same without a server.

        Raises:
            NotFound: No such server.
            InvalidRequest: It is the last voter.
        """
        if self.get(server_id) is None:
            raise NotFound(f"no server with id {server_id!r} in the configuration")
        if self.voters() == {server_id}:
            raise InvalidRequest("the last voter can't be removed")
        return Configuration.of(server for server in self.servers if server.id != server_id)

    def majority(self) -> int:
        """How many voters decide."""
        return len(self.voters()) // 2 + 1


def voters_changed(before: Configuration, after: Configuration) -> int:
    """How many voters differ between two configurations; a change may move at most one."""
    return len(before.voters() ^ after.voters())


_encoder = msgspec.msgpack.Encoder()
_decoder = MsgpackDecoder[Configuration](Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """Bytes of a configuration (msgpack)."""
    return _encoder.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """Reads a configuration.

    Raises:
        msgspec.DecodeError: The bytes hold none.
    """
    return _decoder.decode(data)
