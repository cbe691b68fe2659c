"""Jobs that are enqueued in a transaction of the user's own: what is done there, as statements to be run.

Such a transaction may take long, and nobody may wait for it. So it changes no row that others change: it inserts its
jobs, and what it has counted as a row of its own in `shards`, named after the transaction, which is there for others
from the commit on, and tells them that something has happened. Later somebody adds it to another (`fold`).

Two things that jobs have in common with others would make them wait:

- A gate must be looked at when a job comes to it, and its row says so. A job with gates is written as scheduled, and
  due: the next claim queues it, and has its gates looked at.
- A key may be that of one unfinished job. Until the transaction ends nobody knows whether there is one, and whoever
  inserts another waits. So the transaction locks its keys, each by an advisory lock of its own, and the store, whose
  one thread must not wait, looks first whether a key is locked (`postgres_doubt`). Two transactions of users that
  enqueue the same key do wait for each other, as with any unique index.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import DuplicateJob, StoreUnavailable
from ..jobs import JobState, taken
from ..records import changed
from .instants import us
from .postgres_doubt import lock_of
from .postgres_schema import quoted
from .postgres_watch import merge_shards
from .rows import JOB, job_of, utf8

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from datetime import datetime

    from ..jobs import JobRecord, NewJob
    from .postgres_guests import Row
    from .postgres_link import Link
    from .postgres_target import Target

MAX_ROUNDS = 100
"""So often the job with a key may end in the moment in which it is looked for."""

_PARTS = {
    "id": "text",
    "task": "text",
    "payload": "text",
    "run_at": "bigint",
    "queue": "text",
    "priority": "bigint",
    "is_once": "boolean",
    "state": "text",
    "enqueued_at": "bigint",
    "key": "text",
    "gate1": "text",
    "gate2": "text",
}
_NAMES = ", ".join(_PARTS)

_WHERE = """
    SELECT current_database()::text, (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
        EXISTS (
            SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = ?::text AND c.relname = 'shards'
        )
"""
_LOCK = "SELECT pg_advisory_xact_lock(key::bigint)::text FROM json_array_elements_text(?::text::json) AS k (key)"
_FIND = """
    SELECT {job} FROM {schema}.jobs
    WHERE (task, key) IN (
        SELECT asked.task, asked.key FROM json_to_recordset(?::text::json) AS asked (task text, key text)
    )
"""
_INSERT = """
    WITH given AS (
        SELECT * FROM json_to_recordset(?::text::json) AS g (place int, {kinds})
    ), new AS (
        INSERT INTO {schema}.jobs ({names}, held, gate) SELECT {names}, 0, 0 FROM given ORDER BY place
        ON CONFLICT DO NOTHING RETURNING id, state
    ), counted AS (
        INSERT INTO {schema}.shards AS s (name, mark, touched_at, queued, scheduled)
        SELECT '@' || txid_current()::text, 1, ?::text::bigint,
            count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'scheduled')
        FROM new HAVING count(*) > 0
        ON CONFLICT (name) DO UPDATE SET mark = s.mark + 1, touched_at = excluded.touched_at,
            queued = s.queued + excluded.queued, scheduled = s.scheduled + excluded.scheduled
    )
    SELECT id{hint} FROM new
