from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tickwork
from conftest import WaitUntil
from tickwork import GiveUp, ItemError, Retry, RetryAfter
from tickwork.batch.chunks import NEAR
from tickwork.errors import RemoteError

from . import functions

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def same(value: Any) -> Any:
    return value


async def tenth_fails(number: int) -> int:
    return functions.tenth_fails(number)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


PLACES: list[Any] = [
    pytest.param(same, None, id="loop"),
    pytest.param(functions.same, None, id="thread"),
    pytest.param(functions.same, "process", id="process"),
]
FAILING: list[Any] = [
    pytest.param(tenth_fails, None, id="loop"),
    pytest.param(functions.tenth_fails, "thread", id="thread"),
    pytest.param(functions.tenth_fails, "process", id="process"),
]


# --- order -------------------------------------------------------------------------------------------------------


KINDS: dict[str, Any] = {
    "list": list(range(500)),
    "one": [7],
    "empty": [],
    "equal": ["a"] * 50,
    "unhashable": [[1], {2: 3}, {4}],
    "range": range(3, 300, 7),
    "set": {3, 1, 2},
    "deque": deque(range(100)),
    "large": [b"x" * 200_000, b"y" * 300_000],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fn", [same, functions.same], ids=["loop", "thread"])
async def test_results_come_in_the_order_of_the_items(fn: Callable[[Any], Any], kind: str) -> None:
    assert await tickwork.map(fn, KINDS[kind]) == list(KINDS[kind])


async def test_results_of_processes_come_in_the_order_of_the_items() -> None:
    async with tickwork.Pool(processes=2) as pool:
        for kind, items in KINDS.items():
            assert await tickwork.map(functions.same, items, run_in="process", pool=pool) == list(items), kind


@pytest.mark.parametrize(("fn", "run_in"), PLACES)
async def test_items_of_a_generator_keep_their_order(fn: Callable[[Any], Any], run_in: Any) -> None:
    assert await tickwork.map(fn, (number for number in range(300)), run_in=run_in) == list(range(300))


@pytest.mark.parametrize(("fn", "run_in"), PLACES)
async def test_items_of_an_async_generator_keep_their_order(fn: Callable[[Any], Any], run_in: Any) -> None:
    assert await tickwork.map(fn, numbers(300), run_in=run_in) == list(range(300))


Item = tuple[int, int, str]
"""How often it waits, how often it fails, and how."""


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(["error", "later", "give up"]))),
    st.integers(1, 7),
    st.sampled_from(["auto", 1, 2, 5, 100]),
    st.sampled_from(["collect", "skip"]),
)
def test_whatever_items_take_and_however_they_fail_the_result_is_that_of_a_loop(
    items: list[Item], workers: int, chunk_size: Any, on_error: Any
) -> None:
    runs = [0] * len(items)

    async def run(entry: tuple[int, Item]) -> int:
        number, (waits, failures, how) = entry
        runs[number] += 1
        for _ in range(waits):
            await asyncio.sleep(0)
        if runs[number] <= failures:
            raise {"error": ValueError(number), "later": RetryAfter(0), "give up": GiveUp(number)}[how]
        return number

    results: list[Any] = asyncio.run(
        tickwork.map(
            run,
            enumerate(items),
            workers=workers,
            chunk_size=chunk_size,
            retry=Retry(3, delay=0),
            on_error=on_error,
        )
    )

    tries = [1 if how == "give up" else min(3, failures + 1) for _, failures, how in items]
    failed = [failures > 0 if how == "give up" else failures > 2 for _, failures, how in items]
    assert runs == tries
    if on_error == "skip":
        assert results == [number for number, has_failed in enumerate(failed) if not has_failed]
        return
    assert [isinstance(result, ItemError) for result in results] == failed
    for number, result in enumerate(results):
        if isinstance(result, ItemError):
            assert (result.index, result.item, result.attempts) == (number, (number, items[number]), tries[number])
        else:
            assert result == number


@settings(deadline=None, max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.0] * 9 + [0.003])), max_size=300), st.integers(1, 5))
def test_threads_keep_the_order_whatever_items_take(items: list[tuple[int, float]], workers: int) -> None:
    results = asyncio.run(tickwork.map(functions.pause_at_random, items, workers=workers))

    assert results == [number for number, _ in items]


