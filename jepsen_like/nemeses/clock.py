"""Faults of wall clocks. Nothing that raftreg decides may depend on them; its log lines do.

The proof is the `Date` header of the server's own answers, held against the true time.
"""

from __future__ import annotations

import asyncio
import email.utils
from abc import abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Final

import aiohttp

from jepsen_like.ground.api import ClockControl, Ground, Host, Need
from jepsen_like.ground.hosts import HTTP_PORT
from jepsen_like.nemeses import operators
from jepsen_like.nemeses.base import Evidence, Fault
from raftreg.clock import SystemClock

_DAY_S: Final = 86_400.0
_ASK_S: Final = 1.0
_POLL_S: Final = 0.02
#: A clock at half speed shows a new second after two.
_TICK_S_MAX: Final = 4.0
#: Of what was measured, by polls and a busy machine.
_TOLERANCE_S: Final = 0.5
_SAMPLES: Final = 30


def clock_of(host: Host) -> ClockControl:
    """The control of a host's clock.

    Raises:
        RuntimeError: The run was built without clocks.
    """
    if host.clock is None:
        raise RuntimeError(f"{host.name} has no clock that could be moved: built without")
    return host.clock


class Watchmaker:
    """Reads the wall clocks of servers from the `Date` of their answers."""

    def __init__(self) -> None:
        self._clock = SystemClock()

    async def date_s(self, session: aiohttp.ClientSession, host: Host) -> float | None:
        """Seconds since the epoch by the host's clock, whole; None without an answer."""
        url = f"http://{host.address}:{HTTP_PORT}/v1/status/peers?stale"
        try:
            async with session.get(url) as response:
                date = response.headers.get("Date", "")
            return email.utils.parsedate_to_datetime(date).timestamp()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def offset_s(self, host: Host) -> float | None:
        """How far the host's clock is ahead of the true one, to about 0.1 s.

        Asks until the second changes.
        """
        first = None
        async with _session() as session:
            end_s = self._clock.monotonic() + _TICK_S_MAX
            while self._clock.monotonic() < end_s:
                date_s = await self.date_s(session, host)
                if date_s is not None and first is not None and date_s != first:
                    return date_s - self._clock.wall()
                first = date_s if first is None else first
                await asyncio.sleep(_POLL_S)
        return None

    async def seen(self, host: Host) -> list[float]:
        """Offsets in some answers, each to a second, sorted."""
        found = set()
        async with _session() as session:
            for _ in range(_SAMPLES):
                date_s = await self.date_s(session, host)
                if date_s is not None:
                    found.add(round(date_s - self._clock.wall()))
                await asyncio.sleep(_POLL_S)
        return sorted(found)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S))


class _Moved(Fault):
    """Clocks of some servers, maybe of all, are wrong."""

    needs = frozenset({Need.CLOCK})

    def __init__(self) -> None:
        self._moved: dict[str, dict[str, Any]] = {}
        self._watchmaker = Watchmaker()

    @abstractmethod
    async def _move(self, host: Host, rng: Random) -> dict[str, Any]:
        """Moves the clock of one; gives how, and what was measured."""

    @abstractmethod
    async def _proof(self, host: Host, how: dict[str, Any]) -> dict[str, Any]:
        """Measures before it is healed; "proved" tells whether it was as it should be."""

    async def inject(self, ground: Ground, rng: Random) -> dict[str, Any]:
        """See `Fault.inject`."""
        hosts = operators.running(ground.servers)
        chosen = rng.sample(hosts, rng.randint(min(1, len(hosts)), len(hosts)))
        for host in sorted(chosen, key=lambda host: host.name):
            self._moved[host.name] = {}
            self._moved[host.name] = await self._move(host, rng)
        return dict(self._moved)

    async def heal(self, ground: Ground) -> Evidence:
        """See `Fault.heal`."""
        moved, self._moved = self._moved, {}
        hosts = [ground.host(name) for name in moved if ground.host(name).pid is not None]
        proofs = await asyncio.gather(*(self._proof(host, moved[host.name]) for host in hosts))
        await self._mend(ground.servers)
        facts = {host.name: proof for host, proof in zip(hosts, proofs, strict=True)}
        return Evidence(acted=any(proof["proved"] for proof in proofs), facts=facts)

    async def _mend(self, servers: Sequence[Host]) -> None:
        for host in servers:
            if host.clock is not None:
                await host.clock.set()


class ClockJump(_Moved):
    """Jumps of a minute up to ten days, forward or back."""

    name = "clock-jump"

    async def _move(self, host: Host, rng: Random) -> dict[str, Any]:
        offset_s = round(60.0 * (10 * _DAY_S / 60.0) ** rng.random(), 3) * rng.choice((-1, 1))
        await clock_of(host).set(offset_s=offset_s)
        return {"offset_s": offset_s}

    async def _proof(self, host: Host, how: dict[str, Any]) -> dict[str, Any]:
        measured_s = await self._watchmaker.offset_s(host)
        wanted_s = how.get("offset_s", 0.0)
        near = measured_s is not None and abs(measured_s - wanted_s) <= _TOLERANCE_S
        return {**how, "measured_s": measured_s, "proved": bool(wanted_s) and near}


class ClockSkew(_Moved):
    """Clocks run at half to two thirds, or at one and a half to two times their speed."""

    name = "clock-skew"
    hold_s: ClassVar[tuple[float, float]] = (4.0, 8.0)

    async def _move(self, host: Host, rng: Random) -> dict[str, Any]:
        rate = rng.choice((rng.uniform(0.5, 0.67), rng.uniform(1.5, 2.0)))
        before_s = await self._watchmaker.offset_s(host)
        await clock_of(host).set(rate=rate)
        return {"rate": round(rate, 3), "before_s": before_s}

    async def _proof(self, host: Host, how: dict[str, Any]) -> dict[str, Any]:
        after_s, before_s = await self._watchmaker.offset_s(host), how.get("before_s")
        if after_s is None or before_s is None:
            return {**how, "after_s": after_s, "proved": False}
        drift_s = after_s - before_s
        right_way = (drift_s > 0) == (how["rate"] > 1)
        proved = right_way and abs(drift_s) > _TOLERANCE_S
        return {**how, "after_s": after_s, "drift_s": round(drift_s, 3), "proved": proved}


class ClockStrobe(_Moved):
    """Clocks jump away and back, up to fifty times a second."""

    name = "clock-strobe"

    async def _move(self, host: Host, rng: Random) -> dict[str, Any]:
        how = {
            "offset_s": float(rng.choice((-1, 1)) * rng.randint(10, 3600)),
            "period_s": round(rng.uniform(0.02, 0.5), 3),
        }
        await clock_of(host).strobe(**how)
        return how

    async def _proof(self, host: Host, how: dict[str, Any]) -> dict[str, Any]:
        seen = await self._watchmaker.seen(host)
        # Two clocks, and nothing else: both the true one and the other must show up.
        wanted = (0.0, how.get("offset_s", 0.0))
        proved = len(how) > 0 and all(any(abs(s - w) <= 2 for s in seen) for w in wanted)
        return {**how, "seen_s": seen, "proved": proved}


FAULTS: tuple[type[Fault], ...] = (ClockJump, ClockSkew, ClockStrobe)
