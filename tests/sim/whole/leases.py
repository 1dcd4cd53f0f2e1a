"""What the registry promises of leases: who was told that it holds one, holds it for its term.

The term counts from the moment when the renewal was sent, however leaders change meanwhile. Clocks
of servers run up to 3 % too fast, and may end it so much earlier.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jepsen_like.door import Answer
from raftreg.core import commands
from raftreg.core.commands import SessionDestroy, SetLiveness
from tests.sim.scheduler import Violation

#: The least share of a term that is kept.
KEPT_MIN = 0.95
_CREATE, _RENEW = "/v1/session/create", "/v1/session/renew/"


class _Request(msgspec.Struct, rename={"ttl": "TTL"}):
    ttl: str = ""


class _Made(msgspec.Struct, rename={"id": "ID"}):
    id: str


class LeasePromises:
    """Remembers what was promised, and looks at every expiry.

    Attributes:
        expired: Expiries that took effect.
    """

    def __init__(self) -> None:
        self.expired = 0
        self._until: dict[str, float] = {}
        self._ttls_s: dict[str, float] = {}

    def renewed(self, lease: str, sent_at: float, ttl_s: float) -> None:
        """A renewal that was sent at a time has been confirmed."""
        self._until[lease] = max(self._until.get(lease, 0.0), sent_at + ttl_s * KEPT_MIN)

    def answered(self, path: str, body: bytes, sent_at: float, answer: Answer) -> None:
        """A client has got an answer; those about sessions promise something."""
        if answer.status != 200:
            return
        if path == _CREATE:
            session = msgspec.json.decode(answer.body, type=_Made).id
            ttl = msgspec.json.decode(body, type=_Request).ttl
            if ttl.endswith("s"):
                self._ttls_s[session] = float(ttl[:-1])
                self.renewed(session, sent_at, self._ttls_s[session])
        elif path.startswith(_RENEW):
            session = path.removeprefix(_RENEW)
            if session in self._ttls_s:
                self.renewed(session, sent_at, self._ttls_s[session])

    def applied(self, command: bytes, now: float) -> None:
        """A command takes effect.

        Raises:
            Violation: It ends a lease that was promised for longer.
        """
        match self._decoded(command):
            case SessionDestroy(id=lease, expired=True) | SetLiveness(node=lease, alive=False):
                self.expired += 1
                until = self._until.get(lease, 0.0)
                if now < until:
                    raise Violation(
                        f"the lease of {lease} ended {until - now:.3f} s before the time "
                        "for which it was promised"
                    )
            case _:
                return

    def _decoded(self, command: bytes) -> Any:
        try:
            return commands.decode(command)
        except msgspec.DecodeError:
            return None
