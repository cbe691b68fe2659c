"""`map` in an executor: of threads, where everything stays as it is, and of processes."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from multiprocessing import get_context, resource_tracker
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import tickwork
from tickwork.errors import ExecutorFailed, InvalidOption, ItemError, NotImportable

if TYPE_CHECKING:
    from collections.abc import Iterator

colour: ContextVar[str] = ContextVar("colour", default="none")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        executor.submit(double, 1).result()  # it is started now, and not in a test
        yield executor


@pytest.fixture(scope="module", autouse=True)
def tracker() -> Iterator[None]:
    """Outlive the executors, with a process of the standard library's own."""
    resource_tracker.ensure_running()
    yield
    gc.collect()
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


def double(number: int) -> int:
    return 2 * number


def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def where(_number: int) -> int:
    return os.getpid()


def lock_at_two(number: int) -> Any:
    return threading.Lock() if number == 2 else number


def exit_at_two(number: int) -> int:
    if number == 2:
        os._exit(3)
    return number


async def test_in_threads_everything_stays_as_it_is(threads: Executor) -> None:
    locks = [threading.Lock() for _ in range(5)]
    colour.set("red")

    found = await tickwork.map(lambda lock: (lock, colour.get()), locks, executor=threads)

    assert [lock for lock, _ in found] == locks
    assert {seen for _, seen in found} == {"red"}


async def test_results_come_in_order_from_processes(processes: Executor) -> None:
    assert await tickwork.map(double, range(10_000), executor=processes) == list(range(0, 20_000, 2))
    assert os.getpid() not in await tickwork.map(where, range(4), executor=processes, run_in="executor")
    assert [outcome.value async for outcome in tickwork.amap(double, range(100), executor=processes)] == list(
        range(0, 200, 2)
    )


@pytest.mark.parametrize("is_away", [False, True])
async def test_an_item_that_fails_is_an_error_of_its_own(threads: Executor, processes: Executor, is_away: bool) -> None:
    executor = processes if is_away else threads

    found = await tickwork.map(odd_fails, range(100), on_error="collect", executor=executor, chunk_size=7)

    assert found[::2] == list(range(0, 100, 2))
    assert all(isinstance(error, ItemError) for error in found[1::2])
    assert [str(error.error) for error in found[1::2]] == [f"{n} is odd" for n in range(1, 100, 2)]  # type: ignore[union-attr]


async def test_what_cannot_travel_costs_only_its_item(processes: Executor) -> None:
    items: list[Any] = [1, threading.Lock(), 3]

    sent = await tickwork.map(same, items, on_error="collect", executor=processes, chunk_size=3)
    back = await tickwork.map(lock_at_two, range(4), on_error="collect", executor=processes, chunk_size=4)

    name = f"{__name__}.same"
    assert [sent[0], sent[2]] == [1, 3]
    assert str(sent[1].error) == (
        f"item of {name}: a lock cannot be pickled for a process of the executor: cannot pickle '_thread.lock' object"
    )
    assert [back[0], back[1], back[3]] == [0, 1, 3]
    assert str(back[2].error) == (
        f"result of {__name__}.lock_at_two: a lock cannot be pickled in the process of the executor: "
        "cannot pickle '_thread.lock' object"
    )


def same(value: Any) -> Any:
    return value


@pytest.mark.blocks("the first call of a ProcessPoolExecutor starts its processes")
async def test_an_executor_that_is_broken_ends_the_batch() -> None:
    def run() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    executor = run()
    try:
        with pytest.raises(ExecutorFailed, match="BrokenProcessPool"):
            await tickwork.map(exit_at_two, range(10), executor=executor, chunk_size=5)
    finally:
        executor.shutdown()
        del executor
        gc.collect()


async def test_an_item_that_overruns_has_failed_and_the_others_go_on(threads: Executor) -> None:
    go = threading.Event()

    def wait_at_two(number: int) -> int:
        if number == 2:
            go.wait()
        return number

    found = await tickwork.map(
        wait_at_two, range(5), on_error="collect", executor=threads, timeout="50ms", chunk_size=5, workers=2
    )
    go.set()

    assert [found[0], found[1], found[3], found[4]] == [0, 1, 3, 4]
    assert str(found[2].error) == "it ran longer than its timeout of 0.05 s"  # type: ignore[union-attr]


async def test_cancelled_it_begins_no_further_item(threads: Executor) -> None:
    begun, go = threading.Event(), threading.Event()
    seen: list[int] = []

    def work(number: int) -> None:
        seen.append(number)
        begun.set()
        go.wait()

    batch = asyncio.create_task(tickwork.map(work, range(100), executor=threads, chunk_size=50, workers=1))
    await asyncio.to_thread(begun.wait)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    go.set()
    await asyncio.to_thread(threads.submit(time.sleep, 0).result)

    assert seen == [0]


async def coroutine_function(number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        (
            double,
            {"run_in": "executor"},
            'executor must be given for run_in="executor", got None; use map(..., executor=...)',
        ),
        (coroutine_function, {}, "executor must be left out, got <"),
        (double, {"run_in": "thread"}, "executor must be left out, got <"),
        (coroutine_function, {"run_in": "executor"}, "function must be a plain function, got 'batch."),
    ],
)
async def test_options_that_do_not_go_together_are_refused(
    threads: Executor, fn: Any, options: dict[str, Any], message: str
) -> None:
    if "run_in" not in options or options["run_in"] == "thread" or fn is coroutine_function:
        options = {**options, "executor": threads}

    with pytest.raises(InvalidOption) as raised:
        await tickwork.map(fn, [1], **options)

    assert str(raised.value).startswith(message)


async def test_what_is_no_executor_is_refused() -> None:
    class Client:
        def get_executor(self) -> NoReturn:
            raise AssertionError

    with pytest.raises(InvalidOption) as raised:
        await tickwork.map(double, [1], executor=Client())  # type: ignore[call-overload]

    assert str(raised.value).startswith("executor must be a concurrent.futures.Executor, got <")
    assert str(raised.value).endswith("; use client.get_executor()")


async def test_a_lambda_is_refused_before_anything_runs_in_processes(processes: Executor) -> None:
    with pytest.raises(NotImportable, match="it is a lambda"):
        await tickwork.map(lambda number: number, [1], executor=processes)


class Slow(ThreadPoolExecutor):
    """Takes its time for each call that it is given, as clusters do."""

    calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        time.sleep(0.004)
        return super().submit(fn, *args, **kwargs)


@pytest.mark.blocks("the executor is slow")
async def test_chunks_grow_although_the_executor_is_slow_to_take_them() -> None:
    with Slow(2) as executor:
        assert await tickwork.map(double, range(2_000), executor=executor) == list(range(0, 4_000, 2))

    assert executor.calls < 100
