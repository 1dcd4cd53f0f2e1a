"""Makes folders as a run leaves them, of any size and with any content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from jepsen_like.checkers.verdict import Anomaly, Valid, Verdict
from jepsen_like.folder import FaultCount, Folder, Injection, Results, Run
from jepsen_like.history import NEMESIS, Event, Type, encode

S = 1_000_000_000


class SyntheticRun:
    """A register run with a fault now and then.

    Args:
        path: The folder to make.
        operations: How many, 200 a second.
        seed: Of everything random.
        text: Appears in every field that holds text.
    """

    def __init__(self, path: Path, *, operations: int = 400, seed: int = 1, text: str = "") -> None:
        self.folder = Folder(path)
        self.folder.make()
        self.operations = operations
        self.text = text
        self.injections: list[Injection] = []
        self._rng = Random(seed)
        self._index = 0

    def write(
        self, valid: Valid = Valid.TRUE, anomalies: tuple[Anomaly, ...] = (), why: str = ""
    ) -> Path:
        """Writes all files; gives the folder."""
        with self.folder.history.open("wb") as file:
            file.writelines(map(encode, self._events()))
        lines = [msgspec.json.encode(injection) + b"\n" for injection in self.injections]
        self.folder.nemesis.write_bytes(b"".join(lines))
        self.folder.write_run(self._run())
        self.folder.write_results(self._results(valid, anomalies, why))
        (self.folder.logs / "n1.log").write_text("started\n")
        return self.folder.path

    def _event(self, time_ns: int, process: int, kind: Type, f: str, **more: Any) -> Event:
        event = Event(index=self._index, time_ns=time_ns, process=process, type=kind, f=f, **more)
        self._index += 1
        return event

    def _events(self) -> Iterator[Event]:
        """Operations of ten workers in turn, with a fault of 3 s in every 10 s."""
        held = False
        open_until: list[tuple[int, int, int, str]] = []
        for number in range(self.operations):
            now = number * S // 200
            faulty = now % (10 * S) > 6 * S
            for ended in [one for one in open_until if one[0] <= now]:
                open_until.remove(ended)
                yield self._completion(ended, faulty)
            if faulty != held:
                held = faulty
                yield self._fault(now, held=held)
            f = self._rng.choice(("read", "write", "cas"))
            process = number % 10
            latency = round(self._rng.lognormvariate(1.3, 0.5) * 1e6)
            yield self._event(
                now, process, Type.INVOKE, f, key=f"k{number % 5}{self.text}", value=number
            )
            open_until.append((now + min(latency, 40_000_000), process, number, f))
        for ended in open_until:
            yield self._completion(ended, False)

    def _completion(self, ended: tuple[int, int, int, str], faulty: bool) -> Event:
        time_ns, process, number, f = ended
        kind = self._rng.choice((Type.OK, Type.FAIL)) if faulty else Type.OK
        return self._event(
            time_ns,
            process,
            kind,
            f,
            key=f"k{number % 5}{self.text}",
            value=number,
            node=f"n{number % 5 + 1}{self.text}",
            raft_index=number if kind is Type.OK else None,
            error=None if kind is Type.OK else f"no leader{self.text}",
        )

    def _fault(self, now: int, *, held: bool) -> Event:
        fault = f"partition-leader{self.text}"
        if held:
            self.injections.append(
                Injection(
                    number=len(self.injections),
                    fault=fault,
                    start_ns=now,
                    held_ns=now,
                    heal_ns=now + 3 * S,
                    end_ns=now + 3 * S,
                    done={"leader": f"n1{self.text}"},
                    acted=True,
                    facts={"dropped": 214, "pair": f"n1 to n2{self.text}"},
                )
            )
        what = "start" if held else "stop"
        return self._event(now, NEMESIS, Type.INFO, f"{what}-{fault}", value={"cut": "n1"})

    def _run(self) -> Run:
        return Run(
            workload=f"register{self.text}",
            nemesis=f"partition-leader{self.text}",
            time_limit_s=self.operations / 200,
            rate=200,
            concurrency=10,
            nodes=5,
            agents=0,
            seed=7,
            started="2026-11-22T18:00:00Z",
            command=["python", "-m", "jepsen_like", "run", f"--seed=7{self.text}"],
            ground="namespaces",
            hosts={"n1": "10.77.0.1"},
            versions={"raftreg": "0.1.0"},
        )

    def _results(self, valid: Valid, anomalies: tuple[Anomaly, ...], why: str) -> Results:
        verdict = Verdict("register", valid, anomalies, figures={"keys": 5})
        return Results(
            valid=valid,
            why=why or "The checker register says so.",
            verdicts=[verdict],
            operations=self.operations,
            acknowledged=self.operations,
            failed=0,
            unknown=0,
            by_f={},
            faults={"partition-leader": FaultCount(len(self.injections), len(self.injections))},
            duration_s=self.operations / 200,
            load_s=self.operations / 200,
            interrupted=False,
            workload=f"register{self.text}",
            nemesis=f"partition-leader{self.text}",
            seed=7,
        )
