"""Counts what goes wrong between servers, and logs it without noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from raftreg.errors import RaftregError
from raftreg.raft.listener import Crowded
from raftreg.raft.security import AuthenticationFailed, HandshakeTimeout
from raftreg.raft.wire import OversizeFrame, WireError

log = structlog.get_logger(__name__)

_LOGGED_MAX: Final = 512


class Refused(RaftregError):
    """The peer proved itself, and this server does not want it all the same."""

    code = "peer_refused"
    http_status = 403


#: Counter of each error that ends a connection; the first that fits. Others are only logged.
_COUNTED: Final[tuple[tuple[type[RaftregError], str], ...]] = (
    (OversizeFrame, "oversize_frames"),
    (WireError, "garbage"),
    (AuthenticationFailed, "auth_failures"),
    (HandshakeTimeout, "handshake_timeouts"),
    (Refused, "refused_peers"),
    (Crowded, "crowded"),
)


class TroubleLog:
    """Counters, and one log line for each kind of trouble with an address in an interval.

    Args:
        interval_s: between two lines on the same trouble with the same address, in seconds.
        clock: seconds, monotonic.

    Attributes:
        counters: events since the start, by name.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self.counters = dict.fromkeys(
            ["dropped_sends", "reconnects", "callback_faults", *(name for _, name in _COUNTED)], 0
        )
        self._interval_s = interval_s
        self._clock = clock
        self._logged_at_s: dict[tuple[str, str], float] = {}

    def note(self, remote: str, error: RaftregError) -> None:
        """Counts an error that ended a connection, and logs it if `remote` is not empty."""
        for kind, counter in _COUNTED:
            if isinstance(error, kind):
                self.counters[counter] += 1
                break
        if remote and self._may_log(error.code, remote):
            log.warning(
                "peer_connection_failed", address=remote, code=error.code, reason=str(error)
            )

    def _may_log(self, code: str, remote: str) -> bool:
        now_s = self._clock()
        last_s = self._logged_at_s.get((code, remote))
        if last_s is not None and now_s - last_s < self._interval_s:
            return False
        self._logged_at_s.pop((code, remote), None)
        if len(self._logged_at_s) >= _LOGGED_MAX:
            # Dicts keep the order of insertion: this is the oldest.
            del self._logged_at_s[next(iter(self._logged_at_s))]
        self._logged_at_s[code, remote] = now_s
        return True
