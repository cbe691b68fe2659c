from __future__ import annotations

import asyncio
import sys
from time import thread_time

import pytest

from tickwork.batch.pace import WORK_SECONDS, Pace, Turns


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what only Linux counts by thread")
def test_a_thread_that_computes_stops_often() -> None:
    import resource

    def stops() -> int:
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    pace, before = Pace(), stops()
    until = thread_time() + 40 * WORK_SECONDS
    while thread_time() < until:
        pace.keep()
    assert stops() - before >= 20


async def test_tasks_that_come_at_once_have_a_turn_of_the_loop_each() -> None:
    turns, told, number = Turns(), [], 0

    async def count() -> None:
        nonlocal number
        while True:
            number += 1
            await asyncio.sleep(0)

    async def come(name: str) -> None:
        await turns.take()
        told.append((name, number))

    counter = asyncio.create_task(count())
    await asyncio.gather(*map(come, "abc"))
    await come("d")
    counter.cancel()

    assert [name for name, _ in told] == ["a", "b", "c", "d"]
    assert len({turn for _, turn in told}) == 4
