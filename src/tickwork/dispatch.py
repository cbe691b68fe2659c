"""Between the store and the workers: claims fill the buffer, ends go back to the store.

Two loops. The feeder claims what is due while there is room in the buffer. The writer hands the ends of attempts to
the store, all that have come together in one call. Workers know neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager
from contextvars import Context as Variables
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from . import errors
from .clock import LATE_SECONDS, SystemClock
from .context import Context, _current
from .durations import format_seconds
from .errors import (
    InvalidPayload,
    JobCancelled,
    JobError,
    JobTimedOut,
    LeaseLost,
    NotRunning,
    NotTransactional,
    ResultExpired,
)
from .events import FireTimeAnswered, JobEnded, JobFailed, JobParked, JobStarted, JobSucceeded, StoreFailed
from .events import JobCancelled as JobEndCancelled
from .gathering import Gathering
from .jobs import JobState, Outcome, taken
from .outage import Outage
from .payloads import ErrorInfo, describe_exception
from .policies import MAX_DEATHS, state_after
from .prefetch import Prefetch
from .reports import Reports, progress_of
from .retry import next_attempt_at
from .shield import is_meant_for_us, to_its_end
from .stores.base import Finish, Lease
from .workers import FAIR_SECONDS, RUNNING, WAITING, Run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from .clock import Clock, Timer
    from .events import Events
    from .holds import Hold
    from .jobs import JobRecord, NewJob, Progress
    from .stores.base import Store
    from .tasks import AnyTask
    from .watchdog import Watchdog
    from .workers import Place, Workers

logger: logging.Logger = logging.getLogger("tickwork.jobs")

_LATE = timedelta(seconds=LATE_SECONDS)

RETRY_STORE_SECONDS = 1.0
"""How soon a store that raised is asked again: soon enough for a person, seldom enough for a store in trouble."""

MARK_SECONDS = 0.1
"""How soon a durable store is told that jobs have begun which still run: after half of that at the soonest, so that
shorter ones cost nothing. When the process dies before, nobody knows whether they had begun, and the death is not
counted."""

MAX_REFILLS = 20
"""How often workers claim for themselves between two turns of the feeder; on a virtual clock, no time limits that."""

STOPPED = "the app stopped before it had ended"
"""What becomes of a job, for those who wait for it here."""

PATIENT_TURNS = 20
"""For so many turns of the loop, ends are put off while jobs in memory begin: a thousand of them begin meanwhile."""


PATIENT_SECONDS = 0.05
"""For so long at the most, the next fire times are not looked for, on a real clock."""


class Waiter:
    """Those in this process who wait for a job: told of its end sooner, and with the original exception."""

    __slots__ = ("error", "futures")

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[JobRecord]] = []
        self.error: BaseException | None = None

    def tell(self, error: JobError) -> None:
        """Raise an error where the store would have said what became of the job."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class Completion:
    """The success of a job that is written in a transaction of its own."""

    __slots__ = ("_task", "is_committed", "result")

    def __init__(self, task: AnyTask) -> None:
        self._task = task
        self.result: str = "null"
        """The result as JSON."""
        self.is_committed: bool = False

    def take(self, value: Any) -> None:
        """Take the result."""
        self.result = self._task.codec.encode_result(value)

    def differing(self, value: Any) -> str | None:
        """Return what to say of a value that the function has returned in the end; None: nothing."""
        if value is None:
            return None
        try:
            is_same = self._task.codec.encode_result(value) == self.result
        except InvalidPayload:
            is_same = False
        return None if is_same else "returned something else than ctx.complete was given"


