"""Fallback: what a caller gets instead when the mesh can't reach an upstream.

Steps are tried in order: another service, a fixed answer, the last good answer. A denial, a bad
request or a call out of time has no fallback; whoever configures one for a denial would hand out by
the back door what intentions keep.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

import msgspec

from raftreg.mesh.checked import within
from raftreg.mesh.last_good import Answer, LastGood, LastGoodSettings
from raftreg.mesh.nouns import Call, MeshConfigError, Reason
from raftreg.mesh.retry_on import IDEMPOTENT

#: Tells the caller, and metrics, that an answer is a substitute, and which one.
FALLBACK_HEADER = "x-raftreg-fallback"

_STEPS_MAX = 8
_ALLOWED = frozenset(
    {
        Reason.NO_INSTANCE,
        Reason.CIRCUIT_OPEN,
        Reason.OVERLOAD,
        Reason.UPSTREAM_FAILED,
        Reason.DEADLINE,
    }
)


class OtherService(msgspec.Struct, frozen=True, kw_only=True, tag="service"):
    """The call goes to another service.

    Attributes:
        service: Its name.
        subset: One of its subsets; "": its default.
        even_if_sent: Also when the first one may have acted on a call that is not idempotent.
    """

    service: str
    subset: str = ""
    even_if_sent: bool = False

    def __post_init__(self) -> None:
        """Checks that there is a name."""
        if not self.service:
            raise MeshConfigError("service: must name the service to fall back to")


class FixedAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """The mesh answers itself, always the same.

    Attributes:
        answer: The answer.
    """

    answer: Answer

    def __post_init__(self) -> None:
        """Checks status, size, and that no header breaks the answer apart."""
        within("answer.status", self.answer.status, 200, 599)
        within("answer.body", len(self.answer.body), 0, 1_048_576)
        within("answer.headers", len(self.answer.headers), 0, 64)
        for name, value in self.answer.headers:
            if not name or any(c in name + value for c in "\r\n\0"):
                raise MeshConfigError(f"answer.headers: {name!r} holds what no header line may")


Step = OtherService | FixedAnswer | LastGoodSettings


class FallbackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried, and when.

    Attributes:
        steps: In this order; at most one of them keeps last good answers.
        reasons: What it is tried for.

    Raises:
        MeshConfigError: There are too many steps, or a reason that must not be covered up.
    """

    steps: tuple[Step, ...] = ()
    reasons: frozenset[Reason] = frozenset(
        {Reason.NO_INSTANCE, Reason.CIRCUIT_OPEN, Reason.OVERLOAD, Reason.UPSTREAM_FAILED}
    )

    def __post_init__(self) -> None:
        """Checks the number of steps and the reasons."""
        within("steps", len(self.steps), 0, _STEPS_MAX)
        if sum(isinstance(step, LastGoodSettings) for step in self.steps) > 1:
            raise MeshConfigError("steps: only one may be of the kind last-good")
        for reason in self.reasons - _ALLOWED:
            raise MeshConfigError(f"reasons: there is no fallback for {reason.value}")


class Fallback:
    """The fallback of one upstream.

    Args:
        settings: What is tried, and when.

    Attributes:
        last_good: Where good answers are to be kept; None when no step asks for them.
    """

    __slots__ = ("last_good", "settings")

    def __init__(self, settings: FallbackSettings) -> None:
        self.settings = settings
        self.last_good: LastGood | None = None
        for step in settings.steps:
            if isinstance(step, LastGoodSettings):
                self.last_good = LastGood(step)

    def decide(
        self,
        call: Call,
        target: str,
        reason: Reason,
        now_s: float,
        *,
        sent: bool = False,
        tried: Collection[str] = (),
    ) -> OtherService | Answer | None:
        """What the caller gets instead.

        Args:
            call: The call.
            target: Its path and query as they were sent.
            reason: Why it has no answer.
            now_s: Monotonic seconds.
            sent: Whether the upstream may have begun to act on it, at any of its tries.
            tried: Services that it has been to: none is visited twice, so that fallbacks which
                point at each other end.

        Returns:
            Where it goes, or the answer; None: the reason itself is the answer.
        """
        if reason not in self.settings.reasons:
            return None
        for step in self.settings.steps:
            found = self._take(step, call, target, now_s, sent, tried)
            if found is not None:
                return found
        return None

    def _take(
        self,
        step: Step,
        call: Call,
        target: str,
        now_s: float,
        sent: bool,
        tried: Collection[str],
    ) -> OtherService | Answer | None:
        match step:
            case OtherService():
                repeatable = not sent or step.even_if_sent or call.method in IDEMPOTENT
                return step if repeatable and step.service not in tried else None
            case FixedAnswer():
                return _marked(step.answer, "answer")
            case LastGoodSettings():
                cache = self.last_good
                kept = None if cache is None else cache.get(call, target, now_s)
                return None if kept is None else _marked(kept, "last-good")
            case _:
                assert_never(step)


def _marked(answer: Answer, kind: str) -> Answer:
    """The answer, told as a substitute."""
    headers = (*answer.headers, (FALLBACK_HEADER, kind))
    return Answer(status=answer.status, headers=headers, body=answer.body)
