"""Locks held by sessions, and resources behind fencing tokens.

The vocabulary is that of `jepsen_like.checkers.lock`; besides, f `session` makes a session (its OK
value is `{"session": id, "delay_s": n}`). Sessions belong to a host that has no agent and no health
check: only their TTL, which their worker renews, and `destroy` end them.

A worker holds one lock at a time. It takes it by `?acquire` or by a transaction, which answers with
the token itself; writes to the resource with its token, and again and again with tokens that it has
lost; gives the lock back, or destroys its session under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from jepsen_like.checkers.lock import check_lock
from jepsen_like.checkers.verdict import Checker
from jepsen_like.history import Type
from jepsen_like.workloads import keys
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.catalog_calls import add_host
from jepsen_like.workloads.keys import op
from jepsen_like.workloads.steps import Ended, Stepwise, decoded, write

HOST: Final = "jepsen-locks"
ADDRESS: Final = "192.0.2.1"
LOCKS: Final = "jepsen/lock/"
RESOURCES: Final = "jepsen/resource/"
TTL_S: Final = 10
FINAL_TTL_S: Final = 600
RENEW_S: Final = 3.0
LOST_TOKENS_MAX: Final = 8
_DELAYS_S: Final = (0, 0, 1, 2)
#: Share of what a worker does that holds a lock, and of one that holds none.
_HOLDING: Final = {"guarded": 50, "release": 35, "destroy": 5, "stale": 10}
_FREE: Final = {"acquire": 80, "stale": 20}


class Held(msgspec.Struct, frozen=True):
    """A lock with its token, held or lost."""

    lock: str
    session: str
    token: int


class Mind(msgspec.Struct):
    """What a worker knows.

    Attributes:
        session: Its session; "" for none.
        delay_s: Lock delay of the session.
        renew_at_s: When to renew it, by the loop's clock.
        held: The lock that it holds.
        lost: Locks that it held, newest last.
    """

    session: str = ""
    delay_s: int = 0
    renew_at_s: float = 0.0
    held: Held | None = None
    lost: list[Held] = []

    def lose(self) -> None:
        """The lock is no longer held, or no longer surely."""
        if self.held is not None:
            self.lost = [*self.lost[1 - LOST_TOKENS_MAX :], self.held]
            self.held = None

    def forget_session(self) -> None:
        """The session is over."""
        self.lose()
        self.session = ""


class Lock(Stepwise):
    """See the module.

    Args:
        locks: How many there are.
    """

    name = "lock"

    def __init__(self, *, locks: int = 3) -> None:
        self._locks = [f"lock{number}" for number in range(locks)]

    async def setup(self, context: Context) -> None:
        """Registers the host of the sessions."""
        await add_host(context, HOST, ADDRESS)

    # -- what to do ------------------------------------------------------------------------------

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        mind, rng = _mind(context), context.rng
        if not mind.session:
            return _new_session(rng.choice(_DELAYS_S))
        if _now() >= mind.renew_at_s:
            return Invocation("renew", value={"session": mind.session})
        shares = _FREE if mind.held is None else _HOLDING
        kind = rng.choices(tuple(shares), tuple(shares.values()))[0]
        if kind == "stale" and mind.lost:
            return _guarded(rng.choice(mind.lost))
        if mind.held is None:
            value = {"lock": rng.choice(self._locks), "session": mind.session}
            return Invocation("acquire", value=value)
        return self._with_lock(kind, mind, mind.held)

    def _with_lock(self, kind: str, mind: Mind, held: Held) -> Invocation:
        if kind == "release":
            return Invocation("release", value=msgspec.to_builtins(held))
        if kind == "destroy":
            value = {"session": mind.session, "delay_s": mind.delay_s}
            return Invocation("destroy", value=value)
        return _guarded(held)

    def final(self, context: Context) -> Iterator[Invocation]:
        """A new session acquires each lock."""
        yield _new_session(0, ttl_s=FINAL_TTL_S)
        for lock in self._locks:
            value = {"lock": lock, "session": _mind(context).session, "final": True}
            yield Invocation("acquire", value=value)

    # -- how it is done --------------------------------------------------------------------------

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        match invocation.f:
            case "session":
                return await self._session(context, node, invocation)
            case "acquire":
                return await self._acquire(context, node, invocation)
            case "release":
                return await self._release(context, node, invocation)
            case "renew":
                return await self._renew(context, node, invocation)
            case "destroy":
                return await self._destroy(context, node, invocation)
            case _:
                return await self._guarded(context, node, invocation)

    async def _session(self, context: Context, node: str, invocation: Invocation) -> Completion:
        delay_s = invocation.value["delay_s"]
        asked = {
            "Node": HOST,
            "NodeChecks": [],
            "TTL": f"{invocation.value['ttl_s']}s",
            "LockDelay": f"{delay_s}s",
        }
        body = msgspec.json.encode(asked)
        answer = await write(context.door, node, "PUT", "/v1/session/create", body=body)
        mind = _mind(context)
        mind.session, mind.delay_s = decoded(answer, dict[str, str])["ID"], delay_s
        mind.renew_at_s = _now() + RENEW_S
        value = {"session": mind.session, "delay_s": delay_s}
        return Completion(Type.OK, value, node, answer.index)

    async def _acquire(self, context: Context, node: str, invocation: Invocation) -> Completion:
        lock, session = invocation.value["lock"], invocation.value["session"]
        try:
            token, index = await self._take(context, node, lock, session)
        except Ended as ended:
            if "invalid session" in ended.reason:
                _mind(context).forget_session()
            raise
        held = Held(lock, session, token)
        if not invocation.value.get("final"):
            _mind(context).held = held
        return Completion(Type.OK, msgspec.to_builtins(held), node, index)

    async def _take(
        self, context: Context, node: str, lock: str, session: str
    ) -> tuple[int, int | None]:
        """Takes the lock; gives token and index."""
        key, door = LOCKS + lock, context.door
        if context.rng.randrange(2):
            operation = op("lock", key, value=session.encode(), session=session)
            done = await keys.transact(door, node, [operation])
            return done.rows[0].lock_index, done.index
        params = {"acquire": session}
        index = await keys.put(door, node, key, session.encode(), params=params)
        try:
            row, _ = await keys.get(door, node, key)
        except Ended as ended:  # it was taken, and nobody knows the token
            raise Ended(Type.INFO, f"token not read: {ended.reason}", index) from ended
        if row is None or row.session != session:
            raise Ended(Type.INFO, "taken, and lost before the token was read", index)
        return row.lock_index, index

    async def _release(self, context: Context, node: str, invocation: Invocation) -> Completion:
        _mind(context).lose()
        key = LOCKS + invocation.value["lock"]
        params = {"release": invocation.value["session"]}
        index = await keys.put(context.door, node, key, b"", params=params)
        return Completion(Type.OK, invocation.value, node, index)

    async def _renew(self, context: Context, node: str, invocation: Invocation) -> Completion:
        mind, session = _mind(context), invocation.value["session"]
        mind.renew_at_s = _now() + RENEW_S / 3  # unless it is acknowledged
        try:
            await write(context.door, node, "PUT", f"/v1/session/renew/{session}")
        except Ended as ended:
            if "not_found" in ended.reason:
                mind.forget_session()
            raise
        mind.renew_at_s = _now() + RENEW_S
        return Completion(Type.OK, invocation.value, node)

    async def _destroy(self, context: Context, node: str, invocation: Invocation) -> Completion:
        _mind(context).forget_session()
        session = invocation.value["session"]
        answer = await write(context.door, node, "PUT", f"/v1/session/destroy/{session}")
        return Completion(Type.OK, invocation.value, node, answer.index)

    async def _guarded(self, context: Context, node: str, invocation: Invocation) -> Completion:
        held = msgspec.convert(invocation.value, Held)
        key = RESOURCES + held.lock
        row, _ = await keys.get(context.door, node, key)
        highest = 0 if row is None else row.parsed(int)
        if highest > held.token:
            raise Ended(Type.FAIL, f"token {highest} was there before")
        write_token = op(
            "cas", key, value=b"%d" % held.token, index=0 if row is None else row.modify_index
        )
        operations = [write_token]
        if held == _mind(context).held and context.rng.randrange(2):
            # The holder may also let the registry look whether it still is.
            operations.insert(0, op("check-session", LOCKS + held.lock, session=held.session))
        done = await keys.transact(context.door, node, operations)
        return Completion(Type.OK, invocation.value, node, done.index)

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.lock`."""
        return check_lock


def _mind(context: Context) -> Mind:
    found: Mind = context.memory.setdefault("mind", Mind())
    return found


def _now() -> float:
    return asyncio.get_running_loop().time()


def _new_session(delay_s: int, ttl_s: int = TTL_S) -> Invocation:
    value: dict[str, Any] = {"session": "", "delay_s": delay_s, "ttl_s": ttl_s}
    return Invocation("session", value=value)


def _guarded(held: Held) -> Invocation:
    return Invocation("guarded", value=msgspec.to_builtins(held))
