"""All services in one query: health, tags and metadata, chosen, filtered, page by page."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Changes
from raftreg.errors import InvalidRequest
from raftreg.http import service_pages
from raftreg.http.params import Query, ReadOptions
from raftreg.http.service_pages import Page, cursor, page_query, read_cursor
from raftreg.model import Node, ServiceInstance
from tests.server.conftest import Running

PATH = "/v1/health/services"


async def _instance(
    api: Running, name: str, node: str, status: str = "passing", **fields: Any
) -> None:
    check = {"CheckID": f"c-{name}", "Name": "c", "Status": status, "ServiceID": name}
    await api.register(node, name, Service=fields, Check=check, NodeMeta={"rack": node[-1]})


async def _some(api: Running) -> None:
    await _instance(api, "web", "n1", Tags=["a", "b"], Meta={"env": "prod", "v": "1"})
    await _instance(api, "web", "n2", "critical", Tags=["a", "c"], Meta={"env": "prod", "v": "2"})
    await _instance(api, "db", "n1", "warning", Tags=["c"], Meta={"env": "test"})
    await _instance(api, "idle", "n2", "critical")


async def _names(api: Running, query: str) -> list[str]:
    return [row["Name"] for row in (await api.json("GET", PATH + query))["Services"]]


async def test_each_service_with_the_sum_of_its_instances(api: Running) -> None:
    """Counts by status, unions of tags and of metadata, the number of nodes; no instances."""
    await _some(api)
    status, body, answer = await api.ask("GET", PATH)
    assert (status, body["After"]) == (200, "")
    assert [row["Name"] for row in body["Services"]] == ["db", "idle", "web"]
    assert body["Services"][2] == {
        "Name": "web",
        "Status": "passing",
        "Tags": ["a", "b", "c"],
        "Meta": {"env": ["prod"], "v": ["1", "2"]},
        "Nodes": 2,
        "Passing": 1,
        "Warning": 0,
        "Critical": 1,
    }
    assert [row["Status"] for row in body["Services"]] == ["warning", "critical", "passing"]
    assert int(answer.headers["X-Consul-Index"]) > 1


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?passing", ["web"]),
        ("?status=critical", ["idle", "web"]),
        ("?status=warning", ["db"]),
        ("?tag=a&tag=b", ["web"]),
        ("?tag=b&tag=c", []),
        ("?tag=A", ["web"]),
        ("?node-meta=rack:1", ["db", "web"]),
        ("?passing=false&tag=c", ["db", "web"]),
        ("?filter=" + quote('"a" in Tags and "c" in Tags'), ["web"]),
        ("?filter=" + quote('"prod" in Meta.env'), ["web"]),
        ("?filter=" + quote("Critical == 0"), ["db"]),
        ("?filter=" + quote("Name matches `^(db|idle)$` and Status != critical"), ["db"]),
        ("?passing&filter=" + quote('"c" in Tags'), []),
        ("?stale", ["db", "idle", "web"]),
    ],
)
async def test_what_is_chosen(api: Running, query: str, names: list[str]) -> None:
    """Options choose instances, and sums are over those; the filter chooses among services."""
    await _some(api)
    assert await _names(api, query) == names


async def test_instances_on_demand(api: Running) -> None:
    """In the form of /v1/health/service, the chosen ones alone."""
    await _some(api)
    body = await api.json("GET", PATH + "?instances&status=critical&tag=a")
    assert body["Services"][0]["Instances"] == [
        entry
        for entry in await api.json("GET", "/v1/health/service/web")
        if entry["Node"]["Node"] == "n2"
    ]
    assert "Instances" not in (await api.json("GET", PATH + "?instances=false"))["Services"][0]


async def test_pages_follow_each_other_whatever_comes_and_goes(api: Running) -> None:
    """Also when the service that the cursor stands behind is gone; nothing is told twice."""
    for number in range(5):
        await _instance(api, f"s{number}", "n1")
    first = await api.json("GET", PATH + "?page-size=2")
    assert [row["Name"] for row in first["Services"]] == ["s0", "s1"]
    await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1", "ServiceID": "s1"})
    await _instance(api, "s05", "n1")
    second = await api.json("GET", PATH + f"?page-size=2&after={first['After']}")
    assert [row["Name"] for row in second["Services"]] == ["s2", "s3"]
    third = await api.json("GET", PATH + f"?page-size=2&after={second['After']}")
    assert ([row["Name"] for row in third["Services"]], third["After"]) == (["s4"], "")


async def test_it_blocks_until_anything_changes(api: Running) -> None:
    """A check's status is a change like a registration; the index is that of the change."""
    await _some(api)
    index = await api.index(PATH)
    waiting = asyncio.ensure_future(  # noqa: TID251  # one request
        api.ask("GET", f"{PATH}?index={index}&wait=10m&passing")
    )
    await api.waiting(1)
    await _instance(api, "web", "n2", Tags=["a", "c"], Meta={"env": "prod", "v": "2"})
    _, body, answer = await waiting
    assert body["Services"][0]["Passing"] == 2
    assert int(answer.headers["X-Consul-Index"]) > index


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?page-size=0", "Invalid page-size 0: it must be between 1 and 1000"),
        ("?page-size=1001", "Invalid page-size 1001"),
        ("?page-size=x", "Invalid page-size 'x'"),
        ("?after=%21", "Invalid after"),
        ("?after=eHh4", "Invalid after"),
        ("?after=MfGA", "Invalid after"),
        ("?status=well", "Bad check status"),
        ("?passing&status=critical", "exclude each other"),
        ("?instances=maybe", "Invalid value for instances"),
        ("?filter=Nme==x", "Selector"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Running, query: str, text: str) -> None:
    """With a text that says what is wrong."""
    status, body, _ = await api.ask("GET", PATH + query)
    assert status == 400
    assert text in body


