"""What calls are hashed by, so that like calls go to the same instance.

Policies and how they are combined are Envoy's (`RouteAction.HashPolicy`) and Consul's
(`LoadBalancer.HashPolicies` of a service-resolver):
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-resolver
Hashes are the same on every host and in every process, unlike Python's own.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from raftreg.mesh.nouns import Call, Instance, MeshConfigError, Randomness

#: Policies that one upstream may have.
POLICIES_MAX: Final = 16
_MASK: Final = (1 << 64) - 1


class HashField(enum.Enum):
    """Which part of a call is hashed."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query_parameter"
    SOURCE_IP = "source-ip"
    SOURCE = "source"  #: the service that calls


class HashPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a call that goes into its hash.

    Attributes:
        field: Which part.
        name: Name of the header, cookie or query parameter.
        terminal: When this part is there, no later policy is looked at.

    Raises:
        MeshConfigError: A name is missing, or one is given where there is none.
    """

    field: HashField
    name: str = ""
    terminal: bool = False

    def __post_init__(self) -> None:
        named = self.field not in {HashField.SOURCE, HashField.SOURCE_IP}
        if named != bool(self.name):
            wants = "must be given" if named else "must be empty"
            raise MeshConfigError(f"name: {wants} for field {self.field.value}")

    def value(self, call: Call) -> str:
        """This part of a call; "" when it has none."""
        match self.field:
            case HashField.HEADER:
                return call.headers.get(self.name.lower(), "")
            case HashField.COOKIE:
                return _cookie(call.headers.get("cookie", ""), self.name)
            case HashField.QUERY:
                return call.query.get(self.name, "")
            case HashField.SOURCE_IP:
                return call.source_address
            case HashField.SOURCE:
                return call.source


def _cookie(header: str, name: str) -> str:
    """First value of a cookie (RFC 6265 section 5.4); "" when it is not there."""
    for pair in header.split(";"):
        found, _, value = pair.strip().partition("=")
        if found == name:
            return value.strip('"')
    return ""


def hash64(text: str) -> int:
    """A hash of 64 bits that is the same everywhere."""
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest())


def hash_call(call: Call, policies: Sequence[HashPolicy]) -> int | None:
    """Hash of a call, 64 bits; None when it has nothing that a policy names.

    Several parts are combined as Envoy does: rotated left by one bit, then exclusive or.
    """
    combined: int | None = None
    for policy in policies:
        value = policy.value(call)
        if not value:
            continue
        before = combined or 0
        combined = ((before << 1 | before >> 63) & _MASK) ^ hash64(value)
        if policy.terminal:
            break
    return combined


def check_policies(policies: Sequence[HashPolicy]) -> None:
    """Requires that there are not too many.

    Raises:
        MeshConfigError: There are.
    """
    if len(policies) > POLICIES_MAX:
        raise MeshConfigError(f"policies: at most {POLICIES_MAX}, not {len(policies)}")


class HashTable(Protocol):
    """Finds the instance that a hash belongs to."""

    def update(self, instances: Sequence[Instance]) -> None:
        """Replaces the instances; their order does not matter."""
        ...

    def find(self, hashed: int) -> Instance | None:
        """The instance of a 64-bit hash; None when there is none."""
        ...


def random_hash(rng: Randomness) -> int:
    """A hash for a call that has nothing to hash."""
    return int(rng.random() * (_MASK + 1))
