"""The app: tasks and schedules, and what runs them. It starts, drains and stops the parts, and has no rules of its own.

    app = App()

    @app.every("30s")
    async def poll() -> None: ...

    async with app: ...          # or FastAPI(lifespan=app.lifespan), app.run(), `tickwork run module:app`

The way of a job: a schedule or `enqueue` makes it, the store keeps it, the dispatcher claims it and fills the workers'
buffer, a worker runs it, the dispatcher writes its end to the store, and whoever waits hears of it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from .clock import SystemClock, virtual_loops
from .context import _current
from .dispatch import Dispatcher, fingerprint, value_of
from .durations import seconds
from .errors import (
    DuplicateName,
    InvalidOption,
    InvalidPayload,
    NotRunning,
    NotTransactional,
    StoreUnavailable,
    UnknownTask,
)
from .events import AppStarted, AppStopping, Event, Events, JobFailed, LoopHeld
from .handle import Job
from .health import Health, fleet_problems, staleness
from .jobs import JobState, NewJob, new_id
from .options import as_executor, positive
from .policies import MAX_DEATHS
from .retention import Retention, retention
from .roles import queues_of, role_of
from .runners.options import processes_of
from .scheduler import Entry, Scheduler
from .schedules import Schedules
from .shield import is_meant_for_us, to_its_end
from .siblings import warn_of_workers
from .stores.memory import MemoryStore
from .stores.views import Vitals
from .tasks import AS_IT_SAYS, Declarations, EnqueueOptions, ScheduleSpec, Task, check_batch_id
from .workers import Workers
from .zones import zone_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path
    from typing import Self

    from .clock import Clock
    from .context import Context
    from .holds import Hold
    from .job_batch import JobBatch
    from .job_list import Jobs
    from .jobs import JobRecord
    from .roles import Role
    from .runners.executor import ExecutorRunner
    from .runners.options import Processes
    from .runners.process import ProcessRunner
    from .stores.base import ScheduleRow, Store
    from .stores.postgres_target import Target
    from .tasks import AnyTask
    from .testing import Testing
    from .watchdog import Watchdog

logger: logging.Logger = logging.getLogger("tickwork.app")

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")

MIN_BLOCK_WARN_SECONDS = 0.01
"""Below, the watchdog would ask the loop more than 500 times a second while jobs run."""

LOOK_SECONDS = 0.25
"""How often whoever waits for the end of all jobs looks for those of other processes."""

SURE_SECONDS = 0.05
"""For so long there must be nothing to do before a file or a database counts as idle: another attempt may be due."""

IDLE = (JobState.QUEUED, JobState.RUNNING)
"""With no job in these states an app is idle."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop found and did.

    Attributes:
        unstarted: How many claimed jobs were given back before they began.
        cut: Task and job id of those that had to be cancelled, or left behind in a thread.
    """

    unstarted: int = 0
    cut: list[str] = field(default_factory=list)


class App(Declarations):
    """Tasks and schedules, a scheduler and N workers.

    Args:
        url: Where jobs are kept: "sqlite:///jobs.db", a file that processes on one host share, its path resolved now;
            "postgresql://user@host/database", which processes on many hosts share; None: in memory.
        tasks: Modules and tasks to include.
        workers: How many jobs run at the same time.
        timezone: The zone of cron expressions and times of day that name none; an IANA key.
        lifespan: Opens what jobs need, as `ctx.state`: called with the app, returns an async context manager.
        drain_seconds: How long running jobs may go on when the app stops.
        cancel_seconds: How long a cancelled job may take to end before it is abandoned.
        max_queued: How many jobs may wait; beyond that `enqueue` waits.
        max_deaths: A job under which this many processes died is parked: it is the likely reason.
        keep_results: How long results are kept, in a file.
        keep_jobs: How long jobs that have ended are kept, in a file; parked ones stay.
        keep_ledger: How long the ledger is kept, in a file. In memory all three are counted: the last 1,000.
        processes: The process pool: how many child processes, or `Processes(...)`; None: one for each processor.
        executor: Where tasks with `run_in="executor"` run: any `concurrent.futures.Executor`, such as a Dask client's
            `get_executor()`. The app does not shut it down. A `lifespan` may set `app.executor` instead.
        role: What this process does: "all"; "worker": it fires no schedules; "scheduler": it runs no jobs; "client": it
            only enqueues and awaits what others run, as in `client`. In tests it does all.
        queues: From which queues it claims jobs; None: from all.
        block_warn_seconds: How long something may hold the event loop before a warning names its line, at least 10 ms;
            None: nobody looks who holds it, and no late start is explained.
        clock: Tells the time; None: the real one.

    Raises:
        InvalidOption: An option out of its range.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tasks: Iterable[ModuleType | AnyTask] = (),
        workers: int = 20,
        timezone: str = "UTC",
        lifespan: Callable[[App], Any] | None = None,
        drain_seconds: float | str | timedelta = 10.0,
        cancel_seconds: float | str | timedelta = 5.0,
        max_queued: int = 100_000,
        max_deaths: int = MAX_DEATHS,
        keep_results: float | str | timedelta = "1h",
        keep_jobs: float | str | timedelta = "7d",
        keep_ledger: float | str | timedelta = "30d",
        processes: int | Processes | None = None,
        executor: Executor | None = None,
        role: str = "all",
        queues: Iterable[str] | None = None,
        block_warn_seconds: float | str | timedelta | None = 0.25,
        clock: Clock | None = None,
    ) -> None:
        self._target: Target | None = None if url is None else _postgres_target(url)
        self._path: Path | None = None if url is None or self._target is not None else sqlite_path(url)
        self.workers: int = positive("workers", workers)
        self.role: Role = role_of(role, is_shared=url is not None)
        self.queues: tuple[str, ...] | None = queues_of(queues, is_shared=url is not None)
        self.timezone: str = zone_key(timezone)
        self.drain_seconds: float = seconds(drain_seconds, "drain_seconds", allow_zero=True)
        self.cancel_seconds: float = seconds(cancel_seconds, "cancel_seconds", allow_zero=True)
        self.max_queued: int = positive("max_queued", max_queued)
        self.max_deaths: int = positive("max_deaths", max_deaths)
        self.retention: Retention = retention(keep_results, keep_jobs, keep_ledger, is_kept=url is not None)
        self.process_options: Processes = processes_of(processes)
        self._executor: Executor | None = as_executor("executor", executor)
        self.block_warn_seconds: float | None = None
        if block_warn_seconds is not None:
            self.block_warn_seconds = seconds(block_warn_seconds, "block_warn_seconds", minimum=MIN_BLOCK_WARN_SECONDS)
            from . import watchdog  # noqa: F401  # here, where no loop runs as a rule: an import would block it
        if lifespan is not None and not callable(lifespan):
            raise InvalidOption("lifespan", "a function that returns an async context manager", lifespan)
        self._user_lifespan = lifespan
        self._clock: Clock = clock or SystemClock()
        self._random = Random()  # draws the jitter
        self._tasks: dict[str, AnyTask] = {}
        self._names: dict[str, AnyTask] = {}
        self._entries: dict[str, Entry] = {}
        self._start_hooks: list[Callable[..., Any]] = []
        self._events = Events()
        self._on_attempt_failed: Callable[[Context, BaseException], None] = _ignore
        self.schedules: Schedules = Schedules(self)
        self._handles: WeakValueDictionary[str, Job[Any]] = WeakValueDictionary()
        self._batches: WeakValueDictionary[str, JobBatch[Any]] = WeakValueDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._store: Store | None = None
        self._worker: str | None = None
        """The name of this worker process, while it works."""
        self._engine: Workers | None = None
        self._dispatcher: Dispatcher | None = None
        self._scheduler: Scheduler | None = None
        self._watchdog: Watchdog | None = None
        self._loops: set[asyncio.Task[Any]] = set()
        self._resources = AsyncExitStack()
        self._failed: asyncio.Future[BaseException] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._stopping: asyncio.Future[Stopped] | None = None
        self._is_client = False
        self._testing: Testing | None = None
        self.include(*tasks)

    # -- tasks ------------------------------------------------------------------------------------------------------

    def include(self, *tasks: ModuleType | AnyTask) -> None:
        """Take in tasks, or all tasks of modules, with their schedules.

        Raises:
            DuplicateName: Another task or schedule has the name.
            NotRunning: The app has started.
        """
        for entry in tasks:
            if isinstance(entry, Task):
                self._register(entry)
            elif isinstance(entry, ModuleType):
                for value in list(vars(entry).values()):
                    # What a module imported from another belongs there, unless it is included by name.
                    if isinstance(value, Task) and value.fn.__module__ == entry.__name__:
                        self._register(value)
            else:
                raise InvalidOption(
                    "tasks", "modules and tasks", entry, remedy="decorate the function with @task() or @every(...)"
                )

    def _made(self, task: AnyTask, spec: ScheduleSpec | None) -> None:
        if self._tasks.get(task.name) is not task:
            self._register(task)
        elif spec is not None:
            if self._loop is not None:
                raise NotRunning("the app has started; add a schedule with `await app.schedules.add(...)`")
            self._declare(task, spec)

    def _register(self, task: AnyTask) -> None:
        if self._tasks.get(task.name) is task:
            return
        if self._loop is not None:
            raise NotRunning(f"task {task.name!r} cannot be included: the app has started")
        for name in (task.name, *task.aliases):
            if name in self._names:
                raise DuplicateName("task", name, 'give one of them another: name="..."')
        declared: list[str] = []
        try:
            for spec in task.schedules:
                declared += [self._declare(task, spec).name]
        except BaseException:
            for name in declared:
                del self._entries[name]
            raise
        self._tasks[task.name] = task
        self._names.update(dict.fromkeys((task.name, *task.aliases), task))

    def _declare(self, task: AnyTask, spec: ScheduleSpec) -> Entry:
        """Keep a schedule; refuse it before anything has changed."""
        name = spec.name or task.name
        if name in self._entries:
            raise DuplicateName("schedule", name, 'give one of them another: name="..."')
        try:
            task.codec.encode((), {})
        except InvalidPayload as error:
            raise InvalidOption(
                "task", "callable without arguments by a schedule", task.name, remedy=str(error)
            ) from error
        entry = Entry(name, task, spec.in_timezone(self.timezone), spec.policies)
        for warning in entry.trigger.warnings:
            logger.warning("schedule %s: %s", name, warning)
        self._entries[name] = entry
        return entry

    def _known(self, task: AnyTask) -> AnyTask:
        if self._tasks.get(getattr(task, "name", "")) is not task:
            raise UnknownTask(getattr(task, "name", task), known=list(self._tasks))
        return task

    @property
    def tasks(self) -> Mapping[str, AnyTask]:
        """The tasks of the app, by name."""
        return dict(self._tasks)

    def on_start(self, fn: F) -> F:
        """Register a function, called with no argument when the app has started. One that raises stops the start."""
        self._start_hooks.append(fn)
        return fn

    def on_error(self, fn: F) -> F:
        """Register a function, called with (context, exception) for each failed attempt; see `on` for how."""

        async def hear(event: JobFailed) -> None:
            await fn(event.context, event.error)

        def hear_in_thread(event: JobFailed) -> Any:
            return fn(event.context, event.error)

        self._events.on([JobFailed], functools.wraps(fn)(hear if inspect.iscoroutinefunction(fn) else hear_in_thread))
        return fn

    def on(self, *kinds: type[Event]) -> Callable[[F], F]:
        """Call the decorated function with each event of these kinds.

            @app.on(events.JobFailed)
            async def tell(event: events.JobFailed) -> None: ...

        A coroutine function runs on the loop, a plain one in a thread, each with one event after the other and off the
        path of what it hears of. What it raises is logged. One for which 1,000 events wait loses further ones, and
        the log says how many.

        Args:
            *kinds: Classes of `tickwork.events`; those derived from them count, too.

        Raises:
            InvalidOption: Something else than an event, or nothing, is given.
        """
        if not kinds or not all(isinstance(kind, type) for kind in kinds):
            raise InvalidOption("event", "an event", kinds, remedy="such as @app.on(events.JobFailed)")

        def register(fn: F) -> F:
            self._events.on(kinds, fn)
            return fn

        return register

    # -- jobs -------------------------------------------------------------------------------------------------------

    async def enqueue(self, task: Task[Any, Any, P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job of a task in this app; see `Task.enqueue`.

        Raises:
            UnknownTask: The app does not include the task.
        """
        job: Job[R] = await self.enqueue_task(task, args, kwargs, AS_IT_SAYS, wait=True)
        return job

    async def enqueue_here(self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[Any]:
        """Enqueue a job that this process takes for itself at once; what `tickwork trigger` does.

        Raises:
            UnknownTask: The app does not include the task.
            NotRunning: The app has not started, or is a client, which runs nothing.
        """
        self._store_now()
        if self._is_client:
            raise NotRunning("a client runs no jobs; use app.enqueue(task, ...)")
        assert self._dispatcher is not None
        job = self._new_job(self._known(task), args, kwargs, AS_IT_SAYS)
        return self._handle_of(job, await self._dispatcher.take(job))

    async def enqueue_task(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], options: EnqueueOptions, *, wait: bool
    ) -> Job[Any]:
        """Enqueue a job with options; what `Task.enqueue` and its kin call."""
        if options.connection is not None:
            return (await self.enqueue_calls(task, [(args, kwargs)], options, wait=wait))[0]
        store = self._store_now()
        self._expect_taking(task)
        job = self._new_job(task, args, kwargs, options)
        # A job that waits for room may wait for itself: the worker that could make room is its own.
        (record,) = await store.enqueue([job], wait=wait and not self._is_inside())
        return self._handle_of(job, record)

    async def enqueue_calls(
        self,
        task: AnyTask,
        calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        options: EnqueueOptions,
        *,
        wait: bool,
    ) -> list[Job[Any]]:
        """Enqueue a job for each call, all or none; what `Task.enqueue_many` calls."""
        store = self._store_now()
        self._expect_taking(task)
        jobs = [self._new_job(task, args, kwargs, options) for args, kwargs in calls]
        if options.connection is not None:
            self._expect_transactional(store, "connection=")
            records = await store.enqueue_within(options.connection, jobs)
            return [self._promised(job, record) for job, record in zip(jobs, records, strict=True)]
        records = await store.enqueue(jobs, wait=wait and not self._is_inside())
        return [self._handle_of(job, record) for job, record in zip(jobs, records, strict=True)]

    def _expect_transactional(self, store: Store, what: str) -> None:
        """Refuse what takes a transaction in the database of the jobs, where there is none."""
        if not store.capabilities.transactional:
            place = "a file" if self._path is not None and self._testing is None else "memory"
            tests = "under app.testing() " if self._testing is not None and self._target is not None else ""
            raise NotTransactional(what, f"{tests}this one keeps them in {place}")

    def _expect_taking(self, task: AnyTask) -> None:
        """Refuse jobs of a task that is not this app's, or that would be lost."""
        self._known(task)
        if self._stopping is not None and not self._store_now().capabilities.durable:
            raise NotRunning(
                f"the app is stopping: a job of {task.name!r} would not run, and memory keeps it for nobody"
            )
        if self._watchdog is not None:
            self._watchdog.touch()

    async def map_task(
        self,
        task: AnyTask,
        items: Iterable[Any] | AsyncIterable[Any],
        call_of: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]],
        options: EnqueueOptions,
        *,
        batch_id: str | None,
    ) -> JobBatch[Any]:
        """Enqueue a job for each item as one batch; what `Task.map` and its kin call."""
        from .job_feed import Feed  # what most runs of an app never need

        if options.connection is not None:
            remedy = "a batch is enqueued part by part; use enqueue_many"
            raise InvalidOption("connection", "left out for a batch", options.connection, remedy=remedy)
        self._store_now()
        self._expect_taking(task)
        made = new_id(self._clock.now()) if batch_id is None else check_batch_id(batch_id)
        batch = self._batch_handle(made, task.name)  # which lets memory keep what ends before the last is enqueued
        await Feed(self, task, options, batch, call_of).take(items, may_be_there=batch_id is not None)
        return batch

    def _batch_handle(self, batch_id: str, task: str) -> JobBatch[Any]:
        """Return the handle of a batch; while somebody holds it, the memory store keeps its jobs."""
        handle = self._batches.get(batch_id)
        if handle is None:
            from .job_batch import JobBatch

            handle = self._batches[batch_id] = JobBatch(self, batch_id, task)
        return handle

    def _new_job(self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], options: EnqueueOptions) -> NewJob:
        now = self._clock.now()
        run_at = options.run_at or (now if options.delay is None else now + timedelta(seconds=options.delay))
        payload = task.codec.encode(args, kwargs)  # refuses what does not fit
        key, gates = (None, ()) if task.labels is None else task.labels.of(args, kwargs, key=options.key)
        return NewJob(
            id=new_id(now),
            task=task.name,
            payload=payload,
            run_at=run_at,
            queue=options.queue or task.options_.queue,
            priority=task.options_.priority if options.priority is None else options.priority,
            is_once=task.options_.delivery == "at_most_once",
            key=options.key or key,
            gates=gates,
        )

    def _handle_of(self, job: NewJob, record: JobRecord) -> Job[Any]:
        """Return the handle of what was enqueued: of a new job, or of the unfinished one that has its key."""
        handle = self._handle(record.id, record.task)
        return handle if record.id == job.id else Job(self, record.id, record.task, is_new=False, first=handle)

    def _promised(self, job: NewJob, record: JobRecord) -> Job[Any]:
        """Return the handle of what a transaction enqueues, which is not there before its commit."""
        handle = self._handle_of(job, record)
        handle.is_promised = True  # one with the same key may be of the same transaction
        return handle

    def _handle(self, job_id: str, task: str) -> Job[Any]:
        """Return the handle of a job; while somebody holds it, the memory store keeps the job."""
        if self._path is not None:
            return Job(self, job_id, task)
        handle = self._handles.get(job_id)
        if handle is None:
            handle = self._handles[job_id] = Job(self, job_id, task)
        return handle

    def _is_inside(self) -> bool:
        """Return whether the calling code belongs to a job that runs here."""
        context = _current.get(None)
        return context is not None and self._dispatcher is not None and self._dispatcher.holds(context.job_id)

    def enqueue_from_thread(
        self, task: AnyTask, args: tuple[Any, ...], kwargs: dict[str, Any], options: EnqueueOptions
    ) -> Job[Any]:
        """Enqueue from another thread, waiting there."""
        store, loop = self._store_now(), self._loop
        assert loop is not None
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            raise NotRunning("enqueue_sync would block the app's own loop; use `await task.enqueue(...)` here")
        if options.connection is not None:  # which is this thread's
            self._expect_transactional(store, "connection=")
            self._known(task)
            job = self._new_job(task, args, kwargs, options)
            return self._promised(job, store.enqueue_within_sync(options.connection, [job], loop)[0])
        future = asyncio.run_coroutine_threadsafe(self.enqueue_task(task, args, kwargs, options, wait=True), loop)
        return future.result()

    async def job(self, job_id: str) -> Job[Any]:
        """Return the handle of a job by its id.

        Raises:
            UnknownJob: The store does not know it.
        """
        record = await self._store_now().job(job_id)
        return self._handle(record.id, record.task)

    async def result_of(self, job_id: str, timeout: float | str | timedelta | None) -> Any:
        """Wait for a job's end and return its value; see `Job.result`."""
        self._store_now()
        if timeout is None:  # no timer for those who have all the time in the world
            return await self._value_of(job_id)
        limit = seconds(timeout, "timeout", allow_zero=True)
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                return await self._value_of(job_id)
        except TimeoutError:
            if timer.expired():
                raise TimeoutError(f"job {job_id} has not ended within {limit:g} s; it goes on") from None
            raise

    async def _value_of(self, job_id: str) -> Any:
        record, original = await self._end_of(job_id)
        return value_of(record, self._names.get(record.task), original)

    async def _end_of(self, job_id: str) -> tuple[JobRecord, BaseException | None]:
        """Wait for a job's end; see `Dispatcher.end_of`."""
        if self._dispatcher is None:  # it only looks
            return await self._store_now().finished(job_id), None
        try:
            ended = await self._dispatcher.end_of(job_id)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._saw(job_id)
            raise
        self._saw(job_id)
        return ended

    def _saw(self, job_id: str) -> None:
        if self._testing is not None:
            self._testing.saw(job_id)

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, waiting or running; see `Job.cancel`."""
        record = (await self._store_now().cancel([job_id]))[0]
        assert self._dispatcher is not None
        if record is None:
            return False
        if record.schedule is not None and self._scheduler is not None:
            self._scheduler.job_ended(record.schedule)
        if record.state is JobState.RUNNING:
            # What another process runs, that one cancels: it hears of it from the store.
            return self._dispatcher.cancel_here(job_id) or record.worker != self._worker
        return record.state is JobState.CANCELLED

    @property
    def jobs(self) -> Jobs:
        """The jobs of the app: look at them, retry, cancel and delete them, pause their queues."""
        from .job_list import Jobs  # what most runs of an app never need

        return Jobs(self)

    async def record_of(self, job_id: str) -> JobRecord:
        """Return what the store holds of a job."""
        return self._overlaid(await self._store_now().job(job_id))

    def _overlaid(self, record: JobRecord) -> JobRecord:
        """Return a record with what only this process knows, where the job runs here: when it began, how far it is."""
        begun = None if self._dispatcher is None else self._dispatcher.begun_at(record.id)
        if begun is None or self._dispatcher is None:
            return record
        told = self._dispatcher.progress_of(record.id)
        return replace(record, started_at=begun, progress=told or record.progress)

    async def health(self, *, max_wait: float | str | timedelta | None = None) -> Health:
        """Return whether the app does what it should: its scheduler turns, its schedules succeed when expected.

        Where processes share a store, it tells that of all of them, in whichever it is asked.

        Args:
            max_wait: Up to how long jobs may be due before they begin; None: nobody looks, for it takes a count of all
                that wait.

        Raises:
            InvalidOption: `max_wait` is no length of time.
            NotRunning: The app is not running.
        """
        store, now, scheduler, dispatcher = self._store_now(), self._clock.now(), self._scheduler, self._dispatcher
        wait = None if max_wait is None else seconds(max_wait, "max_wait", allow_zero=True)
        rows: dict[str, ScheduleRow] = {}
        fleet: dict[str, Any] = {}
        store_error: BaseException | None = None
        try:
            rows = {row.name: row for row in await store.schedules(list(self._entries))}
            fleet = await self._look_at_fleet(store, wait)
        except BaseException as error:
            if is_meant_for_us(error):
                raise
            store_error = error
        if dispatcher is not None:
            store_error = store_error or dispatcher.claim_error or dispatcher.finish_error
        if scheduler is not None:
            store_error = store_error or scheduler.store_error
        expected = [
            (entry.name, rows[entry.name], entry.policies.expect_within)
            for entry in self._entries.values()
            if entry.name in rows and entry.policies.expect_within is not None
        ]
        age, most = self._scheduler_age()
        return Health(
            scheduler_age=age,
            max_scheduler_age=most,
            stale=tuple(found for name, row, within in expected if (found := staleness(name, row, within, now))),
            broken=tuple(entry.name for entry in self._entries.values() if entry.broken is not None),
            died=None if self._failed is None or not self._failed.done() else self._failed.result(),
            store_error=store_error,
            running=len(self.running),
            **fleet,
        )

    async def _look_at_fleet(self, store: Store, max_wait: float | None) -> dict[str, Any]:
        """Return what the store tells of the other processes, and of the jobs that wait."""
        found: dict[str, Any] = {"max_wait_seconds": max_wait}
        now = self._clock.now()
        if store.capabilities.multi_process:
            workers = await store.workers()
            problems = fleet_problems(workers, now, has_schedules=bool(self._entries))
            found |= {"workers": tuple(workers), "fleet": tuple(problems)}
        if max_wait is not None:
            dues = [queue.oldest_due_at for queue in await store.queues() if queue.paused_at is None]
            ages = [(now - due).total_seconds() for due in dues if due is not None]
            found["oldest_due_seconds"] = max(ages, default=None)
        return found

    def _vitals(self) -> Vitals:
        """Return how this process does, as far as the app knows."""
        age, most = self._scheduler_age()
        if age is None and self._scheduler is not None:  # it is about to look for the first time
            age = 0.0
        return Vitals(
            running=len(self.running), scheduler_age=age, max_scheduler_age=None if math.isinf(most) else most
        )

    def _scheduler_age(self) -> tuple[float | None, float]:
        """Return how long ago the scheduler here last looked, None where there is none; and up to when that is well."""
        scheduler = self._scheduler
        if scheduler is None or scheduler.last_pass_at is None:
            return None, math.inf
        age = (self._clock.now() - scheduler.last_pass_at).total_seconds()
        return age, 2 * self._clock.max_sleep_seconds if scheduler.has_plans else math.inf

    # -- life -------------------------------------------------------------------------------------------------------

    def assign(
        self, *, role: str | None = None, queues: Iterable[str] | None = None, workers: int | None = None
    ) -> None:
        """Say what this process does where that is not what `App(...)` says: what `tickwork run --role` does.

        Args:
            role: See `App`; None: as it is.
            queues: See `App`; None: as they are.
            workers: How many jobs run at the same time; None: as many as before.

        Raises:
            InvalidOption: An option out of its range, or one that makes no sense for an app in memory.
            NotRunning: The app has started.
        """
        self._expect_stopped()
        is_shared = self.is_durable
        self.role = self.role if role is None else role_of(role, is_shared=is_shared)
        self.queues = self.queues if queues is None else queues_of(queues, is_shared=is_shared)
        self.workers = self.workers if workers is None else positive("workers", workers)

    @property
    def path(self) -> Path | None:
        """The file in which jobs are kept; None: they are in memory, or in a database."""
        return self._path

    @property
    def is_durable(self) -> bool:
        """Whether jobs and schedules outlive the process; else they are in memory."""
        return self._path is not None or self._target is not None

    @property
    def executor(self) -> Executor | None:
        """Where tasks with `run_in="executor"` run. It can be set until the app has started, as in its `lifespan`.

        Raises:
            InvalidOption: It is set to something else than a `concurrent.futures.Executor`.
            NotRunning: It is set when workers may have begun to use another.
        """
        return self._executor

    @executor.setter
    def executor(self, executor: Executor | None) -> None:
        if self._loop is not None and self._engine is not None and self._engine.has_started:
            raise NotRunning("the executor cannot be changed: the app has started")
        self._executor = as_executor("executor", executor)

    @property
    def is_running(self) -> bool:
        """Whether the app has started and not begun to stop."""
        return self._store is not None and self._stopping is None

    @property
    def running(self) -> list[str]:
        """Task and job id of the attempts under way here. Another thread may ask."""
        return [] if self._dispatcher is None else [run.describe() for run in self._dispatcher.running]

    @property
    def failed_count(self) -> int:
        """How many attempts have failed since the start."""
        return 0 if self._dispatcher is None else self._dispatcher.failed_count

    def processes(self) -> ProcessRunner:
        """Return the child processes of this app, for batches that share them.

        Raises:
            NotRunning: The app does not run: nobody would end them.
        """
        self._store_now()
        assert self._engine is not None
        return self._engine.processes()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, web_app: Any = None) -> AsyncIterator[dict[str, Any]]:
        """Run beside a web application: `FastAPI(lifespan=app.lifespan)`, `Starlette(lifespan=app.lifespan)`.

        Yields a mapping, as they expect: it becomes `request.state.tickwork`, the app.
        """
        async with self:
            yield {"tickwork": self}

    def run(self, *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> int:
        """Run until SIGINT or SIGTERM, then drain; a second signal means now.

        Returns:
            The exit status: 0 after a clean drain, 3 when the start failed, 4 when jobs had to be cut.
        """
        from .program import run

        return run(self, loop_factory=loop_factory)

    @asynccontextmanager
    async def client(self, web_app: Any = None) -> AsyncIterator[dict[str, Any]]:
        """Only enqueue here, and await what other processes run: `async with app.client(): ...`.

        For a process beside the workers, such as a web service: `FastAPI(lifespan=app.client)`. It fires no schedule
        and claims no job; neither the app's lifespan nor its `on_start` functions are called, which are for jobs.

        Raises:
            NotRunning: The app has started, or keeps its jobs in memory, where no other process runs them.
        """
        if not self.is_durable:
            raise NotRunning(
                "an app in memory has no clients: no other process could run what they enqueue; let it keep its jobs: "
                'App("sqlite:///jobs.db")'
            )
        self._expect_stopped()
        await self._begin(self._start_client())
        try:
            yield {"tickwork": self}
        finally:
            await self.stop()

    async def _start_client(self) -> None:
        self._is_client = True
        store = self._make_store()
        await store.open()
        self._store = store
        self._dispatcher = self._make_dispatcher(store)
        for task in self._tasks.values():
            task.bind(self)

    async def start(self, *, schedules: bool | None = None, claims: bool | None = None) -> None:
        """Open the store and the user's resources, start workers and scheduler, as the role of this process says.

        Args:
            schedules: Fire schedules too; without, the app only runs what is enqueued. None: as the role says.
            claims: Run what anybody has enqueued; without, only what `enqueue_here` gets. In memory, where nobody else
                could run the rest, everything is run. None: as the role says.

        Raises:
            NotRunning: It has started already.
            Exception: Whatever the user's lifespan or an `on_start` function raises; everything is closed again.
        """
        self._expect_stopped()
        role = "all" if self._testing is not None else self.role
        if role == "client" and schedules is None and claims is None:
            await self._begin(self._start_client())
            return
        if schedules is None:
            schedules = role in ("all", "scheduler")
        if claims is None:
            claims = role in ("all", "worker")
        await self._begin(self._start(schedules, claims))
        self._events.emit(AppStarted())
        logger.info(
            "started: %d tasks, %d schedules, %d workers%s",
            len(self._tasks),
            len(self._entries),
            self.workers,
            self._described_part(),
        )

    def _described_part(self) -> str:
        """Return what this process does, where it does not do all."""
        queues = "" if self.queues is None else f", from {', '.join(self.queues)}"
        return queues + ("" if self.role == "all" else f"; role {self.role}")

    def _expect_stopped(self) -> None:
        if self._loop is not None:
            raise NotRunning("the app has started already; one app runs once at a time")

    async def _begin(self, start: Coroutine[Any, Any, None]) -> None:
        """Await a start, and stop what it has begun when it fails."""
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self._stopping = None
        starting = self._starting = self._loop.create_future()
        try:
            await start
        except BaseException:
            self._stopping = asyncio.ensure_future(self._stop(0.0))
            await to_its_end(self._stopping, on_cancel=self.hurry)
            raise
        finally:
            self._starting = None
            starting.set_result(None)

    async def _start(self, schedules: bool, claims: bool) -> None:
        self._worker = f"{os.getpid()}-{os.urandom(4).hex()}"
        store = self._make_store()
        await store.open()
        self._store = store
        await store.set_limits({name: task.limits for name, task in self._names.items()})
        self._dispatcher = self._make_dispatcher(store)
        if not claims and store.capabilities.multi_process:
            self._dispatcher.only = set()
        else:
            self._dispatcher.queues = None if self._testing is not None else self.queues
            await store.register(self._worker, self._fingerprints(store), queues=self._dispatcher.queues)
        store.listen(self._dispatcher)
        self._watchdog = self._dispatcher.watchdog = self._make_watchdog(self._dispatcher)
        if self._user_lifespan is not None:
            self._dispatcher.state = await self._resources.enter_async_context(_opened(self._user_lifespan, self))
        self._check_executor()
        assert self._engine is not None
        self._engine.start()
        for task in self._tasks.values():
            task.bind(self)
        self._supervise(self._dispatcher.write(), "writer")
        self._supervise(self._dispatcher.feed(), "feeder")
        if schedules:
            self._scheduler = Scheduler(
                store,
                self._clock,
                self._dispatcher.cancel_here,
                events=self._events,
                watchdog=self._watchdog,
                random=self._random,
            )
            self._scheduler.settle = self._dispatcher.settle
            self._scheduler.let_begin = self._dispatcher.let_begin
            self._scheduler.make_ready = self._dispatcher.make_ready
            self._dispatcher.ready = self._scheduler.ready
            self._dispatcher.on_schedule_job_end = self._scheduler.job_ended
            self._dispatcher.on_schedules_changed = self._scheduler.schedules_changed
            await self._scheduler.add(*self._entries.values())
            self._supervise(self._scheduler.run(), "scheduler")
            if self._entries and self._testing is None and not store.capabilities.multi_process:
                warn_of_workers(os.environ, len(self._entries))
        if store.capabilities.multi_process:
            from .pulse import pulse  # what an app in memory never needs

            self._supervise(pulse(store, self._worker, self._clock, self._vitals), "pulse")
        for hook in self._start_hooks:
            if inspect.isawaitable(made := hook()):
                await made

    def _check_executor(self) -> None:
        wanting = sorted(task.name for task in self._tasks.values() if task.place == "executor")
        if wanting and self._executor is None:
            raise InvalidOption(
                "executor",
                f'given for run_in="executor" of {", ".join(wanting)}',
                None,
                remedy="use App(executor=...), or set app.executor in the lifespan",
            )

    def _fingerprints(self, store: Store) -> dict[str, str]:
        """Return the names of the tasks, with the fingerprints of their signatures where a store keeps jobs for long.

        What memory holds has no former signatures, and reading one takes a millisecond.
        """
        is_kept = store.capabilities.durable
        return {name: fingerprint(task) if is_kept else "" for name, task in self._names.items()}

    def _make_dispatcher(self, store: Store) -> Dispatcher:
        self._engine = Workers(
            self.workers,
            self.workers,
            cancel_seconds=self.cancel_seconds,
            time=self._clock.monotonic,
            call_later=self._clock.call_later,
            processes=self.process_options.runner,
            executor=self._make_executor,
        )
        return Dispatcher(
            store,
            self._engine,
            self._clock,
            self._names,
            name=self._worker or "",
            max_deaths=self.max_deaths,
            events=self._events,
            on_error=self._on_attempt_failed,
        )

    @asynccontextmanager
    async def looking(self, instead: str = 'await app.schedules["name"].why("03:00")') -> AsyncIterator[Self]:
        """Open the app's store to look into it, without workers or schedules: what `tickwork history` does.

        Inside the block, `schedules[name].history()`, `.why()`, `job(id)` and all of `jobs` can be asked.

        Args:
            instead: What to write where an app in memory runs; for the message that says so.

        Raises:
            NotRunning: The app has started, or keeps its jobs in memory, where another process cannot look.
            StoreUnavailable: The file cannot be read, or there is none yet.
        """
        if self._store is not None:
            raise NotRunning("the app has started; ask it directly")
        store = self._make_store()
        if not store.capabilities.durable:
            raise NotRunning(
                "this app keeps its jobs and its ledger in memory, inside of the process that runs it: ask there, with "
                f'{instead}, or let the app keep them: App("sqlite:///jobs.db")'
            )
        if self._path is not None and not await asyncio.to_thread(self._path.exists):
            remedy = "the app has not run yet, or was started in another folder"
            raise StoreUnavailable(str(self._path), "there is no such file", remedy)
        await store.open()
        self._store = store
        try:
            yield self
        finally:
            self._store = None
            await store.close()

    def testing(
        self,
        start: str | datetime | None = None,
        *,
        tz: str | None = None,
        raise_errors: bool = True,
    ) -> Testing:
        """Run the app inside an `async with` block of a test, on virtual time: see `tickwork.testing`.

        Args:
            start: The wall time at the beginning: an aware datetime, or one without an offset, or an ISO 8601 text,
                which are read in `tz`; None: 2026-01-01T00:00 UTC.
            tz: The IANA key of the zone in which times are given and shown; None: the app's.
            raise_errors: Errors of jobs that nobody awaited are raised in the test.

        Raises:
            InvalidInstant: `start` cannot be read, or clocks never show it in `tz`.
            UnknownTimezone: There is no such zone.
        """
        from .testing import Testing

        return Testing(self, start, self.timezone if tz is None else tz, raise_errors=raise_errors)

    def _supervise(self, work: Any, name: str) -> None:
        """Run a loop of the app. Its death is the app's: loud, and the end of `run`."""
        task = asyncio.ensure_future(work)
        task.set_name(f"tickwork-{name}")
        self._loops.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            self._loops.discard(task)
            if task.cancelled() and task.cancelling():
                return
            # A cancellation that nobody asked for ends it like any other error.
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            error = error or RuntimeError(f"the {name} returned")
            logger.critical("the %s of the app died; the app no longer works", name, exc_info=error)
            if self._failed is not None and not self._failed.done():
                self._failed.set_result(error)

        task.add_done_callback(ended)

    def _make_store(self) -> Store:
        """Return the store to open; what a test may ask for is in memory and keeps everything."""
        if self._testing is not None:
            return MemoryStore(
                self._clock, max_queued=self.max_queued, max_deaths=self.max_deaths, keep=self._testing.keep
            )
        if self._path is not None:
            from .stores.sqlite import SQLiteStore  # many apps keep their jobs in memory

            return SQLiteStore(self._path, self._clock, **self._store_options())
        if self._target is not None:
            from .stores.postgres import PostgresStore
            from .stores.postgres_link import PATIENCE_SECONDS

            patience = PATIENCE_SECONDS if self._loop is not None else 0.0  # who only looks wants to know now
            return PostgresStore(self._target, self._clock, patience_seconds=patience, **self._store_options())
        return MemoryStore(
            self._clock,
            max_queued=self.max_queued,
            max_deaths=self.max_deaths,
            is_held=self._handles.__contains__,
            is_batch_held=self._batches.__contains__,
        )

    def _store_options(self) -> dict[str, Any]:
        """Return what stores in a file and in a database have in common."""
        return {
            "worker": self._worker,
            "max_queued": self.max_queued,
            "max_deaths": self.max_deaths,
            "keep_results": self.retention.results,
            "keep_jobs": self.retention.jobs,
            "keep_ledger": self.retention.ledger,
        }

    def _make_executor(self) -> ExecutorRunner:
        from .runners.executor import ExecutorRunner  # most apps have none

        assert self._executor is not None, "the start has checked it"
        return ExecutorRunner(self._executor)

    def _make_watchdog(self, dispatcher: Dispatcher) -> Watchdog | None:
        """Start the watchdog, unless it is switched off. On virtual time a second held is none."""
        loop = self._loop
        if self.block_warn_seconds is None or not isinstance(self._clock, SystemClock) or loop in virtual_loops:
            return None
        assert loop is not None
        from .watchdog import Watchdog

        watchdog = Watchdog(
            loop,
            block_warn_seconds=self.block_warn_seconds,
            holder=dispatcher.culprit,
            clock=self._clock,
            on_hold=self._hear_hold,
        )
        watchdog.start()
        return watchdog

    def _hear_hold(self, hold: Hold) -> None:
        self._events.emit(
            LoopHeld(
                what=hold.what,
                seconds=hold.seconds or 0.0,
                job_id=hold.job_id,
                line=hold.line,
                stack=hold.stack,
            )
        )

    async def stop(self, drain_seconds: float | str | timedelta | None = None) -> Stopped:
        """Drain and stop: fire and claim no more, give unstarted jobs back, let running ones end, cancel the rest.

        Args:
            drain_seconds: How long running jobs may go on; None: as the app says. Cancelled ones get
                `cancel_seconds`; what ignores even that is abandoned.

        Returns:
            What was given back and what was cut. A second call during a stop waits for the same one; after it, there
            is nothing to do.

        A cancelled stop hurries: running jobs are cancelled at once, and it ends as soon as they have.
        """
        limit = self.drain_seconds
        if drain_seconds is not None:
            limit = seconds(drain_seconds, "drain_seconds", allow_zero=True)
        if self._is_inside():
            raise NotRunning(
                "a job cannot wait for its own app to stop; let it end, or start a task that stops the app"
            )
        if self._starting is not None:
            await asyncio.wait([self._starting])  # a start half done has nothing that could be stopped
        if self._loop is None:
            return Stopped()
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop(limit))
        return await to_its_end(self._stopping, on_cancel=self.hurry)

    def hurry(self) -> None:
        """End a drain under way: what still runs is cancelled at once."""
        if self._engine is not None:
            self._engine.hurry()

    async def _stop(self, drain_seconds: float) -> Stopped:
        engine, dispatcher, store = self._engine, self._dispatcher, self._store
        self._scheduler = None
        if dispatcher is not None:
            dispatcher.changed.set()
        if not (is_client := self._is_client):
            self._events.emit(AppStopping())
        await self._end_loops("scheduler", "feeder")
        unstarted, cut = 0, []
        try:
            if engine is not None and dispatcher is not None:
                unstarted = await dispatcher.give_back()
                cut = [run.describe() for run in await engine.stop(drain_seconds)]
                await self._end_loops("writer")
                await dispatcher.write_last(self.cancel_seconds)
                dispatcher.end_waiting()
        finally:
            for task in self._tasks.values():
                task.unbind(self)
            try:
                await self._events.aclose(self.cancel_seconds)
                await self._resources.aclose()
            finally:
                if self._watchdog is not None:
                    await self._watchdog.aclose()
                    self._watchdog = None
                await self._end_loops()
                try:
                    if store is not None:
                        await store.close()
                finally:
                    self._store = self._loop = self._worker = None
                    self._is_client = False
                    for entry in self._entries.values():
                        entry.row = entry.next_at = None
        level = logging.DEBUG if is_client else logging.WARNING if cut else logging.INFO
        logger.log(level, "stopped: %d unstarted jobs given back, %d cut%s", unstarted, len(cut), _listed(cut))
        return Stopped(unstarted, cut)

    async def _end_loops(self, *names: str) -> None:
        wanted = {f"tickwork-{name}" for name in names}
        tasks = [task for task in self._loops if not names or task.get_name() in wanted]
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=max(self.cancel_seconds, 1.0))
            for task in left:
                logger.warning("%r ignored its cancellation and is left behind", task)

    async def wait_failed(self) -> BaseException:
        """Wait until a part of the app dies, which it should not, and return why."""
        assert self._failed is not None
        return await asyncio.shield(self._failed)

    async def wait_idle(self) -> None:
        """Wait until no job is queued or running, or the app has stopped.

        Jobs scheduled for later are not waited for, nor are those in queues from which this process does not claim;
        those of a paused queue are, and so is an attempt that follows at once upon one that failed.
        """
        store, dispatcher = self._store_now(), self._dispatcher
        assert dispatcher is not None
        are_sure = not store.capabilities.durable  # memory takes what falls due in the same turn
        while True:
            if self._stopping is not None:  # its store is about to close
                await asyncio.wait({self._stopping})
                return
            dispatcher.changed.clear()
            news, seconds = dispatcher.changed, LOOK_SECONDS if store.capabilities.multi_process else None
            if await self._is_idle(store):
                if are_sure:
                    return
                news, seconds, are_sure = asyncio.Event(), SURE_SECONDS, True
            else:
                are_sure = not store.capabilities.durable
            # What others run ends without a word to this process.
            timer = None if seconds is None else self._clock.call_later(seconds, news.set)
            try:
                await news.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _is_idle(self, store: Store) -> bool:
        if self._dispatcher is None or self._dispatcher.queues is None:
            counts = await store.counts()
            return not any(counts[state] for state in IDLE)
        ours = self._dispatcher.queues
        return not any(queue.queued or queue.running for queue in await store.queues() if queue.name in ours)

    def _store_now(self) -> Store:
        if self._store is None:
            raise NotRunning("the app is not running; use `async with app`, app.run() or `tickwork run`")
        return self._store

    def _scheduler_now(self) -> Scheduler:
        self._store_now()
        if self._scheduler is None:
            raise NotRunning("the app's scheduler is not running")
        return self._scheduler


