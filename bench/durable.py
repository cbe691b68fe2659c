"""Jobs that are kept: how fast they go through a store and are picked up, and what idling and the past cost.

    python bench/durable.py                          # everything, 5 rounds; about an hour
    python bench/durable.py --quick                  # less of everything, 1 round, some minutes
    python bench/durable.py --only e2e --rounds 3    # tickwork beside plain sqlite3
    python bench/durable.py --only postgres          # tickwork on PostgreSQL, beside psycopg and three peers
    bench/packages                                   # as root: installs PostgreSQL, and the Redis that some peers need

Every contestant runs in a process of its own, all in turn, `--rounds` times, each in an empty folder. Ratios are taken
within a round.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import durable_peers
import durable_postgres_tables
import durable_raw
import durable_tickwork
from durable_harness import CALLERS, Contestant, Race, Rival, in_turn, pick_up_table, race, ratios, run_child, verdict
from inproc import hardware, spread

MOST_HERE, MOST_THERE = 5, 50  # milliseconds
MOST_IDLE = 0.5  # percent of a core
MOST_GROWTH = 2.0  # times what it takes beside a thousand rows
MOST_MILLISECONDS = 10.0
FEW = 1_000
"""Rows in the store that is small: enough for every listing to have the same length in both."""
PARTS = ("e2e", "files", "redis", "pickup", "idle", "million", "postgres", "claims")
LONG = ("claims",)
"""Parts that a quick run leaves out, unless they are asked for."""

FULL, SET_FULL, ALWAYS = "file, FULL", "file, set to FULL", "Redis, always"
FILES = {
    "raw": Contestant("sqlite3, the same rows in the same batches", durable_raw.same_rows, FULL, "e2e"),
    "own": Contestant(
        "sqlite3, the same rows with the statements of tickwork", durable_raw.same_statements, FULL, "e2e"
    ),
    "bare": Contestant("sqlite3, a bare table in the same batches", durable_raw.bare_table, FULL, "e2e"),
    "tickwork": Contestant("tickwork", durable_tickwork.end_to_end, FULL, "e2e"),
    "huey": Contestant(
        "huey, 64 threads that call, one that works",
        durable_peers.huey,
        "file, fsync=True",
        "files",
        peer="huey",
        rival="files",
    ),
    "persistqueue": Contestant(
        "persist-queue, put, get and ack by one thread",
        durable_peers.persistqueue,
        FULL,
        "files",
        peer="persistqueue",
        rival="files",
    ),
    "litequeue": Contestant(
        "litequeue, put, pop and done by one thread",
        durable_peers.litequeue,
        SET_FULL,
        "files",
        peer="litequeue",
        rival="files",
    ),
    "batches": Contestant(
        "litequeue, the same with 64 put, and 64 done, in one transaction",
        durable_peers.litequeue_batches,
        SET_FULL,
        "files",
        peer="litequeue",
        rival="files",
    ),
    "saq": Contestant(
        "SAQ, two processes, told by pub/sub", durable_peers.saq_told, ALWAYS, "redis", peer="saq", rival="redis"
    ),
    "looking": Contestant(
        "SAQ, one process, looks each 20 ms", durable_peers.saq_looking, ALWAYS, "redis", peer="saq", rival="redis"
    ),
    "arq": Contestant(
        "arq, two processes, looks each 20 ms", durable_peers.arq, ALWAYS, "redis", peer="arq", rival="redis"
    ),
    "taskiq": Contestant(
        "taskiq-redis, stream and results, two processes, looks each 30 ms",
        durable_peers.taskiq,
        ALWAYS,
        "redis",
        peer="taskiqredis",
        rival="redis",
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
RACES = [
    Race(
        FILES,
        limit=("raw", "sqlite3"),
        ours="tickwork",
        least=0.4,
        rivals={"files": Rival("tickwork", 2.0), "redis": Rival("tickwork", 4.0)},
    ),
    durable_postgres_tables.RACE,
]
CONTESTANTS = {key: entry for entries in RACES for key, entry in entries.contestants.items()}
# --- in a process of its own ---


def child(options: argparse.Namespace) -> Any:
    """Measure one thing, and return what can be written as JSON."""
    logging.basicConfig(level=logging.WARNING)
    part, _, key = options.child.partition(":")
    folder, amount = options.folder, options.amount
    if part == "race":
        seconds, cpu = CONTESTANTS[key].run(folder, amount, CALLERS)
        return {"rate": amount / seconds, "cpu": cpu / amount * 1e6}
    if part == "pickup":
        return asyncio.run(PICK_UPS[key][1](folder, amount))
    if part == "idle":
        return asyncio.run(IDLERS[key][1](folder, amount))
    if part == "fill":
        return durable_tickwork.fill(folder / key, amount)
    if part == "verbs":
        return asyncio.run(durable_tickwork.verbs(folder / key, amount))
    return durable_postgres_tables.CHILDREN[part](key, folder, amount)


# --- the tables ---


def pick_up(options: argparse.Namespace) -> bool:
    return pick_up_table(
        {key: (name, most) for key, (name, _, most) in PICK_UPS.items()},
        options,
        lambda key, folder: run_child(f"pickup:{key}", folder, options.samples),
    )


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
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="that are finished; in the part claims, that wait, beside ten times as many finished (default 1000000)",
    )
    parser.add_argument("--verb-samples", type=int, default=100, help="of each verb (default 100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="less of everything, 1 round")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--no-peers", action="store_true", help="without the peers")
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
    if options.only is None:
        options.only = [part for part in PARTS if not (options.quick and part in LONG)]

    are_measured = [race(entries, options) for entries in RACES if entries.parts & set(options.only)]
    others = {"pickup": pick_up, "idle": idle, "million": million} | durable_postgres_tables.TABLES
    are_measured += [measure(options) for part, measure in others.items() if part in options.only]
    print(f"\n{hardware()}; {flush_microseconds(options.folder):,.0f} us to append 4 KiB and wait for the disk\n")
    return 0 if all(are_measured) else 1


if __name__ == "__main__":
    sys.exit(main())
