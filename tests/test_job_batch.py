"""`task.map` in a store: jobs that are enqueued, counted and awaited together; and what is left when that is cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tickwork import App, BatchIncomplete, Context, JobBatch, JobOutcome, WrongBatch
from tickwork.batch.chunks import LOOP_SECONDS
from tickwork.conformance import HandClock
from tickwork.elapsed import elapsed
from tickwork.errors import (
    InvalidOption,
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobParked,
    NotRunning,
    QueueFull,
    ResultExpired,
    UnknownBatch,
)
from tickwork.job_batch import CHANGE_COUNT, FEW, PAGE
from tickwork.job_feed import PART_COUNT
from tickwork.stores.filelock import FileLock
from tickwork.stores.memory import MemoryStore
from tickwork.stores.memory_batches import Batches  # here: in an app that runs, the first batch would import it
from tickwork.tasks import MAX_BATCH_ID

assert Batches.__module__


class Work:
    """An app whose jobs do what a test lets them."""

    def __init__(self, url: str | None, **options: Any) -> None:
        self.app = app = App(url, **{"workers": 3, **options})
        self.go = asyncio.Event()
        self.fails = True
        self.runs: Counter[Any] = Counter()

        @app.task(name="half", aliases=["old"])
        async def half(number: int) -> float:
            self.runs[number] += 1
            if number < 0 and self.fails:
                raise ValueError(f"{number} is negative")
            return number / 2

        @app.task(name="size")
        async def size(pair: tuple[int, str]) -> str:
            return f"{pair!r}"

        @app.task(name="joined")
        async def joined(ctx: Context, first: str, *, second: str = "-") -> str:
            return f"{first}{second}{ctx.attempt}"

        @app.task(name="wait")
        async def wait(number: int) -> int:
            self.runs[number] += 1
            await self.go.wait()
            return number

        @app.task(name="late")
        async def late(number: int) -> int:
            if number == 0:
                await self.go.wait()
            return number

        @app.task(name="keyed", key="{number}")
        async def keyed(number: int) -> None: ...

        self.half, self.size, self.joined, self.wait, self.late, self.keyed = half, size, joined, wait, late, keyed


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Work]:
    """Make an app; of a file, each is another process's, as far as the store can tell."""
    return lambda **options: Work(None if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db", **options)


@pytest.fixture
async def work(make: Callable[..., Work]) -> AsyncIterator[Work]:
    work = make()
    async with work.app:
        yield work
        work.go.set()


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Work]:
    """Make an app of one file."""
    return lambda **options: Work(f"sqlite:///{tmp_path}/jobs.db", **options)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


async def ends(batch: JobBatch[Any], count: int) -> None:
    """Wait until so many jobs of a batch have ended."""
    async with asyncio.timeout(30):
        while True:
            if (await batch.counts()).ended >= count:
                return
            await asyncio.sleep(0.002)


async def endless() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        if number % 7 == 0:
            await asyncio.sleep(0.001)


async def numbers(*of: Any) -> AsyncIterator[Any]:
    for number in of:
        await asyncio.sleep(0)
        if isinstance(number, Exception):
            raise number
        yield number


async def cut(work: Work, least: int, **options: Any) -> int:
    """Map without end into the batch "b", cancel that, and return how many items it has."""
    mapping = asyncio.ensure_future(work.half.options(delay="1h").map(endless(), id="b"))
    async with asyncio.timeout(30):
        while True:
            batches = await work.app.jobs.batches()
            if batches and batches[0].total >= least:
                break
            await asyncio.sleep(0.002)
    mapping.cancel()
    await asyncio.wait([mapping])
    assert mapping.cancelled()
    return (await work.app.jobs.batches())[0].total


# --- what a batch gives ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, FEW, PART_COUNT, PART_COUNT + 1, 3 * PAGE])
async def test_results_come_in_the_order_of_the_items(work: Work, count: int) -> None:
    batch = await work.half.map(range(count))

    assert await batch == [number / 2 for number in range(count)]
    counts = await batch.counts()
    assert (counts.total, counts.succeeded, counts.ended, counts.is_over) == (count, count, count, True)
    assert (counts.id, counts.task, batch.task) == (batch.id, "half", "half")
    assert work.runs == Counter(range(count))


