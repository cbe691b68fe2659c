"""Who holds the event loop: a thread that asks the loop for a sign of life, and looks at it when none comes.

While jobs run on the loop, the thread looks at it every fifth of `block_warn_seconds`. If it is not seen to wait for
something to do, it is asked to make one small call. As long as that call is not made, the thread looks, as often, who
has the loop. Each step of the loop that was waiting when the question came runs at most once before the answer, so the
same task or callback seen again has not let go since: that one holds the loop. A loop that is merely busy, with many
short steps, shows another one at each look.

Nobody looks while no job runs. The thread then sleeps without a limit, or until a quarter of a second after the
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
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from .clock import LATE_SECONDS
from .frames import depth, format_stack
from .holds import Hold, Holds, Reports
from .sighting import is_legible, sight

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context as Variables

    from .clock import SystemClock
    from .frames import Place
    from .holds import Culprit
    from .sighting import Sighting, Token

logger: logging.Logger = logging.getLogger("tickwork.watchdog")

LOOKS = 5
"""How many looks there are in the time after which a hold is found: its beginning is known to a fifth of that."""

LINGER_SECONDS = 1.0
"""How long the thread stays awake after the last job: longer than the pauses in a stream of jobs."""

DUE_GRACE_SECONDS = 0.25
"""How late the loop may be for a fire time before it is asked."""

FIND_SECONDS = LATE_SECONDS / 2
"""How long a hold must be at the most to be found: with the grace before, within the second that makes a start late."""

LAST_SECONDS = 0.25
"""How long the end of the app waits for a last warning: a handler of the log may be slow."""

MAX_WAIT_SECONDS = 86_400.0
"""A wait beyond the system's limit raises; one wake-up a day costs nothing."""


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
        self._find_seconds = min(block_warn_seconds, FIND_SECONDS)
        self._interval = self._find_seconds / LOOKS
        self._is_legible = is_legible(loop)
        self._holder = holder
        self._on_hold = on_hold
        self._time = clock.monotonic
        self._cpu_seconds = clock.cpu_seconds
        self._holds = Holds()
        self._reports = Reports(clock.monotonic)
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._ended = asyncio.Event()
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
        self._mark = self._mark_cpu = 0.0  # when its last wait was over
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
        self._place: Place | None = None  # the line of the present hold
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

    async def aclose(self) -> None:
        """End the thread. A hold that ended just now is told before, within a quarter of a second."""
        self.close()
        if self._holds.present is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), LAST_SECONDS)

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
            self._take_time()
            while not (self._closed or self._loop.is_closed()):
                if self._running or self._entered != self._seen_entered:
                    self._seen_entered = self._entered
                    self._quiet_at = self._mark + LINGER_SECONDS
                    self._ask()
                elif self._is_overdue():
                    self._ask()
                elif self._mark < self._quiet_at:
                    self._wait(self._interval)
                    self._alive_at = self._mark - self._starved  # as far as jobs go: none had begun by then
                else:
                    self._park()
        except Exception:
            with suppress(Exception):
                logger.exception("the watchdog failed; from now on nobody is named who holds the loop")
        finally:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ended.set)

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
            self._take_time()
            self._wait(until - self._mark)
        is_woken = not self._is_parked
        self._is_parked = False
        self._alive_at = self._mark
        if is_woken:  # by the loop, which was alive then
            self._overslept(self._mark - self._woken_at, self._mark_cpu - self._woken_cpu)
            self._alive_at -= self._starved

    def _wait(self, seconds: float) -> float:
        """Sleep, unless woken. Return how much longer it took because the process stood still."""
        before, cpu_before = self._mark, self._mark_cpu
        with suppress(Empty):
            self._wakes.get(timeout=max(0.0, min(seconds, MAX_WAIT_SECONDS)))
        self._take_time()
        return self._overslept(self._mark - before - seconds, self._mark_cpu - cpu_before)

    def _take_time(self) -> None:
        self._mark, self._mark_cpu = self._time(), self._cpu_seconds()

    def _overslept(self, slip: float, cpu: float) -> float:
        """Return how long the process stood still while this thread slept too long; the rest it had no lock."""
        used = max(0.0, min(slip, cpu))
        self._starved = used if used > self._interval else 0.0
        return slip - used if slip > self._interval else 0.0

    def _ask(self) -> None:
        """Ask the loop for a sign of life, unless it is seen to wait for something to do."""
        due = self._due_at if self._is_overdue() else None
        if self._is_legible and self._sight() is None:
            self._alive_at = self._mark
            self._leave_out(self._wait(self._interval))
        else:
            self._insist()
        if due is not None:
            self._due_done = due

    def _insist(self) -> None:
        """Ask, wait for the answer, and look who holds the loop meanwhile."""
        self._asked += 1
        self._token, self._looks = None, 0
        if self._mark - self._alive_at >= self._find_seconds:
            self._look()  # what kept the lock has let it go only just now, and is still where it was
        try:
            self._loop.call_soon_threadsafe(self._answer, self._asked)
        except RuntimeError:  # the loop is closed
            self._closed = True
            return
        self._leave_out(self._wait(0.0))  # that call, too, lets go of the lock for a moment, and may get it back late
        if self._starved:
            self._look()
        while True:
            self._leave_out(still := self._wait(self._interval))
            if self._answered == self._asked:
                self._go_on(still)
                break
            if self._closed or self._loop.is_closed():
                break
            self._look()

    def _leave_out(self, seconds: float) -> None:
        """Take off time in which the process stood still."""
        if seconds:
            self._alive_at += seconds
            self._token_at += seconds
            if (hold := self._holds.present) is not None:
                self._holds.present = replace(hold, begin_mono=hold.begin_mono + seconds)

    def _sight(self) -> Sighting | None:
        return sight(self._loop, self._loop_thread, self._depth, is_starved=bool(self._starved))

    def _look(self) -> None:
        """Look who has the loop, and since when."""
        seen = self._sight()
        if self._answered == self._asked:
            return  # it went on just now, and what was seen may be another's
        token = None if seen is None else seen.token
        if token != self._token or token is None:
            self._end_hold(self._looked_at)
            self._token_at = self._alive_at if not self._looks else self._looked_at
            self._lines.clear()
        self._token, self._looked_at = token, self._mark
        if seen is None:
            self._alive_at, self._looks = self._mark, 0
            return
        self._looks += 1
        self._lines[seen.place] += 1
        if self._mark - self._token_at >= self._find_seconds:
            present = self._holds.present
            # The line at which it was seen most often tells more than the last one.
            if present is None or (seen.place != self._place and self._lines[seen.place] > self._lines[self._place]):
                hold = self._describe(seen)
                present = hold if present is None else replace(hold, number=present.number)
                self._holds.present = present
            del seen  # it must not keep a task alive while the log takes its time
            self._tell(present)

    def _describe(self, seen: Sighting) -> Hold:
        self._place = seen.place
        culprit = self._culprit = self._holder(seen.task, seen.variables)
        what, job_id = (seen.who, None) if culprit is None else (culprit.describe(), culprit.extra().get("job_id"))
        return Hold(what, job_id, seen.line, format_stack(seen.stack), self._token_at)

    def _tell(self, hold: Hold) -> None:
        if not self._is_told and self._mark - self._token_at >= self._warn_seconds:
            self._is_told = True
            self._is_named = self._reports.blocks(hold, self._culprit)
            self._take_time()
            self._looked_at = self._mark  # a slow handler of the log is no standstill, nor the next one's doing

    def _go_on(self, still: float) -> None:
        """Take the answer, after a wait in which the process stood still for so many seconds."""
        at = self._answered_at
        still += self._end_hold(at)
        if at - self._alive_at >= FIND_SECONDS:
            # Many looks and always another one: nobody held it alone. None at all: this thread could not run either.
            what = "many short steps in turn" if self._looks else "code that let no other thread run"
            self._pass_on(self._holds.add(Hold(what, None, None, "", self._alive_at, at)))
        self._alive_at = at if self._mark - at <= 2 * self._interval else min(at + still, self._mark)
        self._token, self._looks = None, 0

    def _end_hold(self, at_mono: float) -> float:
        """End the present hold, if there is one. Return how long it took to tell that."""
        slow = 0.0
        if self._holds.present is not None:
            hold, before = self._holds.end(at_mono), self._mark
            if self._is_named and hold.end_mono is not None and hold.end_mono - hold.begin_mono > LATE_SECONDS:
                self._reports.blocked(hold, self._culprit)
                self._take_time()
                slow = self._mark - before
            self._pass_on(hold)
            self._alive_at = at_mono + slow
            self._looked_at += slow
        self._is_told = self._is_named = False
        self._culprit = None
        return slow

    def _pass_on(self, hold: Hold) -> None:
        if self._on_hold is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._on_hold, hold)
