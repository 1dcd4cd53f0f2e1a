"""A small catalog, as an agent's view holds it."""

from __future__ import annotations

from typing import Any

from raftreg.core.catalog import Catalog
from raftreg.core.delta import CatalogDelta
from raftreg.model import Check, Node, ServiceInstance, Status, Weights


class Builder:
    """Fills a catalog row by row; each row is a change at an index of its own."""

    def __init__(self) -> None:
        self.catalog = Catalog(1)

    def __repr__(self) -> str:
        """All rows, for a test that fails."""
        return f"Builder({[delta.row for delta in self.catalog.rows()]})"

    def node(self, name: str, address: str, **meta: str) -> None:
        """Registers a node."""
        row = Node(name=name, address=address, meta=meta, datacenter="dc1")
        self._put("node", name, "", row)

    def service(
        self,
        node: str,
        name: str,
        *,
        id: str = "",  # noqa: A002 (the field's name)
        address: str = "",
        port: int = 8080,
        tags: tuple[str, ...] = (),
        weights: Weights | None = None,
        **more: Any,
    ) -> None:
        """Registers an instance."""
        row = ServiceInstance(
            node=node,
            id=id or name,
            name=name,
            address=address,
            port=port,
            tags=tags,
            weights=weights or Weights(),
            **more,
        )
        self._put("service", node, row.id, row)

    def check(self, node: str, status: Status, *, service: str = "", check: str = "c") -> None:
        """Sets a check of a node or of an instance."""
        instance = self.catalog.service(node, service) if service else None
        row = Check(
            node=node,
            check_id=check,
            status=status,
            service_id=service,
            service_name=instance.name if instance is not None else "",
        )
        self._put("check", node, check, row)

    def remove_service(self, node: str, service_id: str) -> None:
        """Removes an instance."""
        self._put("service", node, service_id, None)

    def _put(
        self, kind: str, node: str, row_id: str, row: Node | ServiceInstance | Check | None
    ) -> None:
        delta = CatalogDelta(
            kind=kind,  # type: ignore[arg-type]  # one of the three words
            node=node,
            id=row_id,
            row=row,
            index=self.catalog.index + 1,
        )
        self.catalog.apply_delta(delta)


def sample() -> Builder:
    """Three healthy web instances on three nodes, and one of most other things."""
    built = Builder()
    built.node("n1", "127.0.0.21", env="prod", owner="team a")
    built.node("n2", "127.0.0.22")
    built.node("n3", "127.0.0.23")
    built.service("n1", "web", port=8001, tags=("v1", "a.b"), weights=Weights(10, 3))
    built.service("n2", "web", port=8002, tags=("v2",))
    built.service("n3", "web", port=8003)
    built.service("n1", "own", address="127.0.9.9", port=9000)
    built.service("n1", "six", address="2001:db8::1", port=6)
    built.service("n1", "alias", address="db.example.org", port=5432)
    built.service("n1", "inner", address="n2.node.consul", port=5432)
    built.service("n1", "loop", address="loop.service.consul", port=1)
    built.service("n1", "Mixed-Case", port=7)
    built.service("n2", "consul", port=8300)
    return built
