"""A replica under asyncio: the node, its disk, its connections, and those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import structlog

from raftreg.clock import Clock, new_id, pause
from raftreg.errors import (
    InvalidRequest,
    NoLeader,
    NotProposed,
    RaftregError,
    UnknownOutcome,
    Unreachable,
)
from raftreg.raft.api import ReplicaStatus, RequestId, Role, Server, StateMachine
from raftreg.raft.calls import Calls, RemoteFault
from raftreg.raft.cluster import Cluster
from raftreg.raft.dedup import Forgotten
from raftreg.raft.disk import RealDisk
from raftreg.raft.faults import ProtocolViolation
from raftreg.raft.journal import DurableJournal
from raftreg.raft.node import RaftNode
from raftreg.raft.peers import Address
from raftreg.raft.proposals import Key, ProposalDone
from raftreg.raft.security import PROTOCOL_VERSION
from raftreg.raft.settings import RAFT_PORT, ReplicaSettings
from raftreg.raft.snapshots import SnapshotStore
from raftreg.raft.transport import PeerTransport

log = structlog.get_logger(__name__)

_ID_FILE = "server-id"
_QUESTIONS = "app"
#: A question is asked again after this long, until its caller's time is over.
_ASK_S = 1.5
#: Longer than any election of a healthy majority; the client's own patience is mostly longer.
_LEADER_WAIT_S = 4.0
_PAUSE_S = 0.0005


class _Thread:
    """One thread for snapshots."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._executor = ThreadPoolExecutor(1, "raftreg-snapshot")

    def run(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """See `Worker.run`."""
        future = self._loop.run_in_executor(self._executor, job)

        def ended(ran: asyncio.Future[None]) -> None:
            if not ran.cancelled():
                fault = ran.exception()
                if fault is not None:
                    log.error("snapshot_failed", error=str(fault))
                done(fault)
                self._wake()

        future.add_done_callback(ended)

    def pause(self) -> None:
        """See `Worker.pause`."""
        pause(_PAUSE_S)

    def stop(self) -> None:
        """Waits for the job under way."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class Replica:
    """One server's part of the cluster; implements `ReplicaAPI`.

    Args:
        settings: Where it lives and whom it talks to.
        machine: What is replicated; empty, `start` restores it.
        clock: Source of time.
        rng: Source of election timeouts and jitter.

    Attributes:
        failed: Is set to the fault when the replica had to stop by itself (a failed disk, a fault
            in `apply`); the owner ends the process.
    """

    def __init__(
        self, settings: ReplicaSettings, machine: StateMachine, clock: Clock, rng: Random
    ) -> None:
        self.settings = settings
        self._machine = machine
        self._clock = clock
        self._rng = rng
        self._security = settings.security()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._woken = False
        self._running = False
        self._open = False
        self._sync_began: float | None = None
        self._role_callbacks: list[Callable[[Role, int], None]] = []
        self._calls = Calls(self._send, self._spawn)
        self.failed: asyncio.Future[BaseException]

    # --- life

    async def start(self) -> None:
        """Opens the log, restores the state, listens.

        Raises:
            StorageFault: The data directory can't be used as it is.
            BindFailed: The Raft address can't be used.
        """
        loop = self._loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        self._disk = RealDisk.open(Path(self.settings.data_dir), loop.call_soon_threadsafe)
        self._thread = _Thread(loop, self._wake)
        try:
            self._open_parts()
            self._running = True
            await self._transport.start()
        except BaseException:
            self._running = False
            self._thread.stop()
            self._disk.close()
            raise
        self._open = True
        self._transport.set_seeds(Address.parse(seed, RAFT_PORT) for seed in self.settings.seeds)
        self._cluster.review()
        self._wake()

    def _open_parts(self) -> None:
        settings = self.settings
        self._server_id = self._read_or_make_id()
        self._journal = DurableJournal.open(
            self._disk, on_durable=lambda _: self._on_durable(), on_failure=self._fail
        )
        found = self._journal.recovery
        if found.cut_bytes:
            log.warning(
                "log_tail_cut",
                bytes=found.cut_bytes,
                file=found.cut_file,
                offset=found.cut_offset,
                reason=found.cut_reason,
            )
        self._cluster = Cluster(self._disk, self)
        self._transport = self._make_transport()
        host = settings.advertise_host or settings.bind_host
        self.node = RaftNode(
            server=Server(
                id=self._server_id,
                name=settings.name,
                address=str(Address(host, settings.bind_port)),
            ),
            incarnation=new_id(),
            journal=self._journal,
            snapshots=SnapshotStore(self._disk),
            machine=self._machine,
            base=self._cluster.base(),
            network=self._transport,
            worker=self._thread,
            clock=self._clock.monotonic,
            rng=self._rng,
            timing=settings.timing,
            limits=settings.limits,
        )
        for fault in self.node.snapshots_passed_over:
            log.warning("snapshot_passed_over", file=fault.file, reason=fault.message)
        self.node.on_role_change(self._tell_role)

    def _read_or_make_id(self) -> str:
        if _ID_FILE in self._disk.list():
            return self._disk.read(_ID_FILE).decode().strip()
        server_id = new_id()
        self._disk.write_durably(_ID_FILE, server_id.encode())
        return server_id

    def _make_transport(self) -> PeerTransport:
        settings = self.settings
        return PeerTransport(
            self_id=self._server_id,
            bind=Address(settings.bind_host, settings.bind_port),
            security=self._security,
            hello=self._cluster.hello,
            on_message=self._on_message,
            on_connected=self._on_connected,
            on_disconnected=self._on_disconnected,
            on_hello=self._cluster.on_hello,
            limits=settings.transport,
            clock=self._clock.monotonic,
            rng=self._rng,
            on_fault=self._fail,
        )

    async def stop(self) -> None:
        """Hands leadership over where it can, answers everyone who waits, closes everything.

        Also after the replica stopped by itself: that leaves files and listener open.
        """
        if not self._open:
            return
        self._open = False
        await self._hand_over()
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.node.stop("the server is stopping")
        await self._transport.stop()
        self._thread.stop()
        if not self.failed.done():
            self._journal.close()
        self._disk.close()

    async def _hand_over(self) -> None:
        voters = self.node.configuration.voters()
        if self.failed.done() or not self.node.leads or len(voters) == 1:
            return
        try:
            await self.transfer_leadership()
        except RaftregError as error:
            log.info("leadership_not_handed_over", reason=error.message)

    def reload(self) -> None:
        """Reads the certificates again; new connections use them."""
        self._security.reload()

    def _fail(self, fault: BaseException) -> None:
        """The server can't go on without breaking a promise: it stops, loudly."""
        if self.failed.done():
            return
        log.critical("replica_stopped", error=str(fault), kind=type(fault).__name__)
        self._running = False
        self.failed.set_result(fault)
        self.node.stop("the server had to stop")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("task_failed", error=repr(fault))

    # --- driving the node

    def _wake(self) -> None:
        if not self._woken and self._running:
            self._woken = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._woken = False
        if not self._running:
            return
        try:
            due = self.node.tick()
        except Exception as fault:  # noqa: BLE001 - whatever it is, this server must not go on
            self._fail(fault)
            return
        if self._sync_began is None and self._journal.durable_lsn < self._journal.lsn:
            self._sync_began = self._clock.monotonic()
        self._cluster.configuration_seen()
        self._check_waits()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(due - self._clock.monotonic(), self._wake)

    def _on_durable(self) -> None:
        if self._sync_began is not None:
            self.node.metrics.fsync_s.observe(self._clock.monotonic() - self._sync_began)
            self._sync_began = None
        if self._running:
            self.node.log_durable()
            self._wake()

    def _on_message(self, sender: str, message: dict[str, Any]) -> None:
        if not self._running:
            return
        try:
            if not self._calls.receive(sender, message):
                self.node.receive(sender, message)
        except ProtocolViolation as violation:
            self.node.metrics.protocol_violations_total += 1
            log.warning("message_dropped", peer=sender, reason=violation.message)
        self._wake()

    def _on_connected(self, peer: str) -> None:
        self.node.peer_connected(peer)
        self._cluster.review()
        self._wake()

    def _on_disconnected(self, peer: str) -> None:
        self.node.peer_disconnected(peer)
        self._calls.peer_lost(peer)
        self._wake()

    def _send(self, peer: str, message: dict[str, Any]) -> bool:
        return self._transport.send(peer, message)

    def _tell_role(self, role: Role, term: int) -> None:
        log.info("role_changed", role=role.value, term=term, node=self.settings.name)
        for changed in self._role_callbacks:
            changed(role, term)
        self._cluster.review()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Waits until a condition on the node holds; it is looked at after each tick.

        Raises:
            TimeoutError: It did not.
        """
        if condition():
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._waits.append((condition, future))
        async with asyncio.timeout(timeout_s):
            await future

    def _check_waits(self) -> None:
        if not self._waits:
            return
        for condition, future in self._waits:
            if not future.done() and condition():
                future.set_result(None)
        self._waits = [wait for wait in self._waits if not wait[1].done()]

    # --- the doors

    async def propose(
        self,
        command: bytes,
        *,
        timeout_s: float = 10.0,
        request_id: RequestId | None = None,
        in_term: int | None = None,
    ) -> Any:
        """See `ReplicaAPI.propose`."""
        if not self._running:
            raise NotProposed("the server is stopping; nothing was proposed")
        began = self._clock.monotonic()
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: RaftregError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        key = self.node.propose(command, done, request_id=request_id, in_term=in_term)
        self._wake()

        timers = self._give_up_later(key, done, timeout_s)
        try:
            result = await future
        finally:
            for timer in timers:
                timer.cancel()
        self.node.metrics.proposal_s.observe(self._clock.monotonic() - began)
        if isinstance(result, Forgotten):
            raise UnknownOutcome(result.reason)
        return result

    def _give_up_later(
        self, key: Key, done: ProposalDone, timeout_s: float
    ) -> tuple[asyncio.TimerHandle, ...]:
        def give_up() -> None:
            done(None, self._timed_out(self.node.abandon(key)))

        def give_up_unproposed() -> None:
            # Told in time, the client knows that nothing happened, and asks another server.
            if self.node.lacks_leader(key):
                give_up()

        later = self._loop.call_later
        return later(timeout_s, give_up), later(_LEADER_WAIT_S, give_up_unproposed)

    def _timed_out(self, proposed: bool) -> RaftregError:
        if proposed:
            return UnknownOutcome(
                "the write was proposed and not confirmed in time: it may still commit"
            )
        return NoLeader("No cluster leader")

    async def read_index(self, timeout_s: float = 5.0) -> int:
        """See `ReplicaAPI.read_index`."""
        if not self._running:
            raise NoLeader("No cluster leader")
        began = self._clock.monotonic()
        future: asyncio.Future[int | None] = self._loop.create_future()

        def done(index: int | None) -> None:
            if not future.done():
                future.set_result(index)

        self.node.read(done)
        self._wake()
        timer = self._loop.call_later(timeout_s, done, None)
        try:
            index = await future
        finally:
            timer.cancel()
        if index is None:
            raise NoLeader("No cluster leader")
        self.node.metrics.read_index_s.observe(self._clock.monotonic() - began)
        return index

    async def ask_leader(self, payload: bytes, *, timeout_s: float = 5.0) -> bytes:
        """See `ReplicaAPI.ask_leader`."""
        return await self.ask(_QUESTIONS, payload, timeout_s)

    async def ask(self, channel: str, payload: bytes, timeout_s: float) -> bytes:
        """Asks the leader on a channel, also over leader changes, until the time is over.

        Raises:
            NoLeader: No leader answered in time.
            RemoteFault: The leader answered with an error of its own.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self.until(self._leader_reachable, timeout_s)
                    try:
                        return await self._ask_once(channel, payload)
                    except (Unreachable, NoLeader):
                        await asyncio.sleep(0.02)
                    except RemoteFault as fault:
                        if fault.remote_code != NoLeader.code:
                            raise
                        await asyncio.sleep(0.02)
        except TimeoutError:
            raise NoLeader("No cluster leader") from None

    async def _ask_once(self, channel: str, payload: bytes) -> bytes:
        if self.node.leads:
            return await self._calls.ask_here(channel, payload)
        leader = self.node.status().leader_id
        if leader is None:
            raise NoLeader("No cluster leader")
        return await self._calls.ask(leader, channel, payload, _ASK_S)

    def _leader_reachable(self) -> bool:
        leader = self.node.leader_id
        return self.node.leads or (leader is not None and self._transport.connected(leader))

    def on_question(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """See `ReplicaAPI.on_question`."""

        async def answer_as_leader(payload: bytes) -> bytes:
            if not self.node.leads:
                raise NoLeader("No cluster leader")
            return await answer(payload)

        self._calls.answer_with(_QUESTIONS, answer_as_leader)

    def answer_with(self, channel: str, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Sets who answers another channel (the cluster's own)."""
        self._calls.answer_with(channel, answer)

    def on_role_change(self, changed: Callable[[Role, int], None]) -> None:
        """See `ReplicaAPI.on_role_change`."""
        self._role_callbacks.append(changed)

    def status(self) -> ReplicaStatus:
        """See `ReplicaAPI.status`."""
        return self.node.status()

    def cluster_time_ms(self) -> int:
        """See `ReplicaAPI.cluster_time_ms`."""
        return self.node.cluster_time_ms()

    @property
    def transport(self) -> PeerTransport:
        """The connections, for the cluster's book-keeping and metrics."""
        return self._transport

    def wake(self) -> None:
        """Lets the node run soon."""
        self._wake()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine until it ends or the replica stops."""
        self._spawn(work)

    # --- membership

    async def add_server(self, server: Server, *, timeout_s: float = 60.0) -> None:
        """See `ReplicaAPI.add_server`.

        Raises:
            InvalidRequest: It is a member, or its name is taken.
            NoLeader: No leader did it in time.
        """
        await self._cluster.ask_to_add(server, timeout_s)

    async def remove_server(self, server_id: str, *, timeout_s: float = 30.0) -> None:
        """See `ReplicaAPI.remove_server`.

        Raises:
            NotFound: No such server.
            InvalidRequest: It is the last voter.
            NoLeader: No leader did it in time.
        """
        await self._cluster.ask_to_remove(server_id, timeout_s)

    async def transfer_leadership(self, server_id: str | None = None) -> str:
        """See `ReplicaAPI.transfer_leadership`.

        Raises:
            InvalidRequest: That server can't lead.
            NoLeader: Nobody took over in time.
        """
        return await self._cluster.ask_to_transfer(server_id)

    def hello(self) -> dict[str, Any]:
        """What every hello of this server says."""
        settings = self.settings
        return {
            "id": self._server_id,
            "name": settings.name,
            "datacenter": settings.datacenter,
            "host": settings.advertise_host or settings.bind_host,
            "port": self._transport.address.port,
            "version": PROTOCOL_VERSION,
            "http": settings.http_address,
        }


def open_replica(
    settings: ReplicaSettings, machine: StateMachine, clock: Clock, rng: Random
) -> Replica:
    """Makes a replica; `start` opens it.

    Raises:
        ConfigurationError: The settings contradict each other, or a key can't be read.
    """
    if not settings.name:
        raise InvalidRequest("a server needs a name")
    return Replica(settings, machine, clock, rng)
