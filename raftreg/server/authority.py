"""The certificate authority at work on a server: founded on first use, it signs and rotates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from raftreg.clock import Clock
from raftreg.core.connect_ca import Authority, AuthoritySet, Root
from raftreg.errors import Conflict, NoLeader
from raftreg.raft.api import ReplicaAPI
from raftreg.server.certificates import Leaf, new_root, sign_leaf
from raftreg.server.machine import RegistryMachine
from raftreg.server.writes import Writes

_log = structlog.get_logger(__name__)


class AuthorityDesk:
    """Signs with the replicated root; any server can.

    Args:
        replica: Confirms that the state is new enough.
        machine: Holds the roots.
        writes: Proposes new ones.
        clock: Its wall clock dates certificates.
        new_id: Makes a random UUID.
        datacenter: Whose services get certificates.
        timeout_s: Longest wait for a read index, in seconds.
    """

    def __init__(
        self,
        replica: ReplicaAPI,
        machine: RegistryMachine,
        writes: Writes,
        clock: Clock,
        new_id: Callable[[], str],
        *,
        datacenter: str,
        timeout_s: float,
    ) -> None:
        self._replica = replica
        self._machine = machine
        self._writes = writes
        self._clock = clock
        self._new_id = new_id
        self._datacenter = datacenter
        self._timeout_s = timeout_s
        self._founding = asyncio.Lock()

    @property
    def state(self) -> Authority:
        """The authority as this server knows it."""
        return self._machine.state.connect

    async def ensure(self) -> None:
        """Returns when there is an authority; founds it when there is none.

        Raises:
            NoLeader, NotProposed, UnknownOutcome: It can't be founded now.
        """
        if self.state.active is not None:
            return
        async with self._founding:
            await self._replica.read_index(self._timeout_s)
            if self.state.active is not None:
                return
            cluster_id = self.state.cluster_id or self._new_id()
            root = new_root(cluster_id, now_s=self._clock.wall(), ttl_s=self.state.root_ttl_s)
            # Another server may have been quicker: then its root counts, and this one is forgotten.
            await self._writes.propose(AuthoritySet(previous="", cluster_id=cluster_id, root=root))
            if self.state.active is None:
                raise NoLeader("there is no certificate authority yet")
            _log.info("authority_founded", trust_domain=self.state.trust_domain)

    async def sign(self, csr_pem: str) -> Leaf:
        """Signs the request of a service's certificate.

        Raises:
            InvalidRequest: It asks for what can't be had.
            NoLeader: It is not known which root is the active one.
        """
        await self.ensure()
        await self._replica.read_index(self._timeout_s)
        authority = self.state
        root = authority.active
        assert root is not None
        return sign_leaf(
            root,
            csr_pem,
            trust_domain=authority.trust_domain,
            datacenter=self._datacenter,
            now_s=self._clock.wall(),
            ttl_s=authority.leaf_ttl_s,
        )

    async def change(
        self,
        root: Callable[[Root], Root | None],
        *,
        leaf_ttl_s: float,
        root_ttl_s: float,
    ) -> None:
        """Changes settings, and the active root if there is another.

        Args:
            root: Gives the next root, None to stay with the present one.
            leaf_ttl_s: Lifetime of leaves in seconds; 0 keeps what is set.
            root_ttl_s: Likewise, of roots.

        Raises:
            Conflict: Somebody else changed the root in the meantime.
        """
        await self.ensure()
        await self._replica.read_index(self._timeout_s)
        active = self.state.active
        assert active is not None
        following = root(active)
        outcome = await self._writes.propose(
            AuthoritySet(
                previous=active.id, root=following, leaf_ttl_s=leaf_ttl_s, root_ttl_s=root_ttl_s
            )
        )
        if outcome.result is not True:
            raise Conflict("the active root was changed in the meantime: look, and try again")
        if following is not None:
            _log.info("root_rotated", root=following.id, previous=active.id)
