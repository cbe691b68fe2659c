"""No-op jobs per second inside one process: the Pool beside a bare asyncio.Queue, and beside two peers.

    python bench/inproc.py                       # 100 workers, 100,000 jobs, 5 rounds
    python bench/inproc.py --workers 10 --rounds 3 --no-peers

A round runs every contestant once, in turn and in a process of its own. The clock runs from before the first
submit until the program has the last result. Ratios are taken within a round, so a slow minute of the machine
hits both sides.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers

BUFFER = 1000
CANCEL_EVERY = 1000
STATS_EVERY = 1000


async def noop() -> None:
    """Return at once: what is left is the cost of the machinery."""


# --- the limit: what asyncio itself costs ---


async def bare(workers: int, jobs: int, maxsize: int = 0) -> float:
    queue: asyncio.Queue[tuple[asyncio.Future[Any], Callable[[], Coroutine[Any, Any, Any]]]]
    queue = asyncio.Queue(maxsize)

    async def work() -> None:
        while True:
            future, fn = await queue.get()
            try:
                result = await fn()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                queue.task_done()

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work()) for _ in range(workers)]
    await asyncio.sleep(0)  # every worker waits before the clock starts
    started = time.perf_counter()
    futures: list[asyncio.Future[Any]] = []
    for _ in range(jobs):
        future = loop.create_future()
        await queue.put((future, noop))
        futures.append(future)
    for future in futures:
        await future
    elapsed = time.perf_counter() - started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return elapsed


async def bare_bounded(workers: int, jobs: int) -> float:
    return await bare(workers, jobs, maxsize=BUFFER)


# --- tickwork ---


async def pool_plain(workers: int, jobs: int) -> float:
    from tickwork import Pool

    async with Pool(workers=workers, buffer=BUFFER) as pool:
        await asyncio.sleep(0)
        started = time.perf_counter()
        handles = [await pool.submit(noop) for _ in range(jobs)]
        for handle in handles:
            await handle.result()
        elapsed = time.perf_counter() - started
        await check_cancel(pool)
    return elapsed


async def pool_full(workers: int, jobs: int) -> float:
    from tickwork import Pool
    from tickwork.errors import JobCancelled

    async with Pool(workers=workers, buffer=BUFFER, timeout=5) as pool:
        cancelled = set()
        handles: list[Any] = []
        await asyncio.sleep(0)
        started = time.perf_counter()
        for number in range(jobs):
            handle = await pool.submit(noop)
            handles.append(handle)
            if number % CANCEL_EVERY == 0 and handle.cancel():
                cancelled.add(number)
            if number % STATS_EVERY == 0:
                stats = pool.stats()
                if stats.pending + stats.running > BUFFER + workers:
                    raise AssertionError(f"more jobs inside than the pool holds: {stats}")
        for number, handle in enumerate(handles):
            try:
                await handle.result()
            except JobCancelled:
                cancelled.remove(number)  # a KeyError here: a job that nobody cancelled
        elapsed = time.perf_counter() - started
        if cancelled:
            raise AssertionError(f"{len(cancelled)} cancelled jobs gave a result")
        stats = pool.stats()
        if stats.cancelled == 0 or stats.failed != 0 or stats.done + stats.cancelled != jobs:
            raise AssertionError(f"{jobs} jobs ended otherwise: {stats}")
        await check_cancel(pool)
    return elapsed


async def check_cancel(pool: Any) -> None:
    """Cancel jobs under way and one that waits, with nothing asked for beforehand."""
    from tickwork.errors import JobCancelled

    async def forever() -> None:
        await asyncio.Event().wait()

    handles = [await pool.submit(forever) for _ in range(pool.stats().workers + 1)]
    await asyncio.sleep(0.01)
    for handle in handles:
        if not handle.cancel():
            raise AssertionError(f"{handle!r} cannot be cancelled")
    for handle in handles:
        try:
            await handle.result(timeout=5)
        except JobCancelled:
            continue
        raise AssertionError(f"{handle!r} was cancelled and gave a result")


# --- peers ---


async def taskiq(workers: int, jobs: int) -> float:
    from taskiq import InMemoryBroker  # type: ignore[import-not-found,unused-ignore]

    broker = InMemoryBroker(max_async_tasks=workers, max_stored_results=jobs)
    task = broker.register_task(noop, task_name="noop")
    await broker.startup()
    started = time.perf_counter()
    handles = [await task.kiq() for _ in range(jobs)]
    await broker.wait_all()
    for handle in handles:
        (await handle.wait_result()).raise_for_error()
    elapsed = time.perf_counter() - started
    await broker.shutdown()
    return elapsed


async def apscheduler4(workers: int, jobs: int) -> float:
    from apscheduler import AsyncScheduler  # type: ignore[import-not-found,import-untyped,unused-ignore]

    async with AsyncScheduler(max_concurrent_jobs=workers) as scheduler:
        await scheduler.start_in_background()
        started = time.perf_counter()
        for first in range(0, jobs, workers):  # a job costs it more the more of them wait, so few wait
            batch = range(first, min(first + workers, jobs))
            ids = [await scheduler.add_job(noop, result_expiration_time=600) for _ in batch]
            for job_id in ids:
                await scheduler.get_job_result(job_id)
        return time.perf_counter() - started


# --- the harness ---


@dataclass(frozen=True)
class Contestant:
    name: str
    run: Callable[[int, int], Coroutine[Any, Any, float]]
    peer: str | None = None
    least: float | None = None


CONTESTANTS = {
    "bare": Contestant("bare `asyncio.Queue`, a task each worker, a future each job", bare),
    "bounded": Contestant(f"the same, at most {BUFFER:,} in the queue", bare_bounded),
    "plain": Contestant("`Pool`", pool_plain, least=0.5),
    "full": Contestant("`Pool` with timeout, stats and cancel in use", pool_full, least=0.2),
    "taskiq": Contestant("taskiq, in-memory broker", taskiq, peer="taskiq"),
    "apscheduler4": Contestant("APScheduler 4, in memory", apscheduler4, peer="apscheduler4"),
}


def measure(key: str, python: Path, workers: int, jobs: int) -> float | str:
    """Run one contestant in its own process; return jobs per second, or why there is no number."""
    command = [str(python), __file__, "--child", key, "--workers", str(workers), "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return peers.last_line(done.stderr)
    return float(json.loads(done.stdout))


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def hardware() -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, {python}"


def spread(values: list[float], form: str) -> str:
    low, middle, high = (format(value, form) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low}-{high})"


def table(rates: dict[str, list[float]], reasons: dict[str, str], jobs_of: dict[str, int]) -> list[str]:
    rows = ["| contestant | jobs | jobs per second | of bare | wanted |", "|---|--:|--:|--:|---|"]
    for key, contestant in CONTESTANTS.items():
        if key in reasons:
            rows.append(f"| {contestant.name} | - | not measured: {reasons[key]} | - | |")
            continue
        if key not in rates:
            continue
        ratios = [mine / limit for mine, limit in zip(rates[key], rates["bare"], strict=True)]
        verdict = ""
        if contestant.least is not None:
            met = statistics.median(ratios) >= contestant.least
            verdict = f">= {contestant.least} {'met' if met else 'MISSED'}"
        rate, ratio = spread(rates[key], ",.0f"), spread(ratios, ".3f")
        rows.append(f"| {contestant.name} | {jobs_of[key]:,} | {rate} | {ratio} | {verdict} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--peer-jobs", type=int, default=5_000, help="for the peers, which are slower (default 5000)")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.child:
        elapsed = asyncio.run(CONTESTANTS[options.child].run(options.workers, options.jobs))
        print(json.dumps(options.jobs / elapsed))
        return 0

    pythons: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for key, contestant in CONTESTANTS.items():
        if contestant.peer is None:
            pythons[key] = Path(sys.executable)
        elif not options.no_peers:
            found = peers.environment(contestant.peer)
            if isinstance(found, peers.Missing):
                reasons[key] = found.reason
            else:
                pythons[key] = found.python
    jobs_of = {key: min(options.jobs, options.peer_jobs) if CONTESTANTS[key].peer else options.jobs for key in pythons}

    rates: dict[str, list[float]] = {key: [] for key in pythons}
    for number in range(options.rounds):
        order = list(pythons)
        turn = number % len(order)
        for key in order[turn:] + order[:turn]:
            if key in reasons:
                continue
            rate = measure(key, pythons[key], options.workers, jobs_of[key])
            if isinstance(rate, str):
                reasons[key] = rate
            else:
                rates[key].append(rate)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    if "bare" in reasons:
        print(f"the bare queue did not run: {reasons['bare']}", file=sys.stderr)
        return 1

    setting = f"{options.workers} workers, {options.rounds} rounds"
    print(f"\n### No-op jobs in one process: {setting}, median (min-max)\n")
    print("\n".join(table(rates, reasons, jobs_of)))
    print(f"\n{hardware()}\n")
    return 1 if any(not CONTESTANTS[key].peer for key in reasons) else 0


if __name__ == "__main__":
    sys.exit(main())
