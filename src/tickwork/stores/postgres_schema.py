"""The tables of a PostgreSQL store, and how older ones become those of today.

They stand in a schema of their own. A version is a list of statements that lead there from the one before. The table
`meta` says which version a schema has, and which programs may still use it: a change that older ones can live with
leaves `usable_from` as it was, so that their workers go on while others are replaced.

Two tables hold jobs. `jobs` has those that wait, run, or are parked; what is finished moves to `finished`, so that
a claim never looks at it, however much there is. `shards` counts the jobs in each state: every connection that writes
has a row of its own, which it changes in each of its transactions, so that no two processes wait for one counter. The
sum over all rows is the count. The same row tells whether a transaction was committed whose answer was lost, and
from all rows together others see that something has happened.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from .migration import Migration
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .postgres_link import Link

_COUNTS = ", ".join(f"{state} bigint NOT NULL DEFAULT 0" for state in STATES)

_JOB = """
    seq bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    payload text NOT NULL,
    run_at bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    schedule text COLLATE "C",
    fire_time bigint,
    start_by bigint,
    is_once boolean NOT NULL DEFAULT false,
    state text COLLATE "C" NOT NULL,
    enqueued_at bigint NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    deaths integer NOT NULL DEFAULT 0,
    lost integer NOT NULL DEFAULT 0,
    token bigint NOT NULL DEFAULT 0,
    worker text COLLATE "C",
    lease_expires_at bigint,
    started_at bigint,
    finished_at bigint,
    result text,
    error text,
    cancel_requested boolean NOT NULL DEFAULT false,
    progress text,
    key text COLLATE "C",
    gate1 text COLLATE "C",
    gate2 text COLLATE "C",
    batch text COLLATE "C",
    batch_index bigint,
    batch_end bigint"""

VERSIONS: list[list[str]] = [
    [
        "CREATE SEQUENCE jobs_seq",
        # Instants are whole microseconds since the Unix epoch. `held` counts the jobs that must end before this one;
        # `gate` says at which of its gates a queued job waits, see `sqlite_limits`. `misfit` holds the fingerprints of
        # the tasks that have refused its arguments, apart by spaces.
        # Rows come and go all the time, so they are cleaned up early.
        f"""
        CREATE TABLE jobs ({_JOB},
            held integer NOT NULL DEFAULT 0,
            gate smallint NOT NULL DEFAULT 0,
            misfit text,
            PRIMARY KEY (seq)
        ) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
            autovacuum_analyze_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0)
        """,
        "ALTER TABLE jobs ALTER COLUMN seq SET DEFAULT nextval('jobs_seq')",
        "CREATE UNIQUE INDEX jobs_id ON jobs (id)",
        """
        CREATE INDEX jobs_ready ON jobs (priority DESC, seq, task, queue)
        WHERE state = 'queued' AND held = 0 AND gate = 0
        """,
        # Tells which tasks of which queues have any that are ready, however many there are of each.
        "CREATE INDEX jobs_lines ON jobs (queue, task) WHERE state = 'queued' AND held = 0 AND gate = 0",
        "CREATE INDEX jobs_later ON jobs (run_at) WHERE state = 'scheduled'",
        "CREATE INDEX jobs_grace ON jobs (start_by) WHERE state = 'queued' AND start_by IS NOT NULL",
        "CREATE INDEX jobs_leased ON jobs (worker) WHERE state = 'running'",
        "CREATE UNIQUE INDEX jobs_key ON jobs (task, key) WHERE key IS NOT NULL",
        "CREATE INDEX jobs_at_gate1 ON jobs (task, gate1, state, gate, priority DESC, seq) WHERE gate1 IS NOT NULL",
        "CREATE INDEX jobs_at_gate2 ON jobs (task, gate2, state, gate, priority DESC, seq) WHERE gate2 IS NOT NULL",
        # Task and queue stand in it so that a list of either need not look at the rows of all others.
        "CREATE INDEX jobs_by_state ON jobs (state, seq, task, queue)",
        "CREATE INDEX jobs_by_schedule ON jobs (schedule, seq) WHERE schedule IS NOT NULL",
        "CREATE UNIQUE INDEX jobs_of_batch ON jobs (batch, batch_index) WHERE batch IS NOT NULL",
        "CREATE INDEX jobs_of_batch_by_state ON jobs (batch, state, batch_index) WHERE batch IS NOT NULL",
        "CREATE INDEX jobs_of_batch_ended ON jobs (batch, batch_end) WHERE batch_end IS NOT NULL",
        "CREATE INDEX jobs_misfit ON jobs (task) WHERE state = 'parked' AND misfit IS NOT NULL",
        f"CREATE TABLE finished ({_JOB}, PRIMARY KEY (seq)) WITH (autovacuum_vacuum_insert_scale_factor = 0.05)",
        "CREATE UNIQUE INDEX finished_id ON finished (id)",
        "CREATE INDEX finished_by_state ON finished (state, seq, task, queue)",
        "CREATE INDEX finished_by_schedule ON finished (schedule, seq) WHERE schedule IS NOT NULL",
        "CREATE INDEX finished_age ON finished (finished_at)",
        "CREATE INDEX finished_results ON finished (finished_at) WHERE result IS NOT NULL",
        "CREATE UNIQUE INDEX finished_of_batch ON finished (batch, batch_index) WHERE batch IS NOT NULL",
        "CREATE INDEX finished_of_batch_by_state ON finished (batch, state, batch_index) WHERE batch IS NOT NULL",
        "CREATE INDEX finished_of_batch_ended ON finished (batch, batch_end) WHERE batch_end IS NOT NULL",
        f"""
        CREATE TABLE shards (
            name text COLLATE "C" PRIMARY KEY,
            mark bigint NOT NULL DEFAULT 0,
            touched_at bigint NOT NULL,
            rescued bigint NOT NULL DEFAULT 0,
            changes bigint NOT NULL DEFAULT 0,
            {_COUNTS}
        ) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0)
        """,
        # Attempts that did not succeed, numbered for each job; they go with it.
        """
        CREATE TABLE attempts (
            job_id text COLLATE "C" NOT NULL,
            place integer NOT NULL,
            number integer NOT NULL,
            started_at bigint,
            ended_at bigint NOT NULL,
            outcome text NOT NULL,
            worker text,
            error text,
            PRIMARY KEY (job_id, place)
        )
        """,
        # Paused queues; one that is not has no row.
        'CREATE TABLE queues (name text COLLATE "C" PRIMARY KEY, paused_at bigint NOT NULL)',
        """
        CREATE TABLE behind (
            job_id text COLLATE "C" NOT NULL,
            before_id text COLLATE "C" NOT NULL,
            PRIMARY KEY (before_id, job_id)
        )
        """,
        "CREATE INDEX behind_of_job ON behind (job_id)",
        # What holds for the jobs of a task, as the app that started last has declared it; `per` in microseconds.
        'CREATE TABLE limits (task text COLLATE "C" PRIMARY KEY, at_once bigint, starts bigint, per bigint)',
        # Gates that jobs are at. `opens_at`: when one must be looked at (0: now); `waits`: whether jobs wait for that.
        """
        CREATE TABLE gates (
            task text COLLATE "C" NOT NULL,
            gate text COLLATE "C" NOT NULL,
            opens_at bigint,
            waits boolean NOT NULL DEFAULT false,
            PRIMARY KEY (task, gate)
        )
        """,
        "CREATE INDEX gates_open ON gates (opens_at) WHERE opens_at IS NOT NULL",
        # The starts that count against a rate, until its period is over.
        """
        CREATE TABLE starts (
            n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            task text COLLATE "C" NOT NULL,
            gate text COLLATE "C" NOT NULL,
            at bigint NOT NULL,
            job bigint NOT NULL
        )
        """,
        "CREATE INDEX starts_at ON starts (task, gate, at)",
        "CREATE INDEX starts_newest ON starts (at)",
        """
        CREATE TABLE schedules (
            name text COLLATE "C" PRIMARY KEY,
            task text NOT NULL,
            trigger text NOT NULL,
            fingerprint text NOT NULL,
            version bigint NOT NULL,
            watermark bigint NOT NULL,
            declared_at bigint NOT NULL,
            paused boolean NOT NULL DEFAULT false,
            runs bigint NOT NULL DEFAULT 0,
            after_seconds double precision,
            next_at bigint,
            succeeded_at bigint
        ) WITH (fillfactor = 50)
        """,
        """
        CREATE TABLE ledger (
            seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            schedule text COLLATE "C" NOT NULL,
            first bigint NOT NULL,
            last bigint NOT NULL,
            count bigint,
            outcome text NOT NULL,
            answered_at bigint NOT NULL,
            job_id text COLLATE "C",
            blocked_by text,
            decided_by text NOT NULL DEFAULT '',
            late_because text,
            wanted_at bigint,
            started_at bigint,
            finished_at bigint,
            state text
        )
        """,
        "CREATE INDEX ledger_newest ON ledger (schedule, seq)",
        # The identity of a scheduled job: no fire time is answered twice, whoever asks.
        "CREATE UNIQUE INDEX ledger_identity ON ledger (schedule, first)",
        "CREATE INDEX ledger_of_job ON ledger (job_id) WHERE job_id IS NOT NULL",
        "CREATE INDEX ledger_age ON ledger (answered_at)",
        # Batches: what they have taken in, and how many of their jobs are in each state.
        # `ends` numbers the ends of their jobs, so that who reads them as they come needs no clock.
        f"""
        CREATE TABLE batches (
            id text COLLATE "C" PRIMARY KEY,
            task text NOT NULL,
            created_at bigint NOT NULL,
            size bigint NOT NULL DEFAULT 0,
            digest text NOT NULL DEFAULT '',
            feeds_until bigint NOT NULL,
            completed_at bigint,
            cancelled_at bigint,
            ends bigint NOT NULL DEFAULT 0,
            {_COUNTS}
        ) WITH (fillfactor = 50)
        """,
        "CREATE INDEX batches_newest ON batches (created_at)",
        "CREATE INDEX batches_old ON batches (feeds_until)",
        # Worker processes. `machine` is the same for those that can look for each other's process ids; `born_at` is
        # when the system says that the process began, for ids are given out again.
        """
        CREATE TABLE workers (
            name text COLLATE "C" PRIMARY KEY,
            host text NOT NULL,
            machine text NOT NULL,
            pid bigint NOT NULL,
            born_at double precision,
            started_at bigint NOT NULL,
            beat_at bigint NOT NULL,
            lives_until bigint NOT NULL,
            tasks text NOT NULL DEFAULT '{}',
            version text NOT NULL DEFAULT '',
            queues text,
            vitals text
        )
        """,
    ],
    [
        # With the time at which a job is due, so that all queues can be counted without a look at the rows.
        "DROP INDEX jobs_by_state",
        "CREATE INDEX jobs_by_state ON jobs (state, seq, task, queue) INCLUDE (run_at)",
    ],
    [
        # So that a claim finds the first jobs of each task and queue, too. The same ones as in `jobs_ready`, but told
        # in other words: see `postgres_claims`.
        "DROP INDEX jobs_lines",
        "CREATE INDEX jobs_lines ON jobs (queue, task, priority DESC, seq) WHERE state = 'queued' AND held + gate = 0",
    ],
]
"""For each version the statements that make it of the one before."""

USABLE_FROM = 1
"""Programs that know this version or a later one can work on tables of today's."""

