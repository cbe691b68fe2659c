"""The contract of a store. Its verbs are bulk, and they are the same in every store.

Producers call `enqueue` and the scheduler calls `fire`; a worker process calls `claim`, then `extend` and `progress`
while jobs run, and `finish` or `release` at their end; `rescue` and `prune` keep house. A claim gives each job a
lease with a token that grows. Every later write about the job carries the token; when another claim came between, the
write changes nothing and its answer says so.

Each verb is one transaction: it is done wholly or not at all, also when its caller is cancelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..errors import IllegalMove, NotTransactional
from ..jobs import MOVES, Attempt, JobState, Outcome
from ..payloads import ErrorInfo
from ..records import changed, record

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from ..jobs import JobRecord, NewJob, Progress
    from ..limits import Limits
    from ..policies import OverlapPolicy
    from .batches import BatchPart, BatchRow
    from .views import JobQuery, Page, QueueRow, Standing, Vitals, WorkerRow

FireOutcome = Literal["ran", "skipped", "missed", "merged", "paused", "not_started"]
"""What became of a fire time: a job that ran; none, because the last was unfinished; let pass; taken up by a job that
waited already; let pass while the schedule was paused; a job that was cancelled before it began."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do beyond the verbs.

    Attributes:
        durable: Jobs survive the end of the process.
        transactional: Jobs can be enqueued inside the user's own transaction, and end inside of one.
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
        declared_at: Since when the store knows the schedule with this trigger (UTC).
        paused: Whether fire times are let pass.
        runs: How many jobs were made at fire times, ever.
        after_seconds: Seconds from the end of a job to the next fire time, for `after="end"`; else None.
        next_at: The next fire time, for `after="end"`; None while a job is unfinished, and for all others.
        succeeded_at: When a job of the schedule last succeeded (UTC); None: none has. `Store.schedules` tells it; in
            what other verbs return, it may be missing.
    """

    name: str
    task: str
    trigger: str
    fingerprint: str
    version: int
    watermark: datetime
    declared_at: datetime
    paused: bool = False
    runs: int = 0
    after_seconds: float | None = None
    next_at: datetime | None = None
    succeeded_at: datetime | None = None


@record
class Declare:
    """Make sure that a schedule is there. A new or changed trigger starts from now, without a backfill.

    Attributes:
        name: Its name; `task`, `trigger` and `fingerprint` as in its row.
        after_seconds: For `after="end"`: see `ScheduleRow`.
        next_at: The first fire time where the row is new or changed, for `after="end"`.
    """

    name: str
    task: str
    trigger: str
    fingerprint: str
    after_seconds: float | None = None
    next_at: datetime | None = None


@record
class Pause:
    """Pause or resume a schedule. Resuming starts from now.

    Attributes:
        passed_first: When resuming: the earliest fire time that passed meanwhile; None: none did.
        passed_last: The newest of those.
        passed_count: How many; None: too many to count.
        next_at: When resuming: the next fire time, for `after="end"`; a job that is unfinished then sets it anew.
        watermark: When resuming: up to when what passed is told, and from when on the schedule fires again; None: now,
            as the store has it.
    """

    name: str
    paused: bool
    passed_first: datetime | None = None
    passed_last: datetime | None = None
    passed_count: int | None = 0
    next_at: datetime | None = None
    watermark: datetime | None = None


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
        decided_by: The options that let them pass, as they are written.
        late_because: What made the scheduler late, where that is known.
        next_at: The next fire time of an `after="end"` schedule for which no job is made; else None.
        staged: What the store has made ready for it: see `Store.stage`.
    """

    schedule: str
    version: int | None
    watermark: datetime | None
    job: NewJob | None
    overlap: OverlapPolicy
    missed_first: datetime | None = None
    missed_last: datetime | None = None
    missed_count: int | None = 0
    decided_by: str = ""
    late_because: str | None = None
    next_at: datetime | None = None
    staged: Any = field(default=None, repr=False)


