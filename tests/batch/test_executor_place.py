"""`map` in an executor: of threads, where everything stays as it is, and of processes."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from multiprocessing import get_context, resource_tracker
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import tickwork
from tickwork.errors import ExecutorFailed, InvalidOption, ItemError, NotImportable

from . import functions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        wait_at_two, range(5), on_error="collect", executor=threads, timeout="1s", chunk_size=5, workers=2
    )
    go.set()

    assert [found[0], found[1], found[3], found[4]] == [0, 1, 3, 4]
    assert str(found[2].error) == "it ran longer than its timeout of 1 s"  # type: ignore[union-attr]


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
    await asyncio.to_thread(threads.shutdown)

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
        (double, {"run_in": "thread"}, "executor must be left out, got <"),
        (coroutine_function, {"run_in": "executor"}, "function must be a plain function, got 'batch."),
    ],
)
async def test_options_that_do_not_go_together_are_refused(
    threads: Executor, fn: Any, options: dict[str, Any], message: str
) -> None:
    if options["run_in"] == "thread" or fn is coroutine_function:
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


async def test_a_result_that_does_not_unpickle_makes_no_item_run_twice(processes: Executor, tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(20)]

    found: list[Any] = await tickwork.map(
        functions.counted_no_unpickle_at_7, items, on_error="collect", executor=processes, chunk_size=20
    )

    assert str(found.pop(7).error) == (
        "result of batch.functions.counted_no_unpickle_at_7: it cannot be unpickled: ValueError: unreadable"
    )
    assert found == [[number] for number in range(20) if number != 7]
    assert [functions.runs_of(tmp_path, number) for number in range(20)] == [1] * 20


class KilledWorker(Exception):
    """As that of Dask, by its name."""


class Mortal(Executor):
    """Each call has a process of its own, so to speak, which dies when the call has met the deadly item."""

    def __init__(self) -> None:
        self.deaths = self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls += 1
        asyncio.get_running_loop().call_soon(self._end, future, pickle.dumps(fn))
        return future

    def _end(self, future: Future[Any], call: bytes) -> None:
        met.clear()
        answer = pickle.loads(call)()
        if met:
            self.deaths += 1
            future.set_exception(KilledWorker("it died"))
        else:
            future.set_result(answer)


met: list[object] = []


def meet(value: Any) -> None:
    if value in (1_050, "number 1050"):
        met.append(value)


@pytest.mark.parametrize("items", [range(1_000, 1_100), list(range(1_000, 1_100))], ids=["range", "list"])
@pytest.mark.parametrize("chunk_size", [1, 5, "auto"])
async def test_a_deadly_item_costs_no_more_processes_than_it_may(items: Any, chunk_size: Any) -> None:
    executor = Mortal()

    found = await tickwork.map(
        meet, items, executor=executor, on_error="collect", chunk_size=chunk_size, workers=8, max_deaths=3
    )

    assert [index for index, entry in enumerate(found) if entry is not None] == [50]
    assert isinstance(found[50], ItemError)
    assert found[50].attempts == 3
    assert executor.deaths == 4  # the first one in company


async def test_a_file_with_deadly_contents_costs_no_more_processes_than_it_may(tmp_path: Path) -> None:
    for number in range(1_000, 1_100):
        (tmp_path / str(number)).write_text(f"number {number}")
    executor = Mortal()

    async with asyncio.timeout(20):
        found = await tickwork.map_files(
            tmp_path, meet, read="text", executor=executor, on_error="collect", chunk_size=5, workers=8
        )

    assert [path.name for path, entry in found.items() if entry is not None] == ["1050"]
    assert executor.deaths == 4


class Watched(ThreadPoolExecutor):
    """Knows how many calls it had at a time, those included that had to wait; none ends before it has had so many."""

    def __init__(self, threads: int, until: int) -> None:
        super().__init__(threads)
        self.under_way: set[Future[Any]] = set()
        self.most, self.until, self.go = 0, until, threading.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.under_way = {future for future in self.under_way if not future.done()}
        future = super().submit(fn, *args, **kwargs)
        self.under_way.add(future)
        self.most = max(self.most, len(self.under_way))
        if self.most >= self.until:
            self.go.set()
        return future


@pytest.mark.parametrize(("options", "most"), [({"timeout": 60}, 2), ({"timeout": 60, "workers": 9}, 2), ({}, 4)])
async def test_with_a_timeout_no_item_waits_in_an_executor_for_its_turn(options: dict[str, Any], most: int) -> None:
    with Watched(2, until=most) as executor:
        await tickwork.map(lambda _: executor.go.wait(10), range(100), executor=executor, chunk_size=1, **options)

    assert executor.most == most


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
