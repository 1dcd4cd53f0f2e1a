"""Name service of servers and agents: answers from a view of the catalog, sockets around it."""

from raftreg.config import DnsSettings
from raftreg.dns.answer import Answerer, Forward, Transport
from raftreg.dns.server import DnsServer

__all__ = ["Answerer", "DnsServer", "DnsSettings", "Forward", "Transport"]
