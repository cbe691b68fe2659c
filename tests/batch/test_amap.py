from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest

import tickwork
from tickwork import ItemError, ItemOutcome, Retry
from tickwork.batch.chunks import MAX_ITEMS
from tickwork.batch.stream import WINDOW_CHUNKS
from tickwork.errors import InvalidOption, NotRunning

from . import functions

PLACES = ["loop", "thread", "process"]


async def same(value: Any) -> Any:
    return value


def fn_for(run_in: str) -> Callable[[Any], Any]:
    return same if run_in == "loop" else functions.same


async def all_of(outcomes: Any) -> list[ItemOutcome[Any, Any]]:
    return [outcome async for outcome in outcomes]


async def extend(found: list[Any], outcomes: Any) -> None:
    async for outcome in outcomes:
        found.append(outcome)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize("run_in", PLACES)
async def test_outcomes_come_in_the_order_of_the_items(run_in: Any) -> None:
    outcomes = await all_of(tickwork.amap(fn_for(run_in), (str(number) for number in range(300)), run_in=run_in))

    assert outcomes == [ItemOutcome(number, str(number), str(number), None) for number in range(300)]


@pytest.mark.parametrize("run_in", PLACES)
async def test_outcomes_as_they_end_are_the_same_in_some_order(run_in: Any) -> None:
    outcomes = await all_of(tickwork.amap(fn_for(run_in), range(300), run_in=run_in, ordered=False))

    assert sorted(outcome.index for outcome in outcomes) == list(range(300))
    assert all(outcome.index == outcome.item == outcome.value for outcome in outcomes)


async def test_as_they_end_a_slow_item_holds_up_no_other() -> None:
    gate = asyncio.Event()

    async def run(number: int) -> int:
        if number == 0:
            await gate.wait()
        return number

    found = []
    async for outcome in tickwork.amap(run, range(50), ordered=False, workers=2, chunk_size=1):
        found.append(outcome.index)
        if len(found) == 5:
            gate.set()

    assert found[0] != 0
    assert sorted(found) == list(range(50))


async def test_in_order_those_behind_a_slow_item_wait_for_it() -> None:
    gate = asyncio.Event()
    ended: list[int] = []

    async def run(number: int) -> int:
        if number == 0:
            await gate.wait()
        ended.append(number)
        if len(ended) == 4:
            gate.set()
        return number

    outcomes = await all_of(tickwork.amap(run, range(30), workers=2, chunk_size=1))

    assert [outcome.index for outcome in outcomes] == list(range(30))
    assert ended[4] == 0


@pytest.mark.parametrize("run_in", PLACES)
async def test_nothing_comes_of_no_items(run_in: Any) -> None:
    assert await all_of(tickwork.amap(fn_for(run_in), [], run_in=run_in)) == []
    assert await all_of(tickwork.amap(fn_for(run_in), iter(()), run_in=run_in)) == []


# --- how much is taken and kept ----------------------------------------------------------------------------------


