"""What a PostgreSQL store does, verb by verb: functions of a link, each a part of somebody's transaction.

They know neither threads nor the loop. `now` is handed in. Other processes work on the same tables meanwhile, so each
verb first takes the locks of what it is about to change beyond the rows of its jobs: of schedules, batches and gates
(`hold`), of keys, and of the room that is left when there is little. A claim takes none of them, and steps over rows
that others have locked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import psycopg.errors

from ..errors import DuplicateJob, UnknownJob
from ..jobs import JobRecord, JobState, NewJob, Progress, taken
from ..records import changed
from . import postgres_limits as limits
from .base import Fired, Lease, after_attempt, after_death, attempt_of, lost_attempt
from .instants import at_or_none, us, us_or_none
from .postgres_doubt import in_doubt
from .postgres_link import LOCKS, spread
from .rows import JOB, ROW, job_of, schedule_of, utf8
from .sql_attempts import write_attempts
from .sql_batches import STATES
from .sql_schedules import JobVerbs, Sight, amend, cancelled, is_stale, job_ended, look
from .sql_schedules import answer_of as answer_of
from .sql_schedules import change_schedule as change_by
from .sql_schedules import fire as fire_by
from .sql_schedules import ledger as ledger
from .sql_schedules import schedules as schedules
from .taking import take_in

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Sequence

    from ..jobs import Attempt
    from .base import Finish, FireOutcome, Firing, ScheduleChange, ScheduleRow
    from .durable import Claim
    from .postgres_link import Link
    from .views import Vitals

Told = tuple[Lease, datetime | None, Progress | None]
"""What a job tells: who writes, when its function was called, how far it is."""

LITTLE_ROOM = 1_000
"""With room for fewer jobs, or for a tenth of the bound, processes enqueue one after the other: before that, they would
have to be about to commit more than that to exceed it."""
WAITING_SECONDS = 1.0
"""Where there is much room, the number of waiting jobs of so long ago will do."""
MAX_PROMOTED = 10_000
"""So many scheduled jobs are queued in one go; the rest follows at the next claim, which comes at once."""

IN_DOUBT: list[JobRecord] = []
"""The answer to who enqueues a job with a key of which nobody knows yet whether there is one; see `postgres_doubt`."""

UNFINISHED = "state IN ('queued', 'scheduled', 'running')"
EVERY = f"(SELECT {JOB}, batch_end FROM jobs UNION ALL SELECT {JOB}, batch_end FROM finished) AS every"
"""All jobs, wherever they are."""

_JOBS_JOB = ", ".join(f"jobs.{name.strip()}" for name in JOB.split(","))
_COLUMNS = [name.strip() for name in JOB.split(",")]


# -- locks and counts -----------------------------------------------------------------------------------------------


def hold(db: Link, job_ids: Collection[str], schedules: Collection[str] = ()) -> None:
    """Lock what jobs have in common with others: schedules, batches and gates; and these schedules."""
    names = {lock_of_schedule(name) for name in schedules}
    if job_ids:
        found = db.all(
            """
            SELECT task, schedule, batch, gate1, gate2 FROM jobs
            WHERE id = ANY(%b::text[]) AND (schedule IS NOT NULL OR batch IS NOT NULL OR gate1 IS NOT NULL)
            """,
            (list(job_ids),),
        )
        names.update(name for task, schedule, batch, *gates in found for name in _locks(task, schedule, batch, gates))
    db.lock(names)


def locks_of(record: JobRecord) -> set[str]:
    """Return the locks of what a job has in common with others."""
    return set(_locks(record.task, record.schedule, record.batch, record.gates))


def _locks(task: str, schedule: str | None, batch: str | None, gates: Iterable[str | None]) -> Iterator[str]:
    if schedule is not None:
        yield lock_of_schedule(schedule)
    if batch is not None:
        yield lock_of_batch(batch)
    for gate in gates:
        if gate is not None:
            yield limits.lock_of(task, gate)


def lock_of_schedule(name: str) -> str:
    """Return the lock of a schedule, which it shares with others."""
    return f"schedule:{crc32(name.encode()) % LOCKS}"


def lock_of_batch(batch_id: str) -> str:
    """Return the lock of a batch, which it shares with others."""
    return f"batch:{crc32(batch_id.encode()) % LOCKS}"


def lock_of_key(task: str, key: str) -> str:
    """Return the lock of an idempotency key, which it shares with others."""
    return f"key:{crc32(f'{task} {key}'.encode('utf-8', 'surrogatepass')) % LOCKS}"


def count(db: Link, old: str | None, new: str | None, batch: str | None = None, times: int = 1) -> None:
    """Count jobs that leave a state, or come into one."""
    for state, sign in ((old, -times), (new, times)):
        if state is not None:
            db.tally[str(state)] += sign
            if batch is not None:
                db.batches.setdefault(batch, type(db.tally)())[str(state)] += sign


def note_schedule_change(db: Link) -> None:
    """Let other processes notice that a schedule stands elsewhere than its last fire time tells."""
    db.tally["changes"] += 1


def touch(db: Link, records: Iterable[JobRecord]) -> None:
    """Let the gates of jobs be looked at."""
    limits.touch(db, {(record.task, gate) for record in records for gate in record.gates})


# -- producers ------------------------------------------------------------------------------------------------------


def waiting_count(db: Link) -> int:
    """Return how many jobs wait, now or for later; what other processes are about to commit is not among them."""
    found = db.all("SELECT coalesce(sum(queued + scheduled), 0)::bigint FROM shards")
    return int(found[0][0]) + db.tally["queued"] + db.tally["scheduled"]


def room(db: Link, wanted: int, max_queued: int) -> int:
    """Return how many jobs may still be taken in. When there is little room, nobody else takes some meanwhile."""
    known = db.waiting(WAITING_SECONDS)
    waiting = waiting_count(db) if known is None else known + db.tally["queued"] + db.tally["scheduled"]
    if waiting + wanted > max_queued - max(LITTLE_ROOM, max_queued // 10):
        db.lock(["room"])
        waiting = waiting_count(db)
    return max_queued - waiting


def enqueue(
    db: Link, now: datetime, asked: Sequence[Sequence[NewJob]], max_queued: int, hungry: Claim | None = None
) -> tuple[list[list[JobRecord] | None], list[JobRecord]]:
    """Take jobs in, for each who asks all or none; see `take_in`. None are claimed as they are written.

    `IN_DOUBT` is the answer where one of them has a key that is.
    """
    keys = {(job.task, job.key) for jobs in asked for job in jobs if job.key is not None}
    doubtful: set[int] = set()
    if keys:
        db.lock({lock_of_key(*name) for name in keys})
        doubted = {name for name in in_doubt(db, keys) if unfinished_of(db, *name) is None}
        doubtful = {number for number, jobs in enumerate(asked) if any((job.task, job.key) in doubted for job in jobs)}
    clear = [jobs for number, jobs in enumerate(asked) if number not in doubtful]
    has_room = room(db, sum(len(jobs) for jobs in clear), max_queued)
    answers, new = take_in(clear, now, has_room, partial(unfinished_of, db))
    insert_all(db, [(record, 0) for record in new])
    if any(record.gates for record in new):
        limits.settle(db, us(now), limits.due(db, us(now)))
    rest = iter(answers)
    return [IN_DOUBT if number in doubtful else next(rest) for number in range(len(asked))], []


def unfinished_of(db: Link, task: str, key: str) -> JobRecord | None:
    """Return the unfinished job of a task that has a key, or None."""
    found = db.one(f"SELECT {JOB} FROM jobs WHERE task = %s AND key = %s", (task, key))
    return None if found is None else job_of(found)


def insert(db: Link, now: datetime, job: NewJob, behind: Sequence[str] = ()) -> JobRecord:
    """Take one job in, behind others where they must end first."""
    record = taken(job, now)
    insert_all(db, [(record, len(behind))])
    if behind:
        db.execute("INSERT INTO behind (job_id, before_id) SELECT %s, unnest(%b::text[])", (job.id, list(behind)))
    return record


def insert_all(db: Link, records: Sequence[tuple[JobRecord, int]]) -> None:
    """Write new jobs, each with the number of jobs that must end before it."""
    if not records:
        return
    rows, values = spread("new", _columns(records))
    try:
        count_there = db.execute(
            f"""
            WITH new AS MATERIALIZED ({rows})
            INSERT INTO jobs (id, {_NEW_COLUMNS}) SELECT id, {_NEW_COLUMNS} FROM new
            WHERE NOT EXISTS (SELECT 1 FROM finished JOIN new AS known ON finished.id = known.id)
            """,
            values,
        ).rowcount
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != "jobs_id":
            raise
        raise DuplicateJob(_culprit(error)) from None
    if count_there < len(records):
        ids = [record.id for record, _ in records]
        raise DuplicateJob(db.all("SELECT id FROM finished WHERE id = ANY(%b::text[]) LIMIT 1", (ids,))[0][0])
    for record, _ in records:
        count(db, None, record.state, record.batch)
    touch(db, [record for record, _ in records if record.state is JobState.QUEUED and record.gates])


_KINDS = {
    "task": "text",
    "payload": "text",
    "run_at": "bigint",
    "queue": "text",
    "priority": "bigint",
    "schedule": "text",
    "fire_time": "bigint",
    "start_by": "bigint",
    "is_once": "boolean",
    "state": "text",
    "enqueued_at": "bigint",
    "key": "text",
    "gate1": "text",
    "gate2": "text",
    "batch": "text",
    "batch_index": "bigint",
    "held": "int",
    "gate": "smallint",
}
_NEW_COLUMNS = ", ".join(_KINDS)


def _columns(records: Sequence[tuple[JobRecord, int]]) -> dict[str, tuple[str, Sequence[object]]]:
    """Return new jobs by columns."""
    rows = []
    for record, held in records:
        first, second = (*record.gates, None, None)[:2]
        rows.append(
            (
                record.id,
                record.task,
                utf8(record.payload),
                us(record.run_at),
                record.queue,
                record.priority,
                record.schedule,
                us_or_none(record.fire_time),
                us_or_none(record.start_by),
                record.is_once,
                record.state.value,
                us(record.enqueued_at),
                record.key,
                first,
                second,
                record.batch,
                record.batch_index,
                held,
                int(first is not None and record.state is JobState.QUEUED),
            )
        )
    kinds = {"id": "text", **_KINDS}
    return {
        name: (kind, list(values)) for (name, kind), values in zip(kinds.items(), zip(*rows, strict=True), strict=True)
    }


def _culprit(error: psycopg.errors.UniqueViolation) -> str:
    """Return the id that is there already: "Key (id)=(0123) already exists."."""
    detail = error.diag.message_detail or ""
    return detail.partition("=(")[2].rpartition(") already")[0]


def withdraw(db: Link, job_ids: Iterable[str]) -> list[str]:
    """Take jobs out that nobody has claimed, as if they had never been enqueued, and return the ids of the others."""
    wanted = list(job_ids)
    hold(db, wanted)
    found = db.all(
        f"DELETE FROM jobs WHERE id = ANY(%b::text[]) AND state IN ('queued', 'scheduled') RETURNING {JOB}", (wanted,)
    )
    gone = [job_of(entry) for entry in found]
    _uncount(db, gone)
    forget_attempts(db, [record.id for record in gone])
    return [job_id for job_id in wanted if job_id not in {record.id for record in gone}]


def _uncount(db: Link, gone: Sequence[JobRecord]) -> None:
    for record in gone:
        count(db, record.state, None, record.batch)
    touch(db, [record for record in gone if record.gates])


def fire(db: Link, now: datetime, firing: Firing) -> Fired:
    """Answer fire times of a schedule; see `Store.fire`."""
    return fire_all(db, now, [firing])[0]


def fire_all(db: Link, now: datetime, firings: Sequence[Firing]) -> list[Fired]:
    """Answer fire times of several schedules.

    What the firings go by is asked for all at once. Of many processes that fire at one moment, those that come too late
    find out by a single question, and take no locks.
    """
    verbs = JobVerbs(unfinished, cancel, insert)
    rows = _rows_of(db, firings)
    in_time = [firing for firing in firings if not _is_late(firing, rows.get(firing.schedule))]
    if not in_time:
        return [Fired(outcome=None, row=rows.get(firing.schedule)) for firing in firings]
    hold(db, [], {firing.schedule for firing in in_time})
    sights = _sights(db, in_time)
    answers: list[Fired] = []
    seen: set[str] = set()
    for firing in firings:
        is_known = firing.schedule in sights and firing.schedule not in seen
        sight = sights[firing.schedule] if is_known else look(db, firing, verbs)
        seen.add(firing.schedule)
        answers.append(fire_by(db, now, firing, sight, verbs))
    return answers


def _is_late(firing: Firing, row: ScheduleRow | None) -> bool:
    return row is None or is_stale(firing, row)


def _rows_of(db: Link, firings: Sequence[Firing]) -> dict[str, ScheduleRow]:
    names = list({firing.schedule for firing in firings})
    found = db.all(f"SELECT {ROW} FROM schedules WHERE name = ANY(%b::text[])", (names,))
    return {entry[0]: schedule_of(entry) for entry in found}


def _sights(db: Link, firings: Sequence[Firing]) -> dict[str, Sight]:
    """Return what the first firing of each schedule goes by."""
    rows = _rows_of(db, firings)
    first = {firing.schedule: firing for firing in reversed(firings) if firing.schedule in rows}
    theirs = {name: firing.job.fire_time for name, firing in first.items() if firing.job is not None}
    known: dict[str, list[JobRecord]] = {name: [] for name in first}
    answered: set[str] = set()
    if theirs:
        found = db.all(
            f"SELECT {JOB} FROM jobs WHERE schedule = ANY(%b::text[]) AND {UNFINISHED} ORDER BY seq", (list(theirs),)
        )
        for entry in found:
            known[entry[7]].append(job_of(entry))
        names, times = list(theirs), [us_or_none(fire_time) for fire_time in theirs.values()]
        answered = {
            name
            for (name,) in db.all(
                """
                SELECT schedule FROM ledger
                JOIN unnest(%b::text[], %b::bigint[]) AS t (name, at) ON schedule = t.name AND first = t.at
                """,
                (names, times),
            )
        }
    return {
        name: Sight(rows[name], known[name], firing.version is not None and name in answered)
        for name, firing in first.items()
    }


def unfinished(db: Link, name: str) -> list[JobRecord]:
    """Return the jobs of a schedule that wait or run."""
    found = db.all(f"SELECT {JOB} FROM jobs WHERE schedule = %s AND {UNFINISHED} ORDER BY seq", (name,))
    return [job_of(entry) for entry in found]


def change_schedule(db: Link, now: datetime, change: ScheduleChange) -> ScheduleRow | None:
    """Apply a change; see `Store.set_schedule`."""
    db.lock([lock_of_schedule(change.name)])
    return change_by(db, now, change, note_schedule_change)


# -- workers --------------------------------------------------------------------------------------------------------


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
    is_none = not tasks or (queues is not None and not queues) or (jobs is not None and not jobs) or limit <= 0
    expires = None if lease_seconds is None else us(now + timedelta(seconds=lease_seconds))
    # One way there and back, as a rule: jobs are claimed at once, unless something else must be done first.
    values = (*names, us(now), *names, 0 if is_none else limit, worker, expires)
    found = db.all(_claim_sql(known, "has_news"), values)
    due, is_late, opens_at, is_open, *_ = found[0]
    missed: list[JobRecord] = []
    if is_late or is_open or (due is not None and due <= us(now)):
        promote(db, now)
        missed = _missed(db, now, known, names)
        limits.settle(db, us(now), limits.due(db, us(now)))
        found = db.all(_claim_sql(known, "false"), values)
        due, _, opens_at, *_ = found[0]
    entries = sorted((entry[4:] for entry in found if entry[4] is not None), key=lambda entry: (-entry[6], entry[0]))
    records = [job_of(entry) for entry in entries]
    for record in records:
        count(db, "queued", "running", record.batch)
    gated = [
        (record.task, entry[0], record.gates) for entry, record in zip(entries, records, strict=True) if record.gates
    ]
    if gated:
        limits.claimed(db, us(now), gated)
        opens_at = db.all("SELECT min(opens_at) FROM gates WHERE waits")[0][0]
    return records + missed, at_or_none(min((at for at in (due, opens_at) if at is not None), default=None))


@cache
def _claim_sql(known: str, unless: str) -> str:
    """Return the statement that claims, and tells what else is to be done; unless "has_news": only if nothing is."""
    return f"""
        WITH due AS MATERIALIZED (
            SELECT *, due <= now OR is_late OR is_open AS has_news FROM (
                SELECT (SELECT min(run_at) FROM jobs WHERE state = 'scheduled') AS due,
                    EXISTS (
                        SELECT 1 FROM jobs
                        WHERE state = 'queued' AND start_by < now AND attempt = 0 AND deaths = 0 AND {known}
                    ) AS is_late,
                    (SELECT min(opens_at) FROM gates WHERE waits) AS opens_at,
                    EXISTS (SELECT 1 FROM gates WHERE opens_at <= now)
                        OR EXISTS (SELECT 1 FROM starts WHERE at > now) AS is_open,
                    now
                FROM (SELECT %s::bigint AS now) AS given
            ) AS found
        ), picked AS MATERIALIZED (
            SELECT seq FROM jobs
            WHERE state = 'queued' AND held = 0 AND gate = 0 AND {known}
                AND (SELECT ({unless}) IS NOT TRUE FROM due)
            ORDER BY priority DESC, seq LIMIT %s FOR UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE jobs SET state = 'running', token = token + 1, worker = %s, lease_expires_at = %s, started_at = NULL,
                progress = NULL
            FROM picked WHERE jobs.seq = picked.seq RETURNING {_JOBS_JOB}
        )
        SELECT due.due, due.is_late, due.opens_at, due.is_open, claimed.* FROM due LEFT JOIN claimed ON true
    """


_IS_OPEN = "CASE WHEN queue = ANY(ARRAY(SELECT name FROM queues)) THEN false ELSE true END"
"""Whether a job's queue is not paused, told so that the planner cannot take it for rare: as NOT EXISTS or <> ALL it
would expect one row at the most where all are of one queue, and sort everything that waits."""


def _known(
    tasks: Collection[str], queues: Collection[str] | None, jobs: Collection[str] | None
) -> tuple[str, tuple[Any, ...]]:
    """Return what a claim asks of the rows of jobs, and the values for it."""
    tests = ["task = ANY(%b::text[])", _IS_OPEN]
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
        f"SELECT id FROM jobs WHERE state = 'queued' AND start_by < %s AND attempt = 0 AND deaths = 0 AND {known}",
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


def finish(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord], bool]:
    """Write the ends of attempts; see `Store.finish`.

    Returns:
        Which ends were taken, the ended jobs among these for whose end somebody waits, and whether another claim may
        find something because of it.
    """
    accepted, ended = _finish_plain(db, now, finishes, waited)
    left = [finish for finish, is_done in zip(finishes, accepted, strict=True) if not is_done]
    if not left:
        return accepted, ended, False
    others, more, frees = _finish_each(db, now, left, waited)
    answers = iter(others)
    return [is_done or next(answers) for is_done in accepted], ended + more, frees


def became_of(db: Link, lease: Lease) -> bool | None:
    """Return whether the end of a job was written; None: the transaction that may do so is still under way.

    False: it was not, and nobody does that any more.
    """
    there = db.one("SELECT 1 FROM jobs WHERE id = %s AND token = %s AND state = 'running'", lease)
    if there is None:
        return db.one("SELECT 1 FROM finished WHERE id = %s AND token = %s", lease) is not None
    free = db.one("SELECT 1 FROM jobs WHERE id = %s AND token = %s FOR UPDATE SKIP LOCKED", lease)
    return None if free is None else False


def _finish_plain(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord]]:
    """Write the ends of jobs that have nothing in common with others, and are not tried again: most, in one statement.

    Returns:
        Which ends that were, and the ended jobs among these for whose end somebody waits.
    """
    plain = {finish.lease: finish for finish in reversed(finishes) if finish.state.is_finished}
    if not plain:
        return [False] * len(finishes), []
    rows, values = spread(
        "e",
        {
            "id": ("text", [lease.job_id for lease in plain]),
            "token": ("bigint", [lease.token for lease in plain]),
            "state": ("text", [finish.state.value for finish in plain.values()]),
            "attempt": ("int", [finish.attempt for finish in plain.values()]),
            "deaths": ("int", [finish.deaths for finish in plain.values()]),
            "started_at": ("bigint", [us_or_none(finish.started_at) for finish in plain.values()]),
            "result": ("text", [utf8(finish.result) for finish in plain.values()]),
            "error": ("text", [utf8(finish.error) for finish in plain.values()]),
            "run_at": ("bigint", [us_or_none(finish.run_at) for finish in plain.values()]),
        },
    )
    found = db.all(
        _FINISH.format(rows=rows), (*values, us(now), [lease.job_id for lease in plain if lease.job_id in waited])
    )
    done = {(entry[1], entry[15]): entry for entry in found}
    traces = []
    for lease, finish in plain.items():
        if (lease.job_id, lease.token) in done:
            count(db, "running", finish.state)
            if finish.leaves_trace:
                traces.append((lease.job_id, attempt_of(finish, done[lease.job_id, lease.token][-1], now)))
    if traces:
        write_attempts(db, traces)
    seen: set[Lease] = set()
    accepted = []
    for finish in finishes:
        accepted.append(tuple(finish.lease) in done and finish.lease not in seen)
        seen.add(finish.lease)
    return accepted, [job_of(entry) for entry in done.values() if entry[1] in waited]


_OWN = {
    "worker": "NULL",
    "lease_expires_at": "NULL",
    "finished_at": "%s::bigint",
    "run_at": "coalesce(new_run_at, run_at)",
}
_OWN |= {"started_at": "coalesce(new_started_at, started_at)"}
_OWN |= {name: f"new_{name}" for name in ("state", "attempt", "deaths", "result", "error")}
_TOLD = {"payload": "CASE WHEN id = ANY(%b::text[]) THEN payload ELSE '' END"}
_FINISH = f"""
    WITH e AS MATERIALIZED ({{rows}}), gone AS (
        DELETE FROM jobs USING e WHERE jobs.id = e.id AND jobs.token = e.token AND jobs.state = 'running'
            AND schedule IS NULL AND batch IS NULL AND gate1 IS NULL
        RETURNING jobs.*, {
    ", ".join(
        f"e.{name} AS new_{name}" for name in ("state", "attempt", "deaths", "started_at", "result", "error", "run_at")
    )
}
    ), kept AS (
        INSERT INTO finished ({JOB}) SELECT {", ".join(_OWN.get(name, name) for name in _COLUMNS)} FROM gone
        RETURNING {JOB}
    )
    SELECT {", ".join(_TOLD.get(name, name) for name in _COLUMNS)},
        (SELECT gone.worker FROM gone WHERE gone.id = kept.id) FROM kept
