"""The handle of a job in an app's store: what `enqueue` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .errors import NotCommitted, UnknownJob

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import timedelta

    from .jobs import JobRecord

R = TypeVar("R")


class JobSource(Protocol):
    """A started app, as its handles see it."""

    async def result_of(self, job_id: str, timeout: float | str | timedelta | None) -> Any:
        """Wait for a job's end and return its value."""

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel a job."""

    async def record_of(self, job_id: str) -> JobRecord:
        """Return what the store holds of a job."""


class Job(Generic[R]):
    """A job in a store. `await job` is `await job.result()`.

    Attributes:
        id: The job's id: 20 letters and digits that sort by the time of creation.
        task: The name of its task.
        is_new: False: `enqueue` has made no job, but found this one, which has the same key and is unfinished.
        is_promised: Whether it was enqueued with `options(connection=...)`: there is no job before that commits.
    """

    __slots__ = ("__weakref__", "_first", "_source", "id", "is_new", "is_promised", "task")

    def __init__(
        self, source: JobSource, job_id: str, task: str, *, is_new: bool = True, first: Job[R] | None = None
    ) -> None:
        self._source = source
        self._first = first  # the one by which the app knows that somebody holds the job
        self.id: str = job_id
        self.task: str = task
        self.is_new: bool = is_new
        self.is_promised: bool = False

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.task}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __await__(self) -> Generator[Any, None, R]:
        return self.result().__await__()

    async def result(self, timeout: float | str | timedelta | None = None) -> R:
        """Wait for the end and return the value.

        Args:
            timeout: How long to wait at the most: seconds, "30s", timedelta; None: for ever.

        Raises:
            JobFailed: Its attempts are used up; the cause is the original exception, where it is in this process.
            JobTimedOut: It ran longer than its task's timeout.
            JobCancelled: It was cancelled.
            JobParked: Nobody can run it as it stands.
            ResultExpired: It succeeded, and its result is no longer kept.
            UnknownJob: The store no longer knows it.
            NotCommitted: The store does not know it yet: the transaction that enqueues it is not committed.
            TimeoutError: It has not ended within `timeout`. The job goes on.

        Cancelling the wait cancels nothing but the wait.
        """
        try:
            return await self._source.result_of(self.id, timeout)  # type: ignore[no-any-return]
        except UnknownJob:
            raise self._unknown() from None

    async def cancel(self) -> bool:
        """Cancel the job, waiting or running, and return whether there was anything to cancel.

        On the loop, CancelledError is raised inside it; a process is killed; a thread cannot be stopped: its result
        is given up, and its worker is free when it ends.

        Raises:
            NotCommitted: The transaction that enqueues it is not committed: roll that back.
        """
        is_cancelled = await self._source.cancel_job(self.id)
        if self.is_promised and not is_cancelled:
            await self.record()  # it must not run later, when whoever cancels it believes that it has ended
        return is_cancelled

    async def record(self) -> JobRecord:
        """Return what the store holds of the job: its state, its times, its error.

        Raises:
            UnknownJob: The store no longer knows it.
            NotCommitted: It does not know it yet.
        """
        try:
            return await self._source.record_of(self.id)
        except UnknownJob:
            raise self._unknown() from None

    def _unknown(self) -> UnknownJob:
        return NotCommitted(self.id) if self.is_promised else UnknownJob(self.id)
