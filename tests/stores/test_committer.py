from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tickwork.errors import NotRunning, StoreMoved, StoreUnavailable
from tickwork.stores.committer import MAX_BATCH, Committer


class Database:
    """A database in memory behind a committer, whose thread can be held up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()
        self.looked = threading.Event()
        self.commits: list[int] = []
        self.failure: Exception | None = None
        self.committer = Committer(
            connect=self.connect,
            transaction=self.transact,
            idle=self.look,
            disconnect=lambda connection: connection.close(),
            name="tickwork-test",
        )

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute("CREATE TABLE t (n INTEGER)")
        return connection

    def transact(self, connection: sqlite3.Connection, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        if self.failure is not None:
            self.commits.append(-1)
            raise self.failure
        connection.execute("BEGIN")
        try:
            values = [work(connection) for work in works]
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self.commits.append(sum(len(answers) for answers in values))
        return values

    def look(self, connection: sqlite3.Connection) -> float:
        assert not connection.in_transaction
        self.looked.set()
        return 60.0

    def hold(self, connection: sqlite3.Connection) -> None:
        """Keep the thread inside a transaction until the gate opens."""
        self.is_held.set()
        assert self.gate.wait(60)

    async def held(self) -> asyncio.Task[None]:
        """Begin a transaction that stays open until the gate is opened."""
        self.gate.clear()
        holding = asyncio.create_task(self.committer.run(self.hold))
        await asyncio.to_thread(self.is_held.wait, 60)
        return holding

    async def numbers(self) -> list[int]:
        rows = await self.committer.run(lambda db: db.execute("SELECT n FROM t ORDER BY rowid").fetchall())
        return [number for (number,) in rows]


def insert(number: int) -> Callable[[sqlite3.Connection], int]:
    def work(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO t VALUES (?)", (number,))
        return number

    return work


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    database = Database()
    await database.committer.open()
    await asyncio.to_thread(database.looked.wait, 60)  # the first look is over
    yield database
    database.gate.set()
    await database.committer.aclose()


async def test_what_waits_at_the_same_moment_shares_one_commit(database: Database) -> None:
    holding = await database.held()
    waiting = [asyncio.create_task(database.committer.run(insert(number))) for number in range(64)]
    await asyncio.sleep(0)
    database.gate.set()

    assert await asyncio.gather(*waiting) == list(range(64))
    await holding
    assert database.commits == [1, 64]
    assert await database.numbers() == list(range(64))


async def test_a_batch_is_bounded(database: Database) -> None:
    await database.held()
    waiting = [asyncio.create_task(database.committer.run(insert(number))) for number in range(MAX_BATCH + 1)]
    await asyncio.sleep(0)
    database.gate.set()
    await asyncio.gather(*waiting)

    assert database.commits == [1, MAX_BATCH, 1]


async def test_the_urgent_goes_first(database: Database) -> None:
    await database.held()
    waiting = [asyncio.create_task(database.committer.run(insert(number), urgent=number == 2)) for number in range(3)]
    await asyncio.sleep(0)
    database.gate.set()
    await asyncio.gather(*waiting)

    assert await database.numbers() == [2, 0, 1]


async def test_a_function_that_raises_spoils_no_other_in_its_batch(database: Database) -> None:
    def fail(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (666)")
        raise KeyError("mine")

    await database.held()
    works: list[Callable[[sqlite3.Connection], Any]] = [insert(1), fail, insert(2)]
    waiting = [asyncio.create_task(database.committer.run(work)) for work in works]
    await asyncio.sleep(0)
    database.gate.set()

    one, error, two = await asyncio.gather(*waiting, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert isinstance(error, KeyError)
    assert await database.numbers() == [1, 2]
    assert database.commits == [1, 1, 1, 1]


async def test_a_database_that_fails_is_asked_once_for_all_who_wait(database: Database) -> None:
    await database.held()
    waiting = [asyncio.create_task(database.committer.run(insert(number))) for number in range(5)]
    await asyncio.sleep(0)
    database.failure = StoreUnavailable("x.db", "it is full")
    database.gate.set()

    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["store x.db: it is full"] * 5
    assert database.commits == [1, -1]
    database.failure = None
    assert await database.numbers() == []


async def test_what_may_not_begin_in_a_store_that_was_moved_fails_without_its_neighbours(database: Database) -> None:
    def refused(db: sqlite3.Connection) -> None:
        raise StoreMoved("x.db", "y.db")

    await database.held()
    waiting = [asyncio.create_task(database.committer.run(work)) for work in (insert(1), refused, insert(2))]
    await asyncio.sleep(0)
    database.gate.set()

    one, error, two = await asyncio.gather(*waiting, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert str(error) == "store x.db: its jobs were moved to y.db; let the app open that"
    assert await database.numbers() == [1, 2]


async def test_what_is_cancelled_while_it_waits_never_runs(database: Database) -> None:
    holding = await database.held()
    undone: list[int] = []

    async def undo(value: int) -> None:
        undone.append(value)

    waiting = asyncio.create_task(database.committer.run(insert(1), undo=undo))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    database.gate.set()
    await holding

    assert await database.numbers() == []
    assert undone == []


async def test_what_is_cancelled_under_way_is_done_wholly_and_undone(database: Database) -> None:
    undone: list[str] = []

    def work(db: sqlite3.Connection) -> str:
        database.hold(db)
        return "done"

    async def undo(value: str) -> None:
        await asyncio.sleep(0)
        undone.append(value)

    database.gate.clear()
    running = asyncio.create_task(database.committer.run(work, undo=undo))
    await asyncio.to_thread(database.is_held.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    database.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert undone == ["done"]
    assert await database.numbers() == []


@pytest.mark.blocks("the answer must come between the cancellation and the next turn")
@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_cancelled_when_its_answer_is_on_the_way_is_undone(database: Database, fails: bool) -> None:
    undone: list[int] = []

    async def undo(value: int) -> None:
        undone.append(value)

    def fail(db: sqlite3.Connection) -> int:
        raise KeyError("mine")

    database.looked.clear()
    running = asyncio.create_task(database.committer.run(fail if fails else insert(1), undo=undo))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert database.looked.wait(10)  # without a turn of the loop: the answer is in its queue
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=30)

    assert done
    assert running.cancelled()
    assert undone == ([] if fails else [1])


async def test_an_undo_that_fails_is_told_and_the_cancellation_goes_on(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def undo(value: None) -> None:
        raise OSError("no way back")

    database.gate.clear()
    running = asyncio.create_task(database.committer.run(database.hold, undo=undo))
    await asyncio.to_thread(database.is_held.wait, 10)
    running.cancel()
    await asyncio.sleep(0)
    database.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "a call to the store was cancelled, and what it had done could not be undone")
    ]


async def test_closing_does_what_waits_and_takes_nothing_more(database: Database) -> None:
    holding = await database.held()
    waiting = asyncio.create_task(database.committer.run(insert(1)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.committer.aclose())
    await asyncio.sleep(0)
    with pytest.raises(NotRunning, match="^the store is closed$"):
        await database.committer.run(insert(2))
    database.gate.set()
    await asyncio.gather(holding, waiting, closing)

    assert not database.committer.is_open
    with pytest.raises(NotRunning, match="^the store is closed$"):
        await database.committer.run(insert(3))
    await database.committer.aclose()


async def test_a_connection_that_cannot_be_made_is_told() -> None:
    database = Database()
    database.connect = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    committer = Committer(
        connect=database.connect,
        transaction=database.transact,
        idle=database.look,
        disconnect=lambda connection: None,
        name="tickwork-test",
    )
    with pytest.raises(ZeroDivisionError):
        await committer.open()

    with pytest.raises(NotRunning, match="^the store is closed$"):
        await committer.run(insert(1))
    await committer.aclose()


async def test_a_thread_that_dies_tells_whoever_waits(caplog: pytest.LogCaptureFixture) -> None:
    database = Database()
    committer = database.committer

    class Death(BaseException):
        pass

    def look(connection: sqlite3.Connection) -> float:
        database.is_held.set()
        assert database.gate.wait(60)
        raise Death

    committer._idle = look
    database.gate.clear()
    await committer.open()
    waiting = asyncio.create_task(committer.run(insert(1)))
    await asyncio.sleep(0)
    await asyncio.to_thread(database.is_held.wait, 60)  # the request is taken, or waits behind what kills the thread
    late = asyncio.create_task(committer.run(insert(2)))
    await asyncio.sleep(0)
    database.gate.set()
    _, told = await asyncio.wait_for(asyncio.gather(waiting, late, return_exceptions=True), 30)

    assert str(told) == "the store is closed"
    assert "the thread of the store died" in caplog.text
    await committer.aclose()


async def test_when_the_database_fails_while_requests_are_tried_one_by_one_the_others_fail_at_once(
    database: Database,
) -> None:
    def refuse(db: sqlite3.Connection) -> None:
        raise ValueError("no")

    def fail(db: sqlite3.Connection) -> None:
        raise StoreUnavailable("x.db", "it is full")

    await database.held()
    works: list[Callable[[sqlite3.Connection], object]] = [insert(1), refuse, fail, insert(2), insert(3)]
    waiting = [asyncio.create_task(database.committer.run(work)) for work in works]
    await asyncio.sleep(0)
    database.gate.set()
    told = await asyncio.gather(*waiting, return_exceptions=True)

    assert told[0] == 1
    assert [str(error) for error in told[1:]] == ["no", *["store x.db: it is full"] * 3]
    assert await database.numbers() == [1]
