"""The store in one SQLite file: what it has answered for survives a kill and a power cut, and processes share it.

The verbs themselves are in `sqlite_verbs`, the thread and its transactions in `committer`. Here is the file: opening it
beside other processes, the lock around each transaction, and what the thread does between two of them:

- it notices what other processes have committed (`PRAGMA data_version`, some sixteen times a second) and wakes who
  waits for it;
- it renews the leases of this worker while the loop turns;
- it looks after workers that have died on this host, and gives their jobs back.

SQLite before 3.51.3 can damage a file in WAL mode when two processes write or checkpoint at the same time. So each
transaction of ours runs under a file lock, which is let go in the moment a process dies, and waits more patiently
than SQLite's own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._version import __version__
from ..errors import NotRunning, QueueFull, StoreUnavailable
from ..jobs import JobState
from ..policies import MAX_DEATHS
from ..shield import to_its_end
from . import sqlite_batches as batches
from . import sqlite_people as people
from . import sqlite_verbs as verbs
from .base import Capabilities, Lease, Store, check_finishes
from .batches import BatchRow, BatchWaits
from .committer import Committer
from .ends import Ends
from .filelock import FileLock
from .presence import Presence
from .sqlite_attempts import attempts
from .sqlite_limits import declare
from .sqlite_schema import expect_ours, migrate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from ..clock import Clock, Timer
    from ..jobs import Attempt, JobRecord, NewJob, Progress
    from ..limits import Limits
    from .base import Answer, Finish, Fired, Firing, Listener, ScheduleChange, ScheduleRow
    from .batches import BatchPart
    from .views import JobQuery, Page, QueueRow, Standing, Vitals, WorkerRow

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

BUSY_SECONDS = 60.0
"""How long a transaction waits for another process before it gives up: longer than any of ours takes."""
LOOK_SECONDS = 0.06
"""How often the thread looks for what others have committed: half of it is the delay that a waiting worker adds, and
one look costs some tens of microseconds."""
HOUSEKEEPING_SECONDS = 1.0
"""How often dead workers are looked for: their jobs run again within two seconds."""
OVERDUE_SECONDS = 10.0
"""How long a lease must have been over, and this thread have looked on undisturbed, before the job is taken away. When
the machine wakes up, when its clock is set or when another program lets go of the file, all leases are over at once,
and workers that live renew theirs within a second or two."""
DISTURBED_SECONDS = 3.0
"""A gap between two rounds of housekeeping, or a step of the wall clock, by which this thread was disturbed."""
FRESH_COUNT = 10_000
"""Of so many jobs, the last enqueued here, the store knows without a look that they cannot have ended yet."""
PRUNE_SECONDS = 60.0
PRUNE_LIMIT = 1_000
"""So many rows are forgotten in one transaction: some milliseconds, so that claims hardly notice."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a worker asks for."""

    worker: str
    tasks: frozenset[str]
    queues: frozenset[str] | None
    jobs: frozenset[str] | None
    lease_seconds: float
    limit: int = field(compare=False)


class _Hungry:
    """A worker that waits for jobs: what is enqueued here is claimed for it at once, in the same transaction."""

    __slots__ = ("claim", "told")

    def __init__(self, claim: _Claim | None) -> None:
        self.claim = claim
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.told.done():
            self.told.set_result(None)


