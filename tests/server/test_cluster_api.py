"""Transactions, status, operator, snapshots and the view feed."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from raftreg.core.catalog import Catalog
from raftreg.core.delta import decode_deltas
from raftreg.errors import NoLeader, UnknownOutcome
from raftreg.raft.api import PeerStatus, ReplicaStatus, Role, Server
from raftreg.server.api.autopilot import health_json
from tests.server.conftest import Running, until


def _kv(verb: str, key: str, value: bytes = b"", **more: Any) -> dict[str, Any]:
    return {"KV": {"Verb": verb, "Key": key, "Value": b64encode(value).decode(), **more}}


# -- transactions ---------------------------------------------------------------------------------


async def test_a_transaction_takes_effect_whole(api: Running) -> None:
    """A set answers without its value, a get with it, both as entries."""
    body = [_kv("set", "a", b"1", Flags=7), _kv("get", "a")]
    answer = await api.json("PUT", "/v1/txn", json=body)
    assert answer["Errors"] is None
    first, second = (result["KV"] for result in answer["Results"])
    assert (first["Value"], first["Flags"]) == (None, 7)
    assert b64decode(second["Value"]) == b"1"


async def test_a_failed_transaction_changes_nothing(api: Running) -> None:
    """409 with null results and the operation that failed."""
    body = [_kv("set", "a", b"1"), _kv("check-index", "a", Index=12345)]
    status, answer, _ = await api.ask("PUT", "/v1/txn", json=body)
    assert (status, answer["Results"]) == (409, None)
    (error,) = answer["Errors"]
    assert error["OpIndex"] == 1
    assert error["What"]
    assert (await api.ask("GET", "/v1/kv/a"))[0] == 404


async def test_a_reading_transaction_costs_no_entry(api: Running) -> None:
    """Reads alone are answered from the state, with index headers."""
    await api.json("PUT", "/v1/kv/a", data=b"1")
    before = api.machine.state.index
    status, answer, response = await api.ask("PUT", "/v1/txn", json=[_kv("get", "a")])
    assert (status, api.machine.state.index) == (200, before)
    assert b64decode(answer["Results"][0]["KV"]["Value"]) == b"1"
    assert response.headers["X-Consul-KnownLeader"] == "true"
    status, _, _ = await api.ask("PUT", "/v1/txn", json=[_kv("get", "none")])
    assert status == 409


async def test_catalog_operations_in_a_transaction(api: Running) -> None:
    """Nodes, services and checks are written together."""
    body = [
        {"Node": {"Verb": "set", "Node": {"Node": "n1", "Address": "10.0.0.1"}}},
        {"Service": {"Verb": "set", "Node": "n1", "Service": {"Service": "web", "Port": 80}}},
        {
            "Check": {
                "Verb": "set",
                "Check": {"Node": "n1", "CheckID": "c", "ServiceID": "web", "Status": "passing"},
            }
        },
        {"Service": {"Verb": "get", "Node": "n1", "Service": {"ID": "web"}}},
    ]
    answer = await api.json("PUT", "/v1/txn", json=body)
    assert answer["Results"][-1]["Service"]["Port"] == 80
    assert len(await api.json("GET", "/v1/health/service/web?passing")) == 1


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "a list of operations"),
        ([{}], 400, "operation 0 must hold exactly one of"),
        ([_kv("frobnicate", "a")], 400, "unknown Verb"),
        ([_kv("set", "")], 400, "Missing key name"),
        ([{"KV": {"Verb": "set", "Key": "a", "Value": "%%%"}}], 400, "must be base64"),
        ([_kv("set", "a")] * 65, 413, "too many operations (65 > 64)"),
        ([_kv("set", "a", b"x" * (512 * 1024 + 1))], 413, "is too large"),
    ],
)
async def test_bad_transactions(api: Running, body: Any, status: int, text: str) -> None:
    """A body that can't be used is refused as a whole, with the operation at fault."""
    got, answer, _ = await api.ask("PUT", "/v1/txn", json=body)
    assert (got, text in answer) == (status, True), answer


# -- outcomes -------------------------------------------------------------------------------------


