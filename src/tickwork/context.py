"""What a running job knows about itself.

It is injected as the first parameter where that is annotated `Context`, and `Context.current()` finds it anywhere
below: in functions that the job calls, in tasks that it starts, in its thread.
"""

from __future__ import annotations

import logging
import operator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .errors import InvalidOption, NotRunning

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from psycopg import AsyncConnection

    Said = tuple[float, float | None, str | None, datetime | None]

MAX_AMOUNT = 2**63
"""What `Context.progress` counts stays below: so much fits a column of any database."""
MAX_MESSAGE = 500
"""So many characters of a message are kept: a line or two for people, and not a log."""

_current: ContextVar[Context] = ContextVar("tickwork_context")


class Context:
    """What a running job knows about itself.

    Attributes:
        job_id: The job's id.
        task: The name of its task.
        attempt: Which attempt this is, counted from 1.
        schedule: The name of the schedule that made the job, or None.
        fire_time: The instant (UTC) at which the schedule said it was due; None when no schedule did.
        state: What `App(lifespan=...)` yielded: database pools, clients and the like; None without one, and in
            processes, where such things cannot go.
        log: A logger whose records carry job id, task and attempt.
    """

    __slots__ = (
        "_begin",
        "_given",
        "_has_news",
        "_log",
        "_now",
        "_reach",
        "_said",
        "_tell",
        "attempt",
        "fire_time",
        "job_id",
        "schedule",
        "state",
        "task",
    )

    def __init__(
        self,
        *,
        job_id: str,
        task: str,
        attempt: int = 1,
        schedule: str | None = None,
        fire_time: datetime | None = None,
        state: Any = None,
    ) -> None:
        self.job_id: str = job_id
        self.task: str = task
        self.attempt: int = attempt
        self.schedule: str | None = schedule
        self.fire_time: datetime | None = fire_time
        self.state: Any = state
        self._log: logging.LoggerAdapter[logging.Logger] | None = None
        self._said: Said | None = None
        """What it has last told of its progress, and when."""
        self._has_news: bool = False
        """Whether somebody was told that there is something new, and has not yet taken it."""
        self._tell: Callable[[Context], None] | None = None
        self._now: Callable[[], datetime] | None = None
        self._reach: Callable[[Context, str], None] | None = None
        self._begin: Callable[[Context], AbstractAsyncContextManager[Any]] | None = None
        self._given: Callable[[Any], None] | None = None
        """Takes the result, while a transaction of the job is open."""

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task, whose records carry job id, task and attempt."""
        if self._log is None:
            extra = {"job_id": self.job_id, "task": self.task, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(logging.getLogger(f"tickwork.task.{self.task}"), extra)
        return self._log

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far the job has come: `(await job.record()).progress` has it, in every process that can ask.

        It costs a microsecond and waits for nothing, so a loop may call it at each turn: the newest is written to the
        store four times a second at the most, and once more at the end. Threads and processes may call it as well.
        Outside of an app, as when a test calls the function, it does nothing.

        Args:
            done: How much is done, in a unit of your choice: a number from 0 to 2**63.
            total: How much there is to do; None: nobody knows. It may change, and `done` may exceed it.
            message: What people should read; its first 500 characters are kept.

        Raises:
            InvalidOption: A number that is none, or out of its range; a message that is no text.
            NotRunning: This is a copy in a process that the app knows nothing of.
        """
        if type(done) is not int or not 0 <= done < MAX_AMOUNT:
            done = _amount("done", done)
        if total is not None and (type(total) is not int or not 0 <= total < MAX_AMOUNT):
            total = _amount("total", total)
        if message is not None:
            message = _message(message)
        self._said = (done, total, message, None if self._now is None else self._now())
        if not self._has_news and self._tell is not None:
            self._has_news = True
            self._tell(self)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection[Any]]:
        """Return a block with a connection, whose leaving commits what was done on it and the job's success together.

            async with ctx.transaction() as connection:
                await connection.execute("UPDATE accounts SET ...")
                ctx.complete("booked")

        However often the job is begun, after deaths of workers too, that is done once. The connection is psycopg's for
        asyncio, to the database of the app, and in a transaction (READ COMMITTED), on which `commit` and `rollback` are
        refused; its `transaction()` makes savepoints. The end of the block is the end of the attempt: it has succeeded,
        with the value of `complete` as its result, else with null. What the function does after that changes nothing
        about it: what it raises or returns is logged.

        When the block is left by an exception, nothing of it is done, and the function may go on.

        Raises:
            NotTransactional: The app keeps its jobs elsewhere than in PostgreSQL.
            NotRunning: This runs outside of the app's loop, inside of such a block, or after one.
            StoreUnavailable: There is no connection to be had.

        At its end, the block raises, with nothing done:
            LeaseLost: The job was taken away from this worker, which was too slow.
            psycopg.Error: What the server refuses.
        """
        if self._begin is None:
            raise NotRunning("no app runs this job, or in another process; ctx.transaction() works on the app's loop")
        return self._begin(self)

    def complete(self, value: Any) -> None:
        """Give the result of the job inside of a block of `transaction`; the last value counts.

        Raises:
            InvalidPayload: It does not fit what the function is declared to return, or cannot be written as JSON.
            NotRunning: No such block is open.
        """
        if self._given is None:
            raise NotRunning("ctx.complete(value) gives a result inside of `async with ctx.transaction()`; return it")
        self._given(value)

    def on_transaction(self, begin: Callable[[Context], AbstractAsyncContextManager[Any]]) -> None:
        """Say who begins transactions of the job."""
        self._begin = begin

    def give_to(self, take: Callable[[Any], None] | None) -> None:
        """Say who takes the result, while a transaction is open; None: it is over."""
        self._given = take

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction of the job is open."""
        return self._given is not None

    def checkpoint(self, name: str) -> None:
        """Name a point at which a test may let the job die: `t.kill(task, at=name)`. Elsewhere it does nothing.

        Put one before and after each effect that must not come twice, and prove that it does not.
        """
        if self._reach is not None:
            self._reach(self, name)

    def listen(self, tell: Callable[[Context], None], now: Callable[[], datetime] | None = None) -> None:
        """Be told when there is progress to `take`: once, until that has been taken. In the thread of the job."""
        self._tell, self._now = tell, now

    def on_checkpoint(self, reach: Callable[[Context, str], None]) -> None:
        """Hear of each checkpoint, in the place where the job runs. What it raises ends the attempt."""
        self._reach = reach

    def take(self) -> Said | None:
        """Return what the job has last told of its progress, as seen from now on; None: it has not."""
        self._has_news = False  # before the look: what is told from here on is told anew
        return self._said

    @property
    def has_news(self) -> bool:
        """Whether the job has told of progress that was not taken."""
        return self._has_news

    @property
    def said(self) -> Said | None:
        """What the job has last told: done, total, message, when; None: nothing."""
        return self._said

    @classmethod
    def current(cls) -> Context:
        """Return the context of the job that this code runs in.

        Raises:
            NotRunning: It runs in none.
        """
        try:
            return _current.get()
        except LookupError:
            if (found := _in_child()) is not None:
                return found
            raise NotRunning("no job is running here; Context.current() works inside a job only") from None

    def activate(self) -> None:
        """Make this the current one; called inside the job's own context variables."""
        _current.set(self)

    def __repr__(self) -> str:
        return f"<Context job={self.job_id} task={self.task} attempt={self.attempt}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to a process: everything but `state`, which holds what cannot travel."""
        return _rebuild, (self.job_id, self.task, self.attempt, self.schedule, self.fire_time)