class SQLiteStore(Store):
    """Jobs and schedules in one file.

    Args:
        path: The file; it is made where there is none. Not on a network file system.
        clock: Tells the time.
        worker: The name of this worker process; None: this one only reads and enqueues.
        max_queued: How many jobs may wait before `enqueue` waits too, whoever enqueues.
        max_deaths: A job under which this many workers died is parked.
        lease_seconds: How long a claim holds after its last renewal, which comes every third of that.
        max_stall_seconds: Leases are renewed while the loop has turned within this many seconds.
        busy_seconds: How long a transaction waits for another program that holds the file.
        keeps_house: Renew leases, rescue and prune unasked. False: only what is called is done.
        keep_results: Seconds for which results are kept.
        keep_jobs: Seconds for which finished jobs are kept; parked ones stay.
        keep_ledger: Seconds for which the ledger is kept.
    """

    capabilities: Capabilities = Capabilities(durable=True, multi_process=True)

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        worker: str | None = None,
        max_queued: int = 100_000,
        max_deaths: int = MAX_DEATHS,
        lease_seconds: float = 60.0,
        max_stall_seconds: float = 300.0,
        busy_seconds: float = BUSY_SECONDS,
        keeps_house: bool = True,
        keep_results: float = 3_600.0,
        keep_jobs: float = 7 * 86_400.0,
        keep_ledger: float = 30 * 86_400.0,
    ) -> None:
        self.path = path
        self._clock = clock
        self._worker = worker
        self._max_queued = max_queued
        self._max_deaths = max_deaths
        self._lease_seconds = lease_seconds
        self._max_stall_seconds = max_stall_seconds
        self._busy_seconds = busy_seconds
        self._keeps_house = keeps_house and worker is not None
        self._round_seconds = min(HOUSEKEEPING_SECONDS, lease_seconds / 6)
        self._keeps = {"results": keep_results, "jobs": keep_jobs, "ledger": keep_ledger}
        self._committer = Committer(
            connect=self._connect,
            transaction=self._transact,
            idle=self._look,
            disconnect=self._disconnect,
            name="tickwork-sqlite",
        )
        self._lock: FileLock | None = None
        self._tasks: Mapping[str, str] = {}
        self._presence = Presence(path.with_name(f"{path.name}-workers"), worker or "", path)
        self._listener: Listener | None = None
        self._is_claimable = False
        self._last_claim: _Claim | None = None
        self._hungry: _Hungry | None = None
        self._caught: list[JobRecord] = []
        self._caught_ids: set[str] = set()
        """The last jobs that were claimed as they were enqueued: nobody need look for them."""
        self._changed = asyncio.Event()
        self._room = asyncio.Lock()
        self._is_closing = False
        self._ends = Ends()
        self._batch_waits = BatchWaits()
        self._looks: set[asyncio.Future[Any]] = set()
        self._fresh: dict[str, int] = {}
        """Jobs enqueued here, with the version of the file before: while that stands, they have ended nowhere else."""
        self._alarm: Timer | None = None
        self._alarm_at: datetime | None = None
        # What the thread alone knows.
        self._identity: list[tuple[int, int] | None] = []
        self._data_version = -1
        self._schedules_changed = -1
        self._rescued = -1
        self._next_housekeeping = 0.0
        self._housekept_mono = 0.0
        self._offset = timedelta(0)
        self._calm_since_mono = 0.0
        self._renew_mono = 0.0
        self._next_prune = 0.0
        self._turned_mono = 0.0
        self._has_queued = False
        """Whether the transaction under way has queued jobs."""
        self._batches_told: dict[str, BatchRow] = {}
        """The batches for which somebody waits, as the loop was last told of them."""

    # -- the file ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, make or migrate its tables, and announce this worker.

        Raises:
            StoreUnavailable: The file cannot be used, with the reason.
        """
        mono = self._clock.monotonic()
        self._turned_mono = self._housekept_mono = self._calm_since_mono = self._renew_mono = self._next_prune = mono
        self._next_housekeeping = mono
        self._offset = self._clock.now() - _EPOCH - timedelta(seconds=mono)
        self._is_closing = False
        try:
            await self._committer.open()
        except asyncio.CancelledError:
            await self._committer.aclose()
            raise

    async def close(self) -> None:
        """Do what waits, leave the list of workers and close the file. A second call does nothing.

        Who waits for anything is told. In a forked child, which has no part in the parent's store, nothing is done.
        """
        if self._committer.is_forked:
            return
        self._is_closing = True
        self._hungry = None
        self._changed.set()
        if self._worker is not None and self._committer.is_open:
            worker = self._worker
            with suppress(StoreUnavailable, NotRunning):  # whoever comes next finds out that nobody holds its file
                await self._committer.run(lambda db: verbs.leave(db, worker))
                await self._return_caught()
        await self._committer.aclose()
        self._ends.close()  # not sooner: until now anybody could begin to wait; from now on, looks are refused
        self._batch_waits.close()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = self._alarm_at = None

    def _connect(self) -> sqlite3.Connection:
        try:
            self._lock = FileLock(self.path.with_name(f"{self.path.name}-lock"), like=self.path)
            connection = sqlite3.connect(
                self.path,
                timeout=self._busy_seconds,
                isolation_level=None,
                check_same_thread=True,
                cached_statements=256,
            )
        except (OSError, sqlite3.Error) as error:
            self._close_files()
            raise self._unavailable(error) from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            self._presence.leave()
            self._close_files()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set the connection up; two processes that make the same file wait for each other."""
        self._acquire()
        try:
            expect_ours(connection, str(self.path))  # before anything about the file is changed
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable(
                    str(self.path), f"it cannot be in WAL mode, only in {mode!r}", "keep it on a local disk"
                )
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, str(self.path))
            if self._worker is not None:
                self._announce(connection, self._worker)
            connection.execute("COMMIT")
            self._identity = self._identify()
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(error) from error
        finally:
            self._release()

    def _announce(self, connection: sqlite3.Connection, worker: str) -> None:
        if not self._presence.announce():
            raise StoreUnavailable(
                str(self.path), f"another process works on it as {worker!r}", "give every worker a name of its own"
            )
        now = verbs.us(self._clock.now())
        connection.execute(
            "INSERT OR REPLACE INTO workers (name, host, pid, started_at, beat_at, version) VALUES (?, ?, ?, ?, ?, ?)",
            (worker, os.uname().nodename if hasattr(os, "uname") else "", os.getpid(), now, now, __version__),
        )

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        """Close the file; the last one to do so writes all into the database proper, under the lock as ever."""
        try:
            self._acquire()
        except StoreUnavailable as error:
            logger.warning("%s; closing it all the same", error)
        try:
            connection.close()
        finally:
            self._close_files()
            self._presence.leave()

    def _transact(self, connection: sqlite3.Connection, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Run functions in one transaction under the lock of the file."""
        self._acquire()
        try:
            self._expect_the_file()
            self._has_queued, caught, hungry = False, [], self._hungry
            connection.execute("BEGIN IMMEDIATE")
            try:
                values = [work(connection) for work in works]
                if self._has_queued and hungry is not None:
                    caught = self._feed(connection, hungry)
                moved = self._moved_batches(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # it has rolled back by itself, or fails as a whole
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAILURES:
                raise self._unavailable(error) from error
            raise
        except OSError as error:
            raise self._unavailable(error) from error
        finally:
            self._release()
        if caught:
            self._committer.call_on_loop(self._catch, hungry, caught)
        self._tell_batches(moved)
        return values

    def _moved_batches(self, db: sqlite3.Connection) -> list[BatchRow]:
        """Return those batches for which somebody waits that are not as the loop was told."""
        rows = batches.batches_of(db, self._batch_waits)
        return [row for row in rows if self._batches_told.get(row.id) != row]

    def _tell_batches(self, moved: Sequence[BatchRow]) -> None:
        if moved:
            waited = set(self._batch_waits)
            self._batches_told = {row.id: row for row in (*self._batches_told.values(), *moved) if row.id in waited}
            self._committer.call_on_loop(self._batch_waits.tell, moved)

    def _feed(self, db: sqlite3.Connection, hungry: _Hungry) -> list[JobRecord]:
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

    def _expect_the_file(self) -> None:
        """Refuse to write into files that are no longer there: it would be gone with this process."""
        if self._identify() != self._identity:
            raise StoreUnavailable(
                str(self.path), "it was removed or replaced while it was open", "put it back, or start the app anew"
            )

    def _expect_here(self, db: sqlite3.Connection) -> None:
        """Refuse to begin or change anything in a file whose jobs were moved elsewhere."""
        target = verbs.moved_to(db)
        if target is not None:
            raise StoreUnavailable(str(self.path), f"its jobs were moved to {target}", "let the app open that")

    def _identify(self) -> list[tuple[int, int] | None]:
        """Return which files lie there: the database, and what is not yet written into it."""
        found: list[tuple[int, int] | None] = []
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            try:
                status = path.stat()
            except FileNotFoundError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    def _acquire(self) -> None:
        """Take the lock of the file, waiting for other processes."""
        assert self._lock is not None
        deadline, pause = None, 0.0002
        while not self._lock.try_acquire():
            now = self._clock.monotonic()
            deadline = now + self._busy_seconds if deadline is None else deadline
            if now > deadline:
                reason = f"another process has held its lock for {self._busy_seconds:g} s"
                raise StoreUnavailable(str(self.path), reason, f"see who is stuck with {self._lock.path} open")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.005)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _close_files(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
        remedy = next((remedy for sign, remedy in _REMEDIES if sign in text.lower()), "")
        return StoreUnavailable(str(self.path), text, remedy)

    # -- between two transactions, in the thread --------------------------------------------------------------------

    def _look(self, db: sqlite3.Connection) -> float:
        """Do what is to be done between transactions, and return how long the thread may sleep."""
        try:
            return self._look_around(db)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _look_around(self, db: sqlite3.Connection) -> float:
        """Notice what others have committed, keep house, and return how long the thread may sleep."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._notice(db)
        if self._keeps_house and self._worker is not None:
            mono = self._clock.monotonic()
            if mono >= self._next_housekeeping:
                self._next_housekeeping = mono + self._round_seconds
                self._committer.call_on_loop(self._turn)
                self._keep_house(db, self._worker, mono)
            if mono >= self._next_prune:
                self._next_prune = mono + PRUNE_SECONDS
                if self._prune(db):
                    self._next_prune = mono  # there is more
        return LOOK_SECONDS

    def _notice(self, db: sqlite3.Connection) -> None:
        """Tell the loop what another process has changed that somebody here waits for."""
        tell = self._committer.call_on_loop
        counters = dict(db.execute("SELECT key, value FROM meta").fetchall())
        if counters["schedules_changed"] != self._schedules_changed:
            self._schedules_changed = counters["schedules_changed"]
            tell(self._tell_listener, "schedules_changed")
        if counters["rescued"] != self._rescued:
            self._rescued = counters["rescued"]
            self._notice_lost(db)
        self._notice_cancels(db)
        ended = verbs.ended_among(db, list(self._ends))
        tell(self._others_committed, verbs.next_claim(db), ended)
        self._tell_batches(self._moved_batches(db))

    def _notice_cancels(self, db: sqlite3.Connection) -> None:
        if self._worker is not None and (asked := verbs.cancels_asked(db, self._worker)):
            self._committer.call_on_loop(self._tell_listener, "cancel_asked", asked)

    def _notice_lost(self, db: sqlite3.Connection) -> None:
        """Tell the loop which jobs are still this worker's.

        What it has claimed since, it hears of after this, and what it has claimed before it knows: both come from this
        thread, in their order.
        """
        if self._worker is not None:
            self._committer.call_on_loop(self._tell_listener, "leases_held", verbs.leases_held(db, self._worker))

    def _keep_house(self, db: sqlite3.Connection, worker: str, mono: float) -> None:
        now = self._clock.now()
        is_disturbed = self._is_disturbed(now, mono)
        self._notice_cancels(db)  # again: the worker may not have known the job yet when it was told
        if is_disturbed or mono >= self._renew_mono:
            self._renew(db, worker, now, mono)
        overdue = timedelta(seconds=OVERDUE_SECONDS) if mono - self._calm_since_mono >= OVERDUE_SECONDS else None
        dead = self._presence.dead(verbs.other_workers(db, worker))
        if dead or (overdue is not None and verbs.has_overdue(db, now - overdue)):
            (rescued,) = self._transact(db, [lambda db: verbs.rescue(db, now, dead, overdue, self._max_deaths)])
            self._tell_rescued(dead, rescued)
            self._notice(db)  # an end moves an `after="end"` schedule on, and data_version tells only what others did
        if self._tasks and people.misfit_tasks(db, self._tasks):
            (unparked,) = self._transact(db, [lambda db: people.unpark(db, self._tasks)])
            self._committer.call_on_loop(self._tell_unparked, unparked)

    def _is_disturbed(self, now: datetime, mono: float) -> bool:
        """Return whether time has jumped since the last round, or this thread was held up."""
        gap, self._housekept_mono = mono - self._housekept_mono, mono
        offset = now - _EPOCH - timedelta(seconds=mono)
        step, self._offset = offset - self._offset, offset
        if gap <= DISTURBED_SECONDS and abs(step.total_seconds()) <= DISTURBED_SECONDS:
            return False
        self._calm_since_mono = mono
        return True

    def _renew(self, db: sqlite3.Connection, worker: str, now: datetime, mono: float) -> None:
        """Renew the leases of this worker, unless its loop is stuck."""
        self._renew_mono = mono + self._lease_seconds / 3
        stalled = mono - self._turned_mono
        if stalled > self._max_stall_seconds:
            logger.critical(
                "the loop has not turned for %d s, so the leases of worker %s end: its jobs run again elsewhere",
                stalled,
                worker,
            )
            return
        try:
            self._transact(db, [lambda db: verbs.renew(db, now, worker, self._lease_seconds)])
        except BaseException:
            self._renew_mono = mono
            raise
        self._notice_lost(db)

    def _tell_rescued(self, dead: Sequence[str], rescued: Sequence[JobRecord]) -> None:
        for worker in dead:
            self._presence.forget(worker)
        if rescued:
            logger.warning(
                "rescued %d jobs of workers that died or lost their leases (%s): %s",
                len(rescued),
                ", ".join(dead) or "leases",
                ", ".join(f"{record.id} is {record.state}" for record in rescued[:20]),
            )
        self._committer.call_on_loop(self._others_committed, (True, None), [record.id for record in rescued])

    def _prune(self, db: sqlite3.Connection) -> bool:
        """Forget some of what is old, and return whether there is more."""
        (pruned,) = self._transact(db, [self._pruning()])
        return bool(pruned[1])

    def _pruning(self) -> Callable[[sqlite3.Connection], tuple[int, bool]]:
        now = self._clock.now()
        limits = {kind: now - timedelta(seconds=seconds) for kind, seconds in self._keeps.items()}

        def work(db: sqlite3.Connection) -> tuple[int, bool]:
            gone, has_more = verbs.prune(db, **limits, limit=PRUNE_LIMIT)
            return gone, batches.prune(db, limits["jobs"], PRUNE_LIMIT) >= PRUNE_LIMIT or has_more

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
        self._alarm = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._let_claim()

    def _let_claim(self) -> None:
        """Let a claim be tried: it may find something."""
        self._is_claimable = True
        if self._hungry is not None:
            self._hungry.wake()

    # -- producers --------------------------------------------------------------------------------------------------

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of the connection in a transaction of its own meaning; for `upkeep`."""
        return await self._committer.run(work)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
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
        if not self._caught_ids.issuperset(record.id for record in records):
            self._let_claim()
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
                await self._changed.wait()

    async def _known(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        """Return the unfinished jobs that have the keys of these; None: not all are there."""
        keys = [(job.task, job.key) for job in jobs if job.key is not None]
        if len(keys) < len(jobs):
            return None
        found = await self._read(lambda db: [verbs.unfinished_of(db, *name) for name in keys])
        known = [record for record in found if record is not None]
        return known if len(known) == len(jobs) else None

    async def _try_enqueue(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        version = self._data_version  # of before, at the latest
        records = await self._committer.share(self._enqueue, jobs, undo=self._withdraw)
        for record, job in zip(records or (), jobs, strict=bool(records)):
            if record.id == job.id:
                self._fresh[record.id] = version
        while len(self._fresh) > FRESH_COUNT:
            del self._fresh[next(iter(self._fresh))]
        return records

    def _enqueue(self, db: sqlite3.Connection, asked: list[Sequence[NewJob]]) -> list[list[JobRecord] | None]:
        """Take in what several callers enqueue; in the thread."""
        self._expect_here(db)
        answers = verbs.enqueue(db, self._clock.now(), asked, self._max_queued)
        self._has_queued = True
        return answers

    async def _withdraw(self, records: list[JobRecord] | None) -> None:
        """Take out what a cancelled caller has enqueued; others may have been given what has a key."""
        job_ids = [record.id for record in records or () if record.key is None]
        left = await self._committer.run(lambda db: verbs.withdraw(db, job_ids))
        self._changed.set()
        if left:
            logger.warning("a cancelled enqueue came too late to withdraw jobs that have begun: %s", ", ".join(left))

    async def feed_batch(self, part: BatchPart, jobs: Sequence[NewJob], *, wait: bool = True) -> BatchRow:
        """See `Store.feed_batch`."""
        self._expect_fitting(jobs)

        def work(db: sqlite3.Connection) -> BatchRow | None:
            self._expect_here(db)
            row = batches.feed(db, self._clock.now(), part, jobs, self._max_queued)
            self._has_queued = self._has_queued or bool(jobs)
            return row

        row = None if jobs and self._room.locked() else await self._committer.run(work)
        if row is None:
            row = await self._with_room(lambda: self._committer.run(work), wait=wait)
        if jobs:
            self._let_claim()
        return row

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See `Store.fire`."""
        now = self._clock.now()
        replaces = any(firing.overlap == "replace" for firing in firings)

        def work(db: sqlite3.Connection) -> tuple[list[Fired], list[str]]:
            self._expect_here(db)
            fired = [verbs.fire(db, now, firing) for firing in firings]
            return fired, verbs.ended_among(db, list(self._ends)) if replaces else []

        fired, ended = await self._committer.run(work)
        self._let_claim()
        self._changed.set()
        self._tell_ended(ended)
        return fired

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """See `Store.set_schedule`."""
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> list[ScheduleRow | None]:
            self._expect_here(db)
            return [verbs.change_schedule(db, now, change) for change in changes]

        return await self._committer.run(work)

    async def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """See `Store.set_limits`."""
        await self._committer.run(lambda db: declare(db, limits))
        self._let_claim()

    async def schedules(self, names: Collection[str] | None = None) -> list[ScheduleRow]:
        """See `Store.schedules`."""
        return await self._read(lambda db: verbs.schedules(db, names))

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
        claim = _Claim(
            worker=worker,
            tasks=frozenset(tasks),
            limit=limit,
            queues=None if queues is None else frozenset(queues),
            jobs=None if jobs is None else frozenset(jobs),
            lease_seconds=self._lease_seconds if lease_seconds is None else lease_seconds,
        )
        self._is_claimable = False  # whatever is enqueued from here on sets it again
        records = await self._take_caught(claim)
        if any(record.gates for record in records):
            self._let_claim()  # to hear when the next of them may start
        if not records:
            records, due = await self._committer.run(
                lambda db: (found := self._claim(db, claim), None if len(found) >= limit else verbs.next_claim(db)[1]),
                undo=self._give_back,
            )
            self._set_alarm(due)
        self._last_claim = claim
        if len(records) >= limit:
            self._let_claim()  # there may be more
        if records:
            self._changed.set()
            self._tell_ended(record.id for record in records if record.state is JobState.CANCELLED)
        return records

    def _claim(self, db: sqlite3.Connection, claim: _Claim) -> list[JobRecord]:
        self._expect_here(db)
        return verbs.claim(
            db,
            self._clock.now(),
            worker=claim.worker,
            tasks=claim.tasks,
            limit=claim.limit,
            queues=claim.queues,
            jobs=claim.jobs,
            lease_seconds=claim.lease_seconds,
        )

    async def _give_back(self, claimed: tuple[list[JobRecord], datetime | None]) -> None:
        """Release what a cancelled claim has taken."""
        await self.release([Lease(record.id, record.token) for record in claimed[0]])

    def _catch(self, hungry: _Hungry, caught: list[JobRecord]) -> None:
        """Keep what was claimed for who waited, for its next claim; or give it back, when it waits no more."""
        self._caught.extend(caught)
        self._caught_ids = {record.id for record in caught}
        if not hungry.told.cancelled():
            hungry.wake()
        elif not self._is_closing:
            back = asyncio.ensure_future(self._return_caught())
            self._looks.add(back)
            back.add_done_callback(self._looks.discard)

    async def _take_caught(self, claim: _Claim) -> list[JobRecord]:
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
        now = self._clock.now()
        return await self._committer.run(
            lambda db: [verbs.extend(db, now, lease, lease_seconds) for lease in leases], urgent=True
        )

    async def progress(
        self, lease: Lease, *, started_at: datetime | None = None, progress: Progress | None = None
    ) -> bool:
        """See `Store.progress`."""

        def work(db: sqlite3.Connection) -> bool:
            is_held = verbs.progress(db, lease, started_at, progress)
            if not is_held:
                self._notice_lost(db)  # who has lost one lease has likely lost more, and must begin none of those jobs
            return is_held

        return await self._committer.run(work)

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """See `Store.finish`."""
        check_finishes(finishes)
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> tuple[list[bool], list[JobRecord], bool]:
            accepted, ended, frees = verbs.finish(db, now, finishes, self._ends)
            if not all(accepted):
                self._notice_lost(db)  # as in `progress`
            return accepted, ended, frees

        accepted, ended, frees = await self._committer.run(work)
        self._changed.set()
        if frees:
            self._let_claim()
        for record in ended:
            self._ends.tell(record)
        self._tell_ended(entry.lease.job_id for entry in finishes)
        return accepted

    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Store.release`."""
        now = self._clock.now()
        released = await self._committer.run(lambda db: [verbs.release(db, now, lease) for lease in leases])
        self._let_claim()
        self._tell_ended([lease.job_id for lease in leases])  # one that was to be cancelled is
        return released

    async def rescue(self) -> list[JobRecord]:
        """See `Store.rescue`."""
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> list[JobRecord]:
            dead = self._presence.dead(verbs.other_workers(db, self._worker or ""))
            return verbs.rescue(db, now, dead, timedelta(0), self._max_deaths)

        rescued = await self._committer.run(work)
        self._let_claim()
        self._changed.set()
        self._tell_ended([record.id for record in rescued])
        return rescued

    async def register(
        self, worker: str, tasks: Mapping[str, str], *, queues: Collection[str] | None = None
    ) -> list[JobRecord]:
        """See `Store.register`; the thread looks for misfits once a second."""
        now = self._clock.now()
        unparked = await self._committer.run(lambda db: people.register(db, now, worker, tasks, queues))
        self._tasks = dict(tasks)
        self._tell_unparked(unparked)
        return unparked

    def _tell_unparked(self, unparked: Sequence[JobRecord]) -> None:
        if unparked:
            logger.info("queued %d parked jobs again, whose task has another signature here", len(unparked))
            self._let_claim()

    async def workers(self) -> list[WorkerRow]:
        """See `Store.workers`."""

        def work(db: sqlite3.Connection) -> list[WorkerRow]:
            rows = people.workers(db)
            dead = set(self._presence.dead(row.name for row in rows))
            return [row for row in rows if row.name not in dead]

        return await self._read(work)

    async def beat(self, worker: str, vitals: Vitals | None = None) -> None:
        """See `Store.beat`; the thread does it with each renewal."""
        now = self._clock.now()
        await self._committer.run(lambda db: verbs.beat(db, now, worker, vitals), urgent=True)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """See `Store.listen`."""
        self._listener = listener

    async def wait_claimable(self, limit: int = 1) -> None:
        """See `Store.wait_claimable`."""
        if self._is_claimable or self._caught:
            return
        last = self._last_claim
        self._hungry = hungry = _Hungry(None if last is None else replace(last, limit=limit))
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
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> BatchRow:
            self._expect_here(db)
            return batches.cancel(db, now, batch_id)

        return await self._committer.run(work)

    async def batch(self, batch_id: str) -> BatchRow:
        """See `Store.batch`."""
        return await self._read(lambda db: batches.batch(db, batch_id))

    async def batches(self, *, limit: int = 100) -> list[BatchRow]:
        """See `Store.batches`."""
        return await self._read(lambda db: batches.batches(db, limit))

    async def batch_jobs(
        self, batch_id: str, *, first: int = 0, states: Collection[JobState] = (), limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.batch_jobs`."""
        return await self._read(lambda db: batches.jobs(db, batch_id, first, states, limit))

    async def batch_ends(self, batch_id: str, *, after: int = 0, limit: int = 100) -> list[tuple[int, JobRecord]]:
        """See `Store.batch_ends`."""
        return await self._read(lambda db: batches.ends(db, batch_id, after, limit))

    def batch_when(self, batch_id: str, is_so: Callable[[BatchRow], bool]) -> asyncio.Future[BatchRow]:
        """See `Store.batch_when`."""
        told = self._batch_waits.wait(batch_id, is_so)  # before the look, so that no change slips between
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
        now = self._clock.now()
        return await self._change(lambda db: [verbs.cancel(db, now, job_id, seen=seen) for job_id in job_ids])

    async def retry(self, job_ids: Sequence[str], *, seen: JobState | None = None) -> list[JobRecord | None]:
        """See `Store.retry`."""
        now = self._clock.now()
        return await self._change(lambda db: [people.retry(db, now, job_id, seen) for job_id in job_ids])

    async def delete(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """See `Store.delete`."""
        now = self._clock.now()
        return await self._change(lambda db: [people.delete(db, now, job_id) for job_id in job_ids])

    async def _change(self, work: Callable[[sqlite3.Connection], list[JobRecord | None]]) -> list[JobRecord | None]:
        """Change jobs for people, and let know who waits for room, for a job or for an end."""

        def here(db: sqlite3.Connection) -> list[JobRecord | None]:
            self._expect_here(db)
            return work(db)

        changed = await self._committer.run(here)
        self._changed.set()
        self._let_claim()
        self._tell_ended([record.id for record in changed if record is not None])
        return changed

    async def set_queue(self, name: str, *, paused: bool) -> bool:
        """See `Store.set_queue`."""
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> bool:
            self._expect_here(db)
            return people.set_queue(db, now, name, paused=paused)

        is_changed = await self._committer.run(work)
        self._let_claim()
        return is_changed

    async def queues(self) -> list[QueueRow]:
        """See `Store.queues`."""
        now = self._clock.now()
        return await self._read(lambda db: people.queues(db, now))

    async def paused_queues(self) -> dict[str, datetime]:
        """See `Store.paused_queues`."""
        return await self._read(people.paused_queues)

    async def page(self, query: JobQuery) -> Page:
        """See `Store.page`."""
        return await self._read(lambda db: people.page(db, query))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        return await self._read(lambda db: attempts(db, job_id))

    async def standing(self, job_id: str) -> Standing:
        """See `Store.standing`."""
        now = self._clock.now()
        return await self._read(lambda db: people.standing(db, now, job_id))

    async def prune(self) -> int:
        """See `Store.prune`."""
        gone, has_more = 0, True
        while has_more:  # in parts, so that others come in between
            some, has_more = await self._committer.run(self._pruning())
            gone += some
        return gone

    async def job(self, job_id: str) -> JobRecord:
        """See `Store.job`."""
        return await self._read(lambda db: verbs.job(db, job_id))

    async def jobs(
        self, *, state: JobState | None = None, schedule: str | None = None, limit: int = 100
    ) -> list[JobRecord]:
        """See `Store.jobs`."""
        return await self._read(lambda db: verbs.jobs(db, state, schedule, limit))

    async def counts(self) -> dict[JobState, int]:
        """See `Store.counts`."""
        return await self._read(verbs.counts)

    async def ledger(self, schedule: str, *, limit: int = 100, at: datetime | None = None) -> list[Answer]:
        """See `Store.ledger`."""
        return await self._read(lambda db: verbs.ledger(db, schedule, limit, at))

    async def answer_of(self, schedule: str, job_id: str) -> Answer | None:
        """See `Store.answer_of`."""
        return await self._read(lambda db: verbs.answer_of(db, schedule, job_id))


_FAILURES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
"""What SQLite says when the file fails, whatever was asked of it; everything else is the fault of what was asked."""

_REMEDIES = (
    ("disk is full", "make room; what was asked for is not done, and is tried again where the app asked"),
    ("readonly", "let this user write the file and its folder"),
    ("read-only", "let this user write the file and its folder"),
    ("not permitted", "let this user write the file and its folder"),
    ("permission denied", "let this user write the file and its folder"),
    ("no such file", "make its folder"),
    ("unable to open", "make its folder, or let this user write there"),
    ("disk i/o error", "see what the system says of the disk; what was asked for is not done"),
    ("not a database", "it is damaged, or something else: move it away, or restore a backup"),
    ("malformed", "it is damaged: restore a backup, or rescue what is left with sqlite3's .recover"),
    ("locked", "another program holds it: end that, or give tickwork a file of its own"),
)
"""What to do, by what SQLite or the system says, in lower case."""
