from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.generator import answer
from bench.generator.closed_loop import Connection

HEADS = st.sampled_from([b"X-Consul-Index: 12\r\n", b"Vary: Accept-Encoding\r\n", b""])


def _chunked(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    return chunks + b"0\r\n\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The status and the bytes of an answer, by length or in chunks."""
    status = draw(st.sampled_from([b"200", b"404", b"500"]))
    more = draw(HEADS)
    if draw(st.booleans()):
        body = draw(st.binary(max_size=50))
        name = draw(st.sampled_from([b"Content-Length", b"content-length"]))
        length = name + b": %d\r\n" % len(body)
    else:
        # JSON holds no bare line ends.
        parts = draw(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b""))))
        body = _chunked(parts)
        length = b"Transfer-Encoding: chunked\r\n"
    return status, b"HTTP/1.1 " + status + b" X\r\n" + more + length + b"\r\n" + body


@pytest.fixture
def connection() -> Iterator[Connection]:
    """A connection that is fed by hand."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours, iter(()))


@given(answers(), st.data())
def test_answer_is_whole_with_its_last_byte_however_it_is_cut(
    sent: tuple[bytes, bytes], data: st.DataObject
) -> None:
    """Cut anywhere, an answer is whole exactly when its last byte came, and its status is known."""
    status, text = sent
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=6)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours, iter(()))
        buffer = bytearray(1 << 12)
        whole = []
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            buffer[: end - start] = text[start:end]
            whole.append(connection.take(buffer, end - start))
        assert whole == [False] * len(cuts) + [True]
        assert connection.status == status


def test_connection_reads_one_answer_after_the_other(connection: Connection) -> None:
    """Nothing of an answer is left over for the next one, however the first was framed."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunked([b"[1]"])
    plain = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    for text in (chunked, plain, chunked, plain):
        assert not connection.take(bytearray(text[:30]), 30)
        assert connection.take(bytearray(text[30:]), len(text) - 30)
    assert connection.status == b"404"


def test_answer_without_a_length_has_no_body() -> None:
    """A head that announces nothing ends the answer."""
    head = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert answer.body_bytes(head, answer.end_of_head(head, len(head))) == 0


def test_length_that_is_no_number_is_an_error() -> None:
    """Nonsense does not count as an answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: much\r\n\r\n"
    with pytest.raises(ValueError, match="invalid literal"):
        answer.body_bytes(head, len(head))
