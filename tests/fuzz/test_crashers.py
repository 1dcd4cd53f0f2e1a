"""What fuzzing found stays fixed, and the fuzzer's way in stays open."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.seeds import seeds

CRASHERS = sorted(
    path for path in Path(__file__).with_name("crashers").rglob("*") if path.is_file()
)
#: Well-formed parts of something whose whole is refused.
PARTS = {"snapshot_rows", "raft_frames", "raft_message", "catalog"}
SEEDS = [(name, data) for name, inputs in seeds().items() for data in inputs]


def test_finds_stay_fixed() -> None:
    """The bytes that once broke a decoder get a clear refusal, or are understood."""
    assert CRASHERS, "the finds are gone"
    for path in CRASHERS:
        targets.run(path.parent.name, path.read_bytes())


def test_every_target_has_a_way_in() -> None:
    """Each target has well-formed inputs, and takes them without a refusal."""
    assert seeds().keys() == targets.TARGETS.keys()
    for name, data in SEEDS:
        if name not in PARTS:
            targets.TARGETS[name](data)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 2048), st.binary(max_size=8), st.integers(0, 8)), max_size=4),
)
def test_damage_is_told_of(seed: tuple[str, bytes], edits: list[tuple[int, bytes, int]]) -> None:
    """A well-formed input that was cut, overwritten or lengthened is taken or refused, no more."""
    name, data = seed
    for at, put, drop in edits:
        start = at % (len(data) + 1)
        data = data[:start] + put + data[start + drop :]
    targets.run(name, data)
