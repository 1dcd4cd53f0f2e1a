"""Locks held by sessions, with fencing tokens.

Vocabulary. A session's id never comes twice; the id is in every value, because a worker may go on
with its session under a new process number.

* `acquire`: invocation `{"lock": name, "session": id}`; OK `{"lock", "session", "token": int}`. The
  token is the lock key's LockIndex, read back (linearizably) with the key still held by the session
  before the operation completes. FAIL: somebody else holds it, or it is in its lock delay. A worker
  does not acquire what it holds, but may repeat an acquire that ended INFO with the same session.
* `release`: `{"lock", "session", "token"}`. OK: it was held and is free. FAIL: the session did not
  hold it any more. Lock keys are never deleted (sessions of behavior "release"): tokens only rise.
* `renew`: `{"session"}`. OK: the session is alive. FAIL: it is gone (404).
* `destroy`: `{"session", "delay_s": number}`: the session is destroyed, most often while it holds a
  lock; `delay_s` is its lock delay (0 for none). OK: it is gone.
* `guarded`: `{"lock", "session", "token"}`, a write to the resource that the lock protects. The
  resource is a key whose value names the highest token it has seen: the client reads it
  (linearizably), gives up with FAIL when that is higher than its own, and else writes its own token
  by check-and-set at the ModifyIndex that it read. OK: accepted; `raft_index` of the completion is
  that of the write, where known. FAIL: refused (also a check-and-set that did not hold). Workers go
  on trying `guarded` with tokens of locks that they have lost: that is the point.

`final`: for each lock, after everything is healed, a new session does `acquire` with `"final":
true` in the value of the invocation, tried again until it is OK; sessions of dead workers have TTLs
that end within the runner's patience.

Rules:

* stale-token: the resource accepts no token after it accepted a higher one (in the order of
  `raft_index`, and in real time where that is missing).
* token-twice: two sessions never get the same token of a lock.
* token-backwards: who acquires after another had acquired gets a higher token.
* two-holders: a lock is not acquired by a second session while the first holds it and lives: shown
  by a `renew` of the first that began after the second had acquired and was OK, or by its `release`
  that was OK and began after that, though it never gave the lock back before.
* lock-delay: a lock whose holder was destroyed is not acquired before `delay_s` has passed since
  the session was last known to live (it acquired, or was renewed).
* stuck-lock: the last final acquire of each lock is OK.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.findings import Findings, completed, outcomes, value_of
from jepsen_like.checkers.verdict import Verdict
from jepsen_like.history import Event, Operation, Type, operations

_NEVER: Final = 1 << 62
_NS: Final = 1_000_000_000


class _Value(msgspec.Struct, frozen=True):
    """The value of any of the operations."""

    session: str
    lock: str = ""
    token: int = 0
    delay_s: float = 0.0
    final: bool = False


class _Act(msgspec.Struct, frozen=True):
    """An operation with its value read: that of the completion where it was acknowledged."""

    operation: Operation
    value: _Value

    @property
    def start(self) -> int:
        return self.operation.invoke.index

    @property
    def end(self) -> int:
        return completed(self.operation).index

    @property
    def events(self) -> tuple[Event, Event | None]:
        return self.operation.invoke, self.operation.completion

    @property
    def ok(self) -> bool:
        return self.operation.type is Type.OK


class _Sessions:
    """What is known of the sessions: when they lived, and what they gave back."""

    def __init__(self, acts: dict[str, list[_Act]]) -> None:
        #: When each was alive: beginnings of what only a live session can do.
        self.alive: dict[str, list[Event]] = defaultdict(list)
        for act in sorted(acts["acquire"] + acts["renew"], key=lambda act: act.start):
            if act.ok:
                self.alive[act.value.session].append(act.operation.invoke)
        self._releases: dict[tuple[str, str], list[_Act]] = defaultdict(list)
        #: First release of unknown outcome: it may take effect at any time after.
        self._loose: dict[tuple[str, str], int] = {}
        for act in sorted(acts["release"], key=lambda act: act.start):
            place = (act.value.session, act.value.lock)
            if act.operation.type is not Type.FAIL:
                self._releases[place].append(act)
            if act.operation.type is Type.INFO:
                self._loose.setdefault(place, act.start)

    def given_back(self, tenure: _Act) -> tuple[int, _Act | None]:
        """When the holder began to give the lock back by itself, and how.

        Returns:
            Index of the event (that of the acquisition when an earlier release may take effect at
            any time, `_NEVER` when it did not), and the release.
        """
        place = (tenure.value.session, tenure.value.lock)
        if self._loose.get(place, _NEVER) < tenure.start:
            return tenure.start, None
        releases = self._releases.get(place, [])
        at = bisect_right(releases, tenure.start, key=lambda act: act.start)
        return (releases[at].start, releases[at]) if at < len(releases) else (_NEVER, None)


def check_lock(events: Sequence[Event]) -> Verdict:
    """Checks locks; see the module for vocabulary and rules.

    Raises:
        MalformedHistory: A value has another shape.
    """
    found = Findings("lock")
    acts = _acts(operations(events))
    found.figures = outcomes(act.operation for act in acts["acquire"]) | {
        "guarded": sum(act.ok for act in acts["guarded"]),
        "refused": sum(act.operation.type is Type.FAIL for act in acts["guarded"]),
    }
    sessions = _Sessions(acts)
    tenures = _by_lock([act for act in acts["acquire"] if act.ok])
    for lock, held in sorted(tenures.items()):
        _check_tokens(found, lock, held)
        _check_holders(found, lock, held, sessions)
    for lock, writes in sorted(_by_lock([act for act in acts["guarded"] if act.ok]).items()):
        _check_fence(found, lock, writes)
    _check_delays(found, acts["destroy"], tenures, sessions)
    _check_stuck(found, acts["acquire"], tenures)
    if not tenures:
        found.unknown("no lock was acquired")
    if not found.figures["guarded"]:
        found.unknown("no guarded write was accepted")
    return found.verdict()


def _acts(everything: Sequence[Operation]) -> dict[str, list[_Act]]:
    acts: dict[str, list[_Act]] = defaultdict(list)
    for operation in everything:
        told = completed(operation) if operation.type is Type.OK else operation.invoke
        value: _Value = value_of(told, _Value)
        if operation.type is Type.OK and operation.invoke.f == "destroy":
            value = value_of(operation.invoke, _Value)
        acts[operation.invoke.f].append(_Act(operation, value))
    return acts


def _by_lock(acts: Sequence[_Act]) -> dict[str, list[_Act]]:
    """By lock, each in the order of beginnings."""
    found: dict[str, list[_Act]] = defaultdict(list)
    for act in acts:
        found[act.value.lock].append(act)
    return found


def _earlier_maximum(
    acts: Sequence[_Act], weight: Callable[[_Act], int]
) -> list[tuple[_Act, _Act | None]]:
    """For each act, the one of the highest weight among those that ended before it began."""
    by_end = sorted(acts, key=lambda act: act.end)
    pairs: list[tuple[_Act, _Act | None]] = []
    highest: _Act | None = None
    at = 0
    for act in acts:
        while at < len(by_end) and by_end[at].end < act.start:
            if highest is None or weight(by_end[at]) > weight(highest):
                highest = by_end[at]
            at += 1
        pairs.append((act, highest))
    return pairs


def _check_tokens(found: Findings, lock: str, held: list[_Act]) -> None:
    first: dict[int, _Act] = {}
    for act in held:
        other = first.setdefault(act.value.token, act)
        if other.value.session != act.value.session:
            message = (
                f"sessions {other.value.session} and {act.value.session} both got token "
                f"{act.value.token} of lock {lock}"
            )
            found.add("token-twice", message, *other.events, *act.events)
    for act, before in _earlier_maximum(held, lambda act: act.value.token):
        if before is not None and act.value.token < before.value.token:
            message = (
                f"lock {lock} gave token {act.value.token} after it had given {before.value.token}"
            )
            found.add("token-backwards", message, before.events[1], *act.events)


def _check_fence(found: Findings, lock: str, writes: list[_Act]) -> None:
    reported = set()
    for act, before in _earlier_maximum(writes, lambda act: act.value.token):
        if before is not None and act.value.token < before.value.token:
            reported.add(act.start)
            _report_stale(found, lock, before, act)
    indexed = [act for act in writes if act.operation.raft_index is not None]
    indexed.sort(key=lambda act: act.operation.raft_index or 0)
    highest: _Act | None = None
    for act in indexed:
        if highest is None or act.value.token >= highest.value.token:
            highest = act
        elif act.start not in reported:
            _report_stale(found, lock, highest, act)


def _report_stale(found: Findings, lock: str, before: _Act, act: _Act) -> None:
    message = (
        f"the resource of lock {lock} accepted token {act.value.token} of session "
        f"{act.value.session} after token {before.value.token} of {before.value.session}"
    )
    found.add("stale-token", message, *before.events, *act.events)


def _check_holders(found: Findings, lock: str, held: list[_Act], sessions: _Sessions) -> None:
    """Looks for a second holder while the first provably held on."""
    starts = [act.start for act in held]
    soonest = _soonest(held)
    for act in held:
        given_back, release = sessions.given_back(act)
        proof = _last_proof(act, given_back, release, sessions)
        after = bisect_left(starts, act.end)
        if proof is None or after == len(held):
            continue
        second = next((s for s in soonest[after] if s.value.session != act.value.session), None)
        if second is not None and second.end < min(given_back, proof.index):
            message = (
                f"session {second.value.session} acquired lock {lock} while "
                f"{act.value.session} held it"
            )
            found.add("two-holders", message, act.events[1], *second.events, proof)


def _soonest(held: list[_Act]) -> list[tuple[_Act, ...]]:
    """For each position, of the acts from there on, the two sessions' that ended first."""
    best: tuple[_Act, ...] = ()
    found: list[tuple[_Act, ...]] = []
    for act in reversed(held):
        others = [b for b in best if b.value.session != act.value.session]
        mine = [b for b in best if b.value.session == act.value.session]
        both = sorted([min([act, *mine], key=lambda a: a.end), *others], key=lambda a: a.end)
        best = tuple(both[:2])
        found.append(best)
    found.reverse()
    return found


