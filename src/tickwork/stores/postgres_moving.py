"""How the jobs of a PostgreSQL store move house: functions of a link, like the verbs.

A store that was moved is closed by triggers that refuse whatever would begin something there: so it is closed for all,
for transactions of users, too, and until that day nobody looks for it. Jobs under way may come to their end. To make
the triggers takes a lock that waits for open transactions: what one of them has enqueued is seen, or it is refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..jobs import JobState
from . import postgres_limits as limits
from . import sql_moving as sql
from .postgres_common import count, lock_of_batch
from .postgres_common import note_schedule_change as note_schedule_change
from .postgres_errors import MOVED
from .postgres_joint import locate
from .sql_moving import HELD, TABLES
from .sql_moving import running as running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .postgres_link import Link
    from .sql_moving import Part

LOCK_SECONDS = 3
"""For so long a lock is waited for, and others behind it: longer than PostgreSQL takes to call autovacuum off."""

_SIGN = "tickwork_moved"
"""The trigger whose argument tells where the jobs are; the others are named after it."""
_GUARDS = {
    "jobs": {
        "": "BEFORE INSERT ON jobs FOR EACH STATEMENT",
        "_claim": """BEFORE UPDATE OF state ON jobs FOR EACH ROW
            WHEN (NEW.state = 'running' AND OLD.state <> 'running')""",
        "_cancel": "BEFORE DELETE ON jobs FOR EACH ROW WHEN (OLD.state <> 'running')",
    },
    "schedules": {"": "BEFORE INSERT OR UPDATE OF trigger, watermark, paused ON schedules FOR EACH STATEMENT"},
    "ledger": {"": "BEFORE INSERT ON ledger FOR EACH STATEMENT"},
    "queues": {"": "BEFORE INSERT OR DELETE ON queues FOR EACH STATEMENT"},
    "batches": {"": "BEFORE INSERT OR UPDATE OF size, digest, feeds_until, cancelled_at ON batches FOR EACH STATEMENT"},
}
_REFUSE = f"""
    CREATE OR REPLACE FUNCTION {_SIGN}() RETURNS trigger LANGUAGE plpgsql AS $refuse$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = 'its jobs were moved to ' || TG_ARGV[0],
            DETAIL = TG_ARGV[0], HINT = 'let the app open that';
    END $refuse$
