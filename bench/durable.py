"""Jobs that are kept: how many a second go through a file, beside plain sqlite3 and beside durable peers.

    python bench/durable.py                          # everything, 5 rounds
    python bench/durable.py --quick                  # less of everything, 1 round, within a minute
    python bench/durable.py --only e2e --rounds 3    # tickwork and the limits only

Every contestant runs in a process of its own, all in turn, `--rounds` times, each in an empty folder. Ratios are taken
within a round.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import durable_raw
import peers
from durable_raw import Times
from inproc import hardware, spread

CALLERS = 64
PROCESS_SECONDS = 600  # for one contestant in one round

# --- end to end: enqueue, run, await the result ---


def tickwork(folder: Path, jobs: int, callers: int) -> Times:
    return asyncio.run(call(folder, jobs, callers))


async def call(folder: Path, jobs: int, callers: int) -> Times:
    """Let callers enqueue and await, each of them job after job, until so many are done."""
    from tickwork import App

    app = App(f"sqlite:///{folder}/jobs.db", workers=callers)

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


@dataclass(frozen=True)
class Contestant:
    name: str
    run: Callable[[Path, int, int], Times]
    kept: str = "file, FULL"
    group: str = "e2e"
    peer: str | None = None


CONTESTANTS = {
    "raw": Contestant("sqlite3, the same rows in the same batches", durable_raw.same_rows),
    "bare": Contestant("sqlite3, a bare table in the same batches", durable_raw.bare_table),
    "tickwork": Contestant("tickwork", tickwork),
}


# --- the harness ---


def child(options: argparse.Namespace) -> int:
    """Be one contestant: print what was measured as JSON."""
    logging.basicConfig(level=logging.WARNING)
    contestant = CONTESTANTS[options.child]
    seconds, cpu = contestant.run(Path(options.folder), options.jobs, CALLERS)
    print(json.dumps({"rate": options.jobs / seconds, "cpu": cpu / options.jobs * 1e6}))
    return 0


def run_child(python: Path, *arguments: str) -> Any:
    """Run this file in a process of its own and return what it prints, or as a string why there is nothing."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [str(python), __file__, *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PROCESS_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {PROCESS_SECONDS} s"
    if done.returncode != 0:
        return peers.last_line(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def race(keys: list[str], options: argparse.Namespace) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Run contestants in turn, and return what each measured in each round, and why others did not."""
    found: dict[str, list[dict[str, float]]] = {key: [] for key in keys}
    reasons: dict[str, str] = {}
    for number in range(options.rounds):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            if key in reasons:
                continue
            with tempfile.TemporaryDirectory(prefix="tickwork-durable-", dir=options.folder) as folder:
                got = run_child(Path(sys.executable), "--child", key, "--folder", folder, "--jobs", str(options.jobs))
            if isinstance(got, str):
                reasons[key] = got
            else:
                found[key].append(got)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    return found, reasons


def end_to_end(options: argparse.Namespace) -> None:
    found, reasons = race(list(CONTESTANTS), options)
    print(f"\n### Enqueue, run, await the result: {CALLERS} callers, {options.rounds} rounds, median (min-max)\n")
    print("| contestant | kept in | jobs | jobs per second | CPU us a job | of sqlite3 | wanted |")
    print("|---|---|--:|--:|--:|--:|---|")
    for key, contestant in CONTESTANTS.items():
        if key in reasons:
            print(f"| {contestant.name} | {contestant.kept} | - | not measured: {reasons[key]} | | | |")
            continue
        rates = [got["rate"] for got in found[key]]
        ratios = [mine / limit["rate"] for mine, limit in zip(rates, found["raw"], strict=True)]
        cpu = spread([got["cpu"] for got in found[key]], ".0f")
        wanted = ""
        if key == "tickwork":
            wanted = f">= 0.4 {'met' if statistics.median(ratios) >= 0.4 else 'MISSED'}"
        print(
            f"| {contestant.name} | {contestant.kept} | {options.jobs:,} | {spread(rates, ',.0f')} | {cpu} "
            f"| {spread(ratios, '.3f')} | {wanted} |"
        )


def flush_microseconds(folder: Path) -> float:
    """Return what it costs here to append 4 KiB to a file and wait for the disk."""
    with tempfile.TemporaryFile(dir=folder) as file:
        costs = []
        for _ in range(200):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            costs.append(time.perf_counter() - started)
    return statistics.median(costs) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="less of everything, 1 round")
    parser.add_argument("--only", nargs="+", choices=["e2e"], default=["e2e"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are kept")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    if options.quick:
        options.rounds, options.jobs = 1, 4_000
    end_to_end(options)
    print(f"\n{hardware()}; {flush_microseconds(options.folder):.0f} us to append 4 KiB and wait for the disk\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