def _opened(lifespan: Callable[[App], Any], app: App) -> AbstractAsyncContextManager[Any]:
    if inspect.isasyncgenfunction(lifespan):
        lifespan = asynccontextmanager(lifespan)
    made = lifespan(app)
    if not hasattr(made, "__aenter__"):
        raise InvalidOption(
            "lifespan", "a function that returns an async context manager", made, remedy="use @asynccontextmanager"
        )
    return made  # type: ignore[no-any-return]


def _ignore(context: Context, error: BaseException) -> None:
    """Nobody wants to hear at once."""


def _postgres_target(url: str) -> Target | None:
    """Return the database that a URL names; None: it names a file."""
    if not str(url).startswith("postgres"):
        return None
    from .stores.postgres_target import target_of  # most apps have none

    target = target_of(url)
    logger.info("jobs are kept in %s, schema %s", target.where, target.schema)
    return target


def sqlite_path(url: str) -> Path:
    """Return the file that a URL names: "sqlite:///jobs.db" is relative, "sqlite:////var/jobs.db" absolute.

    Raises:
        InvalidOption: It names none.
    """
    from pathlib import Path  # which an app in memory can do without

    expected = '"sqlite:///jobs.db" (relative), "sqlite:////var/lib/jobs.db" (absolute) or "postgresql://..."'
    if not str(url).startswith("sqlite:///") or url in ("sqlite:///", "sqlite:////"):
        raise InvalidOption("url", expected, _without_password(url), remedy="leave it out to keep jobs in memory")
    if "?" in url:
        raise InvalidOption("url", expected, url, remedy="leave out what begins with '?': it takes no options")
    path = Path(url.removeprefix("sqlite:///"))
    if not path.is_absolute():
        path = Path.cwd() / path
        logger.info("jobs are kept in %s", path)
    return path


def _without_password(url: object) -> object:
    """Return a URL of some server as an error may show it: what stands before the host may be a password."""
    scheme, mark, rest = str(url).partition("://")
    return f"{scheme}://...@{rest.rpartition('@')[2]}" if mark and "@" in rest else url


def _listed(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""
