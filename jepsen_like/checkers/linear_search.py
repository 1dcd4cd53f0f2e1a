"""The search for a linearization of one object's history.

Wing and Gong ("Testing and verifying concurrent objects", 1993) try operations one after the other
and go back where that leads nowhere; Lowe ("Testing for linearizability", 2017) remembers the
configurations (which operations took place, which state they left) that led nowhere. Here, too; the
rest makes configurations few. Words: a *completed* operation must take place between its call and
its return; an *open* one, whose outcome is unknown, at any time after its call, or never. An
operation is *available* in a configuration when every operation that returned before its call has
taken place. What must take place next at the latest, the completed operation with the earliest
return of those that have not, is *due*. A *completion* of a configuration is an order of the rest
that the model allows; completed operations are all in it, open ones if they are needed.

Six rules leave branches out. For 1 to 4, a completion that begins with a branch left out is turned
into one that begins with a branch kept and has no more open operations. So, by induction over the
number of operations left, a completion is found whenever there is one. By 5 and 6, only what has
none is left out.

1. *What changes nothing comes at once.* An available pure operation that the state allows is taken
   without branching: in any completion it may be moved to the front, where the state is the same,
   and nothing that must precede it is left.
2. *Of equals, the one that returns first.* Let a and b be available with equal actions (up to what
   nobody can tell apart), a returning no later (open: never). In a completion that begins with b,
   exchange them. a is available. What must come after b's return was called after a's return too,
   thus came after a and now comes after b. If a was open and absent then b, returning no earlier,
   is open, and a replaces it.
3. *An open operation must be of use.* Take a completion with the fewest open operations. If it
   begins with an open x that leads from state s to s', then what follows is some y with
   step(s', y) != step(s, y), or x could be left out; y exists, since the last is a completed one.
   y was available before x: x, having no return, precedes nothing. So y is not blind; and not pure
   with a step from s (rule 1 took those). If y needs one state, that is s'. y is completed, or open
   and of use itself: hence the closure in `leading_to`. Exchanging equals (rule 2) keeps the
   number of open operations, and the argument holds for the exchanged completion as well.
4. *What nobody will see comes when it can't be seen.* A *sink* leads, from every state, to one that
   nobody can tell from others, and never will until it is replaced (`models.fold`). Available sinks
   are taken at once in such a state, and right before a write. A completion in which one stands
   later admits, from there to the next write, nothing that asks for a state; without the sink these
   operations are possible all the same, and lead to that write. (With a `Mismatch`, which asks for
   any state but one, that would not hold; where there is one, nothing counts as a sink.) For the
   same reason open sinks are left out, and a configuration with such a state fails if an operation
   that asks for one must come before any write.
5. *More left is no worse.* A configuration that differs from a failed one only by having used more
   open operations fails, too.

6. *What is still asked for is not left.* If a completed operation asks for the state, and nothing
   that is left can lead to it again, an operation that leaves it fails, unless it is the last that
   asks. (`Table.one_way`: sets only grow; texts that tell which operations made them can't be made
   twice. A step to a text that lacks an operation which something that was read names is refused by
   `Table.step` for the same reason: it would take place only once, and unseen.)

An open compare-and-set is thus never taken for a read because it would change nothing just now: it
stays, and may take place later.

Configurations are small: completed operations are numbered by return, those before the due one have
all taken place, so `ahead` need only have bits for the few after it; open operations are numbered
by action, so those used are one integer. States are interned, those that nothing can tell apart as
one, and steps are remembered. Of configurations only those that failed are remembered: one on the
way can't be met again, as every step takes an operation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.linear_table import NOWHERE, Op, OpenOps, Table
from jepsen_like.checkers.models import State

__all__ = ["Op", "Search"]

CHEAP: Final = 16  #: so much of a scan costs as much as a step


class _Frame(msgspec.Struct):
    """A configuration on the way, what is left to try from it, and what was taken to get there."""

    due: int
    ahead: int
    used: int
    state: int
    choices: list[tuple[int, int]]
    taken: list[int]


class Search:
    """Looks for a linearization of the operations on one object, in slices.

    Args:
        ops: The operations, in any order.
        initial: The state that the object began with.

    Attributes:
        linearizable: The answer; None until it is known.
        steps: Configurations tried so far, and scans counted as such.
        farthest: The largest number of completed operations, in the order of their returns, such
            that a configuration was met in which all of them had taken place. A prefix of one more
            need not fail by itself: rule 6 looks ahead.
    """

    def __init__(self, ops: Sequence[Op], initial: State) -> None:
        self.linearizable: bool | None = None
        self.steps = 0
        self.farthest = 0
        completed = [op for op in ops if op.ret is not None]
        # An open read, whatever it would have seen, changes nothing for anybody.
        unknown = [op for op in ops if op.ret is None and not op.action.pure]
        self._completed = sorted(completed, key=lambda op: op.ret or 0)
        self._rets = [op.ret or 0 for op in self._completed]
        self._table = Table((*self._completed, *unknown), initial)
        self._open = OpenOps(unknown, self._table)
        self._action = [self._table.action(op) for op in self._completed]
        self._pure = [op.action.pure for op in self._completed]
        needs, gives = self._table.needs, self._table.gives
        self._blind = [needs[a] == NOWHERE != gives[a] for a in self._action]
        self._write_calls = sorted(
            op.call for op, blind in zip(self._completed, self._blind, strict=True) if blind
        )
        self._askers = self._by_state(needs)
        self._makers = self._by_state(gives)
        self._asking = [n for n, action in enumerate(self._action) if needs[action] != NOWHERE]
        self._arrivals: list[list[int]] = [[] for _ in self._completed]
        for number, op in enumerate(self._completed):
            self._arrivals[bisect_left(self._rets, op.call)].append(number)
        self._near: list[list[int]] = []
        self._failed: dict[tuple[int, int, int], list[int]] = {}
        self._stack: list[_Frame] = []
        self._enter(0, 0, 0, self._table.state(initial), [])

    def _by_state(self, of_action: Sequence[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number, action in enumerate(self._action):
            if of_action[action] != NOWHERE:
                found.setdefault(of_action[action], []).append(number)
        return found

    def run(self, steps_max: int) -> bool | None:
        """Goes on for a number of steps; gives the answer, None if it is still unknown."""
        last = self.steps + steps_max
        while self.linearizable is None and self.steps < last:
            self._advance()
        return self.linearizable

    def order(self) -> list[Op]:
        """The linearization that was found.

        Raises:
            ValueError: There is none (yet).
        """
        if not self.linearizable:
            raise ValueError("no linearization was found")
        completed = len(self._completed)
        return [
            self._completed[number] if number < completed else self._open.ops[number - completed]
            for frame in self._stack
            for number in frame.taken
        ]

    def _advance(self) -> None:
        if not self._stack:
            self.linearizable = False
            return
        frame = self._stack[-1]
        if not frame.choices:
            self._give_up(self._stack.pop())
            return
        self.steps += 1
        number, state = frame.choices.pop()
        opened = number - len(self._completed)
        if opened >= 0:
            self._enter(frame.due, frame.ahead, frame.used | 1 << opened, state, [number])
            return
        taken: list[int] = []
        ahead = frame.ahead
        if self._blind[number]:
            ahead = self._hide(frame.due, ahead, taken)
        bit = 1 << (number - frame.due)
        if not ahead & bit:
            taken.append(number)
        self._enter(frame.due, ahead | bit, frame.used, state, taken)

    def _enter(self, due: int, ahead: int, used: int, state: int, taken: list[int]) -> None:
        """Goes to a configuration, unless it is known to fail."""
        due, ahead = self._settle(due, ahead, state, taken)
        self.farthest = max(self.farthest, due)
        frame = _Frame(due, ahead, used, state, [], taken)
        if due == len(self._completed):
            self.linearizable = True
        else:
            for failed in self._failed.get((due, ahead, state), ()):
                if failed & used == failed:  # rule 5
                    return
            frame.choices = self._choices(frame)
        self._stack.append(frame)

    def _give_up(self, frame: _Frame) -> None:
        known = self._failed.setdefault((frame.due, frame.ahead, frame.state), [])
        known[:] = [used for used in known if frame.used & used != frame.used]
        known.append(frame.used)

    def _settle(self, due: int, ahead: int, state: int, taken: list[int]) -> tuple[int, int]:
        """Takes what comes at once (rules 1 and 4), and finds what is due then."""
        completed = len(self._completed)
        pure, action, step = self._pure, self._action, self._table.step
        while due < completed:
            for number in self._available(due):
                bit = 1 << (number - due)
                if pure[number] and not ahead & bit and step(state, action[number]) == state:
                    ahead |= bit
                    taken.append(number)
            if state == self._table.unseen:
                ahead = self._hide(due, ahead, taken)
            if not ahead & 1:
                break
            done = (~ahead & (ahead + 1)).bit_length() - 1
            due += done
            ahead >>= done
        return due, ahead

    def _hide(self, due: int, ahead: int, taken: list[int]) -> int:
        """Takes what nobody will see (rule 4)."""
        sinks = self._table.sinks
        if sinks:
            for number in self._available(due):
                bit = 1 << (number - due)
                if not ahead & bit and self._action[number] in sinks:
                    ahead |= bit
                    taken.append(number)
        return ahead

    def _available(self, due: int) -> list[int]:
        """Completed operations called before the due one returns, and returning no earlier."""
        near = self._near
        while len(near) <= due:
            number = len(near)
            kept = [other for other in near[-1] if other >= number] if near else []
            near.append(sorted(kept + self._arrivals[number]))
            self.steps += len(kept) // CHEAP
        return near[due]

    def _choices(self, frame: _Frame) -> list[tuple[int, int]]:
        """What may come next, with the state after it; the last is to be tried first."""
        due, ahead, state = frame.due, frame.ahead, frame.state
        left = [n for n in self._available(due) if not ahead >> (n - due) & 1]
        if state == self._table.unseen and self._is_lost(frame, left):
            return []
        tried: set[int] = set()
        choices: list[tuple[int, int]] = []
        for number in left:
            action = self._action[number]
            if self._pure[number] or action in tried:  # rule 2: `left` ascends by return
                continue
            tried.add(action)
            after = self._table.step(state, action)
            if after != NOWHERE:
                choices.append((number, after))
        self._add_open(frame, left, tried, choices)
        staying = self._must_stay(frame)
        if staying:
            choices = [
                (number, after)
                for number, after in choices
                if after == state or staying == [number]
            ]
        unseen = self._table.unseen
        choices.reverse()
        choices.sort(key=lambda choice: choice[1] != unseen)  # a blind alley more often than not
        return choices

    def _must_stay(self, frame: _Frame) -> list[int]:
        """At most two operations that ask for this state, if it can't come back (rule 6)."""
        table, state = self._table, frame.state
        asking = self._left(self._askers.get(state, ()), frame, 2)
        if not asking or table.one_way:
            return asking
        if not table.is_plain or self._left(self._makers.get(state, ()), frame, 1):
            return []
        return [] if self._open.may_make(state, frame.used) else asking

    def _left(self, numbers: Sequence[int], frame: _Frame, most: int) -> list[int]:
        """The first of some operations that have not taken place."""
        found: list[int] = []
        for at in range(bisect_left(numbers, frame.due), len(numbers)):
            if not frame.ahead >> (numbers[at] - frame.due) & 1:
                found.append(numbers[at])
                if len(found) == most:
                    break
        return found

    def _is_lost(self, frame: _Frame, left: list[int]) -> bool:
        """Whether the next to ask for a state comes before any write could make one."""
        at = bisect_left(self._asking, frame.due)
        while at < len(self._asking) and frame.ahead >> (self._asking[at] - frame.due) & 1:
            at += 1
        if at == len(self._asking) or any(self._blind[number] for number in left):
            return False
        until = self._rets[self._asking[at]]
        calls = self._write_calls
        later = bisect_left(calls, self._rets[frame.due])
        if later < len(calls) and calls[later] < until:
            return False
        return not self._open.may_write(until, frame.used)

    def _add_open(
        self, frame: _Frame, left: list[int], tried: set[int], choices: list[tuple[int, int]]
    ) -> None:
        """Open operations that may be of use (rule 3)."""
        before = self._rets[frame.due]
        wanted = self._wanted(left)
        if wanted is None:
            candidates = self._open.available(before, frame.used)
        else:
            candidates = self._open.leading_to(wanted, before, frame.used)
        self.steps += len(candidates) // CHEAP
        for number, action in candidates:
            after = self._table.step(frame.state, action)
            if after in (NOWHERE, frame.state) or action in tried:
                continue
            choices.append((len(self._completed) + number, after))

    def _wanted(self, left: list[int]) -> set[int] | None:
        """States in which a completed operation could be next that now can't; None: any."""
        wanted: set[int] = set()
        for number in left:
            action = self._action[number]
            if self._table.needs[action] != NOWHERE:
                wanted.add(self._table.needs[action])
            elif not self._blind[number]:
                return None
        return wanted
