"""Exactly once: what was acknowledged took effect once, however often it was sent.

Vocabulary: f `append` (or `increment`) with a key and, as value, an id that no other operation of
the key has; the client repeats it under one request id, over servers, until it knows the outcome. f
`read` gives what a key holds: the list of the ids in the order in which they took effect, or, where
effects are only counted, their number.

Of each key:

* no id stands twice in a read (`applied-twice`), and none that nobody appended or whose append
  failed (`phantom`), or was invoked only after the read's end (`from-the-future`);
* a read holds every append acknowledged before it was invoked (`lost`);
* lists only grow: of two reads one begins with the other (`forked`), and one that is invoked after
  the other's end is no shorter (`shrunk`);
* a number lies between the appends acknowledged before the read was invoked and those invoked
  before its end that did not fail.

The verdict is UNKNOWN if nothing was acknowledged, or if an acknowledged append was followed by no
read of its key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.history import Event, MalformedHistory, Operation, Type, operations

ANOMALIES_MAX: Final = 100
NAMED_MAX: Final = 5
_EFFECTS: Final = frozenset({"append", "increment"})


class _Effect(msgspec.Struct, frozen=True):
    """An append; `ret` is the end of the history's indexes if it never ended."""

    ident: int | str
    type: Type
    call: int
    ret: int


class _Seen(msgspec.Struct, frozen=True):
    """A read."""

    key: str | None
    call: int
    ret: int
    node: str | None
    ids: tuple[int | str, ...] | None
    number: int


class _Key(msgspec.Struct):
    """All that happened to a key."""

    effects: list[_Effect] = []
    reads: list[_Seen] = []


def check_once(events: Sequence[Event]) -> Verdict:
    """Judges a history of appends that were repeated until known.

    Args:
        events: The history; event i has index i.

    Raises:
        MalformedHistory: It breaks the rules of histories, or of the vocabulary above.
    """
    keys: dict[str | None, _Key] = {}
    for operation in operations(events):
        _add(keys.setdefault(operation.invoke.key, _Key()), operation, len(events))
    anomalies: list[Anomaly] = []
    for of_key in keys.values():
        for anomaly in _anomalies(of_key):
            if len(anomalies) < ANOMALIES_MAX:
                anomalies.append(anomaly)
    acknowledged = sum(e.type is Type.OK for of_key in keys.values() for e in of_key.effects)
    unread = sum(_unread(of_key) for of_key in keys.values())
    figures = {
        "keys": len(keys),
        "operations": sum(len(k.effects) + len(k.reads) for k in keys.values()),
        "acknowledged": acknowledged,
        "unknown": sum(e.type is Type.INFO for k in keys.values() for e in k.effects),
        "reads": sum(len(k.reads) for k in keys.values()),
    }
    if anomalies:
        return Verdict("once", Valid.FALSE, tuple(anomalies), "", figures)
    if not acknowledged:
        return Verdict("once", Valid.UNKNOWN, (), "nothing was acknowledged", figures)
    if unread:
        why = f"no read followed {unread} acknowledged appends"
        return Verdict("once", Valid.UNKNOWN, (), why, figures)
    return Verdict("once", Valid.TRUE, (), "", figures)


def _add(of_key: _Key, operation: Operation, end: int) -> None:
    invoke, completion = operation.invoke, operation.completion
    if invoke.f in _EFFECTS:
        if not isinstance(invoke.value, (int, str)):
            raise MalformedHistory(f"event {invoke.index}: an {invoke.f} needs an id")
        ret = end if completion is None else completion.index
        of_key.effects.append(_Effect(invoke.value, operation.type, invoke.index, ret))
    elif invoke.f != "read":
        raise MalformedHistory(f"event {invoke.index}: no operation of this workload: {invoke.f}")
    elif completion is not None and completion.type is Type.OK:
        of_key.reads.append(_seen(invoke, completion))


def _seen(invoke: Event, completion: Event) -> _Seen:
    value = [] if completion.value is None else completion.value
    where = (invoke.key, invoke.index, completion.index, completion.node)
    if isinstance(value, int):
        return _Seen(*where, None, value)
    if not isinstance(value, list) or not all(isinstance(one, (int, str)) for one in value):
        raise MalformedHistory(f"event {completion.index}: a read gives ids or their number")
    return _Seen(*where, tuple(value), len(value))


