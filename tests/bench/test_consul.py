from __future__ import annotations

from pathlib import Path

import pytest

from bench import consul
from bench.failure import BenchFailure
from tests.bench.conftest import program


def test_binary_is_found_by_its_version(standin: Path) -> None:
    """The table names the version that was measured."""
    assert consul.find(standin).name == "Consul v1.8.0-standin"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('etcd 3.5')", "is no Consul"),
        ("raise SystemExit(3)", "exit status 3"),
        ("", "is no Consul"),
    ],
)
def test_other_programs_are_refused(tmp_path: Path, text: str, said: str) -> None:
    """A wrong path is told at once, not after the clusters have not started."""
    with pytest.raises(BenchFailure, match=said):
        consul.find(program(tmp_path / "other", text))


def test_missing_binaries_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no program, and none on the search path: each says which."""
    plain = tmp_path / "plain"
    plain.write_text("", encoding="utf-8")
    for path in (tmp_path / "none", plain, tmp_path):
        with pytest.raises(BenchFailure, match="is no program"):
            consul.find(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchFailure, match="no Consul is installed"):
        consul.find(None)
