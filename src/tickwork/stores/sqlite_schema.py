"""The tables of a SQLite store, and how an older file becomes one of today.

A version is a list of statements that lead there from the one before. `PRAGMA user_version` says which a file has. A
file of a later version is refused: an older program would not know what it must keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StoreUnavailable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

APPLICATION_ID = 0x7469636B
"""`PRAGMA application_id`: "tick" in ASCII, so that a file of something else is not taken for one of ours."""

VERSIONS: list[list[str]] = [
    [
        # Instants are whole microseconds since the Unix epoch. `held` counts the jobs that must end before this one;
        # `misfit` holds the fingerprints of the tasks that have refused its arguments, apart by spaces.
        """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            task TEXT NOT NULL,
            payload TEXT NOT NULL,
            run_at INTEGER NOT NULL,
            queue TEXT NOT NULL,
            priority INTEGER NOT NULL,
            schedule TEXT,
            fire_time INTEGER,
            start_by INTEGER,
            is_once INTEGER NOT NULL DEFAULT 0,
            state TEXT NOT NULL,
            enqueued_at INTEGER NOT NULL,
            attempt INTEGER NOT NULL DEFAULT 0,
            deaths INTEGER NOT NULL DEFAULT 0,
            lost INTEGER NOT NULL DEFAULT 0,
            token INTEGER NOT NULL DEFAULT 0,
            worker TEXT,
            lease_expires_at INTEGER,
            started_at INTEGER,
            finished_at INTEGER,
            result TEXT,
            error TEXT,
            cancel_requested INTEGER NOT NULL DEFAULT 0,
            held INTEGER NOT NULL DEFAULT 0,
            progress TEXT,
            misfit TEXT
        ) STRICT
        """,
        # Each index holds only the rows that its question is about, so finished jobs weigh on none but the last five.
        "CREATE INDEX jobs_ready ON jobs (priority DESC, seq, task, queue) WHERE state = 'queued' AND held = 0",
        "CREATE INDEX jobs_later ON jobs (run_at) WHERE state = 'scheduled'",
        "CREATE INDEX jobs_grace ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL",
        "CREATE INDEX jobs_leased ON jobs (worker) WHERE state = 'running'",
        # Task and queue stand in it so that a list of either need not look at the rows; none of it is written twice.
        "CREATE INDEX jobs_by_state ON jobs (state, seq, task, queue)",
        "CREATE INDEX jobs_by_schedule ON jobs (schedule, seq) WHERE schedule IS NOT NULL",
        "CREATE INDEX jobs_by_both ON jobs (schedule, state, seq) WHERE schedule IS NOT NULL",
        "CREATE INDEX jobs_ended ON jobs (finished_at, queue) WHERE finished_at IS NOT NULL",
        "CREATE INDEX jobs_results ON jobs (finished_at) WHERE result IS NOT NULL",
        "CREATE INDEX jobs_misfit ON jobs (task, misfit) WHERE state = 'parked' AND misfit IS NOT NULL",
        # Attempts that did not succeed, numbered for each job; they go with it.
        """
        CREATE TABLE attempts (
            job_id TEXT NOT NULL,
            place INTEGER NOT NULL,
            number INTEGER NOT NULL,
            started_at INTEGER,
            ended_at INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            worker TEXT,
            error TEXT,
            PRIMARY KEY (job_id, place)
        ) STRICT, WITHOUT ROWID
        """,
        # Paused queues; one that is not has no row.
        "CREATE TABLE queues (name TEXT PRIMARY KEY, paused_at INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """
        CREATE TABLE behind (
            job_id TEXT NOT NULL,
            before_id TEXT NOT NULL,
            PRIMARY KEY (before_id, job_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX behind_of_job ON behind (job_id)",
        # How many jobs are in each state, kept by the triggers below: counting a million rows takes too long.
        "CREATE TABLE counts (state TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """
        INSERT INTO counts VALUES ('scheduled', 0), ('queued', 0), ('running', 0), ('succeeded', 0), ('failed', 0),
            ('cancelled', 0), ('parked', 0)
        """,
        """
        CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs
        BEGIN UPDATE counts SET count = count + 1 WHERE state = NEW.state; END
        """,
        """
        CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs
        BEGIN
            UPDATE counts SET count = count - 1 WHERE state = OLD.state;
            DELETE FROM attempts WHERE job_id = OLD.id;
        END
        """,
        """
        CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
        BEGIN
            UPDATE counts SET count = count - 1 WHERE state = OLD.state;
            UPDATE counts SET count = count + 1 WHERE state = NEW.state;
        END
        """,
        """
        CREATE TABLE schedules (
            name TEXT PRIMARY KEY,
            task TEXT NOT NULL,
            trigger TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            version INTEGER NOT NULL,
            watermark INTEGER NOT NULL,
            declared_at INTEGER NOT NULL,
            paused INTEGER NOT NULL DEFAULT 0,
            runs INTEGER NOT NULL DEFAULT 0,
            after_seconds REAL,
            next_at INTEGER,
            succeeded_at INTEGER
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE ledger (
            seq INTEGER PRIMARY KEY,
            schedule TEXT NOT NULL,
            first INTEGER NOT NULL,
            last INTEGER NOT NULL,
            count INTEGER,
            outcome TEXT NOT NULL,
            answered_at INTEGER NOT NULL,
            job_id TEXT,
            blocked_by TEXT,
            decided_by TEXT NOT NULL DEFAULT '',
            late_because TEXT,
            wanted_at INTEGER,
            started_at INTEGER,
            finished_at INTEGER,
            state TEXT
        ) STRICT
        """,
        "CREATE INDEX ledger_newest ON ledger (schedule, seq)",
        # The identity of a scheduled job: no fire time is answered twice, whoever asks.
        "CREATE UNIQUE INDEX ledger_identity ON ledger (schedule, first)",
        "CREATE INDEX ledger_of_job ON ledger (job_id) WHERE job_id IS NOT NULL",
        "CREATE INDEX ledger_age ON ledger (answered_at)",
        """
        CREATE TABLE workers (
            name TEXT PRIMARY KEY,
            host TEXT NOT NULL,
            pid INTEGER NOT NULL,
            started_at INTEGER NOT NULL,
            beat_at INTEGER NOT NULL,
            tasks TEXT NOT NULL DEFAULT '{}'
        ) STRICT, WITHOUT ROWID
        """,
        # Counters by which processes notice what others have changed.
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO meta VALUES ('schedules_changed', 0), ('rescued', 0)",
        # Where all this was moved: then nothing begins here any more.
        "CREATE TABLE moved (one INTEGER PRIMARY KEY CHECK (one = 1), target TEXT NOT NULL) STRICT",
    ],
]
"""For each version the statements that make it of the one before."""


def expect_ours(connection: sqlite3.Connection, path: str) -> None:
    """Refuse the file of another program before anything about it is changed.

    Raises:
        StoreUnavailable: It has tables, and they are not ours.
    """
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner == APPLICATION_ID:
        return
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner or version or tables:
        raise StoreUnavailable(path, "it is a database of another program", "give tickwork a file of its own")


def migrate(connection: sqlite3.Connection, path: str, versions: Sequence[list[str]] = VERSIONS) -> None:
    """Bring the tables to today's version, inside the caller's transaction.

    Raises:
        StoreUnavailable: The file belongs to another program, or to a later version of this one.
    """
    expect_ours(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(versions):
        raise StoreUnavailable(
            path,
            f"its tables have version {version}, and this tickwork knows {len(versions)}",
            "install the version of tickwork that wrote it, or a later one",
        )
    if version == len(versions):
        return
    for statements in versions[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(versions)}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
