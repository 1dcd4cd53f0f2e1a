"""Frames and messages: whatever arrives, plain values or WireError and no growth."""

from __future__ import annotations

import contextlib
import itertools
import struct
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.raft.wire import (
    FRAME_BYTES_MAX,
    FrameDecoder,
    OversizeFrame,
    WireError,
    decode_map,
    decode_message,
    encode_message,
)

_LIMIT_BYTES = 100

# {"type": "x"} as the pickle module, which is banned here, writes it.
_PICKLED = b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x04type\x94\x8c\x01x\x94s."

_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
_messages = st.dictionaries(st.text(max_size=8), _plain, max_size=5).map(
    lambda fields: {**fields, "type": "append"}
)


def _frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(_messages)
def test_a_message_survives_the_wire(message: dict[str, Any]) -> None:
    """Decoding gives back what was encoded, whatever plain values it holds."""
    assert decode_message(encode_message(message)) == message


@given(st.binary(max_size=300))
def test_garbage_is_a_message_or_a_wire_error(data: bytes) -> None:
    """No bytes make the decoder raise anything but WireError."""
    with contextlib.suppress(WireError):
        assert isinstance(decode_message(data)["type"], str)


@given(_messages, st.data())
def test_a_truncated_or_prolonged_message_is_refused(
    message: dict[str, Any], data: st.DataObject
) -> None:
    """A body is decoded whole or not at all."""
    body = encode_message(message)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(WireError):
        decode_message(body[:cut])
    with pytest.raises(WireError):
        decode_message(body + b"\xc0")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(msgpack.packb([1, 2]), id="list"),
        pytest.param(msgpack.packb({"term": 1}), id="no type"),
        pytest.param(msgpack.packb({"type": 1}), id="type is an integer"),
        pytest.param(msgpack.packb({"type": "x", 1: 2}), id="integer key"),
        pytest.param(msgpack.packb({"type": "x", b"k": 2}), id="bytes key"),
        pytest.param(msgpack.packb({"type": "x", "a": {b"k": 2}}), id="bytes key inside"),
        pytest.param(msgpack.packb({"type": "x", "a": msgpack.ExtType(5, b"")}), id="extension"),
        pytest.param(
            msgpack.packb({"type": "x", "a": msgpack.ExtType(5, b"abc")}), id="long extension"
        ),
        pytest.param(b"\x82\xa4type\xa1x\xa1a\xd6\xff\x00\x00\x00\x01", id="timestamp"),
        pytest.param(b"\x91" * 100_000, id="deep nesting"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="4 Gi items"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="4 Gi pairs"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="4 GiB of bytes"),
        pytest.param(_PICKLED, id="pickle"),
        pytest.param(zlib.compress(bytes(10_000_000)), id="zlib bomb"),
    ],
)
def test_what_is_no_plain_message_is_refused_without_growth(body: bytes) -> None:
    """Nothing but one map of plain values is a message; refusing it costs no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(WireError) as caught:
            decode_message(body)
        assert caught.value.reason
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 3},
        {"type": "x", "a": object()},
        {"type": "x", "a": 2**64},
        {"type": "x", "a": {1, 2}},
        {"type": "x", "a": "\ud800"},
    ],
)
def test_what_cannot_travel_is_refused_at_the_sender(message: dict[str, Any]) -> None:
    """A message without a type or with other than plain values never leaves."""
    with pytest.raises(WireError):
        encode_message(message)


def test_a_message_over_the_frame_limit_is_refused_on_both_sides() -> None:
    """The limit holds before sending and before decoding."""
    with pytest.raises(OversizeFrame):
        encode_message({"type": "x", "data": bytes(FRAME_BYTES_MAX)})
    with pytest.raises(OversizeFrame):
        decode_map(bytes(FRAME_BYTES_MAX + 1))


@given(st.lists(st.binary(min_size=1, max_size=_LIMIT_BYTES)), st.lists(st.integers(0, 10_000)))
def test_any_split_of_the_stream_gives_the_same_frames(
    payloads: list[bytes], cuts: list[int]
) -> None:
    """How TCP cuts a stream has no influence on the frames."""
    decoder = FrameDecoder(_LIMIT_BYTES)
    stream = b"".join(map(_frame, payloads))
    frames = [frame for part in _cut(stream, cuts) for frame in decoder.feed(part)]
    assert frames == payloads
    assert decoder.buffered_bytes == 0


@given(st.binary(max_size=400), st.lists(st.integers(0, 10_000)))
def test_garbage_makes_the_decoder_wait_or_raise(stream: bytes, cuts: list[int]) -> None:
    """No stream makes it raise anything but WireError or keep more than one frame."""
    decoder = FrameDecoder(_LIMIT_BYTES)
    with contextlib.suppress(WireError):
        for part in _cut(stream, cuts):
            for frame in decoder.feed(part):
                assert 1 <= len(frame) <= _LIMIT_BYTES
            assert decoder.buffered_bytes < 4 + _LIMIT_BYTES


@pytest.mark.parametrize("split", [0, 1, 3])
def test_a_length_over_the_limit_is_refused_before_its_frame_is_kept(split: int) -> None:
    """A claim of 4 GiB costs nothing, however its bytes arrive."""
    decoder = FrameDecoder(_LIMIT_BYTES)
    stream = b"\xff\xff\xff\xff" + bytes(1_000_000)
    assert list(decoder.feed(stream[:split])) == []
    with pytest.raises(OversizeFrame):
        list(decoder.feed(stream[split:]))
    assert decoder.buffered_bytes <= 4


def test_an_empty_frame_is_refused() -> None:
    """A stream of zeros is no stream of frames."""
    with pytest.raises(WireError):
        list(FrameDecoder(_LIMIT_BYTES).feed(bytes(8)))


def test_a_new_limit_holds_for_the_rest_of_the_bytes_already_fed() -> None:
    """What follows the frame that raised the limit may use it, also in the same segment."""
    decoder = FrameDecoder(4)
    frames = decoder.feed(_frame(b"last") + _frame(b"longer than four"))
    assert next(frames) == b"last"
    decoder.limit_bytes = 100
    assert list(frames) == [b"longer than four"]