@pytest.mark.parametrize(
    "items",
    [
        lambda: [1, 2, 3],
        lambda: (number for number in (1, 2, 3)),
        lambda: numbers(1, 2, 3),
        lambda: dict.fromkeys([1, 2, 3]),
    ],
    ids=["list", "generator", "async generator", "keys"],
)
async def test_items_may_come_from_anywhere(work: Work, items: Callable[[], Any]) -> None:
    assert await (await work.half.map(items())).results(timeout=30) == [0.5, 1.0, 1.5]


async def test_a_tuple_is_one_argument(work: Work) -> None:
    batch = await work.size.map([(1, "a"), (2, "b")])

    assert await batch == ["(1, 'a')", "(2, 'b')"]


async def test_calls_are_given_as_to_enqueue_many(work: Work) -> None:
    calls: list[Any] = [("a",), ["b"], {"first": "c", "second": "d"}]
    handles = await work.joined.enqueue_many(calls)
    batch = await work.joined.map_calls(calls)

    assert await batch == [await job for job in handles] == ["a-1", "b-1", "cd1"]
    with pytest.raises(InvalidOption, match="calls must be tuples or lists of positional arguments"):
        await work.joined.map_calls(["ab"])
    later = await work.joined.options(delay="1h").map_calls(calls)
    assert (await later.counts()).scheduled == 3


async def test_the_jobs_of_a_batch_have_its_options_and_its_id(work: Work) -> None:
    batch = await work.wait.options(delay="1h", queue="slow", priority=3).map([5, 6], id="import 7")

    page = await work.app.jobs.list(batch="import 7")
    assert [(job.batch, job.batch_index, job.queue, job.priority, job.arguments) for job in page.jobs] == [
        ("import 7", 1, "slow", 3, {"number": 6}),
        ("import 7", 0, "slow", 3, {"number": 5}),
    ]
    assert (page.jobs[0].to_data()["batch"], page.jobs[0].to_data()["batch_index"]) == ("import 7", 1)
    assert str(await batch.counts()) == "0 of 2 have ended: 2 scheduled"
    assert repr(batch) == "<JobBatch import 7 wait>"


async def test_errors_are_raised_collected_or_left_out(work: Work) -> None:
    batch = await work.half.map([0, -1, 2, -3])

    with pytest.raises(JobFailed) as raised:
        await batch
    assert raised.value.__notes__ == [f"It was item 1 of batch {batch.id}."]
    assert raised.value.error_message == "-1 is negative"
    found = await batch.results(on_error="collect")
    assert [type(value) for value in found] == [float, JobFailed, float, JobFailed]
    assert await batch.results(on_error="skip") == [0.0, 1.0]
    assert str(await batch.counts()) == "4 of 4 have ended: 2 succeeded, 2 failed"
    with pytest.raises(InvalidOption, match="on_error must be one of 'raise', 'collect', 'skip', got 'ignore'"):
        await batch.results(on_error="ignore")  # type: ignore[call-overload]


async def test_outcomes_come_in_the_order_of_the_items(work: Work) -> None:
    batch = await work.late.map(range(40))
    found: list[int] = []

    async def read() -> None:
        async for outcome in batch:
            found.append(outcome.result())  # noqa: PERF401 - it is looked at meanwhile

    reading = asyncio.ensure_future(read())
    await ends(batch, 39)
    assert found == []
    work.go.set()
    await asyncio.wait_for(reading, 30)

    assert found == list(range(40))


async def test_outcomes_come_as_they_end(work: Work) -> None:
    batch = await work.late.map(range(2 * PAGE))
    found: list[JobOutcome[int]] = []

    async for outcome in batch.outcomes(ordered=False):
        found.append(outcome)
        if len(found) == 2 * PAGE - 1:
            assert 0 not in [outcome.value for outcome in found]
            work.go.set()

    assert sorted(outcome.index for outcome in found) == list(range(2 * PAGE))
    assert all(outcome.value == outcome.index and outcome.job_id for outcome in found)
    assert found[-1].index == 0


async def test_an_item_that_is_tried_again_is_given_once(work: Work) -> None:
    batch = await work.half.map([-1, 1])
    outcomes = batch.outcomes(ordered=False)
    first = await anext(outcomes)
    await batch.wait(timeout=30)
    work.fails = False
    assert await batch.retry_failed() == 1
    rest = [outcome async for outcome in outcomes]

    assert sorted(outcome.index for outcome in [first, *rest]) == [0, 1]
    assert await batch.results(on_error="raise", timeout=10) == [-0.5, 0.5]
    assert await batch.retry_failed() == 0


