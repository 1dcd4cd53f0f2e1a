"""Servers are wiped, join and leave; leadership moves; compaction is killed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, ClassVar, Final
from urllib.parse import quote

from jepsen_like.ground.api import Ground, Host
from jepsen_like.nemeses import operators
from jepsen_like.nemeses.base import Evidence, Fault
from jepsen_like.nemeses.disk import small_snapshots

_CHANGE_S_MAX: Final = 15.0
_LOOKS_MAX: Final = 2000
_LOOK_S: Final = 0.002
_CUT_S_MAX: Final = 0.1
_VOTERS_MIN: Final = 3


class WipeOne(Fault):
    """A server loses its whole disk and joins anew, under its old name.

    Either an operator removes the old member first, or the new one takes its place by itself.
    """

    name = "wipe-one"

    def __init__(self) -> None:
        self._wiped: dict[str, Any] | None = None

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        if not await operators.whole(ground, ground.servers, _CHANGE_S_MAX):
            return {"skipped": "not all servers are healthy"}
        host = rng.choice(ground.servers)
        known = await operators.members(ground)
        former_id = known.get(host.name, {}).get("ID")
        self._wiped = {"host": host.name, "former_id": former_id, "removed": False}
        await operators.empty(host)
        if rng.random() < 0.5:
            self._wiped["removed"] = await operators.remove(ground, host, _CHANGE_S_MAX)
        return dict(self._wiped)

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        wiped, self._wiped = self._wiped, None
        await operators.revive(ground)
        if wiped is None:
            return Evidence(acted=False)
        host = ground.host(wiped["host"])
        rejoined = await operators.rejoin(ground, host)
        known = await operators.members(ground)
        new_id = known.get(host.name, {}).get("ID")
        facts = {**wiped, "new_id": new_id, "rejoined": rejoined}
        return Evidence(acted=new_id is not None and new_id != wiped["former_id"], facts=facts)


class Membership(Fault):
    """Spare servers join and members leave, one change after the other."""

    name = "membership"
    spares: ClassVar[int] = 2
    hold_s = (1.0, 4.0)

    def __init__(self) -> None:
        self._changes: list[dict[str, Any]] = []
        self._away: dict[str, Host] = {}
        self._joined: dict[str, Host] = {}

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        for _ in range(rng.randint(2, 4)):
            joins = [one for one in ground.spares if one.name not in self._joined]
            voters = len(ground.servers) - len(self._away) + len(self._joined)
            leaves = self._removable(ground) if voters > _VOTERS_MIN else []
            if joins and (not leaves or rng.random() < 0.5):
                await self._join(ground, rng.choice(joins))
            elif leaves:
                await self._leave(ground, rng.choice(leaves))
        return {"changes": list(self._changes)}

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`: the servers of the run are members again, the spares are not."""
        changes, self._changes = self._changes, []
        for host in list(self._away.values()):
            await operators.empty(host)
            await operators.rejoin(ground, host)
            del self._away[host.name]
        for host in list(self._joined.values()):
            removed = await operators.remove(ground, host)
            await operators.empty(host)
            if removed:
                del self._joined[host.name]
        await operators.revive(ground)
        known = await operators.members(ground)
        facts = {"changes": changes, "members": sorted(known)}
        return Evidence(acted=any(one["done"] for one in changes), facts=facts)

    def _removable(self, ground: Ground) -> list[Host]:
        return [one for one in ground.servers if one.name not in self._away]

    async def _join(self, ground: Ground, host: Host) -> None:
        self._joined[host.name] = host
        done = await operators.rejoin(ground, host, _CHANGE_S_MAX)
        self._changes.append({"join": host.name, "done": done})

    async def _leave(self, ground: Ground, host: Host) -> None:
        self._away[host.name] = host
        done = await operators.remove(ground, host, _CHANGE_S_MAX)
        if done:
            await host.stop()
        else:
            del self._away[host.name]
        self._changes.append({"leave": host.name, "done": done})


class TransferLeader(Fault):
    """Leadership is handed on, again and again."""

    name = "transfer-leader"
    hold_s = (0.5, 2.0)

    def __init__(self) -> None:
        self._transfers: list[dict[str, Any]] = []

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        for _ in range(rng.randint(3, 6)):
            self._transfers.append(await self._transfer(ground, rng))
            await asyncio.sleep(rng.uniform(0.0, 0.5))
        return {"transfers": list(self._transfers)}

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        transfers, self._transfers = self._transfers, []
        await operators.revive(ground)
        done = [one for one in transfers if one["from"] and one["to"] not in {None, one["from"]}]
        return Evidence(acted=bool(done), facts={"transfers": transfers, "done": len(done)})

    async def _transfer(self, ground: Ground, rng: Random) -> dict[str, Any]:
        before = await ground.leader()
        if before is None:
            return {"from": None, "to": None}
        others = [host for host in operators.running(ground.servers) if host is not before]
        path = "/v1/operator/raft/transfer-leader"
        if others and rng.random() < 0.5:
            path += f"?id={quote(rng.choice(others).name)}"
        answer = await ground.ask(before, path, "PUT")
        after = await ground.leader()
        success = isinstance(answer, dict) and answer.get("Success") is True
        return {"from": before.name, "to": after.name if after else None, "answered": success}


class SnapshotRestart(Fault):
    """A server is made to compact its log all the time, and killed while it writes a snapshot."""

    name = "snapshot-restart"
    hold_s = (0.5, 2.0)

    def __init__(self) -> None:
        self._kills: list[dict[str, Any]] = []
        self._host: str | None = None

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        host = rng.choice(operators.running(ground.servers) or ground.servers)
        self._host = host.name
        flags = small_snapshots(host)
        await host.stop()
        for _ in range(rng.randint(2, 4)):
            await host.start(flags)
            seen = await self._await_snapshot(host)
            # At once, or some time later: while it is renamed, or while the log is being cut.
            await asyncio.sleep(rng.choice((0.0, rng.uniform(0.0, _CUT_S_MAX))))
            await host.kill()
            self._kills.append({"host": host.name, "writing": seen, "left": _snapshots(host)})
        return {"kills": list(self._kills)}

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        kills, self._kills = self._kills, []
        name, self._host = self._host, None
        if name is not None:
            # It may still run with small snapshots, were the injection interrupted.
            await ground.host(name).kill()
        await operators.revive(ground)
        if name is None:
            return Evidence(acted=False)
        back = await operators.whole(ground, [ground.host(name)])
        facts = {"kills": kills, "whole_again": back}
        return Evidence(acted=any(one["writing"] for one in kills), facts=facts)

    async def _await_snapshot(self, host: Host) -> str | None:
        """The name of a snapshot that is being written; None when none was caught in time."""
        for _ in range(_LOOKS_MAX):
            for path in _listed(host):
                if path.startswith("snapshot-") and path.endswith(".tmp"):
                    return path
            await asyncio.sleep(_LOOK_S)
        return None


def _listed(host: Host) -> list[str]:
    folder = host.data_dir / "raft"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _snapshots(host: Host) -> list[str]:
    return [name for name in _listed(host) if name.startswith("snapshot-")]


FAULTS: tuple[type[Fault], ...] = (WipeOne, Membership, TransferLeader, SnapshotRestart)
