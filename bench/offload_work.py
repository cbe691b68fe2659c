"""What offload.py runs in other processes: functions, and one contestant for each way to get them there.

A contestant is a coroutine function: it takes the rows, each a list of items, and returns for each the seconds and what
the loop was held for meanwhile. It warms its processes up with each row's function before the clock starts.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

WORKERS = 2
LOOK_SECONDS = 0.002


def spin(count: int) -> int:
    """Count, which takes some 20 ns each on the processor, whoever else is on it; 0: next to nothing."""
    for _ in range(count):
        pass
    return count


def timed(count: int) -> int:
    """Do the same, and return the nanoseconds that it took; 0: it was not measured."""
    if not count:
        return 0
    began = time.perf_counter_ns()
    spin(count)
    return time.perf_counter_ns() - began


async def atimed(count: int) -> int:
    """Do the same, for those who run coroutine functions only."""
    return timed(count)


def nothing() -> None:
    """Return."""


async def anothing() -> None:
    """Return."""


def calibrate(seconds: float) -> int:
    """Return for how many counts `spin` takes that long here."""
    spin(100_000)
    best = min(_timed(1_000_000) for _ in range(5))
    return round(seconds / best * 1_000_000)


def _timed(count: int) -> float:
    began = time.perf_counter()
    spin(count)
    return time.perf_counter() - began


class Lag:
    """How late a timer of the loop is, in ms: p99."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def watch(self) -> None:
        while True:
            due = time.perf_counter() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.late.append(time.perf_counter() - due)

    def p99(self) -> float:
        return 1e3 * sorted(self.late)[int(len(self.late) * 0.99)] if self.late else 0.0


Row = tuple[list[int], int]
"""Items, and the chunk size for those who need one."""
Mapper = Callable[[list[int], int], Awaitable[list[int]]]
Found = list[tuple[float, float, float]]
"""Seconds, lag in ms, and the seconds that went by inside of the function, of each row."""


