"""What a move of a store may suffer: nothing runs in both, and nothing is stranded."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tickwork.clock import SystemClock
from tickwork.conformance import declare, ending, ids, new_job
from tickwork.errors import StoreUnavailable
from tickwork.jobs import JobState, Outcome
from tickwork.stores import sql_moving, sqlite_moving, upkeep
from tickwork.stores.batches import BatchPart
from tickwork.stores.sqlite import SQLiteStore

CLOCK = SystemClock()


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[SQLiteStore]]:
    found = [SQLiteStore(tmp_path / name, CLOCK, worker=name, keeps_house=False) for name in ("a.db", "b.db")]
    for store in found:
        await store.open()
    yield found
    for store in found:
        await store.close()


async def test_a_move_that_is_cut_off_leaves_the_old_store_closed_and_can_be_done_again(
    stores: list[SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = stores
    await old.enqueue(jobs := [new_job(CLOCK) for _ in range(10)])
    monkeypatch.setattr(sql_moving, "CHUNK", 4)
    real, calls = sqlite_moving.take_in, list[Any]()

    def full_at_the_second(db: sqlite3.Connection, moved: sql_moving.Part) -> Any:
        calls.extend([moved] if moved.table == "jobs" else [])
        if moved.table == "jobs" and len(calls) == 2:
            raise StoreUnavailable("b.db", "the disk is full")
        return real(db, moved)

    monkeypatch.setattr(sqlite_moving, "take_in", full_at_the_second)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await upkeep.move(old, new)

    assert len(await new.jobs()) == 4
    with pytest.raises(StoreUnavailable, match=r"its jobs were moved to sqlite:///.*b\.db; let the app open that"):
        await old.claim(worker="a.db", tasks={"t"}, limit=10)
    moved = await upkeep.move(old, new)
    assert (moved.rows["jobs"], moved.left) == (6, [])
    assert ids(await new.claim(worker="b.db", tasks={"t"}, limit=99)) == [job.id for job in jobs]


async def test_nothing_is_moved_into_a_store_that_was_moved_away(stores: list[SQLiteStore]) -> None:
    old, new = stores
    await old.enqueue([new_job(CLOCK)])
    await upkeep.move(old, new)
    with pytest.raises(StoreUnavailable, match=r"its own jobs were moved to .*b\.db; name that, or a new store"):
        await upkeep.move(new, old)

    assert len(await new.claim(worker="b.db", tasks={"t"}, limit=9)) == 1


async def test_nothing_is_changed_in_a_store_that_was_moved_away(stores: list[SQLiteStore]) -> None:
    old, new = stores
    await old.enqueue([job := new_job(CLOCK)])
    await upkeep.move(old, new)

    for change in (
        old.cancel([job.id]),
        old.retry([job.id]),
        old.delete([job.id]),
        old.set_queue("default", paused=True),
        old.set_schedule([declare()]),
        old.enqueue([new_job(CLOCK)]),
    ):
        with pytest.raises(StoreUnavailable, match="its jobs were moved to"):
            await change
    assert ids(await new.claim(worker="b.db", tasks={"t"}, limit=9)) == [job.id]


async def test_rows_that_go_while_a_table_is_read_hide_no_others(
    stores: list[SQLiteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = stores
    monkeypatch.setattr(sql_moving, "CHUNK", 2)
    await old.enqueue([new_job(CLOCK) for _ in range(6)])
    claimed = await old.claim(worker="a.db", tasks={"t"}, limit=9)
    await old.finish([ending(record, state=JobState.FAILED, error="{}", outcome=Outcome.FAILED) for record in claimed])
    names = sorted(record.id for record in claimed)

    seen: list[str] = []
    after: tuple[Any, ...] | None = None
    while True:
        part = await old.run(partial(sqlite_moving.part, table="attempts", after=after))
        seen += part.column("job_id")
        await old.delete(seen[:1])
        after = part.last
        if after is None:
            break
    assert seen == names


async def test_a_batch_is_moved_with_its_jobs_and_goes_on_there(stores: list[SQLiteStore]) -> None:
    old, new = stores
    part = BatchPart(batch="b", task="t", first=0, digest="of 5", is_last=False, feed_seconds=60)
    await old.feed_batch(part, [new_job(CLOCK, batch="b", batch_index=index) for index in range(5)])
    first, second = await old.claim(worker="a.db", tasks={"t"}, limit=2)
    await old.finish([ending(second, JobState.FAILED, outcome=Outcome.FAILED), ending(first, result="1")])
    before = await old.batch("b")

    moved = await upkeep.move(old, new)

    assert (moved.rows["batches"], moved.rows["jobs"]) == (1, 5)
    assert await new.batch("b") == before
    assert [(end, job.batch_index) for end, job in await new.batch_ends("b")] == [(1, 1), (2, 0)]
    assert await upkeep.check(new, CLOCK.now()) == []
    last = BatchPart(batch="b", task="t", first=5, digest="of 6", is_last=True, feed_seconds=60)
    await new.feed_batch(last, [new_job(CLOCK, batch="b", batch_index=5)])
    rest = await new.claim(worker="b.db", tasks={"t"}, limit=99)
    await new.finish([ending(record) for record in rest])
    row = await new.batch("b")
    assert (row.is_over, row.size, row.ends, row.counts[JobState.SUCCEEDED]) == (True, 6, 6, 5)
    with pytest.raises(StoreUnavailable, match="its jobs were moved to"):
        await old.cancel_batch("b")
    with pytest.raises(StoreUnavailable, match="its jobs were moved to"):
        await old.feed_batch(last, [])


async def test_a_batch_that_is_miscounted_is_found_and_mended(stores: list[SQLiteStore]) -> None:
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
