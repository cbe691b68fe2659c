"""Bad input: whole messages, before anything begins."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

import tickwork
from tickwork import Pool, Processes
from tickwork.batch.options import plan_of
from tickwork.errors import InvalidOption, NotRunning

from . import functions

WORKERS = "workers must be a whole number of at least 1, got "
CHUNK_SIZE = 'chunk_size must be "auto" or a whole number of at least 1, got '
TIMEOUT = 'timeout must be a duration such as "30s", "1h30m", a number of seconds or a timedelta, got '
OPTION = "option must be one that map knows, got "
BAD: list[tuple[dict[str, Any], str]] = [
    ({"workers": 0}, WORKERS + "0"),
    ({"workers": -1}, WORKERS + "-1"),
    ({"workers": True}, WORKERS + "True"),
    ({"workers": 2.0}, WORKERS + "2.0"),
    ({"chunk_size": 0}, CHUNK_SIZE + "0"),
    ({"chunk_size": "Auto"}, CHUNK_SIZE + "'Auto'"),
    ({"chunk_size": None}, CHUNK_SIZE + "None"),
    ({"chunk_size": True}, CHUNK_SIZE + "True"),
    ({"timeout": -1}, TIMEOUT + "-1; it must not be negative"),
    ({"timeout": 0}, TIMEOUT + "0; it must be more than zero"),
    ({"timeout": "5 parsecs"}, TIMEOUT + "'5 parsecs'; unknown unit 'parsecs'; did you mean 'secs'?"),
    ({"retry": 0}, "retry must be a whole number of at least 1, got 0"),
    ({"retry_on": 5}, "retry_on must be an exception class, or several, got 5"),
    ({"max_deaths": 0}, "max_deaths must be a whole number of at least 1, got 0"),
    ({"on_error": "ignore"}, "on_error must be one of 'raise', 'collect', 'skip', got 'ignore'"),
    ({"run_in": "threads"}, "run_in must be one of None, 'loop', 'thread', 'process', 'executor', got 'threads'"),
    ({"worker": 5}, OPTION + "'worker'; did you mean 'workers'?"),
    ({"on_eror": "skip"}, OPTION + "'on_eror'; did you mean 'on_error'?"),
    ({"colour": "blue"}, OPTION + "'colour'; leave it out"),
    ({"pool": 5}, "pool must be a Pool or an App, got 5"),
    ({"processes": 0}, "processes must be a whole number of at least 1 or Processes(...), got 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: repr(value) if isinstance(value, dict) else "")
async def test_a_wrong_option_is_refused_before_anything_is_taken(options: dict[str, Any], message: str) -> None:
    items = iter([1, 2, 3])
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(functions.same, items, **options)
    with pytest.raises(InvalidOption) as also_caught:
        tickwork.amap(functions.same, items, **options)

    assert str(caught.value) == str(also_caught.value) == message
    assert list(items) == [1, 2, 3]


@pytest.mark.parametrize("items", [None, 5, functions.same])
async def test_items_that_cannot_be_iterated_over_are_refused(items: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(functions.same, items)

    assert str(caught.value) == f"items must be a list, an iterator or an async iterator, got {items!r}"


async def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map([1, 2], functions.same)  # type: ignore[call-overload]

    assert str(caught.value) == "fn must be a function, got [1, 2]"


async def test_a_function_that_gives_items_instead_of_one_result_is_refused() -> None:
    def numbers(_item: object) -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(numbers, [1])

    assert str(caught.value) == (
        "fn must be a function that returns, got"
        " 'test_a_function_that_gives_items_instead_of_one_result_is_refused.<locals>.numbers';"
        " nobody would iterate a generator"
    )


async def test_a_coroutine_function_in_a_process_is_refused() -> None:
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(asyncio.sleep, [1], run_in="process")

    assert (
        str(caught.value) == "function must be a plain function, got 'asyncio.tasks.sleep'; async ones run in the loop"
    )


def test_there_are_as_many_workers_as_this_process_may_use_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)

    assert plan_of(functions.same, "raise", {"run_in": "process"}).workers == 3
    assert plan_of(functions.same, "raise", {"run_in": "thread"}).workers == 3 + 4


async def test_a_pool_is_refused_where_no_process_runs() -> None:
    pool = Pool(processes=1)
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(functions.same, [1], run_in="thread", pool=pool)

    assert str(caught.value) == (
        f'pool must be left out, got {pool!r}; only its processes are used, by a function with run_in="process"'
    )


async def test_processes_are_refused_where_none_runs() -> None:
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(functions.same, [1], run_in="thread", processes=2)

    message = f'processes must be left out, got {Processes(2)!r}; they run functions with run_in="process"'
    assert str(caught.value) == message


async def test_a_pool_has_its_own_processes() -> None:
    with pytest.raises(InvalidOption) as caught:
        await tickwork.map(functions.same, [1], pool=Pool(processes=1), processes=2)

    assert str(caught.value) == "processes must be left out, got 2; the pool has its own"


async def test_an_app_that_does_not_run_is_refused_before_anything_is_taken() -> None:
    items = iter([1, 2, 3])
    with pytest.raises(NotRunning) as caught:
        await tickwork.map(functions.same, items, pool=tickwork.App())

    assert str(caught.value) == "the app is not running; use `async with app`, app.run() or `tickwork run`"
    assert list(items) == [1, 2, 3]


async def test_a_pool_that_does_not_run_is_refused_before_anything_is_taken() -> None:
    items = iter([1, 2, 3])
    pool = Pool(processes=1)
    with pytest.raises(NotRunning) as before:
        await tickwork.map(functions.same, items, run_in="process", pool=pool)
    async with pool:
        pass
    with pytest.raises(NotRunning) as after:
        await tickwork.map(functions.same, items, run_in="process", pool=pool)

    message = "the pool is not running; use `async with Pool(...) as pool`"
    assert str(before.value) == str(after.value) == message
    assert list(items) == [1, 2, 3]
