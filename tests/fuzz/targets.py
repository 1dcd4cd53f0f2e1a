"""The decoders that read what strangers send, each as one function of bytes.

A target may raise what its decoder documents, which becomes a clear answer; anything else is a
find. What a decoder takes must also survive what is done with it next (rendered, encoded again).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from random import Random

import dns.exception
import dns.message
import msgspec

from raftreg.config import DnsSettings
from raftreg.core import commands, delta, snapshot
from raftreg.core.apply import apply
from raftreg.core.state import State
from raftreg.dns.answer import Answerer, Forward, Transport
from raftreg.dns.known import Known
from raftreg.errors import RaftregError
from raftreg.http import json, render
from raftreg.http.decode import check_definition, service_definition
from raftreg.http.fields import Fields
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import HEALTH_ENTRY
from raftreg.http.params import (
    Query,
    format_duration,
    parse_duration,
    query_from,
    read_options,
)
from raftreg.http.rows import catalog_deregistration, catalog_registration
from raftreg.model import Node
from raftreg.raft import messages, wire
from raftreg.server.api.context import decoded
from raftreg.server.api.session import session_of
from raftreg.server.api.txn import operations_of
from raftreg.server.archive import extract_state
from tests.dns.catalogs import sample

Target = Callable[[bytes], None]
INPUT_BYTES_MAX = 4096

_view = sample().catalog
_answerer = Answerer(DnsSettings(recursors=("127.0.0.1",)), Random(1), lambda: 0.0)
_FRAME = struct.Struct(">BII")  #: see `raftreg.core.snapshot`
_snapshot_head = next(snapshot.snapshot(State()))
_row = {
    "Node": {"Node": "n1", "Meta": {"zone": "a"}, "TaggedAddresses": None},
    "Service": {"ID": "web-1", "Service": "web", "Tags": ["v1", "v2"], "Port": 80, "Meta": {}},
    "Checks": [{"CheckID": "c", "Status": "passing", "ServiceTags": []}],
}


def dns_query(data: bytes) -> None:
    """Any datagram or message to the name server."""
    for transport in Transport:
        found = _answerer.answer(data, _view, transport, Known(final=True))
        if isinstance(found, Forward):
            found = found.failure
        if isinstance(found, bytes):
            assert dns.message.from_wire(found).id == int.from_bytes(data[:2], "big")


def http_filter(data: bytes) -> None:
    """`?filter=`."""
    holds = compile_filter(data.decode("utf-8", "replace"), HEALTH_ENTRY)
    assert holds(_row) in {True, False}


def http_query(data: bytes) -> None:
    """Paths and query strings."""
    path, _, text = data.decode("latin-1").partition("?")
    decoded(path)
    query = query_from(text)
    read_options(query)
    read_options(Query(query.items()))


def duration(data: bytes) -> None:
    """Durations: what is written for one that was read is read as the same."""
    seconds = parse_duration(data.decode("utf-8", "replace"))
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 1e-9 * max(1, abs(seconds))


def service(data: bytes) -> None:
    """The body of a service registration, and a definition file."""
    definition = service_definition(json.loads(data), node="n1")
    json.dumps(render.agent_service_json(definition.service))
    commands.encode(commands.NodeSync(node=_node(), services=(definition.service,)))


def check(data: bytes) -> None:
    """The body of a check registration."""
    check_definition(json.loads(data))


def catalog(data: bytes) -> None:
    """Bodies of the catalog: what they say must apply, and be rendered."""
    body = json.loads(data)
    _apply(catalog_registration(body, datacenter="dc1"))
    _apply(catalog_deregistration(body))


def txn(data: bytes) -> None:
    """The body of a transaction."""
    _apply(commands.Txn(operations=operations_of(json.loads(data), "dc1")))


def session(data: bytes) -> None:
    """The body of a session."""
    found = session_of(Fields(json.loads(data)), session_id="id", node="n1")
    json.dumps(render.session_json(found))
    _apply(commands.SessionCreate(session=found))


def command(data: bytes) -> None:
    """A command from the log or from an agent: whatever decodes applies, on every server alike."""
    found = commands.decode(data)
    first, second = State(), State()
    assert apply(first, found, 1) == apply(second, commands.decode(commands.encode(found)), 1)
    assert b"".join(snapshot.snapshot(first)) == b"".join(snapshot.snapshot(second))


def view_deltas(data: bytes) -> None:
    """What an agent's view is fed with."""
    delta.decode_deltas(data)


def raft_frames(data: bytes) -> None:
    """What comes in at the Raft port behind the handshake."""
    for frame in wire.FrameDecoder(INPUT_BYTES_MAX).feed(data):
        messages.check_form("stranger", wire.decode_message(frame))


def raft_message(data: bytes) -> None:
    """A message without its frame."""
    messages.check_form("stranger", wire.decode_message(data))


def state_snapshot(data: bytes) -> None:
    """A snapshot of the state."""
    snapshot.restore([data])


def snapshot_rows(data: bytes) -> None:
    """Rows of a snapshot whose checksums are right, as whoever restores one can make them."""
    whole = _snapshot_head
    if data:
        table, payload = data[0], data[1:]
        whole += _FRAME.pack(table, len(payload), zlib.crc32(payload)) + payload
    snapshot.restore([whole])


def archive(data: bytes) -> None:
    """The archive of PUT /v1/snapshot."""
    extract_state(io.BytesIO(data), io.BytesIO(), 1 << 20)


def _node() -> Node:
    return Node(name="n1", address="127.0.0.1")


def _apply(command: commands.Command) -> None:
    state = State()
    apply(state, commands.Register(node=_node()), 1)
    apply(state, commands.decode(commands.encode(command)), 2)
    for node in state.catalog.nodes.values():
        json.dumps(render.catalog_node_json(node, state.catalog.services_of(node.name)))


TARGETS: dict[str, Target] = {
    each.__name__: each
    for each in (
        dns_query,
        http_filter,
        http_query,
        duration,
        service,
        check,
        catalog,
        txn,
        session,
        command,
        view_deltas,
        raft_frames,
        raft_message,
        state_snapshot,
        snapshot_rows,
        archive,
    )
}

#: What decoders say of bytes that they don't take.
EXPECTED = (RaftregError, msgspec.DecodeError, dns.exception.DNSException)


def run(name: str, data: bytes) -> None:
    """Runs a target on an input.

    Raises:
        Exception: The decoder did what it must not: a find.
    """
    try:
        TARGETS[name](data)
    except EXPECTED:
        return
