"""What `durable.py` measures of tickwork: how fast jobs go through, are picked up, what idling and the past cost."""

import asyncio
import json
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from durable_raw import Times

GAPS = 0.05, 0.15
"""Seconds between two jobs that come one at a time: no multiple of any pause between two looks."""


# --- end to end: enqueue, run, await the result ---


def end_to_end(folder: Path, jobs: int, callers: int) -> Times:
    return asyncio.run(call(f"sqlite:///{folder}/jobs.db", jobs, callers))


async def call(url: str, jobs: int, callers: int) -> Times:
    """Let callers enqueue and await, each of them job after job, until so many are done."""
    from tickwork import App

    app = App(url, workers=callers)

    @app.task(name="noop")
    async def noop(x: int) -> int:
        return x

    numbers = iter(range(jobs))

    async def caller() -> None:
        for number in numbers:  # the callers share them
            job = await noop.enqueue(number)
            if await job != number:
                raise AssertionError(f"{job!r} has another job's result")

    async with app:
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return time.perf_counter() - started, time.process_time() - cpu


# --- pick-up: from the call of enqueue to the first line of the job, in milliseconds ---


async def pick_up_here(folder: Path, samples: int) -> list[float]:
    """Enqueue in the process of the worker."""
    return await picked_up_here(f"sqlite:///{folder}/jobs.db", samples)


async def pick_up_there(folder: Path, samples: int) -> list[float]:
    """Enqueue in another process, on the same file; both read the wall clock of this host."""
    return await picked_up_there(f"sqlite:///{folder}/jobs.db", samples)


async def picked_up_here(url: str, samples: int) -> list[float]:
    from tickwork import App

    app = App(url)
    late: list[float] = []

    @app.task(name="note")
    async def note(at: float) -> None:
        late.append((time.perf_counter() - at) * 1e3)

    async with app:
        for _ in range(samples):
            await asyncio.sleep(random.uniform(*GAPS))
            await (await note.enqueue(time.perf_counter()))
    return late


async def picked_up_there(url: str, samples: int) -> list[float]:
    from tickwork import App

    app = App(url)
    late: list[float] = []

    @app.task(name="note")
    async def note(at: float) -> None:
        late.append((time.time() - at) * 1e3)

    async with app:
        command = [sys.executable, __file__, url, str(samples)]
        producer = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
        if await producer.wait() != 0:
            raise AssertionError("the producer failed")
        async with asyncio.timeout(10):
            while len(late) < samples:
                await asyncio.sleep(0.01)
    return late


async def produce(url: str, samples: int) -> None:
    """Be that other process: it enqueues, and runs nothing."""
    from datetime import UTC, datetime

    from tickwork.jobs import NewJob, new_id

    store = store_of(url)
    await store.open()
    for _ in range(samples):
        await asyncio.sleep(random.uniform(*GAPS))
        at, now = time.time(), datetime.now(UTC)
        await store.enqueue([NewJob(id=new_id(now), task="note", payload=json.dumps({"at": at}), run_at=now)])
    await store.close()


def store_of(url: str, worker: str | None = None, max_queued: int = 100_000) -> Any:
    """Return the store that an app would have."""
    from tickwork.clock import SystemClock

    if url.startswith("sqlite:///"):
        from tickwork.stores.sqlite import SQLiteStore

        return SQLiteStore(Path(url.removeprefix("sqlite:///")), SystemClock(), worker=worker, max_queued=max_queued)
    from tickwork.stores.postgres import PostgresStore
    from tickwork.stores.postgres_target import target_of

    return PostgresStore(target_of(url), SystemClock(), worker=worker, max_queued=max_queued)


# --- idling: the share of a core that an app uses which has nothing to do, in percent ---


async def idle_bare(folder: Path, seconds: float) -> float:
    return await share(seconds)


async def idle_memory(folder: Path, seconds: float) -> float:
    from tickwork import App

    async with App():
        return await share(seconds)


async def idle_file(folder: Path, seconds: float) -> float:
    from tickwork import App

    async with App(f"sqlite:///{folder}/jobs.db"):
        return await share(seconds)


async def share(seconds: float) -> float:
    await asyncio.sleep(2)  # what starts, and what stays awake for a second after a start, is over
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - used) / (time.perf_counter() - began)


# --- the weight of the past: what a verb costs beside jobs that are finished, in milliseconds ---


def fill(path: Path, rows: int) -> None:
    """Write finished jobs, half of them of a schedule, all of which ended within the last quarter of an hour."""
    from tickwork.stores.sqlite_schema import migrate

    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA journal_mode = OFF")
    db.execute("BEGIN")
    migrate(db, str(path))
    first, each = time.time_ns() // 1_000 - 900_000_000, 900_000_000 // max(rows, 1)
    db.execute(
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
        INSERT INTO jobs (id, task, payload, run_at, queue, priority, schedule, fire_time, state, enqueued_at, attempt,
            started_at, finished_at, result)
        SELECT printf('00%018d', i), 'noop', '{"x":7}', :first + i * :each, 'default', 0, iif(i % 2, 's', NULL),
            iif(i % 2, :first + i * :each, NULL), iif(i % 10, 'succeeded', 'failed'), :first + i * :each, 1,
            :first + i * :each, :first + i * :each, '7' FROM n
        """,
        {"rows": rows, "first": first, "each": each},
    )
    db.execute("COMMIT")
    db.close()


async def verbs(path: Path, samples: int) -> dict[str, float]:
    """Return the median of what each verb takes, as its caller sees it."""
    from datetime import UTC, datetime

    from tickwork.jobs import JobState, NewJob, new_id
    from tickwork.stores.base import Finish, Lease

    store = store_of(f"sqlite:///{path}", worker="bench")
    costs: dict[str, list[float]] = {}

    async def timed(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        started = time.perf_counter()
        value = await call()
        costs.setdefault(name, []).append((time.perf_counter() - started) * 1e3)
        return value

    def new_job() -> NewJob:
        now = datetime.now(UTC)
        return NewJob(id=new_id(now), task="noop", payload='{"x":7}', run_at=now)

    def finish(record: Any) -> Finish:
        lease = Lease(record.id, record.token)
        return Finish(
            lease=lease, state=JobState.SUCCEEDED, attempt=1, started_at=datetime.now(UTC), result=record.payload
        )

    await store.open()
    try:
        for _ in range(samples):
            await timed("counts()", store.counts)
            await timed("jobs()", store.jobs)
            for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED, JobState.RUNNING):
                await timed(f"jobs(state={state})", lambda state=state: store.jobs(state=state))  # type: ignore[misc]
            await timed("jobs(schedule=...)", lambda: store.jobs(schedule="s"))
            for count in (1, 64):
                jobs = [new_job() for _ in range(count)]
                await timed(f"enqueue of {count}", lambda jobs=jobs: store.enqueue(jobs))  # type: ignore[misc]
                claimed = await timed(
                    f"claim of {count}",
                    lambda count=count: store.claim(worker="bench", tasks={"noop"}, limit=count),  # type: ignore[misc]
                )
                if len(claimed) != count:
                    raise AssertionError(f"{len(claimed)} jobs claimed, not {count}")
                ends = [finish(record) for record in claimed]
                await timed(f"finish of {count}", lambda ends=ends: store.finish(ends))  # type: ignore[misc]
            await asyncio.sleep(random.uniform(0, 0.01))
    finally:
        await store.close()
    return {name: statistics.median(values) for name, values in costs.items()}


if __name__ == "__main__":
    asyncio.run(produce(sys.argv[1], int(sys.argv[2])))
