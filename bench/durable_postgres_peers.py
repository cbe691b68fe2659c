"""The peers of `durable.py` on PostgreSQL, each run by a Python of its own, in its fastest sane configuration.

All run their worker in the process of the callers, so that these are told of the end by the worker itself, which is
quicker than looking: SAQ by its hook for ended jobs, the two others, which have no results, by the function, which is a
little before the end is written. That is to their favour: the callers of tickwork wait for the disk and read a result.
What is fastest was found by trying: pools of 4 to 64 connections, with and without a check of each, 8 to 64 jobs at a
time, 1 to 8 workers in the process, looking for jobs and being told of them, batches of 10 to 64.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from durable_peers import throng
from durable_postgres import url
from durable_raw import Times

SLOTS = 64
POOL = 16
"""Connections: with more, the server spends its time with them."""


class Ends:
    """Who waits for which end, in this process."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[int]] = {}

    def wait(self, number: int) -> "asyncio.Future[int]":
        end = self._waiting[number] = asyncio.get_running_loop().create_future()
        return end

    def tell(self, number: int) -> None:
        self._waiting.pop(number).set_result(number)


def psycopg_pool(folder: Path, **connection: Any) -> Any:
    """Return a pool that does not ask the server, each time, whether a connection lives, as those of the peers do."""
    from psycopg_pool import AsyncConnectionPool

    return AsyncConnectionPool(url(folder), min_size=POOL, max_size=POOL, open=False, kwargs=connection)


# --- procrastinate ---

FETCHERS = 4
"""Its worker fetches one job after the other; so many in one process do that side by side."""


def procrastinate(folder: Path, jobs: int, callers: int) -> Times:
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found,unused-ignore]

    async def run() -> Times:
        ends = Ends()
        app = App(connector=PsycopgConnector())

        @app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
        async def noop(x: int) -> int:
            ends.tell(x)
            return x

        async def one(x: int) -> int:
            end = ends.wait(x)
            await noop.defer_async(x=x)
            return await end

        async with psycopg_pool(folder) as pool, app.open_async(pool):
            await app.schema_manager.apply_schema_async()
            workers = [
                asyncio.create_task(app.run_worker_async(concurrency=SLOTS // FETCHERS, install_signal_handlers=False))
                for _ in range(FETCHERS)
            ]
            await asyncio.sleep(1)  # they listen
            times = await throng(jobs, callers, one)
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
            return times

    return asyncio.run(run())


# --- SAQ ---


def saq(folder: Path, jobs: int, callers: int) -> Times:
    from saq import Worker  # type: ignore[import-not-found,unused-ignore]
    from saq.queue.postgres import PostgresQueue  # type: ignore[import-not-found,unused-ignore]

    async def run() -> Times:
        ends = Ends()
        pool = psycopg_pool(folder, autocommit=True)
        queue = PostgresQueue(pool=pool, min_size=POOL, max_size=POOL, manage_pool_lifecycle=True)

        async def noop(ctx: Any, *, x: int) -> int:
            return x

        async def ended(ctx: Any) -> None:
            ends.tell(ctx["job"].result)

        async def one(x: int) -> int:
            end = ends.wait(x)
            await queue.enqueue("noop", x=x)
            return await end

        await queue.connect()
        worker = Worker(
            queue, functions=[("noop", noop)], after_process=ended, concurrency=SLOTS, poll_interval=LOOK_SECONDS
        )
        running = asyncio.create_task(worker.start())
        await asyncio.sleep(1)  # what is enqueued while it starts may be swept away
        times = await throng(jobs, callers, one)
        await worker.stop()
        await running
        await queue.disconnect()
        return times

    return asyncio.run(run())


LOOK_SECONDS = 0.01
"""Its worker looks for jobs that often. When it is told of them, it overlooks some, until it looks after a second."""


# --- pgqueuer ---

BATCH = 64
"""Jobs that its worker takes at a time."""


def pgqueuer(folder: Path, jobs: int, callers: int) -> Times:
    """Each caller enqueues its own."""

    async def run() -> Times:
        async with PgQueuer(folder) as queue:

            async def one(x: int) -> int:
                end = queue.ends.wait(x)
                await queue.producer.enqueue("noop", str(x).encode())
                return await end

            return await throng(jobs, callers, one)

    return asyncio.run(run())


def pgqueuer_batches(folder: Path, jobs: int, callers: int) -> Times:
    """One caller enqueues as many as there would be callers in one call, and waits for all."""

    async def run() -> Times:
        async with PgQueuer(folder) as queue:
            for first in (-callers, 0):
                started, cpu = time.perf_counter(), time.process_time()
                for number in range(first, jobs if first == 0 else 0, callers):
                    numbers = range(number, min(number + callers, jobs) if first == 0 else 0)
                    ends = [queue.ends.wait(x) for x in numbers]
                    payloads = [str(x).encode() for x in numbers]
                    await queue.producer.enqueue(["noop"] * len(ends), payloads, [0] * len(ends))
                    await asyncio.gather(*ends)
            return time.perf_counter() - started, time.process_time() - cpu

    return asyncio.run(run())


class PgQueuer:
    """Its worker on one connection, which is quicker than on a pool, and producers on a pool, by asyncpg."""

    def __init__(self, folder: Path) -> None:
        self._url = url(folder)
        self.ends = Ends()
        self.producer: Any = None

    async def __aenter__(self) -> "PgQueuer":
        import asyncpg  # type: ignore[import-not-found,import-untyped,unused-ignore]
        from pgqueuer import PgQueuer  # type: ignore[import-not-found,unused-ignore]
        from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver  # type: ignore[import-not-found,unused-ignore]
        from pgqueuer.queries import Queries  # type: ignore[import-not-found,unused-ignore]

        self._connection = await asyncpg.connect(self._url)
        self._pool = await asyncpg.create_pool(self._url, min_size=POOL, max_size=POOL)
        self.producer = Queries(AsyncpgPoolDriver(self._pool))
        await self.producer.install()
        self._worker = PgQueuer(AsyncpgDriver(self._connection))

        @self._worker.entrypoint("noop")  # type: ignore[untyped-decorator,unused-ignore]
        async def noop(job: Any) -> None:
            self.ends.tell(int(job.payload))

        self._running = asyncio.create_task(self._worker.run(batch_size=BATCH))
        await asyncio.sleep(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._worker.shutdown.set()
        await self._running
        await self._pool.close()
        await self._connection.close()
