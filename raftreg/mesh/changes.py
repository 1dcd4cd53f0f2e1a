"""What is changed in a request or an answer on its way: headers, and the path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from raftreg.core.entries.common import HeaderModifiers

Pairs = tuple[tuple[str, str], ...]
_PIECE: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+|.", re.DOTALL)


class HeaderChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to headers; names are in lower case. First is removed, then set, then added.

    Attributes:
        removed: Names that go.
        put: Names and values that replace what was there.
        added: Names and values that come on top of what is there.
    """

    removed: frozenset[str] = frozenset()
    put: Pairs = ()
    added: Pairs = ()

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.removed or self.put or self.added)

    def then(self, later: HeaderChanges) -> HeaderChanges:
        """Both changes as one, the later one made after this."""
        gone = later.removed | {name for name, _ in later.put}
        return HeaderChanges(
            removed=self.removed | later.removed,
            put=(*((name, text) for name, text in self.put if name not in gone), *later.put),
            added=(*((name, text) for name, text in self.added if name not in gone), *later.added),
        )

    def applied(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Headers with these changes; the others keep their order and their spelling."""
        gone = self.removed | {name for name, _ in self.put}
        kept = [(name, text) for name, text in headers if name.lower() not in gone]
        return [*kept, *self.put, *self.added]


NO_CHANGES: Final = HeaderChanges()


def header_changes(modifiers: HeaderModifiers | None) -> HeaderChanges:
    """Reads the changes of a route or a split."""
    if not modifiers:
        return NO_CHANGES
    return HeaderChanges(
        removed=frozenset(name.lower() for name in modifiers.get("Remove", ())),
        put=tuple((name.lower(), text) for name, text in modifiers.get("Set", {}).items()),
        added=tuple((name.lower(), text) for name, text in modifiers.get("Add", {}).items()),
    )


class Rewrite(msgspec.Struct, frozen=True):
    """Puts another beginning before a path.

    Attributes:
        chars: Characters of the decoded path that are replaced.
        beginning: What comes in their place.
    """

    chars: int
    beginning: str

    def applied(self, raw_path: str) -> str:
        """The path, as it travels, with the other beginning; the rest keeps its escapes.

        Args:
            raw_path: Path with its percent escapes, without the query.
        """
        at, missing = 0, self.chars
        if "%" not in raw_path[: 3 * self.chars]:
            return self.beginning + raw_path[missing:]
        while missing > 0 and (piece := _PIECE.match(raw_path, at)):
            text = unquote(piece[0], errors="surrogateescape")
            at = piece.end()
            if len(text) > missing:
                rest = quote(text[missing:], safe="", errors="surrogateescape")
                return self.beginning + rest + raw_path[at:]
            missing -= len(text)
        return self.beginning + raw_path[at:]
