from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from structlog.testing import capture_logs

from raftreg.errors import ConfigurationError
from raftreg.http.decode import CheckDefinition, CheckKind, ServiceDefinition
from raftreg.model import ServiceInstance, Status
from raftreg_agent.definitions import load
from raftreg_agent.state import KnownStatus
from raftreg_agent.store import Shelf, Store

CHECK = CheckDefinition(
    check_id="c",
    name="c",
    kind=CheckKind.HTTP,
    url="http://x/",
    interval_s=10.0,
    headers={"A": ("b", "c")},
    status=Status.PASSING,
)
SERVICE = ServiceDefinition(
    ServiceInstance(node="n", id="a/b \u00e9" * 80, name="web", tags=("x",), port=80), (CHECK,)
)


async def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Services, checks and statuses survive, whatever their ids hold."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.SERVICES, SERVICE.service.id, SERVICE)
    store.put(Shelf.CHECKS, "c", CHECK)
    store.put(Shelf.STATUSES, "c", KnownStatus("c", Status.WARNING, "hm"))
    store.put(Shelf.STATUSES, "gone", KnownStatus("gone", Status.WARNING))
    await store.flush()
    store.remove(Shelf.STATUSES, "gone")
    await store.close()
    again = Store(tmp_path)
    found = again.open()
    assert found.services == (SERVICE,)
    assert found.checks == (CHECK,)
    assert found.statuses == (KnownStatus("c", Status.WARNING, "hm"),)
    await again.close()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe\x00", b'{"service": 3}', b"null"])
async def test_a_corrupt_file_is_set_aside_and_said(tmp_path: Path, damage: bytes) -> None:
    """The agent starts with the rest, and the log names the path."""
    store = Store(tmp_path)
    store.open()
    store.put(Shelf.CHECKS, "c", CHECK)
    await store.close()
    bad = tmp_path / "services" / "x.json"
    bad.write_bytes(damage)
    with capture_logs() as logs:
        again = Store(tmp_path)
        found = again.open()
    assert found.services == ()
    assert found.checks == (CHECK,)
    assert not bad.exists()
    assert bad.with_name("x.json.corrupt").read_bytes() == damage
    assert [entry["path"] for entry in logs] == [str(bad)]
    await again.close()


async def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    """A file counts only under its own name."""
    Store(tmp_path).open()
    (tmp_path / "services" / "x.tmp").write_bytes(b"{")
    assert Store(tmp_path).open().services == ()
    assert list((tmp_path / "services").iterdir()) == []


async def test_the_node_id_stays(tmp_path: Path) -> None:
    """It is made once; a file that holds none is set aside and replaced."""
    store = Store(tmp_path)
    store.open()
    first = store.node_id(Random(1))
    assert Store(tmp_path).node_id(Random(2)) == first
    (tmp_path / "node-id").write_text("garbage")
    assert Store(tmp_path).node_id(Random(3)) != first
    assert (tmp_path / "node-id.corrupt").read_text() == "garbage"
    await store.close()


async def test_a_data_dir_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    """The text names the directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="data directory"):
        Store(tmp_path / "file" / "data").open()


def test_definitions_come_from_all_files(tmp_path: Path) -> None:
    """One or several services and checks a file, as Consul writes them."""
    (tmp_path / "web.json").write_text(
        '{"service": {"name": "web", "port": 80, "check": {"ttl": "10s"}}}'
    )
    (tmp_path / "more.json").write_text(
        '{"services": [{"id": "a", "name": "api"}, {"id": "b", "name": "api"}],'
        ' "checks": [{"name": "disk", "args": ["df"], "interval": "30s"}]}'
    )
    (tmp_path / "notes.txt").write_text("not a definition")
    found = load(tmp_path, "n")
    assert sorted(found.services) == ["a", "b", "web"]
    assert found.services["web"].checks[0].check_id == "service:web"
    assert sorted(found.checks) == ["disk"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Request decode failed"),
        ("[]", "must hold a JSON object"),
        ('{"servce": {}}', "unknown field 'servce'"),
        ('{"service": {"port": 1}}', "service: Missing service name"),
        ('{"services": {}}', "services must be a list"),
        ('{"services": [{"name": "a"}, {"name": "b", "port": "x"}]}', r"services\[1\]: .*Port"),
        ('{"services": [{"name": "a"}, {"name": "a"}]}', "service 'a' is defined twice"),
        ('{"check": {"name": "c", "http": "http://x"}}', "check: .*Interval"),
        ('{"service": {"name": "a", "prot": 1}}', "prot"),
    ],
)
def test_a_bad_definition_names_file_and_field(tmp_path: Path, text: str, says: str) -> None:
    """A person finds the place at once."""
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(tmp_path, "n")
    assert "bad.json" in str(caught.value)
