"""TTL checks of hosts without an agent: heartbeats in the leader's memory, edges alone in the log.

The rules are those of leases (`raftreg.server.leases`): a heartbeat may come to any server, which
asks the leader; it is answered after the leader has confirmed that it leads; a new leader gives
every check a full term, and one that was deaf listens first. What changes a status is written on
the condition that the check's row is still the one that was judged.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog

from raftreg.clock import Clock
from raftreg.core import commands
from raftreg.core.changes import ALL, Topic
from raftreg.core.commands import CatalogVerb, CheckOp, ServiceOp, Txn
from raftreg.core.lease import LeaseTable
from raftreg.core.results import Outcome, TxnResult
from raftreg.decoding import MsgpackDecoder
from raftreg.errors import (
    InvalidRequest,
    NoLeader,
    NotFound,
    NotProposed,
    RaftregError,
    UnknownOutcome,
)
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.http.external import external_definition, is_external
from raftreg.model import Check, ServiceInstance, Status
from raftreg.raft.api import ReplicaAPI, Role
from raftreg.server.alarm import Alarm
from raftreg.server.machine import RegistryMachine

QUESTION: Final = b"external-ttl\n"
TTL_EXPIRED: Final = "TTL expired"
PROPOSAL_TIMEOUT_S = 5.0
FATE_TIMEOUT_S = 2.0
ATTEMPTS_MAX = 4  #: writes of one heartbeat, when its check's row changes meanwhile
LOOK_EVERY_S = 5.0  #: how often it is looked whether a service has been critical for too long

_log = structlog.get_logger(__name__)


class Beat(msgspec.Struct, frozen=True):
    """A heartbeat: what the owner of a check says of it."""

    node: str
    check_id: str
    status: Status
    output: str = ""

    @property
    def key(self) -> str:
        """Names the check."""
        return f"{self.node}\0{self.check_id}"


class _Word(msgspec.Struct, frozen=True):
    """The leader's answer: "" or what is wrong, and whether there is no such check."""

    error: str = ""
    missing: bool = False


_encode = msgspec.msgpack.Encoder().encode
_beats = MsgpackDecoder[Beat](Beat)
_words = MsgpackDecoder[_Word](_Word)


