"""Sessions that are created through an agent belong to the agent's host."""

from __future__ import annotations

import json

import pytest

from raftreg_agent.proxy import bound_session


@pytest.mark.parametrize("body", [b"", b"{}", b'{"Node": ""}', b'{"node": null}'])
def test_a_session_without_a_node_is_bound_to_the_host(body: bytes) -> None:
    """Nothing said, or nothing in it: this host."""
    assert json.loads(bound_session(body, "here")) == {"Node": "here"}


def test_other_fields_stay() -> None:
    """Only the node is filled in."""
    assert json.loads(bound_session(b'{"TTL":"10s"}', "here")) == {"TTL": "10s", "Node": "here"}


@pytest.mark.parametrize("body", [b'{"Node": "there"}', b'{"NODE":"there"}', b"[1]", b"{broken"])
def test_what_names_a_node_or_is_no_object_stays(body: bytes) -> None:
    """A node that the client chose is kept; what is wrong is left for a server to refuse."""
    assert bound_session(body, "here") == body
