"""Names at an agent that are never older than the registry."""

from __future__ import annotations

from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode

from raftreg.client.api import RegistryClient
from raftreg.config import DnsSettings
from tests.agent.mesh import running
from tests.agent.test_with_server import agent_of, registry

HOST = "127.0.0.1"


async def test_without_stale_reads_a_name_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    """What a server acknowledged before a query was sent is in its answer."""
    query = dns.message.make_query("fresh.service.consul.", "SRV", use_edns=0, payload=4096)
    async with registry() as found:
        settings = agent_of(
            found, data_dir=str(tmp_path), dns_port=0, dns=DnsSettings(allow_stale=False)
        )
        async with running(settings) as app, RegistryClient([found.address]) as client:
            await app.dns_ready.wait()
            for number in range(1, 21):
                body = {
                    "Node": f"elsewhere-{number}",
                    "Address": f"127.0.0.{number}",
                    "Service": {"Service": "fresh", "Port": number},
                }
                await client.request("PUT", "/v1/catalog/register", json=body)
                reply = await dns.asyncquery.udp(query, HOST, port=app.dns_port, timeout=5)
                assert len([rr for one in reply.answer for rr in one]) == number
