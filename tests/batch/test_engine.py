"""The engine against a place that ends its chunks in every way: each item is told of once, with its own value."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwork import ItemError, Retry
from tickwork.batch.chunks import Sizer
from tickwork.batch.engine import Engine, Rules, Segment
from tickwork.batch.outcomes import Piece
from tickwork.batch.places import Ended, Place
from tickwork.batch.sources import source_of
from tickwork.errors import ProcessDied


class Moody(Place):
    """Ends a chunk as a random generator likes it, and counts how often an item has run to its end."""

    def __init__(self, lanes: int, draws: random.Random) -> None:
        self.lanes, self._draws = lanes, draws
        self.running = self.most = 0
        self.is_closed = False

    async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(self._draws.randrange(4)):
                await asyncio.sleep(0)
            return self._end(items)
        finally:
            self.running -= 1

    def _end(self, items: Sequence[Any]) -> Ended:
        draw, count = self._draws, len(items)
        how = draw.randrange(8)
        if how == 0 and count > 1:
            return Ended(is_refused=True) if draw.randrange(2) else Ended(is_unclear=True)
        if how == 1:
            return Ended(culprit=(draw.randrange(count), ProcessDied("moody", 1, 1)))
        if how == 2:
            place = draw.randrange(count)
            came = draw.randrange(place + 1)
            return Ended([item * 10 for item in items[:came]], [], culprit=(place, TimeoutError("late")))
        ran = draw.randint(1, count)
        values: list[Any] = [item * 10 for item in items[:ran]]
        failures: list[tuple[int, BaseException]] = []
        if how == 3:
            place = draw.randrange(ran)
            values[place] = None
            failures.append((place, ValueError("moody")))
        return Ended(values, failures, draw.random() / 100, draw.random() / 1_000)

    async def aclose(self) -> None:
        self.is_closed = True


def source_items(kind: str, count: int, draws: random.Random) -> Any:
    def sync() -> Iterator[int]:
        yield from range(count)

    async def awaited() -> AsyncIterator[int]:
        for number in range(count):
            if draws.randrange(5) == 0:
                await asyncio.sleep(0)
            yield number

    return {"list": lambda: list(range(count)), "iterator": sync, "async": awaited}[kind]()


@settings(deadline=None, max_examples=150)
@given(
    count=st.integers(0, 200),
    lanes=st.integers(1, 6),
    kind=st.sampled_from(["list", "iterator", "async"]),
    fixed=st.none() | st.integers(1, 50),
    window=st.none() | st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_each_item_is_told_of_once_however_chunks_end(
    count: int, lanes: int, kind: str, fixed: int | None, window: int | None, seed: int
) -> None:
    draws = random.Random(seed)

    async def run() -> tuple[dict[int, Any], Moody]:
        place = Moody(lanes, draws)
        told: dict[int, Any] = {}
        engine: Engine

        async def on_piece(piece: Piece) -> None:
            assert len(piece.items) == len(piece.values) > 0
            for at, (item, value) in enumerate(zip(piece.items, piece.values, strict=True)):
                index = piece.first + at
                assert item == index
                assert index not in told
                told[index] = piece.errors.get(at, value)
            # Somebody takes note now, or in a while.
            asyncio.get_running_loop().call_later(draws.choice([0, 0, 0.001]), engine.told, len(piece.values))

        source = source_of(source_items(kind, count, draws))
        sizer = Sizer(lanes, fixed, source.total)
        rules = Rules(Retry(3, delay=0), (Exception,), max_deaths=3)
        engine = Engine(source, place, sizer, rules, on_piece, window_chunks=window)
        async with asyncio.timeout(30):
            await engine.run()
        return told, place

    told, place = asyncio.run(run())

    assert sorted(told) == list(range(count))
    for index, value in told.items():
        if isinstance(value, ItemError):
            assert (value.index, value.item) == (index, index)
            assert value.attempts >= 3
        else:
            assert value == index * 10
    assert place.most <= lanes
    assert place.is_closed


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(1, 4), st.sampled_from(["list", "iterator", "async"]), st.integers(0, 2**32))
def test_an_engine_that_is_cancelled_at_any_turn_leaves_nothing(turns: int, lanes: int, kind: str, seed: int) -> None:
    draws = random.Random(seed)

    async def run() -> Moody:
        place = Moody(lanes, draws)

        async def on_piece(_piece: Piece) -> None:
            await asyncio.sleep(0)

        source = source_of(source_items(kind, 10_000, draws))
        rules = Rules(Retry(3, delay=0.001), (Exception,), max_deaths=3)
        engine = Engine(source, place, Sizer(lanes, 3, source.total), rules, on_piece)
        running = asyncio.ensure_future(engine.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return place

    place = asyncio.run(run())

    assert place.running == 0
    assert place.is_closed or turns == 0  # it had not begun


async def test_what_is_known_already_is_not_run() -> None:
    ran: list[int] = []

    class Recording(Moody):
        async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
            ran.extend(items)
            return Ended(list(items))

    async def odd_ones(segment: Segment) -> list[Segment]:
        return [Segment(segment.first + at, [item]) for at, item in enumerate(segment.items) if item % 2 and item < 50]

    async def on_piece(_piece: Piece) -> None: ...

    source = source_of(range(1_000))
    engine = Engine(
        source, Recording(2, random.Random(0)), Sizer(2, None, 1_000), Rules(None, (), 3), on_piece, on_items=odd_ones
    )
    await engine.run()

    assert sorted(ran) == list(range(1, 50, 2))


@pytest.mark.parametrize("where", ["piece", "items", "place"])
async def test_what_is_raised_inside_ends_the_batch(where: str) -> None:
    class Broken(Moody):
        async def run(self, items: Sequence[Any], seconds: float, first: int) -> Ended:
            if where == "place":
                raise LookupError(where)
            return Ended(list(items))

    async def on_items(segment: Segment) -> list[Segment]:
        if where == "items":
            raise LookupError(where)
        return [segment]

    async def on_piece(_piece: Piece) -> None:
        if where == "piece":
            raise LookupError(where)

    place = Broken(2, random.Random(0))
    rules = Rules(Retry(5, delay=0), (Exception,), 3)
    engine = Engine(source_of(range(100)), place, Sizer(2, None, 100), rules, on_piece, on_items=on_items)
    with pytest.raises(LookupError, match=f"^{where}$"):
        await engine.run()

    assert place.is_closed
