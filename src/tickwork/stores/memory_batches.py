"""The batches of a memory store, and which of their jobs are in which state."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..errors import UnknownBatch
from ..jobs import JobState
from ..records import changed
from .batches import ENDED, BatchRow, BatchWaits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from ..jobs import JobRecord
    from .batches import BatchPart


class _Batch:
    """A batch, its jobs by item, and their ends in order."""

    __slots__ = ("counts", "ends", "ids", "last", "row")

    def __init__(self, row: BatchRow) -> None:
        self.row = row
        self.counts: dict[JobState, int] = dict.fromkeys(JobState, 0)
        self.ids: dict[int, str] = {}
        self.ends: list[str] = []
        self.last: dict[str, int] = {}  # of each job, the number of its last end


class Batches:
    """What a memory store knows of batches. It is told of every job of one that changes its state.

    Args:
        keep: So many batches are kept at least, when none of their jobs is any more.
        is_held: Whether somebody holds a batch's handle.
    """

    def __init__(self, keep: int, is_held: Callable[[str], bool]) -> None:
        self._keep = keep
        self._is_held = is_held
        self._batches: dict[str, _Batch] = {}
        self.waits: BatchWaits = BatchWaits()

    def find(self, batch_id: str) -> BatchRow | None:
        """Return a batch, or None."""
        found = self._batches.get(batch_id)
        return None if found is None else _shown(found)

    def row(self, batch_id: str) -> BatchRow:
        """Return a batch, or raise UnknownBatch."""
        row = self.find(batch_id)
        if row is None:
            raise UnknownBatch(batch_id)
        return row

    def rows(self) -> Iterator[BatchRow]:
        """Yield the batches, the newest first."""
        return (_shown(found) for found in reversed(self._batches.values()))

    def feed(self, part: BatchPart, count: int, now: datetime) -> None:
        """Take in another part of so many jobs, which are told of one by one after this."""
        found = self._batches.get(part.batch)
        if found is None:
            self._tidy(now)
            row = BatchRow(
                id=part.batch, task=part.task, created_at=now, size=0, digest="", counts={}, ends=0, feeds_until=now
            )
            found = self._batches[part.batch] = _Batch(row)
        found.row = changed(
            found.row,
            size=part.first + count,
            digest=part.digest,
            feeds_until=now + timedelta(seconds=part.feed_seconds),
            completed_at=now if part.is_last else None,
        )

    def cancel(self, batch_id: str, now: datetime) -> None:
        """Let a batch that is not complete take no more."""
        found = self._batches.get(batch_id)
        if found is not None and found.row.is_open:
            found.row = changed(found.row, cancelled_at=now)

    def moved(self, batch_id: str, before: JobRecord | None, after: JobRecord | None) -> None:
        """Hear that a job has changed, is new, or is forgotten."""
        found = self._batches.get(batch_id)
        if found is None:
            return
        if before is not None:
            found.counts[before.state] -= 1
        if after is not None:
            found.counts[after.state] += 1
        if before is None and after is not None and after.batch_index is not None:
            found.ids[after.batch_index] = after.id
        elif after is None and before is not None and before.batch_index is not None:
            del found.ids[before.batch_index]
            found.last.pop(before.id, None)
        elif after is not None and before is not None and after.state in ENDED and before.state is not after.state:
            found.ends.append(after.id)
            found.last[after.id] = len(found.ends)
        self.tell(batch_id)

    def tell(self, batch_id: str) -> None:
        """Let who waits for something about a batch look whether it is so."""
        if batch_id in self.waits:
            row = self.find(batch_id)
            if row is not None:
                self.waits.tell([row])

    def jobs(
        self, jobs: Mapping[str, JobRecord], batch_id: str, first: int, states: Collection[JobState]
    ) -> Iterator[JobRecord]:
        """Yield the jobs of a batch in the order of its items; see `Store.batch_jobs`."""
        found = self._batches.get(batch_id)
        if found is None:
            return
        for index in range(first, found.row.size):
            job_id = found.ids.get(index)
            if job_id is not None and (not states or jobs[job_id].state in states):
                yield jobs[job_id]

    def ends(self, jobs: Mapping[str, JobRecord], batch_id: str, after: int) -> Iterator[tuple[int, JobRecord]]:
        """Yield the jobs of a batch in the order of their ends; see `Store.batch_ends`."""
        found = self._batches.get(batch_id)
        if found is None:
            return
        for number in range(after + 1, len(found.ends) + 1):
            job_id = found.ends[number - 1]
            if found.last.get(job_id) == number:
                yield number, jobs[job_id]

    def _tidy(self, now: datetime) -> None:
        """Forget the oldest batch of which nothing is left and that nobody holds, when there are many."""
        if len(self._batches) < self._keep:
            return
        for batch_id, found in self._batches.items():
            is_fed = found.row.is_open and found.row.feeds_until >= now
            if not found.ids and not is_fed and not self._is_held(batch_id):
                del self._batches[batch_id]
                return


def _shown(found: _Batch) -> BatchRow:
    made: Any = changed(found.row, counts=dict(found.counts), ends=len(found.ends))
    return made  # type: ignore[no-any-return]
