"""Who is woken by what, and what is shared."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.changes import Topic, covers
from raftreg.errors import NotProposed
from raftreg.http.problems import TooManyWatches
from raftreg.http.watch import RenderedCache, WatchHub

_keys = st.text(alphabet="ab/", max_size=4)
_published = st.one_of(
    st.tuples(st.sampled_from(["kv", "kv-tree", "service", "node"]), _keys),
    st.just(("all", "")),
)
_waiting = st.tuples(st.sampled_from(["kv", "kv-prefix", "service", "node"]), _keys)


@given(st.lists(_waiting, max_size=8), _published)
def test_the_hub_wakes_exactly_whom_a_change_covers(waiting: list[Topic], published: Topic) -> None:
    """The indexed lookup agrees with the rule `covers`, for all topics."""

    async def run() -> list[bool]:
        hub = WatchHub()
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(hub.wait((topic,), 60.0)) for topic in waiting]
            await asyncio.sleep(0)
            hub.publish((published,))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            woken = [wait.done() for wait in waits]
            hub.publish((("all", ""),))
        assert hub.count == 0
        assert hub._waiters == {}
        assert not hub._prefix_lengths
        return woken

    assert asyncio.run(run()) == [covers(topic, published) for topic in waiting]


async def test_a_wait_ends_with_its_time() -> None:
    """False tells that nothing was published."""
    assert await WatchHub().wait((("kv", "a"),), 0.0) is False


async def test_a_cancelled_wait_is_forgotten() -> None:
    """Nothing of it stays behind."""
    hub = WatchHub()
    async with asyncio.TaskGroup() as tasks:
        wait = tasks.create_task(hub.wait((("kv", "a"), ("kv-prefix", "b")), 60.0))
        await asyncio.sleep(0)
        assert hub.count == 1
        wait.cancel()
    assert (hub.count, hub._waiters) == (0, {})


async def test_limits_and_closing() -> None:
    """More waiters than allowed are refused; a closed hub refuses all and ends those there are."""
    hub = WatchHub(watchers_max=1)
    async with asyncio.TaskGroup() as tasks:
        wait = tasks.create_task(_outcome(hub))
        await asyncio.sleep(0)
        with pytest.raises(TooManyWatches):
            await hub.wait((("kv", "b"),), 60.0)
        hub.close(NotProposed("stopping"))
    assert isinstance(wait.result(), NotProposed)
    with pytest.raises(NotProposed):
        await hub.wait((("kv", "b"),), 60.0)


async def _outcome(hub: WatchHub) -> object:
    try:
        return await hub.wait((("kv", "a"),), 60.0)
    except NotProposed as error:
        return error


def test_rendered_bytes_are_shared_and_bounded() -> None:
    """One rendering an index; the oldest goes first; what is too large is not kept."""
    cache, calls = RenderedCache(entries_max=2, bytes_max=800), []

    def render(body: bytes) -> bytes:
        calls.append(body)
        return body

    assert cache.get("a", 1, lambda: render(b"1")) == b"1"
    assert cache.get("a", 1, lambda: render(b"never")) == b"1"
    assert cache.get("a", 2, lambda: render(b"2")) == b"2"
    cache.get("b", 1, lambda: render(b"b"))
    cache.get("c", 1, lambda: render(b"c"))
    assert cache.get("a", 2, lambda: render(b"again")) == b"again"
    large = b"x" * 500
    cache.get("big", 1, lambda: render(large))
    cache.get("big", 1, lambda: render(large))
    assert calls.count(large) == 2
    cache.clear()
    assert cache._bytes == 0
