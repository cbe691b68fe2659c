"""What durable stores have in common: all but their SQL.

A store of this kind runs each verb as a function of a connection, in a transaction of a thread (see `committer`). The
functions stand in modules that are named alike for each database: `sqlite_verbs`, `postgres_verbs` and so on. Here is
what goes around them, on the loop: who waits for room, for a job, for an end or for a batch; what is claimed for a
worker that waits, in the transaction that enqueues it; and what other processes have changed meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from ..errors import NotRunning, QueueFull, StoreUnavailable
from ..jobs import JobState
from ..shield import to_its_end
from .base import Lease, Store, check_finishes, is_aside
from .batches import BatchRow, BatchWaits
from .ends import Ends

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from types import ModuleType

    from ..clock import Clock, Timer
    from ..jobs import Attempt, JobRecord, NewJob, Progress
    from ..limits import Limits
    from .base import Answer, Finish, Fired, Firing, Listener, ScheduleChange, ScheduleRow
    from .batches import BatchPart
    from .committer import Committer
    from .views import JobQuery, Page, QueueRow, Standing, Vitals, WorkerRow

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

DISTURBED_SECONDS = 3.0
"""A gap between two rounds of housekeeping, or a step of the wall clock, by which the thread was disturbed."""
FRESH_COUNT = 10_000
"""Of so many jobs, the last enqueued here, a store may know without a look that they cannot have ended yet."""
PRUNE_LIMIT = 1_000
"""So many rows are forgotten in one transaction: some milliseconds, so that claims hardly notice."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Dialect(NamedTuple):
    """The modules that hold the SQL of a store. In each store, they have functions of the same names and arguments."""

    verbs: ModuleType
    people: ModuleType
    batches: ModuleType
    limits: ModuleType
    attempts: ModuleType
    checks: ModuleType
    moving: ModuleType


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker asks for."""

    worker: str
    tasks: frozenset[str]
    queues: frozenset[str] | None
    jobs: frozenset[str] | None
    lease_seconds: float
    limit: int = field(compare=False)

    def takes(self, job: JobRecord) -> bool:
        """Return whether a new job is for this worker, and waits for nothing."""
        return (
            job.state is JobState.QUEUED
            and not job.gates
            and job.start_by is None
            and job.task in self.tasks
            and (self.queues is None or job.queue in self.queues)
            and self.jobs is None
        )


class Hungry:
    """A worker that waits for jobs: what is enqueued here is claimed for it at once, in the same transaction."""

    __slots__ = ("claim", "told")

    def __init__(self, claim: Claim | None) -> None:
        self.claim: Claim | None = claim
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """Let it look."""
        if not self.told.done():
            self.told.set_result(None)


class DurableStore(Store):
    """A store in a database; a subclass opens it, and keeps house.

    Args:
        clock: Tells the time.
        worker: The name of this worker process; None: this one only reads and enqueues.
        max_queued: How many jobs may wait before `enqueue` waits too, whoever enqueues.
        max_deaths: A job under which this many workers died is parked.
        lease_seconds: How long a claim holds after its last renewal.
        keeps: For how many seconds "results", "jobs" and the "ledger" are kept.
    """

    sql: ClassVar[Dialect]
    _committer: Committer[Any]

    def __init__(
        self,
        clock: Clock,
        *,
        worker: str | None,
        max_queued: int,
        max_deaths: int,
        lease_seconds: float,
        keeps: Mapping[str, float],
    ) -> None:
        self._clock = clock
        self._worker = worker
        self._max_queued = max_queued
        self._max_deaths = max_deaths
        self._lease_seconds = lease_seconds
        self._keeps = dict(keeps)
        self._tasks: Mapping[str, str] = {}
        self._queues: Collection[str] | None = None
        self._listener: Listener | None = None
        self._is_claimable = False
        self._last_claim: Claim | None = None
        self._hungry: Hungry | None = None
        self._caught: list[JobRecord] = []
        self._changed = asyncio.Event()
        self._room = asyncio.Lock()
        self._is_closing = False
        self._ends = Ends()
        self._batch_waits = BatchWaits()
        self._looks: set[asyncio.Future[Any]] = set()
        self._fresh: dict[str, int] = {}
        """Jobs enqueued here, with the version of the data before: while that stands, they have ended nowhere else."""
        self._alarm: Timer | None = None
        self._alarm_at: datetime | None = None
        self._turned_mono = 0.0
        # What the threads alone know.
        self._data_version = -1
        self._queued: list[str] = []
        """The jobs that the transaction under way has taken in, for whoever claims them."""
        self._feeding: Hungry | None = None
        """The worker that waits for jobs, and what that transaction has claimed for it."""
        self._fed: list[JobRecord] = []
        self._are_more = False
        """Whether another function is run after the present one."""
        self._makes_work = False
        """Whether another process may find something to claim because of that transaction."""
        self._taken: list[Lease] = []
        """What that transaction has claimed, for whomever."""
        self._orphans: list[Lease] = []
        """What was claimed, and nobody is to have: the next transaction gives it back. The loop adds some, too."""
        self._batches_told: dict[str, BatchRow] = {}
        """The batches for which somebody waits, as the loop was last told of them."""
        self._housekept_mono = 0.0
        self._calm_since_mono = 0.0
        self._offset = timedelta(0)

    # -- what each database does in its own way ---------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the time by which this store goes (UTC); for `upkeep`."""
        return self._now()

    @property
    @abstractmethod
    def where(self) -> str:
        """What errors call the store, without a password."""

    @property
    @abstractmethod
    def address(self) -> str:
        """The URL by which an app opens it, without a password."""

    def _now(self) -> datetime:
        """Return the time by which this store goes."""
        return self._clock.now()

    def _expect_here(self, db: Any) -> None:
        """Refuse to begin or change anything in a store whose jobs were moved elsewhere."""

    def _hold(self, db: Any, job_ids: Sequence[str] = (), schedules: Sequence[str] = ()) -> None:
        """Let nobody else change what a transaction is about to change, where others could at the same time."""

    @abstractmethod
    def _dead(self, db: Any, workers: Iterable[str] | None = None) -> list[str]:
        """Return which of these worker processes are known to be dead; None: of all that the store knows."""

    async def _read(self, work: Callable[[Any], T]) -> T:
        """Run a function that only reads."""
        return await self._committer.run(work)

    def _begin_to_wait(self) -> None:
        """Hear that somebody waits for what other processes do: from here on they are listened to."""

    def _begin(self) -> float:
        """Forget what was known before the store was opened; return the monotonic time."""
        mono = self._clock.monotonic()
        self._turned_mono = self._housekept_mono = self._calm_since_mono = mono
        self._offset = self._clock.now() - EPOCH - timedelta(seconds=mono)
        self._is_closing = False
        return mono

    def _stop_waiting(self) -> None:
        """Tell who waits for room that the store closes."""
        self._is_closing = True
        self._hungry = None
        self._changed.set()

    def _stopped(self) -> None:
        """Tell who waits for an end that it is not told any more, once nothing can be asked of the store."""
        self._ends.close()  # not sooner: until now anybody could begin to wait; from now on, looks are refused
        self._batch_waits.close()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = self._alarm_at = None

    # -- in a thread ------------------------------------------------------------------------------------------------

    def _do(self, db: Any, works: Sequence[Callable[[Any], Any]]) -> tuple[list[Any], Callable[[], None]]:
        """Run functions in the open transaction; return their values, and what to call when it is committed."""
        self._queued, self._fed, self._taken, self._feeding = [], [], [], self._hungry
        self._makes_work = bool(self._orphans)
        orphans = self._orphans[:]
        if orphans:  # before anybody claims
            self._hold(db, [lease.job_id for lease in orphans])
            for lease in orphans:
                self.sql.verbs.release(db, self._now(), lease)
        values = []
        for left, work in zip(reversed(range(len(works))), works, strict=True):
            self._are_more = left > 0
            values.append(work(db))
        hungry, fed = self._feeding, self._fed
        if hungry is not None and self._queued and not fed:
            fed = self._feed(db, hungry)
        are_left = bool(self._queued) and not {record.id for record in fed}.issuperset(self._queued)
        moved = self._moved_batches(db)

        def tell() -> None:
            if orphans:
                del self._orphans[: len(orphans)]
                self._committer.call_on_loop(self._tell_released, orphans)
            if hungry is not None and fed:
                self._committer.call_on_loop(self._catch, hungry, fed)
            if are_left:
                self._committer.call_on_loop(self._let_claim)
            self._tell_batches(moved)

        return values, tell

    def _moved_batches(self, db: Any) -> list[BatchRow]:
        """Return those batches for which somebody waits that are not as the loop was told."""
        rows = self.sql.batches.batches_of(db, self._batch_waits)
        return [row for row in rows if self._batches_told.get(row.id) != row]

    def _tell_batches(self, moved: Sequence[BatchRow]) -> None:
        if moved:
            waited = set(self._batch_waits)
            self._batches_told = {row.id: row for row in (*self._batches_told.values(), *moved) if row.id in waited}
            self._committer.call_on_loop(self._batch_waits.tell, moved)

    def _feed(self, db: Any, hungry: Hungry) -> list[JobRecord]:
        """Claim for a worker that waits, once. When that fails, it is told to ask for itself, and nobody else hears."""
        claim, hungry.claim = hungry.claim, None
        if claim is None:
            return []
        db.execute("SAVEPOINT feed")
        try:
            caught = self._claim(db, claim)
        except Exception:
            db.execute("ROLLBACK TO feed")
            self._committer.call_on_loop(self._let_claim)
            caught = []
        db.execute("RELEASE feed")
        return caught

    def _notice_lost(self, db: Any) -> None:
        """Tell the loop which jobs are still this worker's.

        What it has claimed since, it hears of after this, and what it has claimed before it knows: both come from this
        thread, in their order.
        """
        if self._worker is not None:
            self._committer.call_on_loop(
                self._tell_listener, "leases_held", self.sql.verbs.leases_held(db, self._worker)
            )

    def _is_disturbed(self, now: datetime, mono: float) -> bool:
        """Return whether time has jumped since the last round, or this thread was held up."""
        gap, self._housekept_mono = mono - self._housekept_mono, mono
        offset = now - EPOCH - timedelta(seconds=mono)
        step, self._offset = offset - self._offset, offset
        if gap <= DISTURBED_SECONDS and abs(step.total_seconds()) <= DISTURBED_SECONDS:
            return False
        self._calm_since_mono = mono
        return True

    def _tell_rescued(self, dead: Sequence[str], rescued: Sequence[JobRecord]) -> None:
        if rescued:
            logger.warning(
                "rescued %d jobs of workers that died or lost their leases (%s): %s",
                len(rescued),
                ", ".join(dead) or "leases",
                ", ".join(f"{record.id} is {record.state}" for record in rescued[:20]),
            )
        self._committer.call_on_loop(self._others_committed, (True, None), [record.id for record in rescued])

    def _pruning(self) -> Callable[[Any], tuple[int, bool]]:
        now = self._now()
        limits = {kind: now - timedelta(seconds=seconds) for kind, seconds in self._keeps.items()}

        def work(db: Any) -> tuple[int, bool]:
            gone, has_more = self.sql.verbs.prune(db, **limits, limit=PRUNE_LIMIT)
            return gone, self.sql.batches.prune(db, limits["jobs"], PRUNE_LIMIT) >= PRUNE_LIMIT or has_more

        return work

    # -- what the thread says, on the loop --------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turned_mono = self._clock.monotonic()

    def _tell_listener(self, what: str, *args: Any) -> None:
        if self._listener is not None:
            getattr(self._listener, what)(*args)

    def _others_committed(self, claimable: tuple[bool, datetime | None], ended: Sequence[str]) -> None:
        self._changed.set()
        self._tell_ended(ended)
        is_ready, due = claimable
        if is_ready:
            self._let_claim()
        self._set_alarm(due)

    def _tell_ended(self, job_ids: Iterable[str]) -> None:
        """Let who waits for these jobs know that they may have ended."""
        for job_id in job_ids:
            self._fresh.pop(job_id, None)
            if job_id in self._ends:
                self._look_at(job_id)

    def _set_alarm(self, due: datetime | None) -> None:
        """Let a claim be tried when the next scheduled job is due."""
        if due is None or self._is_closing:
            return
        if self._alarm is not None and self._alarm_at is not None and self._alarm_at <= due:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        delay = (due - self._now()).total_seconds()
        self._alarm = self._clock.call_later(max(0.0, min(delay, self._clock.max_sleep_seconds)), self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._let_claim()

    def _let_claim(self) -> None:
        """Let a claim be tried: it may find something."""
        self._is_claimable = True
        if self._hungry is not None:
            self._hungry.wake()

    # -- producers --------------------------------------------------------------------------------------------------

    async def run(self, work: Callable[[Any], T]) -> T:
        """Run a function of the connection in a transaction of its own meaning; for `upkeep`."""
        return await self._committer.run(work)

    async def enqueue(self, jobs: Sequence[NewJob], *, wait: bool = True) -> list[JobRecord]:
        """See `Store.enqueue`."""
        self._expect_fitting(jobs)
        if not jobs:
            return []
        if self._room.locked():  # others wait for room, which a job that is there already does not need
            records = await self._known(jobs)
        else:
            records = await self._try_enqueue(jobs)
        if records is None:
            records = await self._with_room(lambda: self._try_enqueue(jobs), wait=wait)
        return records

    def _expect_fitting(self, jobs: Sequence[NewJob]) -> None:
        if len(jobs) > self._max_queued:
            raise QueueFull("store", self._max_queued, f"{len(jobs)} jobs at once never fit; enqueue them in parts")

    async def _with_room(self, attempt: Callable[[], Awaitable[T | None]], *, wait: bool) -> T:
        """Try, and wait for room in between, until something comes of it."""
        if not wait:
            raise QueueFull("store", self._max_queued, "await enqueue(...) to wait for room, or raise max_queued")
        async with self._room:  # who waits longest goes first
            while True:
                if self._is_closing:
                    raise NotRunning("the app stopped while this waited for room; nothing was enqueued")
                self._changed.clear()
                done = await attempt()
                if done is not None:
                    return done
                self._begin_to_wait()
                await self._changed.wait()

    async def _known(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        """Return the unfinished jobs that have the keys of these; None: not all are there."""
        keys = [(job.task, job.key) for job in jobs if job.key is not None]
        if len(keys) < len(jobs):
            return None
        found = await self._read(lambda db: [self.sql.verbs.unfinished_of(db, *name) for name in keys])
        known = [record for record in found if record is not None]
        return known if len(known) == len(jobs) else None

    async def _try_enqueue(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        version = self._data_version  # of before, at the latest
        records = await self._committer.share(self._enqueue, jobs, undo=self._withdraw)
        for record, job in zip(records or (), jobs, strict=False):
            if record.id == job.id:
                self._fresh[record.id] = version
        while len(self._fresh) > FRESH_COUNT:
            del self._fresh[next(iter(self._fresh))]
        return records

    def _enqueue(self, db: Any, asked: list[Sequence[NewJob]]) -> list[list[JobRecord] | None]:
        """Take in what several callers enqueue; in the thread."""
        self._expect_here(db)
        hungry = self._feeding
        # What comes after this in the transaction may make jobs that go first: then a claim at its end decides.
        claim = None if hungry is None or self._are_more else hungry.claim
        answers: list[list[JobRecord] | None]
        answers, claimed = self.sql.verbs.enqueue(db, self._now(), asked, self._max_queued, claim)
        if hungry is not None and claimed:
            self._fed, hungry.claim = claimed, None
            self._taken += [Lease(record.id, record.token) for record in claimed]
        else:
            self._queued += [record.id for records in answers for record in records or ()]
            self._makes_work = True
        return answers

    async def _withdraw(self, records: list[JobRecord] | None) -> None:
        """Take out what a cancelled caller has enqueued; others may have been given what has a key."""
        job_ids = [record.id for record in records or () if record.key is None]
        left = await self._committer.run(lambda db: self.sql.verbs.withdraw(db, job_ids))
        self._changed.set()
        if left:
            logger.warning("a cancelled enqueue came too late to withdraw jobs that have begun: %s", ", ".join(left))

    async def feed_batch(self, part: BatchPart, jobs: Sequence[NewJob], *, wait: bool = True) -> BatchRow:
        """See `Store.feed_batch`."""
        self._expect_fitting(jobs)

        def work(db: Any) -> BatchRow | None:
            self._expect_here(db)
            row: BatchRow | None = self.sql.batches.feed(db, self._now(), part, jobs, self._max_queued)
            self._queued += [job.id for job in jobs]
            self._makes_work = True
            return row

        row = None if jobs and self._room.locked() else await self._committer.run(work)
        if row is None:
            row = await self._with_room(lambda: self._committer.run(work), wait=wait)
        return row

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See `Store.fire`."""
        now = self._now()
        replaces = any(firing.overlap == "replace" for firing in firings)

        def work(db: Any) -> tuple[list[Fired], list[str]]:
            self._expect_here(db)
            self._makes_work = True
            fired: list[Fired] = self.sql.verbs.fire_all(db, now, firings)
            return fired, self.sql.verbs.ended_among(db, list(self._ends)) if replaces else []

        fired, ended = await self._committer.run(work)
        self._let_claim()
        self._changed.set()
        self._tell_ended(ended)
        return fired

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """See `Store.set_schedule`."""
        now = self._now()

        def work(db: Any) -> list[ScheduleRow | None]:
            self._expect_here(db)
            self._hold(db, schedules=[change.name for change in changes])
            return [self.sql.verbs.change_schedule(db, now, change) for change in changes]

        return await self._committer.run(work)

    async def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """See `Store.set_limits`."""
        await self._committer.run(lambda db: self.sql.limits.declare(db, limits))
        self._let_claim()

    async def schedules(self, names: Collection[str] | None = None) -> list[ScheduleRow]:
        """See `Store.schedules`."""
        return await self._read(lambda db: self.sql.verbs.schedules(db, names))

    # -- workers ----------------------------------------------------------------------------------------------------

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
        """See `Store.claim`."""
        claim = Claim(
            worker=worker,
            tasks=frozenset(tasks),
            limit=limit,
            queues=None if queues is None else frozenset(queues),
            jobs=None if jobs is None else frozenset(jobs),
            lease_seconds=self._lease_seconds if lease_seconds is None else lease_seconds,
        )
        last = self._last_claim
        asks_aside = last is not None and is_aside(claim.jobs, last.jobs)
        records = [] if asks_aside else await self._take_caught(claim)
        if not asks_aside:
            self._last_claim = claim
        if any(record.gates for record in records):
            self._let_claim()  # to hear when the next of them may start
        if not records:
            if not asks_aside:  # whatever is enqueued from here on, where this does not look any more, sets it
                self._is_claimable = False
            records, due = await self._committer.run(lambda db: self._claim_next(db, claim), undo=self._give_back)
            self._set_alarm(due)
        if len(records) >= limit:
            self._let_claim()  # there may be more
        if records:
            self._changed.set()
            self._tell_ended(record.id for record in records if record.state is JobState.CANCELLED)
        return records

    def _claim(self, db: Any, claim: Claim) -> list[JobRecord]:
        return self._claim_next(db, claim)[0]

    def _claim_next(self, db: Any, claim: Claim) -> tuple[list[JobRecord], datetime | None]:
        """Claim, and return the jobs with the time when the next one is due, where all that were ready are claimed."""
        self._expect_here(db)
        claimed: tuple[list[JobRecord], datetime | None] = self.sql.verbs.claim_next(
            db,
            self._now(),
            worker=claim.worker,
            tasks=claim.tasks,
            limit=claim.limit,
            queues=claim.queues,
            jobs=claim.jobs,
            lease_seconds=claim.lease_seconds,
        )
        self._taken += [Lease(record.id, record.token) for record in claimed[0]]
        return claimed

    async def _give_back(self, claimed: tuple[list[JobRecord], datetime | None]) -> None:
        """Release what nobody is to have: now, or when this is cancelled or fails, with whatever is done next.

        Until then it would lie under leases that are renewed as long as this worker lives.
        """
        self._orphans += [Lease(record.id, record.token) for record in claimed[0]]
        with suppress(StoreUnavailable, NotRunning):
            await self._committer.run(lambda db: None)

    def _catch(self, hungry: Hungry, caught: list[JobRecord]) -> None:
        """Keep what was claimed for who waited, for its next claim; or give it back, when it waits no more."""
        self._caught.extend(caught)
        if not hungry.told.cancelled():
            hungry.wake()
        elif not self._is_closing:
            back = asyncio.ensure_future(self._return_caught())
            self._looks.add(back)
            back.add_done_callback(self._looks.discard)

    async def _take_caught(self, claim: Claim) -> list[JobRecord]:
        """Return what was claimed while this worker waited, or give it back when it wants something else now."""
        if self._caught and claim != self._last_claim:
            await self._return_caught()
        caught, self._caught = self._caught[: claim.limit], self._caught[claim.limit :]
        return caught

    async def _return_caught(self) -> None:
        caught, self._caught = self._caught, []
        if caught:
            await self._give_back((caught, None))

    async def extend(self, leases: Sequence[Lease], lease_seconds: float) -> list[bool]:
        """See `Store.extend`."""
        now = self._now()
        return await self._committer.run(
            lambda db: [self.sql.verbs.extend(db, now, lease, lease_seconds) for lease in leases], urgent=True
        )

    async def progress(
        self, lease: Lease, *, started_at: datetime | None = None, progress: Progress | None = None
    ) -> bool:
        """See `Store.progress`."""

        def work(db: Any) -> bool:
            is_held: bool = self.sql.verbs.progress(db, lease, started_at, progress)
            if not is_held:
                self._notice_lost(db)  # who has lost one lease has likely lost more, and must begin none of those jobs
            return is_held

        return await self._committer.run(work)

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """See `Store.finish`."""
        check_finishes(finishes)
        now = self._now()

        def work(db: Any) -> tuple[list[bool], list[JobRecord], bool]:
            accepted, ended, frees = self.sql.verbs.finish(db, now, finishes, self._ends)
            self._makes_work |= frees
            if not all(accepted):
                self._notice_lost(db)  # as in `progress`
            return accepted, ended, frees

        # Before what is enqueued meanwhile: nothing comes between that and the worker that waits.
        accepted, ended, frees = await self._committer.run(work, urgent=True)
        self._tell_finished(finishes, ended, frees=frees)
        return accepted

    def _tell_finished(self, finishes: Sequence[Finish], ended: Sequence[JobRecord], *, frees: bool) -> None:
        """Tell who waits what ends of attempts have brought about, once they are committed."""
        self._changed.set()
        if frees:
            self._let_claim()
        for record in ended:
            self._ends.tell(record)
        self._tell_ended(entry.lease.job_id for entry in finishes)

    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Store.release`."""
        now = self._now()

        def work(db: Any) -> list[bool]:
            self._hold(db, [lease.job_id for lease in leases])
            self._makes_work = True
            return [self.sql.verbs.release(db, now, lease) for lease in leases]

        released = await self._committer.run(work)
        self._tell_released(leases)
        return released

    def _tell_released(self, leases: Sequence[Lease]) -> None:
        self._let_claim()
        self._tell_ended([lease.job_id for lease in leases])  # one that was to be cancelled is

    async def rescue(self) -> list[JobRecord]:
        """See `Store.rescue`."""
        now = self._now()

        def work(db: Any) -> list[JobRecord]:
            found: list[JobRecord] = self.sql.verbs.rescue(db, now, self._dead(db), timedelta(0), self._max_deaths)
            return found

        rescued = await self._committer.run(work)
        self._let_claim()
        self._changed.set()
        self._tell_ended([record.id for record in rescued])
        return rescued

    async def register(
        self, worker: str, tasks: Mapping[str, str], *, queues: Collection[str] | None = None
    ) -> list[JobRecord]:
        """See `Store.register`; the thread looks for misfits once a second."""
        now = self._now()

        def work(db: Any) -> list[JobRecord]:
            found: list[JobRecord] = self.sql.people.register(db, now, worker, tasks, queues)
            return found

        unparked = await self._committer.run(work)
        self._tasks, self._queues = dict(tasks), queues
        self._tell_unparked(unparked)
        return unparked

    def _tell_unparked(self, unparked: Sequence[JobRecord]) -> None:
        if unparked:
            logger.info("queued %d parked jobs again, whose task has another signature here", len(unparked))
            self._let_claim()

    async def workers(self) -> list[WorkerRow]:
        """See `Store.workers`."""

        def work(db: Any) -> list[WorkerRow]:
            rows = self.sql.people.workers(db)
            dead = set(self._dead(db, [row.name for row in rows]))
            return [row for row in rows if row.name not in dead]

        return await self._read(work)

    async def beat(self, worker: str, vitals: Vitals | None = None) -> None:
        """See `Store.beat`."""
        now, lease = self._now(), self._lease_seconds
        await self._committer.run(lambda db: self.sql.verbs.beat(db, now, worker, vitals, lease), urgent=True)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """See `Store.listen`."""
        self._listener = listener

    async def wait_claimable(self, limit: int = 1) -> None:
        """See `Store.wait_claimable`."""
        if self._is_claimable or self._caught:
            return
        last = self._last_claim
        self._hungry = hungry = Hungry(None if last is None else replace(last, limit=limit))
        self._begin_to_wait()
        try:
            await hungry.told
        except asyncio.CancelledError:
            await to_its_end(self._return_caught())
            raise
        finally:
            self._hungry = None

    def finished(self, job_id: str) -> asyncio.Future[JobRecord]:
        """See `Store.finished`."""
        ended = self._ends.wait(job_id)  # before the look, so that no end slips between
        self._begin_to_wait()
        if self._fresh.pop(job_id, None) != self._data_version:
            self._look_at(job_id)
        return ended

    def _look_at(self, job_id: str) -> None:
        """Tell who waits for a job whether it has ended."""
        look = asyncio.ensure_future(self.job(job_id))
        self._looks.add(look)  # the loop itself would let it be collected
        look.add_done_callback(partial(self._looked_at, job_id))

    def _looked_at(self, job_id: str, look: asyncio.Future[JobRecord]) -> None:
        self._looks.discard(look)
        if look.cancelled():
            return
        error = look.exception()
        if error is not None:
            self._ends.fail(job_id, error)
        elif look.result().has_ended:
            self._ends.tell(look.result())

    # -- batches ----------------------------------------------------------------------------------------------------

    async def cancel_batch(self, batch_id: str) -> BatchRow:
        """See `Store.cancel_batch`."""
        now = self._now()

        def work(db: Any) -> BatchRow:
            self._expect_here(db)
            row: BatchRow = self.sql.batches.cancel(db, now, batch_id)
            return row

        return await self._committer.run(work)

    async def batch(self, batch_id: str) -> BatchRow:
        """See `Store.batch`."""
        return await self._read(lambda db: self.sql.batches.batch(db, batch_id))

    async def batches(self, *, limit: int = 100) -> list[BatchRow]:
        """See `Store.batches`."""
        return await self._read(lambda db: self.sql.batches.batches(db, limit))

    async def batch_jobs(
        self, batch_id: str, *, first: int = 0, states: Collection[JobState] = (), limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.batch_jobs`."""
        return await self._read(lambda db: self.sql.batches.jobs(db, batch_id, first, states, limit))

    async def batch_ends(self, batch_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, JobRecord]]:
        """See `Store.batch_ends`."""
        return await self._read(lambda db: self.sql.batches.ends(db, batch_id, after, limit))

    def batch_when(self, batch_id: str, is_so: Callable[[BatchRow], bool]) -> asyncio.Future[BatchRow]:
        """See `Store.batch_when`."""
        told = self._batch_waits.wait(batch_id, is_so)  # before the look, so that no change slips between
        self._begin_to_wait()
        look = asyncio.ensure_future(self.batch(batch_id))
        self._looks.add(look)
        look.add_done_callback(partial(self._looked_at_batch, batch_id))
        return told

    def _looked_at_batch(self, batch_id: str, look: asyncio.Future[BatchRow]) -> None:
        self._looks.discard(look)
        if look.cancelled():
            return
        error = look.exception()
        if error is not None:
            self._batch_waits.fail(batch_id, error)
        else:
            self._batch_waits.tell([look.result()])

    # -- people -----------------------------------------------------------------------------------------------------

    async def cancel(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """See `Store.cancel`."""
        now = self._now()
        return await self._change(job_ids, lambda db, job_id: self.sql.verbs.cancel(db, now, job_id, seen=seen))

    async def retry(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """See `Store.retry`."""
        now = self._now()
        return await self._change(job_ids, lambda db, job_id: self.sql.people.retry(db, now, job_id, seen))

    async def delete(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """See `Store.delete`."""
        now = self._now()
        return await self._change(job_ids, lambda db, job_id: self.sql.people.delete(db, now, job_id))

    async def _change(
        self, job_ids: Sequence[str], work: Callable[[Any, str], JobRecord | None]
    ) -> list[JobRecord | None]:
        """Change jobs for people, and let know who waits for room, for a job or for an end."""

        def here(db: Any) -> list[JobRecord | None]:
            self._expect_here(db)
            self._hold(db, job_ids)
            self._makes_work = True
            return [work(db, job_id) for job_id in job_ids]

        changed = await self._committer.run(here)
        self._changed.set()
        self._let_claim()
        self._tell_ended([record.id for record in changed if record is not None])
        return changed

    async def set_queue(self, name: str, *, paused: bool) -> bool:
        """See `Store.set_queue`."""
        now = self._now()

        def work(db: Any) -> bool:
            self._expect_here(db)
            is_changed: bool = self.sql.people.set_queue(db, now, name, paused=paused)
            return is_changed

        is_changed = await self._committer.run(work)
        self._let_claim()
        return is_changed

    async def queues(self) -> list[QueueRow]:
        """See `Store.queues`."""
        now = self._now()
        return await self._read(lambda db: self.sql.people.queues(db, now))

    async def paused_queues(self) -> dict[str, datetime]:
        """See `Store.paused_queues`."""
        return await self._read(self.sql.people.paused_queues)

    async def page(self, query: JobQuery) -> Page:
        """See `Store.page`."""
        return await self._read(lambda db: self.sql.people.page(db, query))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        return await self._read(lambda db: self.sql.attempts.attempts(db, job_id))

    async def standing(self, job_id: str) -> Standing:
        """See `Store.standing`."""
        now = self._now()
        return await self._read(lambda db: self.sql.people.standing(db, now, job_id))

    async def prune(self) -> int:
        """See `Store.prune`."""
        gone, has_more = 0, True
        while has_more:  # in parts, so that others come in between
            some, has_more = await self._committer.run(self._pruning())
            gone += some
        return gone

    async def job(self, job_id: str) -> JobRecord:
        """See `Store.job`."""
        return await self._read(lambda db: self.sql.verbs.job(db, job_id))

    async def jobs(
        self, *, state: JobState | None = None, schedule: str | None = None, limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.jobs`."""
        return await self._read(lambda db: self.sql.verbs.jobs(db, state, schedule, limit))

    async def counts(self) -> dict[JobState, int]:
        """See `Store.counts`."""
        return await self._read(self.sql.verbs.counts)

    async def ledger(self, schedule: str, *, limit: int = 100, at: datetime | None = None) -> list[Answer]:
        """See `Store.ledger`."""
        return await self._read(lambda db: self.sql.verbs.ledger(db, schedule, limit, at))

    async def answer_of(self, schedule: str, job_id: str) -> Answer | None:
        """See `Store.answer_of`."""
        return await self._read(lambda db: self.sql.verbs.answer_of(db, schedule, job_id))
