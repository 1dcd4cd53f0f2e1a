"""Streams of deltas from a server: what they begin with, what they tell, and how they go on."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from raftreg.clock import SystemClock
from raftreg.errors import NotProposed
from raftreg.http import delta_streams, deltas
from tests.server.conftest import Running, running, until

EVENTS = {"Accept": "text/event-stream"}


class Event(dict[str, Any]):
    """The data of an event, with its kind and id."""

    kind = ""
    id = ""


class Events:
    """Reads one stream, event by event."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments = 0

    async def next(self) -> Event:
        """The next event; the test's own timeout bounds the wait."""
        while True:
            block = await self._block()
            fields = dict(line.split(": ", 1) for line in block if not line.startswith(":"))
            self.comments += sum(line.startswith(":") for line in block)
            if "data" in fields:
                event = Event(json.loads(fields["data"]))
                event.kind, event.id = fields["event"], fields.get("id", "")
                return event

    async def _block(self) -> list[str]:
        lines = []
        while line := (await self.answer.content.readline()).decode().rstrip("\n"):
            lines.append(line)
        if not lines and self.answer.content.at_eof():
            raise EOFError
        return lines


@asynccontextmanager
async def stream(api: Running, path: str, since: str = "") -> AsyncIterator[Events]:
    """Opens a stream."""
    headers = EVENTS | ({"Last-Event-ID": since} if since else {})
    async with api.http.get(api.url + path, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Events(answer)


async def _instance(api: Running, node: str, status: str = "passing", **fields: Any) -> None:
    check = {"CheckID": f"c-{node}", "Name": "c", "Status": status, "ServiceID": "web"}
    await api.register(node, "web", Service=fields, Check=check)


def _nodes(rows: list[dict[str, Any]]) -> list[str]:
    return [row["Node"]["Node"] for row in rows]


async def test_a_service_is_told_whole_and_then_by_its_changes(api: Running) -> None:
    """Snapshot first; then who came, how one changed (old and new), and who went."""
    await _instance(api, "n1")
    async with stream(api, "/v1/health/service/web") as events:
        first = await events.next()
        plain = await api.json("GET", "/v1/health/service/web")
        assert (first.kind, first["Rows"], first["More"]) == ("snapshot", plain, False)
        assert int(events.answer.headers["X-Consul-Index"]) == first["Index"]
        await _instance(api, "n2")
        came = await events.next()
        assert (came.kind, _nodes(came["Added"])) == ("delta", ["n2"])
        assert (came["Changed"], came["Removed"]) == ([], [])
        await _instance(api, "n1", Tags=["new"])
        changed = await events.next()
        ((change),) = changed["Changed"]
        assert change["Old"]["Service"]["Tags"] == []
        assert change["New"]["Service"]["Tags"] == ["new"]
        await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n2"})
        gone = await events.next()
        assert _nodes(gone["Removed"]) == ["n2"]
        assert first["Index"] < came["Index"] < changed["Index"] < gone["Index"]


async def test_passing_tag_and_filter_decide_who_comes_and_goes(api: Running) -> None:
    """An instance that does not pass any more is removed from a stream of those that do."""
    await _instance(api, "n1", Tags=["a", "b"])
    filtered = "/v1/health/service/web?passing&tag=a&tag=b&filter=" + "Node.Node%20!=%20n3"
    async with stream(api, filtered) as events:
        assert _nodes((await events.next())["Rows"]) == ["n1"]
        await _instance(api, "n2", Tags=["a"])
        await _instance(api, "n3", Tags=["a", "b"])
        await _instance(api, "n1", "critical", Tags=["a", "b"])
        gone = await events.next()
        assert (_nodes(gone["Removed"]), gone["Added"]) == (["n1"], [])
        await _instance(api, "n1", "passing", Tags=["a", "b"])
        assert _nodes((await events.next())["Added"]) == ["n1"]


async def test_other_services_are_no_news(api: Running) -> None:
    """The next event is about the own service, whatever else happened before."""
    async with stream(api, "/v1/health/service/web") as events:
        assert (await events.next())["Rows"] == []
        await api.register("n9", "other")
        await api.json("PUT", "/v1/kv/k", data=b"v")
        await _instance(api, "n1")
        assert _nodes((await events.next())["Added"]) == ["n1"]


async def test_names_of_services_and_their_tags(api: Running) -> None:
    """Rows of a name and its tags; the union of tags is what changes."""
    await _instance(api, "n1", Tags=["a"])
    async with stream(api, "/v1/catalog/services") as events:
        assert (await events.next())["Rows"] == [{"Name": "web", "Tags": ["a"]}]
        await _instance(api, "n2", Tags=["b"])
        assert (await events.next())["Changed"] == [
            {"Old": {"Name": "web", "Tags": ["a"]}, "New": {"Name": "web", "Tags": ["a", "b"]}}
        ]


async def test_instances_of_the_catalog(api: Running) -> None:
    """/v1/catalog/service tells rows of its own form."""
    async with stream(api, "/v1/catalog/service/web?stale") as events:
        await events.next()
        await _instance(api, "n1")
        assert [row["ServiceID"] for row in (await events.next())["Added"]] == ["web"]


async def test_a_tree_of_keys(api: Running) -> None:
    """Keys under a prefix, values included; other keys, and keys alone, are not its matter."""
    await api.json("PUT", "/v1/kv/t/1", data=b"one")
    async with stream(api, "/v1/kv/t/?recurse") as events:
        assert [row["Key"] for row in (await events.next())["Rows"]] == ["t/1"]
        await api.json("PUT", "/v1/kv/u", data=b"x")
        await api.json("PUT", "/v1/kv/t/1", data=b"two")
        changed = (await events.next())["Changed"][0]
        assert changed["Old"]["Value"] == b64encode(b"one").decode()
        assert changed["New"]["Value"] == b64encode(b"two").decode()
        await api.json("DELETE", "/v1/kv/t/?recurse")
        assert [row["Key"] for row in (await events.next())["Removed"]] == ["t/1"]
    _, _, answer = await api.ask("GET", "/v1/kv/t/1", headers=EVENTS)
    assert answer.content_type == "text/plain"


async def test_who_comes_back_is_told_what_it_missed(api: Running) -> None:
    """With the id of the last event: the differences alone, the same to all, and nothing twice."""
    await _instance(api, "n1")
    async with (
        stream(api, "/v1/health/service/web") as staying,
        stream(api, "/v1/health/service/web") as leaving,
    ):
        await staying.next()
        last = await leaving.next()
        leaving.answer.close()
        await _instance(api, "n2")
        first = await staying.next()
        await _instance(api, "n3")
        second = await staying.next()
        async with stream(api, "/v1/health/service/web", last.id) as back:
            assert [await back.next(), await back.next()] == [first, second]
        async with stream(api, "/v1/health/service/web", second.id) as nothing_missed:
            await _instance(api, "n4")
            assert _nodes((await nothing_missed.next())["Added"]) == ["n4"]


async def test_the_only_client_comes_back_after_changes(api: Running) -> None:
    """What happened while nobody listened comes as one difference."""
    await _instance(api, "n1")
    async with stream(api, "/v1/health/service/web") as events:
        last = await events.next()
    await until(lambda: not api.server.hub.count)
    await _instance(api, "n2")
    await api.json("PUT", "/v1/catalog/deregister", json={"Node": "n1"})
    async with stream(api, "/v1/health/service/web", last.id) as back:
        missed = await back.next()
    assert (missed.kind, _nodes(missed["Added"]), _nodes(missed["Removed"])) == (
        "delta",
        ["n2"],
        ["n1"],
    )


@pytest.mark.parametrize("since", ["1.other", "999999.{epoch}", "3", "x.y", "2.{epoch}"])
async def test_a_place_that_is_not_known_leads_to_a_snapshot(api: Running, since: str) -> None:
    """Another history, an index from the future, one at which nobody looked: never a gap."""
    for node in ("n1", "n2", "n3"):
        await _instance(api, node)
    async with stream(api, "/v1/health/service/web") as events:
        epoch = (await events.next()).id.partition(".")[2]
    async with stream(api, "/v1/health/service/web", since.format(epoch=epoch)) as back:
        first = await back.next()
        assert (first.kind, _nodes(first["Rows"])) == ("snapshot", ["n1", "n2", "n3"])


async def test_a_large_answer_comes_in_several_events(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last one has an id: a part of an answer is no place to go on from."""
    monkeypatch.setattr(deltas, "SNAPSHOT_ROWS_MAX", 2)
    for number in range(5):
        await api.json("PUT", f"/v1/kv/t/{number}", data=b"v")
    async with stream(api, "/v1/kv/t/?recurse") as events:
        parts = [await events.next() for _ in range(3)]
    assert [part["More"] for part in parts] == [True, True, False]
    assert [bool(part.id) for part in parts] == [False, False, True]
    assert [row["Key"] for part in parts for row in part["Rows"]] == [f"t/{n}" for n in range(5)]


async def test_a_client_that_does_not_read_costs_nothing_and_learns_the_newest(
    api: Running,
) -> None:
    """Thousands of changes behind, it is sent the present answer, not the past."""
    value = b"x" * 100_000
    async with stream(api, "/v1/kv/t/?recurse") as events:
        await events.next()
        for number in range(120):  # more than the buffers between us hold
            await api.json("PUT", "/v1/kv/t/k", data=value + str(number).encode())
        last = b64encode(value + b"119").decode()
        seen = 0
        while True:
            event = await events.next()
            seen += 1
            rows = event.get("Rows") or [c["New"] for c in event["Changed"]] + event["Added"]
            if rows[0]["Value"] == last:
                break
    assert seen < 120


async def test_a_beat_shows_that_the_stream_lives(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment comes when there is no news."""
    monkeypatch.setattr(delta_streams, "BEAT_S", 0.01)
    async with stream(api, "/v1/catalog/services") as events:
        await events.next()
        assert (await events.answer.content.readline()).startswith(b":")


async def test_a_stopping_server_ends_its_streams(api: Running) -> None:
    """In order: the client sees the end of the answer and comes back elsewhere."""
    async with stream(api, "/v1/catalog/services") as events:
        await events.next()
        api.server.hub.close(NotProposed("stopping"))
        with pytest.raises(EOFError):
            await events.next()


async def test_streams_are_limited() -> None:
    """One more is refused before it begins; one that ended makes room."""
    async with running(SystemClock(), watchers_max=2) as api:
        async with stream(api, "/v1/catalog/services") as events:
            await events.next()
            status, text, _ = await api.ask("GET", "/v1/catalog/services", headers=EVENTS)
            assert (status, text) == (429, "1 streams are open already; retry later")
        await until(lambda: not api.server.hub.count)
        async with stream(api, "/v1/catalog/services") as events:
            await events.next()


async def test_many_streams_share_one_watch(api: Running) -> None:
    """However many follow a service, a change is looked at once."""
    async with asyncio.TaskGroup() as group:
        told = asyncio.Semaphore(0)

        async def follow() -> list[str]:
            async with stream(api, "/v1/health/service/web") as events:
                await events.next()
                told.release()
                return _nodes((await events.next())["Added"])

        tasks = [group.create_task(follow()) for _ in range(50)]
        for _ in tasks:
            await told.acquire()
        assert api.server.hub.count == 1
        await _instance(api, "n1")
    assert [task.result() for task in tasks] == [["n1"]] * 50


async def test_head_and_plain_reads_are_as_before(api: Running) -> None:
    """Only a GET that asks for events gets them."""
    for path in ("/v1/health/service/web", "/v1/catalog/nodes"):
        async with api.http.head(api.url + path, headers=EVENTS) as answer:
            assert answer.content_type == "application/json"
    _, body, _ = await api.ask("GET", "/v1/catalog/nodes", headers=EVENTS)
    assert body == []
