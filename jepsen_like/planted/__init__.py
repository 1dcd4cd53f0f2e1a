"""Known bugs, switched on to show that the harness finds them. Never part of the product.

`python -m jepsen_like run --plant BUG …` starts its servers and agents through
`python -m jepsen_like.planted BUG -- server …`, which patches raftreg's classes in its own process
and then runs raftreg's command line. raftreg itself has no hook for any of this.
"""

from __future__ import annotations

from typing import Final

from jepsen_like.planted import consensus, registry
from jepsen_like.planted.bug import Bug

_LOST: Final = frozenset({"lost-element", "stale-read"})
_WATCH: Final = frozenset({"watch-phantom", "watch-order", "watch-lost", "watch-twice"})

_ALL: Final[tuple[Bug, ...]] = (
    Bug(
        name="truncation",
        what="an append truncates the log after it, as in the plain engine",
        patch=consensus.truncation,
        workload="set-keys",
        nemesis="choked-leader",
        kinds=_LOST,
        time_limit_s=20.0,
        rate=300.0,
        concurrency=40,
    ),
    Bug(
        name="forgotten-vote",
        what="term and vote are not on disk",
        patch=consensus.forgotten_vote,
        workload="set-keys",
        nemesis="late-starter",
        kinds=_LOST,
        time_limit_s=25.0,
    ),
    Bug(
        name="skipped-fsync",
        what="what the log holds is never synced",
        patch=consensus.skipped_fsync,
        workload="set-keys",
        nemesis="power-loss-all",
        kinds=_LOST | {"no-recovery"},
        time_limit_s=10.0,
    ),
    Bug(
        name="held-back-log",
        what="the log is acknowledged before it is written",
        patch=consensus.held_back_log,
        workload="set-keys",
        nemesis="kill-all",
        kinds=_LOST,
        time_limit_s=22.0,
    ),
    Bug(
        name="early-commit",
        what="a leader acknowledges before a majority has it",
        patch=consensus.early_commit,
        workload="set-keys",
        nemesis="partition-leader",
        kinds=_LOST,
    ),
    Bug(
        name="stale-read",
        what="a read index is given without asking the leader",
        patch=consensus.stale_read,
        workload="register",
        nemesis="partition-minority",
        kinds=frozenset({"not-linearizable"}),
        time_limit_s=15.0,
    ),
    Bug(
        name="repeated-request",
        what="a retry takes effect again",
        patch=consensus.repeated_request,
        workload="once",
        nemesis="loss",
        kinds=frozenset({"applied-twice", "forked"}),
        time_limit_s=22.0,
    ),
    Bug(
        name="repeated-entry",
        what="a restarted server applies an entry twice",
        patch=consensus.repeated_entry,
        workload="watch",
        nemesis="kill-one",
        kinds=_WATCH,
        time_limit_s=22.0,
    ),
    Bug(
        name="backward-index",
        what="the index of a restarted server goes back",
        patch=consensus.backward_index,
        workload="watch",
        nemesis="kill-one",
        kinds=_WATCH | {"index-backwards"},
        time_limit_s=22.0,
    ),
    Bug(
        name="blind-cas",
        what="check-and-set does not compare",
        patch=registry.blind_cas,
        workload="unique",
        nemesis="none",
        kinds=frozenset({"id-twice"}),
        time_limit_s=4.0,
    ),
    Bug(
        name="torn-txn",
        what="a transaction that fails is not undone",
        patch=registry.torn_txn,
        workload="bank",
        nemesis="none",
        kinds=frozenset({"wrong-total", "wrong-balance", "negative-balance"}),
        time_limit_s=4.0,
    ),
    Bug(
        name="shared-lock",
        what="a lock is given away while it is held",
        patch=registry.shared_lock,
        workload="lock",
        nemesis="none",
        kinds=frozenset({"two-holders", "stale-token"}),
        time_limit_s=8.0,
    ),
    Bug(
        name="standing-token",
        what="fencing tokens do not rise",
        patch=registry.standing_token,
        workload="lock",
        nemesis="none",
        kinds=frozenset({"token-twice"}),
        time_limit_s=4.0,
    ),
    Bug(
        name="no-lock-delay",
        what="lock delays are not kept",
        patch=registry.no_lock_delay,
        workload="lock",
        nemesis="none",
        kinds=frozenset({"lock-delay"}),
        time_limit_s=10.0,
    ),
    Bug(
        name="snapshot-without-keys",
        what="a snapshot forgets the table of keys",
        patch=registry.snapshot_without_keys,
        workload="set-keys",
        nemesis="kill-one",
        kinds=_LOST,
        time_limit_s=22.0,
    ),
    Bug(
        name="dropped-event",
        what="a watch event is dropped",
        patch=registry.dropped_event,
        workload="watch",
        nemesis="none",
        kinds=frozenset({"watch-lost", "watch-behind"}),
        time_limit_s=6.0,
    ),
    Bug(
        name="doubled-event",
        what="a watch event is delivered twice",
        patch=registry.doubled_event,
        workload="watch",
        nemesis="none",
        kinds=frozenset({"watch-twice"}),
        time_limit_s=6.0,
    ),
    Bug(
        name="lasting-ghosts",
        what="agents never hear of deregistrations",
        patch=registry.lasting_ghosts,
        workload="catalog",
        nemesis="none",
        kinds=frozenset({"diverged"}),
        time_limit_s=4.0,
    ),
    Bug(
        name="forgetful-agent",
        what="an agent that is cut off forgets its view",
        patch=registry.forgetful_agent,
        workload="answers",
        nemesis="kill-all",
        kinds=frozenset({"forgotten"}),
    ),
)

#: Every bug by its name.
BUGS: Final[dict[str, Bug]] = {bug.name: bug for bug in _ALL}
