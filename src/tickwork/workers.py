"""N workers on a bounded buffer: the engine under the app and under `Pool`.

A worker is one asyncio task. It takes a run out of the buffer, runs it to its end and takes the next. A task for
each job would cost more than the queue itself (5 us against 2), so a job on the loop is driven inside its worker's
task, yet behaves as if it had one of its own:

- it has its own context variables: every step of its coroutine goes through `Context.run`;
- it can be cancelled alone: `cancel` cancels the worker's task, the CancelledError ends the job, and the worker
  takes its own request back (`uncancel`) and goes on;
- it cannot hold the worker for ever: when it ignores a cancellation for `cancel_seconds`, it is abandoned. The worker
  stops driving it and closes its coroutine, so that neither the pool nor the exit of the program hangs on it.

Cancellation from outside (the program is being torn down) is told apart by counting: what `Task.cancelling` counts
beyond the worker's own requests came from somebody else, and ends the worker.

A function in a thread cannot be stopped. Its waiter hears of a timeout or a cancel at once (`Run.overran`); the
worker keeps the slot until the thread ends. The same holds for an executor that does not take the call back.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Literal, get_args

from .clock import outside
from .errors import InvalidOption, Killed, NotRunning, ProcessDied
from .jobs import Outcome
from .runners.logs import handle, in_context
from .runners.thread import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence
    from contextvars import Context

    from .clock import Timer
    from .runners.executor import ExecutorRunner
    from .runners.process import ProcessRunner
    from .runners.thread import Ended

logger: logging.Logger = logging.getLogger("tickwork.workers")

RunIn = Literal["loop", "thread", "process", "executor"]
Place = Literal["loop", "call", "thread", "process", "executor", "prepared"]
"""RunIn, where "loop" means a coroutine function, and "call" a plain one to be called on the loop. A run that must wait
for something before its function may be called is "prepared": `Run.prepare` says where it runs then."""
RUN_IN: tuple[RunIn, ...] = get_args(RunIn)
OUT_OF_REACH = ("thread", "executor")
"""Where nobody can stop a function: its worker keeps its slot until it ends. An executor may take one back, though."""
StopReason = Literal["timeout", "cancel", "stop", "lost"]

FAIR_SECONDS = 0.005
"""A worker whose jobs never wait gives the loop a turn after this long: jobs that return at once would otherwise
hold it for a whole buffer. Long enough to cost nothing, short enough that nobody notices."""


WAITING, RUNNING, OVERRAN, SETTLED, ABANDONED, HELD = range(6)
"""How far a run is. OVERRAN: its waiter was told of the end, its thread still runs. ABANDONED: settled, and nobody
drives it any more. HELD: out of the buffer while it is being saved. Plain numbers: members of an Enum cost the hot
path a tenth of its time."""


NO_KWARGS: dict[str, Any] = {}
"""Shared by all runs without keyword arguments: one object less for each that waits."""


class Run:
    """One execution: what to run, and where it stands. A subclass hears of the end."""

    # Slots, because with an instance dictionary the speed depends on which attribute was set first.
    __slots__ = (
        "abandon_timer",
        "args",
        "context",
        "fn",
        "kwargs",
        "phase",
        "run_in",
        "stop_reason",
        "timeout",
        "worker",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        run_in: Place,
        timeout: float | None,
        context: Context,
    ) -> None:
        self.fn: Callable[..., Any] = fn
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.run_in = run_in
        self.timeout: float | None = timeout
        self.context: Context = context
        """The context variables, its own copy; given up to the worker at the start."""
        self.phase: int = WAITING
        self.stop_reason: StopReason | None = None
        self.worker: Worker | None = None
        self.abandon_timer: Timer
        """Set with `stop_reason`, except for threads."""

    def started(self) -> None:
        """Hear that a worker begins; a job on the loop has not run a line yet."""

    def moved_to_loop(self) -> None:
        """Hear that a plain function has made a coroutine, which now runs on the loop."""

    async def prepare(self) -> Place:
        """Do what must be done before the function is called, and return where that is.

        A class whose runs may be "prepared" overrides it; a run that is, of another class, is a mistake of ours, and
        fails with these words.
        """
        raise NotImplementedError(f"{self.describe()} is to be prepared, and its class says nothing of how")

    def luggage(self) -> dict[str, Any] | None:
        """Return what a child process should know beside the arguments."""
        return None

    def hear(self, kind: str, value: Any) -> None:
        """Hear what the function has said in a child process."""

    def hear_record(self, record: logging.LogRecord) -> None:
        """Hear what the function has logged in a child process, in the context variables of the run."""
        handle(record)

    def forget_arguments(self) -> None:
        """Let go of what it was given, once it has ended: who keeps the job must not keep that."""
        self.args = ()
        self.kwargs = NO_KWARGS

    def overran(self, outcome: Outcome) -> None:
        """Hear that the waiter must not wait longer, while the function still runs in its thread."""

    def succeeded(self, value: Any) -> None:
        """Hear of the end with a value. Of this and `ended`, exactly one is called, once."""

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """Hear of any other end."""

    def describe(self) -> str:
        """Return a name for logs; never raises."""
        try:
            return getattr(self.fn, "__qualname__", None) or repr(self.fn)
        except Exception:
            return f"<{type(self.fn).__name__} without a name>"


def place_of(fn: Callable[..., Any], run_in: RunIn | None) -> Place:
    """Return where `fn` runs: where the caller says, else coroutine functions on the loop and others in a thread."""
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidOption(
            "fn", "a function that returns", getattr(fn, "__qualname__", fn), remedy="nobody would iterate a generator"
        )
    if run_in is None:
        return "loop" if is_async(fn) else "thread"
    if run_in == "loop" and not is_async(fn):
        return "call"
    return run_in


def is_async(fn: Callable[..., Any]) -> bool:
    """Return whether calling `fn` gives a coroutine."""
    try:
        flags: int = fn.__code__.co_flags
    except AttributeError:  # a partial, a callable object
        return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
    if flags & inspect.CO_COROUTINE:
        return True
    return inspect.iscoroutinefunction(fn)  # asyncio's and inspect's marks


class Buffer(asyncio.Queue[Run]):
    """The bounded queue in front of the workers, with two moves that need its front.

    Only the documented hooks of asyncio.Queue are overridden (`_init`, `_get`, `_put`).
    """

    _at_front = False

    def _init(self, maxsize: int) -> None:
        self.waiting: deque[Run] = deque()
        self._queue = self.waiting  # what qsize() and empty() look at

    def _get(self) -> Run:
        return self.waiting.popleft()

    def _put(self, item: Run) -> None:
        if self._at_front:
            self.waiting.appendleft(item)
        else:
            self.waiting.append(item)

    def take_all(self) -> list[Run]:
        """Take out everything that waits, oldest first. Producers that waited for room go on."""
        taken = []
        while not self.empty():
            taken.append(self.get_nowait())
        return taken

    def put_all(self, runs: Sequence[Run]) -> None:
        """Put runs in for which there is room, and wake one worker: it wakes the others where its run has to wait.

        A worker whose runs end at once begins all of them itself, for less than it costs to wake another.
        """
        self.waiting.extend(runs)
        if runs:
            self._wakeup_next(self._getters)  # type: ignore[attr-defined]

    def wake_all(self) -> None:
        """Wake a worker for each run that waits, as far as there are idle ones."""
        getters = self._getters  # type: ignore[attr-defined]
        for _ in range(min(len(getters), len(self.waiting))):
            self._wakeup_next(getters)  # type: ignore[attr-defined]

    def put_front(self, runs: Sequence[Run]) -> None:
        """Put runs before all others, in their order; also beyond the limit, for what had a place before."""
        self._at_front = True
        try:
            for run in reversed(runs):
                if self.full():  # then nobody waits to get, so nobody has to be woken
                    self.waiting.appendleft(run)
                else:
                    self.put_nowait(run)
        finally:
            self._at_front = False

    def discard(self, run: Run) -> bool:
        """Take one run out, wherever it stands, and return whether it was there."""
        try:
            self.waiting.remove(run)
        except ValueError:
            return False
        self.waiting.appendleft(run)  # so that get_nowait() takes this one and wakes a producer
        self.get_nowait()
        return True


class Worker:
    """One worker: its task, and how many cancellations of the task are requests of our own."""

    __slots__ = ("cancels", "deadline", "run", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.run: Run | None = None
        self.deadline: float | None = None
        self.cancels: int = 0

    def is_cancelled_from_outside(self) -> bool:
        """Return whether somebody else has cancelled the worker's task."""
        return self.task.cancelling() > self.cancels

    async def take_back(self) -> None:
        """Take back our own cancellations, also one that has not been delivered yet."""
        for _ in range(self.cancels):
            self.task.uncancel()
        self.cancels = 0
        try:
            await asyncio.sleep(0)  # before Python 3.13, uncancel() leaves an undelivered CancelledError behind
        except asyncio.CancelledError:
            if self.task.cancelling():
                raise


