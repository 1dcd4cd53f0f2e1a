"""How to read, and where: the options that all reads share."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

ParamValue = str | int | Sequence[str] | None
Params = Mapping[str, ParamValue]


class Consistency(enum.Enum):
    """What a read may answer with.

    DEFAULT and CONSISTENT are linearizable; STALE is the asked server's own state at once, also
    while there is no leader.
    """

    DEFAULT = ""
    STALE = "stale"
    CONSISTENT = "consistent"


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a read.

    Attributes:
        consistency: See `Consistency`.
        cached: An agent may answer from its own view of the catalog.
        dc: Datacenter; empty: the server's own.
        node_meta: "key:value" texts that a node must have, all of them.
    """

    consistency: Consistency = Consistency.DEFAULT
    cached: bool = False
    dc: str = ""
    node_meta: tuple[str, ...] = ()

    def params(self, **more: ParamValue) -> dict[str, ParamValue]:
        """Gives the query, with further parameters; "" is a bare flag, None is left out."""
        query: dict[str, ParamValue] = {}
        if self.consistency is not Consistency.DEFAULT:
            query[self.consistency.value] = ""
        if self.cached:
            query["cached"] = ""
        if self.dc:
            query["dc"] = self.dc
        if self.node_meta:
            query["node-meta"] = self.node_meta
        return {**query, **more}


DEFAULT_READ = Read()


def flag(on: bool) -> str | None:
    """A parameter that counts when it is there."""
    return "" if on else None


def segment(name: str) -> str:
    """Percent-encodes a name as one segment of a path."""
    return quote(name, safe="")


def key_path(key: str) -> str:
    """Percent-encodes a key of the KV store; its slashes stay."""
    return f"/v1/kv/{quote(key, safe='/')}"
