"""Inputs to begin with: well-formed ones, so that a fuzzer is past the first checks at once."""

from __future__ import annotations

import io

import dns.message
import msgspec

from raftreg.core import commands, delta, snapshot
from raftreg.core.apply import apply
from raftreg.core.state import State
from raftreg.model import Check, Node, ServiceInstance, Status
from raftreg.raft import wire
from raftreg.server.archive import Meta, write_archive

_NODE = Node(name="n1", address="10.0.0.1", id="00000000-0000-0000-0000-000000000001")
_SERVICE = ServiceInstance(node="n1", id="web-1", name="web", tags=("v1",), port=80)
_CHECK = Check(node="n1", check_id="c", name="c", status=Status.PASSING, service_id="web-1")
_REGISTER = commands.Register(node=_NODE, service=_SERVICE, checks=(_CHECK,))

_CHECK_BODIES: list[dict[str, object]] = [
    {"HTTP": "http://127.0.0.1/", "Interval": "10s", "Timeout": "1s", "Header": {"A": ["b"]}},
    {"TTL": "30s", "Status": "passing", "DeregisterCriticalServiceAfter": "1m"},
    {"TCP": "127.0.0.1:80", "Interval": "1m30s", "FailuresBeforeCritical": 3},
]
_SERVICE_BODY = {
    "ID": "web-1",
    "Name": "web",
    "Tags": ["v1"],
    "Address": "10.0.0.1",
    "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
    "Port": 80,
    "Meta": {"zone": "a"},
    "Weights": {"Passing": 10, "Warning": 1},
    "Proxy": {"DestinationServiceName": "db", "Upstreams": [{"DestinationName": "x"}]},
    "Connect": {"Native": False, "SidecarService": {}},
    "Checks": _CHECK_BODIES,
}
_CATALOG_BODY = {
    "Node": "n1",
    "ID": _NODE.id,
    "Address": "10.0.0.1",
    "NodeMeta": {"a": "b"},
    "Service": {"ID": "web-1", "Service": "web", "Port": 80},
    "Check": {"Name": "c", "ServiceID": "web-1", "Status": "passing", "Definition": {"TTL": "1s"}},
}
_TXN_BODY = [
    {"KV": {"Verb": "set", "Key": "k", "Value": "dg==", "Flags": 1}},
    {"KV": {"Verb": "check-index", "Key": "k", "Index": 2}},
    {"Node": {"Verb": "cas", "Node": {"Node": "n1", "Address": "10.0.0.1", "ModifyIndex": 1}}},
    {"Service": {"Verb": "set", "Node": "n1", "Service": {"ID": "s", "Service": "s"}}},
    {"Check": {"Verb": "delete", "Check": {"Node": "n1", "CheckID": "c"}}},
]
_SESSION_BODY = {"Name": "s", "TTL": "15s", "LockDelay": "5s", "Behavior": "delete"}
_CONFIG_BODIES: list[dict[str, object]] = [
    {"Kind": "service-defaults", "Name": "web", "Protocol": "http"},
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}},
    {
        "Kind": "service-resolver",
        "Name": "web",
        "DefaultSubset": "v1",
        "Subsets": {"v1": {"Filter": 'Service.Meta.version == "1"', "OnlyPassing": True}},
        "Failover": {"*": {"Service": "spare"}},
        "ConnectTimeout": "5s",
    },
    {
        "Kind": "service-intentions",
        "Name": "web",
        "Sources": [{"Name": "api", "Action": "allow"}, {"Name": "*", "Action": "deny"}],
    },
]
_QUERY_BODY = {
    "Name": "web-",
    "Service": {"Service": "${match(1)}", "Tags": ["${name.suffix}", "!old"], "OnlyPassing": True},
    "Template": {"Type": "name_prefix_match", "Regexp": "^(.*?)-(.*)$"},
    "DNS": {"TTL": "10s"},
}
_HEAD = (
    b"GET /v1/health/service/web?passing&index=7 HTTP/1.1\r\nHost: a:8500\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n"
)
_FILTERS = (
    'Service.Tags contains "v1" and not (Node.Meta["zone"] == `a` or Service.Port != 80)',
    'Service.Service matches "^w.b$" or "v1" in Service.Tags',
    "Checks is empty and Service.Meta is not empty",
    'Service.Port not in Service.Tags and Service.ID != "\\u00e9\\n"',
)
_QUERIES = (
    "/v1/kv/a%2Fb?index=1&wait=10s&recurse&separator=%2F",
    "/v1/health/service/web?passing=1&tag=a&tag=b&node-meta=a:b&cached&max_age=1s&near=_agent",
)


def _json(*bodies: object) -> list[bytes]:
    return [msgspec.json.encode(body) for body in bodies]


def _state() -> list[bytes]:
    state = State()
    apply(state, _REGISTER, 1)
    apply(state, commands.KVOp(verb=commands.KVVerb.SET, key="k", value=b"v"), 2)
    return [b"".join(snapshot.snapshot(state))]


def _archive() -> list[bytes]:
    out = io.BytesIO()
    meta = Meta(id="1-2-3", index=2, term=1, time_s=1.0, servers=(("id", "127.0.0.1:8300"),))
    write_archive(iter(_state()), meta, io.BytesIO(), out)
    return [out.getvalue()]


def _messages() -> list[bytes]:
    return [
        wire.encode_message({"type": "pre_vote", "term": 3, "last_log_index": 2}),
        wire.encode_message({"type": "append_entries", "term": 3, "commit_index": 1}),
    ]


def seeds() -> dict[str, list[bytes]]:
    """Gives the inputs of each target."""
    return {
        "dns_query": [
            dns.message.make_query(name, kind, use_edns=edns).to_wire()
            for name in ("web.service.consul.", "_web._v1.service.consul.", "n1.node.consul.")
            for kind in ("A", "SRV", "TXT", "ANY")
            for edns in (-1, 0)
        ],
        "http_filter": [text.encode() for text in _FILTERS],
        "http_query": [text.encode() for text in _QUERIES],
        "duration": [b"10s", b"1h2m3.5s", "1\u00b5s".encode(), b"-5ms", b"0"],
        "service": _json(_SERVICE_BODY),
        "check": _json(*({"Name": "c", **check} for check in _CHECK_BODIES)),
        "catalog": _json(_CATALOG_BODY),
        "txn": _json(_TXN_BODY),
        "config": _json(*_CONFIG_BODIES),
        "prepared_query": _json(_QUERY_BODY),
        "http_head": [_HEAD],
        "spiffe_id": [
            b"spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"
        ],
        "session": _json(_SESSION_BODY),
        "command": [
            commands.encode(each)
            for each in (
                _REGISTER,
                commands.Deregister(node="n1"),
                commands.NodeSync(node=_NODE, services=(_SERVICE,), checks=(_CHECK,), full=True),
                commands.SetLiveness(node="n1", alive=False),
                commands.KVOp(verb=commands.KVVerb.CAS, key="k", value=b"v", index=1),
            )
        ],
        "view_deltas": [
            delta.encode_deltas([delta.CatalogDelta(kind="node", node="n1", row=_NODE, index=2)])
        ],
        "raft_frames": [len(each).to_bytes(4, "big") + each for each in _messages()],
        "raft_message": _messages(),
        "state_snapshot": _state(),
        "snapshot_rows": [
            bytes([table]) + msgspec.msgpack.encode([row])
            for table, row in (
                (snapshot.Table.NODES, _NODE),
                (snapshot.Table.SERVICES, _SERVICE),
                (snapshot.Table.CHECKS, _CHECK),
            )
        ],
        "archive": _archive(),
    }
