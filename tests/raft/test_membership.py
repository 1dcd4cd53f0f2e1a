"""Configurations: canonical, bounded, and never without a voter."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.errors import InvalidRequest, NotFound
from raftreg.raft.api import Server
from raftreg.raft.membership import (
    SERVERS_MAX,
    Configuration,
    decode_configuration,
    encode_configuration,
    voters_changed,
)


def server(server_id: str, *, voter: bool = True, name: str = "") -> Server:
    """A server whose name is its id unless given."""
    return Server(id=server_id, name=name or server_id, address=f"{server_id}:1", voter=voter)


_CONFIGURATIONS = st.dictionaries(st.sampled_from("abcdefg"), st.booleans(), min_size=1).map(
    lambda known: Configuration.of(server(i, voter=voter) for i, voter in known.items())
)


@given(configuration=_CONFIGURATIONS, server_id=st.sampled_from("abcdefgh"), voter=st.booleans())
def test_adding_or_replacing_moves_at_most_one_voter(
    configuration: Configuration, server_id: str, voter: bool
) -> None:
    """Others stay as they are, the order is canonical, bytes give it back."""
    after = configuration.with_server(server(server_id, voter=voter))
    assert voters_changed(configuration, after) <= 1
    assert after.get(server_id) == server(server_id, voter=voter)
    assert [s for s in after.servers if s.id != server_id] == [
        s for s in configuration.servers if s.id != server_id
    ]
    assert [s.id for s in after.servers] == sorted(s.id for s in after.servers)
    assert decode_configuration(encode_configuration(after)) == after


@given(configuration=_CONFIGURATIONS)
def test_neighbouring_majorities_meet(configuration: Configuration) -> None:
    """Any majority before a change and any after it share a server (section 4.1)."""
    for known in configuration.servers:
        try:
            after = configuration.without(known.id)
        except InvalidRequest:
            assert configuration.voters() == {known.id}
            continue
        union = configuration.voters() | after.voters()
        if configuration.voters() and after.voters():
            assert configuration.majority() + after.majority() > len(union)


def test_the_last_voter_stays() -> None:
    """Also when there are learners."""
    alone = Configuration.of([server("a"), server("b", voter=False)])
    with pytest.raises(InvalidRequest, match="last voter"):
        alone.without("a")
    assert alone.without("b").voters() == {"a"}
    with pytest.raises(NotFound, match="'z'"):
        alone.without("z")


def test_names_are_unique_and_the_number_is_bounded() -> None:
    """A name of another id is refused with where it is; so is one server too many."""
    configuration = Configuration.of([server("a", name="one")])
    with pytest.raises(InvalidRequest, match=r"'one' belongs to a at a:1"):
        configuration.with_server(server("b", name="one"))
    full = Configuration.of(server(f"s{i:02d}") for i in range(SERVERS_MAX))
    with pytest.raises(InvalidRequest, match=str(SERVERS_MAX)):
        full.with_server(server("more"))
    assert full.with_server(server("s00", voter=False)).learners() == {"s00"}


@given(data=st.binary(max_size=40))
def test_bytes_that_hold_no_configuration_are_refused(data: bytes) -> None:
    """One kind of error, or a configuration."""
    try:
        configuration = decode_configuration(data)
    except msgspec.MsgspecError:
        return
    assert decode_configuration(encode_configuration(configuration)) == configuration
