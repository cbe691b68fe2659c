"""Jobs that are kept: how fast they go through a file and are picked up, and what idling and the past cost.

    python bench/durable.py                          # everything, 5 rounds; about 15 minutes
    python bench/durable.py --quick                  # less of everything, 1 round, about a minute
    python bench/durable.py --only e2e --rounds 3    # tickwork beside plain sqlite3
    bench/packages                                   # as root: installs the Redis that some peers need

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
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import durable_peers
import durable_raw
import durable_tickwork
import peers
from durable_raw import Times
from inproc import hardware, spread

CALLERS = 64
PROCESS_SECONDS = 600  # for one contestant in one round
LEAST_OF_RAW = 0.4
LEAST_OF_BEST = {"files": 2.0, "redis": 4.0}
MOST_HERE, MOST_THERE = 5, 50  # milliseconds
MOST_IDLE = 0.5  # percent of a core
MOST_GROWTH = 2.0  # times what it takes beside a thousand rows
MOST_MILLISECONDS = 10.0
FEW = 1_000
"""Rows in the store that is small: enough for every listing to have the same length in both."""
PARTS = ("e2e", "files", "redis", "pickup", "idle", "million")
RACES = ("e2e", "files", "redis")
"""The parts that are one race, and one table."""


@dataclass(frozen=True)
class Contestant:
    """One who brings jobs from `enqueue` to their end: takes a folder, how many jobs and how many callers."""

    name: str
    run: Callable[[Path, int, int], Times]
    kept: str = "file, FULL"
    part: str = "e2e"
    peer: str | None = None


FULL, SET_FULL, ALWAYS = "file, FULL", "file, set to FULL", "Redis, always"
CONTESTANTS = {
    "raw": Contestant("sqlite3, the same rows in the same batches", durable_raw.same_rows),
    "own": Contestant("sqlite3, the same rows with the statements of tickwork", durable_raw.same_statements),
    "bare": Contestant("sqlite3, a bare table in the same batches", durable_raw.bare_table),
    "tickwork": Contestant("tickwork", durable_tickwork.end_to_end),
    "huey": Contestant(
        "huey, 64 threads that call, one that works", durable_peers.huey, "file, fsync=True", "files", "huey"
    ),
    "persistqueue": Contestant(
        "persist-queue, put, get and ack by one thread", durable_peers.persistqueue, FULL, "files", "persistqueue"
    ),
    "litequeue": Contestant(
        "litequeue, put, pop and done by one thread", durable_peers.litequeue, SET_FULL, "files", "litequeue"
    ),
    "batches": Contestant(
        "litequeue, the same with 64 put, and 64 done, in one transaction",
        durable_peers.litequeue_batches,
        SET_FULL,
        "files",
        "litequeue",
    ),
    "saq": Contestant("SAQ, two processes, told by pub/sub", durable_peers.saq_told, ALWAYS, "redis", "saq"),
    "looking": Contestant("SAQ, one process, looks each 20 ms", durable_peers.saq_looking, ALWAYS, "redis", "saq"),
    "arq": Contestant("arq, two processes, looks each 20 ms", durable_peers.arq, ALWAYS, "redis", "arq"),
    "taskiq": Contestant(
        "taskiq-redis, stream and results, two processes, looks each 30 ms",
        durable_peers.taskiq,
        ALWAYS,
        "redis",
        "taskiqredis",
    ),
}
PICK_UPS = {
    "here": ("enqueued in the same process", durable_tickwork.pick_up_here, MOST_HERE),
    "there": ("enqueued in another process", durable_tickwork.pick_up_there, MOST_THERE),
}
IDLERS = {
    "sleep": ("`asyncio.sleep`", durable_tickwork.idle_bare),
    "memory": ("`App()`, in memory", durable_tickwork.idle_memory),
    "file": ('`App("sqlite:///...")`', durable_tickwork.idle_file),
}


# --- in a process of its own ---


def child(options: argparse.Namespace) -> Any:
    """Measure one thing, and return what can be written as JSON."""
    logging.basicConfig(level=logging.WARNING)
    part, _, key = options.child.partition(":")
    if part == "e2e":
        seconds, cpu = CONTESTANTS[key].run(options.folder, options.amount, CALLERS)
        return {"rate": options.amount / seconds, "cpu": cpu / options.amount * 1e6}
    if part == "pickup":
        return asyncio.run(PICK_UPS[key][1](options.folder, options.amount))
    if part == "idle":
        return asyncio.run(IDLERS[key][1](options.folder, options.amount))
    if part == "fill":
        return durable_tickwork.fill(options.folder / key, options.amount)
    return asyncio.run(durable_tickwork.verbs(options.folder / key, options.amount))


# --- the harness ---


def run_child(what: str, folder: Path, amount: float, python: Path | None = None) -> Any:
    """Run this file in a process of its own; return what it measured, or as a string why there is nothing."""
    command = [str(python or sys.executable), __file__, "--child", what, "--folder", str(folder)]
    try:
        done = subprocess.run(
            [*command, "--amount", str(amount)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PROCESS_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {PROCESS_SECONDS} s"
    if done.returncode != 0:
        return peers.last_line(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(
    keys: list[str], rounds: int, run: Callable[[str, Path], Any], parent: Path
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Let each have a round after the other; return what each measured in each, and why others did not."""
    found: dict[str, list[Any]] = {key: [] for key in keys}
    reasons: dict[str, str] = {}
    for number in range(rounds):
        turn = number % len(keys)
        for key in keys[turn:] + keys[:turn]:
            if key in reasons:
                continue
            with tempfile.TemporaryDirectory(prefix="tickwork-durable-", dir=parent) as folder:
                got = run(key, Path(folder))
            if isinstance(got, str):
                reasons[key] = got
                del found[key]
            else:
                found[key].append(got)
        print(f"{keys[0]} ... {keys[-1]}: round {number + 1} of {rounds}", file=sys.stderr)
    return found, reasons


