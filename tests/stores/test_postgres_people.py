"""Several people at one schema of PostgreSQL at the same moment, and what `check` finds in one that is damaged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from tickwork.clock import SystemClock
from tickwork.conformance import ending, new_job
from tickwork.jobs import JobState, Outcome
from tickwork.stores import upkeep
from tickwork.stores.batches import BatchPart
from tickwork.stores.postgres import PostgresStore
from tickwork.stores.postgres_target import Target

CLOCK = SystemClock()
FAILED: dict[str, Any] = {"state": JobState.FAILED, "error": "{}", "outcome": Outcome.FAILED}


@pytest.fixture
async def people(target: Target) -> AsyncIterator[list[PostgresStore]]:
    """Two stores on one schema, the first one with a worker."""
    found = [PostgresStore(target, CLOCK, worker=name, keeps_house=False) for name in ("w", None)]
    for store in found:
        await store.open()
    yield found
    for store in found:
        await store.close()


async def failed_jobs(store: PostgresStore, number: int) -> list[str]:
    await store.enqueue([new_job(CLOCK, key=f"k{place}") for place in range(number)])
    claimed = await store.claim(worker="w", tasks={"t"}, limit=number)
    assert await store.finish([ending(job, **FAILED) for job in claimed]) == [True] * number
    return [job.id for job in claimed]


async def test_of_two_people_who_retry_a_job_one_does(people: list[PostgresStore]) -> None:
    one, two = people
    for job_id in await failed_jobs(one, 20):
        answers = await asyncio.gather(one.retry([job_id]), two.retry([job_id]))
        assert sorted(record is None for (record,) in answers) == [False, True]

    counts = await one.counts()
    assert {state: count for state, count in counts.items() if count} == {JobState.QUEUED: 20}
    assert await upkeep.check(one, one.now()) == []


async def test_a_job_that_one_retries_and_another_cancels_is_one_or_the_other(people: list[PostgresStore]) -> None:
    one, two = people
    for job_id in await failed_jobs(one, 20):
        (retried,), (cancelled,) = await asyncio.gather(one.retry([job_id]), two.cancel([job_id]))
        assert retried is not None
        now = (await one.job(job_id)).state
        assert now is (JobState.QUEUED if cancelled is None else JobState.CANCELLED)

    assert await upkeep.check(one, one.now()) == []


async def test_a_job_that_is_retried_cancelled_and_deleted_at_once_is_counted_once(people: list[PostgresStore]) -> None:
    one, two = people
    for job_id in await failed_jobs(one, 20):
        await asyncio.gather(
            *(verb([job_id]) for store in (one, two) for verb in (store.retry, store.cancel, store.delete)),
            one.claim(worker="w", tasks={"t"}, limit=1),
        )

    assert len(await two.jobs()) == sum((await two.counts()).values())
    assert await upkeep.check(one, one.now()) == []


async def test_check_finds_what_should_not_be_and_repairs_what_needs_no_person(
    people: list[PostgresStore], target: Target
) -> None:
    store, _ = people
    await store.enqueue([first := new_job(CLOCK), new_job(CLOCK), new_job(CLOCK)])
    (taken,) = await store.claim(worker="w", tasks={"t"}, limit=1)
    part = BatchPart(batch="b", task="t", first=0, digest="", is_last=True, feed_seconds=60)
    await store.feed_batch(part, [new_job(CLOCK, batch="b", batch_index=index) for index in range(3)])
    assert await upkeep.check(store, store.now()) == []
    assert first.id == taken.id
    waiting = (await store.jobs(state=JobState.QUEUED))[-1].id

    def damage(db: Any) -> None:
        db.execute("UPDATE jobs SET lease_expires_at = 1 WHERE id = ?", (taken.id,))
        db.execute("INSERT INTO behind VALUES (?, 'gone')", (waiting,))
        db.execute("UPDATE jobs SET held = 1 WHERE id = ?", (waiting,))
        db.execute("INSERT INTO attempts (job_id, place, number, ended_at, outcome) VALUES ('gone', 1, 1, 0, 'failed')")
        db.execute("UPDATE batches SET failed = 2")
        db.execute("INSERT INTO shards (name, touched_at, queued, parked) VALUES ('wrong', 0, -1, 4)")

    await store.run(damage)
    found = await upkeep.check(store, store.now())
    assert [(finding.rule, finding.text) for finding in found] == [
        ("stuck lease", f"job {taken.id} (t) is running in worker w, whose lease is over"),
        ("orphaned", "1 waiting rows for jobs that have ended"),
        ("orphaned", "1 rows of attempts of jobs that are gone"),
        ("miscounted", "4 jobs are said to be queued, and 5 are"),
        ("miscounted", "4 jobs are said to be parked, and 0 are"),
        ("miscounted", "2 jobs of batch b are said to be failed, and 0 are"),
    ]
    assert await upkeep.check(store, store.now(), repair=True) == found[:1]
    assert (await store.counts())[JobState.QUEUED] == 5
    assert (await store.batch("b")).counts[JobState.FAILED] == 0
    assert {job.id for job in await store.claim(worker="w", tasks={"t"}, limit=9)} >= {waiting}


async def test_check_finds_indexes_that_are_missing_or_invalid(people: list[PostgresStore], target: Target) -> None:
    store, _ = people
    await store.enqueue([new_job(CLOCK), new_job(CLOCK)])
    async with await psycopg.AsyncConnection.connect(target.url, autocommit=True) as connection:
        await connection.execute(f"SET search_path = {target.schema}")
        await connection.execute("DROP INDEX jobs_later")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY twice ON jobs (task)")
        found = await upkeep.check(store, store.now())
        assert [finding.text for finding in found] == [
            "index twice is invalid, and the server does not use it",
            "index jobs_later is missing",
        ]
        assert [finding.remedy.partition(": ")[2] for finding in found] == [
            f'REINDEX INDEX CONCURRENTLY "{target.schema}"."twice"',
            f"CREATE INDEX CONCURRENTLY jobs_later ON \"{target.schema}\".jobs (run_at) WHERE state = 'scheduled'",
        ]
        await connection.execute("DROP INDEX twice")
        await connection.execute(found[1].remedy.partition(": ")[2].encode())
    assert await upkeep.check(store, store.now()) == []
