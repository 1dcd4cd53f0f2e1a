"""JSON in and out, fast and bounded."""

from __future__ import annotations

from typing import Any

import orjson

from raftreg.errors import InvalidRequest

DEPTH_MAX = 64


def dumps(value: object, *, pretty: bool = False) -> bytes:
    """Writes JSON; `pretty` indents by four spaces and ends with a line feed, as Consul does.

    Raises:
        TypeError: The value holds something that JSON can't say.
    """
    if not pretty:
        return orjson.dumps(value)
    import json  # noqa: PLC0415 - for people only; kept out of every start

    return json.dumps(value, indent=4, ensure_ascii=False).encode() + b"\n"


def loads(body: bytes) -> Any:
    """Reads a JSON body of bounded depth.

    Raises:
        InvalidRequest: It is empty or malformed; the text says where.
    """
    if not body.strip():
        raise InvalidRequest("Request decode failed: EOF")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"Request decode failed: {error}") from error
    _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    """Refuses nesting that would exhaust a recursive reader (ours, or a client's)."""
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise InvalidRequest(f"Request decode failed: nested deeper than {DEPTH_MAX} levels")
