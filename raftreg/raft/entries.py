"""What a log entry holds: its first byte tells the kind, the rest is msgpack.

The kinds are the engine's numbers (`_COMMAND_TYPE` of PySyncObj); its VERSION kind is refused,
since the engine would unpickle it.
"""

from __future__ import annotations

import msgspec

from raftreg.decoding import MsgpackDecoder
from raftreg.raft.membership import (
    Configuration,
    decode_configuration,
    encode_configuration,
)

BATCH = 0
NO_OP = 1
CONFIGURATION = 2
NO_OP_ENTRY = b"\x01"
KINDS = frozenset({BATCH, NO_OP, CONFIGURATION})

#: A proposal is at most this long, so that a batch of one is far below the frame limit.
COMMAND_BYTES_MAX = 1_572_864
#: A batch is closed when it holds this many bytes (then one more command may still fit in).
BATCH_BYTES_MAX = 1_048_576
BATCH_PROPOSALS_MAX = 1_024


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """One proposal in a batch; see `RequestId` for the first three fields."""

    proposer: str
    sequence: int
    low: int
    command: bytes


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Proposals that share one log entry.

    Attributes:
        time_ms: Cluster time at which the batch was made, in milliseconds.
        proposals: In the order in which they take effect.
    """

    time_ms: int
    proposals: list[Proposal]


_encoder = msgspec.msgpack.Encoder()
_decoder = MsgpackDecoder[Batch](Batch)


def encode_batch(batch: Batch) -> bytes:
    """The bytes of a log entry that holds a batch."""
    return b"\x00" + _encoder.encode(batch)


def decode_batch(entry: bytes) -> Batch:
    """Reads a batch entry, kind byte included.

    Raises:
        msgspec.DecodeError: The bytes hold none.
    """
    return _decoder.decode(memoryview(entry)[1:])


def encode_configuration_entry(configuration: Configuration) -> bytes:
    """The bytes of a log entry that holds a configuration."""
    return b"\x02" + encode_configuration(configuration)


def decode_configuration_entry(entry: bytes) -> Configuration:
    """Reads a configuration entry, kind byte included.

    Raises:
        msgspec.DecodeError: The bytes hold none.
    """
    return decode_configuration(entry[1:])
