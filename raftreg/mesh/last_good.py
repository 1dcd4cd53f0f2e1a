"""The last good answers of an upstream, kept to be given while it fails.

A bounded cache by method and target, with what RFC 9111 section 3 asks of a cache that is shared by
all callers: an answer that is meant for one caller, or was told not to be stored, is never kept.
The purpose is that of `stale-if-error` (RFC 5861 section 4), with the age limit set here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.nouns import Call, MeshConfigError

_GOOD = frozenset({200, 203, 204})
_METHODS = frozenset({"GET", "HEAD"})
#: A call with one of these is of one caller, or of one part: neither kept nor answered, unless the
#: header is one of those that answers vary by.
_PERSONAL = ("authorization", "cookie", "range")
#: Of one connection (RFC 9110 section 7.6.1), or told anew with the answer.
_NOT_KEPT = frozenset(
    {
        "age",
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_ENTRY_BYTES = 512  # What an entry costs beside its texts: objects and tables.


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    Attributes:
        status: HTTP status.
        headers: Lines in order, names in lower case; without a length, which follows from the body.
        body: The body, decoded from its transfer coding.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class LastGoodSettings(msgspec.Struct, frozen=True, kw_only=True, tag="last-good"):
    """What is kept, and for how long.

    Attributes:
        age_s_max: Older answers are not given.
        body_bytes_max: Longer bodies are not kept.
        total_bytes_max: All answers together are not larger; the least recently used go first.
        entries_max: And not more than so many.
        vary_by: Request headers, in lower case, whose values tell answers apart.

    Raises:
        MeshConfigError: A value is out of bounds.
    """

    age_s_max: float = 300.0
    body_bytes_max: int = 262_144
    total_bytes_max: int = 16_777_216
    entries_max: int = 1000
    vary_by: tuple[str, ...] = ("accept", "accept-encoding", "accept-language")

    def __post_init__(self) -> None:
        """Checks each value."""
        within("age_s_max", self.age_s_max, 0.001, 2_592_000)
        within("body_bytes_max", self.body_bytes_max, 0, 67_108_864)
        within("total_bytes_max", self.total_bytes_max, self.body_bytes_max, 4_294_967_296)
        within("entries_max", self.entries_max, 1, 1_000_000)
        within("vary_by", len(self.vary_by), 0, 16)
        for name in self.vary_by:
            if name != name.lower():
                raise MeshConfigError(f"vary_by: names must be in lower case, not {name!r}")


class _Kept:
    __slots__ = ("age_s", "answer", "since_s", "size_bytes")

    def __init__(self, answer: Answer, age_s: float, size_bytes: int, since_s: float) -> None:
        self.answer = answer
        self.age_s = age_s
        self.size_bytes = size_bytes
        self.since_s = since_s


class LastGood:
    """The cache of one upstream.

    Args:
        settings: What is kept, and for how long.
    """

    __slots__ = ("_kept", "settings", "size_bytes")

    def __init__(self, settings: LastGoodSettings) -> None:
        self.settings = settings
        self.size_bytes = 0
        #: Least recently used first.
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def wants(self, call: Call, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer is to be kept: asked before its body is held in memory.

        Args:
            call: The call.
            status: HTTP status of its answer.
            headers: Values by name in lower case; several lines of one name joined by ", ".
        """
        return (
            status in _GOOD
            and self._answers(call)
            and "set-cookie" not in headers
            and not _told_not_to(headers.get("cache-control", ""))
            and "no-store" not in call.headers.get("cache-control", "").lower()
            and self._tells_apart(headers.get("vary", ""))
            and _length(headers) <= self.settings.body_bytes_max
        )

    def keep(self, call: Call, target: str, answer: Answer, now_s: float) -> None:
        """Keeps a whole answer that `wants` said yes to, in place of an older one.

        Args:
            call: The call.
            target: Path and query as they were sent: another query is another answer.
            answer: Its answer.
            now_s: Monotonic seconds.
        """
        key = self._key(call, target)
        headers = tuple(line for line in answer.headers if line[0] not in _NOT_KEPT)
        size_bytes = _ENTRY_BYTES + len(answer.body) + _text_bytes(key)
        size_bytes += sum(map(_text_bytes, headers))
        self._drop(key)
        if (
            len(answer.body) > self.settings.body_bytes_max
            or size_bytes > self.settings.total_bytes_max
        ):
            return
        kept = Answer(status=answer.status, headers=headers, body=answer.body)
        self._kept[key] = _Kept(kept, _age_s(answer.headers), size_bytes, now_s)
        self.size_bytes += size_bytes
        while self._over():
            self._drop(next(iter(self._kept)))

    def get(self, call: Call, target: str, now_s: float) -> Answer | None:
        """The last good answer to a call, with its `age`; None when there is none young enough."""
        if not self._kept or not self._answers(call):
            return None
        key = self._key(call, target)
        kept = self._kept.get(key)
        if kept is None:
            return None
        age_s = now_s - kept.since_s
        if age_s > self.settings.age_s_max:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        age = ("age", str(max(0, int(kept.age_s + age_s))))
        answer = kept.answer
        return Answer(status=answer.status, headers=(*answer.headers, age), body=answer.body)

    def _answers(self, call: Call) -> bool:
        """Whether calls like this one are answered from here: safe ones, the same for all."""
        return call.method in _METHODS and not any(
            name in call.headers and name not in self.settings.vary_by for name in _PERSONAL
        )

    def _tells_apart(self, vary: str) -> bool:
        """Whether all that an answer varies by is in its key; `*` never is."""
        names = (name.strip().lower() for name in vary.split(","))
        return all(not name or name in self.settings.vary_by for name in names)

    def _key(self, call: Call, target: str) -> tuple[str, ...]:
        values = (call.headers.get(name, "") for name in self.settings.vary_by)
        return (call.method, target, *values)

    def _over(self) -> bool:
        settings = self.settings
        return self.size_bytes > settings.total_bytes_max or len(self._kept) > settings.entries_max

    def _drop(self, key: tuple[str, ...]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= kept.size_bytes


def _told_not_to(cache_control: str) -> bool:
    """Whether an answer is for one caller, or must not be given later (RFC 9111 section 5.2.2)."""
    directives = (part.partition("=")[0].strip().lower() for part in cache_control.split(","))
    return any(
        name in {"no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"}
        for name in directives
    )


def _length(headers: Mapping[str, str]) -> int:
    """The length that is told; 0 when none is, or none that can be read."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _age_s(headers: Iterable[tuple[str, str]]) -> float:
    """How old an answer was already when it came."""
    for name, value in headers:
        if name == "age" and value.isascii() and value.isdecimal() and len(value) < 10:
            return float(value)
    return 0.0


def _text_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogateescape")) for text in texts)
