"""The commands against a running registry: what they print, and what they exit with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.cli.conftest import Dev, Ran, command_line


class Raftreg(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str, stdin: bytes = ...) -> Ran:
        """Gives what it did."""
        ...


def _json(ran: Ran) -> Any:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_kv_value_comes_back_as_it_is(raftreg: Raftreg) -> None:
    """`kv get` writes the bytes and nothing else, so that a pipe keeps them."""
    value = "grüße\n\x1b[31m".encode()
    assert raftreg("kv", "put", "cli/raw", "-", stdin=value).code == 0
    assert raftreg("kv", "get", "cli/raw").out.encode() == value


def test_kv_json_has_a_stable_shape(raftreg: Raftreg) -> None:
    """Consul's names, the value in base64."""
    raftreg("kv", "put", "cli/shape", "hi", "--flags", "7")
    found = _json(raftreg("kv", "get", "cli/shape", "-o", "json"))
    assert set(found) == {
        *("Key", "Value", "Flags", "Session", "LockIndex", "CreateIndex", "ModifyIndex")
    }
    assert (found["Value"], found["Flags"]) == ("aGk=", 7)


def test_kv_missing_key_exits_with_4(raftreg: Raftreg) -> None:
    """Not found has its own code, in both forms of output."""
    assert raftreg("kv", "get", "cli/none").code == 4
    ran = raftreg("kv", "get", "cli/none", "--output", "json")
    assert ran.code == 4
    assert json.loads(ran.err)["error"] == "not_found"


def test_kv_cas_exits_with_5_and_changes_nothing(raftreg: Raftreg) -> None:
    """A lost race is a conflict: `cas KEY 0` creates only."""
    assert raftreg("kv", "cas", "cli/cas", "0", "first").code == 0
    assert raftreg("kv", "cas", "cli/cas", "0", "second").code == 5
    assert raftreg("kv", "get", "cli/cas").out == "first"


def test_kv_delete_tree(raftreg: Raftreg) -> None:
    """`--recurse` takes all that begin so; deleting nothing is no error."""
    for name in ("a", "b/c"):
        raftreg("kv", "put", f"cli/tree/{name}", "x")
    assert raftreg("kv", "delete", "cli/tree/", "--recurse").code == 0
    assert _json(raftreg("kv", "list", "cli/tree/", "-o", "json")) == []
    assert raftreg("kv", "delete", "cli/tree/a").code == 0


def test_kv_export_then_import_is_the_same(raftreg: Raftreg, tmp_path: Path) -> None:
    """What is exported can be imported elsewhere, flags and bytes included."""
    entries = [
        {"key": f"y/{n:03}", "flags": n, "value": "AP8="} for n in range(130)
    ]  # more than two transactions
    file = tmp_path / "in.json"
    file.write_text(json.dumps(entries))
    assert _json(raftreg("kv", "import", str(file), "--prefix", "cli/", "-o", "json")) == {
        "imported": 130
    }
    exported = json.loads(raftreg("kv", "export", "cli/y/").out)
    assert exported == [{**entry, "key": f"cli/{entry['key']}"} for entry in entries]


def test_kv_value_over_the_limit_is_refused_here(raftreg: Raftreg) -> None:
    """512 KiB is the most; the text says so, nothing is sent."""
    ran = raftreg("kv", "put", "cli/big", "-", stdin=b"x" * (512 * 1024 + 1))
    assert ran.code == 2
    assert "524288" in ran.err


def test_service_from_registration_to_lookup(raftreg: Raftreg) -> None:
    """Registered, found by name and tag, shown, gone; each as JSON of a stable shape."""
    options = ("--name", "shop", "--id", "shop-1", "--port", "99", "--tag", "a", "--meta", "k=v=w")
    made = _json(raftreg("services", "register", *options, "-o", "json"))
    assert made == [{"name": "shop", "id": "shop-1", "registered": True}]
    (found,) = _json(raftreg("lookup", "shop", "--tag", "a", "-o", "json"))
    assert set(found) == {"service", "id", "node", "address", "port", "tags", "meta", "status"}
    assert (found["port"], found["meta"], found["status"]) == (99, {"k": "v=w"}, "passing")
    listed = _json(raftreg("services", "list", "-o", "json"))
    assert {
        "name": "shop",
        "tags": ["a"],
        "instances": 1,
        "passing": 1,
        "warning": 0,
        "critical": 0,
    } in listed
    assert raftreg("lookup", "shop", "--tag", "b").code == 4
    assert raftreg("services", "deregister", "shop-1").code == 0
    assert raftreg("services", "show", "shop").code == 4


def test_service_from_a_file(raftreg: Raftreg, tmp_path: Path) -> None:
    """The form of definition files, with several services, is understood."""
    file = tmp_path / "services.json"
    file.write_text(json.dumps({"services": [{"name": "f1", "port": 1}, {"name": "f2"}]}))
    made = _json(raftreg("services", "register", str(file), "-o", "json"))
    assert [one["id"] for one in made] == ["f1", "f2"]


def test_session_life(raftreg: Raftreg) -> None:
    """Created, shown, renewed, ended; renewing a dead one exits with 4."""
    made = _json(raftreg("session", "create", "--ttl", "20s", "--name", "cli", "-o", "json"))
    (shown,) = _json(raftreg("session", "info", made["ID"], "-o", "json"))
    assert (shown["Name"], shown["TTL"]) == ("cli", "20s")
    assert raftreg("session", "renew", made["ID"]).code == 0
    assert raftreg("session", "destroy", made["ID"]).code == 0
    assert raftreg("session", "renew", made["ID"]).code == 4


