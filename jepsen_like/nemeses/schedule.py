"""The nemesis: calm, inject, hold, heal, and again, at times that the seed decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from jepsen_like.folder import Injection
from jepsen_like.ground.api import Ground, Host
from jepsen_like.nemeses.base import Evidence, Fault
from jepsen_like.nemeses.combination import Menu, family
from jepsen_like.recorder import Recorder

INJECT_S_MAX: Final = 60.0
HEAL_S_MAX: Final = 120.0
LEFT_S_MIN: Final = 3.0  #: no round begins with less time left, except the first
_SHARE: Final = 0.8  #: of the time left that calm and hold of a round may take
_LOOK_S: Final = 0.25  #: between two looks at the processes
_ERROR_CHARS_MAX: Final = 500
#: Faults of these families end no process: one that ends meanwhile ended by itself.
_HARMLESS: Final = frozenset({"network", "clock"})


class Round(msgspec.Struct, frozen=True):
    """Times of one round, in seconds: how long nothing happens, then how long the faults last."""

    calm_s: float
    hold_s: float


def plan(faults: Sequence[Fault], rng: Random, left_s: float, *, first: bool) -> Round | None:
    """Draws the times of a round from those of its faults, shortened to fit in what is left.

    In a run of 10 s or more the first round so begins and ends within the time limit, if
    injection and healing themselves take no longer than a fifth of it.

    Args:
        faults: Of the round.
        rng: Draws.
        left_s: Until the time limit.
        first: It is the first round.

    Returns:
        None when no time is left for a round, or there are no faults.
    """
    if not faults or left_s <= 0 or (left_s < LEFT_S_MIN and not first):
        return None
    calm_s = rng.uniform(
        min(fault.calm_s[0] for fault in faults), min(fault.calm_s[1] for fault in faults)
    )
    hold_s = rng.uniform(
        max(fault.hold_s[0] for fault in faults), max(fault.hold_s[1] for fault in faults)
    )
    scale = min(1.0, _SHARE * left_s / max(calm_s + hold_s, 1e-9))
    return Round(calm_s * scale, hold_s * scale)


class _Open:
    """A fault that was injected and not healed yet."""

    def __init__(self, fault: Fault, number: int, start_ns: int) -> None:
        self.fault = fault
        self.number = number
        self.start_ns = start_ns
        self.held_ns = start_ns
        self.done: dict[str, Any] = {}
        self.error: str | None = None


class Nemesis:
    """Injects and heals, records both, and notices processes that end by themselves.

    Args:
        menu: What to inject.
        ground: Where.
        recorder: For the history.
        journal: The file of injections, nemesis.jsonl.
        rng: Decides times, and what faults leave to chance.
    """

    def __init__(
        self, menu: Menu, ground: Ground, recorder: Recorder, journal: Path, rng: Random
    ) -> None:
        self._menu = menu
        self._ground = ground
        self._recorder = recorder
        self._journal = journal
        self._rng = rng
        self._open: list[_Open] = []
        self._touched: frozenset[str] = frozenset()
        self._unhealed = False
        self._count = 0
        journal.touch()

    @property
    def current(self) -> list[str]:
        """Names of the faults that are in force."""
        return [one.fault.name for one in self._open]

    async def run(self, limit_s: float, stop: asyncio.Event) -> None:
        """Goes on until the time limit, or until `stop` is set; may leave faults to `heal`."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        first = True
        while not stop.is_set():
            faults = self._menu.next()
            times = plan(faults, self._rng, end_s - loop.time(), first=first)
            if times is None or await _set_within(stop, times.calm_s):
                return
            first = False
            await self._inject(faults)
            if await _set_within(stop, min(times.hold_s, max(0.0, end_s - loop.time()))):
                return
            await self._heal()

    async def heal(self) -> None:
        """Heals what is in force, and once more every fault: they leave a whole cluster."""
        await self._heal()
        for fault in self._menu.faults:
            await self._guard(f"heal {fault.name}", fault.heal(self._ground), HEAL_S_MAX)

    async def watch(self) -> None:
        """Notes servers and agents that end by themselves, and starts them again, until cancelled.

        While faults that end processes are in force nothing can be told, nor after a healing that
        failed.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._touched <= _HARMLESS and not self._unhealed:
                for host in self._gone():
                    self._recorder.note("died", {"host": host.name, "during": self.current})
                    await self._guard(f"start {host.name}", host.start(), INJECT_S_MAX)

    def _gone(self) -> Iterator[Host]:
        yield from (
            host for host in [*self._ground.servers, *self._ground.agents] if host.pid is None
        )

    async def _inject(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._touched |= {family(fault)}
            one = _Open(fault, self._count, self._recorder.note(f"start-{fault.name}").time_ns)
            self._count += 1
            self._open.append(one)
            inject = fault.inject(self._ground, self._rng)
            done, one.error = await self._guard(f"inject {fault.name}", inject, INJECT_S_MAX)
            one.done = done or {}
            one.held_ns = self._recorder.note(f"start-{fault.name}", one.done, one.error).time_ns

    async def _heal(self) -> None:
        """The last injected is healed first."""
        while self._open:
            one = self._open[-1]
            heal_ns = self._recorder.now_ns()
            heal = one.fault.heal(self._ground)
            evidence, error = await self._guard(f"heal {one.fault.name}", heal, HEAL_S_MAX)
            self._unhealed |= error is not None
            self._write(one, heal_ns, evidence or Evidence(acted=False), error)
            self._open.pop()
        self._touched = frozenset()

    def _write(self, one: _Open, heal_ns: int, evidence: Evidence, error: str | None) -> None:
        why = one.error or error
        value = {"acted": evidence.acted, **evidence.facts}
        end_ns = self._recorder.note(f"stop-{one.fault.name}", value, why).time_ns
        injection = Injection(
            number=one.number,
            fault=one.fault.name,
            start_ns=one.start_ns,
            held_ns=one.held_ns,
            heal_ns=heal_ns,
            end_ns=end_ns,
            done=one.done,
            acted=evidence.acted,
            facts=evidence.facts,
            error=why,
        )
        with self._journal.open("ab") as file:
            file.write(msgspec.json.encode(injection) + b"\n")

    async def _guard(self, what: str, work: Any, limit_s: float) -> tuple[Any, str | None]:
        """Awaits a step of a fault; its failure is recorded and ends nothing else."""
        try:
            async with asyncio.timeout(limit_s):
                return await work, None
        except TimeoutError:
            text = f"not done within {limit_s:g} s"
        except Exception as error:  # noqa: BLE001  # recorded; such a fault proves nothing
            text = f"{type(error).__name__}: {error}"[:_ERROR_CHARS_MAX]
        self._recorder.note("broken", {"what": f"nemesis: {what}", "error": text})
        return None, text


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
