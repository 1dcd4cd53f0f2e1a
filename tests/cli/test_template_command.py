"""`raftreg template` as a process: files that follow the registry."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from raftreg.client.api import RegistryClient
from raftreg_cli.main import cli
from raftreg_cli.template import files
from tests.cli.conftest import Dev, Ran, command_line
from tests.cli.relay import Relay
from tests.e2e.waiting import until

_STOP_S_MAX = 20.0
#: Appends a line; fails while the file given second exists.
_NOTE = (
    "import os, sys; open(sys.argv[1], 'a').write('ran\\n');"
    "sys.exit(1 if os.path.exists(sys.argv[2]) else 0)"
)


@pytest.fixture
async def client(dev: Dev) -> AsyncIterator[RegistryClient]:
    """A client of the registry."""
    async with RegistryClient([dev.http]) as client:
        yield client


class Running:
    """A `raftreg template` that runs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    def reload(self) -> None:
        """Sends SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    async def says(self, text: str) -> None:
        """Waits for a text in its log."""

        async def said() -> bool:
            return text in self._log.read_text()

        await until(f"{text!r} in the log", said)


@asynccontextmanager
async def running(address: str, directory: Path, *arguments: str) -> AsyncIterator[Running]:
    """Runs while the block does; it must end in order on SIGTERM."""
    log = directory / "log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command_line("template", "--http-addr", address, "--wait", "10ms", *arguments),
            cwd=directory,
            stderr=out,
        )
    try:
        yield Running(process, log)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_S_MAX):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def holds(file: Path, text: str) -> None:
    """Waits until a file has exactly this text."""
    await until(f"{file.name} holds {text!r}", lambda: _true(_text(file) == text))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _hidden(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".")]


def lines(file: Path) -> int:
    """How often a command ran."""
    return len(file.read_text().splitlines()) if file.exists() else 0


async def test_a_file_is_replaced_whole_and_only_when_it_differs(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """Its mode and a link to it stay; a change that does not show leaves it alone, runs nothing."""
    real, link, ran = tmp_path / "real.conf", tmp_path / "link.conf", tmp_path / "ran"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    (tmp_path / "t.j2").write_text("{{ kv('tmpl/a', '-') }} {{ kv('tmpl/b', '-') | length }}\n")
    first = real.stat().st_ino
    command = f'{sys.executable} -c "{_NOTE}" {ran} /nonexistent'
    async with running(dev.http, tmp_path, "--template", f"t.j2:link.conf:{command}"):
        await holds(real, "- 1\n")
        await client.kv.put("tmpl/a", b"1")
        await holds(real, "1 1\n")
        await until("the command ran twice", lambda: _true(lines(ran) == 2))
        before = real.stat()
        await client.kv.put("tmpl/b", b"x")  # of the same length: nothing to write
        await client.kv.put("tmpl/a", b"2")
        await holds(real, "2 1\n")
        await until("the command ran again", lambda: _true(lines(ran) == 3))
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.stat().st_ino not in {first, before.st_ino}
    assert _hidden(tmp_path) == [], "nothing is left over"


async def _true(condition: bool) -> bool:
    return condition


async def test_a_refused_text_never_gets_into_the_file(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """When the check says no, or the template fails, the old text stays; a later good one comes."""
    out = tmp_path / "out"
    (tmp_path / "t.j2").write_text("{{ kv('checked') | int }}\n")
    check = "grep -qv 13 {}"
    await client.kv.put("checked", b"1")
    async with running(dev.http, tmp_path, "--template", "t.j2:out", "--check", check) as process:
        await holds(out, "1\n")
        await client.kv.put("checked", b"13")
        await process.says("its check ended with 1")
        assert out.read_text() == "1\n"
        await client.kv.delete("checked")
        await process.says("t.j2:1: there is no key 'checked'")
        assert out.read_text() == "1\n"
        await client.kv.put("checked", b"2")
        await holds(out, "2\n")


async def test_a_command_that_fails_is_repeated(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """Until it has succeeded once; one command for two files runs once for both."""
    ran, broken = tmp_path / "ran", tmp_path / "broken"
    broken.touch()
    for name in ("a", "b"):
        (tmp_path / f"{name}.j2").write_text(f"{name} {{{{ kv('repeated', '0') }}}}\n")
    (tmp_path / "template.toml").write_text(
        "".join(
            f"[[template]]\nsource = '{name}.j2'\ndestination = '{name}'\n"
            f"command = {[sys.executable, '-c', _NOTE, str(ran), str(broken)]!r}\n"
            for name in ("a", "b")
        )
    )
    async with running(dev.http, tmp_path, "--config", "template.toml") as process:
        await process.says("command_failed")
        await until("it is tried again", lambda: _true(lines(ran) >= 2))
        broken.unlink()
        await process.says("command_ran")
        done = lines(ran)
        await client.kv.put("repeated", b"1")
        await holds(tmp_path / "b", "b 1\n")
        await until("run once for both files", lambda: _true(lines(ran) == done + 1))


async def test_a_reload_outlives_its_process(dev: Dev, tmp_path: Path) -> None:
    """Killed between the file's change and the end of the command, the next process runs it."""
    out, ran, hold = tmp_path / "out", tmp_path / "ran", tmp_path / "hold"
    (tmp_path / "t.j2").write_text("text\n")
    hold.touch()
    # While the file `hold` is there it notes that it ran, and waits to be killed.
    note = (
        "import os, signal, sys; open(sys.argv[1], 'a').write('ran\\n');"
        "os.path.exists(sys.argv[2]) and signal.pause()"
    )
    command = f'{sys.executable} -c "{note}" {ran} {hold}'
    first = await asyncio.create_subprocess_exec(
        *command_line("template", "--http-addr", dev.http, "--template", f"t.j2:out:{command}"),
        cwd=tmp_path,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until("the command runs", lambda: _true(lines(ran) == 1))
    finally:
        first.kill()
        await first.wait()
    assert _text(out) == "text\n"
    hold.unlink()
    async with running(dev.http, tmp_path, "--template", f"t.j2:out:{command}") as second:
        await second.says("command_ran")
        assert lines(ran) == 2
    third = await asyncio.create_subprocess_exec(
        *command_line("template", "--http-addr", dev.http, "--template", f"t.j2:out:{command}"),
        "--once",
        cwd=tmp_path,
    )
    assert await third.wait() == 0
    assert lines(ran) == 2, "and once it has run, it has"
    assert _hidden(tmp_path) == []


def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    """The new text belongs to whom the old one did, with the same mode; a new file gets its own."""
    file = tmp_path / "file"
    file.write_bytes(b"old")
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    file.chmod(0o604)
    files.commit(files.stage(file, b"new", 0o600), file)
    found = file.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*owner, 0o604)
    assert file.read_bytes() == b"new"
    fresh = tmp_path / "fresh"
    files.commit(files.stage(fresh, b"new", 0o640), fresh)
    assert fresh.stat().st_mode & 0o777 == 0o640
    with pytest.raises(FileNotFoundError):
        files.stage(tmp_path / "missing" / "file", b"new", 0o640)


