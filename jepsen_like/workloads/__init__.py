"""What clients do to the cluster, and who judges it."""

from __future__ import annotations

from typing import Final

from jepsen_like.workloads.answers import Answers
from jepsen_like.workloads.append import Append
from jepsen_like.workloads.bank import Bank
from jepsen_like.workloads.base import Workload
from jepsen_like.workloads.catalog import Catalog
from jepsen_like.workloads.lock import Lock
from jepsen_like.workloads.once import Once
from jepsen_like.workloads.register import Register
from jepsen_like.workloads.sets import SetInKeys, SetInLists
from jepsen_like.workloads.unique import Unique
from jepsen_like.workloads.watch import Watch

_ALL: Final[tuple[type[Workload], ...]] = (
    Register,
    SetInLists,
    SetInKeys,
    Append,
    Unique,
    Bank,
    Lock,
    Watch,
    Catalog,
    Answers,
    Once,
)

#: Every workload by its name on the command line.
WORKLOADS: Final[dict[str, type[Workload]]] = {kind.name: kind for kind in _ALL}
