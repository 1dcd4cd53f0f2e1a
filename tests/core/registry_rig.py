"""A registry in a test: commands in, answers out."""

from __future__ import annotations

from typing import Any

from raftreg.core.apply import Applied, apply
from raftreg.core.commands import Command, KVOp, KVVerb, NodeSync, SessionCreate
from raftreg.core.results import Refused, Result
from raftreg.core.state import State
from raftreg.model import Check, Node, ServiceInstance, Session, Status


class Registry:
    """A state with cluster time."""

    def __init__(self) -> None:
        self.state = State()
        self.now_ms = 1_000

    def apply(self, command: Command) -> Applied:
        """Applies a command now."""
        return apply(self.state, command, self.now_ms)

    def run(self, command: Command) -> Result:
        """Applies a command and gives its result."""
        return self.apply(command).result

    def refusal(self, command: Command) -> str:
        """Applies a command that must be refused, gives the text."""
        applied = self.apply(command)
        assert isinstance(applied.result, Refused)
        assert applied.topics == ()
        assert applied.deltas == ()
        return applied.result.message

    def kv(self, verb: KVVerb, key: str, value: bytes = b"", **fields: Any) -> Result:
        """Does one KV operation."""
        return self.run(KVOp(verb=verb, key=key, value=value, **fields))

    def host(
        self, name: str = "n1", *services: ServiceInstance, checks: tuple[Check, ...] = ()
    ) -> None:
        """Registers a host as its agent does."""
        node = Node(name=name, id=f"id-{name}", address="10.0.0.1")
        assert self.run(NodeSync(node=node, services=services, checks=checks)) is True

    def session(self, session_id: str = "s1", node: str = "n1", **fields: Any) -> None:
        """Creates a session."""
        row = Session(id=session_id, node=node, **fields)
        assert self.run(SessionCreate(session=row)) == session_id


def web(node: str = "n1", service_id: str = "web-1", **fields: Any) -> ServiceInstance:
    """An instance of a service called web."""
    return ServiceInstance(node=node, id=service_id, name="web", **fields)


def web_check(status: Status = Status.PASSING, **fields: Any) -> Check:
    """A check of that instance."""
    return Check(node="n1", check_id="service:web-1", status=status, service_id="web-1", **fields)
