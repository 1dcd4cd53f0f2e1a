"""What `dig` shows, at agents and servers."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.e2e.ask import Ask
from tests.e2e.cluster import DNS_PORT, Cluster, Member
from tests.e2e.waiting import until


async def _dig(member: Member, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("dig", f"@{member.address}", "-p", str(DNS_PORT), "+time=3", "+tries=2", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()


async def _short(member: Member, *arguments: str) -> list[str]:
    return sorted((await _dig(member, "+short", *arguments)).split("\n"))[1:]


@pytest.mark.parametrize("kind", ["agent", "server"])
async def test_dig_shows_addresses_targets_and_names_that_do_not_exist(
    mesh: Cluster, ask: Ask, kind: str
) -> None:
    """A, SRV with its targets' addresses, NXDOMAIN with SOA, tags, nodes, PTR; UDP and TCP."""
    asked = mesh.agents[0] if kind == "agent" else mesh.servers[0]
    hosts = mesh.agents
    name = f"dug-{kind}"
    for host in hosts:
        await ask.register(host, name, Tags=["blue"] if host is hosts[0] else [])
    everyone = sorted(host.address for host in hosts)
    domain = f"{name}.service.consul"

    async def complete() -> bool:
        return await ask.addresses(asked, name) == set(everyone)

    await until("both instances in DNS", complete)
    assert await _short(asked, domain) == everyone
    assert await _short(asked, "+tcp", domain, "A") == everyone
    assert await _short(asked, f"blue.{domain}") == [hosts[0].address]
    assert await _short(asked, f"_{name}._blue.service.consul") == [hosts[0].address]
    assert await _short(asked, f"{hosts[1].name}.node.consul") == [hosts[1].address]
    assert await _short(asked, "-x", hosts[1].address) == [f"{hosts[1].name}.node.dc1.consul."]

    srv = await _dig(asked, domain, "SRV")
    assert "status: NOERROR" in srv
    for host in hosts:
        assert f"1 1 8080 {host.name}.node.dc1.consul." in srv
        assert host.address in srv.partition("ADDITIONAL SECTION")[2]

    missing = await _dig(asked, "nothing.service.consul")
    assert "status: NXDOMAIN" in missing
    assert "SOA\tns.consul. hostmaster.consul." in missing
    assert "status: REFUSED" in await _dig(asked, "example.com")
    servers = sorted(server.address for server in mesh.servers)
    assert await _short(asked, "+tcp", "consul.service.consul") == servers


@pytest.mark.parametrize("kind", ["agent", "server"])
async def test_dig_shows_queries_the_domain_itself_and_edns(
    mesh: Cluster, ask: Ask, kind: str
) -> None:
    """A prepared query by its name, with its TTL; SOA and NS of the domain; ANY; EDNS0 options."""
    asked = mesh.agents[0] if kind == "agent" else mesh.servers[0]
    host = mesh.agents[1]
    name = f"queried-{kind}"
    await ask.register(host, name)
    body = {"Name": f"fast-{kind}", "Service": {"Service": name}, "DNS": {"TTL": "7s"}}
    created = await ask.request("POST", mesh.servers[0], "/v1/query", body=body)
    assert created.status == 200, created.text
    domain = f"fast-{kind}.query.consul"

    async def answered() -> bool:
        return await _short(asked, domain) == [host.address]

    await until("the query in DNS", answered)
    row = rf"{domain}\.\s+7\s+IN\s+A\s+{host.address}\n"
    assert re.search(row, await _dig(asked, domain))
    assert await _short(asked, domain, "SRV") == [f"1 1 8080 {host.name}.node.dc1.consul."]
    assert "status: NXDOMAIN" in await _dig(asked, f"no-{domain}")

    assert (await _short(asked, "consul", "SOA"))[0].startswith("ns.consul. hostmaster.consul. ")
    servers = sorted(f"{server.name}.node.dc1.consul." for server in mesh.servers)
    assert await _short(asked, "consul", "NS") == servers
    whole = await _dig(asked, f"{host.name}.node.consul", "ANY", "+bufsize=1232")
    assert host.address in whole
    assert "EDNS: version: 0, flags:; udp: 4096" in whole
    subnet = await _dig(asked, f"{name}.service.consul", "+subnet=192.0.2.0/24")
    assert "CLIENT-SUBNET: 192.0.2.0/24/0" in subnet
    assert host.address in subnet
    future = await _dig(asked, f"{name}.service.consul", "+edns=1", "+noednsnegotiation")
    assert "status: BADVERS" in future
