"""Vivaldi: coordinates come to tell round trips, and no measurement can spoil them."""

from __future__ import annotations

import math
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from raftreg.core.vivaldi import (
    DIMENSIONS,
    ERROR_MAX,
    HEIGHT_MIN_S,
    PEERS_MAX,
    Position,
    is_valid,
    origin,
    round_trip_s,
)
from raftreg.model import Coordinate

finite = st.floats(-3600, 3600)
lengths = st.floats(0, 3600)
coordinates = st.builds(
    Coordinate,
    vec=st.lists(finite, min_size=DIMENSIONS, max_size=DIMENSIONS).map(tuple),
    error=lengths,
    adjustment=finite,
    height=lengths,
)
wild = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1.0])


def at(x: float, **fields: float) -> Coordinate:
    """A sure coordinate on the first axis."""
    given_ = {"error": 0.1, "adjustment": 0.0, "height": HEIGHT_MIN_S} | fields
    return Coordinate(vec=(x,) + (0.0,) * (DIMENSIONS - 1), **given_)


@given(st.integers(0, 2**32), st.integers(8, 12), st.floats(0.005, 0.3))
def test_a_euclidean_network_is_learned(seed: int, hosts: int, size_s: float) -> None:
    """Hosts somewhere on a plane, each with a link of its own, come to know all round trips."""
    rng = Random(seed)
    places = [(rng.uniform(0, size_s), rng.uniform(0, size_s)) for _ in range(hosts)]
    links_s = [rng.uniform(0, size_s / 20) for _ in range(hosts)]
    positions = [Position(rng) for _ in range(hosts)]

    def rtt_s(one: int, other: int) -> float:
        return math.dist(places[one], places[other]) + links_s[one] + links_s[other]

    for _ in range(100 * hosts):
        one, other = rng.sample(range(hosts), 2)
        other_place = positions[other].coordinate
        assert positions[one].measured(str(other), other_place, rtt_s(one, other))
    pairs = [(one, other) for one in range(hosts) for other in range(one)]
    errors_s = sorted(
        abs(
            round_trip_s(positions[one].coordinate, positions[other].coordinate) - rtt_s(one, other)
        )
        for one, other in pairs
    )
    assert errors_s[len(errors_s) // 2] < size_s / 5
    assert all(is_valid(position.coordinate) for position in positions)


@given(coordinates, st.floats(0, 10), st.integers(0, 9))
def test_no_measurement_spoils_a_coordinate(other: Coordinate, rtt_s: float, seed: int) -> None:
    """Whatever a peer says of itself, a host stays somewhere."""
    position = Position(Random(seed))
    for _ in range(5):
        assert position.measured("peer", other, rtt_s)
        assert is_valid(position.coordinate)
        assert 0 <= position.coordinate.error <= ERROR_MAX
        assert position.coordinate.height >= HEIGHT_MIN_S


@given(st.lists(wild, min_size=DIMENSIONS, max_size=DIMENSIONS), wild, wild, wild, wild)
def test_what_is_no_coordinate_and_no_duration_is_left(
    vec: list[float], error: float, adjustment: float, height: float, rtt_s: float
) -> None:
    """NaN, infinite, huge and negative values change nothing."""
    other = Coordinate(vec=tuple(vec), error=error, adjustment=adjustment, height=height)
    sound = all(abs(part) <= 3600 for part in (*vec, error, adjustment, height))
    assume(not (sound and error >= 0 and height >= 0 and 0 <= rtt_s <= 10))
    position = Position(Random(1), at(0.5))
    assert not position.measured("peer", other, rtt_s)
    assert position.coordinate == at(0.5)


def test_another_number_of_dimensions_is_none() -> None:
    """Coordinates of two kinds can't be compared."""
    for count in (0, 7, 9):
        other = Coordinate(vec=(0.0,) * count, error=1.0, adjustment=0.0, height=0.0)
        assert not is_valid(other)
        assert not Position(Random(1)).measured("p", other, 0.1)


@given(coordinates, coordinates)
def test_a_distance_is_the_same_in_both_directions(one: Coordinate, other: Coordinate) -> None:
    """And never negative, whatever was adjusted."""
    assert round_trip_s(one, other) == round_trip_s(other, one) >= 0


def test_the_parts_of_a_distance() -> None:
    """The way between the points, both heights, both adjustments (unless nothing is left)."""
    one, other = at(0.0, height=0.01, adjustment=0.002), at(0.3, height=0.02, adjustment=0.001)
    assert math.isclose(round_trip_s(one, other), 0.333)
    far_too_low = at(0.3, height=0.02, adjustment=-5.0)
    assert math.isclose(round_trip_s(one, far_too_low), 0.33)


def test_two_hosts_at_one_point_part() -> None:
    """In a direction that chance chooses; the same chance chooses the same."""
    moved = []
    for seed in (1, 1, 2):
        position = Position(Random(seed))
        position.measured("peer", origin(), 0.1)
        moved.append(position.coordinate)
    assert moved[0] == moved[1] != moved[2]
    assert math.hypot(*moved[0].vec) > 0.01


def test_one_blip_moves_nobody_far() -> None:
    """The median of the latest round trips to a host counts."""
    calm, blip = Position(Random(1), at(0.0)), Position(Random(1), at(0.0))
    for number, rtt_s in enumerate((0.1, 0.1, 5.0, 0.1)):
        calm.measured("peer", at(0.1), 0.1)
        blip.measured("peer", at(0.1), rtt_s if number == 2 else 0.1)
    assert calm.coordinate == blip.coordinate


def test_memory_of_peers_is_bounded() -> None:
    """A host that meets ever new ones forgets the oldest."""
    position = Position(Random(1))
    for number in range(PEERS_MAX + 50):
        position.measured(f"peer {number}", at(0.1), 0.1)
    assert len(position._samples) == PEERS_MAX
