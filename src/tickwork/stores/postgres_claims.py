"""What a worker does with jobs in a PostgreSQL store: functions of a link, as in `postgres_verbs`.

A claim waits for nobody, and steps over rows that others have locked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from ..jobs import JobRecord, JobState, Progress
from . import postgres_limits as limits
from .base import Lease
from .instants import at_or_none, us, us_or_none
from .postgres_common import (
    count,
)
from .postgres_ends import cancel
from .postgres_link import spread
from .rows import JOB, job_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .postgres_link import Link

Told = tuple[Lease, datetime | None, Progress | None]
"""What a job tells: who writes, when its function was called, how far it is."""

MAX_PROMOTED = 10_000
"""So many scheduled jobs are queued in one go; the rest follows at the next claim, which comes at once."""

_JOBS_JOB = ", ".join(f"jobs.{name.strip()}" for name in JOB.split(","))


def claim_next(
    db: Link,
    now: datetime,
    *,
    worker: str,
    tasks: Collection[str],
    limit: int,
    queues: Collection[str] | None,
    jobs: Collection[str] | None,
    lease_seconds: float | None,
) -> tuple[list[JobRecord], datetime | None]:
    """Take due jobs; return them with the time when the next one is due, or its rate lets it start."""
    known, names = _known(tasks, queues, jobs)
    lines, line_names = (_NONE, ()) if jobs is not None else _known(tasks, queues, None)
    is_none = not tasks or (queues is not None and not queues) or (jobs is not None and not jobs) or limit <= 0
    expires = None if lease_seconds is None else us(now + timedelta(seconds=lease_seconds))
    # One way there and back, as a rule: jobs are claimed at once, unless something else must be done first.
    most = 0 if is_none else limit
    near = most and most + SPARE
    values = (*names, us(now), *line_names, *names, most, near, near, most, worker, expires)
    found = db.seek(_claim_sql(known, lines, "has_news"), values)
    due, is_late, opens_at, is_open, *_ = found[0]
    missed: list[JobRecord] = []
    if is_late or is_open or (due is not None and due <= us(now)):
        promote(db, now)
        missed = _missed(db, now, known, names)
        limits.settle(db, us(now), limits.due(db, us(now)))
        found = db.seek(_claim_sql(known, lines, "false"), values)
        due, _, opens_at, *_ = found[0]
    entries = sorted((entry[4:] for entry in found if entry[4] is not None), key=lambda entry: (-entry[6], entry[0]))
    records = [job_of(entry) for entry in entries]
    if records:
        db.wrote()
    for record in records:
        count(db, "queued", "running", record.batch)
    gated = [
        (record.task, entry[0], record.gates) for entry, record in zip(entries, records, strict=True) if record.gates
    ]
    if gated:
        limits.claimed(db, us(now), gated)
        opens_at = db.all("SELECT min(opens_at) FROM gates WHERE waits")[0][0]
    return records + missed, at_or_none(min((at for at in (due, opens_at) if at is not None), default=None))


_LATE = """
    (SELECT * FROM jobs WHERE state = 'queued' AND start_by < {now} OFFSET 0) AS late WHERE attempt = 0 AND deaths = 0
