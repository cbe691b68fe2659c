"""The store in one SQLite file: what it has answered for survives a kill and a power cut, and processes share it.

The verbs themselves are in `sqlite_verbs`, the thread and its transactions in `committer`. Here is the file: opening it
beside other processes, the lock around each transaction, and what the thread does between two of them:

- it notices what other processes have committed (`PRAGMA data_version`, some tens of times a second) and wakes who
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
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import QueueFull, StoreUnavailable
from ..jobs import JobState
from . import sqlite_verbs as verbs
from .base import Capabilities, Lease, Store
from .committer import Committer
from .filelock import FileLock
from .presence import Presence
from .sqlite_schema import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime
    from pathlib import Path

    from ..clock import Clock, Timer
    from ..jobs import JobRecord, NewJob
    from .base import Answer, Finish, Fired, Firing, Listener, ScheduleChange, ScheduleRow

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

BUSY_SECONDS = 60.0
"""How long a transaction waits for another process before it gives up: longer than any of ours takes."""
LOOK_SECONDS = 0.03
"""How often the thread looks for what others have committed: half of it is the delay that a waiting worker adds, and
one look costs some tens of microseconds."""
HOUSEKEEPING_SECONDS = 1.0
"""How often dead workers are looked for: their jobs run again within two seconds."""
OVERDUE = timedelta(seconds=10)
"""How long a lease must have been over before the thread takes its job away: when the machine wakes up, all leases are
over at once, and workers that live renew theirs within a second."""
PRUNE_SECONDS = 60.0
PRUNE_LIMIT = 1_000
"""So many rows are forgotten in one transaction: some milliseconds, so that claims hardly notice."""


class SQLiteStore(Store):
    """Jobs and schedules in one file.

    Args:
        path: The file; it is made where there is none. Not on a network file system.
        clock: Tells the time.
        worker: The name of this worker process; None: this one only reads and enqueues.
        max_queued: How many jobs may wait before `enqueue` waits too, whoever enqueues.
        lease_seconds: How long a claim holds after its last renewal, which comes every third of that.
        max_stall_seconds: Leases are renewed while the loop has turned within this many seconds.
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
        lease_seconds: float = 60.0,
        max_stall_seconds: float = 300.0,
        keep_results: float = 3_600.0,
        keep_jobs: float = 7 * 86_400.0,
        keep_ledger: float = 30 * 86_400.0,
    ) -> None:
        self.path = path
        self._clock = clock
        self._worker = worker
        self._max_queued = max_queued
        self._lease_seconds = lease_seconds
        self._max_stall_seconds = max_stall_seconds
        self._keeps = {"results": keep_results, "jobs": keep_jobs, "ledger": keep_ledger}
        self._committer = Committer(
            connect=self._connect, transaction=self._transact, idle=self._look, name="tickwork-sqlite"
        )
        self._lock: FileLock | None = None
        self._presence = Presence(path.with_name(f"{path.name}-workers"), worker or "")
        self._listener: Listener | None = None
        self._claimable = asyncio.Event()
        self._changed = asyncio.Event()
        self._room = asyncio.Lock()
        self._ended: dict[str, asyncio.Event] = {}
        self._alarm: Timer | None = None
        self._alarm_at: datetime | None = None
        # What the thread alone knows.
        self._identity = (0, 0)
        self._data_version = -1
        self._schedules_changed = -1
        self._next_housekeeping = 0.0
        self._renew_at = clock.now()
        self._next_prune = 0.0
        self._turned_mono = 0.0

    # -- the file ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, make or migrate its tables, and announce this worker.

        Raises:
            StoreUnavailable: The file cannot be used, with the reason.
        """
        self._turned_mono = self._clock.monotonic()
        await self._committer.open()

    async def close(self) -> None:
        """Do what waits, leave the list of workers and close the file. A second call does nothing."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = self._alarm_at = None
        if self._worker is not None and self._committer.is_open:
            worker = self._worker
            with suppress(StoreUnavailable):  # whoever comes next finds out that nobody holds its file
                await self._committer.run(lambda db: verbs.leave(db, worker))
        await self._committer.aclose()
        self._presence.leave()
        self._close_files()

    def _connect(self) -> sqlite3.Connection:
        try:
            self._lock = FileLock(self.path.with_name(f"{self.path.name}-lock"))
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=True, cached_statements=256
            )
        except (OSError, sqlite3.Error) as error:
            self._close_files()
            raise self._unavailable(error) from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            self._close_files()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Set the connection up; two processes that make the same file wait for each other."""
        self._acquire()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, str(self.path))
            if self._worker is not None:
                self._presence.announce()
                now = verbs.us(self._clock.now())
                connection.execute(
                    "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?)",
                    (self._worker, os.uname().nodename if hasattr(os, "uname") else "", os.getpid(), now, now),
                )
            connection.execute("COMMIT")
            found = self.path.stat()
            self._identity = found.st_dev, found.st_ino
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(error) from error
        finally:
            self._release()

    def _transact(self, connection: sqlite3.Connection, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        """Run functions in one transaction under the lock of the file."""
        self._acquire()
        try:
            self._expect_the_file()
            connection.execute("BEGIN IMMEDIATE")
            try:
                values = [work(connection) for work in works]
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            self._release()
        return values

    def _expect_the_file(self) -> None:
        """Refuse to write into a file that is no longer there: it would be gone with this process."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise StoreUnavailable(
                str(self.path), "it was removed or replaced while it was open", "put it back, or start the app anew"
            )

    def _acquire(self) -> None:
        """Take the lock of the file, waiting for other processes."""
        assert self._lock is not None
        deadline, pause = None, 0.0002
        while not self._lock.try_acquire():
            now = self._clock.monotonic()
            deadline = now + BUSY_SECONDS if deadline is None else deadline
            if now > deadline:
                raise StoreUnavailable(
                    str(self.path), f"another process has held its lock for {BUSY_SECONDS:g} s", "see who is stuck"
                )
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
        text = str(error)
        remedy = next((remedy for sign, remedy in _REMEDIES if sign in text), "")
        return StoreUnavailable(str(self.path), text, remedy)

    # -- between two transactions, in the thread --------------------------------------------------------------------

    def _look(self, db: sqlite3.Connection) -> float:
        """Notice what others have committed, keep house, and return how long the thread may sleep."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version = version
            self._notice(db)
        if self._worker is not None:
            mono = self._clock.monotonic()
            if mono >= self._next_housekeeping:
                self._next_housekeeping = mono + HOUSEKEEPING_SECONDS
                self._committer.call_on_loop(self._turn)
                self._keep_house(db, self._worker, mono)
        return LOOK_SECONDS

    def _notice(self, db: sqlite3.Connection) -> None:
        """Tell the loop what another process has changed that somebody here waits for."""
        tell = self._committer.call_on_loop
        (changes,) = db.execute("SELECT value FROM meta WHERE key = 'schedules_changed'").fetchone()
        if changes != self._schedules_changed:
            self._schedules_changed = changes
            tell(self._tell_listener, "schedules_changed")
        self._notice_cancels(db)
        ended = verbs.ended_among(db, list(self._ended))
        tell(self._others_committed, verbs.next_claim(db), ended)

    def _notice_cancels(self, db: sqlite3.Connection) -> None:
        if self._worker is not None and (asked := verbs.cancels_asked(db, self._worker)):
            self._committer.call_on_loop(self._tell_listener, "cancel_asked", asked)

    def _keep_house(self, db: sqlite3.Connection, worker: str, mono: float) -> None:
        now = self._clock.now()
        self._notice_cancels(db)  # again: the loop may not have known the job yet when it was told
        if now >= self._renew_at:
            self._renew(db, worker, now, mono)
        dead = self._presence.dead(verbs.other_workers(db, worker))
        if dead or verbs.has_overdue(db, now - OVERDUE):
            (rescued,) = self._transact(db, [lambda db: verbs.rescue(db, now, dead, OVERDUE)])
            self._tell_rescued(dead, rescued)
            self._notice(db)  # an end moves an `after="end"` schedule on, and data_version tells only what others did
        if mono >= self._next_prune:
            self._next_prune = mono + PRUNE_SECONDS
            if self._prune(db, now) >= PRUNE_LIMIT:
                self._next_prune = mono  # there is more

    def _renew(self, db: sqlite3.Connection, worker: str, now: datetime, mono: float) -> None:
        """Renew the leases of this worker, unless its loop is stuck."""
        stalled = mono - self._turned_mono
        if stalled > self._max_stall_seconds:
            logger.critical(
                "the loop has not turned for %d s, so the leases of worker %s end: its jobs run again elsewhere",
                stalled,
                worker,
            )
        else:
            self._transact(db, [lambda db: verbs.renew(db, now, worker, self._lease_seconds)])
        self._renew_at = now + timedelta(seconds=self._lease_seconds / 3)

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

    def _prune(self, db: sqlite3.Connection, now: datetime) -> int:
        limits = {kind: now - timedelta(seconds=seconds) for kind, seconds in self._keeps.items()}
        (gone,) = self._transact(db, [lambda db: verbs.prune(db, **limits, limit=PRUNE_LIMIT)])
        return int(gone)

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
            self._claimable.set()
        self._set_alarm(due)

    def _tell_ended(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            ended = self._ended.pop(job_id, None)
            if ended is not None:
                ended.set()

    def _set_alarm(self, due: datetime | None) -> None:
        """Let a claim be tried when the next scheduled job is due."""
        if due is None or (self._alarm is not None and self._alarm_at is not None and self._alarm_at <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = self._alarm_at = None
        self._claimable.set()

    # -- producers --------------------------------------------------------------------------------------------------

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._committer.run(work)

    async def enqueue(self, jobs: Sequence[NewJob], *, wait: bool = True) -> list[JobRecord]:
        """See `Store.enqueue`."""
        if len(jobs) > self._max_queued:
            raise QueueFull("store", self._max_queued, f"{len(jobs)} jobs at once never fit; enqueue them in parts")
        records = None if self._room.locked() else await self._try_enqueue(jobs)
        if records is None and not wait:
            raise QueueFull("store", self._max_queued, "await enqueue(...) to wait for room, or raise max_queued")
        if records is None:
            async with self._room:  # who waits longest goes first
                while records is None:
                    self._changed.clear()
                    records = await self._try_enqueue(jobs)
                    if records is None:
                        await self._changed.wait()
        self._claimable.set()
        return records

    async def _try_enqueue(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        now = self._clock.now()
        return await self._committer.run(lambda db: verbs.enqueue(db, now, jobs, self._max_queued), undo=self._withdraw)

    async def _withdraw(self, records: list[JobRecord] | None) -> None:
        """Take out what a cancelled caller has enqueued."""
        job_ids = [record.id for record in records or ()]
        left = await self._committer.run(lambda db: verbs.withdraw(db, job_ids))
        if left:
            logger.warning("a cancelled enqueue came too late to withdraw jobs that have begun: %s", ", ".join(left))

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See `Store.fire`."""
        now = self._clock.now()
        fired = await self._committer.run(lambda db: [verbs.fire(db, now, firing) for firing in firings])
        self._claimable.set()
        return fired

    async def set_schedule(self, changes: Sequence[ScheduleChange]) -> list[ScheduleRow | None]:
        """See `Store.set_schedule`."""
        now = self._clock.now()
        return await self._committer.run(lambda db: [verbs.change_schedule(db, now, change) for change in changes])

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
        lease_seconds: float | None = None,
    ) -> list[JobRecord]:
        """See `Store.claim`."""
        now = self._clock.now()
        seconds = self._lease_seconds if lease_seconds is None else lease_seconds

        def work(db: sqlite3.Connection) -> tuple[list[JobRecord], datetime | None]:
            found = verbs.claim(db, now, worker=worker, tasks=tasks, limit=limit, queues=queues, lease_seconds=seconds)
            return found, None if found else verbs.next_claim(db)[1]

        self._claimable.clear()  # whatever is enqueued from here on sets it again
        records, due = await self._committer.run(work, undo=self._give_back)
        self._set_alarm(due)
        if len(records) >= limit:
            self._claimable.set()  # there may be more
        if records:
            self._changed.set()
        return records

    async def _give_back(self, claimed: tuple[list[JobRecord], datetime | None]) -> None:
        """Release what a cancelled claim has taken."""
        await self.release([Lease(record.id, record.token) for record in claimed[0]])

    async def extend(self, leases: Sequence[Lease], lease_seconds: float) -> list[bool]:
        """See `Store.extend`."""
        now = self._clock.now()
        return await self._committer.run(
            lambda db: [verbs.extend(db, now, lease, lease_seconds) for lease in leases], urgent=True
        )

    async def progress(self, lease: Lease, *, started_at: datetime) -> bool:
        """See `Store.progress`."""
        return await self._committer.run(lambda db: verbs.progress(db, lease, started_at))

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """See `Store.finish`."""
        now = self._clock.now()
        accepted = await self._committer.run(lambda db: [verbs.finish(db, now, ended) for ended in finishes])
        self._changed.set()
        self._claimable.set()  # a job that waited behind one of these may begin
        self._tell_ended([ended.lease.job_id for ended in finishes])
        return accepted

    async def release(self, leases: Sequence[Lease]) -> list[bool]:
        """See `Store.release`."""
        now = self._clock.now()
        released = await self._committer.run(lambda db: [verbs.release(db, now, lease) for lease in leases])
        self._claimable.set()
        return released

    async def rescue(self) -> list[JobRecord]:
        """See `Store.rescue`."""
        now = self._clock.now()

        def work(db: sqlite3.Connection) -> list[JobRecord]:
            dead = self._presence.dead(verbs.other_workers(db, self._worker or ""))
            return verbs.rescue(db, now, dead, timedelta(0))

        rescued = await self._committer.run(work)
        self._claimable.set()
        self._tell_ended([record.id for record in rescued])
        return rescued

    async def beat(self, worker: str) -> None:
        """See `Store.beat`; the thread does it with each renewal."""
        now = self._clock.now()
        await self._committer.run(lambda db: verbs.beat(db, now, worker), urgent=True)

    # -- waiting ----------------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """See `Store.listen`."""
        self._listener = listener

    async def wait_claimable(self) -> None:
        """See `Store.wait_claimable`."""
        await self._claimable.wait()

    async def wait_finished(self, job_id: str) -> JobRecord:
        """See `Store.wait_finished`."""
        while True:
            ended = self._ended.setdefault(job_id, asyncio.Event())
            record = await self.job(job_id)
            if record.state.is_finished or record.state is JobState.PARKED:
                self._ended.pop(job_id, None)
                ended.set()  # others may wait for it, too
                return record
            await ended.wait()

    # -- people -----------------------------------------------------------------------------------------------------

    async def cancel(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """See `Store.cancel`."""
        now = self._clock.now()
        cancelled = await self._committer.run(lambda db: [verbs.cancel(db, now, job_id) for job_id in job_ids])
        self._changed.set()
        self._claimable.set()
        self._tell_ended([record.id for record in cancelled if record is not None])
        return cancelled

    async def prune(self) -> int:
        """See `Store.prune`."""
        now = self._clock.now()
        limits = {kind: now - timedelta(seconds=seconds) for kind, seconds in self._keeps.items()}
        return await self._committer.run(lambda db: verbs.prune(db, **limits, limit=PRUNE_LIMIT))

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


_REMEDIES = (
    ("disk is full", "make room; what was asked for is not done, and is tried again where the app asked"),
    ("readonly", "let this user write the file and its folder"),
    ("read-only", "let this user write the file and its folder"),
    ("unable to open", "make its folder, or let this user write there"),
    ("Permission denied", "let this user write the file and its folder"),
    ("not a database", "it is damaged, or something else: move it away, or restore a backup"),
    ("malformed", "it is damaged: restore a backup, or rescue what is left with sqlite3's .recover"),
    ("locked", "another program holds it: end that, or give tickwork a file of its own"),
)
"""What to do, by what SQLite says."""
