"""Import and export of keys: the file's form, and how it is cut into transactions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftreg.client.api import RegistryClient
from raftreg.client.records import TxnOutcome
from raftreg.errors import Conflict, InvalidRequest, TooLarge
from raftreg.model import KV_VALUE_BYTES_MAX, TXN_OPERATIONS_MAX
from raftreg_cli import kv_bulk
from raftreg_cli.kv_bulk import GROUP_BYTES_MAX, Entry


class _FakeTxn:
    """Takes transactions as a server would, and keeps them."""

    def __init__(self, refuse: str = "") -> None:
        self.groups: list[list[dict[str, Any]]] = []
        self._refuse = refuse

    async def run(self, operations: list[dict[str, Any]]) -> TxnOutcome:
        """Refuses a group that holds the key `refuse`."""
        for index, operation in enumerate(operations):
            if operation["KV"]["Key"] == self._refuse:
                return TxnOutcome(errors=((index, "not this one"),))
        self.groups.append([operation["KV"] for operation in operations])
        return TxnOutcome()


def _client(txn: _FakeTxn) -> RegistryClient:
    client = RegistryClient(["127.0.0.1:1"])
    client.txn = txn  # type: ignore[assignment]  # the one door that import uses
    return client


@given(st.lists(st.integers(0, KV_VALUE_BYTES_MAX), max_size=200))
async def test_every_entry_is_sent_once_and_in_order(sizes: list[int]) -> None:
    """No group is over a transaction's limits, except that a large value goes alone."""
    entries = [Entry(str(i), i, b"x" * size) for i, size in enumerate(sizes)]
    txn = _FakeTxn()
    done: list[int] = []

    def advance(steps: int) -> None:
        done.append(steps)

    await kv_bulk.import_entries(_client(txn), entries, advance)
    sent = [kv for group in txn.groups for kv in group]
    assert [kv["Key"] for kv in sent] == [entry.key for entry in entries]
    assert sum(done) == len(entries)
    for group in txn.groups:
        size = sum(len(base64.b64decode(kv["Value"])) for kv in group)
        assert len(group) <= TXN_OPERATIONS_MAX
        assert size <= GROUP_BYTES_MAX or len(group) == 1


async def test_a_refused_group_says_how_far_it_came() -> None:
    """The error names the key, the reason, and the number of keys that are in."""
    entries = [Entry(f"k{i}") for i in range(TXN_OPERATIONS_MAX + 3)]
    with pytest.raises(Conflict, match=f"'k65'.*not this one; {TXN_OPERATIONS_MAX} keys"):
        await kv_bulk.import_entries(_client(_FakeTxn(refuse="k65")), entries, lambda steps: None)


def test_reads_what_consul_writes(tmp_path: Path) -> None:
    """The form is that of `consul kv export`; unknown fields are passed over."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"key": "a/b", "flags": 7, "value": "aGk=", "other": 1}]))
    assert kv_bulk.read_entries(str(file), "p/") == [Entry("p/a/b", 7, b"hi")]


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"flags": 1}]', '[{"key": "a", "value": "%"}]', '[{"key": ""}]']
)
def test_what_is_no_export_is_refused(tmp_path: Path, text: str) -> None:
    """A bad file changes nothing and is named."""
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=r"keys\.json"):
        kv_bulk.read_entries(str(file), "")


def test_a_value_over_the_limit_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The key is named."""
    value = base64.b64encode(b"x" * (KV_VALUE_BYTES_MAX + 1)).decode()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"key": "big", "value": value}]))
    with pytest.raises(TooLarge, match="'big'"):
        kv_bulk.read_entries(str(file), "")


async def test_a_ttl_goes_with_its_key(tmp_path: Path) -> None:
    """What an export says of a TTL is set again by the import; other keys have none."""
    file = tmp_path / "keys.json"
    rows = [{"key": "a", "value": "eA==", "ttl_ms": 30_000}, {"key": "b", "value": "eA=="}]
    file.write_text(json.dumps(rows))
    txn = _FakeTxn()
    await kv_bulk.import_entries(_client(txn), kv_bulk.read_entries(str(file), ""), lambda _: None)
    ((first, second),) = txn.groups
    assert first["TTL"] == "30s"
    assert "TTL" not in second
