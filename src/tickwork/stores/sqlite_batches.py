"""What a SQLite store does with batches: functions of a connection, as in `sqlite_verbs`.

Counting costs one row, however many jobs there are: triggers keep the counts beside the batch, as they number the ends
of its jobs. A page of its jobs is a range of an index.
"""

from __future__ import annotations

import json
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

from .rows import JOB
from .rows import job_of as _job
from .sql_batches import batch as batch
from .sql_batches import batches as batches
from .sql_batches import batches_of as batches_of
from .sql_batches import cancel as cancel
from .sql_batches import feed as feed_by
from .sql_batches import prune as prune
from .sqlite_verbs import enqueue, waiting_count

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from ..jobs import JobRecord, JobState, NewJob
    from .batches import BatchPart, BatchRow


def feed(
    db: sqlite3.Connection, now: datetime, part: BatchPart, jobs: Sequence[NewJob], max_queued: int
) -> BatchRow | None:
    """Take in the next part of a batch; see `Store.feed_batch`. None: there is no room for its jobs."""
    return feed_by(
        db,
        now,
        part,
        jobs,
        lambda wanted: max_queued - waiting_count(db),
        lambda jobs: enqueue(db, now, [jobs], max_queued),
    )


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
    return [(entry[-1], _job(entry)) for entry in found]
