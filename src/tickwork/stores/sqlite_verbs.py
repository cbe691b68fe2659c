"""What a SQLite store does, verb by verb: functions of a connection, each a part of somebody's transaction.

They wait for nothing and know neither threads nor the loop. `now` is handed in.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from functools import partial
from heapq import nsmallest
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from ..errors import DuplicateJob, UnknownJob
from ..jobs import JobRecord, JobState, NewJob, Progress, taken
from . import sqlite_limits as limits
from .base import (
    Finish,
    Fired,
    ScheduleRow,
    after_attempt,
    after_death,
    attempt_of,
    lost_attempt,
)
from .instants import at_or_none as _at_or_none
from .instants import us as us
from .instants import us_or_none as _us
from .rows import JOB
from .rows import job_of as _job
from .rows import utf8 as _text
from .sql_attempts import write_attempts
from .sql_schedules import JobVerbs, amend, cancelled, job_ended, look
from .sql_schedules import answer_of as answer_of
from .sql_schedules import change_schedule as change_by
from .sql_schedules import fire as fire_by
from .sql_schedules import ledger as ledger
from .sql_schedules import schedules as schedules
from .sqlite_bulk import in_bulk, parts
from .taking import claimed_at_once, take_in

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Sequence
    from datetime import datetime

    from ..jobs import Attempt
    from .base import FireOutcome, Firing, Lease, ScheduleChange
    from .durable import Claim
    from .views import Vitals

_AMONG = "IN (SELECT value FROM json_each(?))"
_READY = "state = 'queued' AND held = 0 AND gate = 0"
UNFINISHED = "state IN ('queued', 'scheduled', 'running')"


def _array(texts: Iterable[str]) -> str:
    return json.dumps(list(texts))


# -- producers ------------------------------------------------------------------------------------------------------


def waiting_count(db: sqlite3.Connection) -> int:
    """Return how many jobs wait, now or for later."""
    return int(db.execute("SELECT sum(count) FROM counts WHERE state IN ('queued', 'scheduled')").fetchone()[0])


def enqueue(
    db: sqlite3.Connection,
    now: datetime,
    asked: Sequence[Sequence[NewJob]],
    max_queued: int,
    hungry: Claim | None = None,
) -> tuple[list[list[JobRecord] | None], list[JobRecord]]:
    """Take jobs in, for each who asks all or none; see `take_in`.

    Args:
        db: The connection.
        now: When (UTC).
        asked: What each caller enqueues.
        max_queued: How many jobs may wait.
        hungry: What a worker asks for that waits for jobs; None: none does.

    Returns:
        What each caller gets, None: there is no room for it; and all that are new, as that worker has claimed them, or
        none of them, when something else has to go first.
    """
    answers, new = take_in(asked, now, max_queued - waiting_count(db), partial(unfinished_of, db))
    claimed = claimed_at_once(new, hungry, now)
    if claimed and _has_ready(db, now):
        claimed = []
    _insert(db, claimed or new)
    if any(record.gates for record in new):
        limits.settle(db, us(now), limits.due(db, us(now)))
    claimed.sort(key=lambda record: -record.priority)
    return answers, claimed


def _has_ready(db: sqlite3.Connection, now: datetime) -> bool:
    """Return whether a claim might find any job, or must leave some where they are."""
    found = db.execute(
        f"""
        SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE {_READY})
            OR EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_later WHERE state = 'scheduled' AND run_at <= ?)
            OR EXISTS (SELECT 1 FROM gates WHERE opens_at <= ?)
            OR EXISTS (SELECT 1 FROM queues)
        """,
        (us(now), us(now)),
    )
    return bool(found.fetchone()[0])


def unfinished_of(db: sqlite3.Connection, task: str, key: str) -> JobRecord | None:
    """Return the unfinished job of a task that has a key, or None."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE task = ? AND key = ? AND finished_at IS NULL", (task, key))
    entry = found.fetchone()
    return None if entry is None else _job(entry)


def insert(db: sqlite3.Connection, now: datetime, job: NewJob, behind: Sequence[str] = ()) -> JobRecord:
    """Take one job in, behind others where they must end first."""
    record = taken(job, now)
    _insert(db, [record], held=len(behind))
    if behind:
        db.executemany("INSERT INTO behind VALUES (?, ?)", [(job.id, before) for before in behind])
    return record