class JobFilter(logging.Filter):
    """Gives log records the job that they were written in: `job_id`, `task` and `attempt`.

    It lets every record pass. `tickwork run` has it on its handler; in a program of yours put it on the handlers that
    format such records: `handler.addFilter(JobFilter())`. Records that have a `job_id` already keep it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is known, and let the record pass."""
        context = _current.get(None)
        if context is not None and not hasattr(record, "job_id"):
            record.job_id, record.task, record.attempt = context.job_id, context.task, context.attempt
        return True


def _rebuild(job_id: str, task: str, attempt: int, schedule: str | None, fire_time: datetime | None) -> Context:
    context = Context(job_id=job_id, task=task, attempt=attempt, schedule=schedule, fire_time=fire_time)
    context.listen(_tell_parent)
    return context


def _in_child() -> Context | None:
    """Return the context of the job that this child process runs; None: it runs none, or is no child."""
    from .runners import child  # which most programs never need

    given = child.current_context()
    found = None if given is None else given.get("job")
    return found if isinstance(found, Context) else None


def _tell_parent(context: Context) -> None:
    """Send progress to the process that runs the app, soon."""
    from .runners import child

    def send() -> None:
        said = context.take()
        if said is not None:
            child.notify("progress", (context.job_id, context.attempt, *said[:3]))

    if not child.soon(send):
        raise NotRunning("progress of a job cannot be told here: its app knows nothing of this process")


def _amount(option: str, value: Any) -> float:
    """Return a number of any kind, such as numpy's, as one of Python's."""
    expected = "a number from 0 to 2**63"
    if isinstance(value, bool | str | bytes):
        raise InvalidOption(option, expected, value)
    try:
        number: float = operator.index(value)
    except TypeError:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidOption(option, expected, value) from None
    if not 0 <= number < MAX_AMOUNT:  # nor what is no number
        raise InvalidOption(option, expected, value)
    return number


def _message(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidOption("message", "a text", value)
    return value if len(value) <= MAX_MESSAGE else value[: MAX_MESSAGE - 1] + "\u2026"
