"""The store in a PostgreSQL database, for processes on any number of hosts.

The verbs themselves are in `postgres_verbs`. Here is who runs them: three threads, each with a connection of its own,
so that none of it depends on the loop, or on what kind of loop that is.

- The writer runs what changes something. What many coroutines ask for at once goes into one transaction (`committer`).
- The reader runs what only looks.
- The watcher looks whether other processes have changed something, hints at what this one has changed, renews the
  leases of this worker while the loop turns, and keeps house: it gives back the jobs of workers that have died, and
  forgets what is old.

A fourth one, without a connection, ends those on which the server does not answer any more (`postgres_guard`).

A worker that dies is noticed on its own machine within two seconds, by its process id; elsewhere, when its leases are
over. All of them go by the server's clock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakSet

import psycopg

from ..clock import SystemClock
from ..durations import format_seconds
from ..errors import KeyInDoubt, NotRunning, StoreMoved, StoreUnavailable, UnknownJob
from ..policies import MAX_DEATHS
from ..records import changed
from ..shield import to_its_end
from . import postgres_batches as batches
from . import postgres_check as checks
from . import postgres_joint as joint
from . import postgres_limits, sql_attempts
from . import postgres_moving as moving
from . import postgres_people as people
from . import postgres_upkeep as upkeep
from . import postgres_verbs as verbs
from .base import Capabilities
from .committer import Committer
from .durable import PRUNE_LIMIT, Dialect, DurableStore
from .postgres_effects import Effects
from .postgres_errors import Kind, kind_of
from .postgres_guard import Guard
from .postgres_guests import guest_of, run_async, run_sync, sync_guest_of
from .postgres_link import DOUBT_SECONDS, PATIENCE_SECONDS, Link, LockOrder, key_of
from .postgres_presence import Presence
from .postgres_schema import migrate, plan
from .postgres_time import ServerTime
from .postgres_watcher import Watcher
from .sql_people import write_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from ..clock import Clock
    from ..jobs import JobRecord, NewJob, Progress
    from .base import Finish, Fired, Firing, Lease
    from .batches import BatchPart, BatchRow
    from .durable import Hungry
    from .migration import Migration
    from .postgres_target import Target
    from .postgres_upkeep import SchemaStats

logger: logging.Logger = logging.getLogger("tickwork.stores")

T = TypeVar("T")

LOOK_SECONDS = 0.5
"""How often the watcher looks, though nobody has hinted at anything: hints may be lost."""
LOOK_ALONE_SECONDS = 0.1
"""The same where there are no hints."""
HOUSEKEEPING_SECONDS = 1.0
"""How often dead workers are looked for: their jobs run again within two seconds."""
OVERDUE_SECONDS = 10.0
"""How long a lease must have been over, and the watcher have looked on undisturbed, before the job is taken away. When
the server was gone for a while, all leases are over at once, and workers that live renew theirs within seconds."""
PRUNE_SECONDS = 60.0
MANY_ROWS = 200
"""So many rows of `shards` that transactions of users have left are added up at once: each look sums all of them up."""
KEY_PAUSE_SECONDS = 0.25
"""How soon it is tried again to enqueue a job with a key that a transaction has which has not ended, at the latest."""
IDLE_SECONDS = 3_600.0
"""Writer and reader have nothing to do between what they are asked for."""
NEAR_SECONDS = 0.05
"""What is due in so short a time is due: the time of the server is not known more exactly than an answer takes, and
a job would be put aside, and fetched again at once."""
SHARD_SECONDS = 86_400.0
"""A row of `shards` that nobody has touched for so long is added to another: its process has ended without a word."""


class PostgresStore(DurableStore):
    """Jobs and schedules in a schema of a PostgreSQL database.

    Args:
        target: The database; schema and tables are made where there are none.
        clock: Tells how long things take, and the time until the server has told it.
        worker: The name of this worker process; None: this one only reads and enqueues.
        max_queued: How many jobs may wait before `enqueue` waits too, whoever enqueues.
        max_deaths: A job under which this many workers died is parked.
        lease_seconds: How long a claim holds after its last renewal, which comes every third of that.
        max_stall_seconds: Leases are renewed while the loop has turned within this many seconds.
        patience_seconds: For how long a call is tried again while the server cannot be reached.
        keeps_house: Renew leases, rescue and prune unasked. False: only what is called is done.
        keep_results: Seconds for which results are kept.
        keep_jobs: Seconds for which finished jobs are kept; parked ones stay.
        keep_ledger: Seconds for which the ledger is kept.
    """

    capabilities: Capabilities = Capabilities(durable=True, multi_process=True, notify=True, transactional=True)
    sql: ClassVar[Dialect] = Dialect(verbs, people, batches, postgres_limits, sql_attempts, checks, moving)

    def __init__(
        self,
        target: Target,
        clock: Clock,
        *,
        worker: str | None = None,
        max_queued: int = 100_000,
        max_deaths: int = MAX_DEATHS,
        lease_seconds: float = 60.0,
        max_stall_seconds: float = 300.0,
        patience_seconds: float = PATIENCE_SECONDS,
        keeps_house: bool = True,
        keep_results: float = 3_600.0,
        keep_jobs: float = 7 * 86_400.0,
        keep_ledger: float = 30 * 86_400.0,
    ) -> None:
        super().__init__(
            clock,
            worker=worker,
            max_queued=max_queued,
            max_deaths=max_deaths,
            lease_seconds=lease_seconds,
            keeps={"results": keep_results, "jobs": keep_jobs, "ledger": keep_ledger},
        )
        self.target = target
        self.capabilities = replace(type(self).capabilities, notify=target.notifies)
        self._max_stall_seconds = max_stall_seconds
        self._patience_seconds = patience_seconds
        self._known_guests: WeakSet[Any] = WeakSet()
        """Connections of users that lead to this database."""
        self._keeps_house = keeps_house and worker is not None
        self._round_seconds = min(HOUSEKEEPING_SECONDS, lease_seconds / 6)
        self._time = ServerTime(clock, is_own=not isinstance(clock, SystemClock))
        self._presence = Presence(worker or "", target.where)
        self._writing = self._link("writer", patience_seconds)
        self._reading = self._link("reader", patience_seconds)
        self._watching = self._link("watcher", 0.0)
        for link in (self._writing, self._watching):
            link.on_flush = batches.flush
        self._committer = Committer(
            connect=self._connect,
            transaction=self._transact,
            idle=lambda link: IDLE_SECONDS,
            disconnect=self._disconnect,
            name="tickwork-postgres-writer",
        )
        self._reader = Committer(
            connect=lambda: self._reading,
            transaction=lambda link, works: link.transact(lambda db: [work(db) for work in works]),
            idle=lambda link: IDLE_SECONDS,
            disconnect=Link.disconnect,
            name="tickwork-postgres-reader",
        )
        self._channel: str | None = None
        if target.notifies:
            self._channel = f"tickwork_{key_of(target.schema, 'hints') & 0xFFFFFFFFFFFF:x}"
        self._watcher = Watcher(
            self._watching, channel=self._channel, look=self._look, is_awaited=self._is_awaited, clock=clock
        )
        self._guard = Guard([self._writing, self._reading, self._watching])
        self._effects = Effects(target, clock, self._time.us)
        self._doubted: list[Lease] = []
        """What the writer has claimed in a transaction of which nobody knows whether it was committed."""
        self._writing.on_settled = self._settle_doubt
        # What the watcher alone knows.
        self._changes = -1
        self._rescued = -1
        self._next_housekeeping = 0.0
        self._next_prune = 0.0
        self._next_fold = 0.0
        self._left_rows = 0
        self._renew_mono = 0.0

    def _link(self, name: str, patience_seconds: float) -> Link:
        return Link(
            self.target,
            name=f"tickwork {name}",
            clock=self._clock,
            now_us=self._time.us,
            patience_seconds=patience_seconds,
            is_over=lambda: self._is_closing,
            on_time=self._time.hear,
        )

    def _now(self) -> datetime:
        return self._time.now()

    @property
    def where(self) -> str:
        """What errors call the store: its URL without password and options."""
        return self.target.where

    @property
    def address(self) -> str:
        """The URL by which an app opens it, without a password."""
        return self.target.address

    # -- open and close ---------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, make or migrate the tables, and announce this worker. A server that is away may be about to come.

        Raises:
            StoreUnavailable: The database cannot be used, with the reason.
        """
        mono = self._begin()
        self._renew_mono = self._next_prune = self._next_housekeeping = mono
        self._data_version = self._changes = self._rescued = -1
        for link in (self._writing, self._watching):
            link.shard = f"{self._worker or os.getpid()}:{secrets.token_hex(6)}"
        self._guard.open()
        try:
            await self._committer.open(on_cancel=self._give_up)
            await self._reader.open()
        except BaseException as error:
            self._guard.hasten()
            if isinstance(error, asyncio.CancelledError):
                await self._committer.aclose()
                await self._reader.aclose()
            self._guard.close()
            raise
        self._watcher.open()
        self._effects.open()

    async def close(self) -> None:
        """Do what waits, leave the list of workers and close the connections. A second call does nothing.

        Who waits for anything is told. In a forked child, which has no part in the parent's store, nothing is done.
        """
        if self._committer.is_forked:
            return
        self._stop_waiting()
        self._guard.hasten()
        await self._effects.close()
        await self._watcher.aclose()
        if self._committer.is_open:
            worker = self._worker
            with suppress(StoreUnavailable, NotRunning):  # its leases tell that it is gone, or its process id
                if worker is not None:
                    await self._committer.run(lambda db: verbs.leave(db, worker))
                    await self._return_caught()
        await self._reader.aclose()
        await self._committer.aclose()
        self._guard.close()
        self._stopped()

    def _connect(self) -> Link:
        try:
            try:
                with self._writing.asking():
                    self._writing.connect()
            except psycopg.Error as error:
                if kind_of(error) is not Kind.AGAIN or not self._patience_seconds:
                    raise
                patience = format_seconds(self._patience_seconds)
                logger.warning("trying for up to %s: %s", patience, self._writing.unavailable(error))
            self._writing.transact(self._prepare)
        except psycopg.Error as error:
            self._writing.disconnect()
            raise self._writing.unavailable(error) from error
        except BaseException:
            self._writing.disconnect()
            raise
        return self._writing

    def _give_up(self) -> None:
        """Have no patience any more: who opens the store was cancelled."""
        self._is_closing = True
        self._guard.hasten()

    def plan_migration(self) -> Migration:
        """Return what `open` would do to the tables, and change nothing. It takes a connection of its own.

        Raises:
            StoreUnavailable: As `open` does.
        """
        return self._ask(lambda db: plan(db, self.target.where, self.target.schema))

    def stats(self) -> SchemaStats:
        """Return how large the store is, and what is in it, also when it is not open.

        Raises:
            StoreUnavailable: The database cannot be used, or has no such tables.
        """
        return self._ask(upkeep.stats)

    def _ask(self, work: Callable[[Link], T]) -> T:
        """Run a function that only reads on a connection of its own, without patience."""
        link = self._link("asker", 0.0)
        try:
            return link.transact(work)
        finally:
            link.disconnect()

    def _prepare(self, db: Link) -> None:
        migrate(db, self.target.where, self.target.schema)
        if self._worker is not None:
            if (elsewhere := moving.moved_to(db)) is not None:  # who only looks may
                raise StoreMoved(self.where, elsewhere)
            now = self._now()
            self._presence.announce(db, now, now + timedelta(seconds=self._lease_seconds))

    def _disconnect(self, link: Link) -> None:
        """Add what was counted here to the counts of all, and close the connection."""
        try:
            names = [name for name in (self._writing.shard, self._watching.shard) if name is not None]
            self._writing.shard = None  # it leaves no mark any more: a second time, there is nothing to add
            link.transact(lambda db: verbs.merge_shards(db, self._now(), names))
        except StoreUnavailable:
            pass  # another process does it some day
        finally:
            link.disconnect()

    # -- transactions -----------------------------------------------------------------------------------------------

    def _transact(self, link: Link, works: list[Callable[[Link], Any]]) -> list[Any]:
        """Run functions in one transaction of the writer; let others know that it has changed something."""
        try:
            values, tell = link.transact(lambda db: self._do(db, works))
        except StoreUnavailable:
            if link.is_in_doubt and self._taken:
                self._doubted, self._taken = self._taken, []
                self._committer.call_on_loop(self._let_claim)  # who waits for these jobs is not told of them
            raise
        tell()
        if link.has_written:
            self._watcher.hint(is_work=self._makes_work)
        return values

    def _settle_doubt(self, is_committed: bool) -> None:
        """Give back what a transaction has claimed of which nobody knew until now whether it was committed."""
        doubted, self._doubted = self._doubted, []
        if is_committed:
            self._orphans += doubted

    def _enqueue(self, db: Link, asked: list[Sequence[NewJob]]) -> list[list[JobRecord] | None]:
        now, by = self._due_by()
        return super()._enqueue(db, [[_due(job, by, now) for job in jobs] for jobs in asked])

    async def feed_batch(self, part: BatchPart, jobs: Sequence[NewJob], *, wait: bool = True) -> BatchRow:
        """See `Store.feed_batch`."""
        return await super().feed_batch(part, self._due_here(jobs), wait=wait)

    async def fire(self, firings: Sequence[Firing]) -> list[Fired]:
        """See `Store.fire`."""
        by = self._now() if self._time.is_own else self._now() + timedelta(seconds=NEAR_SECONDS)
        return await super().fire(
            [
                firing if firing.job is None else changed(firing, job=_due(firing.job, by, self._now()))
                for firing in firings
            ]
        )

    def _due_here(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """Let what is due by the clock of this host be due, however the server's is set."""
        now, by = self._due_by()
        return [_due(job, by, now) for job in jobs]

    def _due_by(self) -> tuple[datetime, datetime]:
        """Return the time, and by when what is due is due now."""
        now, here = self._now(), self._clock.now()
        return now, max(now, here) if self._time.is_own else max(now + timedelta(seconds=NEAR_SECONDS), here)

    def _feed(self, db: Link, hungry: Hungry) -> list[JobRecord]:
        """Claim for a worker that waits, once. When that fails, it is told to ask for itself, and nobody else hears.

        Without a savepoint, which would be two ways there and back more: the transaction is run again instead, where
        nobody is hungry any more.
        """
        claim, hungry.claim = hungry.claim, None
        if claim is None:
            return []
        try:
            return self._claim(db, claim)
        except Exception as error:
            self._committer.call_on_loop(self._let_claim)
            if isinstance(error, psycopg.Error) and kind_of(error) is not Kind.ASKED:
                raise
            logger.warning("a claim for a worker that waits failed; it tries for itself", exc_info=error)
            raise LockOrder(set()) from error

    # -- transactions of users --------------------------------------------------------------------------------------

    async def enqueue_within(self, connection: Any, jobs: Sequence[NewJob]) -> list[JobRecord]:
        """See `Store.enqueue_within`."""
        guest = await guest_of(connection)
        if not jobs:
            return []
        if not self._knows(guest.driver):
            query, params = joint.locate(self.target.schema)
            await self._expect_here_too((await guest.fetch(query, params))[0], guest.driver)
        steps = joint.enqueue(self.target.schema, self._channel, self._now(), self._due_here(jobs))
        return await run_async(guest, steps)

    def enqueue_within_sync(
        self, connection: Any, jobs: Sequence[NewJob], loop: asyncio.AbstractEventLoop
    ) -> list[JobRecord]:
        """See `Store.enqueue_within_sync`."""
        guest = sync_guest_of(connection)
        if not jobs:
            return []
        if not self._knows(guest.driver):
            query, params = joint.locate(self.target.schema)
            there = guest.fetch(query, params)[0]
            asyncio.run_coroutine_threadsafe(self._expect_here_too(there, guest.driver), loop).result()
        steps = joint.enqueue(self.target.schema, self._channel, self._now(), self._due_here(jobs))
        return run_sync(guest, steps)

    @asynccontextmanager
    async def transaction(
        self, end: Callable[[], Awaitable[Finish]], on_end: Callable[[bool], None]
    ) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """See `Store.transaction`; the connection is that of psycopg for asyncio, in a transaction of its own."""
        connection, transaction = await self._effects.begin()
        try:
            try:
                yield connection
                finish = await end()
            except BaseException as error:
                await to_its_end(_roll_back(transaction, error))
                raise
            await to_its_end(self._commit(connection, transaction, finish, on_end))
        finally:
            await to_its_end(self._effects.give_back(connection))

    async def _commit(
        self,
        connection: psycopg.AsyncConnection[Any],
        transaction: psycopg.AsyncTransaction,
        finish: Finish,
        on_end: Callable[[bool], None],
    ) -> None:
        now = self._now()

        def work(db: Link) -> tuple[bool, list[JobRecord], bool]:
            (is_accepted,), ended, frees = verbs.finish(db, now, [finish], self._ends)
            batches.flush(db)
            return is_accepted, ended, frees

        try:
            is_accepted, ended, frees = await self._effects.write(connection, work)
        except BaseException as error:
            await _roll_back(transaction, error)
            raise
        if not is_accepted:
            await _roll_back(transaction, NotRunning("refused"))
            on_end(False)
        try:
            await transaction.__aexit__(None, None, None)
        except psycopg.OperationalError as error:
            if not connection.closed or not await self._was_committed(finish.lease, error):
                raise
        on_end(True)
        self._tell_finished([finish], ended, frees=frees)
        self._watcher.hint(is_work=frees)

    async def _was_committed(self, lease: Lease, lost: BaseException) -> bool:
        """Return whether the end of a job was written by a transaction whose connection was lost at its commit."""
        until = self._clock.monotonic() + DOUBT_SECONDS
        while True:
            try:
                became = await self._committer.run(lambda db: verbs.became_of(db, lease), urgent=True)
            except StoreUnavailable:
                became = None
            if became is not None:
                logger.warning(
                    "the commit of job %s was cut off, and was %s", lease.job_id, "done" if became else "not"
                )
                return became
            if self._clock.monotonic() >= until:
                reason = f"the connection was lost during a commit ({lost}); whether that was done is not known"
                raise StoreUnavailable(self.target.where, reason) from lost
            await self._pause(KEY_PAUSE_SECONDS)

    async def _pause(self, seconds: float) -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, _wake, told)
        try:
            await told
        finally:
            timer.cancel()

    def _knows(self, driver: Any) -> bool:
        """Return whether a connection is known to lead to the database of this store."""
        try:
            return driver in self._known_guests
        except TypeError:  # asyncpg lends one that cannot be referred to weakly
            return False

    async def _expect_here_too(self, there: tuple[Any, ...], driver: Any) -> None:
        """Refuse a connection that leads to another database than this store's."""
        query, params = joint.locate(self.target.schema)
        here = await self._read(lambda db: db.all(query, params)[0])
        joint.check(self.target, here, there)
        with suppress(TypeError):
            self._known_guests.add(driver)

    async def _try_enqueue(self, jobs: Sequence[NewJob]) -> list[JobRecord] | None:
        """Enqueue where there is room. A key that a transaction of a user has is waited for, for a while."""
        until = self._clock.monotonic() + self._patience_seconds
        pause = 0.01
        while True:
            records = await super()._try_enqueue(jobs)
            if records is None or records:
                return records
            if self._clock.monotonic() >= until:
                raise KeyInDoubt(jobs[0].task)
            await self._pause(pause)
            pause = min(2 * pause, KEY_PAUSE_SECONDS)

    async def progress(
        self, lease: Lease, *, started_at: datetime | None = None, progress: Progress | None = None
    ) -> bool:
        """See `Store.progress`; what many jobs tell at once is one statement."""
        return await self._committer.share(self._progress, (lease, started_at, progress))

    def _progress(self, db: Link, told: list[verbs.Told]) -> list[bool]:
        are_held = verbs.progress_all(db, told)
        if not all(are_held):
            self._notice_lost(db)  # who has lost one lease has likely lost more, and must begin none of those jobs
        return are_held

    def _hold(self, db: Link, job_ids: Sequence[str] = (), schedules: Sequence[str] = ()) -> None:
        verbs.hold(db, job_ids, schedules)

    def _dead(self, db: Link, workers: Iterable[str] | None = None) -> list[str]:
        if workers is not None:
            return self._presence.dead(db, self._now(), workers)
        return self._presence.gone(db, verbs.other_workers(db, self._worker or ""))

    async def _change(
        self, job_ids: Sequence[str], work: Callable[[Link, str], JobRecord | None]
    ) -> list[JobRecord | None]:
        """Change jobs for people, who want to hear where they are, also when there is nothing to change."""
        target = await self._read(moving.moved_to)
        if target is not None:
            raise StoreMoved(self.where, target)
        return await super()._change(job_ids, work)

    async def _read(self, work: Callable[[Link], T]) -> T:
        return await self._reader.run(work)

    async def job(self, job_id: str) -> JobRecord:
        """See `Store.job`; what many ask for at once is one question."""
        record = await self._reader.share(_jobs, job_id)
        if record is None:
            raise UnknownJob(job_id)
        return record

    # -- what the watcher does --------------------------------------------------------------------------------------

    def _is_awaited(self) -> bool:
        """Return whether anybody here waits for what other processes do; in the thread of the watcher."""
        return self._hungry is not None or self._room.locked() or bool(self._ends) or bool(self._batch_waits)

    def _begin_to_wait(self) -> None:
        self._watcher.awaited()

    def _look(self) -> float:
        """Notice what others have committed, keep house, and return how long the thread may sleep."""
        self._watching.transact(self._look_around)
        self._fold(self._clock.monotonic())
        if self._keeps_house and self._worker is not None:
            mono = self._clock.monotonic()
            if mono >= self._next_housekeeping:
                self._next_housekeeping = mono + self._round_seconds
                self._committer.call_on_loop(self._turn)
                self._keep_house(self._worker, mono)
            if mono >= self._next_prune:
                self._next_prune = mono + PRUNE_SECONDS
                if self._prune():
                    self._next_prune = mono  # there is more
        return min(LOOK_SECONDS if self.target.notifies else LOOK_ALONE_SECONDS, self._round_seconds)

    def _fold(self, mono: float) -> None:
        """Add up what transactions of users have left, now and then: each has left a row."""
        if self._left_rows and (mono >= self._next_fold or self._left_rows >= MANY_ROWS):
            self._next_fold = mono + HOUSEKEEPING_SECONDS
            self._watching.transact(lambda db: joint.fold(db, self._now(), PRUNE_LIMIT))

    def _look_around(self, db: Link) -> None:
        marks, changes, rescued, self._left_rows = verbs.news(db)
        if marks == self._data_version:
            return
        self._data_version = marks
        try:
            self._notice(db, changes, rescued)
        except BaseException:
            self._data_version = -1  # the next look looks again
            raise

    def _notice(self, db: Link, changes: int, rescued: int) -> None:
        """Tell the loop what has changed that somebody here waits for."""
        tell = self._committer.call_on_loop
        if changes != self._changes:
            self._changes = changes
            tell(self._tell_listener, "schedules_changed")
        if rescued != self._rescued:
            self._rescued = rescued
            tell(self._ask_leases)
        self._notice_cancels(db)
        ended = verbs.ended_among(db, list(self._ends))
        tell(self._others_committed, verbs.next_claim(db), ended)
        self._tell_batches(self._moved_batches(db))

    def _notice_cancels(self, db: Link) -> None:
        if self._worker is not None and (asked := verbs.cancels_asked(db, self._worker)):
            self._committer.call_on_loop(self._tell_listener, "cancel_asked", asked)

    def _ask_leases(self) -> None:
        """Have the writer tell which jobs are still this worker's: it also claims, and tells one after the other."""
        if self._worker is None or not self._committer.is_open:
            return
        asked = asyncio.ensure_future(self._committer.run(self._notice_lost, urgent=True))
        self._looks.add(asked)
        asked.add_done_callback(self._asked_leases)

    def _asked_leases(self, asked: asyncio.Future[None]) -> None:
        self._looks.discard(asked)
        if not asked.cancelled() and (error := asked.exception()) is not None:
            logger.warning("which leases are held could not be asked: %s", error)

    def _keep_house(self, worker: str, mono: float) -> None:
        now, link = self._now(), self._watching
        is_disturbed = self._is_disturbed(now, mono)
        if is_disturbed or mono >= self._renew_mono:
            self._renew(worker, mono)
        overdue = timedelta(seconds=OVERDUE_SECONDS) if mono - self._calm_since_mono >= OVERDUE_SECONDS else None
        dead, has_overdue = link.transact(lambda db: self._inspect(db, now, overdue))
        if dead or has_overdue:
            rescued = link.transact(lambda db: verbs.rescue(db, now, dead, overdue, self._max_deaths))
            self._tell_rescued(dead, rescued)
        if self._tasks:
            self._unpark(self._tasks)

    def _unpark(self, tasks: Mapping[str, str]) -> None:
        """Queue misfits again that one of these tasks may fit."""
        misfits = self._watching.transact(lambda db: people.misfit_tasks(db, tasks))
        if misfits:
            unparked = self._watching.transact(lambda db: people.unpark(db, tasks))
            self._committer.call_on_loop(self._tell_unparked, unparked)

    def _inspect(self, db: Link, now: datetime, overdue: timedelta | None) -> tuple[list[str], bool]:
        """Return the workers that are gone, and whether the lease of any job has long been over."""
        self._notice_cancels(db)  # again: the worker may not have known the job yet when it was told
        return self._dead(db), overdue is not None and verbs.has_overdue(db, now - overdue)

    def _renew(self, worker: str, mono: float) -> None:
        """Renew the leases of this worker, unless its loop is stuck."""
        stalled = mono - self._turned_mono
        if stalled > self._max_stall_seconds:
            logger.critical(
                "the loop has not turned for %d s, so the leases of worker %s end: its jobs run again elsewhere",
                stalled,
                worker,
            )
        else:
            self._watching.transact(lambda db: self._renew_in(db, worker))
            self._committer.call_on_loop(self._ask_leases)
        self._renew_mono = mono + self._lease_seconds / 3

    def _renew_in(self, db: Link, worker: str) -> None:
        now = self._now()
        if not verbs.renew(db, now, worker, self._lease_seconds):  # somebody took it for dead, and forgot it
            self._presence.announce(db, now, now + timedelta(seconds=self._lease_seconds))
            write_tasks(db, now, worker, self._tasks, self._queues)

    def _prune(self) -> bool:
        """Forget some of what is old, and return whether there is more."""
        now = self._now()
        before = now - timedelta(seconds=SHARD_SECONDS)
        self._watching.transact(lambda db: verbs.forget_processes(db, now, before))
        _, has_more = self._watching.transact(self._pruning())
        return bool(has_more)


async def _roll_back(transaction: psycopg.AsyncTransaction, error: BaseException) -> None:
    """Roll a transaction back; a connection that is lost has done so."""
    with suppress(psycopg.Error):
        await transaction.__aexit__(type(error), error, error.__traceback__)


def _wake(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)


def _due(job: NewJob, by: datetime, now: datetime) -> NewJob:
    """Return a job that is due now, if it is due by that time."""
    return changed(job, run_at=now) if now < job.run_at <= by else job


def _jobs(db: Link, job_ids: list[str]) -> list[JobRecord | None]:
    found = {record.id: record for record in verbs.jobs_of(db, set(job_ids))}
    return [found.get(job_id) for job_id in job_ids]