class Counted:
    """Endless numbers, sync and async, which tell how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def sync(self) -> Iterator[int]:
        while True:
            self.taken += 1
            yield self.taken - 1

    async def awaited(self) -> AsyncIterator[int]:
        for number in self.sync():
            yield number


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["sync", "awaited"])
async def test_a_consumer_that_is_slow_holds_up_an_endless_source(kind: str) -> None:
    source, seen = Counted(), 0
    most = 0
    async with tickwork.amap(same, getattr(source, kind)(), workers=3, chunk_size=2) as outcomes:
        async for outcome in outcomes:
            await settle()
            seen += 1
            most = max(most, source.taken - seen)
            if outcome.index == 60:
                break

    # so many may be taken and not told of; a chunk is in the consumer's hands, an async source is one ahead
    assert most <= WINDOW_CHUNKS * 3 * 2 + 2 + 2


async def test_a_slow_first_item_holds_up_an_endless_source() -> None:
    source, gate = Counted(), asyncio.Event()

    async def run(number: int) -> int:
        if number == 0:
            await gate.wait()
        return number

    async with tickwork.amap(run, source.sync(), workers=3, chunk_size=1) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await settle()
        assert source.taken <= WINDOW_CHUNKS * 3
        gate.set()
        assert (await first).index == 0
        assert [(await anext(outcomes)).index for _ in range(100)] == list(range(1, 101))


async def test_what_is_taken_while_nobody_looks_is_bounded_however_small_the_items_are() -> None:
    source = Counted()
    async with tickwork.amap(same, source.sync(), workers=2) as outcomes:
        for _ in range(10_000):
            await anext(outcomes)
        await settle()

        assert source.taken <= 10_000 + (WINDOW_CHUNKS + 1) * 2 * MAX_ITEMS


async def test_nothing_is_taken_before_somebody_asks() -> None:
    source = Counted()
    async with tickwork.amap(same, source.sync()):
        await settle()

    assert source.taken == 0


@pytest.mark.slow
@pytest.mark.parametrize("run_in", PLACES)
def test_a_million_items_take_no_more_memory_than_a_hundred_thousand(run_in: Any) -> None:
    async def measure() -> list[int]:
        items = (str(number) for number in itertools.count())
        resident = []
        async with tickwork.amap(fn_for(run_in), items, run_in=run_in, workers=2) as outcomes:
            async for outcome in outcomes:
                if outcome.index % 100_000 == 99_999:
                    resident.append(psutil.Process().memory_info().rss)
                if len(resident) == 10:
                    break
        return resident

    resident = asyncio.run(measure())

    # A list of their results would take 50 MB more for each hundred thousand that are kept as outcomes.
    assert max(resident) - resident[1] < 40_000_000


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_in", PLACES)
async def test_raise_raises_at_the_turn_of_the_item(run_in: Any) -> None:
    async def on_the_loop(number: int) -> int:
        return functions.tenth_fails(number)

    fn: Any = on_the_loop if run_in == "loop" else functions.tenth_fails
    seen: list[ItemOutcome[int, int]] = []
    with pytest.raises(ValueError, match="^no 7") as caught:
        await extend(seen, tickwork.amap(fn, itertools.count(), run_in=run_in))

    assert [outcome.index for outcome in seen] == list(range(7))
    assert caught.value.__notes__ == ["raised for item 7 (7)"]


async def test_collect_hands_out_the_error_in_the_place_of_the_value() -> None:
    outcomes = await all_of(tickwork.amap(functions.tenth_fails, range(20), on_error="collect"))

    assert [outcome.index for outcome in outcomes] == list(range(20))
    (first, second) = [outcome for outcome in outcomes if outcome.error is not None]
    assert (first.index, first.item, first.value, str(first.error)) == (
        7,
        7,
        None,
        "item 7 (7) failed: ValueError: no 7",
    )
    assert isinstance(second.error, ItemError)
    assert outcomes[3].result() == 3
    with pytest.raises(ValueError, match="^no 7"):
        first.result()


async def test_skip_leaves_failed_items_out() -> None:
    outcomes = await all_of(tickwork.amap(functions.tenth_fails, range(20), on_error="skip"))

    assert [outcome.index for outcome in outcomes] == [number for number in range(20) if number % 10 != 7]


async def test_skipping_all_goes_on_and_is_bounded(wait_until: Any) -> None:
    source = Counted()

    async def fail(number: int) -> None:
        if number == 100:
            await asyncio.Event().wait()
        raise ValueError

    async with tickwork.amap(fail, source.sync(), on_error="skip", workers=2, chunk_size=1) as outcomes:
        waiting = asyncio.ensure_future(anext(outcomes))
        await wait_until(lambda: source.taken > 100)
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])

    assert source.taken <= 100 + 1 + WINDOW_CHUNKS * 2


async def test_what_the_items_raise_comes_after_the_outcomes_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(100)
        raise LookupError("no more")

    seen: list[ItemOutcome[int, int]] = []
    with pytest.raises(LookupError, match="^no more$"):
        await extend(seen, tickwork.amap(functions.same, items(), run_in="process", workers=2))

    assert [outcome.index for outcome in seen] == list(range(100))


async def test_retried_items_keep_their_place() -> None:
    runs: dict[int, int] = {}

    async def run(number: int) -> int:
        runs[number] = runs.get(number, 0) + 1
        if number % 3 == 0 and runs[number] < 3:
            raise ValueError
        return number

    outcomes = await all_of(tickwork.amap(run, range(60), retry=Retry(3, delay=0), workers=4))

    assert [outcome.index for outcome in outcomes] == list(range(60))


# --- who iterates ------------------------------------------------------------------------------------------------


async def test_a_second_loop_goes_on_where_the_first_was_left() -> None:
    outcomes = tickwork.amap(same, range(10))
    first = []
    async for outcome in outcomes:
        first.append(outcome.index)
        if len(first) == 4:
            break

    assert [outcome.index for outcome in await all_of(outcomes)] == list(range(4, 10))
    assert await all_of(outcomes) == []


async def test_a_second_task_that_iterates_at_the_same_time_is_refused() -> None:
    gate = asyncio.Event()

    async def run(number: int) -> int:
        await gate.wait()
        return number

    outcomes = tickwork.amap(run, range(3))
    first = asyncio.ensure_future(all_of(outcomes))
    await settle()
    with pytest.raises(NotRunning) as caught:
        await anext(outcomes)
    gate.set()

    assert str(caught.value) == "another task iterates over this amap; let one iterate and hand out to the others"
    assert [outcome.value for outcome in await first] == [0, 1, 2]


async def test_an_amap_is_a_source_for_another() -> None:
    async def value(outcome: ItemOutcome[int, int]) -> int:
        return outcome.result() + 1

    inner = tickwork.amap(functions.double, range(100))

    assert await tickwork.map(value, inner) == [2 * number + 1 for number in range(100)]


async def test_leaving_the_outer_ends_the_inner() -> None:
    inner = tickwork.amap(same, itertools.count())
    async with tickwork.amap(same, inner) as outcomes:
        await anext(outcomes)

    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tickwork-")]


async def test_ordered_is_a_yes_or_a_no() -> None:
    with pytest.raises(InvalidOption) as caught:
        tickwork.amap(same, [1], ordered="no")  # type: ignore[call-overload]

    assert str(caught.value) == "ordered must be True or False, got 'no'"


async def test_the_function_runs_in_threads_while_the_consumer_works() -> None:
    names = set()
    async for outcome in tickwork.amap(lambda _: threading.current_thread().name, range(20), workers=2):
        names.add(outcome.value)

    assert names <= {"tickwork-thread-1", "tickwork-thread-2"}
