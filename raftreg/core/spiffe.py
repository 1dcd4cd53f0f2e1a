"""Identities of services: SPIFFE ids in the form that Consul's proxies know. Pure.

`spiffe://<trust domain>/ns/<namespace>/dc/<datacenter>/svc/<service>`; see
https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

import msgspec

#: Used before there is an authority, as Consul does where Connect is off.
CLUSTER_UNNAMED = "11111111-2222-3333-4444-555555555555"
_PART = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]+"  # RFC 3986, 3.3: a segment
_SERVICE = re.compile(
    rf"spiffe://(?P<domain>[a-z0-9.-]{{1,255}})(?:/ap/(?P<ap>{_PART}))?"
    rf"/ns/(?P<ns>{_PART})/dc/(?P<dc>{_PART})/svc/(?P<service>{_PART})\Z"
)
_CHARS_MAX = 2048


class ServiceIdentity(msgspec.Struct, frozen=True):
    """Whom a certificate stands for."""

    trust_domain: str
    datacenter: str
    service: str
    namespace: str = "default"

    @property
    def uri(self) -> str:
        """The SPIFFE id."""
        parts = ("ns", self.namespace, "dc", self.datacenter, "svc", self.service)
        return f"spiffe://{self.trust_domain}/" + "/".join(quote(part, safe="") for part in parts)


def trust_domain(cluster_id: str) -> str:
    """The trust domain of a cluster."""
    return f"{cluster_id or CLUSTER_UNNAMED}.consul"


def parse_service(uri: str) -> ServiceIdentity:
    """Reads the identity of a service.

    Raises:
        ValueError: It is none.
    """
    found = _SERVICE.match(uri) if len(uri) <= _CHARS_MAX else None
    if found is None or found["ap"] not in (None, "default"):
        raise ValueError("not the SPIFFE id of a service")
    # Strict: with replacement characters two different ids would stand for one service.
    namespace, datacenter, service = (
        unquote(found[part], errors="strict") for part in ("ns", "dc", "service")
    )
    identity = ServiceIdentity(found["domain"], datacenter, service, namespace)
    if len(identity.uri) > _CHARS_MAX:
        raise ValueError("the SPIFFE id of a service is too long")
    return identity