"""


def place(db: Link) -> tuple[Any, ...]:
    """Return what tells the schema from all others, by whatever name the server is called."""
    query, params = locate(db.schema)
    return "schema", *db.all(query, params)[0][:2], db.schema


def moved_to(db: Link) -> str | None:
    """Return where the jobs of a store were moved; None: nowhere."""
    found = db.one(
        """
        SELECT tgargs FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
        JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE nspname = %s AND relname = 'jobs' AND tgname = %s
        """,
        (db.schema, _SIGN),
    )
    return None if found is None else bytes(found[0]).split(b"\0")[0].decode("utf-8", "replace")


def close_down(db: Link, target: str) -> None:
    """Let nothing begin here any more: what is asked for is refused, with the place where it went."""
    quoted = "'" + target.replace("'", "''") + "'"
    _lock_tables(db)
    _drop(db)
    _run(db, _REFUSE)
    for table in _GUARDS:
        for ending, when in _GUARDS[table].items():
            _run(db, f"CREATE TRIGGER {_SIGN}{ending} {when} EXECUTE FUNCTION {_SIGN}({quoted})")


def open_up(db: Link) -> None:
    """Undo `close_down`."""
    _lock_tables(db)
    _drop(db)
    _run(db, f"DROP FUNCTION IF EXISTS {_SIGN}()")


def _lock_tables(db: Link) -> None:
    """Wait until no transaction is open that has written here."""
    db.execute("UPDATE meta SET version = version")  # else no mark tells of a lost commit
    _run(db, f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    _run(db, f"LOCK TABLE {', '.join(_GUARDS)} IN SHARE ROW EXCLUSIVE MODE")


def _drop(db: Link) -> None:
    for table in _GUARDS:
        for ending in _GUARDS[table]:
            _run(db, f"DROP TRIGGER IF EXISTS {_SIGN}{ending} ON {table}")


def _run(db: Link, statement: str) -> None:
    """Run a statement as it stands: a question mark in it is one."""
    assert db.connection is not None
    db.connection.execute(statement.encode())


# -- rows -----------------------------------------------------------------------------------------------------------

_JOBS = ", ".join(("seq", *TABLES["jobs"].columns))
_FINISHED = ", ".join(name for name in ("seq", *TABLES["jobs"].columns) if name not in HELD)
_EVERY = f"""(
    SELECT {_JOBS} FROM jobs UNION ALL SELECT {_FINISHED}, 0 AS held, 0::smallint AS gate, NULL AS misfit FROM finished
) AS every"""


def part(db: Link, table: str, after: tuple[Any, ...] | None) -> Part:
    """Read the next rows of a table; see `sql_moving.read`. Jobs come from both of their tables."""
    return sql.read(db, table, after, _EVERY if table == "jobs" else None)


def take_in(db: Link, moved: Part) -> tuple[int, list[str]]:
    """Write rows that are not there yet.

    Returns:
        How many were not, and the jobs for which there is no place: another has their key.
    """
    if moved.table == "jobs":
        return _take_in_jobs(db, moved)
    columns = TABLES[moved.table].columns
    return len(_insert(db, moved.table, [dict(zip(columns, row, strict=True)) for row in moved.rows])), []


def _take_in_jobs(db: Link, moved: Part) -> tuple[int, list[str]]:
    columns = TABLES["jobs"].columns
    rows = [dict(zip(columns, row, strict=True)) for row in moved.rows]
    gates = {(row["task"], gate) for row in rows for gate in (row["gate1"], row["gate2"]) if gate is not None}
    db.lock(
        {limits.lock_of(*gate) for gate in gates}
        | {lock_of_batch(row["batch"]) for row in rows if row["batch"] is not None}
    )
    known = _known(db, moved.column("id"))
    rows = [row for row in rows if row["id"] not in known]
    for row, (seq,) in zip(rows, _numbers(db, len(rows)), strict=True):
        row["seq"] = seq
    ended = [row for row in rows if JobState(row["state"]).is_finished]
    waiting = [row for row in rows if not JobState(row["state"]).is_finished]
    new = {
        *_insert(db, "jobs", waiting, "id", unless_in="finished"),
        *_insert(db, "finished", [_without(row, HELD) for row in ended], "id", unless_in="jobs"),
    }
    for row in rows:
        if row["id"] in new:
            count(db, None, row["state"], row["batch"])
    limits.touch(db, gates)
    missing = [row["id"] for row in rows if row["id"] not in new]
    left = sorted(set(missing) - _known(db, missing))
    sql.forget(db, left)
    return len(new), left


def _known(db: Link, job_ids: Sequence[str]) -> set[str]:
    """Return those of these jobs that are there; none of them ends before the transaction does."""
    found = db.all("SELECT id FROM jobs WHERE id = ANY(%b::text[]) FOR UPDATE", (job_ids,))
    return {job_id for (job_id,) in found + db.all("SELECT id FROM finished WHERE id = ANY(%b::text[])", (job_ids,))}


def _numbers(db: Link, many: int) -> list[tuple[int]]:
    """Return places in the order of all jobs."""
    return sorted(db.all("SELECT nextval('jobs_seq') FROM generate_series(1, %s::int)", (many,)))


def _without(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with NUL, which PostgreSQL writes in no text, as an escape; a file may have it in a name."""
    return {
        name: value.replace("\0", "\\x00") if isinstance(value, str) and "\0" in value else value
        for name, value in row.items()
    }


def _insert(
    db: Link, table: str, rows: Sequence[dict[str, Any]], known_by: str = "1", *, unless_in: str | None = None
) -> list[Any]:
    """Write rows that are not there yet, in their order, and return what these are known by."""
    if not rows:
        return []
    names = ", ".join(rows[0])
    where = "" if unless_in is None else f"WHERE NOT EXISTS (SELECT 1 FROM {unless_in} AS o WHERE o.id = r.id)"
    found = db.all(
        f"""
        INSERT INTO {table} ({names})
        SELECT {names} FROM json_populate_recordset(NULL::{table}, %s::text::json) WITH ORDINALITY AS r {where}
        ORDER BY r.ordinality ON CONFLICT DO NOTHING RETURNING {known_by}
        """,
        (json.dumps([_writable(row) for row in rows], ensure_ascii=False),),
    )
    return [known for (known,) in found]
