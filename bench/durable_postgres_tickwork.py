"""What `durable.py` measures of tickwork on PostgreSQL: a race, how soon jobs begin, many processes, many rows.

python durable_postgres_tickwork.py URL      one of many worker processes, until its standard input ends
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from durable_postgres import make_tables, url
from durable_raw import Times
from durable_tickwork import call, picked_up_here, picked_up_there, store_of

WAIT_SECONDS = 0.02
SLOTS = 4
"""Jobs at the same time in each of many processes: few, so that they wait for their jobs and not for a processor."""
MANY = 100_000_000
"""Jobs that may wait: more than a table is filled with."""


def end_to_end(folder: Path, jobs: int, callers: int) -> Times:
    return asyncio.run(call(url(folder), jobs, callers))


def batches(folder: Path, jobs: int, callers: int) -> Times:
    """One caller enqueues as many as there would be callers in one call, and awaits all results."""
    return asyncio.run(call_in_batches(url(folder), jobs, callers))


async def call_in_batches(where: str, jobs: int, callers: int) -> Times:
    from tickwork import App

    app = App(where, workers=callers)

    @app.task(name="noop")
    async def noop(x: int) -> int:
        return x

    async def batch(numbers: range) -> None:
        enqueued = await noop.enqueue_many([(number,) for number in numbers])
        if await asyncio.gather(*(job.result() for job in enqueued)) != list(numbers):
            raise AssertionError("jobs have the results of others")

    async with app:
        await batch(range(callers))
        started, cpu = time.perf_counter(), time.process_time()
        for first in range(0, jobs, callers):
            await batch(range(first, min(first + callers, jobs)))
        return time.perf_counter() - started, time.process_time() - cpu


async def pick_up_here(folder: Path, samples: int) -> list[float]:
    return await picked_up_here(url(folder), samples)


async def pick_up_there(folder: Path, samples: int) -> list[float]:
    return await picked_up_there(url(folder), samples)


# --- many worker processes, whose jobs wait ---


async def processes(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """Let so many processes run jobs that wait, for so long.

    Returns:
        Jobs a second, the jobs of each process, and how many percent of all processors' time was used meanwhile.
    """
    import psutil
    import psycopg

    jobs = round(count * SLOTS * seconds / WAIT_SECONDS)
    store = store_of(url(folder))
    await store.open()
    try:
        async with AsyncExitStack() as stack:
            workers = [await stack.enter_async_context(worker(folder)) for _ in range(count)]
            await run_through(store, 2 * count * SLOTS)  # every process has done everything once
            with psycopg.connect(url(folder), options="-c search_path=tickwork") as db:
                (last,) = db.execute("SELECT max(seq) FROM finished").fetchone() or (0,)
                psutil.cpu_percent()
                await run_through(store, jobs)
                busy = psutil.cpu_percent()
                db.rollback()
                (micros,) = db.execute(
                    "SELECT max(finished_at) - min(started_at) FROM finished WHERE seq > %s", (last,)
                ).fetchone() or (0,)
    finally:
        await store.close()
    return {"rate": jobs / micros * 1e6, "shares": [int(done.decode()) for done in workers], "busy": busy}


async def run_through(store: Any, count: int) -> None:
    """Enqueue jobs in one go, and wait until all are done."""
    from datetime import UTC, datetime

    from tickwork.jobs import JobState, NewJob, new_id

    before = (await store.counts()).get(JobState.SUCCEEDED, 0)
    now = datetime.now(UTC)
    await store.enqueue([NewJob(id=new_id(now), task="wait", payload="{}", run_at=now) for _ in range(count)])
    while (await store.counts()).get(JobState.SUCCEEDED, 0) < before + count:
        await asyncio.sleep(0.05)


@asynccontextmanager
async def worker(folder: Path) -> AsyncIterator[bytearray]:
    """Run a worker process; it leaves the number of the jobs it has run."""
    command = [sys.executable, __file__, url(folder)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    done = bytearray()
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("a worker process ended")
        yield done
    finally:
        process.stdin.close()
        done += await process.stdout.read()
        await process.wait()


async def be_worker(where: str) -> None:
    """Be one of the processes."""
    from tickwork import App

    app = App(where, workers=SLOTS)
    count = 0

    @app.task(name="wait")
    async def wait() -> None:
        nonlocal count
        await asyncio.sleep(WAIT_SECONDS)
        count += 1

    async with app:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    print(count)


# --- many rows ---


def fill(folder: Path, schema: str, waiting: int) -> None:
    """Write jobs that wait, and ten times as many that are finished and ended within the last quarter of an hour."""
    import psycopg

    make_tables(folder, schema)
    with psycopg.connect(url(folder), autocommit=True, options=f"-c search_path={schema}") as db:
        db.execute("SET synchronous_commit = off")
        db.execute("SET maintenance_work_mem = '512MB'")
        indexes = db.execute(
            """
            SELECT indexname, indexdef FROM pg_indexes
            WHERE schemaname = %s AND tablename IN ('jobs', 'finished') AND indexname NOT LIKE '%%_pkey'
            """,
            (schema,),
        ).fetchall()
        for name, _ in indexes:  # made at the end, which is quicker
            db.execute(f"DROP INDEX {name}")
        finished = 10 * waiting
        first, each = time.time_ns() // 1_000 - 900_000_000, 900_000_000 / max(finished, 1)
        db.execute(
            """
            INSERT INTO finished (seq, id, task, payload, run_at, queue, priority, schedule, fire_time, state,
                enqueued_at, attempt, token, started_at, finished_at, result)
            SELECT nextval('jobs_seq'), '00' || lpad(i::text, 18, '0'), 'noop', '{"x":7}', at, 'default', 0,
                CASE WHEN i %% 2 = 0 THEN 's' END, CASE WHEN i %% 2 = 0 THEN at END,
                CASE WHEN i %% 10 = 0 THEN 'failed' ELSE 'succeeded' END, at, 1, 1, at, at, '7'
            FROM generate_series(1, %(count)s) AS i, LATERAL (SELECT (%(first)s + i * %(each)s)::bigint AS at) AS times
            """,
            {"count": finished, "first": first, "each": each},
        )
        db.execute(
            """
            INSERT INTO jobs (id, task, payload, run_at, queue, priority, state, enqueued_at)
            SELECT '01' || lpad(i::text, 18, '0'), 'noop', '{"x":7}', %(first)s, 'default', 0, 'queued', %(first)s
            FROM generate_series(1, %(count)s) AS i
            """,
            {"count": waiting, "first": first},
        )
        db.execute(
            "INSERT INTO shards (name, touched_at, queued, succeeded, failed) VALUES ('fill', %s, %s, %s, %s)",
            (time.time_ns() // 1_000, waiting, finished - finished // 10, finished // 10),
        )
        for _, definition in indexes:
            db.execute(definition)
        db.execute("VACUUM (ANALYZE) jobs, finished")  # as the server would sooner or later
        db.execute("CHECKPOINT")


async def claims(folder: Path, schema: str, samples: int) -> dict[str, list[float]]:
    """Return what each claim takes, in milliseconds, as its caller sees it."""
    from datetime import UTC, datetime

    from tickwork.jobs import JobState, NewJob, new_id
    from tickwork.stores.base import Finish, Lease

    store = store_of(f"{url(folder)}&schema={schema}", worker="bench", max_queued=MANY)
    costs: dict[str, list[float]] = {"1": [], "64": []}
    await store.open()
    try:
        for _ in range(samples):
            now = datetime.now(UTC)
            await store.enqueue([NewJob(id=new_id(now), task="noop", payload='{"x":7}', run_at=now) for _ in range(65)])
            for name, late in costs.items():
                started = time.perf_counter()
                found = await store.claim(worker="bench", tasks={"noop"}, limit=int(name))
                late.append((time.perf_counter() - started) * 1e3)
                if len(found) != int(name):
                    raise AssertionError(f"{len(found)} jobs claimed, not {name}")
                at = datetime.now(UTC)
                await store.finish(
                    [
                        Finish(
                            lease=Lease(record.id, record.token),
                            state=JobState.SUCCEEDED,
                            attempt=1,
                            started_at=at,
                            result="7",
                        )
                        for record in found
                    ]
                )
    finally:
        await store.close()
    return costs


if __name__ == "__main__":
    asyncio.run(be_worker(sys.argv[1]))
