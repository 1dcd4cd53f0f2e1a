"""Decoders of what others sent, with one kind of failure.

`msgspec` lets text that is no UTF-8 and nesting that is too deep out as `UnicodeDecodeError` and
`RecursionError`. Whoever catches `DecodeError` means those too: a caller that forgets them would
be ended by three bytes from a stranger.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

_T = TypeVar("_T")


class _Strict(Generic[_T]):
    __slots__ = ("_decode",)

    def __init__(self, decode: Any) -> None:
        self._decode = decode

    def decode(self, data: bytes | bytearray | memoryview) -> _T:
        """Reads a value.

        Raises:
            msgspec.DecodeError: The bytes are none of this type (also `ValidationError`).
        """
        try:
            found: _T = self._decode(data)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(f"text that is no UTF-8: {error.reason}") from error
        except RecursionError as error:
            raise msgspec.DecodeError("nested too deeply") from error
        return found


class MsgpackDecoder(_Strict[_T]):
    """Reads msgpack.

    Args:
        kind: The type to read; `type[_T]`, or a union (which has no such type).
    """

    __slots__ = ()

    def __init__(self, kind: Any = Any) -> None:
        super().__init__(msgspec.msgpack.Decoder(kind).decode)


class JsonDecoder(_Strict[_T]):
    """Reads JSON.

    Args:
        kind: As for `MsgpackDecoder`.
    """

    __slots__ = ()

    def __init__(self, kind: Any = Any) -> None:
        super().__init__(msgspec.json.Decoder(kind).decode)