"""
"""What waits and would begin too late. OFFSET 0 has it looked up by its time, whatever the server thinks of tasks: it
does not know yet that a queue is long which has just filled, and would walk all of it at each claim."""


MAX_LINES = 50
"""So many tasks and queues are looked through for one that a claim may take from, before it looks at the jobs."""
SPARE = 200
"""So many more jobs than it takes a claim looks at, since the first of them may be those that others just take."""

_READY = "state = 'queued' AND held = 0 AND gate = 0"
_IN_LINE = "state = 'queued' AND held + gate = 0"
"""The same, told as the index `jobs_lines` does: what is asked so is looked for in that one, and not in `jobs_ready`,
which seems as good while the rows have not been counted."""
_STILL_READY = "state = 'queued' AND greatest(held, gate) = 0"
"""The same, told as neither of them does: one row is looked up by its number."""

_NONE = "false"
"""Jobs that are named are looked for by their names, and not in the lines."""


@cache
def _claim_sql(known: str, lines: str, unless: str) -> str:
    """Return the statement that claims, and tells what else is to be done; unless "has_news": only if nothing is.

    A worker looks at no job that it may not take, however many of those wait before its own: `lines` has the queues and
    tasks that have any, each found by one step in an index, and `own` takes the first ones of those that are known. Who
    may take from all of them, as most may, walks over what is ready in its order.
    """
    return f"""
        WITH RECURSIVE lines AS (
            (SELECT queue, task, 1 AS number FROM jobs WHERE {_IN_LINE} ORDER BY queue, task LIMIT 1)
            UNION ALL
            SELECT next.*, number + 1 FROM lines, LATERAL (
                SELECT queue, task FROM jobs WHERE {_IN_LINE} AND (queue, task) > (lines.queue, lines.task)
                ORDER BY queue, task LIMIT 1
            ) AS next WHERE number < {MAX_LINES}
        ), found AS MATERIALIZED (
            SELECT (SELECT min(run_at) FROM jobs WHERE state = 'scheduled') AS due,
                EXISTS (
                    SELECT 1 FROM {_LATE.format(now="now")} AND {known}
                ) AS is_late,
                (SELECT min(opens_at) FROM gates WHERE waits) AS opens_at,
                EXISTS (SELECT 1 FROM gates WHERE opens_at <= now)
                    OR EXISTS (SELECT 1 FROM starts WHERE at > now) AS is_open,
                now
            FROM (SELECT %s::bigint AS now) AS given
        ), mine AS MATERIALIZED (
            SELECT queue, task FROM lines WHERE {lines}
        ), due AS MATERIALIZED (
            SELECT *, due <= now OR is_late OR is_open AS has_news,
                {lines == _NONE} OR (SELECT count(*) FROM lines) IN ((SELECT count(*) FROM mine), {MAX_LINES}) AS is_all
            FROM found
        ), picked AS MATERIALIZED (
            SELECT seq FROM jobs
            WHERE {_READY} AND {known} AND (SELECT is_all AND ({unless}) IS NOT TRUE FROM due)
            ORDER BY priority DESC, seq LIMIT %s FOR UPDATE SKIP LOCKED
        ), nearest AS MATERIALIZED (
            SELECT first.seq FROM mine, LATERAL (
                SELECT seq, priority FROM jobs WHERE {_IN_LINE} AND queue = mine.queue AND task = mine.task
                ORDER BY priority DESC, seq LIMIT %s
            ) AS first
            WHERE (SELECT NOT is_all AND ({unless}) IS NOT TRUE FROM due)
            ORDER BY first.priority DESC, first.seq LIMIT %s
        ), own AS MATERIALIZED (
            SELECT free.seq FROM nearest, LATERAL (
                SELECT seq FROM jobs WHERE seq = nearest.seq AND {_STILL_READY} FOR UPDATE SKIP LOCKED
            ) AS free LIMIT %s
        ), claimed AS (
            UPDATE jobs SET state = 'running', token = token + 1, worker = %s, lease_expires_at = %s, started_at = NULL,
                progress = NULL
            FROM (SELECT seq FROM picked UNION ALL SELECT seq FROM own) AS taken
            WHERE jobs.seq = taken.seq RETURNING {_JOBS_JOB}
        )
        SELECT due.due, due.is_late, due.opens_at, due.is_open, claimed.* FROM due LEFT JOIN claimed ON true
    """


IS_OPEN = "CASE WHEN queue = ANY(ARRAY(SELECT name FROM queues)) THEN false ELSE true END"
"""Whether a job's queue is not paused, told so that the planner cannot take it for rare: as NOT EXISTS or <> ALL it
would expect one row at the most where all are of one queue, and sort everything that waits."""


def _known(
    tasks: Collection[str], queues: Collection[str] | None, jobs: Collection[str] | None
) -> tuple[str, tuple[Any, ...]]:
    """Return what a claim asks of the rows of jobs, and the values for it."""
    tests = ["task = ANY(%b::text[])", IS_OPEN]
    names: list[Any] = [list(tasks)]
    for test, values in (("queue = ANY(%b::text[])", queues), ("id = ANY(%b::text[])", jobs)):
        if values is not None:
            tests.append(test)
            names.append(list(values))
    return " AND ".join(tests), tuple(names)


def promote(db: Link, now: datetime) -> None:
    """Queue the scheduled jobs that are due."""
    found = db.all(
        f"""
        WITH due AS MATERIALIZED (
            SELECT seq FROM jobs WHERE state = 'scheduled' AND run_at <= %s
            ORDER BY run_at LIMIT {MAX_PROMOTED} FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs SET state = 'queued', gate = (gate1 IS NOT NULL)::int
        FROM due WHERE jobs.seq = due.seq RETURNING batch, task, gate1, gate2
        """,
        (us(now),),
    )
    for batch, *_ in found:
        count(db, "scheduled", "queued", batch)
    limits.touch(db, {(task, gate) for _, task, *gates in found for gate in gates if gate is not None})


def _missed(db: Link, now: datetime, known: str, names: tuple[Any, ...]) -> list[JobRecord]:
    """Cancel the jobs that would begin too late."""
    late = db.all(
        f"SELECT id FROM {_LATE.format(now='%s')} AND {known}",
        (us(now), *names),
    )
    found = [cancel(db, now, job_id, "missed", seen=JobState.QUEUED) for (job_id,) in late]
    return [record for record in found if record is not None]


def extend(db: Link, now: datetime, lease: Lease, lease_seconds: float) -> bool:
    """Make a lease last from now; False: it has another owner."""
    done = db.execute(
        "UPDATE jobs SET lease_expires_at = %s WHERE id = %s AND token = %s AND state = 'running'",
        (us(now + timedelta(seconds=lease_seconds)), lease.job_id, lease.token),
    )
    return done.rowcount > 0


def progress(db: Link, lease: Lease, started_at: datetime | None, told: Progress | None) -> bool:
    """Record that a job's function has been called, and how far it is; False: it has another owner."""
    return progress_all(db, [(lease, started_at, told)])[0]


def progress_all(db: Link, told: Sequence[Told]) -> list[bool]:
    """Record the same of many jobs; of one that is there twice, the later word."""
    latest: dict[Lease, tuple[int | None, str | None]] = {}
    for lease, started_at, how in told:
        before = latest.get(lease, (None, None))
        after = us_or_none(started_at), None if how is None else how.to_json()
        latest[lease] = after[0] if before[0] is None or after[0] is not None else before[0], after[1] or before[1]
    rows, values = spread(
        "e",
        {
            "id": ("text", [lease.job_id for lease in latest]),
            "token": ("bigint", [lease.token for lease in latest]),
            "started_at": ("bigint", [started_at for started_at, _ in latest.values()]),
            "progress": ("text", [how for _, how in latest.values()]),
        },
    )
    found = db.all(
        f"""
        WITH e AS MATERIALIZED ({rows})
        UPDATE jobs SET started_at = coalesce(e.started_at, jobs.started_at),
            progress = coalesce(e.progress, jobs.progress)
        FROM e WHERE jobs.id = e.id AND jobs.token = e.token AND state = 'running' RETURNING jobs.id, jobs.token
        """,
        values,
    )
    held = set(found)
    return [tuple(lease) in held for lease, *_ in told]
