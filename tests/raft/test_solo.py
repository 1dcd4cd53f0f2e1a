"""The replica of `raftreg dev` keeps the promises that callers rely on."""

from __future__ import annotations

import pytest

from raftreg.clock import ManualClock
from raftreg.core.commands import KVOp, KVVerb, encode
from raftreg.core.results import Outcome
from raftreg.errors import NotProposed, TooLarge
from raftreg.raft.api import RequestId, Server
from raftreg.raft.solo import COMMAND_BYTES_MAX, SoloReplica
from raftreg.server.machine import RegistryMachine


def _replica() -> tuple[SoloReplica, RegistryMachine]:
    machine = RegistryMachine()
    return SoloReplica(Server(id="s", name="s", address="127.0.0.1:1"), machine, ManualClock()), (
        machine
    )


async def test_a_repeated_request_takes_effect_once() -> None:
    """The second one is answered with the first one's result, as on a real cluster."""
    replica, machine = _replica()
    create = encode(KVOp(verb=KVVerb.CAS, key="k", value=b"v", index=0))
    name = RequestId("p", 1, 1)
    assert await replica.propose(create, request_id=name) == Outcome(2, result=True)
    other = RequestId("p", 2, 1)
    assert await replica.propose(create, request_id=other) == Outcome(3, result=False)
    assert await replica.propose(create, request_id=name) == Outcome(2, result=True)
    assert machine.state.index == 3


async def test_refusals_are_definite() -> None:
    """Too large a command, another term, and a stopped replica change nothing."""
    replica, machine = _replica()
    before = machine.state.index
    with pytest.raises(TooLarge):
        await replica.propose(b"x" * (COMMAND_BYTES_MAX + 1))
    with pytest.raises(NotProposed):
        await replica.propose(b"x", in_term=replica.TERM + 1)
    await replica.stop()
    with pytest.raises(NotProposed):
        await replica.propose(b"x")
    assert machine.state.index == before