def verdict(is_met: bool, wanted: str) -> str:
    return f"{wanted} {'met' if is_met else 'MISSED'}"


def ratios(mine: list[float], limit: list[float]) -> list[float]:
    return [one / other for one, other in zip(mine, limit, strict=True)]


# --- the tables ---


def race(options: argparse.Namespace) -> bool:
    """Race tickwork with those that are wanted, and print who got how far."""
    keys = [key for key, entry in CONTESTANTS.items() if key == "tickwork" or entry.part in options.only]
    if "raw" not in keys:
        keys.insert(0, "raw")
    pythons, missing = environments(keys)
    jobs_of = {key: min(options.jobs, options.peer_jobs) if CONTESTANTS[key].peer else options.jobs for key in keys}

    def run(key: str, folder: Path) -> Any:
        try:
            with durable_peers.redis(folder) if CONTESTANTS[key].part == "redis" else nullcontext():
                return run_child(f"e2e:{key}", folder, jobs_of[key], pythons[key])
        except durable_peers.NoRedis as error:
            return str(error)

    found, reasons = in_turn(list(pythons), options.rounds, run, options.folder)
    reasons = missing | reasons
    print(f"\n### From enqueue to the result: {CALLERS} callers, {options.rounds} rounds, median (min-max)\n")
    print("| contestant | kept in | jobs | jobs per second | us of CPU a job | of sqlite3 | wanted |")
    print("|---|---|--:|--:|--:|--:|---|")
    for key in keys:
        entry = CONTESTANTS[key]
        if key in reasons:
            print(f"| {entry.name} | {entry.kept} | - | not measured: {reasons[key]} | - | - | |")
            continue
        of_raw = ratios(rates(found[key]), rates(found["raw"])) if "raw" in found else []
        # Redis has a processor for itself: what the process of the peer uses is not all.
        cpu = "-" if entry.part == "redis" else spread([got["cpu"] for got in found[key]], ",.0f")
        wanted = ""
        if key == "tickwork" and of_raw:
            wanted = verdict(statistics.median(of_raw) >= LEAST_OF_RAW, f">= {LEAST_OF_RAW}")
        print(
            f"| {entry.name} | {entry.kept} | {jobs_of[key]:,} | {spread(rates(found[key]), ',.0f')} | {cpu} "
            f"| {spread(of_raw, '.3f') if of_raw else '-'} | {wanted} |"
        )
    if "tickwork" in found:
        beside_the_best(found)
    return not any(CONTESTANTS[key].peer is None for key in reasons)


def beside_the_best(found: dict[str, list[Any]]) -> None:
    """Print how many times as many jobs go through tickwork as through the best of the peers."""
    rows = []
    for part, least in LEAST_OF_BEST.items():
        medians = {
            key: statistics.median(rates(got)) for key, got in found.items() if CONTESTANTS[key].part == part and got
        }
        if medians:
            best = max(medians, key=lambda key: medians[key])
            times = ratios(rates(found["tickwork"]), rates(found[best]))
            wanted = verdict(statistics.median(times) >= least, f">= {least:g}")
            rows.append(f"| {CONTESTANTS[best].name} | {spread(times, '.2f')} | {wanted} |")
    if rows:
        print("\n| tickwork beside the best | times as many | wanted |\n|---|--:|---|")
        print("\n".join(rows))


