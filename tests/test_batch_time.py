"""Batches on virtual time: attempts that come late, items that come slowly, and whoever enqueues and falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tickwork import App, BatchIncomplete, JobFailed, Retry
from tickwork.job_feed import FEED_SECONDS
from tickwork.stores.batches import BatchPart
from tickwork.stores.memory_batches import Batches  # here: in an app that runs, the first batch would import it

assert Batches.__module__

app = App()


@app.task(name="half")
async def half(number: int) -> float:
    return number / 2


@app.task(name="flaky", retry=Retry(3, delay="1h", factor=1, jitter=0))
async def flaky(number: int) -> int:
    if tries.get(number):
        tries[number] -= 1
        raise OSError(f"{number} is not there yet")
    return number


tries: dict[int, int] = {}


@pytest.fixture(scope="module")
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


async def slowly(count: int, seconds: float) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(seconds)
        yield number


async def test_a_batch_is_over_after_the_last_attempt_of_its_last_job() -> None:
    tries.update({1: 2, 3: 3})
    async with app.testing(raise_errors=False) as t:
        batch = await flaky.options(delay="10m").map(range(5))
        waiting = asyncio.ensure_future(batch.wait())
        reading = asyncio.ensure_future(batch.results(timeout="5m"))
        await t.advance("5m")
        with pytest.raises(TimeoutError) as late:
            await reading
        assert str(late.value) == (
            f"batch {batch.id} has not ended within 300 s: 0 of 5 have ended: 5 scheduled; it goes on"
        )
        await t.advance("6m")
        assert str(await batch.counts()) == "3 of 5 have ended: 2 scheduled, 3 succeeded"
        await t.advance("1h58m")
        assert not waiting.done()
        await t.advance("1m")

        assert str(await waiting) == "5 of 5 have ended: 4 succeeded, 1 failed"
        found = await batch.results(on_error="collect")
        assert found[:3] == [0, 1, 2]
        assert isinstance(found[3], JobFailed)
        assert await batch.retry_failed() == 1
        assert await batch == [0, 1, 2, 3, 4]


async def test_items_that_come_slowly_keep_nobody_from_waiting() -> None:
    async with app.testing() as t:
        mapping = asyncio.ensure_future(half.map(slowly(4, 10 * FEED_SECONDS), id="slow"))
        await t.advance(10 * FEED_SECONDS + 1)
        batch = await app.jobs.batch("slow")
        assert str(await batch.counts()) == "1 of 1 have ended, and more come: 1 succeeded"
        reading, waiting = asyncio.ensure_future(batch.results()), asyncio.ensure_future(batch.wait())
        await t.advance(25 * FEED_SECONDS)
        assert not reading.done()
        assert not waiting.done()
        await t.advance(5 * FEED_SECONDS)

        assert await reading == [0.0, 0.5, 1.0, 1.5]
        assert (await waiting).is_complete
        assert await mapping == batch


async def test_a_part_that_waits_long_for_room_keeps_nobody_from_waiting() -> None:
    small = App(max_queued=2, workers=1)

    @small.task(name="slow")
    async def slow(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def items() -> AsyncIterator[float]:
        yield 1.0
        yield 2.0
        await asyncio.sleep(60)
        yield 3.0
        yield 4.0

    async with small.testing() as t:
        mapping = asyncio.ensure_future(slow.map(items(), id="b"))
        await t.advance(30)
        await small.jobs.pause_queue("default")
        await slow.enqueue_many([(9.0,), (9.0,)])  # there is no room any more
        batch = await small.jobs.batch("b")
        reading = asyncio.ensure_future(batch.results())
        await t.advance(10 * FEED_SECONDS)
        assert str(await batch.counts()) == "2 of 2 have ended, and more come: 2 succeeded"
        await small.jobs.resume_queue("default")
        await t.advance(60)

        assert await reading == [1.0, 2.0, 3.0, 4.0]
        assert (await (await mapping).counts()).is_over


async def test_whoever_falls_silent_has_left_off_after_a_minute() -> None:
    async with app.testing() as t:
        store = app._store_now()
        part = BatchPart(batch="b", task="half", first=0, digest="", is_last=False, feed_seconds=FEED_SECONDS)
        await store.feed_batch(part, [])
        batch = await app.jobs.batch("b")
        waits = [asyncio.ensure_future(batch.wait()), asyncio.ensure_future(batch.results())]
        await t.advance(FEED_SECONDS - 1)
        await store.feed_batch(part, [])
        await t.advance(FEED_SECONDS - 1)
        assert not any(wait.done() for wait in waits)
        await t.advance(1)

        for wait in waits:
            with pytest.raises(BatchIncomplete, match="left off after 0"):
                wait.result()
        with pytest.raises(BatchIncomplete):
            await batch.wait()
        assert (await batch.counts()).to_data()["is_complete"] is False


async def test_an_error_of_a_batch_is_seen_by_who_reads_its_outcomes() -> None:
    tries[7] = 3
    async with app.testing() as t:
        reading = asyncio.ensure_future((await flaky.map([7, 8])).results(on_error="collect"))
        await t.advance("3h")
        assert [type(value) for value in await reading] == [JobFailed, int]
    tries[7] = 3
    with pytest.raises(OSError, match="7 is not there yet"):
        async with app.testing() as t:
            await flaky.map([7, 8])
            await t.advance("3h")
