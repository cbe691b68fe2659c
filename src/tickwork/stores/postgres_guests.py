"""Connections of the user's own, on which jobs are enqueued: psycopg's, asyncpg's and SQLAlchemy's.

Each is used as it is, by its own means: with SQLAlchemy on asyncpg the transaction begins with the first statement
that goes through SQLAlchemy, so that what went around it would stand outside of it. All parameters are texts, which
statements cast, for a program may have set other codecs; they are marked by `?`.

None of the drivers is imported here: who has such a connection has done so.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Generator

Row = tuple[Any, ...]
T = TypeVar("T")
Steps = "Generator[tuple[str, tuple[str, ...]], list[Row], T]"
"""What is done on a connection: statements with their parameters, whose rows are sent back."""

EXPECTED = "a connection of psycopg, asyncpg or SQLAlchemy"
KINDS = "psycopg.AsyncConnection, asyncpg.Connection, sqlalchemy.ext.asyncio.AsyncConnection or AsyncSession"
_MARKS = {"pyformat": "%s", "format": "%s", "numeric_dollar": "$"}
"""How drivers of SQLAlchemy mark parameters."""


class Guest(Protocol):
    """A connection that is awaited."""

    driver: Any
    """The connection of the driver: one object as long as it is connected."""

    async def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        """Run a statement and return its rows."""


class SyncGuest(Protocol):
    """A connection that blocks, for other threads than the loop's."""

    driver: Any

    def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        """Run a statement and return its rows."""


