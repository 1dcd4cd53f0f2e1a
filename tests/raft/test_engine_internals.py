"""What of PySyncObj's inside `raftreg/raft/engine.py` relies on, and that it never unpickles.

When a test of the first half fails, PySyncObj is another one: read the changed method again beside
engine.py and the findings of ADR 0001, run tests/raft/test_audit.py and `make sim`, then take over
the new hash.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from importlib.metadata import version
from typing import Any

import pysyncobj.pickle  # type: ignore[import-untyped] # the stubs hold only what we use
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysyncobj import SyncObj, syncobj

from raftreg.raft import engine as engine_module
from raftreg.raft.engine import ENGINE_VERSION, Engine
from raftreg.raft.entries import KINDS
from raftreg.raft.faults import InvariantViolation, ProtocolViolation
from tests.raft.lab import EnvelopeLab
from tests.sim.schedule import run_seed

#: SHA-256 (first 16 digits) of the source of each method, as it was when engine.py was written.
PINNED = {
    "__init__": "9574376182ecf48e",
    "_applyCommand": "da857f245aee3689",
    "_checkCommandsToApply": "c9616a64b02e5fb8",
    "_onTick": "2e65235a1ec7f1a2",
    "applyLogEntries": "14434505a8a0cf21",
    "callErrCallback": "90dcb623d00077d4",
    "connectedToAnyone": "853f9ce48af9b27b",
    "deleteEntriesFrom": "fdf210e056c7203d",
    "doApplyCommand": "4f18a252429c3a42",
    "doTick": "87eb8061cb0de7f4",
    "generateRaftTimeout": "22fb7a02b0110ad0",
    "getCurrentLogIndex": "3c04fa078bba4878",
    "getCurrentLogTerm": "daa87aeaa96c7703",
    "getEntries": "1f23c5808a406790",
    "getPrevLogIndexTerm": "040d554ae129ca23",
    "loadDumpFile": "e0716a416435b41f",
    "onBecomeLeader": "e00cd0ed1cb9235e",
    "onLeaderChanged": "9210cfbca691062f",
    "onMessageReceived": "613637a32c678616",
    "parseChangeClusterRequest": "7808d7e445a9eaa0",
    "sendAppendEntries": "e6bd52cf81d1bc53",
    "sendNextNodeIdx": "beb44822b1300718",
    "setCurrentTerm": "e5e3b6951f13b05b",
    "setState": "4a372f452a4a0ef0",
    "transferLeadership": "ec56e3fd56d8002d",
    "tryLogCompaction": "3e39b3645bf4621c",
}
#: Replaced by a method of the same private name in `Engine`: what calls them matters, not they.
REPLACED = {
    "applyLogEntries",
    "loadDumpFile",
    "parseChangeClusterRequest",
    "sendNextNodeIdx",
    "tryLogCompaction",
}


def source_hash(name: str) -> str:
    """Hash of a method's source, blank space at line ends aside."""
    method = getattr(SyncObj, f"_SyncObj__{name}", None) or getattr(SyncObj, name)
    lines = [line.rstrip() for line in inspect.getsource(method).splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_the_version_is_the_one_that_was_read() -> None:
    """Another version is a decision: pyproject.toml, ENGINE_VERSION and the hashes go together."""
    assert version("pysyncobj") == ENGINE_VERSION


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_method_that_we_rely_on_is_unchanged(name: str) -> None:
    """The engine runs between these lines; a change to them can break a rule of the envelope."""
    assert source_hash(name) == PINNED[name], (
        f"SyncObj.{name} has changed: read it again beside raftreg/raft/engine.py and ADR 0001"
    )


def test_every_private_name_in_the_engine_exists() -> None:
    """A misspelt private attribute would be set, and never be read by PySyncObj."""
    ours = set(re.findall(r"self\._SyncObj__(\w+)", inspect.getsource(engine_module)))
    theirs = set(re.findall(r"self\.__(\w+)|def __(\w+)", inspect.getsource(SyncObj)))
    known = {name for pair in theirs for name in pair if name}
    assert ours - known == set()


def test_every_message_and_state_of_the_engine_is_known() -> None:
    """A message type that the envelope does not know could not be checked by it."""
    source = inspect.getsource(syncobj)
    sent = set(re.findall(r"'type': '(\w+)'", source))
    assert sent == {
        "append_entries",
        "next_node_idx",
        "request_vote",
        "response_vote",
        "apply_command",
        "apply_command_response",
        "timeout_now",
    }
    kinds = {name: n for name, n in vars(vars(syncobj)["_COMMAND_TYPE"]).items() if name.isupper()}
    assert kinds == {"REGULAR": 0, "NO_OP": 1, "MEMBERSHIP": 2, "VERSION": 3}
    assert frozenset(kinds.values()) - {3} == KINDS
    states = {name: n for name, n in vars(vars(syncobj)["_RAFT_STATE"]).items() if name.isupper()}
    assert states == {"FOLLOWER": 0, "CANDIDATE": 1, "LEADER": 2}


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_a_replaced_method_is_ours(name: str) -> None:
    """Name mangling makes the override work: SyncObj's own calls reach `Engine`'s method."""
    assert f"_SyncObj__{name}" in vars(Engine)
    assert f"_SyncObj__{name}" in vars(SyncObj)


# --- nothing is ever unpickled

#: A pickle that would import and call something.
BOMB = b"cbuiltins\nexec\n(S'raise SystemExit(99)'\ntR."


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every door to pickle in PySyncObj raises; the list tells which was used."""
    used: list[str] = []

    def refuse(name: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            used.append(name)
            raise AssertionError(f"pickle.{name} was called")

        return call

    for name in ("loads", "dumps", "load", "dump", "to_bytes"):
        if hasattr(pysyncobj.pickle, name) and name != "to_bytes":
            monkeypatch.setattr(pysyncobj.pickle, name, refuse(name))
    return used


def test_a_whole_cluster_runs_without_pickle(no_pickle: list[str]) -> None:
    """Elections, writes, snapshots, membership changes, restarts: nothing is pickled."""
    outcomes = [run_seed(seed, 6.0) for seed in range(1000, 1006)]
    assert sum(outcome.snapshots for outcome in outcomes) > 0
    assert sum(outcome.wiped for outcome in outcomes) > 0
    assert no_pickle == []


def started() -> EnvelopeLab:
    """Three servers; A leads, all have heard it."""
    lab = EnvelopeLab("ABC")
    lab.elect("A", "BC")
    lab.flow("ABC")
    return lab


def append_of(lab: EnvelopeLab, **fields: Any) -> dict[str, Any]:
    """An append that A could send to B, with other fields."""
    index, term = lab.last("B")
    base = {"type": "append_entries", "term": lab.term("A"), "commit_index": index + 1}
    return {**base, "prevLogIdx": index, "prevLogTerm": term, "entries": [], **fields}


@pytest.mark.parametrize("kind", [3, 4, 200])
def test_an_entry_of_an_unknown_kind_is_refused(kind: int, no_pickle: list[str]) -> None:
    """VERSION entries, which PySyncObj unpickles, never get into the log."""
    lab = started()
    before = lab.last("B")
    entry = [bytes([kind]) + BOMB, before[0] + 1, lab.term("A")]
    with pytest.raises(ProtocolViolation, match="bad entry"):
        lab.nodes["B"].receive("A", append_of(lab, entries=[entry]))
    lab.flow("ABC")
    assert (lab.last("B"), no_pickle) == (before, [])


@pytest.mark.parametrize("kind", [0, 2])
def test_a_pickle_inside_an_entry_is_only_bytes(kind: int, no_pickle: list[str]) -> None:
    """A batch or configuration that is none is passed over, or refused; it is not unpickled."""
    lab = started()
    entry = [bytes([kind]) + BOMB, lab.last("B")[0] + 1, lab.term("A")]
    try:
        lab.nodes["B"].receive("A", append_of(lab, entries=[entry]))
        lab.tick("B", "B")
    except ProtocolViolation:
        assert kind == 2
    assert no_pickle == []


@pytest.mark.parametrize("part", ["start", "process", "finish"])
def test_an_entry_in_pieces_is_refused(part: str, no_pickle: list[str]) -> None:
    """PySyncObj would join the pieces without limit and unpickle them."""
    lab = started()
    message = append_of(lab, transmission=part, data=BOMB)
    with pytest.raises(ProtocolViolation, match="in pieces"):
        lab.nodes["B"].receive("A", message)
    assert no_pickle == []


@pytest.mark.parametrize("command", [b"\x03" + BOMB, b"\x02" + BOMB, b"\x01", b"", BOMB])
def test_a_forwarded_command_must_be_a_batch(command: bytes, no_pickle: list[str]) -> None:
    """Followers forward batches only: no version, no membership, no no-op."""
    lab = started()
    before = lab.last("A")
    lab.nodes["A"].receive("B", {"type": "apply_command", "command": command})
    lab.flow("ABC")
    assert (lab.last("A"), no_pickle) == (before, [])


def test_answers_and_utility_messages_have_no_way_in(no_pickle: list[str]) -> None:
    """What the envelope does not know is dropped."""
    lab = started()
    for kind in ("apply_command_response", "status", "add", "remove", "set_version"):
        lab.nodes["A"].receive("B", {"type": kind, "data": BOMB, "request_id": 1, "error": 1})
    assert no_pickle == []


# --- what a broken peer may send

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=8)
    | st.text(max_size=4) | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)  # fmt: skip
_ENTRY: list[Any] = [b"\x01", 3, 1]
#: Messages as a correct server sends them, in the term that A leads.
_CORRECT: tuple[dict[str, Any], ...] = (
    {"type": "append_entries", "term": 1, "commit_index": 2, "prevLogIdx": 2, "prevLogTerm": 1,
     "entries": [_ENTRY]},
    {"type": "append_entries", "term": 1, "commit_index": 2, "serialized": None},
    {"type": "append_entries", "term": 2, "commit_index": 2,
     "serialized": [b"piece", True, False, f"snapshot-{5:020d}-{1:020d}.snap"]},
    {"type": "next_node_idx", "term": 1, "next_node_idx": 3, "reset": False, "success": True},
    {"type": "request_vote", "term": 2, "last_log_index": 2, "last_log_term": 1},
    {"type": "response_vote", "term": 1},
    {"type": "apply_command", "command": b"\x00\x92\x01\x90"},
    {"type": "timeout_now", "term": 1},
    {"type": "stale_term", "term": 2},
    {"type": "pre_vote", "term": 2, "round": 1, "last_log_index": 2, "last_log_term": 1},
    {"type": "pre_vote_reply", "term": 1, "round": 1, "granted": True},
    {"type": "read_ping", "term": 1, "sequence": 1},
    {"type": "read_echo", "term": 1, "sequence": 1},
    {"type": "read_request", "id": 1},
    {"type": "read_reply", "id": 1, "index": 2},
)  # fmt: skip


@st.composite
def broken_messages(draw: st.DrawFn) -> dict[str, Any]:
    """A correct message with some fields replaced or gone."""
    message = dict(draw(st.sampled_from(_CORRECT)))
    for field in draw(st.sets(st.sampled_from(sorted(set(message) - {"type"})), max_size=2)):
        if draw(st.booleans()):
            message[field] = draw(_PLAIN)
        else:
            del message[field]
    return message


@settings(max_examples=400)
@given(message=broken_messages(), target=st.sampled_from("AB"), sender=st.sampled_from("ACX"))
def test_no_message_ends_a_server(message: dict[str, Any], target: str, sender: str) -> None:
    """Whatever a peer sends is taken, dropped or refused as a violation of the protocol."""
    lab = started()
    claims_to_lead = target == "A" and message["type"] == "append_entries"
    try:
        lab.nodes[target].receive(sender, message)
    except ProtocolViolation:
        pass
    except InvariantViolation:
        # A peer that claims to lead the term of this leader: the one thing that must end a server.
        if not claims_to_lead:
            raise
    lab.tick(target, target)
    assert lab.failed == []
