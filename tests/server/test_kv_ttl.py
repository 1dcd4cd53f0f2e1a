"""Keys with a TTL over a real socket: how they are written, shown, renewed, and how they end."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from raftreg.clock import ManualClock
from tests.server.conftest import Running

TTL = "/v1/kv/k?ttl=30s"
LEFT = "X-Raftreg-Expires-In"


@pytest.fixture(params=[True, False], ids=["short", "plain"])
def short_way(request: pytest.FixtureRequest) -> bool:
    """All of this holds on both roads."""
    return bool(request.param)


def _pass(timed: Running, seconds: float) -> None:
    """Lets time pass in steps as a live clock would, without a stall that the leader sees."""
    assert isinstance(timed.clock, ManualClock)
    timed.clock.advance(seconds)
    timed.server.expiry.look()


async def _gone(timed: Running, key: str) -> bool:
    status, _, _ = await timed.ask("GET", f"/v1/kv/{key}?stale")
    return status == 404


async def _until_gone(timed: Running, key: str) -> None:
    while not await _gone(timed, key):
        _pass(timed, 0.1)


async def test_a_ttl_is_shown_with_what_is_left_of_it(timed: Running) -> None:
    """The length stands in the entry, the rest in a header; other keys have neither."""
    assert await timed.json("PUT", TTL, data=b"v") is True
    _pass(timed, 10)
    for query in ("", "?stale", "?index=1", "?raw"):
        _, body, answer = await timed.ask("GET", "/v1/kv/k" + query)
        assert answer.headers[LEFT] == "20s", query
        if query != "?raw":
            assert body[0]["TTL"] == "30s", query
    assert (await timed.json("GET", "/v1/kv/?recurse"))[0]["TTL"] == "30s"
    await timed.json("PUT", "/v1/kv/other", data=b"v")
    _, body, answer = await timed.ask("GET", "/v1/kv/other")
    assert LEFT not in answer.headers
    assert "TTL" not in body[0]


async def test_a_key_ends_after_its_ttl_and_its_watchers_are_told(timed: Running) -> None:
    """Not before; then it is gone like a deleted key, with a higher index."""
    await timed.json("PUT", TTL, data=b"v")
    index = await timed.index("/v1/kv/k")
    watch = asyncio.ensure_future(  # noqa: TID251  # one request
        timed.ask("GET", f"/v1/kv/k?index={index}&wait=10m")
    )
    await timed.waiting(1)
    _pass(timed, 29.9)
    assert not await _gone(timed, "k")
    assert not watch.done()
    _pass(timed, 0.1)
    await _until_gone(timed, "k")
    status, _, answer = await watch
    assert status == 404
    assert int(answer.headers["X-Consul-Index"]) > index
    page = await timed.ask("GET", "/v1/agent/metrics?format=prometheus")
    assert 'raftreg_leases_expired_total{kind="key"} 1.0' in page[1]


async def test_a_renewal_gives_a_full_term_and_wakes_nobody(timed: Running) -> None:
    """Value and index stay as they are; the key ends one TTL after the last renewal."""
    await timed.json("PUT", TTL, data=b"v")
    (before,) = await timed.json("GET", "/v1/kv/k")
    index = await timed.index("/v1/kv/k")
    watch = asyncio.ensure_future(  # noqa: TID251  # one request
        timed.ask("GET", f"/v1/kv/k?index={index}&wait=10m")
    )
    await timed.waiting(1)
    for _ in range(5):
        _pass(timed, 25)
        status, body, answer = await timed.ask("PUT", "/v1/kv/k?renew")
        assert (status, body) == (200, True)
        assert "X-Consul-Index" not in answer.headers
    assert await timed.json("GET", "/v1/kv/k") == [before]
    assert not watch.done()
    _pass(timed, 30)
    await _until_gone(timed, "k")
    await watch
    assert await timed.json("PUT", "/v1/kv/k?renew") is False


async def test_a_renewal_may_be_bound_to_an_index_and_change_the_ttl(timed: Running) -> None:
    """With ?cas it fails where somebody wrote since; with ?ttl it sets another length."""
    await timed.json("PUT", TTL, data=b"v")
    index = (await timed.json("GET", "/v1/kv/k"))[0]["ModifyIndex"]
    assert await timed.json("PUT", f"/v1/kv/k?renew&cas={index}") is True
    assert await timed.json("PUT", "/v1/kv/k?renew&ttl=1h") is True
    (entry,) = await timed.json("GET", "/v1/kv/k")
    assert (entry["TTL"], entry["Value"]) == ("1h0m0s", b64encode(b"v").decode())
    assert entry["ModifyIndex"] > index
    assert await timed.json("PUT", f"/v1/kv/k?renew&cas={index}") is False


@pytest.mark.parametrize("query", ["", "?cas={index}", "?acquire={session}"])
async def test_a_write_without_a_ttl_lets_the_key_live(timed: Running, query: str) -> None:
    """Whoever writes decides how long it lives; a TTL on the write sets it anew."""
    await timed.register("n1", Check={"Name": "x", "CheckID": "serfHealth", "Status": "passing"})
    session = (await timed.json("PUT", "/v1/session/create", json={"Node": "n1"}))["ID"]
    await timed.json("PUT", TTL, data=b"v")
    index = (await timed.json("GET", "/v1/kv/k"))[0]["ModifyIndex"]
    path = "/v1/kv/k" + query.format(index=index, session=session)
    assert await timed.json("PUT", path, data=b"w") is True
    (entry,) = await timed.json("GET", "/v1/kv/k")
    assert "TTL" not in entry
    mark = "&" if "?" in path else "?"
    path = path.replace(f"cas={index}", f"cas={entry['ModifyIndex']}")
    assert await timed.json("PUT", f"{path}{mark}ttl=1m", data=b"w") is True
    assert (await timed.json("GET", "/v1/kv/k"))[0]["TTL"] == "1m0s"


async def test_a_transaction_sets_and_renews(timed: Running) -> None:
    """`TTL` beside `Value`, and the verb renew; a failing one names what could not be renewed."""
    value = b64encode(b"v").decode()

    def kv(verb: str, key: str, **fields: Any) -> dict[str, Any]:
        return {"KV": {"Verb": verb, "Key": key, **fields}}

    body = [kv("set", "a", Value=value, TTL="30s"), kv("set", "b", Value=value, TTL="1h")]
    done = await timed.json("PUT", "/v1/txn", json=body)
    assert [row["KV"]["TTL"] for row in done["Results"]] == ["30s", "1h0m0s"]
    _pass(timed, 20)
    await timed.json("PUT", "/v1/txn", json=[kv("renew", "a")])
    _pass(timed, 20)
    assert not await _gone(timed, "a")
    status, answer, _ = await timed.ask(
        "PUT", "/v1/txn", json=[kv("renew", "a"), kv("renew", "none")]
    )
    assert status == 409
    (error,) = answer["Errors"]
    assert error["OpIndex"] == 1
    assert error["What"].startswith('failed to renew key "none"')
    status, text, _ = await timed.ask("PUT", "/v1/txn", json=[kv("set", "a", TTL="1ms")])
    assert (status, text) == (
        400,
        "operation 0: Invalid ttl '1ms': it must be between 1s and 8784h",
    )


async def test_thousands_of_keys_that_end_together_are_all_deleted(timed: Running) -> None:
    """In commands of bounded size, one after the other."""
    operations = [
        {"KV": {"Verb": "set", "Key": f"many/{number}", "TTL": "10s"}} for number in range(1_500)
    ]
    for start in range(0, len(operations), 64):
        await timed.json("PUT", "/v1/txn", json=operations[start : start + 64])
    index = timed.machine.state.index
    _pass(timed, 10)
    kv = timed.machine.state.kv
    while len(kv):
        _pass(timed, 0.1)
        await asyncio.sleep(0)
    assert timed.machine.state.index - index <= 1_500 // 256 + 1
    assert timed.server.expiry.expired_keys == 1_500


@pytest.mark.parametrize(
    ("path", "data", "text"),
    [
        ("/v1/kv/k?ttl=", b"", 'time: invalid duration ""'),
        ("/v1/kv/k?ttl=30", b"", 'time: missing unit in duration "30"'),
        ("/v1/kv/k?ttl=0s", b"", "Invalid ttl '0s': it must be between 1s and 8784h"),
        ("/v1/kv/k?ttl=999ms", b"", "Invalid ttl '999ms'"),
        ("/v1/kv/k?ttl=8785h", b"", "Invalid ttl '8785h'"),
        ("/v1/kv/k?ttl=-5s", b"", "Invalid ttl '-5s'"),
        ("/v1/kv/k?renew", b"v", "?renew keeps the value of the key: send no body"),
        ("/v1/kv/k?renew&acquire=s", b"", "Conflicting flags: renew, acquire"),
        ("/v1/kv/k?renew&flags=1", b"", "Conflicting flags: renew, flags"),
        ("/v1/kv/k?renew&cas=0", b"", "?renew with ?cas=0"),
        ("/v1/kv/forever?renew", b"", 'key "forever" has no TTL to renew'),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: Running, path: str, data: bytes, text: str
) -> None:
    """The text says what is wrong; nothing is written."""
    await api.json("PUT", "/v1/kv/forever", data=b"v")
    status, body, _ = await api.ask("PUT", path, data=data)
    assert status == 400
    assert text in body
    assert (await api.ask("GET", "/v1/kv/k"))[0] == 404


async def test_a_stalled_leader_listens_before_it_expires(timed: Running) -> None:
    """Who could not renew because nobody listened gets the chance: a stop of 60 s ends nothing."""
    assert isinstance(timed.clock, ManualClock)
    await timed.json("PUT", "/v1/kv/k?ttl=1s", data=b"v")
    timed.clock.advance(60)  # nobody looks: the timer will fire late
    timed.server.expiry.look()
    assert await timed.json("PUT", "/v1/kv/k?renew") is True
    _pass(timed, 0.9)
    assert not await _gone(timed, "k")
