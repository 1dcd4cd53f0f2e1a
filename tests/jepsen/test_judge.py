from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like import history
from jepsen_like.checkers.linear import check
from jepsen_like.history import Event, Type
from jepsen_like.judge import judge, main
from jepsen_like.judge.judging import load
from jepsen_like.judge.parts import Unreadable

HISTORIES = Path(__file__).parent / "histories"
VERDICTS = json.loads((HISTORIES / "verdicts.json").read_text())["histories"]


def refuse(path: str, reason: str) -> None:
    """No file should be refused."""
    raise AssertionError(f"{path}: {reason}")


def test_every_recorded_verdict_is_met() -> None:
    """All recorded histories of other systems are read and decided as they are known to be."""
    paths = [str(HISTORIES / one["file"]) for one in VERDICTS]
    assert len(paths) == 77
    found = [(judged.file, judged.linearizable) for judged in judge(paths, refuse)]
    assert found == [(str(HISTORIES / one["file"]), one["linearizable"]) for one in VERDICTS]


def test_the_recorded_histories_are_as_they_came() -> None:
    """The files have the checksums that came with them."""
    for one in VERDICTS:
        data = (HISTORIES / one["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == one["sha256"]


def test_no_recorded_history_needs_much_search() -> None:
    """Each takes but a few steps an operation: time to spare on any machine."""
    for one in VERDICTS:
        recorded = load(HISTORIES / one["file"])
        found = check(recorded.parts, recorded.model.initial, steps_max=10_000)
        assert found.steps <= 200 + 5 * one["ops"]


def test_a_line_a_file_and_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file gives a line of JSON; files that can't be judged a line on stderr, and exit 1."""
    good = str(HISTORIES / "inline/register-1.json")
    assert main([good, good]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines] == [{"file", "linearizable", "cpu_s"}] * 2
    assert lines[0]["file"] == good
    assert lines[0]["linearizable"] is True
    assert lines[0]["cpu_s"] >= 0
    broken = tmp_path / "broken"
    broken.write_bytes(b"what is this\n")
    assert main([str(broken), str(tmp_path), str(tmp_path / "none"), good]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == [good]
    assert err.splitlines() == [
        f"judge: {broken}: of no known format",
        f"judge: {tmp_path}: not a file",
        f"judge: {tmp_path / 'none'}: no such file",
    ]


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    """Formats are known by content."""
    for one in VERDICTS[:3] + VERDICTS[-10:]:
        other = tmp_path / "history.jsonl"
        other.write_bytes((HISTORIES / one["file"]).read_bytes())
        (judged,) = judge([str(other)], refuse)
        assert judged.linearizable is one["linearizable"]


LOG = "INFO  jepsen.util - "
BROKEN = {
    "empty": b"",
    "blank": b" \n \n",
    "log: no such operation": f"{LOG}1 :invoke :frob 1\n".encode(),
    "log: cut off": f"{LOG}1 :invoke :write 1\n{LOG}1 :ok\n".encode(),
    "log: no value": f"{LOG}1 :invoke :write x\n".encode(),
    "log: half a cas": f"{LOG}1 :invoke :cas [1]\n".encode(),
    "log: end of nothing": f"{LOG}1 :ok :write 1\n".encode(),
    "log: busy": f"{LOG}1 :invoke :write 1\n{LOG}1 :invoke :write 2\n".encode(),
    "log: another end": f"{LOG}1 :invoke :write 1\n{LOG}1 :ok :read 2\n".encode(),
    "log: not text": f"{LOG}1 :invoke :write 1\n".encode() + b"\xff\xfe\n",
    "texts: cut off": b'{:process 0, :type :invoke, :f :get, :key "0", :va',
    "texts: no operation": b'{:process 0, :type :invoke, :f :pop, :key "0", :value nil}\n',
    "texts: nothing appended": b'{:process 0, :type :invoke, :f :append, :key "0", :value nil}\n',
    "texts: end of nothing": b'{:process 0, :type :ok, :f :get, :key "0", :value ""}\n',
    "texts: bad escape": b'{:process 0, :type :invoke, :f :put, :key "\\q", :value ""}\n',
    "json: cut off": b'{"model": "register(init 0)", "ops": [[0, "put"',
    "json: other": b'{"a": 1}\n',
    "json: no model": b'{"model": "queue", "ops": []}',
    "json: no operation": b'{"model": "set", "ops": [[0, "put", 1, null, 0, 1]]}',
    "json: no number": b'{"model": "register", "ops": [[0, "put", "x", null, 0, 1]]}',
    "json: no answer": b'{"model": "register", "ops": [[0, "get", null, null, 0, 1]]}',
    "json: no list": b'{"model": "set", "ops": [[0, "read", null, 5, 0, 1]]}',
    "json: back in time": b'{"model": "register", "ops": [[0, "put", 1, null, 3, 1]]}',
    "json: deep": b'{"ops": ' + b"[" * 100_000,
    "json: not text": b'{"model": "\xff", "ops": []}',
    "ours: not text": b'{"index":0,"time_ns":0,"process":0,"type":"invoke","f":"read"}\n'
    b'{"index":1,"time_ns":0,"process":0,"type":"ok","f":"\xff"}\n',
    "ours: gap": b'{"index":0,"time_ns":0,"process":0,"type":"invoke","f":"read","key":"k"}\n'
    b'{"index":2,"time_ns":0,"process":0,"type":"ok","f":"read","key":"k"}\n',
    "ours: no register": b'{"index":0,"time_ns":0,"process":0,"type":"invoke","f":"txn"}\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error(name: str, tmp_path: Path) -> None:
    """What is broken is refused with a reason, never judged and never a crash."""
    path = tmp_path / "file"
    path.write_bytes(BROKEN[name])
    refused: list[tuple[str, str]] = []
    assert not list(judge([str(path)], lambda *reason: refused.append(reason)))
    ((file, reason),) = refused
    assert file == str(path)
    assert reason
    assert "\n" not in reason


@settings(max_examples=100)
@given(data=st.data())
def test_no_bytes_crash_the_readers(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is done to the bytes of a history, it is read or refused."""
    one = data.draw(st.sampled_from(["kv/c01-ok.txt", "jepsen/etcd_002.log", "inline/set-2.json"]))
    content = bytearray((HISTORIES / one).read_bytes()[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        content = content or bytearray(b"x")
    path = tmp_path_factory.mktemp("mutated") / "file"
    path.write_bytes(content)
    with suppress(Unreadable):
        load(path)


def written(path: Path, *events: tuple[int, Type, str, object]) -> str:
    """A history of our own."""
    lines = [
        history.encode(Event(at, at, process, kind, f, "k", value))
        for at, (process, kind, f, value) in enumerate(events)
    ]
    path.write_bytes(b"".join(lines))
    return str(path)


@pytest.mark.parametrize(("seen", "linearizable"), [(1, True), (None, False)])
def test_our_own_registers(tmp_path: Path, seen: int | None, linearizable: bool) -> None:
    """A history of ours is decided as a register; a stale read does not count."""
    path = written(
        tmp_path / "history",
        (-1, Type.INFO, "partition", None),
        (0, Type.INVOKE, "read", "stale"),
        (0, Type.OK, "read", None),
        (0, Type.INVOKE, "write", 1),
        (0, Type.OK, "write", 1),
        (0, Type.INVOKE, "read", "default"),
        (0, Type.OK, "read", seen),
    )
    (judged,) = judge([path], refuse)
    assert judged.linearizable is linearizable


@pytest.mark.parametrize(
    ("seen", "linearizable"), [([1], True), ([1, 2], True), ([], False), ([1, 1], False)]
)
def test_our_own_sets(tmp_path: Path, seen: list[int], linearizable: bool) -> None:
    """A history of sets is decided as a set; an element of unknown fate may be there or not."""
    path = written(
        tmp_path / "history",
        (0, Type.INVOKE, "add", 1),
        (1, Type.INVOKE, "add", 2),
        (0, Type.OK, "add", 1),
        (2, Type.INVOKE, "read", None),
        (1, Type.INFO, "add", 2),
        (2, Type.OK, "read", seen),
    )
    (judged,) = judge([path], refuse)
    assert judged.linearizable is linearizable


def test_an_undecided_history_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the budget does not suffice, the line says null, and the exit code is 1."""
    rows = [f'[{n}, "add", {n}, null, 0, 100]' for n in range(9)]
    path = tmp_path / "hard.json"
    path.write_text(
        '{"model": "set", "ops": [' + ", ".join(rows) + ', [9, "read", null, [3, 5], 0, 99]]}'
    )
    assert main([str(path)], steps_max=1) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["linearizable"] is None
    assert "undecided" in err
    assert main([str(path)]) == 0