async def test_the_wait_ends_with_the_last_job(work: Work) -> None:
    batch = await work.wait.map(range(5))
    with pytest.raises(TimeoutError) as late:
        await batch.wait(timeout=0)
    assert str(late.value).startswith(f"batch {batch.id} has not ended within 0 s: 0 of 5 have ended: ")
    assert str(late.value).endswith("; it goes on")
    waiting = asyncio.ensure_future(batch.wait(timeout=30))
    await until(lambda: len(work.runs) == 3)
    assert not waiting.done()
    work.go.set()

    assert (await waiting).succeeded == 5


async def test_a_parked_job_has_ended_and_a_deleted_one_is_gone(work: Work) -> None:
    await work.app.jobs.pause_queue("default")
    batch = await work.half.map(range(4))
    jobs = {job.batch_index: job.id for job in (await work.app.jobs.list(batch=batch.id)).jobs}
    store = work.app._store_now()
    await work.app.jobs.delete(jobs[1])
    await work.app.jobs.cancel(jobs[2])
    await work.app.jobs.resume_queue("default")
    await until(lambda: len(work.runs) == 2)

    for ordered in (True, False):
        outcomes = {outcome.index: outcome async for outcome in batch.outcomes(ordered=ordered)}
        assert len(outcomes) == 4
        assert (outcomes[0].value, outcomes[3].value) == (0.0, 1.5)
        assert isinstance(outcomes[1].error, ResultExpired)
        assert outcomes[1].job_id is None
        assert str(outcomes[1].error) == f"job {batch.id}[1] (half) is no longer kept, and neither is its result"
        assert isinstance(outcomes[2].error, JobCancelled)
        with pytest.raises(JobCancelled):
            outcomes[2].result()
    assert str(await batch.counts()) == "4 of 4 have ended: 2 succeeded, 1 cancelled, 1 gone"
    assert (await batch.counts()).to_data()["gone"] == 1
    assert store is work.app._store_now()


async def test_who_waits_for_a_job_that_is_deleted_goes_on(work: Work) -> None:
    """A store in memory tells of the cancellation that is part of it; who waits at a file looks, and finds nothing."""
    await work.app.jobs.pause_queue("default")
    batch = await work.half.map(range(2))
    first = (await work.app.jobs.list(batch=batch.id)).jobs[-1]
    collecting = asyncio.ensure_future(batch.results(on_error="collect"))
    dispatcher = work.app._dispatcher
    await until(lambda: dispatcher is not None and first.id in dispatcher._waiters)
    await work.app.jobs.delete(first.id)
    await work.app.jobs.resume_queue("default")

    gone, there = await asyncio.wait_for(collecting, 30)
    assert type(gone) is (JobCancelled if isinstance(work.app._store_now(), MemoryStore) else ResultExpired)
    assert there == 0.5


async def test_a_batch_is_cancelled_with_all_its_jobs(work: Work) -> None:
    other = await work.wait.enqueue(99)
    batch = await work.wait.map(range(PART_COUNT + 10))
    await until(lambda: work.runs[0])

    assert await batch.cancel() == PART_COUNT + 10
    counts = await batch.wait(timeout=30)
    assert (counts.cancelled, counts.is_over, counts.is_cancelled) == (PART_COUNT + 10, True, False)
    assert await batch.cancel() == 0
    work.go.set()
    assert await other.result(timeout=30) == 99
    with pytest.raises(JobCancelled):
        await batch


# --- the same batch again ------------------------------------------------------------------------------------------


async def test_a_batch_is_found_again_by_its_id(work: Work) -> None:
    batch = await work.half.map([1, 2], id="night")
    again: JobBatch[Any] = await work.app.jobs.batch("night")

    assert again == batch
    assert {again, batch} == {batch}
    assert await again == [0.5, 1.0]
    with pytest.raises(UnknownBatch, match="no batch 'day' in the store; it never existed or"):
        await work.app.jobs.batch("day")
    for odd in (7, None, "\0", "\udcff"):
        with pytest.raises(UnknownBatch):
            await work.app.jobs.batch(odd)  # type: ignore[arg-type]


