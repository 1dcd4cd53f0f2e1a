"""Requests as bytes, built before the clock starts."""

from __future__ import annotations

from typing import Any

import orjson

#: Requests of each connection; they come round again in the same order.
REQUESTS_PER_CONNECTION = 200
#: Distinct instances that each connection registers at an agent: with 64 connections, 512.
INSTANCES_PER_CONNECTION = 8


def put(host: str, path: str, body: bytes) -> bytes:
    """One PUT request."""
    return _request("PUT", host, path, body)


def get(host: str, path: str) -> bytes:
    """One GET request."""
    return _request("GET", host, path, b"")


def _request(method: str, host: str, path: str, body: bytes) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if method != "GET" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n".encode() + body


def kv_puts(host: str, connection: int, value_bytes: int) -> list[bytes]:
    """Writes of keys that no other connection writes."""
    value = b"v" * value_bytes
    return [
        put(host, f"/v1/kv/bench/{connection}/{i}", value) for i in range(REQUESTS_PER_CONNECTION)
    ]


def kv_gets(host: str, connection: int, keys: int, query: str) -> list[bytes]:
    """Reads of some of the first `keys` keys that `kv_fill` writes; query: "" or "?stale"."""
    first = connection * REQUESTS_PER_CONNECTION
    return [
        get(host, f"/v1/kv/fill/{(first + i) % keys:08}{query}")
        for i in range(REQUESTS_PER_CONNECTION)
    ]


def catalog_registrations(host: str, connection: int, salt: str) -> list[bytes]:
    """A node with a service and its check each; `salt` makes rows differ from an earlier run."""
    return [
        put(host, "/v1/catalog/register", orjson.dumps(_catalog_body(connection, i, salt)))
        for i in range(REQUESTS_PER_CONNECTION)
    ]


def _catalog_body(connection: int, number: int, salt: str) -> dict[str, Any]:
    name = f"external-{connection}-{number}"
    return {
        "Node": name,
        "Address": f"10.{connection % 256}.{number // 256}.{number % 256}",
        "Service": {
            "ID": f"web-{connection}-{number}",
            "Service": f"web-{connection}",
            "Tags": ["v1", salt],
            "Port": 8080,
        },
        "Check": {
            "CheckID": f"service:web-{connection}-{number}",
            "Name": "up",
            "Status": "passing",
            "ServiceID": f"web-{connection}-{number}",
        },
    }


def agent_registrations(host: str, connection: int, salt: str) -> list[bytes]:
    """Services of the agent's own host, registered again and again with other content.

    A host runs tens or hundreds of instances, not tens of thousands.
    """
    return [
        put(
            host,
            "/v1/agent/service/register",
            orjson.dumps(
                {
                    "ID": f"app-{connection}-{i % INSTANCES_PER_CONNECTION}",
                    "Name": f"app-{connection}",
                    "Tags": ["v1", salt],
                    "Port": 9000 + i,
                }
            ),
        )
        for i in range(REQUESTS_PER_CONNECTION)
    ]


def kv_fill(host: str, keys: int, value_bytes: int, keys_per_request: int = 64) -> list[bytes]:
    """Transactions that write the keys `fill/00000000`, `fill/00000001`, and so on."""
    value = "djEy" * (value_bytes * 4 // 3 // 4)  # base64
    requests = []
    for start in range(0, keys, keys_per_request):
        operations = [
            {"KV": {"Verb": "set", "Key": f"fill/{number:08}", "Value": value}}
            for number in range(start, min(start + keys_per_request, keys))
        ]
        requests.append(put(host, "/v1/txn", orjson.dumps(operations)))
    return requests
