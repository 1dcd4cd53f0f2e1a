"""Who holds a semaphore: the value of its key, and what may follow it (pure).

The layout is that of Consul's semaphores (`api/semaphore.go`, "Semaphore" guide, `consul lock -n`):
each contender locks a key of its own, PREFIX/SESSION; the key PREFIX/.lock holds the limit and the
sessions of the holders, and is only changed by check-and-set. A holder whose own key is no longer
locked by it is dead, and makes room.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated

import msgspec

from raftreg.errors import Conflict

HOLDERS_MAX = 10_000


class Permits(msgspec.Struct, frozen=True):
    """The holders of a semaphore.

    Attributes:
        limit: How many there may be.
        holders: Their sessions.
    """

    limit: int
    holders: frozenset[str] = frozenset()

    def living(self, contenders: Set[str]) -> Permits:
        """Without the holders that are no longer contenders."""
        return Permits(self.limit, self.holders & contenders)

    def taken_by(self, session: str) -> Permits | None:
        """With one holder more; None when there is no room."""
        if session in self.holders:
            return self
        if len(self.holders) >= self.limit:
            return None
        return Permits(self.limit, self.holders | {session})

    def given_back_by(self, session: str) -> Permits:
        """With one holder less."""
        return Permits(self.limit, self.holders - {session})


class _Wire(msgspec.Struct, frozen=True, rename="pascal"):
    limit: Annotated[int, msgspec.Meta(ge=1)]
    holders: Annotated[dict[str, bool], msgspec.Meta(max_length=HOLDERS_MAX)] | None = None


def encode(permits: Permits) -> bytes:
    """The value of the key; the same permits give the same bytes."""
    holders = dict.fromkeys(sorted(permits.holders), True)
    return msgspec.json.encode(_Wire(permits.limit, holders))


def decode(value: bytes) -> Permits:
    """Reads the value of the key.

    Raises:
        Conflict: It is none of a semaphore.
    """
    try:
        found = msgspec.json.decode(value, type=_Wire)
    except msgspec.MsgspecError as error:
        raise Conflict(f"the key holds no semaphore: {error}") from error
    holders = frozenset(session for session, held in (found.holders or {}).items() if held)
    return Permits(found.limit, holders)