# --- how many, and when they are taken ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", ["auto", 1, 10])
async def test_no_more_items_run_at_a_time_than_there_are_workers(chunk_size: Any) -> None:
    running, most = 0, 0

    async def run(_number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await tickwork.map(run, range(60), workers=3, chunk_size=chunk_size)

    assert most == 3


async def test_no_more_threads_run_at_a_time_than_there_are_workers() -> None:
    meeting = threading.Barrier(3)

    def run(_number: int) -> str:
        meeting.wait(5)  # it breaks where fewer run
        return threading.current_thread().name

    assert len(set(await tickwork.map(run, range(9), workers=3, chunk_size=1))) == 3


async def test_a_batch_of_one_item_starts_one_worker() -> None:
    assert len(set(await tickwork.map(functions.process_id, [1], run_in="process", workers=8))) == 1


@pytest.mark.parametrize(("fn", "run_in"), PLACES)
async def test_little_is_taken_in_advance_of_items_that_take_their_time(fn: Callable[[Any], Any], run_in: Any) -> None:
    taken = 0
    ahead: list[int] = []

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1, 41):
            taken = number
            yield number

    def progress(state: tickwork.BatchProgress) -> None:
        ahead.append(taken - state.done)

    await tickwork.map(fn, items(), run_in=run_in, workers=2, chunk_size=1, progress=progress)

    assert max(ahead) <= 5  # two, and in processes two more that are packed in advance; one is just told


async def test_an_item_that_is_tried_again_does_not_wait_for_the_next_one_to_come() -> None:
    gate = asyncio.Event()
    runs = 0

    async def items() -> AsyncIterator[int]:
        yield 1
        await gate.wait()  # which the first item opens

    async def run(number: int) -> int:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError
        gate.set()
        return number

    async with asyncio.timeout(30):
        assert await tickwork.map(run, items(), workers=1, retry=Retry(2, delay=0)) == [1]


async def test_items_may_come_from_what_the_function_finds() -> None:
    found: asyncio.Queue[int | None] = asyncio.Queue()
    found.put_nowait(1)

    async def items() -> AsyncIterator[int]:
        while (number := await found.get()) is not None:
            yield number

    async def run(number: int) -> int:
        await found.put(number + 1 if number < 20 else None)
        return number

    async with asyncio.timeout(30):
        assert await tickwork.map(run, items(), workers=3) == list(range(1, 21))


async def test_slow_items_at_the_end_of_a_large_chunk_are_given_back() -> None:
    def run(number: int) -> str:
        if number >= 2_000:
            time.sleep(NEAR.limit)
        return threading.current_thread().name

    names = await tickwork.map(run, range(2_006), workers=2)

    assert len(set(names[2_000:])) == 2


async def test_items_of_a_fixed_chunk_run_one_after_the_other_in_one_place() -> None:
    def run(_number: int) -> int:
        time.sleep(0.001)
        return threading.get_ident()

    names = await tickwork.map(run, range(12), workers=3, chunk_size=4)

    assert [len(set(names[at : at + 4])) for at in (0, 4, 8)] == [1, 1, 1]


async def test_an_item_is_not_kept_until_the_batch_ends() -> None:
    class Large:
        pass

    gone: list[bool] = []
    items: list[weakref.ref[Large]] = []

    def large() -> Iterator[Large]:
        for _ in range(5):
            item = Large()
            items.append(weakref.ref(item))
            yield item
            del item

    async def run(_item: Large) -> None:
        await asyncio.sleep(0)
        gc.collect()
        gone.append(items[0]() is None)

    await tickwork.map(run, large(), workers=1, chunk_size=1)

    assert gone[-1]


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fn", "run_in"), FAILING)
async def test_raise_raises_what_the_function_raised_and_names_the_item(fn: Callable[[int], Any], run_in: Any) -> None:
    with pytest.raises(ValueError, match="^no 7") as caught:
        await tickwork.map(fn, range(10), run_in=run_in)

    assert caught.value.__notes__ == ["raised for item 7 (7)"]


