"""Many rows in one statement: as many as there are, and what goes wrong with one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tickwork.clock import SystemClock
from tickwork.conformance import ending, ids, new_job
from tickwork.errors import DuplicateJob
from tickwork.jobs import JobState, Outcome
from tickwork.stores.sqlite import SQLiteStore
from tickwork.stores.sqlite_bulk import MOST, in_bulk, parts

CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "jobs.db", CLOCK, worker="w", keeps_house=False)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("count", [1, 2, 3, MOST - 1, MOST, MOST + 1, 3 * MOST + 5])
def test_as_many_rows_are_written_as_there_are_and_in_their_order(count: int) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, a, b)")

    found = []
    for part in parts([(number, None) for number in range(count)]):
        found += in_bulk(db, "INSERT INTO t (a, b) SELECT * FROM {rows} WHERE column1 IS NOT NULL RETURNING a", part)

    assert sorted(found) == [(number,) for number in range(count)]
    assert db.execute("SELECT n, a, b FROM t ORDER BY n").fetchall() == [
        (number + 1, number, None) for number in range(count)
    ]
    db.close()


async def test_as_many_jobs_come_and_end_as_there_are(store: SQLiteStore) -> None:
    jobs = [new_job(CLOCK, payload=f'{{"n":{number}}}') for number in range(2 * MOST + 3)]
    await store.enqueue(jobs)
    claimed = await store.claim(worker="w", tasks={"t"}, limit=1_000)
    assert [(record.id, record.payload) for record in claimed] == [(job.id, job.payload) for job in jobs]

    assert await store.finish([ending(record, result=record.payload) for record in claimed]) == [True] * len(jobs)
    assert {record.id: record.result for record in await store.jobs(limit=1_000)} == {
        job.id: job.payload for job in jobs
    }
    assert (await store.counts())[JobState.SUCCEEDED] == len(jobs)


@pytest.mark.parametrize("place", [0, MOST - 1, MOST, MOST + 7])
async def test_the_job_whose_id_is_known_is_named_among_many(store: SQLiteStore, place: int) -> None:
    jobs = [new_job(CLOCK) for _ in range(MOST + 8)]
    await store.enqueue([known := new_job(CLOCK)])

    with pytest.raises(DuplicateJob, match=known.id):
        await store.enqueue([*jobs[:place], new_job(CLOCK, id=known.id), *jobs[place:]])
    with pytest.raises(DuplicateJob, match=jobs[place].id):
        await store.enqueue([*jobs, jobs[place]])

    assert ids(await store.jobs(limit=1_000)) == [known.id]


async def test_a_job_ends_once_in_one_call_and_only_for_its_owner(store: SQLiteStore) -> None:
    await store.enqueue([new_job(CLOCK) for _ in range(3)])
    first, second, third = await store.claim(worker="w", tasks={"t"}, limit=3)
    failed: dict[str, Any] = {"state": JobState.FAILED, "outcome": Outcome.FAILED}
    ends = [
        ending(first, result="1"),
        ending(first, result="2"),
        ending(second, **failed),
        ending(second, result="3"),
        ending(third, result="4", attempt=3),
    ]
    late = ending(third, result="5")
    late.lease = late.lease._replace(token=third.token + 1)  # type: ignore[misc]

    assert await store.finish([*ends[:2], late, *ends[2:]]) == [True, False, False, True, False, True]
    assert [(record.state, record.result, record.attempt) for record in reversed(await store.jobs())] == [
        (JobState.SUCCEEDED, "1", 1),
        (JobState.FAILED, None, 1),
        (JobState.SUCCEEDED, "4", 3),
    ]