_LOCK = "schema"


def migrate(db: Link, where: str, schema: str, versions: Sequence[list[str]] = VERSIONS) -> None:
    """Make the schema and its tables, or bring them to today's version; several processes may do so at once.

    Raises:
        StoreUnavailable: The schema belongs to another program, or to a later version of this one.
    """
    if _is_current(_version(db, where, schema), db, where, versions):
        return
    db.lock([_LOCK])
    *statements, last = plan(db, where, schema, versions).statements or ("",)
    if last:  # else another process was quicker
        db.execute(";".join(statements))  # on one way there and back
        db.execute(last)


def plan(db: Link, where: str, schema: str, versions: Sequence[list[str]] = VERSIONS) -> Migration:
    """Return what `migrate` would do, and change nothing.

    Raises:
        StoreUnavailable: It would be refused.
    """
    version, known = _version(db, where, schema), len(versions)
    begin = "BEGIN", f"SET LOCAL search_path = {quoted(schema)}"
    if _is_current(version, db, where, versions):
        return Migration(version, known, (), begin)
    statements = []
    if version is None:
        _expect_free(db, where, schema)
    if db.one("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)) is None:
        statements.append(f"CREATE SCHEMA {quoted(schema)}")
    if version is None:
        statements.append("CREATE TABLE meta (version integer NOT NULL, usable_from integer NOT NULL)")
        statements.append("INSERT INTO meta VALUES (0, 0)")
    statements += chain.from_iterable(versions[version or 0 :])
    statements.append(f"UPDATE meta SET version = {known}, usable_from = {USABLE_FROM}")
    return Migration(version, known, tuple(statements), begin)


def _expect_free(db: Link, where: str, schema: str) -> None:
    """Refuse a schema that something else is in."""
    found = db.one(
        "SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = %s LIMIT 1",
        (schema,),
    )
    if found is not None:
        reason = f"its schema {schema!r} holds tables of another program ({found[0]})"
        raise StoreUnavailable(where, reason, 'name another: "?schema=..."')


def _is_current(version: int | None, db: Link, where: str, versions: Sequence[list[str]]) -> bool:
    """Return whether tables of a version can be used as they are."""
    if version is None or version <= len(versions):
        return version == len(versions)
    (usable_from,) = db.all("SELECT usable_from FROM meta")[0]
    if usable_from > len(versions):
        raise StoreUnavailable(
            where,
            f"its tables have version {version}, and this tickwork knows {len(versions)}",
            "install the version of tickwork that wrote it, or a later one",
        )
    return True


def _version(db: Link, where: str, schema: str) -> int | None:
    """Return the version of the tables; None: there are none."""
    # Not by `to_regclass`, which remembers for the whole transaction that there were none.
    there = db.one(
        """
        SELECT has_schema_privilege(n.oid, 'USAGE'), current_user::text,
            EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = n.oid AND relname = 'meta')
        FROM pg_namespace AS n WHERE nspname = %s
        """,
        (schema,),
    )
    if there is None:
        return None
    is_allowed, user, has_tables = there
    if not is_allowed:  # the server itself would say that the schema is not there
        remedy = f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(user)}, and rights on what is in it"
        raise StoreUnavailable(where, f"its user {user!r} may not use the schema {schema!r}", remedy)
    return int(db.all("SELECT version FROM meta")[0][0]) if has_tables else None


def quoted(name: str) -> str:
    """Return a name as SQL quotes it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