class ExternalTtls:
    """Runs on every server; does something only on the leader.

    Args:
        replica: Tells roles, confirms leadership, takes proposals and questions.
        machine: Holds the catalog.
        clock: Source of time.
        enabled: Whether servers look after hosts without an agent at all.
    """

    def __init__(
        self, replica: ReplicaAPI, machine: RegistryMachine, clock: Clock, *, enabled: bool
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._clock = clock
        self._enabled = enabled
        self._term: int | None = None
        self._leases = LeaseTable()
        #: The TTL checks of each host without an agent, by key.
        self._hosts: dict[str, dict[str, CheckDefinition]] = {}
        self._critical_since_s: dict[str, float] = {}
        self._fates: dict[str, asyncio.Event] = {}
        self._alarm = Alarm(clock)
        replica.on_role_change(self._role_changed)
        machine.on_change(self._changed)

    # -- heartbeats ------------------------------------------------------------------------------

    async def beat(self, beat: Beat) -> None:
        """Takes a heartbeat, at any server.

        Raises:
            NotFound: There is no such check.
            InvalidRequest: It is none of a host without an agent, or no TTL check.
            NoLeader: No leader took it.
        """
        if not self._enabled:
            raise InvalidRequest(
                "checks of hosts without an agent are off: set enabled in [external_checks]"
            )
        data = await self._replica.ask_leader(QUESTION + _encode(beat))
        try:
            word = _words.decode(data)
        except msgspec.DecodeError as error:
            raise NotProposed(f"the leader's answer can't be read: {error}") from error
        if word.error:
            raise (NotFound if word.missing else InvalidRequest)(word.error)

    async def answer(self, payload: bytes) -> bytes:
        """Answers a heartbeat as the leader (`payload` begins with `QUESTION`).

        Raises:
            NoLeader: This server does not lead, or could not confirm that it does.
            InvalidRequest: The payload is no heartbeat.
        """
        try:
            beat = _beats.decode(payload[len(QUESTION) :])
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"Request decode failed: {error}") from error
        try:
            await self._take(beat)
        except (NotFound, InvalidRequest) as error:
            return _encode(_Word(error.message, missing=isinstance(error, NotFound)))
        return _encode(_Word())

    async def _take(self, beat: Beat) -> None:
        term = self._leading()
        # At once: it can't come due while leadership is being confirmed.
        self._renew(beat.key, self._definition(beat))
        await self._replica.read_index()
        for _ in range(ATTEMPTS_MAX):
            await self._await_fate(beat.key)
            if self._term != term:
                raise NoLeader("No cluster leader")
            definition, row = self._definition(beat), self._row(beat.key)
            assert row is not None  # it has a definition
            if row.status is beat.status:
                self._renew(beat.key, definition)
                return
            told = msgspec.structs.replace(row, status=beat.status, output=beat.output)
            try:
                if await self._write((_cas(told),), term):
                    return
            except UnknownOutcome:
                continue  # a heartbeat may be told twice
        raise NoLeader("No cluster leader: the check changes all the time")

    def _leading(self) -> int:
        if self._term is None:
            raise NoLeader("No cluster leader")
        return self._term

    async def _await_fate(self, key: str) -> None:
        fate = self._fates.get(key)
        if fate is None:
            return
        try:
            async with asyncio.timeout(FATE_TIMEOUT_S):
                await fate.wait()
        except TimeoutError:
            raise NoLeader("No cluster leader") from None

    def _definition(self, beat: Beat) -> CheckDefinition:
        row = self._row(beat.key)
        if row is None:
            raise NotFound(f'Unknown check "{beat.check_id}" of node "{beat.node}"')
        definition = self._ttl_of(row)
        if definition is None:
            raise InvalidRequest(
                f'check "{beat.check_id}" of node "{beat.node}" is no TTL check of a host without '
                "an agent"
            )
        return definition

    # -- following the state ---------------------------------------------------------------------

    def _row(self, key: str) -> Check | None:
        node, _, check_id = key.partition("\0")
        return self._machine.state.catalog.check(node, check_id)

    def _ttl_of(self, row: Check) -> CheckDefinition | None:
        node = self._machine.state.catalog.nodes.get(row.node)
        definition = external_definition(row) if is_external(node) else None
        return definition if definition and definition.kind is CheckKind.TTL else None

    def _role_changed(self, role: Role, term: int) -> None:
        self._term = term if role is Role.LEADER else None
        self._promote()

    def _changed(self, topics: tuple[Topic, ...], *_: object) -> None:
        if self._term is None or not self._enabled:
            return
        if ALL in topics:
            self._promote()
            return
        for kind, name in topics:
            if kind in {"node", "node-checks"}:
                self._follow(name)

    def _promote(self) -> None:
        """Begins anew: every check gets a full term."""
        self._leases.promote({}, self._clock.monotonic())
        self._hosts.clear()
        self._critical_since_s.clear()
        for fate in self._fates.values():
            fate.set()
        self._fates.clear()
        if self._term is not None and self._enabled:
            for name in self._machine.state.catalog.nodes:
                self._follow(name)
        self._alarm.ring()

    def _follow(self, name: str) -> None:
        """Looks at the TTL checks of a host; those of hosts with an agent are its matter."""
        catalog = self._machine.state.catalog
        before, found = self._hosts.pop(name, {}), {}
        if is_external(catalog.nodes.get(name)):
            for row in catalog.checks_of(name):
                definition = self._ttl_of(row)
                if definition is not None:
                    key = f"{name}\0{row.check_id}"
                    found[key] = definition
                    self._follow_check(key, row, definition)
        if found:
            self._hosts[name] = found
        for key in before.keys() - found.keys():
            self._leases.forget(key)
            self._critical_since_s.pop(key, None)

    def _follow_check(self, key: str, row: Check, definition: CheckDefinition) -> None:
        """A check that is critical waits for a heartbeat, any other one for the end of its TTL."""
        if row.status is Status.CRITICAL:
            self._leases.forget(key)
            self._critical_since_s.setdefault(key, self._clock.monotonic())
            return
        self._critical_since_s.pop(key, None)
        if key not in self._leases:
            self._renew(key, definition)
            self._alarm.ring()

    def _renew(self, key: str, definition: CheckDefinition) -> None:
        row = self._row(key)
        if row is not None and row.status is not Status.CRITICAL:
            self._leases.renew(key, definition.ttl_s, self._clock.monotonic())

    # -- expiry ----------------------------------------------------------------------------------

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Ends what is due, until it is cancelled.

        Args:
            tasks: Owns the proposals on their way.
        """
        while True:
            next_s = self._leases.next_due()
            left_s = LOOK_EVERY_S if next_s is None else next_s - self._clock.monotonic()
            await self._alarm.sleep(min(left_s, LOOK_EVERY_S))
            if self._term is None or self._alarm.held:
                continue
            for key in self._leases.due(self._clock.monotonic()):
                tasks.create_task(self._expire(key, self._term), name="external TTL")
            for key in self._over():
                tasks.create_task(self._deregister(key, self._term), name="external TTL")

    def look(self) -> None:
        """Looks at the clock again: it was moved by hand (tests, the simulator)."""
        self._alarm.ring()

    async def _expire(self, key: str, term: int) -> None:
        fate = self._fates[key] = asyncio.Event()
        row, definition = self._row(key), self._known(key)
        try:
            while row is not None and row.status is not Status.CRITICAL and self._term == term:
                told = msgspec.structs.replace(row, status=Status.CRITICAL, output=TTL_EXPIRED)
                try:
                    if await self._write((_cas(told),), term):
                        _log.warning("external_ttl_expired", node=row.node, check=row.check_id)
                    break
                except UnknownOutcome:
                    # It may still commit: to stop here would let a heartbeat win against it first.
                    row = self._row(key)
        except RaftregError as error:
            _log.info("external_ttl_expires_later", reason=error.message)
        finally:
            fate.set()
            if self._fates.get(key) is fate:
                del self._fates[key]
            # Where it was applied, the change of the state has dropped the lease already.
            ttl_s = definition.ttl_s if definition is not None else LOOK_EVERY_S
            self._leases.reopen(key, ttl_s, self._clock.monotonic())

    def _over(self) -> list[str]:
        """Checks whose service has been critical for longer than its definition lets it."""
        now_s = self._clock.monotonic()
        found = []
        for key, since_s in self._critical_since_s.items():
            definition = self._known(key)
            after_s = definition.deregister_after_s if definition is not None else 0.0
            if 0 < after_s <= now_s - since_s and key not in self._fates:
                found.append(key)
        return found

    async def _deregister(self, key: str, term: int) -> None:
        row = self._row(key)
        if row is None or not row.service_id or row.status is not Status.CRITICAL:
            return
        fate = self._fates[key] = asyncio.Event()
        instance = ServiceInstance(node=row.node, id=row.service_id, name=row.service_name)
        gone = ServiceOp(verb=CatalogVerb.DELETE, service=instance)
        try:
            if await self._write((_cas(row), gone), term):
                _log.warning("external_service_deregistered", node=row.node, service=instance.id)
        except RaftregError as error:
            _log.info("external_service_not_deregistered", reason=error.message)
        finally:
            fate.set()
            if self._fates.get(key) is fate:
                del self._fates[key]

    def _known(self, key: str) -> CheckDefinition | None:
        return self._hosts.get(key.partition("\0")[0], {}).get(key)

    async def _write(self, operations: tuple[CheckOp | ServiceOp, ...], term: int) -> bool:
        """Proposes a transaction in this term; False when its condition did not hold."""
        outcome = await self._replica.propose(
            commands.encode(Txn(operations=operations)), timeout_s=PROPOSAL_TIMEOUT_S, in_term=term
        )
        result = outcome.result if isinstance(outcome, Outcome) else None
        return isinstance(result, TxnResult) and result.ok


def _cas(row: Check) -> CheckOp:
    """Writes a row on the condition that it still is at the index that it carries."""
    return CheckOp(verb=CatalogVerb.CAS, check=row, index=row.modify_index)
