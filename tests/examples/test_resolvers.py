"""dnsmasq and Unbound, which send what ends in .consul to an agent."""

from __future__ import annotations

from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest

from tests.e2e.ask import Ask
from tests.e2e.cluster import Member
from tests.e2e.waiting import until
from tests.examples.programs import Program, Programs, install

PORT = 5300
_ANSWER_S_MAX = 2.0


def _dnsmasq(programs: Programs, agent: Member, address: str, directory: Path) -> Program:
    changes = {"127.0.0.1#8600": f"{agent.address}#8600", "10.0.0.0/8": "127.0.0.0/8"}
    config = install("dnsmasq/raftreg.conf", directory, changes)
    return programs.start(
        "dnsmasq",
        [
            "dnsmasq",
            "--keep-in-foreground",
            "--log-facility=-",
            "--user=",  # as whoever runs the test
            "--group=",
            "--pid-file",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            f"--listen-address={address}",
            f"--port={PORT}",
            f"--conf-file={config}",
        ],
    )


def _unbound(programs: Programs, agent: Member, address: str, directory: Path) -> Program:
    changes = {"127.0.0.1@8600": f"{agent.address}@8600"}
    config = install("unbound/raftreg.conf", directory, changes)
    host = directory / "unbound.conf"
    host.write_text(
        "server:\n"
        "    do-daemonize: no\n"
        "    use-syslog: no\n"
        f"    interface: {address}@{PORT}\n"
        f'    directory: "{directory}"\n'
        '    chroot: ""\n    username: ""\n    pidfile: ""\n'
        # As Debian runs it: with DNSSEC. No root server is asked: there is no way to one.
        '    module-config: "validator iterator"\n'
        f'include: "{config}"\n'
    )
    return programs.start("unbound", ["unbound", "-d", "-c", host])


STARTS = {"dnsmasq": _dnsmasq, "unbound": _unbound}


class _Resolver:
    """Asks a resolver as its host's programs do."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def ask(self, name: str, kind: str, *, tcp: bool = False) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=True)
        send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        try:
            return await send(query, self._address, port=PORT, timeout=_ANSWER_S_MAX)
        except dns.exception.DNSException as error:
            raise ConnectionError(repr(error)) from error

    async def texts(self, name: str, kind: str, *, tcp: bool = False) -> set[str]:
        """The answer's records of that kind."""
        answer = await self.ask(name, kind, tcp=tcp)
        wanted = dns.rdatatype.from_text(kind)
        found = (rrset for rrset in answer.answer if rrset.rdtype == wanted)
        return {record.to_text() for rrset in found for record in rrset}


@pytest.mark.parametrize("resolver", STARTS)
async def test_names_of_the_registry_resolve_through_the_host(
    resolver: str, agent: Member, ask: Ask, net: str, programs: Programs, tmp_path: Path
) -> None:
    """A, SRV with a node's name as target, tags, TCP; absence and presence are seen at once."""
    host = _Resolver(f"{net}.1")
    STARTS[resolver](programs, agent, f"{net}.1", tmp_path)
    service = f"through-{resolver}"
    name = f"{service}.service.consul"

    async def absent() -> bool:
        return (await host.ask(name, "A")).rcode() == dns.rcode.NXDOMAIN

    await until("an answer that nothing is there", absent)

    await ask.register(agent, service, Address=f"{net}.10", Port=8010, Tags=["blue"], ID="here")
    await ask.register(agent, service, Port=8020, ID="there")

    async def present() -> bool:
        return await host.texts(name, "A") == {f"{net}.10", agent.address}

    await until("both instances, though their absence was answered a moment ago", present)
    assert await host.texts(name, "A", tcp=True) == {f"{net}.10", agent.address}
    assert await host.texts(f"blue.{name}", "A") == {f"{net}.10"}
    targets = {record.split()[2]: record for record in await host.texts(name, "SRV")}
    assert {record.split()[3] for record in targets.values()} >= {f"{agent.name}.node.dc1.consul."}
    assert set(targets) == {"8010", "8020"}
    assert await host.texts(f"{agent.name}.node.consul", "A") == {agent.address}

    await ask.put(agent, "/v1/agent/service/deregister/here")

    async def followed() -> bool:
        return await host.texts(name, "A") == {agent.address}

    await until("the deregistered instance gone", followed)
    await ask.put(agent, "/v1/agent/service/deregister/there")
    await until("nothing there again", absent)


async def test_dnsmasq_finds_names_of_addresses(
    agent: Member, net: str, programs: Programs, tmp_path: Path
) -> None:
    """The example's line for reverse lookups leads to the agent too."""
    host = _Resolver(f"{net}.1")
    _dnsmasq(programs, agent, f"{net}.1", tmp_path)
    pointer = dns.reversename.from_address(agent.address).to_text()

    async def named() -> bool:
        return await host.texts(pointer, "PTR") == {f"{agent.name}.node.dc1.consul."}

    await until("the name of the agent's address", named)
