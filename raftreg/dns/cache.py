"""Hot answers as packets, for one revision of the view.

A question is kept in several shuffled variants, so that callers still see the instances in random
order; every variant serves a bounded number of times, so that an answer which names only some of
the instances does not send all the load to those.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random

from raftreg.core.catalog import Catalog

QUESTIONS_MAX = 2_048
QUERY_BYTES_MAX = 512
PACKET_BYTES_MAX = 4_096
VARIANTS = 8
USES_MAX = 16
_ID_BYTES = 2


class _Variants:
    __slots__ = ("packets", "uses")

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.uses: list[int] = []


class PacketCache:
    """Answers by the bytes of their query (all but its id) and its transport.

    Args:
        rng: Chooses among the variants.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._view: Catalog | None = None
        self._index = 0
        self._answers: OrderedDict[tuple[str, bytes], _Variants] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, query: bytes, view: Catalog, transport: str) -> bytes | None:
        """Gives a packet with the query's id, None when a fresh one should be made."""
        if view is not self._view or view.index != self._index:
            self._answers.clear()
            self._view, self._index = view, view.index
            return None
        key = (transport, query[_ID_BYTES:])
        variants = self._answers.get(key)
        if variants is None or len(variants.packets) < VARIANTS:
            return None
        self._answers.move_to_end(key)
        chosen = self._rng.randrange(VARIANTS)
        variants.uses[chosen] += 1
        packet = variants.packets[chosen]
        if variants.uses[chosen] >= USES_MAX:
            del variants.packets[chosen], variants.uses[chosen]
        return query[:_ID_BYTES] + packet[_ID_BYTES:]

    def put(self, query: bytes, view: Catalog, transport: str, packet: bytes) -> None:
        """Keeps a fresh answer as one more variant."""
        if len(query) > QUERY_BYTES_MAX or len(packet) > PACKET_BYTES_MAX:
            return
        if view is not self._view or view.index != self._index:
            return
        variants = self._answers.setdefault((transport, query[_ID_BYTES:]), _Variants())
        if len(variants.packets) < VARIANTS:
            variants.packets.append(packet)
            variants.uses.append(0)
        if len(self._answers) > QUESTIONS_MAX:
            self._answers.popitem(last=False)
