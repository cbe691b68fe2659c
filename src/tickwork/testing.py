"""Virtual time for tests: a year passes in seconds, and one clock drives the wall time and the loop's timers together.

    async with app.testing(start="2026-03-29T00:00", tz="Europe/Berlin") as t:
        await t.advance("1d")
        assert [str(at) for at in t.fires("backup")] == ["2026-03-29 03:00:00+02:00"]

Time stands still until the test moves it. What is due on the way runs in order, each at exactly its instant. On a
loop of this module that is true of all timers, `asyncio.sleep` and `asyncio.timeout` of the code under test too:

    @pytest.fixture                                         # conftest.py with anyio's plugin
    def anyio_backend():
        return "asyncio", {"loop_factory": virtual_loop_factory}

    def pytest_asyncio_loop_factories(config, item):        # conftest.py with pytest-asyncio 1.4 or newer
        return {"virtual": virtual_loop_factory}

    with asyncio.Runner(loop_factory=virtual_loop_factory) as runner:       # without a plugin
        runner.run(main())

Under any other loop only tickwork's own timers are virtual (schedules, delays, timeouts of jobs), and
`t.drives_loop` is False: `asyncio.sleep` in a job sleeps really.

What happens outside of the loop takes real time, and virtual time waits for it: jobs in threads and processes, and
`run_in_executor` (so `asyncio.to_thread` and aiofiles). Put `with outside():` around other waits of that kind, for a
database or a subprocess, say: a socket does not tell whether anything is still to come.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import selectors
import sys
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from .clock import JUMP_SECONDS, Clock, Outside, outside, virtual_loops
from .crash_kit import CrashKit
from .durations import format_seconds, microseconds
from .errors import InvalidInstant, InvalidOption, JobParked, Killed, NotRunning, UnknownJob, VirtualTimeError
from .jobs import JobState
from .zones import get_zone, resolve_wall, zone_key

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context as Variables
    from types import TracebackType
    from typing import Self

    from .app import App
    from .clock import Timer
    from .conformance import HandClock, StoreConformance
    from .context import Context
    from .jobs import JobRecord
    from .stores.base import Store

__all__ = [
    "HandClock",
    "StoreConformance",
    "Testing",
    "VirtualClock",
    "VirtualLoop",
    "outside",
    "virtual_loop_factory",
]

logger: logging.Logger = logging.getLogger("tickwork.testing")

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When a virtual clock begins unless it is told: always the same, so that a test does today what it did yesterday."""

STALL_SECONDS = 5.0
"""Real seconds of nothing after which a log line says what a test waits for: less than the usual limit of a test."""

REAL_POLL_SECONDS = 0.002
"""How often a foreign loop is looked at while jobs really run there."""

SETTLE_ROUNDS = 20
"""Turns of a foreign loop without any change after which everything is taken to wait. A job that ends needs about
five until whoever awaits it goes on; a foreign loop does not tell whether it has something to do."""


# --- the clock ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Move:
    """One request to move the time on.

    Attributes:
        target: Up to where, in microseconds since the start; None: as far as it takes.
        until: When it is over; None: at the target.
        only_while: Timers are passed only while this is true.
        busy: Whether jobs run, for a foreign loop, whose own timers it must not overtake.
        activity: Changes when anything has happened, for a foreign loop.
        waits: What is outside of the loop is waited for.
        patience: For how many real seconds; None: for ever.
    """

    target: int | None = None
    until: Callable[[], bool] | None = None
    only_while: Callable[[], bool] | None = None
    busy: Callable[[], bool] = bool
    activity: Callable[[], object] = bool
    waits: bool = True
    patience: float | None = None
    ended: asyncio.Future[None] = field(init=False)

    def is_over(self) -> bool:
        return self.until is not None and self.until()

    def may_pass(self, due: int) -> bool:
        """Return whether it goes on to a timer that is due then."""
        return (self.target is None or due <= self.target) and (self.only_while is None or self.only_while())


class _Timer:
    """A timer of the clock itself, for a loop that is not virtual."""

    __slots__ = ("args", "callback", "variables")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.variables: Variables = copy_context()

    def cancel(self) -> None:
        self.callback = None


