"""Batches: jobs that were enqueued together, as a store keeps them, and who waits for them in this process."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from ..errors import NotRunning
from ..jobs import JobState
from ..records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

UNFINISHED = (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.PARKED)


@record
class BatchPart:
    """What a batch takes in next, in the transaction that takes in the jobs of these items.

    Attributes:
        batch: The id of the batch. It is made with its first part.
        task: The name of the task.
        first: How many items the batch has before.
        digest: What its items are, up to the last one of this part.
        is_last: Whether it is complete with this part.
        feed_seconds: For how long whoever enqueues it may be silent before it counts as gone.
    """

    batch: str
    task: str
    first: int
    digest: str
    is_last: bool
    feed_seconds: float


@record
class BatchRow:
    """A batch as a store holds it.

    Attributes:
        id: Its id.
        task: The name of the task of its jobs.
        created_at: When its first part came (UTC).
        size: How many items it has taken in.
        digest: What these are.
        counts: How many of its jobs are in each state; those that the store has forgotten are in none.
        ends: How many ends of its jobs there were, those of jobs that were retried counted again.
        feeds_until: Until when more is to come, or to be said, while it is not complete (UTC).
        completed_at: When its last item came (UTC); None: that has not come.
        cancelled_at: When it was cancelled before it was complete (UTC), so that it takes no more; None: it was not.
    """

    id: str
    task: str
    created_at: datetime
    size: int
    digest: str
    counts: Mapping[JobState, int]
    ends: int
    feeds_until: datetime
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it takes in more items."""
        return self.completed_at is None and self.cancelled_at is None

    @property
    def unfinished(self) -> int:
        """How many of its jobs wait or run."""
        return sum(self.counts.get(state, 0) for state in UNFINISHED)

    @property
    def is_over(self) -> bool:
        """Whether all jobs have ended, parked ones included, and no more come."""
        return not self.is_open and not self.unfinished

    def takes(self, part: BatchPart) -> bool:
        """Return whether a part is what comes next."""
        return self.is_open and self.size == part.first and self.task == part.task


class BatchWaits:
    """The futures of those who wait for something about a batch. Another thread may list the ids."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[asyncio.Future[BatchRow], Callable[[BatchRow], bool]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, batch_id: object) -> bool:
        return batch_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._waiting))

    def wait(self, batch_id: str, is_so: Callable[[BatchRow], bool]) -> asyncio.Future[BatchRow]:
        """Return a future of the batch once that is so; it is forgotten when it is done, whoever has cancelled it."""
        told: asyncio.Future[BatchRow] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(batch_id, []).append((told, is_so))
        told.add_done_callback(partial(self._forget, batch_id))
        return told

    def _forget(self, batch_id: str, told: asyncio.Future[BatchRow]) -> None:
        left = [entry for entry in self._waiting.get(batch_id, ()) if entry[0] is not told]
        if left:
            self._waiting[batch_id] = left
        else:
            self._waiting.pop(batch_id, None)

    def tell(self, rows: Iterable[BatchRow]) -> None:
        """Give batches as they are now to those for whom it is so."""
        for row in rows:
            for told, is_so in list(self._waiting.get(row.id, ())):
                if not told.done() and is_so(row):
                    told.set_result(row)

    def fail(self, batch_id: str, error: BaseException) -> None:
        """Raise an error in who waits for a batch."""
        for told, _ in list(self._waiting.get(batch_id, ())):
            if not told.done():
                told.set_exception(error)

    def close(self) -> None:
        """Tell everybody who still waits that the store is closed."""
        for batch_id in self:
            self.fail(batch_id, NotRunning(f"the app stopped before batch {batch_id!r} had ended"))
