"""The store in one SQLite file: what it has answered for survives a kill and a power cut, and processes share it.

The verbs themselves are in `sqlite_verbs`, the thread and its transactions in `committer`. Here is the file: opening it
beside other processes, the lock around each transaction, and what the thread does between two of them:

- it notices what other processes have committed (`PRAGMA data_version`, some fourteen times a second) and wakes who
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
from contextlib import closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._version import __version__
from ..errors import NotRunning, StoreMoved, StoreUnavailable
from ..policies import MAX_DEATHS
from . import sql_attempts, sqlite_batches, sqlite_limits
from . import sqlite_check as checks
from . import sqlite_moving as moving
from . import sqlite_people as people
from . import sqlite_verbs as verbs
from .base import Capabilities
from .committer import Committer
from .durable import Dialect, DurableStore
from .filelock import FileLock
from .presence import Presence
from .sqlite_schema import expect_ours, migrate, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from ..clock import Clock
    from .migration import Migration

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

BUSY_SECONDS = 60.0
"""How long a transaction waits for another process before it gives up: longer than any of ours takes."""
LOOK_SECONDS = 0.07
"""How often the thread looks for what others have committed: half of it is the delay that a waiting worker adds, and
one look costs some tens of microseconds, or hundreds where it has to wake the processor."""
HOUSEKEEPING_SECONDS = 1.0
"""How often dead workers are looked for: their jobs run again within two seconds."""
OVERDUE_SECONDS = 10.0
"""How long a lease must have been over, and this thread have looked on undisturbed, before the job is taken away. When
the machine wakes up, when its clock is set or when another program lets go of the file, all leases are over at once,
and workers that live renew theirs within a second or two."""
PRUNE_SECONDS = 60.0


class SQLiteStore(DurableStore):
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
    sql: ClassVar[Dialect] = Dialect(verbs, people, sqlite_batches, sqlite_limits, sql_attempts, checks, moving)

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
        self._files = str(path), f"{path}-wal"
        super().__init__(
            clock,
            worker=worker,
            max_queued=max_queued,
            max_deaths=max_deaths,
            lease_seconds=lease_seconds,
            keeps={"results": keep_results, "jobs": keep_jobs, "ledger": keep_ledger},
        )
        self._max_stall_seconds = max_stall_seconds
        self._busy_seconds = busy_seconds
        self._keeps_house = keeps_house and worker is not None
        self._round_seconds = min(HOUSEKEEPING_SECONDS, lease_seconds / 6)
        self._committer = Committer(
            connect=self._connect,
            transaction=self._transact,
            idle=self._look,
            disconnect=self._disconnect,
            name="tickwork-sqlite",
        )
        self._lock: FileLock | None = None
        self._presence = Presence(path.with_name(f"{path.name}-workers"), worker or "", path)
        # What the thread alone knows.
        self._identity: list[tuple[int, int] | None] = []
        self._schedules_changed = -1
        self._rescued = -1
        self._next_housekeeping = 0.0
        self._renew_mono = 0.0
        self._next_prune = 0.0

    @property
    def where(self) -> str:
        """What errors call the store: its path."""
        return str(self.path)

    @property
    def address(self) -> str:
        """The URL by which an app opens it."""
        return f"sqlite:///{self.path}"

    # -- the file ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the file, make or migrate its tables, and announce this worker.

        Raises:
            StoreUnavailable: The file cannot be used, with the reason.
        """
        mono = self._begin()
        self._renew_mono = self._next_prune = self._next_housekeeping = mono
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
        self._stop_waiting()
        if self._worker is not None and self._committer.is_open:
            worker = self._worker
            with suppress(StoreUnavailable, NotRunning):  # whoever comes next finds out that nobody holds its file
                await self._committer.run(lambda db: verbs.leave(db, worker))
                await self._return_caught()
        await self._committer.aclose()
        self._stopped()

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

    def plan_migration(self) -> Migration:
        """Return what `open` would do to the tables, and change nothing. It takes a connection of its own.

        Raises:
            StoreUnavailable: As `open` does, or there is no file.
        """
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return plan(connection, str(self.path))
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

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
            connection.execute("BEGIN IMMEDIATE")
            try:
                values, tell = self._do(connection, works)
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
        tell()
        return values

    def _dead(self, db: sqlite3.Connection, workers: Iterable[str] | None = None) -> list[str]:
        return self._presence.dead(verbs.other_workers(db, self._worker or "") if workers is None else workers)

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
            raise StoreMoved(str(self.path), target)

    def _identify(self) -> list[tuple[int, int] | None]:
        """Return which files lie there: the database, and what is not yet written into it."""
        found: list[tuple[int, int] | None] = []
        for path in self._files:
            try:
                status = os.stat(path)
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
            try:
                self._notice(db)
            except BaseException:
                self._data_version = -1  # the next look looks again
                raise
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

    def _keep_house(self, db: sqlite3.Connection, worker: str, mono: float) -> None:
        now = self._clock.now()
        is_disturbed = self._is_disturbed(now, mono)
        self._notice_cancels(db)  # again: the worker may not have known the job yet when it was told
        if is_disturbed or mono >= self._renew_mono:
            self._renew(db, worker, now, mono)
        overdue = timedelta(seconds=OVERDUE_SECONDS) if mono - self._calm_since_mono >= OVERDUE_SECONDS else None
        dead = self._dead(db)
        if dead or (overdue is not None and verbs.has_overdue(db, now - overdue)):
            (rescued,) = self._transact(db, [lambda db: verbs.rescue(db, now, dead, overdue, self._max_deaths)])
            for name in dead:
                self._presence.forget(name)
            self._tell_rescued(dead, rescued)
            self._notice(db)  # an end moves an `after="end"` schedule on, and data_version tells only what others did
        if self._tasks and people.misfit_tasks(db, self._tasks):
            (unparked,) = self._transact(db, [lambda db: people.unpark(db, self._tasks)])
            self._committer.call_on_loop(self._tell_unparked, unparked)

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

    def _prune(self, db: sqlite3.Connection) -> bool:
        """Forget some of what is old, and return whether there is more."""
        (pruned,) = self._transact(db, [self._pruning()])
        return bool(pruned[1])


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
