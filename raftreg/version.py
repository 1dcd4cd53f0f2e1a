"""Which version of the program this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def build() -> str:
    """Version of the program; "0.0.0" when it runs from a tree that is not installed."""
    try:
        return version("raftreg")
    except PackageNotFoundError:
        return "0.0.0"