async def measured(mapper: Mapper, rows: list[Row]) -> Found:
    """Run the rows; what comes back is checked."""
    found = []
    for items, chunk in rows:
        await mapper(items[: max(WORKERS, len(items) // 20)], chunk)
        lag = Lag()
        watcher = asyncio.create_task(lag.watch())
        began = time.perf_counter()
        results = await mapper(items, chunk)
        took = time.perf_counter() - began
        watcher.cancel()
        if [bool(result) for result in results] != [bool(item) for item in items]:
            raise AssertionError("the results are not those of the items")
        found.append((took, lag.p99(), sum(results) / 1e9))
    return found


# --- batches -------------------------------------------------------------------------------------------------------


async def tickwork_map(rows: list[Row]) -> Found:
    import tickwork

    async with tickwork.Pool(run_in="process", processes=WORKERS) as pool:
        return await measured(lambda items, _: tickwork.map(timed, items, run_in="process", pool=pool), rows)


def in_thread(call: Callable[[list[int], int], list[int]]) -> Mapper:
    """Return a mapper that does not hold the loop, as an asyncio program would call it."""

    async def mapper(items: list[int], chunk: int) -> list[int]:
        return await asyncio.to_thread(call, items, chunk)

    return mapper


async def mp_pool(rows: list[Row]) -> Found:
    import multiprocessing

    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        return await measured(in_thread(lambda items, chunk: pool.map(timed, items, chunksize=chunk)), rows)


async def executor(rows: list[Row]) -> Found:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return await measured(in_thread(lambda items, chunk: list(pool.map(timed, items, chunksize=chunk))), rows)


async def joblib(rows: list[Row]) -> Found:
    from joblib import Parallel, delayed  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with Parallel(n_jobs=WORKERS) as parallel:
        return await measured(
            in_thread(lambda items, chunk: list(parallel(delayed(timed)(item) for item in items))), rows
        )


async def aiomultiprocess(rows: list[Row]) -> Found:
    from aiomultiprocess import Pool  # type: ignore[import-not-found,import-untyped,unused-ignore]

    async def mapper(items: list[int], _: int) -> list[int]:
        return list(await pool.map(atimed, items))

    async with Pool(WORKERS) as pool:
        return await measured(mapper, rows)


async def anyio_process(rows: list[Row]) -> Found:
    from anyio import CapacityLimiter, to_process

    limiter = CapacityLimiter(WORKERS)

    async def mapper(items: list[int], _: int) -> list[int]:
        results = [0] * len(items)

        async def lane(first: int) -> None:
            for place in range(first, len(items), WORKERS):
                results[place] = await to_process.run_sync(timed, items[place], limiter=limiter)

        await asyncio.gather(*(lane(first) for first in range(WORKERS)))
        return results

    return await measured(mapper, rows)


async def dask(rows: list[Row]) -> Found:
    from distributed import Client, LocalCluster  # type: ignore[import-not-found,import-untyped,unused-ignore]

    async def mapper(items: list[int], _: int) -> list[int]:
        return list(await client.gather(client.map(timed, items, pure=False)))

    async with (
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, asynchronous=True
        ) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        return await measured(mapper, rows)


# --- one call after the other -----------------------------------------------------------------------------------------

Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def tickwork_call() -> AsyncIterator[Call]:
    from tickwork.runners.process import ProcessRunner

    runner = ProcessRunner(WORKERS)
    try:
        yield lambda: runner.run(nothing)
    finally:
        await runner.aclose()


@asynccontextmanager
async def pool_call() -> AsyncIterator[Call]:
    import tickwork

    async with tickwork.Pool(run_in="process", processes=WORKERS) as pool:

        async def call() -> None:
            await (await pool.submit(nothing))

        yield call


@asynccontextmanager
async def executor_call() -> AsyncIterator[Call]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield lambda: loop.run_in_executor(pool, nothing)


@asynccontextmanager
async def anyio_call() -> AsyncIterator[Call]:
    from anyio import to_process

    yield lambda: to_process.run_sync(nothing)


@asynccontextmanager
async def aiomultiprocess_call() -> AsyncIterator[Call]:
    from aiomultiprocess import Pool

    async with Pool(WORKERS) as pool:
        yield lambda: pool.apply(anothing)


ECHO = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
while got := sock.recv(100):
    sock.sendall(got)
"""


@asynccontextmanager
async def echo_call() -> AsyncIterator[Call]:
    """The least that a call can cost which goes through the loop: 100 bytes to a process that sends them back."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    answer: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(ours, lambda: answer.set_result(ours.recv(100)))

    async def call() -> None:
        nonlocal answer
        answer = loop.create_future()
        ours.send(bytes(100))
        await answer

    try:
        yield call
    finally:
        loop.remove_reader(ours)
        ours.close()
        process.wait()


async def calls(made: Callable[[], Any], count: int) -> Found:
    """Return the median seconds of a call that waits for the one before."""
    async with made() as call:
        for _ in range(max(20, count // 10)):
            await call()
        each = []
        for _ in range(count):
            began = time.perf_counter()
            await call()
            each.append(time.perf_counter() - began)
    return [(statistics.median(each), 0.0, 0.0)]


MAPS: dict[str, Callable[[list[Row]], Any]] = {
    "tickwork": tickwork_map,
    "mp": mp_pool,
    "ppe": executor,
    "joblib": joblib,
    "aiomultiprocess": aiomultiprocess,
    "anyio": anyio_process,
    "dask": dask,
}
CALLS: dict[str, Callable[[], Any]] = {
    "tickwork": tickwork_call,
    "pool": pool_call,
    "ppe": executor_call,
    "anyio": anyio_call,
    "aiomultiprocess": aiomultiprocess_call,
    "echo": echo_call,
}


def main() -> None:
    """Run one contestant: `map NAME COUNT:ITEMS:CHUNK ...` or `call NAME COUNT`; prints what it found."""
    kind, name, *rest = sys.argv[1:]
    if kind == "call":
        found = asyncio.run(calls(CALLS[name], int(rest[0])))
    else:
        numbers = [tuple(map(int, row.split(":"))) for row in rest]
        found = asyncio.run(MAPS[name]([([count] * items, chunk) for count, items, chunk in numbers]))
    print("found:", *(",".join(map(repr, row)) for row in found))


if __name__ == "__main__":
    import offload_work

    offload_work.main()
