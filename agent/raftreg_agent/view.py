"""The agent's view of the catalog: a copy kept by one stream, which outlives the servers.

The stream is resumed by index and epoch after a break, at another server when one fails or falls
silent. While no server can be reached the last content stays, and its age is known.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import msgspec
import structlog

from raftreg.client.api import ANY_STATUS, RegistryClient
from raftreg.client.failures import BadAnswer
from raftreg.client.options import Params
from raftreg.client.retry import Backoff
from raftreg.client.stream import Stream
from raftreg.clock import Clock
from raftreg.core.catalog import Catalog
from raftreg.core.changes import ALL
from raftreg.core.delta import decode_deltas
from raftreg.decoding import MsgpackDecoder
from raftreg.errors import ConnectionLost, RaftregError
from raftreg.http.watch import WatchHub

VIEW_PATH = "/v1/internal/view"
PROBE_PATH = "/v1/kv/raftreg-probe"
SILENCE_S = 3.0
OPEN_DEADLINE_S = 5.0
LAG_MAX_MS = 3000
PROBE_EVERY_S = 10.0
#: How long servers that are behind this view are passed over before the registry is taken to
#: have been set back (a restore).
BEHIND_MAX_S = 10.0
BACKOFF = Backoff(first_s=0.05, max_s=1.0)

log = structlog.get_logger(__name__)


class Frame(msgspec.Struct):
    """One frame of the feed; which fields count depends on `kind`."""

    kind: str
    index: int = 0
    epoch: str = ""
    deltas: msgspec.Raw = msgspec.Raw(b"\x90")
    leader: bool = False
    last_contact_ms: int | None = None


_frames = MsgpackDecoder[Frame](Frame)


class CatalogView:
    """A catalog that follows the registry.

    Args:
        client: Where servers are.
        clock: Source of time.
        rng: Source of jitter.
        hub: Wakes blocking queries over the view; None makes one.
    """

    def __init__(
        self, client: RegistryClient, clock: Clock, rng: Random, hub: WatchHub | None = None
    ) -> None:
        self.catalog = Catalog()
        self.hub = hub or WatchHub()
        self.ready = asyncio.Event()
        self.address = ""
        self.resets_total = 0
        self._client = client
        self._clock = clock
        self._rng = rng
        self._epoch = ""
        self._building: Catalog | None = None
        self._building_epoch = ""
        self._fresh_at_s: float | None = None
        self._behind_since_s: float | None = None
        self._probed_at_s = float("-inf")
        self._leader_known = False

    @property
    def epoch(self) -> str:
        """Names the history that the view's indexes belong to; "" before the first content."""
        return self._epoch

    @property
    def age_s(self) -> float | None:
        """Seconds since the view was known to be up to date; None before the first content."""
        if self._fresh_at_s is None:
            return None
        return max(0.0, self._clock.monotonic() - self._fresh_at_s)

    @property
    def leader_known(self) -> bool:
        """What the server that feeds the view said last, while it can be reached."""
        age_s = self.age_s
        return self._leader_known and age_s is not None and age_s < SILENCE_S

    async def run(self) -> None:
        """Follows the registry until it is cancelled."""
        failures = 0
        while True:
            try:
                await self._follow()
            except RaftregError as error:
                failures = 0 if self.address else failures + 1
                if self.address or failures == 1:
                    log.info("view cut off", server=self.address, error=error.message)
                self.address = ""
                self._building = None
            await asyncio.sleep(BACKOFF.delay_s(failures, self._rng))

    async def _follow(self) -> None:
        params: Params = {}
        if self._epoch:
            params = {"index": self.catalog.index, "epoch": self._epoch}
        async with self._client.stream(
            VIEW_PATH, params=params, silence_s=SILENCE_S, deadline_s=OPEN_DEADLINE_S
        ) as stream:
            async for data in stream.frames():
                try:
                    frame = _frames.decode(data)
                    self._take(frame, stream.address)
                except msgspec.DecodeError as error:
                    raise BadAnswer(
                        f"{stream.address}: a bad frame of the view: {error}"
                    ) from error
                if frame.kind == "beat":
                    await self._leave_if_lagging(frame, stream)
            raise ConnectionLost(f"{stream.address}: the view feed ended")

    def _take(self, frame: Frame, address: str) -> None:
        match frame.kind:
            case "reset":
                self._refuse_older(frame, address)
                self._building = Catalog(index_floor=frame.index)
                self._building_epoch = frame.epoch
            case "resume":
                self.address = address
                self._behind_since_s = None
            case "deltas":
                self._take_deltas(frame)
            case "beat":
                self._take_beat(frame, address)
            case _:
                log.debug("frame of a later version ignored", kind=frame.kind)

    def _take_deltas(self, frame: Frame) -> None:
        catalog = self._building or self.catalog
        topics = [
            topic for delta in decode_deltas(frame.deltas) for topic in catalog.apply_delta(delta)
        ]
        catalog.index = max(catalog.index, frame.index)
        if catalog is self.catalog:
            self.hub.publish(dict.fromkeys(topics))

    def _take_beat(self, frame: Frame, address: str) -> None:
        """A beat follows all that was sent before it: a content that was begun is whole now."""
        if self._building is not None:
            self.catalog, self._building = self._building, None
            self._epoch = self._building_epoch
            self._behind_since_s = None
            self.resets_total += 1
            self.hub.publish([ALL])
        self.address = address
        self.catalog.index = max(self.catalog.index, frame.index)
        self._leader_known = frame.last_contact_ms is not None
        if frame.last_contact_ms is not None:
            self._fresh_at_s = self._clock.monotonic() - frame.last_contact_ms / 1000
        elif self._fresh_at_s is None:
            self._fresh_at_s = self._clock.monotonic()
        self.ready.set()

    def _refuse_older(self, frame: Frame, address: str) -> None:
        """Passes over a server that is behind what this view has shown already (wish 8)."""
        if self._epoch and not frame.epoch:
            # It has not read its log yet, so it can't even name the history that it belongs to.
            raise ConnectionLost(f"{address}: it has only begun to restore its state")
        if frame.index >= self.catalog.index:
            return
        now_s = self._clock.monotonic()
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        if now_s - self._behind_since_s < BEHIND_MAX_S:
            raise ConnectionLost(f"{address}: index {frame.index} is behind {self.catalog.index}")
        log.warning("the registry was set back", index=frame.index, before=self.catalog.index)

    async def _leave_if_lagging(self, frame: Frame, stream: Stream) -> None:
        """Moves when this server has lost the leader and another one has not."""
        lag_ms = _lag_ms(frame.last_contact_ms)
        now_s = self._clock.monotonic()
        if lag_ms <= LAG_MAX_MS or now_s - self._probed_at_s < PROBE_EVERY_S:
            return
        self._probed_at_s = now_s
        self._client.distrust(stream.address)
        try:
            answer = await self._client.request(
                "GET", PROBE_PATH, params={"stale": ""}, accept=ANY_STATUS, deadline_s=1.0
            )
        except RaftregError:
            return
        other = _contact_ms(answer.headers)
        if answer.address != stream.address and other is not None and other < lag_ms:
            raise ConnectionLost(f"{stream.address}: it has not heard of a leader for {lag_ms} ms")


def _lag_ms(last_contact_ms: int | None) -> int:
    return 1 << 31 if last_contact_ms is None else last_contact_ms


def _contact_ms(headers: Any) -> int | None:
    """`X-Consul-LastContact` of a server that knows a leader."""
    text = headers.get("X-Consul-LastContact", "")
    if headers.get("X-Consul-KnownLeader") != "true" or not text.isdecimal():
        return None
    return int(text[:12])