async def test_no_leader_is_500_with_consuls_text(api: Running) -> None:
    """Reads and writes say the same; a stale read answers all the same."""

    async def nobody(*_: Any, **__: Any) -> Any:
        raise NoLeader("nobody was heard for 5 s")

    await api.json("PUT", "/v1/kv/k", data=b"1")
    api.replica.propose = nobody  # type: ignore[method-assign]
    api.replica.read_index = nobody  # type: ignore[method-assign]
    for method, path in (("GET", "/v1/kv/k"), ("PUT", "/v1/kv/k"), ("GET", "/v1/catalog/nodes")):
        status, body, _ = await api.ask(method, path)
        assert (status, body) == (500, "No cluster leader")
    assert (await api.ask("GET", "/v1/kv/k?stale"))[0] == 200


async def test_an_unknown_outcome_says_that_it_may_commit(api: Running) -> None:
    """503, and the text keeps the client from repeating blindly."""

    async def unknown(*_: Any, **__: Any) -> Any:
        raise UnknownOutcome("no answer in time")

    api.replica.propose = unknown  # type: ignore[method-assign]
    status, body, answer = await api.ask("PUT", "/v1/kv/k", data=b"1")
    assert (status, "the write may still commit" in body) == (503, True)
    assert answer.headers["X-Raftreg-Error"] == "unknown_outcome"


# -- status and operator --------------------------------------------------------------------------


async def test_status_and_configuration(api: Running) -> None:
    """Leader and peers as ip:port, members as Consul lists them."""
    assert await api.json("GET", "/v1/status/leader") == "127.0.0.1:8300"
    assert await api.json("GET", "/v1/status/peers") == ["127.0.0.1:8300"]
    body = await api.json("GET", "/v1/operator/raft/configuration")
    assert body["Servers"] == [
        {
            "ID": "6a3f",
            "Node": "s1",
            "Address": "127.0.0.1:8300",
            "Leader": True,
            "ProtocolVersion": "3",
            "Voter": True,
        }
    ]
    health = await api.json("GET", "/v1/operator/autopilot/health")
    assert (health["Healthy"], health["FailureTolerance"]) == (True, 0)
    assert await api.json("GET", "/v1/operator/autopilot/configuration")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("DELETE", "/v1/operator/raft/peer", 400, "either ?id"),
        ("DELETE", "/v1/operator/raft/peer?id=nobody", 404, "no server 'nobody'"),
        ("DELETE", "/v1/operator/raft/peer?id=6a3f", 500, "only server"),
        ("PUT", "/v1/operator/raft/add?id=x", 400, "?address"),
        ("PUT", "/v1/operator/raft/add?id=x&address=y", 400, "host:port"),
        ("PUT", "/v1/operator/raft/transfer-leader?id=nobody", 404, "no server"),
    ],
)
async def test_bad_operations(api: Running, method: str, path: str, status: int, text: str) -> None:
    """Membership changes name what is wrong."""
    got, body, _ = await api.ask(method, path)
    assert (got, text in body) == (status, True), body


async def test_leadership_is_handed_over(api: Running) -> None:
    """The answer names the new leader."""
    for method in ("PUT", "POST"):
        body = await api.json(method, "/v1/operator/raft/transfer-leader?id=6a3f")
        assert body == {"Success": True, "Leader": "6a3f"}


def test_health_counts_failures_that_can_be_borne() -> None:
    """One of three voters away: not healthy, and no further failure can be borne."""
    servers = tuple(
        Server(id=name, name=name, address=f"127.0.0.1:{port}")
        for name, port in (("a", 1), ("b", 2), ("c", 3))
    )
    status = ReplicaStatus(
        id="a",
        role=Role.LEADER,
        term=3,
        leader_id="a",
        commit_index=10,
        applied_index=10,
        last_log_index=10,
        first_log_index=1,
        last_snapshot_index=0,
        servers=servers,
        leader_contact_age_s=0.0,
        peers={
            "b": PeerStatus(connected=True, match_index=10, contact_age_s=0.01),
            "c": PeerStatus(connected=False),
        },
    )
    body = health_json(status)
    assert [entry["Healthy"] for entry in body["Servers"]] == [True, True, False]
    assert (body["Healthy"], body["FailureTolerance"]) == (False, 0)


