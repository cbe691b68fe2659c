from __future__ import annotations

import asyncio
import threading
import time
from contextvars import copy_context

from tickwork.runners.thread import ThreadRunner


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tickwork-thread")]


def wait_until_gone() -> None:
    deadline = time.monotonic() + 30
    while names():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_thread_ends_whose_function_returns_when_the_loop_runs_no_more() -> None:
    go, began = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        go.wait(10)

    async def leave() -> None:
        threads = ThreadRunner()
        threads.start(copy_context(), run, (), {})
        await asyncio.to_thread(began.wait, 30)
        threads.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    go.set()

    wait_until_gone()
    loop.close()


def test_a_thread_that_is_started_after_the_end_ends_as_well() -> None:
    async def late() -> object:
        threads = ThreadRunner()
        threads.close()
        return await threads.start(copy_context(), int, ("7",), {})

    assert asyncio.run(late()) == (7, None)
    wait_until_gone()


def test_a_thread_is_used_again() -> None:
    async def twice() -> set[object]:
        threads = ThreadRunner()
        found = {(await threads.start(copy_context(), threading.get_ident, (), {}))[0] for _ in range(3)}
        threads.close()
        return found

    assert len(asyncio.run(twice())) == 1
    wait_until_gone()
