"""A client that applies what feeds tell it always has the answer, wherever it comes back."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.http import deltas
from raftreg.http.deltas import DeltaFeed, DeltaQuery, Position

Rows = dict[str, int]


class Server:
    """A server at some point of a history that others have too."""

    def __init__(self, history: list[Rows], hides: int | None = None) -> None:
        self.at = 0
        self.epoch = "e1"
        self._history = history
        self._hides = hides
        question = DeltaQuery(
            key="q",
            topics=(),
            find=self._find,
            render=lambda row: {"K": row[0], "V": row[1]},
            holds=None if hides is None else (lambda shown: shown["V"] != hides),
        )
        self.feed = DeltaFeed(question, lambda: self.epoch, lambda: self.at + 1)

    def _find(self) -> tuple[int, Mapping[Hashable, Any]]:
        """As a registry does: the index is that of the last change of the answer."""
        rows = self._history[self.at]
        index = self.at
        while index and self._history[index - 1] == rows:
            index -= 1
        return index + 1, {key: (key, value) for key, value in rows.items()}

    @property
    def answer(self) -> Rows:
        """What a client should have."""
        rows = self._history[self.at]
        return {key: value for key, value in rows.items() if value != self._hides}


class Client:
    """Applies events, and remembers the last id."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.position: Position | None = None
        self.kinds: list[str] = []
        self._parts: Rows = {}

    def catch_up(self, server: Server) -> None:
        """Takes what a server has for it."""
        _, events = server.feed.missed(self.position)
        for event in list(events):
            self._take(event.decode())

    def _take(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.strip().split("\n"))
        data = json.loads(fields["data"])
        self.kinds.append(fields["event"])
        if fields["event"] == "snapshot":
            self._parts |= _rows(data["Rows"])
            if not data["More"]:
                self.rows, self._parts = self._parts, {}
        else:
            for row in data["Removed"]:
                del self.rows[row["K"]]
            for change in data["Changed"]:
                assert change["Old"]["K"] == change["New"]["K"]
            self.rows |= _rows(data["Added"]) | _rows(c["New"] for c in data["Changed"])
        if "id" in fields:
            self.position = Position.read(fields["id"])


def _rows(rows: Iterable[Mapping[str, Any]]) -> Rows:
    return {row["K"]: row["V"] for row in rows}


_states = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4)
_steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["go on", "look", "serve", "serve"])),
    max_size=40,
)


@given(
    st.lists(_states, min_size=1, max_size=12),
    _steps,
    st.sampled_from([None, 1]),
    st.sampled_from([1, 2, 500]),
)
def test_no_client_ever_has_a_gap(
    history: list[Rows], steps: list[tuple[int, str]], hides: int | None, rows_max: int
) -> None:
    """Two servers look at different moments; a client goes from one to the other and back.

    After each visit it has what that server has, through removals and changes back as well.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deltas, "SNAPSHOT_ROWS_MAX", rows_max)
        patch.setattr(deltas, "KEPT_DELTAS_MAX", 3)
        servers = (Server(history, hides), Server(history, hides))
        client = Client()
        for which, step in steps:
            server = servers[which]
            if step == "go on":
                server.at = min(server.at + 1, len(history) - 1)
            elif step == "look":
                server.feed.refresh()
            else:
                server.feed.refresh()
                client.catch_up(server)
                assert client.rows == server.answer


def test_a_change_back_that_others_saw_is_not_lost() -> None:
    """A client saw 1 where this feed never looked: the answer is the same again, not the client."""
    history: list[Rows] = [{"a": 0}, {"a": 1}, {"a": 0}]
    here, elsewhere = Server(history), Server(history)
    client = Client()
    elsewhere.at = 1
    elsewhere.feed.refresh()
    client.catch_up(elsewhere)
    assert client.rows == {"a": 1}
    here.at = 2
    here.feed.refresh()
    client.catch_up(here)
    assert (client.rows, client.kinds) == ({"a": 0}, ["snapshot", "snapshot"])


def test_another_history_is_told_from_its_beginning() -> None:
    """After a restore nothing that was kept leads anywhere."""
    server = Server([{"a": 0}, {"a": 1}])
    client = Client()
    client.catch_up(server)
    server.epoch, server.at = "e2", 1
    server.feed.refresh()
    client.catch_up(server)
    assert (client.rows, client.kinds) == ({"a": 1}, ["snapshot", "snapshot"])
    assert client.position == Position(2, "e2")


def test_a_difference_larger_than_the_answer_is_told_as_the_answer() -> None:
    """Deleting a thousand keys costs as much as the few that stay."""
    server = Server([{str(n): n for n in range(1_000)}, {"1": 1}])
    client = Client()
    client.catch_up(server)
    server.at = 1
    server.feed.refresh()
    client.catch_up(server)
    assert (client.rows, client.kinds[-1]) == ({"1": 1}, "snapshot")


@given(st.text(max_size=30))
def test_whatever_a_client_sends_as_its_place_is_read_or_refused(text: str) -> None:
    """What reads as a position writes as one; everything else is none."""
    position = Position.read(text)
    if position is not None:
        assert Position.read(str(position)) == position


def test_a_large_answer_is_rendered_once_for_all_who_read_it() -> None:
    """As after a restart, when all come at once; each at its own pace, and nothing stays after."""
    rendered = 0

    def render(row: tuple[str, int]) -> dict[str, Any]:
        nonlocal rendered
        rendered += 1
        return {"K": row[0]}

    count = 3 * deltas.SNAPSHOT_ROWS_MAX
    index = 1
    rows: dict[Hashable, Any] = {str(number): (str(number), number) for number in range(count)}
    question = DeltaQuery(key="q", topics=(), find=lambda: (index, rows), render=render)
    feed = DeltaFeed(question, lambda: "e1", lambda: 9)
    readers = [feed.missed(None)[1] for _ in range(5)]
    firsts = [next(reader) for reader in readers]
    wholes = [first + b"".join(reader) for first, reader in zip(firsts, readers, strict=True)]
    assert len(set(wholes)) == 1
    assert rendered == count
    index, rows = 2, {"a": ("a", 1), **rows}
    feed.refresh()
    assert b'"K":"a"' in b"".join(feed.missed(None)[1])
    assert feed._being_read is not None
    assert feed._being_read() is None
