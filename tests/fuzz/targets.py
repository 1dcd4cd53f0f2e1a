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
from raftreg.core.durations import format_duration, parse_duration
from raftreg.core.spiffe import parse_service
from raftreg.core.state import State
from raftreg.dns.answer import Answerer, Forward, Transport
from raftreg.dns.known import Known
from raftreg.errors import RaftregError
from raftreg.http import json, render
from raftreg.http.config_body import config_entry
from raftreg.http.config_render import config_entry_json
from raftreg.http.decode import check_definition, service_definition
from raftreg.http.fields import Fields
from raftreg.http.filter import compile_filter
from raftreg.http.filter_fields import HEALTH_ENTRY
from raftreg.http.params import (
    Query,
    query_from,
    read_options,
)
from raftreg.http.query_body import query_json, query_of
from raftreg.http.query_template import render as render_template
from raftreg.http.rows import catalog_deregistration, catalog_registration
from raftreg.http.wire.head import read_fields, read_line
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


def config(data: bytes) -> None:
    """The body of a configuration entry: what is read is applied, and shown again."""
    entry = config_entry(json.loads(data))
    _apply(commands.ConfigSet(entry=entry))
    shown = json.dumps(config_entry_json(entry))
    assert json.dumps(config_entry_json(config_entry(json.loads(shown)))) == shown


def prepared_query(data: bytes) -> None:
    """The body of a prepared query: one that is read can be shown, and its template rendered."""
    query = query_of(Fields(json.loads(data)), "id")
    _apply(commands.QuerySet(query=query))
    json.dumps(query_json(query))
    render_template(query, "web-v1-canary")


def http_head(data: bytes) -> None:
    """A request as it comes: a head that is read strictly is one that aiohttp reads alike."""
    line, _, rest = data.partition(b"\r\n")
    read = read_line(line)
    fields = read_fields(b"\r\n" + rest)
    if read is not None and fields is not None:
        assert b"\n" not in line
        assert 0 <= fields.length_bytes < 10**10


def spiffe_id(data: bytes) -> None:
    """The identity in a certificate; one that is read is written the same."""
    try:
        found = parse_service(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert parse_service(found.uri) == found


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
        config,
        prepared_query,
        http_head,
        spiffe_id,
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
