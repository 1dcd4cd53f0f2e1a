"""Links between simulated servers: delay, order, cuts in one or both directions, resets."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from raftreg.raft.wire import decode_message, encode_message

if TYPE_CHECKING:
    from tests.sim.world import World

#: Of the messages that were on a connection when it broke, so many still arrive: the receiver had
#: them in its buffers. They may come after what the next connection brings.
LATE_SHARE = 0.3
LATE_S = (0.01, 0.05, 1.5)


class SimNetwork:
    """Links with delay, in order, one for each direction.

    A connection neither repeats nor reorders. When it breaks, what was on its way is lost, or
    comes late; it never reaches another process than the one it was sent to.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._up: set[tuple[str, str]] = set()
        self._blocked: set[tuple[str, str]] = set()
        self._epoch: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._last: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._slow: dict[tuple[str, str], tuple[float, float]] = {}
        self.delay_s = (0.0005, 0.005)
        self.sent = 0

    def send(self, source: str, target: str, message: dict[str, Any]) -> bool:
        """Queues a message; a link that is down drops it."""
        link = (source, target)
        if link not in self._up:
            return False
        self.sent += 1
        world = self._world
        world.invariants.sending(source, target, message)
        body = encode_message(message)
        delay_s = world.rng.uniform(*self._slow.get(link, self.delay_s))
        at = max(self._last[link], world.scheduler.now + delay_s)
        self._last[link] = at
        epoch, process = self._epoch[link], world.servers[target].incarnation

        def deliver(late: bool = False) -> None:
            if target not in world.servers or world.servers[target].incarnation != process:
                return
            if late or (self._epoch[link] == epoch and link in self._up):
                world.deliver(source, target, decode_message(body))
            elif world.rng.random() < LATE_SHARE:
                delay_s = world.rng.uniform(0, world.rng.choice(LATE_S))
                world.scheduler.call_later(delay_s, lambda: deliver(True))

        world.scheduler.call_later(at - world.scheduler.now, deliver)
        return True

    def block(self, source: str, target: str) -> None:
        """Breaks one direction until `unblock_all`."""
        self._blocked.add((source, target))
        self.down(source, target)

    def cut_off(self, name: str) -> None:
        """Breaks all links of a server, both ways, until `unblock_all`."""
        for other in sorted(self._world.servers):
            if other != name:
                self.block(name, other)
                self.block(other, name)

    def slow(self, source: str, target: str, delay_s: tuple[float, float]) -> None:
        """Lets what goes in one direction take longer until `unblock_all`."""
        self._slow[source, target] = delay_s

    def unblock_all(self) -> None:
        """Lets everything be connected and fast again."""
        self._blocked.clear()
        self._slow.clear()
        self.connect_all()

    def reset(self, source: str, target: str) -> None:
        """Breaks a connection that is dialled again at once."""
        self.down(source, target)
        self._connect((source, target))

    def down(self, source: str, target: str) -> None:
        """Breaks one direction now; it comes back when it is not blocked."""
        link = (source, target)
        if link in self._up:
            self._up.discard(link)
            self._epoch[link] += 1
            server = self._world.servers[source]
            if server.node is not None:
                server.node.peer_disconnected(target)
                server.poke()

    def isolate(self, name: str) -> None:
        """A process is gone: all its links are down."""
        for other in sorted(self._world.servers):
            if other != name:
                self.down(name, other)
                self.down(other, name)

    def connect_all(self) -> None:
        """Dials wherever both ends run and nothing blocks the way."""
        for source in sorted(self._world.servers):
            for target in sorted(self._world.servers):
                self._connect((source, target))

    def _connect(self, link: tuple[str, str]) -> None:
        source, target = link
        if source == target or link in self._up or link in self._blocked:
            return
        ours, theirs = self._world.servers[source], self._world.servers[target]
        if ours.node is None or theirs.node is None:
            return
        self._up.add(link)
        ours.node.peer_connected(target)
        ours.poke()


class Port:
    """The network as one server sees it."""

    def __init__(self, network: SimNetwork, name: str) -> None:
        self._network = network
        self._name = name

    def send(self, peer: str, message: dict[str, Any]) -> bool:
        """See `Network.send`."""
        return self._network.send(self._name, peer, message)

    def buffered_bytes(self, peer: str) -> int:
        """Nothing waits for a simulated socket."""
        del peer
        return 0
