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
from tickwork.stores.sqlite_bulk import MANY, MOST, in_bulk, parts

CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "jobs.db", CLOCK, worker="w", keeps_house=False)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("last", [None, "b"])
@pytest.mark.parametrize("count", [1, 2, 3, MANY - 1, MANY, MOST - 1, MOST, MOST + 1, 3 * MOST + 5])
def test_as_many_rows_are_written_as_there_are_and_in_their_order(count: int, last: str | None) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, a, b, c, d, given)")
    rows = [(f"{number}", None, number % 3, True, None if number else last) for number in range(count)]

    found = []
    for part in parts(rows):
        found += in_bulk(
            db,
            "WITH g AS (SELECT ? AS given) INSERT INTO t (a, b, c, d, given) "
            "SELECT column1, column2, column3, column5, given + column4 FROM {rows} JOIN g WHERE column1 <> '' "
            "RETURNING a",
            part,
            7,
        )

    assert sorted(found) == sorted((row[0],) for row in rows)
    assert db.execute("SELECT n, a, b, c, d, given FROM t ORDER BY n").fetchall() == [
        (number, a, b, c, d, 7 + one) for number, (a, b, c, one, d) in enumerate(rows, 1)
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
