"""How a new cluster begins: all of its first servers agree on who they are, or nothing begins.

Each server says what it knows of itself in its hello. A fresh server that sees exactly as many
fresh servers as expected *pins* that set: it writes it down durably, says so, and never pins
another. A pinned set comes into force when every server in it is known to have pinned it (ADR
0005). Two different sets can't both come into force, as a server common to both pins only one.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from raftreg.raft.api import Server
from raftreg.raft.membership import Configuration


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself.

    Attributes:
        expect: Size of the new cluster that it waits for; 0: it only joins.
        pinned: Ids of the set that it pinned, sorted; empty: none.
        member: It belongs to a cluster.
    """

    id: str
    name: str
    address: str
    expect: int = 0
    pinned: tuple[str, ...] = ()
    member: bool = False

    def as_voter(self) -> Server:
        """This server as a member of the first configuration."""
        return Server(id=self.id, name=self.name, address=self.address)


class Pin(msgspec.Struct, frozen=True):
    """Write this set down durably, then tell the others."""

    configuration: Configuration


class Begin(msgspec.Struct, frozen=True):
    """The pinned set is in force."""


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do yet; `reason` is for the log."""

    reason: str


Step = Pin | Begin | Wait


def next_step(me: Candidate, peers: Mapping[str, Candidate]) -> Step:
    """What a server without a configuration does next.

    Args:
        me: This server.
        peers: Servers that are connected, by id.
    """
    if me.pinned:
        return _confirm(me, peers)
    if any(peer.member for peer in peers.values()):
        return Wait("a cluster is there already: waiting for its leader to add this server")
    if me.expect == 0:
        return Wait("waiting for a server of the cluster to join")
    return _choose(me, peers)


def _confirm(me: Candidate, peers: Mapping[str, Candidate]) -> Step:
    missing = []
    for server_id in me.pinned:
        peer = peers.get(server_id)
        if server_id == me.id or (peer and (peer.member or peer.pinned == me.pinned)):
            continue
        missing.append(peer.name if peer else server_id)
    if missing:
        return Wait(f"waiting for {', '.join(missing)} to agree on the new cluster")
    return Begin()


def _choose(me: Candidate, peers: Mapping[str, Candidate]) -> Step:
    fresh = {peer.id: peer for peer in peers.values() if peer.expect == me.expect} | {me.id: me}
    for peer in fresh.values():
        # Somebody chose before this server did: join their choice, if it can be known here.
        if me.id in peer.pinned and all(server in fresh for server in peer.pinned):
            return Pin(_configuration(fresh[server] for server in peer.pinned))
    if len(fresh) < me.expect:
        return Wait(f"{len(fresh)} of {me.expect} expected servers are here")
    if len(fresh) > me.expect:
        return Wait(f"{len(fresh)} servers are here, {me.expect} expected: waiting to be chosen")
    if len({peer.name for peer in fresh.values()}) < len(fresh):
        return Wait("two servers have the same name: give each its own --node")
    if any(peer.pinned for peer in fresh.values()):
        return Wait("another server chose other servers for the new cluster")
    return Pin(_configuration(fresh.values()))


def _configuration(candidates: Iterable[Candidate]) -> Configuration:
    return Configuration.of(candidate.as_voter() for candidate in candidates)
