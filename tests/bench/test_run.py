"""Whole runs, as `make bench` starts them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from bench.report import Report

ROOT = Path(__file__).parents[2]


async def _bench(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_both_systems_are_measured_in_one_run(tmp_path: Path, standin: Path) -> None:
    """With a Consul, a row has the samples of both, the table names it, and nothing is left."""
    file = tmp_path / "figures.json"
    data = tmp_path / "data"
    data.mkdir()
    code, out, err = await _bench(
        "--quick", "--only", "heartbeats", "--markdown",
        "--consul", str(standin), "--json", str(file), "--dir", str(data),
    )  # fmt: skip
    assert code == 0, err
    report = msgspec.json.decode(file.read_bytes(), type=Report)
    (row,) = report.rows
    assert report.consul == "Consul v1.8.0-standin"
    assert row.consul_note, "how long Consul's answers took"
    assert row.samples[0] > 0
    assert row.consul_samples[0] > 0
    assert row.ratio == row.samples[0] / row.consul_samples[0]
    assert out.count("TTL heartbeats") == 1
    assert list(data.iterdir()) == []
    code, again, _ = await _bench("--from", str(file), "--markdown")
    assert (code, again) == (0, out)


async def test_a_consul_that_is_not_there_is_said_and_passed_over(tmp_path: Path) -> None:
    """Without a Consul the run goes on, and says whose figures stand in its place."""
    code, out, err = await _bench(
        "--quick", "--only", "disk", "--consul", str(tmp_path / "none"), "--dir", str(tmp_path)
    )
    assert code == 0, err
    assert "is no program: published figures of Consul 1.8 stand in its place" in err
    assert "append and fdatasync" in out


async def test_generator_is_measured_alone() -> None:
    """The ceiling over all rates is a row of its own."""
    code, out, err = await _bench("--quick", "--only", "generator", "--markdown")
    assert code == 0, err
    assert "| the generator alone, HTTP |" in out
    assert "| the generator alone, DNS |" in out


@pytest.mark.parametrize("arguments", [("--only", "nothing"), ("--from", "/nowhere")])
async def test_wrong_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    """A slip measures nothing."""
    code, _, err = await _bench(*arguments)
    assert code == 2
    assert "Error" in err
