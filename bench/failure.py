"""The error of benchmarks."""

from __future__ import annotations

from raftreg.errors import RaftregError


class BenchFailure(RaftregError):
    """Something could not be measured; the text says what and why."""

    code = "bench"
