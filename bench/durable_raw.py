"""The limits of `durable.py`: plain sqlite3, one thread, no event loop, in the batches of callers in lockstep.

All callers enqueue at the same moment, so their rows are inserted in one transaction; all are claimed in the next, and
ended in the third; then all results are read. Each transaction waits for the disk (WAL, synchronous=FULL).
"""

import sqlite3
import time
from pathlib import Path

Times = tuple[float, float]
"""Seconds of the clock, and seconds of processor time."""


def now() -> int:
    return time.time_ns() // 1_000


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def same_rows(folder: Path, jobs: int, callers: int) -> Times:
    """Write what tickwork writes: its tables, indexes and triggers, the same values in the same columns."""
    from tickwork.stores.sqlite_schema import migrate

    db = connect(folder / "raw.db")
    db.execute("BEGIN IMMEDIATE")
    migrate(db, str(folder / "raw.db"))
    db.execute("COMMIT")
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, jobs, callers):
        ids = [f"01m8bqkb8{number:011d}" for number in range(first, min(first + callers, jobs))]
        at = now()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            """
            INSERT INTO jobs (id, task, payload, run_at, queue, priority, state, enqueued_at)
            VALUES (?, 'noop', '{"x":7}', ?, 'default', 0, 'queued', ?)
            """,
            [(job_id, at, at) for job_id in ids],
        )
        db.execute("COMMIT")

        at = now()
        db.execute("BEGIN IMMEDIATE")
        claimed = db.execute(
            """
            UPDATE jobs SET state = 'running', token = token + 1, worker = 'host-12345-abcdef', lease_expires_at = ?
            WHERE seq IN (
                SELECT seq FROM jobs INDEXED BY jobs_ready
                WHERE state = 'queued' AND held = 0 AND gate = 0 AND task = 'noop'
                ORDER BY priority DESC, seq LIMIT ?
            ) RETURNING id, token, payload
            """,
            (at + 60_000_000, callers),
        ).fetchall()
        db.execute("COMMIT")

        at = now()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            """
            UPDATE jobs SET state = 'succeeded', attempt = 1, started_at = ?, finished_at = ?, result = '7',
                worker = NULL, lease_expires_at = NULL
            WHERE id = ? AND token = ? AND state = 'running'
            """,
            [(at, at, job_id, token) for job_id, token, _ in claimed],
        )
        db.execute("COMMIT")

        marks = ", ".join("?" * len(ids))
        found = db.execute(
            f"SELECT id, result FROM jobs WHERE id IN ({marks}) AND +state = 'succeeded'", ids
        ).fetchall()
        if len(found) != len(ids):
            raise AssertionError(f"{len(ids) - len(found)} of {len(ids)} jobs have no result")
    return time.perf_counter() - started, time.process_time() - cpu


def same_statements(folder: Path, jobs: int, callers: int) -> Times:
    """Write the same with tickwork's own statements: two for all jobs of a batch, and so two flushes."""
    from tickwork.stores.sqlite_bulk import in_bulk
    from tickwork.stores.sqlite_schema import migrate
    from tickwork.stores.sqlite_verbs import _INSERT_PLAIN, _SUCCEED

    db = connect(folder / "own.db")
    db.execute("BEGIN IMMEDIATE")
    migrate(db, str(folder / "own.db"))
    db.execute("COMMIT")
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, jobs, callers):
        ids = [f"01m8bqkb8{number:011d}" for number in range(first, min(first + callers, jobs))]
        at = now()
        claim = 1, "host-12345-abcdef", at + 60_000_000
        job = "noop", '{"x":7}', at, "default", 0, None, None, None, 0, "running", at, 0, *claim
        db.execute("BEGIN IMMEDIATE")
        in_bulk(db, _INSERT_PLAIN, [(job_id, *job) for job_id in ids])
        db.execute("COMMIT")

        db.execute("BEGIN IMMEDIATE")
        found = in_bulk(db, _SUCCEED, [(job_id, 1, 1, 0, at, "7", None) for job_id in ids], now())
        db.execute("COMMIT")
        if len(found) != len(ids):
            raise AssertionError(f"{len(ids) - len(found)} of {len(ids)} jobs have no result")
    return time.perf_counter() - started, time.process_time() - cpu


def bare_table(folder: Path, jobs: int, callers: int) -> Times:
    """Write as little as a queue can do with: four columns, and one index of what waits."""
    db = connect(folder / "bare.db")
    db.execute("CREATE TABLE jobs (seq INTEGER PRIMARY KEY, payload TEXT, state INTEGER, result TEXT)")
    db.execute("CREATE INDEX ready ON jobs (seq) WHERE state = 0")
    started, cpu = time.perf_counter(), time.process_time()
    for first in range(0, jobs, callers):
        ids = range(first, min(first + callers, jobs))
        db.execute("BEGIN IMMEDIATE")
        db.executemany("""INSERT INTO jobs VALUES (?, '{"x":7}', 0, NULL)""", [(number,) for number in ids])
        db.execute("COMMIT")

        db.execute("BEGIN IMMEDIATE")
        claimed = db.execute(
            """
            UPDATE jobs SET state = 1 WHERE seq IN (SELECT seq FROM jobs WHERE state = 0 ORDER BY seq LIMIT ?)
            RETURNING seq, payload
            """,
            (callers,),
        ).fetchall()
        db.execute("COMMIT")

        db.execute("BEGIN IMMEDIATE")
        db.executemany("UPDATE jobs SET state = 2, result = '7' WHERE seq = ?", [(seq,) for seq, _ in claimed])
        db.execute("COMMIT")

        found = db.execute(
            "SELECT seq, result FROM jobs WHERE seq BETWEEN ? AND ? AND state = 2", (ids[0], ids[-1])
        ).fetchall()
        if len(found) != len(ids):
            raise AssertionError(f"{len(ids) - len(found)} of {len(ids)} jobs have no result")
    return time.perf_counter() - started, time.process_time() - cpu