_INSERT = """
    INSERT INTO jobs (id, task, payload, run_at, queue, priority, schedule, fire_time, start_by, is_once, state,
        enqueued_at, held, token, worker, lease_expires_at{more})
    SELECT * FROM {{rows}} WHERE column1 <> ''
"""
_INSERT_PLAIN = _INSERT.format(more="")
_INSERT_ANY = _INSERT.format(more=", key, gate1, gate2, gate, batch, batch_index")


def _insert(db: sqlite3.Connection, records: Sequence[JobRecord], held: int = 0) -> None:
    """Write new jobs, before each of which so many others must end."""
    is_plain = not any(record.gates or record.key is not None or record.batch is not None for record in records)
    for part in parts(records):
        rows = [
            (
                record.id,
                record.task,
                _text(record.payload),
                us(record.run_at),
                record.queue,
                record.priority,
                record.schedule,
                _us(record.fire_time),
                _us(record.start_by),
                record.is_once,
                record.state,
                us(record.enqueued_at),
                held,
                record.token,
                record.worker,
                _us(record.lease_expires_at),
                *(() if is_plain else (record.key, *_gates(record), record.batch, record.batch_index)),
            )
            for record in part
        ]
        try:
            in_bulk(db, _INSERT_PLAIN if is_plain else _INSERT_ANY, rows)
        except sqlite3.IntegrityError as error:
            if str(error) != "UNIQUE constraint failed: jobs.id":
                raise
            raise DuplicateJob(_first_known(db, [record.id for record in part])) from None


def _first_known(db: sqlite3.Connection, job_ids: Sequence[str]) -> str:
    """Return the first of these ids that there is already, or that stands there twice."""
    known = {job_id for (job_id,) in db.execute(f"SELECT id FROM jobs WHERE id {_AMONG}", (_array(job_ids),))}
    return next(job_id for number, job_id in enumerate(job_ids) if job_id in known or job_id in job_ids[:number])


def _gates(record: JobRecord) -> tuple[str | None, str | None, bool]:
    """Return the gates of a job, and whether it waits before the first."""
    first, second = (*record.gates, None, None)[:2]
    return first, second, first is not None and record.state is JobState.QUEUED


def withdraw(db: sqlite3.Connection, job_ids: Iterable[str]) -> list[str]:
    """Take jobs out that nobody has claimed, as if they had never been enqueued, and return the ids of the others."""
    left = []
    for job_id in job_ids:
        gone = db.execute("DELETE FROM jobs WHERE id = ? AND state IN ('queued', 'scheduled')", (job_id,)).rowcount
        if not gone:
            left.append(job_id)
    return left


def fire(db: sqlite3.Connection, now: datetime, firing: Firing) -> Fired:
    """Answer fire times of a schedule; see `Store.fire`."""
    verbs = JobVerbs(_unfinished, cancel, insert)
    return fire_by(db, now, firing, look(db, firing, verbs), verbs)


def fire_all(db: sqlite3.Connection, now: datetime, firings: Sequence[Firing]) -> list[Fired]:
    """Answer fire times of several schedules, one after the other."""
    return [fire(db, now, firing) for firing in firings]


def _unfinished(db: sqlite3.Connection, name: str) -> list[JobRecord]:
    # Unasked, SQLite takes the index that is in order, and walks over all jobs of the schedule that are finished.
    found = db.execute(
        f"SELECT {JOB} FROM jobs INDEXED BY jobs_by_both WHERE schedule = ? AND {UNFINISHED} ORDER BY seq", (name,)
    )
    return [_job(entry) for entry in found]


def change_schedule(db: sqlite3.Connection, now: datetime, change: ScheduleChange) -> ScheduleRow | None:
    """Apply a change; see `Store.set_schedule`."""
    return change_by(db, now, change, note_schedule_change)


def note_schedule_change(db: sqlite3.Connection) -> None:
    """Let other processes notice that a schedule stands elsewhere than its last fire time tells."""
    db.execute("UPDATE meta SET value = value + 1 WHERE key = 'schedules_changed'")


# -- workers --------------------------------------------------------------------------------------------------------


def promote(db: sqlite3.Connection, now: datetime) -> None:
    """Queue the scheduled jobs that are due."""
    db.execute(
        "UPDATE jobs INDEXED BY jobs_later SET state = 'queued' WHERE state = 'scheduled' AND run_at <= ?", (us(now),)
    )


