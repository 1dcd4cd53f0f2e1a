"""Mutual TLS between servers, with certificates made for each test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
import trustme

from raftreg.errors import ConfigurationError
from raftreg.raft.security import NameCheck, Security, Side
from raftreg.raft.transport import TransportLimits
from tests.raft.transport_rig import FAST, Node, connect, running, until

_ROLE = "server.dc1.raftreg"
_LIMITS = TransportLimits(
    ping_s=0.05, silence_s_max=5.0, backoff_s_min=0.01, backoff_s_max=0.05, handshake_s_max=5.0
)


class Files:
    """A directory with an authority and certificates of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.authority.cert_pem.write_to_path(folder / "ca.pem")

    def issue(self, file: str, *names: str, authority: trustme.CA | None = None) -> None:
        """Writes a certificate and its key under a file name."""
        issued = (authority or self.authority).issue_cert(*names)
        issued.cert_chain_pems[0].write_to_path(self.folder / f"{file}.pem")
        issued.private_key_pem.write_to_path(self.folder / f"{file}.key")

    def security(self, file: str, check: NameCheck = NameCheck.ROLE_OR_NODE) -> Security:
        """Returns the settings with that certificate."""
        paths = (self.folder / name for name in (f"{file}.pem", f"{file}.key", "ca.pem"))
        return Security.mutual_tls(*paths, name_check=check)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """An authority, certificates by role and by node name, and one of another authority."""
    made = Files(tmp_path)
    made.issue("role", _ROLE)
    made.issue("node-b", "node-b")
    made.issue("agent", "agent.dc1.raftreg")
    made.issue("foreign", _ROLE, authority=trustme.CA(key_type=trustme.KeyType.ECDSA))
    return made


async def test_messages_travel_over_tls_1_3(files: Files) -> None:
    """A role certificate and one of the node's name both do, and the version is 1.3."""
    a = Node("a", security=files.security("role"), limits=_LIMITS)
    b = Node("b", security=files.security("node-b"), limits=_LIMITS)
    async with running(a, b):
        await connect(a, b)
        sent = {"type": "x", "data": bytes(3_000_000)}
        assert a.transport.send("b", sent)
        await until(lambda: b.messages == [("a", sent)])
        transport = a.transport._outbound["b"]._transport
        assert transport is not None
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"


@pytest.mark.parametrize("file", ["foreign", "agent"])
async def test_a_certificate_of_another_authority_or_role_is_refused(
    files: Files, file: str
) -> None:
    """Neither direction is connected, and no hello is told."""
    a = Node("a", security=files.security("role"), limits=_LIMITS)
    b = Node("b", security=files.security(file), limits=_LIMITS)
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        b.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["auth_failures"] > 3)
        assert a.hellos == []
        assert a.events == []


async def test_a_node_name_is_not_enough_where_the_role_is_asked_for(files: Files) -> None:
    """With the check by role alone a peer can't vouch for its own name."""
    a = Node("a", security=files.security("role", NameCheck.ROLE), limits=_LIMITS)
    b = Node("b", security=files.security("node-b"), limits=_LIMITS)
    async with running(a, b):
        b.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["auth_failures"] > 0)
        assert a.hellos == []


async def test_a_client_without_a_certificate_is_refused(files: Files) -> None:
    """TLS alone does not let anybody in."""
    node = Node("a", security=files.security("role"), limits=_LIMITS)
    context = ssl.create_default_context(cafile=str(files.folder / "ca.pem"))
    context.check_hostname = False
    async with running(node):
        reader, writer = await asyncio.open_connection(
            node.address.host, node.address.port, ssl=context
        )
        with contextlib.suppress(OSError):
            while await reader.read(1000):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await until(lambda: node.transport.counters["auth_failures"] == 1)


async def test_plain_and_tls_do_not_mix(files: Files) -> None:
    """A server without TLS is never connected to one with it."""
    a = Node("a", security=files.security("role"), limits=_LIMITS)
    b = Node("b")
    async with running(a, b):
        a.transport.set_peers({"b": b.address})
        b.transport.set_peers({"a": a.address})
        await until(lambda: a.transport.counters["auth_failures"] > 1)
        await until(lambda: b.transport.counters["oversize_frames"] > 0)
        assert a.hellos == b.hellos == []


async def test_a_tls_handshake_that_stalls_is_ended(files: Files) -> None:
    """Who connects and says nothing is unauthenticated and bounded like the rest."""
    limits = TransportLimits(handshake_s_max=FAST.handshake_s_max)
    node = Node("a", security=files.security("role"), limits=limits)
    async with running(node):
        reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        await until(lambda: node.transport.counters["handshake_timeouts"] == 1)


async def test_reload_uses_new_files_for_new_connections(files: Files) -> None:
    """Certificates can be renewed while connections stay up."""
    security = files.security("role")
    a = Node("a", security=security, limits=_LIMITS)
    b = Node("b", security=files.security("node-b"), limits=_LIMITS)
    async with running(a, b):
        await connect(a, b)
        files.issue("role", _ROLE, "renewed.example")
        security.reload()
        assert a.is_connected(b)
        a.transport.set_peers({})
        await until(lambda: not b.transport.peers()["a"].inbound)
        a.transport.set_peers({"b": b.address})
        await until(lambda: b.transport.peers()["a"].inbound)
        certificate = b.transport._inbound["a"].certificate
        assert certificate is not None
        assert ("DNS", "renewed.example") in certificate["subjectAltName"]


def test_a_failed_reload_keeps_what_was_loaded(files: Files) -> None:
    """A half-written file does not take the server's identity away."""
    security = files.security("role")
    before = security.tls_context(Side.LISTENER)
    (files.folder / "role.pem").write_text("half a certifi")
    with pytest.raises(ConfigurationError, match=r"role\.pem"):
        security.reload()
    assert security.tls_context(Side.LISTENER) is before
