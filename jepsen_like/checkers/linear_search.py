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

Four rules leave branches out. For each, a completion that begins with a branch left out is turned
into one that begins with a branch kept and has no more open operations. So, by induction over the
number of operations left, a completion is found whenever there is one.

1. *What changes nothing comes at once.* An available pure operation that the state allows is taken
   without branching: in any completion it may be moved to the front, where the state is the same,
   and nothing that must precede it is left.
2. *Of equals, the one that returns first.* Let a and b be available with equal actions, a returning
   no later (open: never). In a completion that begins with b, exchange them. a is available. What
   must come after b's return was called after a's return too, thus came after a and now comes after
   b. If a was open and absent then b, returning no earlier, is open, and a replaces it.
3. *An open operation must be of use.* Take a completion with the fewest open operations. If it
   begins with an open x that leads from state s to s', then what follows is some y with
   step(s', y) != step(s, y), or x could be left out; y exists, since the last is a completed one.
   y was available before x: x, having no return, precedes nothing. So y is not blind; and not pure
   with a step from s (rule 1 took those). If y needs one state, that is s'. y is completed, or open
   and of use itself: hence the closure in `leading_to`. Exchanging equals (rule 2) keeps the
   number of open operations, and the argument holds for the exchanged completion as well.
4. *More left is no worse.* A configuration that differs from a failed one only by having used more
   open operations fails, too.

An open compare-and-set is thus never taken for a read because it would change nothing just now: it
stays, and may take place later.

Configurations are small: completed operations are numbered by return, those before the due one have
all taken place, so `ahead` need only have bits for the few after it; open operations are numbered
by action, so those used are one integer. States are interned, steps remembered. Only configurations
that failed are remembered: one on the way can't be met again, as every step takes an operation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

from jepsen_like.checkers.models import ANY, IMPOSSIBLE, Action, State

_NOWHERE: Final = -1
_CHEAP: Final = 16  #: so much of a scan costs as much as a step


class Op(msgspec.Struct, frozen=True):
    """One operation on one object.

    Attributes:
        action: What it did, with the result that was seen.
        call: Position of its invocation in the history.
        ret: Position of its return, after `call`; None if its outcome never became known.
        index: The position in the replicated log that the answer told, if it told one.
    """

    action: Action
    call: int
    ret: int | None
    index: int | None = None


class _Frame(msgspec.Struct):
    """A configuration on the way, and what is left to try from it."""

    due: int
    ahead: int
    used: int
    state: int
    choices: list[tuple[int, int]]
    taken: list[int]


class _States:
    """States by number, and the steps between them."""

    def __init__(self) -> None:
        self.values: list[State] = []
        self.steps: list[dict[int, int]] = []
        self._numbers: dict[tuple[type, State], int] = {}
        self._actions: list[Action] = []

    def number(self, state: State) -> int:
        # the type too: True is not 1
        found = self._numbers.setdefault((type(state), state), len(self.values))
        if found == len(self.values):
            self.values.append(state)
            self.steps.append({})
        return found

    def define(self, actions: Sequence[Action]) -> None:
        self._actions = list(actions)

    def step(self, state: int, action: int) -> int:
        known = self.steps[state]
        after = known.get(action)
        if after is None:
            value = self._actions[action].step(self.values[state])
            after = known[action] = _NOWHERE if value is IMPOSSIBLE else self.number(value)
        return after


class Search:
    """Looks for a linearization of the operations on one object, in slices.

    Args:
        ops: The operations, in any order.
        initial: The state that the object began with.

    Attributes:
        linearizable: The answer; None until it is known.
        steps: Configurations tried so far.
        farthest: The largest number of completed operations, in the order of their returns, such
            that a configuration was met in which all of them had taken place.
        remembered: Failed configurations in memory.
    """

    def __init__(self, ops: Sequence[Op], initial: State) -> None:
        self.linearizable: bool | None = None
        self.steps = 0
        self.farthest = 0
        self.remembered = 0
        self._states = _States()
        self._completed = sorted(
            (op for op in ops if op.ret is not None), key=lambda op: op.ret or 0
        )
        # An open read, whatever it would have seen, changes nothing for anybody.
        unknown = [op for op in ops if op.ret is None and not op.action.pure]
        classes: dict[Action, int] = {}
        for op in (*self._completed, *unknown):
            classes.setdefault(op.action, len(classes))
        self._states.define(list(classes))
        self._action = [classes[op.action] for op in self._completed]
        self._pure = [op.action.pure for op in self._completed]
        self._needs = {number: self._known(a.needs) for a, number in classes.items()}
        self._gives = {number: self._known(a.gives) for a, number in classes.items()}
        self._rets = [op.ret or 0 for op in self._completed]
        self._arrivals = self._arrange()
        self._near: list[list[int]] = []
        self._open = _OpenOps(unknown, classes, self._needs, self._gives)
        self._failed: dict[tuple[int, int, int], list[int]] = {}
        self._stack: list[_Frame] = []
        self._enter(0, 0, 0, self._states.number(initial), [])

    def _known(self, state: State) -> int:
        return _NOWHERE if state is ANY else self._states.number(state)

    def _arrange(self) -> list[list[int]]:
        """For each due operation, those that become available with it."""
        arrivals: list[list[int]] = [[] for _ in self._completed]
        for number, op in enumerate(self._completed):
            arrivals[bisect_left(self._rets, op.call)].append(number)
        return arrivals

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
        else:
            ahead = frame.ahead | 1 << (number - frame.due)
            self._enter(frame.due, ahead, frame.used, state, [number])

    def _enter(self, due: int, ahead: int, used: int, state: int, taken: list[int]) -> None:
        """Goes to a configuration, unless it is known to fail."""
        due, ahead = self._settle(due, ahead, state, taken)
        self.farthest = max(self.farthest, due)
        frame = _Frame(due, ahead, used, state, [], taken)
        if due == len(self._completed):
            self.linearizable = True
        else:
            for failed in self._failed.get((due, ahead, state), ()):
                if failed & used == failed:  # rule 4
                    return
            frame.choices = self._choices(frame)
        self._stack.append(frame)

    def _give_up(self, frame: _Frame) -> None:
        key = (frame.due, frame.ahead, frame.state)
        known = self._failed.setdefault(key, [])
        known[:] = [used for used in known if frame.used & used != frame.used]
        known.append(frame.used)
        self.remembered += 1

    def _settle(self, due: int, ahead: int, state: int, taken: list[int]) -> tuple[int, int]:
        """Takes what changes nothing (rule 1), and finds what is due then."""
        completed = len(self._completed)
        pure, action, step = self._pure, self._action, self._states.step
        fresh = self._available(due) if due < completed else ()
        while True:
            for number in fresh:
                bit = 1 << (number - due)
                if pure[number] and not ahead & bit and step(state, action[number]) == state:
                    ahead |= bit
                    taken.append(number)
            if not ahead & 1:
                return due, ahead
            done = (~ahead & (ahead + 1)).bit_length() - 1
            due += done
            ahead >>= done
            if due == completed:
                return due, ahead
            fresh = self._available(due)

    def _available(self, due: int) -> list[int]:
        """Completed operations called before the due one returns, and returning no earlier."""
        near = self._near
        while len(near) <= due:
            number = len(near)
            kept = [other for other in near[-1] if other >= number] if near else []
            near.append(sorted(kept + self._arrivals[number]))
            self.steps += len(kept) // _CHEAP
        return near[due]

    def _choices(self, frame: _Frame) -> list[tuple[int, int]]:
        """What may come next, with the state after it; the last is to be tried first."""
        due, ahead, state = frame.due, frame.ahead, frame.state
        left = [n for n in self._available(due) if not ahead >> (n - due) & 1]
        tried: set[int] = set()
        choices: list[tuple[int, int]] = []
        for number in left:
            action = self._action[number]
            if self._pure[number] or action in tried:  # rule 2: `left` ascends by return
                continue
            tried.add(action)
            after = self._states.step(state, action)
            if after != _NOWHERE:
                choices.append((number, after))
        self._add_open(frame, left, tried, choices)
        choices.reverse()
        return choices

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
        self.steps += len(candidates) // _CHEAP
        for number, action in candidates:
            after = self._states.step(frame.state, action)
            if after in (_NOWHERE, frame.state) or action in tried:
                continue
            choices.append((len(self._completed) + number, after))

    def _wanted(self, left: list[int]) -> set[int] | None:
        """States in which a completed operation could be next that now can't; None: any."""
        wanted: set[int] = set()
        for number in left:
            action = self._action[number]
            if self._needs[action] != _NOWHERE:
                wanted.add(self._needs[action])
            elif self._pure[number] or self._gives[action] == _NOWHERE:
                return None
        return wanted


class _Kind(msgspec.Struct):
    """Open operations with the same action: consecutive numbers, ascending by call."""

    action: int
    first: int
    mask: int
    calls: list[int]
    needs: int

    def next(self, before: int, used: int) -> tuple[int, int] | None:
        """Number and action of the first unused one, if it was called before a position."""
        at = (used >> self.first & self.mask).bit_length()
        if at < len(self.calls) and self.calls[at] < before:
            return self.first + at, self.action
        return None


class _OpenOps:
    """Operations without a return."""

    def __init__(
        self,
        ops: Sequence[Op],
        classes: dict[Action, int],
        needs: dict[int, int],
        gives: dict[int, int],
    ) -> None:
        by_action: dict[int, list[Op]] = {}
        for op in sorted(ops, key=lambda op: op.call):
            by_action.setdefault(classes[op.action], []).append(op)
        self.ops: list[Op] = []
        self._kinds: list[_Kind] = []
        self._giving: dict[int, list[_Kind]] = {}
        for action, same in by_action.items():
            calls = [op.call for op in same]
            kind = _Kind(action, len(self.ops), (1 << len(same)) - 1, calls, needs[action])
            self.ops.extend(same)
            self._kinds.append(kind)
            self._giving.setdefault(gives[action], []).append(kind)

    def available(self, before: int, used: int) -> list[tuple[int, int]]:
        """The first unused one of each kind, as number and action, called before a position."""
        found = []
        for kind in self._kinds:  # ascending by first call
            if kind.calls[0] >= before:
                break
            if one := kind.next(before, used):
                found.append(one)
        return found

    def leading_to(self, wanted: set[int], before: int, used: int) -> list[tuple[int, int]]:
        """Of `available`, those after which something wants to be next.

        That is a completed operation, or an open one which leads on to what is wanted. Those whose
        effect depends on the state before may be followed by anything.
        """
        if _NOWHERE in self._giving:
            return self.available(before, used)
        found, closed, waiting = [], set(wanted), list(wanted)
        while waiting:
            for kind in self._giving.get(waiting.pop(), ()):
                one = kind.next(before, used)
                if one is None:
                    continue
                found.append(one)
                if kind.needs != _NOWHERE and kind.needs not in closed:
                    closed.add(kind.needs)
                    waiting.append(kind.needs)
        return sorted(found)
