"""What people ask of a PostgreSQL store, and what they change in it: functions of a link, as in `postgres_verbs`.

As in `sqlite_people`, none of them may look at all that is finished. A list walks an index backwards, in both tables of
jobs; one of some states walks that of each state, and what has come together is sorted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import UnknownJob
from ..jobs import JobRecord, JobState
from . import postgres_limits as limits
from .instants import at, at_or_none, us
from .postgres_claims import IS_OPEN
from .postgres_common import (
    EVERY,
    UNFINISHED,
    count,
    find,
    forget_attempts,
    hold,
    lock_of_key,
    locks_of,
    table_of,
    touch,
    unfinished_of,
)
from .postgres_doubt import in_doubt
from .postgres_ends import cancel
from .rows import JOB, job_of
from .sql_people import paused_queues as paused_queues
from .sql_people import set_queue as set_queue
from .sql_people import workers as workers
from .sql_people import write_tasks
from .sql_schedules import reopen
from .views import MAX_AHEAD, RETRIABLE, WAITING, Page, QueueRow, Standing, cursor_of, place_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from .postgres_link import Link
    from .views import JobQuery

_NEWEST = 2**63 - 1
MINUTE = timedelta(minutes=1)


# -- lists ----------------------------------------------------------------------------------------------------------


def page(db: Link, query: JobQuery) -> Page:
    """Return some jobs, the newest first; see `Store.page`."""
    before = _NEWEST if query.after is None else place_of(query.after)
    tests, values = _tests(query)
    rows = query.limit + 1
    if query.states or query.tasks or query.queue is not None:
        parts = [
            f"(SELECT {JOB} FROM {table_of(state)} WHERE state = '{state.value}' AND seq < %s{tests}"
            " ORDER BY seq DESC LIMIT %s)"
            for state in query.states or JobState
        ]
        found = db.all(
            f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS part ORDER BY seq DESC LIMIT %s",
            (*(before, *values, rows) * len(parts), rows),
        )
    else:
        found = db.all(
            f"SELECT {JOB} FROM {EVERY} WHERE seq < %s{tests} ORDER BY seq DESC LIMIT %s", (before, *values, rows)
        )
    has_more = len(found) > query.limit
    found = found[: query.limit]
    return Page([job_of(entry) for entry in found], cursor_of(found[-1][0]) if has_more else None)


def _tests(query: JobQuery) -> tuple[str, list[Any]]:
    """Return what a statement asks of task, queue, schedule and batch, and the values for it."""
    given = {name: value for name in ("queue", "schedule", "batch") if (value := getattr(query, name)) is not None}
    tests = "".join(f" AND {name} = %s" for name in given)
    if not query.tasks:
        return tests, list(given.values())
    return f"{tests} AND task = ANY(%b::text[])", [*given.values(), list(query.tasks)]


def standing(db: Link, now: datetime, job_id: str) -> Standing:
    """Return a job, and what stands in its way; see `Store.standing`."""
    found = find(db, job_id)
    if found is None:
        raise UnknownJob(job_id)
    seq, record = found
    if record.state not in WAITING:
        return Standing(job=record, key_held_by=_holder(db, record))
    behind = db.all(
        f"""
        SELECT before_id FROM behind JOIN jobs ON id = before_id WHERE job_id = %s AND {UNFINISHED} ORDER BY before_id
        """,
        (job_id,),
    )
    paused = db.one("SELECT paused_at FROM queues WHERE name = %s", (record.queue,))
    return Standing(
        job=record,
        behind=tuple(before for (before,) in behind),
        queue_paused_at=None if paused is None else at(paused[0]),
        ahead=_ahead(db, seq, record.priority),
        gate=limits.blocker(db, us(now), job_id, at),
    )


def _holder(db: Link, job: JobRecord) -> str | None:
    """Return the id of the other unfinished job that has the key of one which may be retried."""
    if job.key is None or job.state not in RETRIABLE:
        return None
    other = unfinished_of(db, job.task, job.key)
    return None if other is None or other.id == job.id else other.id


def _ahead(db: Link, seq: int, priority: int) -> int:
    """Return how many jobs have their turn before one."""
    ready = f"SELECT 1 FROM jobs WHERE state = 'queued' AND held = 0 AND gate = 0 AND {IS_OPEN}"
    some = f"ORDER BY priority DESC, seq LIMIT {MAX_AHEAD}"
    found = db.all(
        f"""
        SELECT (SELECT count(*) FROM ({ready} AND priority > %s {some}) AS urgent)
            + (SELECT count(*) FROM ({ready} AND priority BETWEEN %s AND %s AND seq < %s {some}) AS older)
        """,  # where it is equal to one, the rows of all others would do for the order, too, and be walked over
        (priority, priority, priority, seq),
    )
    return min(int(found[0][0]), MAX_AHEAD)


# -- changes --------------------------------------------------------------------------------------------------------


def retry(db: Link, now: datetime, job_id: str, seen: JobState | None = None) -> JobRecord | None:
    """Queue a job again, as if it had never run; see `Store.retry`."""
    known = find(db, job_id)
    if known is None:
        return None
    keyed = [] if known[1].key is None else [lock_of_key(known[1].task, known[1].key)]
    db.lock({*locks_of(known[1]), *keyed})
    found = _locked(db, job_id)
    if found is None or (record := found[1]).state not in RETRIABLE or seen not in (None, record.state):
        return None
    if _holder(db, record) is not None or (record.key is not None and in_doubt(db, [(record.task, record.key)])):
        return None
    if record.state is not JobState.PARKED:
        db.execute(
            f"""
            WITH gone AS (DELETE FROM finished WHERE seq = %s RETURNING *)
            INSERT INTO jobs ({JOB}, batch_end) SELECT {JOB}, batch_end FROM gone
            """,
            (found[0],),
        )
    moved = db.all(
        f"""
        UPDATE jobs SET state = 'queued', attempt = 0, deaths = 0, run_at = %s, start_by = NULL, started_at = NULL,
            finished_at = NULL, result = NULL, progress = NULL, cancel_requested = false, held = 0, misfit = NULL,
            gate = (gate1 IS NOT NULL)::int
        WHERE seq = %s RETURNING {JOB}
        """,
        (us(now), found[0]),
    )
    after = job_of(moved[0])
    count(db, record.state, "queued", record.batch)
    touch(db, [after])
    reopen(db, job_id)
    return after


def _locked(db: Link, job_id: str) -> tuple[int, JobRecord] | None:
    """Return row and record of a job that nobody changes meanwhile, wherever it is."""
    for table in ("jobs", "finished", "jobs"):  # it may move while it is looked for
        found = db.one(f"SELECT {JOB} FROM {table} WHERE id = %s FOR UPDATE", (job_id,))
        if found is not None:
            return found[0], job_of(found)
    return None


def delete(db: Link, now: datetime, job_id: str) -> JobRecord | None:
    """Forget a job that does not run; see `Store.delete`."""
    hold(db, [job_id])
    found = _locked(db, job_id)
    if found is None or (record := found[1]).state is JobState.RUNNING:
        return None
    if record.state in WAITING:
        cancel(db, now, job_id)
    state = JobState.CANCELLED if record.state in WAITING else record.state
    table = "jobs" if state is JobState.PARKED else "finished"
    db.execute(f"DELETE FROM {table} WHERE seq = %s", (found[0],))
    count(db, state, None, record.batch)
    touch(db, [record] if state is JobState.PARKED else [])
    forget_attempts(db, [job_id])
    return record


def queues(db: Link, now: datetime) -> list[QueueRow]:
    """Return how the queues stand, by name; see `Store.queues`.

    What waits is counted in an index, which holds all that is asked for; what has ended, of the last minute.
    """
    rows: dict[str, dict[str, Any]] = {name: {"paused_at": since} for name, since in paused_queues(db).items()}
    counted = db.all(f"SELECT queue, state, count(*), min(run_at) FROM jobs WHERE {UNFINISHED} GROUP BY queue, state")
    for name, state, number, run_at in counted:
        row = rows.setdefault(name, {})
        row[state] = number
        if state == "queued":
            row["oldest_due_at"] = at_or_none(run_at)
    ended = db.all("SELECT queue, count(*) FROM finished WHERE finished_at > %s GROUP BY queue", (us(now - MINUTE),))
    for name, number in ended:
        rows.setdefault(name, {})["per_minute"] = float(number)
    return [QueueRow(name=name, **rows[name]) for name in sorted(rows)]


# -- workers --------------------------------------------------------------------------------------------------------


def register(
    db: Link, now: datetime, worker: str, tasks: Mapping[str, str], queues: Collection[str] | None = None
) -> list[JobRecord]:
    """Record which tasks a worker knows, and unpark what fits one of them; see `Store.register`."""
    write_tasks(db, now, worker, tasks, queues)
    return unpark(db, tasks)


_UNREFUSED = "state = 'parked' AND misfit IS NOT NULL AND task = %s AND strpos(misfit, %s) = 0"


def misfit_tasks(db: Link, tasks: Mapping[str, str]) -> list[str]:
    """Return those of these tasks of which a job is parked that none with their fingerprint has refused."""
    parked = db.all("SELECT DISTINCT task FROM jobs WHERE state = 'parked' AND misfit IS NOT NULL")
    known = [task for (task,) in parked if task in tasks]
    return [task for task in known if db.one(f"SELECT 1 FROM jobs WHERE {_UNREFUSED} LIMIT 1", (task, tasks[task]))]


def unpark(db: Link, tasks: Mapping[str, str]) -> list[JobRecord]:
    """Queue the jobs again that no task with the fingerprint of one of these has refused."""
    found: list[tuple[Any, ...]] = []
    for task in misfit_tasks(db, tasks):
        values = (task, tasks[task])
        hold(db, [job_id for (job_id,) in db.all(f"SELECT id FROM jobs WHERE {_UNREFUSED}", values)])
        found += db.all(
            f"""
            UPDATE jobs SET state = 'queued', error = NULL, start_by = NULL, gate = (gate1 IS NOT NULL)::int
            WHERE {_UNREFUSED} RETURNING {JOB}
            """,
            values,
        )
    records = [job_of(entry) for entry in sorted(found, key=lambda entry: int(entry[0]))]
    for record in records:
        count(db, "parked", "queued", record.batch)
        reopen(db, record.id)
    touch(db, records)
    return records
