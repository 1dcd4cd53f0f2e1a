"""/v1/connect/ca: https://developer.hashicorp.com/consul/api-docs/connect/ca; leaves for agents."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from aiohttp import web
from msgspec import Meta as Limits

from raftreg.core import query
from raftreg.core.connect_ca import Authority, Root
from raftreg.core.durations import format_duration, parse_duration
from raftreg.core.entries.common import Duration
from raftreg.errors import InvalidRequest
from raftreg.http import json
from raftreg.http.config_body import typed
from raftreg.http.connect_shapes import LeafJson, RootJson, RootsJson
from raftreg.http.discovery import query_of
from raftreg.http.json import dumps
from raftreg.http.operation import DATACENTER, Param, Raw, operation
from raftreg.http.params import Consistency, parse_bool
from raftreg.http.problems import check_datacenter
from raftreg.http.reply import TEXT, Reply
from raftreg.server.api.context import Context
from raftreg.server.api.reading import Reading
from raftreg.server.authority import AuthorityDesk
from raftreg.server.certificates import PEM_BYTES_MAX, given_root, new_root
from raftreg.server.writes import read_body

CSR_BYTES_MAX = 16 * 1024
LEAF_TTL_MIN_S = 60.0
LEAF_TTL_MAX_S = 366 * 24 * 3600.0
ROOT_TTL_MIN_S = 3600.0
ROOT_TTL_MAX_S = 100 * 366 * 24 * 3600.0
_PEM = Raw("application/pem-certificate-chain")
_Pem = Annotated[str, Limits(max_length=PEM_BYTES_MAX)]


class AuthoritySettings(TypedDict, total=False):
    """Settings of the built-in authority; names that count for nothing here are taken and left."""

    LeafCertTTL: Duration
    RootCertTTL: Duration
    IntermediateCertTTL: Duration
    PrivateKey: _Pem
    RootCert: _Pem
    PrivateKeyType: Literal["", "ec"]
    PrivateKeyBits: Literal[0, 256, 384]
    RotationPeriod: Duration
    CSRMaxPerSecond: float
    CSRMaxConcurrent: int


class AuthorityBody(TypedDict, total=False):
    """Settings of the authority. `Rotate` is ours: a new root with a new key."""

    Provider: Literal["", "consul"]
    Config: AuthoritySettings
    State: dict[str, Any] | None
    ForceWithoutCrossSigning: bool
    Rotate: bool
    CreateIndex: int
    ModifyIndex: int


class AuthorityShown(TypedDict):
    """Settings of the authority; keys are not among them."""

    LeafCertTTL: str
    RootCertTTL: str
    PrivateKeyType: str
    PrivateKeyBits: int


class AuthorityJson(TypedDict):
    """The authority's provider and its settings."""

    Provider: str
    Config: AuthorityShown
    State: NotRequired[dict[str, str] | None]
    ForceWithoutCrossSigning: bool
    CreateIndex: int
    ModifyIndex: int


