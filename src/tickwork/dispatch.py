"""Between the store and the workers: claims fill the buffer, ends go back to the store.

Two loops. The feeder claims what is due while there is room in the buffer. The writer hands the ends of attempts to
the store, all that have come together in one call. Workers know neither.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from . import errors
from .context import Context
from .durations import format_seconds
from .errors import InvalidPayload, JobCancelled, JobError, JobTimedOut, ResultExpired
from .events import FireTimeAnswered, JobEnded, JobFailed, JobParked, JobStarted, JobSucceeded, StoreFailed
from .events import JobCancelled as JobEndCancelled
from .jobs import JobState, Outcome
from .payloads import ErrorInfo, describe_exception
from .policies import PROMPT_SECONDS, state_after
from .shield import is_meant_for_us
from .stores.base import Finish, Lease
from .workers import WAITING, Run, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from .clock import Clock
    from .events import Events
    from .jobs import JobRecord
    from .scheduler import Holds
    from .stores.base import Store
    from .tasks import AnyTask
    from .workers import Workers

logger: logging.Logger = logging.getLogger("tickwork.jobs")

RETRY_STORE_SECONDS = 1.0
"""How soon a store that raised is asked again: soon enough for a person, seldom enough for a store in trouble."""


class Waiter:
    """Somebody in this process who waits for a job: told of its end sooner, and with the original exception."""

    __slots__ = ("count", "error", "told")

    def __init__(self) -> None:
        self.count: int = 0
        self.told: asyncio.Future[JobError] = asyncio.get_running_loop().create_future()
        self.error: BaseException | None = None


class JobRun(Run):
    """One attempt of a stored job."""

    __slots__ = ("_dispatcher", "context_", "late_because", "record", "started_at", "task")

    def __init__(self, dispatcher: Dispatcher, record: JobRecord, task: AnyTask, state: Any) -> None:
        args, kwargs = task.codec.decode(record.payload)
        self.context_: Context = Context(
            job_id=record.id,
            task=task.name,
            attempt=record.attempt + 1,
            schedule=record.schedule,
            fire_time=record.fire_time,
            state=state,
        )
        if task.wants_context:
            args = (self.context_, *args)
        context = dispatcher.base_context.copy()
        context.run(self.context_.activate)
        super().__init__(task.fn, args, kwargs, place_of(task.fn, task.options_.run_in), task.options_.timeout, context)
        self._dispatcher = dispatcher
        self.record: JobRecord = record
        self.task: AnyTask = task
        self.started_at: datetime | None = None
        self.late_because: str | None = None

    @property
    def lease(self) -> Lease:
        """The right to write about the job."""
        return Lease(self.record.id, self.record.token)

    def describe(self) -> str:
        """Return task and job id."""
        return f"{self.task.name} job={self.record.id}"

    def started(self) -> None:
        """Say so, once."""
        self.started_at = self._dispatcher.now()
        self._dispatcher.began(self, self.started_at)
        logger.info("start %s attempt=%d", self.describe(), self.context_.attempt, extra=self.extra())

    def overran(self, outcome: Outcome) -> None:
        """Tell who waits here; the store hears of it when the thread has ended."""
        self._dispatcher.tell(self, outcome, None)

    def succeeded(self, value: Any) -> None:
        """Hand the result to the store."""
        self._dispatcher.ended(self, Outcome.SUCCEEDED, value, None)

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """Hand the error to the store."""
        self._dispatcher.ended(self, outcome, None, error)

    def extra(self) -> dict[str, Any]:
        """Return what log records about the job carry."""
        return {"job_id": self.record.id, "task": self.task.name, "attempt": self.context_.attempt}


class Dispatcher:
    """Feeds the workers from a store and writes what they did.

    Args:
        store: Where jobs are.
        workers: Who runs them.
        clock: Tells the time.
        tasks: The tasks that this process knows, by name and alias.
        name: Who claims: names this process in the store.
        events: Hears what happens.
        on_error: Hears of every failed attempt, at once.
    """

    def __init__(
        self,
        store: Store,
        workers: Workers,
        clock: Clock,
        tasks: Mapping[str, AnyTask],
        *,
        name: str,
        events: Events,
        on_error: Callable[[Context, BaseException], None],
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._tasks = tasks
        self._name = name
        self._events = events
        self._on_error = on_error
        self.on_schedule_job_end: Callable[[str], object] = _ignore
        """Hears the name of a schedule when a job of it has ended, or was cancelled before it began."""
        self.now: Callable[[], datetime] = clock.now
        self.base_context: Variables = copy_context()
        self.state: Any = None
        """What the user's lifespan yielded."""
        self.failed_count: int = 0
        self.changed: asyncio.Event = asyncio.Event()
        """Set whenever an end has been written or a claim has found nothing."""
        self._runs: dict[str, JobRun] = {}
        self._claimed: list[JobRun] = []
        self._waiters: dict[str, Waiter] = {}
        self._outbox: list[tuple[Finish, JobRecord]] = []
        self._leases_back: list[Lease] = []
        self._written = asyncio.Event()
        self.claim_error: BaseException | None = None
        """What the store raised at the last claim; `finish_error` at the last ends. None: it did not."""
        self.finish_error: BaseException | None = None
        self.watchdog: Holds | None = None
        """Knows what has held the loop."""

    # -- from the store to the workers ------------------------------------------------------------------------------

    async def feed(self) -> None:
        """Claim what is due, for ever."""
        buffer = self._workers.buffer
        while True:
            room = max(1, buffer.maxsize - buffer.qsize())
            try:
                records = await self._store.claim(worker=self._name, tasks=self._tasks.keys(), limit=room)
                self.claim_error = None
                if not records:
                    self.changed.set()
                    await self._store.wait_claimable()
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                self.claim_error = error
                logger.exception("the store failed to hand out jobs; asking again in %g s", RETRY_STORE_SECONDS)
                self._events.emit(StoreFailed(doing="claim", error=error))
                await self._pause()
                continue
            self._claimed = [run for record in records if (run := self._admit(record)) is not None]
            while self._claimed:
                await buffer.put(self._claimed[0])
                del self._claimed[0]

    def _admit(self, record: JobRecord) -> JobRun | None:
        """Make a run of a claimed job, or park it when its arguments do not fit the function."""
        if record.state is JobState.CANCELLED:
            self._came_too_late(record)
            return None
        task = self._tasks[record.task]
        try:
            run = JobRun(self, record, task, self.state)
        except BaseException as error:  # InvalidPayload, or whatever the user's own types raise: this job's fault alone
            if isinstance(error, KeyboardInterrupt):
                raise
            logger.error("park %s job=%s: %s", task.name, record.id, error)
            self._events.emit(JobParked(**_about(record, record.attempt), reason=str(error)))
            finish = Finish(
                lease=Lease(record.id, record.token),
                state=JobState.PARKED,
                attempt=record.attempt,
                deaths=record.deaths,
                error=describe_exception(error).to_json(),
            )
            self._write(finish, record)
            return None
        self._runs[record.id] = run
        self._workers.unfinished += 1
        return run

    def _came_too_late(self, record: JobRecord) -> None:
        """Tell of a job that was cancelled at the claim, because its grace was over."""
        logger.warning(
            "schedule %s missed %s: its job %s could not begin in time", record.schedule, record.fire_time, record.id
        )
        schedule, fire_time = record.schedule, record.fire_time
        if schedule is None or fire_time is None:
            return
        self._events.emit(
            FireTimeAnswered(
                schedule=schedule, first=fire_time, last=fire_time, count=1, outcome="missed", job_id=record.id
            )
        )
        self.on_schedule_job_end(schedule)

    async def _pause(self) -> None:
        done = asyncio.Event()
        timer = self._clock.call_later(RETRY_STORE_SECONDS, done.set)
        try:
            await done.wait()
        finally:
            timer.cancel()

    async def give_back(self) -> int:
        """Return what was claimed and not begun, and how many. The feeder must have ended.

        A store that raises has them until their leases end.
        """
        held = (*self._workers.buffer.take_all(), *self._claimed)
        unstarted = [run for run in held if isinstance(run, JobRun) and run.phase == WAITING]  # else it was cancelled
        self._claimed = []
        for run in unstarted:
            self._runs.pop(run.record.id, None)
        self._workers.left(len(unstarted))
        if not unstarted:
            return 0
        try:
            await self._store.release([run.lease for run in unstarted])
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            logger.exception("the store failed to take back %d unstarted jobs", len(unstarted))
            self._events.emit(StoreFailed(doing="release", error=error))
        return len(unstarted)

    # -- from the workers to the store ------------------------------------------------------------------------------

    def began(self, run: JobRun, now: datetime) -> None:
        """Hear that an attempt begins, and tell of it."""
        late_by = (now - run.record.run_at).total_seconds()
        if late_by > PROMPT_SECONDS and run.record.fire_time is not None and not run.record.attempt:
            run.late_because = self._late_because(run, late_by)
        if self._events.wants(JobStarted):
            about = _about(run.record, run.context_.attempt)
            self._events.emit(JobStarted(**about, late_by=max(0.0, late_by), late_because=run.late_because))

    def _late_because(self, run: JobRun, late_by: float) -> str | None:
        """Say what made the start of a scheduled job late, where that is known, and log it."""
        mono = self._clock.monotonic()
        hold = None if self.watchdog is None else self.watchdog.covering(mono - late_by, mono)
        if hold is not None:
            why = str(hold)
        elif self._workers.are_busy and run.record.enqueued_at <= run.record.run_at + timedelta(seconds=PROMPT_SECONDS):
            why = f"no worker was free: {self._workers.count} of {self._workers.count} were busy"
        else:
            return None
        late = format_seconds(round(late_by, 3))
        logger.warning("%s starts %s late: %s", run.describe(), late, why, extra=run.extra())
        return why

    def ended(self, run: JobRun, outcome: Outcome, value: Any, error: BaseException | None) -> None:
        """Take the end of an attempt: log it, tell who waits, and queue it for the store."""
        record = run.record
        self._runs.pop(record.id, None)
        if run.stop_reason == "stop" and outcome is Outcome.CANCELLED:
            logger.warning("gave back %s: it had not ended when the app stopped", run.describe(), extra=run.extra())
            self._leases_back.append(run.lease)
            self._written.set()
            return
        deaths = record.deaths + (outcome is Outcome.LOST)
        state = state_after(outcome, deaths)
        attempt = record.attempt + (outcome is not Outcome.LOST)
        result = problem = None
        if outcome is Outcome.SUCCEEDED:
            try:
                result = run.task.codec.encode_result(value)
            except BaseException as unfit:  # likewise
                if isinstance(unfit, KeyboardInterrupt):
                    raise
                problem = describe_exception(unfit).to_json()
                logger.warning("%s succeeded, but its result cannot be kept: %s", run.describe(), unfit)
        else:
            error = error if error is not None else JobCancelled(record.id, run.task.name)
            if outcome is Outcome.TIMED_OUT:
                timed_out = JobTimedOut(record.id, run.task.name, run.timeout or 0.0)
                timed_out.__cause__ = None if isinstance(error, JobCancelled) else error
                error = timed_out
            problem = describe_exception(error).to_json()
        self._report(run, outcome, state, error)
        self.tell(run, outcome, error)
        finish = Finish(
            lease=run.lease,
            state=state,
            attempt=attempt,
            deaths=deaths,
            started_at=run.started_at,
            result=result,
            error=problem,
            late_because=run.late_because,
        )
        self._write(finish, record)

    def _report(self, run: JobRun, outcome: Outcome, state: JobState, error: BaseException | None) -> None:
        took = 0.0 if run.started_at is None else (self._clock.now() - run.started_at).total_seconds()
        if self._events.wants(JobEnded) or self._events.wants(_KINDS.get(outcome, JobFailed)):
            self._emit_end(run, outcome, state, error, took)
        line = "end %s %s took=%.3fs", run.describe(), outcome, took
        if outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED):
            logger.info(*line, extra=run.extra())
            return
        self.failed_count += 1
        if run.record.id in self._waiters:  # they raise it
            logger.warning(*line, extra=run.extra())
        else:
            logger.error(*line, extra=run.extra(), exc_info=error)
        if state is JobState.QUEUED:
            logger.warning("%s runs again: its process died under it", run.describe())
        if error is not None:
            self._on_error(run.context_, error)

    def _emit_end(
        self, run: JobRun, outcome: Outcome, state: JobState, error: BaseException | None, took: float
    ) -> None:
        about = {**_about(run.record, run.context_.attempt), "seconds": took}
        if outcome in _KINDS:
            self._events.emit(_KINDS[outcome](**about))
            return
        assert error is not None
        is_final = state is not JobState.QUEUED
        self._events.emit(JobFailed(**about, outcome=outcome, error=error, context=run.context_, is_final=is_final))
        if state is JobState.PARKED:
            self._events.emit(JobParked(**about, reason=str(error)))

    def tell(self, run: JobRun, outcome: Outcome, error: BaseException | None) -> None:
        """Tell who waits in this process, with the original exception; success they hear from the store."""
        waiter = self._waiters.get(run.record.id)
        if waiter is None or waiter.told.done():
            return
        waiter.error = error
        if outcome is Outcome.TIMED_OUT and error is None:
            waiter.told.set_result(JobTimedOut(run.record.id, run.task.name, run.timeout or 0.0))
        elif outcome is Outcome.CANCELLED and error is None:
            waiter.told.set_result(JobCancelled(run.record.id, run.task.name))

    def _write(self, finish: Finish, record: JobRecord) -> None:
        self._outbox.append((finish, record))
        self._written.set()

    async def write(self) -> None:
        """Hand ends to the store, for ever."""
        while True:
            await self._written.wait()
            if not await self._flushed():
                await self._pause()

    async def write_last(self, seconds: float) -> None:
        """Hand what has ended to the store, for the last time; one that raises is asked for some seconds more."""
        until = self._clock.monotonic() + seconds
        while not await self._flushed():
            if self._clock.monotonic() >= until:
                lost = [record.id for _, record in self._outbox]
                logger.error("stopped without the store: the ends of %d jobs are lost: %s", len(lost), ", ".join(lost))
                return
            await self._pause()

    async def _flushed(self) -> bool:
        """Hand what has ended to the store, and return whether it took it."""
        try:
            await self.flush()
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self.finish_error = error
            logger.exception(
                "the store failed to take %d ends of jobs; trying again in %g s",
                len(self._outbox),
                RETRY_STORE_SECONDS,
            )
            self._events.emit(StoreFailed(doing="finish", error=error))
            return False
        self.finish_error = None
        return True

    async def flush(self) -> None:
        """Hand what has ended to the store now. When the store raises, everything is kept for the next try."""
        while self._outbox:
            batch = self._outbox[:]
            accepted = await self._store.finish([finish for finish, _ in batch])
            del self._outbox[: len(batch)]
            for (_, record), was_accepted in zip(batch, accepted, strict=True):
                if not was_accepted:
                    logger.warning("the end of job %s came too late: it has another owner or was removed", record.id)
                elif record.schedule is not None:
                    self.on_schedule_job_end(record.schedule)
        while self._leases_back:
            back = self._leases_back[:]
            await self._store.release(back)
            del self._leases_back[: len(back)]
        self._written.clear()
        self.changed.set()

    @property
    def has_unwritten(self) -> bool:
        """Whether ends of attempts wait for the store."""
        return bool(self._outbox or self._leases_back)

    # -- people -----------------------------------------------------------------------------------------------------

    @property
    def running(self) -> list[JobRun]:
        """The attempts under way here."""
        return [run for run in self._workers.running if isinstance(run, JobRun)]

    def holds(self, job_id: str) -> bool:
        """Return whether this process has claimed the job and not ended it."""
        return job_id in self._runs

    def begun_at(self, job_id: str) -> datetime | None:
        """Return when the attempt under way here began; None: there is none, or it has not."""
        run = self._runs.get(job_id)
        return None if run is None else run.started_at

    def cancel_here(self, job_id: str) -> bool:
        """Cancel an attempt that this process holds."""
        run = self._runs.get(job_id)
        return run is not None and self._workers.cancel(run)

    @contextmanager
    def waiting(self, job_id: str) -> Iterator[Waiter]:
        """Be told of a job's end inside the block."""
        waiter = self._waiters.setdefault(job_id, Waiter())
        waiter.count += 1
        try:
            yield waiter
        finally:
            waiter.count -= 1
            if not waiter.count:
                self._waiters.pop(job_id, None)

    def end_waiting(self) -> None:
        """Tell everybody who still waits that this app has stopped."""
        for job_id, waiter in self._waiters.items():
            if not waiter.told.done():
                waiter.told.set_result(JobCancelled(job_id, "?", "the app stopped before it had ended"))


