"""What people ask of a SQLite store, and what they change in it: functions of a connection, as in `sqlite_verbs`.

None of them may look at all that is finished: a store keeps a million such jobs. So a list without a filter walks the
table backwards from its end; one of a task or a queue walks an index that holds both beside the state, and never the
table; and what is counted of finished jobs is counted of the last minute.
"""

from __future__ import annotations

import json
from datetime import timedelta
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import UnknownJob
from ..jobs import JobRecord, JobState
from . import sqlite_limits as limits
from .instants import at, at_or_none, us
from .rows import JOB
from .rows import job_of as _job
from .sql_people import paused_queues as paused_queues
from .sql_people import set_queue as set_queue
from .sql_people import workers as workers
from .sql_people import write_tasks
from .sql_schedules import reopen
from .sqlite_verbs import UNFINISHED, _marks, cancel, moved_to, unfinished_of
from .views import MAX_AHEAD, RETRIABLE, WAITING, Page, QueueRow, Standing, cursor_of, place_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from .views import JobQuery

_NEWEST = 2**63 - 1
MINUTE = timedelta(minutes=1)


# -- lists ----------------------------------------------------------------------------------------------------------


def page(db: sqlite3.Connection, query: JobQuery) -> Page:
    """Return some jobs, the newest first; see `Store.page`."""
    before = _NEWEST if query.after is None else place_of(query.after)
    if query.schedule is not None:
        found = _of_schedule(db, query, before)
    elif query.states or query.tasks or query.queue is not None or query.batch is not None:
        found = _among(db, query, before)
    else:
        found = db.execute(
            f"SELECT {JOB} FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT ?", (before, query.limit + 1)
        ).fetchall()
    has_more = len(found) > query.limit
    found = found[: query.limit]
    return Page([_job(entry) for entry in found], cursor_of(found[-1][0]) if has_more else None)


def _of_schedule(db: sqlite3.Connection, query: JobQuery, before: int) -> list[tuple[Any, ...]]:
    tests, values = _tests(query)
    states = f" AND state IN ({_marks(query.states)})" if query.states else ""
    return db.execute(
        f"SELECT {JOB} FROM jobs WHERE schedule = ? AND seq < ?{states}{tests} ORDER BY seq DESC LIMIT ?",
        (query.schedule, before, *query.states, *values, query.limit + 1),
    ).fetchall()


def _among(db: sqlite3.Connection, query: JobQuery, before: int) -> list[tuple[Any, ...]]:
    """Return rows of some states, tasks and queues: the newest of each state, and of these the newest."""
    tests, values = _tests(query)
    index = "jobs_by_state" if query.batch is None else "jobs_of_batch_by_state"
    lines = [
        [
            seq
            for (seq,) in db.execute(
                f"""
                SELECT seq FROM jobs INDEXED BY {index} WHERE state = ? AND seq < ?{tests}
                ORDER BY seq DESC LIMIT ?
                """,
                (state, before, *values, query.limit + 1),
            )
        ]
        for state in query.states or JobState
    ]
    newest = list(islice(merge(*lines, reverse=True), query.limit + 1))
    return db.execute(
        f"SELECT {JOB} FROM jobs WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq DESC",
        (json.dumps(newest),),
    ).fetchall()


def _tests(query: JobQuery) -> tuple[str, list[str]]:
    """Return what a statement asks of task, queue and batch, and the values for it."""
    tests = f" AND task IN ({_marks(query.tasks)})" if query.tasks else ""
    given = {name: value for name, value in (("queue", query.queue), ("batch", query.batch)) if value is not None}
    return tests + "".join(f" AND {name} = ?" for name in given), [*query.tasks, *given.values()]


