"""The figures of docs/resilience.md, measured on real processes.

`main(names, quick, out, write)` is what `python -m jepsen_like figures` calls.
"""

from jepsen_like.figures.run import main

__all__ = ["main"]
