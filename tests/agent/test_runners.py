from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from aiohttp import web

from raftreg.errors import InvalidRequest
from raftreg.http.decode import CheckDefinition, CheckKind
from raftreg.model import Check, Status
from raftreg_agent.checks.alias import alias_result
from raftreg_agent.checks.grpc import GrpcRunner, decode_response, encode_request, require_grpc
from raftreg_agent.checks.http import HttpRunner
from raftreg_agent.checks.script import ScriptRunner
from raftreg_agent.checks.tcp import TcpRunner, UdpRunner

PASSING, WARNING, CRITICAL = Status.PASSING, Status.WARNING, Status.CRITICAL


def check(kind: CheckKind, **fields: object) -> CheckDefinition:
    """A definition."""
    return CheckDefinition(check_id="c", name="c", kind=kind, interval_s=10.0, **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def http_server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """An HTTP server; gives its address."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port where nobody listens."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, PASSING),
        (204, PASSING),
        (299, PASSING),
        (429, WARNING),
        (404, CRITICAL),
        (503, CRITICAL),
    ],
)
async def test_an_http_status_decides(status: int, expected: Status) -> None:
    """2xx passes, 429 warns, the rest is critical; the output tells what was seen."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text="hello" if status != 204 else None)

    async with http_server(handler) as address:
        url = f"http://{address}/health"
        result = await HttpRunner().run(check(CheckKind.HTTP, url=url))
    assert result.status is expected
    assert result.output.startswith(f"HTTP GET {url}: {status} ")
    assert status == 204 or result.output.endswith("Output: hello")


async def test_an_http_check_sends_what_its_definition_says() -> None:
    """Method, header lines and body; the own User-Agent gives way."""
    seen: list[tuple[str, list[str], str, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(
            (
                request.method,
                request.headers.getall("X-A"),
                ",".join(request.headers.getall("User-Agent")),
                await request.read(),
            )
        )
        return web.Response()

    definition = {
        "method": "POST",
        "headers": {"X-A": ("1", "2"), "user-agent": ("mine",)},
        "body": "ping",
    }
    async with http_server(handler) as address:
        await HttpRunner().run(check(CheckKind.HTTP, url=f"http://{address}/", **definition))
    assert seen == [("POST", ["1", "2"], "mine", b"ping")]


async def test_an_http_check_follows_redirects_but_not_for_ever() -> None:
    """As Consul does; a loop is critical."""

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/ok":
            return web.Response()
        target = "/ok" if request.path == "/once" else "/loop"
        raise web.HTTPFound(target)

    async with http_server(handler) as address:
        once = await HttpRunner().run(check(CheckKind.HTTP, url=f"http://{address}/once"))
        loop = await HttpRunner().run(check(CheckKind.HTTP, url=f"http://{address}/loop"))
    assert (once.status, loop.status) == (PASSING, CRITICAL)


async def test_an_http_body_is_cut() -> None:
    """A server that sends without end costs neither memory nor time."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with http_server(handler) as address:
        result = await HttpRunner().run(check(CheckKind.HTTP, url=f"http://{address}/"))
    assert result.status is PASSING
    assert len(result.output) == 4096


async def test_an_http_server_that_hangs_is_critical_after_the_timeout() -> None:
    """The output says how long was waited."""

    async def handler(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with http_server(handler) as address:
        definition = check(CheckKind.HTTP, url=f"http://{address}/", timeout_s=0.05)
        result = await HttpRunner().run(definition)
    assert result.status is CRITICAL
    assert "no answer in 0.05s" in result.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://", "nonsense", "ftp://x/"])
async def test_an_http_check_without_a_server_is_critical(url: str) -> None:
    """Refused connections and addresses that are none are results, not errors."""
    assert (await HttpRunner().run(check(CheckKind.HTTP, url=url))).status is CRITICAL


async def test_a_failure_is_told_in_the_words_of_the_system() -> None:
    """No object of ours shows up in the output: it is the same at each probe."""
    url = f"http://127.0.0.1:{free_port()}/"
    refused = await HttpRunner().run(check(CheckKind.HTTP, url=url))
    assert refused.output == f"GET {url}: connection refused"
    nobody = await HttpRunner().run(check(CheckKind.HTTP, url="http://nobody.invalid/"))
    assert "object at" not in nobody.output
    assert nobody.output.count("nobody.invalid") == 1


async def test_an_https_check_verifies_unless_told_not_to() -> None:
    """An unknown authority is critical; TLSSkipVerify takes it."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("somewhere.example").configure_cert(tls)
    async with http_server(handler, tls) as address:
        url = f"https://{address}/"
        strict = await HttpRunner().run(check(CheckKind.HTTP, url=url))
        lax = await HttpRunner().run(
            check(CheckKind.HTTP, url=url, tls_skip_verify=True, tls_server_name="a.example")
        )
    assert (strict.status, lax.status) == (CRITICAL, PASSING)
    assert "certificate" in strict.output.lower()


async def test_a_tcp_check_opens_a_connection() -> None:
    """Passing when somebody listens, critical with the reason when nobody does."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        up = await TcpRunner().run(check(CheckKind.TCP, tcp=f"127.0.0.1:{port}"))
    down = await TcpRunner().run(check(CheckKind.TCP, tcp=f"127.0.0.1:{free_port()}"))
    bad = await TcpRunner().run(check(CheckKind.TCP, tcp="no port here"))
    assert up.output == f"TCP connect 127.0.0.1:{port}: Success"
    assert down.output.endswith(": connection refused")
    assert [up.status, down.status, bad.status] == [PASSING, CRITICAL, CRITICAL]


async def test_a_udp_check_is_critical_only_when_the_port_is_closed() -> None:
    """An answer passes, silence passes, an ICMP refusal does not."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            assert isinstance(self.transport, asyncio.DatagramTransport)
            self.transport.sendto(data, addr)

    loop = asyncio.get_running_loop()
    results = []
    for protocol in (Echo, asyncio.DatagramProtocol):
        transport, _ = await loop.create_datagram_endpoint(protocol, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        definition = check(CheckKind.UDP, udp=f"127.0.0.1:{port}", timeout_s=0.1)
        results.append((await UdpRunner().run(definition)).status)
        transport.close()
    closed = check(CheckKind.UDP, udp=f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}")
    results.append((await UdpRunner().run(closed)).status)
    assert results == [PASSING, PASSING, CRITICAL]


def script(code: str, **fields: object) -> CheckDefinition:
    """A script check that runs Python code."""
    return check(CheckKind.SCRIPT, args=(sys.executable, "-c", code), **fields)


@pytest.mark.parametrize(
    ("code", "expected"), [(0, PASSING), (1, WARNING), (2, CRITICAL), (127, CRITICAL)]
)
async def test_a_scripts_exit_status_decides(code: int, expected: Status) -> None:
    """Standard output and error are its output."""
    program = (
        f"import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit({code})"
    )
    result = await ScriptRunner().run(script(program))
    assert (result.status, result.output) == (expected, "out\nerr\n")


async def test_a_script_is_no_shell_command() -> None:
    """Arguments arrive as they are."""
    definition = check(
        CheckKind.SCRIPT, args=(sys.executable, "-c", "import sys; print(sys.argv[1])", "$HOME; ls")
    )
    assert (await ScriptRunner().run(definition)).output == "$HOME; ls\n"


async def test_a_scripts_output_is_bounded_and_its_end_is_kept() -> None:
    """A script may print megabytes; the last bytes usually tell what went wrong."""
    result = await ScriptRunner().run(script("print('x' * 3_000_000 + 'the end')"))
    assert result.status is PASSING
    assert len(result.output) == 4096
    assert result.output.endswith("the end\n")


async def test_a_script_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, eventually: Any
) -> None:
    """The whole process group goes, also a child that holds the output open."""
    pids = tmp_path / "pids"
    program = (
        "import os, subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); "
        "print('begun', flush=True); time.sleep(600)"
    )
    result = await ScriptRunner().run(script(program, timeout_s=2.0))
    assert result.status is CRITICAL
    assert result.output.startswith("Timed out (2s) running check.")
    leader, child = (int(pid) for pid in pids.read_text().split())
    await eventually(lambda: not (_runs(leader) or _runs(child)))


def _runs(pid: int) -> bool:
    """A process that ended and waits for its parent is gone, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_script_that_is_not_there_is_critical() -> None:
    """The reason is in the output."""
    result = await ScriptRunner().run(check(CheckKind.SCRIPT, args=("/no/such/program",)))
    assert result.status is CRITICAL
    assert "/no/such/program" in result.output
    assert os.strerror(2).lower() in result.output


class GrpcHealth(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A health service that knows one name."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Finds the method."""

        async def answer(asked: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if asked == encode_request("down"):
                return b"\x08\x02"
            if asked == encode_request("unknown"):
                await context.abort(grpc.StatusCode.NOT_FOUND, "never heard of it")
            return b"\x08\x01"

        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(answer)


async def test_a_grpc_check_asks_the_health_service() -> None:
    """SERVING passes; everything else, and nobody there, is critical with its reason."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((GrpcHealth(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    results = []
    for target in ("", "/web", "/down", "/unknown"):
        definition = check(CheckKind.GRPC, grpc=f"127.0.0.1:{port}{target}", timeout_s=5.0)
        results.append(await GrpcRunner().run(definition))
    await server.stop(None)
    gone = check(CheckKind.GRPC, grpc=f"127.0.0.1:{port}", timeout_s=0.5)
    results.append(await GrpcRunner().run(gone))
    assert [result.status for result in results] == [PASSING, PASSING, *[CRITICAL] * 3]
    assert "NOT_SERVING" in results[2].output
    assert "never heard of it" in results[3].output


def test_grpc_messages_are_checked() -> None:
    """An answer that is no health response is told apart from one."""
    assert encode_request("a" * 200)[:3] == bytes([0x0A, 0xC8, 0x01])
    assert [decode_response(data) for data in (b"", b"\x08\x01", b"\x08\x02")] == [0, 1, 2]
    for data in (b"\x08", b"\x10\x01", b"\x08\xff", b"\x08\x01\x00"):
        with pytest.raises(ValueError, match="HealthCheckResponse"):
            decode_response(data)


def test_a_grpc_check_without_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"raftreg\[grpc\]"):
        require_grpc()


def test_an_alias_takes_the_worst() -> None:
    """Unknown targets are critical, targets without a check pass."""
    rows = {
        status: Check(node="n", check_id=status.value, name=status.value, status=status)
        for status in Status
    }
    assert alias_result("x", False, []).status is CRITICAL
    assert alias_result("x", True, []).status is PASSING
    assert alias_result("x", True, [rows[PASSING], rows[WARNING]]).status is WARNING
    worst = alias_result("x", True, rows.values())
    assert (worst.status, worst.output) == (CRITICAL, 'Aliased check "critical" failing: ')
