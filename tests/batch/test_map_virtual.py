"""Batches of coroutine functions on virtual time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

import tickwork
from tickwork import ItemError, Retry
from tickwork.testing import virtual_loop_factory


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": partial(virtual_loop_factory, autojump=True), "debug": True}


async def test_items_that_wait_run_beside_each_other() -> None:
    async def hour(number: int) -> int:
        await asyncio.sleep(3_600)
        return number

    loop = asyncio.get_running_loop()
    began = loop.time()

    assert await tickwork.map(hour, range(100), workers=20) == list(range(100))
    assert loop.time() - began == pytest.approx(5 * 3_600)


async def test_retries_and_timeouts_are_virtual() -> None:
    runs = 0

    async def run(_number: int) -> None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(7_200)

    loop = asyncio.get_running_loop()
    began = loop.time()
    (error,) = await tickwork.map(
        run, [1], timeout="1h", retry=Retry(3, delay="30m", factor=1, jitter=0), on_error="collect"
    )

    assert isinstance(error, ItemError)
    assert runs == 3
    assert loop.time() - began == pytest.approx(3 * 3_600 + 2 * 1_800)
