"""Batches in the SQL that SQLite and PostgreSQL both understand: functions of a connection, parts of a transaction.

Counting costs one row, however many jobs there are: the counts are kept beside the batch.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import UnknownBatch
from ..jobs import JobState
from .batches import BatchPart, BatchRow
from .instants import at, at_or_none, us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from ..jobs import NewJob

STATES = ("scheduled", "queued", "running", "succeeded", "failed", "cancelled", "parked")
"""The states of which a batch keeps a count; a later version that has more must add a column to `batches`."""

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


def find(db: Any, batch_id: str) -> BatchRow | None:
    """Return a batch, or None."""
    found = db.execute(f"SELECT {ROW} FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return None if found is None else _row(found)


def batch(db: Any, batch_id: str) -> BatchRow:
    """Return a batch, or raise UnknownBatch."""
    row = find(db, batch_id)
    if row is None:
        raise UnknownBatch(batch_id)
    return row


def batches_of(db: Any, batch_ids: Iterable[str]) -> list[BatchRow]:
    """Return those of these batches that there are."""
    return [row for batch_id in batch_ids if (row := find(db, batch_id)) is not None]


def batches(db: Any, limit: int) -> list[BatchRow]:
    """Return batches, the newest first."""
    found = db.execute(f"SELECT {ROW} FROM batches ORDER BY created_at DESC, id DESC LIMIT ?", (limit,))
    return [_row(entry) for entry in found]


def feed(
    db: Any,
    now: datetime,
    part: BatchPart,
    jobs: Sequence[NewJob],
    room: Callable[[int], int],
    enqueue: Callable[[Sequence[NewJob]], object],
) -> BatchRow | None:
    """Take in the next part of a batch; see `Store.feed_batch`. None: there is no room for its jobs."""
    row = find(db, part.batch)
    if row is None and part.first:
        raise UnknownBatch(part.batch)
    if row is not None and not row.takes(part):
        return row
    if jobs and len(jobs) > room(len(jobs)):
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
        enqueue(jobs)
    return batch(db, part.batch)


def cancel(db: Any, now: datetime, batch_id: str) -> BatchRow:
    """Let a batch that is not complete take no more; see `Store.cancel_batch`."""
    db.execute(
        "UPDATE batches SET cancelled_at = ? WHERE id = ? AND completed_at IS NULL AND cancelled_at IS NULL",
        (us(now), batch_id),
    )
    return batch(db, batch_id)


def prune(db: Any, before: datetime, limit: int) -> int:
    """Forget batches that nobody feeds any more and of which no job is left, and return how many."""
    none_left = " + ".join(STATES)
    gone: int = db.execute(
        f"DELETE FROM batches WHERE id IN (SELECT id FROM batches WHERE feeds_until < ? AND {none_left} = 0 LIMIT ?)",
        (us(before), limit),
    ).rowcount
    return gone
