"""Clients that write all the time through all servers, and remember what was acknowledged.

Every write has a key of its own, named after its round, so that at any later time each acknowledged
one can be asked for: what is not there then was lost.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from jepsen_like.door import Door, NoAnswer, NotSent

WRITE_TIMEOUT_S: Final = 6.0
READ_TIMEOUT_S: Final = 20.0
READ_S_MAX: Final = 90.0
LOSSES_NAMED_MAX: Final = 10
_POLL_S: Final = 0.005
_ROOT: Final = "figures"


class Ack(msgspec.Struct, frozen=True):
    """An acknowledged write: when it began and when the answer was there, in loop time."""

    began_s: float
    ended_s: float


class Row(msgspec.Struct, frozen=True, rename="pascal"):
    """A key as the API gives it."""

    key: str
    value: str | None = None


class Writers:
    """Writes in a closed loop: each worker has one write under way, then pauses.

    Args:
        door: The way to the cluster.
        servers: Their names; each worker goes round them.
        rng: Source of the workers' pauses.
        workers: How many.
        pause_s: Mean of the pause after each write.
        body_bytes: Size of a value.
    """

    def __init__(
        self,
        door: Door,
        servers: Sequence[str],
        rng: Random,
        *,
        workers: int = 8,
        pause_s: float = 0.03,
        body_bytes: int = 20,
    ) -> None:
        self._door = door
        self._servers = tuple(servers)
        self._rng = rng
        self._workers = workers
        self._pause_s = pause_s
        self._body_bytes = body_bytes
        self._number = 0
        self._stopping = False
        self.round = "0"
        self.acks: list[Ack] = []  #: of the present round
        self.acknowledged: dict[str, set[int]] = {"0": set()}  #: by round
        self.unknown = 0

    @property
    def total(self) -> int:
        """Writes that were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def begin(self, name: str) -> None:
        """From now on writes belong to this round."""
        self.round = name
        self.acknowledged[name] = set()
        self.acks = []

    def stop(self) -> None:
        """Ends `run` once each worker's write has ended."""
        self._stopping = True

    async def run(self) -> None:
        """Writes until `stop`."""
        self._stopping = False
        async with asyncio.TaskGroup() as tasks:
            for worker in range(self._workers):
                tasks.create_task(self._work(worker))

    async def _work(self, worker: int) -> None:
        turn = worker
        while not self._stopping:
            server = self._servers[turn % len(self._servers)]
            turn += 1
            await self._write(server)
            await asyncio.sleep(self._rng.uniform(0, 2 * self._pause_s))

    async def _write(self, server: str) -> None:
        self._number += 1
        number, name, acks = self._number, self.round, self.acks
        began_s = asyncio.get_running_loop().time()
        if await self.put(server, self.path(name, number), self.value(number)):
            acks.append(Ack(began_s, asyncio.get_running_loop().time()))
            self.acknowledged[name].add(number)
        else:
            self.unknown += 1

    def path(self, name: str, number: int) -> str:
        """Key of a write."""
        return f"{_ROOT}/{name}/{number}"

    def value(self, number: int) -> bytes:
        """What a write writes; no two are alike."""
        return f"value {number} ".encode().ljust(self._body_bytes, b".")

    async def put(
        self, server: str, key: str, body: bytes, timeout_s: float = WRITE_TIMEOUT_S
    ) -> bool:
        """One write; False when it was not acknowledged, whatever became of it."""
        try:
            answer = await self._door.request(
                server, "PUT", f"/v1/kv/{key}", body=body, timeout_s=timeout_s
            )
        except (NotSent, NoAnswer):
            return False
        return answer.status == 200 and answer.body.strip() == b"true"

    async def acknowledged_after(self, begun_s: float, timeout_s: float) -> Ack | None:
        """Waits for an acknowledged write that began after `begun_s`; None when there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                seen = 0
                while True:
                    for ack in self.acks[seen:]:
                        if ack.began_s >= begun_s:
                            return ack
                    seen = len(self.acks)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return None

    def outage_s(self, since_s: float, until_s: float) -> float:
        """The longest time between two acknowledgements, of which the later one came after
        `since_s`; what is under way at `until_s` counts up to there.
        """
        ends = sorted(ack.ended_s for ack in self.acks if ack.ended_s <= until_s)
        before = [end for end in ends if end <= since_s]
        after = [end for end in ends if end > since_s]
        marks = [before[-1] if before else since_s, *after, until_s]
        return max(later - earlier for earlier, later in itertools.pairwise(marks))

    async def missing(self, name: str, *, server: str | None = None) -> list[str]:
        """What was acknowledged in a round and is not there now, in sentences.

        Args:
            name: The round.
            server: Ask this one, for its own state (`?stale`); None: any, linearizably.
        """
        wanted = sorted(self.acknowledged[name])  # before the read: it must see them all
        if not wanted:
            return []
        found = await self.read(f"{_ROOT}/{name}/", server=server)
        if found is None:
            return [f"round {name}: nobody answered a read within {READ_S_MAX:g} s"]
        at = "" if server is None else f" at {server}"
        lost = [n for n in wanted if found.get(self.path(name, n)) != self.value(n)]
        losses = [
            f"round {name}: write {n} was acknowledged and is not there{at}"
            for n in lost[:LOSSES_NAMED_MAX]
        ]
        if len(lost) > LOSSES_NAMED_MAX:
            losses.append(f"round {name}: {len(lost)} acknowledged writes are not there{at}")
        return losses

    async def missing_anywhere(self) -> list[str]:
        """`missing` for all rounds."""
        return [loss for name in self.acknowledged for loss in await self.missing(name)]

    async def read(self, prefix: str, *, server: str | None = None) -> dict[str, bytes] | None:
        """All keys with a prefix; None when nobody answers in time."""
        servers = self._servers if server is None else (server,)
        how = {"consistent": ""} if server is None else {"stale": ""}
        try:
            async with asyncio.timeout(READ_S_MAX):
                while True:
                    for name in servers:
                        rows = await self._read(name, prefix, how)
                        if rows is not None:
                            return rows
                    await asyncio.sleep(0.1)
        except TimeoutError:
            return None

    async def _read(self, server: str, prefix: str, how: dict[str, str]) -> dict[str, bytes] | None:
        try:
            answer = await self._door.request(
                server,
                "GET",
                f"/v1/kv/{prefix}",
                params={"recurse": "", **how},
                timeout_s=READ_TIMEOUT_S,
            )
        except (NotSent, NoAnswer):
            return None
        if answer.status == 404:
            return {}
        if answer.status != 200:
            return None
        rows = msgspec.json.decode(answer.body, type=list[Row])
        return {row.key: base64.b64decode(row.value or "") for row in rows}
