"""Where calls go: rules, splits, targets, and what is changed on the way."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.chain import compile_chain
from raftreg.core.config_table import ConfigTable
from raftreg.mesh.balance.hash_key import HashField, HashPolicy
from raftreg.mesh.changes import HeaderChanges, Rewrite
from raftreg.mesh.nouns import Call, Instance, MeshConfigError
from raftreg.mesh.route import Routed, RoutingTable, Target, compile_routes
from raftreg.model import ConfigEntry

RNG = random.Random(5)


def entry(kind: str, name: str, **body: Any) -> ConfigEntry:
    """An entry."""
    return ConfigEntry(kind=kind, name=name, body=body)


def table_of(*entries: ConfigEntry, sticky: tuple[HashPolicy, ...] = ()) -> RoutingTable:
    """The table of service "web", as a sidecar gets it: over JSON."""
    http = [
        entry("service-defaults", name, Protocol="http") for name in ("web", "api", "old", "spare")
    ]
    chain = compile_chain(
        ConfigTable([*http, *entries]), "web", datacenter="dc1", trust_domain="t.consul"
    )
    return compile_routes(msgspec.json.decode(msgspec.json.encode(chain)), sticky=sticky)


def routed(table: RoutingTable, call: Call, rng: random.Random = RNG) -> Routed:
    """Where a call goes; it goes somewhere."""
    found = table.route(call, rng)
    assert found is not None
    return found


def service_of(table: RoutingTable, call: Call) -> str:
    """Which service a call goes to."""
    return routed(table, call).destination.targets[0].service


def route_to(service: str, http: dict[str, Any], **destination: Any) -> dict[str, Any]:
    """A route."""
    return {"Match": {"HTTP": http}, "Destination": {"Service": service, **destination}}


def router(*routes: dict[str, Any]) -> ConfigEntry:
    """The routes of "web"."""
    return entry("service-router", "web", Routes=list(routes))


@pytest.mark.parametrize(
    ("http", "call", "met"),
    [
        ({"PathExact": "/a"}, Call(path="/a"), True),
        ({"PathExact": "/a"}, Call(path="/a/"), False),
        ({"PathExact": "/a", "CaseInsensitive": True}, Call(path="/A"), True),
        ({"PathPrefix": "/a"}, Call(path="/ab"), True),
        ({"PathPrefix": "/a"}, Call(path="/b/a"), False),
        ({"PathPrefix": "/A", "CaseInsensitive": True}, Call(path="/aB"), True),
        ({"PathRegex": "/v[0-9]+"}, Call(path="/v12"), True),
        ({"PathRegex": "/v[0-9]+"}, Call(path="/v12/x"), False),
        ({"Methods": ["GET", "PUT"]}, Call(method="PUT"), True),
        ({"Methods": ["GET"]}, Call(method="POST"), False),
        ({"Header": [{"Name": "X-A", "Present": True}]}, Call(headers={"x-a": ""}), True),
        ({"Header": [{"Name": "x-a", "Present": True}]}, Call(), False),
        ({"Header": [{"Name": "x-a", "Present": True, "Invert": True}]}, Call(), True),
        ({"Header": [{"Name": "x-a", "Exact": "b"}]}, Call(headers={"x-a": "b"}), True),
        ({"Header": [{"Name": "x-a", "Exact": "b"}]}, Call(headers={"x-a": "B"}), False),
        (
            {"Header": [{"Name": "x-a", "Exact": "b", "IgnoreCase": True}]},
            Call(headers={"x-a": "B"}),
            True,
        ),
        ({"Header": [{"Name": "x-a", "Prefix": "b"}]}, Call(headers={"x-a": "bc"}), True),
        ({"Header": [{"Name": "x-a", "Suffix": "c"}]}, Call(headers={"x-a": "bc"}), True),
        ({"Header": [{"Name": "x-a", "Contains": "b"}]}, Call(headers={"x-a": "abc"}), True),
        ({"Header": [{"Name": "x-a", "Regex": "b+"}]}, Call(headers={"x-a": "bbc"}), False),
        (
            {"Header": [{"Name": "x-a", "Exact": "b", "Invert": True}]},
            Call(headers={"x-a": "c"}),
            True,
        ),
        ({"Header": [{"Name": "x-a", "Exact": "b", "Invert": True}]}, Call(), False),
        ({"QueryParam": [{"Name": "q", "Present": True}]}, Call(query={"q": ""}), True),
        ({"QueryParam": [{"Name": "q", "Exact": "1"}]}, Call(query={"q": "2"}), False),
        ({"QueryParam": [{"Name": "q", "Regex": "[a-z]"}]}, Call(query={"q": "b"}), True),
        ({"QueryParam": [{"Name": "q", "Regex": ".*"}]}, Call(), False),
        ({"PathPrefix": "/a", "Methods": ["GET"]}, Call(path="/a", method="PUT"), False),
    ],
)
def test_condition(http: dict[str, Any], call: Call, *, met: bool) -> None:
    """A route takes a call if all of its conditions hold, else the service itself does."""
    assert (service_of(table_of(router(route_to("api", http))), call) == "api") is met


def test_first_rule_wins() -> None:
    """Of several rules that are met the first decides."""
    table = table_of(
        router(route_to("old", {"PathPrefix": "/a/b"}), route_to("api", {"PathPrefix": "/a"}))
    )
    assert [service_of(table, Call(path=path)) for path in ("/a/b", "/a/c", "/d")] == [
        "old",
        "api",
        "web",
    ]


def test_source_decides() -> None:
    """A route may take the calls of some services only."""
    match = {"Raftreg": {"Sources": ["shop", "mobile"]}}
    table = table_of(router({"Match": match, "Destination": {"Service": "api"}}))
    assert service_of(table, Call(source="shop")) == "api"
    assert service_of(table, Call(source="admin")) == "web"
    assert service_of(table, Call()) == "web"


def test_destination_is_read() -> None:
    """What a route says of timeouts, retries, headers and the path is in what it leads to."""
    table = table_of(
        router(
            route_to(
                "api",
                {"PathPrefix": "/api/"},
                PrefixRewrite="/",
                RequestTimeout="1500ms",
                IdleTimeout="1m",
                NumRetries=3,
                RetryOnConnectFailure=True,
                RetryOn=["5xx"],
                RetryOnStatusCodes=[429],
                RequestHeaders={"Set": {"X-Route": "api"}, "Remove": ["X-Secret"]},
                ResponseHeaders={"Add": {"X-Seen": "1"}},
            )
        )
    )
    found = routed(table, Call(path="/api/users"))
    assert found.route == "/api/"
    assert (found.timeout_s, found.idle_timeout_s) == (1.5, 60.0)
    assert found.retry is not None
    assert found.retry.retries_max == 3
    assert found.retry.conditions == ("5xx", "connect-failure")
    assert found.retry.statuses == (429,)
    assert found.rewrite is not None
    assert found.rewrite.applied("/api/users") == "/users"
    assert found.request.applied([("X-SECRET", "s"), ("Host", "h")]) == [
        ("Host", "h"),
        ("x-route", "api"),
    ]
    assert found.response.applied([("X-Seen", "0")]) == [("X-Seen", "0"), ("x-seen", "1")]
    assert routed(table, Call(path="/")).retry is None


def split_entries(canary: float) -> tuple[ConfigEntry, ...]:
    """Two subsets, the second with a share in percent."""
    return (
        entry(
            "service-resolver",
            "web",
            Subsets={
                "v1": {"Filter": 'Service.Meta.version == "1"'},
                "v2": {"Filter": 'Service.Meta.version == "2"', "OnlyPassing": True},
            },
            RequestTimeout="3s",
            LoadBalancer={"Policy": "least_request"},
        ),
        entry(
            "service-splitter",
            "web",
            Splits=[
                {"Weight": 100 - canary, "ServiceSubset": "v1"},
                {
                    "Weight": canary,
                    "ServiceSubset": "v2",
                    "RequestHeaders": {"Set": {"x-canary": "1"}},
                },
            ],
        ),
    )


@pytest.mark.parametrize("canary", [0.0, 10.0, 100.0])
def test_split_by_weight(canary: float) -> None:
    """Legs get calls by their weights; a leg of weight 0 gets none."""
    table = table_of(*split_entries(canary))
    rng = random.Random(7)
    hits = Counter(routed(table, Call(), rng).destination.targets[0].subset for _ in range(10_000))
    assert abs(hits["v2"] - 100 * canary) <= 150 * (0 < canary < 100)


def test_split_leg_says_what_its_resolver_says() -> None:
    """A leg has its subset's filter, its headers, and the resolver's timeout and balancer."""
    table = table_of(*split_entries(100.0))
    leg = routed(table, Call())
    target = leg.destination.targets[0]
    assert (target.filter, target.only_passing) == ('Service.Meta.version == "2"', True)
    assert leg.request.put == (("x-canary", "1"),)
    assert leg.timeout_s == 3.0
    assert leg.destination.load_balancer == {"Policy": "least_request"}


def test_route_changes_headers_after_split() -> None:
    """Where both set a header, the route has the last word, as in Envoy."""
    resolver, splitter = split_entries(100.0)
    route = route_to("web", {}, RequestHeaders={"Set": {"X-Canary": "route"}})
    leg = routed(table_of(resolver, splitter, router(route)), Call())
    assert leg.request.applied([]) == [("x-canary", "route")]


@given(st.text(min_size=1, max_size=20), st.integers(1, 99), st.integers(1, 99))
def test_sticky_split(user: str, before: int, after: int) -> None:
    """A caller stays on its leg, and moves at most in the direction in which the weights moved."""
    sticky = (HashPolicy(field=HashField.HEADER, name="x-user"),)
    call = Call(headers={"x-user": user})

    def subset(canary: int) -> str:
        table = table_of(*split_entries(float(canary)), sticky=sticky)
        found = {routed(table, call).destination.targets[0].subset for _ in range(3)}
        assert len(found) == 1
        return found.pop()

    if before <= after and subset(before) == "v2":
        assert subset(after) == "v2"


def test_sticky_split_spreads() -> None:
    """Callers are spread over the legs by weight, as calls are."""
    table = table_of(
        *split_entries(30.0), sticky=(HashPolicy(field=HashField.HEADER, name="x-user"),)
    )
    hits = Counter(
        routed(table, Call(headers={"x-user": str(user)})).destination.targets[0].subset
        for user in range(3000)
    )
    assert 800 <= hits["v2"] <= 1000


def test_failover_and_redirect() -> None:
    """Failover targets follow the target in their order; a redirect leads to the other service."""
    table = table_of(
        entry(
            "service-resolver",
            "web",
            Subsets={"v1": {}},
            DefaultSubset="v1",
            Failover={"*": {"Targets": [{"Service": "spare"}, {"Datacenter": "dc2"}]}},
        ),
        entry("service-resolver", "spare", Redirect={"Service": "old"}),
    )
    targets = routed(table, Call()).destination.targets
    assert [(each.service, each.subset, each.datacenter) for each in targets] == [
        ("web", "v1", "dc1"),
        ("old", "", "dc1"),
        ("web", "v1", "dc2"),
    ]
    assert all(each.id in table.targets for each in targets)


def test_plain_tcp_is_routed() -> None:
    """A service without any entry has one leg, and no number is drawn for it."""

    class NoChance(random.Random):
        def random(self) -> float:
            raise AssertionError

    chain = compile_chain(ConfigTable(), "db", datacenter="dc1", trust_domain="t.consul")
    table = compile_routes(chain)
    found = table.route(Call(), NoChance())
    assert found is not None
    assert found.destination.targets[0].service == "db"
    assert len(table.legs()) == 1


def chain_json() -> Any:
    """A chain with a router, a splitter and two subsets, as decoded JSON."""
    entries = [
        entry("service-defaults", "web", Protocol="http"),
        *split_entries(10.0),
        router(route_to("web", {"PathRegex": "a"}, RequestTimeout="1s")),
    ]
    chain = compile_chain(ConfigTable(entries), "web", datacenter="dc1", trust_domain="t.consul")
    return msgspec.json.decode(msgspec.json.encode(chain))


ROUTE = ("Nodes", "router:web.default.default", "Routes", 0, "Definition")
SPLITS = ("Nodes", "splitter:web.default.default", "Splits")
V1 = "v1.web.default.default.dc1"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("ServiceName",), None, "can't be read"),
        (("StartNode",), "router:gone", "Nodes: there is no"),
        (("Targets",), {}, "Targets: there is no"),
        (("Targets", V1, "ConnectTimeout"), "soon", rf"Targets\[{V1}\].ConnectTimeout"),
        ((*ROUTE, "Match", "HTTP", "PathRegex"), "(", r"Routes\[0\].Match.HTTP.PathRegex"),
        (
            (*ROUTE, "Match", "HTTP", "Header"),
            [{"Name": "a"}],
            r"Routes\[0\].Match.HTTP.Header\[0\]: one of",
        ),
        (
            (*ROUTE, "Destination", "RequestTimeout"),
            "-1s",
            r"Routes\[0\].Destination.RequestTimeout: must be >= 0",
        ),
        ((*ROUTE, "Destination", "PrefixRewrite"), "/", "needs PathExact or PathPrefix"),
        (SPLITS, [], "no leg has a weight"),
        ((*SPLITS, 0, "NextNode"), "splitter:web.default.default", "must be a resolver"),
    ],
)
def test_bad_chain_is_refused(path: tuple[str | int, ...], value: object, says: str) -> None:
    """What can't be followed is refused as a whole, with the place of the fault."""
    chain = chain_json()
    compile_routes(chain)
    place = chain
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MeshConfigError, match=says):
        compile_routes(chain)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Nodes", "Targets", "StartNode", "ServiceName", "Protocol", "a"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_garbage_is_refused(garbage: object) -> None:
    """Whatever is no chain is refused, never anything but refused."""
    with pytest.raises(MeshConfigError):
        compile_routes(garbage)