async def run_async(guest: Guest, steps: Generator[tuple[str, tuple[str, ...]], list[Row], T]) -> T:
    """Run statements, and return what comes of them."""
    try:
        query, params = next(steps)
        while True:
            query, params = steps.send(await guest.fetch(query, params))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def run_sync(guest: SyncGuest, steps: Generator[tuple[str, tuple[str, ...]], list[Row], T]) -> T:
    """Do the same on a connection that blocks."""
    try:
        query, params = next(steps)
        while True:
            query, params = steps.send(guest.fetch(query, params))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def guest_of(given: Any) -> Guest:
    """Return a connection to be awaited as one that jobs can be enqueued on.

    Raises:
        InvalidOption: It is none, is one that blocks, or is in no transaction.
    """
    if _is_a(given, "psycopg", "AsyncConnection"):
        return _Psycopg(given)
    if _is_a(given, "asyncpg", "Connection") or _is_a(given, "asyncpg.pool", "PoolConnectionProxy"):
        return _Asyncpg(given)
    if _is_a(given, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        given = await given.connection()
    if _is_a(given, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        raw = await given.get_raw_connection()
        return _SQLAlchemy(given, raw)
    if _is_sync(given):
        raise InvalidOption("connection", KINDS, given, remedy="one that blocks goes with enqueue_sync, in a thread")
    raise _refusal(given, KINDS)


def sync_guest_of(given: Any) -> SyncGuest:
    """Return a connection that blocks as one that jobs can be enqueued on.

    Raises:
        InvalidOption: It is none, is one to be awaited, or is in no transaction.
    """
    if _is_a(given, "psycopg", "Connection"):
        return _SyncPsycopg(given)
    if _is_a(given, "sqlalchemy.orm", "Session", "scoped_session"):
        given = given.connection()
    if _is_a(given, "sqlalchemy", "Connection"):
        return _SyncSQLAlchemy(given)
    raise _refusal(given, "psycopg.Connection, sqlalchemy.Connection or Session, for enqueue_sync")


def _is_a(given: Any, module: str, *names: str) -> bool:
    """Return whether something is of a class of a module, which need not be there."""
    found = sys.modules.get(module)
    kinds = [getattr(found, name, None) for name in names]
    return isinstance(given, tuple(kind for kind in kinds if kind is not None))


def _is_sync(given: Any) -> bool:
    return (
        _is_a(given, "psycopg", "Connection")
        or _is_a(given, "sqlalchemy", "Connection")
        or _is_a(given, "sqlalchemy.orm", "Session", "scoped_session")
    )


def _refusal(given: Any, kinds: str) -> InvalidOption:
    if "Pool" in type(given).__name__:
        remedy = "take a connection out of the pool, begin a transaction, and give that connection"
    else:
        remedy = "the one on which your transaction runs"
    return InvalidOption("connection", kinds, given, remedy=remedy)


def _expect_transaction(is_in: bool, given: Any, remedy: str) -> None:
    if not is_in:
        raise InvalidOption("connection", "in a transaction", given, remedy=remedy)


# -- psycopg --------------------------------------------------------------------------------------------------------

_PSYCOPG_REMEDY = "enqueue inside of `async with connection.transaction():`, or connect without autocommit"


def _has_begun(connection: Any) -> bool:
    """Return whether a connection of psycopg is in a transaction, or begins one with the next statement."""
    from psycopg.pq import TransactionStatus

    return not connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE


class _Psycopg:
    def __init__(self, connection: Any) -> None:
        _expect_transaction(_has_begun(connection), connection, _PSYCOPG_REMEDY)
        self.driver = connection

    async def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        import psycopg
        from psycopg.rows import tuple_row

        # Not `connection.execute`: its cursors may be of another kind, and give rows of another kind.
        cursor = psycopg.AsyncCursor(self.driver, row_factory=tuple_row)
        await cursor.execute(query.replace("?", "%s"), params)
        return await cursor.fetchall()


class _SyncPsycopg:
    def __init__(self, connection: Any) -> None:
        _expect_transaction(_has_begun(connection), connection, _PSYCOPG_REMEDY.replace("async ", ""))
        self.driver = connection

    def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        import psycopg
        from psycopg.rows import tuple_row

        cursor = psycopg.Cursor(self.driver, row_factory=tuple_row)
        cursor.execute(query.replace("?", "%s"), params)
        return cursor.fetchall()


# -- asyncpg --------------------------------------------------------------------------------------------------------


class _Asyncpg:
    def __init__(self, connection: Any) -> None:
        remedy = "enqueue inside of `async with connection.transaction():`"
        _expect_transaction(connection.is_in_transaction(), connection, remedy)
        self.driver = connection

    async def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        return [tuple(row) for row in await self.driver.fetch(_numbered(query), *params)]


def _numbered(query: str) -> str:
    """Return a statement with its parameters marked `$1`, `$2` and so on."""
    first, *rest = query.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


# -- SQLAlchemy -----------------------------------------------------------------------------------------------------


def _mark_of(connection: Any) -> str:
    """Return how the driver below SQLAlchemy marks parameters."""
    dialect = connection.dialect
    mark = _MARKS.get(dialect.paramstyle)
    if dialect.name != "postgresql" or mark is None:
        raise InvalidOption(
            "connection",
            "one to PostgreSQL, by postgresql+psycopg or postgresql+asyncpg",
            f"{dialect.name}+{dialect.driver}",
        )
    return mark


def _expect_begun(given: Any, raw: Any) -> None:
    is_in = not getattr(raw.dbapi_connection, "autocommit", False)
    _expect_transaction(is_in, given, 'its isolation_level is "AUTOCOMMIT": leave that out for what belongs together')


def _written(query: str, mark: str) -> str:
    return _numbered(query) if mark == "$" else query.replace("?", mark)


class _SQLAlchemy:
    def __init__(self, connection: Any, raw: Any) -> None:
        self._mark = _mark_of(connection)
        _expect_begun(connection, raw)
        self._connection = connection
        self.driver = raw.driver_connection

    async def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        result = await self._connection.exec_driver_sql(_written(query, self._mark), params)
        return [tuple(row) for row in result.all()]


class _SyncSQLAlchemy:
    def __init__(self, connection: Any) -> None:
        self._mark = _mark_of(connection)
        _expect_begun(connection, connection.connection)
        self._connection = connection
        self.driver = connection.connection.driver_connection

    def fetch(self, query: str, params: tuple[str, ...]) -> list[Row]:
        result = self._connection.exec_driver_sql(_written(query, self._mark), params)
        return [tuple(row) for row in result.all()]
