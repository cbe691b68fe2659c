"""How jobs come into a PostgreSQL store: functions of a link, as in `postgres_verbs`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import psycopg.errors

from ..errors import DuplicateJob
from ..jobs import JobRecord, JobState, NewJob, taken
from . import postgres_limits as limits
from .instants import us, us_or_none
from .postgres_common import (
    count,
    forget_attempts,
    hold,
    lock_of_key,
    touch,
    unfinished_of,
)
from .postgres_doubt import in_doubt
from .postgres_link import spread
from .rows import JOB, job_of, utf8
from .taking import claimed_at_once, take_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from .durable import Claim
    from .postgres_link import Link

LITTLE_ROOM = 1_000
"""With room for fewer jobs, or for a tenth of the bound, processes enqueue one after the other: before that, they would
have to be about to commit more than that to exceed it."""
IN_DOUBT: list[JobRecord] = []
"""The answer to who enqueues a job with a key of which nobody knows yet whether there is one; see `postgres_doubt`."""
WAITING_SECONDS = 1.0
"""Where there is much room, the number of waiting jobs of so long ago will do."""


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
    """Take jobs in, for each who asks all or none; see `take_in`.

    Args:
        db: The link.
        now: When (UTC).
        asked: What each caller enqueues.
        max_queued: How many jobs may wait.
        hungry: What a worker asks for that waits for jobs; None: none does.

    Returns:
        What each caller gets, None: there is no room for it, `IN_DOUBT`: one of its jobs has a key that is; and all
        that are new, as that worker has claimed them, or none of them, when something else has to go first.
    """
    doubtful = _doubtful(db, asked)
    clear = [jobs for jobs, is_doubtful in zip(asked, doubtful, strict=True) if not is_doubtful]
    has_room = room(db, sum(len(jobs) for jobs in clear), max_queued)
    answers, new = take_in(clear, now, has_room, partial(unfinished_of, db))
    claimed = claimed_at_once(new, hungry, now)
    if not claimed or not _insert_first(db, now, claimed):
        claimed = []
        insert_all(db, [(record, 0) for record in new])
    if any(record.gates for record in new):
        limits.settle(db, us(now), limits.due(db, us(now)))
    rest = iter(answers)
    claimed.sort(key=lambda record: -record.priority)
    return [IN_DOUBT if is_doubtful else next(rest) for is_doubtful in doubtful], claimed


def _doubtful(db: Link, asked: Sequence[Sequence[NewJob]]) -> list[bool]:
    """Lock the keys of jobs, and return for each who asks whether one of theirs is in doubt."""
    keys = {(job.task, job.key) for jobs in asked for job in jobs if job.key is not None}
    if not keys:
        return [False] * len(asked)
    db.lock({lock_of_key(*name) for name in keys})
    doubted = {name for name in in_doubt(db, keys) if unfinished_of(db, *name) is None}
    return [any((job.task, job.key) in doubted for job in jobs) for jobs in asked]


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
    if not _insert(db, records):
        ids = [record.id for record, _ in records]
        raise DuplicateJob(db.all("SELECT id FROM finished WHERE id = ANY(%b::text[]) LIMIT 1", (ids,))[0][0])
    touch(db, [record for record, _ in records if record.state is JobState.QUEUED and record.gates])


def _insert_first(db: Link, now: datetime, records: Sequence[JobRecord]) -> bool:
    """Write new jobs that a worker has claimed, unless a claim might find others; return whether that was done."""
    return _insert(db, [(record, 0) for record in records], f"AND NOT ({_HAS_READY})", (us(now),) * 3)


_HAS_READY = """
    (
        SELECT seq FROM jobs WHERE state = 'queued' AND held = 0 AND gate = 0 ORDER BY priority DESC, seq LIMIT 1
    ) IS NOT NULL
    OR EXISTS (SELECT 1 FROM jobs WHERE state = 'scheduled' AND run_at <= %s)
    OR EXISTS (SELECT 1 FROM gates WHERE opens_at <= %s)
    OR EXISTS (SELECT 1 FROM starts WHERE at > %s)
    OR EXISTS (SELECT 1 FROM queues)
"""
"""Whether a claim might find any job, or must leave some where they are. In the order of the index, as `next_claim`."""


def _insert(db: Link, records: Sequence[tuple[JobRecord, int]], only: str = "", given: tuple[object, ...] = ()) -> bool:
    """Write new jobs, all or none: none, where one of them is finished, or where `only` says so."""
    rows, values = spread("new", _columns(records))
    try:
        count_there = db.execute(
            f"""
            WITH new AS MATERIALIZED ({rows})
            INSERT INTO jobs (id, {_NEW_COLUMNS}) SELECT id, {_NEW_COLUMNS} FROM new
            WHERE NOT EXISTS (SELECT 1 FROM finished JOIN new AS known ON finished.id = known.id) {only}
            """,
            (*values, *given),
        ).rowcount
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name != "jobs_id":
            raise
        raise DuplicateJob(_culprit(error)) from None
    if count_there < len(records):
        return False
    for (state, batch), times in Counter((record.state, record.batch) for record, _ in records).items():
        count(db, None, state, batch, times)
    return True


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
    "token": "bigint",
    "worker": "text",
    "lease_expires_at": "bigint",
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
                record.token,
                record.worker,
                us_or_none(record.lease_expires_at),
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
