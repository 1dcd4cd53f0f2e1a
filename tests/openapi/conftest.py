"""A registry to send requests to."""

from __future__ import annotations

from tests.cli.conftest import dev

__all__ = ["dev"]
