"""`raftreg operator`: the cluster itself."""

from __future__ import annotations

import click

from raftreg.client.cluster import RaftServer
from raftreg.config import RAFT_PORT_DEFAULT, join_host_port, split_host_port
from raftreg.errors import Conflict, NotFound
from raftreg_cli.call import Call, with_client
from raftreg_cli.output import columns


@click.group()
def operator() -> None:
    """Steer the cluster of servers."""


@operator.group()
def raft() -> None:
    """Members of the Raft cluster."""


@raft.command("peers")
@click.option("--stale", is_flag=True, help="Ask any server, also without a leader.")
@with_client
async def peers(call: Call, stale: bool) -> None:
    """List the servers."""
    found = await call.client.operator.raft_configuration(stale=stale)
    rows = [
        (one.node, one.address, "leader" if one.leader else "follower", _vote(one), one.id)
        for one in sorted(found, key=lambda one: one.node)
    ]
    shapes = [
        {
            "node": one.node,
            "address": one.address,
            "leader": one.leader,
            "voter": one.voter,
            "id": one.id,
        }
        for one in found
    ]
    call.show(shapes, columns(("NODE", "ADDRESS", "ROLE", "VOTER", "ID"), rows))


@raft.command("add")
@click.argument("address", metavar="HOST[:RAFTPORT]")
@click.option("--id", "server_id", required=True, help="Its id: `raft/server-id` in its data dir.")
@click.option("--name", required=True, help="Its node name.")
@with_client
async def add(call: Call, address: str, server_id: str, name: str) -> None:
    """Add a running server: first without a vote, with one when it has caught up.

    A server that is started with --join adds itself; this is for one that can't.
    """
    target = join_host_port(*split_host_port(address, RAFT_PORT_DEFAULT))
    await call.client.operator.add_peer(server_id=server_id, name=name, address=target)
    data = {"id": server_id, "name": name, "address": target, "added": True}
    call.show(data, f"{name} at {target} is a voting member.")


@raft.command("remove")
@click.argument("server", metavar="NAME|ID|ADDRESS")
@with_client
async def remove(call: Call, server: str) -> None:
    """Remove a server, dead or alive. Its data directory must not be used again."""
    found = await _server(call, server)
    await call.client.operator.remove_peer(server_id=found.id)
    call.show({"id": found.id, "name": found.node, "removed": True}, f"Removed {found.node}.")


@raft.command("transfer-leader")
@click.argument("server", metavar="[NAME|ID|ADDRESS]", required=False)
@with_client
async def transfer_leader(call: Call, server: str | None) -> None:
    """Hand leadership to a server (default: the one furthest ahead)."""
    server_id = (await _server(call, server)).id if server else ""
    answer = await call.client.operator.transfer_leader(server_id)
    leader = next(
        (one for one in await call.client.operator.raft_configuration(stale=True) if one.leader),
        None,
    )
    text = f"{leader.node} leads now." if leader else "Leadership was handed over."
    call.show(answer, text)


@operator.group()
def autopilot() -> None:
    """Health of the servers."""


@autopilot.command("health")
@with_client
async def autopilot_health(call: Call) -> int:
    """Show how the servers stand; exit code 1 when one is unhealthy."""
    found = await call.client.operator.autopilot_health()
    rows = [
        (
            one.get("Name", ""),
            one.get("Address", ""),
            "healthy" if one.get("Healthy") else "failed",
            "leader" if one.get("Leader") else "follower",
            "yes" if one.get("Voter") else "no",
            one.get("LastTerm", ""),
            one.get("LastIndex", ""),
            one.get("LastContact", ""),
        )
        for one in found.get("Servers", [])
    ]
    headers = ("NODE", "ADDRESS", "HEALTH", "ROLE", "VOTER", "TERM", "INDEX", "LAST CONTACT")
    call.show(found, columns(headers, rows))
    return 0 if found.get("Healthy") else 1


def _vote(server: RaftServer) -> str:
    return "yes" if server.voter else "no"


async def _server(call: Call, named: str) -> RaftServer:
    """The server of this name, id or address.

    Raises:
        NotFound: There is none.
        Conflict: Two have that name (a wiped server that came back): say which.
    """
    found = [
        one
        for one in await call.client.operator.raft_configuration(stale=True)
        if named in (one.id, one.node, one.address)
    ]
    if not found:
        raise NotFound(f"no server {named!r}; `raftreg operator raft peers` lists them")
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise Conflict(f"several servers are called {named!r}: name one by its id ({ids})")
    return found[0]
