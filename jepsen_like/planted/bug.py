"""What a planted bug is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Bug(msgspec.Struct, frozen=True, kw_only=True):
    """A known bug, and the run that catches it.

    Attributes:
        name: As the command line knows it.
        what: What goes wrong with it.
        patch: Puts it into the classes of this process; call it once, before raftreg runs.
        workload, nemesis: The run that catches it.
        kinds: Anomalies that show it; a crash shows any bug of consensus, too.
        options: Arguments of the workload's constructor.
        time_limit_s, rate, concurrency, nodes: The rest of the run.
    """

    name: str
    what: str
    patch: Callable[[], None]
    workload: str
    nemesis: str
    kinds: frozenset[str]
    options: dict[str, Any] = {}
    time_limit_s: float = 12.0
    rate: float = 150.0
    concurrency: int = 8
    nodes: int = 3


def replace(owner: object, name: str, by: object) -> None:
    """Puts something else in the place of a part of a class or module.

    Raises:
        AttributeError: There is no such part (any more): the bug would do nothing.
    """
    getattr(owner, name)
    setattr(owner, name, by)
