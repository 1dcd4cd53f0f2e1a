"""`python -m tests.sim`: many seeds, or one again. Stops at the first violation and shows it.

Every fourth seed is a whole cluster (`tests.sim.whole`), the others are consensus alone.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context

from jepsen_like.workloads import WORKLOADS
from raftreg.clock import SystemClock
from tests.sim.chunks import AnyOutcome, run_any, run_chunk
from tests.sim.schedule import Outcome
from tests.sim.scheduler import Violation
from tests.sim.whole.run import WholeOutcome, run_whole_seed

CHUNK = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the seeds; gives the exit code: 0, or 1 after a violation.

    Args:
        arguments: As on the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser("python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="F", help="first seed")
    parser.add_argument("--seed", type=int, metavar="S", help="run this one alone, with its trace")
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated time under faults")
    parser.add_argument(
        "--workload",
        choices=sorted(WORKLOADS),
        help="with --seed: whole servers, and this workload",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _run_one(options.seed, options.seconds, options.workload)
    return _run_many(range(options.first, options.first + options.seeds), options)


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _run_one(seed: int, seconds: float, workload: str | None) -> int:
    outcome: AnyOutcome
    try:
        if workload is not None:
            outcome = run_whole_seed(seed, seconds, workload)
        else:
            outcome = run_any(seed, seconds)
    except Violation as violation:
        _say(str(violation))
        return 1
    _say(f"held: {outcome}")
    return 0


def _run_many(seeds: range, options: argparse.Namespace) -> int:
    chunks = (seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK))
    done: list[AnyOutcome] = []
    began_s = SystemClock().monotonic()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for result in _each(pool, chunks, options.seconds, options.jobs * 2):
            if isinstance(result, str):
                pool.shutdown(wait=False, cancel_futures=True)
                _say(f"\nVIOLATION\n{result}")
                return 1
            done += result
            pace = len(done) / max(SystemClock().monotonic() - began_s, 1e-3)
            _say(f"\r{len(done)} of {len(seeds)} seeds held, {pace:.1f} a second", end="")
    _say("\n" + _summary(done))
    return 0


def _each(
    pool: ProcessPoolExecutor, chunks: Iterable[range], seconds: float, ahead: int
) -> Iterator[list[AnyOutcome] | str]:
    """Results as they come, with a few chunks on their way at a time."""
    todo = iter(chunks)
    running: set[Future[list[AnyOutcome] | str]] = set()
    while True:
        fresh = islice(todo, ahead - len(running))
        running |= {pool.submit(run_chunk, list(chunk), seconds) for chunk in fresh}
        if not running:
            return
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            yield future.result()


def _summary(done: Sequence[AnyOutcome]) -> str:
    whole = [outcome for outcome in done if isinstance(outcome, WholeOutcome)]
    raft = [outcome for outcome in done if isinstance(outcome, Outcome)]
    lines = [_of_raft(raft)] if raft else []
    return "\n".join([*lines, _of_whole(whole)] if whole else lines)


def _of_raft(done: Sequence[Outcome]) -> str:
    writes, acked = sum(o.writes for o in done), sum(o.acked for o in done)
    return (
        f"consensus: {acked} of {writes} writes acknowledged under faults "
        f"({acked / max(writes, 1):.0%}), {sum(o.reads for o in done)} reads answered, "
        f"{sum(o.terms for o in done)} terms, "
        f"{sum(o.snapshots for o in done)} snapshots installed, "
        f"{sum(o.wiped for o in done)} disks lost"
    )


def _of_whole(done: Sequence[WholeOutcome]) -> str:
    operations, acked = sum(o.operations for o in done), sum(o.acked for o in done)
    kinds = Counter(o.workload for o in done)
    return (
        f"whole servers: {acked} of {operations} operations OK ({acked / max(operations, 1):.0%}) "
        f"under {sum(o.faults for o in done)} faults, {sum(o.terms for o in done)} terms, "
        f"{sum(o.restores for o in done)} snapshots restored; runs of each workload: "
        + ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
    )


if __name__ == "__main__":
    sys.exit(main())
