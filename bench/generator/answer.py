"""Where an HTTP answer ends: its head is looked at, its body only counted."""

from __future__ import annotations

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
CHUNKED = -1


def end_of_head(data: bytes | bytearray, end: int) -> int:
    """Index behind the head, -1 when it is not whole yet; `end`: how much of `data` counts."""
    at = data.find(_END_OF_HEAD, 0, end)
    return -1 if at < 0 else at + len(_END_OF_HEAD)


def body_bytes(data: bytes | bytearray, head_end: int) -> int:
    """Length of the body that a head announces, `CHUNKED` when the chunks will tell.

    Raises:
        ValueError: The length is no number.
    """
    at = data.find(b"Content-Length: ", 0, head_end)
    if at < 0:
        head = bytes(data[:head_end]).lower()
        if b"transfer-encoding: chunked" in head:
            return CHUNKED
        at = head.find(b"content-length: ")
        if at < 0:
            return 0
    return int(data[at + 16 : data.find(b"\r", at)])


def chunks_end(tail: bytes | bytearray) -> bool:
    """Tells whether chunks are over, by the last bytes that were read.

    One request is outstanding, so nothing follows its answer; JSON holds no bare CR LF that could
    look like the end.
    """
    return tail.endswith(_LAST_CHUNK)
