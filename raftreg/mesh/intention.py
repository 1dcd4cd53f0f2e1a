"""Whether a call is let in: intentions of the service that is called, against who calls. Pure.

Of the intentions that cover a source the one with the highest precedence decides. Where it has
permissions the first that a request meets decides, and the default policy where none is met.
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-intentions

Backends read paths in several ways (`//admin`, `/x/../admin`), so a request is let in only if it
would be by its path as it came and by the path that a lenient reader makes of it (compare
CVE-2024-10005, a way around Consul's permissions). What can't be checked here is not let in:
requirements on tokens, and permissions on what is no HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from raftreg.core.entries.access import Permission
from raftreg.core.intentions import WILDCARD, Intention
from raftreg.core.spiffe import parse_service
from raftreg.mesh.match import Condition, always, http_condition
from raftreg.mesh.nouns import Call, MeshConfigError

INTENTIONS_MAX: Final = 8192


class Verdict(msgspec.Struct, frozen=True):
    """Whether a call is let in.

    Attributes:
        allowed: It is.
        why: What decided, for logs and metrics; of bounded variety.
    """

    allowed: bool
    why: str


class _Ruling(msgspec.Struct, frozen=True):
    """What one intention says.

    Attributes:
        precedence: Of two that cover a source, the one with the higher number decides.
        verdict: Of every call; None where permissions decide.
        permissions: Conditions and verdicts, in their order.
    """

    precedence: int
    verdict: Verdict | None
    permissions: tuple[tuple[Condition, Verdict], ...] = ()


class Intentions:
    """Intentions of one service.

    Args:
        intentions: Those that cover calls to it, as `intentions.matching_destination` gives them.
        default_allow: What becomes of calls that nothing decides over.
        needs_token: The service asks for tokens, which are not checked here: nothing is let in.

    Raises:
        MeshConfigError: There are too many, or one can't be read.
    """

    def __init__(
        self,
        intentions: Sequence[Intention],
        *,
        default_allow: bool = True,
        needs_token: bool = False,
    ) -> None:
        if len(intentions) > INTENTIONS_MAX:
            raise MeshConfigError(f"Sources: at most {INTENTIONS_MAX}, not {len(intentions)}")
        self._needs_token = needs_token
        self._default = Verdict(default_allow, "default policy")
        self._by_source: dict[str, _Ruling] = {}
        for intention in sorted(intentions, key=lambda each: -each.precedence):
            self._by_source.setdefault(intention.source, _ruling(intention))

    def decide(self, source: str, call: Call | None = None) -> Verdict:
        """Decides over one call.

        Args:
            source: Service that calls, by its verified identity; "" when it has none.
            call: The request; None for what is no HTTP.
        """
        if self._needs_token:
            return _NO_TOKEN
        ruling = self._ruling_of(source)
        if ruling is None:
            return self._default
        if ruling.verdict is not None:
            return ruling.verdict
        if call is None:
            return _NOT_HTTP
        verdict = self._permitted(ruling, call)
        read = lenient_path(call.path)
        if verdict.allowed and read != call.path:
            return self._permitted(ruling, msgspec.structs.replace(call, path=read))
        return verdict

    def _ruling_of(self, source: str) -> _Ruling | None:
        """The ruling that decides over a source: its own, or the one for all."""
        shared = self._by_source.get(WILDCARD)
        if not source:
            return _for_strangers(shared)
        own = self._by_source.get(source) if source != WILDCARD else None
        if own is None or (shared is not None and shared.precedence > own.precedence):
            return shared
        return own

    def _permitted(self, ruling: _Ruling, call: Call) -> Verdict:
        for condition, verdict in ruling.permissions:
            if condition(call):
                return verdict
        return self._default


_NO_TOKEN: Final = Verdict(False, "tokens are required, and not supported")
_NOT_HTTP: Final = Verdict(False, "permissions need HTTP")
_UNKNOWN: Final = Verdict(False, "the source has no identity")


def _for_strangers(shared: _Ruling | None) -> _Ruling | None:
    """An intention for all services does not stand for whom nobody knows, as far as it lets in."""
    if shared is None or (shared.verdict is not None and not shared.verdict.allowed):
        return shared
    return _Ruling(shared.precedence, _UNKNOWN)


def source_of(uri: str, *, trust_domains: frozenset[str]) -> str:
    """The service that a certificate stands for; "" when it is none of ours.

    Args:
        uri: SPIFFE id out of a verified certificate.
        trust_domains: Those of this mesh, of a change of authority both.
    """
    try:
        identity = parse_service(uri)
    except ValueError:
        return ""
    ours = identity.trust_domain in trust_domains and identity.namespace == "default"
    return identity.service if ours else ""


def lenient_path(path: str) -> str:
    """What a lenient reader makes of a path: one slash for many, dot segments followed.

    Segments are those of RFC 3986, 5.2.4; a backslash is read as a slash, and what follows a
    semicolon in a segment is left out, as servlet containers do.
    """
    if "//" not in path and "/." not in path and "\\" not in path and ";" not in path:
        return path
    kept: list[str] = []
    segments = [part.partition(";")[0] for part in path.replace("\\", "/").split("/")]
    for part in segments:
        if part == "..":
            kept = kept[:-1]
        elif part not in ("", "."):
            kept.append(part)
    slash = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + slash


def _ruling(intention: Intention) -> _Ruling:
    name = f"{intention.source} to {intention.destination}"
    if not intention.permissions:
        if intention.action not in ("allow", "deny"):
            raise MeshConfigError(f"intention {name}: Action must be 'allow' or 'deny'")
        return _Ruling(
            intention.precedence, Verdict(intention.action == "allow", f"intention {name}")
        )
    rows = [
        row
        for at, each in enumerate(intention.permissions)
        if (row := _permission(each, f"intention {name}: Permissions[{at}]")) is not None
    ]
    return _Ruling(intention.precedence, None, tuple(rows))


def _permission(permission: Permission, where: str) -> tuple[Condition, Verdict] | None:
    """Condition and verdict; None for one that lets nothing in, since tokens are not checked."""
    action = permission.get("Action", "")
    if action not in ("allow", "deny"):
        raise MeshConfigError(f"{where}.Action: must be 'allow' or 'deny'")
    if permission.get("JWT") and action == "allow":
        return None
    http = permission.get("HTTP")
    condition = http_condition(http, f"{where}.HTTP") if http else always
    return condition, Verdict(action == "allow", where)
