"""What was measured, kept round by round, so that an interrupted measurement goes on later."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

FORM: Final = 1
FILE_BYTES_MAX: Final = 64 << 20
LOSSES_MAX: Final = 1_000


class Round(msgspec.Struct, frozen=True):
    """One repetition.

    Attributes:
        number: From 1.
        kind: What was done, where there are several kinds.
        values: Measured, by name with its unit.
        facts: Proof that the fault acted, and whatever else tells about it.
        losses: What must not be, in sentences.
    """

    number: int
    kind: str = ""
    values: dict[str, float] = {}
    facts: dict[str, Any] = {}
    losses: tuple[str, ...] = ()


class Record(msgspec.Struct):
    """A figure's file.

    Attributes:
        name: Of the figure.
        quick: Fewer rounds than the figure asks for.
        wanted: How many rounds it asks for.
        command: What measures it.
        machine: What the numbers belong to; no names.
        rounds: What was measured so far.
        losses: What the checks at the end of a session found besides.
        sessions: How many clusters the rounds were spread over.
        load_average: Of the last minute, at the beginning of each session.
        form: Version of this file.
    """

    name: str
    quick: bool
    wanted: int
    command: str
    machine: dict[str, str] = {}
    rounds: list[Round] = []
    losses: list[str] = []
    sessions: int = 0
    load_average: list[float] = []
    form: int = FORM

    @property
    def complete(self) -> bool:
        """All rounds were done."""
        return len(self.rounds) >= self.wanted

    @property
    def all_losses(self) -> list[str]:
        """Of all rounds, and of the checks at the end."""
        return [loss for one in self.rounds for loss in one.losses] + self.losses

    def values(self, name: str, kind: str | None = None) -> list[float]:
        """One measured value of all rounds, or of those of a kind."""
        return [
            one.values[name]
            for one in self.rounds
            if name in one.values and kind in {None, one.kind}
        ]


class Unreadable(Exception):
    """A record can't be read; the text says which and why."""


def load(path: Path) -> Record | None:
    """Reads a record; None where there is none.

    Raises:
        Unreadable: There is a file, and it is none.
    """
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise Unreadable(f"{path}: larger than {FILE_BYTES_MAX >> 20} MiB")
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: {error}; remove it to measure anew") from error


def save(record: Record, path: Path) -> None:
    """Writes it aside and renames: an interruption leaves the one before or this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    aside.replace(path)


def machine() -> dict[str, str]:
    """What the figures belong to."""
    return {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "raftreg": _version("raftreg"),
        "engine": f"pysyncobj {_version('pysyncobj')}",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
