"""What happened, as typed events, and the line between what happens and who listens.

    from tickwork import events

    @app.on(events.JobFailed)
    async def tell(event: events.JobFailed) -> None: ...

Whoever emits an event never waits for those who listen. Each handler has a bounded line of its own and is called with
one event after the other: a coroutine function on the loop, a plain one in a thread. One that raises is logged and
goes on; one that is too slow loses the events that find its line full, which is counted and said; none of it reaches a
job, a schedule or another handler.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

from .clock import outside
from .errors import InvalidOption, nearest
from .records import record
from .runners.thread import ThreadRunner
from .shield import is_meant_for_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from .context import Context
    from .jobs import Outcome
    from .stores.base import FireOutcome

logger: logging.Logger = logging.getLogger("tickwork.events")

LINE = 1_000
"""How many events may wait for one handler: some seconds of a busy app, a megabyte at the most."""


@record
class Event:
    """Something that has happened; the root of all events, and what to listen to for all of them."""


@record
class JobEvent(Event):
    """Something that has happened to a job in this process.

    Attributes:
        job_id: Its id.
        task: The name of its task.
        attempt: Which attempt it was, counted from 1.
        schedule: The schedule that made it, or None.
        fire_time: When that said it was due (UTC), or None.
    """

    job_id: str
    task: str
    attempt: int
    schedule: str | None = None
    fire_time: datetime | None = None


@record
class JobStarted(JobEvent):
    """A worker begins an attempt.

    Attributes:
        late_by: Seconds between the instant at which it was to start and now.
        late_because: What made it late, where that is known and it is more than a second.
    """

    late_by: float = 0.0
    late_because: str | None = None


@record
class JobEnded(JobEvent):
    """An attempt has ended, however; listen to this for all four ends.

    Attributes:
        seconds: How long it ran.
    """

    seconds: float = 0.0


@record
class JobSucceeded(JobEnded):
    """A job has ended with a result."""


@record
class JobFailed(JobEnded):
    """An attempt raised, ran out of time, or its process died.

    Attributes:
        outcome: "failed", "timed_out" or "lost".
        error: The exception.
        context: The job's context.
        is_final: Whether no further attempt follows.
    """

    outcome: Outcome
    error: BaseException
    context: Context = field(repr=False)
    is_final: bool = True


@record
class JobCancelled(JobEnded):
    """A job was cancelled while it ran, or while it waited in this process."""


@record
class JobParked(JobEnded):
    """Nobody can run the job as it stands.

    Attributes:
        reason: Why.
    """

    reason: str


@record
class FireTimeAnswered(Event):
    """A row of the ledger: what became of a fire time, or of several in a row that were let pass.

    Attributes:
        schedule: The schedule's name.
        first: The earliest fire time (UTC); `last` the newest; `count` how many, None: too many to count.
        outcome: What became of it: "ran" (a job was made), "skipped", "merged" or "missed".
        job_id: The job that was made.
        blocked_by: The unfinished job that made it skip, or into which it merged.
    """

    schedule: str
    first: datetime
    last: datetime
    count: int | None
    outcome: FireOutcome
    job_id: str | None = None
    blocked_by: str | None = None


@record
class ScheduleBroken(Event):
    """The trigger of a schedule raised, so the schedule stops.

    Attributes:
        schedule: Its name.
        error: What the trigger raised.
    """

    schedule: str
    error: BaseException


@record
class SchedulePaused(Event):
    """A person has paused a schedule."""

    schedule: str


@record
class ScheduleResumed(Event):
    """A schedule goes on."""

    schedule: str


@record
class ClockJumped(Event):
    """The wall clock left the monotonic one: it was set, or the machine slept.

    Attributes:
        seconds: By how much; negative: backwards.
    """

    seconds: float


@record
class LoopHeld(Event):
    """Something has held the event loop, and let go of it.

    Attributes:
        what: Who: a job, a task or a callback.
        seconds: For how long, about.
        job_id: The job's id, where it was one.
        line: The line of the user's code at which it was seen most often; None: in none.
        stack: The stack at that moment, as text.
    """

    what: str
    seconds: float
    job_id: str | None
    line: str | None
    stack: str


@record
class StoreFailed(Event):
    """The store raised; what it was to do is tried again.

    Attributes:
        doing: The verb: "fire", "claim", "progress", "finish", "release", "schedules".
        error: What it raised.
    """

    doing: str
    error: BaseException


@record
class AppStarted(Event):
    """The app has started."""


@record
class AppStopping(Event):
    """The app begins to drain: the last event that is sure to be heard."""


EVENTS: tuple[type[Event], ...] = (
    Event,
    JobEvent,
    JobStarted,
    JobEnded,
    JobSucceeded,
    JobFailed,
    JobCancelled,
    JobParked,
    FireTimeAnswered,
    ScheduleBroken,
    SchedulePaused,
    ScheduleResumed,
    ClockJumped,
    LoopHeld,
    StoreFailed,
    AppStarted,
    AppStopping,
)
"""All that can be listened to. `Event`, `JobEvent` and `JobEnded` stand for all that derive from them."""

E = TypeVar("E", bound=Event)


class Line:
    """One handler, and the events that wait for it."""

    __slots__ = ("events", "handler", "lost", "task", "waiting")

    def __init__(self, events: tuple[type[Event], ...], handler: Callable[[Any], Any]) -> None:
        self.events: tuple[type[Event], ...] = events
        self.handler: Callable[[Any], Any] = handler
        self.waiting: asyncio.Queue[Event] | None = None
        self.task: asyncio.Task[None] | None = None
        self.lost: int = 0


class Events:
    """Hands events to handlers, off the path of whoever emits them."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._by_type: dict[type[Event], tuple[Line, ...]] = {}
        self._threads = ThreadRunner()

    def on(self, kinds: Iterable[type[Event]], handler: Callable[[Any], Any]) -> None:
        """Call a handler with each event of these kinds, also of those derived from them."""
        self._lines.append(Line(tuple(_kind(kind) for kind in kinds), handler))
        self._by_type.clear()

    def wants(self, kind: type[Event]) -> bool:
        """Return whether anybody listens to a kind: what nobody hears need not be made."""
        return bool(self._lines) and bool(self._of(kind))

    def _of(self, kind: type[Event]) -> tuple[Line, ...]:
        found = self._by_type.get(kind)
        if found is None:
            found = self._by_type[kind] = tuple(line for line in self._lines if issubclass(kind, line.events))
        return found

    def emit(self, event: Event) -> None:
        """Put an event into the lines of those who listen. On the loop only; it never waits, and never raises."""
        if not self._lines:
            return
        for line in self._of(type(event)):
            if line.waiting is None:
                line.waiting = asyncio.Queue(LINE)
                line.task = asyncio.create_task(self._serve(line, line.waiting), name="tickwork-events")
            try:
                line.waiting.put_nowait(event)
            except asyncio.QueueFull:
                line.lost += 1
                if line.lost == 1:
                    logger.warning(
                        "the handler %s is too slow: %d events wait for it; further ones are lost to it until it "
                        "catches up",
                        _name(line.handler),
                        LINE,
                    )

    async def _serve(self, line: Line, waiting: asyncio.Queue[Event]) -> None:
        while line.waiting is waiting:  # a handler may swallow the cancellation that ends this
            event = await waiting.get()
            try:
                await self._call(line.handler, event)
            except BaseException as error:
                if is_meant_for_us(error):
                    raise
                logger.error("the handler %s raised at %r", _name(line.handler), event, exc_info=error)
            finally:
                waiting.task_done()
            if line.lost and waiting.qsize() < LINE // 2:
                logger.warning("the handler %s has lost %d events", _name(line.handler), line.lost)
                line.lost = 0

    async def _call(self, handler: Callable[[Any], Any], event: Event) -> None:
        if asyncio.iscoroutinefunction(handler):
            await handler(event)
            return
        with outside():
            made, error = await asyncio.shield(self._threads.start(copy_context(), handler, (event,), {}))
        if error is not None:
            raise error
        if asyncio.iscoroutine(made):  # a plain function that made a coroutine: a partial, a lambda
            await made

    @property
    def is_busy(self) -> bool:
        """Whether events wait for a handler, or one is at work on one."""
        return any(line.waiting is not None and line.waiting._unfinished_tasks for line in self._lines)  # type: ignore[attr-defined]

    async def aclose(self, seconds: float) -> None:
        """Let what waits be heard, for some seconds at the most; then end, and say what was not."""
        lines = [line for line in self._lines if line.task is not None and line.waiting is not None]
        if lines:
            heard = [asyncio.ensure_future(line.waiting.join()) for line in lines if line.waiting is not None]
            await asyncio.wait(heard, timeout=seconds)
            for wait in heard:
                wait.cancel()
            tasks = [line.task for line in lines if line.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait([*heard, *tasks], timeout=1.0)
        for line in lines:
            left = (line.waiting.qsize() if line.waiting is not None else 0) + line.lost
            if left:
                logger.warning("the handler %s did not hear the last %d events", _name(line.handler), left)
            line.waiting, line.task, line.lost = None, None, 0
        self._threads.close()
        self._threads = ThreadRunner()


def _kind(kind: Any) -> type[Event]:
    """Return an event's class, or refuse what is none."""
    if isinstance(kind, type) and issubclass(kind, Event):
        return kind
    names = [event.__name__ for event in EVENTS]
    name = getattr(kind, "__name__", str(kind))
    near = name if name in names else nearest(name, names)
    raise InvalidOption(
        "event", "an event", kind, remedy=f"did you mean tickwork.events.{near}?" if near else "see tickwork.events"
    )


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)
