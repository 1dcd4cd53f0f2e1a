"""Workloads, each against a real server: the truth is found valid, and lies are found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jepsen_like.checkers.answers
import jepsen_like.checkers.catalog
import jepsen_like.workloads.answers
import jepsen_like.workloads.catalog
from jepsen_like.checkers.verdict import Valid
from jepsen_like.door import Answer
from jepsen_like.workloads import WORKLOADS
from jepsen_like.workloads.base import Workload
from jepsen_like.workloads.watch import Watch
from tests.jepsen import lying
from tests.jepsen.lying import Call, LyingDoor
from tests.jepsen.workload_rig import verdict_of

_SETTLING = (
    jepsen_like.checkers.answers,
    jepsen_like.checkers.catalog,
    jepsen_like.workloads.answers,
    jepsen_like.workloads.catalog,
)


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry without faults has nothing to settle."""
    for module in _SETTLING:
        monkeypatch.setattr(module, "SETTLE_S", 0.5)
    for module in _SETTLING[2:]:
        monkeypatch.setattr(module, "SETTLED_MARGIN_S", 0.2)
        monkeypatch.setattr(module, "FINAL_PAUSE_S", 0.02)


@pytest.mark.parametrize("name", WORKLOADS)
async def test_a_registry_that_does_as_it_says_is_valid(name: str, tmp_path: Path) -> None:
    """Without faults, every workload gets done what its checker needs, and nothing is wrong."""
    verdict = await verdict_of(_made(name), tmp_path)
    assert (verdict.valid, verdict.anomalies, verdict.why_unknown) == (Valid.TRUE, (), "")


def _made(name: str) -> Workload:
    """A workload by its name; watchers are not left waiting at the end."""
    return Watch(waits_s=(1,)) if name == "watch" else WORKLOADS[name]()


def _is_look(call: Call) -> bool:
    return call.path.startswith("/v1/health/service/")


def _is_watch(call: Call) -> bool:
    return "index" in call.params


class Ageless(LyingDoor):
    """Agents do not tell how old their answers are."""

    async def answer(self, call: Call) -> Answer:
        """See `LyingDoor.answer`."""
        answer = await call.through(self.door)
        self.lies += 1
        hidden = {"x-consul-lastcontact", "age"}
        kept = {name: value for name, value in answer.headers.items() if name not in hidden}
        return Answer(answer.status, kept, answer.body)


class Blind(LyingDoor):
    """DNS forgets a record now and then."""

    async def resolve(self, node: str, name: str, kind: str, timeout_s: float = 2.0) -> list[str]:
        """See `Door.resolve`."""
        records = await super().resolve(node, name, kind, timeout_s)
        self.lies += bool(records)
        return records[1:]


_WithoutNewest = lying.edits("WithoutNewest", _is_watch, lying.without_newest)
_WithoutKey = lying.edits("WithoutKey", lambda call: "keys" in call.params, lying.without_one)
_WithoutOne = lying.edits("WithoutOne", _is_look, lying.without_one)
_LosesFrames = lying.edits_frames(
    "LosesFrames", lambda frame, rng: b"" if rng.randrange(3) == 0 else frame
)
_RepeatsFrames = lying.edits_frames(
    "RepeatsFrames", lambda frame, rng: frame * rng.choice((1, 1, 2))
)


@pytest.mark.parametrize(
    ("name", "lie", "kinds"),
    [
        ("register", lying.DropsWrites, "not-linearizable"),
        ("register", lying.AnswersLate, "not-linearizable"),
        ("set", lying.DropsWrites, "lost-element"),
        ("set-keys", _WithoutKey, "lost-element|stale-read"),
        ("set-keys", lying.DropsWrites, "lost-element"),
        ("append", lying.DropsWrites, "lost-append"),
        ("append", lying.AnswersLate, "G.*-realtime"),
        ("unique", lying.DropsWrites, "id-twice"),
        ("bank", lying.DropsWrites, "wrong-balance"),
        ("bank", lying.AnswersLate, "wrong-balance"),
        ("lock", lying.Unfenced, "stale-token"),
        ("lock", lying.LocksForAll, "token-twice"),
        ("watch", _WithoutNewest, "watch-lost"),
        ("watch", lying.AnswersLate, "watch-twice"),
        ("watch", _LosesFrames, "watch-lost"),
        ("watch", _RepeatsFrames, "watch-twice"),
        ("catalog", lying.DropsWrites, "diverged|stale-look"),
        ("catalog", _WithoutOne, "diverged|stale-look"),
        ("catalog", Blind, "diverged"),
        ("answers", _WithoutOne, "forgotten"),
        ("answers", Ageless, "no-age"),
        ("answers", Blind, "forgotten"),
        ("once", lying.WritesTwice, "applied-twice"),
        ("once", lying.ForgetsNames, "applied-twice"),
        ("once", lying.DropsWrites, "lost"),
    ],
)
async def test_a_lie_is_found_out(
    name: str, lie: type[LyingDoor], kinds: str, tmp_path: Path
) -> None:
    """What a server must never do makes the verdict FALSE, with an anomaly that says it."""
    # What a lock's lies leave behind needs no waiting until the sessions have ended.
    verdict = await verdict_of(_made(name), tmp_path, lie, final=name != "lock")
    found = {anomaly.kind for anomaly in verdict.anomalies}
    assert verdict.valid is Valid.FALSE, verdict
    assert any(re.fullmatch(kinds, kind) for kind in found), found
