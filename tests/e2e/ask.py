"""Asking a cluster over HTTP and DNS as a stranger would: nothing of raftreg's own client."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from tests.e2e.cluster import DNS_PORT, Cluster, Member
from tests.e2e.waiting import until

_ANSWER_S_MAX = 30.0
_DNS_S_MAX = 2.0


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        host: Who gave it.
        status: HTTP status.
        headers: Its headers.
        body: Its body.
    """

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def index(self) -> int:
        """X-Consul-Index."""
        return int(self.headers["X-Consul-Index"])

    def json(self) -> Any:
        """The body as JSON; anything but a 200 fails the test, or means "not yet" in a wait."""
        assert self.status == 200, f"{self.host}: {self.status} {self.text[:500]}"
        return json.loads(self.body)


class Ask:
    """Sends requests to members.

    Args:
        session: Carries them; without a limit on connections.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(
        self,
        method: str,
        member: Member,
        path: str,
        *,
        body: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit_s: float = _ANSWER_S_MAX,
    ) -> Answer:
        """Sends one request; `body` goes as JSON, `data` as it is.

        Raises:
            OSError: The connection failed, broke or gave no answer in time.
        """
        payload = json.dumps(body).encode() if body is not None else data
        try:
            async with self._session.request(
                method,
                member.url + path,
                data=payload,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=limit_s),
            ) as response:
                content = await response.read()
                return Answer(member.name, response.status, response.headers.copy(), content)
        except aiohttp.ClientError as error:
            raise ConnectionError(f"{member.name}: {error!r}") from error

    async def get(self, member: Member, path: str, *, limit_s: float = _ANSWER_S_MAX) -> Answer:
        """GET."""
        return await self.request("GET", member, path, limit_s=limit_s)

    async def put(self, member: Member, path: str, body: object = None) -> Answer:
        """PUT of JSON; any other answer than 200 fails the test."""
        answer = await self.request("PUT", member, path, body=body)
        assert answer.status == 200, f"{answer.host}: {answer.status} {answer.text[:500]}"
        return answer

    # -- the nouns that many tests need ----------------------------------------------------------

    async def kv_put(self, member: Member, key: str, value: bytes, query: str = "") -> bool:
        """Writes a key; gives what the registry said."""
        answer = await self.request("PUT", member, f"/v1/kv/{key}{query}", data=value)
        return bool(answer.json())

    async def kv_tree(self, member: Member, prefix: str, query: str = "") -> dict[str, bytes]:
        """All keys under a prefix with their values."""
        answer = await self.get(member, f"/v1/kv/{prefix}?recurse{query}")
        if answer.status == 404:
            return {}
        return {row["Key"]: base64.b64decode(row["Value"] or "") for row in answer.json()}

    async def passing(self, member: Member, service: str, query: str = "") -> set[str]:
        """Ids of the instances that clients are sent to."""
        answer = await self.get(member, f"/v1/health/service/{service}?passing{query}")
        return {row["Service"]["ID"] for row in answer.json()}

    async def statuses(self, member: Member, service: str) -> dict[str, str]:
        """CheckID to status, of the checks of a service."""
        rows = (await self.get(member, f"/v1/health/checks/{service}")).json()
        return {row["CheckID"]: row["Status"] for row in rows}

    async def register(self, agent: Member, name: str, **more: Any) -> str:
        """Registers an instance with a passing TTL check through an agent; gives its id."""
        body = {
            "Name": name,
            "ID": f"{name}-at-{agent.name}",
            "Port": 8080,
            "Check": {"TTL": "10m", "Status": "passing"},
        } | more
        await self.put(agent, "/v1/agent/service/register", body)
        return str(body["ID"])

    async def dns(
        self, member: Member, name: str, kind: str = "A", *, tcp: bool = False
    ) -> dns.message.Message:
        """Asks a member's DNS.

        Raises:
            OSError: No answer came.
        """
        query = dns.message.make_query(name, kind, use_edns=True)
        ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        try:
            return await ask(query, member.address, port=DNS_PORT, timeout=_DNS_S_MAX)
        except dns.exception.DNSException as error:
            raise ConnectionError(f"{member.name}: {error!r}") from error

    async def addresses(self, member: Member, service: str) -> set[str]:
        """What DNS gives for a service; empty for NXDOMAIN."""
        answer = await self.dns(member, f"{service}.service.consul")
        return {record.address for rrset in answer.answer for record in rrset}

    # -- the cluster as a whole ------------------------------------------------------------------

    async def leader(self, cluster: Cluster, among: Iterable[Member] | None = None) -> Member:
        """The server that leads, once all (or the ones given) name the same that runs."""
        asked = list(cluster.servers if among is None else among)

        async def agreed() -> Member | None:
            named = await asyncio.gather(*(self.leader_at(server) for server in asked))
            for server in asked:
                if server.running and set(named) == {server.raft_address}:
                    return server
            return None

        return await until("one leader in the eyes of all", agreed)

    async def leader_at(self, server: Member) -> str:
        """The leader's Raft address in the eyes of one server, "" if it knows none."""
        return str((await self.get(server, "/v1/status/leader")).json())

    async def settled(self, cluster: Cluster) -> Member:
        """Starts what is dead, waits until all is well everywhere; gives the leader."""
        cluster.start()
        leader = await self.leader(cluster)
        names = {member.name for member in cluster.members}

        async def all_alive() -> bool:
            views = await asyncio.gather(*(self.alive(member) for member in cluster.members))
            return all(view == names for view in views)

        async def all_resolve() -> bool:
            await asyncio.gather(*(self.dns(agent, "consul.") for agent in cluster.agents))
            return True

        await until("every host alive in the eyes of every host", all_alive)
        await until("DNS at every agent", all_resolve)
        return leader

    async def alive(self, member: Member, query: str = "stale") -> set[str]:
        """Names of the hosts with a live lease, as a member sees them."""
        rows = (await self.get(member, f"/v1/health/state/passing?{query}")).json()
        return {row["Node"] for row in rows if row["CheckID"] == "serfHealth"}

    async def raft(self, server: Member) -> dict[str, str]:
        """Raft's part of /v1/agent/self: state, term, commit_index and so on."""
        stats = (await self.get(server, "/v1/agent/self")).json()["Stats"]["raft"]
        return {str(name): str(value) for name, value in stats.items()}

    async def metric(self, member: Member, name: str) -> float:
        """A metric without labels, from the Prometheus page."""
        page = (await self.get(member, "/v1/agent/metrics?format=prometheus")).text
        for line in page.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"{member.name} has no metric {name}")


@asynccontextmanager
async def asking() -> AsyncIterator[Ask]:
    """An `Ask` while the block runs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Ask(session)