def test_who_is_there(raftreg: Raftreg, dev: Dev) -> None:
    """Members, nodes, peers and health agree on the one node."""
    assert _json(raftreg("members", "-o", "json"))[0]["Name"] == "dev-1"
    assert _json(raftreg("nodes", "-o", "json"))[0]["Address"] == dev.address
    assert _json(raftreg("operator", "raft", "peers", "-o", "json"))[0]["leader"] is True
    assert _json(raftreg("operator", "autopilot", "health", "-o", "json"))["Healthy"] is True
    checks = _json(raftreg("health", "--node", "dev-1", "-o", "json"))
    assert "serfHealth" in {check["CheckID"] for check in checks}


def test_snapshot_there_and_back(raftreg: Raftreg, tmp_path: Path) -> None:
    """What is saved is verified, and restoring it brings the old value back."""
    file = tmp_path / "backup.snap"
    raftreg("kv", "put", "cli/snap", "old")
    saved = _json(raftreg("snapshot", "save", str(file), "-o", "json"))
    assert saved["bytes"] == file.stat().st_size
    raftreg("kv", "put", "cli/snap", "new")
    assert raftreg("snapshot", "restore", str(file)).code == 0
    assert raftreg("kv", "get", "cli/snap").out == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["backup.snap"]


def test_a_damaged_snapshot_is_not_sent(raftreg: Raftreg, tmp_path: Path) -> None:
    """Restoring verifies first; the registry stays as it was."""
    file = tmp_path / "bad.snap"
    file.write_bytes(b"this is no archive")
    raftreg("kv", "put", "cli/kept", "yes")
    ran = raftreg("snapshot", "restore", str(file))
    assert ran.code == 2
    assert "bad.snap" in ran.err
    assert raftreg("kv", "get", "cli/kept").out == "yes"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lookup",), "Missing argument"),
        (("kv", "delete", "a", "--recurse", "--cas", "1"), "exclude each other"),
        (("nodes", "--stale", "--consistent"), "exclude each other"),
        (("session", "create", "--ttl", "soon"), "no duration"),
        (("services", "register"), "--name"),
        (("services", "register", "--name", "a", "--meta", "x"), "KEY=VALUE"),
        (("run", "--", "true"), "--name"),
        (("no-such-command",), "No such command"),
    ],
)
def test_a_bad_command_line_says_what_to_write(
    raftreg: Raftreg, arguments: tuple[str, ...], said: str
) -> None:
    """Exit code 2, one hint, no traceback."""
    ran = raftreg(*arguments)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_nobody_there_exits_with_8(raftreg: Raftreg) -> None:
    """The error says where it looked and how to name another place."""
    ran = raftreg("nodes", "--http-addr", "127.0.0.1:1", "--timeout", "0.2")
    assert ran.code == 8
    assert "127.0.0.1:1" in ran.err
    assert "--http-addr" in ran.err


@pytest.mark.parametrize(
    ("command", "change"),
    [
        (("kv", "watch", "cli/watched"), ("kv", "put", "cli/watched", "new")),
        (("kv", "watch", "cli/watch/", "--recurse"), ("kv", "put", "cli/watch/a", "1")),
        (("services", "watch", "seen"), ("services", "register", "--name", "seen")),
    ],
)
async def test_watches_print_a_line_a_change_until_interrupted(
    raftreg: Raftreg, dev: Dev, command: tuple[str, ...], change: tuple[str, ...]
) -> None:
    """First what is, then each change, one JSON object a line; Ctrl-C is 130 and no traceback."""
    process = await asyncio.create_subprocess_exec(
        *command_line(*command, "--output", "json"),
        env=dev.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    before = json.loads(await process.stdout.readline())
    assert (await asyncio.to_thread(raftreg, *change)).code == 0
    after = json.loads(await process.stdout.readline())
    assert after["index"] > before["index"]
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_a_reader_that_goes_away_is_no_fault(dev: Dev) -> None:
    """`raftreg … | head` ends quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command_line("nodes"),
        env=dev.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"fault of raftreg" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(raftreg: Raftreg, shell: str) -> None:
    """Each shell gets a script that calls us back."""
    ran = raftreg("completion", shell)
    assert ran.code == 0, ran.err
    assert "_RAFTREG_COMPLETE" in ran.out


def test_rtt_estimates_a_round_trip(raftreg: Raftreg) -> None:
    """Of the agent's own node to itself next to nothing; an unknown node exits with 4."""
    ran = raftreg("rtt", "dev-1", "-o", "json")
    for _ in range(60):  # the first coordinate comes soon after the start
        if ran.code == 0:
            break
        ran = raftreg("rtt", "dev-1", "-o", "json")
    found = _json(ran)
    assert (found["node"], found["other"]) == ("dev-1", "dev-1")
    assert 0 <= found["rtt_ms"] < 10_000
    assert "(estimated)" in raftreg("rtt", "dev-1", "dev-1").out
    missing = raftreg("rtt", "nobody")
    assert missing.code == 4
    assert "nobody" in missing.err
