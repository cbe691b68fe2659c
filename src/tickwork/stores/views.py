"""What a store tells people about its jobs, queues and workers, and what they ask of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..errors import InvalidOption
from ..jobs import JobState
from ..records import record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ..jobs import JobRecord
    from .blockers import Blocker

MAX_ATTEMPTS = 20
"""So many attempts that did not succeed are kept of each job, the newest: with their tracebacks some tens of kilobytes,
and who needs the twenty-first knows what is wrong."""

WAITING = (JobState.QUEUED, JobState.SCHEDULED)
RETRIABLE = (JobState.FAILED, JobState.CANCELLED, JobState.PARKED)
"""States out of which a person may have a job run again."""

MAX_AHEAD = 1_000
"""So many jobs in front of another are counted: beyond, it is a long wait all the same."""


@record
class JobQuery:
    """Which jobs are asked for; they come the newest first.

    Attributes:
        states: In one of these states; empty: in any.
        tasks: Of one of these task names; empty: of any.
        queue: In this queue; None: in any.
        schedule: Made by this schedule; None: by any, or none.
        batch: Of this batch; None: of any, or none.
        limit: How many at the most.
        after: Those behind the end of the page whose `next` this is; None: from the newest.
    """

    states: tuple[JobState, ...] = ()
    tasks: tuple[str, ...] = ()
    queue: str | None = None
    schedule: str | None = None
    batch: str | None = None
    limit: int = 50
    after: str | None = None

    def wants(self, job: JobRecord) -> bool:
        """Return whether a job is one of those, wherever it stands."""
        return (
            (not self.states or job.state in self.states)
            and (not self.tasks or job.task in self.tasks)
            and self.queue in (None, job.queue)
            and self.schedule in (None, job.schedule)
            and self.batch in (None, job.batch)
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs of a list.

    Attributes:
        jobs: The newest first.
        next: What to give as `after` for those behind them; None: there are none.
    """

    jobs: list[JobRecord]
    next: str | None


def cursor_of(place: int) -> str:
    """Return a place in the order of arrival as a text that says nothing to people."""
    return f"{place:x}"


def place_of(cursor: str) -> int:
    """Return the place that a cursor stands for.

    Raises:
        InvalidOption: It is none.
    """
    try:
        place = int(cursor, 16)
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < 2**63 or cursor != cursor_of(place):
        raise InvalidOption("after", "the `next` of another page", cursor)
    return place


@record
class QueueRow:
    """How a queue stands.

    Attributes:
        name: Its name.
        queued: How many jobs in it are due, and wait for a worker.
        scheduled: How many are for later.
        running: How many are in the hands of workers.
        oldest_due_at: Since when the one has been due that has waited longest (UTC); None: none waits.
        paused_at: Since when nobody claims from it (UTC); None: it is not paused.
        per_minute: How many of its jobs have ended within the last minute, as far as they are kept.
    """

    name: str
    queued: int = 0
    scheduled: int = 0
    running: int = 0
    oldest_due_at: datetime | None = None
    paused_at: datetime | None = None
    per_minute: float = 0.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker process did when it last said that it lives.

    Attributes:
        running: How many attempts were under way.
        rss_bytes: How much memory it held.
        lag_seconds: By how much a timer of its loop was late.
        scheduler_age: Seconds since its scheduler had last looked at what is due; None: it runs none.
        max_scheduler_age: Up to how many that is well; None: any number, for nothing is planned.
    """

    running: int = 0
    rss_bytes: int | None = None
    lag_seconds: float | None = None
    scheduler_age: float | None = None
    max_scheduler_age: float | None = None

    def to_json(self) -> str:
        """Return it as a store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Vitals:
        """Return what a process of this version or a later one has told; what is not known here is left out."""
        told = json.loads(text)
        return cls(**{name: told[name] for name in cls.__slots__ if name in told})


@record
class WorkerRow:
    """A worker process that lives.

    Attributes:
        name: Its name, by which leases and attempts name it.
        host: Where it runs.
        pid: Its process id there.
        started_at: Since when (UTC).
        beat_at: When it last said that it lives (UTC).
        tasks: The names of the tasks that it knows, with the fingerprints of their signatures.
        version: Which tickwork it runs.
        queues: From which queues it claims; None: from all.
        vitals: How it did then; None: it has not told.
    """

    name: str
    host: str
    pid: int
    started_at: datetime
    beat_at: datetime
    tasks: Mapping[str, str]
    version: str = ""
    queues: tuple[str, ...] | None = None
    vitals: Vitals | None = None

    def claims_from(self, queue: str) -> bool:
        """Return whether it claims jobs from a queue."""
        return self.queues is None or queue in self.queues

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}{f' on {self.host}' if self.host else ''})"


@record
class Standing:
    """A job, and what stands in its way in the store.

    Attributes:
        job: The job.
        behind: The ids of the unfinished jobs that must end before it begins.
        queue_paused_at: Since when its queue is paused (UTC); None: it is not.
        ahead: How many jobs that could be claimed have their turn before it; at most `MAX_AHEAD`.
        gate: The limit or the rate that keeps it from being claimed; None: none does.
        key_held_by: The id of the unfinished job of its task that has its key, so that it cannot be retried; None:
            there is none.
    """

    job: JobRecord
    behind: tuple[str, ...] = ()
    queue_paused_at: datetime | None = None
    ahead: int = 0
    gate: Blocker | None = None
    key_held_by: str | None = None

    @property
    def has_more_ahead(self) -> bool:
        """Whether so many jobs are ahead that no more were counted."""
        return self.ahead >= MAX_AHEAD