@record
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

    Four instants tell a run: `first`, when it was due; `wanted_at`, when it was to start; `started_at`; `finished_at`.

    Attributes:
        schedule: Its name.
        first: The earliest fire time of the row; `last` the newest; `count` how many, None: too many to count.
        outcome: What became of it.
        answered_at: When that was decided (UTC).
        job_id: The job that was made; None: none was.
        blocked_by: The unfinished job that made it skip, or into which it merged.
        decided_by: The option that decided, as it is written: `overlap="skip"`.
        late_because: Why the scheduler or the start was late, where that is known.
        wanted_at: When the job was to start: the fire time and its jitter.
        started_at: When the job's function was first called; None: it never was, or its first attempt goes on.
        finished_at: When the job ended; None: it has not, or there is none.
        state: How the job ended: "succeeded", "failed", "cancelled" or "parked"; None: it has not.
    """

    schedule: str
    first: datetime
    last: datetime
    count: int | None
    outcome: FireOutcome
    answered_at: datetime
    job_id: str | None = None
    blocked_by: str | None = None
    decided_by: str = ""
    late_because: str | None = None
    wanted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    state: JobState | None = None

    def shares_row_with(self, following: Answer) -> bool:
        """Return whether the next answer of the schedule is a continuation of this one: consecutive, without jobs."""
        return (
            self.outcome == following.outcome
            and self.outcome in ("missed", "paused")
            and self.decided_by == following.decided_by
            and self.job_id is following.job_id is None
        )

    def joined(self, following: Answer) -> Answer:
        """Return one row for this answer and the next one, which shares it."""
        count = None if self.count is None or following.count is None else self.count + following.count
        because = self.late_because if self.late_because == following.late_because else None
        return replace(self, last=following.last, count=count, answered_at=following.answered_at, late_because=because)


class Lease(NamedTuple):
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
        late_because: Why the attempt started late, where that is known.
        outcome: How it ended, for the history of the job; None: there was no attempt.
        misfit: When it is parked because its arguments do not fit the task: the fingerprint of that.
    """

    lease: Lease
    state: JobState
    attempt: int
    deaths: int = 0
    started_at: datetime | None = None
    result: str | None = None
    error: str | None = None
    run_at: datetime | None = None
    late_because: str | None = None
    outcome: Outcome | None = None
    misfit: str | None = None

    @property
    def leaves_trace(self) -> bool:
        """Whether its attempt goes into the job's history: one that succeeded is told by the job itself."""
        return self.outcome is not None and self.outcome is not Outcome.SUCCEEDED


def is_aside(jobs: Collection[str] | None, last: Collection[str] | None) -> bool:
    """Return whether a claim of certain jobs asks for less than the last one did; None: for any. See `Store.claim`."""
    return jobs is not None and (last is None or set(jobs) < set(last))


def attempt_of(finish: Finish, worker: str | None, now: datetime) -> Attempt:
    """Return what is kept of an attempt that did not succeed."""
    assert finish.outcome is not None
    # The death of its process is no attempt that counts, yet it was the one after those.
    number = finish.attempt + (finish.outcome is Outcome.LOST)
    return Attempt(
        number=number,
        started_at=finish.started_at,
        ended_at=now,
        outcome=finish.outcome,
        worker=worker,
        error=finish.error,
    )


def lost_attempt(job: JobRecord, now: datetime) -> Attempt:
    """Return what is kept of an attempt whose worker has died, of the job as it was then."""
    message = f"worker {job.worker} died while it ran"
    return Attempt(
        number=job.attempt + 1,
        started_at=job.started_at,
        ended_at=now,
        outcome=Outcome.LOST,
        worker=job.worker,
        error=ErrorInfo("tickwork.errors.WorkerDied", message).to_json(),
    )


def check_finishes(finishes: Iterable[Finish]) -> None:
    """Refuse ends that are none, before anything is written.

    Raises:
        IllegalMove: A running job cannot come into that state.
    """
    for finish in finishes:
        if finish.state not in MOVES[JobState.RUNNING]:
            raise IllegalMove(finish.lease.job_id, JobState.RUNNING, finish.state)


