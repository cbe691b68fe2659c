"""A batch: the jobs that `task.map(items)` has enqueued, counted and awaited together.

    batch = await resize.map(paths)
    async for outcome in batch:
        print(outcome.index, outcome.result())

What is known of it is in the store: its id is all that another process, or the next start, needs to have it again, by
`await app.jobs.batch(id)`. Nothing here asks for one job after another: counts are one row, results come by pages, and
who waits is woken by the store, also when other processes run the jobs.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from .dispatch import value_of
from .durations import seconds
from .errors import BatchIncomplete, InvalidPayload, JobError, NotRunning, ResultExpired, TickworkError, UnknownJob
from .jobs import JobState
from .options import one_of
from .stores.batches import UNFINISHED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
    from datetime import datetime, timedelta

    from .app import App
    from .jobs import JobRecord
    from .stores.base import Store
    from .stores.batches import BatchRow

__all__ = ["BatchCounts", "JobBatch", "JobOutcome"]

R = TypeVar("R")
T = TypeVar("T")

FEW, PAGE = 16, 256
"""Jobs that are read at once: few while the results are awaited one by one, more and more of those that are there."""
CHANGE_COUNT = 200
"""So many jobs are cancelled or queued again in one transaction: a store in memory holds the loop for some three
milliseconds with them, and others have their turn in between."""

_TO_CANCEL = (*UNFINISHED, JobState.PARKED)


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How far a batch is.

    Attributes:
        id: The id of the batch.
        task: The name of the task.
        created_at: When its first items were enqueued (UTC).
        total: How many items have been enqueued.
        scheduled: How many of its jobs wait for their time, or for their next attempt.
        queued: How many wait for a worker.
        running: How many are in the hands of workers.
        succeeded: How many have succeeded; `failed`, `cancelled` and `parked` likewise.
        failed: See there.
        cancelled: See there.
        parked: See there.
        gone: How many jobs were deleted, or are not kept any more.
        is_complete: Whether all items have been enqueued.
        is_cancelled: Whether it was cancelled before it was complete.
    """

    id: str
    task: str
    created_at: datetime
    total: int
    scheduled: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    parked: int
    gone: int
    is_complete: bool
    is_cancelled: bool

    @property
    def ended(self) -> int:
        """How many jobs have ended, those that are parked or gone included."""
        return self.total - self.scheduled - self.queued - self.running

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself: all jobs have ended, and no more come."""
        return self.ended == self.total and (self.is_complete or self.is_cancelled)

    def __str__(self) -> str:
        of = "" if self.is_complete else ", and no more come" if self.is_cancelled else ", and more come"
        states = {**{str(state): getattr(self, state) for state in JobState}, "gone": self.gone}
        told = ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
        return f"{self.ended:,} of {self.total:,} have ended{of}" + (f": {told}" if told else "")

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data: the attributes in their order, and `is_over`; instants as ISO 8601 in UTC."""
        data = {name: getattr(self, name) for name in self.__slots__}
        return {**data, "created_at": self.created_at.isoformat(), "is_over": self.is_over}


def counts_of(row: BatchRow) -> BatchCounts:
    """Return how far a batch is."""
    counts = {str(state): row.counts.get(state, 0) for state in JobState}
    return BatchCounts(
        id=row.id,
        task=row.task,
        created_at=row.created_at,
        total=row.size,
        **counts,
        gone=row.size - sum(counts.values()),
        is_complete=row.completed_at is not None,
        is_cancelled=row.cancelled_at is not None,
    )


