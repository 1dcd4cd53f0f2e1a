"""Machines and the paths between them: delay, loss, cuts in one or both directions, power."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from tests.sim.whole.stream import Direction, End, Host, Listener, Packet, SimDatagrams

if TYPE_CHECKING:
    from tests.sim.whole.loop import ProcessLoop
    from tests.sim.whole.timeline import Timeline

_LOOPBACK_S = (0.00001, 0.00003)
_LAN_S = (0.0002, 0.002)
#: A lost packet is sent again after this; so is what waited for a path to open.
_AGAIN_S = (0.05, 0.25)


class Path:
    """What goes from one machine to another.

    Attributes:
        blocked: Nothing passes; TCP goes on trying.
        delay_s: Least and most.
        loss: Share of the packets that has to be sent again.
    """

    def __init__(self, timeline: Timeline, rng: Random, delay_s: tuple[float, float]) -> None:
        self._timeline = timeline
        self._rng = rng
        self._usual_s = delay_s
        self.blocked = False
        self.delay_s = delay_s
        self.loss = 0.0
        self.waiting: dict[Direction, None] = {}

    def take_s(self) -> float:
        """How long the next packet takes."""
        rng, (least_s, most_s) = self._rng, self.delay_s
        delay_s = least_s + (most_s - least_s) * rng.random()
        while self.loss and rng.random() < self.loss:
            delay_s += rng.uniform(*_AGAIN_S)
        return delay_s

    def calm(self) -> None:
        """Ends delay and loss."""
        self.delay_s = self._usual_s
        self.loss = 0.0

    def open(self) -> None:
        """Lets through what has waited."""
        self.blocked = False
        waiting, self.waiting = self.waiting, {}
        for direction in waiting:
            self._timeline.call_later(self._rng.uniform(*_AGAIN_S), direction.pump)


class Machine(Host):
    """A machine: what outlives the process on it.

    Attributes:
        network: All machines.
        powered: Without power it neither answers nor refuses.
        process: The loop of the process that runs on it now.
        ends: Open connections.
        listeners: By port.
    """

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.powered = True
        self.process: ProcessLoop | None = None
        self.ends: dict[End, None] = {}
        self.listeners: dict[int, Listener] = {}
        self.datagrams: dict[int, SimDatagrams] = {}
        self._port = 40_000

    def free_port(self) -> int:
        """A port of this machine's own choice."""
        self._port += 1
        return self._port

    def close_all(self, rng: Random) -> None:
        """The process is gone: the kernel closes its sockets."""
        self.listeners.clear()
        self.datagrams.clear()
        for end in list(self.ends):
            end.vanish(Packet.EOF if rng.random() < 0.5 else Packet.RESET)

    def lose_power(self) -> None:
        """Nobody is told anything."""
        self.powered = False
        self.listeners.clear()
        self.datagrams.clear()
        for end in list(self.ends):
            end.vanish(None)

    def regain_power(self) -> None:
        """From now on it refuses what nobody listens for."""
        if not self.powered:
            self.powered = True
            for path in self.network.paths_to(self.name):
                if not path.blocked:
                    path.open()


class Network:
    """All machines and paths.

    Args:
        timeline: Simulated time.
        seed: Decides delays.
    """

    def __init__(self, timeline: Timeline, seed: int) -> None:
        self.timeline = timeline
        self.machines: dict[str, Machine] = {}
        self.sent = 0
        self._seed = seed
        self._by_address: dict[str, Machine] = {}
        self._paths: dict[tuple[str, str], Path] = {}

    def add(self, name: str) -> Machine:
        """A new machine with an address of its own."""
        machine = Machine(self, name, f"10.0.0.{len(self.machines) + 1}")
        self.machines[name] = machine
        self._by_address[machine.address] = machine
        return machine

    def at(self, address: str, asker: Host) -> Machine | None:
        """Who has an address, as a machine sees it."""
        return (
            self.machines[asker.name] if address == "127.0.0.1" else self._by_address.get(address)
        )

    def path(self, source: str, target: str) -> Path:
        """The path from one machine to another."""
        path = self._paths.get((source, target))
        if path is None:
            # Of its own, so that what happens elsewhere does not change what happens here.
            rng = Random(f"{self._seed}/{source}>{target}")
            usual_s = _LOOPBACK_S if source == target else _LAN_S
            path = self._paths[source, target] = Path(self.timeline, rng, usual_s)
        return path

    def paths_to(self, name: str) -> list[Path]:
        """All paths to a machine."""
        return [self.path(source, name) for source in self.machines]

    # --- faults

    def block(self, source: str, target: str) -> None:
        """Cuts one direction."""
        if source != target:
            self.path(source, target).blocked = True

    def cut_off(self, name: str, *, clients: tuple[str, ...] = ()) -> None:
        """Cuts a machine off from all others but these."""
        for other in self.machines:
            if other not in clients:
                self.block(name, other)
                self.block(other, name)

    def heal(self) -> None:
        """Opens all paths; they are as fast as ever."""
        for path in self._paths.values():
            path.calm()
            if path.blocked:
                path.open()

    def reset(self, rng: Random) -> None:
        """Breaks a connection between two machines."""
        ends = [
            end
            for machine in self.machines.values()
            for end in machine.ends
            if end.out.path is not self.path(machine.name, machine.name)
        ]
        if ends:
            end = rng.choice(ends)
            end.broken()
            end.peer.broken()

    # --- datagrams

    def datagrams(
        self,
        loop: ProcessLoop,
        protocol: Any,
        local: tuple[str, int] | None,
        remote: tuple[str, int] | None,
    ) -> asyncio.DatagramTransport:
        """A UDP socket.

        Raises:
            OSError: The port is taken.
        """
        machine = loop.machine
        port = (local[1] if local else 0) or machine.free_port()
        if port in machine.datagrams:
            raise OSError(98, "Address already in use")
        transport = SimDatagrams(loop, protocol, (machine.address, port), remote)
        machine.datagrams[port] = transport
        return transport

    def send_datagram(self, sender: SimDatagrams, data: bytes, address: tuple[str, int]) -> None:
        """Delivers a datagram, or loses it."""
        target = self.at(address[0], sender.machine)
        if target is None:
            return
        path = self.path(sender.machine.name, target.name)
        if path.blocked or (path.loss and path.take_s() > path.delay_s[1]):
            return
        self.sent += 1

        def deliver() -> None:
            receiver = target.datagrams.get(address[1])
            if receiver is not None and target.powered:
                receiver.deliver(data, sender.address)

        self.timeline.call_later(path.take_s(), deliver)

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> None:
        """See `Timeline.call_later`."""
        self.timeline.call_later(delay_s, fn)
