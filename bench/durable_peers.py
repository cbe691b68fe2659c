"""The durable peers of `durable.py`, each run by a Python of its own environment, in its fastest sane configuration.

What is fastest was found by trying, on two cores: callers 1, 4, 16 and 64, workers 1, 2 and 4, the worker in the same
process and in another one, and pauses between two looks for a result from 2 to 200 ms. Those on SQLite take one job a
transaction and write under one lock, so more threads make them slower, and the fewest that show what the peer offers
are used. SAQ stands twice in the table, because its two ways are equally fast.

    python durable_peers.py PEER FOLDER      the process of a worker, until its standard input ends
"""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from durable_raw import Times

SLOTS = 64
"""Jobs at the same time in a worker on Redis, and what else is counted there."""

# --- on SQLite, each in threads: WAL and synchronous=FULL, so every transaction waits for the disk ---


def crowd(jobs: int, callers: int, one: Callable[[int], None]) -> Times:
    """Let threads do job after job, until so many are done."""
    numbers = iter(range(jobs))
    errors: list[BaseException] = []

    def call() -> None:
        try:
            for number in numbers:  # the threads share them
                one(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(callers)]
    started, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - started, time.process_time() - cpu


def huey(folder: Path, jobs: int, callers: int) -> Times:
    """One worker thread. A caller is told of the end by huey's signal, and reads the result: quicker than looking."""
    from huey import SqliteHuey  # type: ignore[import-not-found,unused-ignore]
    from huey.signals import SIGNAL_COMPLETE  # type: ignore[import-not-found,unused-ignore]

    logging.getLogger("huey").setLevel(logging.WARNING)
    queue = SqliteHuey(filename=str(folder / "huey.db"), fsync=True, timeout=60)
    ends: dict[str, threading.Event] = {}

    @queue.task()  # type: ignore[untyped-decorator,unused-ignore]
    def noop(x: int) -> int:
        return x

    @queue.signal(SIGNAL_COMPLETE)  # type: ignore[untyped-decorator,unused-ignore]
    def complete(signal: str, task: Any) -> None:
        ends.pop(task.id).set()

    def one(number: int) -> None:
        task = noop.s(number)
        end = ends[task.id] = threading.Event()
        result = queue.enqueue(task)
        end.wait()
        if result.get(preserve=True) != number:  # preserve: it need not be deleted, which would be one more flush
            raise AssertionError(f"{task.id} has another job's result")

    consumer = queue.create_consumer(workers=1, periodic=False, initial_delay=0.001, backoff=1.0, max_delay=0.001)
    consumer.start()
    return crowd(jobs, callers, one)


def persistqueue(folder: Path, jobs: int, callers: int) -> Times:
    """One thread puts, gets and acknowledges; FULL is its default. There are no results."""
    from persistqueue import SQLiteAckQueue  # type: ignore[import-not-found,unused-ignore]

    queue = SQLiteAckQueue(str(folder), multithreading=True)

    def one(number: int) -> None:
        queue.put(number)
        found = queue.get(raw=True)
        if found["data"] != number:
            raise AssertionError(f"{found} is another job")
        queue.ack(id=found["pqid"])

    return crowd(jobs, 1, one)


def litequeue(folder: Path, jobs: int, callers: int) -> Times:
    """One thread puts, pops and marks as done. There are no results."""
    queue = open_litequeue(folder)

    def one(number: int) -> None:
        queue.put(str(number))
        message = queue.pop()
        if message.data != str(number):
            raise AssertionError(f"{message} is another job")
        litequeue_done(queue, message)

    return crowd(jobs, 1, one)


