"""What a move of a store may suffer: nothing runs in both, and nothing is stranded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tickwork.clock import SystemClock
from tickwork.conformance import declare, ending, firing, ids, new_job
from tickwork.errors import StoreMoved, StoreUnavailable
from tickwork.jobs import JobState, Outcome
from tickwork.limits import Limit, Limits, Rate
from tickwork.stores import sql_moving, upkeep
from tickwork.stores.batches import BatchPart
from tickwork.stores.durable import DurableStore
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target, target_of
from tickwork.stores.sqlite import SQLiteStore

CLOCK = SystemClock()


@pytest.fixture
def targets(schema: str) -> Iterator[list[Target]]:
    """Two schemas, which go with the test."""
    found = [target_of(f"{schema}_{name}") for name in ("one", "two")]
    yield found
    with psycopg.connect(found[0].url, autocommit=True) as connection:
        for target in found:
            connection.execute(f"DROP SCHEMA IF EXISTS {target.schema} CASCADE")


@pytest.fixture(params=["file to file", "file to schema", "schema to file", "schema to schema"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[DurableStore]]:
    """Two stores, each with a worker; the second one is where the jobs go."""
    kinds = request.param.split(" to ")
    targets = request.getfixturevalue("targets") if "schema" in kinds else [None, None]
    found: list[DurableStore] = [
        SQLiteStore(tmp_path / f"{name}.db", CLOCK, worker=name, keeps_house=False)
        if kind == "file"
        else PostgresStore(target, CLOCK, worker=name, keeps_house=False)
        for name, kind, target in zip(("one", "two"), kinds, targets, strict=True)
    ]
    for store in found:
        await store.open()
    yield found
    for store in found:
        await store.close()


async def test_a_move_that_is_cut_off_leaves_the_old_store_closed_and_can_be_done_again(
    stores: list[DurableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = stores
    await old.enqueue(jobs := [new_job(CLOCK) for _ in range(10)])
    monkeypatch.setattr(sql_moving, "CHUNK", 4)
    real, calls = new.sql.moving.take_in, list[Any]()

    def full_at_the_second(db: Any, moved: sql_moving.Part) -> Any:
        calls.extend([moved] if moved.table == "jobs" else [])
        if moved.table == "jobs" and len(calls) == 2:
            raise StoreUnavailable("two", "the disk is full")
        return real(db, moved)

    monkeypatch.setattr(new.sql.moving, "take_in", full_at_the_second)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await upkeep.move(old, new)

    assert len(await new.jobs()) == 4
    with pytest.raises(StoreUnavailable, match=re.escape(f"its jobs were moved to {new.address}; let the app")):
        await old.claim(worker="one", tasks={"t"}, limit=10)
    moved = await upkeep.move(old, new)
    assert (moved.rows["jobs"], moved.left) == (6, [])
    assert ids(await new.claim(worker="two", tasks={"t"}, limit=99)) == [job.id for job in jobs]


async def test_nothing_is_moved_into_a_store_that_was_moved_away(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.enqueue([new_job(CLOCK)])
    await upkeep.move(old, new)
    with pytest.raises(StoreUnavailable, match=re.escape(f"own jobs were moved to {new.address}; name that, or a")):
        await upkeep.move(new, old)

    assert len(await new.claim(worker="two", tasks={"t"}, limit=9)) == 1


async def test_nothing_is_changed_in_a_store_that_was_moved_away(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.enqueue([job := new_job(CLOCK)])
    await upkeep.move(old, new)

    for change in (
        lambda: old.cancel([job.id]),
        lambda: old.retry([job.id]),
        lambda: old.delete([job.id]),
        lambda: old.set_queue("default", paused=True),
        lambda: old.set_schedule([declare()]),
        lambda: old.enqueue([new_job(CLOCK)]),
    ):
        with pytest.raises(StoreMoved) as raised:
            await change()
        assert (raised.value.where, raised.value.target) == (old.where, new.address)
    assert ids(await new.claim(worker="two", tasks={"t"}, limit=9)) == [job.id]


async def test_rows_that_go_while_a_table_is_read_hide_no_others(
    stores: list[DurableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = stores
    monkeypatch.setattr(sql_moving, "CHUNK", 2)
    await old.enqueue([new_job(CLOCK) for _ in range(6)])
    claimed = await old.claim(worker="one", tasks={"t"}, limit=9)
    await old.finish([ending(record, state=JobState.FAILED, error="{}", outcome=Outcome.FAILED) for record in claimed])
    names = sorted(record.id for record in claimed)

    seen: list[str] = []
    after: tuple[Any, ...] | None = None
    while True:
        part = await old.run(partial(old.sql.moving.part, table="attempts", after=after))
        seen += part.column("job_id")
        await old.delete(seen[:1])
        after = part.last
        if after is None:
            break
    assert seen == names


async def test_a_batch_is_moved_with_its_jobs_and_goes_on_there(stores: list[DurableStore]) -> None:
    old, new = stores
    part = BatchPart(batch="b", task="t", first=0, digest="of 5", is_last=False, feed_seconds=60)
    await old.feed_batch(part, [new_job(CLOCK, batch="b", batch_index=index) for index in range(5)])
    first, second = await old.claim(worker="one", tasks={"t"}, limit=2)
    await old.finish([ending(second, JobState.FAILED, outcome=Outcome.FAILED), ending(first, result="1")])
    before = await old.batch("b")

    moved = await upkeep.move(old, new)

    assert (moved.rows["batches"], moved.rows["jobs"]) == (1, 5)
    assert await new.batch("b") == before
    assert [(end, job.batch_index) for end, job in await new.batch_ends("b")] == [(1, 1), (2, 0)]
    assert await upkeep.check(new, CLOCK.now()) == []
    last = BatchPart(batch="b", task="t", first=5, digest="of 6", is_last=True, feed_seconds=60)
    await new.feed_batch(last, [new_job(CLOCK, batch="b", batch_index=5)])
    rest = await new.claim(worker="two", tasks={"t"}, limit=99)
    await new.finish([ending(record) for record in rest])
    row = await new.batch("b")
    assert (row.is_over, row.size, row.ends, row.counts[JobState.SUCCEEDED]) == (True, 6, 6, 5)
    with pytest.raises(StoreUnavailable, match="its jobs were moved to"):
        await old.cancel_batch("b")
    with pytest.raises(StoreUnavailable, match="its jobs were moved to"):
        await old.feed_batch(last, [])


async def test_a_batch_that_is_miscounted_is_found_and_mended(stores: list[DurableStore]) -> None:
    store, _ = stores
    part = BatchPart(batch="b", task="t", first=0, digest="", is_last=True, feed_seconds=60)
    await store.feed_batch(part, [new_job(CLOCK, batch="b", batch_index=index) for index in range(3)])
    await store.run(lambda db: db.execute("UPDATE batches SET queued = 1, failed = 2"))

    found = await upkeep.check(store, CLOCK.now())
    assert [finding.text for finding in found] == [
        "1 jobs of batch b are said to be queued, and 3 are",
        "2 jobs of batch b are said to be failed, and 0 are",
    ]
    assert await upkeep.check(store, CLOCK.now(), repair=True) == []
    assert (await store.batch("b")).counts[JobState.QUEUED] == 3


async def test_a_move_takes_all_along_that_is_known_of_jobs(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.set_limits({"t": Limits(Limit(2), Rate(5, per=60))})
    await old.set_schedule([declare()])
    await old.fire([firing(CLOCK, 1)])
    gated = new_job(CLOCK, gates=("limit:a", "rate:a"), key="k", priority=-1)
    await old.enqueue(
        [new_job(CLOCK) for _ in range(6)] + [new_job(CLOCK, delay=3_600), gated, new_job(CLOCK, queue="q")]
    )
    first, second, third, *_ = await old.claim(worker="one", tasks={"t"}, limit=4)
    error = '{"text": "h\u00e9 \\u0000", "traceback": "line 1\\nline 2"}'
    await old.finish(
        [
            ending(first, result='"\u20ac"', started_at=CLOCK.now()),
            ending(second, JobState.FAILED, error=error, outcome=Outcome.FAILED, started_at=CLOCK.now()),
            ending(third, JobState.QUEUED, error=error, outcome=Outcome.FAILED, started_at=CLOCK.now()),
        ]
    )
    await old.set_queue("q", paused=True)
    await old.rescue()
    await old.run(lambda db: db.execute("UPDATE jobs SET lease_expires_at = 1 WHERE state = 'running'"))

    async def known(store: DurableStore) -> list[Any]:
        jobs = await store.jobs()
        return [
            jobs,
            [await store.attempts(job.id) for job in jobs],
            await store.schedules(),
            await store.ledger("s"),
            await store.paused_queues(),
            await store.counts(),
            await store.run(lambda db: db.execute("SELECT * FROM limits").fetchall()),
        ]

    moved = await upkeep.move(old, new)
    before, after = await known(old), await known(new)
    assert before == after
    assert moved.rows["attempts"] >= 2
    assert after[-1] != []
    assert await upkeep.check(new, CLOCK.now()) == []
    assert (await upkeep.move(old, new)).rows == dict.fromkeys(moved.rows, 0)
    assert gated.id in ids(await new.claim(worker="two", tasks={"t"}, limit=99))


async def test_what_runs_comes_to_its_end_while_a_move_waits_for_it(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.enqueue([new_job(CLOCK) for _ in range(3)])
    (running,) = await old.claim(worker="one", tasks={"t"}, limit=1)
    move = asyncio.ensure_future(upkeep.move(old, new))
    while await old.run(old.sql.moving.moved_to) is None:
        assert not move.done()
    with pytest.raises(StoreMoved):
        await old.claim(worker="one", tasks={"t"}, limit=1)
    assert await old.finish([ending(running, result="1")]) == [True]

    assert (await move).rows["jobs"] == 3
    assert (await new.job(running.id)).state is JobState.SUCCEEDED


async def test_a_move_to_elsewhere_is_refused_until_the_one_that_began_is_at_its_end(
    stores: list[DurableStore], tmp_path: Path
) -> None:
    old, new = stores
    await old.enqueue([new_job(CLOCK)])
    await upkeep.move(old, new)
    third = SQLiteStore(tmp_path / "three.db", CLOCK)
    await third.open()
    try:
        with pytest.raises(StoreUnavailable) as raised:
            await upkeep.move(old, third)
        with pytest.raises(StoreUnavailable, match="it cannot be moved into itself; name another store"):
            await upkeep.move(new, new)
    finally:
        await third.close()
    assert str(raised.value) == (
        f"store {old.where}: a move of its jobs to {new.address} has begun; name that, to bring it to its end"
    )


async def test_a_job_whose_key_another_has_there_is_left_with_its_attempts(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.enqueue([mine := new_job(CLOCK, key="k"), other := new_job(CLOCK)])
    await new.enqueue([theirs := new_job(CLOCK, key="k")])
    claimed = await old.claim(worker="one", tasks={"t"}, limit=9)
    await old.finish([ending(job, JobState.QUEUED, error="{}", outcome=Outcome.FAILED) for job in claimed])

    assert (await upkeep.move(old, new)).left == [mine.id]

    assert {job.id for job in await new.jobs()} == {other.id, theirs.id}
    assert (len(await new.attempts(other.id)), len(await new.attempts(mine.id))) == (1, 0)
    assert (await new.counts())[JobState.QUEUED] == 2
    assert await upkeep.check(new, CLOCK.now()) == []


async def test_a_move_that_cannot_wait_any_longer_opens_the_store_again(stores: list[DurableStore]) -> None:
    old, new = stores
    await old.enqueue([new_job(CLOCK), new_job(CLOCK)])
    await old.claim(worker="one", tasks={"t"}, limit=1)
    with pytest.raises(StoreUnavailable, match="1 jobs still run"):
        await upkeep.move(old, new, wait_seconds=0)

    assert len(await old.claim(worker="one", tasks={"t"}, limit=9)) == 1
    assert await new.jobs() == []


async def test_all_tables_and_columns_are_moved_but_those_that_need_not(stores: list[DurableStore]) -> None:
    def columns(db: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for table, column in db.execute(query).fetchall():
            found.setdefault(table, set()).add(column)
        return found

    for store in stores:
        query = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'"
        if isinstance(store, PostgresStore):
            query = f"""
                SELECT table_name::text, column_name::text FROM information_schema.columns
                WHERE table_schema = '{store.target.schema}'
                """
        there = await store.run(columns)
        assert there.pop("finished", there["jobs"]) <= there["jobs"]
        moved = {name: set(table.columns) for name, table in sql_moving.TABLES.items()}
        known = {
            name: found - sql_moving.NUMBERS for name, found in there.items() if name not in sql_moving.LEFT_BEHIND
        }
        assert {name: found - {"n"} for name, found in known.items()} == moved


async def test_a_schema_that_was_moved_refuses_transactions_of_users_too(targets: list[Target], tmp_path: Path) -> None:
    old, new = PostgresStore(targets[0], CLOCK), SQLiteStore(tmp_path / "two.db", CLOCK)
    await old.open()
    await new.open()
    async with await psycopg.AsyncConnection.connect(targets[0].url) as connection:
        await old.enqueue_within(connection, [job := new_job(CLOCK)])
        move = asyncio.ensure_future(upkeep.move(old, new))  # it waits for the transaction
        waits = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND NOT granted"
        while (await (await connection.execute(waits)).fetchone()) == (0,):
            assert not move.done()
        await connection.commit()
        assert (await move).rows["jobs"] == 1
        with pytest.raises(psycopg.Error, match=re.escape(f"its jobs were moved to {new.address}")) as raised:
            await old.enqueue_within(connection, [new_job(CLOCK)])
    assert [job.id] == ids(await new.jobs())
    await old.close()
    await new.close()

    assert raised.value.sqlstate == "TWMOV"