_KINDS: dict[Outcome, type[JobEnded]] = {Outcome.SUCCEEDED: JobSucceeded, Outcome.CANCELLED: JobEndCancelled}


def _about(record: JobRecord, attempt: int) -> dict[str, Any]:
    """Return what every event about a job tells."""
    return {
        "job_id": record.id,
        "task": record.task,
        "attempt": attempt,
        "schedule": record.schedule,
        "fire_time": record.fire_time,
    }


def _ignore(name: str) -> None:
    """Nobody listens."""


def value_of(record: JobRecord, task: AnyTask | None, original: BaseException | None) -> Any:
    """Return the result of an ended job, or raise what became of it.

    Args:
        record: The job, finished or parked.
        task: Its task, where this process knows it.
        original: The exception it raised, where that was in this process.
    """
    error = None if record.error is None else ErrorInfo.from_json(record.error)
    match record.state:
        case JobState.SUCCEEDED:
            if record.result is None:
                if error is not None:
                    where = f"result of {record.task}"
                    raise InvalidPayload(where, error.message.removeprefix(f"{where}: "))
                raise ResultExpired(record.id, record.task)
            if task is None:
                raise errors.JobParked(
                    record.id, record.task, "its task is not known here, so its result cannot be read"
                )
            return task.codec.decode_result(record.result)
        case JobState.CANCELLED:
            raise JobCancelled(record.id, record.task)
        case JobState.PARKED:
            raise errors.JobParked(record.id, record.task, "unknown" if error is None else error.message)
    if isinstance(original, JobTimedOut):
        raise original
    if error is None:
        raise errors.JobFailed(record.id, record.task, "unknown", "", "")
    if error.type == f"{JobTimedOut.__module__}.{JobTimedOut.__qualname__}" and task is not None:
        raise JobTimedOut(record.id, record.task, task.options_.timeout or 0.0)
    raise errors.JobFailed(record.id, record.task, error.type, error.message, error.traceback) from original