def claim(
    db: sqlite3.Connection,
    now: datetime,
    *,
    worker: str,
    tasks: Collection[str],
    limit: int,
    queues: Collection[str] | None,
    jobs: Collection[str] | None = None,
    lease_seconds: float | None,
) -> list[JobRecord]:
    """Take due jobs; see `Store.claim`."""
    promote(db, now)
    if not tasks or (queues is not None and not queues) or (jobs is not None and not jobs):
        limits.settle(db, us(now), limits.due(db, us(now)))  # else they would be asked for again and again
        return []
    paused = [name for (name,) in db.execute("SELECT name FROM queues")]
    known = f"task IN ({_marks(tasks)})" + ("" if queues is None else f" AND queue IN ({_marks(queues)})")
    names: tuple[str, ...] = (*tasks, *(queues or ()))
    if paused:
        known += f" AND queue NOT IN ({_marks(paused)})"
        names += tuple(paused)
    if jobs is not None:
        known += f" AND id IN ({_marks(jobs)})"
        names += tuple(jobs)
    # Unasked, SQLite takes the index of states, and walks over all that is queued.
    # One look for two things that there seldom are: jobs that come too late, and gates that may have opened.
    news = db.execute(
        f"""
        SELECT id, NULL FROM jobs INDEXED BY jobs_grace
        WHERE state = 'queued' AND start_by < ? AND attempt = 0 AND deaths = 0 AND {known}
        UNION ALL {limits.DUE}
        """,
        (us(now), *names, us(now), us(now)),
    ).fetchall()
    missed = [cancel(db, now, job_id, "missed") for job_id, gate in news if gate is None]
    if news:
        limits.settle(db, us(now), limits.due(db, us(now)))
    expires = None if lease_seconds is None else us(now + timedelta(seconds=lease_seconds))
    found = db.execute(
        f"""
        UPDATE jobs SET state = 'running', token = token + 1, worker = ?, lease_expires_at = ?, started_at = NULL,
            progress = NULL
        WHERE seq {_AMONG} RETURNING {JOB}
        """,
        (worker, expires, json.dumps(_picked(db, known, names, limit, is_named=jobs is not None))),
    ).fetchall()
    found.sort(key=lambda entry: (-entry[6], entry[0]))  # RETURNING promises no order
    gated = [(entry[2], entry[0], entry[26], entry[27]) for entry in found if entry[26] is not None]
    if gated:
        limits.claimed(db, us(now), gated)
    return [_job(entry) for entry in found] + [record for record in missed if record is not None]


MAX_LINES = 50
"""So many tasks and queues are looked through for one that a claim may take from, before it looks at the jobs."""
_LINES = f"""
    WITH RECURSIVE firsts (first) AS (
        SELECT (SELECT seq FROM jobs INDEXED BY jobs_lines WHERE {_READY} ORDER BY queue, task LIMIT 1)
        UNION ALL
        SELECT coalesce(
            (
                SELECT seq FROM jobs INDEXED BY jobs_lines WHERE {_READY} AND queue = line.queue AND task > line.task
                ORDER BY task LIMIT 1
            ),
            (
                SELECT seq FROM jobs INDEXED BY jobs_lines WHERE {_READY} AND queue > line.queue
                ORDER BY queue, task LIMIT 1
            )
        ) FROM firsts JOIN jobs AS line ON line.seq = first LIMIT {MAX_LINES}
    )
    SELECT queue, task, {{known}} FROM firsts JOIN jobs ON seq = first
"""
"""The queues and tasks of jobs that are ready, each found by one step in an index, and whether they may be claimed."""