"""
_HINT = ", (SELECT pg_notify(?::text, '')::text)"
"""Once, whatever the number of jobs; it comes with the commit."""

# -- on the user's connection ---------------------------------------------------------------------------------------


def locate(schema: str) -> tuple[str, tuple[str, ...]]:
    """Return what to ask: which database that is, since when its server runs, whether our tables are there."""
    return _WHERE, (schema,)


def check(target: Target, here: Row, there: Row) -> None:
    """Refuse a connection that leads elsewhere.

    Args:
        target: The database of the store.
        here: What the store's own connection answers to `locate`.
        there: What the user's does.

    Raises:
        StoreUnavailable: It does, with the remedy.
    """
    if not there[2]:
        reason = f"the connection to {there[0]!r} that was given finds no tables in schema {target.schema!r}"
    elif there[:2] != here[:2]:
        reason = f"the connection that was given leads to another database ({there[0]!r}, on another server or here)"
    else:
        return
    raise StoreUnavailable(target.where, reason, "give one to the database in which the app keeps its jobs")


def enqueue(
    schema: str, channel: str | None, now: datetime, jobs: Sequence[NewJob]
) -> Generator[tuple[str, tuple[str, ...]], list[Row], list[JobRecord]]:
    """Take jobs in, all of them or none, as a part of the transaction; they need no room.

    One whose key an unfinished job has is not taken in: that one stands in its place.
    """
    records = [taken(job, now) for job in jobs]
    keys = sorted({(record.task, record.key) for record in records if record.key is not None})
    if keys:
        yield _LOCK, (json.dumps(sorted(lock_of(schema, *name) for name in keys)),)
    held: dict[tuple[str, str | None], JobRecord] = {}
    left = records
    for _ in range(MAX_ROUNDS):
        if keys:
            asked = json.dumps([{"task": task, "key": key} for task, key in keys])
            found = yield _FIND.format(job=JOB, schema=_name_of(schema)), (asked,)
            held |= {(record.task, record.key): record for record in map(job_of, found)}
        fresh = [
            record
            for record in left
            if record.key is None or held.setdefault((record.task, record.key), record) is record
        ]
        if not fresh:
            break
        query, params = _insertion(schema, channel, now, fresh)
        written = {row[0] for row in (yield query, params)}
        left = [record for record in fresh if record.id not in written]  # another enqueue was quicker
        for record in left:
            if record.key is None:
                raise DuplicateJob(record.id)
            del held[record.task, record.key]
        if not left:
            break
    else:
        raise DuplicateJob(left[0].id)
    return [record if record.key is None else held[record.task, record.key] for record in records]


def _insertion(
    schema: str, channel: str | None, now: datetime, records: Sequence[JobRecord]
) -> tuple[str, tuple[str, ...]]:
    kinds = ", ".join(f"{name} {kind}" for name, kind in _PARTS.items())
    hint = "" if channel is None else _HINT
    query = _INSERT.format(schema=_name_of(schema), names=_NAMES, kinds=kinds, hint=hint)
    given = json.dumps([{"place": place, **_parts(record)} for place, record in enumerate(records)])
    return query, (given, str(us(now)), *(() if channel is None else (channel,)))


def _name_of(schema: str) -> str:
    """Return the name of a schema in a statement, in which `?` marks a parameter, and for some drivers `%` does."""
    if "?" not in schema and "%" not in schema:
        return quoted(schema)
    escaped = schema.replace("\\", r"\\").replace("?", r"\003f").replace("%", r"\0025")
    return f"U&{quoted(escaped)}"


def _parts(record: JobRecord) -> dict[str, Any]:
    first, second = (*record.gates, None, None)[:2]
    if first is not None:
        record = changed(record, state=JobState.SCHEDULED)
    return {
        "id": record.id,
        "task": record.task,
        "payload": utf8(record.payload),
        "run_at": us(record.run_at),
        "queue": record.queue,
        "priority": record.priority,
        "is_once": record.is_once,
        "state": record.state.value,
        "enqueued_at": us(record.enqueued_at),
        "key": record.key,
        "gate1": first,
        "gate2": second,
    }


# -- on the store's own ---------------------------------------------------------------------------------------------


def fold(db: Link, now: datetime, limit: int) -> int:
    """Add rows of `shards` that transactions of users have left to another, and return how many."""
    found = db.all("SELECT name FROM shards WHERE name LIKE '@%%' LIMIT %s FOR UPDATE SKIP LOCKED", (limit,))
    if found:
        merge_shards(db, now, [name for (name,) in found])
    return len(found)
