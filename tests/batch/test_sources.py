from __future__ import annotations

import asyncio
import itertools
from array import array
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tickwork.batch.chunks import LOOP_SECONDS
from tickwork.batch.sources import Source, source_of
from tickwork.elapsed import elapsed
from tickwork.errors import InvalidOption


async def all_of(source: Source, count: int = 100) -> list[Any]:
    found: list[Any] = []
    while taken := await source.take(count):
        found += taken
    await source.aclose()
    return found


class OnlyItems:
    """A sequence that cannot be sliced."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Both:
    """What frameworks offer that are older than async: to be awaited inside of a loop."""

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("not inside of a loop")

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([1, 2, 3], 3),
        ((1, 2, 3), 3),
        (range(3), 3),
        ({1: "a", 2: "b"}, 2),
        ({1, 2, 3}, 3),
        (deque([1, 2]), 2),
        (array("i", [1, 2]), 2),
        (memoryview(b"ab"), 2),
        (OnlyItems(), 3),
        ([], 0),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_has_a_length_tells_how_many_there_are(items: Any, expected: int) -> None:
    source = source_of(items)

    assert source.total == expected
    assert await all_of(source, 2) == list(items)


async def test_an_iterator_does_not_tell_how_many_there_are() -> None:
    source = source_of(iter([1, 2]))

    assert source.total is None
    assert await all_of(source) == [1, 2]


async def test_no_more_is_taken_from_an_iterator_than_is_wanted() -> None:
    numbers = itertools.count()
    source = source_of(numbers)

    taken = [len(await source.take(count)) for count in (1, 2, 3, 100)]

    assert taken == [1, 2, 3, 100]
    assert next(numbers) == 106


async def test_what_can_be_iterated_over_in_both_ways_is_awaited() -> None:
    assert await all_of(source_of(Both())) == [1]


@pytest.mark.parametrize("items", [None, 5, object(), len])
def test_what_cannot_be_iterated_over_is_refused(items: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        source_of(items)

    assert str(caught.value) == f"items must be a list, an iterator or an async iterator, got {items!r}"


@pytest.mark.parametrize("text", ["abc", b"abc", ""])
def test_text_is_refused_with_what_may_be_meant(text: str | bytes) -> None:
    with pytest.raises(InvalidOption) as caught:
        source_of(text)

    assert str(caught.value) == (
        f"items must be a list, an iterator or an async iterator, got {text!r}; for one item give a list of it, "
        "[text]; for its characters list(text)"
    )


async def test_takes_from_a_slow_iterator_come_in_different_turns_of_the_loop() -> None:
    turns = 0
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            until = elapsed() + LOOP_SECONDS
            while elapsed() < until:
                pass
            made.append(turns)
            yield number

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    source = source_of(numbers())
    turning = asyncio.ensure_future(turn())
    for _ in range(20):  # as many lanes may within one turn
        assert len(await source.take(10)) == 1
    turning.cancel()

    assert len(set(made)) == 20


async def test_an_iterator_that_raises_gives_first_what_it_gave() -> None:
    def numbers() -> Iterator[int]:
        yield from range(50)
        raise LookupError("no more")

    source = source_of(numbers())
    found: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        while True:
            found += await source.take(32)

    assert found == list(range(50))


async def test_an_async_iterator_that_raises_gives_first_what_it_gave() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(50):
            yield number
        raise LookupError("no more")

    source = source_of(numbers())
    found: list[int] = []
    with pytest.raises(LookupError, match="no more"):
        while True:
            found += await source.take(32)
    await source.aclose()

    assert found == list(range(50))


async def test_a_chunk_does_not_wait_to_become_full() -> None:
    gate = asyncio.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2
        await gate.wait()
        yield 3

    source = source_of(numbers())
    first: list[int] = []
    while len(first) < 2:
        first += await source.take(10)
    rest = asyncio.ensure_future(source.take(10))
    await asyncio.sleep(0)
    assert not rest.done()
    gate.set()

    assert (first, await rest, await source.take(10)) == ([1, 2], [3], ())
    await source.aclose()


async def test_of_an_async_iterator_one_take_is_fetched_in_advance() -> None:
    given = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal given
        for given in itertools.count(1):
            yield given

    source = source_of(numbers())
    for _ in range(5):
        await source.take(4)
    for _ in range(20):
        await asyncio.sleep(0)

    assert given <= 5 * 4 + 4
    await source.aclose()


async def test_an_async_iterator_that_never_waits_does_not_hold_the_loop() -> None:
    turns = 0

    async def numbers() -> AsyncIterator[int]:
        for number in itertools.count():
            until = asyncio.get_running_loop().time() + 0.001
            while asyncio.get_running_loop().time() < until:
                pass
            yield number

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    source = source_of(numbers())
    turning = asyncio.ensure_future(turn())
    taken = 0
    while taken < 40:
        taken += len(await source.take(40))

    assert turns > 3
    turning.cancel()
    await source.aclose()


async def test_an_async_generator_tidies_up_in_the_task_that_ran_it() -> None:
    tasks: list[object] = []

    @asynccontextmanager
    async def scope() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        try:
            yield
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    async def numbers() -> AsyncIterator[int]:
        async with scope():
            for number in itertools.count():
                yield number

    source = source_of(numbers())
    await source.take(3)
    await source.aclose()

    assert len(tasks) == 2
    assert tasks[0] is tasks[1]