class ConnectAuthority:
    """The endpoints of the certificate authority.

    Args:
        context: The collaborators.
        desk: Signs and rotates.
    """

    def __init__(self, context: Context, desk: AuthorityDesk) -> None:
        self._context = context
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.get("/v1/connect/ca/roots", self.roots),
            web.get("/v1/connect/ca/configuration", self.configuration),
            web.put("/v1/connect/ca/configuration", self.configure),
            web.put("/v1/internal/connect/sign", self.sign),
        ]

    @operation(
        "Lists the root certificates that are trusted",
        tag="connect",
        reads=True,
        query=(Param("pem", "`true` or nothing: the certificates alone, as PEM", bool),),
        answer=(RootsJson, _PEM),
    )
    async def roots(self, request: web.Request) -> Reply:
        """Roots; the first question founds the authority."""
        reading = Reading(self._context, request)
        if reading.options.consistency is not Consistency.STALE:
            await self._desk.ensure()
        found = await reading.find(query.topics_authority(), query.authority)
        pem = query_of(request).get("pem")
        if pem is not None and (not pem or parse_bool(pem, "pem")):
            body = "".join(root.certificate for root in found.value.roots).encode()
            return Reply(body, kind=_PEM.media.encode(), head=reading.head(found.index))
        return reading.reply(found.index, roots_json(found.value))

    @operation(
        "Reads the settings of the authority", tag="connect", reads=True, answer=AuthorityJson
    )
    async def configuration(self, request: web.Request) -> Reply:
        """Settings, without keys."""
        reading = Reading(self._context, request)
        if reading.options.consistency is not Consistency.STALE:
            await self._desk.ensure()
        found = await reading.find(query.topics_authority(), query.authority)
        return reading.reply(found.index, authority_json(found.value))

    @operation(
        "Changes the settings of the authority",
        tag="connect",
        about="A root with its key, another size of key, or `Rotate` change the active root; those "
        "before stay trusted until what they signed has run out.",
        query=(DATACENTER,),
        body=AuthorityBody,
        also={409: "the root was changed by somebody else at the same time"},
    )
    async def configure(self, request: web.Request) -> Reply:
        """Changes settings, and rotates the root if they ask for it."""
        given = query_of(request)
        check_datacenter(given.get("dc", ""), self._context.settings.datacenter)
        data = await read_body(request, self._context.settings.http.body_bytes_max)
        body = typed(AuthorityBody, json.loads(data))
        settings = body.get("Config", {})
        leaf_ttl_s = _ttl(settings, "LeafCertTTL", LEAF_TTL_MIN_S, LEAF_TTL_MAX_S)
        root_ttl_s = _ttl(settings, "RootCertTTL", ROOT_TTL_MIN_S, ROOT_TTL_MAX_S)
        if bool(settings.get("PrivateKey")) != bool(settings.get("RootCert")):
            raise InvalidRequest("PrivateKey and RootCert belong together")
        rotate = body.get("Rotate", False)

        def following(active: Root) -> Root | None:
            return self._following(active, settings, root_ttl_s, rotate=rotate)

        await self._desk.change(following, leaf_ttl_s=leaf_ttl_s, root_ttl_s=root_ttl_s)
        return Reply(b"", kind=TEXT)

    def _following(
        self, active: Root, settings: dict[str, Any], root_ttl_s: float, *, rotate: bool
    ) -> Root | None:
        """The next root that the settings ask for."""
        if settings.get("RootCert"):
            root = given_root(settings["RootCert"], settings["PrivateKey"], previous=active)
            if root.not_after <= self._context.clock.wall():
                raise InvalidRequest(f"RootCert ended at {iso(root.not_after)}")
            return None if root.id == active.id else root
        bits = settings.get("PrivateKeyBits") or active.key_bits
        if bits == active.key_bits and not rotate:
            return None
        authority = self._desk.state
        return new_root(
            authority.cluster_id,
            now_s=self._context.clock.wall(),
            ttl_s=root_ttl_s or authority.root_ttl_s,
            bits=bits,
            previous=active,
        )

    async def sign(self, request: web.Request) -> Reply:
        """Signs a service's certificate for an agent, who has made the key."""
        data = await read_body(request, CSR_BYTES_MAX, "CSR")
        body = json.loads(data)
        csr = body.get("CSR") if isinstance(body, dict) else None
        if not isinstance(csr, str):
            raise InvalidRequest("CSR must be set")
        leaf = await self._desk.sign(csr)
        index = self._context.machine.state.index
        out = LeafJson(
            SerialNumber=leaf.serial,
            CertPEM=leaf.certificate,
            Service=leaf.identity.service,
            ServiceURI=leaf.identity.uri,
            ValidAfter=iso(leaf.valid_after),
            ValidBefore=iso(leaf.valid_before),
            CreateIndex=index,
            ModifyIndex=index,
        )
        return Reply(dumps(out))


def _ttl(settings: dict[str, Any], field: str, low_s: float, high_s: float) -> float:
    """A lifetime in seconds; 0 when it is not given."""
    text = settings.get(field, "")
    seconds = parse_duration(text) if text else 0.0
    if seconds and not low_s <= seconds <= high_s:
        raise InvalidRequest(
            f"{field} must be between {format_duration(low_s)} and {format_duration(high_s)}"
        )
    return seconds


def roots_json(authority: Authority) -> RootsJson:
    """The roots, without their keys."""
    active = authority.active
    # A root gives way in the entry that brings its successor. Cluster time is no date: the
    # successor's own beginning is the moment to show.
    begins = {root.create_index: root.not_before for root in authority.roots}
    return RootsJson(
        ActiveRootID="" if active is None else active.id,
        TrustDomain=authority.trust_domain,
        Roots=[_root_json(root, begins.get(root.modify_index, 0)) for root in authority.roots],
    )


def _root_json(root: Root, rotated_out_s: int) -> RootJson:
    out = RootJson(
        ID=root.id,
        Name=root.name,
        SerialNumber=root.serial,
        SigningKeyID=root.signing_key_id,
        ExternalTrustDomain="",
        NotBefore=iso(root.not_before),
        NotAfter=iso(root.not_after),
        RootCert=root.certificate,
        IntermediateCerts=[root.cross_signed] if root.cross_signed else None,
        Active=not root.rotated_out_ms,
        PrivateKeyType=root.key_type,
        PrivateKeyBits=root.key_bits,
        CreateIndex=root.create_index,
        ModifyIndex=root.modify_index,
    )
    if root.rotated_out_ms and rotated_out_s:
        out["RotatedOutAt"] = iso(rotated_out_s)
    return out


def authority_json(authority: Authority) -> AuthorityJson:
    """The settings, without keys."""
    active = authority.active
    return AuthorityJson(
        Provider="consul",
        Config=AuthorityShown(
            LeafCertTTL=format_duration(authority.leaf_ttl_s),
            RootCertTTL=format_duration(authority.root_ttl_s),
            PrivateKeyType="ec" if active is None else active.key_type,
            PrivateKeyBits=256 if active is None else active.key_bits,
        ),
        State=None,
        ForceWithoutCrossSigning=False,
        CreateIndex=authority.created,
        ModifyIndex=authority.changed,
    )


def iso(seconds: int) -> str:
    """A moment as certificates show it: `2026-01-02T03:04:05Z`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat().replace("+00:00", "Z")
