"""Who waits at a SQLite store is served early: a worker with what is enqueued, a caller with what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tickwork import App
from tickwork.clock import SystemClock
from tickwork.conformance import HandClock, ending, ids, new_job
from tickwork.errors import StoreUnavailable, UnknownJob
from tickwork.jobs import JobState
from tickwork.stores import sqlite_verbs as verbs
from tickwork.stores.sqlite import SQLiteStore

CLOCK = SystemClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "jobs.db", CLOCK, worker="w", keeps_house=False)
    await store.open()
    yield store
    await store.close()


async def claim(store: SQLiteStore, *, tasks: Any = ("t",), limit: int = 10) -> list[Any]:
    return await store.claim(worker="w", tasks=tasks, limit=limit)


async def hungry(store: SQLiteStore, limit: int = 10) -> asyncio.Future[None]:
    """Find nothing, and wait."""
    assert await claim(store) == []
    waiting = asyncio.ensure_future(store.wait_claimable(limit))
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_a_job_is_claimed_for_who_waits_as_it_is_enqueued(store: SQLiteStore) -> None:
    waiting = await hungry(store)
    jobs = [new_job(CLOCK) for _ in range(3)]
    await store.enqueue(jobs)

    assert {record.state for record in await store.jobs()} == {JobState.RUNNING}
    await asyncio.wait_for(waiting, 30)
    claimed = await claim(store)
    assert ids(claimed) == [job.id for job in jobs]
    assert await store.finish([ending(record) for record in claimed]) == [True] * 3


async def test_no_more_is_claimed_than_who_waits_has_room_for(store: SQLiteStore) -> None:
    waiting = await hungry(store, limit=2)
    jobs = [new_job(CLOCK) for _ in range(3)]
    await store.enqueue(jobs)
    await asyncio.wait_for(waiting, 30)

    assert sorted(record.state for record in await store.jobs()) == ["queued", "running", "running"]
    assert ids(await claim(store, limit=1)) == [job.id for job in jobs[:1]]
    assert ids(await claim(store)) == [job.id for job in jobs[1:2]]
    assert ids(await claim(store)) == [job.id for job in jobs[2:]]


async def test_what_is_claimed_as_it_is_enqueued_is_as_the_file_has_it(store: SQLiteStore) -> None:
    waiting = await hungry(store)
    await store.enqueue([new_job(CLOCK, priority=number % 2) for number in range(4)])
    await asyncio.wait_for(waiting, 5)

    claimed = await claim(store)
    assert claimed == [await store.job(record.id) for record in claimed]
    assert [(record.priority, record.token, record.worker) for record in claimed] == [
        (1, 1, "w"),
        (1, 1, "w"),
        (0, 1, "w"),
        (0, 1, "w"),
    ]
    assert (await store.counts())[JobState.RUNNING] == 4


@pytest.mark.parametrize("way", ["queued", "due", "paused", "gated"])
async def test_what_is_enqueued_goes_behind_what_was_there_before(tmp_path: Path, way: str) -> None:
    clock = HandClock()
    store = SQLiteStore(tmp_path / "jobs.db", clock, worker="w", keeps_house=False)
    await store.open()
    waiting = await hungry(store)
    other = SQLiteStore(store.path, clock, keeps_house=False)
    await other.open()
    first = new_job(clock, delay=60 * (way == "due"), gates=("limit:a",) if way == "gated" else ())
    if way == "paused":
        await other.set_queue(first.queue, paused=True)
    else:
        await other.enqueue([first])
    await other.close()
    clock.advance(60)
    await store.enqueue([second := new_job(clock)])
    await asyncio.wait_for(waiting, 30)

    assert ids(await claim(store)) == ([] if way == "paused" else [first.id, second.id])
    await store.close()


async def test_what_was_claimed_for_who_has_gone_is_given_back(store: SQLiteStore) -> None:
    waiting = await hungry(store)
    adding = asyncio.ensure_future(store.enqueue([job := new_job(CLOCK)]))
    while store._committer._asked or store._committer._waiting or not adding.done():
        waiting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiting

    (record,) = await claim(store)
    assert (record.id, record.lost, record.deaths) == (job.id, 0, 0)


async def test_what_was_claimed_for_who_waited_is_given_back_when_the_wait_is_cancelled_as_it_ends(
    store: SQLiteStore,
) -> None:
    waiting = await hungry(store)
    await store.enqueue([job := new_job(CLOCK)])
    assert store._caught
    waiting.cancel()
    await asyncio.wait([waiting])
    await store._return_caught()

    assert [record.state for record in await store.jobs()] == [JobState.QUEUED]
    assert ids(await claim(store)) == [job.id]


async def test_what_was_claimed_for_who_waited_is_given_back_when_it_wants_something_else(store: SQLiteStore) -> None:
    waiting = await hungry(store)
    await store.enqueue([new_job(CLOCK)])
    await asyncio.wait_for(waiting, 30)

    assert await claim(store, tasks=("other",)) == []
    assert [record.state for record in await store.jobs()] == [JobState.QUEUED]


async def test_what_was_claimed_for_who_waited_is_given_back_at_the_close(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    store = SQLiteStore(path, CLOCK, worker="w", keeps_house=False)
    await store.open()
    waiting = await hungry(store)
    await store.enqueue([job := new_job(CLOCK)])
    await asyncio.wait_for(waiting, 30)
    await store.close()

    after = SQLiteStore(path, CLOCK, worker="w", keeps_house=False)
    await after.open()
    assert ids(await claim(after)) == [job.id]
    await after.close()


async def test_a_claim_for_who_waits_that_fails_spoils_no_enqueue(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = await hungry(store, limit=1)
    claims: list[object] = []

    def fail(*args: object, **options: object) -> None:
        claims.append(options)
        raise ValueError("a row that nobody can read")

    with monkeypatch.context() as patched:
        patched.setattr("tickwork.stores.sqlite.verbs.claim", fail)
        await store.enqueue(jobs := [new_job(CLOCK) for _ in range(2)])  # more than can be claimed as they are written
        await asyncio.wait_for(waiting, 30)
        with pytest.raises(ValueError, match="nobody can read"):
            await claim(store)
    assert len(claims) == 2
    assert ids(await claim(store)) == [job.id for job in jobs]


async def test_a_worker_whose_claim_failed_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(f"sqlite:///{tmp_path}/jobs.db")

    @app.task()
    async def work() -> int:
        return 1

    async with app:
        assert await (await work.enqueue()) == 1  # from here on, the worker waits
        real, failures = verbs.claim, [StoreUnavailable("jobs.db", "the disk is full") for _ in range(3)]

        def fail_at_first(*args: Any, **options: Any) -> Any:
            if failures:
                raise failures.pop()
            return real(*args, **options)

        monkeypatch.setattr("tickwork.stores.sqlite.verbs.claim", fail_at_first)
        later = work.options(delay=0.3)  # what waits is not claimed as it is written
        assert await (await later.enqueue()).result(timeout=30) == 1
        assert not failures


async def test_an_end_is_told_without_another_look(store: SQLiteStore) -> None:
    statements: list[str] = []
    await store.enqueue([job := new_job(CLOCK)])
    waiting = [asyncio.ensure_future(store.wait_finished(job.id)) for _ in range(2)]
    (record,) = await claim(store)
    await store._committer.run(lambda db: db.set_trace_callback(statements.append))
    await store.finish([ending(record, result="7")])

    ended = [await asyncio.wait_for(wait, 30) for wait in waiting]
    assert [(record.state, record.result) for record in ended] == [(JobState.SUCCEEDED, "7")] * 2
    assert ended[0] == await store.job(job.id)
    reads = [text for text in statements if text.startswith("SELECT seq, id, task")]
    assert len(reads) == 1  # that of the line above


async def test_an_end_that_came_before_the_wait_is_told(store: SQLiteStore) -> None:
    await store.enqueue([job := new_job(CLOCK)])
    (record,) = await claim(store)
    await store.finish([ending(record)])
    assert (await asyncio.wait_for(store.wait_finished(job.id), 30)).state is JobState.SUCCEEDED


async def test_an_end_elsewhere_before_the_wait_is_told(store: SQLiteStore, tmp_path: Path) -> None:
    other = SQLiteStore(tmp_path / "jobs.db", CLOCK, worker="other", keeps_house=False)
    await other.open()
    await store.enqueue([job := new_job(CLOCK)])
    (record,) = await other.claim(worker="other", tasks={"t"}, limit=1)
    await other.finish([ending(record)])
    assert (await asyncio.wait_for(store.wait_finished(job.id), 30)).state is JobState.SUCCEEDED
    await other.close()


async def test_a_wait_that_is_given_up_leaves_nothing(store: SQLiteStore) -> None:
    await store.enqueue([job := new_job(CLOCK)])
    waiting = [store.finished(job.id) for _ in range(2)]
    for wait in waiting:
        wait.cancel()
    await asyncio.sleep(0)
    assert list(store._ends) == []


async def test_who_waits_for_an_unknown_job_is_told(store: SQLiteStore) -> None:
    with pytest.raises(UnknownJob, match="nobody"):
        await asyncio.wait_for(store.wait_finished("nobody"), 30)
