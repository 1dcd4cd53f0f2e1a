"""Which servers a view follows, frame by frame, with the time in hand."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from raftreg.client.api import RegistryClient
from raftreg.clock import ManualClock
from raftreg.core.delta import CatalogDelta, encode_deltas
from raftreg.errors import ConnectionLost
from raftreg.model import Node
from raftreg_agent.view import BEHIND_MAX_S, CatalogView, Frame


@pytest.fixture
def clock() -> ManualClock:
    """Time that stands still."""
    return ManualClock()


@pytest.fixture
def view(clock: ManualClock) -> CatalogView:
    """A view that knows one host, at index 5 of history e1."""
    view = CatalogView(RegistryClient(["127.0.0.1:1"]), clock, Random(1))
    row = Node(name="far", address="10.1.1.1", datacenter="dc1")
    rows = encode_deltas([CatalogDelta(kind="node", node="far", row=row, index=5)])
    view._take(Frame(kind="reset", index=5, epoch="e1"), "first")
    view._take(Frame(kind="deltas", index=5, deltas=msgspec.Raw(rows)), "first")
    view._take(Frame(kind="beat", index=5, last_contact_ms=0), "first")
    assert set(view.catalog.nodes) == {"far"}
    return view


def test_wish_11_two_outages_are_not_one_long_one(view: CatalogView, clock: ManualClock) -> None:
    """A server behind was refused, a good one resumed the view: the next outage starts anew."""
    behind = Frame(kind="reset", index=1, epoch="e1")
    with pytest.raises(ConnectionLost):
        view._take(behind, "behind")
    view._take(Frame(kind="resume", index=5, epoch="e1"), "good")
    clock.advance(10 * BEHIND_MAX_S)
    with pytest.raises(ConnectionLost):
        view._take(behind, "behind")


def test_wish_11_a_server_without_a_history_is_never_followed(
    view: CatalogView, clock: ManualClock
) -> None:
    """A server that still reads its log has nothing to say, however long that takes."""
    empty = Frame(kind="reset", index=1, epoch="")
    for _ in range(3):
        with pytest.raises(ConnectionLost):
            view._take(empty, "restoring")
        clock.advance(10 * BEHIND_MAX_S)
    assert set(view.catalog.nodes) == {"far"}
