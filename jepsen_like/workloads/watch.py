"""Watches: blocking queries on a prefix and on keys, and the stream that agents follow.

The vocabulary is that of `jepsen_like.checkers.watch`. A worker's number decides what it does for
the whole run, so it takes at least four of them: some write, and each of the others is a watcher
that asks again from where it was, at any server. Under a watched prefix each write makes a new
key; a full prefix retires, and its watchers are followed by new ones. What the stream shows are
instances of a service, each registered once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from jepsen_like.checkers.verdict import Checker
from jepsen_like.checkers.watch import check_watch
from jepsen_like.door import NoAnswer, NotSent
from jepsen_like.history import Type
from jepsen_like.workloads import catalog_calls, keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.catalog_calls import Placement
from jepsen_like.workloads.steps import Ended, Stepwise, readable
from jepsen_like.workloads.viewfeed import Position, Turn, frames

PREFIX: Final = "jepsen/watch/"
FEED: Final = "feed-"
HOST: Final = "jepsen-watch"
ADDRESS: Final = "192.0.2.2"
SERVICE: Final = "jepsen-watch"
PORT: Final = 9000
VIEW_PATH: Final = "/v1/internal/view"
TURN_S: Final = (1, 3)
#: A blocking query may wait for a sixteenth longer than it was asked to.
ANSWER_MARGIN_S: Final = 2.0
#: What a worker does, by its number.
ROLES: Final = (
    "write",
    "watch-prefix",
    "watch-key",
    "watch-feed",
    "write",
    "watch-prefix",
    "write",
    "watch-feed",
)
_TARGETS: Final = ("prefix", "key", "feed")


class Watcher(msgspec.Struct):
    """Somebody who follows one thing.

    Attributes:
        name: It stays for ever.
        f: "watch-prefix", "watch-key" or "watch-feed".
        key: What is watched.
        position: How far it is.
        news: Its last answer showed something.
    """

    name: str
    f: str
    key: str
    position: Position
    news: bool = True


class Watch(Stepwise):
    """See the module.

    Args:
        keys_max: Single keys that are written and watched.
        writes_per_prefix: Keys under a prefix after which it retires.
        waits_s: How long a blocking query may wait, in seconds; one of these.
    """

    name = "watch"
    timeout_s = 15.0

    def __init__(
        self,
        *,
        keys_max: int = 2,
        writes_per_prefix: int = 200,
        waits_s: Sequence[int] = (1, 2, 6, 8),
    ) -> None:
        self._waits_s = waits_s
        self._keys = [f"key-{number}" for number in range(keys_max)]
        self._per_prefix = writes_per_prefix
        self._prefixes = 1
        self._under_prefix = 0
        self._values = 0
        self._watchers: dict[str, Watcher] = {}
        self._fed = 0  #: index of the newest instance that was acknowledged

    async def setup(self, context: Context) -> None:
        """Registers the host of the instances."""
        await catalog_calls.add_host(context, HOST, ADDRESS)

    # -- what to do ------------------------------------------------------------------------------

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        role = ROLES[context.worker % len(ROLES)]
        if role == "write":
            return self._write(context)
        watcher = self._watcher(context, role)
        return _question(
            watcher, context.rng.choice(TURN_S if role == "watch-feed" else self._waits_s)
        )

    def _write(self, context: Context) -> Invocation:
        self._values += 1
        match context.rng.choice(_TARGETS):
            case "prefix":
                if self._under_prefix >= self._per_prefix:
                    self._prefixes, self._under_prefix = self._prefixes + 1, 0
                self._under_prefix += 1
                key = f"{self._prefix}{self._values}"
            case "key":
                key = context.rng.choice(self._keys)
            case _:
                key = f"{FEED}{self._values}"
        return Invocation("write", key, self._values)

    @property
    def _prefix(self) -> str:
        """The prefix in use; the slash keeps the first from covering the tenth."""
        return f"prefix-{self._prefixes}/"

    def _watcher(self, context: Context, role: str) -> Watcher:
        key = FEED
        if role == "watch-prefix":
            key = self._prefix
        elif role == "watch-key":
            key = self._keys[context.worker // len(ROLES) % len(self._keys)]
        name = f"w{context.worker} {key}"
        return self._watchers.setdefault(name, Watcher(name, role, key, Position()))

    def final(self, context: Context) -> Iterator[Invocation]:
        """Each watcher goes on until there is nothing new for it."""
        del context
        for watcher in self._watchers.values():
            watcher.news = True
            while watcher.news or (
                watcher.f == "watch-feed" and watcher.position.index < self._fed
            ):
                yield _question(watcher, 1)

    # -- how it is done --------------------------------------------------------------------------

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        assert invocation.key is not None
        if invocation.f == "write":
            return await self._written(context, node, invocation.key, invocation.value)
        watcher = self._watchers[invocation.value["watcher"]]
        if invocation.f == "watch-feed":
            rows, position = await _feed(context, node, watcher, invocation.value["wait_s"])
        else:
            rows, position = await _blocked(context, node, watcher, invocation.value["wait_s"])
        watcher.position, watcher.news = position, bool(rows)
        return Completion(Type.OK, rows, node, position.index)

    async def _written(self, context: Context, node: str, key: str, value: int) -> Completion:
        if not key.startswith(FEED):
            index = await keys.put(context.door, node, PREFIX + key, b"%d" % value)
            return Completion(Type.OK, value, node, index)
        what = Placement(HOST, ADDRESS, SERVICE, key, PORT, {"value": str(value)})
        index = await catalog_calls.register(context.door, node, what)
        self._fed = max(self._fed, index or 0)
        return Completion(Type.OK, value, node, index)

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.watch`."""
        return check_watch


