"""/v1/agent/connect: an agent with a real server."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from raftreg.client.api import ANY_STATUS, RegistryClient
from raftreg.clock import ManualClock
from raftreg.errors import NoLeader, RaftregError
from raftreg_agent import certificates
from tests.agent.mesh import running, servers, settings_for
from tests.agent.test_with_server import agent_of, registry

LEAF, ROOTS = "/v1/agent/connect/ca/leaf/web", "/v1/agent/connect/ca/roots"
CONFIG = "/v1/connect/ca/configuration"


async def get(client: RegistryClient, path: str, **params: Any) -> tuple[int, Any]:
    """Index and answer of a read."""
    wait_s = 30.0 if params else 0.0
    answer = await client.request("GET", path, params=params, wait_s=wait_s)
    return answer.index, answer.json()


async def test_a_leaf_with_its_key_is_kept_until_another_root_signs() -> None:
    """Asked again it is the same one; a rotation wakes those who wait, and they get a new one."""
    async with (
        registry() as found,
        running(agent_of(found)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        index, leaf = await get(client, LEAF)
        certificate = x509.load_pem_x509_certificate(leaf["CertPEM"].encode())
        key = serialization.load_pem_private_key(leaf["PrivateKeyPEM"].encode(), None)
        assert certificate.public_key() == key.public_key()
        assert (await get(client, LEAF)) == (index, leaf)
        roots_index, roots = await get(client, ROOTS)
        assert leaf["ServiceURI"] == (f"spiffe://{roots['TrustDomain']}/ns/default/dc/dc1/svc/web")
        async with asyncio.TaskGroup() as tasks:
            next_leaf = tasks.create_task(get(client, LEAF, index=index, wait="30s"))
            next_roots = tasks.create_task(get(client, ROOTS, index=roots_index, wait="30s"))
            await client.request("PUT", CONFIG, json={"Rotate": True})
        assert next_leaf.result()[0] > index
        assert next_leaf.result()[1]["CertPEM"] != leaf["CertPEM"]
        active = next_roots.result()[1]["ActiveRootID"]
        assert active != roots["ActiveRootID"]
        _, other = await get(client, "/v1/agent/connect/ca/leaf/db")
        assert other["Service"] == "db"


async def test_what_can_t_be_renewed_is_served_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaf and roots answer when no server can be asked any more; a new leaf can't be had."""
    monkeypatch.setattr(certificates, "DEADLINE_S", 0.3)
    async with registry() as found:
        running_agent = running(agent_of(found))
        async with running_agent as app, RegistryClient([app.http_address]) as client:
            leaf, roots = await get(client, LEAF), await get(client, ROOTS)
            app.local.certificates._client = RegistryClient(["127.0.0.1:1"])  # nobody is there
            async with app.local.certificates._client:
                assert (await get(client, LEAF), await get(client, ROOTS)) == (leaf, roots)
                with pytest.raises(RaftregError):
                    await client.request("GET", "/v1/agent/connect/ca/leaf/new", deadline_s=0.8)


async def test_who_may_call_is_decided_by_intentions() -> None:
    """By the target's intentions, allowed without any, and never for another trust domain."""
    async with (
        registry() as found,
        running(agent_of(found)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        _, leaf = await get(client, LEAF)

        async def judged(uri: str = leaf["ServiceURI"]) -> Any:
            body = {"Target": "db", "ClientCertURI": uri, "ClientCertSerial": "01:02"}
            return (await client.request("POST", "/v1/agent/connect/authorize", json=body)).json()

        assert (await judged())["Authorized"]
        pair = "/v1/connect/intentions/exact?source=web&destination=db"
        path, _, query = pair.partition("?")
        params = dict(part.split("=") for part in query.split("&"))
        await client.request("PUT", path, params=params, json={"Action": "deny"})
        verdict = await judged()
        assert not verdict["Authorized"]
        assert "DENY default/web => default/db" in verdict["Reason"]
        assert (await judged(leaf["ServiceURI"].replace("/web", "/api")))["Authorized"]
        stranger = await judged("spiffe://evil.consul/ns/default/dc/dc1/svc/web")
        assert not stranger["Authorized"]
        assert "external trust domain" in stranger["Reason"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Target service must be specified"),
        ({"Target": "db"}, "not a valid Connect identifier"),
        ({"Target": "db", "ClientCertURI": "spiffe://x/y"}, "not a valid Connect identifier"),
        ({"Target": "db", "Colour": 1}, "unknown field"),
    ],
)
async def test_mistakes_are_named(body: dict[str, Any], text: str) -> None:
    """Before anybody is asked."""
    async with (
        servers() as (server,),
        running(settings_for(server)) as app,
        RegistryClient([app.http_address]) as client,
    ):
        path = "/v1/agent/connect/authorize"
        answer = await client.request("POST", path, json=body, accept=ANY_STATUS)
        assert (answer.status, text in answer.body.decode()) == (400, True), answer.body


class _NoSigner:
    """Knows the roots, and signs nothing."""

    async def request(self, method: str, path: str, **_: Any) -> Any:
        """Answers."""
        await asyncio.sleep(0)
        if method == "PUT":
            raise NoLeader("No cluster leader")
        roots = {"ActiveRootID": "a", "TrustDomain": "x.consul", "Roots": []}
        return SimpleNamespace(index=7, address="", json=lambda _: roots)


async def test_names_that_get_no_leaf_leave_nothing_behind() -> None:
    """Whoever asks for ever new ones must not make the agent grow."""
    client = cast(RegistryClient, _NoSigner())
    mesh = certificates.MeshCertificates(client, "dc1", ManualClock(), Random(1))
    asked = (mesh.leaf(f"web-{n // 2}") for n in range(20))
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(failure, NoLeader) for failure in failures)
    assert not mesh._signing
