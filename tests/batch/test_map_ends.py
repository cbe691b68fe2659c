"""How a batch is left before its end: nothing of it goes on. The suite's own checks find what is left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tickwork
from tickwork import Pool

from . import functions


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


async def end(batch: asyncio.Future[Any]) -> None:
    batch.cancel()
    await asyncio.wait([batch], timeout=30)
    assert batch.cancelled()


async def settle() -> None:
    """Let everything on the loop come to where it waits."""
    for _ in range(30):
        await asyncio.sleep(0)


def forever() -> Iterator[int]:
    return itertools.count()


async def wait_for_ever(_item: object) -> None:
    await asyncio.Event().wait()


# --- cancelled at a certain point --------------------------------------------------------------------------------


async def test_a_batch_that_is_cancelled_before_it_begins_begins_nothing() -> None:
    began: list[int] = []
    batch = asyncio.ensure_future(tickwork.map(began.append, forever()))

    await end(batch)

    assert began == []


async def test_cancelled_while_its_processes_start_it_leaves_none(wait_until: Any) -> None:
    batch = asyncio.ensure_future(tickwork.map(functions.same, forever(), run_in="process", workers=2))
    await wait_until(children)

    await end(batch)

    assert children() == []


async def test_cancelled_while_its_processes_work_it_leaves_none(tmp_path: Path, wait_until: Any) -> None:
    items = ((str(tmp_path), number) for number in forever())
    batch = asyncio.ensure_future(tickwork.map(functions.until_told, items, run_in="process", workers=2))
    await wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2)

    await end(batch)

    assert children() == []


async def test_cancelled_on_a_pool_it_kills_only_the_processes_that_run_it(tmp_path: Path, wait_until: Any) -> None:
    async with Pool(processes=2) as pool:
        other = asyncio.ensure_future(
            tickwork.map(functions.until_told, [(str(tmp_path), 1)], run_in="process", pool=pool, workers=1)
        )
        batch = asyncio.ensure_future(
            tickwork.map(functions.until_told, [(str(tmp_path), 2)], run_in="process", pool=pool, workers=1)
        )
        await wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2)

        await end(batch)
        (tmp_path / "go").touch()

        assert await other == [1]


async def test_cancelled_while_threads_work_it_begins_no_other_item(wait_until: Any) -> None:
    go = threading.Event()
    began: list[int] = []

    def run(number: int) -> None:
        began.append(number)
        go.wait(10)

    batch = asyncio.ensure_future(tickwork.map(run, range(100), workers=2, chunk_size=10))
    await wait_until(lambda: len(began) == 2)
    await end(batch)
    go.set()
    await wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("tickwork-thread")])

    assert sorted(began) == [0, 10]


@pytest.mark.parametrize("chunk_size", [1, 50])
async def test_a_function_that_keeps_the_cancellation_to_itself_is_its_last(chunk_size: int) -> None:
    ended: list[int] = []

    async def run(number: int) -> int:
        try:
            await asyncio.sleep(0.01 if ended else 60)
        except asyncio.CancelledError:
            pass
        ended.append(number)
        return number

    batch = asyncio.ensure_future(tickwork.map(run, range(100), workers=2, chunk_size=chunk_size))
    await settle()
    await end(batch)

    assert sorted(ended) == [0, chunk_size]


async def test_functions_on_the_loop_have_tidied_up_when_it_returns() -> None:
    tidied: list[int] = []

    async def run(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            tidied.append(number)

    batch = asyncio.ensure_future(tickwork.map(run, range(5), workers=3, chunk_size=1))
    await settle()
    await end(batch)

    assert sorted(tidied) == [0, 1, 2]


async def test_an_error_of_one_item_cancels_the_others_before_it_is_raised() -> None:
    tidied: list[int] = []

    async def run(number: int) -> None:
        try:
            await asyncio.sleep(0 if number == 2 else 60)
            raise LookupError
        finally:
            tidied.append(number)

    with pytest.raises(LookupError):
        await tickwork.map(run, range(5), workers=3, chunk_size=1)

    assert sorted(tidied) == [0, 1, 2]


async def test_a_timeout_around_it_ends_it() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await tickwork.map(wait_for_ever, range(5))


async def test_cancelled_while_it_waits_for_an_item_it_lets_the_generator_tidy_up() -> None:
    tidied: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append("items")

    batch = asyncio.ensure_future(tickwork.map(functions.same, items(), run_in="loop"))
    await settle()
    await end(batch)

    assert tidied == ["items"]


async def test_cancelled_while_an_item_waits_for_its_next_attempt() -> None:
    began = 0

    async def fail(_number: int) -> None:
        nonlocal began
        began += 1
        raise ValueError

    batch = asyncio.ensure_future(tickwork.map(fail, [1], retry=tickwork.Retry(5, delay=3_600)))
    await settle()
    await end(batch)

    assert began == 1


async def test_cancelled_twice_it_still_ends_what_it_has_started(tmp_path: Path, wait_until: Any) -> None:
    batch = asyncio.ensure_future(tickwork.map(functions.until_told, [(str(tmp_path), 1)], run_in="process"))
    await wait_until(lambda: list(tmp_path.glob("began-*")))

    batch.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    batch.cancel()
    await asyncio.wait([batch])

    assert batch.cancelled()
    assert children() == []


def one_after_the_other(place: str, folder: Path) -> Callable[[], Awaitable[Any]]:
    async def through_amap() -> None:
        async for _ in tickwork.amap(functions.work_10_ms, forever(), run_in="process", workers=2):
            pass

    makes: dict[str, Callable[[], Awaitable[Any]]] = {
        "process": lambda: tickwork.map(functions.work_10_ms, forever(), run_in="process", workers=2),
        "thread": lambda: tickwork.map(functions.work_10_ms, forever(), workers=2, timeout=5),
        "loop": lambda: tickwork.map(asyncio.sleep, itertools.repeat(0.001), workers=3, timeout=5),
        "amap": through_amap,
    }
    return makes[place]


@pytest.mark.parametrize("place", ["loop", "thread", "process", "amap"])
async def test_cancelled_at_any_moment_it_leaves_nothing(place: str, tmp_path: Path) -> None:
    random_one = random.Random(11)
    most = {"loop": 0.02, "thread": 0.05, "process": 0.3, "amap": 0.3}[place]
    for _ in range({"loop": 40, "thread": 20}.get(place, 8)):
        batch = asyncio.ensure_future(one_after_the_other(place, tmp_path)())
        await asyncio.wait([batch], timeout=random_one.uniform(0, most))

        await end(batch)

        assert children() == []
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tickwork-")]


# --- amap --------------------------------------------------------------------------------------------------------


def batch_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("tickwork-")]


async def test_leaving_the_loop_early_ends_the_batch(wait_until: Any) -> None:
    async for outcome in tickwork.amap(functions.same, forever(), run_in="process", workers=2):
        if outcome.index == 100:
            break

    await wait_until(lambda: not batch_tasks())
    assert children() == []


async def test_an_error_in_the_loop_ends_the_batch(wait_until: Any) -> None:
    with pytest.raises(LookupError):
        async for _ in tickwork.amap(functions.same, forever(), run_in="process", workers=2):
            raise LookupError

    await wait_until(lambda: not batch_tasks())
    assert children() == []


async def test_leaving_the_block_waits_until_all_has_ended() -> None:
    async with tickwork.amap(functions.same, forever(), run_in="process", workers=2) as outcomes:
        async for outcome in outcomes:
            if outcome.index == 100:
                break

    assert batch_tasks() == []
    assert children() == []


async def test_closing_it_ends_the_batch_and_may_be_repeated() -> None:
    outcomes = tickwork.amap(functions.same, forever(), run_in="process", workers=2)
    await anext(outcomes)

    await outcomes.aclose()
    await outcomes.aclose()

    assert children() == []
    with pytest.raises(StopAsyncIteration):
        await anext(outcomes)


async def test_closing_what_has_not_begun_begins_nothing() -> None:
    async with tickwork.amap(functions.same, forever()):
        pass

    assert batch_tasks() == []


async def test_closing_ends_it_for_whoever_waits_for_the_next_outcome() -> None:
    outcomes = tickwork.amap(wait_for_ever, range(3))
    waiting = asyncio.ensure_future(anext(outcomes, None))
    await settle()

    await outcomes.aclose()

    assert await waiting is None


async def test_what_is_dropped_ends_also_when_another_thread_collects_it(wait_until: Any) -> None:
    outcomes: Any = tickwork.amap(functions.same, forever(), run_in="loop")
    await anext(outcomes)
    ring: list[Any] = [outcomes]
    ring.append(ring)
    del outcomes, ring
    assert batch_tasks()

    await asyncio.to_thread(gc.collect)

    await wait_until(lambda: not batch_tasks())


async def test_whoever_is_cancelled_while_it_waits_has_ended_the_batch(tmp_path: Path, wait_until: Any) -> None:
    items = ((str(tmp_path), number) for number in forever())

    async def consume() -> None:
        async for _ in tickwork.amap(functions.until_told, items, run_in="process", workers=2):
            pass

    consumer = asyncio.ensure_future(consume())
    await wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2)
    await end(consumer)

    assert batch_tasks() == []
    assert children() == []


def test_a_loop_that_ends_ends_the_batches_that_were_left() -> None:
    async def leave() -> Any:
        outcomes = tickwork.amap(functions.same, forever(), run_in="process", workers=2)
        await anext(outcomes)
        return outcomes  # which so is alive when the loop closes

    outcomes = asyncio.run(leave())

    assert children() == []
    del outcomes
