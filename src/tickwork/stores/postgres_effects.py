"""Transactions in which the effects of a job and its success are one: connections for them, and how they end.

The job has a connection of its own, that of psycopg for asyncio, and says on it what it likes. At the end the verbs of
the store write the job's end there, the same as ever, in a savepoint: they are functions that block, so they run in a
thread, and the loop runs their statements (`Guest`). Then all is committed together.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper

from ..errors import NotRunning, StoreUnavailable
from .postgres_errors import remedy_for, text_of
from .postgres_link import ANY_MARK, DEFAULTS, IDLE_MILLISECONDS, Link, LockOrder
from .postgres_schema import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..clock import Clock
    from .postgres_link import Params, Row
    from .postgres_target import Target

    Connection = psycopg.AsyncConnection[Row]

T = TypeVar("T")

MAX_IDLE = 8
"""So many connections are kept for the next jobs: each is a process of the server."""
STATEMENT_SECONDS = 60.0
"""For so long a thread waits for the loop: for a lock of another end, or for ever when nobody runs the loop again."""
THREADS = 4
"""In so many threads ends are written; each takes some milliseconds, most of which it waits."""

_CLEAN = (
    "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
"""What one job has set must not hold for the next. Not DISCARD ALL, which forgets the prepared statements as well."""


class Effects:
    """The connections of one store for transactions of its jobs; for its loop."""

    def __init__(self, target: Target, clock: Clock, now_us: Callable[[], int]) -> None:
        self._target = target
        self._clock = clock
        self._now_us = now_us
        self._idle: list[Connection] = []
        self._is_closed = True
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Take requests, again where it was closed."""
        self._is_closed = False

    async def close(self) -> None:
        """Close the connections that nobody uses, and the others when they are given back."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await _closed(connection)
        if self._threads is not None:
            threads, self._threads = self._threads, None
            threads.shutdown(wait=False)

    async def begin(self) -> tuple[Connection, psycopg.AsyncTransaction]:
        """Return a connection on which a transaction has begun.

        Raises:
            StoreUnavailable: There is none to be had.
        """
        if self._is_closed:
            raise NotRunning("the store is closed")
        while self._idle:
            connection = self._idle.pop()
            try:
                return connection, await _begun(connection)
            except psycopg.OperationalError:  # the server has ended it meanwhile
                await _closed(connection)
            except BaseException:
                await _closed(connection)
                raise
        try:
            connection = await self._connect()
            try:
                return connection, await _begun(connection)
            except BaseException:
                await _closed(connection)
                raise
        except psycopg.Error as error:
            raise StoreUnavailable(self._target.where, text_of(error), remedy_for(error)) from error

    async def _connect(self) -> Connection:
        given = conninfo_to_dict(self._target.url)
        settings: dict[str, Any] = {**DEFAULTS, "application_name": "tickwork job", **given}
        return await psycopg.AsyncConnection.connect(
            autocommit=True, prepare_threshold=5 if self._target.notifies else None, **settings
        )

    async def give_back(self, connection: Connection) -> None:
        """Take a connection back whose transaction has ended."""
        if (
            not connection.closed
            and not self._is_closed
            and len(self._idle) < MAX_IDLE
            and await self._clean(connection)
        ):
            self._idle.append(connection)
        else:
            await _closed(connection)

    async def _clean(self, connection: Connection) -> bool:
        """Undo what a job has set beyond its transaction, and return whether that was done."""
        connection.row_factory = tuple_row
        try:
            if self._target.notifies:  # else there is nothing: each transaction may have another connection
                await connection.execute(_CLEAN)
        except psycopg.Error:
            return False
        return connection.info.transaction_status == TransactionStatus.IDLE

    async def write(self, connection: Connection, work: Callable[[Link], T]) -> T:
        """Run verbs in the transaction that is open on a connection."""
        if connection.info.transaction_status != TransactionStatus.INTRANS:
            raise psycopg.errors.InFailedSqlTransaction(
                "the transaction of the job has failed, or was ended by a statement, and cannot be committed"
            )
        if self._is_closed:
            raise NotRunning("the store is closed")
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "tickwork-postgres-effects")
        loop = asyncio.get_running_loop()
        guest = Guest(self._target, connection, loop, clock=self._clock, now_us=self._now_us)
        return await loop.run_in_executor(self._threads, guest.write, work)


class Guest(Link):
    """A link on a connection of the loop, in a transaction that somebody else has begun and ends; for a thread."""

    _mark_query: ClassVar[str] = ANY_MARK

    def __init__(
        self,
        target: Target,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Clock,
        now_us: Callable[[], int],
    ) -> None:
        super().__init__(target, name="", clock=clock, now_us=now_us)
        self._guest = connection
        self._loop = loop

    def _run(self, query: str, params: Params) -> Any:
        """Have the loop run a statement, and wait."""
        asked = asyncio.run_coroutine_threadsafe(self._ask(query, params), self._loop)
        try:
            return asked.result(STATEMENT_SECONDS)
        except TimeoutError:  # the loop has ended with this on its list
            asked.cancel()
            raise

    async def _ask(self, query: str, params: Params) -> Done:
        cursor = psycopg.AsyncCursor(self._guest, row_factory=tuple_row)
        cursor.adapters.register_dumper(int, Int8Dumper)
        await cursor.execute(query, params or None)
        rows = await cursor.fetchall() if cursor.description is not None else []
        return Done(rows, cursor.rowcount)

    def write(self, work: Callable[[Link], T]) -> T:
        """Run a function in a savepoint, as often as it takes; leave the settings of the user's as they are."""
        transaction, path, *_ = self.all(
            """
            SELECT txid_current(), current_setting('search_path'), set_config('search_path', %s, true),
                set_config('idle_in_transaction_session_timeout', %s, true)
            """,
            (f"{quoted(self.schema)}, pg_temp", str(IDLE_MILLISECONDS)),
        )[0]
        self.shard: str = f"@{transaction}"
        locks: set[str] = set()
        while True:
            self.execute("SAVEPOINT tickwork")
            try:
                value = self._write_once(work, locks)
                break
            except LockOrder as order:
                locks |= order.names
                self.execute("ROLLBACK TO SAVEPOINT tickwork")
        # What the user has put off to the commit finds its tables as it is used to.
        self.execute("SELECT set_config('search_path', %s, true)", (path,))
        return value

    def _write_once(self, work: Callable[[Link], T], locks: set[str]) -> T:
        self._locks.clear()
        self.tally.clear()
        self.batches.clear()
        self._has_written = False
        if locks:
            self._wait(locks)
        value = work(self)
        self._leave_mark()
        return value


class Done(NamedTuple):
    """What a statement has given, as a cursor tells it."""

    rows: list[Row]
    rowcount: int

    def fetchall(self) -> list[Row]:
        """Return all rows."""
        return self.rows

    def fetchone(self) -> Row | None:
        """Return the first row, or None."""
        return self.rows[0] if self.rows else None


async def _begun(connection: Connection) -> psycopg.AsyncTransaction:
    """Begin a transaction; while it is open, psycopg refuses `commit` and `rollback`."""
    transaction = psycopg.AsyncTransaction(connection)
    await transaction.__aenter__()
    return transaction


async def _closed(connection: Connection) -> None:
    with suppress(psycopg.Error, OSError):
        await connection.close()
