"""Blocking queries: who waits for what, and who is woken by which change.

A query listens on topics (see `raftreg.core.query`); a change publishes topics. Waiting costs one
future and one timer, no task and no polling. `("kv-prefix", p)` is a topic of listeners only: it
hears every key under `p`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeVar

from raftreg.errors import RaftregError
from raftreg.http.problems import TooManyWatches

Topic = tuple[str, str]

WATCHERS_MAX = 100_000
RENDERED_ENTRIES_MAX = 4096
RENDERED_BYTES_MAX = 64 * 1024 * 1024
KV, KV_TREE, KV_PREFIX, ALL = "kv", "kv-tree", "kv-prefix", "all"


class Waiter(Protocol):
    """One blocked query.

    Attributes:
        topics: What it listens on; `(ALL, "")` is among them.
    """

    topics: tuple[Topic, ...]

    def wake(self) -> None:
        """One of the topics was published. Called in the middle of a change: only note it."""
        ...

    def fail(self, reason: RaftregError) -> None:
        """The hub was closed; the waiter may leave it now."""
        ...


class _Waiter:
    """One blocked query that awaits a future."""

    __slots__ = ("topics", "woken")

    def __init__(self, topics: tuple[Topic, ...], woken: asyncio.Future[bool]) -> None:
        self.topics = topics
        self.woken = woken

    def wake(self) -> None:
        self.end(changed=True)

    def end(self, *, changed: bool) -> None:
        if not self.woken.done():
            self.woken.set_result(changed)

    def fail(self, reason: RaftregError) -> None:
        if not self.woken.done():
            self.woken.set_exception(reason)


class WatchHub:
    """Waiters by topic.

    Args:
        watchers_max: Waiters at once; more are refused.
    """

    def __init__(self, watchers_max: int = WATCHERS_MAX) -> None:
        self._watchers_max = watchers_max
        self._waiters: dict[Topic, set[Waiter]] = {}
        # Lengths of watched prefixes: a key asks for one slice of itself a length, not a prefix.
        self._prefix_lengths: Counter[int] = Counter()
        self._count = 0
        self._closed: RaftregError | None = None

    @property
    def count(self) -> int:
        """Waiters now."""
        return self._count

    async def wait(self, topics: Iterable[Topic], timeout_s: float) -> bool:
        """Waits until one of the topics is published.

        The caller compares the index right before the call, without an await in between: then no
        change is missed, since registration happens before the first suspension.

        Args:
            topics: What the query depends on.
            timeout_s: Longest wait, in seconds.

        Returns:
            True when a topic was published, False when the time is over.

        Raises:
            TooManyWatches: The limit is reached.
            RaftregError: What `close` was given.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter((*topics, (ALL, "")), loop.create_future())
        self.join(waiter)
        timer = loop.call_later(max(timeout_s, 0.0), lambda: waiter.end(changed=False))
        try:
            return await waiter.woken
        finally:
            timer.cancel()
            self.leave(waiter)

    def join(self, waiter: Waiter) -> None:
        """Lets a waiter listen until it leaves.

        Raises:
            TooManyWatches: The limit is reached.
            RaftregError: What `close` was given.
        """
        if self._closed is not None:
            raise self._closed
        if self._count >= self._watchers_max:
            raise TooManyWatches(
                f"{self._count} blocking queries wait already; retry later, or without ?index"
            )
        self._add(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Lets a waiter that has joined listen no more."""
        self._remove(waiter)

    def publish(self, topics: Iterable[Topic]) -> None:
        """Wakes everyone who listens on one of these topics."""
        if not self._count:
            return
        for topic in topics:
            kind, name = topic
            if kind == ALL:
                self._wake_all()
            elif kind == KV:
                self._wake(topic)
                self._wake_prefixes_of(name)
            elif kind == KV_TREE:
                self._wake_tree(name)
            else:
                self._wake(topic)

    def close(self, reason: RaftregError) -> None:
        """Ends all waits with an error, and refuses new ones: the server stops."""
        self._closed = reason
        for waiter in {waiter for waiters in self._waiters.values() for waiter in waiters}:
            waiter.fail(reason)

    def _add(self, waiter: Waiter) -> None:
        self._count += 1
        for topic in waiter.topics:
            waiters = self._waiters.get(topic)
            if waiters is None:
                waiters = self._waiters[topic] = set()
                if topic[0] == KV_PREFIX:
                    self._prefix_lengths[len(topic[1])] += 1
            waiters.add(waiter)

    def _remove(self, waiter: Waiter) -> None:
        self._count -= 1
        for topic in waiter.topics:
            waiters = self._waiters.get(topic)
            if waiters is None:
                continue
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[topic]
                if topic[0] == KV_PREFIX:
                    self._forget_prefix_length(len(topic[1]))

    def _forget_prefix_length(self, length: int) -> None:
        self._prefix_lengths[length] -= 1
        if not self._prefix_lengths[length]:
            del self._prefix_lengths[length]

    def _wake(self, topic: Topic) -> None:
        for waiter in self._waiters.get(topic, ()):
            waiter.wake()

    def _wake_prefixes_of(self, key: str) -> None:
        for length in self._prefix_lengths:
            if length <= len(key):
                self._wake((KV_PREFIX, key[:length]))

    def _wake_tree(self, prefix: str) -> None:
        """A whole tree changed: keys in it, prefixes in it, and prefixes that it lies under."""
        for topic in self._waiters:
            kind, name = topic
            inside = kind in {KV, KV_PREFIX} and name.startswith(prefix)
            if inside or (kind == KV_PREFIX and prefix.startswith(name)):
                self._wake(topic)

    def _wake_all(self) -> None:
        for topic in self._waiters:
            self._wake(topic)


class Indexed(Protocol):
    """A result with the index of what it covers (`raftreg.core.query.Found`)."""

    @property
    def index(self) -> int:
        """Index of the last change that it covers."""
        ...


Found = TypeVar("Found", bound=Indexed)


async def block(
    hub: WatchHub,
    find: Callable[[], Found],
    topics: Iterable[Topic],
    *,
    index: int,
    wait_s: float,
    now: Callable[[], float],
) -> Found:
    """Runs a query until its index passes `index`, or the time is over.

    Args:
        hub: Wakes on changes.
        find: The query over the present state; runs again after each wake.
        topics: What the query depends on.
        index: Index that the client has; 0 answers at once.
        wait_s: Longest time to block, jitter included, in seconds.
        now: Monotonic seconds.
    """
    found = find()
    if index == 0 or found.index > index:
        return found
    topics = tuple(topics)
    until = now() + wait_s
    while await hub.wait(topics, until - now()):
        found = find()
        if found.index > index:
            return found
    return find()


class RenderedCache:
    """Bodies by query and index, so that waiters of one result render it once. Bounded LRU.

    Sound because a query's index rises whenever its value changes (a property test of the core
    holds it to that).

    Args:
        entries_max, bytes_max: Bounds of what is kept; a larger body is not kept at all.

    Attributes:
        clearings: How often everything was forgotten: an index alone names no state over these.
    """

    def __init__(
        self,
        entries_max: int = RENDERED_ENTRIES_MAX,
        bytes_max: int = RENDERED_BYTES_MAX,
    ) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._bodies: OrderedDict[Hashable, tuple[int, bytes]] = OrderedDict()
        self.clearings = 0

    def get(self, query: Hashable, index: int, render: Callable[[], bytes]) -> bytes:
        """The body of a query at an index, rendered at most once in a row."""
        kept = self._bodies.get(query)
        if kept is not None:
            if kept[0] == index:
                self._bodies.move_to_end(query)
                return kept[1]
            self._bytes -= len(self._bodies.pop(query)[1])
        body = render()
        if len(body) <= self._bytes_max // 8:
            self._bodies[query] = (index, body)
            self._bytes += len(body)
            self._trim()
        return body

    def clear(self) -> None:
        """Forgets everything: the state was replaced."""
        self.clearings += 1
        self._bodies.clear()
        self._bytes = 0

    def _trim(self) -> None:
        while len(self._bodies) > self._entries_max or self._bytes > self._bytes_max:
            _, (_, body) = self._bodies.popitem(last=False)
            self._bytes -= len(body)
