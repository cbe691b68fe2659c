"""What the verbs of a PostgreSQL store have in common: locks, counts, and how a job is found.

Processes work side by side on the same tables, so each verb first takes the locks of what it is about to change beyond
the rows of its jobs: of schedules, batches and gates (`hold`), of keys, and of the room that is left when there is
little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from ..errors import UnknownJob
from . import postgres_limits as limits
from .postgres_link import LOCKS
from .rows import JOB, job_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ..jobs import JobRecord, JobState
    from .postgres_link import Link

UNFINISHED = "state IN ('queued', 'scheduled', 'running')"
EVERY = f"(SELECT {JOB}, batch_end FROM jobs UNION ALL SELECT {JOB}, batch_end FROM finished) AS every"
"""All jobs, wherever they are."""

COLUMNS = [name.strip() for name in JOB.split(",")]


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


def unfinished_of(db: Link, task: str, key: str) -> JobRecord | None:
    """Return the unfinished job of a task that has a key, or None."""
    found = db.one(f"SELECT {JOB} FROM jobs WHERE task = %s AND key = %s", (task, key))
    return None if found is None else job_of(found)


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


def forget_attempts(db: Link, job_ids: Sequence[str]) -> None:
    """Forget the history of jobs that are gone."""
    if job_ids:
        db.execute("DELETE FROM attempts WHERE job_id = ANY(%b::text[])", (list(job_ids),))


def table_of(state: JobState) -> str:
    """Return the table that holds the jobs of a state."""
    return "finished" if state.is_finished else "jobs"
