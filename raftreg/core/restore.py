"""Restores a snapshot through the log: parts are gathered, the last one replaces the tables."""

from __future__ import annotations

import msgspec

from raftreg.core.changes import ALL, Changes
from raftreg.core.commands import RestoreChunk
from raftreg.core.identity import IDENTITY, identity_entry
from raftreg.core.results import Refused
from raftreg.core.snapshot import SnapshotError, restore
from raftreg.core.staging import Staging
from raftreg.core.state import State


def stage(state: State, chunk: RestoreChunk, changes: Changes) -> bool | Refused:
    """Takes one part; whatever is wrong with it drops the whole restore.

    Part 0 starts a restore, also in the place of another one that was under way.
    """
    if chunk.sequence == 0:
        state.staging = Staging(chunk.restore_id, state.time_ms)
    staging = state.staging
    if staging is None:
        return _refused(f"restore: part {chunk.sequence} came first: start again with part 0")
    refusal = staging.refusal(chunk)
    if refusal is not None:
        state.staging = None
        return _refused(refusal)
    staging.add(chunk, state.time_ms)
    if not chunk.last:
        return True
    state.staging = None
    return _finish(state, chunk, staging, changes)


def _finish(state: State, last: RestoreChunk, staging: Staging, changes: Changes) -> bool | Refused:
    if staging.sha256() != last.sha256.lower():
        return _refused("restore: the SHA-256 of the parts differs from the one given")
    try:
        restored = restore(staging.parts)
    except SnapshotError as error:
        return _refused(f"restore: {error}")
    state.replace_content(restored)
    # Named after the restore, whose id nobody else has: no server needs to make one.
    entry = identity_entry(last.restore_id)
    state.config[IDENTITY] = msgspec.structs.replace(
        entry, create_index=state.index, modify_index=state.index
    )
    changes.topics[ALL] = None
    return True


def _refused(message: str) -> Refused:
    return Refused("restore_refused", message, 400)
