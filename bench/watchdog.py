"""What the watchdog of the event loop costs: idle, armed, for each job, and what is left of the throughput.

    python bench/watchdog.py                     # 20 s for each measurement of processor time, 5 rounds
    python bench/watchdog.py --seconds 5 --rounds 3

Every measurement runs in a process of its own, with and without the watchdog in turn.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from inproc import hardware, spread

SETTINGS = {"without": None, "with": 0.25}


async def idle(limit: float | None, amount: float) -> float:
    """Return the share of a processor that an app uses which has nothing to do, in percent."""
    from tickwork import App

    app = App(block_warn_seconds=limit)

    @app.every("1h")
    async def hourly() -> None: ...

    async with app:
        return await share(amount)


async def armed(limit: float | None, amount: float) -> float:
    """Return the same, while one job waits all the time."""
    from tickwork import App

    app = App(block_warn_seconds=limit, drain_seconds=0)

    @app.task()
    async def wait() -> None:
        await asyncio.Event().wait()

    async with app:
        await wait.enqueue()
        return await share(amount)


async def share(seconds: float) -> float:
    await asyncio.sleep(2)  # what starts, and what stays awake for a second after a start, is over
    began, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    return 100 * (time.process_time() - used) / (time.perf_counter() - began)


async def jobs(limit: float | None, amount: float) -> float:
    """Return how many no-op jobs a second go through an app."""
    from tickwork import App

    app = App(block_warn_seconds=limit)
    count = int(amount)

    @app.task()
    async def noop() -> None: ...

    async with app:
        began = time.perf_counter()
        for number in range(count):
            await noop.enqueue()
            if number % 100 == 0:
                await asyncio.sleep(0)  # a producer that never waits holds the loop, and is named
        await app.wait_idle()
        return count / (time.perf_counter() - began)


async def pair(limit: float | None, amount: float) -> float:
    """Return the nanoseconds that `enter` and `leave` take together, beside two calls of nothing."""
    from tickwork.clock import SystemClock
    from tickwork.watchdog import Watchdog

    class Nothing:
        def enter(self) -> None: ...

        def leave(self) -> None: ...

    dog = Watchdog(
        asyncio.get_running_loop(), block_warn_seconds=0.25, holder=lambda task, variables: None, clock=SystemClock()
    )
    dog.start()
    dog.enter()  # so that it stays awake, as it does in a stream of jobs
    await asyncio.sleep(0.2)
    counted: Any = Nothing() if limit is None else dog
    enter, leave, count = counted.enter, counted.leave, int(amount)
    began = time.perf_counter()
    for _ in range(count):
        enter()
        leave()
    elapsed = time.perf_counter() - began
    dog.close()
    return 1e9 * elapsed / count


KINDS: dict[str, tuple[str, Callable[[float | None, float], Coroutine[Any, Any, float]], str]] = {
    "idle": ("idle: one schedule, an hour away; % of a processor", idle, ".3f"),
    "armed": ("armed: one job that waits; % of a processor", armed, ".3f"),
    "pair": ("`enter()` and `leave()`, beside two empty methods; ns", pair, ",.0f"),
    "jobs": ("no-op jobs a second through an app", jobs, ",.0f"),
}


def measure(kind: str, setting: str, amount: float) -> float:
    command = [sys.executable, __file__, "--child", kind, "--setting", setting, "--amount", str(amount)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return float(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20, help="for each measurement of processor time")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--amount", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.child:
        print(json.dumps(asyncio.run(KINDS[options.child][1](SETTINGS[options.setting], options.amount))))
        return 0

    amounts = {"idle": options.seconds, "armed": options.seconds, "pair": 1_000_000, "jobs": options.jobs}
    found: dict[tuple[str, str], list[float]] = {(kind, setting): [] for kind in KINDS for setting in SETTINGS}
    for number in range(options.rounds):
        for kind, amount in amounts.items():
            order = list(SETTINGS) if number % 2 else list(SETTINGS)[::-1]
            for setting in order:
                found[kind, setting].append(measure(kind, setting, amount))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    print(f"\n### What the watchdog costs: {options.rounds} rounds, median (min-max)\n")
    print("| | without | with | difference | ratio |\n|---|--:|--:|--:|--:|")
    for kind, (title, _, form) in KINDS.items():
        without, with_ = found[kind, "without"], found[kind, "with"]
        both = list(zip(without, with_, strict=True))
        difference = format(statistics.median(mine - base for base, mine in both), form)
        ratio = spread([mine / base for base, mine in both], ".3f")
        print(f"| {title} | {spread(without, form)} | {spread(with_, form)} | {difference} | {ratio} |")
    print(f"\n{hardware()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
