"""Who holds the event loop: a thread that asks the loop for a sign of life, and looks at it when none comes.

While jobs run on the loop, the thread asks it every fifth of `block_warn_seconds` to make one small call. As long as
that call is not made it looks, as often, at the stack of the loop's thread. Each step of the loop that was waiting when
the question came runs at most once before the answer, so the same task or callback seen again has not let go since:
that one holds the loop. A loop that is merely busy, with many short steps, shows another one at each look.

Nothing is asked while no job runs. The thread then sleeps without a limit, or until a quarter of a second after the
next fire time (`expect`), since whoever holds the loop then makes it late. A second passes before it goes to sleep:
`enter` finds it awake, and wakes nobody, while jobs come one after the other.

Time in which the process as a whole stood still (stopped by a signal, suspended, starved by other programs) is nobody's
doing and is left out. It shows in the thread's own waits: they took longer than asked, and the process did not use the
processor meanwhile. What it did use counts: something did not let go of the interpreter's lock.

What is shared between the threads are attributes that one side writes and the other reads, and a SimpleQueue to wake.
Under the GIL nothing is lost by that. A build without it could, at worst, miss one wake-up and sleep until the next.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .frames import MAX_TEXT, chain, deepest_own, depth, format_stack, places
from .holds import LONG_SECONDS, Hold, Holds, Reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context as Variables
    from types import FrameType

    from .clock import SystemClock
    from .frames import Place
    from .holds import Culprit

logger: logging.Logger = logging.getLogger("tickwork.watchdog")

LOOKS = 5
"""How many looks there are in the time after which a hold is told: its beginning is known to a fifth."""

LINGER_SECONDS = 1.0
"""How long the thread stays awake after the last job: longer than the pauses in a stream of jobs."""

DUE_GRACE_SECONDS = 0.25
"""How late the loop may be for a fire time before it is asked: nobody is named for less than a second."""

MAX_WAIT_SECONDS = 86_400.0
"""A wait beyond the system's limit raises; one wake-up a day costs nothing."""

_RUN_HANDLE = asyncio.Handle._run.__code__

Token = tuple[int, int, object]
"""Who runs on the loop, for comparing. Numbers, no references: those would keep a job's variables alive here, and let
what they hold be finalized in this thread."""