async def test_after_a_restart_a_batch_is_there(kept: Callable[..., Work]) -> None:
    work = kept()
    async with work.app.client():
        made = await work.half.map([1, -2, 3], id="night")
    async with (work := kept()).app:
        batch = await work.app.jobs.batch(made.id)
        found = await batch.results(on_error="collect", timeout=30)
    async with (again := kept()).app.looking():
        counts = await (await again.app.jobs.batch(made.id)).counts()
        assert await (await again.app.jobs.batch(made.id)).results(on_error="skip") == [0.5, 1.5]

    assert [found[0], found[2]] == [0.5, 1.5]
    assert isinstance(found[1], JobFailed)
    assert (counts.succeeded, counts.failed, counts.is_over) == (2, 1, True)


async def test_one_that_looks_hears_of_the_ends_elsewhere(kept: Callable[..., Work]) -> None:
    work = kept()
    async with work.app:
        batch = await work.late.map(range(20), id="b")
        async with (other := kept()).app.looking():
            found = await other.app.jobs.batch("b")
            reading = asyncio.ensure_future(found.results())
            waiting = asyncio.ensure_future(found.wait())
            await ends(batch, 19)
            assert not reading.done()
            assert not waiting.done()
            work.go.set()
            assert await asyncio.wait_for(reading, 30) == list(range(20))
            assert (await asyncio.wait_for(waiting, 30)).succeeded == 20


async def test_the_same_items_again_enqueue_nothing(work: Work) -> None:
    count = PART_COUNT + 3
    for items in (range(count), (number for number in range(count)), numbers(*range(count))):
        batch = await work.half.map(items, id="b")
        assert (await batch.wait(timeout=30)).total == count

    assert work.runs == Counter(range(count))


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([1, 2, 3, 4], "batch 'b' is complete with 3 items, and these are more; give another id"),
        ([1, 2], "batch 'b' has 3 items, and these are 2; give another id"),
        ([], "batch 'b' has 3 items, and these are 0; give another id"),
        ([1, 2, 4], "batch 'b' has other items among its first 3; give another id"),
    ],
)
async def test_other_items_are_no_part_of_a_batch(work: Work, items: list[int], error: str) -> None:
    await work.half.map([1, 2, 3], id="b")

    with pytest.raises(WrongBatch) as refused:
        await work.half.map(items, id="b")
    assert str(refused.value) == error
    assert not hasattr(refused.value, "__notes__")
    with pytest.raises(WrongBatch) as refused:
        await work.half.map(numbers(*items), id="b")
    assert str(refused.value) == error


async def test_another_task_has_no_part_in_a_batch(work: Work) -> None:
    await work.half.map([1], id="b")

    with pytest.raises(WrongBatch) as refused:
        await work.late.map([1], id="b")
    assert str(refused.value) == "batch 'b' is of task 'half'; give another id"


async def test_two_who_feed_one_batch_enqueue_each_item_once(work: Work) -> None:
    count = PART_COUNT + 7
    batches = await asyncio.gather(
        work.half.map(numbers(*range(count)), id="b"),
        work.half.map(range(count), id="b"),
        work.half.map(numbers(*range(count)), id="b"),
    )

    assert len(set(batches)) == 1
    assert await batches[0].results(timeout=30) == [number / 2 for number in range(count)]
    assert work.runs == Counter(range(count))


# --- what is cut off -----------------------------------------------------------------------------------------------


