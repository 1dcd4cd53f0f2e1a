"""What `apply` answers: plain values, and their bytes (results of requests are remembered)."""

from __future__ import annotations

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.model import Check, KVEntry, Node, ServiceInstance


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The rules do not allow the command; nothing changed.

    Attributes:
        code: Short name of the rule, for programs.
        message: One sentence for a person, as Consul words it.
        http_status: Status of the answer over HTTP.
    """

    code: str
    message: str
    http_status: int = 500


class TxnItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row that a transaction answers with: exactly one of the fields is set."""

    kv: KVEntry | None = None
    node: Node | None = None
    service: ServiceInstance | None = None
    check: Check | None = None


class TxnResult(msgspec.Struct, frozen=True, tag="txn"):
    """Outcome of a transaction.

    Attributes:
        ok: Whether it took effect.
        results: Rows in the order of the operations; values only for reads. Empty unless `ok`.
        errors: (index of the operation, what was wrong); empty when `ok`.
    """

    ok: bool
    results: tuple[TxnItem, ...] = ()
    errors: tuple[tuple[int, str], ...] = ()


Result = bool | str | TxnResult | Refused


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """A result with its place in the order of all commands.

    It is remembered as a whole: a request that comes again learns the index of its one effect.

    Attributes:
        index: The registry's index of the command.
        result: What the command gave.
    """

    index: int
    result: Result


_encoder = msgspec.msgpack.Encoder()
_decoder: MsgpackDecoder[Outcome] = MsgpackDecoder(Outcome)
_QUOTED_CHARS_MAX = 256


def encode_outcome(outcome: Outcome) -> bytes:
    """Gives the bytes of an outcome (msgpack)."""
    return _encoder.encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Reads what `encode_outcome` wrote.

    Raises:
        msgspec.DecodeError: The bytes are no outcome (also ValidationError).
    """
    return _decoder.decode(data)


def quoted(text: str) -> str:
    """A name as messages show it: in double quotes, escaped, cut when it is very long."""
    if len(text) > _QUOTED_CHARS_MAX:
        text = text[:_QUOTED_CHARS_MAX] + "…"
    return msgspec.json.encode(text).decode()
