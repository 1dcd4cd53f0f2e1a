"""`python -m jepsen_like.figures.stubborn server …`: a server that goes on leading when cut off.

As shipped, a leader that hears no majority steps down after 0.6 s, and has one batch under way at a
time, so ten thousand entries can't come to diverge. For the figure `divergent` both are switched
off: it leads for minutes, and every write becomes an entry of its own at once. What happens after
the partition, which is what is measured, is done by code that is as it is.
"""

from __future__ import annotations

import functools
from typing import Final

import msgspec

from raftreg.config import ServerSettings
from raftreg.raft import node, proposals
from raftreg.raft.settings import ReplicaSettings
from raftreg_cli import main, run_server

LEADS_S: Final = 600.0
IN_FLIGHT_MAX: Final = 100_000


def alter() -> None:
    """Takes the two rules away, in this process."""
    shipped = run_server.replica_settings

    def patient(settings: ServerSettings) -> ReplicaSettings:
        made = shipped(settings)
        timing = msgspec.structs.replace(made.timing, fallback_s=LEADS_S)
        return msgspec.structs.replace(made, timing=timing)

    setattr(run_server, "replica_settings", patient)  # noqa: B010 - to mypy it is no variable
    setattr(proposals, "BATCH_PROPOSALS_MAX", 1)  # noqa: B010
    queue = functools.partial(proposals.ProposalQueue, in_flight_max=IN_FLIGHT_MAX)
    setattr(node, "ProposalQueue", queue)  # noqa: B010


if __name__ == "__main__":
    alter()
    main.main()
