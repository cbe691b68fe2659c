"""The contract of a store. Its verbs are bulk, and they are the same in every store.

Producers call `enqueue` and the scheduler calls `fire`; a worker process calls `claim`, then `extend` and `progress`
while jobs run, and `finish` or `release` at their end; `rescue` and `prune` keep house. A claim gives each job a
lease with a token that grows. Every later write about the job carries the token; when another claim came between, the
write changes nothing and its answer says so.

Each verb is one transaction: it is done wholly or not at all, also when its caller is cancelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..records import record

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from ..jobs import JobRecord, JobState, NewJob
    from ..policies import OverlapPolicy

FireOutcome = Literal["ran", "skipped", "missed", "merged", "paused", "not_started"]
"""What became of a fire time: a job that ran; none, because the last was unfinished; let pass; taken up by a job that
waited already; let pass while the schedule was paused; a job that was cancelled before it began."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do beyond the verbs.

    Attributes:
        durable: Jobs survive the end of the process.
        transactional: Jobs can be enqueued inside the user's own transaction.
        multi_process: Several processes may share it.
        notify: It wakes waiting workers without a poll.
    """

    durable: bool = False
    transactional: bool = False
    multi_process: bool = False
    notify: bool = False


@record
class ScheduleRow:
    """A schedule as a store holds it.

    Attributes:
        name: Its name.
        task: The name of the task whose jobs it makes.
        trigger: The trigger as text.
        fingerprint: Changes when the trigger's meaning does.
        version: Grows with every change of the row; `fire` compares it.
        watermark: The last instant up to which every fire time is answered (UTC).
        paused: Whether fire times are let pass.
    """

    name: str
    task: str
    trigger: str
    fingerprint: str
    version: int
    watermark: datetime
    paused: bool = False


@record
class Declare:
    """Make sure that a schedule is there. A new or changed trigger starts from now, without a backfill."""

    name: str
    task: str
    trigger: str
    fingerprint: str


@record
class Pause:
    """Pause or resume a schedule. Resuming starts from now.

    Attributes:
        passed_first: When resuming: the earliest fire time that passed meanwhile; None: none did.
        passed_last: The newest of those.
        passed_count: How many; None: too many to count.
    """

    name: str
    paused: bool
    passed_first: datetime | None = None
    passed_last: datetime | None = None
    passed_count: int | None = 0


@record
class Remove:
    """Forget a schedule. Its jobs stay."""

    name: str


ScheduleChange = Declare | Pause | Remove


@record
class Firing:
    """One answer to the fire times of a schedule that have come.

    Attributes:
        schedule: Its name.
        version: The row's version that the decision was made on; None for a manual job, which changes no row.
        watermark: The new watermark: the newest fire time answered; None for a manual job.
        job: The job to be made; None when all fire times up to the watermark are let pass.
        overlap: What to do while another job of the schedule is not finished.
        missed_first: The earliest fire time that is let pass, when there is any.
        missed_last: The newest fire time that is let pass; it is before the watermark, which runs.
        missed_count: How many are let pass before the one that runs; None: too many to count.
    """

    schedule: str
    version: int | None
    watermark: datetime | None
    job: NewJob | None
    overlap: OverlapPolicy
    missed_first: datetime | None = None
    missed_last: datetime | None = None
    missed_count: int | None = 0


@dataclass(frozen=True, slots=True)
class Fired:
    """What became of a firing.

    Attributes:
        outcome: "ran", "skipped", "merged" or "missed"; None when the row had changed, so that nothing was done.
        row: The schedule's row now; None when there is none any more.
        job: The job that was made.
        blocked_by: The id of the unfinished job that made it skip, or into which it merged.
        cancelled: The ids of running jobs that are to be cancelled for it; those that waited are cancelled already.
    """

    outcome: FireOutcome | None
    row: ScheduleRow | None
    job: JobRecord | None = None
    blocked_by: str | None = None
    cancelled: tuple[str, ...] = ()


@record
class Answer:
    """A row of the ledger: what became of a fire time, or of several in a row that were let pass.

    Attributes:
        schedule: Its name.
        first: The earliest fire time of the row; `last` the newest; `count` how many, None: too many to count.
        outcome: What became of it.
        job_id: The job that ran, the one that blocked, or the one it merged into.
    """

    schedule: str
    first: datetime
    last: datetime
    count: int | None
    outcome: FireOutcome
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write about a job, until another claim."""

    job_id: str
    token: int


