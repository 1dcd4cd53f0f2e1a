"""Snapshot archives on disk: whole ones are measured, all others refused with a reason."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from raftreg.core.snapshot import snapshot
from raftreg.core.state import State
from raftreg.errors import RaftregError
from raftreg_cli import snapshot_file
from raftreg_cli.main import cli


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _members() -> dict[str, bytes]:
    meta = json.dumps({"ID": "x", "Index": 7}).encode()
    state = b"".join(snapshot(State()))
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n"
        for name, data in (("meta.json", meta), ("state.bin", state))
    )
    return {"meta.json": meta, "state.bin": state, "SHA256SUMS": sums.encode()}


def test_a_whole_archive_is_measured(tmp_path: Path) -> None:
    """`inspect` shows every table with rows and bytes, as JSON too."""
    file = tmp_path / "backup.snap"
    file.write_bytes(_archive(_members()))
    result = CliRunner().invoke(cli, ["snapshot", "inspect", str(file), "-o", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["meta"]["Index"] == 7
    assert found["tables"]["kv"] == {"rows": 0, "bytes": 0}


def test_the_order_of_members_does_not_matter(tmp_path: Path) -> None:
    """Digests may stand first, as other writers of the format have them."""
    file = tmp_path / "backup.snap"
    file.write_bytes(_archive(dict(reversed(_members().items()))))
    assert snapshot_file.verify(file)["Index"] == 7


@pytest.mark.parametrize("name", ["meta.json", "state.bin", "SHA256SUMS"])
def test_a_missing_member_is_named(tmp_path: Path, name: str) -> None:
    """The error says what is not there."""
    members = _members()
    del members[name]
    file = tmp_path / "backup.snap"
    file.write_bytes(_archive(members))
    with pytest.raises(RaftregError, match=name):
        snapshot_file.verify(file)


def test_a_changed_state_is_damage(tmp_path: Path) -> None:
    """One flipped bit is found by the digest."""
    members = _members()
    members["state.bin"] = bytes([members["state.bin"][0] ^ 1]) + members["state.bin"][1:]
    file = tmp_path / "backup.snap"
    file.write_bytes(_archive(members))
    with pytest.raises(RaftregError, match="damaged"):
        snapshot_file.verify(file)


@given(st.data())
def test_a_cut_or_altered_file_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is wrong with the bytes, there is a sentence and no traceback."""
    whole = _archive(_members())
    length = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(max_size=20))
    file = tmp_path_factory.mktemp("snap") / "backup.snap"
    file.write_bytes(whole[:length] + noise)
    try:
        found = snapshot_file.inspect(file)
    except (RaftregError, click.ClickException):
        return
    # Only padding behind the content was hit: what is read is what was written.
    assert found.state_bytes == len(_members()["state.bin"])
    assert found.meta == {"ID": "x", "Index": 7}


def test_every_cut_of_an_archive_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Also one inside the gzip header, where the standard library's own reader fails oddly."""
    whole = _archive(_members())
    file = tmp_path / "backup.snap"
    for flags in (b"", b"\x04", b"\xff"):
        for length in range(min(len(whole), 64)):
            file.write_bytes(whole[:length] + flags)
            with pytest.raises((RaftregError, click.ClickException)):
                snapshot_file.inspect(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The exit code is that of bad input, and the text names the file."""
    result = CliRunner().invoke(cli, ["snapshot", "inspect", str(tmp_path / "none.snap")])
    assert result.exit_code == 2
    assert "none.snap" in result.output
    assert "Traceback" not in result.output
