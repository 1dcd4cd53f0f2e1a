"""Alias checks: the worst check of another service or node decides."""

from __future__ import annotations

from collections.abc import Iterable

from raftreg.core.results import quoted
from raftreg.model import Check, Status
from raftreg_agent.checks.machine import CheckResult

_ORDER = {Status.CRITICAL: 0, Status.WARNING: 1, Status.PASSING: 2}


def alias_result(what: str, exists: bool, checks: Iterable[Check]) -> CheckResult:
    """Judges an aliased service or node.

    Args:
        what: Names it in the output.
        exists: Whether it is known at all.
        checks: Its checks (those of its node too, for a service).
    """
    if not exists:
        return CheckResult(Status.CRITICAL, f"{what} could not be found")
    worst = min(checks, key=lambda check: _ORDER[check.status], default=None)
    if worst is None:
        return CheckResult(Status.PASSING, "No checks found.")
    if worst.status is Status.PASSING:
        return CheckResult(Status.PASSING, "All checks passing.")
    name = worst.name or worst.check_id
    return CheckResult(worst.status, f"Aliased check {quoted(name)} failing: {worst.output}")