def _picked(db: sqlite3.Connection, known: str, names: Sequence[str], limit: int, *, is_named: bool) -> list[int]:
    """Return the rows of the jobs that a claim takes.

    A worker looks at no job that it may not take, however many of those wait before its own.
    """
    if is_named:
        where = f"FROM jobs WHERE {_READY} AND {known}"
    else:
        lines = db.execute(_LINES.format(known=known), names).fetchall()
        ours = [line for *line, is_known in lines if is_known]
        if len(ours) < len(lines) < MAX_LINES:
            of_line = f"SELECT -priority, seq FROM jobs INDEXED BY jobs_lines WHERE {_READY} AND queue = ? AND task = ?"
            each = (db.execute(f"{of_line} ORDER BY priority DESC, seq LIMIT ?", (*line, limit)) for line in ours)
            return [seq for _, seq in nsmallest(limit, chain.from_iterable(each))]
        # Unasked, SQLite takes the index of states, and walks over all that is queued.
        where = f"FROM jobs INDEXED BY jobs_ready WHERE {_READY} AND {known}"
    found = db.execute(f"SELECT seq {where} ORDER BY priority DESC, seq LIMIT ?", (*names, limit))
    return [seq for (seq,) in found]


def claim_next(
    db: sqlite3.Connection, now: datetime, *, limit: int, **asked: Any
) -> tuple[list[JobRecord], datetime | None]:
    """Take due jobs, and return them with the time when the next one is due, where all that were ready are taken."""
    found = claim(db, now, limit=limit, **asked)
    return found, None if len(found) >= limit else next_claim(db)[1]


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def extend(db: sqlite3.Connection, now: datetime, lease: Lease, lease_seconds: float) -> bool:
    """Make a lease last from now; False: it has another owner."""
    return bool(
        db.execute(
            "UPDATE jobs SET lease_expires_at = ? WHERE id = ? AND token = ? AND state = 'running'",
            (us(now + timedelta(seconds=lease_seconds)), lease.job_id, lease.token),
        ).rowcount
    )


def progress(db: sqlite3.Connection, lease: Lease, started_at: datetime | None, told: Progress | None) -> bool:
    """Record that a job's function has been called, and how far it is; False: it has another owner."""
    return bool(
        db.execute(
            """
            UPDATE jobs SET started_at = coalesce(?, started_at), progress = coalesce(?, progress)
            WHERE id = ? AND token = ? AND state = 'running'
            """,
            (_us(started_at), None if told is None else told.to_json(), lease.job_id, lease.token),
        ).rowcount
    )


def finish(
    db: sqlite3.Connection, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord], bool]:
    """Write the ends of attempts; see `Store.finish`.

    Returns:
        Which ends were taken, the ended jobs among these for whose end somebody waits, and whether another claim may
        find something because of it.
    """
    firsts = {ended.lease: ended for ended in reversed(finishes)}  # it ends once
    once = [ended for ended in finishes if firsts[ended.lease] is ended]
    held: set[tuple[str, int]] = set()
    moved: list[tuple[Finish, JobRecord]] = []
    for went_well, group in groupby(once, key=_went_well):
        found, concerns = (_succeed if went_well else _move)(db, now, list(group), waited)
        held |= found
        moved += concerns
    frees = False
    ended_here = []
    for ended, record in moved:
        if record.fire_time is not None:
            amend(db, record.id, record.state, _us(record.started_at), ended.late_because)
        if record.state is JobState.PARKED:
            _note_misfit(db, record.id, ended.misfit)
        if not record.has_ended:
            frees = True
            continue
        frees |= bool(record.gates)
        if record.schedule is not None:
            frees |= _ended(db, now, record.id, record.state, record.schedule)
        if record.id in waited:
            ended_here.append(record)
    accepted = [ended.lease in held and firsts[ended.lease] is ended for ended in finishes]
    return accepted, ended_here, frees


def _went_well(ended: Finish) -> bool:
    return ended.state is JobState.SUCCEEDED


_SUCCEED = f"""
    UPDATE jobs SET state = 'succeeded', attempt = done.column3, deaths = done.column4,
        started_at = coalesce(done.column5, started_at), finished_at = ?, result = done.column6, error = done.column7,
        lease_expires_at = NULL, worker = NULL
    FROM {{rows}} AS done WHERE id = done.column1 AND token = done.column2 AND +state = 'running' RETURNING {JOB}
"""


