"""What tests of the benchmarks share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

STANDIN = Path(__file__).parent / "standin.py"


@pytest.fixture
def standin(tmp_path: Path) -> Path:
    """An executable that behaves as Consul's, as far as the driver goes."""
    return program(
        tmp_path / "consul",
        f'import runpy\nrunpy.run_path({str(STANDIN)!r}, run_name="__main__")\n',
    )


def program(path: Path, text: str) -> Path:
    """Writes an executable Python program."""
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return path