def _unread(of_key: _Key) -> int:
    """Acknowledged appends after which nobody read."""
    last = max((read.call for read in of_key.reads), default=-1)
    return sum(e.type is Type.OK and e.ret > last for e in of_key.effects)


def _anomalies(of_key: _Key) -> Iterator[Anomaly]:
    effects: dict[int | str, _Effect] = {}
    for effect in of_key.effects:
        if effects.setdefault(effect.ident, effect) is not effect:
            raise MalformedHistory(f"event {effect.call}: id {effect.ident} was used before")
    reported: set[tuple[str, object]] = set()
    for read in of_key.reads:
        found = _of_number(of_key, read) if read.ids is None else _of_list(effects, read)
        for about, anomaly in found:  # one report of each, not one a read
            if (anomaly.kind, about) not in reported:
                reported.add((anomaly.kind, about))
                yield anomaly
    yield from _of_pairs([read for read in of_key.reads if read.ids is not None])


def _of_number(of_key: _Key, read: _Seen) -> Iterator[tuple[object, Anomaly]]:
    least = sum(e.type is Type.OK and e.ret < read.call for e in of_key.effects)
    most = sum(e.type is not Type.FAIL and e.call < read.ret for e in of_key.effects)
    shown = (read.call, read.ret)
    if read.number < least:
        text = f"{_name(read)} counts {read.number} of {least} acknowledged before it"
        yield read.call, Anomaly("lost", text, shown)
    if read.number > most:
        text = f"{_name(read)} counts {read.number}, though only {most} can have taken effect"
        yield read.call, Anomaly("applied-twice", text, shown)


def _of_list(effects: dict[int | str, _Effect], read: _Seen) -> Iterator[tuple[object, Anomaly]]:
    shown = (read.call, read.ret)
    counts = Counter(read.ids)
    for ident, count in counts.items():
        effect = effects.get(ident)
        if effect is None or effect.type is Type.FAIL:
            why = "which nobody appended" if effect is None else "whose append failed"
            yield ident, Anomaly("phantom", f"{_name(read)} holds {ident}, {why}", shown)
            continue
        events = _ascending(shown, effect)
        if effect.call > read.ret:
            text = f"{_name(read)} holds {ident}, which was appended only afterwards"
            yield ident, Anomaly("from-the-future", text, events)
        if count > 1:
            text = f"{_name(read)} holds {ident} {count} times: it took effect more than once"
            yield ident, Anomaly("applied-twice", text, events)
    for ident, effect in effects.items():
        if effect.type is Type.OK and effect.ret < read.call and ident not in counts:
            text = f"{_name(read)} lacks {ident}, whose append was acknowledged before"
            yield ident, Anomaly("lost", text, _ascending(shown, effect))


def _of_pairs(reads: Sequence[_Seen]) -> Iterator[Anomaly]:
    """Lists only grow, and later reads are no shorter."""
    by_size = sorted(reads, key=lambda read: read.number)
    for shorter, longer in pairwise(by_size):
        if (longer.ids or ())[: shorter.number] != shorter.ids:
            text = f"{_name(longer)} does not begin with what {_name(shorter)} showed"
            yield Anomaly("forked", text, _both(shorter, longer))
            return
    by_ret = sorted(reads, key=lambda read: read.ret)
    rets = [read.ret for read in by_ret]
    longest = list[_Seen]()
    for read in by_ret:
        longest.append(max(longest[-1], read, key=lambda r: r.number) if longest else read)
    for read in reads:
        before = bisect_left(rets, read.call)
        if before and longest[before - 1].number > read.number:
            earlier = longest[before - 1]
            text = f"{_name(read)} is shorter than {_name(earlier)}, which had ended before"
            yield Anomaly("shrunk", text, _both(earlier, read))
            return


def _name(read: _Seen) -> str:
    at = f" at {read.node}" if read.node else ""
    return f"the read of {read.key}{at} (event {read.ret})"


def _ascending(shown: tuple[int, int], effect: _Effect) -> tuple[int, ...]:
    ended = () if effect.type is Type.INFO else (effect.ret,)
    return tuple(sorted((*shown, effect.call, *ended)))


def _both(one: _Seen, other: _Seen) -> tuple[int, ...]:
    return tuple(sorted((one.call, one.ret, other.call, other.ret)))
