"""The nouns of the transport: addresses, limits, and what is known of a peer."""

from __future__ import annotations

from typing import Any

import msgspec

from raftreg.errors import ConfigurationError
from raftreg.raft.wire import FRAME_BYTES_MAX, HANDSHAKE_FRAME_BYTES_MAX


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int) -> Address:
        """Reads ``host``, ``host:port``, ``[ipv6]``, ``[ipv6]:port`` or a bare IPv6 address.

        Raises:
            ConfigurationError: no host, or a port that is not 0 to 65535.
        """
        host, port_text = _split_address(text.strip())
        if not host or any(char in host for char in "/[] \t"):
            raise ConfigurationError(f"address {text!r} has no valid host")
        if port_text is None:
            return cls(host, default_port)
        # isdecimal alone lets other scripts' digits pass.
        if not (port_text.isascii() and port_text.isdecimal() and int(port_text[:6]) <= 65535):
            raise ConfigurationError(f"address {text!r} has port {port_text!r}, not 0 to 65535")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _split_address(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, port


class TransportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the transport. Times in seconds.

    Attributes:
        frame_bytes_max: payload of an accepted peer.
        handshake_frame_bytes_max: payload of a connection that has proved nothing.
        hello_bytes_max: payload between authentication and the accepted hello.
        outbound_bytes_max: waiting to be sent to one peer; more is dropped.
        reply_bytes_max: waiting on a connection that the peer dialled, which carries hellos and
            pongs alone; a peer that does not read them is cut off.
        ping_s: between two signs of life on a connection.
        silence_s_max: without a byte from the peer before the connection is given up.
        connect_s_max: for TCP to connect.
        handshake_s_max: from connected to the accepted hello.
        backoff_s_min: before the first repetition of a failed dial; doubled each time.
        backoff_s_max: the most that it grows to.
        unauthenticated_max: inbound connections without an accepted hello; when there are more,
            the oldest is cut off.
        inbound_max: inbound connections of all kinds; more are refused.
        log_interval_s: between two log lines on the same trouble with the same address.
    """

    frame_bytes_max: int = FRAME_BYTES_MAX
    handshake_frame_bytes_max: int = HANDSHAKE_FRAME_BYTES_MAX
    hello_bytes_max: int = 64 * 1024
    outbound_bytes_max: int = 64 * 1024 * 1024
    reply_bytes_max: int = 1024 * 1024
    ping_s: float = 1.0
    silence_s_max: float = 5.0
    connect_s_max: float = 2.0
    handshake_s_max: float = 3.0
    backoff_s_min: float = 0.05
    backoff_s_max: float = 1.0
    unauthenticated_max: int = 64
    inbound_max: int = 256
    log_interval_s: float = 60.0


class PeerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a peer.

    Attributes:
        address: where it is dialled, or else what it advertises.
        hello: what it said of itself last; None before the first connection.
        connected: messages can be sent to it.
        inbound: it has a connection to this server.
    """

    address: Address
    hello: dict[str, Any] | None
    connected: bool
    inbound: bool
