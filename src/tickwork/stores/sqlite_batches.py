"""What a SQLite store does with batches: functions of a connection, as in `sqlite_verbs`.

Counting costs one row, however many jobs there are: triggers keep the counts beside the batch, as they number the ends
of its jobs. A page of its jobs is a range of an index.
"""

from __future__ import annotations

import json
from datetime import timedelta
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import UnknownBatch
from ..jobs import JobRecord, JobState
from .batches import BatchPart, BatchRow
from .sqlite_schema import STATES
from .sqlite_values import at, at_or_none, us
from .sqlite_verbs import JOB, _job, enqueue, waiting_count

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from ..jobs import NewJob

ROW = f"id, task, created_at, size, digest, ends, feeds_until, completed_at, cancelled_at, {', '.join(STATES)}"
_COUNTED = [JobState(state) for state in STATES]


def _row(found: tuple[Any, ...]) -> BatchRow:
    return BatchRow(
        id=found[0],
        task=found[1],
        created_at=at(found[2]),
        size=found[3],
        digest=found[4],
        ends=found[5],
        feeds_until=at(found[6]),
        completed_at=at_or_none(found[7]),
        cancelled_at=at_or_none(found[8]),
        counts=dict(zip(_COUNTED, found[9:], strict=True)),
    )


def find(db: sqlite3.Connection, batch_id: str) -> BatchRow | None:
    """Return a batch, or None."""
    found = db.execute(f"SELECT {ROW} FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return None if found is None else _row(found)


def batch(db: sqlite3.Connection, batch_id: str) -> BatchRow:
    """Return a batch, or raise UnknownBatch."""
    row = find(db, batch_id)
    if row is None:
        raise UnknownBatch(batch_id)
    return row


def batches_of(db: sqlite3.Connection, batch_ids: Iterable[str]) -> list[BatchRow]:
    """Return those of these batches that there are."""
    return [row for batch_id in batch_ids if (row := find(db, batch_id)) is not None]


def batches(db: sqlite3.Connection, limit: int) -> list[BatchRow]:
    """Return batches, the newest first."""
    found = db.execute(f"SELECT {ROW} FROM batches ORDER BY created_at DESC, id DESC LIMIT ?", (limit,))
    return [_row(entry) for entry in found]


def feed(
    db: sqlite3.Connection, now: datetime, part: BatchPart, jobs: Sequence[NewJob], max_queued: int
) -> BatchRow | None:
    """Take in the next part of a batch; see `Store.feed_batch`. None: there is no room for its jobs."""
    row = find(db, part.batch)
    if row is None and part.first:
        raise UnknownBatch(part.batch)
    if row is not None and not row.takes(part):
        return row
    if jobs and waiting_count(db) + len(jobs) > max_queued:
        return None
    db.execute(
        """
        INSERT INTO batches (id, task, created_at, size, digest, feeds_until, completed_at)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET size = excluded.size, digest = excluded.digest,
            feeds_until = excluded.feeds_until, completed_at = excluded.completed_at
        """,
        (
            part.batch,
            part.task,
            us(now),
            part.first + len(jobs),
            part.digest,
            us(now + timedelta(seconds=part.feed_seconds)),
            us(now) if part.is_last else None,
        ),
    )
    if jobs:
        enqueue(db, now, [jobs], max_queued)
    return batch(db, part.batch)


def cancel(db: sqlite3.Connection, now: datetime, batch_id: str) -> BatchRow:
    """Let a batch that is not complete take no more; see `Store.cancel_batch`."""
    db.execute(
        "UPDATE batches SET cancelled_at = ? WHERE id = ? AND completed_at IS NULL AND cancelled_at IS NULL",
        (us(now), batch_id),
    )
    return batch(db, batch_id)


def jobs(
    db: sqlite3.Connection, batch_id: str, first: int, states: Collection[JobState], limit: int
) -> list[JobRecord]:
    """Return jobs of a batch in the order of its items; see `Store.batch_jobs`."""
    if not states:
        found = db.execute(
            f"SELECT {JOB} FROM jobs WHERE batch = ? AND batch_index >= ? ORDER BY batch_index LIMIT ?",
            (batch_id, first, limit),
        )
        return [_job(entry) for entry in found]
    start = db.execute(
        "SELECT seq FROM jobs WHERE batch = ? AND batch_index >= ? ORDER BY batch_index LIMIT 1", (batch_id, first)
    ).fetchone()
    if start is None:
        return []
    lines = [
        [
            seq
            for (seq,) in db.execute(
                """
                SELECT seq FROM jobs INDEXED BY jobs_of_batch_by_state WHERE batch = ? AND state = ? AND seq >= ?
                ORDER BY seq LIMIT ?
                """,
                (batch_id, state, start[0], limit),
            )
        ]
        for state in states
    ]
    wanted = json.dumps(list(islice(merge(*lines), limit)))
    found = db.execute(f"SELECT {JOB} FROM jobs WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq", (wanted,))
    return [_job(entry) for entry in found]


def ends(db: sqlite3.Connection, batch_id: str, after: int, limit: int) -> list[tuple[int, JobRecord]]:
    """Return jobs of a batch in the order of their ends; see `Store.batch_ends`."""
    found = db.execute(
        f"SELECT {JOB}, batch_end FROM jobs WHERE batch = ? AND batch_end > ? ORDER BY batch_end LIMIT ?",
        (batch_id, after, limit),
    )
    return [(entry[-1], _job(entry[:-1])) for entry in found]


def prune(db: sqlite3.Connection, before: datetime, limit: int) -> int:
    """Forget batches that nobody feeds any more and of which no job is left, and return how many."""
    none_left = " + ".join(STATES)
    return db.execute(
        f"DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE feeds_until < ? AND {none_left} = 0 LIMIT ?)",
        (us(before), limit),
    ).rowcount