"""


def _finish_each(
    db: Link, now: datetime, finishes: Sequence[Finish], waited: Container[str]
) -> tuple[list[bool], list[JobRecord], bool]:
    """Write the ends of attempts, whatever they bring about."""
    among = [ended.lease.job_id for ended in finishes]
    hold(db, among)
    theirs = "id = ANY(%b::text[]) AND state = 'running'"
    held = db.all(f"SELECT {JOB} FROM jobs WHERE {theirs} ORDER BY seq FOR UPDATE", (among,))
    found = {entry[1]: (entry[0], job_of(entry)) for entry in held}
    accepted: list[bool] = []
    moved: list[tuple[int, Finish, JobRecord, JobRecord]] = []
    traces: list[tuple[str, Attempt]] = []
    for ended in finishes:
        seq, record = found.get(ended.lease.job_id, (0, None))
        accepted.append(record is not None and record.token == ended.lease.token)
        if record is not None and accepted[-1]:
            del found[record.id]  # it ends once
            moved.append((seq, ended, record, after_attempt(record, ended, now)))
            if ended.leaves_trace:
                traces.append((record.id, attempt_of(ended, record.worker, now)))
    if not moved:
        return accepted, [], False
    _write(db, [(seq, before, after) for seq, _, before, after in moved])
    if traces:
        write_attempts(db, traces)
    for _, ended, _, after in moved:
        if after.fire_time is not None:
            amend(db, after.id, after.state, us_or_none(after.started_at), ended.late_because)
        if after.state is JobState.PARKED:
            _note_misfit(db, after.id, ended.misfit)
    ends = [after for *_, after in moved if after.has_ended]
    frees = len(ends) < len(moved) or any(record.gates for record in ends)
    for record in ends:
        frees |= _ended(db, now, record)
    return accepted, [record for record in ends if record.id in waited], frees


def _write(db: Link, moved: Sequence[tuple[int, JobRecord, JobRecord]]) -> None:
    """Write what has become of running or waiting jobs: row, before and after. What is finished moves."""
    ends = _number_ends(db, [after for _, before, after in moved if after.has_ended])
    final = [(seq, after) for seq, _, after in moved if after.state.is_finished]
    others = [(seq, after) for seq, _, after in moved if not after.state.is_finished]
    if final:
        rows, values = spread("e", _changes(final, ends))
        db.execute(
            f"""
            WITH e AS MATERIALIZED ({rows}), gone AS (
                DELETE FROM jobs USING e WHERE jobs.seq = e.seq RETURNING jobs.*, {_NEW}
            )
            INSERT INTO finished ({JOB}, batch_end)
            SELECT {", ".join(_MOVED.get(name, name) for name in _COLUMNS)}, coalesce(new_end, batch_end) FROM gone
            """,
            values,
        )
    if others:
        rows, values = spread("e", _changes(others, ends))
        db.execute(
            f"""
            WITH e AS MATERIALIZED ({rows})
            UPDATE jobs SET {", ".join(f"{name} = e.{name}" for name in _CHANGED)}, worker = NULL,
                lease_expires_at = NULL, batch_end = coalesce(e.new_end, jobs.batch_end),
                gate = CASE WHEN e.state = 'queued' AND gate1 IS NOT NULL THEN 1 ELSE 0 END
            FROM e WHERE jobs.seq = e.seq
            """,
            values,
        )
    for seq, before, after in moved:
        count(db, before.state, after.state, after.batch)
        is_back = before.state is JobState.RUNNING and after.state is JobState.QUEUED and before.lost == after.lost
        if is_back and after.gates and before.started_at is after.started_at is None:
            limits.given_back(db, after.task, seq, after.gates)
    touch(db, [after for _, _, after in moved if after.gates])


_CHANGED = ("state", "attempt", "deaths", "lost", "started_at", "finished_at", "result", "error", "run_at")
_NEW = ", ".join(f"e.{name} AS new_{name}" for name in _CHANGED) + ", e.new_end"
_MOVED = {name: f"new_{name}" for name in _CHANGED} | {"worker": "NULL", "lease_expires_at": "NULL"}


def _changes(moved: Sequence[tuple[int, JobRecord]], ends: dict[str, int]) -> dict[str, tuple[str, Sequence[object]]]:
    """Return what jobs become, by columns."""
    return {
        "seq": ("bigint", [seq for seq, _ in moved]),
        "state": ("text", [after.state.value for _, after in moved]),
        "attempt": ("int", [after.attempt for _, after in moved]),
        "deaths": ("int", [after.deaths for _, after in moved]),
        "lost": ("int", [after.lost for _, after in moved]),
        "started_at": ("bigint", [us_or_none(after.started_at) for _, after in moved]),
        "finished_at": ("bigint", [us_or_none(after.finished_at) for _, after in moved]),
        "result": ("text", [utf8(after.result) for _, after in moved]),
        "error": ("text", [utf8(after.error) for _, after in moved]),
        "run_at": ("bigint", [us(after.run_at) for _, after in moved]),
        "new_end": ("bigint", [ends.get(after.id) for _, after in moved]),
    }


def _number_ends(db: Link, ended: Sequence[JobRecord]) -> dict[str, int]:
    """Number the ends of jobs of batches, by their ids."""
    of_batch: dict[str, list[str]] = {}
    for record in ended:
        if record.batch is not None:
            of_batch.setdefault(record.batch, []).append(record.id)
    numbers: dict[str, int] = {}
    for batch, job_ids in sorted(of_batch.items()):
        found = db.one("UPDATE batches SET ends = ends + %s WHERE id = %s RETURNING ends", (len(job_ids), batch))
        if found is not None:
            numbers.update(zip(job_ids, range(found[0] - len(job_ids) + 1, found[0] + 1), strict=True))
    return numbers


def _note_misfit(db: Link, job_id: str, fingerprint: str | None) -> None:
    """Write down which fingerprint has refused the arguments of a parked job; None: it is parked for another reason."""
    if fingerprint is None:
        db.execute("UPDATE jobs SET misfit = NULL WHERE id = %s", (job_id,))
    else:
        db.execute(
            """
            UPDATE jobs SET misfit = coalesce(misfit || ' ', '') || %s::text
            WHERE id = %s AND strpos(coalesce(misfit, ''), %s) = 0
            """,
            (fingerprint, job_id, fingerprint),
        )


def _ended(db: Link, now: datetime, record: JobRecord) -> bool:
    """Write the end of a job where it belongs, ledger and schedule, and return whether a job waited for it."""
    if record.schedule is None:
        return False
    followers = [
        job_id for (job_id,) in db.all("DELETE FROM behind WHERE before_id = %s RETURNING job_id", (record.id,))
    ]
    if followers:
        found = db.all(
            f"""
            UPDATE jobs SET held = held - 1, gate = (gate1 IS NOT NULL AND state = 'queued')::int
            WHERE id = ANY(%b::text[]) RETURNING {JOB}
            """,
            (followers,),
        )
        touch(db, [job_of(entry) for entry in found])
    job_ended(db, now, record.id, record.state, record.schedule, note_schedule_change)
    return bool(followers)


def release(db: Link, now: datetime, lease: Lease) -> bool:
    """Give an unstarted job back, or cancel it where that was asked for; False: it has another owner."""
    hold(db, [lease.job_id])
    found = db.one(
        f"SELECT {JOB} FROM jobs WHERE id = %s AND token = %s AND state = 'running' FOR UPDATE",
        (lease.job_id, lease.token),
    )
    if found is None:
        return False
    record = job_of(found)
    if record.gates and record.started_at is None:
        limits.given_back(db, record.task, found[0], record.gates)
    db.execute(
        """
        UPDATE jobs SET state = 'queued', worker = NULL, lease_expires_at = NULL, started_at = NULL,
            gate = (gate1 IS NOT NULL)::int
        WHERE seq = %s
        """,
        (found[0],),
    )
    count(db, "running", "queued", record.batch)
    touch(db, [record])
    if record.cancel_requested:
        cancel(db, now, lease.job_id)
    return True


def rescue(
    db: Link, now: datetime, dead: Collection[str], overdue: timedelta | None, max_deaths: int
) -> list[JobRecord]:
    """Take away the jobs of dead workers, and those whose lease ended that long ago (None: not those)."""
    theirs = "state = 'running' AND (worker = ANY(%b::text[]) OR lease_expires_at <= %s)"
    values = (list(dead), None if overdue is None else us(now - overdue))
    hold(db, [job_id for (job_id,) in db.all(f"SELECT id FROM jobs WHERE {theirs}", values)])
    found = db.all(f"SELECT {JOB} FROM jobs WHERE {theirs} ORDER BY seq FOR UPDATE SKIP LOCKED", values)
    moved = [(entry[0], record := job_of(entry), _after_death(record, now, max_deaths)) for entry in found]
    if moved:
        _write(db, moved)
        traces = [(before.id, lost_attempt(before, now)) for _, before, _ in moved if before.started_at is not None]
        if traces:
            write_attempts(db, traces)
        db.tally["rescued"] += len(moved)  # their owners may live, and look
    for _, before, after in moved:
        if after.fire_time is not None:
            amend(db, after.id, after.state, us_or_none(before.started_at))
        if after.state is JobState.PARKED:
            _note_misfit(db, after.id, None)
        if after.state is not JobState.QUEUED:
            _ended(db, now, after)
    if dead:
        db.execute("DELETE FROM workers WHERE name = ANY(%b::text[])", (list(dead),))
    return [after for *_, after in moved]


def _after_death(record: JobRecord, now: datetime, max_deaths: int) -> JobRecord:
    state, deaths, error = after_death(record, max_deaths)
    return changed(
        record,
        state=state,
        deaths=deaths,
        lost=record.lost + 1,
        error=error,
        worker=None,
        lease_expires_at=None,
        finished_at=now if state.is_finished else None,
    )


# -- people ---------------------------------------------------------------------------------------------------------


def cancel(
    db: Link,
    now: datetime,
    job_id: str,
    outcome: FireOutcome = "not_started",
    *,
    seen: JobState | None = None,
) -> JobRecord | None:
    """Cancel a job that waits, mark one that runs; None: there was nothing to cancel."""
    hold(db, [job_id])
    found = db.one(f"SELECT {JOB} FROM jobs WHERE id = %s FOR UPDATE", (job_id,))
    if found is None or seen not in (None, (record := job_of(found)).state):
        return None
    record = job_of(found)
    if record.state is JobState.RUNNING:
        db.execute("UPDATE jobs SET cancel_requested = true WHERE id = %s", (job_id,))
        return changed(record, cancel_requested=True)
    cancelled(db, record, outcome)
    after = changed(record, state=JobState.CANCELLED, finished_at=now)
    _write(db, [(found[0], record, after)])
    db.execute("DELETE FROM behind WHERE job_id = %s", (job_id,))
    if record.state is not JobState.PARKED:
        _ended(db, now, after)
    else:  # its end is written already, all but the last word
        db.execute("UPDATE ledger SET finished_at = %s, state = 'cancelled' WHERE job_id = %s", (us(now), job_id))
    return after


def find(db: Link, job_id: str) -> tuple[int, JobRecord] | None:
    """Return the row and the record of a job, or None."""
    found = db.one(f"SELECT {JOB} FROM {EVERY} WHERE id = %s", (job_id,))
    return None if found is None else (found[0], job_of(found))


def job(db: Link, job_id: str) -> JobRecord:
    """Return a job, or raise UnknownJob."""
    found = find(db, job_id)
    if found is None:
        raise UnknownJob(job_id)
    return found[1]


def jobs_of(db: Link, job_ids: Iterable[str]) -> list[JobRecord]:
    """Return those of these jobs that there are."""
    return [
        job_of(found) for found in db.all(f"SELECT {JOB} FROM {EVERY} WHERE id = ANY(%b::text[])", (list(job_ids),))
    ]


def jobs(db: Link, state: JobState | None, name: str | None, limit: int) -> list[JobRecord]:
    """Return jobs, the newest first."""
    wanted = [("state = %s", None if state is None else state.value), ("schedule = %s", name)]
    given = [(test, value) for test, value in wanted if value is not None]
    where = f"WHERE {' AND '.join(test for test, _ in given)}" if given else ""
    values = (*(value for _, value in given), limit)
    return [job_of(entry) for entry in db.all(f"SELECT {JOB} FROM {EVERY} {where} ORDER BY seq DESC LIMIT %s", values)]


def counts(db: Link) -> dict[JobState, int]:
    """Return how many jobs there are in each state."""
    sums = ", ".join(f"coalesce(sum({state}), 0)::bigint" for state in STATES)
    found = db.all(f"SELECT {sums} FROM shards")[0]
    return {JobState(state): count for state, count in zip(STATES, found, strict=True)}


def prune(db: Link, *, results: datetime, jobs: datetime, ledger: datetime, limit: int) -> tuple[int, bool]:
    """Forget results, finished jobs and ledger rows that ended before these instants, so many of each at the most.

    Returns:
        How many jobs and rows are gone, and whether there may be more.
    """
    emptied = db.execute(
        """
        UPDATE finished SET result = NULL WHERE seq IN (
            SELECT seq FROM finished WHERE result IS NOT NULL AND finished_at < %s ORDER BY finished_at LIMIT %s
            FOR UPDATE SKIP LOCKED
        )
        """,
        (us(results), limit),
    ).rowcount
    gone = db.all(
        """
        DELETE FROM finished WHERE seq IN (
            SELECT seq FROM finished WHERE finished_at < %s ORDER BY finished_at LIMIT %s FOR UPDATE SKIP LOCKED
        ) RETURNING id, state, batch
        """,
        (us(jobs), limit),
    )
    for _, state, batch in gone:
        count(db, state, None, batch)
    forget_attempts(db, [job_id for job_id, *_ in gone])
    rows = db.execute(
        """
        DELETE FROM ledger
        WHERE seq IN (SELECT seq FROM ledger WHERE answered_at < %s LIMIT %s FOR UPDATE SKIP LOCKED)
        """,
        (us(ledger), limit),
    ).rowcount
    return len(gone) + rows, max(emptied, len(gone), rows) >= limit


def forget_attempts(db: Link, job_ids: Sequence[str]) -> None:
    """Forget the history of jobs that are gone."""
    if job_ids:
        db.execute("DELETE FROM attempts WHERE job_id = ANY(%b::text[])", (list(job_ids),))


# -- what the threads look for --------------------------------------------------------------------------------------


def cancels_asked(db: Link, worker: str) -> list[str]:
    """Return the jobs that a worker runs and somebody wants cancelled."""
    found = db.all("SELECT id FROM jobs WHERE worker = %s AND state = 'running' AND cancel_requested", (worker,))
    return [job_id for (job_id,) in found]


def leases_held(db: Link, worker: str) -> dict[str, int]:
    """Return the jobs that a worker has, each with the token of its lease."""
    found = db.all("SELECT id, token FROM jobs WHERE worker = %s AND state = 'running'", (worker,))
    return dict(found)


def ended_among(db: Link, job_ids: Collection[str]) -> list[str]:
    """Return those of these jobs that are finished, parked or gone."""
    if not job_ids:
        return []
    found = db.all(f"SELECT id FROM jobs WHERE id = ANY(%b::text[]) AND {UNFINISHED}", (list(job_ids),))
    return list(set(job_ids).difference(job_id for (job_id,) in found))


def next_claim(db: Link) -> tuple[bool, datetime | None]:
    """Return whether any job may be ready for some worker, and when the next is due, or its rate lets it start."""
    is_ready, due, opens_at = db.all(
        """
        SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' AND held = 0 AND gate = 0)
            OR EXISTS (SELECT 1 FROM gates WHERE opens_at = 0),
            (SELECT min(run_at) FROM jobs WHERE state = 'scheduled'),
            (SELECT min(opens_at) FROM gates WHERE waits AND opens_at IS NOT NULL)
        """
    )[0]
    return bool(is_ready), at_or_none(min((at for at in (due, opens_at) if at is not None), default=None))


def news(db: Link) -> tuple[int, int, int, int]:
    """Return three numbers that change when anything does, when a schedule does, and when jobs were taken away.

    The fourth is how many rows transactions of users have left; see `postgres_joint`.
    """
    found = db.all(
        """
        SELECT coalesce(sum(mark), 0)::bigint, coalesce(sum(changes), 0)::bigint, coalesce(sum(rescued), 0)::bigint,
            count(*) FILTER (WHERE starts_with(name, '@'))
        FROM shards
        """
    )
    marks, changes, rescued, left = found[0]
    return marks, changes, rescued, left


def other_workers(db: Link, worker: str) -> list[str]:
    """Return the names of the other workers: those registered, and those that have jobs in hand."""
    found = db.all(
        """
        SELECT name FROM workers WHERE name <> %s
        UNION SELECT worker FROM jobs WHERE state = 'running' AND worker <> %s
        """,
        (worker, worker),
    )
    return [name for (name,) in found]


def has_overdue(db: Link, before: datetime) -> bool:
    """Return whether the lease of any job ended before an instant."""
    return bool(
        db.all("SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND lease_expires_at <= %s)", (us(before),))[
            0
        ][0]
    )


def renew(db: Link, now: datetime, worker: str, lease_seconds: float) -> bool:
    """Make all leases of a worker last from now, and record that it lives; a job that just ends is stepped over.

    Returns:
        False: it is not on the list.
    """
    until = us(now + timedelta(seconds=lease_seconds))
    db.execute(
        """
        WITH mine AS MATERIALIZED (
            SELECT seq FROM jobs WHERE worker = %s AND state = 'running' FOR UPDATE SKIP LOCKED
        )
        UPDATE jobs SET lease_expires_at = %s FROM mine WHERE jobs.seq = mine.seq
        """,
        (worker, until),
    )
    done = db.execute("UPDATE workers SET beat_at = %s, lives_until = %s WHERE name = %s", (us(now), until, worker))
    return done.rowcount > 0


def beat(db: Link, now: datetime, worker: str, vitals: Vitals | None = None) -> None:
    """Record that a worker lives, and how it does."""
    told = None if vitals is None else vitals.to_json()
    db.execute(
        """
        UPDATE workers SET beat_at = %s, lives_until = lives_until + greatest(0, %s - beat_at),
            vitals = coalesce(%s, vitals)
        WHERE name = %s
        """,
        (us(now), us(now), told, worker),
    )


def leave(db: Link, worker: str) -> None:
    """Take a worker off the list."""
    db.execute("DELETE FROM workers WHERE name = %s", (worker,))


_SUMMED = ("mark", "rescued", "changes", *STATES)


def merge_shards(db: Link, now: datetime, names: Sequence[str]) -> None:
    """Add rows of `shards`, of whose links nothing more comes, to the row of all such."""
    sums = ", ".join(f"sum({name})" for name in _SUMMED)
    added = ", ".join(f"{name} = s.{name} + excluded.{name}" for name in _SUMMED)
    db.execute(
        f"""
        WITH gone AS (DELETE FROM shards WHERE name = ANY(%b::text[]) RETURNING *)
        INSERT INTO shards AS s (name, touched_at, {", ".join(_SUMMED)})
        SELECT '', %s, {sums} FROM gone HAVING count(*) > 0
        ON CONFLICT (name) DO UPDATE SET touched_at = excluded.touched_at, {added}
        """,
        (list(names), us(now)),
    )


def forget_processes(db: Link, now: datetime, before: datetime) -> None:
    """Forget processes that have not been heard of since an instant, all but what they have counted."""
    old = db.all("SELECT name FROM shards WHERE touched_at < %s AND name <> '' FOR UPDATE SKIP LOCKED", (us(before),))
    if old:
        merge_shards(db, now, [name for (name,) in old])
    db.execute(
        """
        DELETE FROM workers WHERE lives_until < %s
            AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.worker = workers.name AND state = 'running')
        """,
        (us(before),),
    )