HEADER = st.tuples(st.sampled_from("abc"), st.sampled_from("12"))
CHANGES = st.builds(
    HeaderChanges,
    removed=st.frozensets(st.sampled_from("abc"), max_size=2),
    put=st.dictionaries(st.sampled_from("abc"), st.just("p"), max_size=2).map(
        lambda pairs: tuple(pairs.items())
    ),
    added=st.lists(HEADER, max_size=2).map(tuple),
)


@given(CHANGES, CHANGES, st.lists(HEADER, max_size=5))
def test_changes_compose(
    first: HeaderChanges, second: HeaderChanges, headers: list[tuple[str, str]]
) -> None:
    """Two changes as one do what one after the other does; only the order of names may differ."""
    whole = first.then(second).applied(headers)
    apart = second.applied(first.applied(headers))
    for name in "abc":
        assert sorted(text for key, text in whole if key == name) == sorted(
            text for key, text in apart if key == name
        )


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=4))
def test_rewrite_keeps_the_rest(prefix: str, rest: str, beginning: str) -> None:
    """What replaces a prefix leaves what follows it, however it was escaped."""
    raw = quote("/" + prefix + rest, safe="/")
    rewritten = Rewrite(1 + len(prefix), "/" + quote(beginning)).applied(raw)
    assert unquote(rewritten) == "/" + beginning + rest


def test_rewrite_keeps_escaped_slash() -> None:
    """An escaped slash behind the prefix stays escaped: it is no separator."""
    assert Rewrite(4, "/").applied("/%61b/x%2Fy") == "/x%2Fy"


def test_members_of_a_target() -> None:
    """A target has the instances that its filter admits, without warning ones if it says so."""
    instances = [
        Instance(key="1", address="127.0.0.1", port=1, meta={"v": "1"}),
        Instance(key="2", address="127.0.0.1", port=2, meta={"v": "2"}),
        Instance(key="3", address="127.0.0.1", port=3, meta={"v": "2"}, passing=False),
    ]
    target = Target(id="t", service="web", only_passing=True)

    def second(instance: Instance) -> bool:
        return instance.meta["v"] == "2"

    assert [each.key for each in target.members(instances, second)] == ["2"]
    assert [each.key for each in target.members(instances)] == ["1", "2"]
