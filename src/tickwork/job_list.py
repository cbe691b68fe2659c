"""The jobs of an app, as people see them: look at them, run them again, cancel and forget them, pause their queues.

    page = await app.jobs.list(state="failed", task=send_mail)
    for job in page.jobs:
        print(job.id, job.arguments, await app.jobs.why(job.id))
    await app.jobs.retry(page.jobs[0].id)

A web handler may do so in any process that has the app open: one that works, a client, or one that only looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .errors import InvalidOption, UnknownBatch, UnknownJob, WrongState, nearest
from .explain_job import JobFacts, JobWhy, why_job
from .job_info import JobInfo, JobPage, info_of
from .jobs import JobState
from .options import positive, text
from .records import changed
from .stores.views import RETRIABLE, JobQuery, QueueRow
from .tasks import Task

if TYPE_CHECKING:
    import builtins

    from .app import App
    from .job_batch import BatchCounts, JobBatch
    from .jobs import Attempt, JobRecord
    from .stores.base import Store
    from .stores.views import WorkerRow
    from .tasks import AnyTask

__all__ = ["Jobs"]

MAX_LIMIT = 1_000
"""Jobs on one page: a screen holds fewer, and reading more at once would hold up the workers."""
RETRY_COUNT = 500
"""So many jobs are queued again in one transaction."""


class Jobs:
    """The jobs of an app that has started, or whose store is open to be looked into."""

    __slots__ = ("_app",)

    def __init__(self, app: App) -> None:
        self._app = app

    # -- look -------------------------------------------------------------------------------------------------------

    async def list(
        self,
        *,
        state: str | Iterable[str] | None = None,
        task: AnyTask | str | None = None,
        queue: str | None = None,
        schedule: str | None = None,
        batch: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> JobPage:
        """Return some jobs, the newest first.

        Args:
            state: In this state, such as "failed", or in one of these; None: in any.
            task: Of this task, or of the task of this name, former names included; None: of any.
            queue: In this queue; None: in any.
            schedule: Made by this schedule; None: by any, or none.
            batch: Of the batch of this id; None: of any, or none.
            limit: How many at the most, up to 1,000.
            after: The `next` of the page before; None: from the newest. Jobs that come in meanwhile move nothing.

        Raises:
            InvalidOption: There is no such state, `limit` is out of range, or `after` is the `next` of no page.
        """
        query = JobQuery(
            states=_states(state),
            tasks=() if task is None else self._names_of(task),
            queue=None if queue is None else text("queue", queue),
            schedule=None if schedule is None else text("schedule", schedule),
            batch=None if batch is None else text("batch", batch),
            limit=_limit(limit),
            after=after,
        )
        page = await self._store.page(query)
        return JobPage([self._info(job) for job in page.jobs], page.next)

    async def get(self, job_id: str, *, shows_names: bool = False) -> JobInfo:
        """Return a job.

        Args:
            job_id: Its id.
            shows_names: Also show arguments that only their name makes a secret, such as "password", and those of a
                task that this app does not have; what is marked `Secret` stays hidden.

        Raises:
            UnknownJob: The store does not know it.
        """
        return self._info(await self._job(job_id), shows_names=shows_names)

    async def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """Return the attempts of a job that did not succeed, the oldest first; the newest 20 are kept.

        Raises:
            UnknownJob: The store does not know it.
        """
        await self._job(job_id)
        return await self._store.attempts(job_id)

    async def why(self, job_id: str) -> JobWhy:
        """Say in a sentence why a job does not run, or how it ended: `print(await app.jobs.why(job_id))`.

        Raises:
            UnknownJob: The store does not know it.
        """
        store = self._store
        standing = await store.standing(_id(job_id))
        before: JobRecord | None = None
        if standing.behind:
            with suppress(UnknownJob):  # it was deleted in this moment
                before = await store.job(standing.behind[0])
        return why_job(
            JobFacts(
                standing=changed(standing, job=self._app._overlaid(standing.job)),
                before=before,
                workers=await store.workers(),
                zone=self._app.timezone,
                now=self._app._clock.now(),
            )
        )

    async def counts(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state."""
        return await self._store.counts()

    async def batch(self, batch_id: str) -> JobBatch[Any]:
        """Return the handle of a batch that `task.map` has made, in this process or another.

        Raises:
            UnknownBatch: The store does not know it.
        """
        if not _is_printable(batch_id):
            raise UnknownBatch(batch_id)
        row = await self._store.batch(batch_id)
        return self._app._batch_handle(row.id, row.task)

    async def batches(self, *, limit: int = 50) -> builtins.list[BatchCounts]:
        """Return how far batches are, the newest first.

        Args:
            limit: How many at the most, up to 1,000.
        """
        from .job_batch import counts_of

        return [counts_of(row) for row in await self._store.batches(limit=_limit(limit))]

    async def queues(self) -> builtins.list[QueueRow]:
        """Return how the queues stand, by name: those of the app's tasks, and others that the store knows of."""
        rows = {task.options_.queue: QueueRow(name=task.options_.queue) for task in self._app.tasks.values()}
        rows |= {row.name: row for row in await self._store.queues()}
        return [rows[name] for name in sorted(rows)]

    async def workers(self) -> builtins.list[WorkerRow]:
        """Return the worker processes that live, with the names of their tasks, in the order of their start."""
        return await self._store.workers()

    # -- change -----------------------------------------------------------------------------------------------------

    async def retry(self, job_id: str) -> JobInfo:
        """Have a job run again that has failed, was cancelled, or is parked, and return it as it is then.

        It is queued at once and has all its attempts before it, as if it had never run; its history stays.

        Raises:
            UnknownJob: The store does not know it.
            WrongState: It is in another state, or somebody else was quicker.
        """
        seen = await self._job(job_id)
        if seen.state not in RETRIABLE:
            raise WrongState(job_id, seen.state, "retried", *_NO_RETRY[seen.state])
        (again,) = await self._store.retry([job_id], seen=seen.state)
        if again is None:
            raise await self._too_late(seen, "retried")
        return self._info(again)

    async def retry_failed(self, task: AnyTask | str | None = None) -> int:
        """Have all failed jobs run again, of one task or of any, and return how many there were.

        They are queued some hundreds at a time; what fails again meanwhile stays as it is.
        """
        names = () if task is None else self._names_of(task)
        query, count = JobQuery(states=(JobState.FAILED,), tasks=names, limit=RETRY_COUNT), 0
        while True:
            page = await self._store.page(query)
            again = await self._store.retry([job.id for job in page.jobs], seen=JobState.FAILED)
            count += sum(job is not None for job in again)
            if page.next is None:
                return count
            query = JobQuery(states=query.states, tasks=names, limit=RETRY_COUNT, after=page.next)

    async def cancel(self, job_id: str) -> JobInfo:
        """Cancel a job that waits, runs, or is parked, and return it as it is then.

        One that runs is marked, and ends soon: on the loop CancelledError is raised inside of it, a process is killed,
        a thread cannot be stopped.

        Raises:
            UnknownJob: The store does not know it.
            WrongState: It has ended, or somebody else was quicker.
        """
        seen = await self._job(job_id)
        if seen.state.is_finished:
            raise WrongState(job_id, seen.state, "cancelled", *_NO_CANCEL[seen.state])
        # What waits may begin in this moment, and is cancelled then; what is parked moves when a person moves it.
        only = seen.state if seen.state is JobState.PARKED else None
        (now,) = await self._store.cancel([job_id], seen=only)
        if now is None:
            raise await self._too_late(seen, "cancelled")
        self._tell_schedule(now)
        if now.state is JobState.RUNNING and self._app._dispatcher is not None:
            self._app._dispatcher.cancel_here(job_id)
        return self._info(now)

    async def delete(self, job_id: str) -> JobInfo:
        """Forget a job that does not run, with its history, and return it as it was.

        Raises:
            UnknownJob: The store does not know it.
            WrongState: It runs.
        """
        (gone,) = await self._store.delete([_id(job_id)])
        if gone is None:
            found = await self._job(job_id)
            raise WrongState(job_id, found.state, "deleted", "it is in the hands of a worker", "cancel it first")
        self._tell_schedule(gone)
        return self._info(gone)

    async def pause_queue(self, name: str) -> bool:
        """Let no process claim jobs of a queue any more, and return whether that is news.

        What was claimed before goes on: what runs, and up to as many jobs as a process has workers. The queue stays
        paused until it is resumed, in a file also beyond the end of all processes.
        """
        return await self._store.set_queue(text("queue", name), paused=True)

    async def resume_queue(self, name: str) -> bool:
        """Let jobs of a queue be claimed again, and return whether it was paused."""
        return await self._store.set_queue(text("queue", name), paused=False)

    # -- parts ------------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> Store:
        return self._app._store_now()

    async def _job(self, job_id: str) -> JobRecord:
        return await self._store.job(_id(job_id))

    def _info(self, job: JobRecord, *, shows_names: bool = False) -> JobInfo:
        task = self._app._names.get(job.task)
        return info_of(self._app._overlaid(job), None if task is None else task.codec, shows_names=shows_names)

    def _names_of(self, task: AnyTask | str) -> tuple[str, ...]:
        """Return the names under which jobs of a task may stand; of an unknown one, the name that was given."""
        found = task if isinstance(task, Task) else self._app._names.get(task)
        return (text("task", task),) if found is None else (found.name, *found.aliases)

    async def _too_late(self, seen: JobRecord, what: str) -> WrongState:
        """Return the refusal of a change that the store did not make, with what it knows of the reason."""
        standing = await self._store.standing(seen.id)
        now = standing.job
        if standing.key_held_by is not None:
            reason = f"job {standing.key_held_by}, which is unfinished, has its key {self._info(now).key!r}"
            return WrongState(seen.id, now.state, what, reason, "wait for the end of that one, or cancel it")
        if now.state is seen.state:
            reason = "something was in its way a moment ago, and no longer is"
            return WrongState(seen.id, now.state, what, reason, "try again")
        return WrongState(seen.id, now.state, what, f"it was {seen.state} a moment ago", "look at it again")

    def _tell_schedule(self, job: JobRecord) -> None:
        """Let the scheduler here know that a job of a schedule has ended."""
        if job.schedule is not None and self._app._scheduler is not None:
            self._app._scheduler.job_ended(job.schedule)


