"""Async client of raftreg's servers and agents (and of anything else that speaks Consul's API)."""

from raftreg.client.api import ANY_STATUS, RegistryClient
from raftreg.client.cluster import RaftServer, kv_op
from raftreg.client.deltas import Delta
from raftreg.client.failures import BadAnswer, LockLost
from raftreg.client.holding import LOCK_FLAGS, LockOptions
from raftreg.client.http import Response
from raftreg.client.lock import Lock
from raftreg.client.options import Consistency, Read
from raftreg.client.records import (
    HealthEntry,
    NodeEntry,
    QueryResult,
    ServiceSummary,
    TxnOutcome,
)
from raftreg.client.retry import Backoff
from raftreg.client.semaphore import SEMAPHORE_FLAGS, Semaphore
from raftreg.client.sequence import REQUEST_ID_HEADER
from raftreg.client.stream import Stream
from raftreg.client.watch import Change

__all__ = [
    "ANY_STATUS",
    "LOCK_FLAGS",
    "REQUEST_ID_HEADER",
    "SEMAPHORE_FLAGS",
    "Backoff",
    "BadAnswer",
    "Change",
    "Consistency",
    "Delta",
    "HealthEntry",
    "Lock",
    "LockLost",
    "LockOptions",
    "NodeEntry",
    "QueryResult",
    "RaftServer",
    "Read",
    "RegistryClient",
    "Response",
    "Semaphore",
    "ServiceSummary",
    "Stream",
    "TxnOutcome",
    "kv_op",
]
