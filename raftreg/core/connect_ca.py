"""The certificate authority of the mesh, as far as it is replicated: roots and settings. Pure.

Keys and certificates are made at the edge (`raftreg.server.authority`); here is decided which of
them count. The active root signs; roots that were active before stay trusted until every leaf that
they signed has run out.

**The keys of the roots are part of the replicated state**: they are in the log, in snapshots, and
so in what `/v1/snapshot` gives. No answer, message or log line shows them.
"""

from __future__ import annotations

import msgspec

from raftreg.core.changes import Changes
from raftreg.core.results import Refused
from raftreg.core.spiffe import trust_domain

TOPIC = ("connect-ca", "")
ROOTS_MAX = 16
LEAF_TTL_S = 72 * 3600.0
ROOT_TTL_S = 10 * 365 * 24 * 3600.0

TTL_S_MAX = 100 * 366 * 86_400.0  #: of any certificate


class SecretText(msgspec.Struct, frozen=True):
    """Text that no message shows."""

    value: str

    def __repr__(self) -> str:
        return "SecretText(…)"


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A root certificate with its key.

    Attributes:
        id: Fingerprint of the certificate (SHA-1, as in Consul), which names it and proves nothing.
        certificate: PEM.
        key: PEM (PKCS 8).
        cross_signed: PEM of the same name and key, signed by the root before it: whoever trusts
            only that one trusts leaves of this one as well. "" for the first root.
        not_before, not_after: Seconds since the epoch.
        key_type, key_bits: "ec" and the size of its curve.
        rotated_out_ms: Cluster time at which it stopped to sign; 0: it signs.
    """

    id: str
    name: str
    serial: int
    certificate: str
    key: SecretText
    signing_key_id: str
    not_before: int
    not_after: int
    cross_signed: str = ""
    key_type: str = "ec"
    key_bits: int = 256
    rotated_out_ms: int = 0
    create_index: int = 0
    modify_index: int = 0


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate authority.

    Attributes:
        cluster_id: UUID that names the trust domain; "" before there is an authority.
        roots: The active one first.
        leaf_ttl_s, root_ttl_s: Lifetimes of new certificates, in seconds.
        changed: Index at which settings last changed.
    """

    cluster_id: str = ""
    roots: tuple[Root, ...] = ()
    leaf_ttl_s: float = LEAF_TTL_S
    root_ttl_s: float = ROOT_TTL_S
    created: int = 0
    changed: int = 0

    @property
    def trust_domain(self) -> str:
        """Ends every identity of the mesh."""
        return trust_domain(self.cluster_id)

    @property
    def active(self) -> Root | None:
        """The root that signs."""
        return self.roots[0] if self.roots else None

    @property
    def index(self) -> int:
        """Index of the last change."""
        return max(self.changed, *(root.modify_index for root in self.roots), 1)


class AuthoritySet(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="connect-authority"
):
    """Sets up the authority, or changes it.

    Attributes:
        previous: Id of the root that was active when this was made, "" for none; another one in
            the meantime makes it void.
        cluster_id: Names the trust domain, once and for all.
        root: The next active root; None keeps the present one.
        leaf_ttl_s, root_ttl_s: Lifetimes in seconds; 0 keeps what is set.
    """

    previous: str
    cluster_id: str = ""
    root: Root | None = None
    leaf_ttl_s: float = 0.0
    root_ttl_s: float = 0.0


def change(
    authority: Authority, command: AuthoritySet, changes: Changes, *, index: int, time_ms: int
) -> tuple[Authority, bool | Refused]:
    """Gives the authority after a command, and its result: False when it came too late."""
    active = authority.active
    if command.previous != ("" if active is None else active.id):
        return authority, False
    # Also what is no number (NaN) is none of these.
    if not all(0 <= ttl_s <= TTL_S_MAX for ttl_s in (command.leaf_ttl_s, command.root_ttl_s)):
        return authority, Refused("invalid_ttl", "a lifetime is negative or too long", 400)
    if active is None and command.root is None:
        return authority, Refused("no_authority", "there is no root certificate yet", 400)
    roots = authority.roots
    if command.root is not None:
        roots = _rotated(roots, command.root, index, time_ms)
    leaf_ttl_s = command.leaf_ttl_s or authority.leaf_ttl_s
    changed = Authority(
        cluster_id=authority.cluster_id or command.cluster_id,
        roots=_still_needed(roots, leaf_ttl_s, time_ms),
        leaf_ttl_s=leaf_ttl_s,
        root_ttl_s=command.root_ttl_s or authority.root_ttl_s,
        created=authority.created or index,
        changed=index,
    )
    changes.topics[TOPIC] = None
    return changed, True


def _rotated(roots: tuple[Root, ...], new: Root, index: int, time_ms: int) -> tuple[Root, ...]:
    replace = msgspec.structs.replace
    old = [
        root
        if root.rotated_out_ms
        else replace(root, rotated_out_ms=max(time_ms, 1), modify_index=index)
        for root in roots
        if root.id != new.id
    ]
    stamped = replace(new, rotated_out_ms=0, create_index=index, modify_index=index)
    return (stamped, *old)[:ROOTS_MAX]


def _still_needed(roots: tuple[Root, ...], leaf_ttl_s: float, time_ms: int) -> tuple[Root, ...]:
    """Leaves out roots whose leaves have all run out, with as much time again to spare."""
    since_ms = time_ms - round(2 * leaf_ttl_s * 1000)
    return tuple(
        root for root in roots if not root.rotated_out_ms or root.rotated_out_ms > since_ms
    )