class _Steps:
    """The steps of a coroutine after its first, each in the run's context. Awaited by the worker."""

    __slots__ = ("context", "coroutine", "run", "yielded")

    def __init__(self, run: Run, context: Context, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
        self.run, self.context, self.coroutine, self.yielded = run, context, coroutine, yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        step_in = self.context.run
        coroutine, yielded = self.coroutine, self.yielded
        while True:
            try:
                sent = yield yielded
            except GeneratorExit:
                step_in(coroutine.close)
                raise
            except BaseException as error:
                if self.run.phase == ABANDONED:
                    step_in(_close, self.run, coroutine)
                    raise
                step: Callable[[Any], Any] = coroutine.throw
                value: Any = error
            else:
                step, value = coroutine.send, sent
            try:
                yielded = step_in(step, value)
            except StopIteration as stop:
                return stop.value


def _close(run: Run, coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.close()
    except BaseException as error:  # it yields or raises even while it is closed
        logger.warning("%s did not let itself be closed: %r", run.describe(), error)
        _keep_for_ever(coroutine)


def _keep_for_ever(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Let a coroutine that cannot be closed never be finalized.

    That would resume it once more, somewhere, perhaps after the end of the loop, where a loop around `except
    BaseException` spins for ever and holds the exit of the program.
    """
    try:
        from ctypes import py_object, pythonapi
    except ImportError:  # not CPython
        return
    pythonapi.Py_IncRef(py_object(coroutine))


_inside: ContextVar[Workers] = ContextVar("tickwork_workers")


class Workers:
    """N asyncio tasks on a bounded `asyncio.Queue`.

    Args:
        count: How many runs go on at the same time.
        buffer: How many runs may wait.
        cancel_seconds: How long a cancelled run may take to end before it is abandoned.
        time: Reads the monotonic clock, in seconds.
        call_later: Sets a timer.
        processes: Makes the process pool when the first run wants one.
        executor: Makes the runner of the user's executor, likewise.
    """

    def __init__(
        self,
        count: int,
        buffer: int,
        *,
        cancel_seconds: float,
        time: Callable[[], float],
        call_later: Callable[..., Timer],
        processes: Callable[[], ProcessRunner],
        executor: Callable[[], ExecutorRunner],
    ) -> None:
        self.count = count
        self.buffer: Buffer = Buffer(buffer)
        self.cancel_seconds = cancel_seconds
        self._time = time
        self._call_later = call_later
        self._make_processes = processes
        self._processes: ProcessRunner | None = None
        self._make_executor = executor
        self._executor: ExecutorRunner | None = None
        self._threads = ThreadRunner()
        self._workers: set[Worker] = set()
        self._quiet: asyncio.Future[None] | None = None
        self._empty: asyncio.Future[None] | None = None
        self._hurried = False
        self._alarm: Timer | None = None
        self._alarm_at = 0.0
        self._stopping = self._have_ended = False
        self.has_started: bool = False
        """Whether runs may be under way, or have been."""
        self.refill: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Fills the buffer for a worker that finds it empty, if that costs no wait; None: nobody does."""
        self.unfinished: int = 0
        """Runs taken in and not settled: waiting and running."""
        self.succeeded_count: int = 0
        self.failed_count: int = 0
        self.cancelled_count: int = 0
        self.busy_seconds: float = 0.0

    @property
    def running(self) -> list[Run]:
        """The runs under way."""
        return [worker.run for worker in self._workers if worker.run is not None]

    @property
    def are_busy(self) -> bool:
        """Whether each of them has a run."""
        return len(self.running) >= self.count

    def run_of(self, task: asyncio.Task[Any] | None) -> Run | None:
        """Return what a task of the loop is running, if it is a worker's. Another thread may ask."""
        for worker in tuple(self._workers):
            if worker.task is task:
                return worker.run
        return None

    def is_inside(self) -> bool:
        """Return whether the calling code belongs to a job of these workers, also in tasks and threads it started."""
        return _inside.get(None) is self

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers on the running loop."""
        self.has_started = True
        for _ in range(self.count):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = Worker()
        worker.task = asyncio.get_running_loop().create_task(
            self._work(worker), name=f"tickwork-worker-{len(self._workers) + 1}", context=copy_context()
        )
        self._workers.add(worker)
        worker.task.add_done_callback(lambda task: self._worker_ended(worker, task))

    def _worker_ended(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("a worker died of an error of its own; another takes its place", exc_info=error)
            if worker.run is not None and worker.run.phase in (RUNNING, OVERRAN):
                self._end(worker.run, Outcome.FAILED, error)  # its job must not be running for ever
            if not self._stopping:
                self._start_worker()

    async def stop(self, drain_seconds: float) -> list[Run]:
        """End: let running ones finish, cancel those that do not, abandon those that ignore it.

        What waits in the buffer must have been taken out before. The caller must have stopped putting in.

        Args:
            drain_seconds: How long running ones may go on.

        Returns:
            The runs that had to be cut: cancelled, or abandoned in a thread.
        """
        self._stopping = True
        if not self._hurried:
            await self._wait_quiet(drain_seconds)
        cut = self.running
        for run in cut:
            self.interrupt(run, "stop")
        if cut:
            await self._wait_quiet(self.cancel_seconds)
        for run in self.running:
            self._abandon(run)
        if self._alarm is not None:
            self._alarm.cancel()
        await self._end_workers()
        self._have_ended = True
        self._threads.close()
        if self._processes is not None:
            await self._processes.aclose()
        return cut

    def hurry(self) -> None:
        """End the drain now: what still runs is cancelled at once."""
        self._hurried = True
        if self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    async def _wait_quiet(self, seconds: float) -> None:
        """Wait until nothing runs, at most `seconds`."""
        if not self.running:
            return
        quiet = self._quiet = asyncio.get_running_loop().create_future()
        timer = self._call_later(seconds, _wake, quiet)
        try:
            await quiet
        finally:
            timer.cancel()
            self._quiet = None

    async def _end_workers(self) -> None:
        tasks = [worker.task for worker in self._workers]
        for task in tasks:
            task.cancel()
        if tasks:
            # A worker that waits for somebody's task which ignores cancellation never hears of it: one second is
            # ample for all others, and the program's exit must not hang on that one.
            await asyncio.wait(tasks, timeout=1.0)

    async def wait_empty(self) -> None:
        """Wait until nothing waits and nothing runs. Cancelling the wait cancels nothing else."""
        while self.unfinished:
            if self._empty is None:
                self._empty = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)

    def left(self, count: int) -> None:
        """Count out runs that ended, or that were taken out of the buffer for good."""
        self.unfinished -= count
        if not self.unfinished and self._empty is not None:
            self._empty.set_result(None)
            self._empty = None

    # -- what happens to a run ------------------------------------------------------------------------------------

    def cancel(self, run: Run) -> bool:
        """Cancel a waiting or running run, and return whether there was anything to cancel."""
        if run.phase == WAITING:
            self.buffer.discard(run)
            self._end(run, Outcome.CANCELLED, None)
            return True
        return self.interrupt(run, "cancel")

    def interrupt(self, run: Run, reason: StopReason) -> bool:
        """Cancel a running run, and return whether this call was the first to do so."""
        worker = run.worker
        if run.phase != RUNNING or run.stop_reason is not None or worker is None:
            return False
        run.stop_reason = reason
        worker.deadline = None
        if run.run_in not in OUT_OF_REACH:  # those keep their worker until they end
            run.abandon_timer = self._call_later(self.cancel_seconds, self._abandon, run)
        worker.cancels += 1
        worker.task.cancel()
        return True

    def _set_alarm(self, deadline: float) -> None:
        """Wake at the earliest deadline. One timer serves all workers: one for each job costs as much as the job."""
        if self._alarm is not None:
            if self._alarm_at <= deadline:
                return
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = self._call_later(deadline - self._time(), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._time()
        left = []
        for worker in self._workers:
            if worker.deadline is not None:
                if worker.run is not None and worker.deadline <= now:
                    self.interrupt(worker.run, "timeout")
                else:
                    left.append(worker.deadline)
        if left:
            self._set_alarm(min(left))

    def _abandon(self, run: Run) -> None:
        """Give up a run that does not end, and its worker with it."""
        worker = run.worker
        if worker is None:
            return
        logger.warning(
            "%s ignored its cancellation for %g s and is abandoned%s",
            run.describe(),
            self.cancel_seconds,
            _left_behind(run.run_in),
        )
        self._end(run, _stopped_outcome(run.stop_reason), None)
        run.phase = ABANDONED
        self._workers.discard(worker)
        worker.task.cancel()
        if self._quiet is not None and not self.running:
            _wake(self._quiet)
        if not self._stopping:
            self._start_worker()

    def _succeed(self, run: Run, value: Any) -> None:
        run.phase = SETTLED
        run.worker = None
        self.succeeded_count += 1
        try:
            run.succeeded(value)
        except Exception:
            logger.exception("the end of %s could not be reported", run.describe())
        self.unfinished -= 1
        if not self.unfinished:
            self.left(0)

    def _end(self, run: Run, outcome: Outcome, error: BaseException | None) -> None:
        run.phase = SETTLED
        run.worker = None
        if outcome is Outcome.CANCELLED:
            self.cancelled_count += 1
        else:
            self.failed_count += 1
        try:
            run.ended(outcome, error)
        except Exception as broken:
            # An exception of the user's whose own methods raise, say. Whoever waits must still hear of the end.
            logger.exception("the end of %s could not be reported; it counts as failed", run.describe())
            with suppress(Exception):
                run.ended(Outcome.FAILED, RuntimeError(f"its end could not be reported: {type(broken).__name__}"))
        self.left(1)

    # -- the worker -----------------------------------------------------------------------------------------------

    async def _work(self, me: Worker) -> None:
        task = asyncio.current_task()
        assert task is not None
        me.task = task  # with an eager task factory this runs before create_task() has returned it
        buffer, waiting, time, cancelling = self.buffer, self.buffer.waiting, self._time, task.cancelling
        now = resumed = time()
        while True:
            if not waiting and self.refill is not None:
                await self.refill()
            if waiting:
                run = buffer.get_nowait()
            else:
                run = await buffer.get()
                now = resumed = time()
            if run.phase != WAITING:
                continue
            run.phase = RUNNING
            run.worker = me
            me.run = run
            if run.timeout is not None:
                me.deadline = now + run.timeout
                self._set_alarm(me.deadline)
            value: Any = None
            error: BaseException | None = None
            context = None
            try:
                run.started()
                context = run.context
                context.run(_inside.set, self)
                del run.context  # a finished job that somebody keeps must not keep the variables, nor their weight
                if run.run_in == "loop":
                    coroutine = run.fn(*run.args, **run.kwargs)
                    try:
                        yielded = context.run(coroutine.send, None)
                    except StopIteration as stop:
                        value = stop.value
                    else:
                        if waiting:
                            buffer.wake_all()
                        value = await _Steps(run, context, coroutine, yielded)
                        resumed = time()
                else:
                    if waiting:
                        buffer.wake_all()
                    value = await self._elsewhere(run, context, me)
                    resumed = time()
            except BaseException as raised:
                error = raised
            before, now = now, time()
            self.busy_seconds += now - before
            me.deadline = None
            if error is None and run.stop_reason is None and not cancelling():
                # `_succeed`, written out: a tenth of the cost of a job that does nothing.
                run.phase = SETTLED
                run.worker = None
                self.succeeded_count += 1
                try:
                    run.succeeded(value)
                except Exception:
                    logger.exception("the end of %s could not be reported", run.describe())
                    with suppress(Exception):
                        run.ended(Outcome.FAILED, RuntimeError("its result could not be reported"))
                self.unfinished -= 1
                if not self.unfinished:
                    self.left(0)
            else:
                await self._end_badly(run, me, value, error)
            me.run = None
            # An idle worker must not keep the last run and what it gave alive.
            del run, value, error, context
            if self._quiet is not None and not self._quiet.done() and not self.running:
                self._quiet.set_result(None)
            if now - resumed > FAIR_SECONDS:
                await asyncio.sleep(0)
                now = resumed = time()

    async def _end_badly(self, run: Run, me: Worker, value: Any, error: BaseException | None) -> None:
        """Settle a run that raised, or that was interrupted; end the worker where that is what was meant."""
        if run.phase == ABANDONED:
            raise asyncio.CancelledError
        if run.stop_reason is not None and run.run_in not in OUT_OF_REACH:
            run.abandon_timer.cancel()
        from_outside = me.is_cancelled_from_outside()
        outcome = _outcome(run, error)
        if outcome is Outcome.SUCCEEDED:
            self._succeed(run, value)
        else:
            self._end(run, outcome, error)
        me.run = None
        if isinstance(error, KeyboardInterrupt):
            raise error  # Ctrl-C where nobody handles SIGINT: it belongs to the program, not to the job
        if from_outside:
            # The loop is being torn down, or the job has cancelled its own task: this worker ends either way, since a
            # worker that goes on would hold up the teardown for ever. The job's doing must not cost the pool a worker.
            if not self._stopping:
                self._start_worker()
            raise asyncio.CancelledError
        if me.cancels:
            await me.take_back()

    def processes(self) -> ProcessRunner:
        """Return the process pool; it is made when it is first asked for.

        Raises:
            NotRunning: These workers have ended: nobody would end its processes.
        """
        if self._have_ended:
            raise NotRunning("the workers have ended, and their processes too")
        if self._processes is None:
            self._processes = self._make_processes()
        return self._processes

    async def _elsewhere(self, run: Run, context: Context, me: Worker) -> Any:
        """Run a plain function: in a thread, in a process, in the executor, or right here."""
        if run.run_in == "prepared":
            run.run_in = await run.prepare()
        if run.run_in == "process":
            with outside():
                value = await self.processes().run(
                    run.fn,
                    run.args,
                    run.kwargs,
                    describe=run.describe(),
                    context=run.luggage(),
                    on_message=run.hear,
                    on_log=in_context(context, run.hear_record),
                    variables=context,
                )
        elif run.run_in == "thread":
            future = self._threads.start(context, run.fn, run.args, run.kwargs)
            with outside():
                value = await self._out_of_reach(future, run, me)
        elif run.run_in == "executor":
            if self._executor is None:
                self._executor = self._make_executor()
            errand = self._executor.start(
                run.fn,
                run.args,
                run.kwargs,
                describe=run.describe(),
                context=run.luggage(),
                on_message=run.hear,
                variables=context,
            )
            with outside():
                value = await self._out_of_reach(errand.end, run, me, errand.cancel)
        else:
            value = context.run(run.fn, *run.args, **run.kwargs)
        if inspect.iscoroutine(value):  # a plain function that made a coroutine: what it meant is to run it
            if run.stop_reason is not None:
                value.close()
                raise asyncio.CancelledError
            run.run_in = "loop"  # from here on it can be cancelled, and abandoned
            run.moved_to_loop()
            try:
                yielded = context.run(value.send, None)
            except StopIteration as stop:
                return stop.value
            return await _Steps(run, context, value, yielded)
        return value

    async def _out_of_reach(
        self, future: asyncio.Future[Ended], run: Run, me: Worker, take_back: Callable[[], bool] | None = None
    ) -> Any:
        """Wait for what nobody can stop, unless it can be taken back; its waiter need not wait as long."""
        while True:
            try:
                value, error = await asyncio.shield(future)
                break
            except asyncio.CancelledError:
                is_taken_back = take_back is not None and take_back()
                if is_taken_back or run.phase == ABANDONED or me.is_cancelled_from_outside():
                    raise
                await me.take_back()
                run.phase = OVERRAN
                run.overran(_stopped_outcome(run.stop_reason))
        if error is not None:
            raise error
        return value


def _left_behind(place: Place) -> str:
    if place == "thread":
        return "; its thread runs on until the program ends"
    return "; its executor may let it run on" if place == "executor" else ""


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _stopped_outcome(reason: StopReason | None) -> Outcome:
    return Outcome.TIMED_OUT if reason == "timeout" else Outcome.CANCELLED


def _outcome(run: Run, error: BaseException | None) -> Outcome:
    if run.stop_reason == "timeout" or (run.stop_reason is not None and run.phase == OVERRAN):
        return _stopped_outcome(run.stop_reason)
    if error is None:
        return Outcome.SUCCEEDED
    if isinstance(error, asyncio.CancelledError):
        return Outcome.CANCELLED
    return Outcome.LOST if isinstance(error, ProcessDied | Killed) else Outcome.FAILED