def _catalog(sizes: list[int]) -> Catalog:
    """Services s000, s001, … with so many instances each."""
    catalog = Catalog()
    changes = Changes()
    catalog.put_node(Node(name="n", address="10.0.0.1"), 1, changes)
    for number, size in enumerate(sizes):
        name = f"s{number:03}"
        for each in range(size):
            row = ServiceInstance(node="n", id=f"{name}-{each}", name=name)
            catalog.put_service(row, 1, changes)
    return catalog


def _page(after: str = "", size: int = 100, filter_: str = "", *, instances: bool = False) -> Page:
    return Page((), (), None, read_cursor(after), size, instances, filter_)


@given(
    st.lists(st.integers(1, 9), max_size=12),
    st.integers(1, 5),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from(["", "Name != s001", "Nodes == 7"]),
)
def test_all_pages_together_are_everything_once(
    sizes: list[int], size: int, limit: int, instances: bool, filter_: str
) -> None:
    """However small the limits, each page goes on, and no page is larger than it may be."""
    catalog = _catalog(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service_pages, "SCAN_MAX", limit)
        patch.setattr(service_pages, "INSTANCES_MAX", limit)
        names: list[str] = []
        after = ""
        for _ in range(2 * len(sizes) + 1):
            page = page_query(_page(after, size, filter_, instances=instances)).json(catalog)
            assert len(page["Services"]) <= size
            names += [row["Name"] for row in page["Services"]]
            after = page["After"]
            if not after:
                break
    everything = [f"s{number:03}" for number in range(len(sizes))]
    chosen = {"": everything, "Name != s001": [n for n in everything if n != "s001"]}
    assert (names, after) == (chosen.get(filter_, []), "")


@given(st.text(max_size=60))
def test_a_cursor_leads_back_to_its_name(name: str) -> None:
    """Whatever the name holds; anything else that a client sends is a cursor or refused."""
    assert read_cursor(cursor(name)) == name
    try:
        read = read_cursor(name)
    except InvalidRequest:
        return
    assert isinstance(read, str)


def test_a_page_is_read_with_its_defaults() -> None:
    """A hundred services, from the beginning, without instances."""
    page = service_pages.read_page(Query(()), ReadOptions())
    assert page == Page((), (), None, "", 100, False, "")
