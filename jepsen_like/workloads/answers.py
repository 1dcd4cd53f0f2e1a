"""What agents answer, above all while no server is in their reach.

The vocabulary is that of `jepsen_like.checkers.answers`. First come instances that stay
("steady"), registered through servers on a host without an agent; then others come and go, through
servers and through agents, never twice under one id. Looks ask agents alone: ?stale, ?cached, and
DNS, where the port tells which instance a record means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import msgspec

from jepsen_like.checkers.answers import SETTLE_S, check_answers
from jepsen_like.checkers.verdict import Checker
from jepsen_like.door import Answer
from jepsen_like.history import Type
from jepsen_like.workloads import catalog_calls as calls
from jepsen_like.workloads.base import Completion, Context, Invocation
from jepsen_like.workloads.catalog import FINAL_PAUSE_S, SETTLED_MARGIN_S
from jepsen_like.workloads.catalog_calls import Placement
from jepsen_like.workloads.steps import Stepwise

SERVICE: Final = "jepsen-answers"
HOST: Final = "jepsen-answers"
ADDRESS: Final = "192.0.2.21"
PORT: Final = 10_000
PORTS: Final = 50_000
LOOK_SHARE: Final = 0.7
LIVE_MAX: Final = 8  #: instances that are not steady; with the others, one UDP answer holds them
_VIAS: Final = ("stale", "cached", "dns")
_MS_PER_S: Final = 1000.0


class Instance(msgspec.Struct):
    """One that was registered, or may be.

    Attributes:
        name: Its id.
        port: Its port.
        steady: It stays.
        agent: Who registered it; None for a server.
        busy: An operation on it is under way.
    """

    name: str
    port: int
    steady: bool
    agent: str | None = None
    busy: bool = True

    @property
    def placement(self) -> Placement:
        """Where a server puts it."""
        return Placement(HOST, ADDRESS, SERVICE, self.name, self.port)


class Answers(Stepwise):
    """See the module.

    Args:
        steady: How many instances stay.
    """

    name = "answers"
    agents = 2

    def __init__(self, *, steady: int = 6) -> None:
        self._made = 0
        self._live: dict[str, Instance] = {}
        self._by_port: dict[int, str] = {}
        #: Steady ones that are not acknowledged yet.
        self._wanted = [self._new(steady=True).name for _ in range(steady)]

    async def setup(self, context: Context) -> None:
        """Registers the host of the instances that servers register."""
        await calls.add_host(context, HOST, ADDRESS)

    # -- what to do ------------------------------------------------------------------------------

    def next(self, context: Context) -> Invocation:
        """See `Workload.next`."""
        rng = context.rng
        if self._wanted:
            return _change("register", self._live[self._wanted.pop()])
        if rng.random() < LOOK_SHARE:
            return _look(rng.choice(context.agents), rng.choice(_VIAS))
        idle = [one for one in self._live.values() if not (one.steady or one.busy)]
        coming = sum(not one.steady for one in self._live.values())
        if idle and (coming >= LIVE_MAX or rng.randrange(2)):
            leaving = rng.choice(idle)
            leaving.busy = True
            return _change("deregister", leaving)
        if coming >= LIVE_MAX:
            return _look(rng.choice(context.agents), rng.choice(_VIAS))
        agent = rng.choice(context.agents) if rng.randrange(2) else None
        return _change("register", self._new(steady=False, agent=agent))

    def _new(self, *, steady: bool, agent: str | None = None) -> Instance:
        self._made += 1
        name, port = f"i{self._made}", PORT + self._made % PORTS
        self._by_port[port] = name
        self._live[name] = made = Instance(name, port, steady, agent)
        return made

    def final(self, context: Context) -> Iterator[Invocation]:
        """Looks at each agent in each way, until some time after everything must have settled."""
        loop = asyncio.get_running_loop()
        settled_s = loop.time() + SETTLE_S + SETTLED_MARGIN_S
        while True:
            last = loop.time() >= settled_s
            for agent in context.agents:
                for via in _VIAS:
                    yield _look(agent, via, final=True)
            if last:
                return

    # -- how it is done --------------------------------------------------------------------------

    async def invoke(self, context: Context, invocation: Invocation) -> Completion:
        """See `Workload.invoke`; keeps book of what is there."""
        done = False
        try:
            completion = await super().invoke(context, invocation)
            done = completion.type is Type.OK
            return completion
        finally:
            if invocation.key is not None:
                self._settle(self._live[invocation.key], invocation.f, done=done)

    def _settle(self, one: Instance, f: str, *, done: bool) -> None:
        """A deregistration is repeated until it is known; a steady registration, too."""
        one.busy = False
        if f == "deregister" and done:
            del self._live[one.name]
        elif f == "register" and one.steady and not done:
            self._wanted.append(one.name)

    async def steps(self, context: Context, node: str, invocation: Invocation) -> Completion:
        """See `Stepwise.steps`."""
        if invocation.f == "look":
            return await self._looked(context, node, invocation)
        assert invocation.key is not None
        one = self._live[invocation.key]
        if one.agent is None:
            act = calls.register if invocation.f == "register" else calls.deregister
            index = await act(context.door, node, one.placement)
            return Completion(Type.OK, invocation.value, node, index)
        body = None
        path = f"service/deregister/{one.name}"
        if invocation.f == "register":
            path = "service/register"
            body = {"ID": one.name, "Name": SERVICE, "Port": one.port}
        await calls.tell_agent(context.door, node, path, body)
        return Completion(Type.OK, invocation.value, node)

    async def _looked(self, context: Context, node: str, invocation: Invocation) -> Completion:
        if invocation.value["final"]:
            await asyncio.sleep(FINAL_PAUSE_S)
        via = invocation.value["via"]
        if via == "dns":
            ports = await calls.ports(context.door, node, SERVICE)
            shown = sorted([self._by_port.get(port, f"port {port}"), True] for port in ports)
            return Completion(Type.OK, {"instances": shown, "age_s": None}, node)
        entries, answer = await calls.entries(context.door, node, SERVICE, params={via: ""})
        shown = sorted([entry.service.id, entry.passing(host_too=True)] for entry in entries)
        value = {"instances": shown, "age_s": _age_s(answer)}
        return Completion(Type.OK, value, node, answer.index)

    def checker(self) -> Checker:
        """See `jepsen_like.checkers.answers`."""
        return check_answers


def _age_s(answer: Answer) -> float | None:
    """What an answer tells of its age: the more exact of the two headers that may."""
    contact, age = (answer.headers.get(name, "") for name in ("x-consul-lastcontact", "age"))
    if contact.isdecimal():
        return int(contact) / _MS_PER_S
    return float(age) if age.isdecimal() else None


def _change(f: str, one: Instance) -> Invocation:
    via = "server" if one.agent is None else "agent"
    return Invocation(f, one.name, {"via": via, "steady": one.steady}, one.agent)


def _look(agent: str, via: str, *, final: bool = False) -> Invocation:
    return Invocation("look", value={"via": via, "final": final}, node=agent)