class JobRun(Run):
    """One attempt of a stored job."""

    __slots__ = (
        "_dispatcher",
        "completion",
        "context_",
        "is_block_told",
        "is_marked",
        "is_watched",
        "late_because",
        "record",
        "started_at",
        "task",
    )

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
        self.context_.listen(dispatcher.hear_progress, dispatcher.now)
        self.context_.on_transaction(dispatcher.transaction)
        if dispatcher.on_checkpoint is not None:
            self.context_.on_checkpoint(dispatcher.on_checkpoint)
        if task.wants_context:
            args = (self.context_, *args)
        context = dispatcher.base_context.copy()
        context.run(self.context_.activate)
        # Whoever had it in hand has died: the store must know that it begins before it can do that again.
        place: Place = "prepared" if record.lost and not record.is_once else task.place
        super().__init__(task.fn, args, kwargs, place, task.options_.timeout, context)
        self._dispatcher = dispatcher
        self.record: JobRecord = record
        self.task: AnyTask = task
        self.started_at: datetime | None = None
        self.is_watched: bool = False
        """Whether the watchdog counts it."""
        self.is_block_told: bool = False
        """Whether a warning has said that it blocks the loop."""
        self.late_because: str | None = None
        """What made it start late; None: it was in time, or nobody knows."""
        self.is_marked: bool = False
        self.completion: Completion | None = None
        """The transaction with which it ends, from the end of its block on; None: there is none."""

    @property
    def lease(self) -> Lease:
        """The right to write about the job."""
        return Lease(self.record.id, self.record.token)

    @property
    def is_complete(self) -> bool:
        """Whether it has succeeded in a transaction of its own, or is just about to: nothing is to be written."""
        return self.completion is not None

    def describe(self) -> str:
        """Return task and job id."""
        return f"{self.task.name} job={self.record.id}"

    def started(self) -> None:
        """Say so, once."""
        self.started_at = self._dispatcher.now()
        self._dispatcher.began(self, self.started_at)
        if logger.isEnabledFor(logging.INFO):  # what a line is made of costs more than the question
            logger.info("start %s attempt=%d", self.describe(), self.context_.attempt, extra=self.extra())

    def moved_to_loop(self) -> None:
        """Let the watchdog count it from here on."""
        self._dispatcher.watch(self)

    async def prepare(self) -> Place:
        """Let the store know that the job begins."""
        await self._dispatcher.mark(self)
        return self.task.place

    def luggage(self) -> dict[str, Any]:
        """Return what `Context.current()` finds in a child process."""
        return {"job": self.context_}

    def hear(self, kind: str, value: Any) -> None:
        """Take the progress that the function has told in a child process."""
        if kind == "progress":
            job_id, attempt, *told = value
            if (job_id, attempt) == (self.record.id, self.context_.attempt):  # else a thread was left behind there
                self.context_.progress(*told)

    def hear_record(self, record: logging.LogRecord) -> None:
        """Give a record from a child process what records about the job carry, and have it handled."""
        if not hasattr(record, "job_id"):
            vars(record).update(self.extra())
        super().hear_record(record)

    def overran(self, outcome: Outcome) -> None:
        """Tell who waits here, unless it is tried again; the store hears of it when the thread has ended."""
        options, attempt = self.task.options_, self.context_.attempt
        if self.stop_reason == "lost":
            return
        if outcome is Outcome.CANCELLED or options.retry is None or attempt >= options.retry.attempts:
            self._dispatcher.tell(self, outcome, None)

    def succeeded(self, value: Any) -> None:
        """Hand the result to the store."""
        self._dispatcher.succeeded(self, value)

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """Hand the error to the store."""
        self._dispatcher.ended(self, outcome, error)

    def secrets(self) -> list[str]:
        """Return the texts among its arguments that no message may show."""
        return self.task.codec.secrets_in(self.record.payload)

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
        max_deaths: A job under which this many processes died is parked.
        events: Hears what happens.
        on_error: Hears of every failed attempt, at once.
        random: Draws the jitter of retries.
    """

    def __init__(
        self,
        store: Store,
        workers: Workers,
        clock: Clock,
        tasks: Mapping[str, AnyTask],
        *,
        name: str,
        max_deaths: int = MAX_DEATHS,
        events: Events,
        on_error: Callable[[Context, BaseException], None],
        random: Random | None = None,
    ) -> None:
        self._store = store
        self._workers = workers
        self._clock = clock
        self._tasks = tasks
        self._name = name
        self._max_deaths = max_deaths
        self._events = events
        self._on_error = on_error
        self._random = random or Random()
        self.on_schedule_job_end: Callable[[str], object] = _ignore
        """Hears the name of a schedule when a job of it has ended, or was cancelled before it began."""
        self.on_schedules_changed: Callable[[], object] = _ignore_all
        """Hears that another process has changed schedules."""
        self.queues: Collection[str] | None = None
        """From which queues jobs are claimed; None: from all."""
        self.only: set[str] | None = None
        """The ids of the only jobs that are claimed; None: any."""
        self.on_checkpoint: Callable[[Context, str], None] | None = None
        """Hears of the points that jobs name; for tests."""
        self.now: Callable[[], datetime] = clock.now
        self.base_context: Variables = copy_context()
        self.state: Any = None
        """What the user's lifespan yielded."""
        self.watchdog: Watchdog | None = None
        """Who finds out what holds the loop; None: nobody does."""
        self._told_hold: int | None = None
        self._told_tasks: set[str] = set()
        self.failed_count: int = 0
        self.changed: asyncio.Event = asyncio.Event()
        """Set whenever an end has been written or a claim has found nothing."""
        self._runs: dict[str, JobRun] = {}
        self.ready: Mapping[str, JobRun] = {}
        """What was made ready for jobs that are just being made, by their ids."""
        self._claimed: list[JobRun] = []
        self._is_drained = False
        """Whether the last claim found less than there was room for."""
        self._refills_left = 0
        self._refill_until = 0.0
        self._suspect: JobRun | None = None
        self._suspects: deque[JobRun] = deque()
        self._waiters: dict[str, Waiter] = {}
        self._has_stopped = False
        """Whether those who waited were told that the app has stopped."""
        self._outbox: list[tuple[Finish, JobRecord]] = []
        self._succeeded: list[tuple[JobRun, str | None, str | None]] = []
        """Ends with a result, or the reason why it cannot be kept: what is written of them is made when it is written,
        since the next job may wait to begin."""
        self._leases_back: list[Lease] = []
        self._written = asyncio.Event()
        self._flushing = asyncio.Lock()
        self.claim_error: BaseException | None = None
        """What the store raised at the last claim; `finish_error` at the last ends. None: it did not."""
        self.finish_error: BaseException | None = None
        self._claims = Outage(logger, clock, "the store hands out jobs again")
        self._ends = Outage(logger, clock, "the store takes ends of jobs again")
        self._is_shared = store.capabilities.multi_process
        self._prefetch = Prefetch(workers.count, clock.monotonic())
        self._freed = asyncio.Event()
        # A virtual moment passes only when a test lets it.
        self._gathers = self._is_shared and isinstance(clock, SystemClock)
        self._gathering = Gathering(workers.buffer.qsize, clock.call_later)
        self._is_full = False
        """Whether the feeder waits for room."""
        self._has_marks: bool = store.capabilities.durable
        if not store.capabilities.durable:
            workers.refill = self._refill
        self._mark_timer: Timer | None = None
        self._seen: set[JobRun] = set()
        """Attempts that were under way at the last look and are not marked."""
        self._to_mark: set[JobRun] = set()
        self._reports = Reports(clock, self._let_report)
        self.hear_progress: Callable[[Context], None] = self._reports.tell
        """Hears that a job has told of its progress."""
        self._told: dict[str, tuple[JobRun, Progress]] = {}
        """What the store has not yet taken of it."""

    # -- from the store to the workers ------------------------------------------------------------------------------

    async def feed(self) -> None:
        """Claim what is due, for ever."""
        while True:
            room = self._room()
            if room <= 0:
                self._freed.clear()
                self._is_full = True
                await self._freed.wait()
                self._is_full = False
                continue
            try:
                if self._is_drained:
                    await self._store.wait_claimable(room)
                elif self._gathers:
                    await self._gathering.turn()
                    if (room := self._room()) <= 0:
                        continue
                records = await self._claim(room)
                if not records:
                    self.changed.set()
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                self.claim_error, self._is_drained = error, False  # what there was to claim is still there
                self._claims.tell(error, "the store failed to hand out jobs; asking again in %g s", RETRY_STORE_SECONDS)
                self._events.emit(StoreFailed(doing="claim", error=error))
                await self._pause()
                continue
            await self._take_in(records)
            self._refills_left, self._refill_until = MAX_REFILLS, self._clock.monotonic() + FAIR_SECONDS

    async def _claim(self, room: int) -> list[JobRecord]:
        records = await self._store.claim(
            worker=self._name, tasks=self._tasks.keys(), limit=room, queues=self.queues, jobs=self.only
        )
        self.claim_error = None
        self._claims.over()
        self._is_drained = len(records) < room
        return records

    async def _take_in(self, records: Sequence[JobRecord]) -> None:
        runs = [run for record in records if (run := self._admit(record)) is not None]
        buffer = self._workers.buffer
        if buffer.qsize() + len(runs) <= buffer.maxsize:  # as always, where nobody was quicker
            buffer.put_all([run for run in runs if not self._set_apart(run)])
            return
        self._claimed += runs
        for run in runs:
            if not self._set_apart(run):
                if buffer.full():
                    await buffer.put(run)
                else:
                    buffer.put_nowait(run)
            self._claimed.remove(run)

    async def _refill(self) -> None:
        """Claim for a worker that finds the buffer empty: in memory that costs no wait, and less than to wake others.

        Only some times, and only for some milliseconds after a turn of the feeder: everybody else on the loop must
        have turns, too.
        """
        room = self._room()
        if self._is_drained or self._claimed or room <= 0 or not self._refills_left:
            return
        if self._clock.monotonic() >= self._refill_until:
            return
        self._refills_left -= 1
        try:
            records = await self._claim(room)
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            return  # the feeder is about to meet it, too, and tells
        await self._take_in(records)

    async def take(self, job: NewJob) -> JobRecord:
        """Enqueue a job and claim it, before another process can; one that must wait for room goes to whoever is first.

        The feeder claims it again for further attempts, and in `only` nothing else. Returns the job, or the
        unfinished one that has its key.
        """
        # What is asked of a store in the same turn of the loop is one transaction, or the next best thing.
        (taken,), _ = await asyncio.gather(self._store.enqueue([job]), self.claim_now([job.id]))
        if self.only is not None:
            self.only.add(taken.id)  # it may be another one, with the same key, that nobody runs yet
        return taken

    async def claim_now(self, job_ids: Collection[str]) -> list[str]:
        """Claim these jobs as far as they are due, without waiting for the feeder; return the ids of those it got.

        The feeder claims the others when they are due, further attempts too, and in `only` nothing else.
        """
        if not job_ids:
            return []
        wanted = set(job_ids)
        if self.only is not None:  # all that the feeder asks for, or it would not hear of what this one lets lie
            self.only.update(wanted)
            wanted = self.only
        records = await self._store.claim(
            worker=self._name, tasks=self._tasks.keys(), limit=len(wanted), jobs=frozenset(wanted)
        )
        runs = [run for record in records if (run := self._admit(record)) is not None]
        # Without a wait, for a cancellation would leave them claimed and nowhere.
        self._workers.buffer.put_front([run for run in runs if not self._set_apart(run)])
        return [run.record.id for run in runs]

    def _room(self) -> int:
        """Return how many jobs may be claimed; none when it is not above zero."""
        buffer, workers = self._workers.buffer, self._workers
        if not self._is_shared:
            return buffer.maxsize - buffer.qsize() - len(self._suspects)
        ended = workers.succeeded_count + workers.failed_count + workers.cancelled_count
        most = workers.count + self._prefetch.allowed(ended, self._clock.monotonic())
        # Suspects wait for each other: as many again as there are workers, so that others run meanwhile.
        return most + min(workers.count, len(self._suspects)) - len(self._runs)

    def _admit(self, record: JobRecord) -> JobRun | None:
        """Make a run of a claimed job, or park it when its arguments do not fit the function."""
        if record.state is JobState.CANCELLED:
            self._came_too_late(record)
            return None
        task = self._tasks[record.task]
        ready = self.ready.get(record.id)
        try:
            if ready is not None and ready.task is task and not (record.attempt or record.lost):
                run = ready
                run.record = record
            else:
                run = JobRun(self, record, task, self.state)
        except BaseException as error:  # InvalidPayload, or whatever the user's own types raise: this job's fault alone
            if isinstance(error, KeyboardInterrupt):
                raise
            told = describe_exception(error).without(task.codec.secrets_in(record.payload))
            logger.error("park %s job=%s: %s", task.name, record.id, told.message)
            self._events.emit(JobParked(**_about(record, record.attempt), reason=told.message))
            finish = Finish(
                lease=Lease(record.id, record.token),
                state=JobState.PARKED,
                attempt=record.attempt,
                deaths=record.deaths,
                error=told.to_json(),
                misfit=fingerprint(task),
            )
            self._write(finish, record)
            return None
        self._runs[record.id] = run
        self._workers.unfinished += 1
        return run

    def make_ready(self, job: NewJob) -> JobRun | None:
        """Return what is to run a job that is made in a moment; None: that is found out when it is claimed."""
        task = self._tasks.get(job.task)
        if task is None or self._has_marks:
            return None
        return JobRun(self, taken(job, job.run_at), task, self.state)

    def _set_apart(self, run: JobRun) -> bool:
        """Return whether a run must wait until another suspect has ended.

        A job that the next death of a process would park is a suspect. A process runs one of them at a time, so that a
        deadly job is not parked together with the innocent ones that ran beside it.
        """
        if run.record.deaths + 1 < self._max_deaths or run.phase != WAITING:
            return False
        if self._suspect is None:
            self._suspect = run
            return False
        self._suspects.append(run)
        return True

    def _next_suspect(self) -> None:
        self._suspect = None
        while self._suspects and self._suspect is None:
            run = self._suspects.popleft()
            if run.phase == WAITING:  # else it was cancelled
                self._suspect = run
                self._workers.buffer.put_front([run])

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
        self._refills_left = 0  # what is given back is not to be claimed again by the next worker that is free
        held = (*self._workers.buffer.take_all(), *self._claimed, *self._suspects)
        unstarted = [run for run in held if isinstance(run, JobRun) and run.phase == WAITING]  # else it was cancelled
        self._claimed = []
        self._suspects.clear()
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

    # -- transactions of jobs ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self, context: Context) -> AsyncIterator[Any]:
        """See `Context.transaction`."""
        run = self._begin_transaction(context)
        completion = Completion(run.task)
        context.give_to(completion.take)
        try:
            begun = self._store.transaction(
                partial(self._completion_of, run, completion), partial(self._completed, run, completion)
            )
            async with begun as connection:
                yield connection
        except LeaseLost as error:
            if error.job_id == run.record.id:
                self._lose(run)  # here, in the job's own task: it hears this error first
            raise
        finally:
            context.give_to(None)
            if not completion.is_committed:
                run.completion = None

    def _begin_transaction(self, context: Context) -> JobRun:
        """Return the attempt that wants a transaction, or refuse it."""
        if not self._store.capabilities.transactional:
            kind = "in a file" if self._store.capabilities.durable else "in memory"
            raise NotTransactional("ctx.transaction()", f"this one keeps them {kind}")
        run = self._runs.get(context.job_id)
        if run is None or run.context_ is not context or run.phase != RUNNING:
            raise NotRunning(f"job {context.job_id} has ended; ctx.transaction() works while it runs")
        if run.run_in != "loop":
            raise NotRunning("ctx.transaction() works on the app's loop; make the task a coroutine function")
        if run.is_complete:
            raise NotRunning(f"job {context.job_id} has succeeded with its transaction; there can be no other")
        if context.is_in_transaction:
            raise NotRunning("a transaction of the job is open; its connection.transaction() makes savepoints")
        return run

    async def _completion_of(self, run: JobRun, completion: Completion) -> Finish:
        """Return the end of an attempt that succeeds with its transaction."""
        if run.context_.has_news:
            self._take_progress(run)
        told = self._told.pop(run.record.id, None)
        if told is not None:  # after the end it would be refused
            await self._store.progress(run.lease, started_at=run.started_at, progress=told[1])
        run.completion = completion
        return self._success_of(run, completion.result, None)

    def _completed(self, run: JobRun, completion: Completion, is_accepted: bool) -> None:
        """Hear that the transaction is committed: from here on the job has ended, whatever its function does."""
        if not is_accepted:
            run.completion = None
            raise LeaseLost(run.record.id, run.task.name)
        completion.is_committed = True
        self._told.pop(run.record.id, None)
        if run.record.schedule is not None:
            self.on_schedule_job_end(run.record.schedule)
        self.changed.set()

    def _ended_complete(self, run: JobRun, completion: Completion, after: str | None) -> None:
        """Take the end of a function whose job has succeeded before, and log what it had to say after that."""
        if after is not None:
            logger.warning(
                "%s has succeeded with its transaction, and that stands; after it, the function %s",
                run.describe(),
                after,
                extra=run.extra(),
            )
        if self._events.wants(JobSucceeded) or logger.isEnabledFor(logging.INFO):
            self._report(run, Outcome.SUCCEEDED, JobState.SUCCEEDED, None, None)
        if run is self._suspect:
            self._next_suspect()
        self._written.set()

    # -- from the workers to the store ------------------------------------------------------------------------------

    def began(self, run: JobRun, now: datetime) -> None:
        """Hear that an attempt begins, and tell of it."""
        if self._is_full:
            self._freed.set()
        if self._gathers:
            self._gathering.began()
        if run.run_in in ("loop", "call"):
            self.watch(run)
        if self._has_marks and self._mark_timer is None:
            self._mark_timer = self._clock.call_later(MARK_SECONDS / 2, self._let_mark)
        lateness = now - run.record.run_at
        if lateness > _LATE:
            self._explain_late(run, lateness.total_seconds())
        if self._events.wants(JobStarted):
            about, late_by = _about(run.record, run.context_.attempt), max(0.0, lateness.total_seconds())
            self._events.emit(JobStarted(**about, late_by=late_by, late_because=run.late_because))

    def _explain_late(self, run: JobRun, late_by: float) -> None:
        """Find out what made a start late, where that is known, and log it."""
        mono, record = self._clock.monotonic(), run.record
        hold = None if self.watchdog is None else self.watchdog.covering(mono - late_by, mono)
        if hold is not None:
            self._tell_held(run, late_by, hold)
        elif record.fire_time is None or record.attempt or not self._workers.are_busy:
            return
        elif (record.enqueued_at - record.run_at).total_seconds() <= LATE_SECONDS:  # else it was made too late
            run.late_because = f"no worker was free: {self._workers.count} of {self._workers.count} were busy"
            logger.warning("%s starts %.1f s late: %s", run.describe(), late_by, run.late_because, extra=run.extra())

    def watch(self, run: JobRun) -> None:
        """Let the watchdog count an attempt until its end."""
        if self.watchdog is not None and not run.is_watched:
            run.is_watched = True
            self.watchdog.enter()

    def succeeded(self, run: JobRun, value: Any) -> None:
        """Take the result of an attempt: log it, and queue it for the store, from which those hear of it who wait."""
        if not self._left(run):
            return
        if (completion := run.completion) is not None and completion.is_committed:
            self._ended_complete(run, completion, completion.differing(value))
            return
        result = problem = None
        try:
            result = run.task.codec.encode_result(value)
        except BaseException as unfit:  # likewise
            if isinstance(unfit, KeyboardInterrupt):
                raise
            told = describe_exception(unfit).without(run.secrets())
            problem = told.to_json()
            logger.warning("%s succeeded, but its result cannot be kept: %s", run.describe(), told.message)
        if self._events.wants(JobSucceeded) or logger.isEnabledFor(logging.INFO):
            self._report(run, Outcome.SUCCEEDED, JobState.SUCCEEDED, None, None)
        self._succeeded.append((run, result, problem))
        self._written.set()

    def _line_up_successes(self) -> None:
        """Put the ends that were put off into the outbox."""
        ended, self._succeeded = self._succeeded, []
        self._outbox += [(self._success_of(run, result, problem), run.record) for run, result, problem in ended]

    @staticmethod
    def _success_of(run: JobRun, result: str | None, problem: str | None) -> Finish:
        record = run.record
        return Finish(
            lease=Lease(record.id, record.token),
            state=JobState.SUCCEEDED,
            attempt=record.attempt + 1,
            deaths=record.deaths,
            started_at=run.started_at,
            result=result,
            error=problem,
            late_because=run.late_because,
            outcome=Outcome.SUCCEEDED,
        )

    def ended(self, run: JobRun, outcome: Outcome, error: BaseException | None) -> None:
        """Take any other end of an attempt: log it, tell who waits, and queue it for the store."""
        if not self._left(run):
            return
        if (completion := run.completion) is not None and completion.is_committed:
            self._ended_complete(run, completion, _after(run, outcome, error))
            return
        record = run.record
        if run.stop_reason == "stop" and outcome is Outcome.CANCELLED and not record.is_once:
            logger.warning("gave back %s: it had not ended when the app stopped", run.describe(), extra=run.extra())
            self._leases_back.append(run.lease)
            self._written.set()
            return
        deaths = record.deaths + (outcome is Outcome.LOST)
        attempt = record.attempt + (outcome is not Outcome.LOST)
        state, run_at = state_after(outcome, deaths, max_deaths=self._max_deaths, is_once=record.is_once), None
        error = error if error is not None else JobCancelled(record.id, run.task.name)
        if outcome is Outcome.TIMED_OUT:
            timed_out = JobTimedOut(record.id, run.task.name, run.timeout or 0.0)
            timed_out.__cause__ = None if isinstance(error, JobCancelled) else error
            error = timed_out
        if state is JobState.FAILED:
            state, run_at = self._retried(run, attempt, error)
        problem = describe_exception(error).without(run.secrets()).to_json()
        self._report(run, outcome, state, error, run_at)
        if run_at is None:
            self.tell(run, outcome, error)
        finish = Finish(
            lease=run.lease,
            state=state,
            attempt=attempt,
            deaths=deaths,
            started_at=run.started_at,
            error=problem,
            run_at=run_at,
            late_because=run.late_because,
            outcome=None if run.started_at is None else outcome,
        )
        self._write(finish, record)

    def _left(self, run: JobRun) -> bool:
        """Forget an attempt that is under way no more, and return whether its end is this process's to write."""
        job_id = run.record.id
        if self._runs.get(job_id) is run:  # else it was lost, and has come again
            del self._runs[job_id]
        if self._is_full:
            self._freed.set()
        if run.context_.has_news and not run.is_complete:
            self._take_progress(run)
        if run.is_watched and self.watchdog is not None:
            run.is_watched = False
            self.watchdog.leave()
        if run.stop_reason != "lost":
            return True
        if run is self._suspect:
            self._next_suspect()
        self._written.set()
        return False

    def _retried(self, run: JobRun, attempt: int, error: BaseException) -> tuple[JobState, datetime | None]:
        """Return where a failed attempt leads: to another, and when, or to the end."""
        options = run.task.options_
        if options.retry is None:
            return JobState.FAILED, None
        at = next_attempt_at(options.retry, options.retry_on, error, attempt, self.now(), self._random.random())
        return (JobState.FAILED if at is None else JobState.SCHEDULED), at

    def _report(
        self, run: JobRun, outcome: Outcome, state: JobState, error: BaseException | None, run_at: datetime | None
    ) -> None:
        went_well = outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED)
        is_heard = self._events.wants(_KINDS.get(outcome, JobFailed)) or self._events.wants(JobParked)
        if went_well and not is_heard and not logger.isEnabledFor(logging.INFO):
            return
        took = 0.0 if run.started_at is None else (self._clock.now() - run.started_at).total_seconds()
        if is_heard:
            self._emit_end(run, outcome, state, error, took)
        line = "end %s %s took=%.3fs", run.describe(), outcome, took
        if went_well:
            logger.info(*line, extra=run.extra())
            return
        self.failed_count += run_at is None
        if run_at is not None and error is not None:
            wait = format_seconds(round((run_at - self.now()).total_seconds(), 3))
            told = describe_exception(error).without(run.secrets())
            what = f"{told.type}: {told.message}"
            logger.warning("end %s %s took=%.3fs: %s; tried again in %s", *line[1:], what, wait, extra=run.extra())
        elif run.record.id in self._waiters:  # they raise it
            logger.warning(*line, extra=run.extra())
        elif error is not None and (secrets := run.secrets()):  # the formatter would write them
            text = describe_exception(error).without(secrets).traceback.rstrip()
            logger.error(f"{line[0]}\n%s", *line[1:], text, extra=run.extra())  # noqa: G004 - a constant
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
        is_final = state not in (JobState.QUEUED, JobState.SCHEDULED)
        self._events.emit(JobFailed(**about, outcome=outcome, error=error, context=run.context_, is_final=is_final))
        if state is JobState.PARKED:
            self._events.emit(JobParked(**about, reason=str(error)))

    def tell(self, run: JobRun, outcome: Outcome, error: BaseException | None) -> None:
        """Tell who waits in this process, with the original exception; success they hear from the store."""
        waiter = self._waiters.get(run.record.id)
        if waiter is None:
            return
        waiter.error = error
        if outcome is Outcome.TIMED_OUT and error is None:
            waiter.tell(JobTimedOut(run.record.id, run.task.name, run.timeout or 0.0))
        elif outcome is Outcome.CANCELLED and error is None:
            waiter.tell(JobCancelled(run.record.id, run.task.name))

    def _write(self, finish: Finish, record: JobRecord) -> None:
        self._outbox.append((finish, record))
        self._written.set()

    async def write(self) -> None:
        """Hand ends to the store, for ever."""
        while True:
            await self._written.wait()
            await self._let_begin()
            if self._gathers:
                await self._gathering.let_gather(is_awaited=bool(self._waiters))
            # What is under way is written to its end: the next flush must not do it again.
            if not await to_its_end(self._flushed()):
                await self._pause()

    async def _let_begin(self) -> None:
        """Let jobs begin before the ends of others are written, where both cost time of the loop.

        What has ended gets no later by it, except for those who wait for it: then nothing is put off.
        """
        for _ in range(0 if self._has_marks else PATIENT_TURNS):
            if self._waiters or (self._is_drained and not self._workers.buffer.waiting):
                return
            await asyncio.sleep(0)

    async def let_begin(self) -> None:
        """Let the jobs begin that the store has just taken in, where all that comes after them can wait a little."""
        if self._has_marks:
            return
        until = self._clock.monotonic() + PATIENT_SECONDS
        for _ in range(PATIENT_TURNS):
            await asyncio.sleep(0)
            if (self._is_drained and not self._workers.buffer.waiting) or self._clock.monotonic() >= until:
                return

    async def settle(self) -> None:
        """Write the ends that were put off: whether its last job has ended decides on what a schedule does next."""
        if (self._outbox or self._succeeded) and not self._has_marks:
            await self._flushed()

    async def write_last(self, seconds: float) -> None:
        """Hand what has ended to the store, for the last time; one that raises is asked for some seconds more."""
        until = self._clock.monotonic() + seconds
        while True:
            if await self._flushed():
                if not self.has_unwritten:  # else more has ended meanwhile
                    return
            elif self._clock.monotonic() >= until:
                lost = [record.id for _, record in self._outbox]
                logger.error("stopped without the store: the ends of %d jobs are lost: %s", len(lost), ", ".join(lost))
                return
            else:
                await self._pause()

    async def _flushed(self) -> bool:
        """Hand what has ended to the store, and return whether it took it."""
        try:
            async with self._flushing:  # the scheduler asks for it, too, and nothing may be written twice
                await self.flush()
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            self.finish_error = error
            self._written.set()
            text = "the store failed to take %d ends of jobs; trying again in %g s"
            self._ends.tell(error, text, len(self._outbox), RETRY_STORE_SECONDS)
            self._events.emit(StoreFailed(doing="finish", error=error))
            return False
        self.finish_error = None
        self._ends.over()
        return True

    def _let_mark(self) -> None:
        """Let those be marked that were under way at the last look, too, and look again while there are others."""
        seen, self._seen = self._seen, set()
        for run in self.running:
            if not (run.is_marked or run.is_complete):
                (self._to_mark if run in seen else self._seen).add(run)
        self._mark_timer = self._clock.call_later(MARK_SECONDS / 2, self._let_mark) if self._seen else None
        if self._to_mark:
            self._written.set()

    async def mark(self, run: JobRun) -> None:
        """Let the store know that a job begins, before it does; waits until the store has taken it."""
        while True:
            try:
                await self._mark([run], {})
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                logger.exception("the store failed to mark %s; it begins when that is done", run.describe())
                self._events.emit(StoreFailed(doing="progress", error=error))
                await self._pause()
            else:
                break
        if not run.is_marked:  # another worker has it: this one must not run it, nor has it anything to write
            self._lose(run)
            raise asyncio.CancelledError

    def _let_report(self) -> None:
        for context in self._reports.take():
            run = self._runs.get(context.job_id)
            if run is not None and run.context_ is context and not run.is_complete:
                self._take_progress(run)
        self._written.set()

    def _take_progress(self, run: JobRun) -> None:
        run.context_.take()
        told = progress_of(run.context_)
        if told is not None:
            self._told[run.record.id] = run, told

    async def _tell_progress(self) -> None:
        """Tell the store which jobs have begun, and how far those are that have told so."""
        due, self._to_mark = self._to_mark, set()
        told, self._told = self._told, {}
        try:
            begun = [run for run in self.running if run in due and not (run.is_marked or run.is_complete)]
            await self._mark(begun, told)
        except BaseException:
            self._to_mark |= due
            self._told = told | self._told
            raise

    async def _mark(self, begun: Sequence[JobRun], told: Mapping[str, tuple[JobRun, Progress]]) -> None:
        news: dict[str, tuple[JobRun, Progress | None]] = {
            run.record.id: (run, None) for run in begun if run.started_at is not None
        }
        news |= told
        marked = await asyncio.gather(
            *(
                self._store.progress(run.lease, started_at=None if run.is_marked else run.started_at, progress=progress)
                for run, progress in news.values()
            )
        )
        for (run, _), is_marked in zip(news.values(), marked, strict=True):
            run.is_marked = is_marked
            if not is_marked and self._runs.get(run.record.id) is run and run.run_in != "prepared":
                self._lose(run)

    async def flush(self) -> None:
        """Hand what has ended to the store now. When the store raises, everything is kept for the next try."""
        self._written.clear()  # what comes from here on, while the store is waited for, sets it again
        self._line_up_successes()
        if self._to_mark or self._told:
            await self._tell_progress()
        if self._outbox:  # and not what ends meanwhile: that gathers again
            batch = self._outbox[:]
            if self._told:  # told while the store was waited for; after the end it would be refused
                await self._tell_progress()
            accepted = await self._store.finish([finish for finish, _ in batch])
            del self._outbox[: len(batch)]
            for (_, record), was_accepted in zip(batch, accepted, strict=True):
                if self._suspect is not None and record is self._suspect.record:
                    self._next_suspect()  # not before: the end of the last one is safe from it now
                if not was_accepted:
                    logger.warning("the end of job %s came too late: it has another owner or was removed", record.id)
                elif record.schedule is not None:
                    self.on_schedule_job_end(record.schedule)
        while self._leases_back:
            back = self._leases_back[:]
            await self._store.release(back)
            del self._leases_back[: len(back)]
        self.changed.set()

    @property
    def has_unwritten(self) -> bool:
        """Whether ends of attempts wait for the store."""
        return bool(self._outbox or self._succeeded or self._leases_back or self._told)

    # -- the watchdog -----------------------------------------------------------------------------------------------

    def _tell_held(self, run: JobRun, late: float, hold: Hold) -> None:
        run.late_because = f"the loop was held by {hold}"
        # One hold may make thousands of jobs late: a warning for each task says it, the stack with the first of them.
        if self._told_hold != hold.number:
            self._told_hold, self._told_tasks = hold.number, set()
        stack = f"\n{hold.stack}" if hold.stack and not self._told_tasks else ""
        level = logging.DEBUG if run.task.name in self._told_tasks else logging.WARNING
        self._told_tasks.add(run.task.name)
        logger.log(
            level, "%s starts %.1f s late: %s%s", run.describe(), late, run.late_because, stack, extra=run.extra()
        )

    def culprit(self, task: asyncio.Task[Any] | None, variables: Variables | None) -> JobRun | None:
        """Return the attempt whose code a task runs: a worker's task, or one that a job has started. For any thread."""
        run = self._workers.run_of(task)
        if isinstance(run, JobRun):
            return run
        context = None if variables is None else variables.get(_current)
        return None if context is None else self._runs.get(context.job_id)

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

    def progress_of(self, job_id: str) -> Progress | None:
        """Return what the attempt under way here has told of its progress; None: there is none, or it has not."""
        run = self._runs.get(job_id)
        return None if run is None else progress_of(run.context_)

    def cancel_asked(self, job_ids: Sequence[str]) -> None:
        """Hear from the store that somebody wants jobs cancelled which this process holds."""
        for job_id in job_ids:
            self.cancel_here(job_id)

    def leases_held(self, tokens: Mapping[str, int]) -> None:
        """Hear which jobs this worker has, as the store knows: what runs here beside those has been taken away."""
        for job_id, run in list(self._runs.items()):
            if tokens.get(job_id) != run.record.token:
                self._lose(run)

    def _lose(self, run: JobRun) -> None:
        """End an attempt whose job another process has by now; nobody is told, since the job goes on there."""
        if run.stop_reason is not None or run.is_complete:
            return
        logger.warning(
            "%s is cancelled here: its lease was over, and the job was taken away; it goes on elsewhere, if at all",
            run.describe(),
            extra=run.extra(),
        )
        if run.phase == WAITING:
            run.stop_reason = "lost"
            self._workers.cancel(run)
        else:
            self._workers.interrupt(run, "lost")

    def schedules_changed(self) -> None:
        """Hear from the store that another process has changed schedules."""
        self.on_schedules_changed()

    def cancel_here(self, job_id: str) -> bool:
        """Cancel an attempt that this process holds."""
        run = self._runs.get(job_id)
        return run is not None and self._workers.cancel(run)

    async def end_of(self, job_id: str) -> tuple[JobRecord, BaseException | None]:
        """Wait until a job has ended.

        Returns:
            The job as the store has it then, and the exception it raised, where that was in this process.

        Raises:
            JobError: What this process knows sooner than the store.
            UnknownJob: There is no such job.
        """
        if self._has_stopped:
            return await self._end_before_the_stop(job_id), None
        finished = self._store.finished(job_id)
        waiter = self._waiters.get(job_id)
        if waiter is None:
            waiter = self._waiters[job_id] = Waiter()
        waiter.futures.append(finished)
        try:
            record = await finished
        except BaseException:
            if not finished.cancel() and not finished.cancelled():
                finished.exception()  # it is seen, also when this was cancelled at the same moment
            raise
        finally:
            waiter.futures.remove(finished)
            if not waiter.futures:
                del self._waiters[job_id]
        return record, waiter.error

    async def _end_before_the_stop(self, job_id: str) -> JobRecord:
        """Return a job that has ended. Of another's end nobody here would hear: waiting for it would be for ever."""
        record = await self._store.job(job_id)
        if not record.has_ended:
            raise JobCancelled(job_id, record.task, STOPPED)
        return record

    def end_waiting(self) -> None:
        """Tell everybody who still waits that this app has stopped."""
        self._has_stopped = True
        self._reports.close()
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        for job_id, waiter in self._waiters.items():
            waiter.tell(JobCancelled(job_id, "?", STOPPED))


def fingerprint(task: AnyTask) -> str:
    """Return the fingerprint of a task's signature; of one that cannot be read, a word for that."""
    try:
        return task.codec.fingerprint
    except InvalidPayload:
        return "unreadable"


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


def _after(run: JobRun, outcome: Outcome, error: BaseException | None) -> str:
    """Return what to say of a function that has not returned in the end, whose job had succeeded before."""
    if error is None or isinstance(error, asyncio.CancelledError):
        return "was cut off" if outcome is Outcome.CANCELLED else f"ended as {outcome}"
    told = describe_exception(error).without(run.secrets())
    return f"raised {told.type}: {told.message}"


def _ignore(name: str) -> None:
    """Nobody listens."""


def _ignore_all() -> None:
    """Likewise."""


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