class _WallTimer:
    """A timer by the wall clock: it rings early when that clock is set."""

    __slots__ = ("args", "callback", "clock", "timer")

    def __init__(self, clock: VirtualClock, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.clock, self.callback, self.args = clock, callback, args
        self.timer: Timer

    def cancel(self) -> None:
        self.timer.cancel()
        self.clock._wall_timers.discard(self)

    def ring(self) -> None:
        self.clock._wall_timers.discard(self)
        self.callback(*self.args)


class VirtualClock(Clock):
    """A clock that stands still until it is moved.

    It counts whole microseconds, so that after a year of timers it still shows exactly their instants.

    Args:
        start: The wall time at which it begins: an aware datetime.
        autojump: Go on to the next timer by itself whenever the loop has nothing to do and nothing is outside of it;
            on a `VirtualLoop`.

    Attributes:
        wake_count: How many times a timer made the time stop on its way.
    """

    max_sleep_seconds: float = math.inf

    def __init__(self, start: datetime = START, *, autojump: bool = False) -> None:
        self._origin = start.astimezone(UTC)
        self._elapsed = 0
        self._moved = 0.0
        self.autojump = autojump
        self.wake_count: int = 0
        self.loop: VirtualLoop | None = None
        self._outside = Outside(self)
        self._wall_timers: set[_WallTimer] = set()
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = itertools.count()
        self._move: _Move | None = None
        self._users = 0

    # -- what tickwork asks of a clock ------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the virtual wall time."""
        return self._origin + timedelta(microseconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the virtual seconds since the start."""
        return self._elapsed / 1_000_000

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Set a timer: of the loop where the loop is virtual, else of this clock."""
        loop = asyncio.get_running_loop()
        if loop is self.loop:
            return loop.call_later(delay, callback, *args)
        if delay <= 0:
            return loop.call_soon(callback, *args)
        timer = _Timer(callback, args)
        heapq.heappush(self._timers, (self._elapsed + round(delay * 1_000_000), next(self._order), timer))
        return timer

    def call_at(self, when: datetime, callback: Callable[..., object], *args: Any) -> Timer:
        """Set a timer by the wall clock; a jump of that clock rings it at once."""
        wall_timer = _WallTimer(self, callback, args)
        wall_timer.timer = self.call_later(max(0.0, (when - self.now()).total_seconds()), wall_timer.ring)
        self._wall_timers.add(wall_timer)
        return wall_timer

    def jump(self) -> float:
        """Return by how much the wall clock was set since the last call."""
        moved, self._moved = self._moved, 0.0
        return moved if abs(moved) >= JUMP_SECONDS else 0.0

    # -- what a test does with it -----------------------------------------------------------------------------------

    def jump_wall(self, seconds: float | timedelta) -> None:
        """Set the wall clock forwards, or back for a negative number, as a person or a time server would.

        Timers stay as they are. Who watches the wall clock notices at once; on the real clock within half a minute.
        """
        change = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        self._origin += change
        self._moved += change.total_seconds()
        for wall_timer in list(self._wall_timers):
            wall_timer.timer.cancel()
            wall_timer.timer = self.call_later(0.0, wall_timer.ring)

    def suspend(self, duration: float | str | timedelta) -> None:
        """Let the machine sleep: the wall clock goes on, timers do not, as on Linux."""
        self.jump_wall(timedelta(microseconds=microseconds(duration)))

    def block(self, duration: float | str | timedelta) -> None:
        """Let time pass while the loop is held up, as by a job that never awaits: what falls due runs late."""
        self._elapsed += microseconds(duration)

    async def advance(self, duration: float | str | timedelta, *, wait: bool = True) -> None:
        """Move the time on, stopping at each timer on the way until the loop has nothing left to do.

        Args:
            duration: How far, of elapsed time; 0 runs what is ready.
            wait: Stop for threads and processes until they have ended. False: go on, and so see a timeout strike.

        Raises:
            VirtualTimeError: The time is being moved already.
        """
        await self._go(_Move(target=self._elapsed + microseconds(duration, minimum=0), waits=wait))

    async def _go(self, move: _Move) -> None:
        """Make a move. When this is cancelled, the time stays where it is then."""
        if self._move is not None:
            raise VirtualTimeError("the time is being moved already; await one advance() after the other")
        self._move = move
        loop = asyncio.get_running_loop()
        try:
            if loop is self.loop:
                move.ended = loop.create_future()
                await move.ended
            else:
                await self._go_foreign(move)
        finally:
            self._move = None

    def _begin(self, start: datetime) -> None:
        """Show another wall time from now on."""
        self._origin = start - timedelta(microseconds=self._elapsed)
        self._moved = 0.0

    # -- on a virtual loop ------------------------------------------------------------------------------------------

    def _idle(self, pending: float | None) -> bool:
        """Hear that the loop has nothing to do but wait, and return whether the time has moved or a move has ended.

        Args:
            pending: Seconds until its next timer; None: there is none.
        """
        move = self._move
        due = None if pending is None else self._elapsed + round(pending * 1_000_000)
        if move is None:
            if not self.autojump or due is None or self._outside.count:
                return False
            self._stop_at(due)
            return True
        if move.is_over():
            self._end(move)
            return True
        if self._outside.count and move.waits:
            return False
        if due is not None and move.may_pass(due):
            self._stop_at(due)
            return True
        if move.target is None:
            return False
        self._elapsed = max(self._elapsed, move.target)
        self._end(move)
        return True

    def _stop_at(self, due: int) -> None:
        self._elapsed = max(self._elapsed, due)
        self.wake_count += 1

    def _end(self, move: _Move) -> None:
        if not move.ended.done():
            move.ended.set_result(None)

    def _tell_stall(self, pending: float | None) -> None:
        """Say what a test waits for that may wait for ever."""
        if self._outside.count:
            logger.warning("virtual time waits for %d threads or processes", self._outside.count)
        elif pending is not None and self._move is None:
            logger.warning(
                "virtual time stands still, and the next timer is due in %s; await advance(), or use autojump",
                format_seconds(round(pending, 3)),
            )

    # -- on any other loop ------------------------------------------------------------------------------------------

    async def _go_foreign(self, move: _Move) -> None:
        while True:
            await self._settle(move)
            if move.is_over():
                return
            if (self._outside.count and move.waits) or (move.target is None and move.busy() and move.waits):
                await self._wait_really(move)
                continue
            due = self._next_own()
            if due is not None and move.may_pass(due):
                self._stop_at(due)
                self._run_due()
            elif move.target is None:
                await self._wait_really(move)
            else:
                self._elapsed = max(self._elapsed, move.target)
                return

    async def _settle(self, move: _Move) -> None:
        """Give the loop turns until nothing changes any more."""
        quiet, last = 0, None
        while quiet < SETTLE_ROUNDS:
            await asyncio.sleep(0)
            seen = (move.activity(), len(self._timers), self._outside.count)
            quiet, last = (quiet + 1 if seen == last else 0), seen

    async def _wait_really(self, move: _Move) -> None:
        await asyncio.sleep(REAL_POLL_SECONDS)
        if move.patience is not None:
            move.patience -= REAL_POLL_SECONDS
            if move.patience <= 0:
                move.waits = False

    def _next_own(self) -> int | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _run_due(self) -> None:
        loop = asyncio.get_running_loop()
        while (due := self._next_own()) is not None and due <= self._elapsed:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                loop.call_soon(timer.callback, *timer.args, context=timer.variables)


# --- the loop ----------------------------------------------------------------------------------------------------


class _Selector(selectors.DefaultSelector):
    """The real selector. Where a loop would sleep until its next timer, it asks the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._told = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        if self._clock._idle(timeout):
            self._told = False
            return []
        return self._wait_really(timeout)

    def _wait_really(self, pending: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for a thread, a process, a socket, a signal."""
        move = self._clock._move
        patience = None if move is None else move.patience
        found = super().select(STALL_SECONDS if patience is None else patience)
        if found:
            self._told = False
            return found
        if move is not None and patience is not None:
            move.waits = False
        elif not self._told:
            self._told = True
            self._clock._tell_stall(pending)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real asyncio loop on virtual time: it reads sockets and hears threads as ever, but never sleeps for a timer.

    Args:
        clock: The clock; None: a new one. A clock drives one loop.

    Attributes:
        clock: The clock.
    """

    _clock_resolution: float

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock: VirtualClock = VirtualClock() if clock is None else clock
        super().__init__(_Selector(self.clock))
        if self.clock.loop is not None:
            self.close()
            raise InvalidOption("clock", "a clock that drives no loop yet", clock)
        self.clock.loop = self
        # The clock counts whole microseconds, timers are floats: one that is due within half of one is due now.
        self._clock_resolution = 6e-7
        virtual_loops[self] = self.clock._outside

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self.clock.monotonic()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call a function in a thread or process; virtual time waits for it."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self.clock._outside.__enter__()
        future.add_done_callback(self.clock._outside.__exit__)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Wait for the threads of `run_in_executor`, really."""
        with self.clock._outside:
            await super().shutdown_default_executor(*args)

    def close(self) -> None:
        """Close the loop."""
        virtual_loops.pop(self, None)
        super().close()


def virtual_loop_factory(*, autojump: bool = False) -> VirtualLoop:
    """Return a new loop on a virtual clock of its own, for whatever takes a `loop_factory`.

    Args:
        autojump: Time goes on by itself to the next timer whenever nothing else is left to do. Without, a test
            moves it: `t.advance(...)`, or `loop.clock.advance(...)`.
    """
    return VirtualLoop(VirtualClock(autojump=autojump))


# --- an app under test -------------------------------------------------------------------------------------------


class Testing(CrashKit):
    """An app that runs inside a block of a test, on virtual time; made by `App.testing`.

    Jobs are kept in memory for the block, all of them. Leaving the block drains and stops the app, as ever: running
    jobs have `drain_seconds` of virtual time. Errors of jobs that nobody awaited are raised by whatever moved the time
    (when it has arrived) and on leaving: the original exception, or a group when there are several.

    Args:
        app: The app, not started.
        start: See `App.testing`; None: a fixed instant.
        tz: The IANA key of the zone in which times are read and shown.
        raise_errors: Raise the errors of jobs.

    Attributes:
        clock: The clock, to set it or to suspend the machine: `t.clock.jump_wall(-3600)`.
        drives_loop: Whether all timers of the loop follow the clock; False: tickwork's only.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    keep = 1_000_000
    """How many finished jobs, and fire times of a schedule, the store keeps: a year of every minute is half of it."""

    def __init__(self, app: App, start: str | datetime | None, tz: str, *, raise_errors: bool = True) -> None:
        super().__init__()
        self._app = app
        self._zone = zone_key(tz, "tz")
        self._start = None if start is None else self._instant(start, "start")
        self._raises = raise_errors
        self._errors: dict[str, BaseException] = {}
        self._seen: set[str] = set()
        self.clock: VirtualClock
        self.drives_loop: bool = False
        self._last_store: Store | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = self._app
        if app._loop is not None:
            raise NotRunning("the app has started already; app.testing() starts it itself")
        self._clock_before = app._clock
        self.clock = app._clock = self._take_clock()
        app._testing = self
        self._heard_before, app._on_attempt_failed = app._on_attempt_failed, self._hear_error
        try:
            await app.start()
        except BaseException:
            self._restore()
            raise
        self._last_store = app._store
        if app._dispatcher is not None:
            app._dispatcher.on_checkpoint = self._reach
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        app, engine, dispatcher = self._app, self._app._engine, self._app._dispatcher
        stop = asyncio.ensure_future(app.stop(None if error is None else 0.0))
        try:
            await self.clock._go(
                self._move(
                    until=stop.done,
                    only_while=lambda: (
                        (engine is not None and bool(engine.running))
                        or (dispatcher is not None and dispatcher.has_unwritten)
                        or app._events.is_busy
                    ),
                    patience=app.drain_seconds,
                )
            )
        finally:
            app.hurry()  # nothing is left to hurry, unless this was cancelled
            try:
                await stop
            finally:
                self._restore()
        if error is None:
            self._raise_errors(parked=True)

    def _take_clock(self) -> VirtualClock:
        loop = asyncio.get_running_loop()
        self.drives_loop = isinstance(loop, VirtualLoop)
        if not isinstance(loop, VirtualLoop):
            logger.info("this loop keeps its own time: only tickwork's timers are virtual; use virtual_loop_factory")
            clock = VirtualClock(self._start or self._instant(START, "start"))
            virtual_loops[loop] = clock._outside
        else:
            clock = loop.clock
            if not clock._users:
                clock._begin(self._start or START)
            elif self._start is not None:
                raise InvalidOption("start", "None: another app is under test on the clock of this loop", self._start)
        clock._users += 1
        return clock

    def _restore(self) -> None:
        app = self._app
        app._clock, app._testing = self._clock_before, None
        app._on_attempt_failed = self._heard_before
        self.clock._users -= 1
        if not self.drives_loop:
            virtual_loops.pop(asyncio.get_running_loop(), None)

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The wall time, in the block's zone."""
        return self._shown(self.clock.now())

    async def advance(self, duration: float | str | timedelta, *, wait: bool = True) -> None:
        """Move the time on, and run what falls due on the way, each at its instant.

        Args:
            duration: How far, of elapsed time: "1d" are 24 hours also where the clocks change. 0 runs what is ready.
            wait: Jobs in threads and processes are waited for before the time moves on. False: it moves past them,
                so that their timeouts strike.

        Raises:
            VirtualTimeError: The time is being moved already, by another task.
            BaseException: What a job raised that nobody awaited; the time has arrived all the same.
        """
        await self._advance(microseconds(duration, minimum=0), wait=wait)

    async def advance_to(self, when: str | datetime, *, wait: bool = True) -> None:
        """Move the time on to an instant; see `advance`.

        Args:
            when: An aware datetime, or one without an offset, or an ISO 8601 text, which are read in the block's zone.
            wait: See `advance`.

        Raises:
            InvalidInstant: It is before now, or cannot be read.
        """
        instant = self._instant(when, "when")
        if instant < self.clock.now():
            raise InvalidInstant(
                "when", f"an instant not before {self.now}", str(when), remedy="clock.jump_wall() sets the clock back"
            )
        await self._advance((instant - self.clock.now()) // timedelta(microseconds=1), wait=wait)

    async def _advance(self, micro: int, *, wait: bool = True) -> None:
        await self.clock._go(self._move(target=self.clock._elapsed + micro, waits=wait))
        self._raise_errors()

    def _move(self, **options: Any) -> _Move:
        return _Move(busy=self._is_busy, activity=self._activity, **options)

    # -- jobs ---------------------------------------------------------------------------------------------------

    async def run_next(self, name: str) -> Any:
        """Move the time to the next fire time of a schedule, and on until its job has ended; return its value.

        Args:
            name: The schedule's.

        Raises:
            UnknownSchedule: There is none with this name.
            VirtualTimeError: It is paused or finished, or its previous job has not ended, so nothing ran.
            BaseException: What the job raised, or another that nobody awaited.
        """
        entry = self._app._scheduler_now().entry(name)
        due = entry.next_at
        if due is None:
            raise VirtualTimeError(f"schedule {name!r} has no next fire time: it is paused, finished or broken")
        move = self._move(target=self.clock._elapsed + max(0, (due - self.clock.now()) // timedelta(microseconds=1)))
        await self.clock._go(move)
        newest = _now(self._store.jobs(schedule=name, limit=1))
        if not newest or newest[0].fire_time != due:
            self._raise_errors()
            raise VirtualTimeError(f"schedule {name!r} made no job at {self._shown(due)}: its last one has not ended")
        job_id = newest[0].id
        await self.clock._go(self._move(until=lambda: self._has_ended(job_id)))
        self.saw(job_id)
        error = self._errors.pop(job_id, None)
        if error is not None and self._record(job_id).state is JobState.FAILED:
            raise error
        value = await self._app.result_of(job_id, None)
        self._raise_errors()
        return value

    async def drain(self) -> None:
        """Run what is queued and running to its end. Time moves on as far as running jobs sleep, and no further.

        Jobs scheduled for later stay, unless their time comes meanwhile.

        Raises:
            BaseException: What a job raised that nobody awaited.
        """
        self._app._store_now()
        await self.clock._go(self._move(until=self._is_drained))
        self._raise_errors()

    @property
    def jobs(self) -> list[JobRecord]:
        """All jobs, in the order in which they were made."""
        return _now(self._store.jobs(limit=2 * self.keep))[::-1]

    def fires(self, name: str) -> list[datetime]:
        """Return the fire times of a schedule that have become jobs, in order and in the block's zone.

        What was skipped or missed is in `await app.schedules[name].history()`.

        Raises:
            UnknownSchedule: There is none with this name.
        """
        _ = self._app.schedules[name]
        answers = _now(self._store.ledger(name, limit=self.keep))
        return [self._shown(answer.first) for answer in reversed(answers) if answer.outcome == "ran"]

    @property
    def _store(self) -> Store:
        if self._app._store is not None:
            self._last_store = self._app._store
        if self._last_store is None:
            raise NotRunning("the app is not under test yet; use `async with app.testing() as t`")
        return self._last_store

    def _record(self, job_id: str) -> JobRecord:
        return _now(self._store.job(job_id))

    def _has_ended(self, job_id: str) -> bool:
        return self._record(job_id).has_ended

    def _is_busy(self) -> bool:
        engine = self._app._engine
        return engine is not None and engine.unfinished > 0

    def _is_drained(self) -> bool:
        dispatcher = self._app._dispatcher
        if self._is_busy() or (dispatcher is not None and dispatcher.has_unwritten):
            return False
        counts = _now(self._store.counts())
        return not counts[JobState.QUEUED] and not counts[JobState.RUNNING]

    def _activity(self) -> object:
        engine = self._app._engine
        if engine is None:
            return None
        return engine.unfinished, engine.succeeded_count, engine.failed_count, engine.cancelled_count

    # -- errors -------------------------------------------------------------------------------------------------

    def saw(self, job_id: str) -> None:
        """Hear that somebody has been given the end of a job."""
        self._seen.add(job_id)

    def _hear_error(self, context: Context, error: BaseException) -> None:
        if not isinstance(error, Killed):  # which the test has asked for
            self._errors[context.job_id] = error

    def _raise_errors(self, *, parked: bool = False) -> None:
        """Raise what nobody has seen yet."""
        failed = self._app._failed
        if failed is not None and failed.done():
            raise failed.result()
        found = self._unseen(parked)
        if not found or not self._raises:
            return
        if len(found) == 1:
            raise found[0]
        raise BaseExceptionGroup(f"{len(found)} jobs failed", found)

    def _unseen(self, parked: bool) -> list[BaseException]:
        found = []
        for job_id, error in list(self._errors.items()):
            try:
                record = self._record(job_id)
            except UnknownJob:  # the test has deleted it
                del self._errors[job_id]
                continue
            if not record.has_ended:
                continue  # it is to be tried again
            del self._errors[job_id]
            if record.state in (JobState.FAILED, JobState.PARKED) and job_id not in self._seen:
                self._seen.add(job_id)
                when = "" if record.fire_time is None else f", due at {self._shown(record.fire_time)}"
                error.add_note(f"raised by job {job_id} of task {record.task}{when}")
                found.append(error)
        if parked:
            for record in _now(self._store.jobs(state=JobState.PARKED, limit=self.keep)):
                if record.id not in self._seen:
                    self._seen.add(record.id)
                    found.append(JobParked(record.id, record.task, record.error or "unknown"))
        return found

    # -- instants -----------------------------------------------------------------------------------------------

    def _shown(self, instant: datetime) -> datetime:
        return instant.astimezone(get_zone(self._zone).info)

    def _instant(self, given: str | datetime, option: str) -> datetime:
        moment = given
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment.strip())
            except ValueError as error:
                raise InvalidInstant(option, 'an ISO 8601 text such as "2026-03-29T01:30"', given) from error
        if not isinstance(moment, datetime):
            raise InvalidInstant(option, "a datetime or an ISO 8601 text", given)
        return resolve_wall(moment, self._zone) if moment.tzinfo is None else moment.astimezone(UTC)


def _now(reading: Coroutine[Any, Any, T]) -> T:
    """Return what a read of the memory store gives: it never waits."""
    try:
        reading.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    reading.close()
    raise VirtualTimeError("the store under test had to wait for a read")


def __getattr__(name: str) -> Any:
    """Load the tests of stores when they are asked for: they need pytest."""
    if name not in ("HandClock", "StoreConformance"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if f"{__package__}.conformance" not in sys.modules:
        import pytest

        pytest.register_assert_rewrite(f"{__package__}.conformance")  # so that a failure shows its values
    from . import conformance

    return getattr(conformance, name)
