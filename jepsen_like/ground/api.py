"""What nemeses and the runner may do to hosts and the network between them."""

from __future__ import annotations

import enum
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import msgspec


class Need(enum.Enum):
    """What a fault needs of the machine beyond processes of its own."""

    NETWORK = "network"  #: network namespaces and a tun device a host (root)
    DISK = "disk"  #: a FUSE mount under the data directory of every server
    CLOCK = "clock"  #: a library preloaded into every server, built by cc


class Rule(msgspec.Struct, frozen=True):
    """What the switch does to packets from one host to another.

    Attributes:
        drop: Everything is lost.
        flap_s: With `drop`: lost for `flap_s`, passed for `flap_s`, and so on. 0 is lost always.
        loss: Share of the packets that is lost, 0 to 1.
        delay_s, jitter_s: Each waits `delay_s` plus up to `jitter_s`; unequal waits reorder.
        duplicate: Share of the packets that come twice, 0 to 1.
        rate_bytes_per_s: Bandwidth; 0 is without limit.
    """

    drop: bool = False
    flap_s: float = 0.0
    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplicate: float = 0.0
    rate_bytes_per_s: int = 0


class PairCount(msgspec.Struct, frozen=True):
    """Packets from one host to another since the start."""

    passed: int = 0
    dropped: int = 0
    delayed: int = 0
    reordered: int = 0
    duplicated: int = 0
    throttled: int = 0


class Network(Protocol):
    """The switch between the hosts. The clients' host is not subject to rules unless named."""

    async def set_rules(self, rules: Mapping[tuple[str, str], Rule]) -> None:
        """Replaces all rules; a pair (source, target) that is not named passes everything."""
        ...

    async def counts(self) -> dict[tuple[str, str], PairCount]:
        """What the switch did so far, by (source, target)."""
        ...


class DiskControl(Protocol):
    """The file system under a server's data directory."""

    async def set_faults(
        self,
        *,
        full: bool = False,
        fsync_error: bool = False,
        write_error: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        """Replaces the faults: ENOSPC on writes, EIO on fsync or write, slower fsync and write."""
        ...

    async def counts(self) -> dict[str, int]:
        """How often each fault acted, and calls by kind, since the mount."""
        ...

    async def freeze(self) -> None:
        """From this instant no call changes anything: all wait. The instant of a power loss."""
        ...

    async def lose_power(self, *, seed: int, torn: bool) -> dict[str, int]:
        """After the process is gone: what was not synced is lost, wholly or in part as the seed
        decides; with `torn`, the last unsynced write of a file may stay in part. Thaws.

        Returns:
            What was lost: {"writes": n, "bytes": n, "names": n}.
        """
        ...

    async def sync(self) -> None:
        """Makes durable all that was written, names too, as an operator's `sync` does."""
        ...

    async def flip(self, name_pattern: str, rng: Random) -> dict[str, Any]:
        """Turns over one bit of one durable byte; the process must not run.

        Args:
            name_pattern: Which files, such as "wal-*.seg" (fnmatch).
            rng: Chooses file, byte and bit.

        Returns:
            {"file": path in the data directory, "offset", "old", "new", "size": durable bytes}.

        Raises:
            OSError: No such file has durable bytes.
        """
        ...


class ClockControl(Protocol):
    """The wall clock that a server's process sees."""

    async def set(self, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        """Jumps by `offset_s` against the real clock, then runs `rate` times as fast."""
        ...

    async def strobe(self, *, offset_s: float, period_s: float) -> None:
        """Jumps by `offset_s` and back, each after `period_s`, until the next `set`."""
        ...


class Host(Protocol):
    """A host with one raftreg process: a server or an agent.

    Attributes:
        name: "n1", …; agents "a1", ….
        address: Its IP address.
        data_dir: As the process sees it.
        log: What the process wrote, over all its starts.
        disk, clock: None where the run has no such control.
    """

    name: str
    address: str
    data_dir: Path
    log: Path
    disk: DiskControl | None
    clock: ClockControl | None

    @property
    def pid(self) -> int | None:
        """Its process, None while none runs."""
        ...

    def state(self) -> str:
        """State letter of the process as in /proc/PID/stat ("R", "S", "T", …), "-" for none."""
        ...

    async def start(self, flags: Sequence[str] = ()) -> None:
        """Starts the process (nothing if it runs); does not wait until it answers."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; SIGSTOP and SIGCONT pause and resume."""
        ...

    async def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        ...

    async def stop(self) -> int:
        """SIGTERM, and waits; SIGKILL after 20 s. Gives the exit code."""
        ...

    async def wipe(self) -> None:
        """Empties the data directory; the process must not run."""
        ...


class Ground(Protocol):
    """Everything of one run.

    Attributes:
        servers: The servers of the cluster, running or not.
        spares: Servers that are not started and belong to nothing yet (for membership changes).
        agents: Hosts with an agent only.
        network: None where the run has no namespaces.
    """

    servers: list[Host]
    spares: list[Host]
    agents: list[Host]
    network: Network | None

    def host(self, name: str) -> Host:
        """By name.

        Raises:
            KeyError: There is none.
        """
        ...

    async def leader(self, timeout_s: float = 5.0) -> Host | None:
        """Who leads, by the servers' own words and the highest term; None when nobody does."""
        ...

    async def ask(self, host: Host, path: str, method: str = "GET", body: Any = None) -> Any:
        """One HTTP request of the nemesis to a host.

        Returns:
            Decoded JSON, whatever the status; {"status": …, "text": …} for text that is no JSON;
            None when there is no answer within two seconds.
        """
        ...