def after_attempt(record: JobRecord, ended: Finish, now: datetime) -> JobRecord:
    """Return a running job after the end of its attempt. One that was to be cancelled is not tried again."""
    is_cancelled = record.cancel_requested and ended.state in (JobState.QUEUED, JobState.SCHEDULED)
    state = JobState.CANCELLED if is_cancelled else ended.state
    return changed(
        record,
        state=state,
        attempt=ended.attempt,
        deaths=ended.deaths,
        started_at=ended.started_at or record.started_at,
        finished_at=now if state.is_finished else None,
        result=ended.result,
        error=ended.error,
        run_at=ended.run_at or record.run_at,
        lease_expires_at=None,
        worker=None,
    )


def after_death(record: JobRecord, max_deaths: int) -> tuple[JobState, int, str | None]:
    """Return state, deaths and error of a running job whose worker is dead, or has lost its lease.

    A job whose function nobody had called is none of the reasons for the death.
    """
    deaths = record.deaths + (record.started_at is not None)
    if record.is_once:  # the claim was its attempt: whether it had begun cannot be known
        message = f"worker {record.worker} died with it, and it may run at most once"
        return JobState.FAILED, deaths, ErrorInfo("tickwork.errors.WorkerDied", message).to_json()
    if record.cancel_requested:
        return JobState.CANCELLED, deaths, record.error
    if deaths >= max_deaths:
        message = f"{deaths} worker processes died while it ran, the last of them {record.worker}"
        return JobState.PARKED, deaths, ErrorInfo("tickwork.errors.WorkerDied", message).to_json()
    return JobState.QUEUED, deaths, record.error


