"""`python -m bench.generator`: a job from stdin, its tally to stdout."""

from __future__ import annotations

import gc
import sys
from typing import assert_never

import msgspec

from bench.generator import closed_loop, questions, watching
from bench.generator.jobs import AnyJob, DnsJob, Job, Tally, WatchJob, WatchTally


def run(job: AnyJob) -> Tally | WatchTally:
    """Does what a job says.

    Raises:
        OSError: The address can't be reached.
        TimeoutError: Answers did not come to an end.
        ValueError: The job or an answer makes no sense.
    """
    match job:
        case Job():
            return closed_loop.run(job)
        case DnsJob():
            return questions.run(job)
        case WatchJob():
            return watching.run(job)
        case _:
            assert_never(job)


def main() -> None:
    """Reads the job, runs it, writes the tally."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyJob)
    gc.freeze()
    gc.disable()  # no pauses of our own in the figures; the run is short
    sys.stdout.buffer.write(msgspec.json.encode(run(job)))


if __name__ == "__main__":
    main()
