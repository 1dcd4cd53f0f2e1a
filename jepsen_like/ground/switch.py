"""The process between the hosts: `python -m jepsen_like.ground.switch`.

Each host is a network namespace with one tun device (tun(4), point-to-point, no Ethernet); this
process holds the other ends and passes IPv4 packets on by their destination address, under the
rules of `fabric`. Its standard input is a Unix stream socket: first a line `Setup`, then requests,
a JSON line each, each with a JSON line in answer. It ends when that socket does.

Run by `network`; it needs CAP_NET_ADMIN and CAP_SYS_ADMIN and changes the interfaces of the
namespaces that it is given, so it must run in a world of its own (`sandbox`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from jepsen_like.ground.fabric import (
    Answer,
    AskCounts,
    BadRule,
    Fabric,
    Lane,
    Request,
    SetRules,
)
from raftreg.clock import SystemClock

DEVICE: Final = "lan0"  #: of each host
MTU_BYTES: Final = 9000
LINE_BYTES_MAX: Final = 4 << 20
_READS_MAX: Final = 64  #: packets of one host before the others have their turn
_QUEUE_PACKETS: Final = 4000  #: that the kernel keeps for a host while this process is busy
_IDLE_MS: Final = -1
_PRIORITY: Final = -10

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_CLONE_NEWNET: Final = 0x40000000


class Port(msgspec.Struct, frozen=True):
    """A host as the switch sees it.

    Attributes:
        name: For rules and counters.
        address: IPv4, with its prefix length, as "10.77.0.1/24".
        namespace: File of its network namespace; "" is the namespace of the switch.
    """

    name: str
    address: str
    namespace: str = ""


class Setup(msgspec.Struct, frozen=True):
    """The first line that the switch reads."""

    ports: list[Port]
    seed: int = 0


def open_port(port: Port) -> int:
    """Makes the device in its namespace, with its address, up; gives the switch's end.

    The namespace of the calling thread is the old one afterwards.

    Raises:
        OSError: The kernel refuses.
        subprocess.CalledProcessError: `ip` refuses; its words are on standard error.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if port.namespace:
            there = os.open(port.namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(there)
            finally:
                os.close(there)
        return _open_device(port.address)
    finally:
        _enter(home)
        os.close(home)


def _enter(namespace: int) -> None:
    # os.setns is new in Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _open_device(address: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN_NO_PI))
        steps = (
            "link set lo up\n"
            f"link set {DEVICE} mtu {MTU_BYTES} txqueuelen {_QUEUE_PACKETS} addrgenmode none\n"
            f"addr add {ipaddress.IPv4Interface(address)} dev {DEVICE}\n"
            f"link set {DEVICE} up\n"
        )
        subprocess.run(["ip", "-batch", "-"], input=steps.encode(), check=True, timeout=20)
    except BaseException:
        os.close(device)
        raise
    return device


class Switch:
    """The shell around a `Fabric`: devices, one control connection, one thread.

    Args:
        control: The control connection.
        setup: The hosts.
        devices: An open device for each port.
    """

    def __init__(self, control: socket.socket, setup: Setup, devices: list[int]) -> None:
        self._now = SystemClock().monotonic
        self._control = control
        self._line = bytearray()
        self._devices = devices
        self._strays = 0
        self._fabric = Fabric([port.name for port in setup.ports], Random(setup.seed))
        addresses = {
            port.name: ipaddress.IPv4Interface(port.address).ip.packed for port in setup.ports
        }
        self._lanes: dict[int, dict[bytes, Lane]] = {
            device: {
                addresses[target]: lane
                for (source, target), lane in self._fabric.lanes.items()
                if source == port.name
            }
            for port, device in zip(setup.ports, devices, strict=True)
        }

    def run(self) -> None:
        """Passes packets on until the control connection ends."""
        control = self._control.fileno()
        with select.epoll() as poll:
            for device in (*self._devices, control):
                poll.register(device, select.EPOLLIN)
            while True:
                for ready, _ in poll.poll(self._patience()):
                    if ready == control:
                        if not self._listen():
                            return
                    else:
                        self._drain(ready)
                self._release()

    def _patience(self) -> float:
        at = self._fabric.next_at()
        return _IDLE_MS if at is None else max(0.0, at - self._now())

    def _drain(self, device: int) -> None:
        """Reads what a host sent. This is the hot path: plain passing costs two system calls."""
        lanes, admit, devices = self._lanes[device], self._fabric.admit, self._devices
        now = self._now()
        read = os.read
        for _ in range(_READS_MAX):
            try:
                packet = read(device, 65_536)
            except BlockingIOError:
                return
            lane = lanes.get(packet[16:20]) if packet[:1] == b"\x45" else None
            if lane is None:
                self._strays += 1
            elif admit(lane, packet, now):
                self._write(devices[lane.port], packet)

    def _release(self) -> None:
        for lane, packet in self._fabric.due(self._now()):
            self._write(self._devices[lane.port], packet)

    def _write(self, device: int, packet: bytes) -> None:
        try:
            os.write(device, packet)
        except OSError:  # the device is down or its queue is full: a lost packet, as on any path
            self._strays += 1

    def _listen(self) -> bool:
        """Reads from the control connection; False when it ended."""
        data = self._control.recv(65_536)
        self._line += data
        if len(self._line) > LINE_BYTES_MAX:
            return False
        while (end := self._line.find(b"\n")) >= 0:
            answer = self._obey(bytes(self._line[:end]))
            del self._line[: end + 1]
            self._control.sendall(msgspec.json.encode(answer) + b"\n")
        return bool(data)

    def _obey(self, line: bytes) -> Answer:
        try:
            match _decoder.decode(line):
                case SetRules(rules=rules):
                    named = {(source, target): rule for source, target, rule in rules}
                    self._fabric.set_rules(named, self._now())
                    return Answer()
                case AskCounts():
                    return Answer(
                        counts=[(*pair, count) for pair, count in self._fabric.counts().items()],
                        strays=self._strays,
                    )
        except (msgspec.DecodeError, BadRule) as error:
            return Answer(error=str(error))


_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def main() -> None:
    """Reads the setup, opens the devices, says that it is ready, works."""
    control = socket.socket(fileno=0)
    with contextlib.suppress(OSError):  # a starved switch would be a fault that nobody asked for
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    try:
        setup = msgspec.json.decode(_first_line(control), type=Setup)
        devices = [open_port(port) for port in setup.ports]
        switch = Switch(control, setup, devices)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        control.sendall(msgspec.json.encode(Answer(error=str(error))) + b"\n")
        sys.exit(1)
    control.sendall(msgspec.json.encode(Answer()) + b"\n")
    with contextlib.suppress(ConnectionError):
        switch.run()


def _first_line(control: socket.socket) -> bytes:
    """Byte by byte, so that nothing of the next line is taken."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = control.recv(1)
        if not byte or len(line) > LINE_BYTES_MAX:
            raise ValueError("the control connection ended before the setup")
        line += byte
    return bytes(line)


def namespace_file(name: str) -> Path:
    """Where `ip netns` keeps a namespace."""
    return Path("/run/netns") / name


if __name__ == "__main__":
    main()
