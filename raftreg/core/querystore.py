"""The table of prepared queries: rows by id, found by name, by prefix and by session.

Names are compared without letter case: the names of DNS have none (RFC 4343).
"""

from __future__ import annotations

from collections.abc import Iterable

from raftreg.model import PreparedQuery


class Queries:
    """Prepared queries.

    Attributes:
        rows: The queries by id, in order of creation.
        changed: Index at which one was last written or deleted.
        deleted: Index at which one was last deleted.
    """

    def __init__(self) -> None:
        self.rows: dict[str, PreparedQuery] = {}
        self.changed = 0
        self.deleted = 0
        self._named: dict[str, str] = {}
        self._templates: dict[str, str] = {}
        self._of_session: dict[str, set[str]] = {}

    def load(self, rows: Iterable[PreparedQuery], *, changed: int, deleted: int) -> None:
        """Fills an empty table.

        Raises:
            ValueError: Two queries have one name.
        """
        for row in rows:
            if self.holder(row) not in (None, row.id):
                raise ValueError(f"two prepared queries are called {row.name!r}")
            self.put(row)
        self.changed, self.deleted = changed, deleted

    def put(self, row: PreparedQuery) -> None:
        """Writes a query in the place of the one with its id."""
        old = self.rows.get(row.id)
        if old is not None:
            self._forget(old)
        self.rows[row.id] = row
        folded = row.name.lower()
        if row.name:
            self._named[folded] = row.id
        if row.template.type:
            self._templates[folded] = row.id
        if row.session:
            self._of_session.setdefault(row.session, set()).add(row.id)

    def remove(self, query_id: str) -> None:
        """Deletes a query that is there."""
        self._forget(self.rows.pop(query_id))

    def _forget(self, row: PreparedQuery) -> None:
        folded = row.name.lower()
        if row.name:
            del self._named[folded]
        if row.template.type:
            del self._templates[folded]
        if row.session:
            ids = self._of_session[row.session]
            ids.discard(row.id)
            if not ids:
                del self._of_session[row.session]

    def holder(self, row: PreparedQuery) -> str | None:
        """Id of the query that has the name of this one; None when it is free.

        No name is a name too, among templates: there is one that matches everything.
        """
        if row.name:
            return self._named.get(row.name.lower())
        return self._templates.get("") if row.template.type else None

    def of_session(self, session_id: str) -> list[str]:
        """Ids of the queries that end with a session, sorted."""
        return sorted(self._of_session.get(session_id, ()))

    def named(self, name: str) -> PreparedQuery | None:
        """The query of this name, or else the template with the longest prefix of it."""
        folded = name.lower()
        query_id = self._named.get(folded)
        for length in range(len(folded), -1, -1):
            query_id = query_id or self._templates.get(folded[:length])
        return None if query_id is None else self.rows[query_id]