def litequeue_batches(folder: Path, jobs: int, callers: int) -> Times:
    """The same with as many at a time as there are callers; `pop` has no batches."""
    queue = open_litequeue(folder)

    def batch(number: int) -> None:
        first = number * callers
        count = min(callers, jobs - first)
        with queue.transaction():
            for job in range(first, first + count):
                queue.put(str(job))
        messages = [queue.pop() for _ in range(count)]
        with queue.transaction():
            for message in messages:
                litequeue_done(queue, message)

    return crowd(-(-jobs // callers), 1, batch)


def open_litequeue(folder: Path) -> Any:
    from litequeue import LiteQueue  # type: ignore[import-not-found,unused-ignore]

    queue = LiteQueue(str(folder / "lite.db"))
    queue.conn.execute("PRAGMA synchronous = FULL")  # it sets NORMAL: the last jobs before a power cut would be lost
    return queue


def litequeue_done(queue: Any, message: Any) -> None:
    if hasattr(message, "claim_id"):  # since 0.14
        queue.done(message.message_id, claim_id=message.claim_id)
    else:
        queue.done(message.message_id)


# --- on Redis, each on an event loop ---


class NoRedis(Exception):
    """There is a redis-server, and it is of no use."""


@contextmanager
def redis(folder: Path) -> Iterator[None]:
    """Run a Redis of one's own that waits for the disk before each answer, with its socket in the folder."""
    command = ["redis-server", "--port", "0", "--unixsocket", "socket", "--dir", str(folder), "--daemonize", "no"]
    keep = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen([*command, *keep], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not answers(folder / "socket"):
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoRedis("redis-server does not start")
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(30)


def has_redis() -> bool:
    return shutil.which("redis-server") is not None


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(str(path))
            peer.sendall(b"PING\r\n")
            return peer.recv(64).startswith(b"+PONG")
        except OSError:
            return False


async def throng(jobs: int, callers: int, one: Callable[[int], Awaitable[Any]]) -> Times:
    """Let tasks do job after job, until so many are done; each must return its number."""
    numbers = iter(range(jobs))

    async def call() -> None:
        for number in numbers:  # the tasks share them
            if await one(number) != number:
                raise AssertionError(f"job {number} has another job's result")

    await one(0)  # scripts are loaded, groups are made, connections are open
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(callers)))
    return time.perf_counter() - started, time.process_time() - cpu


@asynccontextmanager
async def worker_process(peer: str, folder: Path) -> AsyncIterator[None]:
    """Run the worker of a peer in a process of its own."""
    command = [sys.executable, __file__, peer, str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the worker process of {peer} ended")
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def be_worker(running: "asyncio.Task[Any]") -> None:
    """Let a worker run in this process, until nobody holds the other end of its standard input."""
    await asyncio.sleep(1)
    if not running.done():
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    os._exit(int(running.done()))


def saq_told(folder: Path, jobs: int, callers: int) -> Times:
    """A caller is told of the end by Redis; it also looks each half second, for it may listen too late to be told."""

    async def run() -> Times:
        queue = open_saq(folder)

        async def one(x: int) -> Any:
            job = await queue.enqueue("noop", x=x)
            while not job.completed:
                with suppress(asyncio.TimeoutError):
                    await job.refresh(0.5)
            return job.result

        async with worker_process("saq", folder):
            return await throng(jobs, callers, one)

    return asyncio.run(run())


def saq_looking(folder: Path, jobs: int, callers: int) -> Times:
    """The worker in the same process; `apply` looks for the result every 20 ms."""

    async def run() -> Times:
        worker = saq_worker(folder)
        running = asyncio.create_task(worker.start())
        await asyncio.sleep(1)  # what is enqueued while it starts may be swept away
        queue = open_saq(folder)
        times = await throng(jobs, callers, lambda x: queue.apply("noop", x=x, poll_interval=0.02))
        await worker.stop()
        await running
        return times

    return asyncio.run(run())


def saq_worker(folder: Path) -> Any:
    from saq import Worker  # type: ignore[import-not-found,unused-ignore]

    async def noop(ctx: Any, *, x: int) -> int:
        return x

    return Worker(open_saq(folder), functions=[("noop", noop)], concurrency=SLOTS)


def open_saq(folder: Path) -> Any:
    from saq.queue.redis import RedisQueue  # type: ignore[import-not-found,unused-ignore]

    return RedisQueue.from_url(f"unix://{folder}/socket", max_concurrent_ops=SLOTS)


def arq(folder: Path, jobs: int, callers: int) -> Times:
    """The worker looks for jobs, and a caller for the result, every 20 ms."""
    from arq import create_pool  # type: ignore[import-not-found,unused-ignore]

    async def run() -> Times:
        pool = await create_pool(arq_settings(folder))

        async def one(x: int) -> Any:
            job = await pool.enqueue_job("noop", x)
            return await job.result(poll_delay=0.02)

        async with worker_process("arq", folder):
            return await throng(jobs, callers, one)

    return asyncio.run(run())


def arq_worker(folder: Path) -> Any:
    from arq.worker import Worker, func  # type: ignore[import-not-found,unused-ignore]

    async def noop(ctx: Any, x: int) -> int:
        return x

    return Worker(
        [func(noop, name="noop")],
        redis_settings=arq_settings(folder),
        max_jobs=SLOTS,
        poll_delay=0.02,
        handle_signals=False,
        log_results=False,
    )


def arq_settings(folder: Path) -> Any:
    from arq.connections import RedisSettings  # type: ignore[import-not-found,unused-ignore]

    return RedisSettings(unix_socket_path=f"{folder}/socket")


def taskiq(folder: Path, jobs: int, callers: int) -> Times:
    """A caller looks for the result every 30 ms."""

    async def run() -> Times:
        broker, task = open_taskiq(folder)
        await broker.startup()

        async def one(x: int) -> Any:
            job = await task.kiq(x)
            return (await job.wait_result(check_interval=0.03)).return_value

        async with worker_process("taskiq", folder):
            times = await throng(jobs, callers, one)
        await broker.shutdown()
        return times

    return asyncio.run(run())


async def run_taskiq(folder: Path) -> None:
    from taskiq.api import run_receiver_task  # type: ignore[import-not-found,unused-ignore]

    broker, _ = open_taskiq(folder)
    await broker.startup()
    await run_receiver_task(broker, max_async_tasks=SLOTS, max_prefetch=SLOTS)


def open_taskiq(folder: Path) -> tuple[Any, Any]:
    from taskiq_redis import (  # type: ignore[import-not-found,unused-ignore]
        RedisAsyncResultBackend,
        RedisStreamBroker,
    )

    url = f"unix://{folder}/socket"
    results: Any = RedisAsyncResultBackend(url, result_ex_time=3_600)
    broker = RedisStreamBroker(url).with_result_backend(results)

    async def noop(x: int) -> int:
        return x

    return broker, broker.register_task(noop, task_name="noop")


WORKERS: dict[str, Callable[[Path], Any]] = {
    "saq": lambda folder: saq_worker(folder).start(),
    "arq": lambda folder: arq_worker(folder).async_run(),
    "taskiq": run_taskiq,
}


async def main(peer: str, folder: Path) -> None:
    await be_worker(asyncio.ensure_future(WORKERS[peer](folder)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