# -- snapshots ------------------------------------------------------------------------------------


async def _saved(api: Running) -> bytes:
    async with api.http.get(api.url + "/v1/snapshot") as answer:
        assert answer.status == 200
        assert int(answer.headers["X-Consul-Index"]) >= 1
        return await answer.read()


async def test_a_snapshot_is_an_archive_that_clients_can_verify(api: Running) -> None:
    """It holds meta.json, state.bin and their sums."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    with tarfile.open(fileobj=io.BytesIO(await _saved(api)), mode="r:gz") as archive:
        files = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }
    assert list(files) == ["meta.json", "state.bin", "SHA256SUMS"]
    meta = json.loads(files["meta.json"])
    assert (meta["Version"], meta["Size"]) == (1, len(files["state.bin"]))
    sums = dict(line.split("  ")[::-1] for line in files["SHA256SUMS"].decode().splitlines())
    for name in ("meta.json", "state.bin"):
        assert sums[name] == hashlib.sha256(files[name]).hexdigest()


async def test_a_restore_brings_everything_back(api: Running) -> None:
    """Also what needs several parts, and it wakes watchers."""
    for number in range(4):
        await api.json("PUT", f"/v1/kv/k{number}", data=bytes([number]) * 400_000)
    archive = await _saved(api)
    await api.json("DELETE", "/v1/kv/k?recurse")
    index = await api.index("/v1/kv/k0")
    async with asyncio.TaskGroup() as tasks:
        blocked = tasks.create_task(api.ask("GET", f"/v1/kv/k0?index={index}&wait=1m"))
        await api.waiting(1)
        assert (await api.ask("PUT", "/v1/snapshot", data=archive))[0] == 200
    assert blocked.result()[0] == 200
    assert len(await api.json("GET", "/v1/kv/k?keys")) == 4


def _archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "can't be read"),
        (b"no archive", "can't be read"),
        (gzip.compress(b"no tar"), "can't be read"),
        (_archive({"../evil": b"x"}), "unexpected member"),
        (_archive({"meta.json": b"{}"}), "differs from SHA256SUMS"),
        (_archive({"SHA256SUMS": b""}), "holds no meta.json"),
        (
            _archive({"meta.json": b"{}", "state.bin": b"x", "SHA256SUMS": b"00  meta.json\n"}),
            "differs from SHA256SUMS",
        ),
    ],
    ids=["empty", "no gzip", "no tar", "stray member", "no sums", "no meta", "wrong sum"],
)
async def test_bad_archives(api: Running, data: bytes, text: str) -> None:
    """An archive that can't be trusted is refused before anything is replicated."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    index = api.machine.state.index
    status, body, _ = await api.ask("PUT", "/v1/snapshot", data=data)
    assert (status, text in body) == (400, True), body
    assert api.machine.state.index == index


async def test_a_snapshot_of_another_program(api: Running) -> None:
    """A whole archive whose state.bin is not ours, as Consul's own is, costs no log entry."""
    await api.json("PUT", "/v1/kv/k", data=b"1")
    index = api.machine.state.index
    files = {"meta.json": b"{}", "state.bin": b"\x00\x01what Consul writes here"}
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    archive = _archive({**files, "SHA256SUMS": "".join(sums).encode()})
    status, body, _ = await api.ask("PUT", "/v1/snapshot", data=archive)
    assert (status, body) == (400, "this is no raftreg snapshot")
    assert (api.machine.state.index, api.machine.state.staging) == (index, None)


# -- the view feed --------------------------------------------------------------------------------


