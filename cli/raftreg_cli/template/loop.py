"""The work of `raftreg template`: answers change, texts are rendered, files replaced, commands run.

One round after another, so nothing here happens twice at once. What fails is told, keeps its old
state, and is tried again after a growing wait or as soon as there is something new.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import assert_never

import structlog

from raftreg.client.api import RegistryClient
from raftreg.client.retry import Backoff
from raftreg.clock import Clock
from raftreg.errors import ConfigurationError, RaftregError
from raftreg_cli.invoke import invoke
from raftreg_cli.template import files
from raftreg_cli.template.engine import Complete, Failed, Template, Waiting
from raftreg_cli.template.follow import Follower
from raftreg_cli.template.gather import Gather
from raftreg_cli.template.queries import Query
from raftreg_cli.template.spec import CANDIDATE, Argv, Plan, Spec, Wait

_RETRY = Backoff(first_s=1.0, max_s=60.0)
_FAILED = 1
_log = structlog.get_logger(__name__)


class Attempts:
    """When something that failed is tried again.

    Args:
        now: When it is first tried.
    """

    def __init__(self, now: float) -> None:
        self.due_at = now
        self._failures = 0

    def failed(self, now: float, rng: Random) -> None:
        """The next attempt waits, longer after each failure."""
        self.due_at = now + _RETRY.delay_s(self._failures, rng)
        self._failures += 1


class Job:
    """One file and where it stands.

    Attributes:
        spec: What is to be done.
        template: What it is made from.
        used: The questions of the last rendering.
        complete: That one had all its answers.
        gather: When to render again.
        text: Rendered and not yet in the file; None when there is nothing to write.
        attempts: Of writing it.
        settled: It was rendered and written once.
        shown: What a dry run printed last.
    """

    def __init__(self, spec: Spec, wait: Wait, template: Template, now: float) -> None:
        self.spec = spec
        self.template = template
        self.used: frozenset[Query] = frozenset()
        self.complete = False
        self.gather = Gather(wait)
        self.gather.hurry(now)
        self.text: bytes | None = None
        self.attempts = Attempts(now)
        self.settled = False
        self.shown: bytes | None = None


class Loop:
    """Keeps the files of a plan current.

    Args:
        client: The registry.
        plan: Reads what is to be done; called again by `reload`.
        variables: What templates see as environment.
        clock: Source of time.
        rng: Source of jitter.
        once: End when every file has been written once; the first failure ends it too.
        dry: Print texts instead of writing files; run no commands.
    """

    def __init__(
        self,
        client: RegistryClient,
        plan: Callable[[], Plan],
        variables: Mapping[str, str],
        *,
        clock: Clock,
        rng: Random,
        once: bool = False,
        dry: bool = False,
    ) -> None:
        self._client = client
        self._plan = plan
        self._variables = variables
        self._clock = clock
        self._rng = rng
        self._once = once
        self._dry = dry
        self._jobs: list[Job] = []
        self._commands: dict[Argv, tuple[float, Attempts]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._reloading = False

    def reload(self) -> None:
        """Reads plan and templates again in the next round; what can't be read changes nothing."""
        self._reloading = True
        self._wake.set()

    def stop(self) -> None:
        """Ends `run` after what is just being done."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> int:
        """Works until `stop`, or once; gives the exit code.

        Raises:
            ConfigurationError: The plan can't be read at the start; with `once`, a template failed.
            RaftregError: With `once`, the registry did not answer.
        """
        self._jobs = self._loaded()
        self._recall()
        patience_s = self._client.timeout_s if self._once else None
        async with asyncio.TaskGroup() as group:
            follower = Follower(self._client, group, self._learned, patience_s)
            code = await self._rounds(follower)
            follower.use(())
        return code

    def _loaded(self) -> list[Job]:
        plan, now = self._plan(), self._clock.monotonic()
        return [
            Job(spec, plan.wait, Template(spec.source, self._variables), now) for spec in plan.specs
        ]

    def _recall(self) -> None:
        """Finds the commands that an earlier process has left to be run."""
        for job in self._jobs:
            if job.spec.command and not self._dry and files.marked(job.spec.destination):
                self._demand(job.spec)

    def _demand(self, spec: Spec) -> None:
        attempts = Attempts(self._clock.monotonic())
        self._commands[spec.command] = (spec.command_timeout_s, attempts)

    def _learned(self, query: Query) -> None:
        now = self._clock.monotonic()
        for job in self._jobs:
            if query not in job.used:
                continue
            if job.complete:
                job.gather.changed(now)
            else:
                job.gather.hurry(now)  # it waits for this answer: there is no old text to keep
        self._wake.set()

    async def _rounds(self, follower: Follower) -> int:
        while not self._stopping:
            self._wake.clear()
            if self._reloading:
                self._load_again()
            for job in self._jobs:
                if job.gather.take(self._clock.monotonic()):
                    self._render(job, follower)
            follower.use(query for job in self._jobs for query in job.used)
            worked = await self._write_all() and await self._run_commands()
            if self._once and (not worked or self._done()):
                return 0 if worked else _FAILED
            await self._nap()
        return 0

    def _done(self) -> bool:
        return not self._commands and all(job.settled for job in self._jobs)

    def _load_again(self) -> None:
        self._reloading = False
        try:
            self._jobs = self._loaded()
        except RaftregError as error:
            _log.error("not_reloaded", reason=error.message)
        else:
            self._recall()
            _log.info("reloaded", templates=len(self._jobs))

    async def _nap(self) -> None:
        """Waits for a change, or until something is due."""
        due = [job.gather.due_at for job in self._jobs if job.gather.due_at is not None]
        due += [job.attempts.due_at for job in self._jobs if job.text is not None]
        due += [attempts.due_at for _, attempts in self._commands.values()]
        limit_s = max(0.0, min(due) - self._clock.monotonic()) if due else None
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wake.wait()

    # -- one step of a job -----------------------------------------------------------------------

    def _render(self, job: Job, follower: Follower) -> None:
        found = job.template.render(follower.answers)
        job.used = found.used
        match found:
            case Waiting():
                job.complete = False
            case Failed():
                job.complete = True
                if self._once:
                    raise ConfigurationError(found.message)
                _log.error("not_rendered", file=str(job.spec.destination), reason=found.message)
            case Complete():
                job.complete = True
                job.text = found.text
                job.attempts = Attempts(self._clock.monotonic())
            case _:
                assert_never(found)

    async def _write_all(self) -> bool:
        """Writes what is due; False when something failed."""
        worked = True
        for job in self._jobs:
            now = self._clock.monotonic()
            if job.text is None or job.attempts.due_at > now:
                continue
            try:
                await self._write(job, job.text)
            except (OSError, ConfigurationError) as problem:
                worked = False
                job.attempts.failed(self._clock.monotonic(), self._rng)
                _log.error("not_written", file=str(job.spec.destination), reason=str(problem))
            else:
                job.text, job.settled = None, True
        return worked

    async def _write(self, job: Job, text: bytes) -> None:
        spec = job.spec
        if self._dry:
            _show(job, text)
            return
        if await asyncio.to_thread(files.current, spec.destination) == text:
            return
        staged = await asyncio.to_thread(files.stage, spec.destination, text, spec.mode)
        try:
            if spec.check:
                await self._check(spec, str(staged.absolute()))
            if spec.command:
                await asyncio.to_thread(files.mark, spec.destination)
            await asyncio.to_thread(files.commit, staged, spec.destination)
        except BaseException:
            files.discard(staged)
            raise
        _log.info("written", file=str(spec.destination), size_bytes=len(text))
        if spec.command:
            self._demand(spec)

    async def _check(self, spec: Spec, staged: str) -> None:
        arguments = [part.replace(CANDIDATE, staged) for part in spec.check]
        ended = await invoke(arguments, timeout_s=spec.command_timeout_s, capture=True)
        if ended.timed_out or ended.code:
            why = "timed out" if ended.timed_out else f"ended with {ended.code}"
            raise ConfigurationError(f"its check {why}: {ended.output.strip()}")

    async def _run_commands(self) -> bool:
        """Runs the commands that are due, each once however many files asked for it."""
        worked = True
        for command, (timeout_s, attempts) in list(self._commands.items()):
            if attempts.due_at > self._clock.monotonic():
                continue
            ended = await invoke(command, timeout_s=timeout_s, capture=True)
            told = {"command": list(command), "code": ended.code, "output": ended.output.strip()}
            if ended.code == 0 and not ended.timed_out:
                del self._commands[command]
                for job in self._jobs:
                    if job.spec.command == command:
                        files.unmark(job.spec.destination)
                _log.info("command_ran", **told)
                continue
            worked = False
            attempts.failed(self._clock.monotonic(), self._rng)
            _log.error("command_failed", timed_out=ended.timed_out, **told)
        return worked


def _show(job: Job, text: bytes) -> None:
    if text != job.shown:
        job.shown = text
        sys.stderr.write(f"# {job.spec.destination}\n")
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
