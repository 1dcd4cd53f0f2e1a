"""Faults, each with the proof that it acted."""

from __future__ import annotations

import importlib
import importlib.util

from jepsen_like.nemeses.base import Fault

_ROOMS = ("network", "process", "disk", "clock", "membership")


def _all() -> dict[str, type[Fault]]:
    found: dict[str, type[Fault]] = {}
    for room in _ROOMS:
        name = f"{__name__}.{room}"
        if importlib.util.find_spec(name) is not None:
            found.update({kind.name: kind for kind in importlib.import_module(name).FAULTS})
    return found


#: All faults by name.
FAULTS: dict[str, type[Fault]] = _all()