def _succeed(
    db: sqlite3.Connection, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[set[tuple[str, int]], list[tuple[Finish, JobRecord]]]:
    """Write that attempts have succeeded.

    Returns:
        The leases of those that this was true of, and the jobs among them whose end concerns anybody else, as they are
        then.
    """
    found: dict[tuple[str, int], tuple[Any, ...]] = {}
    for part in parts(finishes):
        rows = [
            (*ended.lease, ended.attempt, ended.deaths, _us(ended.started_at), _text(ended.result), _text(ended.error))
            for ended in part
        ]
        found.update(((entry[1], entry[15]), entry) for entry in in_bulk(db, _SUCCEED, rows, us(now)))
    concerns = [
        (ended, _job(entry))
        for ended in finishes
        if (entry := found.get(ended.lease)) is not None
        and (entry[1] in waited or entry[7] is not None or entry[26] is not None)
    ]
    return set(found), concerns


def _move(
    db: sqlite3.Connection, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[set[tuple[str, int]], list[tuple[Finish, JobRecord]]]:
    """Write any other ends of attempts; as `_succeed`, and all of them concern somebody."""
    among = _array([ended.lease.job_id for ended in finishes])
    held = db.execute(f"SELECT {JOB} FROM jobs WHERE +state = 'running' AND id {_AMONG}", (among,))  # +: go by the ids
    found = {(entry[1], entry[15]): entry for entry in held}
    moved: list[tuple[int, Finish, JobRecord]] = []
    traces: list[tuple[str, Attempt]] = []
    for ended in finishes:
        entry = found.get(ended.lease)
        if entry is not None:
            moved.append((entry[0], ended, after_attempt(_job(entry), ended, now)))
            if ended.leaves_trace:
                traces.append((entry[1], attempt_of(ended, entry[16], now)))
    db.executemany(
        """
        UPDATE jobs SET state = ?, attempt = ?, deaths = ?, started_at = ?, finished_at = ?, result = ?, error = ?,
            run_at = ?, lease_expires_at = NULL, worker = NULL
        WHERE seq = ?
        """,
        [
            (
                record.state,
                record.attempt,
                record.deaths,
                _us(record.started_at),
                _us(record.finished_at),
                _text(record.result),
                _text(record.error),
                us(record.run_at),
                seq,
            )
            for seq, _, record in moved
        ],
    )
    if traces:
        write_attempts(db, traces)
    return {ended.lease for _, ended, _ in moved}, [(ended, record) for _, ended, record in moved]


def _note_misfit(db: sqlite3.Connection, job_id: str, fingerprint: str | None) -> None:
    """Write down which fingerprint has refused the arguments of a parked job; None: it is parked for another reason."""
    if fingerprint is None:
        db.execute("UPDATE jobs SET misfit = NULL WHERE id = ?", (job_id,))
    else:
        db.execute(
            """
            UPDATE jobs SET misfit = coalesce(misfit || ' ', '') || ?
            WHERE id = ? AND instr(coalesce(misfit, ''), ?) = 0
            """,
            (fingerprint, job_id, fingerprint),
        )


def _ended(db: sqlite3.Connection, now: datetime, job_id: str, state: JobState, name: str | None) -> bool:
    """Write the end of a job where it belongs, ledger and schedule, and return whether a job waited for it."""
    if name is None:
        return False
    followers = db.execute("DELETE FROM behind WHERE before_id = ? RETURNING job_id", (job_id,)).fetchall()
    if followers:
        db.executemany("UPDATE jobs SET held = held - 1 WHERE id = ?", followers)
    job_ended(db, now, job_id, state, name, note_schedule_change)
    return bool(followers)


def release(db: sqlite3.Connection, now: datetime, lease: Lease) -> bool:
    """Give an unstarted job back, or cancel it where that was asked for; False: it has another owner."""
    found = db.execute(
        """
        UPDATE jobs SET state = 'queued', worker = NULL, lease_expires_at = NULL, started_at = NULL
        WHERE id = ? AND token = ? AND state = 'running' RETURNING cancel_requested
        """,
        (lease.job_id, lease.token),
    ).fetchone()
    if found is not None and found[0]:
        cancel(db, now, lease.job_id)
    return found is not None


def rescue(
    db: sqlite3.Connection, now: datetime, dead: Collection[str], overdue: timedelta | None, max_deaths: int
) -> list[JobRecord]:
    """Take away the jobs of dead workers, and those whose lease ended that long ago (None: not those)."""
    found = db.execute(
        f"""
        SELECT {JOB} FROM jobs WHERE state = 'running' AND (worker IN ({_marks(dead)}) OR lease_expires_at <= ?)
        ORDER BY seq
        """,
        (*dead, None if overdue is None else us(now - overdue)),
    ).fetchall()
    rescued = [_rescued(db, now, _job(entry), max_deaths) for entry in found]
    if rescued:
        db.execute("UPDATE meta SET value = value + 1 WHERE key = 'rescued'")  # their owners may live, and look
    db.execute(f"DELETE FROM workers WHERE name IN ({_marks(dead)})", tuple(dead))
    return rescued


def _rescued(db: sqlite3.Connection, now: datetime, record: JobRecord, max_deaths: int) -> JobRecord:
    state, deaths, error = after_death(record, max_deaths)
    moved = db.execute(
        f"""
        UPDATE jobs SET state = ?, deaths = ?, lost = lost + 1, error = ?, worker = NULL, lease_expires_at = NULL,
            finished_at = ?
        WHERE id = ? RETURNING {JOB}
        """,
        (state, deaths, error, us(now) if state.is_finished else None, record.id),
    ).fetchone()
    if record.fire_time is not None:
        amend(db, record.id, state, _us(record.started_at))
    if record.started_at is not None:
        write_attempts(db, [(record.id, lost_attempt(record, now))])
    if state is JobState.PARKED:
        _note_misfit(db, record.id, None)
    if state is not JobState.QUEUED:
        _ended(db, now, record.id, state, record.schedule)
    return _job(moved)


# -- people ---------------------------------------------------------------------------------------------------------


def cancel(
    db: sqlite3.Connection,
    now: datetime,
    job_id: str,
    outcome: FireOutcome = "not_started",
    *,
    seen: JobState | None = None,
) -> JobRecord | None:
    """Cancel a job that waits, mark one that runs; None: there was nothing to cancel."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None or (record := _job(found)).state.is_finished or seen not in (None, record.state):
        return None
    if record.state is JobState.RUNNING:
        changed = db.execute(f"UPDATE jobs SET cancel_requested = 1 WHERE id = ? RETURNING {JOB}", (job_id,))
        return _job(changed.fetchone())
    cancelled(db, record, outcome)
    moved = db.execute(
        f"UPDATE jobs SET state = 'cancelled', finished_at = ? WHERE id = ? RETURNING {JOB}", (us(now), job_id)
    ).fetchone()
    db.execute("DELETE FROM behind WHERE job_id = ?", (job_id,))
    if record.state is not JobState.PARKED:
        _ended(db, now, job_id, JobState.CANCELLED, record.schedule)
    else:  # its end is written already, all but the last word
        db.execute("UPDATE ledger SET finished_at = ?, state = 'cancelled' WHERE job_id = ?", (us(now), job_id))
    return _job(moved)


def job(db: sqlite3.Connection, job_id: str) -> JobRecord:
    """Return a job, or raise UnknownJob."""
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if found is None:
        raise UnknownJob(job_id)
    return _job(found)


def jobs_of(db: sqlite3.Connection, job_ids: Iterable[str]) -> list[JobRecord]:
    """Return those of these jobs that there are."""
    return [_job(found) for found in db.execute(f"SELECT {JOB} FROM jobs WHERE id {_AMONG}", (_array(job_ids),))]


def jobs(db: sqlite3.Connection, state: JobState | None, name: str | None, limit: int) -> list[JobRecord]:
    """Return jobs, the newest first."""
    wanted = [("state = ?", state), ("schedule = ?", name)]
    given = [(test, value) for test, value in wanted if value is not None]
    where = f"WHERE {' AND '.join(test for test, _ in given)}" if given else ""
    found = db.execute(f"SELECT {JOB} FROM jobs {where} ORDER BY seq DESC LIMIT ?", (*(v for _, v in given), limit))
    return [_job(entry) for entry in found]


def counts(db: sqlite3.Connection) -> dict[JobState, int]:
    """Return how many jobs there are in each state."""
    return {JobState(state): count for state, count in db.execute("SELECT state, count FROM counts")}


def prune(
    db: sqlite3.Connection, *, results: datetime, jobs: datetime, ledger: datetime, limit: int
) -> tuple[int, bool]:
    """Forget results, finished jobs and ledger rows that ended before these instants, so many of each at the most.

    Returns:
        How many jobs and rows are gone, and whether there may be more.
    """
    emptied = db.execute(
        """
        UPDATE jobs SET result = NULL WHERE seq IN (
            SELECT seq FROM jobs WHERE result IS NOT NULL AND finished_at < ? ORDER BY finished_at LIMIT ?
        )
        """,
        (us(results), limit),
    ).rowcount
    gone = db.execute(
        "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE finished_at < ? ORDER BY finished_at LIMIT ?)",
        (us(jobs), limit),
    ).rowcount
    rows = db.execute(
        "DELETE FROM ledger WHERE seq IN (SELECT seq FROM ledger WHERE answered_at < ? LIMIT ?)", (us(ledger), limit)
    ).rowcount
    return gone + rows, max(emptied, gone, rows) >= limit


def moved_to(db: sqlite3.Connection) -> str | None:
    """Return where the jobs of a store were moved; None: nowhere."""
    found = db.execute("SELECT target FROM moved").fetchone()
    return None if found is None else str(found[0])


# -- what the thread looks for --------------------------------------------------------------------------------------


def cancels_asked(db: sqlite3.Connection, worker: str) -> list[str]:
    """Return the jobs that a worker runs and somebody wants cancelled."""
    found = db.execute("SELECT id FROM jobs WHERE worker = ? AND state = 'running' AND cancel_requested = 1", (worker,))
    return [job_id for (job_id,) in found]


def leases_held(db: sqlite3.Connection, worker: str) -> dict[str, int]:
    """Return the jobs that a worker has, each with the token of its lease."""
    return dict(db.execute("SELECT id, token FROM jobs WHERE worker = ? AND state = 'running'", (worker,)).fetchall())


def ended_among(db: sqlite3.Connection, job_ids: Collection[str]) -> list[str]:
    """Return those of these jobs that are finished, parked or gone."""
    if not job_ids:
        return []
    found = db.execute(f"SELECT id FROM jobs WHERE id {_AMONG} AND +{UNFINISHED}", (_array(job_ids),))
    return list(set(job_ids).difference(job_id for (job_id,) in found))


def next_claim(db: sqlite3.Connection) -> tuple[bool, datetime | None]:
    """Return whether any job may be ready for some worker, and when the next is due, or its rate lets it start."""
    is_ready, due, opens_at = db.execute(
        f"""
        SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_ready WHERE {_READY})
            OR EXISTS (SELECT 1 FROM gates WHERE opens_at = 0),
            (SELECT min(run_at) FROM jobs INDEXED BY jobs_later WHERE state = 'scheduled'),
            iif(EXISTS (SELECT 1 FROM gates WHERE opens_at = 0), 0,
                (SELECT min(opens_at) FROM gates WHERE waits = 1 AND opens_at IS NOT NULL))
        """
    ).fetchone()
    return bool(is_ready), _at_or_none(min((at for at in (due, opens_at) if at is not None), default=None))


def other_workers(db: sqlite3.Connection, worker: str) -> list[str]:
    """Return the names of the other workers: those registered, and those that have jobs in hand."""
    found = db.execute(
        """
        SELECT name FROM workers WHERE name <> ?
        UNION SELECT worker FROM jobs WHERE state = 'running' AND worker <> ?
        """,
        (worker, worker),
    )
    return [name for (name,) in found]


def has_overdue(db: sqlite3.Connection, before: datetime) -> bool:
    """Return whether the lease of any job ended before an instant."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_expires_at <= ?)", (us(before),)
    )
    return bool(found.fetchone()[0])


def renew(db: sqlite3.Connection, now: datetime, worker: str, lease_seconds: float) -> None:
    """Make all leases of a worker last from now. No sign of life: its loop may be stuck, and has a while for that."""
    db.execute(
        "UPDATE jobs SET lease_expires_at = ? WHERE worker = ? AND state = 'running'",
        (us(now + timedelta(seconds=lease_seconds)), worker),
    )


def beat(db: sqlite3.Connection, now: datetime, worker: str, vitals: Vitals | None, lease_seconds: float) -> None:
    """Record that a worker lives, and how it does. What its process's lock tells of that, no time has to."""
    told = None if vitals is None else vitals.to_json()
    db.execute("UPDATE workers SET beat_at = ?, vitals = coalesce(?, vitals) WHERE name = ?", (us(now), told, worker))


def leave(db: sqlite3.Connection, worker: str) -> None:
    """Take a worker off the list."""
    db.execute("DELETE FROM workers WHERE name = ?", (worker,))
