"""A job as people may see it: its arguments without what is secret, its error as text, and all of it as JSON data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .payloads import ErrorInfo
from .payloads.plan import HIDDEN
from .payloads.secrets import without
from .records import record

if TYPE_CHECKING:
    from datetime import datetime

    from .jobs import Attempt, JobRecord, JobState, Progress
    from .payloads import Codec

__all__ = ["JobInfo", "JobPage", "attempt_data", "info_of"]


@record
class JobInfo:
    """A job as people may see it.

    Attributes:
        id: Its id.
        task: The name of its task.
        state: Where it stands.
        queue: The queue that it waits in.
        priority: Higher runs first.
        key: Its idempotency key, or None.
        schedule: The schedule that made it, or None.
        fire_time: When that said it was due (UTC), or None.
        batch: The id of the batch that it belongs to, or None.
        batch_index: Its place among the items of the batch, from 0, or None.
        arguments: Its arguments by name, as JSON data, with "***" for what is secret; those of `*args` under "*",
            further keywords under "**".
        enqueued_at: When the store took it (UTC).
        run_at: When it was, or is, to start (UTC).
        started_at: When its last attempt began (UTC); None: none has.
        finished_at: When it ended (UTC); None: it has not.
        attempt: How many attempts have ended.
        deaths: How many worker processes died under it.
        worker: The name of the worker process that has it in hand, or None.
        lease_expires_at: Until when that one has it (UTC), or None.
        cancel_requested: Whether somebody wants it cancelled.
        progress: How far it has come, where it told.
        error: What its last attempt raised, or why it is parked; None: nothing.
    """

    id: str
    task: str
    state: JobState
    queue: str
    priority: int
    key: str | None
    schedule: str | None
    fire_time: datetime | None
    batch: str | None
    batch_index: int | None
    arguments: dict[str, Any]
    enqueued_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    deaths: int
    worker: str | None
    lease_expires_at: datetime | None
    cancel_requested: bool
    progress: Progress | None
    error: ErrorInfo | None

    def to_data(self, *, traceback: bool = True) -> dict[str, Any]:
        """Return it as JSON data: the attributes in their order, instants as ISO 8601 in UTC.

        Args:
            traceback: Whether the traceback of the error is wanted, too.
        """
        progress = self.progress
        return {
            "id": self.id,
            "task": self.task,
            "state": str(self.state),
            "queue": self.queue,
            "priority": self.priority,
            "key": self.key,
            "schedule": self.schedule,
            "fire_time": _iso(self.fire_time),
            "batch": self.batch,
            "batch_index": self.batch_index,
            "arguments": self.arguments,
            "enqueued_at": _iso(self.enqueued_at),
            "run_at": _iso(self.run_at),
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "attempt": self.attempt,
            "deaths": self.deaths,
            "worker": self.worker,
            "lease_expires_at": _iso(self.lease_expires_at),
            "cancel_requested": self.cancel_requested,
            "progress": None
            if progress is None
            else {
                "done": progress.done,
                "total": progress.total,
                "message": progress.message,
                "updated_at": _iso(progress.updated_at),
            },
            "error": _error_data(self.error, traceback=traceback),
        }


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some jobs of a list.

    Attributes:
        jobs: The newest first.
        next: What to give as `after` for those behind them; None: there are none.
    """

    jobs: list[JobInfo]
    next: str | None


def info_of(job: JobRecord, codec: Codec | None, *, shows_names: bool = False) -> JobInfo:
    """Return a job as people may see it.

    Args:
        job: The job.
        codec: That of its task; None: nobody here knows the task, nor which of its arguments are secret.
        shows_names: Also show what only its name makes a secret, and the arguments of an unknown task.
    """
    key = job.key
    if key is not None and codec is not None:  # one of the task names no secret; one that a caller gives may hold any
        key = without(key, codec.secrets_in(job.payload))
    return JobInfo(
        id=job.id,
        task=job.task,
        state=job.state,
        queue=job.queue,
        priority=job.priority,
        key=key,
        schedule=job.schedule,
        fire_time=job.fire_time,
        batch=job.batch,
        batch_index=job.batch_index,
        arguments=_arguments(job.payload, codec, shows_names=shows_names),
        enqueued_at=job.enqueued_at,
        run_at=job.run_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempt=job.attempt,
        deaths=job.deaths,
        worker=job.worker,
        lease_expires_at=job.lease_expires_at,
        cancel_requested=job.cancel_requested,
        progress=job.progress,
        error=None if job.error is None else ErrorInfo.from_json(job.error),
    )


def _arguments(payload: str, codec: Codec | None, *, shows_names: bool) -> dict[str, Any]:
    if codec is not None:
        return codec.show(payload, hides_names=not shows_names)
    try:
        data = json.loads(payload)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return {HIDDEN: HIDDEN}
    return data if shows_names else dict.fromkeys(data, HIDDEN)


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as JSON data."""
    return {
        "number": attempt.number,
        "outcome": str(attempt.outcome),
        "started_at": _iso(attempt.started_at),
        "ended_at": _iso(attempt.ended_at),
        "worker": attempt.worker,
        "error": _error_data(attempt.error_info, traceback=True),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _error_data(error: ErrorInfo | None, *, traceback: bool) -> dict[str, Any] | None:
    if error is None:
        return None
    data: dict[str, Any] = {"type": error.type, "message": error.message, "notes": list(error.notes)}
    return {**data, "traceback": error.traceback} if traceback else data
