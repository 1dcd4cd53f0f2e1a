"""What `raftreg demo --once` saw: steps with their times, for people and programs."""

from __future__ import annotations

from collections.abc import Callable

import click
import msgspec

from raftreg_cli.output import Output, show


class Step(msgspec.Struct, frozen=True):
    """One thing that was checked.

    Attributes:
        what: A sentence.
        at_s: Seconds since the start of the demo.
        ok: It was as it should be.
        detail: What was seen; lines.
    """

    what: str
    at_s: float
    ok: bool
    detail: tuple[str, ...] = ()


class Report:
    """Gathers steps, and prints each as it comes when a person reads.

    Args:
        output: The form of the answer.
        elapsed_s: Seconds since the start.
    """

    def __init__(self, output: Output, elapsed_s: Callable[[], float]) -> None:
        self._output = output
        self._elapsed_s = elapsed_s
        self.steps: list[Step] = []
        self.figures: dict[str, float] = {}

    def ok(self, what: str, *detail: str) -> None:
        """Something was as it should be."""
        self._add(Step(what, round(self._elapsed_s(), 3), True, detail))

    def failed(self, what: str, *detail: str) -> None:
        """Something was not."""
        self._add(Step(what, round(self._elapsed_s(), 3), False, detail))

    def figure(self, name: str, value: float) -> None:
        """Keeps a measured value for programs."""
        self.figures[name] = round(value, 4)

    def finish(self) -> bool:
        """Prints the end; tells whether all was well."""
        ok = bool(self.steps) and all(step.ok for step in self.steps)
        data = {"ok": ok, "figures": self.figures, "steps": self.steps}
        took = f"in {self._elapsed_s():.1f} s"
        verdict = f"All {len(self.steps)} steps passed" if ok else "The demo FAILED"
        show(self._output, data, f"\n{verdict} {took}.")
        return ok

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        if self._output is not Output.TABLE:
            return
        mark = click.style(" ok ", fg="green") if step.ok else click.style("FAIL", fg="red")
        click.echo(f"[{mark}] {step.at_s:6.2f} s  {step.what}")
        for line in "\n".join(step.detail).splitlines():
            click.echo(f"{'':18}{line}")
