"""A question to a catalog, as the shared endpoints ask it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import msgspec

from raftreg.core.catalog import Catalog
from raftreg.core.changes import Topic


class CatalogQuery(msgspec.Struct, frozen=True):
    """One question to a catalog.

    Attributes:
        key: Names the question; equal questions share rendered answers.
        topics: What its answer depends on; their last change is its index.
        json: Asks, and gives the answer as JSON.
    """

    key: Hashable
    topics: tuple[Topic, ...]
    json: Callable[[Catalog], Any]
