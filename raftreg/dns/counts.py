"""How many queries were answered, by transport and response code."""

from __future__ import annotations

from collections.abc import Iterator

import dns.rcode
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from raftreg.dns.answer import Transport

_RCODES = 16


class AnswerCounts(Collector):
    """Plain numbers: a counter with a lock and labels costs as much as a whole answer.

    Attributes:
        by_rcode: For each transport, how many answers had the code that is the place in the list.
    """

    def __init__(self) -> None:
        self.by_rcode = {transport: [0] * _RCODES for transport in Transport}

    def add(self, reply: bytes, transport: Transport) -> None:
        """Counts an answer."""
        self.by_rcode[transport][reply[3] & 0x0F] += 1

    @property
    def total(self) -> int:
        """All answers."""
        return sum(map(sum, self.by_rcode.values()))

    def collect(self) -> Iterator[Metric]:
        """The counts as metrics."""
        family = CounterMetricFamily(
            "raftreg_dns_queries",
            "DNS queries answered, by transport and response code",
            labels=("transport", "rcode"),
        )
        for transport, counts in self.by_rcode.items():
            for rcode, count in enumerate(counts):
                if count:
                    text = dns.rcode.to_text(dns.rcode.Rcode(rcode))
                    family.add_metric((transport.value, text), count)
        yield family