def _last_proof(
    act: _Act, given_back: int, release: _Act | None, sessions: _Sessions
) -> Event | None:
    """The last event that shows that the holder, if it did not give the lock back, held it."""
    if release is not None and release.ok:
        return release.operation.invoke
    alive = sessions.alive[act.value.session]
    return alive[-1] if alive and alive[-1].index > act.end and given_back > act.end else None


def _check_delays(
    found: Findings, destroys: list[_Act], tenures: dict[str, list[_Act]], sessions: _Sessions
) -> None:
    held_by: dict[str, list[_Act]] = defaultdict(list)
    for held in tenures.values():
        for act in held:
            held_by[act.value.session].append(act)
    for destroy in destroys:
        if destroy.operation.type is Type.FAIL or destroy.value.delay_s <= 0:
            continue
        for act in held_by[destroy.value.session]:
            if sessions.given_back(act)[0] == _NEVER and act.end < destroy.start:
                _check_delay(found, destroy, act, tenures[act.value.lock], sessions)


def _check_delay(
    found: Findings, destroy: _Act, act: _Act, held: list[_Act], sessions: _Sessions
) -> None:
    alive = sessions.alive[act.value.session]
    last = alive[bisect_left(alive, destroy.start, key=lambda event: event.index) - 1]
    free_ns = last.time_ns + int(destroy.value.delay_s * _NS)
    for second in held[bisect_left(held, act.end, key=lambda other: other.start) :]:
        if second.operation.invoke.time_ns >= free_ns:
            return
        is_other = second.value.session != act.value.session
        if is_other and completed(second.operation).time_ns < free_ns:
            message = (
                f"lock {act.value.lock} was acquired within the lock delay of "
                f"{destroy.value.delay_s:g} s after the end of {act.value.session}"
            )
            found.add("lock-delay", message, last, destroy.events[0], *second.events)
            return


def _check_stuck(found: Findings, acquires: list[_Act], tenures: dict[str, list[_Act]]) -> None:
    last: dict[str, _Act] = {}
    for act in acquires:
        if value_of(act.operation.invoke, _Value).final:
            last[act.value.lock] = act
    for lock, act in sorted(last.items()):
        if not act.ok:
            message = f"lock {lock} could not be acquired at the end: {_why(act)}"
            found.add("stuck-lock", message, *act.events)
    missing = sorted(tenures.keys() - last.keys())
    if missing:
        found.unknown(f"no final acquire of {', '.join(missing[:8])}")


def _why(act: _Act) -> str:
    completion = act.operation.completion
    return "no answer" if completion is None else completion.error or "refused"
