"""An event loop of one simulated process: no selector, no thread, no socket of this machine.

Everything a process may ask of its loop is here; whatever else it asks for raises
NotImplementedError (`asyncio.AbstractEventLoop`), so that nothing can escape into the real world.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any

from tests.sim.whole.net import Machine
from tests.sim.whole.stream import Dialled, RawListener, Served, connect

if TYPE_CHECKING:
    from tests.sim.whole.timeline import Timeline

#: A timer never fires before its time, whatever rounding does.
_SLACK_S = 1e-9
#: How long a job in a thread takes.
_JOB_S = (0.0002, 0.01)
#: A coroutine that still awaits so often while it is being closed is given up.
_LAST_AWAITS_MAX = 100


class _Killed(BaseException):
    """Unwinds a coroutine of a killed process."""


def _unwind(coroutine: Any) -> None:
    """Ends a coroutine of a killed process.

    Its `finally` blocks run now, where nothing of them can reach anybody: sockets and disk are
    gone, and there is no loop to wait on. Left to the sweeper they would run at any moment. Thrown
    into and not closed: what awaits in a `finally` block is thrown into again until it is through.
    """
    for _ in range(_LAST_AWAITS_MAX):
        try:
            coroutine.throw(_Killed())
        except BaseException:  # noqa: BLE001 - whatever its last words are
            return


class ProcessLoop(asyncio.AbstractEventLoop):
    """The loop of one process.

    Args:
        timeline: Simulated time.
        machine: Where the process runs.
        rng: Decides how long jobs in threads take.
        rate: How fast this process's monotonic clock runs.
        offset_s: Where its clock began.

    Attributes:
        name: Of the machine.
        signals: Handlers, by number.
        dead: The process is gone: nothing of it ever runs again.
    """

    def __init__(
        self, timeline: Timeline, machine: Machine, rng: Random, *, rate: float, offset_s: float
    ) -> None:
        self.timeline = timeline
        self.machine = machine
        self.name = machine.name
        self.dead = False
        self.signals: dict[int, Callable[[], object]] = {}
        self._rng = rng
        self._rate = rate
        self._offset_s = offset_s
        self._paused = False
        self._backlog: list[asyncio.Handle] = []
        self._readers: dict[int, RawListener] = {}
        self._on_fault: Callable[[dict[str, Any]], None] = lambda _: None

    # --- life

    def on_fault(self, told: Callable[[dict[str, Any]], None]) -> None:
        """Sets who is told what nobody caught."""
        self._on_fault = told

    def admits(self, handle: asyncio.Handle) -> bool:
        """Whether the process runs; what comes while it is stopped waits."""
        if self.dead:
            return False
        if self._paused:
            self._backlog.append(handle)
            return False
        return True

    def pause(self) -> None:
        """SIGSTOP."""
        self._paused = True

    def resume(self) -> None:
        """SIGCONT."""
        self._paused = False
        backlog, self._backlog = self._backlog, []
        for handle in backlog:
            self.timeline.soon(self, handle)

    def kill(self) -> None:
        """The process is gone. Its coroutines are closed here and now, not when memory is swept."""
        self.dead = True
        self._backlog.clear()
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _unwind(task.get_coro())

    # --- time

    def time(self) -> float:
        """This process's monotonic clock."""
        return self.timeline.now * self._rate + self._offset_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:
            self.timeline.soon(self, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            at = (when - self._offset_s) / self._rate + _SLACK_S
            self.timeline.timer(max(at, self.timeline.now), self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays on the heap until its time, and does nothing then."""

    # --- tasks

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        """See asyncio."""
        return asyncio.Task(coro, loop=self, name=name or "task", context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Runs the job at once, after the time that a thread would have taken."""
        del executor
        future = self.create_future()

        def run() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - as a thread hands on whatever is raised
                future.set_exception(error)

        self.call_later(self._rng.uniform(*_JOB_S), run)
        return future

    def is_running(self) -> bool:
        """See asyncio."""
        return True

    def is_closed(self) -> bool:
        """See asyncio."""
        return self.dead

    def get_debug(self) -> bool:
        """See asyncio."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nobody caught it: told to whoever watches this process."""
        if not self.dead:
            self._on_fault(context)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Keeps it for whoever sends the signal."""
        self.signals[sig] = lambda: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        """See asyncio."""
        return self.signals.pop(sig, None) is not None

    # --- network

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        """Only addresses are known here."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: Dialled | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, Any]:
        """See asyncio; without TLS."""
        assert options.get("ssl") is None, "no TLS in the simulator"
        if sock is None:
            assert host is not None
            assert port is not None
            sock = await connect(self, host, port)
        return await sock.begin(protocol_factory)

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], host: str, port: int, **_: Any
    ) -> Served:
        """See asyncio."""
        return Served(self, protocol_factory, host, port)

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], Any],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **_: Any,
    ) -> tuple[asyncio.DatagramTransport, Any]:
        """See asyncio."""
        protocol = protocol_factory()
        transport = self.machine.network.datagrams(self, protocol, local_addr, remote_addr)
        self.call_soon(protocol.connection_made, transport)
        await asyncio.sleep(0)
        return transport, protocol

    async def connect_accepted_socket(  # type: ignore[override]
        self, protocol_factory: Callable[[], Any], sock: Dialled, *, ssl: object = None
    ) -> tuple[asyncio.Transport, Any]:
        """See asyncio."""
        assert ssl is None, "no TLS in the simulator"
        return await sock.begin(protocol_factory)

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        """Only for sockets that listen."""
        listener = self._readers[fd]
        listener.readable = lambda: callback(*args)
        if listener.waiting:
            self.call_soon(listener.readable)

    def remove_reader(self, fd: Any) -> bool:
        """See `add_reader`."""
        self._readers[fd].readable = None
        return True

    def listen_raw(self, host: str, port: int) -> RawListener:
        """A socket that listens, for who accepts by hand."""
        listener = RawListener(self, host, port)
        self._readers[listener.fileno()] = listener
        return listener
