"""Real worker processes on one SQLite file or in one PostgreSQL schema: what they say, what it holds, their deaths.

The program of a test is the module `jobs.py` in its folder, whose jobs append to a file: `say("begun", ctx.job_id)`
writes one line, by one write, with the process's id in front. A kill loses none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cli.command import DEADLINE, Running
from tickwork.clock import SystemClock
from tickwork.jobs import JobRecord, JobState, NewJob, new_id
from tickwork.stores.base import Store
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target
from tickwork.stores.sqlite import SQLiteStore

T = TypeVar("T")

HEAD = """
import asyncio, os, signal, sys, time
from pathlib import Path
from tickwork import App, Context, Retry

_log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def say(*words):
    os.write(_log, " ".join(map(str, (os.getpid(), time.time(), *words))).encode() + b"\\n")

async def wait_for(name):
    while not Path(name).exists():
        await asyncio.sleep(0.005)
"""


@dataclass(frozen=True)
class Line:
    """What a process has said.

    Attributes:
        pid: Who.
        at: When, in seconds since the epoch.
        words: What.
    """

    pid: int
    at: float
    words: list[str]


class Fleet:
    """Processes that run one program. Leaving the block kills what is left of them."""

    def __init__(self, folder: Path, program: str, target: Target | None = None) -> None:
        self.folder = folder
        self.target = target
        if target is not None:
            notify = "on" if target.notifies else "off"
            program = program.replace("sqlite:///jobs.db", f"{target.url}?schema={target.schema}&notify={notify}")
        self.path = folder / "jobs.db"
        (folder / "jobs.py").write_text(HEAD + program)
        (folder / "log").touch()
        self.processes: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for running in self.processes:
            running.__exit__(None, None, None)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Running:
        """Start a process: `tickwork run jobs.py`, or Python with other words."""
        source = os.pathsep.join(filter(None, sys.path))
        settings = {"PYTHONPATH": source, **(env or {})}
        running = Running(*(words or ("-m", "tickwork", "run", "jobs.py")), cwd=self.folder, env=settings)
        self.processes.append(running)
        return running

    def kill(self, running: Running) -> float:
        """Kill a process, and return when: a moment before, so that nothing that follows from it is earlier."""
        at = time.time()
        running.send(signal.SIGKILL)
        running.process.wait(DEADLINE)
        return at

    # -- what they say ----------------------------------------------------------------------------------------------

    def lines(self, *begin: str) -> list[Line]:
        """Return what was said so far that begins with these words."""
        made = [
            line.split() for line in (self.folder / "log").read_text().splitlines(keepends=True) if line[-1] == "\n"
        ]
        said = [Line(int(pid), float(at), words) for pid, at, *words in made]
        return [line for line in said if line.words[: len(begin)] == list(begin)]

    def said(self, *begin: str) -> list[str]:
        """Return the last words of those lines."""
        return [line.words[-1] for line in self.lines(*begin)]

    def wait_until(self, condition: Callable[[], object], what: str, within: float = DEADLINE) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                told = "\n".join(f"--- {running.pid}\n{running.out}{running.err}" for running in self.processes)
                log = (self.folder / "log").read_text()
                raise AssertionError(f"waited in vain for {what}\n--- log\n{log[-3000:]}\n{told[-4000:]}")
            time.sleep(0.01)

    def wait_said(self, *begin: str, times: int = 1, within: float = DEADLINE) -> None:
        """Wait until so many lines begin with these words."""
        self.wait_until(lambda: len(self.lines(*begin)) >= times, f"{times} times {' '.join(begin)}", within)

    def touch(self, name: str) -> None:
        """Make a file that jobs wait for."""
        (self.folder / name).touch()

    # -- what the file holds ----------------------------------------------------------------------------------------

    def store(self) -> SQLiteStore | PostgresStore:
        """Return the store, for a process that works on nothing."""
        if self.target is not None:
            return PostgresStore(self.target, SystemClock())
        return SQLiteStore(self.path, SystemClock())

    def ask(self, question: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        """Ask the store, as a process that works on nothing."""

        async def main() -> T:
            store = self.store()
            await store.open()
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(main())

    def enqueue(self, *tasks: str, is_once: bool = False, queue: str = "default") -> list[str]:
        """Enqueue one job of each of these tasks, which take no argument, and return their ids."""

        async def put(store: Store) -> list[JobRecord]:
            now = SystemClock().now()
            new = [
                NewJob(id=new_id(now), task=task, payload="{}", run_at=now, is_once=is_once, queue=queue)
                for task in tasks
            ]
            return await store.enqueue(new)

        return [record.id for record in self.ask(put)]

    def job(self, job_id: str) -> JobRecord:
        """Return a job."""
        return self.ask(lambda store: store.job(job_id))

    def states(self) -> dict[str, int]:
        """Return how many jobs are in each state, those with none left out."""

        async def count(store: Store) -> dict[JobState, int]:
            return await store.counts()

        return {str(state): number for state, number in self.ask(count).items() if number}

    def wait_states(self, within: float = DEADLINE, **wanted: int) -> None:
        """Wait until there are just these jobs."""
        deadline = time.monotonic() + within
        while (found := self.states()) != wanted:
            if time.monotonic() > deadline:
                self.wait_until(lambda: False, f"{wanted}, found {found}", 0)
            time.sleep(0.01)
