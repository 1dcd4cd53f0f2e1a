"""`raftreg config` and `raftreg intention` against a running registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from tests.cli.conftest import Ran


class Raftreg(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str, stdin: bytes = ...) -> Ran:
        """Gives what it did."""
        ...


def _json(ran: Ran) -> Any:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_an_entry_is_written_read_listed_and_deleted(raftreg: Raftreg, tmp_path: Path) -> None:
    """From a file of TOML or from stdin; codes tell what went wrong."""
    file = tmp_path / "web.toml"
    file.write_text('kind = "service-defaults"\nname = "cli-web"\nprotocol = "http"\n')
    assert "Wrote service-defaults cli-web" in raftreg("config", "write", str(file)).out
    found = _json(raftreg("config", "read", "service-defaults", "cli-web"))
    assert found["Protocol"] == "http"
    splits = {"Kind": "service-splitter", "Name": "cli-web", "Splits": [{"Weight": 50}]}
    ran = raftreg("config", "write", "-", stdin=json.dumps(splits).encode())
    assert (ran.code, "must be 100, not 50" in ran.err) == (2, True)
    splits["Splits"] = [{"Weight": 100}]
    stdin = json.dumps(splits).encode()
    assert raftreg("config", "write", "-", "--cas", "0", stdin=stdin).code == 0
    assert raftreg("config", "write", "-", "--cas", "0", stdin=stdin).code == 5
    ran = raftreg("config", "delete", "service-defaults", "cli-web")
    assert (ran.code, "does not permit advanced routing" in ran.err) == (2, True)
    assert "cli-web" in raftreg("config", "list", "service-splitter").out
    for kind in ("service-splitter", "service-defaults"):
        assert raftreg("config", "delete", kind, "cli-web").code == 0
    assert raftreg("config", "read", "service-defaults", "cli-web").code == 4


def test_files_that_hold_no_entry(raftreg: Raftreg, tmp_path: Path) -> None:
    """The text names the file."""
    missing = raftreg("config", "write", str(tmp_path / "none.json"))
    assert (missing.code, "none.json" in missing.err) == (2, True)
    bad = tmp_path / "bad.json"
    for text in ("[]", "{"):
        bad.write_text(text)
        ran = raftreg("config", "write", str(bad))
        assert (ran.code, "bad.json" in ran.err) == (2, True)


def test_intentions_are_created_checked_listed_and_deleted(raftreg: Raftreg) -> None:
    """A forbidden call has the code of what is forbidden."""
    assert raftreg("intention", "create", "cli-a", "cli-b", "--deny").code == 0
    assert raftreg("intention", "check", "cli-a", "cli-b").code == 3
    assert raftreg("intention", "create", "cli-a", "cli-b").code == 5
    assert raftreg("intention", "create", "cli-a", "cli-b", "--allow", "--replace").code == 0
    assert raftreg("intention", "check", "cli-a", "cli-b").out == "Allowed\n"
    assert "cli-a" in raftreg("intention", "list").out
    rows = _json(raftreg("intention", "match", "cli-a", "--source", "-o", "json"))
    assert [row["DestinationName"] for row in rows] == ["cli-b"]
    assert _json(raftreg("intention", "match", "cli-a", "-o", "json")) == []
    assert raftreg("intention", "delete", "cli-a", "cli-b").code == 0
    assert raftreg("intention", "delete", "cli-a", "cli-b").code == 4
    assert raftreg("intention", "delete", "cli-a").code == 2
