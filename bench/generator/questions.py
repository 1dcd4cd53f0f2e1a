"""DNS queries over UDP in a closed loop: a socket has one query outstanding."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import Counter

import dns.message
import dns.rdatatype

from bench.generator.jobs import DnsJob, Tally, tally_of

ANSWER_BYTES_MAX = 65_535
#: A query that was not answered by then counts as lost, and is asked again.
LOST_AFTER_S = 1.0
_POLL_S = 0.1


class _Asker:
    """One socket with its query."""

    __slots__ = ("query", "sent_at_s", "sock")

    def __init__(self, address: str, query: bytes) -> None:
        host, _, port = address.rpartition(":")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect((host, int(port)))
        self.query = query
        self.sent_at_s = 0.0

    def ask(self, now_s: float) -> None:
        self.sent_at_s = now_s
        self.sock.send(self.query)


class _Loop:
    """All askers, and what they count."""

    def __init__(self, job: DnsJob) -> None:
        self._poll = select.epoll()
        self._askers: dict[int, _Asker] = {}
        self.latencies_s: list[float] = []
        self.failures: Counter[str] = Counter()
        self.answers_total = 0
        for number in range(job.sockets):
            asker = _Asker(job.address, question(job.name, job.rdtype, number + 1))
            self._askers[asker.sock.fileno()] = asker
            self._poll.register(asker.sock.fileno(), select.EPOLLIN)

    def start(self) -> None:
        now_s = time.perf_counter()
        for asker in self._askers.values():
            asker.ask(now_s)

    def run_until(self, end_s: float) -> None:
        look_s = time.perf_counter() + LOST_AFTER_S
        while (now_s := time.perf_counter()) < end_s:
            for handle, _ in self._poll.poll(_POLL_S):
                self._read(self._askers[handle])
            if now_s > look_s:
                look_s = now_s + LOST_AFTER_S
                self._ask_lost_again(now_s)

    def close(self) -> None:
        for asker in self._askers.values():
            asker.sock.close()
        self._poll.close()

    def _read(self, asker: _Asker) -> None:
        try:
            answer = asker.sock.recv(ANSWER_BYTES_MAX)
        except OSError:  # an ICMP refusal of what was sent before
            self.failures["refused"] += 1
            asker.ask(time.perf_counter())
            return
        if answer[:2] != asker.query[:2]:
            return
        now_s = time.perf_counter()
        self.answers_total += 1
        wrong = fault(answer)
        if wrong is None:
            self.latencies_s.append(now_s - asker.sent_at_s)
        else:
            self.failures[wrong] += 1
        asker.ask(now_s)

    def _ask_lost_again(self, now_s: float) -> None:
        for asker in self._askers.values():
            if now_s - asker.sent_at_s > LOST_AFTER_S:
                self.failures["lost"] += 1
                asker.ask(now_s)


def question(name: str, rdtype: str, number: int) -> bytes:
    """A query without EDNS0, as most resolvers of C libraries send; `number` is its id."""
    message = dns.message.make_query(name, dns.rdatatype.from_text(rdtype), use_edns=False)
    message.id = number
    return message.to_wire()


def fault(answer: bytes) -> str | None:
    """What is wrong with an answer by its header alone, None when it holds records."""
    if len(answer) < 12 or not answer[2] & 0x80:
        return "no answer"
    code = answer[3] & 0x0F
    if code:
        return f"rcode {code}"
    return None if answer[6:8] != b"\x00\x00" else "empty"


def run(job: DnsJob) -> Tally:
    """Sends the queries.

    Raises:
        OSError: A socket can't be made.
    """
    with contextlib.closing(_Loop(job)) as loop:
        loop.start()
        loop.run_until(time.perf_counter() + job.warmup_s)
        loop.latencies_s.clear()
        began_s = time.perf_counter()
        loop.run_until(began_s + job.seconds)
        seconds = time.perf_counter() - began_s
    return tally_of(
        loop.latencies_s, dict(loop.failures), seconds, loop.answers_total, time.process_time()
    )
