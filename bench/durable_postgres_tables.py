"""The parts of `durable.py` on PostgreSQL: who races there, how soon jobs begin, many processes, many rows."""

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import durable_postgres
import durable_postgres_peers as peers
import durable_postgres_tickwork as ours
from durable_harness import (
    Contestant,
    Race,
    Rival,
    in_turn,
    percentile,
    pick_up_table,
    rates,
    ratios,
    run_child,
    verdict,
    with_postgres,
)
from inproc import spread

PG = "PostgreSQL"
RACE = Race(
    {
        "psycopg": Contestant("psycopg, the same rows in the same batches", durable_postgres.same_rows, PG, "postgres"),
        "barepg": Contestant("psycopg, a bare table in the same batches", durable_postgres.bare_table, PG, "postgres"),
        "tickworkpg": Contestant("tickwork", ours.end_to_end, PG, "postgres"),
        "manypg": Contestant("tickwork, one caller, 64 enqueued in one call", ours.batches, PG, "postgres"),
        "procrastinate": Contestant(
            "procrastinate, 4 workers in the process; until the function runs",
            peers.procrastinate,
            PG,
            "postgres",
            peer="procrastinate",
            rival="procrastinate",
        ),
        "saqpg": Contestant(
            "SAQ, its worker looks each 10 ms; told by its hook",
            peers.saq,
            PG,
            "postgres",
            peer="saqpostgres",
            rival="SAQ",
        ),
        "pgqueuer": Contestant(
            "pgqueuer; until the function runs", peers.pgqueuer, PG, "postgres", peer="pgqueuer", rival="pgqueuer"
        ),
        "pgqueuermany": Contestant(
            "pgqueuer, one caller, 64 enqueued in one call; until the functions run",
            peers.pgqueuer_batches,
            PG,
            "postgres",
            peer="pgqueuer",
            rival="pgqueuer in batches",
        ),
    },
    limit=("psycopg", "psycopg"),
    ours="tickworkpg",
    least=0.4,
    rivals={
        "procrastinate": Rival("tickworkpg", 4.0),
        "SAQ": Rival("tickworkpg", 3.0),
        "pgqueuer": Rival("tickworkpg", 1.5),
        "pgqueuer in batches": Rival("manypg", 1.5),
    },
)
PICK_UPS = {
    "here": ("enqueued in the same process", ours.pick_up_here),
    "there": ("enqueued in another process", ours.pick_up_there),
}
MOST_LATE = 10  # milliseconds
PROCESSES = (1, 2, 4, 8)
LEAST_EVEN = 0.9
"""Of so many times as many jobs as there are processes."""
FEW = 1_000
"""Rows that wait in the small store beside the large one."""
FILL_SECONDS = 3_600

CHILDREN: dict[str, Callable[[str, Path, Any], Any]] = {
    "pg-pickup": lambda key, folder, samples: asyncio.run(PICK_UPS[key][1](folder, samples)),
    "pg-processes": lambda key, folder, seconds: asyncio.run(ours.processes(folder, int(key), seconds)),
    "pg-fill": lambda key, folder, rows: ours.fill(folder, key, rows),
    "pg-claims": lambda key, folder, samples: asyncio.run(ours.claims(folder, key, samples)),
}


def jobs_begin(options: Any) -> bool:
    """Print how soon one job begins, and how many jobs more processes run."""
    if reason := durable_postgres.lacks(needs_psycopg=True):
        print(f"\nOn PostgreSQL: not measured: {reason}\n")
        return True
    picked = pick_up_table(
        {key: (f"PostgreSQL, {name}", MOST_LATE) for key, (name, _) in PICK_UPS.items()},
        options,
        with_postgres(lambda key: f"pg-pickup:{key}", options.samples),
    )
    return many_processes(options) and picked


def many_processes(options: Any) -> bool:
    keys = [str(count) for count in PROCESSES]
    run = with_postgres(lambda key: f"pg-processes:{key}", options.seconds / 4)
    found, reasons = in_turn(keys, options.rounds, run, options.folder)
    print(
        f"\n### Jobs that wait {ours.WAIT_SECONDS * 1e3:.0f} ms, {ours.SLOTS} at a time in each worker process: "
        f"{options.rounds} rounds\n"
    )
    print("| processes | jobs per second | of one | the busiest, of its even share | processors busy | wanted |")
    print("|--:|--:|--:|--:|--:|---|")
    for key in keys:
        if key in reasons:
            print(f"| {key} | not measured: {reasons[key]} | - | - | - | |")
            continue
        of_one = ratios(rates(found[key]), rates(found["1"])) if "1" in found else []
        shares = [max(got["shares"]) / statistics.mean(got["shares"]) for got in found[key]]
        least = LEAST_EVEN * int(key)
        told = verdict(statistics.median(of_one) >= least, f">= {least:g}") if of_one and key != "1" else ""
        of_one_told = spread(of_one, ".2f") if of_one else "-"
        busy = spread([got["busy"] for got in found[key]], ".0f")
        print(
            f"| {key} | {spread(rates(found[key]), ',.0f')} | {of_one_told} | {spread(shares, '.2f')} | {busy} % "
            f"| {told} |"
        )
    return not reasons


def claims(options: Any) -> bool:
    """Print what a claim takes beside many rows."""
    if reason := durable_postgres.lacks(needs_psycopg=True):
        print(f"\nClaims on PostgreSQL: not measured: {reason}\n")
        return True
    sizes = {"few": FEW, "many": options.rows}
    with tempfile.TemporaryDirectory(prefix="tickwork-durable-", dir=options.folder) as made:
        try:
            with durable_postgres.postgres(Path(made), max_wal_size="8GB"):
                for schema, rows in sizes.items():
                    if isinstance(
                        reason := run_child(f"pg-fill:{schema}", Path(made), rows, seconds=FILL_SECONDS), str
                    ):
                        print(f"\nThe tables of {rows:,} rows were not made: {reason}\n")
                        return False
                found, reasons = in_turn(
                    list(sizes),
                    options.rounds,
                    lambda key, _: run_child(f"pg-claims:{key}", Path(made), 5 * options.verb_samples),
                    options.folder,
                )
        except durable_postgres.NoPostgres as error:
            print(f"\nClaims on PostgreSQL: not measured: {error}\n")
            return False
    print(
        f"\n### On PostgreSQL, beside {10 * options.rows:,} finished and {options.rows:,} waiting jobs: "
        f"{options.rounds} rounds, ms\n"
    )
    if reasons:
        print(f"not measured: {reasons}")
        return False
    print(f"| | beside {10 * FEW:,} and {FEW:,} | beside {10 * options.rows:,} and {options.rows:,} | ratio |")
    print("|---|--:|--:|--:|")
    for count in found["few"][0]:
        for share in (0.5, 0.99):
            few, many = ([percentile(got[count], share) for got in found[key]] for key in sizes)
            name = f"claim of {count}, p{share * 100:.0f}"
            print(f"| {name} | {spread(few, '.2f')} | {spread(many, '.2f')} | {spread(ratios(many, few), '.2f')} |")
    return True


TABLES: dict[str, Callable[[Any], bool]] = {"postgres": jobs_begin, "claims": claims}
