"""gRPC checks by the standard health service (grpc.health.v1.Health/Check).

grpcio is the reference implementation and an optional extra: it is large, and most hosts have no
gRPC check. The two messages of one field each are written by hand (protobuf wire format,
https://protobuf.dev/programming-guides/encoding/), which saves protobuf and generated code.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from raftreg.errors import InvalidRequest
from raftreg.http.decode import CheckDefinition
from raftreg.model import Status
from raftreg_agent.checks.machine import CheckResult
from raftreg_agent.checks.runners import clipped, critical, timeout_s

METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_FIELD_1_BYTES = 0x0A
_FIELD_1_VARINT = 0x08


def require_grpc() -> None:
    """Refuses a gRPC check on a host without the library.

    Raises:
        InvalidRequest: grpcio is not installed.
    """
    if importlib.util.find_spec("grpc") is None:
        raise InvalidRequest("gRPC checks need grpcio: install raftreg[grpc] on this host")


def encode_request(service: str) -> bytes:
    """HealthCheckRequest{service}."""
    if not service:
        return b""
    name = service.encode()
    return bytes([_FIELD_1_BYTES]) + _varint(len(name)) + name


def decode_response(data: bytes) -> int:
    """The status of HealthCheckResponse; 0 when it is not given (protobuf's default).

    Raises:
        ValueError: The bytes are no such message.
    """
    if not data:
        return 0
    if len(data) != 2 or data[0] != _FIELD_1_VARINT or data[1] >= 0x80:
        raise ValueError("the answer is no HealthCheckResponse")
    return data[1]


def split_target(text: str) -> tuple[str, str]:
    """Splits "host:port/service" as Consul writes it; the service may be missing."""
    address, _, service = text.partition("/")
    return address, service


class GrpcRunner:
    """Passing when the service says SERVING."""

    async def run(self, check: CheckDefinition) -> CheckResult:
        """See `Runner`."""
        grpc = importlib.import_module("grpc")
        aio = importlib.import_module("grpc.aio")
        address, service = split_target(check.grpc)
        options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)]
        if check.tls_server_name:
            options.append(("grpc.ssl_target_name_override", check.tls_server_name))
        channel = (
            aio.secure_channel(address, grpc.ssl_channel_credentials(), options=options)
            if check.grpc_tls
            else aio.insecure_channel(address, options=options)
        )
        try:
            return await _call(channel, service, check)
        except grpc.RpcError as error:
            return critical(f"gRPC check {check.grpc}: {_details(error)}", check)
        except ValueError as error:
            return critical(f"gRPC check {check.grpc}: {error}", check)
        finally:
            await channel.close()


async def _call(channel: Any, service: str, check: CheckDefinition) -> CheckResult:
    method = channel.unary_unary(
        METHOD, request_serializer=encode_request, response_deserializer=decode_response
    )
    state = await method(service, timeout=timeout_s(check))
    text = clipped(f"gRPC check {check.grpc}: {_STATES.get(state, state)}", check)
    return CheckResult(Status.PASSING if state == SERVING else Status.CRITICAL, text)


def _details(error: Any) -> str:
    return f"{error.code().name}: {error.details()}"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
