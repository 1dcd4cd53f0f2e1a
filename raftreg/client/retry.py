"""Waits between attempts, and the order in which servers are asked. Pure: time and chance come in.

The backoff is exponential with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015): a crowd of clients that lost the same leader does not return in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from urllib.parse import urlsplit

import msgspec

from raftreg.errors import ConfigurationError

DEFAULT_PORT = 8500
ADDRESSES_MAX = 64


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before the next round over all servers.

    Attributes:
        first_s: Upper bound of the first wait, in seconds.
        max_s: Upper bound of any wait, in seconds.
        factor: Growth of the bound from one wait to the next.
    """

    first_s: float = 0.05
    max_s: float = 1.0
    factor: float = 2.0

    def delay_s(self, round_number: int, rng: Random) -> float:
        """Gives the wait after a failed round.

        Args:
            round_number: 0 for the first failed round.
            rng: Source of the jitter.
        """
        # The exponent is bounded: a watch may be at it for days.
        bound = min(self.max_s, self.first_s * self.factor ** min(round_number, 30))
        return rng.uniform(bound / 10, bound)


def base_url(address: str, *, tls: bool = False) -> str:
    """Gives the URL of "host", "host:port", "[::1]:port", "http://…" or "https://…".

    Raises:
        ConfigurationError: It is none of these.
    """
    text = address.strip()
    if "://" not in text:
        text = f"{'https' if tls else 'http'}://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"address {address!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in text):
        raise ConfigurationError(f"address {address!r} is not host:port or http(s)://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ConfigurationError(f"address {address!r} holds more than scheme, host and port")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{DEFAULT_PORT if port is None else port}"


class AddressPool:
    """The servers of a client: the last good one first, those that just failed last.

    Among those, silent ones come after the ones that refused: a refusal costs nothing, and who
    refused one request (there is no leader) may well answer another (a stale read), while a server
    behind a partition would use up the caller's time.

    Args:
        addresses: Where servers (or agents) listen, see `base_url`.
        rng: Spreads clients over servers.
        tls: Scheme for addresses without one.
        cooldown_s: Seconds for which an address that failed is asked only after the others.

    Raises:
        ConfigurationError: No address, too many, or one that can't be read.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        rng: Random,
        *,
        tls: bool = False,
        cooldown_s: float = 5.0,
    ) -> None:
        if isinstance(addresses, str):
            raise ConfigurationError("addresses is a list of texts, not one text")
        urls = list(dict.fromkeys(base_url(address, tls=tls) for address in addresses))
        if not 1 <= len(urls) <= ADDRESSES_MAX:
            raise ConfigurationError(f"a client takes 1 to {ADDRESSES_MAX} server addresses")
        rng.shuffle(urls)
        self._urls = urls
        self._cooldown_s = cooldown_s
        self._failed_at: dict[str, float] = {}
        self._silent: set[str] = set()
        self._good: str | None = None

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def last_good(self) -> str | None:
        """URL of the server that answered last, None when none did or it failed since."""
        return self._good

    def add(self, address: str, *, tls: bool = False) -> None:
        """Adds a server; one that is known already is fine.

        Raises:
            ConfigurationError: The address can't be read, or there are too many.
        """
        url = base_url(address, tls=tls)
        if url in self._urls:
            return
        if len(self._urls) >= ADDRESSES_MAX:
            raise ConfigurationError(f"a client takes 1 to {ADDRESSES_MAX} server addresses")
        self._urls.append(url)

    def order(self, now: float) -> list[str]:
        """Gives all URLs in the order to try them.

        Args:
            now: Monotonic time in seconds.
        """
        return sorted(self._urls, key=lambda url: self._rank(url, now))

    def _rank(self, url: str, now: float) -> tuple[int, float]:
        if url == self._good:
            return (0, 0.0)
        failed_at = self._failed_at.get(url)
        if failed_at is None or now - failed_at >= self._cooldown_s:
            return (1, 0.0)
        return (3 if url in self._silent else 2, failed_at)

    def succeeded(self, url: str) -> None:
        """Remembers that this server answered."""
        self._good = url
        self._failed_at.pop(url, None)
        self._silent.discard(url)

    def failed(self, url: str, now: float, *, silent: bool = False) -> None:
        """Remembers that this server did not do what was asked.

        Args:
            url: The server.
            now: Monotonic time in seconds.
            silent: It did not answer in time.
        """
        self._failed_at[url] = now
        (self._silent.add if silent else self._silent.discard)(url)
        if self._good == url:
            self._good = None