def _question(watcher: Watcher, wait_s: int) -> Invocation:
    value = {"watcher": watcher.name, "since": watcher.position.index, "wait_s": wait_s}
    return Invocation(watcher.f, watcher.key, value)


async def _blocked(
    context: Context, node: str, watcher: Watcher, wait_s: int
) -> tuple[list[list[Any]], Position]:
    """One blocking query: what it shows that is new, and where to go on."""
    since = watcher.position.index
    params = {"index": str(since), "wait": f"{wait_s}s"}
    recurse = {"recurse": ""} if watcher.f == "watch-prefix" else {}
    found = await keys.rows(
        context.door,
        node,
        PREFIX + watcher.key,
        params=params | recurse,
        timeout_s=wait_s * 17 / 16 + ANSWER_MARGIN_S,
    )
    if found.index is None:
        raise Ended(Type.FAIL, "an answer without index")
    fresh = sorted((row for row in found.rows if row.modify_index > since), key=_modify_index)
    shown = [[row.key.removeprefix(PREFIX), row.parsed(int), row.modify_index] for row in fresh]
    return shown, Position(found.index)


def _modify_index(row: keys.Row) -> int:
    return row.modify_index


async def _feed(
    context: Context, node: str, watcher: Watcher, turn_s: int
) -> tuple[list[list[Any]], Position]:
    """One turn at the stream."""
    since = watcher.position
    params = {"index": str(since.index), "epoch": since.epoch} if since.epoch else {}
    turn = Turn(since)
    try:
        async with (
            asyncio.timeout(turn_s),
            context.door.stream(node, VIEW_PATH, params=params) as it,
        ):
            async for frame in frames(it):
                turn.take(frame)
    except (NotSent, NoAnswer) as error:
        raise Ended(Type.FAIL, f"no stream: {error}") from error
    except TimeoutError:
        pass  # the turn is over
    if not turn.settled:
        raise Ended(Type.FAIL, "the stream ended before it had told where it is")
    rows = [
        [name, readable(meta["value"].encode(), int), index]
        for name, meta, index in turn.rows
        if name.startswith(FEED)
    ]
    return rows, turn.position
