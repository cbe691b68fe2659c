"""What a PostgreSQL store does with batches: functions of a link, as in `postgres_verbs`.

The counts of a batch are kept in its row. What the verbs of a transaction count is written there at its end, or before
the row is read; whoever counts holds the lock of the batch until then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import sql_batches as sql
from .postgres_common import EVERY, lock_of_batch, table_of
from .postgres_intake import enqueue, room
from .rows import JOB, job_of
from .sql_batches import STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from ..jobs import JobRecord, JobState, NewJob
    from .batches import BatchPart, BatchRow
    from .postgres_link import Link


def flush(db: Link) -> None:
    """Write what the transaction has counted."""
    if not db.batches:
        return
    db.lock({lock_of_batch(batch_id) for batch_id in db.batches})
    counted, db.batches = db.batches, {}
    for batch_id, counts in sorted(counted.items()):
        moved = [state for state in STATES if counts[state]]
        if moved:
            sums = ", ".join(f"{state} = {state} + %s" for state in moved)
            values: list[Any] = [counts[state] for state in moved]
            db.execute(f"UPDATE batches SET {sums} WHERE id = %s", (*values, batch_id))


def batch(db: Link, batch_id: str) -> BatchRow:
    """Return a batch, or raise UnknownBatch."""
    flush(db)
    return sql.batch(db, batch_id)


def batches_of(db: Link, batch_ids: Iterable[str]) -> list[BatchRow]:
    """Return those of these batches that there are."""
    wanted = list(batch_ids)
    if not wanted:
        return []
    flush(db)
    return sql.batches_of(db, wanted)


def batches(db: Link, limit: int) -> list[BatchRow]:
    """Return batches, the newest first."""
    flush(db)
    return sql.batches(db, limit)


def feed(db: Link, now: datetime, part: BatchPart, jobs: Sequence[NewJob], max_queued: int) -> BatchRow | None:
    """Take in the next part of a batch; see `Store.feed_batch`. None: there is no room for its jobs."""
    db.lock([lock_of_batch(part.batch)])
    flush(db)
    row = sql.feed(
        db, now, part, jobs, partial(_room, db, max_queued), lambda jobs: enqueue(db, now, [jobs], max_queued)
    )
    if row is None:
        return None
    flush(db)
    return sql.batch(db, part.batch)


def _room(db: Link, max_queued: int, wanted: int) -> int:
    return room(db, wanted, max_queued)


def cancel(db: Link, now: datetime, batch_id: str) -> BatchRow:
    """Let a batch that is not complete take no more; see `Store.cancel_batch`."""
    db.lock([lock_of_batch(batch_id)])
    flush(db)
    return sql.cancel(db, now, batch_id)


def jobs(db: Link, batch_id: str, first: int, states: Collection[JobState], limit: int) -> list[JobRecord]:
    """Return jobs of a batch in the order of its items; see `Store.batch_jobs`."""
    if not states:
        found = db.all(
            f"SELECT {JOB} FROM {EVERY} WHERE batch = %s AND batch_index >= %s ORDER BY batch_index LIMIT %s",
            (batch_id, first, limit),
        )
        return [job_of(entry) for entry in found]
    parts = [
        f"(SELECT {JOB} FROM {table_of(state)} WHERE batch = %s AND state = '{state.value}' AND batch_index >= %s"
        " ORDER BY batch_index LIMIT %s)"
        for state in states
    ]
    found = db.all(
        f"SELECT * FROM ({' UNION ALL '.join(parts)}) AS part ORDER BY batch_index LIMIT %s",
        (*(batch_id, first, limit) * len(parts), limit),
    )
    return [job_of(entry) for entry in found]


def ends(db: Link, batch_id: str, after: int, limit: int) -> list[tuple[int, JobRecord]]:
    """Return jobs of a batch in the order of their ends; see `Store.batch_ends`."""
    found = db.all(
        f"SELECT {JOB}, batch_end FROM {EVERY} WHERE batch = %s AND batch_end > %s ORDER BY batch_end LIMIT %s",
        (batch_id, after, limit),
    )
    return [(entry[-1], job_of(entry)) for entry in found]


def prune(db: Link, before: datetime, limit: int) -> int:
    """Forget batches that nobody feeds any more and of which no job is left, and return how many."""
    flush(db)
    return sql.prune(db, before, limit)
