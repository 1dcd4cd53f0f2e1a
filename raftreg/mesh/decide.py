"""The mesh: all decisions about calls as one pure machine, for the sidecar and the client alike.

    passage = mesh.begin("api", call, now_s)
    while True:
        match passage.step:
            case Send():        send the request; passage.finished(outcome, now_s)
            case Wait():        wait; passage.resume(now_s)
            case Done():        pass the answer on; passage.close(now_s); stop
            case Refusal():     answer with its status and reason; stop
            case Substitute():  answer with what it holds; stop

A configuration is swapped whole: it is built aside, and one that contradicts itself changes
nothing. Calls that run go on under the one they began with; of upstreams that did not change, all
that was learned is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from raftreg.mesh.events import Event
from raftreg.mesh.nouns import Call, Instance, Randomness, Reason
from raftreg.mesh.passage import Passage
from raftreg.mesh.runtime import (
    Generation,
    MeshTable,
    Moment,
    Surroundings,
    Upstream,
    UpstreamConfig,
)
from raftreg.mesh.steps import Done, Refusal, Send, Step, Substitute, Wait, WaitFor
from raftreg.mesh.upstream import TargetState

__all__ = [
    "Done",
    "Mesh",
    "MeshTable",
    "Moment",
    "Passage",
    "Reason",
    "Refusal",
    "Send",
    "Step",
    "Substitute",
    "UnknownUpstream",
    "UpstreamConfig",
    "Wait",
    "WaitFor",
]


class UnknownUpstream(LookupError):
    """The configuration has no upstream of that name."""


class Mesh:
    """Decisions about the calls of one sidecar or client.

    Args:
        rng: Where chance comes from.
        sink: Is told what happens, at once; must not raise.
        table: The configuration to begin with.
        moment: Now.

    Raises:
        MeshConfigError: The configuration contradicts itself.
    """

    def __init__(
        self,
        rng: Randomness,
        sink: Callable[[Event], None],
        *,
        table: MeshTable | None = None,
        moment: Moment,
    ) -> None:
        self._around = Surroundings(rng, sink)
        self._instances: dict[str, tuple[Sequence[Instance], Collection[str]]] = {}
        self._generation = Generation(self._around, 0, {})
        self._earlier: list[Generation] = []
        if table is not None:
            self.configure(table, moment)

    # -- configuration -------------------------------------------------------------------------

    def configure(self, table: MeshTable, moment: Moment) -> None:
        """Swaps the configuration, whole or not at all.

        Args:
            table: The new one.
            moment: Now; ends of faults are counted from it.

        Raises:
            MeshConfigError: It contradicts itself; the one before goes on.
        """
        before = self._generation.upstreams
        upstreams = {
            name: Upstream(name, config, table, self._around, moment, before.get(name))
            for name, config in table.upstreams.items()
        }
        targets = {id_ for upstream in upstreams.values() for id_ in upstream.targets}
        self._instances = {id_: found for id_, found in self._instances.items() if id_ in targets}
        for name, upstream in upstreams.items():
            known = before[name].targets.values() if name in before else ()
            self._fill(upstream, set(map(id, known)), moment.now_s)
        self._earlier = [each for each in (*self._earlier, self._generation) if each.calls]
        self._generation = Generation(self._around, table.revision, upstreams)

    def update(
        self,
        target_id: str,
        instances: Sequence[Instance],
        now_s: float,
        critical: Collection[str] = (),
    ) -> None:
        """Replaces the instances of a target, in all upstreams that lead to it.

        Args:
            target_id: Its id; one that the configuration does not have is ignored.
            instances: All that meet its filter.
            now_s: Monotonic seconds.
            critical: Keys of those whose checks fail.
        """
        states = [
            state
            for generation in (*self._earlier, self._generation)
            for upstream in generation.upstreams.values()
            if (state := upstream.targets.get(target_id)) is not None
        ]
        for state in {id(each): each for each in states}.values():
            state.update(state.target.members(instances), now_s, critical)
        if states:
            self._instances[target_id] = (tuple(instances), frozenset(critical))

    def _fill(self, upstream: Upstream, known: Collection[int], now_s: float) -> None:
        """Gives targets that are new the instances that are known."""
        for id_, state in upstream.targets.items():
            if id(state) not in known and id_ in self._instances:
                instances, critical = self._instances[id_]
                state.update(state.target.members(instances), now_s, critical)

    # -- calls ---------------------------------------------------------------------------------

    def begin(
        self,
        upstream: str,
        call: Call,
        now_s: float,
        *,
        request_target: str = "",
        wake: Callable[[], None] | None = None,
    ) -> Passage:
        """A call begins; its `step` says what is to be done.

        Args:
            upstream: What is called.
            call: The call.
            now_s: Monotonic seconds.
            request_target: Path and query as they were sent; last good answers are kept by it.
            wake: Is called when a wait for a place ends early; must do no more than note that
                `resume` is due. None: `resume` is asked at the end of the wait alone.

        Raises:
            UnknownUpstream: The configuration has none of that name.
        """
        generation = self._generation
        found = generation.upstreams.get(upstream)
        if found is None:
            raise UnknownUpstream(upstream)
        generation.calls += 1
        return Passage(found, call, request_target, generation, wake, now_s)

    # -- time ----------------------------------------------------------------------------------

    def sweep(self, now_s: float) -> None:
        """Does what is due: instances return, rates are looked at, waits are learned.

        For a timer of about a second; calls do not depend on it.
        """
        for state in self.targets():
            state.sweep(now_s)
        for upstream in self._generation.upstreams.values():
            if upstream.learner is not None:
                upstream.learner.turn(now_s)

    # -- what is shown -------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Which configuration is in use."""
        return self._generation.revision

    @property
    def calls(self) -> int:
        """Calls that are not over, those under earlier configurations too."""
        return self._generation.calls + sum(each.calls for each in self._earlier)

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """Upstreams by name."""
        return self._generation.upstreams

    def targets(self) -> Iterator[TargetState]:
        """All targets in use."""
        for upstream in self._generation.upstreams.values():
            yield from upstream.targets.values()
