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
_SERVICE = re.compile(
    r"spiffe://(?P<domain>[a-z0-9.-]{1,255})(?:/ap/(?P<ap>[^/]+))?"
    r"/ns/(?P<ns>[^/]+)/dc/(?P<dc>[^/]+)/svc/(?P<service>[^/]+)\Z"
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
    namespace, datacenter, service = (unquote(found[part]) for part in ("ns", "dc", "service"))
    return ServiceIdentity(found["domain"], datacenter, service, namespace)
