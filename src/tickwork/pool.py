"""A worker pool for scripts: the buffer and the workers, without an app and without a store.

    async with Pool(workers=8) as pool:
        job = await pool.submit(fetch, url)          # waits while the pool is full
        page = await job.result()

Coroutine functions run on the loop, plain ones in a thread, with `run_in="process"` in a process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextvars import copy_context
from dataclasses import dataclass
from inspect import CO_COROUTINE
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .clock import running_clock
from .durations import seconds
from .errors import (
    InvalidOption,
    InvalidPayload,
    JobCancelled,
    JobSaved,
    JobTimedOut,
    NotImportable,
    NotRunning,
    QueueFull,
)
from .jobs import Outcome
from .options import as_executor, one_of, positive
from .runners.options import processes_of
from .shield import to_its_end
from .workers import HELD, NO_KWARGS, RUN_IN, SETTLED, WAITING, Place, Run, RunIn, Workers, place_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Generator
    from concurrent.futures import Executor
    from contextvars import Context
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from .runners.executor import ExecutorRunner
    from .runners.options import Processes
    from .runners.process import ProcessRunner
    from .snapshot import Snapshot
    from .workers import StopReason, Worker

logger: logging.Logger = logging.getLogger("tickwork.pool")

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool has done so far.

    Attributes:
        pending: Jobs that wait in the buffer.
        running: Jobs under way.
        workers: Size of the pool.
        done: Jobs that gave a result.
        failed: Jobs that raised, ran out of time, or lost their process.
        cancelled: Jobs that were cancelled.
        busy_seconds: Seconds that the workers spent on jobs, added up.
    """

    pending: int
    running: int
    workers: int
    done: int
    failed: int
    cancelled: int
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """What `Pool.save` did.

    Attributes:
        path: The file.
        jobs: Those in the file.
        not_saved: Those that stay in the pool because they cannot be written, each with the reason.
        running: Those under way, which no file can hold.
    """

    path: str
    jobs: list[PoolJob[Any]]
    not_saved: list[tuple[PoolJob[Any], str]]
    running: list[PoolJob[Any]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `Pool.load` did.

    Attributes:
        jobs: Those that are in the pool now.
        not_loaded: The entries that it could not take, each with the reason; they are back in the file.
    """

    jobs: list[PoolJob[Any]]
    not_loaded: list[tuple[Any, str]]


class _NeverRetrieved:
    """Logs the error of a job whose result nobody asked for, once the job is forgotten."""

    __slots__ = ("error", "name")

    def __init__(self, name: str, error: BaseException) -> None:
        self.name = name
        self.error: BaseException | None = error

    def __del__(self) -> None:
        if self.error is not None:
            logger.error("%s failed and nobody asked for its result", self.name, exc_info=self.error)


class PoolJob(Run, Generic[T]):
    """A job of a pool: the handle that `submit` returns. `await job` is `await job.result()`.

    Attributes:
        id: The number of the job in its pool, counted from 1.
    """

    __slots__ = ("_error", "_outcome", "_pool", "_traceback", "_unretrieved", "_value", "_waiters", "id")

    def __init__(
        self,
        pool: Pool,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run_in: Place,
        timeout: float | None,
    ) -> None:
        # `Run.__init__`, written out.
        self.fn = fn
        self.args = args
        self.kwargs: dict[str, Any] = kwargs or NO_KWARGS
        self.run_in = run_in
        self.timeout = timeout
        self.phase: int = WAITING
        self.stop_reason: StopReason | None = None
        self.worker: Worker | None = None
        self.context: Context = copy_context()
        self.id: int = next(pool._ids)
        self._pool = pool
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        # Read only after they were set: `_value` with success, the others with `_error`.
        self._value: T
        self._traceback: TracebackType | None
        self._unretrieved: _NeverRetrieved | None

    def __repr__(self) -> str:
        return f"<PoolJob {self.id} {self.describe()} {self.state}>"

    def __await__(self) -> Generator[Any, None, T]:
        return self.result().__await__()

    @property
    def state(self) -> str:
        """Where the job stands: "queued", "running", or the outcome: "succeeded", "failed", "timed_out", …."""
        if self._outcome is not None:
            return str(self._outcome)
        if isinstance(self._error, JobSaved):
            return "saved"
        return "queued" if self.phase in (WAITING, HELD) else "running"

    def is_done(self) -> bool:
        """Return whether `result` would answer at once."""
        return self._outcome is not None or self._error is not None

    def cancel(self) -> bool:
        """Cancel the job, waiting or running, and return whether there was anything to cancel.

        On the loop, CancelledError is raised inside it; a process is killed; a thread cannot be stopped: its
        result is given up now, and its worker is free when it ends. Call it from the pool's loop.
        """
        return self._pool._engine.cancel(self)

    async def result(self, timeout: float | str | timedelta | None = None) -> T:
        """Wait for the end and return the value.

        Args:
            timeout: How long to wait at the most: seconds, "30s", timedelta; None: for ever.

        Raises:
            BaseException: What the job raised, with its own traceback.
            JobTimedOut: The job ran longer than its own timeout.
            JobCancelled: The job was cancelled.
            JobSaved: The job left for a file before it started.
            TimeoutError: It has not ended within `timeout`. The job goes on.

        Cancelling the wait cancels nothing but the wait.
        """
        if self._outcome is None and self._error is None:
            await self._wait(timeout)
        if self._error is not None:
            self._retrieved()
            raise self._error.with_traceback(self._traceback)
        return self._value

    async def _wait(self, timeout: float | str | timedelta | None) -> None:
        if self.worker is not None and self.worker.task is asyncio.current_task():
            raise NotRunning(f"{self!r} waits for its own result, which would never come")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        limit = None if timeout is None else seconds(timeout, "timeout", allow_zero=True)
        try:
            async with asyncio.timeout(limit):
                await waiter
        except TimeoutError:
            raise TimeoutError(f"{self!r} has not ended within {limit:g} s; it goes on") from None
        finally:
            if self._waiters is not None:
                self._waiters.remove(waiter)

    def overran(self, outcome: Outcome) -> None:
        """Fail the waiters of a function whose thread runs on."""
        self.ended(outcome, None)

    def succeeded(self, value: Any) -> None:
        """Keep the result and wake who waits for it."""
        self._value = value
        self._outcome = Outcome.SUCCEEDED
        self.forget_arguments()
        if self._waiters is not None:
            self._wake()

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """Keep the error and wake who waits."""
        if self._outcome is not None:
            return  # it overran; its waiters know
        if outcome is Outcome.TIMED_OUT:
            timed_out = JobTimedOut(str(self.id), self.describe(), self.timeout or 0.0)
            timed_out.__cause__ = error
            error = timed_out
        elif outcome is Outcome.CANCELLED or error is None:
            error = JobCancelled(str(self.id), self.describe())
        # All that may raise comes first: half an end would be none.
        traceback = error.__traceback__
        watched = outcome is Outcome.CANCELLED or self._waiters
        name = f"<PoolJob {self.id} {self.describe()} {outcome}>"
        self._unretrieved = None if watched else _NeverRetrieved(name, error)
        self._outcome, self._error, self._traceback = outcome, error, traceback
        self.forget_arguments()
        self._wake()

    def saved_to(self, path: str) -> None:
        """Leave the pool for a file."""
        self.phase = SETTLED
        self._error = JobSaved(str(self.id), self.describe(), path)
        self._traceback = self._unretrieved = None
        self._wake()

    def _retrieved(self) -> None:
        if self._unretrieved is not None:
            self._unretrieved.error = None
            self._unretrieved = None

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class PoolOptions:
    """A pool with other options for what is submitted through it; made by `Pool.options`."""

    __slots__ = ("_pool", "_run_in", "_timeout")

    def __init__(self, pool: Pool, timeout: float | None, run_in: RunIn | None) -> None:
        self._pool, self._timeout, self._run_in = pool, timeout, run_in

    @overload
    async def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[T]: ...
    @overload
    async def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[T]: ...
    async def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Do what `Pool.submit` does, with these options."""
        return await self._pool._put(self._pool._job(fn, args, kwargs, self._run_in, self._timeout))

    @overload
    def submit_nowait(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[T]: ...
    @overload
    def submit_nowait(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[T]: ...
    def submit_nowait(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Do what `Pool.submit_nowait` does, with these options."""
        return self._pool._put_nowait(self._pool._job(fn, args, kwargs, self._run_in, self._timeout))


class Pool:
    """N workers on a bounded buffer.

    Leaving the `async with` block waits for everything that was submitted; leaving it with an exception cancels it.

    Args:
        workers: How many jobs run at the same time.
        buffer: How many jobs may wait; beyond that `submit` waits and `submit_nowait` raises.
        timeout: Seconds that a job may run, unless `options` says otherwise; None: no limit. Also "30s", timedelta.
        run_in: Where jobs run: "loop", "thread", "process", "executor"; None: coroutine functions on the loop, others
            in the executor where one is given, else in a thread.
        processes: The process pool: how many child processes, or `Processes(...)`; None: one for each processor.
        executor: Any `concurrent.futures.Executor`, such as a Dask client's `get_executor()`. The pool does not shut it
            down.
        cancel_seconds: How long a cancelled job may take to end before it is abandoned.

    Raises:
        InvalidOption: An option out of its range.
    """

    def __init__(
        self,
        workers: int = 20,
        *,
        buffer: int = 1000,
        timeout: float | str | timedelta | None = None,
        run_in: RunIn | None = None,
        processes: int | Processes | None = None,
        executor: Executor | None = None,
        cancel_seconds: float | str | timedelta = CANCEL_SECONDS,
    ) -> None:
        self.workers: int = positive("workers", workers)
        self.buffer: int = positive("buffer", buffer)
        self.timeout: float | None = None if timeout is None else seconds(timeout, "timeout")
        self.run_in: RunIn | None = one_of("run_in", run_in, (None, *RUN_IN))
        self.process_options: Processes = processes_of(processes)
        self.executor: Executor | None = as_executor("executor", executor)
        self._check_executor(self.run_in)
        self.cancel_seconds: float = seconds(cancel_seconds, "cancel_seconds")
        self._ids = itertools.count(1)
        self._closed = True
        self._goes_the_usual_way = False
        """Whether it is open, and neither `run_in` nor an executor says where functions run."""
        self._engine: Workers

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if hasattr(self, "_engine"):
            raise NotRunning("a Pool can be entered once; make a new one")
        clock = running_clock()
        self._engine = Workers(
            self.workers,
            self.buffer,
            cancel_seconds=self.cancel_seconds,
            time=clock.monotonic,
            call_later=clock.call_later,
            processes=self.process_options.runner,
            executor=self._make_executor,
        )
        self._engine.start()
        self._closed = False
        self._goes_the_usual_way = self.run_in is None and self.executor is None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                await self.join()
            except BaseException:
                await to_its_end(self._close())
                raise
        await to_its_end(self._close())

    def processes(self) -> ProcessRunner:
        """Return the child processes of this pool, for batches that share them.

        Raises:
            NotRunning: It is not entered, or closed: nobody would end them.
        """
        if self._closed:
            raise NotRunning("the pool is not running; use `async with Pool(...) as pool`")
        return self._running().processes()

    def _make_executor(self) -> ExecutorRunner:
        from .runners.executor import ExecutorRunner  # most programs have none

        assert self.executor is not None, "every job has been checked for it"
        return ExecutorRunner(self.executor)

    async def _close(self) -> None:
        """Cancel what is left and end the workers."""
        if self._closed:
            return
        self._closed = True
        self._goes_the_usual_way = False
        # Room for a producer lets it put once more, so until nothing comes.
        while waiting := self._engine.buffer.take_all():
            for run in waiting:
                self._engine.cancel(run)
            await asyncio.sleep(0)
        await self._engine.stop(0.0)

    # -- work ---------------------------------------------------------------------------------------------------

    @overload
    async def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[T]: ...
    @overload
    async def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[T]: ...
    async def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Hand in `fn(*args, **kwargs)`, waiting while the buffer is full, and return its job.

        The job sees the context variables as they are now.

        Raises:
            NotRunning: The pool is not entered, or closes while this waits.
            NotImportable: `fn` is for a process, which could not import it.
            QueueFull: The buffer is full and this is called inside a job of the pool, where waiting could wait for
                itself for ever.

        Cancelling the wait takes the job back: it will not run.
        """
        if not self._goes_the_usual_way:
            return await self._put(self._job(fn, args, kwargs, self.run_in, self.timeout))
        # The usual way, written out: what follows is a fifth of the cost of a job that does nothing.
        try:
            place: Place = "loop" if fn.__code__.co_flags & CO_COROUTINE else place_of(fn, None)
        except AttributeError:
            return await self._put(self._job(fn, args, kwargs, None, self.timeout))
        job: PoolJob[Any] = PoolJob(self, fn, args, kwargs, place, self.timeout)
        engine = self._engine
        if len(engine.buffer.waiting) >= self.buffer:
            return await self._put(job)
        engine.unfinished += 1
        engine.buffer.put_nowait(job)
        return job

    @overload
    def submit_nowait(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> PoolJob[T]: ...
    @overload
    def submit_nowait(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> PoolJob[T]: ...
    def submit_nowait(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> PoolJob[Any]:
        """Hand in `fn(*args, **kwargs)` without waiting.

        Raises:
            QueueFull: The buffer is full.
            NotRunning: The pool is not entered.
        """
        return self._put_nowait(self._job(fn, args, kwargs, self.run_in, self.timeout))

    def options(self, *, timeout: float | str | timedelta | None = None, run_in: RunIn | None = None) -> PoolOptions:
        """Return this pool with another timeout or place for what is submitted through it; None: the pool's own."""
        return PoolOptions(
            self,
            self.timeout if timeout is None else seconds(timeout, "timeout"),
            one_of("run_in", run_in, (None, *RUN_IN)) or self.run_in,
        )

    def _job(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run_in: RunIn | None,
        timeout: float | None,
    ) -> PoolJob[Any]:
        if self._closed:
            raise NotRunning("the pool is not running; use `async with Pool(...) as pool`")
        if run_in == "process":
            from .runners.reference import reference

            reference(fn)
        elif not callable(fn):
            raise InvalidOption("fn", "a function", fn)
        self._check_executor(run_in)
        place = place_of(fn, run_in)
        if run_in is None and place == "thread" and self.executor is not None:
            place = "executor"
        return PoolJob(self, fn, args, kwargs, place, timeout)

    def _check_executor(self, run_in: RunIn | None) -> None:
        if run_in == "executor" and self.executor is None:
            raise InvalidOption("executor", 'given for run_in="executor"', None, remedy="use Pool(executor=...)")

    async def _put(self, job: PoolJob[Any]) -> PoolJob[Any]:
        engine = self._engine
        if not engine.buffer.full():
            engine.unfinished += 1
            engine.buffer.put_nowait(job)
            return job
        if engine.is_inside():
            raise QueueFull("pool's buffer", self.buffer, "a job that waits for room in its own pool may wait for ever")
        engine.unfinished += 1
        try:
            await engine.buffer.put(job)
        except BaseException:
            engine.left(1)
            raise
        if self._closed:
            raise NotRunning(f"the pool closed while {job!r} waited for room; it will not run")
        return job

    def _put_nowait(self, job: PoolJob[Any]) -> PoolJob[Any]:
        engine = self._engine
        try:
            engine.buffer.put_nowait(job)
        except asyncio.QueueFull:
            raise QueueFull("pool's buffer", self.buffer, "use `await pool.submit(...)` to wait for room") from None
        engine.unfinished += 1
        return job

    # -- save and load --------------------------------------------------------------------------------------------

    async def save(self, path: str | os.PathLike[str], *, keep: bool = False) -> Saved:
        """Write what waits to a JSON file, from which `load` goes on later, in this process or another.

        A saved job leaves the pool: whoever waits for its result gets `JobSaved`. What cannot be saved (a lambda, an
        argument that JSON cannot hold) stays and is listed, and so are the running ones.

        Args:
            path: The file. It appears whole or not at all (written beside, synced, renamed).
            keep: The jobs stay in the pool too: a copy for the case that the process dies. Loading such a file while
                its process lives runs them twice.

        Raises:
            FileExistsError: `path` holds saved jobs already (a file written with `keep` may be overwritten with it).
            OSError: It could not be written; every job is back in its place.

        A cancellation is delivered when the file is written or given up: no job is lost or doubled by it.
        """
        from .snapshot import Snapshot

        return await to_its_end(self._save(Snapshot(path), keep))

    async def _save(self, file: Snapshot, keep: bool) -> Saved:
        from .snapshot import Call, entry_of

        engine = self._running()
        running = [run for run in engine.running if isinstance(run, PoolJob)]
        jobs, entries, stay, not_saved = [], [], [], []
        for job in engine.buffer.take_all():
            assert isinstance(job, PoolJob)
            try:
                entries.append(entry_of(Call(job.fn, job.args, job.kwargs, run_in_of(job), job.timeout)))
                jobs.append(job)
                if keep:
                    stay.append(job)
                else:
                    job.phase = HELD
            except Exception as error:  # what cannot be written, for whatever reason, stays
                stay.append(job)
                not_saved.append((job, str(error)))
        engine.buffer.put_front(stay)
        try:
            await file.write(entries, kept=keep)
        except BaseException:
            self._put_back(jobs)
            raise
        if not keep:
            for job in jobs:
                job.saved_to(str(file.path))
            engine.left(len(jobs))
        return Saved(str(file.path), jobs, not_saved, running)

    def _put_back(self, jobs: list[PoolJob[Any]]) -> None:
        """Return what `_save` holds to the front, or end it where the pool has closed."""
        held = [job for job in jobs if job.phase is HELD]
        for job in held:
            job.phase = WAITING
        if self._closed:
            for job in held:
                self._engine.cancel(job)
        else:
            self._engine.buffer.put_front(held)

    async def load(self, path: str | os.PathLike[str]) -> Loaded:
        """Take the jobs of a saved file into the pool, before all that waits, and remove the file.

        The file is claimed by a rename first, so that of two processes one has it. The jobs may go beyond the
        buffer's limit: they had a place before.

        Returns:
            The jobs, and the entries that could not be taken (a function that is gone, arguments that do not fit),
            which are back in the file.

        Raises:
            FileNotFoundError: No such file, or another process has claimed it.
            InvalidPayload: It is not a saved pool; the file stays as it is.

        A cancellation is delivered when the jobs are in the pool.
        """
        from .snapshot import Snapshot

        return await to_its_end(self._load(Snapshot(path)))

    async def _load(self, file: Snapshot) -> Loaded:
        from .snapshot import call_of

        engine = self._running()
        claimed, entries = await file.claim()
        jobs, not_loaded = [], []
        try:
            for entry in entries:
                try:
                    call = call_of(entry)
                    jobs.append(
                        self._job(
                            call.fn,
                            call.args,
                            call.kwargs,
                            one_of("run_in", call.run_in, RUN_IN),
                            None if call.timeout is None else seconds(call.timeout, "timeout"),
                        )
                    )
                except (NotImportable, InvalidPayload, InvalidOption) as error:
                    not_loaded.append((entry, str(error)))
            if self._closed:
                raise NotRunning("the pool closed while it loaded; the file is back in its place")
            if not_loaded:
                await file.write([entry for entry, _ in not_loaded], kept=False)
        except BaseException:
            await claimed.give_back(file)
            raise
        engine.unfinished += len(jobs)
        engine.buffer.put_front(list(jobs))
        await claimed.remove()
        return Loaded(jobs, not_loaded)

    # -- the whole ------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Wait until everything that was submitted has ended. Cancelling the wait leaves the jobs alone."""
        await self._running().wait_empty()

    def stats(self) -> PoolStats:
        """Return what the pool has done so far."""
        engine = self._running()
        return PoolStats(
            pending=engine.buffer.qsize(),
            running=len(engine.running),
            workers=self.workers,
            done=engine.succeeded_count,
            failed=engine.failed_count,
            cancelled=engine.cancelled_count,
            busy_seconds=engine.busy_seconds,
        )

    def _running(self) -> Workers:
        if not hasattr(self, "_engine"):
            raise NotRunning("the pool is not running; use `async with Pool(...) as pool`")
        return self._engine


def run_in_of(job: PoolJob[Any]) -> RunIn:
    """Return where the caller wanted the job to run."""
    if job.run_in == "call" or job.run_in == "prepared":  # the latter are jobs of a store only
        return "loop"
    return job.run_in
