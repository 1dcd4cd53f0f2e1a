"""Roots and leaves of the mesh for the services of this host.

The agent makes the key of a leaf and keeps it in memory alone; a server signs. A leaf is renewed
after about two thirds of its life, and at once when another root signs. What can't be renewed now
is served on while it lasts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raftreg.client.api import RegistryClient
from raftreg.client.failures import BadAnswer
from raftreg.client.options import Params
from raftreg.client.retry import Backoff
from raftreg.clock import Clock
from raftreg.core.spiffe import ServiceIdentity
from raftreg.errors import RaftregError
from raftreg.http.connect_shapes import LeafJson, RootsJson
from raftreg.http.watch import Topic, WatchHub

ROOTS_PATH = "/v1/connect/ca/roots"
SIGN_PATH = "/v1/internal/connect/sign"
LEAVES_MAX = 1024  #: services with a leaf at once; those not asked for longest are forgotten
WAITERS_MAX = 10_000
FOLLOW_S = 60.0
RETRY_S = 1.0
DEADLINE_S = 3.0  #: for a server's answer, beside what it may wait
RENEW_AFTER = (0.6, 0.75)  #: share of its life after which a leaf is renewed, drawn from between
BACKOFF = Backoff(first_s=0.1, max_s=5.0)
ROOTS_CHANGED: Topic = ("roots", "")

log = structlog.get_logger(__name__)


class Leaf(msgspec.Struct, frozen=True):
    """A leaf as it is served.

    Attributes:
        json: The answer, its key included.
        root: Id of the root that signed.
        renew_s, ends_s: Seconds since the epoch.
    """

    json: LeafJson
    root: str
    renew_s: float
    ends_s: float

    def __repr__(self) -> str:
        return f"Leaf({self.json['Service']!r}, {self.json['SerialNumber']})"


class Roots(msgspec.Struct, frozen=True):
    """The roots at an index."""

    index: int
    json: RootsJson


class MeshCertificates:
    """Fetches what services of this host need for the mesh.

    Args:
        client: Where servers are.
        datacenter: Part of each identity.
        clock: Source of time.
        rng: Spreads renewals.
    """

    def __init__(self, client: RegistryClient, datacenter: str, clock: Clock, rng: Random) -> None:
        self.hub = WatchHub(WAITERS_MAX)
        self._client = client
        self._datacenter = datacenter
        self._clock = clock
        self._rng = rng
        self._wanted = asyncio.Event()
        self._roots: Roots | None = None
        self._leaves: OrderedDict[str, Leaf] = OrderedDict()
        #: Whose turn it is to have a leaf signed, and how many want one.
        self._signing: dict[str, tuple[asyncio.Lock, int]] = {}
        self._fetching = asyncio.Lock()

    async def run(self) -> None:
        """Follows the roots once somebody has asked for them, until it is cancelled."""
        await self._wanted.wait()
        failures = 0
        while True:
            try:
                await self._fetch_roots(0 if self._roots is None else self._roots.index)
                failures = 0
            except RaftregError as error:
                failures += 1
                if failures == 1:
                    log.info("roots can't be followed", error=error.message)
                await asyncio.sleep(BACKOFF.delay_s(failures, self._rng))

    async def roots(self, index: int = 0, wait_s: float = 0.0) -> Roots:
        """The roots; with an index it waits until there are newer ones.

        Raises:
            RaftregError: They were never seen, and no server can be asked.
        """
        self._wanted.set()
        found = self._roots
        if found is None:
            async with self._fetching:
                found = self._roots or await self._fetch_roots(0)
        until_s = self._clock.monotonic() + wait_s
        while index == found.index and await self.hub.wait(
            [ROOTS_CHANGED], until_s - self._clock.monotonic()
        ):
            found = self._roots or found
        return found

    async def leaf(self, service: str, index: int = 0, wait_s: float = 0.0) -> LeafJson:
        """The leaf of a service; with its index it waits until there is a newer one.

        Raises:
            RaftregError: There is none, and no server can be asked.
        """
        until_s = self._clock.monotonic() + wait_s
        while True:
            leaf = await self._current(service)
            left_s = until_s - self._clock.monotonic()
            if leaf.json["ModifyIndex"] != index or left_s <= 0:
                return leaf.json
            due_s = max(leaf.renew_s - self._clock.wall(), RETRY_S)
            await self.hub.wait([ROOTS_CHANGED], min(left_s, due_s))

    async def _current(self, service: str) -> Leaf:
        """A leaf that need not be renewed, or else the last one while it lasts."""
        roots = await self.roots()
        async with self._turn(service):
            leaf = self._leaves.get(service)
            now_s = self._clock.wall()
            if leaf is not None and not self._is_due(leaf, now_s):
                self._leaves.move_to_end(service)
                return leaf
            try:
                return await self._sign(service, roots, leaf)
            except RaftregError as error:
                if leaf is None or leaf.ends_s <= now_s:
                    raise
                log.warning("leaf not renewed", service=service, error=error.message)
                return leaf

    @asynccontextmanager
    async def _turn(self, service: str) -> AsyncIterator[None]:
        """One at a time for a service; names that get no leaf leave nothing behind."""
        lock, users = self._signing.get(service) or (asyncio.Lock(), 0)
        self._signing[service] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            _, users = self._signing[service]
            if users > 1:
                self._signing[service] = lock, users - 1
            else:
                del self._signing[service]

    def _is_due(self, leaf: Leaf, now_s: float) -> bool:
        active = self._roots.json["ActiveRootID"] if self._roots is not None else leaf.root
        return now_s >= leaf.renew_s or leaf.root != active

    async def _sign(self, service: str, roots: Roots, previous: Leaf | None) -> Leaf:
        identity = ServiceIdentity(roots.json["TrustDomain"], self._datacenter, service)
        key = ec.generate_private_key(ec.SECP256R1())
        csr = request_of(identity, key)
        answer = await self._client.request(
            "PUT", SIGN_PATH, json={"CSR": csr}, deadline_s=DEADLINE_S
        )
        signed: LeafJson = answer.json(LeafJson)
        chain = x509.load_pem_x509_certificates(signed["CertPEM"].encode())
        starts_s = chain[0].not_valid_before_utc.timestamp()
        ends_s = chain[0].not_valid_after_utc.timestamp()
        index = signed["ModifyIndex"]
        if previous is not None:
            index = max(index, previous.json["ModifyIndex"] + 1)
        signed["PrivateKeyPEM"] = _pem(key)
        signed["ModifyIndex"] = index
        leaf = Leaf(
            json=signed,
            root=roots.json["ActiveRootID"],
            renew_s=starts_s + (ends_s - starts_s) * self._rng.uniform(*RENEW_AFTER),
            ends_s=ends_s,
        )
        self._leaves[service] = leaf
        self._leaves.move_to_end(service)
        while len(self._leaves) > LEAVES_MAX:
            self._leaves.popitem(last=False)
        return leaf

    async def _fetch_roots(self, index: int) -> Roots:
        wait_s = FOLLOW_S if index else 0.0
        params: Params = {"index": index, "wait": f"{FOLLOW_S:g}s"} if index else {}
        answer = await self._client.request(
            "GET",
            ROOTS_PATH,
            params=params,
            wait_s=wait_s,
            deadline_s=DEADLINE_S + wait_s * 17 / 16,
        )
        found = Roots(answer.index, answer.json(RootsJson))
        if not found.index:
            raise BadAnswer(f"{answer.address}: roots without an index")
        if found != self._roots:
            self._roots = found
            self.hub.publish([ROOTS_CHANGED])
        return found


def request_of(identity: ServiceIdentity, key: ec.EllipticCurvePrivateKey) -> str:
    """A request for a certificate of this identity (PKCS 10, PEM)."""
    name = x509.UniformResourceIdentifier(identity.uri)
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
