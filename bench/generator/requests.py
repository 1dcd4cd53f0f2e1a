"""Requests as bytes, built before the clock starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, TypeVar

import orjson

from bench.generator.jobs import Job

_T = TypeVar("_T")

#: Requests of each connection; they come round again in the same order.
REQUESTS_PER_CONNECTION = 200
#: Distinct instances that each connection registers at an agent: with 64 connections, 512.
INSTANCES_PER_CONNECTION = 8
#: How the 100,000 instances of `catalog_fill` are spread.
INSTANCES_PER_NODE = 100
INSTANCES_PER_SERVICE = 100
#: Consul's limit of a transaction; ours is the same.
OPERATIONS_MAX = 64
#: No heartbeat of a benchmark is ever late.
TTL = "30m"


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


def ttl_registrations(host: str, connections: int) -> list[bytes]:
    """Instances with a TTL check each: what `heartbeats` of so many connections keep alive."""
    return [
        put(
            host,
            "/v1/agent/service/register",
            orjson.dumps(
                {
                    "ID": f"beat-{connection}-{i}",
                    "Name": f"beat-{connection}",
                    "Port": 9000 + i,
                    "Check": {"TTL": TTL, "Status": "passing"},
                }
            ),
        )
        for connection in range(connections)
        for i in range(INSTANCES_PER_CONNECTION)
    ]


def heartbeats(host: str, connection: int) -> list[bytes]:
    """The word of the owners of TTL checks."""
    return [
        put(host, f"/v1/agent/check/pass/service:beat-{connection}-{i}", b"")
        for i in range(INSTANCES_PER_CONNECTION)
    ]


def service_fill(host: str, name: str, instances: int) -> list[bytes]:
    """Instances of one service, each on a node of its own, with a passing check."""
    return [
        put(host, "/v1/catalog/register", orjson.dumps(instance(name, number)))
        for number in range(instances)
    ]


def instance(name: str, number: int, tag: str = "v1") -> dict[str, Any]:
    """The body that registers one instance of `service_fill`, or changes its tag."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {
        "Node": f"node-{number:06}",
        "Address": address,
        "Service": {
            "ID": f"{name}-{number}",
            "Service": name,
            "Tags": [tag, "http"],
            "Meta": {"version": "1.4.2"},
            "Address": address,
            "Port": 8000 + number % 1000,
        },
        "Check": {
            "CheckID": f"service:{name}-{number}",
            "Name": f"Service '{name}' check",
            "Status": "passing",
            "ServiceID": f"{name}-{number}",
            "Output": "HTTP GET http://10.0.0.1:8000/health: 200 OK",
        },
    }


def catalog_fill(host: str, instances: int) -> list[bytes]:
    """Transactions that fill a catalog: so many instances, each with a check, on a hundredth as
    many nodes. A transaction makes the nodes that the next ones need: send them one by one.
    """
    operations: list[dict[str, Any]] = []
    for number in range(instances):
        operations += _instance_operations(number)
    return [
        put(host, "/v1/txn", orjson.dumps(operations[start : start + OPERATIONS_MAX]))
        for start in range(0, len(operations), OPERATIONS_MAX)
    ]


def _instance_operations(number: int) -> list[dict[str, Any]]:
    node = f"node-{number // INSTANCES_PER_NODE:06}"
    body = instance(f"svc-{number // INSTANCES_PER_SERVICE:04}", number)
    made: list[dict[str, Any]] = []
    if number % INSTANCES_PER_NODE == 0:
        made.append({"Node": {"Verb": "set", "Node": {"Node": node, "Address": body["Address"]}}})
    made.append({"Service": {"Verb": "set", "Node": node, "Service": body["Service"]}})
    made.append({"Check": {"Verb": "set", "Check": {**body["Check"], "Node": node}}})
    return made


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


def _path(job: Job, connection: int) -> list[bytes]:
    del connection  # all ask the same
    return [get(job.address, job.path)]


_KINDS: dict[str, Callable[[Job, int], list[bytes]]] = {
    "put": lambda job, number: kv_puts(job.address, number, job.value_bytes),
    "get": lambda job, number: kv_gets(job.address, number, job.keys, ""),
    "get-stale": lambda job, number: kv_gets(job.address, number, job.keys, "?stale"),
    "catalog": lambda job, number: catalog_registrations(job.address, number, job.salt),
    "agent": lambda job, number: agent_registrations(job.address, number, job.salt),
    "heartbeat": lambda job, number: heartbeats(job.address, number),
    "path": _path,
}
_FILLS: dict[str, Callable[[Job], list[bytes]]] = {
    "fill": lambda job: kv_fill(job.address, job.keys, job.value_bytes),
    "fill-service": lambda job: service_fill(job.address, job.salt, job.instances),
    "fill-catalog": lambda job: catalog_fill(job.address, job.instances),
    "fill-ttl": lambda job: ttl_registrations(job.address, job.instances),
}


def messages_of(job: Job, connection: int) -> Iterator[bytes]:
    """The requests of one connection, round and round.

    Raises:
        ValueError: The kind is unknown.
    """
    return cycle(_known(_KINDS, job)(job, connection))


def filling(job: Job) -> list[bytes]:
    """The requests of a kind that ends when each was answered.

    Raises:
        ValueError: The kind is unknown.
    """
    return _known(_FILLS, job)(job)


def _known(kinds: dict[str, _T], job: Job) -> _T:
    if job.kind not in kinds:
        raise ValueError(f"unknown kind of load: {job.kind}")
    return kinds[job.kind]