@pytest.mark.parametrize(("fn", "run_in"), FAILING)
async def test_collect_puts_errors_in_the_places_of_their_items(fn: Callable[[int], Any], run_in: Any) -> None:
    results = await tickwork.map(fn, range(40), run_in=run_in, on_error="collect")

    errors = [result for result in results if isinstance(result, ItemError)]
    assert [result for result in results if not isinstance(result, ItemError)] == [
        number for number in range(40) if number % 10 != 7
    ]
    assert [error.index for error in errors] == [error.item for error in errors] == [7, 17, 27, 37]
    assert str(errors[0]) == "item 7 (7) failed: ValueError: no 7"
    assert [(type(error.error), error.attempts) for error in errors] == [(ValueError, 1)] * 4
    assert errors[0].__cause__ is errors[0].error
    assert 'raise ValueError(f"no {number}")' in errors[0].traceback
    assert errors[0].traceback.endswith("ValueError: no 7\n")


@pytest.mark.parametrize(("fn", "run_in"), FAILING[:2])
async def test_a_traceback_begins_with_the_function(fn: Callable[[int], Any], run_in: Any) -> None:
    (error,) = await tickwork.map(fn, [7], run_in=run_in, on_error="collect", timeout=5)

    assert isinstance(error, ItemError)
    assert error.error.__traceback__ is not None
    assert error.error.__traceback__.tb_frame.f_code.co_name == "tenth_fails"


@pytest.mark.parametrize(("fn", "run_in"), FAILING)
async def test_skip_leaves_failed_items_out_and_says_so_once(
    fn: Callable[[int], Any], run_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    results = await tickwork.map(fn, range(40), run_in=run_in, on_error="skip", chunk_size=40)

    assert results == [number for number in range(40) if number % 10 != 7]
    name = f"{fn.__module__}.tenth_fails"
    (record,) = [record for record in caplog.records if record.name == "tickwork.batch"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{name}: 4 of 40 items failed and were left out; the first: item 7 (7) failed: ValueError: no 7"
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_after_an_error_nothing_else_begins() -> None:
    began: list[int] = []

    async def run(number: int) -> None:
        began.append(number)
        if number == 5:
            raise LookupError
        await asyncio.sleep(0)

    with pytest.raises(LookupError):
        await tickwork.map(run, range(1_000), workers=2, chunk_size=1)

    assert max(began) <= 8


@pytest.mark.parametrize(("fn", "run_in"), PLACES)
async def test_what_the_items_raise_is_raised_when_those_before_have_ended(
    fn: Callable[[Any], Any], run_in: Any
) -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        yield from range(50)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="^no more$"):
        await tickwork.map(fn, items(), run_in=run_in, progress=lambda state: done.append(state.done))

    assert done[-1] == 50


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration(1)], ids=["sync", "async"])
async def test_items_that_raise_the_end_of_another_iterator_do_not_end_quietly(error: Exception) -> None:
    class Items:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise error

    class AsyncItems:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            raise error

    items: Any = AsyncItems() if isinstance(error, StopIteration) else Items()
    with pytest.raises(RuntimeError):
        await tickwork.map(same, items)
    with pytest.raises(RuntimeError):
        async for _ in tickwork.amap(same, items):
            pass


ENDS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration", "StopAsyncIteration", "CancelledError"]


@pytest.mark.parametrize("kind", ENDS)
async def test_what_ends_a_thread_or_a_loop_is_a_failure_of_its_item(kind: str) -> None:
    await check_failure(functions.raise_named, kind, "thread", ItemError)


@pytest.mark.parametrize("kind", ["SystemExit", "StopAsyncIteration", "CancelledError"])
async def test_what_ends_a_task_is_a_failure_of_its_item(kind: str) -> None:
    async def fail(name: str) -> None:
        functions.raise_named(name)

    await check_failure(fail, kind, "loop", ItemError)


async def test_what_ends_a_process_is_a_failure_of_its_item() -> None:
    async with tickwork.Pool(processes=1) as pool:
        for kind in ENDS:
            await check_failure(functions.raise_named, kind, "process", RemoteError, pool)


async def check_failure(
    fn: Callable[[str], Any], kind: str, run_in: Any, expected: type[Exception], pool: tickwork.Pool | None = None
) -> None:
    (collected,) = await tickwork.map(fn, [kind], run_in=run_in, on_error="collect", pool=pool)
    with pytest.raises(expected):
        await tickwork.map(fn, [kind], run_in=run_in, pool=pool)
    with pytest.raises(expected):
        async for _ in tickwork.amap(fn, [kind], run_in=run_in, pool=pool):
            pass

    assert isinstance(collected, ItemError)
    assert kind in str(collected)