@dataclass(frozen=True, slots=True)
class JobOutcome(Generic[R]):
    """What became of one item of a batch.

    Attributes:
        index: The item's place, from 0.
        job_id: The id of its job; None: the store knows it no more.
        value: What the function returned; None where it failed.
        error: What became of the job instead: what `await job.result()` would raise; None: it has succeeded.
    """

    index: int
    job_id: str | None
    value: R | None
    error: TickworkError | None

    def result(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class JobBatch(Generic[R]):
    """The jobs of one `task.map`. `await batch` is `await batch.results()`, and `async for` gives outcomes in order.

    Attributes:
        id: The batch's id, by which any process finds it again: `await app.jobs.batch(id)`.
        task: The name of the task.
    """

    __slots__ = ("__weakref__", "_app", "id", "task")

    def __init__(self, app: App, batch_id: str, task: str) -> None:
        self._app = app
        self.id: str = batch_id
        self.task: str = task

    def __repr__(self) -> str:
        return f"<JobBatch {self.id} {self.task}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobBatch) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __await__(self) -> Generator[Any, None, list[R]]:
        return self.results().__await__()

    def __aiter__(self) -> AsyncIterator[JobOutcome[R]]:
        return self.outcomes()

    async def counts(self) -> BatchCounts:
        """Return how many jobs there are in each state. That costs the same however many there are.

        Raises:
            UnknownBatch: The store no longer knows the batch.
        """
        return counts_of(await self._store.batch(self.id))

    async def wait(self, timeout: float | str | timedelta | None = None) -> BatchCounts:
        """Wait until all jobs have ended, parked ones included, and return the counts.

        Args:
            timeout: How long to wait at the most: seconds, "30s", timedelta; None: for ever.

        Raises:
            BatchIncomplete: All jobs have ended, and whoever enqueued the items has left off before the last.
            UnknownBatch: The store no longer knows the batch.
            NotRunning: The app has stopped meanwhile.
            TimeoutError: They have not ended within `timeout`. They go on.

        Cancelling the wait cancels nothing but the wait.
        """
        with self._told_of_the_stop():
            return counts_of(await self._within(timeout, lambda: self._when(lambda row: row.is_over)))

    @overload
    async def results(
        self, *, on_error: Literal["raise", "skip"] = "raise", timeout: float | str | timedelta | None = None
    ) -> list[R]: ...
    @overload
    async def results(
        self, *, on_error: Literal["collect"], timeout: float | str | timedelta | None = None
    ) -> list[R | TickworkError]: ...
    async def results(
        self, *, on_error: Literal["raise", "collect", "skip"] = "raise", timeout: float | str | timedelta | None = None
    ) -> list[Any]:
        """Wait for all jobs and return their values in the order of the items.

        Args:
            on_error: "raise" the error of the first item, in their order, that has no value, with a note of which it
                was; the other jobs go on. "collect": errors stand in the place of values. "skip": they are left out.
            timeout: As in `wait`.

        Raises:
            JobFailed: A job has failed; JobTimedOut, JobCancelled, JobParked likewise.
            ResultExpired: A job has ended, and its result is no longer kept.
            BatchIncomplete: As in `wait`, and whatever else that raises.
        """
        mode = one_of("on_error", on_error, ("raise", "collect", "skip"))
        found: list[Any] = await self._within(timeout, lambda: self._results(mode))
        return found

    async def _results(self, on_error: str) -> list[Any]:
        found: list[Any] = []
        async for outcome in self.outcomes():
            if outcome.error is None:
                found.append(outcome.value)
            elif on_error == "collect":
                found.append(outcome.error)
            elif on_error == "raise":
                outcome.error.add_note(f"It was item {outcome.index} of batch {self.id}.")
                raise outcome.error
        return found

    def outcomes(self, *, ordered: bool = True) -> AsyncIterator[JobOutcome[R]]:
        """Yield what became of each item, in bounded memory, until all jobs have ended.

        Args:
            ordered: In the order of the items; False: as they end, each item once.

        Raises:
            BatchIncomplete: As in `wait`, after what there is.
            UnknownBatch: Likewise.
            NotRunning: Likewise.

        A job that is retried after its outcome was given is not given again.
        """
        return self._until_the_stop(self._in_order() if ordered else self._as_they_end())

    async def cancel(self) -> int:
        """Cancel all jobs that have not ended, or are parked, and return how many those were.

        A batch that is not complete takes no more items: whoever enqueues them gets `WrongBatch`.

        Raises:
            UnknownBatch: The store no longer knows the batch.
        """
        await self._store.cancel_batch(self.id)
        count, first = 0, 0
        while jobs := await self._store.batch_jobs(self.id, first=first, states=_TO_CANCEL, limit=CHANGE_COUNT):
            for job in await self._store.cancel([job.id for job in jobs]):
                if job is not None:
                    count += 1
                    if job.state is JobState.RUNNING and self._app._dispatcher is not None:
                        self._app._dispatcher.cancel_here(job.id)
            first = _after(jobs)
            await asyncio.sleep(0)  # a store in memory never waits
        return count

    async def retry_failed(self) -> int:
        """Have all jobs of the batch that have failed run again, as `app.jobs.retry` does; return how many there were.

        Raises:
            UnknownBatch: The store no longer knows the batch.
        """
        await self._store.batch(self.id)
        count, first, failed = 0, 0, (JobState.FAILED,)
        while jobs := await self._store.batch_jobs(self.id, first=first, states=failed, limit=CHANGE_COUNT):
            again = await self._store.retry([job.id for job in jobs], seen=JobState.FAILED)
            count += sum(job is not None for job in again)
            first = _after(jobs)
            await asyncio.sleep(0)
        return count

    # -- outcomes ---------------------------------------------------------------------------------------------------

    async def _until_the_stop(self, outcomes: AsyncGenerator[JobOutcome[R], None]) -> AsyncIterator[JobOutcome[R]]:
        with self._told_of_the_stop():
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield outcome

    async def _in_order(self) -> AsyncGenerator[JobOutcome[R], None]:
        index, limit = 0, FEW
        while True:
            page = await self._store.batch_jobs(self.id, first=index, limit=limit)
            row = None
            if len(page) < limit:  # all there is: a look at the batch says whether it is the end
                row = await self._store.batch(self.id)
                if row.size > _after(page):
                    page = await self._store.batch_jobs(self.id, first=index, limit=limit)
            jobs = {job.batch_index: job for job in page}
            until = max(_after(page), 0 if row is None or len(page) == limit else row.size)
            limit = min(2 * limit, PAGE)
            while index < until:
                job = jobs.get(index)
                if job is not None and not job.has_ended:
                    break
                yield self._gone(index) if job is None else self._outcome(index, job, None)
                index += 1
            if index < until and job is not None:  # those behind it may end meanwhile: they are read again, together
                yield await self._end_of(index, job)
                index, limit = index + 1, FEW
            elif row is not None and row.size <= index:
                if not row.is_open:
                    return
                await self._when(partial(_has_more_than, index))

    async def _end_of(self, index: int, job: JobRecord) -> JobOutcome[R]:
        """Wait for the end of a job, and return what became of it."""
        try:
            ended, original = await self._app._end_of(job.id)
        except UnknownJob:
            return self._gone(index)
        except JobError as error:  # what this process knows before the store does; or the app stops
            found = await self._store.job(job.id)
            if not found.has_ended and self._app._stopping is not None:
                raise self._stopped() from error
            return JobOutcome(index, job.id, None, error)
        return self._outcome(index, ended, original)

    async def _as_they_end(self) -> AsyncGenerator[JobOutcome[R], None]:
        given, end = bytearray(), 0
        while True:
            row = await self._store.batch(self.id)
            while page := await self._store.batch_ends(self.id, after=end, limit=PAGE):
                for end, job in page:  # noqa: B007 - where the next page begins
                    index = job.batch_index or 0
                    if job.has_ended and _is_first(given, index):
                        yield self._outcome(index, job, None)
            end = max(end, row.ends)
            if row.is_over and row == await self._store.batch(self.id):
                break
            await self._when(partial(_has_ended_more_than, end))
        for index in range(row.size):
            if _is_first(given, index):
                yield self._gone(index)

    def _outcome(self, index: int, job: JobRecord, original: BaseException | None) -> JobOutcome[R]:
        self._app._saw(job.id)
        try:
            value = value_of(job, self._app._names.get(job.task), original)
        except (JobError, InvalidPayload) as error:
            return JobOutcome(index, job.id, None, error)
        return JobOutcome(index, job.id, value, None)

    def _gone(self, index: int) -> JobOutcome[R]:
        said = "is no longer kept, and neither is its result"
        return JobOutcome(index, None, None, ResultExpired(f"{self.id}[{index}]", self.task, said))

    # -- waiting ----------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Store:
        return self._app._store_now()

    async def _when(self, is_so: Callable[[BatchRow], bool]) -> BatchRow:
        """Wait until something is so of the batch, or it is clear that it will never be."""
        while True:
            row = await self._store.batch_when(self.id, partial(_is_so_or_starved, is_so))
            if is_so(row):
                return row
            left = (row.feeds_until - self._app._clock.now()).total_seconds()
            if left <= 0:
                raise BatchIncomplete(self.id, row.size)
            news = self._store.batch_when(self.id, partial(_is_fed_again, row.feeds_until))
            try:
                await asyncio.wait([news], timeout=left)
                if news.done():
                    news.result()
            finally:
                news.cancel()

    @contextmanager
    def _told_of_the_stop(self) -> Iterator[None]:
        """Say what the stop of the app means for who waits here, whichever part of it noticed that first."""
        assert self._store is not None, "one that never ran has said so"
        try:
            yield
        except NotRunning:
            if self._app.is_running:
                raise
            raise self._stopped() from None

    def _stopped(self) -> NotRunning:
        return NotRunning(f"the app stopped before batch {self.id!r} had ended")

    async def _within(self, timeout: float | str | timedelta | None, work: Callable[[], Any]) -> Any:
        if timeout is None:
            return await work()
        limit = seconds(timeout, "timeout", allow_zero=True)
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                return await work()
        except TimeoutError:
            if timer.expired():
                told = f"batch {self.id} has not ended within {limit:g} s: {await self.counts()}; it goes on"
                raise TimeoutError(told) from None
            raise


def _after(jobs: list[JobRecord]) -> int:
    """Return the item behind the last of these jobs."""
    return 1 + (jobs[-1].batch_index or 0) if jobs else 0


def _has_more_than(size: int, row: BatchRow) -> bool:
    return row.size > size or not row.is_open


def _has_ended_more_than(ends: int, row: BatchRow) -> bool:
    return row.ends > ends or row.is_over


def _is_so_or_starved(is_so: Callable[[BatchRow], bool], row: BatchRow) -> bool:
    """Return whether something is so, or a batch that is not complete has nothing to do."""
    return is_so(row) or (row.is_open and not row.unfinished)


def _is_fed_again(feeds_until: datetime, row: BatchRow) -> bool:
    return row.feeds_until != feeds_until or not row.is_open


def _is_first(given: bytearray, index: int) -> bool:
    """Mark an item as given, one bit each, and return whether it was not before."""
    byte, bit = index >> 3, 1 << (index & 7)
    if byte >= len(given):
        given.extend(bytes(byte + 1 - len(given)))
    if given[byte] & bit:
        return False
    given[byte] |= bit
    return True
