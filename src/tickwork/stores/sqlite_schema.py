"""The tables of a SQLite store, and how an older file becomes one of today.

A version is a list of statements that lead there from the one before. `PRAGMA user_version` says which a file has. A
file of a later version is refused: an older program would not know what it must keep.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from .migration import Migration
from .sql_batches import STATES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

APPLICATION_ID = 0x7469636B
"""`PRAGMA application_id`: "tick" in ASCII, so that a file of something else is not taken for one of ours."""


def _recount(*, old: str | None = None, new: str | None = None) -> str:
    """Return what counts a batch anew when one of its jobs leaves the old state, or comes into the new one."""
    return ", ".join(
        f"{state} = {state}"
        + ("" if new is None else f" + ({new} = '{state}')")
        + ("" if old is None else f" - ({old} = '{state}')")
        for state in STATES
    )


VERSIONS: list[list[str]] = [
    [
        # Instants are whole microseconds since the Unix epoch. `held` counts the jobs that must end before this one;
        # `gate` says at which of its gates a queued job waits, see `sqlite_limits`.
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
            misfit TEXT,
            key TEXT,
            gate1 TEXT,
            gate2 TEXT,
            gate INTEGER NOT NULL DEFAULT 0
        ) STRICT
        """,
        # Each index holds only the rows that its question is about, so finished jobs weigh on none but the last five.
        """
        CREATE INDEX jobs_ready ON jobs (priority DESC, seq, task, queue)
        WHERE state = 'queued' AND held = 0 AND gate = 0
        """,
        "CREATE INDEX jobs_later ON jobs (run_at) WHERE state = 'scheduled'",
        "CREATE INDEX jobs_grace ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL",
        "CREATE INDEX jobs_leased ON jobs (worker) WHERE state = 'running'",
        # Of the unfinished jobs of a task, one has a key.
        "CREATE UNIQUE INDEX jobs_key ON jobs (task, key) WHERE key IS NOT NULL AND finished_at IS NULL",
        """
        CREATE INDEX jobs_at_gate1 ON jobs (task, gate1, state, gate, priority DESC, seq, held)
        WHERE gate1 IS NOT NULL AND finished_at IS NULL
        """,
        """
        CREATE INDEX jobs_at_gate2 ON jobs (task, gate2, state, gate, priority DESC, seq, held)
        WHERE gate2 IS NOT NULL AND finished_at IS NULL
        """,
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
        # What holds for the jobs of a task, as the app that started last has declared it; `per` in microseconds.
        """
        CREATE TABLE limits (
            task TEXT PRIMARY KEY,
            at_once INTEGER,
            starts INTEGER,
            per INTEGER
        ) STRICT, WITHOUT ROWID
        """,
        # Gates that jobs are at. `opens_at`: when one must be looked at (0: now); `waits`: whether jobs wait for that.
        """
        CREATE TABLE gates (
            task TEXT NOT NULL,
            gate TEXT NOT NULL,
            opens_at INTEGER,
            waits INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (task, gate)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX gates_open ON gates (opens_at) WHERE opens_at IS NOT NULL",
        "CREATE INDEX gates_waited ON gates (opens_at) WHERE waits = 1 AND opens_at IS NOT NULL",
        # The starts that count against a rate, until its period is over.
        """
        CREATE TABLE starts (
            n INTEGER PRIMARY KEY,
            task TEXT NOT NULL,
            gate TEXT NOT NULL,
            at INTEGER NOT NULL,
            job INTEGER NOT NULL
        ) STRICT
        """,
        "CREATE INDEX starts_at ON starts (task, gate, at)",
        "CREATE INDEX starts_newest ON starts (at)",
        # Whatever happens to a job with gates, by whichever verb: it waits at its first one, and they are looked at.
        *(
            f"""
            CREATE TRIGGER jobs_gated_{name} AFTER {event} ON jobs WHEN {row}.gate1 IS NOT NULL AND {condition}
            BEGIN
                {first}
                INSERT INTO gates (task, gate, opens_at) VALUES ({row}.task, {row}.gate1, 0)
                ON CONFLICT (task, gate) DO UPDATE SET opens_at = 0;
                INSERT INTO gates (task, gate, opens_at)
                SELECT {row}.task, {row}.gate2, 0 WHERE {row}.gate2 IS NOT NULL
                ON CONFLICT (task, gate) DO UPDATE SET opens_at = 0;
            END
            """
            for name, event, row, condition, first in (
                ("inserted", "INSERT", "NEW", "NEW.state = 'queued'", ""),
                ("deleted", "DELETE", "OLD", "OLD.finished_at IS NULL", ""),
                (
                    "moved",
                    "UPDATE OF state, held",
                    "NEW",
                    "NEW.state <> 'running' AND (OLD.state <> NEW.state OR OLD.held <> NEW.held)",
                    "UPDATE jobs SET gate = (NEW.state = 'queued') WHERE seq = NEW.seq;",
                ),
            )
        ),
        # A job that is given back before it began, as far as was told, has not started.
        """
        CREATE TRIGGER jobs_given_back AFTER UPDATE OF state ON jobs
        WHEN NEW.gate1 IS NOT NULL AND OLD.state = 'running' AND NEW.state = 'queued' AND OLD.started_at IS NULL
            AND NEW.started_at IS NULL AND OLD.lost = NEW.lost
        BEGIN
            DELETE FROM starts WHERE n IN (
                SELECT max(n) FROM starts WHERE task = NEW.task AND gate = NEW.gate1 AND job = NEW.seq
                UNION ALL
                SELECT max(n) FROM starts WHERE task = NEW.task AND gate = NEW.gate2 AND job = NEW.seq
            );
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
    [
        # Batches: what they have taken in, and how many of their jobs are in each state, kept by the triggers below.
        # `ends` numbers the ends of their jobs, so that who reads them as they come needs no clock.
        f"""
        CREATE TABLE batches (
            id TEXT PRIMARY KEY,
            task TEXT NOT NULL,
            created_at INTEGER NOT NULL,
            size INTEGER NOT NULL DEFAULT 0,
            digest TEXT NOT NULL DEFAULT '',
            feeds_until INTEGER NOT NULL,
            completed_at INTEGER,
            cancelled_at INTEGER,
            ends INTEGER NOT NULL DEFAULT 0,
            {", ".join(f"{state} INTEGER NOT NULL DEFAULT 0" for state in STATES)}
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX batches_newest ON batches (created_at)",
        "CREATE INDEX batches_old ON batches (feeds_until)",
        "ALTER TABLE jobs ADD COLUMN batch TEXT",
        "ALTER TABLE jobs ADD COLUMN batch_index INTEGER",
        "ALTER TABLE jobs ADD COLUMN batch_end INTEGER",  # the number of its last end
        "CREATE UNIQUE INDEX jobs_of_batch ON jobs (batch, batch_index) WHERE batch IS NOT NULL",
        # In the order of `seq`, which within a batch is that of its items.
        "CREATE INDEX jobs_of_batch_by_state ON jobs (batch, state) WHERE batch IS NOT NULL",
        "CREATE INDEX jobs_of_batch_ended ON jobs (batch, batch_end) WHERE batch_end IS NOT NULL",
        f"""
        CREATE TRIGGER jobs_batched_inserted AFTER INSERT ON jobs WHEN NEW.batch IS NOT NULL
        BEGIN UPDATE batches SET {_recount(new="NEW.state")} WHERE id = NEW.batch; END
        """,
        f"""
        CREATE TRIGGER jobs_batched_deleted AFTER DELETE ON jobs WHEN OLD.batch IS NOT NULL
        BEGIN UPDATE batches SET {_recount(old="OLD.state")} WHERE id = OLD.batch; END
        """,
        f"""
        CREATE TRIGGER jobs_batched_moved AFTER UPDATE OF state ON jobs
        WHEN NEW.batch IS NOT NULL AND OLD.state <> NEW.state AND NEW.state IN ('scheduled', 'queued', 'running')
        BEGIN UPDATE batches SET {_recount(old="OLD.state", new="NEW.state")} WHERE id = NEW.batch; END
        """,
        f"""
        CREATE TRIGGER jobs_batched_ended AFTER UPDATE OF state ON jobs
        WHEN NEW.batch IS NOT NULL AND OLD.state <> NEW.state
            AND NEW.state IN ('succeeded', 'failed', 'cancelled', 'parked')
        BEGIN
            UPDATE batches SET {_recount(old="OLD.state", new="NEW.state")}, ends = ends + 1 WHERE id = NEW.batch;
            UPDATE jobs SET batch_end = (SELECT ends FROM batches WHERE id = NEW.batch) WHERE seq = NEW.seq;
        END
        """,
    ],
    [
        # How worker processes do, as they tell: JSON of `Vitals`; and JSON lists of the queues they claim from.
        "ALTER TABLE workers ADD COLUMN version TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE workers ADD COLUMN queues TEXT",
        "ALTER TABLE workers ADD COLUMN vitals TEXT",
    ],
    [
        # In this order a claim finds the queues and tasks that have jobs, and the first of them that each has.
        """
        CREATE INDEX jobs_lines ON jobs (queue, task, priority DESC, seq)
        WHERE state = 'queued' AND held = 0 AND gate = 0
        """,
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
    for statement in plan(connection, path, versions).statements:
        connection.execute(statement)


def plan(connection: sqlite3.Connection, path: str, versions: Sequence[list[str]] = VERSIONS) -> Migration:
    """Return what `migrate` would do, and change nothing.

    Raises:
        StoreUnavailable: It would be refused.
    """
    expect_ours(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(versions):
        raise StoreUnavailable(
            path,
            f"its tables have version {version}, and this tickwork knows {len(versions)}",
            "install the version of tickwork that wrote it, or a later one",
        )
    statements = [*chain.from_iterable(versions[version:])]
    if statements:
        statements += [f"PRAGMA user_version = {len(versions)}", f"PRAGMA application_id = {APPLICATION_ID}"]
    return Migration(version or None, len(versions), tuple(statements), ("BEGIN IMMEDIATE",))
