"""A process whose lease of a job is over, because it slept, say, lets go of the job: somebody else has it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tickwork import App, Context
from tickwork.clock import SystemClock
from tickwork.conformance import ending
from tickwork.jobs import JobRecord, JobState
from tickwork.stores.sqlite import SQLiteStore

WaitUntil = Callable[..., Awaitable[None]]


class LaterClock(SystemClock):
    """The clock of a process for which the leases of all others are over."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=2)


@asynccontextmanager
async def another(path: Path) -> AsyncIterator[SQLiteStore]:
    """The store of another worker, which rescues when it is asked to."""
    store = SQLiteStore(path, LaterClock(), worker="another", keeps_house=False)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def taken_over(other: SQLiteStore, task: str) -> JobRecord:
    """Let another worker rescue the one job there is, and claim it."""
    # In one turn of the loop, and so in one transaction: nobody else claims between the two.
    (rescued,), (record,) = await asyncio.gather(other.rescue(), other.claim(worker="another", tasks={task}, limit=5))
    assert rescued.state is JobState.QUEUED
    return record


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(f"sqlite:///{tmp_path}/jobs.db", workers=1, cancel_seconds=1)


async def test_a_job_on_the_loop_is_cancelled_at_once_and_who_waits_hears_of_the_other_end(
    app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    ends: list[str] = []
    begun = asyncio.Event()

    @app.task(name="work")
    async def work() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")
        return "here"

    async with app, another(tmp_path / "jobs.db") as other:
        job = await work.enqueue()
        await begun.wait()
        waiting = asyncio.ensure_future(job.result())
        record = await taken_over(other, "work")
        began = time.monotonic()
        await wait_until(lambda: ends)
        took = time.monotonic() - began
        await wait_until(lambda: not app.running)
        assert not waiting.done()
        await other.finish([ending(record, result='"elsewhere"')])

        assert await waiting == "elsewhere"
        assert (await job.record()).attempt == 1
    assert took < 10  # not with the next renewal, after 20
    said = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert (
        f"work job={job.id} is cancelled here: its lease was over, and the job was taken away; it goes on elsewhere, "
        "if at all" in said
    )
    assert not any("came too late" in line for line in said)


async def test_what_waits_in_the_buffer_does_not_begin(tmp_path: Path, wait_until: WaitUntil) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db", workers=4, cancel_seconds=1)
    runs: list[str] = []
    begun: list[str] = []
    go = asyncio.Event()

    @app.task(name="first")
    async def first() -> None:
        begun.append("here")
        await go.wait()

    @app.task(name="second", priority=-1)
    async def second() -> None:
        runs.append("here")

    async with app, another(tmp_path / "jobs.db") as other:
        dispatcher: Any = app._dispatcher
        dispatcher._prefetch.allowed = lambda *_: 1  # as if so many had just ended that one is taken in advance
        await first.enqueue_many([()] * 4)
        job = await second.enqueue()
        await wait_until(lambda: len(begun) == 4)
        await wait_until(lambda: dispatcher.holds(job.id))
        # In one turn of the loop, and so in one transaction: nobody else claims between the two.
        _, records = await asyncio.gather(
            other.rescue(), other.claim(worker="another", tasks={"first", "second"}, limit=5)
        )
        await wait_until(lambda: not dispatcher.holds(job.id))
        await wait_until(lambda: not app.running)
        go.set()
        await other.finish([ending(record) for record in records])

    assert runs == []


async def test_the_result_of_a_thread_is_dropped(app: App, tmp_path: Path, wait_until: WaitUntil) -> None:
    begun, go = threading.Event(), threading.Event()

    @app.task(name="work")
    def work() -> str:
        begun.set()
        go.wait(10)
        return "here"

    async with app, another(tmp_path / "jobs.db") as other:
        job = await work.enqueue()
        waiting = asyncio.ensure_future(job.result())
        await wait_until(begun.is_set)
        record = await taken_over(other, "work")
        dispatcher: Any = app._dispatcher
        await wait_until(lambda: [run.stop_reason for run in dispatcher.running] == ["lost"])
        go.set()
        await wait_until(lambda: not app.running)
        assert not waiting.done()
        await other.finish([ending(record, result='"elsewhere"')])

        assert await waiting == "elsewhere"


async def test_a_lost_job_that_comes_back_runs_here_again_beside_the_rest_of_the_last_attempt(
    app: App, tmp_path: Path, wait_until: WaitUntil
) -> None:
    tokens: list[int] = []
    go = [threading.Event(), threading.Event()]

    @app.task(name="work", run_in="thread")
    def work(ctx: Context) -> int:
        number = len(tokens)
        tokens.append(number)
        go[number].wait(10)
        return number

    app = App(f"sqlite:///{tmp_path}/jobs.db", workers=2, tasks=[work])
    async with app, another(tmp_path / "jobs.db") as other:
        job = await app.enqueue(work)
        await wait_until(lambda: len(tokens) == 1)
        await other.rescue()
        await wait_until(lambda: len(tokens) == 2)
        go[0].set()
        await wait_until(lambda: len(app.running) == 1)
        assert (await job.record()).state is JobState.RUNNING
        go[1].set()

        assert await job == 1