class Watchdog:
    """Finds out who holds a loop.

    Args:
        loop: The loop, a real one: on virtual time nothing can be told of real seconds.
        block_warn_seconds: How long a job may hold it before a warning names it.
        holder: Finds the attempt of a job to which a task of the loop, or its context variables, belong; called from
            the watchdog's thread. Both may be None.
        clock: Tells the time.
        on_hold: Called on the loop with each hold, when it has ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        block_warn_seconds: float,
        holder: Callable[[asyncio.Task[Any] | None, Variables | None], Culprit | None],
        clock: SystemClock,
        on_hold: Callable[[Hold], object] | None = None,
    ) -> None:
        self._loop = loop
        self._warn_seconds = block_warn_seconds
        self._look_seconds = min(block_warn_seconds, LONG_SECONDS)
        self._interval = self._look_seconds / LOOKS
        self._holder = holder
        self._on_hold = on_hold
        self._time = clock.monotonic
        self._cpu_seconds = clock.cpu_seconds
        self._holds = Holds()
        self._reports = Reports(clock.monotonic)
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        # Written on the loop, read by the thread.
        self._running = 0
        self._entered = 0
        self._due_at: float | None = None
        self._answered = 0
        self._answered_at = 0.0
        self._depth = 0
        self._loop_thread = 0
        # Written by the thread, read on the loop; who wakes it takes the flag down.
        self._is_parked = False
        self._woken_at = 0.0
        self._woken_cpu = 0.0
        self._sleeps_until = math.inf
        # The thread's own.
        self._mark = 0.0  # when its last wait was over
        self._starved = 0.0  # how much too long that was, for want of the interpreter's lock
        self._seen_entered = 0
        self._quiet_at = 0.0  # when it may go to sleep
        self._due_done: float | None = None  # the fire time in which the loop was found alive
        self._asked = 0
        self._alive_at = 0.0  # the last sign of life
        self._token: Token | None = None
        self._token_at = 0.0  # since when this one has the loop
        self._looked_at = 0.0
        self._looks = 0
        self._lines: Counter[Place | None] = Counter()  # how often it was seen at which line
        self._place: Place | None = None  # where most often
        self._above: list[Place] = []  # the stack then
        self._culprit: Culprit | None = None
        self._is_told = False  # whether the time to tell it has come
        self._is_named = False  # and whether it was told, or kept quiet as a repetition

    # -- called on the loop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Called on the loop. Where no thread can be had, the log says so and nothing is watched."""
        self._loop_thread = threading.get_ident()
        self._loop.call_soon(self._answer, 0)
        try:
            threading.Thread(target=self._watch, name="tickwork-watchdog", daemon=True).start()
        except RuntimeError as error:
            self._closed = True
            logger.warning("the loop is not watched: %s", error)

    def close(self) -> None:
        """End the thread, without waiting for it: a handler of the log might hold it up."""
        self._closed = True
        self._wakes.put(None)

    def enter(self) -> None:
        """Count in a job that begins to run on the loop. A tenth of a microsecond, unless nothing ran for a second."""
        self._entered += 1
        self._running += 1
        if self._is_parked:
            self._wake()

    def leave(self) -> None:
        """Count out a job that was counted in."""
        self._running -= 1

    def touch(self) -> None:
        """Watch for a moment, since something is about to be due: a job that was just enqueued."""
        self._entered += 1
        if self._is_parked:
            self._wake()

    def expect(self, at_mono: float | None) -> None:
        """Say when the loop next has to be free, on the monotonic clock; None: at no known time."""
        self._due_at = at_mono
        # Instants computed anew differ by a little; nobody is woken for that.
        if at_mono is not None and self._is_parked and at_mono < self._sleeps_until - 2 * DUE_GRACE_SECONDS:
            self._wake()

    def covering(self, begin_mono: float, end_mono: float) -> Hold | None:
        """Return what held the loop for most of a time that ends now; see `Holds.covering`."""
        return self._holds.covering(begin_mono, end_mono)

    def _wake(self) -> None:
        self._woken_at, self._woken_cpu = self._time(), self._cpu_seconds()
        self._is_parked = False
        self._wakes.put(None)

    def _answer(self, number: int) -> None:
        self._answered_at = self._time()
        self._loop_thread = threading.get_ident()
        self._depth = depth(sys._getframe().f_back)  # what the loop calls stands above this many frames
        self._answered = number

    # -- the thread -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            self._mark = self._time()
            while not self._closed:
                if self._running or self._entered != self._seen_entered:
                    self._seen_entered = self._entered
                    self._quiet_at = self._mark + LINGER_SECONDS
                    self._ask()
                elif self._is_overdue():
                    self._ask()
                elif self._mark < self._quiet_at:
                    self._wait(self._interval)
                    self._alive_at = self._mark  # as far as jobs go: none has begun until now
                else:
                    self._park()
        except Exception:
            with suppress(Exception):
                logger.exception("the watchdog failed; from now on nobody is named who holds the loop")

    def _is_overdue(self) -> bool:
        due = self._due_at
        return due is not None and due != self._due_done and due + DUE_GRACE_SECONDS <= self._mark

    def _park(self) -> None:
        """Sleep until a job begins or a fire time has passed."""
        due = self._due_at
        until = math.inf if due is None or due == self._due_done else due + DUE_GRACE_SECONDS
        self._sleeps_until = until
        self._is_parked = True
        # Who came before the flag was up has woken nobody.
        if self._entered == self._seen_entered and self._due_at == due and not self._closed:
            self._mark = self._time()
            self._wait(until - self._mark)
        is_woken = not self._is_parked
        self._is_parked = False
        self._alive_at = self._mark
        if is_woken:  # by the loop, which was alive then
            self._overslept(self._mark - self._woken_at, self._woken_cpu)

    def _wait(self, seconds: float) -> float:
        """Sleep, unless woken. Return how much longer it took because the process stood still."""
        before, cpu = self._mark, self._cpu_seconds()
        with suppress(Empty):
            self._wakes.get(timeout=max(0.0, min(seconds, MAX_WAIT_SECONDS)))
        self._mark = self._time()
        return self._overslept(self._mark - before - seconds, cpu)

    def _overslept(self, slip: float, cpu_before: float) -> float:
        """Return how long the process stood still while this thread slept too long; the rest it had no lock."""
        used = max(0.0, min(slip, self._cpu_seconds() - cpu_before))
        self._starved = used if used > self._interval else 0.0
        return slip - used if slip > self._interval else 0.0

    def _ask(self) -> None:
        """Ask the loop for a sign of life, wait for it, and look who holds it meanwhile."""
        due = self._due_at if self._is_overdue() else None
        self._asked += 1
        try:
            self._loop.call_soon_threadsafe(self._answer, self._asked)
        except RuntimeError:  # the loop is closed
            self._closed = True
            return
        self._token, self._looks = None, 0
        if self._starved:  # what kept the lock may have let it go only just now, for the first time
            self._alive_at -= self._starved
            self._starved = 0.0
            self._look()
        while True:
            self._leave_out(self._wait(self._interval))
            if self._answered == self._asked:
                self._go_on()
                break
            if self._closed or self._loop.is_closed():
                break
            self._look()
        if due is not None:
            self._due_done = due

    def _leave_out(self, seconds: float) -> None:
        """Take off time in which the process stood still."""
        if seconds:
            self._alive_at += seconds
            self._token_at += seconds
            if (hold := self._holds.present) is not None:
                self._holds.present = replace(hold, begin_mono=hold.begin_mono + seconds)

    def _look(self) -> None:
        """Look who has the loop, and since when."""
        frames = chain(sys._current_frames().get(self._loop_thread))
        task = asyncio.current_task(self._loop)
        token = self._identify(frames, task)
        if self._answered == self._asked:
            return  # it went on just now, and what was seen may be another's
        if token != self._token or token is None:
            self._end_hold(self._looked_at)
            self._token_at = self._alive_at if not self._looks else self._looked_at
            self._lines.clear()
            self._place, self._above = None, []
        self._token, self._looked_at = token, self._mark
        if token is None:
            self._alive_at, self._looks = self._mark, 0
            return
        self._looks += 1
        above, handle = places(frames[self._depth :]), _handle_of(frames[: self._depth][-1:])
        del frames  # they keep variables of the user's alive, and the log may take its time
        place = deepest_own(above) or (above[-1] if above else None)
        self._lines[place] += 1
        held = self._mark - self._token_at
        is_news = place != self._place and self._lines[place] > self._lines[self._place]
        if is_news:  # the line at which it was seen most often tells more than the last one
            self._place, self._above = place, above
        if held < self._look_seconds:
            return
        if is_news or self._holds.present is None:
            self._holds.present = self._describe(task, handle)
        del task, handle
        if not self._is_told and held >= self._warn_seconds:
            self._is_told = True
            self._is_named = self._reports.blocks(self._holds.present, self._culprit)
            self._mark = self._time()  # a slow handler is no standstill

    def _go_on(self) -> None:
        """Take the answer."""
        at = self._answered_at
        self._end_hold(at)
        if at - self._alive_at >= LONG_SECONDS:
            # Many looks and always another one: nobody held it alone. None at all: this thread could not run either.
            what = "many short steps in turn" if self._looks else "code that let no other thread run"
            self._pass_on(self._holds.add(Hold(what, None, None, "", self._alive_at, at)))
        self._alive_at, self._token, self._looks = at, None, 0
        self._starved = 0.0

    def _end_hold(self, at_mono: float) -> None:
        if self._holds.present is not None:
            hold = self._holds.end(at_mono)
            if self._is_named and hold.end_mono is not None and hold.end_mono - hold.begin_mono > LONG_SECONDS:
                self._reports.blocked(hold, self._culprit)
                self._mark = self._time()
            self._pass_on(hold)
            self._alive_at = at_mono
        self._is_told = self._is_named = False
        self._culprit = None

    def _pass_on(self, hold: Hold) -> None:
        if self._on_hold is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_hold, hold)

    # -- who it is --------------------------------------------------------------------------------------------------

    def _identify(self, frames: list[FrameType], task: asyncio.Task[Any] | None) -> Token | None:
        """Return who has the loop; None: nobody, it waits for events or for its turn of the interpreter's lock."""
        if not frames or not self._loop.is_running():
            return None
        above = frames[self._depth :]
        handle = _handle_of(frames[: self._depth][-1:])
        # asyncio's own loop shows what it does. Of another, uvloop say, nothing is seen while it runs no Python code:
        # it waits, perhaps for the lock, or is inside of a callback that is no Python code either.
        may_wait = self._starved or isinstance(self._loop, asyncio.BaseEventLoop)
        if not above and handle is None and may_wait:
            return None
        # All tasks and handles that come before the answer are there at once, so no two have the same number. A frame's
        # may return, so that calls of one function look like one; where no handle is to be seen, it is all there is.
        first = above[0] if above else frames[-1]
        return id(task), id(first if handle is None else handle), first.f_code

    def _describe(self, task: asyncio.Task[Any] | None, handle: Any) -> Hold:
        place, above = self._place, self._above
        self._culprit = self._holder(task, _variables(task, handle))
        if self._culprit is not None:
            what = self._culprit.describe()
        elif task is not None:
            what = f"task {task.get_name()[:MAX_TEXT]!r} ({_name(task.get_coro())})"
        elif above:
            what = f"callback {above[0].function[:MAX_TEXT]}"
        else:
            what = "callback" if handle is None else f"callback {_name(getattr(handle, '_callback', None))}"
        line = None if place is None else f"{place}: {place.source}".removesuffix(": ")
        job_id = None if self._culprit is None else self._culprit.extra().get("job_id")
        return Hold(what, job_id, line, format_stack(above), self._token_at)


def _handle_of(frames: list[FrameType]) -> Any:
    """Return the handle that asyncio's own loop is running in a frame, or None."""
    return frames[0].f_locals.get("self") if frames and frames[0].f_code is _RUN_HANDLE else None


def _variables(task: asyncio.Task[Any] | None, handle: Any) -> Variables | None:
    if task is not None and sys.version_info >= (3, 12):
        return task.get_context()
    found: Variables | None = getattr(handle, "_context", None)
    return found


def _name(thing: object) -> str:
    """Return the name of a function or coroutine."""
    if isinstance(thing, partial):
        thing = thing.func
    try:
        module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    except Exception:  # a `__getattr__` of the user's
        module = name = None
    if not isinstance(name, str):
        name = type(thing).__qualname__
    return (f"{module}.{name}" if isinstance(module, str) else name)[:MAX_TEXT]