async def test_sighup_reads_everything_again(dev: Dev, tmp_path: Path) -> None:
    """A new template takes effect; one that is broken is told, and the old one stays in force."""
    source = tmp_path / "t.j2"
    source.write_text("first\n")
    (tmp_path / "template.toml").write_text("[[template]]\nsource='t.j2'\ndestination='out'\n")
    async with running(dev.http, tmp_path, "--config", "template.toml") as process:
        await holds(tmp_path / "out", "first\n")
        source.write_text("{% if %}")
        process.reload()
        await process.says("not_reloaded")
        source.write_text("second\n")
        process.reload()
        await holds(tmp_path / "out", "second\n")


async def test_without_a_registry_files_stay_as_they_are(
    dev: Dev, client: RegistryClient, tmp_path: Path
) -> None:
    """Started while nobody is there, or cut off later: the text stays; then it follows again."""
    out = tmp_path / "out"
    out.write_text("kept")
    (tmp_path / "t.j2").write_text("{{ kv('away') }}\n")
    await client.kv.put("away", b"1")
    async with Relay(dev.address, 8500) as relay:
        relay.cut()
        async with running(relay.address, tmp_path, "--template", "t.j2:out"):
            await until("it asks in vain", lambda: _true(relay.refused > 0))
            assert out.read_text() == "kept"
            relay.mend()
            await holds(out, "1\n")
            relay.cut()
            await client.kv.put("away", b"2")
            refused = relay.refused
            await until("it asks in vain", lambda: _true(relay.refused > refused))
            assert out.read_text() == "1\n"
            relay.mend()
            await holds(out, "2\n")


def test_once_and_dry(raftreg: Callable[..., Ran], tmp_path: Path) -> None:
    """--once writes and ends, with the failure's exit code; --dry prints and touches nothing."""
    source, out = tmp_path / "t.j2", tmp_path / "out"
    source.write_text("{{ nodes()[0].name }}\n")
    ran = raftreg("template", "--once", "--dry", "--template", f"{source}:{out}:false")
    assert (ran.code, ran.out, out.exists()) == (0, "dev-1\n", False)
    ran = raftreg("template", "--once", "--template", f"{source}:{out}")
    assert (ran.code, out.read_text()) == (0, "dev-1\n")
    out.unlink()
    ran = raftreg("template", "--once", "--template", f"{source}:{out}:/no/such/program")
    assert ran.code == 1
    assert "/no/such/program: command not found" in ran.err
    source.write_text("\n{{ kv('no/such/key') }}")
    ran = raftreg("template", "--once", "--template", f"{source}:{out}")
    assert ran.code == 2
    assert f"{source}:2: there is no key" in ran.err
    ran = raftreg("template", "--once", "--template", f"{source}:{tmp_path}/missing/out")
    assert ran.code == 2
    ran = raftreg(
        *("template", "--once", "--timeout", "1", "--http-addr", "127.0.0.1:1"),
        *("--template", f"{source}:{out}"),
    )
    assert ran.code == 8


def test_a_missing_jinja_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the command says what to install."""
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jinja2" else there(name)
    )
    found = CliRunner().invoke(cli, ["template", "--template", "a:b"])
    assert found.exit_code == 2
    assert "pip install 'raftreg[template]'" in found.output