async def test_an_item_whose_text_cannot_be_had_is_named_by_its_class() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    async def fail(_item: object) -> None:
        raise ValueError("no")

    (error,) = await tickwork.map(fail, [Mute()], on_error="collect")

    assert str(error).startswith("item 0 (<Mute instance at ")
    assert str(error).endswith(">) failed: ValueError: no")


async def test_a_large_item_is_cut_short_in_messages() -> None:
    async def fail(_item: object) -> None:
        raise LookupError("no")

    with pytest.raises(LookupError) as caught:
        await tickwork.map(fail, ["x" * 10_000_000])

    assert len(caught.value.__notes__[0]) < 120


# --- again -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_failed_items_are_tried_again_and_only_they(run_in: Any, tmp_path: Path) -> None:
    items = [(str(tmp_path), number) for number in range(5)]

    results = await tickwork.map(functions.fails_twice, items, run_in=run_in, retry=Retry(3, delay=0), chunk_size=5)

    assert results == [0, 1, 2, 3, 4]
    assert [functions.runs_of(tmp_path, number) for number in range(5)] == [3] * 5


async def test_the_error_tells_how_often_it_was_tried(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^not yet 4"):
        await tickwork.map(functions.fails_twice, [(str(tmp_path), 4)], retry=Retry(2, delay=0))
    (error,) = await tickwork.map(functions.fails_twice, [("/nowhere", 4)], retry=Retry(2, delay=0), on_error="collect")

    assert isinstance(error, ItemError)
    assert error.attempts == 2
    assert str(error).startswith("item 0 (('/nowhere', 4), tried 2 times) failed: FileNotFoundError: ")


async def test_retry_on_tells_against_what_it_helps() -> None:
    runs: list[str] = []

    async def run(name: str) -> None:
        runs.append(name)
        raise {"value": ValueError, "key": KeyError}[name]

    await tickwork.map(run, ["value", "key"], retry=Retry(3, delay=0), retry_on=ValueError, on_error="skip")

    assert sorted(runs) == ["key", "value", "value", "value"]


@pytest.mark.parametrize("run_in", ["thread", "process"])
async def test_retry_after_and_give_up_work_from_everywhere(run_in: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert await tickwork.map(functions.later, [(str(tmp_path / "a"), 1)], run_in=run_in, retry=2) == [1]
    with pytest.raises(GiveUp, match="^never 2"):
        await tickwork.map(functions.gives_up, [(str(tmp_path / "b"), 2)], run_in=run_in, retry=5)

    assert functions.runs_of(tmp_path / "b", 2) == 1


# --- how long an item may take -----------------------------------------------------------------------------------


async def test_an_item_on_the_loop_that_takes_too_long_is_cancelled() -> None:
    ended: list[int] = []

    async def run(number: int) -> int:
        if number == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)
        return number

    results = await tickwork.map(run, range(3), timeout=0.02, on_error="collect", chunk_size=3)

    assert results[0::2] == [0, 2]
    assert str(results[1]) == "item 1 (1) failed: TimeoutError: it ran longer than its timeout of 0.02 s"
    assert ended == [1]


async def test_a_timeout_that_the_function_raises_itself_is_its_own() -> None:
    async def run(_number: int) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="^mine"):
        await tickwork.map(run, [1], timeout=5)


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("tickwork-thread")]


async def test_an_item_in_a_thread_that_takes_too_long_has_failed_and_those_around_it_run_once(
    wait_until: Any,
) -> None:
    go = threading.Event()
    runs: list[int] = []

    def run(number: int) -> int:
        runs.append(number)
        if number == 2:
            go.wait(10)
        return number

    batch = asyncio.ensure_future(tickwork.map(run, range(6), workers=2, timeout=1, on_error="collect", chunk_size=4))
    results = await batch
    go.set()
    await wait_until(no_threads)

    assert [result for result in results if not isinstance(result, ItemError)] == [0, 1, 3, 4, 5]
    assert str(results[2]) == "item 2 (2) failed: TimeoutError: it ran longer than its timeout of 1 s"
    assert sorted(runs) == list(range(6))


