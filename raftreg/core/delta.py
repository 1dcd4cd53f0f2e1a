"""One row of the catalog, written or deleted: what servers stream to the views of agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.model import Check, Node, ServiceInstance

DeltaKind = Literal["node", "service", "check"]
Row = Node | ServiceInstance | Check


class CatalogDelta(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it is now.

    Attributes:
        kind: The table.
        node: Name of the node that the row belongs to.
        id: Service or check id; empty for a node.
        row: The row with its indexes, None when it was deleted.
        index: Registry index of the change.
    """

    kind: DeltaKind
    node: str
    id: str = ""
    row: Row | None = None
    index: int = 0


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    """The row stays raw until the kind tells its type."""

    kind: DeltaKind
    node: str
    id: str
    index: int
    row: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_wire_decoder = MsgpackDecoder[list[_Wire]](list[_Wire])
_row_decoders: dict[str, MsgpackDecoder[Row | None]] = {
    "node": MsgpackDecoder(Node | None),
    "service": MsgpackDecoder(ServiceInstance | None),
    "check": MsgpackDecoder(Check | None),
}


def encode_deltas(deltas: Iterable[CatalogDelta]) -> bytes:
    """Gives the bytes of deltas (msgpack)."""
    return _encoder.encode([(d.kind, d.node, d.id, d.index, d.row) for d in deltas])


def decode_deltas(data: bytes) -> tuple[CatalogDelta, ...]:
    """Reads what `encode_deltas` wrote.

    Raises:
        msgspec.DecodeError: The bytes are no deltas (also ValidationError).
    """
    return tuple(
        CatalogDelta(
            kind=wire.kind,
            node=wire.node,
            id=wire.id,
            row=_row_decoders[wire.kind].decode(wire.row),
            index=wire.index,
        )
        for wire in _wire_decoder.decode(data)
    )
