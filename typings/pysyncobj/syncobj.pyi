import logging
from collections.abc import Callable
from typing import Any

from pysyncobj.journal import Journal
from pysyncobj.node import Node

logger: logging.Logger
createJournal: Callable[[Any], Journal]
monotonicTime: Callable[[], float]

class SyncObjConf:
    def __init__(self, **kwargs: Any) -> None: ...

class SyncObj:
    _poller: Any
    def __init__(
        self,
        selfNode: Node,
        otherNodes: list[Node],
        conf: SyncObjConf | None = ...,
        consumers: list[Any] | None = ...,
        nodeClass: type[Node] = ...,
        transport: Any = ...,
        transportClass: Any = ...,
    ) -> None: ...
    @property
    def selfNode(self) -> Node: ...
    def doTick(self, timeToWait: float = ...) -> None: ...
    def transferLeadership(
        self, node: Node | None = ..., callback: Callable[[Any, int], None] | None = ...
    ) -> None: ...
    def _applyCommand(self, command: bytes, callback: Any, commandType: int | None = ...) -> None: ...
    # The private names that raftreg/raft/engine.py relies on.
    _SyncObj__otherNodes: set[Node]
    _SyncObj__readonlyNodes: set[Node]
    _SyncObj__connectedNodes: set[Node]
    _SyncObj__raftNextIndex: dict[Node, int]
    _SyncObj__raftMatchIndex: dict[Node, int]
    _SyncObj__lastResponseTime: dict[Node, float]
    _SyncObj__raftState: int
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftLeader: Node | None
    _SyncObj__raftLastApplied: int
    _SyncObj__raftElectionDeadline: float
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__noopIDx: int | None
    _SyncObj__votedForNodeId: str | None
    _SyncObj__transferInProgress: bool
    _SyncObj__serializer: Any
    _SyncObj__transport: Any
    def _SyncObj__sendNextNodeIdx(
        self, node: Node, reset: bool = ..., nextNodeIdx: int | None = ..., success: bool = ...
    ) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
