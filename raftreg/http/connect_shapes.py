"""The JSON of the certificate authority, as servers and agents give it."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class RootJson(TypedDict):
    """A root certificate; `IntermediateCerts` holds it signed by the root before."""

    ID: str
    Name: str
    SerialNumber: int
    SigningKeyID: str
    ExternalTrustDomain: str
    NotBefore: str
    NotAfter: str
    RootCert: str
    IntermediateCerts: list[str] | None
    Active: bool
    RotatedOutAt: NotRequired[str]
    PrivateKeyType: str
    PrivateKeyBits: int
    CreateIndex: int
    ModifyIndex: int


class RootsJson(TypedDict):
    """All roots that are trusted; the active one signs."""

    ActiveRootID: str
    TrustDomain: str
    Roots: list[RootJson]


class LeafJson(TypedDict):
    """A certificate of a service; an agent adds the key, which it made itself."""

    SerialNumber: str
    CertPEM: str
    PrivateKeyPEM: NotRequired[str]
    Service: str
    ServiceURI: str
    ValidAfter: str
    ValidBefore: str
    CreateIndex: int
    ModifyIndex: int


class AuthorizeJson(TypedDict):
    """Whether a caller may connect, and why."""

    Authorized: bool
    Reason: str