async def test_a_thread_that_overran_keeps_its_place_until_it_returns() -> None:
    go = threading.Event()
    running, most = 0, 0
    lock = threading.Lock()
    states: list[tickwork.BatchProgress] = []

    def run(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if number == 0:
            go.wait(10)
        with lock:
            running -= 1

    def progress(state: tickwork.BatchProgress) -> None:
        states.append(state)
        if state.failed:  # time was up for the first: only now its thread may end
            go.set()

    await tickwork.map(run, range(10), workers=1, timeout=1, on_error="skip", progress=progress)

    assert most == 1
    assert (states[-1].done, states[-1].failed) == (10, 1)


async def test_an_item_that_overran_in_a_thread_is_tried_again(wait_until: Any) -> None:
    go = threading.Event()
    runs = itertools.count(1)

    def run(number: int) -> int:
        if next(runs) == 1:
            go.wait(10)
        return number

    assert await tickwork.map(run, [5], workers=2, timeout=1, retry=Retry(2, delay=0)) == [5]
    go.set()
    await wait_until(no_threads)


# --- what functions see and do -----------------------------------------------------------------------------------


async def test_context_variables_reach_the_loop_and_threads() -> None:
    variable.set("set")

    async def read(_item: object) -> str:
        return variable.get()

    assert await tickwork.map(read, [1, 2]) == ["set"] * 2
    assert await tickwork.map(lambda _: variable.get(), [1, 2]) == ["set"] * 2


async def test_context_variables_that_one_item_sets_are_not_seen_by_the_next() -> None:
    variable.set("ours")

    async def on_loop(item: int) -> str:
        found = variable.get()
        variable.set(f"set by {item}")
        await asyncio.sleep(0)
        assert variable.get() == f"set by {item}"
        return found

    def in_thread(item: int) -> str:
        found = variable.get()
        variable.set(f"set by {item}")
        return found

    assert await tickwork.map(on_loop, range(20), workers=2, timeout=5) == ["ours"] * 20
    assert await tickwork.map(on_loop, range(20), workers=2, chunk_size=20) == ["ours"] * 20
    assert await tickwork.map(in_thread, range(20), workers=2, chunk_size=20) == ["ours"] * 20
    assert await tickwork.map(functions.set_variable, range(20), run_in="process", chunk_size=20) == ["unset"] * 20
    assert variable.get() == "ours"


async def test_a_plain_function_runs_on_the_loop_where_that_is_asked_for() -> None:
    assert await tickwork.map(lambda _: threading.get_ident(), [1], run_in="loop") == [threading.get_ident()]


async def test_a_plain_function_that_makes_coroutines_has_them_run() -> None:
    running, most = 0, 0

    async def wait(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return functions.tenth_fails(number)

    results = await tickwork.map(lambda number: wait(number), range(40), workers=3, on_error="skip", timeout=5)

    assert results == [number for number in range(40) if number % 10 != 7]
    assert most == 3


async def test_a_coroutine_that_a_plain_function_made_has_a_timeout_and_can_be_cancelled() -> None:
    async def wait(number: int) -> int:
        if number == 1:
            await asyncio.Event().wait()
        return number

    results = await tickwork.map(lambda number: wait(number), range(3), chunk_size=3, timeout=1, on_error="collect")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await tickwork.map(lambda number: wait(number), [1, 1, 1], chunk_size=3)

    assert results[0::2] == [0, 2]
    assert str(results[1]) == "item 1 (1) failed: TimeoutError: it ran longer than its timeout of 1 s"


async def test_a_coroutine_of_a_batch_that_was_cancelled_is_closed(wait_until: WaitUntil) -> None:
    go, made = threading.Event(), []

    async def work(_number: int) -> None: ...

    def make(number: int) -> Coroutine[Any, Any, None]:
        made.append(work(number))
        if number:
            go.wait(10)
        return made[-1]

    batch = asyncio.create_task(tickwork.map(make, range(3), chunk_size=3))
    await wait_until(lambda: len(made) == 2)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    go.set()

    await wait_until(lambda: {inspect.getcoroutinestate(each) for each in made} == {inspect.CORO_CLOSED})
    assert len(made) == 2


async def test_a_coroutine_that_comes_after_the_timeout_of_its_item_is_closed(wait_until: WaitUntil) -> None:
    go, made = threading.Event(), []

    async def work(number: int) -> int:
        return number

    def make(number: int) -> Coroutine[Any, Any, int]:
        if number:
            go.wait(10)
        made.append(work(number))
        return made[-1]

    results = await tickwork.map(make, range(2), chunk_size=2, timeout=1, on_error="collect")
    go.set()

    assert results[0] == 0
    assert isinstance(results[1], tickwork.ItemError)
    await wait_until(lambda: len(made) == 2)
    await wait_until(lambda: inspect.getcoroutinestate(made[1]) == inspect.CORO_CLOSED)


async def test_functions_that_never_wait_do_not_hold_the_loop() -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def work(_number: int) -> None:
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass

    turning = asyncio.ensure_future(turn())
    await tickwork.map(work, range(100))
    turning.cancel()

    assert turns >= 10


async def test_a_map_inside_of_a_map() -> None:
    async def outer(number: int) -> list[int]:
        return await tickwork.map(functions.double, range(number))

    assert await tickwork.map(outer, range(5), workers=2) == [[2 * n for n in range(m)] for m in range(5)]


async def test_a_map_inside_of_a_thread_of_a_map() -> None:
    results = await tickwork.map(lambda number: asyncio.run(tickwork.map(same, range(number))), range(4))

    assert results == [list(range(number)) for number in range(4)]


async def test_a_map_inside_of_a_job_tells_the_job_of_its_progress() -> None:
    app = tickwork.App()

    @app.task()
    async def batch() -> int:
        return sum(await tickwork.map(functions.double, range(100), progress=True))

    async with app:
        job = await batch.enqueue()

        assert await job.result() == 9_900
        progress = (await app.jobs.get(job.id)).progress

    assert progress is not None
    assert (progress.done, progress.total) == (100, 100)


async def test_two_batches_at_a_time_do_not_mix() -> None:
    one, two = await asyncio.gather(
        tickwork.map(functions.same, range(200)), tickwork.map(same, (-number for number in range(200)))
    )

    assert one == list(range(200))
    assert two == [-number for number in range(200)]


async def test_a_batch_whose_threads_all_overran_says_so_and_goes_on_when_one_returns(
    caplog: pytest.LogCaptureFixture, wait_until: Any
) -> None:
    go = threading.Event()

    def wait(number: int) -> int:
        if number < 2:
            go.wait(10)
        return number

    batch = asyncio.ensure_future(tickwork.map(wait, range(3), workers=2, timeout=1, on_error="collect"))
    await wait_until(lambda: caplog.messages)
    go.set()
    results = await batch

    assert [isinstance(result, ItemError) for result in results] == [True, True, False]
    (message,) = caplog.messages
    assert message.endswith(
        "wait: all 2 threads are at items that ran longer than their timeout of 1 s and cannot be stopped; the "
        "batch goes on when one returns"
    )


async def test_one_exception_that_several_items_raise_names_the_item_it_is_raised_for() -> None:
    shared = ValueError("shared")

    async def fail(_number: int) -> None:
        raise shared

    results = await tickwork.map(fail, [1, 2, 3], on_error="collect")
    for result in results:
        assert isinstance(result, ItemError)
        assert result.original() is shared

    assert shared.__notes__ == ["raised for item 2 (3)"]


async def test_a_task_brings_its_own_timeout_and_retry(tmp_path: Path) -> None:
    tries: list[int] = []

    @tickwork.task(retry=tickwork.Retry(3, delay=0), retry_on=KeyError)
    async def sometimes(number: int) -> int:
        tries.append(number)
        if len(tries) < 3:
            raise KeyError(number)
        return number

    @tickwork.task(timeout=0.01)
    async def never(_number: int) -> None:
        await asyncio.Event().wait()

    assert await tickwork.map(sometimes, [7]) == [7]
    assert tries == [7, 7, 7]
    with pytest.raises(TimeoutError):
        await tickwork.map(never, [1])
    with pytest.raises(KeyError):
        tries.clear()
        await tickwork.map(sometimes, [7], retry=1)


async def test_a_pool_brings_its_processes_and_an_executor_leaves_coroutines_to_the_loop() -> None:
    async def ident(_item: int) -> int:
        return threading.get_ident()

    async with tickwork.Pool(processes=1) as pool:
        assert await tickwork.map(functions.process_id, [1], pool=pool) == pool.processes().pids
    with ThreadPoolExecutor(1) as executor:
        assert await tickwork.map(ident, [1], executor=executor) == [threading.get_ident()]
