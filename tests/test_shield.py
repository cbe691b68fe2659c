"""Work that must not be cut off: it goes on to its end, and the cancellation comes after."""

from __future__ import annotations

import asyncio

import pytest

from tickwork.shield import is_meant_for_us, to_its_end


async def test_a_cancellation_comes_after_the_work() -> None:
    gate, hurried, done = asyncio.Event(), [], []

    async def work() -> None:
        await gate.wait()
        done.append(True)

    task = asyncio.create_task(to_its_end(work(), on_cancel=lambda: hurried.append(True)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert (task.done(), hurried) == (False, [True])
    gate.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


async def test_a_cancellation_at_the_moment_of_the_end_is_not_lost() -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        return await ended

    inner = asyncio.ensure_future(work())
    outer = asyncio.create_task(to_its_end(inner))
    await asyncio.sleep(0)
    inner.add_done_callback(lambda _: outer.cancel())  # after the callbacks that wake the waiter
    ended.set_result("done")

    with pytest.raises(asyncio.CancelledError):
        await outer
    assert inner.result() == "done"


async def test_work_that_cancels_itself_raises_that() -> None:
    async def work() -> None:
        raise asyncio.CancelledError("its own")

    with pytest.raises(asyncio.CancelledError, match="its own"):
        await to_its_end(work())
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await to_its_end(work())


async def test_only_a_cancellation_that_somebody_asked_for_is_meant_for_us() -> None:
    assert not is_meant_for_us(asyncio.CancelledError())
    assert not is_meant_for_us(SystemExit())
    assert is_meant_for_us(KeyboardInterrupt())
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await asyncio.sleep(0)
    assert is_meant_for_us(raised.value)
    current.uncancel()
