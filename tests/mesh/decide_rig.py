"""A mesh with one upstream, and what it has told."""

from __future__ import annotations

import random
from typing import Any

from raftreg.core.chain import compile_chain
from raftreg.core.config_table import ConfigTable
from raftreg.mesh.decide import (
    Done,
    Mesh,
    MeshTable,
    Moment,
    Passage,
    Refusal,
    UpstreamConfig,
)
from raftreg.mesh.events import (
    AttemptBegan,
    AttemptEnded,
    Event,
)
from raftreg.mesh.intention import Intentions
from raftreg.mesh.nouns import Call, Failure, Instance, Outcome
from raftreg.mesh.passage import Stage
from raftreg.mesh.route import RoutingTable, compile_routes, direct_routes
from raftreg.mesh.settings import ServiceSettings
from raftreg.model import ConfigEntry

GET = Call(method="GET", path="/x", source="web")
OK = Outcome(status=200, duration_s=0.01)
BAD = Outcome(status=503, duration_s=0.01)
RESET = Outcome(failure=Failure.RESET, duration_s=0.01)
PLAIN = ServiceSettings(breaker=None, outlier=None, learn=None)


def instances(*keys: str) -> list[Instance]:
    """Instances by key."""
    return [Instance(key=key, address="127.0.0.1", port=at + 1) for at, key in enumerate(keys)]


def failing_over() -> RoutingTable:
    """Routes of "api" that lead to "spare" when it has no healthy instance."""
    entries = [
        ConfigEntry(kind="service-defaults", name=name, body={"Protocol": "http"})
        for name in ("api", "spare")
    ]
    failover = {"*": {"Service": "spare"}}
    entries.append(ConfigEntry(kind="service-resolver", name="api", body={"Failover": failover}))
    chain = compile_chain(ConfigTable(entries), "api", datacenter="dc1", trust_domain="t.consul")
    return compile_routes(chain)


class Rig:
    """A mesh with one upstream "api", and what it has told."""

    def __init__(
        self,
        settings: ServiceSettings = PLAIN,
        *,
        keys: tuple[str, ...] = ("a", "b"),
        intentions: Intentions | None = None,
        **others: ServiceSettings,
    ) -> None:
        self.events: list[Event] = []
        self.table = MeshTable(
            upstreams={
                "api": UpstreamConfig(routes=direct_routes("api"), intentions=intentions),
                **{name: UpstreamConfig(routes=direct_routes(name)) for name in others},
            },
            settings={"api": settings, **others},
        )
        self.mesh = Mesh(
            random.Random(3),
            self.events.append,
            table=self.table,
            moment=Moment(0.0, 1e9),
        )
        self.mesh.update("api", instances(*keys), 0.0)
        for name in others:
            self.mesh.update(name, instances(f"{name}-1"), 0.0)

    def begin(self, call: Call = GET, now_s: float = 1.0, **options: Any) -> Passage:
        """A call to "api"."""
        return self.mesh.begin("api", call, now_s, **options)

    def done(self, outcome: Outcome, now_s: float = 1.0) -> Passage:
        """A call that is answered like this, without a repeat."""
        passage = self.begin(now_s=now_s)
        assert isinstance(passage.finished(outcome, now_s), Done)
        passage.close(now_s)
        return passage

    def told(self, kind: type[Event]) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def at_rest(self) -> None:
        """Nothing is held, and what began has ended."""
        assert self.mesh.calls == 0
        for state in self.mesh.targets():
            assert state.in_flight == 0
            assert state.bulkhead.in_flight == 0
            assert state.bulkhead.waiting == 0
        assert len(self.told(AttemptBegan)) == len(self.told(AttemptEnded))


def refusal(passage: Passage) -> Refusal:
    """The refusal that a call ended with."""
    assert isinstance(passage.step, Refusal)
    assert passage.stage is Stage.OVER
    return passage.step