_NO_RETRY = {
    JobState.SCHEDULED: ("it has its next attempt before it", "wait for that, or ask why it has not run"),
    JobState.QUEUED: ("it waits for a worker", "wait for that, or ask why it has not run"),
    JobState.RUNNING: ("it runs", "wait for its end, or cancel it first"),
    JobState.SUCCEEDED: ("its work is done", "enqueue another job to have it done once more"),
}
_NO_CANCEL = {
    JobState.SUCCEEDED: ("its work is done", "delete it to forget it"),
    JobState.FAILED: ("it has ended", "delete it to forget it"),
    JobState.CANCELLED: ("it has ended", "delete it to forget it"),
}


def _id(job_id: Any) -> str:
    """Return an id that a store can look for."""
    if not _is_printable(job_id):
        raise UnknownJob(job_id)
    return str(job_id)


def _is_printable(given: Any) -> bool:
    return isinstance(given, str) and given.isprintable()


def _states(given: Any) -> tuple[JobState, ...]:
    """Return the states that are meant, in the order of a job's life."""
    if given is None:
        return ()
    words = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    known = [str(state) for state in JobState]
    for word in words:
        if word not in known:
            near = nearest(str(word), known)
            remedy = f"did you mean {near!r}?" if near else ""
            raise InvalidOption("state", f"one of {', '.join(known)}", word, remedy=remedy)
    return tuple(state for state in JobState if state in words)


def _limit(limit: int) -> int:
    if positive("limit", limit) > MAX_LIMIT:
        raise InvalidOption("limit", f"at most {MAX_LIMIT:,}", limit, remedy="page through them with after=page.next")
    return limit
