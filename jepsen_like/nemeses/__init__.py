"""Faults, each with the proof that it acted."""

from __future__ import annotations

from typing import Final

from jepsen_like.nemeses import clock, disk, membership, network, process, stagger
from jepsen_like.nemeses.base import Fault

#: All faults by name.
FAULTS: Final[dict[str, type[Fault]]] = {
    kind.name: kind
    for room in (network, process, disk, clock, membership, stagger)
    for kind in room.FAULTS
}