def environments(keys: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the Python of each contestant, and the reasons why some have none."""
    pythons: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for key in keys:
        entry = CONTESTANTS[key]
        if entry.part == "redis" and not durable_peers.has_redis():
            reasons[key] = "there is no redis-server; bench/packages installs it"
        elif entry.peer is None:
            pythons[key] = Path(sys.executable)
        else:
            made = peers.environment(entry.peer)
            if isinstance(made, peers.Missing):
                reasons[key] = made.reason
            else:
                pythons[key] = made.python
    return pythons, reasons


def rates(got: list[Any]) -> list[float]:
    return [one["rate"] for one in got]


def pick_up(options: argparse.Namespace) -> bool:
    found, reasons = in_turn(
        list(PICK_UPS),
        options.rounds,
        lambda key, folder: run_child(f"pickup:{key}", folder, options.samples),
        options.folder,
    )
    print(f"\n### From enqueue to the first line of the job, one at a time: {options.rounds} rounds, ms\n")
    print("| | jobs | p50 | p99 | most | wanted |\n|---|--:|--:|--:|--:|---|")
    for key, (name, _, most) in PICK_UPS.items():
        if key in reasons:
            print(f"| {name} | - | not measured: {reasons[key]} | - | - | |")
            continue
        middle = [statistics.median(late) for late in found[key]]
        p99 = [sorted(late)[int(len(late) * 0.99)] for late in found[key]]
        wanted = verdict(statistics.median(middle) < most, f"p50 < {most}")
        worst = max(max(late) for late in found[key])
        print(
            f"| {name} | {options.samples} | {spread(middle, '.2f')} | {spread(p99, '.1f')} | {worst:.1f} | {wanted} |"
        )
    return not reasons


def idle(options: argparse.Namespace) -> bool:
    found, reasons = in_turn(
        list(IDLERS),
        options.rounds,
        lambda key, folder: run_child(f"idle:{key}", folder, options.seconds),
        options.folder,
    )
    print(f"\n### With nothing to do, {options.seconds} s: {options.rounds} rounds, % of a core\n")
    print("| | % | wanted |\n|---|--:|---|")
    for key, (name, _) in IDLERS.items():
        if key in reasons:
            print(f"| {name} | not measured: {reasons[key]} | |")
            continue
        wanted = verdict(statistics.median(found[key]) < MOST_IDLE, f"< {MOST_IDLE}") if key == "file" else ""
        print(f"| {name} | {spread(found[key], '.3f')} | {wanted} |")
    return not reasons


def million(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(prefix="tickwork-durable-", dir=options.folder) as made:
        keys = {"few": FEW, "many": options.rows}
        for key, rows in keys.items():
            if isinstance(reason := run_child(f"fill:{key}", Path(made), rows), str):
                print(f"\nThe file of {rows:,} rows was not made: {reason}\n")
                return False
        found, reasons = in_turn(
            list(keys),
            options.rounds,
            lambda key, _: run_child(f"verbs:{key}", Path(made), options.verb_samples),
            options.folder,
        )
    print(f"\n### What a verb takes beside {options.rows:,} finished jobs: {options.rounds} rounds, ms\n")
    if reasons:
        print(f"not measured: {reasons}")
        return False
    print(f"| | {FEW:,} finished | {options.rows:,} finished | ratio | wanted |\n|---|--:|--:|--:|---|")
    for name in found["few"][0]:
        few, many = ([costs[name] for costs in found[key]] for key in keys)
        growth = ratios(many, few)
        is_met = statistics.median(growth) <= MOST_GROWTH and statistics.median(many) < MOST_MILLISECONDS
        wanted = verdict(is_met, f"<= {MOST_GROWTH:g} times, < {MOST_MILLISECONDS:g} ms")
        print(f"| {name} | {spread(few, '.2f')} | {spread(many, '.2f')} | {spread(growth, '.2f')} | {wanted} |")
    return True


def flush_microseconds(folder: Path) -> float:
    """Return what it takes here to append 4 KiB to a file and wait for the disk."""
    costs = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(200):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            costs.append(time.perf_counter() - started)
    return statistics.median(costs) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=20_000, help="from enqueue to the result (default 20000)")
    parser.add_argument("--peer-jobs", type=int, default=2_000, help="for the peers, which are slower (default 2000)")
    parser.add_argument("--samples", type=int, default=200, help="jobs that are picked up one at a time (default 200)")
    parser.add_argument("--seconds", type=float, default=20, help="of idling (default 20)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="that are finished (default 1000000)")
    parser.add_argument("--verb-samples", type=int, default=100, help="of each verb (default 100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="less of everything, 1 round")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--no-peers", action="store_true", help="without the parts files and redis")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are: on a disk, not in memory"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--amount", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.child:
        if options.amount.is_integer():
            options.amount = int(options.amount)
        print(json.dumps(child(options)))
        return 0
    if not options.folder.is_dir():
        parser.error(f"--folder {options.folder} is no folder")
    options.folder = options.folder.resolve()
    if options.quick:
        options.rounds, options.jobs, options.samples, options.seconds = 1, 4_000, 60, 4
        options.rows, options.verb_samples, options.peer_jobs = 100_000, 30, 500
    if options.no_peers:
        options.only = [part for part in options.only if part not in LEAST_OF_BEST]

    are_measured = [race(options)] if set(options.only) & set(RACES) else []
    others = {"pickup": pick_up, "idle": idle, "million": million}
    are_measured += [measure(options) for part, measure in others.items() if part in options.only]
    print(f"\n{hardware()}; {flush_microseconds(options.folder):,.0f} us to append 4 KiB and wait for the disk\n")
    return 0 if all(are_measured) else 1


if __name__ == "__main__":
    sys.exit(main())
