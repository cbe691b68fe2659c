"""What a running job knows about itself.

It is injected as the first parameter where that is annotated `Context`, and `Context.current()` finds it anywhere
below: in functions that the job calls, in tasks that it starts, in its thread.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .errors import NotRunning

if TYPE_CHECKING:
    from datetime import datetime

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

    __slots__ = ("_log", "attempt", "fire_time", "job_id", "schedule", "state", "task")

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

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named after the task, whose records carry job id, task and attempt."""
        if self._log is None:
            extra = {"job_id": self.job_id, "task": self.task, "attempt": self.attempt}
            self._log = logging.LoggerAdapter(logging.getLogger(f"tickwork.task.{self.task}"), extra)
        return self._log

    @classmethod
    def current(cls) -> Context:
        """Return the context of the job that this code runs in.

        Raises:
            NotRunning: It runs in none.
        """
        try:
            return _current.get()
        except LookupError:
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
    return Context(job_id=job_id, task=task, attempt=attempt, schedule=schedule, fire_time=fire_time)