class View:
    """A catalog kept by the feed, as an agent does it."""

    def __init__(self) -> None:
        self.catalog = Catalog()
        self.kinds: list[str] = []
        self.epoch = ""

    async def follow(self, answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
        """Applies frame after frame, and yields the kind of each."""
        while True:
            size = int.from_bytes(await answer.content.readexactly(4), "big")
            frame = msgspec.msgpack.decode(await answer.content.readexactly(size))
            kind = frame["kind"]
            if kind == "reset":
                self.catalog, self.epoch = Catalog(frame["index"]), frame["epoch"]
            elif kind == "deltas":
                for delta in decode_deltas(msgspec.msgpack.encode(frame["deltas"])):
                    self.catalog.apply_delta(delta)
            self.catalog.index = max(self.catalog.index, frame["index"])
            self.kinds.append(kind)
            yield kind


async def _until_beat(frames: AsyncIterator[str]) -> None:
    async for kind in frames:
        if kind == "beat":
            return


async def test_a_view_follows_and_resumes(api: Running) -> None:
    """First the whole content, then each change; after a break only what was missed."""
    await api.register("n1", "web")
    await until(lambda: api.machine.state.config)
    view = View()
    async with api.http.get(api.url + "/v1/internal/view") as answer:
        frames = view.follow(answer)
        await _until_beat(frames)
        assert view.kinds == ["reset", "deltas", "beat"]
        await api.register("n2", "web")
        async for _ in frames:
            if view.catalog.nodes.keys() == {"n1", "n2"}:
                break
    await api.register("n3", "web")
    await api.json("PUT", "/v1/kv/k", data=b"1")
    view.kinds.clear()
    params = {"index": str(view.catalog.index), "epoch": view.epoch}
    async with api.http.get(api.url + "/v1/internal/view", params=params) as answer:
        await _until_beat(view.follow(answer))
    assert view.kinds == ["resume", "deltas", "beat"]
    assert view.catalog.nodes == api.machine.state.catalog.nodes
    assert list(view.catalog.instances("web")) == list(api.machine.state.catalog.instances("web"))


async def test_a_feed_that_fails_breaks_off(
    api: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What ends a feed after its head was sent breaks the connection; a second answer within the
    body of the first would be taken for a piece of it. It is no fault worth a traceback.
    """

    async def stopped(timeout_s: float) -> bool:
        raise NoLeader("this server is stopping")

    monkeypatch.setattr(api.server._context.feed, "wait", stopped)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    writer.write(b"GET /v1/internal/view HTTP/1.1\r\nHost: s1\r\n\r\n")
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            answer += piece
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n")  # nobody may take it for whole
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_view_of_another_history_starts_anew(api: Running) -> None:
    """An epoch that is not ours, or a restore, gives a reset."""
    await api.register("n1", "web")
    view = View()
    params = {"index": "5", "epoch": "other"}
    async with api.http.get(api.url + "/v1/internal/view", params=params) as answer:
        frames = view.follow(answer)
        await _until_beat(frames)
        assert view.kinds[0] == "reset"
        view.kinds.clear()
        await api.ask("PUT", "/v1/snapshot", data=await _saved(api))
        async for kind in frames:
            if kind == "reset":
                break
        await _until_beat(frames)
    assert view.catalog.nodes.keys() == {"n1"}


async def test_a_view_that_fell_behind_starts_anew(api: Running) -> None:
    """The ring is bounded; who needs more than it holds gets the whole content."""
    await api.register("n1", "web")
    feed = api.server._context.feed
    await until(api.server._upkeep.epoch)
    epoch, begin = api.server._upkeep.epoch(), feed.index
    assert feed.can_resume(begin, epoch)
    for port in range(1, 3):
        feed._ring_rows = 20_000  # as if much had happened
        await api.register("n1", "web", Service={"Port": port})
    assert not feed.can_resume(begin, epoch)
    assert feed.after(begin) is None
    _, frames = await feed.start(begin, epoch)
    assert msgspec.msgpack.decode(frames[0][4:])["kind"] == "reset"


async def test_a_shared_content_is_as_new_as_the_state(api: Running) -> None:
    """A reset made of an older content and what followed it carries the index of now."""
    await api.register("n1", "web")
    feed = api.server._context.feed
    await feed.start(0, "")
    await api.register("n2", "web")
    view = View()
    async with api.http.get(api.url + "/v1/internal/view") as answer:
        frames = view.follow(answer)
        await anext(frames)
        assert view.catalog.index == feed.index
        await _until_beat(frames)
    assert view.catalog.nodes.keys() == {"n1", "n2"}
