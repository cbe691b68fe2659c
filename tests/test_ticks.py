from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tickwork import At, Cron, Every, Tick
from tickwork.testing import VirtualClock, VirtualLoop
from tickwork.ticks import Ticks


@pytest.fixture
def anyio_backend(virtual_backend: Any) -> Any:
    return virtual_backend


def virtual_clock() -> VirtualClock:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.clock


async def collect(ticks: Ticks, found: list[Tick], body: float = 0.0, limit: int = 1000) -> None:
    async for tick in ticks:
        found.append(tick)
        if len(found) == limit:
            return
        await asyncio.sleep(body)


async def test_ticks_come_at_their_instants() -> None:
    clock, found = virtual_clock(), list[Tick]()
    start = clock.now()
    task = asyncio.ensure_future(collect(Every("10s").__aiter__(), found))
    await clock.advance("35s")
    task.cancel()

    assert found == [Tick(start + timedelta(seconds=10 * n), 0.0, 0) for n in (1, 2, 3)]


async def test_a_body_longer_than_the_period_gets_the_latest_tick_and_is_told_how_many_it_missed() -> None:
    clock, found = virtual_clock(), list[Tick]()
    start = clock.now()
    task = asyncio.ensure_future(collect(Every("10s").__aiter__(), found, body=25.0))
    await clock.advance("61s")
    task.cancel()

    # Begun at 10, 35 (late for 30, which stands for 20 too) and 60.
    assert [(tick.fire_time - start).total_seconds() for tick in found] == [10, 30, 60]
    assert [tick.late_by for tick in found] == [0.0, 5.0, 0.0]
    assert [tick.missed for tick in found] == [0, 1, 2]


async def test_the_loop_ends_with_the_trigger() -> None:
    clock, found = virtual_clock(), list[Tick]()
    when = clock.now() + timedelta(seconds=5)
    task = asyncio.ensure_future(collect(At(when).__aiter__(), found))
    await clock.advance("5s")
    await task

    assert [tick.fire_time for tick in found] == [when]


async def test_a_cancelled_wait_goes_on_where_it_was() -> None:
    clock = virtual_clock()
    ticks = Every("10s").__aiter__()
    first = asyncio.ensure_future(ticks.__anext__())
    await clock.advance("4s")
    first.cancel()
    await clock.advance("8s")

    tick = await ticks.__anext__()
    assert (tick.late_by, tick.missed) == (2.0, 0)


async def test_cron_ticks_follow_the_zone_over_a_clock_change() -> None:
    clock = virtual_clock()
    await clock.advance(datetime(2026, 3, 28, tzinfo=UTC) - clock.now())
    found = list[Tick]()
    task = asyncio.ensure_future(collect(Cron("30 2 * * *", timezone="Europe/Berlin").__aiter__(), found, limit=3))
    await clock.advance("3d")
    await task

    assert [tick.fire_time.strftime("%d %H:%M") for tick in found] == ["28 01:30", "29 01:00", "30 00:30"]


async def test_a_wall_clock_set_forwards_brings_the_latest_tick_at_once() -> None:
    clock, found = virtual_clock(), list[Tick]()
    task = asyncio.ensure_future(collect(Every("1h").__aiter__(), found))
    await clock.advance("1s")
    clock.jump_wall(3 * 3600)
    await clock.advance("1s")
    task.cancel()

    assert [tick.missed for tick in found] == [2]


async def test_a_tick_whose_wait_is_cancelled_at_the_last_moment_comes_again() -> None:
    clock = virtual_clock()
    start = clock.now()
    ticks = Every("10s").__aiter__()
    early = asyncio.ensure_future(ticks.__anext__())
    await clock.advance("1s")
    early.cancel()
    await asyncio.wait([early])
    await clock.advance("9s")
    late = asyncio.ensure_future(ticks.__anext__())
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.wait([late])

    assert await ticks.__anext__() == Tick(start + timedelta(seconds=10), 0.0, 0)
