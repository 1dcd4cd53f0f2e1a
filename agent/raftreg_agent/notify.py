"""Tells systemd how the process stands (sd_notify(3)): one datagram to the socket it names."""

from __future__ import annotations

import contextlib
import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"
RELOADING = "RELOADING=1"


def sd_notify(state: str, address: str | None = None) -> bool:
    """Sends a state; False when nobody listens.

    Args:
        state: One of the words above.
        address: Socket to send to; None takes `NOTIFY_SOCKET`, "@" begins an abstract one.
    """
    target = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not target:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + target[1:] if target[0] == "@" else target)
        return True
    return False
