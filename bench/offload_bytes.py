"""What it costs to send much data to a child process and back: how long it takes, and what it does to the loop.

python bench/offload_bytes.py --megabytes 100 --rounds 7
"""

import argparse
import array
import asyncio
import os
import pickle
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

from inproc import hardware

from tickwork import Pool

Send = Callable[[Callable[[Any], Any], Any], Awaitable[Any]]


class Buffer:
    """Memory that travels beside the pickle where protocol 5 may do that, as numpy's arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(memoryview(self.data))

    def __reduce_ex__(self, protocol: Any) -> Any:
        if protocol >= 5:
            return Buffer, (pickle.PickleBuffer(self.data),)
        return Buffer, (bytes(self.data),)


def same(value: Any) -> Any:
    return value


def payloads(size: int) -> dict[str, Any]:
    data = os.urandom(1 << 20) * (size >> 20)
    found: dict[str, Any] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "array.array": array.array("d", data),
        "buffer (protocol 5)": Buffer(bytearray(data)),
    }
    if find_spec("numpy") is not None:
        import numpy

        found["numpy array"] = numpy.frombuffer(bytearray(data), dtype="float64")
    return found


class Lag:
    """How late a task comes that wants to run each millisecond, in milliseconds."""

    def __init__(self) -> None:
        self.values: list[float] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        task = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            task.cancel()

    async def _tick(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.values.append((now - before - 0.001) * 1e3)
            before = now

    def text(self) -> str:
        return f"{statistics.quantiles(self.values, n=100)[98]:.1f} | {max(self.values):.0f}"


async def contestants(stack: AsyncExitStack) -> dict[str, Send]:
    loop = asyncio.get_running_loop()
    pool = await stack.enter_async_context(Pool(1, run_in="process", processes=1))
    executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
    multi = stack.enter_context(get_context("spawn").Pool(1))

    async def by_tickwork(fn: Callable[[Any], Any], value: Any) -> Any:
        return await (await pool.submit(fn, value))

    async def by_executor(fn: Callable[[Any], Any], value: Any) -> Any:
        return await loop.run_in_executor(executor, fn, value)

    async def by_multiprocessing(fn: Callable[[Any], Any], value: Any) -> Any:
        return await asyncio.to_thread(multi.apply, fn, (value,))

    return {"tickwork": by_tickwork, "ProcessPoolExecutor": by_executor, "multiprocessing.Pool": by_multiprocessing}


async def seconds(call: Callable[[], Awaitable[Any]]) -> float:
    before = time.perf_counter()
    await call()
    return time.perf_counter() - before


def copy_seconds(size: int) -> float:
    """Return how long one copy of the data takes into memory that is new to the process."""
    source = bytearray(size)
    before = time.perf_counter()
    bytes(source)
    return time.perf_counter() - before


async def compare(size: int, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        senders = await contestants(stack)
        print("| payload | | ms there | ms there and back | copies | of tickwork | lag ms: p99 | most |")
        print("|---|---|--:|--:|--:|--:|--:|--:|")
        for kind, value in payloads(size).items():
            lags = {name: Lag() for name in senders}
            there: dict[str, list[float]] = {name: [] for name in senders}
            back: dict[str, list[float]] = {name: [] for name in senders}
            copies = []
            for turn in range(rounds + 1):  # the first does not count
                copies.append(copy_seconds(size))
                for name, send in senders.items():
                    with lags[name].measured() if turn else Lag().measured():
                        there[name].append(await seconds(partial(send, len, value)))
                        back[name].append(await seconds(partial(send, same, value)))
            first = statistics.median(back["tickwork"][1:])
            for name in senders:
                one, both = statistics.median(there[name][1:]), statistics.median(back[name][1:])
                copied = both / statistics.median(copies[1:])
                row = f"{one * 1e3:.0f} | {both * 1e3:.0f} | {copied:.1f} | {both / first:.2f} | {lags[name].text()}"
                print(f"| {kind} | {name} | {row} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    print(f"### {options.megabytes} MiB to a warm child and back: medians of {options.rounds} rounds, all in turn\n")
    asyncio.run(compare(options.megabytes << 20, options.rounds))
    print(f"\n{hardware()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