class Listener(Protocol):
    """Hears, on the loop, what other processes have done to the store that this one must know."""

    def cancel_asked(self, job_ids: Sequence[str]) -> None:
        """Hear that jobs which this worker runs are to be cancelled."""

    def leases_held(self, tokens: Mapping[str, int]) -> None:
        """Hear which jobs this worker has, each with the token of its lease; what else it runs was taken away.

        A store tells it, at the latest, before it refuses a write of this worker as too late.
        """

    def schedules_changed(self) -> None:
        """Hear that some schedule was declared anew, paused, resumed, or given another next fire time."""


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

        A job with a key that an unfinished job of its task has, or an earlier one of these, is not taken in: the other
        one stands in its place in the answer, as it is then, and needs no room.

        Who waits longest goes first, those of other processes excepted.

        Raises:
            QueueFull: There is no room and `wait` is false, or more jobs at once than the store may ever hold.
            DuplicateJob: The store knows the id of one.
            NotRunning: The store was closed while this waited; nothing was enqueued.

        A cancelled call has enqueued nothing, unless a worker had begun a job before it could be taken out again. A job
        with a key may stay, since another caller may have been given it.
        """

    async def enqueue_within(self, connection: Any, jobs: Sequence[NewJob]) -> list[JobRecord]:
        """Take jobs in as a part of the transaction that a connection of the caller's is in: all or none, no sooner
        than its commit. They wait for no room.

        Only where `capabilities.transactional` says so. What the connection raises leaves the transaction as its
        driver does, and so does a cancellation.

        Raises:
            InvalidOption: It is no connection that the store knows, or is in no transaction.
            StoreUnavailable: It leads to another database.
        """  # noqa: D205 - one sentence of two lines
        raise NotTransactional("enqueue_within", f"{type(self).__name__} keeps them elsewhere")

    def enqueue_within_sync(
        self, connection: Any, jobs: Sequence[NewJob], loop: asyncio.AbstractEventLoop
    ) -> list[JobRecord]:
        """Do the same on a connection that blocks, in another thread than that of the store's loop."""
        raise NotTransactional("enqueue_within_sync", f"{type(self).__name__} keeps them elsewhere")

    def transaction(
        self, end: Callable[[], Awaitable[Finish]], on_end: Callable[[bool], None]
    ) -> AbstractAsyncContextManager[Any]:
        """Return a context manager: a connection in a transaction, with which an attempt ends.

        When the block is left, the end is written in the transaction, and it is committed. When something is raised in
        the block, or the end is refused, nothing is done. Only where `capabilities.transactional` says so.

        Args:
            end: Returns the end of the attempt, which has succeeded; called at the end of the block.
            on_end: Called when that is committed, before anybody else on the loop knows; with False when the job has
                another owner, and all is rolled back: then it raises what the block is to raise.

        At its end the block raises what the connection does. Nothing is done then, unless the error says that this is
        not known.
        """
        raise NotTransactional("transaction", f"{type(self).__name__} keeps them elsewhere")

    @abstractmethod
    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """Answer fire times, each by itself: compare the row's version, apply the overlap, make the job, write the
        ledger and move the watermark. Returns one `Fired` for each firing, in their order.

        Fired jobs do not wait for room: the overlap bounds them. A consecutive answer that
        `Answer.shares_row_with` the last one is joined to it.

        A fire time makes one job, ever. When the ledger has a row for it, which takes a clock that was set back, the
        watermark moves on and the answer is that nothing was done; an `after_seconds` schedule gets a `next_at`.
        """  # noqa: D205 - one sentence of two lines

    def stage(self, firing: Firing) -> Firing:
        """Return a firing that is about to come, with what could be made ready for it. Nothing is changed by that.

        Whether it holds is found out by `fire`, which takes any other firing as well.
        """
        return firing

    @abstractmethod
    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """Apply changes, all or none, and return the row of each, None where there is none (any more).

        Raises:
            UnknownSchedule: One is to be paused or resumed that is not there.
        """

    @abstractmethod
    async def schedules(self, names: Collection[str] | None = None) -> list[ScheduleRow]:
        """Return the rows of schedules, those of these names or all, in the order of their names."""

    @abstractmethod
    async def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Let limits hold for the jobs of tasks, by name, from the next claim on, those that wait already included.

        A task that is not named keeps its own. A gate of a task for which nothing was ever said is open.
        """

    # -- workers --------------------------------------------------------------------------------------------------

    @abstractmethod
    async def claim(
        self,
        *,
        worker: str,
        tasks: Collection[str],
        limit: int,
        queues: Collection[str] | None = None,
        jobs: Collection[str] | None = None,
        lease_seconds: float | None = None,
    ) -> list[JobRecord]:
        """Take up to `limit` due jobs: the highest priority first, within it the one that was enqueued first.

        That holds also for jobs that were scheduled for later, retried, released or rescued. A job that must wait for
        the end of others (`overlap` "queue" or "replace") is not due before.

        Of the jobs at a gate (`NewJob.gates`), no more are claimed than its limit lets run at once, running ones of
        all processes counted, or than its rate lets start in any period, claims counted. One that must wait for that
        stands in nobody's way, and one that ended, died, was given back or cancelled makes room for the next. A claim
        that is given back before the job's function was called, as far as the store was told, is none for the rate.
        Jobs of a paused queue stay where they are.

        A job that would begin later than its `start_by` is cancelled instead, and its fire time becomes missed: such
        jobs stand in the answer too, with the state "cancelled", beyond the limit.

        Args:
            worker: Who claims.
            tasks: The names of the tasks it knows; jobs of others stay queued.
            limit: How many at the most.
            queues: From which queues; None: from all.
            jobs: Only those of these ids; None: any. Who asks for less than the last claim did asks aside: that one
                stays the last, for those who wait (`wait_claimable`).
            lease_seconds: How long the claim holds unless extended; None: as long as the process lives, and, in a
                store of several processes, its loop turns.

        A cancelled call has claimed nothing.
        """

    @abstractmethod
    async def extend(self, leases: Sequence[Lease], lease_seconds: float) -> list[bool]:
        """Make leases last from now. False: the job has another owner or is finished."""

    @abstractmethod
    async def progress(
        self, lease: Lease, *, started_at: datetime | None = None, progress: Progress | None = None
    ) -> bool:
        """Record that the job's function has been called, or is about to be, and how far it is.

        Args:
            lease: Who writes.
            started_at: When it was called; None: nothing new about that. The death of a worker counts against a job
                only when this was recorded.
            progress: What the job has told; None: nothing new. The next claim forgets it.

        Returns:
            False: it has another owner, or is finished; nothing was written.
        """

    @abstractmethod
    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """Write the ends of attempts. False: the job has another owner; nothing was written.

        A job that is to wait for another attempt is cancelled instead, when that was asked for meanwhile.

        The end of a job that a schedule made is written into the ledger. If the schedule's row has `after_seconds` and
        no `next_at`, it gets one, that long after now, and a new version.

        Raises:
            IllegalMove: A running job cannot come into such a state; none of the ends was written.
        """

    @abstractmethod
    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """Give unstarted jobs back, with no attempt used. False: the job has another owner.

        A job whose cancellation was asked for meanwhile is cancelled.
        """

    @abstractmethod
    async def rescue(self) -> list[JobRecord]:
        """Take the jobs of dead workers, and those whose lease is over, away from them; return them as they are then.

        They are queued again. All that were in hand have been `lost` once more. Those whose function had been called
        count a death, and are parked at the store's `max_deaths`. One that may run at most once has failed; one whose
        cancellation was asked for is cancelled.
        """

    @abstractmethod
    async def register(
        self, worker: str, tasks: Mapping[str, str], *, queues: Collection[str] | None = None
    ) -> list[JobRecord]:
        """Record which tasks a worker process knows, and queue the jobs again that were parked as misfits of others.

        A job that was parked with `Finish.misfit` is queued again when the worker knows its task with a fingerprint
        that has not refused it yet. A store of several processes looks for such jobs from then on, too.

        Args:
            worker: Its name.
            tasks: The names of its tasks, with the fingerprints of their signatures.
            queues: From which queues it claims; None: from all.

        Returns:
            The jobs that are queued again.
        """

    @abstractmethod
    async def workers(self) -> list[WorkerRow]:
        """Return the worker processes that live, in the order of their start."""

    @abstractmethod
    async def beat(self, worker: str, vitals: Vitals | None = None) -> None:
        """Record that a worker process lives, and how it does; None: nothing new about that."""

    # -- waiting --------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:  # noqa: B027 - a store of one process has nothing to tell
        """Tell this listener from now on what other processes have done."""

    @abstractmethod
    async def wait_claimable(self, limit: int = 1) -> None:
        """Wait until a claim may find more than the last one, which found less than it was to. It may wake for nothing.

        Args:
            limit: For how many jobs who waits has room: a store may claim as many for it at once, with the arguments
                of its last claim, and hand them out at the next.
        """

    @abstractmethod
    def finished(self, job_id: str) -> asyncio.Future[JobRecord]:
        """Return a future of a job's record once that is finished or parked; of UnknownJob where there is none.

        It is the caller's own: who waits no more cancels it, or sets what is known sooner. When the store is closed,
        it raises NotRunning.
        """

    async def wait_finished(self, job_id: str) -> JobRecord:
        """Wait until a job is finished or parked, and return it.

        Raises:
            UnknownJob: There is no such job.
        """
        return await self.finished(job_id)

    # -- batches --------------------------------------------------------------------------------------------------

    @abstractmethod
    async def feed_batch(self, part: BatchPart, jobs: Sequence[NewJob], *, wait: bool = True) -> BatchRow:
        """Take the next jobs of a batch in, all or none, and return the batch as it is then.

        The first part makes the batch. When the batch takes no more, is of another task or has not as many items as
        `part.first` says, nothing is done: the caller compares what it gets. A part without jobs says that more is to
        come, or, with `is_last`, that none is.

        Args:
            part: What they are.
            jobs: The jobs, with the batch and their `batch_index`, which count on from `part.first`; none has a key.
            wait: Wait while the store is full, as `enqueue` does; else raise.

        Raises:
            QueueFull: There is no room and `wait` is false, or more jobs at once than the store may ever hold.
            UnknownBatch: There is no such batch, and `part.first` is not 0.
            NotRunning: The store was closed while this waited; nothing was enqueued.

        A cancelled call has enqueued all of the jobs or none; the batch says which.
        """

    @abstractmethod
    async def cancel_batch(self, batch_id: str) -> BatchRow:
        """Let a batch that is not complete take no more, and return it as it is then. Its jobs stay.

        Raises:
            UnknownBatch: There is no such batch.
        """

    @abstractmethod
    async def batch(self, batch_id: str) -> BatchRow:
        """Return a batch.

        Raises:
            UnknownBatch: There is no such batch.
        """

    @abstractmethod
    async def batches(self, *, limit: int = 100) -> list[BatchRow]:
        """Return batches, the newest first."""

    @abstractmethod
    async def batch_jobs(
        self, batch_id: str, *, first: int = 0, states: Collection[JobState] = (), limit: int = 100
    ) -> list[JobRecord]:
        """Return jobs of a batch in the order of its items, from the item `first` on, as far as they are kept.

        Args:
            batch_id: Which batch; of one that is unknown, there are none.
            first: The first item, counted from 0.
            states: Only those in one of these states; empty: in any.
            limit: How many at the most.
        """

    @abstractmethod
    async def batch_ends(self, batch_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, JobRecord]]:
        """Return jobs of a batch in the order of their ends, each with the number of its last end.

        The ends of a batch are counted from 1, those that one call of `finish` has written in any order; a job that was
        retried counts again, and stands here in the state in which it is now.

        Args:
            batch_id: Which batch; of one that is unknown, there are none.
            after: Only those whose last end came after this one.
            limit: How many at the most.
        """

    @abstractmethod
    def batch_when(self, batch_id: str, is_so: Callable[[BatchRow], bool]) -> asyncio.Future[BatchRow]:
        """Return a future of a batch once something is so of it; of UnknownBatch where there is none.

        It is the caller's own: who waits no more cancels it. When the store is closed, it raises NotRunning.

        Args:
            batch_id: Which batch.
            is_so: Called with the batch as it is, on the loop, after it has changed.
        """

    # -- people ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def cancel(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """Cancel jobs that wait, and mark those that run.

        Args:
            job_ids: Which.
            seen: Only those that are still in this state; None: in whatever state they are.

        Returns:
            Each job as it is then; None where there was nothing to cancel: it is finished, or unknown.
        """

    @abstractmethod
    async def retry(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """Queue jobs again that have failed, were cancelled, or are parked, as if they had never run.

        They are due now, and have all their attempts before them; their grace is over and done with. Their history
        stays, and so does their last error. The row of the ledger that made one says that it runs again. They do not
        wait for room.

        Args:
            job_ids: Which.
            seen: Only those that are still in this state; None: in whatever state they are.

        Returns:
            Each job as it is then; None where it was not queued again: it is in another state or unknown, or an
            unfinished job has its key.
        """

    @abstractmethod
    async def delete(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Forget jobs that do not run, with their history. One that waits is cancelled first, as the ledger tells.

        Who waits for the end of one gets it as cancelled, or `UnknownJob`.

        Returns:
            Each job as it was; None where nothing was deleted: it runs, or is unknown.
        """

    @abstractmethod
    async def set_queue(self, name: str, *, paused: bool) -> bool:
        """Let nobody claim from a queue any more, or let them again. False: that was so already.

        What was claimed before goes on.
        """

    @abstractmethod
    async def queues(self) -> list[QueueRow]:
        """Return the queues that hold an unfinished job, are paused, or had one end within a minute, by name."""

    @abstractmethod
    async def paused_queues(self) -> dict[str, datetime]:
        """Return since when queues are paused (UTC), by name; those that are not are left out. Counts nothing."""

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
    async def page(self, query: JobQuery) -> Page:
        """Return some of the jobs that are asked for, the newest first, and where the others begin.

        What comes in meanwhile is on no later page, and what is there is on one of them once.

        Raises:
            InvalidOption: `after` is the `next` of no page.
        """

    @abstractmethod
    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of a job that did not succeed, the oldest first; the newest `MAX_ATTEMPTS` are kept."""

    @abstractmethod
    async def standing(self, job_id: str) -> Standing:
        """Return a job, and what stands in its way.

        Raises:
            UnknownJob: There is no such job.
        """

    @abstractmethod
    async def counts(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state."""

    @abstractmethod
    async def ledger(self, schedule: str, *, limit: int = 100, at: datetime | None = None) -> list[Answer]:
        """Return what became of the fire times of a schedule, the newest first.

        Args:
            schedule: Its name.
            limit: How many rows at the most.
            at: Only rows that cover this instant: from their first to their last fire time.
        """

    @abstractmethod
    async def answer_of(self, schedule: str, job_id: str) -> Answer | None:
        """Return the row of the ledger whose fire time made a job; None: it is not kept, or no fire time did."""