def standing(db: sqlite3.Connection, now: datetime, job_id: str) -> Standing:
    """Return a job, and what stands in its way; see `Store.standing`."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None:
        raise UnknownJob(job_id)
    record = _job(found)
    if record.state not in WAITING:
        return Standing(job=record, key_held_by=_holder(db, record))
    behind = db.execute(
        f"""
        SELECT before_id FROM behind JOIN jobs ON id = before_id WHERE job_id = ? AND {UNFINISHED} ORDER BY before_id
        """,
        (job_id,),
    )
    paused = db.execute("SELECT paused_at FROM queues WHERE name = ?", (record.queue,)).fetchone()
    return Standing(
        job=record,
        behind=tuple(before for (before,) in behind),
        queue_paused_at=None if paused is None else at(paused[0]),
        ahead=_ahead(db, found[0], record.priority),
        gate=limits.blocker(db, us(now), job_id, at),
    )


def _holder(db: sqlite3.Connection, job: JobRecord) -> str | None:
    """Return the id of the other unfinished job that has the key of one which may be retried."""
    if job.key is None or job.state not in RETRIABLE:
        return None
    other = unfinished_of(db, job.task, job.key)
    return None if other is None or other.id == job.id else other.id


def _ahead(db: sqlite3.Connection, seq: int, priority: int) -> int:
    """Return how many jobs have their turn before one; two questions, for each of which the index has an answer."""
    ready = """
        SELECT 1 FROM jobs INDEXED BY jobs_ready
        WHERE state = 'queued' AND held = 0 AND gate = 0 AND queue NOT IN (SELECT name FROM queues)
    """
    (count,) = db.execute(
        f"""
        SELECT (SELECT count(*) FROM ({ready} AND priority > ? LIMIT ?))
            + (SELECT count(*) FROM ({ready} AND priority = ? AND seq < ? LIMIT ?))
        """,
        (priority, MAX_AHEAD, priority, seq, MAX_AHEAD),
    ).fetchone()
    return min(int(count), MAX_AHEAD)


# -- changes --------------------------------------------------------------------------------------------------------


def retry(db: sqlite3.Connection, now: datetime, job_id: str, seen: JobState | None = None) -> JobRecord | None:
    """Queue a job again, as if it had never run; see `Store.retry`."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or (record := _job(found)).state not in RETRIABLE or seen not in (None, record.state):
        return None
    if _holder(db, record) is not None:
        return None
    moved = db.execute(
        f"""
        UPDATE jobs SET state = 'queued', attempt = 0, deaths = 0, run_at = ?, start_by = NULL, started_at = NULL,
            finished_at = NULL, result = NULL, progress = NULL, cancel_requested = 0, held = 0, misfit = NULL
        WHERE id = ? RETURNING {JOB}
        """,
        (us(now), job_id),
    ).fetchone()
    reopen(db, job_id)
    return _job(moved)


def delete(db: sqlite3.Connection, now: datetime, job_id: str) -> JobRecord | None:
    """Forget a job that does not run; see `Store.delete`."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or (record := _job(found)).state is JobState.RUNNING:
        return None
    if record.state in WAITING:
        cancel(db, now, job_id)
    db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
    return record


# -- queues ---------------------------------------------------------------------------------------------------------


def queues(db: sqlite3.Connection, now: datetime) -> list[QueueRow]:
    """Return how the queues stand, by name; see `Store.queues`."""
    rows: dict[str, dict[str, Any]] = {name: {"paused_at": since} for name, since in paused_queues(db).items()}
    counted = db.execute(
        f"SELECT queue, state, count(*) FROM jobs INDEXED BY jobs_by_state WHERE {UNFINISHED} GROUP BY queue, state"
    )
    for name, state, count in counted:
        rows.setdefault(name, {})[state] = count
    oldest = db.execute(
        "SELECT queue, min(run_at) FROM jobs INDEXED BY jobs_by_state WHERE state = 'queued' GROUP BY queue"
    )
    for name, run_at in oldest:
        rows.setdefault(name, {})["oldest_due_at"] = at_or_none(run_at)
    ended = db.execute(
        "SELECT queue, count(*) FROM jobs INDEXED BY jobs_ended WHERE finished_at > ? GROUP BY queue",
        (us(now - MINUTE),),
    )
    for name, count in ended:
        rows.setdefault(name, {})["per_minute"] = float(count)
    return [QueueRow(name=name, **rows[name]) for name in sorted(rows)]


# -- workers --------------------------------------------------------------------------------------------------------


def register(
    db: sqlite3.Connection, now: datetime, worker: str, tasks: Mapping[str, str], queues: Collection[str] | None = None
) -> list[JobRecord]:
    """Record which tasks a worker knows, and unpark what fits one of them; see `Store.register`."""
    write_tasks(db, now, worker, tasks, queues)
    return unpark(db, tasks)


_UNREFUSED = "state = 'parked' AND misfit IS NOT NULL AND task = ? AND instr(misfit, ?) = 0"


def misfit_tasks(db: sqlite3.Connection, tasks: Mapping[str, str]) -> list[str]:
    """Return those of these tasks of which a job is parked that none with their fingerprint has refused."""
    parked = db.execute("SELECT DISTINCT task FROM jobs WHERE state = 'parked' AND misfit IS NOT NULL").fetchall()
    found = []
    for (task,) in parked:
        if task in tasks:
            asked = db.execute(f"SELECT EXISTS (SELECT 1 FROM jobs WHERE {_UNREFUSED})", (task, tasks[task]))
            found += [task] if asked.fetchone()[0] else []
    return found


def unpark(db: sqlite3.Connection, tasks: Mapping[str, str]) -> list[JobRecord]:
    """Queue the jobs again that no task with the fingerprint of one of these has refused."""
    if moved_to(db) is not None:
        return []
    found: list[tuple[Any, ...]] = []
    for task in misfit_tasks(db, tasks):
        found += db.execute(
            f"UPDATE jobs SET state = 'queued', error = NULL, start_by = NULL WHERE {_UNREFUSED} RETURNING {JOB}",
            (task, tasks[task]),
        ).fetchall()
    for entry in found:
        reopen(db, entry[1])
    return [_job(entry) for entry in sorted(found)]