@record
class Finish:
    """The end of an attempt.

    Attributes:
        lease: Who writes.
        state: Where the job goes.
        attempt: The number of the attempt that ended, counted from 1.
        deaths: Processes that have died under the job.
        started_at: When the function was called; None when it never was.
        result: Its value, as JSON.
        error: Its error, as the JSON of `ErrorInfo`.
        run_at: When the next attempt is due, for a state that waits.
    """

    lease: Lease
    state: JobState
    attempt: int
    deaths: int = 0
    started_at: datetime | None = None
    result: str | None = None
    error: str | None = None
    run_at: datetime | None = None


class Store(ABC):
    """What every store does. Instants are aware UTC; every method may be called from the app's loop only."""

    capabilities: Capabilities

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make the tables where there are none."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything. A second call does nothing."""

    # -- producers ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def enqueue(self, jobs: Sequence[NewJob], *, wait: bool = True) -> list[JobRecord]:
        """Take jobs in, all or none, in their order.

        Args:
            jobs: The jobs; one with a later `run_at` is scheduled, the others are queued.
            wait: Wait while the store is full; else raise.

        Raises:
            QueueFull: There is no room and `wait` is false, or more jobs at once than the store may ever hold.

        A cancelled call has enqueued nothing.
        """

    @abstractmethod
    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """Answer fire times, each by itself: compare the row's version, apply the overlap, make the job, write the
        ledger and move the watermark. Returns one `Fired` for each firing, in their order.

        Fired jobs do not count against the store's bound: the overlap bounds them.
        """  # noqa: D205 - one sentence of two lines

    @abstractmethod
    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """Apply changes, and return the row of each, None where there is none (any more)."""

    # -- workers --------------------------------------------------------------------------------------------------

    @abstractmethod
    async def claim(
        self,
        *,
        worker: str,
        tasks: Collection[str],
        limit: int,
        queues: Collection[str] | None = None,
        lease_seconds: float | None = None,
    ) -> list[JobRecord]:
        """Take up to `limit` due jobs: the highest priority first, within it the oldest.

        A job that is to begin later than its `start_by` is cancelled instead, and its fire time becomes missed.

        Args:
            worker: Who claims.
            tasks: The names of the tasks it knows; jobs of others stay queued.
            limit: How many at the most.
            queues: From which queues; None: from all.
            lease_seconds: How long the claim holds unless extended; None: as long as the process lives.
        """

    @abstractmethod
    async def extend(self, leases: Sequence[Lease], lease_seconds: float) -> list[bool]:
        """Make leases last from now. False: the job has another owner or is finished."""

    @abstractmethod
    async def progress(self, lease: Lease, *, started_at: datetime) -> bool:
        """Record that the job's function has been called. False: it has another owner."""

    @abstractmethod
    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """Write the ends of attempts. False: the job has another owner; nothing was written."""

    @abstractmethod
    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Give unstarted jobs back, with no attempt used. False: the job has another owner."""

    @abstractmethod
    async def rescue(self) -> list[JobRecord]:
        """Return the jobs of dead workers to the queue, and park those under which too many died."""

    @abstractmethod
    async def beat(self, worker: str) -> None:
        """Record that a worker process lives."""

    # -- waiting --------------------------------------------------------------------------------------------------

    @abstractmethod
    async def wait_claimable(self) -> None:
        """Wait until a claim may find something. It may wake for nothing."""

    @abstractmethod
    async def wait_finished(self, job_id: str) -> JobRecord:
        """Wait until a job is finished or parked, and return it.

        Raises:
            UnknownJob: There is no such job.
        """

    # -- people ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def cancel(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Cancel jobs that wait, and mark those that run.

        Returns:
            Each job as it is then; None where there was nothing to cancel: it is finished, or unknown.
        """

    @abstractmethod
    async def prune(self) -> int:
        """Forget finished jobs and ledger rows beyond their retention, and return how many."""

    @abstractmethod
    async def job(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            UnknownJob: There is no such job.
        """

    @abstractmethod
    async def jobs(
        self, *, state: JobState | None = None, schedule: str | None = None, limit: int = 100
    ) -> list[JobRecord]:
        """Return jobs, the newest first."""

    @abstractmethod
    async def counts(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state."""

    @abstractmethod
    async def ledger(self, schedule: str, *, limit: int = 100) -> list[Answer]:
        """Return what became of the fire times of a schedule, the newest first."""
