"""Who is let in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.config_table import ConfigTable
from raftreg.core.entries.access import Permission
from raftreg.core.intentions import Intention, matching_destination
from raftreg.core.spiffe import ServiceIdentity
from raftreg.mesh.intention import Intentions, lenient_path, source_of
from raftreg.mesh.nouns import Call, MeshConfigError
from raftreg.model import ConfigEntry


def intentions(
    *sources: dict[str, Any], wild: tuple[dict[str, Any], ...] = (), **options: bool
) -> Intentions:
    """Intentions of "api", and those of all services."""
    rows = [ConfigEntry(kind="service-intentions", name="api", body={"Sources": list(sources)})]
    if wild:
        rows.append(ConfigEntry(kind="service-intentions", name="*", body={"Sources": list(wild)}))
    return Intentions(matching_destination(ConfigTable(rows), "api"), **options)


def source(name: str, action: str = "", *permissions: dict[str, Any]) -> dict[str, Any]:
    """One source of an entry: with an action, or with permissions."""
    if permissions:
        return {"Name": name, "Permissions": list(permissions)}
    return {"Name": name, "Action": action}


def permission(action: str, **http: Any) -> dict[str, Any]:
    """One permission."""
    return {"Action": action, "HTTP": http}


@pytest.mark.parametrize(
    ("caller", "allowed"), [("web", True), ("bad", False), ("other", False), ("", False)]
)
def test_exact_before_wildcard(caller: str, *, allowed: bool) -> None:
    """The intention for a source itself goes before the one for all."""
    rules = intentions(source("web", "allow"), source("bad", "deny"), source("*", "deny"))
    assert rules.decide(caller).allowed is allowed


def test_destination_before_source() -> None:
    """What is said of a destination goes before what is said of all destinations."""
    rules = intentions(source("*", "deny"), wild=(source("web", "allow"),))
    assert not rules.decide("web").allowed
    assert intentions(wild=(source("web", "allow"), source("*", "deny"))).decide("web").allowed


@pytest.mark.parametrize("default", [True, False])
def test_default(*, default: bool) -> None:
    """Where nothing covers a call, the default decides."""
    rules = intentions(source("web", "deny"), default_allow=default)
    assert rules.decide("other").allowed is default
    assert rules.decide("other").why == "default policy"


def test_wildcard_lets_no_stranger_in() -> None:
    """To allow all services does not let in whom no certificate names."""
    rules = intentions(source("*", "allow"))
    assert rules.decide("web").allowed
    assert not rules.decide("").allowed
    assert (
        not intentions(source("*", "", permission("allow", PathPrefix="/")))
        .decide("", Call(path="/"))
        .allowed
    )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/admin/x", False),
        ("GET", "/public", True),
        ("POST", "/public", False),
        ("GET", "//admin/x", False),
        ("GET", "/public/../admin", False),
        ("GET", "/./admin", False),
        ("GET", "/public/./page", True),
        ("GET", "\\admin", False),
        ("GET", "/;x/admin", False),
        ("GET", "/else", False),
    ],
)
def test_permissions(method: str, path: str, *, allowed: bool) -> None:
    """The first permission that is met decides, however the path is written; else the default."""
    rules = intentions(
        source(
            "web",
            "",
            permission("deny", PathPrefix="/admin"),
            permission("allow", PathPrefix="/public", Methods=["GET"]),
        ),
        default_allow=False,
    )
    assert rules.decide("web", Call(method=method, path=path)).allowed is allowed


def test_permission_by_header() -> None:
    """Permissions look at headers."""
    rules = intentions(
        source("web", "", permission("deny", Header=[{"Name": "X-Debug", "Present": True}])),
        default_allow=True,
    )
    assert not rules.decide("web", Call(headers={"x-debug": "1"})).allowed
    assert rules.decide("web", Call()).allowed


def test_no_http_no_permission() -> None:
    """Permissions can't be checked for what is no HTTP: nothing is let in."""
    rules = intentions(source("web", "", permission("allow", PathPrefix="/")))
    assert not rules.decide("web", None).allowed


def test_tokens_are_not_waved_through() -> None:
    """Where a token is asked for and can't be checked, that permission lets nothing in."""
    jwt = {"Providers": [{"Name": "okta"}]}
    rules = intentions(
        source("web", "", {**permission("allow", PathPrefix="/"), "JWT": jwt}),
        default_allow=False,
    )
    assert not rules.decide("web", Call()).allowed
    assert not intentions(source("web", "allow"), needs_token=True).decide("web").allowed


def test_bad_intention_is_refused() -> None:
    """An expression that can't be compiled, or an action that is none, is refused by its place."""
    bad: Permission = {"Action": "allow", "HTTP": {"PathRegex": "("}}
    with pytest.raises(MeshConfigError, match=r"web to api: Permissions\[0\].HTTP.PathRegex"):
        Intentions([Intention(source="web", destination="api", permissions=(bad,))])
    with pytest.raises(MeshConfigError, match="Action"):
        Intentions([Intention(source="web", destination="api", action="maybe")])


def test_identity() -> None:
    """A certificate stands for a service only within the trust domains of the mesh."""
    ours = frozenset({"a.consul", "b.consul"})
    web = ServiceIdentity("a.consul", "dc1", "web")
    assert source_of(web.uri, trust_domains=ours) == "web"
    other = msgspec.structs.replace(web, trust_domain="evil.consul")
    assert source_of(other.uri, trust_domains=ours) == ""
    named = msgspec.structs.replace(web, namespace="other")
    assert source_of(named.uri, trust_domains=ours) == ""
    assert source_of("https://web", trust_domains=ours) == ""


@given(st.text(alphabet="/.\\;ab", max_size=24))
def test_lenient_path_is_normal(path: str) -> None:
    """A read path begins with one slash, has no dots to follow, and is read as itself again."""
    read = lenient_path("/" + path)
    assert read.startswith("/")
    if read != "/" + path:
        assert "//" not in read
        assert ".." not in read.split("/")
    assert lenient_path(read) == read


@given(st.text(alphabet="/.\\;admin", max_size=16))
def test_denied_path_has_no_way_around(path: str) -> None:
    """What a lenient backend takes for /admin is denied in each spelling."""
    rules = intentions(
        source(
            "web", "", permission("deny", PathPrefix="/admin"), permission("allow", PathPrefix="/")
        )
    )
    verdict = rules.decide("web", Call(path="/" + path))
    if lenient_path("/" + path).startswith("/admin"):
        assert not verdict.allowed
