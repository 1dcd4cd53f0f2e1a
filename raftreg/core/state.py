"""The whole state of the registry: tables of immutable rows, the index, and cluster time.

Only `apply` writes it, `query` reads it, `snapshot` turns it into bytes and back.
"""

from __future__ import annotations

from raftreg.core.catalog import Catalog
from raftreg.core.config_table import ConfigTable
from raftreg.core.connect_ca import Authority
from raftreg.core.distances import Coordinates
from raftreg.core.events import EventRing
from raftreg.core.kvstore import KVStore
from raftreg.core.querystore import Queries
from raftreg.core.staging import Staging
from raftreg.model import Session


class State:
    """Everything that is replicated.

    Attributes:
        index: The registry index: 1 at first (the lowest index that an answer may have), and one
            more with each command. A restore may let it jump, so that it stays above the indexes
            of all rows.
        time_ms: Cluster time in milliseconds, as stamped into log entries; never goes back.
        kv: Keys and values, locks, tombstones.
        lock_delays: Cluster time in milliseconds before which a key can't be locked.
        catalog: Nodes, instances and checks.
        sessions: Sessions by id.
        sessions_of: Ids of the sessions of each node that has any.
        sessions_changed: Index at which a session last began or ended.
        sessions_ended: Index at which a session last ended.
        config: Configuration entries by (kind, name).
        config_deleted: Index at which a configuration entry was last deleted.
        connect: The certificate authority of the mesh, its secret keys among it.
        events: The newest user events. A restore leaves them: what was announced here stays so,
            and what a snapshot remembers must not be announced again.
        queries: Prepared queries.
        coordinates: Where nodes are in the space of network distances.
        staging: Parts of a snapshot that is being restored through the log.
    """

    __slots__ = (
        "catalog",
        "config",
        "config_deleted",
        "connect",
        "coordinates",
        "events",
        "index",
        "kv",
        "lock_delays",
        "queries",
        "sessions",
        "sessions_changed",
        "sessions_ended",
        "sessions_of",
        "staging",
        "time_ms",
    )

    def __init__(self) -> None:
        self.index = 1
        self.time_ms = 0
        self.kv = KVStore()
        self.lock_delays: dict[str, int] = {}
        self.catalog = Catalog()
        self.sessions: dict[str, Session] = {}
        self.sessions_of: dict[str, set[str]] = {}
        self.sessions_changed = 0
        self.sessions_ended = 0
        self.config = ConfigTable()
        self.config_deleted = 0
        self.connect = Authority()
        self.events = EventRing()
        self.queries = Queries()
        self.coordinates = Coordinates()
        self.staging: Staging | None = None

    @property
    def index_floor(self) -> int:
        """No answer has a lower index; a restore raises it to its own index."""
        return self.catalog.index_floor

    def replace_content(self, other: State) -> None:
        """Takes over all tables of another state, which must not be used any more.

        Index and cluster time stay above those of both; lock delays and the TTLs of keys keep
        what was left of them.
        """
        self.index = max(self.index, other.index + 1)
        left = {key: until - other.time_ms for key, until in other.lock_delays.items()}
        self.lock_delays = {key: self.time_ms + ms for key, ms in left.items() if ms > 0}
        self.kv = other.kv
        self.kv.shift_deadlines(self.time_ms - other.time_ms)
        self.catalog = other.catalog
        self.sessions = other.sessions
        self.sessions_of = other.sessions_of
        self.sessions_changed = other.sessions_changed
        self.sessions_ended = other.sessions_ended
        self.config = other.config
        self.config_deleted = other.config_deleted
        self.connect = other.connect
        self.queries = other.queries
        self.coordinates = other.coordinates
        self.catalog.index = self.catalog.index_floor = self.index