async def test_a_map_that_is_cancelled_leaves_a_batch_that_says_so(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    count = await cut(work, 2 * PART_COUNT)
    batch = await work.app.jobs.batch("b")
    counts = await batch.counts()

    assert (counts.total, counts.scheduled, counts.is_complete, counts.is_over) == (count, count, False, False)
    assert str(counts) == f"0 of {count:,} have ended, and more come: {count:,} scheduled"
    assert caplog.messages == [
        (
            f"map of half was cancelled: batch 'b' has {count:,} items and is not complete: go on with the same items, "
            "await task.map(items, id='b'), or cancel it, await (await app.jobs.batch('b')).cancel()"
        )
    ]
    caplog.clear()
    await batch.cancel()
    counts = await batch.wait(timeout=30)
    assert (counts.cancelled, counts.is_cancelled, counts.is_over) == (count, True, True)
    assert str(counts) == f"{count:,} of {count:,} have ended, and no more come: {count:,} cancelled"
    with pytest.raises(WrongBatch) as refused:
        await work.half.map(range(count + 5), id="b")
    assert str(refused.value) == f"batch 'b' was cancelled when it had {count:,} items; give another id"
    with pytest.raises(WrongBatch):
        await work.half.map(range(count), id="b")


async def test_a_map_that_was_cancelled_is_gone_on_with(work: Work) -> None:
    count = await cut(work, PART_COUNT)
    total = count + PART_COUNT + 1
    batch = await work.half.map(range(total), id="b")

    counts = await batch.counts()
    assert (counts.total, counts.is_complete) == (total, True)
    assert counts.scheduled == count
    assert sum(work.runs.values()) <= total - count
    arguments = []
    after = None
    while True:
        page = await work.app.jobs.list(batch="b", limit=500, after=after)
        arguments += [(job.batch_index, job.arguments["number"]) for job in page.jobs]
        if (after := page.next) is None:
            break
    assert sorted(arguments) == [(number, number) for number in range(total)]


async def test_who_waits_for_a_batch_that_is_left_off_is_told(work: Work) -> None:
    mapping = asyncio.ensure_future(work.half.map(endless(), id="b"))
    await until(lambda: len(work.runs) > 10)
    batch = await work.app.jobs.batch("b")
    seen: list[Any] = []
    waits: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(batch.wait()),
        asyncio.ensure_future(batch.results()),
        asyncio.ensure_future(_all(batch.outcomes(ordered=False), seen)),  # the last to begin
    ]
    await until(lambda: len(seen) > 10)
    mapping.cancel()
    await asyncio.wait([mapping])
    await asyncio.wait(waits, timeout=30)

    total = (await batch.counts()).total
    for wait in waits:
        with pytest.raises(BatchIncomplete) as told:
            wait.result()
        assert (told.value.batch_id, told.value.size) == ("b", total)
        assert str(told.value) == (
            f"batch 'b' is not complete: whoever enqueued its items left off after {total:,}; go on with the same "
            "items, await task.map(items, id='b'), or cancel it"
        )


