"""Jobs: what they are made of, their states, and the moves between the states.

    scheduled ──► queued ──► running ──► succeeded
        ▲           ▲ │         │  ├───► failed
        │           │ │         │  ├───► cancelled
        └───────────┼─┼─ retry ─┤  └───► parked ──► queued
                    └─┼ release ┘           ▲
                      └─────────────────────┘

`MOVES` is the table; every store goes through `JobRecord.moved`, which raises `IllegalMove` for anything else.
"""

from __future__ import annotations

import json
import os
from dataclasses import field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from .errors import IllegalMove
from .records import changed, copier, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from .payloads import ErrorInfo


class JobState(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    """Waits for its time (`delay`, `at`, the pause before a retry). A claim moves it on once it is due."""
    QUEUED = "queued"
    """Due, and waiting for a worker."""
    RUNNING = "running"
    """Claimed by a worker, which holds its lease; in the worker's buffer or under way."""
    SUCCEEDED = "succeeded"
    """Ended with a result."""
    FAILED = "failed"
    """Its attempts are used up; kept for a person to see."""
    CANCELLED = "cancelled"
    """Ended by a person, a program or a shutdown that could not give it back."""
    PARKED = "parked"
    """Nobody can run it as it stands; the reason is in its error."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to the job by itself."""
        return self in FINISHED


FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})

MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.SCHEDULED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.PARKED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.PARKED}),
    JobState.RUNNING: frozenset(
        {
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.PARKED,
            JobState.QUEUED,  # release, rescue
            JobState.SCHEDULED,  # retry
        }
    ),
    JobState.PARKED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    # A person may run a finished job once more.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset(),
}


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The process that ran it died."""


@record
class Attempt:
    """An attempt that did not succeed, as a store keeps it.

    Attributes:
        number: Which attempt it was, counted from 1. A person who has the job run again begins a new count.
        started_at: When the function was called (UTC); None: nobody knows.
        ended_at: When the store heard of its end (UTC).
        outcome: How it ended.
        worker: The name of the worker process that ran it.
        error: Its error, as the JSON of `ErrorInfo`.
    """

    number: int
    started_at: datetime | None
    ended_at: datetime
    outcome: Outcome
    worker: str | None
    error: str | None

    @property
    def error_info(self) -> ErrorInfo | None:
        """Its error, with its traceback; None: none is known."""
        from .payloads import ErrorInfo  # which a pool does without

        return None if self.error is None else ErrorInfo.from_json(self.error)


@record
class Progress:
    """How far a job has come, as it told with `Context.progress`.

    Attributes:
        done: How much is done, in a unit of the job's choice.
        total: How much there is to do; None: nobody knows.
        message: What people should read; None: nothing.
        updated_at: When it was told (UTC).
    """

    done: float
    total: float | None = None
    message: str | None = None
    updated_at: datetime

    def to_json(self) -> str:
        """Return it as a store keeps it: JSON of ASCII characters only."""
        return json.dumps([self.done, self.total, self.message, self.updated_at.isoformat()], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Return what `to_json` has written."""
        done, total, message, updated_at = json.loads(text)
        return cls(done=done, total=total, message=message, updated_at=datetime.fromisoformat(updated_at))


@record
class NewJob:
    """A request to run a task, before a store has taken it."""

    id: str
    task: str
    payload: str = field(repr=False)
    """The arguments, as the codec's JSON; not in `repr`, for they may be secret."""
    run_at: datetime
    """Not before this instant (UTC)."""
    queue: str = "default"
    priority: int = 0
    """Higher runs first; within one priority, the order of arrival."""
    schedule: str | None = None
    fire_time: datetime | None = None
    """The instant at which the schedule said it was due; None for jobs that no schedule made."""
    start_by: datetime | None = None
    """A first start later than this is missed: the job is cancelled instead. None: no limit."""
    is_once: bool = False
    """It runs at most once: a claim is its attempt, and when the worker dies, it has failed."""
    key: str | None = field(default=None, repr=False)
    """Its idempotency key: of the jobs of a task that have one, a single one is unfinished. None: it has none.

    Not in `repr`: one that a caller gives may hold a secret.
    """
    gates: tuple[str, ...] = ()
    """The limits that it shares with others, two at the most, in the order in which it passes them: see `limits`."""
    batch: str | None = None
    """The id of the batch that it belongs to; None: to none."""
    batch_index: int | None = None
    """Its place among the items of the batch, from 0."""


@record
class JobRecord(NewJob):
    """A job as a store holds it: one immutable snapshot."""

    state: JobState
    enqueued_at: datetime
    attempt: int = 0
    """Attempts that have ended or were begun by the present owner."""
    deaths: int = 0
    """Worker processes that died under it: they had begun it, as far as the store was told."""
    lost: int = 0
    """Worker processes that died with it in hand, whether they had begun it or not."""
    token: int = 0
    """Grows with each claim; a write with an older one is refused."""
    worker: str | None = None
    """The name of the worker process that has claimed it, while it runs."""
    lease_expires_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: str | None = field(default=None, repr=False)
    """The result, as JSON; not in `repr`, for it may be secret, and long."""
    error: str | None = None
    """The last attempt's error, as the JSON of `ErrorInfo`."""
    cancel_requested: bool = False
    progress: Progress | None = None
    """How far the last attempt had come, where it told; the next claim forgets it."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to the job by itself: it is finished, or waits for a person."""
        return self.state in FINISHED or self.state is JobState.PARKED

    def moved(self, state: JobState, **changes: Any) -> JobRecord:
        """Return the record in its next state.

        Raises:
            IllegalMove: The state does not follow from the present one.
        """
        if state not in MOVES[self.state]:
            raise IllegalMove(self.id, self.state, state)
        return changed(self, state=state, **changes)


def taken(job: NewJob, now: datetime) -> JobRecord:
    """Return the record of a job that a store takes in now."""
    take, defaults = _taking()
    return take(job, JobState.QUEUED if job.run_at <= now else JobState.SCHEDULED, now, *defaults)


@cache
def _taking() -> tuple[Callable[..., JobRecord], list[Any]]:
    """Return what makes a record of a new job, and what it is given behind state and `enqueued_at`."""
    more = fields(JobRecord)[len(fields(NewJob)) :]
    return copier(JobRecord, *(entry.name for entry in more)), [entry.default for entry in more[2:]]


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that look like digits
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]  # ten bits at a time
_random = Random()  # seeded by the system; nobody else's, so that a `random.seed` in a program repeats no id
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


_stamp: tuple[datetime, int, str] = _EPOCH, 0, "0" * 10


def new_id(now: datetime) -> str:
    """Return a job id: 20 letters and digits that sort by creation time (milliseconds), with 50 random bits."""
    global _stamp
    at, known, text = _stamp  # read at once: jobs are enqueued from many threads
    if at is not now:  # the jobs of one moment share its text
        milliseconds = (now - _EPOCH) // _MILLISECOND
        if milliseconds != known:
            text = _text(milliseconds)
        _stamp = now, milliseconds, text
    return text + _text(_random.getrandbits(50))


def _text(bits: int) -> str:
    """Return 50 bits as ten characters."""
    pairs = _PAIRS
    return (
        f"{pairs[bits >> 40]}{pairs[(bits >> 30) & 1023]}{pairs[(bits >> 20) & 1023]}{pairs[(bits >> 10) & 1023]}"
        f"{pairs[bits & 1023]}"
    )
