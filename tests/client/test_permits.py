"""The holders of a semaphore, as a pure value changed by check-and-set."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.client.permits import Permits, decode, encode
from raftreg.errors import Conflict

SESSIONS = st.sampled_from([f"session-{i}" for i in range(6)])


@given(st.integers(1, 5), st.frozensets(SESSIONS))
def test_what_is_written_is_read(limit: int, holders: frozenset[str]) -> None:
    """Encoding and decoding are inverse, in the JSON of Consul."""
    value = encode(Permits(limit, holders))
    assert decode(value) == Permits(limit, holders)
    assert json.loads(value) == {"Limit": limit, "Holders": dict.fromkeys(holders, True)}


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["take", "give", "die", "stale"]), SESSIONS), max_size=60),
)
def test_never_more_living_holders_than_the_limit(limit: int, steps: list[tuple[str, str]]) -> None:
    """Whatever contenders do, also with an old view: check-and-set keeps the living at the limit.

    The model is the registry: the key's value with its index, and the keys of the contenders.
    """
    value, index, contenders = encode(Permits(limit)), 1, set[str]()
    old = (value, index, frozenset(contenders))
    for step, session in steps:
        seen_value, seen_index, seen = old if step == "stale" else (value, index, contenders)
        old = (value, index, frozenset(contenders))
        if step == "die":
            contenders.discard(session)
            continue
        if step == "give":
            wanted: Permits | None = decode(value).given_back_by(session)
            contenders.discard(session)
        else:
            contenders.add(session)  # comes first: whoever sees the holder sees its key
            wanted = decode(seen_value).living(seen | {session}).taken_by(session)
        if wanted is not None and seen_index == index:
            value, index = encode(wanted), index + 1
        assert len(decode(value).living(contenders).holders) <= limit


@given(st.integers(1, 4), st.frozensets(SESSIONS), SESSIONS)
def test_taking_is_repeatable_and_giving_back_undoes_it(
    limit: int, holders: frozenset[str], session: str
) -> None:
    """Who holds and asks again changes nothing; who gave back does not hold."""
    before = Permits(limit, holders)
    taken = before.taken_by(session)
    if taken is None:
        assert len(holders) >= limit
        return
    assert session in taken.holders
    assert taken.taken_by(session) == taken
    assert taken.given_back_by(session).holders == holders - {session}


@pytest.mark.parametrize(
    "value", [b"", b"5", b"{}", b'{"Limit":0}', b'{"Limit":1,"Holders":[]}', b"\xff"]
)
def test_what_is_no_semaphore_is_refused(value: bytes) -> None:
    """A key with other data is a conflict, not a crash."""
    with pytest.raises(Conflict):
        decode(value)


def test_holders_that_are_marked_as_gone_are_gone() -> None:
    """Consul's map of holders is of booleans; null is an empty one."""
    assert decode(b'{"Limit":2,"Holders":{"a":true,"b":false}}').holders == {"a"}
    assert decode(b'{"Limit":2,"Holders":null}').holders == frozenset()