async def test_a_part_that_is_under_way_when_a_map_is_cancelled_counts(
    kept: Callable[..., Work], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 0
        await more.wait()
        yield 1
        yield 2
        await asyncio.Event().wait()

    def is_feeding() -> bool:
        return any("feed_batch" in repr(task.get_coro()) for task in asyncio.all_tasks())

    work = kept()
    async with work.app.client():
        store: Any = work.app._store_now()
        mapping = asyncio.ensure_future(work.half.map(items(), id="b"))
        async with asyncio.timeout(30):
            while [row.size for row in await store.batches()] != [1]:  # noqa: ASYNC110 - it is asked, and not told
                await asyncio.sleep(0.002)
        lock = FileLock(tmp_path / "jobs.db-lock")
        await until(lock.try_acquire)
        more.set()
        await until(is_feeding)
        for _ in range(3):
            await asyncio.sleep(0)
        await until(lambda: not store._committer._asked and not store._committer._waiting)  # the thread has the part
        mapping.cancel()
        await asyncio.sleep(0)
        lock.close()
        await asyncio.wait([mapping])
        row = await store.batch("b")

    assert mapping.cancelled()
    assert row.size == 3
    assert row.feeds_until <= datetime.now(UTC)  # nobody waits for more
    assert [message.partition(" items")[0] for message in caplog.messages] == [
        "map of half was cancelled: batch 'b' has 3"
    ]


async def _all(outcomes: AsyncIterator[Any], seen: list[Any]) -> None:
    async for outcome in outcomes:
        seen.append(outcome)  # noqa: PERF401 - others look at it meanwhile


@pytest.mark.parametrize("way", ["generator", "async generator"])
async def test_items_before_one_that_does_not_fit_are_in_the_batch(work: Work, way: str) -> None:
    items: list[Any] = [*range(PART_COUNT), "x"]
    given = (item for item in items) if way == "generator" else numbers(*items)

    with pytest.raises(InvalidPayload) as refused:
        await work.half.map(given, id="b")

    assert str(refused.value) == "half(number): expected int, got str 'x'"
    assert refused.value.__notes__ == [
        (
            f"batch 'b' has {PART_COUNT} items and is not complete: go on with the same items, await "
            "task.map(items, id='b'), or cancel it, await (await app.jobs.batch('b')).cancel()"
        )
    ]
    with pytest.raises(BatchIncomplete):
        await (await work.app.jobs.batch("b")).wait(timeout=30)


async def test_where_no_item_was_enqueued_there_is_no_batch(work: Work) -> None:
    with pytest.raises(InvalidPayload) as refused:
        await work.half.map(["x"], id="b")
    assert not hasattr(refused.value, "__notes__")
    with pytest.raises(UnknownBatch):
        await work.app.jobs.batch("b")


async def test_an_iterator_that_fails_is_heard_after_its_items(work: Work) -> None:
    with pytest.raises(OSError, match="the disk") as raised:
        await work.half.map(numbers(1, 2, OSError("the disk")), id="b")
    assert raised.value.__notes__[0].startswith("batch 'b' has 2 items and is not complete: ")
    batch = await work.half.map([1, 2, 3], id="b")
    assert await batch.results(timeout=30) == [0.5, 1.0, 1.5]

    def failing() -> Iterator[int]:
        yield from range(PART_COUNT + 1)
        raise OSError("the net")

    with pytest.raises(OSError, match="the net"):
        await work.half.map(failing(), id="c")
    assert (await (await work.app.jobs.batch("c")).counts()).total == PART_COUNT + 1


async def test_a_batch_that_is_cancelled_while_it_is_fed_takes_no_more(work: Work) -> None:
    mapping = asyncio.ensure_future(work.half.map(endless(), id="b"))
    await until(lambda: len(work.runs) > 10)
    batch = await work.app.jobs.batch("b")
    await batch.cancel()

    with pytest.raises(WrongBatch, match=r"batch 'b' was cancelled when it had [\d,]+ items; give another id"):
        await asyncio.wait_for(mapping, 30)
    assert (await batch.wait(timeout=30)).is_cancelled


async def test_an_async_iterator_is_closed_whatever_happens(work: Work) -> None:
    closed = []

    async def items(fails: bool) -> AsyncIterator[Any]:
        try:
            while True:
                yield "x" if fails else 1
                await asyncio.sleep(0.001)
        finally:
            closed.append(fails)

    with pytest.raises(InvalidPayload):
        await work.half.map(items(True))
    mapping = asyncio.ensure_future(work.half.map(items(False)))
    await until(lambda: len(work.runs))
    mapping.cancel()
    await asyncio.wait([mapping])

    assert closed == [True, False]


async def test_items_that_come_slowly_are_enqueued_as_they_come(work: Work) -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await more.wait()
        yield 2

    mapping = asyncio.ensure_future(work.half.map(items()))
    await until(lambda: work.runs[1])
    assert not mapping.done()
    more.set()

    assert await (await asyncio.wait_for(mapping, 30)).results(timeout=30) == [0.5, 1.0]


# --- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_no_more_items_are_taken_than_the_store_has_room_for(make: Callable[..., Work], kind: str) -> None:
    ahead: list[int] = []
    work = make(max_queued=10, workers=1)

    def items() -> Iterator[int]:
        for number in range(300):
            ahead.append(number + 1 - len(work.runs))
            yield number

    async def async_items() -> AsyncIterator[int]:
        for number in items():
            yield number

    async with work.app:
        batch = await work.half.map(items() if kind == "generator" else async_items())
        await batch.wait(timeout=30)

    assert 10 < max(ahead) <= 33


def hold(seconds: float = LOOP_SECONDS) -> None:
    """Hold the loop, by default for as long as it may be."""
    until = elapsed() + seconds
    while elapsed() < until:
        pass


async def count_turns(turns: list[int]) -> None:
    """Note each turn of the loop."""
    while True:
        turns.append(len(turns))
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_items_that_are_slow_to_make_do_not_hold_the_loop(work: Work, kind: str) -> None:
    turns: list[int] = []
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(30):
            hold()
            made.append(len(turns))
            yield number

    async def async_items() -> AsyncIterator[int]:
        for number in items():
            yield number

    turning = asyncio.ensure_future(count_turns(turns))
    await work.half.map(items() if kind == "generator" else async_items())
    turning.cancel()

    assert len(set(made)) == 30


@dataclass
class Slow:
    """What takes longer to encode than the loop may be held. It notes in which turns that was."""

    weight: int

    def __init__(self, weight: int, reads: list[int], turns: list[int]) -> None:
        self._reads, self._turns = reads, turns
        self.weight = weight

    def __getattribute__(self, name: str) -> Any:
        if name == "weight":
            hold()
            self._reads.append(len(self._turns))
        return super().__getattribute__(name)


async def test_items_that_are_slow_to_encode_do_not_hold_the_loop(make: Callable[..., Work]) -> None:
    work = make()
    turns: list[int] = []
    reads: list[int] = []

    @work.app.task(name="weigh")
    async def weigh(item: Slow) -> None: ...

    async with work.app:
        turning = asyncio.ensure_future(count_turns(turns))
        await weigh.options(delay=60).map([Slow(1, reads, turns) for _ in range(10)])
        turning.cancel()

    assert len(set(reads)) == len(reads) == 10


async def test_a_slow_iterator_feeds_the_batch_before_a_part_is_full(work: Work) -> None:
    went_on = False

    def items() -> Iterator[int]:
        nonlocal went_on
        number = 0
        while not work.runs[0] and number < PART_COUNT:  # a part would have so many
            yield number
            hold()
            number += 1
        went_on = number < PART_COUNT

    await work.half.map(items())

    assert went_on


async def test_cancelling_a_large_batch_gives_others_their_turns(work: Work) -> None:
    batch = await work.half.options(delay=60).map(range(2 * CHANGE_COUNT))
    turns: list[int] = []
    turning = asyncio.ensure_future(count_turns(turns))

    assert await batch.cancel() == 2 * CHANGE_COUNT
    turning.cancel()

    assert len(turns) >= 2


async def test_more_than_ever_waits_goes_through(make: Callable[..., Work]) -> None:
    work = make(max_queued=10)
    async with work.app:
        assert await (await work.half.map(range(95))).results(timeout=30) == [number / 2 for number in range(95)]


async def test_inside_a_job_a_full_store_is_no_place_to_wait(make: Callable[..., Work]) -> None:
    work = make(max_queued=10)
    told: list[Any] = []

    @work.app.task(name="parent")
    async def parent(count: int) -> str:
        try:
            batch = await work.half.options(delay=count / 10).map(range(count), id=f"of {count}")
        except QueueFull as error:
            told.append(error.__notes__)
            raise
        return f"{sum(await batch):g}"

    async with work.app:
        assert await (await parent.enqueue(2)).result(timeout=30) == "0.5"
        with pytest.raises(JobFailed, match="the store is full"):
            await (await parent.enqueue(60)).result(timeout=30)
        assert told[0][0].startswith("batch 'of 60' has 10 items and is not complete: ")


async def test_memory_keeps_the_results_of_a_batch_that_somebody_holds() -> None:
    work = Work(None)
    async with work.app:
        batch = await work.half.map(range(3_000))
        assert len(await batch.results(timeout=30)) == 3_000
        batch_id = batch.id
        del batch
        for _ in range(3):
            await (await work.half.map(range(1_000))).wait(timeout=30)
        counts = (await work.app.jobs.batches(limit=10))[-1]
        assert (counts.id, counts.total, counts.gone) == (batch_id, 3_000, 3_000)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda work: work.half.map("12"),
            (
                "items must be a list, an iterator, or an async one, got '12'; for one item give a list of it, [text]; "
                "for its characters list(text)"
            ),
        ),
        (
            lambda work: work.half.map(b"12"),
            (
                "items must be a list, an iterator, or an async one, got b'12'; for one item give a list of it, "
                "[text]; for its characters list(text)"
            ),
        ),
        (lambda work: work.half.map(7), "items must be a list, an iterator, or an async one, got 7"),
        (lambda work: work.half.map([1], id=""), "id must be a printable, non-empty text, got ''"),
        (lambda work: work.half.map([1], id=7), "id must be a printable, non-empty text, got 7"),
        (
            lambda work: work.half.map([1], id="x" * (MAX_BATCH_ID + 1)),
            f"id must be at most 200 characters long, got '{'x' * 201}'",
        ),
        (
            lambda work: work.keyed.map([1]),
            (
                "key must be left out where items are mapped, got '{number}'; a batch is known by its id and its items "
                "by their place; enqueue_many goes by keys"
            ),
        ),
        (
            lambda work: work.half.options(key="k").map([1]),
            (
                "key must be left out where items are mapped, got 'k'; a batch is known by its id and its items by "
                "their place; enqueue_many goes by keys"
            ),
        ),
        (lambda work: work.app.jobs.batches(limit=0), "limit must be a whole number of at least 1, got 0"),
        (lambda work: work.app.jobs.list(batch=" "), "batch must be a printable, non-empty text, got ' '"),
    ],
)
async def test_what_means_nothing_is_refused(work: Work, call: Callable[[Work], Any], error: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        await call(work)

    assert str(refused.value) == error
    assert await work.app.jobs.batches() == []


async def test_an_app_that_is_not_running_maps_nothing(make: Callable[..., Work]) -> None:
    work = make()
    with pytest.raises(NotRunning):
        await work.half.map([1])
    async with work.app:
        batch = await work.half.map([1])
        assert await batch == [0.5]
    with pytest.raises(NotRunning):
        await batch.counts()


async def test_who_waits_when_the_app_stops_is_told(make: Callable[..., Work]) -> None:
    work = make(drain_seconds=0)
    waits: list[asyncio.Future[Any]] = []

    def wait() -> None:
        waits.append(asyncio.ensure_future(batch.wait()))
        waits.append(asyncio.ensure_future(batch.results()))
        waits.append(asyncio.ensure_future(_all(batch.outcomes(ordered=False), [])))

    async with work.app:
        batch = await work.wait.map(range(3), id="b")
        await until(lambda: len(work.runs) == 3)
        wait()
        stop = asyncio.ensure_future(work.app.stop())
        while not stop.done():  # some wait since long, and others begin to while it stops
            await asyncio.sleep(0)
            if work.app._store is not None and len(waits) < 300:
                wait()
    await asyncio.wait(waits, timeout=30)

    assert {type(wait.exception()) for wait in waits} == {NotRunning}
    told = [str(wait.exception()) for wait in waits]
    assert set(told[:3]) == {"the app stopped before batch 'b' had ended"}
    with pytest.raises(NotRunning, match="^the app is not running; use ") as late:
        await batch.results()
    assert set(told) <= {told[0], str(late.value)}


async def test_who_begins_to_wait_when_the_app_is_stopping_is_told(make: Callable[..., Work]) -> None:
    work = make(drain_seconds=0)
    told: list[str] = []
    found: list[float] = []

    async def resources(app: App) -> AsyncIterator[None]:
        yield
        found.append(await ended)
        for wait in (job.result(timeout=30), batch.results(timeout=30)):
            with pytest.raises((JobCancelled, NotRunning)) as raised:
                await wait
            told.append(str(raised.value))

    work.app._user_lifespan = resources
    async with work.app:
        ended = await work.half.enqueue(4)
        job = await work.wait.enqueue(1)
        batch = await work.wait.map([2], id="b")
        await until(lambda: len(work.runs) == 3)

    assert told == [
        f"job {job.id} (wait) was cancelled: the app stopped before it had ended",
        "the app stopped before batch 'b' had ended",
    ]
    assert found == [2.0]


# --- retention -----------------------------------------------------------------------------------------------------


async def test_results_expire_and_say_so(kept: Callable[..., Work]) -> None:
    work = kept()
    async with work.app:
        batch = await work.half.map([1, 2], id="b")
        await batch.wait(timeout=30)
    clock = LaterClock(timedelta(hours=2))
    async with (later := kept(clock=clock)).app.looking():
        await later.app._store_now().prune()
        found = await (await later.app.jobs.batch("b")).results(on_error="collect")
        with pytest.raises(ResultExpired, match=r"job \w+ \(half\) succeeded, but its result is no longer kept"):
            await (await later.app.jobs.batch("b"))
    assert [type(value) for value in found] == [ResultExpired, ResultExpired]
    clock = LaterClock(timedelta(days=8))
    async with (later := kept(clock=clock)).app.looking():
        batch = await later.app.jobs.batch("b")
        await later.app._store_now().prune()
        with pytest.raises(UnknownBatch):
            await batch.counts()


class LaterClock(HandClock):
    """A clock that stands at some time after now."""

    def __init__(self, later: timedelta) -> None:
        from datetime import datetime

        from tickwork.conformance import START

        super().__init__()
        self.seconds = (datetime.now(START.tzinfo) + later - START).total_seconds()


async def test_a_job_that_nobody_can_run_stands_among_the_results(kept: Callable[..., Work]) -> None:
    work = kept()
    async with work.app.client():
        await work.half.map([1, 2], id="b")
    other = App(f"sqlite:///{work.app.path}")

    @other.task(name="half")
    async def half(other: str) -> str:
        return other

    async with other:
        batch = await other.jobs.batch("b")
        counts = await batch.wait(timeout=30)
        found = await batch.results(on_error="collect")
        assert (counts.parked, counts.is_over) == (2, True)
        assert [type(value) for value in found] == [JobParked, JobParked]
        assert await batch.cancel() == 2
        assert [type(value) for value in await batch.results(on_error="collect")] == [JobCancelled, JobCancelled]
